"""The blocking driver: verbs that never suspend, for code that runs in threads, and for the keeper's own work."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final

from cycles._core.lease.planner import ExtendAttempt
from cycles._core.outcome import Outcome
from cycles._core.records import Record
from cycles._core.requests import Call
from cycles._drivers.base import EXTEND, BaseIo
from cycles._flows.guard_state import GuardState, Release
from cycles._flows.heartbeat import send_heartbeat
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.io import run
from cycles._http.exchange import ExchangeError

if TYPE_CHECKING:
    from cycles._drivers.runtime import Runtime
    from cycles._wire.wire import Prepared


SHORTEST_ATTEMPT_S: Final = 0.001  # a deadline that is over still is one, not "no deadline"


class BlockingIo(BaseIo):
    """`Io` for one client in one process; any number of threads use it at once."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)

    async def send(self, call: Call) -> Outcome:
        """Make one attempt in this thread."""
        request, timeout_s = self._prepare(call)
        try:
            connections = self._runtime.connections(beats=call.operation == EXTEND)
            reply = connections.send(request.method, request.target, request.headers, request.content, timeout_s)
        except ExchangeError as error:
            return self._unreachable(call, error)
        return self._judge(call, reply)

    async def save(self, record: Record) -> bool:
        """Write the record down in this thread."""
        return self._runtime.save(record)

    async def delete(self, record: Record) -> None:
        """Remove the record in this thread."""
        self._runtime.delete(record)

    async def pause(self, seconds: float) -> None:
        """Sleep; a KeyboardInterrupt ends it."""
        time.sleep(seconds)  # noqa: ASYNC251 - no verb of this driver suspends; that is what it is for

    def schedule_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Let the keeper make the next beat when it is due."""
        step = heartbeat.step
        if isinstance(step, ExtendAttempt):  # else another thread has seen the end of it meanwhile
            job = partial(self._make_beat, heartbeat, step.due_ms)
            heartbeat.set_timer(self._runtime.scheduler.at(step.due_ms / 1000, job, self._runtime.beats))

    def stop_heartbeat(self, heartbeat: Heartbeat) -> None:
        """No more beats."""
        heartbeat.end()
        heartbeat.drop_timer()

    def finish_settling(self, record: Record, guard: GuardState | None) -> None:
        """The keeper goes on at once."""
        self._runtime.save(record)  # the interruption may have come before it was written down
        self._runtime.recovery.add_settlement(
            record, guard, "the caller was interrupted while settling", immediately=True
        )

    def finish_releasing(self, release: Release) -> None:
        """The keeper goes on at once."""
        self._runtime.recovery.add_release(release, immediately=True)

    def give_up_create(self, call: Call) -> None:
        """The keeper finds out what became of it."""
        self._runtime.recovery.clean_up(call)

    def _make_beat(self, heartbeat: Heartbeat, due_ms: float) -> None:
        self._runtime.note_delayed_heartbeat(heartbeat, self.now_ms() - due_ms, blocked_loop=False)
        run(send_heartbeat(self, heartbeat))


class DeadlineIo(BlockingIo):
    """The same verbs for a thread that has only until `ends_at_s` (monotonic seconds): an attempt is cut there."""

    def __init__(self, runtime: Runtime, ends_at_s: float) -> None:
        super().__init__(runtime)
        self._ends_at_s = ends_at_s

    def _prepare(self, call: Call) -> tuple[Prepared, float]:
        request, timeout_s = super()._prepare(call)
        return request, max(SHORTEST_ATTEMPT_S, min(timeout_s, self._ends_at_s - time.monotonic()))
