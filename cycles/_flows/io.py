"""The operations that flows await. A flow decides the order of steps; the implementation of `Io` carries them out.

Two drivers implement it. In `_drivers.blocking` no operation suspends, so ``coroutine.send(None)`` runs a flow to its
end in the calling thread. In `_drivers.tasks` operations really await. Operations that are not coroutines return
immediately and pass work to the background of the client.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cycles._core.outcome import Outcome
from cycles._core.put import PutResult
from cycles._core.records import Record
from cycles._core.requests import Call
from cycles._core.reserve_request import ReserveRequest
from cycles._core.settlement import SettlementOutcome
from cycles._flows.guard_state import GuardState, Release
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.signal import Signal

if TYPE_CHECKING:
    from cycles.events import Event

T = TypeVar("T")


class Syncs(Protocol):
    """A log in mapped memory."""

    def sync(self) -> None:
        """Return when what is written is on disk. Blocks."""
        ...


class Io(Protocol):
    """The operations of a flow."""

    async def send(self, call: Call) -> Outcome:
        """Make one attempt within its deadline and classify the response. No response raises an exception."""
        ...

    async def put(self, record: Record) -> PutResult:
        """Save the record in the journal; the result says whether it may be sent."""
        ...

    async def finish(self, record: Record, result: SettlementOutcome | None) -> None:
        """End a record: delete it, or keep what was rejected of it. None: nothing of it is to be settled."""
        ...

    async def ensure_journal(self) -> None:
        """Check that the journal's store responds, if no reservation may be made without it.

        Raises:
            JournalUnavailableError: it does not.
        """
        ...

    async def pending_record(self, reservation_id: str) -> Record | None:
        """Return the record of an unfinished settlement that the background or another client has, or None."""
        ...

    def unsettled(self) -> frozenset[str]:
        """Return the file names of the records whose settlement the background has not finished."""
        ...

    async def pause(self, seconds: float) -> None:
        """Wait for some seconds."""
        ...

    async def sync_log(self, log: Syncs) -> None:
        """Return when what is written to the log of a chunk is on disk."""
        ...

    async def wait(self, signal: Signal, timeout_s: float | None = None) -> bool:
        """Wait until a signal is set, for at most `timeout_s` seconds. Return whether it is set."""
        ...

    @property
    def timeout_s(self) -> float:
        """Seconds that one whole attempt may take."""
        ...

    @property
    def max_retries(self) -> int:
        """How often a write with an unknown outcome is sent again."""
        ...

    @property
    def rejected_hint(self) -> str:
        """Where a rejected amount is, for reports: with a journal it is kept."""
        ...

    @property
    def base_url(self) -> str:
        """The address of the server as configured; part of every journal record."""
        ...

    def check(self, call: Call) -> None:
        """Check a call against the schema; raises InvalidRequestError."""
        ...

    def now_ms(self) -> float:
        """Return monotonic milliseconds."""
        ...

    def wall_ms(self) -> int:
        """Return milliseconds since the epoch, for what outlives the process."""
        ...

    def random(self) -> float:
        """Return a random number from 0 to 1, for jitter."""
        ...

    def schedule_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Make the next extend attempt of this heartbeat when it is due."""
        ...

    def stop_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Send no more extends."""
        ...

    def queue_settlement(self, record: Record, guard: GuardState | None) -> bool:
        """Queue a saved settlement to be sent without its caller. False if the caller has to send it."""
        ...

    def keep_settling(self, record: Record, guard: GuardState | None, detail: str, *, is_saved: bool) -> None:
        """Pass a pending settlement to the background; its lease is renewed in the meantime."""
        ...

    def keep_releasing(self, release: Release) -> None:
        """Pass a release to the background: a few attempts with the same key, then the end of the lease suffices."""
        ...

    def finish_settling(self, record: Record, guard: GuardState | None) -> None:
        """Continue a settlement immediately in the background; its caller was interrupted."""
        ...

    def finish_releasing(self, release: Release) -> None:
        """Continue a release immediately in the background; its caller was interrupted."""
        ...

    def give_up_create(self, call: Call) -> None:
        """Find out in the background what a create without a caller has reserved, and release it."""
        ...

    @property
    def is_traced(self) -> bool:
        """Whether the client has a tracer."""
        ...

    def begin_trace(self, request: ReserveRequest, known: str | None = None) -> str:
        """Return the trace id of the requests of a new guard: the tracer's, or `known`, or a new one."""
        ...

    async def approve(self, request: ReserveRequest) -> None:
        """Return if the reservation may be sent; raises ApprovalDeniedError if the user's `approve` says no."""
        ...

    def is_enabled_for(self, level: int) -> bool:
        """Return whether an observer or the log takes events of this level."""
        ...

    def report(self, event: Event) -> None:
        """Report an event to the observers and the log."""
        ...


class BackgroundQueue(Protocol):
    """Accepts work that continues without its caller. Returns immediately; any thread may call it."""

    def add_settlement(
        self,
        record: Record,
        guard: GuardState | None,
        detail: str,
        *,
        immediately: bool = False,
        quiet: bool = False,
        is_saved: bool = True,
    ) -> None:
        """Settle a record. `immediately`: its first retry waits for nothing.

        `quiet`: do not report that it is pending.
        """
        ...

    def queue_settlement(self, record: Record, guard: GuardState | None) -> bool:
        """Send a saved settlement in a thread of the client, after those before it. False if the queue is full."""
        ...

    def add_release(self, release: Release, *, immediately: bool = False) -> None:
        """Send a release again."""
        ...

    def add_create_cleanup(self, call: Call) -> None:
        """Find out what a create reserved, and release it."""
        ...

    def is_pending(self, reservation_id: str) -> bool:
        """Return whether the settlement of this reservation is unfinished in the background."""
        ...

    def unsettled(self) -> frozenset[str]:
        """Return the file names of the records whose settlement is unfinished in the background."""
        ...

    def pending_record(self, reservation_id: str) -> Record | None:
        """Return the record of such a settlement. Blocks on the file system if the record is in the journal only."""
        ...


def run(flow: Coroutine[Any, Any, T]) -> T:
    """Run a flow whose operations never suspend, in this thread, to its end."""
    try:
        flow.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    flow.close()
    raise RuntimeError("a blocking flow must not suspend")  # a bug in an operation of the blocking driver
