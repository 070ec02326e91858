"""The tasks of one event loop that do what code on this loop has handed over, back to back.

If the loop ends before everything is done, the threads of the client continue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from cycles._drivers.work import queue
from cycles._drivers.work.queue import WorkQueue
from cycles._drivers.work.work import key_of
from cycles._flows.io import BackgroundWork, Io
from cycles._http.running_loop import set_once


class LoopWorkers:
    """The workers of one event loop.

    Args:
        work_queue: Holds the work.
        io: The operations of the loop.
        loop: The loop.
        start: Starts a task of the client on it.
    """

    def __init__(
        self,
        work_queue: WorkQueue,
        io: Io,
        loop: asyncio.AbstractEventLoop,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._queue = work_queue
        self._io = io
        self._loop = loop
        self._start = start
        self.running: set[asyncio.Task[None]] = set()
        self._is_watched = False  # a call of `_check` is scheduled
        self._awaited: dict[str, asyncio.Future[None]] = {}  # by the key of the work

    def hand_over(self, work: BackgroundWork) -> bool:
        """Take some work that is due now, from code on this loop. False as for `Io.hand_over`."""
        # The queue decides first: during an outage it gives the work to the threads, which wait at the gate.
        if not self._queue.hand_over(work, now=True, loop=self._loop):
            return False
        if not self.running:
            self._start_if_wanted()
        elif not self._is_watched:
            self._watch()
        return True

    def done(self, work: BackgroundWork) -> asyncio.Future[None]:
        """Return a future that is done after the next attempt at some work on this loop."""
        return self._awaited.setdefault(key_of(work), self._loop.create_future())

    def _start_if_wanted(self) -> None:
        if self._queue.is_worker_wanted(len(self.running), self._loop):
            work = self._work()
            self.running.add(worker := self._start(work))
            worker.add_done_callback(lambda worker: self._ended(worker, work))

    def _watch(self) -> None:
        """Look for the need of one more worker later: those that run may wait for one response."""
        if not self._is_watched and self._queue.is_worker_possible(len(self.running), self._loop):
            self._is_watched = True
            self._loop.call_later(queue.SLOW_S, self._check)

    def _check(self) -> None:
        self._is_watched = False
        self._start_if_wanted()
        self._watch()

    def _ended(self, worker: asyncio.Task[None], work: Coroutine[Any, Any, None]) -> None:
        """Forget a worker that has ended, also one that was cancelled before its first step."""
        # A task that is cancelled before its first step never runs `_work`, so it is closed here.
        work.close()
        self.running.discard(worker)
        # No task of this loop is left to look at the queue, so the threads take over.
        if not self.running:
            self._queue.leave(self._loop)

    async def _work(self) -> None:
        while (item := self._queue.take(self._loop)) is not None:
            if not self._is_watched:
                self._watch()
            try:
                await self._queue.attempt(self._io, item)
            finally:
                done = self._awaited.pop(item.key, None)
                if done is not None:
                    set_once(done)
