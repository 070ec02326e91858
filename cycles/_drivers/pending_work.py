"""The tasks that can be pending: a settlement, a release, the cleanup of a create whose response was lost.

Each makes one attempt by running a flow in the calling thread. `Background` decides when and how often.
"""

from __future__ import annotations

import time
from typing import Final, Protocol, TypeAlias

from attrs import evolve, frozen

from cycles._core.outcome import NoSuccess, RejectedResponse, Success
from cycles._core.protocol import CREATE_RESERVATION
from cycles._core.records import Record, file_name
from cycles._core.requests import Call
from cycles._core.settlement import Settled, Unresolved
from cycles._flows.guard_state import GuardState, Release
from cycles._flows.io import Io, run
from cycles._flows.release import is_final, release_call_of, report_release_failed, report_released
from cycles._flows.reserve import clean_up_create
from cycles._flows.retry import describe, uncertain
from cycles._flows.settle import attempt, conclude, file_away
from cycles._journal.journal import Entry, Records

RELEASE_TRIES: Final = 4  # then the budget returns when the lease ends


@frozen
class Done:
    """Nothing is pending any more. `settled` is True if an amount reached the ledger."""

    settled: bool = False


@frozen
class Later:
    """Still pending, as `task`. `outage`: the whole server fails. `floor_s`: not before (monotonic), after a 429."""

    task: PendingTask
    detail: str
    outage: bool
    floor_s: float = 0.0


Step: TypeAlias = Done | Later | None
"""The outcome of one attempt; None: no longer pending, and nothing is known about the server."""


class PendingTask(Protocol):
    """One thing that is pending."""

    @property
    def is_settlement(self) -> bool:
        """Whether it settles an amount; only those are counted and listed for users."""
        ...

    def attempt(self, records: Records, io: Io) -> Step:
        """Try it once, in this thread."""
        ...


@frozen
class SettlementTask:
    """The settlement of a known amount: a record, or the name of one in the journal that has not been read yet."""

    record: Record | None = None
    entry: Entry | None = None
    guard: GuardState | None = None
    saved: bool = True

    is_settlement = True

    def read(self, records: Records) -> Record | None:
        """Return the record; None if the journal has it no longer, or has quarantined it."""
        if self.record is not None or self.entry is None:
            return self.record
        return records.load(self.entry)

    def attempt(self, records: Records, io: Io) -> Step:
        """Settle it, unless a 429 that an earlier process received defers it."""
        record = self.read(records)
        if record is None:
            return None
        if self.record is None and record.wait_ms(io.wall_ms()) > 0:
            return self._deferred(io, record, "deferred by the server's Retry-After", outage=False)
        if not self.saved:
            records.save(record)
        trace_id = self.guard.trace_id if self.guard is not None else None
        record, result = run(attempt(io, record, trace_id))
        if isinstance(result, Unresolved):
            if record.mode == "event" and self.guard is not None and self.guard.heartbeat is not None:
                io.stop_heartbeat(self.guard.heartbeat)
            return self._deferred(io, record, describe(result.outcome), outage=_concerns_all(result.outcome))
        conclude(io, record, result, self.guard, recovered=True)
        run(file_away(io, record, result))
        return Done(settled=isinstance(result, Settled))

    def _deferred(self, io: Io, record: Record, reason: str, *, outage: bool) -> Later:
        wait_s = record.wait_ms(io.wall_ms()) / 1000
        floor_s = time.monotonic() + wait_s if wait_s > 0 else 0.0
        if self.entry is not None:
            # A record read from the journal is not kept in memory between tries: there may be ten thousand. Reading
            # it may have renamed its file.
            task = evolve(self, entry=Entry(file_name(record.reservation_id)))
        else:
            task = evolve(self, record=record, saved=True)
        return Later(task, reason, outage, floor_s)


def _concerns_all(outcome: NoSuccess) -> bool:
    """Return whether all pending tasks would fail the same way: server down, key rejected, rate limit, broken proxy."""
    if isinstance(outcome, RejectedResponse) and (outcome.code is None or outcome.status in (401, 403, 429)):
        return True
    return uncertain(outcome)


@frozen
class ReleaseTask:
    """A release that failed: a few tries, then the budget returns when the lease ends."""

    release: Release
    tries: int = 0

    is_settlement = False

    def attempt(self, records: Records, io: Io) -> Step:
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
    """A create whose caller is gone: what it reserved, if anything, is released."""

    call: Call
    tries: int = 0

    is_settlement = False

    def attempt(self, records: Records, io: Io) -> Step:
        """Send the create once more with its key, and release what it reserved."""
        outcome = run(clean_up_create(io, self.call))
        if not uncertain(outcome):
            return Done()
        if self.tries + 1 >= RELEASE_TRIES:
            return None
        assert not isinstance(outcome, Success)
        return Later(evolve(self, tries=self.tries + 1), f"{CREATE_RESERVATION}: {describe(outcome)}", outage=True)
