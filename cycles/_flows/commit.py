"""End a guard with an amount, and settle amounts that no guard holds. See `docs/protocol/settlement.md`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cycles._core.amounts import Amount
from cycles._core.error_mapping import error_of
from cycles._core.json_values import clean_object, salvage_json
from cycles._core.protocol import COMMIT_RESERVATION, CREATE_EVENT
from cycles._core.records import Record, event_record_id
from cycles._core.requests import new_key
from cycles._core.settlement import (
    RECOVERED,
    RECOVERY_REASON,
    Rejected,
    Settled,
    Settlement,
    SettlementOutcome,
    Unresolved,
    actual_of,
    call_of,
)
from cycles._core.usage import Metrics, settlement_metrics
from cycles._errors import CyclesError, InvalidRequestError
from cycles._flows.guard_state import ANY_AMOUNT, GuardState
from cycles._flows.io import Io
from cycles._flows.settle import (
    attempt,
    conclude,
    file_away,
    finish_in_background,
    pending_settlement,
    report_values_omitted,
    settle_shadow,
)


async def commit(
    io: Io,
    guard: GuardState,
    actual: Amount | None,
    metrics: Metrics | Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    settlement_metadata: Mapping[str, str] | None = None,
) -> Settlement:
    """End a guard with what it cost.

    Raises:
        InvalidRequestError: for something that cannot be settled; the guard stays active.
        GuardFinalizedError: if the guard has ended; nothing is sent.
        ProtocolError: for an understood rejection; the amount is in no ledger then.
    """
    if actual is not None:
        guard.check_unit(actual)
        guard.reported_amount = actual  # said once, it is not lost if the rest of this call turns out to be wrong
    given = Metrics.of(metrics)
    labels = clean_object(metadata, "metadata") if metadata is not None else {}
    try:
        record = _claim(
            io, guard, actual, given, {**labels, **guard.request.settlement_metadata, **(settlement_metadata or {})}
        )
        settlement = await _settle(io, guard, record)
    except CyclesError:
        raise
    except BaseException:  # interrupted or cancelled: the amount is known, so it is owed, with the same key
        finish_in_background(io, guard)
        raise
    guard.raise_loss_outside_a_block()
    return settlement


def _claim(
    io: Io, guard: GuardState, actual: Amount | None, metrics: Metrics | None, metadata: Mapping[str, Any]
) -> Record:
    """Make the guard nobody else's to end, and owe its record; in shadow mode nothing is ever owed."""
    while True:
        known = guard.known
        amount = known if actual is None else actual
        if amount is None:
            raise InvalidRequestError("commit: say what it cost, commit(amount), or tell guard.spend(amount) before")
        record = record_of(io, guard, amount, metrics, metadata)
        io.check(call_of(record))
        if guard.claim("commit", known if actual is None else ANY_AMOUNT, None if guard.request.shadow else record):
            return record


def record_of(
    io: Io, guard: GuardState, amount: Amount, metrics: Metrics | None, metadata: Mapping[str, Any]
) -> Record:
    """Everything that is needed to settle this amount, in another process too."""
    latency_ms = max(0, round(io.now_ms() - guard.opened_ms))
    used, left_out = settlement_metrics(metrics, guard.usage, latency_ms if metrics is None else None)
    labels, lost = salvage_json(metadata, "metadata")
    report_values_omitted(io, guard.reservation_id, (*left_out, *lost))
    body: dict[str, Any] = {"idempotency_key": new_key(), "actual": amount.to_dict()}
    if used:
        body["metrics"] = used
    if labels:
        body["metadata"] = labels
    event = {**body, "subject": guard.request.subject.to_dict(), "action": guard.request.action.to_dict()}
    if guard.reservation_id is None:
        return _event_record(io, event)
    event["metadata"] = {**(labels or {}), RECOVERED: guard.reservation_id, "recovery_reason": RECOVERY_REASON}
    return Record(
        reservation_id=guard.reservation_id,
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


async def _settle(io: Io, guard: GuardState, record: Record) -> Settlement:
    if guard.request.shadow:
        return settle_shadow(io, guard, actual_of(record))
    await io.save(record)
    latest, result = await attempt(io, record, guard.trace_id)
    conclude(io, latest, result, guard)
    guard.owed = None
    await file_away(io, latest, result)
    if isinstance(result, Rejected):
        raise error_of(result.refusal, COMMIT_RESERVATION)
    assert guard.settlement is not None
    return guard.settlement


async def record_event(io: Io, body: dict[str, Any], trace_id: str) -> Settlement:
    """Debit an actual that no reservation was made for; journaled like a commit.

    Raises:
        ProtocolError: for an understood rejection.
    """
    return await settle_record(io, _event_record(io, body), trace_id, CREATE_EVENT)


async def settle_record(io: Io, record: Record, trace_id: str, operation: str) -> Settlement:
    """Settle what no guard holds: the same order, without a lease.

    Raises:
        ProtocolError: for an understood rejection, and for a reservation that has expired.
    """
    io.check(call_of(record))
    try:
        await io.save(record)
        record, result = await attempt(io, record, trace_id)
    except BaseException:
        io.finish_settling(record, None)
        raise
    if record.mode == "commit" and isinstance(result, Unresolved) and getattr(result.outcome, "expired", False):
        await io.delete(record)  # there is no event to fall back to, but somebody who is told, and knows the amount
        raise error_of(result.outcome, operation)
    conclude(io, record, result, None)
    await file_away(io, record, result)
    if isinstance(result, Rejected):
        raise error_of(result.refusal, operation)
    return result.settlement if isinstance(result, Settled) else pending_settlement(record, _owed(result), trace_id)


def _owed(result: SettlementOutcome) -> Unresolved:
    assert isinstance(result, Unresolved)  # Expired is never the last word of an attempt
    return result
