"""What one attempt at some work of the background does. `WorkQueue` decides when and how often.

Each attempt is a flow: a thread runs it to its end, and a task of an event loop awaits it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Coroutine
from typing import Any, Final, TypeAlias

from attrs import evolve, frozen

from cycles._core.messages.outcome import NoSuccess, RejectedResponse, Success
from cycles._core.messages.requests import DEFAULT_GRACE_MS, DEFAULT_TTL_MS, NO_OPTIONS
from cycles._core.protocol import CREATE_RESERVATION, KEY_REJECTED, STUCK_AFTER_MS, UNLISTED_LONGEST_PAUSE_S
from cycles._core.settlement.record import Record, file_name
from cycles._core.settlement.schedule import Item
from cycles._core.settlement.settlement import Settled, Taken, Unresolved
from cycles._flows.guard_state import GuardState, Release
from cycles._flows.io import BackgroundWork, CleanUp, Io, Settle
from cycles._flows.release import is_final, is_released, release_call_of
from cycles._flows.reserve import clean_up_create
from cycles._flows.retry import describe, is_unlisted, may_have_taken_effect, uncertain
from cycles._flows.settle import attempt as attempt_settlement, conclude, report_pending, rest_of
from cycles._journal.journal import Entry
from cycles._journal.records import Records

RELEASE_TRIES: Final = 4  # then the budget returns when the lease ends


@frozen
class Found:
    """Settle a record of the journal that is not in memory: there may be ten thousand.

    `is_saved` is False if its last form was held back: the journal does not have it.
    """

    entry: Entry
    is_saved: bool = True


Work: TypeAlias = BackgroundWork | Found


@frozen
class Done:
    """Nothing is pending any more. `settled` is True if an amount reached the ledger."""

    settled: bool = False


@frozen
class Later:
    """Still pending.

    Attributes:
        detail: Why.
        outage: The server as a whole fails.
        floor_s: Not before this monotonic time, after a 429.
        longest_s: Replaces the longest pause between attempts.
        rejected: Trying again soon does not help.
    """

    detail: str
    outage: bool
    floor_s: float = 0.0
    longest_s: float | None = None
    rejected: bool = False


Step: TypeAlias = Done | Later | None
"""The outcome of one attempt; None: no longer pending, and nothing is known about the server."""


def key_of(work: Work) -> str:
    """Return the key of some work in the queue: a settlement has the file name of its record, read or not."""
    if isinstance(work, Settle):
        return file_name(work.record.reservation_id)
    if isinstance(work, Found):
        return work.entry
    if isinstance(work, Release):
        return f"release:{work.key}"
    return f"create:{(work.call.body or {}).get('idempotency_key', '')}"


def is_settlement(work: Work) -> bool:
    """Return whether an amount is settled; only those are counted and listed for users."""
    return isinstance(work, Settle | Found)


def record_of(work: Work, records: Records) -> Record | None:
    """Return the record to settle; None if there is none, or if the journal has it no longer or has quarantined it."""
    if isinstance(work, Found):
        return records.left.load(work.entry)
    return work.record if isinstance(work, Settle) else None


def attempt(io: Io, records: Records, item: Item[Work]) -> Coroutine[Any, Any, Step]:
    """Try some work once, and change its item if it is still pending."""
    work = item.value
    if isinstance(work, Release):
        return _release(io, work, item.attempts)
    if isinstance(work, CleanUp):
        return _clean_up(io, item, work)
    return _settle(io, records, item, work)


async def _settle(io: Io, records: Records, item: Item[Work], work: Settle | Found) -> Step:
    record = work.record if isinstance(work, Settle) else records.left.load(work.entry)
    if record is None:
        return None
    guard, options = (None, NO_OPTIONS) if isinstance(work, Found) else (work.guard, work.options)
    was_read = isinstance(work, Found)
    is_first = isinstance(work, Settle) and work.detail is None  # no attempt has failed
    if is_first and not work.is_saved:  # one may have been interrupted, which continues with what it has saved last
        record = records.latest(record).interrupted()
    # A client that was stopped for longer than its claim must not send what another one has.
    if records.is_taken(record):
        if (rest := await rest_of(io, record, guard)) is None:
            return _leave(io, record, guard)
        record = rest
    if was_read and record.wait_ms(io.clock.wall_ms()) > 0:  # a 429 that an earlier process received defers it
        return _later(io, record, "deferred by the server's Retry-After", outage=False)
    # Other processes settle what is in the journal. They may also have the commit that an event replaces: it is saved
    # again before it is sent.
    found = was_read or (work.is_saved and not is_first and records.journaled)
    is_saved = work.is_saved and not (was_read and record.replaces_commit)
    record, result = await attempt_settlement(io, record, guard, options=options, found=found, is_saved=is_saved)
    if isinstance(result, Taken):
        return _leave(io, record, guard)
    # Also for a guard whose caller has left: those that wait for its settlement are woken.
    if not isinstance(result, Unresolved):
        conclude(io, record, result, guard, recovered=not (is_first and work.is_saved))
        await io.finish(record, result)
        return Done(settled=isinstance(result, Settled))
    if is_first:
        # Replaces the value of the item, and reports that it is pending.
        conclude(io, record, result, guard, options=options)
    elif isinstance(work, Settle):
        item.value = evolve(work, record=record, is_saved=result.is_saved)
        if record.mode == "event" and guard is not None and guard.own_heartbeat is not None:
            guard.own_heartbeat.end()
    else:
        records.attempt_ended(record)
        # Reading may have renamed its file.
        item.value = Found(Entry(file_name(record.reservation_id)), result.is_saved)
    return _after_failure(io, records, item, record, result.outcome)


def _leave(io: Io, record: Record, guard: GuardState | None) -> Step:
    """Leave the record to the client that has claimed it."""
    conclude(io, record, Taken(), guard, recovered=True)
    logging.getLogger("cycles").debug("reservation %s: another client settles it", record.reservation_id)
    return None


def _after_failure(io: Io, records: Records, item: Item[Work], record: Record, outcome: NoSuccess) -> Later:
    detail = describe(outcome)
    later = evolve(_later(io, record, detail, outage=_concerns_all(outcome)), rejected=_is_rejected(outcome))
    if not is_unlisted(outcome):
        return later
    if not item.is_reported and io.clock.wall_ms() - record.recorded_at_ms > STUCK_AFTER_MS:
        command = f"cycles journal show {record.reservation_id}"
        stuck = f"stuck for more than 24 hours: {detail}; see `{command}`"
        report_pending(io, record, stuck, journaled=records.journaled)
        item.is_reported = True
    return evolve(later, longest_s=UNLISTED_LONGEST_PAUSE_S)


def _later(io: Io, record: Record, reason: str, *, outage: bool) -> Later:
    wait_s = record.wait_ms(io.clock.wall_ms()) / 1000
    return Later(reason, outage, time.monotonic() + wait_s if wait_s > 0 else 0.0)


def _concerns_all(outcome: NoSuccess) -> bool:
    """Return whether all pending work would fail the same way: server down, key rejected, rate limit, broken proxy."""
    if isinstance(outcome, RejectedResponse) and (outcome.code is None or outcome.status in {429, *KEY_REJECTED}):
        return True
    return uncertain(outcome)


def _is_rejected(outcome: NoSuccess) -> bool:
    """Return whether trying again soon does not help: a 4xx but for 429, whose own pause says when to try."""
    return isinstance(outcome, RejectedResponse) and outcome.status != 429 and not uncertain(outcome)


async def _release(io: Io, release: Release, earlier: int) -> Step:
    """Release a reservation: a few tries, then the budget returns when the lease ends."""
    outcome = await io.send(release_call_of(release))
    if is_released(outcome):
        io.report("Released", release, trace_id=release.options.trace_id, reason=release.reason)
        return Done()
    assert not isinstance(outcome, Success)
    if is_final(outcome) or earlier + 1 >= RELEASE_TRIES:
        io.report("ReleaseFailed", release, trace_id=release.options.trace_id, detail=describe(outcome), retrying=False)
        return Done() if is_final(outcome) else None
    return Later(describe(outcome), may_have_taken_effect(outcome))


async def _clean_up(io: Io, item: Item[Work], work: CleanUp) -> Step:
    """Send a create again with its key until the response shows whether there is a reservation, and release that.

    If no attempt was possible for `ttl_ms + grace_period_ms`, no reservation of it can be left, and another attempt
    would make one.
    """
    body = work.call.body or {}
    lives_s = (body.get("ttl_ms", DEFAULT_TTL_MS) + body.get("grace_period_ms", DEFAULT_GRACE_MS)) / 1000
    # The lease of what it made is over, and its key may have ended: another create would hold budget again.
    if time.monotonic() - item.since > lives_s:
        return None
    outcome = await clean_up_create(io, work.call)
    if isinstance(outcome, Success) or (isinstance(outcome, RejectedResponse) and outcome.understood):
        return Done()
    if may_have_taken_effect(outcome):
        item.since = time.monotonic()
    return Later(f"{CREATE_RESERVATION}: {describe(outcome)}", outage=uncertain(outcome))
