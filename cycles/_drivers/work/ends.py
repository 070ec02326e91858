"""The ends of guards for which no caller waits: in new threads, because the garbage collector may request them."""

from __future__ import annotations

import _thread
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from cycles._drivers.reporting import logger

LOOK_AGAIN_S: Final = 0.02


class GuardEnds:
    """Calls that end guards. No lock: the garbage collector may add one while its thread holds any lock."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], object]] = deque()
        self._running: deque[None] = deque()  # one item for each thread that ends a guard

    @property
    def running(self) -> bool:
        """Whether a thread ends a guard at this moment."""
        return bool(self._running)

    def add(self, end: Callable[[], object]) -> None:
        """Call `end` in a new thread, or in the next `run` if none can be started."""
        self._calls.append(end)
        with contextlib.suppress(RuntimeError):  # no thread can be started, or the interpreter ends
            _thread.start_new_thread(self.run, ())

    def run(self) -> None:
        """Call in this thread what no thread has called."""
        while True:
            self._running.append(None)
            try:
                end = self._calls.popleft()
            except IndexError:
                self._running.pop()
                return
            try:
                end()
            except Exception:  # a bug, which must not keep the other guards from ending
                logger.exception(
                    "a guard was not ended in the background because of a bug in cycles; report this traceback"
                )
            self._running.pop()

    def finish(self, timeout_s: float) -> None:
        """Call what no thread has called, and wait for the threads."""
        ends_at_s = time.monotonic() + timeout_s
        self.run()
        while self._running and time.monotonic() < ends_at_s:
            time.sleep(LOOK_AGAIN_S)
