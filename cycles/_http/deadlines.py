"""Deadlines of an event loop that nearly always end before they are over, with one timer for all of them.

A timer of the loop for each costs several times more with many tasks: it is an entry of a heap, in which it stays for a
while after it was cancelled.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

_MOST_CANCELLED: Final = 64  # behind a deadline that is not over; beyond this, they are removed if they are half


class Deadline(Protocol):
    """What `Deadlines.add` returns."""

    def cancel(self) -> None:
        """Don't call the function. May be called at any time, and again."""


class _Entry:
    """A deadline in the queue; `function` is None once it is cancelled or called."""

    __slots__ = ("_deadlines", "at_s", "function")

    def __init__(self, deadlines: Deadlines, at_s: float, function: Callable[[], object]) -> None:
        self._deadlines = deadlines
        self.at_s = at_s
        self.function: Callable[[], object] | None = function

    def cancel(self) -> None:
        if self.function is not None:
            self.function = None
            self._deadlines.count_cancelled()


class Deadlines:
    """Calls a function at each deadline that was not cancelled before. Leaves no timer behind if all were cancelled.

    All calls come from the thread of one event loop. Deadlines that are added in their order are cheap, as with one
    timeout for all. An earlier one than the last gets a separate timer.
    """

    def __init__(self) -> None:
        self._queue: deque[_Entry] = deque()
        self._cancelled = 0  # of those in the queue
        self._timer: asyncio.TimerHandle | None = None  # for the first in the queue, or for one that was before it

    def add(self, loop: asyncio.AbstractEventLoop, at_s: float, function: Callable[[], object]) -> Deadline:
        """Call the function at `at_s` (the loop's time, in seconds), unless the deadline is cancelled before."""
        queue = self._queue
        if queue and at_s < queue[-1].at_s:
            return loop.call_at(at_s, function)
        entry = _Entry(self, at_s, function)
        queue.append(entry)
        if self._timer is None:
            self._timer = loop.call_at(at_s, self._look, loop)
        return entry

    def count_cancelled(self) -> None:
        """Note that an entry was cancelled, and remove it soon."""
        queue = self._queue
        self._cancelled += 1
        if self._cancelled == len(queue):
            queue.clear()
            self._cancelled = 0
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        while queue[0].function is None:
            queue.popleft()
            self._cancelled -= 1
        if self._cancelled > _MOST_CANCELLED and self._cancelled * 2 > len(queue):
            self._queue = deque([entry for entry in queue if entry.function is not None])
            self._cancelled = 0

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call the functions whose deadlines are over, and set the timer for the next one."""
        self._timer = None
        now_s = loop.time()
        try:
            while self._queue and ((entry := self._queue[0]).function is None or entry.at_s <= now_s):
                self._queue.popleft()
                function, entry.function = entry.function, None
                if function is None:
                    self._cancelled -= 1
                else:
                    function()
        finally:
            if self._queue and self._timer is None:
                self._timer = loop.call_at(self._queue[0].at_s, self._look, loop)
