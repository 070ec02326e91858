"""What tests read of a scheduler."""

from __future__ import annotations

from cycles._drivers.work.scheduler import Handle, Scheduler


def _timed(scheduler: Scheduler) -> list[Handle]:
    return [item[2] for item in scheduler.timetable.heap]


def scheduled(scheduler: Scheduler) -> int:
    """Return how many jobs are not due yet or wait for a worker."""
    waiting = [handle for worker_pool in scheduler.pools for handle in worker_pool._waiting]
    return sum(not handle.cancelled for handle in [*_timed(scheduler), *waiting])


def timed(scheduler: Scheduler) -> int:
    """Return how many jobs are not due yet, without those that were cancelled."""
    return sum(not handle.cancelled for handle in _timed(scheduler))


def kept(scheduler: Scheduler) -> int:
    """Return how many jobs that are not due are in memory, cancelled ones included."""
    return len(_timed(scheduler))


def threads(scheduler: Scheduler) -> int:
    """Return how many threads there are now."""
    return len(scheduler.all_threads())
