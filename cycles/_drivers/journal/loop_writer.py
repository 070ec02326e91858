"""The journal's thread, as the tasks of one event loop use it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record
from cycles._core.settlement.settlement import SettlementOutcome
from cycles._drivers.journal import writer as journal_writer
from cycles._drivers.journal.writer import Job, JournalWriter
from cycles._http.deadlines import Deadlines
from cycles._http.running_loop import set_once


class LoopWriter:
    """Puts and finishes records for the tasks of one event loop.

    Args:
        writer: Has the thread that does it, for all loops.
        loop: The event loop.
    """

    def __init__(self, writer: JournalWriter, loop: asyncio.AbstractEventLoop) -> None:
        self._writer = writer
        self._loop = loop
        self._deadlines = Deadlines()
        self._will_wake = False  # the thread, in the next iteration of the loop

    async def put(self, record: Record) -> PutResult:
        """Save the record, and return when it is saved or cannot be."""
        result: PutResult | None = await self._done_or_stuck(self._writer.put, record)
        if result is None:  # the file system hangs; it may have the commit that an event replaces
            return PutResult.HELD_BACK if record.replaces_commit else PutResult.FAILED
        return result

    async def finish(self, record: Record, result: SettlementOutcome | None) -> None:
        """End the record, and return when that is done."""
        await self._done_or_stuck(lambda ended: self._writer.finish(ended, result), record)

    async def run(self, work: Callable[[], Any]) -> Any:
        """Call a blocking function on the journal's thread, and return its result."""
        done = self._loop.create_future()
        self._add(Job(lambda _: work(), None, done))
        return await done

    async def _done_or_stuck(self, work: Callable[[Any], Any], argument: Any) -> Any:
        done = self._loop.create_future()
        self._add(Job(work, argument, done))
        deadline = self._deadlines.add(self._loop, self._next_check(), partial(self._check, done))
        try:
            return await done
        finally:
            deadline.cancel()

    def _add(self, job: Job) -> None:
        self._writer.add(job)
        # A lone task wakes the thread immediately: waiting for others would only delay it.
        if not self._writer.is_busy:
            self._writer.wake()
        elif not self._will_wake:  # other tasks add jobs in this iteration too, and one wake-up is for all
            self._will_wake = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._will_wake = False
        self._writer.wake()

    def _check(self, done: asyncio.Future[Any]) -> None:
        """Let the task continue without its record if the file system hangs."""
        if done.done():
            return
        # The settlement does not wait for a disk that hangs: the server learns of the amount without the record.
        if self._writer.replace_if_stuck():
            self._loop.call_soon(set_once, done)
        else:
            self._deadlines.add(self._loop, self._next_check(), partial(self._check, done))

    def _next_check(self) -> float:
        return self._loop.time() + journal_writer.STUCK_S
