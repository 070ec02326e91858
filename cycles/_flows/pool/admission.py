"""Admit guards into a pool: wait for a chunk, or reserve them directly. See `docs/pools.md`."""

from __future__ import annotations

from typing import Final

from attrs import evolve, frozen

from cycles._core.messages.requests import new_key
from cycles._errors import CyclesError, RateLimitedError, ReservationDeniedError
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io
from cycles._flows.pool.chunks import carry_out, open_chunk
from cycles._flows.pool.in_chunk import InChunk
from cycles._flows.pool.parts import Admitted, PoolChunk, Waiter
from cycles._flows.pool.pool import PoolState
from cycles._flows.reserve import Take, open_with, report_unreserved, traced
from cycles._flows.retry import BudgetWait, pause
from cycles._flows.run_limit import LIMITS, HeldByLimits
from cycles._flows.signal import Signal

_OWN_LIMITS: Final = ("POOL_LIMIT", "RUN_LIMIT")  # denials of this process: waiting does not change them


async def acquire(
    io: Io, pool: PoolState, guard: GuardState, place: InChunk, wait_s: float | None, take: Take
) -> GuardState:
    """Admit a guard, waiting for a chunk if necessary; reserve another one directly if the pool cannot have it.

    Raises:
        CyclesError: as for a reservation.
    """
    guard.request = evolve(guard.request, estimate=guard.estimate)
    guard.call_options = io.begin_trace(guard.request)
    opening = _acquire(io, _Admission(pool, guard, place, take), wait_s)
    trace = guard.trace
    return await (opening if trace is None else traced(trace, opening))


@frozen
class _Admission:
    """One guard that wants to be admitted. `take` is as in `open_lease`."""

    pool: PoolState
    guard: GuardState
    place: InChunk
    take: Take


async def _acquire(io: Io, wanted: _Admission, wait_s: float | None) -> GuardState:
    with wanted.pool.lock:
        over = wanted.pool.over_limit(wanted.place.held)
    if over is not None:  # without asking the user to approve it
        raise _denied(io, wanted, over)
    await io.approve(wanted.guard.request)
    wait = BudgetWait(io, wait_s)
    while True:
        try:
            return await _acquire_once(io, wanted)
        except (ReservationDeniedError, RateLimitedError) as error:
            delay_s = None if error.code in _OWN_LIMITS else wait.next_s(error)
            if delay_s is None:
                raise
        await pause(io, delay_s)


async def _acquire_once(io: Io, wanted: _Admission) -> GuardState:
    pool, guard = wanted.pool, wanted.guard
    held = HeldByLimits(guard.estimate) if LIMITS.get() else None
    try:
        result = await _admitted(io, wanted)
        if isinstance(result, CyclesError):
            pool.end_admission(wanted.place)
            raise _denied(io, wanted, result) if getattr(result, "code", None) == "POOL_LIMIT" else result
        # Admitted: the guard that the caller has is the one.
        if isinstance(result, PoolChunk):
            state = guard
        elif isinstance(result, GuardState):
            state = _unreserved(io, wanted, result)
        else:
            if held is not None:
                held.opened(None)
                held = None
            # `open_with` holds the estimate in the limits itself.
            return await _reserve_directly(io, wanted)
    except BaseException:
        if held is not None:
            held.opened(None)
        raise
    if held is not None:
        held.opened(state)
    return state


def _denied(io: Io, wanted: _Admission, error: CyclesError) -> CyclesError:
    """Report that the limit of the pool is reached."""
    pool = wanted.pool
    pool.denied += 1
    io.report("PoolDenied", estimate=wanted.guard.estimate, pool=pool.options.name, reason=str(error))
    return error


async def _admitted(io: Io, wanted: _Admission) -> Admitted:
    pool, guard, place = wanted.pool, wanted.guard, wanted.place
    sub = place.options.sub
    if sub is not None and not pool.is_inside() and pool.admit(sub, guard, place, io.clock.now_ms()):
        carry_out(pool)
        assert place.chunk is not None
        return place.chunk
    # One chunk is opened for all guards that wait at this time.
    waiter = Waiter(sub, guard, place)
    try:
        pool.wait_for(waiter)
        carry_out(pool)
        while waiter.result is None or waiter.opens is not None:
            await io.wait(waiter.signal)
            opens, waiter.opens = waiter.opens, None
            if opens is not None:
                waiter.signal = Signal()
                await open_chunk(io, pool, opens)
    except BaseException:
        pool.abandon(waiter)
        carry_out(pool)
        raise
    assert waiter.result is not None
    return waiter.result


async def _reserve_directly(io: Io, wanted: _Admission) -> GuardState:
    """Reserve a guard without the pool, with two requests."""
    pool, request = wanted.pool, wanted.guard.request
    try:
        guard = await open_with(io, evolve(request, is_approved=True), wanted.guard.call_options, wanted.take)
    except BaseException:
        pool.end_admission(wanted.place)
        raise
    pool.add_direct(guard, wanted.place)
    return guard


def _unreserved(io: Io, wanted: _Admission, chunk: GuardState) -> GuardState:
    """Return an unreserved guard, because no server could be reached to open a chunk."""
    request = wanted.guard.request
    guard = GuardState(request, new_key(), wanted.guard.call_options, io.clock.now_ms(), None)
    guard.unreachable_detail = chunk.unreachable_detail
    report_unreserved(io, guard)
    wanted.pool.add_direct(guard, wanted.place)
    return guard
