"""Admit guards into a pool: wait for a chunk, or reserve them directly. See `docs/pools.md`."""

from __future__ import annotations

from typing import Final

from attrs import evolve

from cycles._core.allotment import Move
from cycles._core.amounts import Amount
from cycles._core.requests import new_key, new_trace_id
from cycles._core.reserve_request import ReserveRequest
from cycles._errors import CyclesError, RateLimitedError, ReservationDeniedError
from cycles._flows.approval import exempt_from_approval
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io
from cycles._flows.pool import PoolState
from cycles._flows.pool_guard import PooledState
from cycles._flows.pool_parts import Admitted, PoolChunk, PooledOptions, SubPool, Waiter
from cycles._flows.reports import report
from cycles._flows.reserve import Take, open_lease
from cycles._flows.run_limit import HeldByLimits, limits_apply

_FIRST_WAIT_MS: Final = 250.0  # between attempts while waiting for budget, as for a reservation
_LONGEST_WAIT_MS: Final = 5_000.0


async def acquire(
    io: Io, pool: PoolState, estimate: Amount, options: PooledOptions, wait_s: float | None, take: Take
) -> GuardState:
    """Admit a guard, waiting for a chunk if necessary; reserve it directly if the pool cannot have it.

    Raises:
        CyclesError: as for a reservation.
    """
    await io.approve(evolve(options.request, estimate=estimate))
    until, pause = io.now_ms() + (wait_s or 0.0) * 1000, _FIRST_WAIT_MS
    while True:
        try:
            return await _acquire_once(io, pool, estimate, options, take)
        except (ReservationDeniedError, RateLimitedError) as error:
            left = until - io.now_ms()
            delay = min(pause * (0.5 + io.random()), left) if error.retry_after_ms is None else error.retry_after_ms
            if left <= 0 or delay > left or getattr(error, "code", None) in ("POOL_LIMIT", "RUN_LIMIT"):
                raise
        await io.pause(delay / 1000)
        pause = min(pause * 2, _LONGEST_WAIT_MS)


async def _acquire_once(io: Io, pool: PoolState, estimate: Amount, options: PooledOptions, take: Take) -> GuardState:
    held = HeldByLimits(estimate) if limits_apply() else None
    try:
        result: Admitted = Move.DIRECT
        if options.sub is not None:
            result = await _admitted(io, pool, estimate.amount, options.sub)
        if isinstance(result, CyclesError):
            raise result
        if isinstance(result, PoolChunk):
            state: GuardState = PooledState(pool, result, estimate, options, io.now_ms())
        elif isinstance(result, GuardState):
            state = _unreserved(io, pool, estimate, options, result)
        else:
            if held is not None:
                held.opened(None)
                held = None
            return await _reserve_directly(io, pool, evolve(options.request, estimate=estimate), take)
    except BaseException:
        if held is not None:
            held.opened(None)
        raise
    if held is not None:
        held.opened(state)
    return state


async def _admitted(io: Io, pool: PoolState, estimate: int, sub: SubPool) -> Admitted:
    chunk = pool.admit(sub, estimate, io.now_ms())
    if chunk is not None:
        return chunk
    waiter = Waiter(estimate)
    pool.wait_for(sub, waiter)
    try:
        await io.wait(waiter.signal)
    except BaseException:
        pool.abandon(sub, waiter)
        raise
    assert waiter.result is not None
    return waiter.result


async def _reserve_directly(io: Io, pool: PoolState, request: ReserveRequest, take: Take) -> GuardState:
    """Reserve a guard without the pool, with two requests."""
    if pool.options.limit is not None:
        pool.check_limit(request.estimate.amount)
    with exempt_from_approval():  # it is approved
        guard = await open_lease(io, request, take)
    pool.add_direct(guard, request.estimate.amount)
    return guard


def _unreserved(io: Io, pool: PoolState, estimate: Amount, options: PooledOptions, lease: GuardState) -> GuardState:
    """Return an unreserved guard, because no server could be reached to open a chunk."""
    trace_id = new_trace_id()
    detail = "no server could be reached to open a chunk of its pool"
    report(io, "Unreserved", trace_id=trace_id, estimate=estimate, action=options.action.name, detail=detail)
    guard = GuardState(evolve(options.request, estimate=estimate), new_key(), trace_id, io.now_ms(), None)
    pool.add_direct(guard, estimate.amount)
    return guard
