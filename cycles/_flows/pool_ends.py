"""Amounts of pooled guards that no chunk has space for: their records and errors; and the event of a guard's end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from attrs import evolve, frozen

from cycles._core.amounts import Amount
from cycles._core.outcome import RejectedResponse
from cycles._core.protocol import BUDGET_EXCEEDED
from cycles._core.records import Made, Record, event_record_id
from cycles._core.requests import new_key
from cycles._core.settlement import Settlement, event_body
from cycles._core.usage import Metrics
from cycles._errors import BudgetExceededError
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io, Settle
from cycles._flows.reports import report

EXCESS_OF: Final = "pool_excess_of"
REJECT: Final = "REJECT"
PooledGuardState: TypeAlias = Any
"""A `PooledState`, whose module uses this one."""


@frozen
class Separate:
    """An amount that no chunk has space for.

    Attributes:
        amount: The part of the actual.
        is_rejected: It is kept in `rejected/`; otherwise it is recorded as an event.
        is_all: It is the whole actual of the guard, whose chunk is sealed.
    """

    amount: int
    is_rejected: bool = False
    is_all: bool = False


def separate_record(
    guard: PooledGuardState, io: Io, separate: Separate, metrics: Metrics | None, metadata: Mapping[str, Any]
) -> Record:
    """Return the record of the event for an amount that is settled separately."""
    key, request = new_key(), guard.request
    commit: dict[str, Any] = {
        "idempotency_key": key,
        "actual": {"unit": guard.estimate.unit, "amount": separate.amount},
        "metadata": dict(metadata) if separate.is_all else {**metadata, EXCESS_OF: guard.reservation_id},
    }
    if metrics is not None and metrics.to_dict():
        commit["metrics"] = metrics.to_dict()
    chunk_id = guard.reservation_id if separate.is_all else None
    body = event_body(commit, request.subject, request.action, chunk_id, guard.pool.options.overage_policy)
    return Record(
        reservation_id=event_record_id(key),
        base_url=io.settings.base_url,
        mode="event",
        event_fallback_body=body,
        recorded_at_ms=io.clock.wall_ms(),
        made=Made(io.clock.boot_ms()),
    )


def reject_excess(guard: PooledGuardState, separate: Separate) -> BudgetExceededError:
    """Note that the amount above the estimate is rejected, and return the error.

    The guard has no settlement then, as one outside of a pool.
    """
    unit = guard.estimate.unit
    error = BudgetExceededError(
        f"{guard.name}: its chunk has no space for {Amount(unit, separate.amount)} above the estimate of "
        f"{guard.estimate}, and the overage policy is REJECT; the estimate is charged and the rest is in no ledger",
        hint=guard.pool.io.settings.rejected_hint,
        code=BUDGET_EXCEEDED,
    )
    guard.rejection = RejectedResponse(409, BUDGET_EXCEEDED, error.message)
    guard.settlement = None
    guard.apply("rejected", if_accepted=True)
    return error


def report_excess(guard: PooledGuardState, io: Io, separate: Separate, error: BudgetExceededError) -> None:
    actual = Amount(guard.estimate.unit, separate.amount)
    report(io, "SettlementRejected", guard, actual=actual, detail=str(error), hint=io.settings.rejected_hint)


def guard_of(guard: PooledGuardState, separate: Separate) -> GuardState:
    """Return the guard that gets the outcome of the event: this one, or a new one for the part that did not fit."""
    if separate.is_all:
        guard.is_separate = True
        guard.apply("pooled", Settlement(status="pooled", actual=Amount(guard.estimate.unit, separate.amount)))
        return guard  # type: ignore[no-any-return]
    excess = guard.excess = GuardState(guard.request, guard.key, guard.call_options, guard.opened_ms, None)
    excess.claim("commit")
    return excess


def finish_separately(guard: PooledGuardState, io: Io, separate: Separate, metadata: Mapping[str, Any]) -> None:
    """Settle an amount separately in the background, because the caller of its guard cannot wait."""
    record = separate_record(guard, io, separate, None, metadata)
    if separate.is_rejected:
        reject_excess(guard, separate)
        io.hand_over(Settle(evolve(record, rejected=BUDGET_EXCEEDED), None, is_saved=False), now=True)
    else:
        io.hand_over(Settle(record, guard_of(guard, separate), is_saved=False), now=True)


async def sync_slot(io: Io, guard: PooledGuardState) -> None:
    """With durability ``disk``, return when the slot of a guard that has ended is on disk."""
    if not guard.pool.options.sync or guard.chunk.log is None:
        return
    try:
        await io.sync(guard.chunk.log)
    except OSError as error:
        guard.pool.pool_io.report_problem(
            f"the log of a pool cannot be synced ({error}): a loss of power may lose what its guards spent; "
            "the amounts are charged as long as the system runs"
        )


def report_pooled(
    guard: PooledGuardState, actual: Amount, metrics: Metrics | None, metadata: Mapping[str, Any] | None
) -> None:
    """Report the end of a guard with everything that the server's audit does not get."""
    io = guard.pool.io
    if not io.is_enabled_for(logging.DEBUG):
        return
    used = metrics if metrics is not None else (None if guard._usage is None else guard._usage.metrics())
    report(
        io,
        "PooledSettled",
        guard,
        actual=actual,
        estimate=guard.estimate,
        action=guard.options.action,
        subject=guard.options.request.subject,
        metrics=used,
        metadata={**(guard.options.request.metadata or {}), **(metadata or {})},
        latency_ms=int(io.clock.now_ms() - guard.opened_ms),
    )
