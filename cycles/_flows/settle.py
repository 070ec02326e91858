"""What commit and release share: attempt a settlement, conclude it, finish it later. See `docs/protocol/settlement.md`.

The record is saved before the first request is sent. It is deleted after a success or a final error response. If a flow
is interrupted, the background of the client finishes it with the same key.
"""

from __future__ import annotations

from typing import Final

from attrs import evolve

from cycles._core.amounts import Amount
from cycles._core.lifecycle import RECOVERED_ID, RECOVERY_REASON
from cycles._core.outcome import RejectedResponse
from cycles._core.protocol import INVALID_REQUEST
from cycles._core.records import Record
from cycles._core.settlement import (
    Expired,
    Rejected,
    Settled,
    Settlement,
    SettlementOutcome,
    Unresolved,
    actual_of,
    call_of,
    classify_settlement,
)
from cycles._flows.guard_state import GuardState, Release
from cycles._flows.io import Io
from cycles._flows.reports import report
from cycles._flows.retry import describe

_OPTIONAL: Final = ("metrics", "metadata")
_OURS: Final = {"latency_ms", RECOVERED_ID, RECOVERY_REASON}  # added by this SDK: never why a request is invalid


def finish_in_background(io: Io, guard: GuardState) -> None:
    """Finish the guard's commit or release in the background after its caller was interrupted."""
    unfinished, guard.unfinished = guard.unfinished, None
    if unfinished is None or not guard.finalized:
        return
    if isinstance(unfinished, Release):
        stop_for_release(io, guard)
        io.finish_releasing(unfinished)
    else:
        settle_later(io, guard, unfinished)


def conclude(
    io: Io, record: Record, result: SettlementOutcome, guard: GuardState | None, *, recovered: bool = False
) -> None:
    """Store the result of an attempt in the guard and report it. If it is open, pass it to the background."""
    if isinstance(result, Unresolved):
        if guard is not None and not recovered:
            guard.apply("unresolved", pending_settlement(record, result, guard.trace_id), if_accepted=True)
        io.keep_settling(record, guard, describe(result.outcome))
        return
    if guard is not None and guard.heartbeat is not None:
        io.stop_heartbeat(guard.heartbeat)
    if isinstance(result, Settled):
        if guard is not None:
            guard.apply("settled", result.settlement, if_accepted=True)
        _report_settled(io, record, result.settlement, recovered)
    elif isinstance(result, Rejected):
        if guard is not None:
            guard.apply("rejected", if_accepted=True)
        report(
            io,
            "SettlementRejected",
            reservation_id=record.reservation_id,
            trace_id=result.response.trace_id,
            actual=actual_of(record),
            detail=describe(result.response),
        )


def pending_settlement(record: Record, result: Unresolved, trace_id: str | None) -> Settlement:
    """Return the settlement of a record whose outcome is open."""
    request_id = getattr(result.outcome, "request_id", None)
    return Settlement(status="pending", actual=actual_of(record), request_id=request_id, trace_id=trace_id)


async def attempt(io: Io, record: Record, trace_id: str | None = None) -> tuple[Record, SettlementOutcome]:
    """Send what a saved record needs next: the commit, and the event if the reservation has expired.

    Returns:
        The record as it is now, and the outcome. Call `conclude` and then `file_away` with both.
    """
    result = classify_settlement(record, await io.send(call_of(record, trace_id)))
    while (changed := _changed(io, record, result)) is not None:
        record = changed
        await io.save(record)
        result = classify_settlement(record, await io.send(call_of(record, trace_id)))
    if isinstance(result, Unresolved) and result.retry_after_ms is not None:
        now_ms = io.wall_ms()
        record = record.deferred_until(now_ms + result.retry_after_ms, now_ms=now_ms)
        await io.save(record)
    return record, result


async def file_away(io: Io, record: Record, result: SettlementOutcome) -> None:
    """Delete the record of a final outcome. This comes last, so that an interruption loses nothing."""
    if not isinstance(result, Unresolved):
        await io.delete(record)


def _changed(io: Io, record: Record, result: SettlementOutcome) -> Record | None:
    """Return the changed record to send immediately after this outcome; None if nothing more is sent now."""
    if isinstance(result, Expired):
        return record.to_event_mode()
    reduced = _without_optional(result.response, record) if isinstance(result, Rejected) else None
    if reduced is not None:
        report_values_omitted(io, record.reservation_id, _OPTIONAL)
    return reduced


def _without_optional(response: RejectedResponse, record: Record) -> Record | None:
    """Return the record without metrics and metadata, if those may be why the server found the request invalid.

    An error response stores nothing under its key, so the payload may change here
    (`docs/protocol/idempotency.md#failures-store-nothing`).
    """
    body = (record.commit_body if record.mode == "commit" else record.event_fallback_body) or {}
    of_the_caller = {*(body.get("metadata") or ()), *(body.get("metrics") or ())} - _OURS
    if response.code != INVALID_REQUEST or not of_the_caller:
        return None
    reduced = {name: value for name, value in body.items() if name not in _OPTIONAL}
    return (
        evolve(record, commit_body=reduced) if record.mode == "commit" else evolve(record, event_fallback_body=reduced)
    )


def _report_settled(io: Io, record: Record, settlement: Settlement, recovered: bool) -> None:
    report(
        io,
        "Settled",
        settlement,
        reservation_id=record.reservation_id,
        status=settlement.status,
        actual=settlement.actual,
        charged=settlement.charged,
        recovered=recovered,
    )
    if settlement.undercharged:
        report(
            io,
            "Undercharged",
            settlement,
            reservation_id=record.reservation_id,
            actual=settlement.actual,
            charged=settlement.charged,
        )


def report_values_omitted(io: Io, reservation_id: str | None, names: tuple[str, ...]) -> None:
    """Report parts of metrics or metadata without which the amount is settled."""
    if names:
        report(io, "ValuesOmitted", reservation_id=reservation_id, names=names)


def stop_for_release(io: Io, guard: GuardState) -> None:
    """Mark the guard as released and stop its heartbeat, before its release is sent."""
    guard.apply("release_started", if_accepted=True)
    if guard.heartbeat is not None:
        io.stop_heartbeat(guard.heartbeat)


def settle_shadow(io: Io, guard: GuardState, amount: Amount | None) -> Settlement:
    """End a shadow guard: send nothing, and report what the decision would have been."""
    created, estimate = guard.created, guard.request.estimate
    report(
        io,
        "ShadowSettled",
        trace_id=guard.trace_id,
        estimate=estimate,
        actual=amount,
        action=guard.request.action.name,
        would_deny=None if created is None else not created.allowed,
    )
    settlement = Settlement(status="shadow", actual=amount or Amount(estimate.unit, 0))
    guard.apply("settled" if amount is not None else "release_started", settlement)
    return settlement


def settle_later(io: Io, guard: GuardState, record: Record) -> None:
    """Settle a claimed guard in the background; no caller waits for it."""
    pending = Settlement(status="pending", actual=actual_of(record), trace_id=guard.trace_id)
    guard.apply("unresolved", pending, if_accepted=True)
    io.finish_settling(record, guard)
