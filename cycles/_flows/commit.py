"""End a guard with an amount, and settle amounts without a guard. See `docs/protocol/settlement.md`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from attrs import evolve

from cycles._core.amounts import Amount
from cycles._core.messages.errors import error_of
from cycles._core.messages.requests import CallOptions, new_key
from cycles._core.protocol import COMMIT_RESERVATION, IDEMPOTENCY_MISMATCH
from cycles._core.settlement.lifecycle import ESTIMATED
from cycles._core.settlement.record import Made, Record
from cycles._core.settlement.rules import rejected_excess
from cycles._core.settlement.settlement import (
    Rejected,
    Settled,
    Settlement,
    Taken,
    Unresolved,
    call_of,
    commit_body,
    event_body,
)
from cycles._core.values.usage import Metrics, settlement_metrics
from cycles._errors import CyclesError, GuardFinalizedError, IdempotencyMismatchError, InvalidRequestError
from cycles._flows.guard_state import ANY_AMOUNT, Ended, GuardState
from cycles._flows.io import Io, Settle
from cycles._flows.settle import (
    STOPPED_BY,
    amount_to_commit,
    attempt,
    conclude,
    event_record,
    finish_in_background,
    pending_settlement,
    put,
    settle_shadow,
    usable_values,
)

_SAME: Final = ("actual", "subject", "action")  # what a repetition under the same key must not change


async def commit(
    io: Io,
    guard: GuardState,
    actual: Amount | None,
    metrics: Metrics | Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    settlement_metadata: Mapping[str, str] | None = None,
    *,
    wait: bool,
) -> Settlement:
    """Commit an amount, by default the known spend, and end the guard.

    Metrics and metadata that the protocol does not allow are omitted and reported. Without `wait` the settlement is
    queued and sent in the background; if the queue is full, it is sent here.

    Raises:
        InvalidRequestError: a value that cannot be settled; the guard stays active.
        GuardFinalizedError: the guard has ended; nothing is sent.
        ProtocolError: a final error response.
    """
    # In a pool the chunk has the reservation; a request of this guard would commit the amounts of all others.
    if guard.settler is not None:
        return await guard.settler.commit(io, guard, actual, metrics, metadata, settlement_metadata)
    if actual is not None:
        guard.note(actual)
    has_values = metrics is not None or metadata is not None
    given, labels = usable_values(io, guard.reservation_id, metrics, metadata) if has_values else (None, {})
    try:
        record = _claim(
            io, guard, actual, given, {**labels, **guard.request.settlement_metadata, **(settlement_metadata or {})}
        )
        settlement = await _settle(io, guard, record, wait=wait)
    except CyclesError:
        raise
    except BaseException:  # interrupted or cancelled: the amount is known, so it is settled, with the same key
        finish_in_background(io, guard)
        raise
    finally:
        guard.end_trace()
    guard.raise_loss_outside_a_block()
    return settlement


def _claim(
    io: Io, guard: GuardState, actual: Amount | None, metrics: Metrics | None, metadata: Mapping[str, Any]
) -> Record:
    """Claim the guard and return its record. A shadow guard leaves nothing to finish in the background."""
    while True:
        known = guard.known if actual is None else None
        amount = amount_to_commit(known) if actual is None else actual
        record = record_of(io, guard, amount, metrics, metadata)
        io.check(call_of(record))
        if guard.claim("commit", known if actual is None else ANY_AMOUNT, None if guard.sends_nothing else record):
            return record


def record_of(
    io: Io, guard: GuardState, amount: Amount, metrics: Metrics | None, metadata: Mapping[str, Any]
) -> Record:
    """Return the record of a settlement: everything that another process needs to finish it."""
    # What has used nothing that was counted reports how long it took, and nothing else.
    used: dict[str, Any] = {"latency_ms": max(0, round(io.clock.now_ms() - guard.opened_ms))}
    if metrics is not None or guard.counted_usage is not None:
        used, unusable = settlement_metrics(
            metrics, guard.counted_usage, None if metrics is not None else used["latency_ms"]
        )
        if unusable:
            io.report("ValuesOmitted", reservation_id=guard.reservation_id, names=tuple(unusable))
    return _record(io, guard, commit_body(guard.commit_key or new_key(), amount, used, metadata), amount)


def ahead_record(io: Io, guard: GuardState, amount: Amount, *, sent: bool = False) -> Record:
    """Return the record that settles the known spend so far; the later commit has the same key.

    With `sent` the amount contains the upper bounds of requests whose cost is unknown.
    """
    # Kept from the first write on, so that the commit replaces what a later process might send.
    if guard.commit_key is None:
        guard.commit_key = new_key()
    metadata = {**guard.request.settlement_metadata, **(ESTIMATED if sent else {})}
    return _record(io, guard, commit_body(guard.commit_key, amount, None, metadata), amount, sent=sent)


def _record(io: Io, guard: GuardState, commit: dict[str, Any], amount: Amount, *, sent: bool = False) -> Record:
    request, reservation_id, estimate = guard.request, guard.reservation_id, guard.estimate
    event_of = partial(
        event_body, commit, request.made or request.make(), reservation_id, request.overage_policy, sent=sent
    )
    # No server could be reached to reserve, or the chunk of the guard was settled without it: only an event charges it.
    if reservation_id is None or guard.settler is not None:
        return evolve(event_record(io, event_of()), sent=sent)
    return Record(
        reservation_id=reservation_id,
        base_url=io.settings.base_url,
        commit_body=commit,
        event_of=event_of,
        recorded_at_ms=io.clock.wall_ms(),
        made=Made(io.clock.boot_ms()),
        estimate=estimate.amount if amount.amount > estimate.amount else None,
        sent=sent,
    )


async def _settle(io: Io, guard: GuardState, record: Record, *, wait: bool) -> Settlement:
    if guard.sends_nothing:
        return settle_shadow(io, guard, record.actual)
    # Saved before it is sent: from here on a later process settles it if this one dies.
    stopped = STOPPED_BY.get(await put(io, record, guard))
    # What is held back is not queued by `wait=False`: `conclude` does so, with the reason.
    if not wait and stopped is None:
        pending = pending_settlement(record, guard.trace_id)
        # Before it is handed over: a worker may settle it immediately, and `settled` must come after `unresolved`.
        guard.apply("unresolved", pending, if_accepted=True)
        if io.hand_over(Settle(record, guard), now=True):
            guard.unfinished = None
            return pending
    latest, result = (record, stopped) if stopped is not None else await attempt(io, record, guard)
    # The state before the file: an interrupt in between leaves a record whose second attempt finds the same key.
    conclude(io, latest, result, guard)
    guard.unfinished = Ended(latest, result)
    await io.finish(latest, result)
    guard.unfinished = None
    if isinstance(result, Settled):
        return result.settlement
    # The estimate may be charged and the excess rejected: the caller gets an error for that part.
    rejected = result.response if isinstance(result, Rejected) else rejected_excess(latest)
    if rejected is not None:
        raise error_of(rejected, COMMIT_RESERVATION)
    assert guard.settlement is not None
    return guard.settlement


async def settled(io: Io, guard: GuardState, timeout_s: float | None) -> Settlement:
    """Wait until the settlement of a guard is confirmed, for at most `timeout_s` seconds.

    Returns:
        The settlement; it is pending or pooled if the time was too short, or if the client was closed.

    Raises:
        InvalidRequestError: the guard has not ended.
        GuardFinalizedError: the guard has ended without an amount.
        ProtocolError: a final error response.
    """
    if not guard.finalized:
        raise InvalidRequestError(f"settled() has nothing to wait for: {guard.name} is in use; call commit() before it")
    # Also if the outcome is known: then the signal is set, and this returns immediately.
    await io.wait(guard.when_settled(), timeout_s)
    if guard.rejection is not None:
        raise error_of(guard.rejection, COMMIT_RESERVATION)
    if guard.settlement is None:
        raise GuardFinalizedError(f"settled() has nothing to wait for: {guard.name} is {guard.state}, not committed")
    return guard.settlement


async def settle_record(io: Io, record: Record, options: CallOptions, operation: str) -> Settlement:
    """Settle a record that has no guard: the same steps, without a lease.

    Raises:
        IdempotencyMismatchError: another amount is pending under the same key; nothing is sent.
        ProtocolError: a final error response, or a reservation that has expired.
    """
    # Before it is saved: a record that no server can accept would stay in the journal for ever.
    io.check(call_of(record))
    await _check_pending(io, record)
    try:
        record, result = await attempt(io, record, None, options=options, is_saved=False)
    except BaseException:
        io.hand_over(Settle(record, None, is_saved=False, options=options), now=True)
        raise
    if record.mode == "commit" and isinstance(result, Unresolved) and getattr(result.outcome, "expired", False):
        # The record has no event body. The caller gets the error and knows the amount, so the record can be deleted.
        await io.finish(record, None)
        raise error_of(result.outcome, operation)
    conclude(io, record, result, None, options=options)
    await io.finish(record, result)
    if isinstance(result, Rejected):
        raise error_of(result.response, operation)
    if isinstance(result, Settled):
        return result.settlement
    assert isinstance(result, Unresolved | Taken)  # `attempt` sends the event of an expired record immediately
    return pending_settlement(record, options.trace_id, getattr(result, "outcome", None))


async def _check_pending(io: Io, record: Record) -> None:
    """Reject a second request under the key of a pending one, which would replace its record."""
    earlier = await io.pending(record.reservation_id)
    # The same amount again is a repetition, which the server recognizes by its key.
    if earlier is not None and any(earlier.body.get(name) != record.body.get(name) for name in _SAME):
        raise IdempotencyMismatchError(
            f"another amount is pending under this idempotency_key: {earlier.actual}; "
            "wait until it is settled, or pass another key",
            code=IDEMPOTENCY_MISMATCH,
        )
