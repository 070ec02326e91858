"""Virtual time for threads: waits with a timeout end when a test advances the clock, not when time passes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 240.0  # real time; a test that reaches it has failed


class VirtualTime:
    """A clock that stands still between advances, and conditions that wait by it."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.wakes: dict[str, int] = {}
        self._conditions: list[_Condition] = []
        self._locks: dict[int, Any] = {}
        self._stirred = threading.Event()

    def monotonic(self) -> float:
        return self.now_s

    def condition(self, lock: Any) -> threading.Condition:
        self._locks[id(lock)] = lock
        self._conditions.append(_Condition(lock, self))
        return self._conditions[-1]

    def advance(self, seconds: float) -> None:
        with contextlib.ExitStack() as held:
            for lock in self._locks.values():  # no thread reads the clock and then waits by a later time
                held.enter_context(lock)
            self.now_s += seconds
        for condition in self._conditions:
            condition.let_time_pass()

    def stir(self) -> None:
        self._stirred.set()

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait, in real time and bounded, until something that the threads do has come true."""
        give_up_s = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < give_up_s, "it never came true"
            self._stirred.wait(0.01)
            self._stirred.clear()


class _Condition(threading.Condition):
    def __init__(self, lock: Any, time: VirtualTime) -> None:
        super().__init__(lock)
        self._time = time
        self._deadlines: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        deadline = self._time.now_s + timeout
        if timeout <= 0:
            return False
        self._deadlines.append(deadline)
        self._time.stir()
        assert super().wait(PATIENCE_S)
        self._deadlines.remove(deadline)
        thread = threading.current_thread().name
        self._time.wakes[thread] = self._time.wakes.get(thread, 0) + 1
        return self._time.now_s < deadline

    def let_time_pass(self) -> None:
        with self:
            if any(deadline <= self._time.now_s for deadline in self._deadlines):
                self.notify_all()
