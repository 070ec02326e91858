"""Interleaved measurement: in every round each case runs once, and a ratio is taken within its round.

CPU is that of the whole process (threads included), so work that a case passes to other threads counts.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple


class Case(NamedTuple):
    """A function that makes one guarded call, or one call of a reference."""

    name: str
    call: Callable[[], object]


class AsyncCase(NamedTuple):
    name: str
    call: Callable[[], Awaitable[object]]


class Sample(NamedTuple):
    """One round of one case."""

    cpu_us: float
    """CPU microseconds per call."""
    wall_s: float
    calls: int
    latencies_us: list[float]
    failed: int = 0


class Ratio(NamedTuple):
    """Median over the rounds, with the middle half as its spread."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


class Series:
    """All samples of one setting (threads or tasks at a time), by case."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.samples: dict[str, list[Sample]] = {}

    def add(self, name: str, sample: Sample) -> None:
        self.samples.setdefault(name, []).append(sample)

    def cpu_us(self, name: str) -> float:
        return statistics.median(sample.cpu_us for sample in self.samples[name])

    def per_second(self, name: str) -> float:
        return statistics.median(sample.calls / sample.wall_s for sample in self.samples[name])

    def latency_us(self, name: str, percent: int) -> float:
        latencies = sorted(each for sample in self.samples[name] for each in sample.latencies_us)
        return latencies[min(len(latencies) - 1, len(latencies) * percent // 100)]

    def failed(self, name: str) -> int:
        return sum(sample.failed for sample in self.samples[name])

    def ratio(self, name: str, to: str, of: Callable[[Sample], float] = lambda sample: sample.cpu_us) -> Ratio | None:
        """Return `name` divided by `to`, round by round; None if one of them was not measured."""
        if name not in self.samples or to not in self.samples:
            return None
        pairs = zip(self.samples[name], self.samples[to], strict=True)
        ratios = sorted(of(ours) / of(theirs) for ours, theirs in pairs)
        quarter = len(ratios) // 4
        return Ratio(statistics.median(ratios), ratios[quarter], ratios[-1 - quarter])


def interleave(cases: list[Case], *, workers: int, calls: int, rounds: int) -> Series:
    """Run `calls` calls of every case in each of `rounds` rounds, spread over `workers` threads."""
    series = Series(workers)
    for case in cases:
        _run(case, workers, workers * 5)  # connections, caches and code paths are warm for every case
    for _ in range(rounds):
        for case in cases:
            series.add(case.name, _run(case, workers, calls))
    return series


async def interleave_async(cases: list[AsyncCase], *, workers: int, calls: int, rounds: int) -> Series:
    """Run the cases as `interleave` does, with tasks."""
    series = Series(workers)
    for case in cases:
        await _run_async(case, workers, workers * 5)
    for _ in range(rounds):
        for case in cases:
            series.add(case.name, await _run_async(case, workers, calls))
    return series


def _run(case: Case, workers: int, calls: int) -> Sample:
    latencies: list[float] = []
    failures: list[Exception] = []
    each = calls // workers

    def work() -> None:
        call, clock = case.call, time.perf_counter
        for _ in range(each):
            begun = clock()
            try:
                call()
            except (
                Exception
            ) as error:  # httpx's pool now and then closes a connection that a thread has just been given
                failures.append(error)
            latencies.append((clock() - begun) * 1e6)

    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    if workers == 1:
        work()
    else:
        threads = [threading.Thread(target=work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return _sample(cpu, wall, each * workers, latencies)._replace(failed=len(failures))


async def _run_async(case: AsyncCase, workers: int, calls: int) -> Sample:
    latencies: list[float] = []
    each = calls // workers

    async def work() -> None:
        call, clock = case.call, time.perf_counter
        for _ in range(each):
            begun = clock()
            await call()
            latencies.append((clock() - begun) * 1e6)

    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    return _sample(cpu, wall, each * workers, latencies)


def _sample(cpu: float, wall: float, calls: int, latencies: list[float]) -> Sample:
    spent, passed = time.process_time() - cpu, time.perf_counter() - wall
    return Sample(spent / calls * 1e6, passed, calls, latencies)
