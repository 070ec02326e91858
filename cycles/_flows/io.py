"""The operations that flows await. A flow decides the order of steps; the implementation of `Io` carries them out.

Two drivers implement it. In `_drivers.io.threads` no operation suspends, so ``coroutine.send(None)`` runs a flow to its
end in the calling thread. In `_drivers.io.tasks` operations really await. Operations that are not coroutines return
immediately and pass work to the background of the client.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeAlias, TypeVar

from attrs import frozen

from cycles._core.messages.outcome import Outcome
from cycles._core.messages.requests import NO_OPTIONS, Call, CallOptions
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record
from cycles._core.settlement.settlement import SettlementOutcome
from cycles._flows.guard_state import GuardState, Release
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.signal import Signal

T = TypeVar("T")


@frozen
class Settle:
    """Settle a record.

    Attributes:
        record: The record.
        guard: Its guard, or None.
        detail: Why it is pending, for the report of it. None: no caller waits, and nothing has failed yet.
        is_saved: Whether `put` has had its result; otherwise it comes before the first request.
        options: Options of the requests of a record without a guard.
    """

    record: Record
    guard: GuardState | None
    detail: str | None = None
    is_saved: bool = True
    options: CallOptions = NO_OPTIONS


@frozen
class CleanUp:
    """Find out what a create without a caller has reserved, and release it."""

    call: Call


@frozen
class Settings:
    """What a client is configured with, as far as flows need it.

    Attributes:
        base_url: The address of the server as configured; part of every journal record.
        timeout_s: Seconds that one whole attempt may take.
        max_retries: How often a write with an unknown outcome is sent again.
        rejected_hint: Where a rejected amount is, for reports: with a journal it is kept.
    """

    base_url: str
    timeout_s: float
    max_retries: int
    rejected_hint: str = ""


@frozen
class Clock:
    """The times of one process, and its jitter.

    Attributes:
        now_ms: Returns monotonic milliseconds.
        wall_ms: Returns milliseconds since the epoch, for what outlives the process.
        boot_ms: Returns milliseconds of a clock that also counts while the machine is suspended; None without one.
        random: Returns a random number from 0 to 1.
    """

    now_ms: Callable[[], float]
    wall_ms: Callable[[], int]
    boot_ms: Callable[[], float | None]
    random: Callable[[], float]


BackgroundWork: TypeAlias = Settle | Release | CleanUp
"""What continues without its caller."""


class Syncs(Protocol):
    """A log in mapped memory."""

    def sync(self) -> None:
        """Return when what is written is on disk. Blocks."""


class Sender(Protocol):
    """What sending and repeating a call needs."""

    async def send(self, call: Call) -> Outcome:
        """Make one attempt within its deadline and classify the response. No response raises an exception."""
        ...

    async def wait(self, signal: Signal, timeout_s: float | None = None) -> bool:
        """Wait until a signal is set, for at most `timeout_s` seconds. Return whether it is set."""
        ...

    @property
    def settings(self) -> Settings:
        """What the client is configured with."""
        ...

    @property
    def clock(self) -> Clock:
        """The times, and the jitter."""
        ...


class Io(Sender, Protocol):
    """The operations of a flow."""

    async def put(self, record: Record) -> PutResult:
        """Save the record in the journal; the result says whether it may be sent."""
        ...

    async def finish(self, record: Record, result: SettlementOutcome | None) -> None:
        """End a record: delete it, or keep what was rejected of it. None: nothing of it is to be settled."""

    def finish_later(self, record: Record, result: SettlementOutcome | None) -> None:
        """End a record in another thread, as `finish` does, which was interrupted. It may be ended already."""

    async def ensure_journal(self) -> None:
        """Return when something may be reserved: requests of dead processes whose cost is unknown were charged before.

        Checks that the journal's store responds, if no reservation may be made without it.

        Raises:
            JournalUnavailableError: it does not.
        """

    async def pending(self, reservation_id: str) -> Record | None:
        """Return the record of an unfinished settlement that the background or another client has, or None."""

    def unsettled(self) -> frozenset[str]:
        """Return the file names of the records whose settlement the background has not finished."""
        ...

    async def sync(self, log: Syncs) -> None:
        """Return when what is written to the log of a chunk is on disk."""

    def check(self, call: Call) -> None:
        """Check a call against the schema; raises InvalidRequestError."""

    def schedule(self, heartbeat: Heartbeat) -> None:
        """Make the next extend attempt of this heartbeat when it is due."""

    def hand_over(self, work: BackgroundWork, *, now: bool) -> bool:
        """Continue some work without its caller. Any thread may call this, and it sends nothing.

        It returns immediately, but in a thread it saves first what an interrupted caller has not saved.

        Args:
            work: What to do.
            now: Whether the first attempt waits for nothing; otherwise it comes after the pause of a retry.

        Returns:
            False if the work is a settlement for which no caller waits, and the queue is full or closed, or no worker
            can start: nothing was taken, and the caller does it. Otherwise True: `flush` and `close` do what no worker
            has done.
        """
        ...

    def begin_trace(self, request: ReserveRequest, known: str | None = None) -> CallOptions:
        """Return the options of the requests of a new guard. Their trace id is the tracer's, or `known`, or new."""
        ...

    async def approve(self, request: ReserveRequest) -> None:
        """Return if the reservation may be sent; raises ApprovalDeniedError if the user's `approve` says no."""

    def is_enabled_for(self, level: int) -> bool:
        """Return whether an observer or the log takes events of this level."""
        ...

    def report(self, name: str, ids: object = None, **members: Any) -> None:
        """Report an event, if an observer or the log takes it.

        Args:
            name: Name of the event class in `cycles.events`. `cycles._flows.reports` has its level.
            ids: Any object with some of `reservation_id`, `request_id` and `trace_id`: a guard, a heartbeat, a record.
            members: The other members of the event; an id given here replaces the one of `ids`.
        """


def run(flow: Coroutine[Any, Any, T]) -> T:
    """Run a flow whose operations never suspend, in this thread, to its end."""
    try:
        flow.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    flow.close()
    raise RuntimeError("a blocking flow must not suspend")  # a bug in an operation of the blocking driver
