"""From a known amount to the ledger, exactly once; and ending a guard without one (recovery.md, decisions 9 to 14).

The record is written before the first request leaves, and goes only after a success or an understood rejection.
Whatever interrupts a flow here, the background of the client goes on with the same key.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, Literal

from attrs import evolve

from cycles._core.amounts import Amount
from cycles._core.error_mapping import error_of
from cycles._core.json_values import clean_object, salvage_json
from cycles._core.outcome import Refusal
from cycles._core.records import Record, event_record_id
from cycles._core.requests import new_key
from cycles._core.results import ReleaseResponse
from cycles._core.settlement import (
    RECOVERED,
    RECOVERY_REASON,
    Expired,
    Owed,
    Rejected,
    Settled,
    Settlement,
    Verdict,
    actual_of,
    call_of,
    verdict,
)
from cycles._core.usage import Metrics, settlement_metrics
from cycles._errors import CyclesError, InvalidRequestError
from cycles._flows.asking import why
from cycles._flows.releasing import give_back
from cycles._hold import AS_IT_IS, Hold, Release
from cycles._io import Io

_OPTIONAL: Final = ("metrics", "metadata")
_OURS: Final = {"latency_ms", RECOVERED, "recovery_reason"}  # nobody else's words: never why a request is invalid


async def commit(
    io: Io,
    hold: Hold,
    actual: Amount | None,
    metrics: Metrics | Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    marks: Mapping[str, str] | None = None,
) -> Settlement:
    """End a guard with what it cost.

    Raises:
        InvalidRequestError: for something that cannot be settled; the guard stays active.
        GuardFinalizedError: if the guard has ended; nothing is sent.
        ProtocolError: for an understood rejection; the amount is in no ledger then.
    """
    if actual is not None:
        hold.check_unit(actual)
        hold.stated = actual  # said once, it is not lost if the rest of this call turns out to be wrong
    given = Metrics.of(metrics)
    labels = clean_object(metadata, "metadata") if metadata is not None else {}
    try:
        record = _claim(io, hold, actual, given, {**labels, **hold.plan.marks, **(marks or {})})
        settlement = await _settle(io, hold, record)
    except CyclesError:
        raise
    except BaseException:  # interrupted or cancelled: the amount is known, so it is owed, with the same key
        hand_on(io, hold)
        raise
    hold.raise_loss_outside_a_block()
    return settlement


def _claim(io: Io, hold: Hold, actual: Amount | None, metrics: Metrics | None, metadata: Mapping[str, Any]) -> Record:
    """Make the guard nobody else's to end, and owe its record; in shadow mode nothing is ever owed."""
    while True:
        known = hold.known
        amount = known if actual is None else actual
        if amount is None:
            raise InvalidRequestError("commit: say what it cost, commit(amount), or tell guard.spend(amount) before")
        record = record_of(io, hold, amount, metrics, metadata)
        io.check(call_of(record))
        if hold.claim("commit", known if actual is None else AS_IT_IS, None if hold.plan.shadow else record):
            return record


def hand_on(io: Io, hold: Hold) -> None:
    """What a guard that is claimed still owes, nobody waits for any more: the background goes on with it."""
    owed, hold.owed = hold.owed, None
    if owed is None or not hold.finalized:
        return
    if isinstance(owed, Release):
        _stop(io, hold)
        io.finish_releasing(owed)
    else:
        settle_later(io, hold, owed)


def record_of(io: Io, hold: Hold, amount: Amount, metrics: Metrics | None, metadata: Mapping[str, Any]) -> Record:
    """Everything that is needed to settle this amount, in another process too."""
    latency_ms = max(0, round(io.now_ms() - hold.opened_ms))
    used, left_out = settlement_metrics(metrics, hold.usage, latency_ms if metrics is None else None)
    labels, lost = salvage_json(metadata, "metadata")
    _report_left_out(io, hold.reservation_id, (*left_out, *lost))
    body: dict[str, Any] = {"idempotency_key": new_key(), "actual": amount.to_dict()}
    if used:
        body["metrics"] = used
    if labels:
        body["metadata"] = labels
    event = {**body, "subject": hold.plan.subject.to_dict(), "action": hold.plan.action.to_dict()}
    if hold.reservation_id is None:
        return _event_record(io, event)
    event["metadata"] = {**(labels or {}), RECOVERED: hold.reservation_id, "recovery_reason": RECOVERY_REASON}
    return Record(
        reservation_id=hold.reservation_id,
        base_url=io.base_url,
        commit_body=body,
        event_fallback_body=event,
        recorded_at_ms=io.wall_ms(),
    )


def _event_record(io: Io, body: dict[str, Any]) -> Record:
    return Record(
        reservation_id=event_record_id(body["idempotency_key"]),
        base_url=io.base_url,
        mode="event",
        event_fallback_body=body,
        recorded_at_ms=io.wall_ms(),
    )


def _settle_shadow(io: Io, hold: Hold, amount: Amount | None) -> Settlement:
    """Nothing was held and nothing is sent; what would have happened is told."""
    created = hold.created
    if io.listens(logging.INFO):
        from cycles._events import ShadowSettled

        io.report(
            ShadowSettled(
                trace_id=hold.trace_id,
                estimate=hold.plan.estimate,
                actual=amount,
                action=hold.plan.action.name,
                would_deny=None if created is None else not created.allowed,
            )
        )
    hold.state = "committed" if amount is not None else "released"
    hold.settlement = Settlement(status="shadow", actual=amount or Amount(hold.plan.estimate.unit, 0))
    return hold.settlement


async def _settle(io: Io, hold: Hold, record: Record) -> Settlement:
    if hold.plan.shadow:
        return _settle_shadow(io, hold, actual_of(record))
    await io.save(record)
    latest, judged = await attempt(io, record, hold.trace_id)
    conclude(io, latest, judged, hold)
    hold.owed = None
    await file_away(io, latest, judged)
    if isinstance(judged, Rejected):
        raise error_of(judged.refusal, "commitReservation")
    assert hold.settlement is not None
    return hold.settlement


def settle_later(io: Io, hold: Hold, record: Record) -> None:
    """Settle a guard that is claimed, without anybody waiting for it."""
    hold.state = "pending"
    hold.settlement = Settlement(status="pending", actual=actual_of(record), trace_id=hold.trace_id)
    io.finish_settling(record, hold)


def conclude(io: Io, record: Record, judged: Verdict, hold: Hold | None, *, recovered: bool = False) -> None:
    """Put down what a settlement came to: in the guard, for observers, and in the background if it is still owed."""
    if isinstance(judged, Owed):
        if hold is not None and not recovered:
            hold.state = "pending"
            hold.settlement = _pending(record, judged, hold.trace_id)
        io.keep_settling(record, hold, why(judged.outcome))
        return
    if hold is not None and hold.heartbeat is not None:
        io.still(hold.heartbeat)
    if isinstance(judged, Settled):
        if hold is not None:
            hold.settlement, hold.state = judged.settlement, "committed"
        _report_settled(io, record, judged.settlement, recovered)
    elif isinstance(judged, Rejected):
        if hold is not None:
            hold.state = "rejected"
        _report_rejected(io, record, judged.refusal)


def _pending(record: Record, owed: Owed, trace_id: str | None) -> Settlement:
    request_id = getattr(owed.outcome, "request_id", None)
    return Settlement(status="pending", actual=actual_of(record), request_id=request_id, trace_id=trace_id)


async def attempt(io: Io, record: Record, trace_id: str | None = None) -> tuple[Record, Verdict]:
    """One try at a record that is already saved: the commit, and if its lease was over the event.

    Answers the record as it is now, and the verdict; `conclude` and `file_away` come next, in this order.
    """
    judged = verdict(record, await io.send(call_of(record, trace_id)))
    while (changed := _changed(io, record, judged)) is not None:
        record = changed
        await io.save(record)  # on disk before the request that it leads to (recovery.md, durable)
        judged = verdict(record, await io.send(call_of(record, trace_id)))
    if isinstance(judged, Owed) and judged.retry_after_ms is not None:
        now_ms = io.wall_ms()
        record = record.parked_until(now_ms + judged.retry_after_ms, now_ms=now_ms)
        await io.save(record)
    return record, judged


async def file_away(io: Io, record: Record, judged: Verdict) -> None:
    """Where the verdict is final the record goes: last, so that an interruption here unsettles nothing."""
    if not isinstance(judged, Owed):
        await io.forget(record)


def _changed(io: Io, record: Record, judged: Verdict) -> Record | None:
    """What is owed in place of the record after this verdict, to be sent at once; None where that is all for now."""
    if isinstance(judged, Expired):
        return record.to_event_mode()
    bare = _bare(judged.refusal, record) if isinstance(judged, Rejected) else None
    if bare is not None:
        _report_left_out(io, record.reservation_id, _OPTIONAL)
    return bare


def _bare(refusal: Refusal, record: Record) -> Record | None:
    """The record without metrics and metadata, if those may be why the server found the request invalid.

    A refusal leaves nothing behind under its key, so the payload may change here, and only here (semantics 5).
    """
    body = (record.commit_body if record.mode == "commit" else record.event_fallback_body) or {}
    stated = {*(body.get("metadata") or ()), *(body.get("metrics") or ())} - _OURS
    if refusal.code != "INVALID_REQUEST" or not stated:
        return None
    bare = {name: value for name, value in body.items() if name not in _OPTIONAL}
    return evolve(record, commit_body=bare) if record.mode == "commit" else evolve(record, event_fallback_body=bare)


async def record_event(io: Io, body: dict[str, Any], trace_id: str) -> Settlement:
    """Debit an actual that no reservation was made for; journaled like a commit.

    Raises:
        ProtocolError: for an understood rejection.
    """
    return await settle_record(io, _event_record(io, body), trace_id, "createEvent")


async def settle_record(io: Io, record: Record, trace_id: str, operation: str) -> Settlement:
    """Settle what no guard holds: the same order, without a lease.

    Raises:
        ProtocolError: for an understood rejection, and for a reservation that has expired.
    """
    io.check(call_of(record))
    try:
        await io.save(record)
        record, judged = await attempt(io, record, trace_id)
    except BaseException:
        io.finish_settling(record, None)
        raise
    if record.mode == "commit" and isinstance(judged, Owed) and getattr(judged.outcome, "expired", False):
        await io.forget(record)  # there is no event to fall back to, but somebody who is told, and knows the amount
        raise error_of(judged.outcome, operation)
    conclude(io, record, judged, None)
    await file_away(io, record, judged)
    if isinstance(judged, Rejected):
        raise error_of(judged.refusal, operation)
    return judged.settlement if isinstance(judged, Settled) else _pending(record, _owed(judged), trace_id)


def _owed(judged: Verdict) -> Owed:
    assert isinstance(judged, Owed)  # Expired is never the last word of an attempt
    return judged


async def release(io: Io, hold: Hold, reason: str | None) -> ReleaseResponse | None:
    """End a guard and give its budget back. None where nothing was held, or where the background goes on trying.

    Raises:
        GuardFinalizedError: if the guard has ended; nothing is sent.
        ProtocolError: for an understood refusal.
    """
    _, response = await free(io, hold, reason, quiet=False)
    hold.raise_loss_outside_a_block()
    return response


async def free(
    io: Io, hold: Hold, reason: str | None, *, quiet: bool, known: Amount | Literal["as it is"] | None = AS_IT_IS
) -> tuple[bool, ReleaseResponse | None]:
    """The same, and whether it was done: not, if another thread has spent meanwhile.

    Raises:
        GuardFinalizedError: if the guard has ended; nothing is sent.
        ProtocolError: for an understood refusal, unless `quiet`.
    """
    owed = _release_of(hold, reason)
    try:
        if not hold.claim("release", known, owed):
            return False, None
        if hold.plan.shadow:
            _settle_shadow(io, hold, None)
            return True, None
        _stop(io, hold)
        hold.owed = None  # from here on `give_back` sees to it
        return True, None if owed is None else await give_back(io, owed, quiet=quiet)
    except CyclesError:
        raise
    except BaseException:  # interrupted or cancelled
        hand_on(io, hold)
        raise


def free_later(io: Io, hold: Hold, reason: str | None) -> None:
    """Give the budget of a guard back that is claimed, without anybody waiting for it."""
    hold.owed = _release_of(hold, reason)
    _stop(io, hold)
    hand_on(io, hold)


def _release_of(hold: Hold, reason: str | None) -> Release | None:
    if hold.reservation_id is None:
        return None
    return Release(hold.reservation_id, new_key(), reason, hold.trace_id)


def _stop(io: Io, hold: Hold) -> None:
    hold.state = "released"
    if hold.heartbeat is not None:
        io.still(hold.heartbeat)


def _report_settled(io: Io, record: Record, settlement: Settlement, recovered: bool) -> None:
    ids = {
        "reservation_id": record.reservation_id,
        "request_id": settlement.request_id,
        "trace_id": settlement.trace_id,
    }
    if io.listens(logging.INFO):
        import cycles._events as events

        io.report(
            events.Settled(
                **ids,
                status=settlement.status,
                actual=settlement.actual,
                charged=settlement.charged,
                recovered=recovered,
            )
        )
    if settlement.capped and settlement.charged is not None and io.listens(logging.WARNING):
        import cycles._events as events

        io.report(events.Capped(**ids, actual=settlement.actual, charged=settlement.charged))


def _report_rejected(io: Io, record: Record, refusal: Refusal) -> None:
    if io.listens(logging.ERROR):
        from cycles._events import SettlementRejected

        io.report(
            SettlementRejected(
                reservation_id=record.reservation_id,
                trace_id=refusal.trace_id,
                actual=actual_of(record),
                why=why(refusal),
            )
        )


def _report_left_out(io: Io, reservation_id: str | None, names: tuple[str, ...]) -> None:
    if names and io.listens(logging.WARNING):
        from cycles._events import ValuesLeftOut

        io.report(ValuesLeftOut(reservation_id=reservation_id, names=names))
