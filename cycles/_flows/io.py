"""The verbs flows may await. A flow says in which order things happen; whoever implements `Io` makes them happen.

Two drivers implement it: in `_drivers.blocking` no verb ever suspends, so that ``coroutine.send(None)`` runs a flow to
its end in the calling thread; in `_drivers.tasks` they really await. Verbs that are not coroutines return at once and
hand work to the background of the client.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cycles._core.outcome import Outcome
from cycles._core.records import Record
from cycles._core.requests import Call
from cycles._flows.guard_state import GuardState, Release
from cycles._flows.heartbeat_state import Heartbeat

if TYPE_CHECKING:
    from cycles.events import Event

T = TypeVar("T")


class Io(Protocol):
    """What a flow can do."""

    async def send(self, call: Call) -> Outcome:
        """Make one attempt, within its deadline, and judge what comes back. Raises nothing a server can cause."""
        ...

    async def save(self, record: Record) -> bool:
        """Write the record down; False if it could not be (the settlement goes out all the same)."""
        ...

    async def delete(self, record: Record) -> None:
        """The record is finished."""
        ...

    async def pause(self, seconds: float) -> None:
        """Wait."""
        ...

    @property
    def timeout_s(self) -> float:
        """Seconds that one whole attempt may take."""
        ...

    @property
    def base_url(self) -> str:
        """The server, as configured: part of every journal record."""
        ...

    def check(self, call: Call) -> None:
        """Hold a call against the schema; raises InvalidRequestError."""
        ...

    def now_ms(self) -> float:
        """Monotonic milliseconds."""
        ...

    def wall_ms(self) -> int:
        """Milliseconds since the epoch, for what outlives the process."""
        ...

    def random(self) -> float:
        """A random number from 0 to 1, for jitter."""
        ...

    def schedule_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Make the next beat of this heartbeat when it is due."""
        ...

    def stop_heartbeat(self, heartbeat: Heartbeat) -> None:
        """No more beats."""
        ...

    def keep_settling(self, record: Record, guard: GuardState | None, detail: str) -> None:
        """Hand a settlement that is still owed to the background; its lease is kept alive meanwhile."""
        ...

    def keep_releasing(self, release: Release) -> None:
        """Hand a release to the background: a few tries with the same key, then the end of the lease must do."""
        ...

    def finish_settling(self, record: Record, guard: GuardState | None) -> None:
        """The caller was interrupted in the middle of this settlement: go on with it at once, without the caller."""
        ...

    def finish_releasing(self, release: Release) -> None:
        """The caller was interrupted in the middle of this release: go on with it at once, without the caller."""
        ...

    def give_up_create(self, call: Call) -> None:
        """Nobody waits for this create any more: find out, without the caller, what it reserved, and release that."""
        ...

    def is_enabled_for(self, level: int) -> bool:
        """Whether an event of this level reaches anybody."""
        ...

    def report(self, event: Event) -> None:
        """Tell observers and the log."""
        ...


class BackgroundQueue(Protocol):
    """Accepts work that continues without its caller. Returns immediately; any thread may call it."""

    def add_settlement(
        self, record: Record, guard: GuardState | None, detail: str, *, immediately: bool = False
    ) -> None:
        """Settle a record. `immediately`: it is not saved yet, and its first retry waits for nothing."""
        ...

    def add_release(self, release: Release, *, immediately: bool = False) -> None:
        """Send a release again."""
        ...

    def add_create_cleanup(self, call: Call) -> None:
        """Find out what a create reserved, and release it."""
        ...


def run(flow: Coroutine[Any, Any, T]) -> T:
    """Run a flow whose verbs never suspend, in this thread, to its end."""
    try:
        flow.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    flow.close()
    raise RuntimeError("a blocking flow must not suspend")  # a bug in a verb of the blocking driver
