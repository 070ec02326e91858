"""End a guard with an amount, and settle amounts that no guard holds. See `docs/protocol/settlement.md`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cycles._core.amounts import Amount
from cycles._core.error_mapping import error_of
from cycles._core.json_values import clean_object, salvage_json
from cycles._core.records import Record, event_record_id
from cycles._core.requests import new_key
from cycles._core.settlement import (
    RECOVERED,
    RECOVERY_REASON,
    Owed,
    Rejected,
    Settled,
    Settlement,
    Verdict,
    actual_of,
    call_of,
)
from cycles._core.usage import Metrics, settlement_metrics
from cycles._errors import CyclesError, InvalidRequestError
from cycles._flows.guard_state import AS_IT_IS, Hold
from cycles._flows.io import Io
from cycles._flows.settle import (
    attempt,
    conclude,
    file_away,
    hand_on,
    pending_settlement,
    report_values_omitted,
    settle_shadow,
)


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


def record_of(io: Io, hold: Hold, amount: Amount, metrics: Metrics | None, metadata: Mapping[str, Any]) -> Record:
    """Everything that is needed to settle this amount, in another process too."""
    latency_ms = max(0, round(io.now_ms() - hold.opened_ms))
    used, left_out = settlement_metrics(metrics, hold.usage, latency_ms if metrics is None else None)
    labels, lost = salvage_json(metadata, "metadata")
    report_values_omitted(io, hold.reservation_id, (*left_out, *lost))
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


async def _settle(io: Io, hold: Hold, record: Record) -> Settlement:
    if hold.plan.shadow:
        return settle_shadow(io, hold, actual_of(record))
    await io.save(record)
    latest, judged = await attempt(io, record, hold.trace_id)
    conclude(io, latest, judged, hold)
    hold.owed = None
    await file_away(io, latest, judged)
    if isinstance(judged, Rejected):
        raise error_of(judged.refusal, "commitReservation")
    assert hold.settlement is not None
    return hold.settlement


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
    return judged.settlement if isinstance(judged, Settled) else pending_settlement(record, _owed(judged), trace_id)


def _owed(judged: Verdict) -> Owed:
    assert isinstance(judged, Owed)  # Expired is never the last word of an attempt
    return judged
