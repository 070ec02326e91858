"""Admit guards into a pool: wait for a chunk, or reserve them directly. See `docs/pools.md`."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from attrs import evolve, frozen

from cycles._core.messages.requests import new_key
from cycles._core.pool.allotment import Move
from cycles._errors import CyclesError, RateLimitedError, ReservationDeniedError
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io
from cycles._flows.pool.chunks import carry_out, open_chunk
from cycles._flows.pool.in_chunk import InChunk
from cycles._flows.pool.parts import Admitted, Waiter
from cycles._flows.pool.pool import PoolState
from cycles._flows.reserve import PERMANENT, Take, open_with, report_unreserved, traced
from cycles._flows.retry import BudgetWait, pause
from cycles._flows.run_limit import HeldByLimits
from cycles._flows.signal import Signal

_WAITS: Final = ContextVar("_WAITS", default=False)  # this thread or task waits for a chunk
_OWN_LIMITS: Final = ("POOL_LIMIT", "RUN_LIMIT")  # denials of this process: waiting does not change them


async def acquire(
    io: Io, pool: PoolState, guard: GuardState, place: InChunk, wait_s: float | None, take: Take
) -> GuardState:
    """Admit a guard, waiting for a chunk if necessary; reserve another one directly if the pool cannot have it.

    `take` is as in `open_lease`.

    Raises:
        CyclesError: as for a reservation.
    """
    guard.request = evolve(guard.request, estimate=guard.estimate)
    guard.call_options = io.begin_trace(guard.request)
    opening, trace = _Admission(io, pool, guard, place, take).run(wait_s), guard.trace
    return await (opening if trace is None else traced(trace, opening))


@frozen
class _Admission:
    """One guard that wants to be admitted."""

    io: Io
    pool: PoolState
    guard: GuardState
    place: InChunk
    take: Take

    async def run(self, wait_s: float | None) -> GuardState:
        """Try until the guard is admitted or the time is over."""
        # Only what was interrupted: the requests that wait in `pool.work` may take longer than this one.
        is_inside = self.pool.is_inside()
        with self.pool.lock:
            if not is_inside:
                self.pool.catch_up()
            over = self.pool.over_limit(self.place.held)
        if over is not None:  # without asking the user to approve it
            raise self._denied(over)
        await self.io.approve(self.guard.request)
        wait = BudgetWait(self.io, wait_s)
        while True:
            try:
                with HeldByLimits(self.guard.estimate) as held:
                    held.guard = await self._in_pool()
                return held.guard or await self._reserve_directly()  # which holds the estimate in the limits itself
            except (ReservationDeniedError, RateLimitedError) as error:
                is_final = error.code in _OWN_LIMITS or isinstance(error, PERMANENT)
                delay_s = None if is_final else wait.next_s(error)
                if delay_s is None:
                    raise
            await pause(self.io, delay_s)

    async def _in_pool(self) -> GuardState | None:
        """Return the guard that needs no own reservation; None: it is to be reserved directly."""
        result = await self._admitted()
        if isinstance(result, CyclesError):
            self.pool.end_admission(self.place)
            raise self._denied(result) if getattr(result, "code", None) == "POOL_LIMIT" else result
        if isinstance(result, GuardState):
            return self._unreserved(result)
        return None if isinstance(result, Move) else self.guard

    async def _admitted(self) -> Admitted:
        pool, guard, place, sub = self.pool, self.guard, self.place, self.place.options.sub
        if sub is not None and not pool.is_inside() and pool.admit(sub, guard, place, self.io.clock.now_ms()):
            carry_out(pool)
            assert place.chunk is not None
            return place.chunk
        # One chunk is opened for all guards that wait at this time.
        # A signal handler must not wait behind the frame that it has interrupted, which may have to open the chunk.
        waiter = Waiter(None if _WAITS.get() else sub, guard, place)
        outside = _WAITS.set(True)
        try:
            pool.wait_for(waiter)
            carry_out(pool)
            while waiter.result is None or waiter.opens is not None:
                await self.io.wait(waiter.signal)
                # No thread could be started: this guard makes the request that it waits for.
                opens, waiter.opens = waiter.opens, None
                if opens is not None:
                    waiter.signal = Signal()
                    await open_chunk(self.io, pool, opens)
        except BaseException:
            pool.abandon(waiter)
            carry_out(pool)
            raise
        finally:
            _WAITS.reset(outside)
        assert waiter.result is not None
        return waiter.result

    async def _reserve_directly(self) -> GuardState:
        """Reserve a guard without the pool, with two requests."""
        request = evolve(self.guard.request, is_approved=True)
        try:
            guard = await open_with(self.io, request, self.guard.call_options, self.take)
        except BaseException:
            self.pool.end_admission(self.place)
            raise
        self.pool.add_direct(guard, self.place)
        return guard

    def _unreserved(self, chunk: GuardState) -> GuardState:
        """Return an unreserved guard, because no server could be reached to open a chunk."""
        guard = GuardState(self.guard.request, new_key(), self.guard.call_options, self.io.clock.now_ms(), None)
        guard.unreachable_detail = chunk.unreachable_detail
        report_unreserved(self.io, guard)
        self.pool.add_direct(guard, self.place)
        return guard

    def _denied(self, error: CyclesError) -> CyclesError:
        """Report that the limit of the pool is reached."""
        self.pool.denied += 1
        self.io.report("PoolDenied", estimate=self.guard.estimate, pool=self.pool.options.name, reason=str(error))
        return error
