"""From a known amount to the ledger, exactly once; and ending a guard without one (recovery.md, decisions 9 to 14).

The record is written before the first request leaves, and goes only after a success or an understood rejection.
Whatever interrupts a flow here, the background of the client goes on with the same key.
"""

from __future__ import annotations

import logging
from typing import Final

from attrs import evolve

from cycles._core.amounts import Amount
from cycles._core.outcome import RejectedResponse
from cycles._core.protocol import INVALID_REQUEST
from cycles._core.records import Record
from cycles._core.settlement import (
    RECOVERED,
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
from cycles._flows.retry import describe

_OPTIONAL: Final = ("metrics", "metadata")
_OURS: Final = {"latency_ms", RECOVERED, "recovery_reason"}  # nobody else's words: never why a request is invalid


def finish_in_background(io: Io, guard: GuardState) -> None:
    """What a guard that is claimed still owes, nobody waits for any more: the background goes on with it."""
    owed, guard.owed = guard.owed, None
    if owed is None or not guard.finalized:
        return
    if isinstance(owed, Release):
        stop_for_release(io, guard)
        io.finish_releasing(owed)
    else:
        settle_later(io, guard, owed)


def conclude(
    io: Io, record: Record, result: SettlementOutcome, guard: GuardState | None, *, recovered: bool = False
) -> None:
    """Put down what a settlement came to: in the guard, for observers, and in the background if it is still owed."""
    if isinstance(result, Unresolved):
        if guard is not None and not recovered:
            guard.state = "pending"
            guard.settlement = pending_settlement(record, result, guard.trace_id)
        io.keep_settling(record, guard, describe(result.outcome))
        return
    if guard is not None and guard.heartbeat is not None:
        io.stop_heartbeat(guard.heartbeat)
    if isinstance(result, Settled):
        if guard is not None:
            guard.settlement, guard.state = result.settlement, "committed"
        _report_settled(io, record, result.settlement, recovered)
    elif isinstance(result, Rejected):
        if guard is not None:
            guard.state = "rejected"
        _report_rejected(io, record, result.refusal)


def pending_settlement(record: Record, owed: Unresolved, trace_id: str | None) -> Settlement:
    request_id = getattr(owed.outcome, "request_id", None)
    return Settlement(status="pending", actual=actual_of(record), request_id=request_id, trace_id=trace_id)


async def attempt(io: Io, record: Record, trace_id: str | None = None) -> tuple[Record, SettlementOutcome]:
    """One try at a record that is already saved: the commit, and if its lease was over the event.

    Answers the record as it is now, and the verdict; `conclude` and `file_away` come next, in this order.
    """
    result = classify_settlement(record, await io.send(call_of(record, trace_id)))
    while (changed := _changed(io, record, result)) is not None:
        record = changed
        await io.save(record)  # on disk before the request that it leads to (recovery.md, durable)
        result = classify_settlement(record, await io.send(call_of(record, trace_id)))
    if isinstance(result, Unresolved) and result.retry_after_ms is not None:
        now_ms = io.wall_ms()
        record = record.deferred_until(now_ms + result.retry_after_ms, now_ms=now_ms)
        await io.save(record)
    return record, result


async def file_away(io: Io, record: Record, result: SettlementOutcome) -> None:
    """Where the verdict is final the record goes: last, so that an interruption here unsettles nothing."""
    if not isinstance(result, Unresolved):
        await io.delete(record)


def _changed(io: Io, record: Record, result: SettlementOutcome) -> Record | None:
    """What is owed in place of the record after this verdict, to be sent at once; None where that is all for now."""
    if isinstance(result, Expired):
        return record.to_event_mode()
    bare = _bare(result.refusal, record) if isinstance(result, Rejected) else None
    if bare is not None:
        report_values_omitted(io, record.reservation_id, _OPTIONAL)
    return bare


def _bare(refusal: RejectedResponse, record: Record) -> Record | None:
    """The record without metrics and metadata, if those may be why the server found the request invalid.

    A refusal leaves nothing behind under its key, so the payload may change here, and only here (semantics 5).
    """
    body = (record.commit_body if record.mode == "commit" else record.event_fallback_body) or {}
    reported_amount = {*(body.get("metadata") or ()), *(body.get("metrics") or ())} - _OURS
    if refusal.code != INVALID_REQUEST or not reported_amount:
        return None
    bare = {name: value for name, value in body.items() if name not in _OPTIONAL}
    return evolve(record, commit_body=bare) if record.mode == "commit" else evolve(record, event_fallback_body=bare)


def _report_settled(io: Io, record: Record, settlement: Settlement, recovered: bool) -> None:
    ids = {
        "reservation_id": record.reservation_id,
        "request_id": settlement.request_id,
        "trace_id": settlement.trace_id,
    }
    if io.is_enabled_for(logging.INFO):
        import cycles.events as events

        io.report(
            events.Settled(
                **ids,
                status=settlement.status,
                actual=settlement.actual,
                charged=settlement.charged,
                recovered=recovered,
            )
        )
    if settlement.undercharged and settlement.charged is not None and io.is_enabled_for(logging.WARNING):
        import cycles.events as events

        io.report(events.Undercharged(**ids, actual=settlement.actual, charged=settlement.charged))


def _report_rejected(io: Io, record: Record, refusal: RejectedResponse) -> None:
    if io.is_enabled_for(logging.ERROR):
        from cycles.events import SettlementRejected

        io.report(
            SettlementRejected(
                reservation_id=record.reservation_id,
                trace_id=refusal.trace_id,
                actual=actual_of(record),
                detail=describe(refusal),
            )
        )


def report_values_omitted(io: Io, reservation_id: str | None, names: tuple[str, ...]) -> None:
    if names and io.is_enabled_for(logging.WARNING):
        from cycles.events import ValuesOmitted

        io.report(ValuesOmitted(reservation_id=reservation_id, names=names))


def stop_for_release(io: Io, guard: GuardState) -> None:
    guard.state = "released"
    if guard.heartbeat is not None:
        io.stop_heartbeat(guard.heartbeat)


def settle_shadow(io: Io, guard: GuardState, amount: Amount | None) -> Settlement:
    """Nothing was held and nothing is sent; what would have happened is told."""
    created = guard.created
    if io.is_enabled_for(logging.INFO):
        from cycles.events import ShadowSettled

        io.report(
            ShadowSettled(
                trace_id=guard.trace_id,
                estimate=guard.request.estimate,
                actual=amount,
                action=guard.request.action.name,
                would_deny=None if created is None else not created.allowed,
            )
        )
    guard.state = "committed" if amount is not None else "released"
    guard.settlement = Settlement(status="shadow", actual=amount or Amount(guard.request.estimate.unit, 0))
    return guard.settlement


def settle_later(io: Io, guard: GuardState, record: Record) -> None:
    """Settle a guard that is claimed, without anybody waiting for it."""
    guard.state = "pending"
    guard.settlement = Settlement(status="pending", actual=actual_of(record), trace_id=guard.trace_id)
    io.finish_settling(record, guard)
