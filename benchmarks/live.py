"""Memory, threads and cost per guard with many live guards: each figure comes from a separate process.

python -m benchmarks.live sync|async|sibling PORT COUNT JOURNAL       prints one line of JSON
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.floors import KEY
from benchmarks.process import run

_RUN = "import runpy, sys; sys.argv[0] = 'live'; runpy.run_module('benchmarks.live', run_name='__main__')"


def measure(kind: str, port: int, count: int, journal: str) -> dict[str, Any]:
    """Measure `count` live guards of a kind: KiB, threads, and CPU microseconds to open and to commit each."""
    output: dict[str, Any] = run(_RUN, kind, port, count, journal).output
    return output


def resident_kib() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024


def _result(count: int, before: float, during: float, opening: float, closing: float, threads: int) -> dict[str, Any]:
    return {
        "guards": count,
        "kib_per_guard": (during - before) / count,
        "threads": threads,
        "open_cpu_us": opening / count * 1e6,
        "commit_cpu_us": closing / count * 1e6,
    }


def _sync(port: int, count: int, journal: str) -> dict[str, Any]:
    import cycles
    from benchmarks.ours import ACTION, client

    with client(port, journal) as ours:
        estimate, actual = cycles.usd("0.05"), cycles.usd("0.032")
        ours.reserve(estimate, action=ACTION).acquire().commit(actual)
        before, begun = resident_kib(), time.process_time()
        guards = [ours.reserve(estimate, action=ACTION).acquire() for _ in range(count)]
        opening, during, threads = time.process_time() - begun, resident_kib(), threading.active_count()
        begun = time.process_time()
        for guard in guards:
            guard.commit(actual)
        return _result(count, before, during, opening, time.process_time() - begun, threads)


async def _async(port: int, count: int, journal: str) -> dict[str, Any]:
    import cycles
    from benchmarks.ours import ACTION, client

    async with client(port, journal) as ours:
        estimate, actual = cycles.usd("0.05"), cycles.usd("0.032")
        await (await ours.reserve(estimate, action=ACTION)).commit(actual)
        before, begun = resident_kib(), time.process_time()
        guards = [await ours.reserve(estimate, action=ACTION) for _ in range(count)]
        opening, during, threads = time.process_time() - begun, resident_kib(), threading.active_count()
        begun = time.process_time()
        for guard in guards:
            await guard.commit(actual)
        return _result(count, before, during, opening, time.process_time() - begun, threads)


def _sibling(port: int, count: int, journal: str) -> dict[str, Any]:
    from benchmarks.sibling import module

    runcycles = module()
    config = runcycles.CyclesConfig(
        base_url=f"http://127.0.0.1:{port}", api_key=KEY, tenant="acme", journal_dir=journal
    )
    with runcycles.CyclesClient(config) as client:

        def one() -> Any:
            return client.stream_reservation(
                action=runcycles.Action(kind="llm.completion", name="gpt-4o"),
                estimate=runcycles.Amount(unit=runcycles.Unit.USD_MICROCENTS, amount=5_000_000),
            ).__enter__()

        one().__exit__(None, None, None)
        before, begun = resident_kib(), time.process_time()
        guards = [one() for _ in range(count)]
        opening, during, threads = time.process_time() - begun, resident_kib(), threading.active_count()
        begun = time.process_time()
        for guard in guards:
            guard.__exit__(None, None, None)
        return _result(count, before, during, opening, time.process_time() - begun, threads)


def _main(kind: str, port: str, count: str, journal: str) -> None:
    kinds: dict[str, Callable[[int, int, str], dict[str, Any]]] = {
        "sync": _sync,
        "async": lambda *how: asyncio.run(_async(*how)),
        "sibling": _sibling,
    }
    print(json.dumps(kinds[kind](int(port), int(count), journal)))


if __name__ == "__main__":
    _main(*sys.argv[1:5])
