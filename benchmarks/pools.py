"""What pools and `commit(wait=False)` cost, beside a reserve and commit pair; and thousands of tasks on one client."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import cycles
from benchmarks import ours, process
from benchmarks.measure import Case, interleave

ESTIMATE, ACTUAL = cycles.usd("0.01"), cycles.usd("0.004")
MANY: Final = 50  # pooled calls that count as one, so that a round of them can be measured
FAR_MS: Final = 5.0
DISTANT_MS: Final = 20.0  # in which the client makes thousands of connections and requests at the same time
WAITED_US: Final = 4_000.0  # a call that took longer waited for the server 5 ms away
MiB: Final = 1024 * 1024


def measure(port: int, journal: str, rounds: int, calls: int, tasks: list[int]) -> dict[str, Any]:
    """Return the figures of all tables."""
    with process.stub(FAR_MS) as far:
        found = {"pools": _cpu(port, journal, rounds, calls), "far": _far(far, journal, rounds)}
    found["pools"]["requests per 10,000 calls"] = {"figure": _requests(port, journal)}
    with process.stub(DISTANT_MS) as distant:
        found["tasks"] = {
            f"{count} tasks, {name}": asyncio.run(
                _tasks(distant, f"{journal}/tasks-{name}-{count}", count, pooled=name == "pooled")
            )
            for count in tasks
            for name in ("guards", "pooled")
        }
    return found


def _cpu(port: int, journal: str, rounds: int, calls: int) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(ours.client(port, journal + "/pool"))
        pool = stack.enter_context(client.pool(cycles.usd(400), action=ours.ACTION))
        pair = stack.enter_context(ours.guard(port, journal + "/pair"))

        def pooled() -> None:
            for _ in range(MANY):
                with pool.reserve(ESTIMATE) as guard:
                    guard.commit(ACTUAL)

        cases = [Case("pair", pair), Case("pooled", pooled)]
        found: dict[str, Any] = {}
        for workers in (1, 16):
            series = interleave(cases, workers=workers, calls=max(calls, workers * 4), rounds=rounds)
            ratio = series.ratio("pooled", "pair")
            assert ratio is not None
            name = "1 thread" if workers == 1 else f"{workers} threads"
            found[f"CPU, pooled call / pair, {name}"] = {"figure": ratio.median / MANY}
            found[f"CPU us, pooled call, {name}"] = {"figure": series.cpu_us("pooled") / MANY}
        return found


def _requests(port: int, journal: str) -> float:
    with ours.client(port, journal + "/requests") as client:
        chunk = cycles.usd(4)  # a thousand calls
        with client.pool(cycles.usd(16), action=ours.ACTION, chunk=chunk) as pool:
            process.counts(port)
            for _ in range(10_000):
                with pool.reserve(ESTIMATE) as guard:
                    guard.commit(ACTUAL)
        return float(process.counts(port)["requests"])


def _far(port: int, journal: str, rounds: int) -> dict[str, Any]:
    """Measure against a server 5 ms away."""
    with ours.client(port, journal + "/far") as client:
        with client.pool(cycles.usd(16), action=ours.ACTION, chunk=cycles.usd(4)) as pool:
            latencies = []
            for _ in range(5_000):
                begun = time.perf_counter()
                with pool.reserve(ESTIMATE) as guard:
                    guard.commit(ACTUAL)
                latencies.append((time.perf_counter() - begun) * 1e6)

        def call(wait: bool) -> None:
            with client.reserve(ESTIMATE, action=ours.ACTION) as guard:
                guard.commit(ACTUAL, wait=wait)

        wall, cpu = [], []
        for _ in range(rounds):
            times = [_timed(lambda wait=wait: call(wait), client) for wait in (True, False)]  # type: ignore[misc]
            wall.append(times[1][0] / times[0][0])
            cpu.append(times[1][1] / times[0][1])
    return {
        "p50 us of a pooled call": {"figure": statistics.median(latencies)},
        "calls of 5,000 that waited": {"figure": float(sum(each > WAITED_US for each in latencies))},
        "wall, wait=False / wait=True": {"figure": statistics.median(wall)},
        "CPU, wait=False / wait=True": {"figure": statistics.median(cpu)},
    }


def _timed(call: Callable[[], None], client: cycles.Cycles, calls: int = 60) -> tuple[float, float]:
    """Return wall and CPU seconds of some calls; the CPU includes what they leave to the background."""
    begun, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    wall = time.perf_counter() - begun
    client.flush()
    return wall, time.process_time() - cpu


async def _tasks(port: int, journal: str, count: int, *, pooled: bool) -> dict[str, float]:
    """Run many tasks at the same time, each with one guarded call and 50 ms of work in it."""
    memory = _resident()
    async with ours.client(port, journal) as client:
        pool = client.pool(cycles.usd(4 * count // 100 + 4), action=ours.ACTION)
        make: Callable[[], Any] = (lambda: pool.reserve(ESTIMATE)) if pooled else _reserve(client)
        latencies: list[float] = []
        settled = 0

        async def work() -> None:
            nonlocal settled
            begun = time.perf_counter()
            async with make() as guard:
                entered = time.perf_counter()
                await asyncio.sleep(0.05)
                left = time.perf_counter()
                await guard.commit(ACTUAL)
            latencies.append(((entered - begun) + (time.perf_counter() - left)) * 1e3)
            settled += 1

        cpu, begun = time.process_time(), time.perf_counter()
        ends = await asyncio.gather(*(work() for _ in range(count)), return_exceptions=True)
        await pool.aclose()
        wall, used = time.perf_counter() - begun, time.process_time() - cpu
        pending = len(await client.aio.pending())
    latencies.sort()
    return {
        "settled": settled,
        "failed": sum(end is not None for end in ends),
        "pending": pending,
        "calls_s": count / wall,
        "cpu_us": used / count * 1e6,
        "p50_ms": latencies[settled // 2],
        "p99_ms": latencies[settled * 99 // 100],
        "mib": max(0.0, _resident() - memory) / MiB,
        "threads": threading.active_count(),
    }


def _reserve(client: cycles.Cycles) -> Callable[[], Awaitable[Any]]:
    return lambda: client.reserve(ESTIMATE, action=ours.ACTION)


def _resident() -> float:
    """Return the largest memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)
