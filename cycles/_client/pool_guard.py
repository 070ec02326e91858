"""The guards of a pool: `Guard` and `AsyncGuard`, whose commits usually send nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Self

from attrs import frozen

from cycles._client.guard import AsyncGuard, Guard, GuardBase
from cycles._client.reservation import Reservation
from cycles._core.amounts import Amount
from cycles._core.messages.requests import NO_OPTIONS
from cycles._core.pool.allotment import ChunkState
from cycles._core.results import ReservationExtendResponse
from cycles._core.settlement.settlement import Settlement
from cycles._core.values.usage import Metrics
from cycles._errors import GuardFinalizedError, InvalidRequestError
from cycles._flows.guard_state import GuardState
from cycles._flows.io import run
from cycles._flows.pool.admission import acquire
from cycles._flows.pool.chunks import carry_out
from cycles._flows.pool.in_chunk import InChunk
from cycles._flows.pool.parts import PooledOptions
from cycles._flows.pool.pool import PoolState
from cycles._flows.run_limit import limits_apply
from cycles._version import public

if TYPE_CHECKING:
    from cycles._drivers.runtime import Runtime


@frozen
class ChunkView:
    """The current state of the chunk of a guard.

    Attributes:
        reservation_id: The server's id.
        reserved: Its amount.
        spent: What its guards have spent.
        guards: How many guards have ended with an amount.
        state: ``open``, ``draining``, ``sealed``, ``confirmed``, ``rejected`` or ``empty``.
        settlement: That of its commit; None until it is confirmed or pending.
    """

    reservation_id: str | None
    reserved: Amount
    spent: Amount
    guards: int
    state: ChunkState
    settlement: Settlement | None


class _InPool(GuardBase):
    """What the guards of pools cannot do, and what only they have."""

    __slots__ = ()
    _place: InChunk

    def __init__(self, runtime: Runtime, pool: PoolState, options: PooledOptions, estimate: Amount) -> None:
        self._runtime = runtime
        self._token = self._span = None
        self._place = InChunk(estimate.amount, pool, options)
        self._state = GuardState(
            options.request,
            "",
            NO_OPTIONS,
            pool.io.clock.now_ms(),
            None,
            estimate=estimate,
            settler=self._place,
            lock=pool.lock,
        )

    def _admit_quickly(self) -> bool:
        """Admit the guard if a chunk has space for it now."""
        place, state = self._place, self._state
        pool, sub = place.pool, place.options.sub
        if sub is None or limits_apply() or pool.pool_io.is_traced or pool.is_inside():
            return False
        try:
            is_admitted = pool.admit(sub, state, place, state.opened_ms)
            if pool.work:
                carry_out(pool)
        except BaseException:
            self._abandon()
            raise
        return is_admitted

    def _abandon(self) -> None:
        """End a guard whose caller never got it."""
        with contextlib.suppress(GuardFinalizedError):
            self._state.claim("interrupt")
            self._place.leave(self._state)

    @property
    def is_pooled(self) -> bool:
        """True: this guard shares its reservation with others."""
        return True

    @property
    def chunk(self) -> ChunkView:
        """The chunk of this guard."""
        chunk, unit = self._place.chunk, self._state.estimate.unit
        assert chunk is not None  # a guard that no chunk has admitted has no caller
        spent, calls = chunk.sums.totals.spent, chunk.sums.totals.calls
        return ChunkView(
            chunk.lease.reservation_id,
            Amount(unit, chunk.amount),
            Amount(unit, spent),
            calls,
            chunk.state,
            chunk.lease.settlement,
        )

    @property
    def reserved(self) -> Amount | None:
        """What the chunk holds for this guard."""
        return self._state.estimate

    def _commit_quickly(self, actual: Amount | None, wait: Any) -> Settlement | None:
        """Add the amount to the chunk if it fits and nothing has to be sent; else return None."""
        if actual is None or actual.__class__ is not Amount or wait.__class__ is not bool:
            return None
        if self._runtime.pid != os.getpid():
            self._check_process()  # raises the error
        return self._place.commit_quickly(self._state, actual)

    def detach(self) -> NoReturn:
        """Raise an error: the server never sees this guard.

        Raises:
            InvalidRequestError: Always.
        """
        raise InvalidRequestError(
            "a guard of a pool cannot be detached, because the server never sees it: use client.reserve(...) for it"
        )


class PooledGuard(_InPool, Guard):
    """A guard of a pool in sync code."""

    __slots__ = ()

    def commit(
        self,
        actual: Amount | None = None,
        *,
        metrics: Metrics | Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        wait: bool = True,
    ) -> Settlement:
        """As `Guard.commit`. The amount becomes part of the chunk's commit: status ``pooled``."""
        settlement = self._commit_quickly(actual, wait) if metrics is None and metadata is None else None
        return settlement or super().commit(actual, metrics=metrics, metadata=metadata, wait=wait)

    def extend(self, extend_by_ms: int | None = None) -> None:
        """Do nothing: the heartbeat of the chunk renews the lease."""
        _check_in_use(self._state)


class PooledAsyncGuard(_InPool, AsyncGuard):
    """A guard of a pool in async code."""

    __slots__ = ()

    def __init__(self, runtime: Runtime, pool: PoolState, options: PooledOptions, estimate: Amount) -> None:
        super().__init__(runtime, pool, options, estimate)
        self._cancellation = None

    async def commit(
        self,
        actual: Amount | None = None,
        *,
        metrics: Metrics | Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        wait: bool = True,
    ) -> Settlement:
        """As `Guard.commit`. It does not suspend if the amount fits into the chunk."""
        settlement = self._commit_quickly(actual, wait) if metrics is None and metadata is None else None
        return settlement or await super().commit(actual, metrics=metrics, metadata=metadata, wait=wait)

    async def extend(self, extend_by_ms: int | None = None) -> ReservationExtendResponse | None:
        """Do nothing: the heartbeat of the chunk renews the lease."""
        _check_in_use(self._state)
        return None

    async def __aenter__(self) -> Self:
        if self._place.options.request.lease_policy == "cancel":
            return await super().__aenter__()
        self._enter()
        return self


def _check_in_use(state: GuardState) -> None:
    if state.finalized:
        raise GuardFinalizedError(f"cannot extend: {state.name} has already ended; nothing was sent")


class PooledReservation(Reservation):
    """Describes a guard of a pool."""

    __slots__ = ("_estimate", "_options", "_pool", "_process", "_wait")

    def __init__(
        self, runtime: Runtime, pool: PoolState, estimate: Amount, options: PooledOptions, wait: float | None
    ) -> None:
        super().__init__(lambda: runtime, options.request)
        self._process = runtime
        self._pool = pool
        self._estimate = estimate
        self._options = options
        self._wait = wait

    def acquire(self) -> Guard:
        """Return a guard of the pool, usually without a request.

        Raises:
            BudgetExceededError: The server denied a chunk, or the limit of the pool is reached (code POOL_LIMIT).
            CyclesError: As for a reservation.
        """
        guard = PooledGuard(self._process, self._pool, self._options, self._estimate)
        if guard._admit_quickly():
            return guard
        direct = Guard(self._process)
        try:
            io = self._process.blocking
            got = run(acquire(io, self._pool, guard._state, guard._place, self._wait, direct._take))
            if got is guard._state:
                return guard
            direct._take(got)
        except BaseException:
            guard._abandon()
            direct._abandon()
            raise
        return direct

    async def _acquire_async(self) -> AsyncGuard:
        guard = PooledAsyncGuard(self._process, self._pool, self._options, self._estimate)
        if guard._admit_quickly():
            return guard
        direct = AsyncGuard(self._process)
        try:
            io = self._process.tasks()
            got = await io.to_the_end(acquire(io, self._pool, guard._state, guard._place, self._wait, direct._take))
            if got is guard._state:
                return guard
            direct._take(got)
        except BaseException:
            guard._abandon()
            direct._abandon()
            raise
        return direct


public(ChunkView)
