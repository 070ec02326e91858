"""A client that starts with a journal full of pending settlements: duration of the start, and cost of the replay.

python -m benchmarks.backlog PORT COUNT JOURNAL       prints one line of JSON
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.floors import KEY
from benchmarks.process import run

_RUN = "import runpy, sys; sys.argv[0] = 'backlog'; runpy.run_module('benchmarks.backlog', run_name='__main__')"


def measure(port: int, count: int, journal: str) -> dict[str, Any]:
    """Start with `count` records. Measure construction (ms), threads, MiB, and CPU microseconds per record."""
    output: dict[str, Any] = run(_RUN, port, count, journal).output
    return output


def _fill(base_url: str, count: int, journal: str) -> None:
    from cycles._core.settlement.record import Record
    from cycles._journal.journal import Journal

    writer = Journal(Path(journal), base_url=base_url, tenant="acme", api_key=KEY, report=print)
    actual = {"unit": "USD_MICROCENTS", "amount": 3_200_000}
    for number in range(count):
        body = {"idempotency_key": f"key-{number}", "actual": actual}
        event = body | {"subject": {"tenant": "acme"}, "action": {"kind": "llm.completion", "name": "gpt-4o"}}
        writer.save(
            Record(reservation_id=f"rsv-{number}", base_url=base_url, commit_body=body, event_fallback_body=event)
        )


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class _Watch(threading.Thread):
    """Sample the maximum of threads and memory, without this thread."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.threads = 0
        self.mib = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.005):
            self.threads = max(self.threads, threading.active_count() - 2)
            self.mib = max(self.mib, _resident_mib())


def _main(port: int, count: int, journal: str) -> None:
    import cycles
    from benchmarks.ours import ACTION, client

    _fill(f"http://127.0.0.1:{port}", count, journal)
    with client(port, f"{journal}-warm") as warm, warm.reserve(cycles.usd(1), action=ACTION) as guard:
        guard.commit(cycles.usd(1))
    before, watch = _resident_mib(), _Watch()
    watch.start()
    begun, spent = time.perf_counter(), time.process_time()
    ours = client(port, journal)
    started = time.perf_counter() - begun
    with ours.reserve(cycles.usd(1), action=ACTION) as guard:
        guard.commit(cycles.usd(1))
    first = time.perf_counter() - begun
    report = ours.flush(timeout=120.0)
    cpu = time.process_time() - spent
    watch.over.set()
    watch.join()
    ours.close()
    result = {
        "records": count,
        "start_ms": started * 1000,
        "first_call_ms": first * 1000,
        "all_settled_s": time.perf_counter() - begun,
        "left": report.pending,
        "threads": watch.threads,
        "mib": max(0.0, watch.mib - before),
        "cpu_us_per_record": cpu / count * 1e6,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
