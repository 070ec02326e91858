"""Admit guards into a pool: wait for a chunk, or reserve them directly. See `docs/pools.md`."""

from __future__ import annotations

from typing import Final

from attrs import evolve, frozen

from cycles._core.amounts import Amount
from cycles._core.requests import CallOptions, new_key
from cycles._core.reserve_request import ReserveRequest
from cycles._errors import CyclesError, RateLimitedError, ReservationDeniedError
from cycles._flows.approval import exempt_from_approval
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io
from cycles._flows.pool import PoolState
from cycles._flows.pool_guard import PooledState
from cycles._flows.pool_parts import Admitted, PoolChunk, PooledOptions, SubPool, Waiter
from cycles._flows.reserve import Take, open_with, report_unreserved, traced
from cycles._flows.retry import pause
from cycles._flows.run_limit import HeldByLimits, limits_apply

_FIRST_WAIT_MS: Final = 250.0  # between attempts while waiting for budget, as for a reservation
_LONGEST_WAIT_MS: Final = 5_000.0


@frozen
class _Admission:
    """One guard that wants to be admitted.

    Attributes:
        pool: The pool.
        options: What the caller passed.
        request: The request that would reserve the guard directly.
        call_options: Of the guard's requests.
        take: As in `open_lease`.
    """

    pool: PoolState
    options: PooledOptions
    request: ReserveRequest
    call_options: CallOptions
    take: Take


async def acquire(
    io: Io, pool: PoolState, estimate: Amount, options: PooledOptions, wait_s: float | None, take: Take
) -> GuardState:
    """Admit a guard, waiting for a chunk if necessary; reserve it directly if the pool cannot have it.

    Raises:
        CyclesError: as for a reservation.
    """
    request = evolve(options.request, estimate=estimate)
    call_options = io.begin_trace(request)
    opening = _acquire(io, _Admission(pool, options, request, call_options, take), wait_s)
    trace = call_options.trace
    return await (opening if trace is None else traced(trace, opening))


async def _acquire(io: Io, wanted: _Admission, wait_s: float | None) -> GuardState:
    await io.approve(wanted.request)
    until, pause_ms = io.clock.now_ms() + (wait_s or 0.0) * 1000, _FIRST_WAIT_MS
    while True:
        try:
            return await _acquire_once(io, wanted)
        except (ReservationDeniedError, RateLimitedError) as error:
            left = until - io.clock.now_ms()
            jittered_ms = pause_ms * (0.5 + io.clock.random())
            delay = min(jittered_ms, left) if error.retry_after_ms is None else error.retry_after_ms
            if left <= 0 or delay > left or getattr(error, "code", None) in ("POOL_LIMIT", "RUN_LIMIT"):
                raise
        await pause(io, delay / 1000)
        pause_ms = min(pause_ms * 2, _LONGEST_WAIT_MS)


async def _acquire_once(io: Io, wanted: _Admission) -> GuardState:
    pool, options, estimate = wanted.pool, wanted.options, wanted.request.estimate
    held = HeldByLimits(estimate) if limits_apply() else None
    try:
        result = await _admitted(io, pool, estimate.amount, options.sub)
        if isinstance(result, CyclesError):
            pool.end_admission(estimate.amount)
            raise result
        if isinstance(result, PoolChunk):
            state: GuardState = PooledState(pool, result, estimate, options, io.clock.now_ms(), wanted.call_options)
        elif isinstance(result, GuardState):
            state = _unreserved(io, wanted, result)
        else:
            if held is not None:
                held.opened(None)
                held = None
            return await _reserve_directly(io, wanted)
    except BaseException:
        if held is not None:
            held.opened(None)
        raise
    if held is not None:
        held.opened(state)
    return state


async def _admitted(io: Io, pool: PoolState, estimate: int, sub: SubPool | None) -> Admitted:
    chunk = None if sub is None else pool.admit(sub, estimate, io.clock.now_ms())
    if chunk is not None:
        return chunk
    waiter = Waiter(sub, estimate)
    pool.wait_for(waiter)
    try:
        await io.wait(waiter.signal)
    except BaseException:
        pool.abandon(waiter)
        raise
    assert waiter.result is not None
    return waiter.result


async def _reserve_directly(io: Io, wanted: _Admission) -> GuardState:
    """Reserve a guard without the pool, with two requests."""
    pool, request = wanted.pool, wanted.request
    try:
        with exempt_from_approval():  # it is approved
            guard = await open_with(io, request, wanted.call_options, wanted.take)
    except BaseException:
        pool.end_admission(request.estimate.amount)
        raise
    pool.add_direct(guard)
    return guard


def _unreserved(io: Io, wanted: _Admission, chunk: GuardState) -> GuardState:
    """Return an unreserved guard, because no server could be reached to open a chunk."""
    request = wanted.request
    guard = GuardState(request, new_key(), wanted.call_options, io.clock.now_ms(), None)
    guard.unreachable_detail = chunk.unreachable_detail
    report_unreserved(io, guard)
    wanted.pool.add_direct(guard)
    return guard
