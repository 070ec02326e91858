"""The tasks that can be pending: a settlement, a release, the cleanup of a create whose response was lost.

Each makes one attempt by running a flow in the calling thread. `Background` decides when and how often.
"""

from __future__ import annotations

import logging
import time
from typing import Final, Protocol, TypeAlias

from attrs import evolve, frozen

from cycles._core.outcome import NoSuccess, RejectedResponse, Success
from cycles._core.protocol import CREATE_RESERVATION, KEY_REJECTED, STUCK_AFTER_MS, UNLISTED_LONGEST_PAUSE_S
from cycles._core.records import Record, file_name
from cycles._core.requests import DEFAULT_GRACE_MS, DEFAULT_TTL_MS, Call
from cycles._core.settlement import Settled, Taken, Unresolved
from cycles._flows.guard_state import GuardState, Release
from cycles._flows.io import Io, run
from cycles._flows.release import is_final, is_released, release_call_of, report_release_failed, report_released
from cycles._flows.reserve import clean_up_create
from cycles._flows.retry import describe, is_unlisted, may_have_taken_effect, uncertain
from cycles._flows.settle import attempt, conclude, report_pending
from cycles._journal.client_records import Records
from cycles._journal.journal import Entry

RELEASE_TRIES: Final = 4  # then the budget returns when the lease ends


@frozen
class Done:
    """Nothing is pending any more. `settled` is True if an amount reached the ledger."""

    settled: bool = False


@frozen
class Later:
    """Still pending, as `task`.

    Attributes:
        outage: The server as a whole fails.
        floor_s: Not before this monotonic time, after a 429.
        longest_s: Replaces the longest pause between attempts.
        rejected: Trying again soon does not help.
    """

    task: PendingTask
    detail: str
    outage: bool
    floor_s: float = 0.0
    longest_s: float | None = None
    rejected: bool = False


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
    reported_stuck: bool = False

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
        if records.is_taken(record):
            return self._left(records, io, record)
        if self.record is None and record.wait_ms(io.wall_ms()) > 0:
            return self._deferred(io, record, "deferred by the server's Retry-After", outage=False)
        found = self.entry is not None or (self.saved and records.journaled)  # others settle what is in the journal
        # A found event is saved again: the store may still have the commit that it replaces.
        saved = self.saved and not (self.record is None and record.replaces_commit)
        record, result = run(attempt(io, record, self.guard, found=found, is_saved=saved))
        if isinstance(result, Taken):
            return self._left(records, io, record)
        if isinstance(result, Unresolved):
            if self.entry is not None:
                records.attempt_ended(record)
            if record.mode == "event" and self.guard is not None and self.guard.own_heartbeat is not None:
                io.stop_heartbeat(self.guard.own_heartbeat)
            later = evolve(self, saved=result.is_saved)._after_failure(records, io, record, result.outcome)
            return evolve(later, rejected=_is_rejected(result.outcome))
        conclude(io, record, result, self.guard, recovered=True)
        run(io.finish(record, result))
        return Done(settled=isinstance(result, Settled))

    def _left(self, records: Records, io: Io, record: Record) -> Step:
        """Leave the record to the client that has claimed it."""
        conclude(io, record, Taken(), self.guard, recovered=True)
        records.finish(record, Taken())
        logging.getLogger("cycles").debug("reservation %s: another client settles it", record.reservation_id)
        return None

    def _after_failure(self, records: Records, io: Io, record: Record, outcome: NoSuccess) -> Later:
        detail = describe(outcome)
        later = self._deferred(io, record, detail, outage=_concerns_all(outcome))
        if not is_unlisted(outcome):
            return later
        task = later.task
        if not self.reported_stuck and io.wall_ms() - record.recorded_at_ms > STUCK_AFTER_MS:
            command = f"cycles journal show {record.reservation_id}"
            stuck = f"stuck for more than 24 hours: {detail}; see `{command}`"
            report_pending(io, record, stuck, journaled=records.journaled)
            assert isinstance(task, SettlementTask)
            task = evolve(task, reported_stuck=True)
        return evolve(later, task=task, longest_s=UNLISTED_LONGEST_PAUSE_S)

    def _deferred(self, io: Io, record: Record, reason: str, *, outage: bool) -> Later:
        wait_s = record.wait_ms(io.wall_ms()) / 1000
        floor_s = time.monotonic() + wait_s if wait_s > 0 else 0.0
        if self.entry is not None:
            # A record read from the journal is not kept in memory between tries: there may be ten thousand. Reading
            # it may have renamed its file.
            task = evolve(self, entry=Entry(file_name(record.reservation_id)))
        else:
            task = evolve(self, record=record)
        return Later(task, reason, outage, floor_s)


def _concerns_all(outcome: NoSuccess) -> bool:
    """Return whether all pending tasks would fail the same way: server down, key rejected, rate limit, broken proxy."""
    if isinstance(outcome, RejectedResponse) and (outcome.code is None or outcome.status in {429, *KEY_REJECTED}):
        return True
    return uncertain(outcome)


def _is_rejected(outcome: NoSuccess) -> bool:
    """Return whether trying again soon does not help: a 4xx but for 429, whose own pause says when to try."""
    return isinstance(outcome, RejectedResponse) and outcome.status != 429 and not uncertain(outcome)


@frozen
class ReleaseTask:
    """A release that failed: a few tries, then the budget returns when the lease ends."""

    release: Release
    tries: int = 0

    is_settlement = False

    def attempt(self, records: Records, io: Io) -> Step:
        """Release it."""
        outcome = run(io.send(release_call_of(self.release)))
        if is_released(outcome):
            report_released(io, self.release)
            return Done()
        assert not isinstance(outcome, Success)
        if is_final(outcome) or self.tries + 1 >= RELEASE_TRIES:
            report_release_failed(io, self.release, describe(outcome), retrying=False)
            return Done() if is_final(outcome) else None
        return Later(evolve(self, tries=self.tries + 1), describe(outcome), may_have_taken_effect(outcome))


@frozen
class CreateCleanupTask:
    """A create whose outcome is unknown and whose caller has left: what it reserved, if anything, is released.

    The create is sent again with its key until the server's response shows whether there is a reservation. If no
    attempt was possible for `ttl_ms + grace_period_ms`, no reservation of it can be left, and another attempt would
    make one.
    """

    call: Call
    last_attempt_s: float

    is_settlement = False

    def attempt(self, records: Records, io: Io) -> Step:
        """Send the create once more with its key, and release what it reserved."""
        if time.monotonic() - self.last_attempt_s > self._longest_life_s():
            return None
        outcome = run(clean_up_create(io, self.call))
        if isinstance(outcome, Success) or (isinstance(outcome, RejectedResponse) and outcome.understood):
            return Done()
        task = self
        if may_have_taken_effect(outcome):
            task = evolve(self, last_attempt_s=time.monotonic())
        return Later(task, f"{CREATE_RESERVATION}: {describe(outcome)}", outage=uncertain(outcome))

    def _longest_life_s(self) -> float:
        body = self.call.body or {}
        return float(body.get("ttl_ms", DEFAULT_TTL_MS) + body.get("grace_period_ms", DEFAULT_GRACE_MS)) / 1000
