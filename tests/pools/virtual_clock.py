"""A virtual clock for a client and its embedded server: leases end when a test advances it, not when time passes."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import cycles
from cycles._drivers.work.scheduler import Scheduler
from tests.support.inside import runtime_of
from tests.support.still_time import serving_threads

STEP_S = 0.5
PATIENCE_S = 240.0  # real time; a test that reaches it has failed


class VirtualClock:
    """Adds what a test advances to the monotonic time of this process, and to the clock of the server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = cycles.ManualClock()
        self._real = time.monotonic
        self._servers = serving_threads()
        self._added_s = 0.0
        self._schedulers: list[Scheduler] = []
        monkeypatch.setattr(time, "monotonic", self.monotonic)

    def monotonic(self) -> float:
        return self._real() + (0.0 if threading.get_ident() in self._servers else self._added_s)

    def drives(self, client: cycles.Cycles) -> None:
        """Let the scheduler of a client follow this clock."""
        scheduler = runtime_of(client).scheduler
        scheduler.now_s = self.monotonic
        self._schedulers.append(scheduler)

    def jump(self, seconds: float) -> None:
        """Let time pass while nothing runs, as for a process that is stopped."""
        self._added_s += seconds
        self.server.advance(int(seconds * 1000))
        for scheduler in self._schedulers:
            with scheduler._lock:
                scheduler._sooner.notify_all()  # a timer of the machine ends as soon as the process runs again

    def advance(self, seconds: float) -> None:
        """Let time pass in small steps, in each of which everything that is due runs."""
        for _ in range(round(seconds / STEP_S)):
            self.jump(STEP_S)
            self.settle()

    def settle(self) -> None:
        """Wait until nothing is due and no worker is busy."""
        moment, end = threading.Event(), self._real() + PATIENCE_S
        while any(self._is_busy(scheduler) for scheduler in self._schedulers):
            assert self._real() < end, "the background never came to rest"
            moment.wait(0.001)

    def _is_busy(self, scheduler: Any) -> bool:
        with scheduler._lock:
            scheduler._sooner.notify_all()
            pools = scheduler.pools
            is_due = scheduler.timetable.next_s() <= self.monotonic()
            return is_due or any(pool._waiting or len(pool._workers) > pool._idle for pool in pools)
