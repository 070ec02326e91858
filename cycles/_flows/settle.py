"""From a known amount to the ledger, exactly once; and ending a guard without one (recovery.md, decisions 9 to 14).

The record is written before the first request leaves, and goes only after a success or an understood rejection.
Whatever interrupts a flow here, the background of the client goes on with the same key.
"""

from __future__ import annotations

import logging
from typing import Final

from attrs import evolve

from cycles._core.amounts import Amount
from cycles._core.outcome import Refusal
from cycles._core.records import Record
from cycles._core.settlement import (
    RECOVERED,
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
from cycles._flows.guard_state import Hold, Release
from cycles._flows.io import Io
from cycles._flows.retry import describe

_OPTIONAL: Final = ("metrics", "metadata")
_OURS: Final = {"latency_ms", RECOVERED, "recovery_reason"}  # nobody else's words: never why a request is invalid


def hand_on(io: Io, hold: Hold) -> None:
    """What a guard that is claimed still owes, nobody waits for any more: the background goes on with it."""
    owed, hold.owed = hold.owed, None
    if owed is None or not hold.finalized:
        return
    if isinstance(owed, Release):
        stop_for_release(io, hold)
        io.finish_releasing(owed)
    else:
        settle_later(io, hold, owed)


def conclude(io: Io, record: Record, judged: Verdict, hold: Hold | None, *, recovered: bool = False) -> None:
    """Put down what a settlement came to: in the guard, for observers, and in the background if it is still owed."""
    if isinstance(judged, Owed):
        if hold is not None and not recovered:
            hold.state = "pending"
            hold.settlement = pending_settlement(record, judged, hold.trace_id)
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


def pending_settlement(record: Record, owed: Owed, trace_id: str | None) -> Settlement:
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
        report_values_omitted(io, record.reservation_id, _OPTIONAL)
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


def _report_settled(io: Io, record: Record, settlement: Settlement, recovered: bool) -> None:
    ids = {
        "reservation_id": record.reservation_id,
        "request_id": settlement.request_id,
        "trace_id": settlement.trace_id,
    }
    if io.listens(logging.INFO):
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
    if settlement.capped and settlement.charged is not None and io.listens(logging.WARNING):
        import cycles.events as events

        io.report(events.Capped(**ids, actual=settlement.actual, charged=settlement.charged))


def _report_rejected(io: Io, record: Record, refusal: Refusal) -> None:
    if io.listens(logging.ERROR):
        from cycles.events import SettlementRejected

        io.report(
            SettlementRejected(
                reservation_id=record.reservation_id,
                trace_id=refusal.trace_id,
                actual=actual_of(record),
                why=why(refusal),
            )
        )


def report_values_omitted(io: Io, reservation_id: str | None, names: tuple[str, ...]) -> None:
    if names and io.listens(logging.WARNING):
        from cycles.events import ValuesLeftOut

        io.report(ValuesLeftOut(reservation_id=reservation_id, names=names))


def stop_for_release(io: Io, hold: Hold) -> None:
    hold.state = "released"
    if hold.heartbeat is not None:
        io.still(hold.heartbeat)


def settle_shadow(io: Io, hold: Hold, amount: Amount | None) -> Settlement:
    """Nothing was held and nothing is sent; what would have happened is told."""
    created = hold.created
    if io.listens(logging.INFO):
        from cycles.events import ShadowSettled

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


def settle_later(io: Io, hold: Hold, record: Record) -> None:
    """Settle a guard that is claimed, without anybody waiting for it."""
    hold.state = "pending"
    hold.settlement = Settlement(status="pending", actual=actual_of(record), trace_id=hold.trace_id)
    io.finish_settling(record, hold)
