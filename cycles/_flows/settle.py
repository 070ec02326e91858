"""What commit and release share: attempt a settlement, conclude it, finish it later. See `docs/protocol/settlement.md`.

The record is saved before the first request is sent. After a success it is deleted, after a final error response it is
kept in `rejected/`. If a flow is interrupted, the background of the client finishes it with the same key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve

from cycles._core.amounts import Amount
from cycles._core.messages.outcome import NoSuccess, Success, Unreachable
from cycles._core.messages.requests import NO_OPTIONS, Call, CallOptions
from cycles._core.protocol import GET_RESERVATION
from cycles._core.settlement.late import guards_of, late_record, sum_of
from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Made, Record, event_record_id
from cycles._core.settlement.rules import Lookup, Resend, after_lookup, before_sending, classify_settlement
from cycles._core.settlement.settlement import (
    Rejected,
    Settled,
    Settlement,
    SettlementOutcome,
    Taken,
    Unresolved,
    call_of,
    settled_by,
)
from cycles._core.values.json_values import salvage_metadata
from cycles._core.values.usage import Metrics, Usage, salvage_metrics
from cycles._errors import InvalidRequestError
from cycles._far_above import FAR_ABOVE, report_far_above
from cycles._flows.guard_state import Ended, GuardState, Release
from cycles._flows.io import Io, Settle
from cycles._flows.retry import describe, may_have_taken_effect

_HELD_BACK: Final = Unreachable(
    "the journal has the commit of this amount and does not take the event that replaces it, so the event is not sent"
    " yet; free some space for the journal, make it writable, or start its store",
    sent=False,
    queued=True,
)
STOPPED_BY: Final[dict[PutResult, Taken | Unresolved]] = {
    PutResult.TAKEN: Taken(),
    PutResult.HELD_BACK: Unresolved(_HELD_BACK, is_saved=False),
}
"""How an attempt ends whose record must not be sent. Records with other results may."""


def finish_in_background(io: Io, guard: GuardState) -> None:
    """Finish the guard's commit or release in the background after its caller was interrupted."""
    # Else it was interrupted before it claimed the guard: the caller, or the end of the block, ends it.
    if guard.unfinished is not None and guard.finalized:
        try:
            _finish_in_background(io, guard, guard.unfinished)
        except BaseException:  # a second signal: what is handed over twice has one key
            _finish_in_background(io, guard, guard.unfinished)
            raise
    guard.unfinished = None


def _finish_in_background(io: Io, guard: GuardState, unfinished: Record | Release | Ended) -> None:
    if isinstance(unfinished, Ended):
        # Its outcome is known and reported already; only the journal has to learn of it.
        io.finish_later(unfinished.record, unfinished.result)
    elif isinstance(unfinished, Release):
        guard.start_release()
        io.hand_over(unfinished, now=True)
    else:
        settle_later(io, guard, unfinished)


def conclude(
    io: Io,
    record: Record,
    result: SettlementOutcome,
    guard: GuardState | None,
    *,
    recovered: bool = False,
    options: CallOptions = NO_OPTIONS,
) -> None:
    """Store the result of an attempt in the guard and report it. If it is open, pass it to the background."""
    if isinstance(result, Unresolved):
        if guard is not None and not recovered:
            pending = pending_settlement(record, guard.trace_id, result.outcome)
            guard.apply("unresolved", pending, if_accepted=True)
        # Not now: an attempt has just failed, so the next one comes after the pause of a retry.
        io.hand_over(Settle(record, guard, describe(result.outcome), result.is_saved, options), now=False)
        return
    if guard is not None:
        _conclude_guard(io, record, result, guard)
    if isinstance(result, Settled):
        _report_settled(io, record, result.settlement, recovered)
        if guard is not None and record.actual.amount > FAR_ABOVE * guard.request.estimate.amount > 0:
            report_far_above(io, guard, record.actual)
    elif isinstance(result, Rejected):
        if result.charged is not None:
            _report_settled(io, record, result.charged, recovered)
        io.report(
            "SettlementRejected",
            reservation_id=record.reservation_id,
            trace_id=result.response.trace_id,
            actual=(result.kept or record).whole,
            guards=guards_of(record),
            detail=describe(result.response),
            hint=io.settings.rejected_hint,
        )


def _conclude_guard(io: Io, record: Record, result: Settled | Rejected | Taken, guard: GuardState) -> None:
    """Store in a guard that this process has nothing more to settle for it."""
    # Before the state: once a caller sees that a guard is settled, its file and its heartbeat are gone.
    if guard.ahead is not None:
        guard.ahead.end()
    if guard.own_heartbeat is not None:
        guard.own_heartbeat.end()
    if isinstance(result, Settled):
        guard.apply("settled", result.settlement, if_accepted=True)
    elif isinstance(result, Rejected):
        guard.rejection = result.response
        guard.apply("rejected", if_accepted=True)
    else:  # another client settles it, and reports that to its own process only: no wait here would end
        guard.apply("unresolved", pending_settlement(record, guard.trace_id), if_accepted=True)
        guard.when_settled().set()


def pending_settlement(record: Record, trace_id: str | None, last: NoSuccess | None = None) -> Settlement:
    """Return the settlement of a record whose outcome is open. `last` is the response to its last attempt."""
    request_id, http = getattr(last, "request_id", None), getattr(last, "http", None)
    return Settlement(status="pending", actual=record.actual, request_id=request_id, trace_id=trace_id, http=http)


def event_record(io: Io, body: dict[str, Any]) -> Record:
    """Return the record of an amount that has no reservation."""
    return Record(
        reservation_id=event_record_id(body["idempotency_key"]),
        base_url=io.settings.base_url,
        mode="event",
        event_fallback_body=body,
        recorded_at_ms=io.clock.wall_ms(),
        made=Made(io.clock.boot_ms()),
    )


async def attempt(
    io: Io,
    record: Record,
    guard: GuardState | None,
    *,
    options: CallOptions = NO_OPTIONS,
    found: bool = False,
    is_saved: bool = True,
) -> tuple[Record, SettlementOutcome]:
    """Send what a saved record needs, by the rules of `_core/settlement/rules.py`, until its outcome is known or open.

    Args:
        io: The operations.
        record: The record.
        guard: Its guard, or None.
        options: Options of the requests of a record without a guard.
        found: Whether another process may have sent the record before.
        is_saved: Whether it is saved; otherwise it is saved first.

    Returns:
        The current record, and the outcome. Call `conclude` and then `io.finish` with both.
    """
    # A guard has one trace id for all its requests, also for those of the background.
    options = options if guard is None else guard.call_options
    clock, whole = io.clock, record
    if not is_saved:
        # The age of an event counts from when it could first be sent, and not while it is held back.
        was_held_back = record.replaces_commit and record.event_since_ms is None and not found
        timed = record.to_event_mode(clock.wall_ms(), clock.boot_ms()) if was_held_back else record
        kept = await saved(io, timed, guard, whole)
        if not isinstance(kept, Record):
            return record, kept
        record = kept
    # A record of which nothing can have arrived has no limit of age, so a clock that was set does not end it.
    if record.may_have_arrived or record.rejected is not None:
        over = before_sending(record, clock.wall_ms(), clock.boot_ms())
        if over is not None:
            return record, over
    while True:
        step = await _next_step(io, record, options, found=found)
        # The attempt is over here: pauses are decided by the queue, and no caller waits for more than one attempt.
        if isinstance(step, Unresolved):
            return await _saved_open(io, record, step), step
        if not isinstance(step, Resend):
            return record, step
        # Reported before the next request, which may be interrupted.
        if step.omitted:
            io.report("ValuesOmitted", record, names=step.omitted)
        kept = await saved(io, step.record, guard, whole)
        if not isinstance(kept, Record):  # a new event gets its time when it is sent
            return step.record if record.mode == "event" else evolve(step.record, event_since_ms=None), kept
        whole = whole if kept is step.record else kept
        record = kept


async def _next_step(
    io: Io, record: Record, options: CallOptions, *, found: bool
) -> Settled | Rejected | Unresolved | Resend:
    """Send the request of a record and return what follows. Read the reservation if an earlier one may have arrived."""
    outcome, clock = await io.send(call_of(record, options)), io.clock
    if isinstance(outcome, Success) and record.excess is None:  # the common case needs neither time nor rules
        return Settled(settled_by(record, outcome))
    step = classify_settlement(record, outcome, clock.wall_ms(), clock.boot_ms(), found=found)
    if not isinstance(step, Lookup):
        return step
    # The ledger decides, and not what this process knows of earlier attempts: only one of them can have committed.
    read = Call(GET_RESERVATION, {"reservation_id": record.reservation_id}, options=options)
    reservation = await io.send(read)
    return after_lookup(record, step.response, reservation, now_ms=clock.wall_ms(), sent_before=step.sent_before)


async def saved(
    io: Io, record: Record, guard: GuardState | None, whole: Record | None = None
) -> Record | Taken | Unresolved:
    """Save a record before it is sent.

    Args:
        io: The operations.
        record: The record.
        guard: Its guard, or None.
        whole: All that is to be settled, if the record is one step of that.

    Returns:
        What is sent: the record, or the rest of all that another client leaves. Otherwise how the attempt ends.
    """
    stopped = STOPPED_BY.get(await put(io, record, guard))
    rest = await rest_of(io, whole or record, guard) if isinstance(stopped, Taken) else None
    return rest or stopped or record


async def put(io: Io, record: Record, guard: GuardState | None) -> PutResult:
    """Save a record. Once it is saved, the spend of its guard needs to be written ahead no longer.

    If the journal does not take it, it replaces that spend: a later process then settles the amount that is known now.
    """
    result = await io.put(record)
    ahead = None if guard is None else guard.ahead
    if ahead is None:
        return result
    if result is PutResult.SAVED:
        ahead.end()
    elif result is PutResult.FAILED and ahead.is_left:
        if record.replaces_commit:
            return PutResult.HELD_BACK  # a later process would commit what is written ahead, and send an event too
        ahead.replace(record)
    return result


async def rest_of(io: Io, record: Record, guard: GuardState | None = None) -> Record | None:
    """Save and return the event for what another client, which has the record of a chunk, does not charge of it.

    None if nothing is left, or if the record is not that of a chunk. The record is in progress here no longer.
    """
    theirs = None if guards_of(record) is None else await io.pending(record.reservation_id)
    # The difference is counted from the sum in their record: two clients cannot send different amounts under one key.
    rest = None if theirs is None else late_record(record, sum_of(theirs), io.clock.wall_ms())
    if rest is not None:
        # Once it is saved, the other client and the rest have all of it. Until then the log of the chunk stays.
        await put(io, rest, guard)
    await io.finish(record, Taken())
    return rest


async def _saved_open(io: Io, record: Record, result: Unresolved) -> Record:
    """Save what an open attempt adds to the record: a deferred time, or that the amount may be charged already."""
    changed = record
    # Saved, so that another process that finds the record waits as well.
    if result.retry_after_ms is not None:
        now_ms = io.clock.wall_ms()
        changed = record.deferred_until(now_ms + result.retry_after_ms, now_ms=now_ms)
    if may_have_taken_effect(result.outcome) and not record.attempt_unknown:
        # The age of a record that no request of before can have carried counts from now on.
        made = changed.made if changed.may_have_arrived else Made(io.clock.boot_ms())
        changed = evolve(changed, attempt_unknown=True, made=made)
    if changed is not record:
        await io.put(changed)
    return changed


async def settle_queued(io: Io, record: Record, guard: GuardState | None, *, is_saved: bool = True) -> None:
    """Send a settlement whose caller does not wait for it."""
    latest, result = await attempt(io, record, guard, is_saved=is_saved)
    conclude(io, latest, result, guard)
    await io.finish(latest, result)


def _report_settled(io: Io, record: Record, settlement: Settlement, recovered: bool) -> None:
    amounts = {"actual": settlement.actual, "charged": settlement.charged, "reservation_id": record.reservation_id}
    io.report("Settled", settlement, status=settlement.status, recovered=recovered, **amounts)
    if settlement.undercharged:
        io.report("Undercharged", settlement, **amounts)


def report_pending(io: Io, record: Record, detail: str, *, journaled: bool) -> None:
    """Report an amount that the server has not confirmed yet."""
    io.report("SettlementPending", record, actual=record.actual, detail=detail, journaled=journaled)


def amount_to_commit(known: Amount | None) -> Amount:
    """Return what a commit charges whose caller passed no amount: the known spend.

    Raises:
        InvalidRequestError: no spend is known.
    """
    if known is None:
        raise InvalidRequestError(
            "commit() has no amount: no spend is known; pass commit(amount), or call guard.spend(amount) before it"
        )
    return known


def usable_values(
    io: Io, reservation_id: str | None, metrics: Metrics | Usage | Mapping[str, Any] | None, metadata: Any
) -> tuple[Metrics | None, dict[str, Any]]:
    """Return what can be sent of the caller's metrics and metadata, and report what cannot. Never raises."""
    usable, omitted = salvage_metrics(metrics)
    labels, omitted_labels = salvage_metadata(metadata)
    if omitted or omitted_labels:
        io.report("ValuesOmitted", reservation_id=reservation_id, names=(*omitted, *omitted_labels))
    return usable, labels


def settle_shadow(io: Io, guard: GuardState, amount: Amount | None) -> Settlement:
    """End a shadow or observed guard: send nothing, and report the decision, and what the block cost."""
    # Nothing is held, so nothing can be lost: no record is made, and no request is sent.
    created, estimate = guard.created, guard.estimate
    settlement = Settlement(status="shadow", actual=amount or Amount(estimate.unit, 0))
    # Its state stays: it says that the server has enforced nothing.
    if guard.state == "observed":
        assert created is not None  # the response by which it was recognised
        io.report(
            "Observed",
            created,
            trace_id=guard.trace_id,
            estimate=estimate,
            actual=amount,
            action=guard.request.action.name,
            decision=created.decision,
            reason_code=created.denial_code,
        )
        guard.settlement = settlement  # its state never changes
        return settlement
    io.report(
        "ShadowSettled",
        trace_id=guard.trace_id,
        estimate=estimate,
        actual=amount,
        action=guard.request.action.name,
        would_deny=None if created is None else not created.allowed,
    )
    guard.apply("settled" if amount is not None else "release_started", settlement)
    return settlement


def settle_later(io: Io, guard: GuardState, record: Record) -> None:
    """Settle a claimed guard in the background; no caller waits for it."""
    guard.apply("unresolved", pending_settlement(record, guard.trace_id), if_accepted=True)
    io.hand_over(Settle(record, guard, is_saved=False), now=True)
    guard.end_trace()
