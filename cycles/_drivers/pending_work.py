"""What a client can still owe the server: a settlement, a release, or the answer to what a lost create reserved.

Each knows how to make one attempt, by running a flow in the calling thread; when and how often is the recovery's
business.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from attrs import evolve, frozen

from cycles._core.error_mapping import CREATE
from cycles._core.outcome import NoSuccess, RejectedResponse, Success
from cycles._core.records import Record, file_name
from cycles._core.requests import Call
from cycles._core.settlement import Settled, Unresolved
from cycles._flows.guard_state import GuardState, Release
from cycles._flows.io import run
from cycles._flows.release import is_final, release_call_of, report_release_failed, report_released
from cycles._flows.reserve import clean_up_create
from cycles._flows.retry import describe, uncertain
from cycles._flows.settle import attempt, conclude, file_away
from cycles._journal.journal import Entry

if TYPE_CHECKING:
    from cycles._drivers.blocking import BlockingIo
    from cycles._drivers.runtime import Runtime

RELEASE_TRIES: Final = 4  # then the end of the lease must give the budget back


@frozen
class Done:
    """Nothing is owed any more. `settled` is True where an amount reached the ledger."""

    settled: bool = False


@frozen
class Later:
    """Still owed, as `debt`. `outage` means the server as a whole fails; `floor_s` (monotonic) is what a 429 asked."""

    debt: PendingTask
    detail: str
    outage: bool
    floor_s: float = 0.0


Gone: TypeAlias = None
Step: TypeAlias = Done | Later | Gone
"""What one attempt came to; `Gone` learnt nothing about the server."""


class PendingTask(Protocol):
    """One thing that is owed."""

    @property
    def is_settlement(self) -> bool:
        """Whether an amount is at stake; only those are counted and listed for users."""
        ...

    def attempt(self, runtime: Runtime, io: BlockingIo) -> Step:
        """Try it once, in this thread."""
        ...


@frozen
class SettlementTask:
    """An amount that is known: a record in hand, or the name of one in the journal that has not been read yet."""

    record: Record | None = None
    entry: Entry | None = None
    guard: GuardState | None = None
    saved: bool = True

    is_settlement = True

    def read(self, runtime: Runtime) -> Record | None:
        """The record; None where the journal has none any more, or set it aside."""
        if self.record is not None:
            return self.record
        return None if runtime.journal is None or self.entry is None else runtime.journal.load(self.entry)

    def attempt(self, runtime: Runtime, io: BlockingIo) -> Step:
        """Settle it, unless a 429 of an earlier process holds it back."""
        record = self.read(runtime)
        if record is None:
            return None
        if self.record is None and record.wait_ms(runtime.wall_ms()) > 0:
            return self._parked(runtime, record, "waiting as the server asked", outage=False)
        if not self.saved:
            runtime.save(record)
        trace_id = self.guard.trace_id if self.guard is not None else None
        record, result = run(attempt(io, record, trace_id))
        if isinstance(result, Unresolved):
            if record.mode == "event" and self.guard is not None and self.guard.heartbeat is not None:
                runtime.blocking.stop_heartbeat(self.guard.heartbeat)
            return self._parked(runtime, record, describe(result.outcome), outage=_concerns_all(result.outcome))
        conclude(io, record, result, self.guard, recovered=True)
        run(file_away(io, record, result))
        return Done(settled=isinstance(result, Settled))

    def _parked(self, runtime: Runtime, record: Record, reason: str, *, outage: bool) -> Later:
        wait_s = record.wait_ms(runtime.wall_ms()) / 1000
        floor_s = time.monotonic() + wait_s if wait_s > 0 else 0.0
        if self.entry is not None:
            # A record read from the journal is not kept in memory between tries: there may be ten thousand. Reading
            # it may have given it its proper name.
            debt = evolve(self, entry=Entry(file_name(record.reservation_id)))
        else:
            debt = evolve(self, record=record, saved=True)
        return Later(debt, reason, outage, floor_s)


def _concerns_all(outcome: NoSuccess) -> bool:
    """Whether every record would fare alike right now: the server, the key (401, 403), its rate, or what is between."""
    if isinstance(outcome, RejectedResponse) and (outcome.code is None or outcome.status in (401, 403, 429)):
        return True
    return uncertain(outcome)


@frozen
class ReleaseTask:
    """A release that did not get through: a few tries, then the end of the lease must do."""

    release: Release
    tries: int = 0

    is_settlement = False

    def attempt(self, runtime: Runtime, io: BlockingIo) -> Step:
        """Release it."""
        outcome = run(io.send(release_call_of(self.release)))
        if isinstance(outcome, Success):
            report_released(io, self.release)
            return Done()
        if is_final(outcome) or self.tries + 1 >= RELEASE_TRIES:
            report_release_failed(io, self.release, describe(outcome), retrying=False)
            return Done() if is_final(outcome) else None
        return Later(evolve(self, tries=self.tries + 1), describe(outcome), uncertain(outcome))


@frozen
class CreateCleanupTask:
    """A create that nobody waits for any more: what it reserved, if anything, is released."""

    call: Call
    tries: int = 0

    is_settlement = False

    def attempt(self, runtime: Runtime, io: BlockingIo) -> Step:
        """Ask the create once more, with its own key, and release what it reserved."""
        outcome = run(clean_up_create(io, self.call))
        if not uncertain(outcome):
            return Done()
        if self.tries + 1 >= RELEASE_TRIES:
            return None
        assert not isinstance(outcome, Success)
        return Later(evolve(self, tries=self.tries + 1), f"{CREATE}: {describe(outcome)}", outage=True)
