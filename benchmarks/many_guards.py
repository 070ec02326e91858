"""Thousands of concurrent guards: how many leases lapse, and the cost of threads, memory and heartbeats.

python -m benchmarks.many_guards [sync] [async] [chaos] [--quick]

Each figure comes from a separate process. The delay of a heartbeat is measured from the planned time (`due`) to the
moment its request was sent (`sent`), so it includes the wait for a worker, a task or a connection.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.live import resident_kib
from benchmarks.process import ROOT, read_json, run

EVERY_S = 10.0
TTL_MS = 14_667  # one heartbeat every 10 s if an extend renews the lease to this: 14,667 - 2 * 1,834 - 1,000
HEARTBEATS = 3
CHAOS_TTL_MS = 8_000  # one heartbeat every 5 s
CHAOS_S = 60.0
CHAOS_FAULTS = 0.25
GUARDS = {"sync": 5_000, "async": 10_000, "chaos": 1_000}

_RUN = "import sys; from benchmarks.many_guards import measured; measured(*sys.argv[1:])"


def measure(kind: str, guards: int) -> dict[str, Any]:
    """Measure one kind (`sync`, `async` or `chaos`) in a new process, with the server in another process."""
    with server(CHAOS_FAULTS if kind == "chaos" else 0.0) as port:
        output: dict[str, Any] = run(_RUN, kind, port, guards).output
    return output


@contextlib.contextmanager
def server(faults: float) -> Iterator[int]:
    """Start the lease server in a separate process, and yield its port."""
    command = [sys.executable, "-m", "benchmarks.lease_server", str(faults)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def measured(kind: str, port: str, guards: str) -> None:
    """Run in the measured process, and print one line of JSON."""
    logging.disable(logging.CRITICAL)  # chaos would log each failure
    body = {"sync": _sync, "async": lambda *how: asyncio.run(_async(*how)), "chaos": _chaos}[kind]
    print(json.dumps(body(int(port), int(guards))))


class _Heartbeats:
    """Delay of each heartbeat, in milliseconds."""

    def __init__(self, client: Any) -> None:
        from cycles._flows.heartbeat_state import Heartbeat

        self.late_ms: list[float] = []
        self._due: dict[str, float] = {}
        begin, wire = Heartbeat.begin, client._runtime().channel.wire
        classify = wire.classify_response

        def begun(heartbeat: Any) -> Any:
            step = begin(heartbeat)
            if step is not None:
                self._due[heartbeat.key] = step.due_ms
            return step

        def classified(call: Any, reply: Any) -> Any:
            due = self._due.pop(call.body["idempotency_key"], None)
            if due is not None:
                self.late_ms.append(reply.sent * 1000 - due)
            return classify(call, reply)

        Heartbeat.begin = begun  # type: ignore[method-assign, assignment]
        wire.classify_response = classified

    def clear(self) -> None:
        self.late_ms.clear()


def _client(port: int) -> Any:
    from benchmarks.ours import client

    return client(port, None)


def _reservation(client: Any, ttl_ms: int) -> Any:
    import cycles

    return client.reserve(cycles.tokens(1), action=("test", "work"), ttl_ms=ttl_ms)


def _sync(port: int, guards: int) -> dict[str, Any]:
    with _client(port) as client:
        heartbeats = _Heartbeats(client)
        _reservation(client, 60_000).acquire().release()
        before = resident_kib()
        live = [_reservation(client, TTL_MS).acquire() for _ in range(guards)]
        during, begun, most = resident_kib(), time.process_time(), 0
        heartbeats.clear()
        end = time.monotonic() + HEARTBEATS * EVERY_S + 2
        while time.monotonic() < end:
            time.sleep(0.25)
            most = max(most, threading.active_count())
        return _result(port, guards, before, during, time.process_time() - begun, most, heartbeats, live)


async def _async(port: int, guards: int) -> dict[str, Any]:
    async with _client(port) as client:
        heartbeats = _Heartbeats(client)
        await (await _reservation(client, 60_000)).release()
        before = resident_kib()
        live = [await _reservation(client, TTL_MS) for _ in range(guards)]
        during, begun, most = resident_kib(), time.process_time(), 0
        heartbeats.clear()
        end = time.monotonic() + HEARTBEATS * EVERY_S + 2
        while time.monotonic() < end:
            await asyncio.sleep(0.25)
            most = max(most, threading.active_count())
        return _result(port, guards, before, during, time.process_time() - begun, most, heartbeats, live)


def _result(
    port: int,
    guards: int,
    before: float,
    during: float,
    cpu_s: float,
    threads: int,
    heartbeats: _Heartbeats,
    live: list[Any],
) -> dict[str, Any]:
    late = sorted(heartbeats.late_ms)
    stats = read_json(port, "/stats")
    return {
        "guards": guards,
        "lapsed": stats["lapsed"],
        "not_active": sum(guard.state != "active" for guard in live),
        "heartbeats": len(late),
        "fewest_heartbeats": stats["fewest_extends"],
        "threads": threads,
        "kib_per_guard": (during - before) / guards,
        "cpu_ms_per_heartbeat": cpu_s / len(late) * 1000,
        "late_ms_p99": late[int(len(late) * 0.99)],
        "late_ms_max": late[-1],
    }


def _chaos(port: int, guards: int) -> dict[str, Any]:
    """Run for a minute with faults: a lease may be lost only if no safe retry was left or Retry-After was too long."""
    with _client(port) as client:
        lost: set[str] = set()
        client.on_event(
            lambda event: lost.update({event.reservation_id} if type(event).__name__ == "LeaseLost" else ())
        )
        live = [_reservation(client, CHAOS_TTL_MS).acquire() for _ in range(guards)]
        time.sleep(CHAOS_S)
        stats = read_json(port, "/stats")
        given_up = {guard.reservation_id for guard in live if guard.state == "lost"}
    return {
        "guards": guards,
        "extends": stats["extends"],
        "lost": len(given_up),
        "lost_needlessly": len(given_up - set(stats["hopeless"])),
        "lost_silently": len(given_up - lost),
        "lapsed_unnoticed": max(0, stats["lapsed"] - len(given_up)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_guards")
    parser.add_argument("kinds", nargs="*", default=list(GUARDS), help="sync, async, chaos")
    parser.add_argument("--quick", action="store_true", help="a tenth of the guards")
    options = parser.parse_args()
    for kind in options.kinds:
        figures = measure(kind, GUARDS[kind] // (10 if options.quick else 1))
        print(kind, json.dumps(figures))


if __name__ == "__main__":
    main()
