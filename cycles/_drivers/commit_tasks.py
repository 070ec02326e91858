"""The tasks that send the settlements of `commit(wait=False)` on one event loop, back to back.

If the loop ends before everything is sent, the background of the client continues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from cycles._core.records import Record
from cycles._drivers.commit_queue import SLOW_S, CommitQueues, Queued
from cycles._flows.guard_state import GuardState


class CommitTasks:
    """The queue of one event loop.

    Args:
        queues: Holds the settlements.
        settle: Sends one and concludes it; returns whether the amount is settled.
        start: Starts a task of the client on this loop.
        otherwise: Takes over what this loop cannot send.
    """

    def __init__(
        self,
        queues: CommitQueues,
        settle: Callable[[Record, GuardState | None], Coroutine[Any, Any, bool]],
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        otherwise: Callable[[list[Queued]], object],
    ) -> None:
        self._queues = queues
        self._settle = settle
        self._start = start
        self._otherwise = otherwise
        self._workers = 0
        self._is_watched = False  # a call of `_check` is scheduled

    def add(self, record: Record, guard: GuardState | None) -> bool:
        """Queue a settlement; return False if the caller has to send it."""
        if self._queues.put(self, record, guard, asyncio.get_running_loop()) is None:
            return False
        self._start_if_wanted()
        self._watch()
        return True

    def _start_if_wanted(self) -> None:
        if self._queues.workers_wanted(self, self._workers):
            self._workers += 1
            work = self._work()
            self._start(work).add_done_callback(lambda _: self._ended(work))

    def _watch(self) -> None:
        """Look for the need of one more worker later: those that run may wait for one response."""
        if not self._is_watched and self._queues.worker_possible(self, self._workers):
            self._is_watched = True
            asyncio.get_running_loop().call_later(SLOW_S, self._check)

    def _check(self) -> None:
        self._is_watched = False
        self._start_if_wanted()
        self._watch()

    def _ended(self, work: Coroutine[Any, Any, None]) -> None:
        """Count a worker that has ended, also one that was cancelled before its first step."""
        work.close()
        self._workers -= 1
        if not self._workers:
            self._otherwise(self._queues.take_all(self))

    async def _work(self) -> None:
        while (queued := self._queues.take(self)) is not None:
            self._start_if_wanted()
            self._watch()
            settled = False
            try:
                settled = await self._settle(queued.record, queued.guard)
            except BaseException:  # the loop ends: the task is cancelled, or closed by the garbage collector
                if self._queues.is_being_sent(queued):  # else a flush has taken it over
                    self._otherwise([queued])
                raise
            finally:
                self._queues.done(queued, settled=settled)
