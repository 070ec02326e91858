"""Time that stands still until a test moves it, so that no response is too slow for a short lease on any machine."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.inside import state_of
from tests.support.waiting import PATIENCE_S

STEP_S = 0.2


def serving_threads() -> frozenset[int | None]:
    """Return the threads of the servers that earlier tests share.

    Their event loops need real time: a timer that is set in another time may end hours later, and whoever stops the
    server waits 15 s for it in vain.
    """
    return frozenset(each.ident for each in threading.enumerate() if each.name == "cycles-embedded-server")


def _exact(now_s: float) -> float:
    """Return this time, or a slightly later one that does not grow when it is converted to milliseconds and back.

    About 1 of 90 times grows. A job that is due now would then be due later, and would never run in this still time.
    """
    while now_s * 1000 / 1000 > now_s:
        now_s = math.nextafter(now_s, math.inf)
    return now_s


class StillTime:
    """Replaces the monotonic clock of this process. Sockets and conditions still wait in real time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = time.monotonic
        self._servers = serving_threads()
        # A whole second: what tests add in whole seconds is then exact, and an age of 40 s is not 39.99999.
        self._now_s = float(math.ceil(self._real()))
        self._stirs: list[Callable[[], object]] = []
        monkeypatch.setattr(time, "monotonic", self.monotonic)

    def monotonic(self) -> float:
        return self._real() if threading.get_ident() in self._servers else self._now_s

    def drives(self, scheduler: Any) -> None:
        """Let a scheduler follow this clock; it wakes whenever time has moved."""
        scheduler.now_s = self.monotonic

        def stir() -> None:
            with scheduler._lock:
                scheduler._sooner.notify_all()

        self._stirs.append(stir)

    def move(self, seconds: float) -> None:
        """Let time pass at once. On an event loop, its timers run when the caller awaits."""
        self._move_to(self._now_s + seconds)

    def beat(self, guard: Any) -> None:
        """Let time pass until the next heartbeat of a guard is due."""
        self._move_to(max(self._now_s, state_of(guard).heartbeat.step.due_ms / 1000))

    def pass_until(self, holds: Callable[[], object]) -> None:
        """Let time pass in small steps until something has come true."""
        moment, end_s = threading.Event(), self._real() + PATIENCE_S
        while not holds():
            assert self._real() < end_s, "it never came true"
            self.move(STEP_S)
            moment.wait(0.005)

    def _move_to(self, now_s: float) -> None:
        self._now_s = _exact(now_s)
        for stir in self._stirs:
            stir()
