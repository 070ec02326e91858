"""The asyncio driver: verbs that await, for the tasks of one event loop.

A flow runs in the caller's own task; no task is made for it. Only where the caller is cancelled in the middle of one
does a task of the client's own go on with the same key, and if its loop ends as well, the keeper does.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Coroutine, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cycles._core.lease.planner import ExtendAttempt
from cycles._core.outcome import Outcome
from cycles._core.records import Record
from cycles._core.requests import Call
from cycles._drivers.base import EXTEND, BaseIo
from cycles._flows.guard_state import GuardState, Release
from cycles._flows.heartbeat import send_heartbeat
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.release import send_release
from cycles._flows.reserve import clean_up_create
from cycles._flows.retry import uncertain
from cycles._flows.settle import attempt, conclude, file_away
from cycles._http.exchange import ExchangeError

if TYPE_CHECKING:
    from cycles._drivers.runtime import Runtime

T = TypeVar("T")

HEARTBEATS_IN_FLIGHT: Final = (
    32  # more would wait for each other's connections and inflate the rtt that the planner sees
)
LINGER_S: Final = 0.5  # what a cancelled caller may be kept for its settlement to finish; then it goes on alone


class TaskIo(BaseIo):
    """`Io` for one client on one event loop."""

    def __init__(self, runtime: Runtime, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(runtime)
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._going_on: asyncio.Task[None] | None = None  # what the last cancelled caller left behind
        self._gate = asyncio.Semaphore(HEARTBEATS_IN_FLIGHT)

    async def send(self, call: Call) -> Outcome:
        """Make one attempt on this loop."""
        request, timeout_s = self._prepare(call)
        try:
            connections = self._runtime.async_connections(self._loop, beats=call.operation == EXTEND)
            reply = await connections.send(request.method, request.target, request.headers, request.content, timeout_s)
        except ExchangeError as error:
            return self._unreachable(call, error)
        return self._judge(call, reply)

    async def save(self, record: Record) -> bool:
        """Write the record down, on the journal's thread."""
        return self._runtime.journal is not None and await self._runtime.journal_writer.save(record)

    async def delete(self, record: Record) -> None:
        """Remove the record, on the journal's thread."""
        if self._runtime.journal is not None:
            await self._runtime.journal_writer.delete(record)

    async def pause(self, seconds: float) -> None:
        """Sleep; a cancellation ends it."""
        await asyncio.sleep(seconds)

    def schedule_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Make the next beat when it is due: a timer until then, a task for the attempt."""
        if heartbeat.adopted:
            self._runtime.blocking.schedule_heartbeat(heartbeat)
            return
        step = heartbeat.step
        if isinstance(step, ExtendAttempt):
            delay = step.due_ms / 1000 - time.monotonic()
            heartbeat.set_timer(self._loop.call_later(max(0.0, delay), self._start_beat, heartbeat, step.due_ms))

    def stop_heartbeat(self, heartbeat: Heartbeat) -> None:
        """No more beats."""
        heartbeat.end()
        heartbeat.drop_timer()

    def finish_settling(self, record: Record, guard: GuardState | None) -> None:
        """A task of the client goes on at once; if the loop does not let it, the keeper does."""
        detail = "the caller was cancelled while settling"
        otherwise = partial(self._runtime.recovery.add_settlement, record, guard, detail, immediately=True)
        self._go_on(self._finish_settling(record, guard), otherwise)

    def finish_releasing(self, release: Release) -> None:
        """A task of the client goes on at once; if the loop does not let it, the keeper does."""
        again = partial(self._runtime.recovery.add_release, release, immediately=True)
        self._go_on(self._finish_releasing(release), again)

    def give_up_create(self, call: Call) -> None:
        """A task of the client finds out what became of it; if the loop does not let it, the keeper does."""
        self._go_on(self._clean_up(call), partial(self._runtime.recovery.clean_up, call))

    async def to_the_end(self, flow: Coroutine[Any, Any, T]) -> T:
        """Run a flow in the caller's task; if the caller is cancelled, wait a moment for what goes on without it."""
        try:
            return await flow
        except asyncio.CancelledError:
            going_on, self._going_on = self._going_on, None  # set, if at all, just before this was raised
            if going_on is not None:
                await self._linger(going_on, LINGER_S)
            raise

    async def drain(self, timeout_s: float) -> None:
        """Wait for what goes on without its callers."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of the client's own; the loop keeps only weak references."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _go_on(self, work: Coroutine[Any, Any, None], otherwise: partial[None]) -> None:
        if not self._is_running():  # the caller was not cancelled but closed: its loop has ended, or nobody runs it
            work.close()
            otherwise()
        elif asyncio.current_task() in self._tasks:
            work.close()  # this is such a task already: when it is cancelled too, its own `otherwise` is next
        else:
            left = [otherwise]
            self._going_on = self.start(self._or_else(work, left))
            self._going_on.add_done_callback(lambda _: _instead(work, left))  # cancelled before its first step

    def _is_running(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    async def _or_else(self, work: Coroutine[Any, Any, None], left: list[partial[None]]) -> None:
        try:
            await work
            left.clear()
        finally:
            _instead(work, left)  # the loop ends: the task is cancelled, or closed by the garbage collection

    async def _finish_settling(self, record: Record, guard: GuardState | None) -> None:
        await self.save(record)
        record, result = await attempt(self, record, guard.trace_id if guard is not None else None)
        conclude(self, record, result, guard)
        await file_away(self, record, result)

    async def _clean_up(self, call: Call) -> None:
        if uncertain(await clean_up_create(self, call)):
            self._runtime.recovery.clean_up(call)

    async def _finish_releasing(self, release: Release) -> None:
        await send_release(self, release, quiet=True)

    async def _linger(self, task: asyncio.Task[None], seconds: float) -> None:
        end = time.monotonic() + seconds
        with _shielded():
            while not task.done() and (left := end - time.monotonic()) > 0:
                try:
                    await asyncio.wait([task], timeout=left)
                except asyncio.CancelledError:
                    continue  # cancelled again; the first cancellation is raised when we are done

    def _start_beat(self, heartbeat: Heartbeat, due_ms: float) -> None:
        heartbeat.timer = None
        self._runtime.note_delayed_heartbeat(heartbeat, self.now_ms() - due_ms, blocked_loop=True)
        self.start(self._make_beat(heartbeat))

    async def _make_beat(self, heartbeat: Heartbeat) -> None:
        try:
            async with self._gate:
                await send_heartbeat(self, heartbeat)
        except asyncio.CancelledError:  # the loop ends; a settlement that is still pending needs its lease
            if heartbeat.adopted and not heartbeat.ended:
                self._runtime.blocking.schedule_heartbeat(heartbeat)
            raise


def _instead(work: Coroutine[Any, Any, None], left: list[partial[None]]) -> None:
    """What is left to do if `work` did not get to its end; at most once."""
    work.close()
    while left:
        left.pop()()


@contextlib.contextmanager
def _shielded() -> Iterator[None]:
    """Keep an anyio cancel scope around us from cancelling at each await, which would spin; nothing without anyio."""
    anyio = sys.modules.get("anyio")
    if anyio is None:
        yield
        return
    with anyio.CancelScope(shield=True):
        yield
