"""`client.pool`: many guards from one reservation, their guards, and the checks of its options. See `docs/pools.md`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve, frozen

from cycles._client.closing import ClosedByItsBlock
from cycles._client.context import current_subject
from cycles._client.guard import AsyncGuard, Guard, GuardBase
from cycles._client.operation_context import Owner
from cycles._client.options import (
    AnyAction,
    AnySubject,
    checked_actual,
    checked_amount,
    checked_choice,
    checked_seconds,
    optional_seconds,
)
from cycles._client.reservation import Reservation
from cycles._config import LeasePolicy
from cycles._core.amounts import Amount
from cycles._core.messages.requests import NO_OPTIONS, new_key
from cycles._core.messages.reserve_request import Actual, ReserveRequest
from cycles._core.pool.allotment import ChunkState
from cycles._core.settlement.settlement import FlushReport, Settlement
from cycles._core.subjects import LEVELS, Subject, as_action, as_subject
from cycles._core.values.json_values import clean_object
from cycles._errors import GuardFinalizedError, InvalidRequestError
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io, run
from cycles._flows.pool.admission import acquire
from cycles._flows.pool.chunks import carry_out, flush
from cycles._flows.pool.in_chunk import InChunk
from cycles._flows.pool.parts import PooledOptions, PoolOptions
from cycles._flows.pool.pool import PoolState
from cycles._flows.reserve import create_call
from cycles._flows.run_limit import LIMITS
from cycles._http.first_use import first_use, loading
from cycles._version import public

if TYPE_CHECKING:
    from cycles._client.decorator import F
    from cycles._client.options import ActualOption, AmountOption
    from cycles._drivers.runtime import Runtime

_NOTHING: Final = (None, None, None, None, None)
_OF_POOL: Final = frozenset(
    {"ttl_ms", "grace_period_ms", "overage_policy", "shadow", "on_unavailable", "timeout", "extra_headers"}
)
SUBJECTS: Final = 256  # resolved subjects that are cached
PARTS: Final = 4  # chunks of a pool by default
SETTLE_TTLS: Final = 4  # a server allows ten extensions, and each adds at least half a ttl
SETTLE_MS: Final = 30_000  # the age at which a chunk is committed, and so how late the ledger learns of spend


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
        # The general way reports to tracers and limits, and may wait; this one takes a lock and an addition.
        if sub is None or LIMITS.get() or pool.pool_io.is_traced() or pool.is_inside():
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


class PooledGuard(_InPool, Guard):
    """A guard of a pool in sync code."""

    __slots__ = ()


class PooledAsyncGuard(_InPool, AsyncGuard):
    """A guard of a pool in async code. `commit` does not suspend if the amount fits into the chunk."""

    __slots__ = ()


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
        # Made before the flow: it owns what the flow reserves outside of the pool, also if that is interrupted.
        direct = Guard(self._process)
        # Around `run`, and not inside of the flow: an interrupt may come between the end of the flow and here.
        try:
            got = run(self._acquiring(self._process.blocking, guard, direct))
            return guard if got is guard._state else direct
        except BaseException:
            guard._abandon()
            direct._abandon()
            raise

    async def _acquire_async(self) -> AsyncGuard:
        guard = PooledAsyncGuard(self._process, self._pool, self._options, self._estimate)
        if guard._admit_quickly():
            return guard
        direct = AsyncGuard(self._process)
        try:
            io = self._process.tasks()
            got = await io.to_the_end(self._acquiring(io, guard, direct))
            return guard if got is guard._state else direct
        except BaseException:
            guard._abandon()
            direct._abandon()
            raise

    async def _acquiring(self, io: Io, guard: _InPool, direct: GuardBase) -> GuardState:
        """Return the state of `guard` once a chunk has admitted it; of `direct`, if the pool cannot have it."""
        got = await acquire(io, self._pool, guard._state, guard._place, self._wait, direct._take)
        if got is not guard._state:
            direct._take(got)
        return got


@frozen
class PoolStats:
    """Amounts and counts of a pool in this process.

    Attributes:
        held: What its chunks hold at the server now.
        spent: What its guards have spent, guards that were reserved directly included.
        live: The estimates of its live guards.
        free: What open chunks can still admit.
        chunks: Chunks that hold something now.
        refills: Chunks that were opened so far.
        denied: Guards that were denied so far: by a budget, a rate limit or the limit of the pool.
        direct: Guards that were reserved without the pool so far.
        excess: The amounts above estimates that no chunk had space for.
    """

    held: Amount
    spent: Amount
    live: Amount
    free: Amount
    chunks: int
    refills: int
    denied: int
    direct: int
    excess: Amount


class Pool(ClosedByItsBlock):
    """Many guards from few reservations. ``with`` or ``async with`` closes it; closing the client does so too.

    Threads, tasks and any number of event loops can use it at the same time. A forked child can use it as if it were
    new.
    """

    def __init__(self, client: Owner, options: PoolOptions, request: ReserveRequest, subject: Subject) -> None:
        self._client = client
        self._options = options
        self._request = request
        self._current: tuple[int, PoolState] | None = None
        self._closed_in: int | None = None  # the process that closed it: a forked child may use it
        # Cached by value, so that equal subjects need no merge. Without a reference to the pool: no cycle.
        self._merged = lru_cache(SUBJECTS)(partial(_subject_of, client, subject))
        self._usual: tuple[PoolState, PooledOptions] | None = None

    def reserve(
        self,
        estimate: Amount,
        *,
        action: AnyAction | None = None,
        subject: AnySubject = None,
        actual: Actual = None,
        metadata: Mapping[str, Any] | None = None,
        lease_policy: LeasePolicy | None = None,
        wait: float | None = None,
        idempotency_key: None = None,
    ) -> PooledReservation:
        """Describe a guard. It is entered, acquired or awaited as a reservation is, usually without a request.

        Args:
            estimate: The largest amount that the action should cost, in the unit of the pool.
            action: Kept in this process only: in the event of the guard, and in the counts of its chunk's commit.
            subject: As for `Cycles.reserve`. Each set of levels has its own chunks.
            actual: As for `Cycles.reserve`.
            metadata: Kept in this process only: in the event of the guard.
            lease_policy: As for `Cycles.reserve`; it acts if the lease of the guard's chunk is lost.
            wait: Seconds to wait for budget if a chunk is denied.
            idempotency_key: Not possible: the server never sees the guard.

        Raises:
            InvalidRequestError: A value is wrong, or `idempotency_key` was passed.
        """
        if idempotency_key is not None:
            raise InvalidRequestError(
                "idempotency_key is not possible in a pool, whose guards the server never sees: "
                "use client.reserve(...) for it"
            )
        if checked_amount(estimate).unit != self._options.unit:
            unit = self._options.unit
            raise InvalidRequestError(f"estimate must be in the unit of the pool: {estimate} is not in {unit}")
        runtime = self._client._runtime()
        state = self._state(runtime)
        given = (action, subject, actual, metadata, lease_policy)
        # Most guards of a pool have only an estimate. Their options are made once, for all of them.
        if given == _NOTHING and current_subject() is None:
            usual = self._usual
            if usual is None or usual[0] is not state or usual[1].sub is None or not usual[1].sub.has_place:
                usual = self._usual = (state, self._options_of(runtime, state, self._request, None))
            return PooledReservation(runtime, state, estimate, usual[1], optional_seconds("wait", wait))
        request = evolve(
            self._request,
            action=self._request.action if action is None else as_action(action),
            actual=checked_actual(actual, estimate),
            metadata=self._request.metadata if metadata is None else clean_object(metadata, "metadata"),
            lease_policy=self._request.lease_policy
            if lease_policy is None
            else checked_choice("lease_policy", lease_policy),
        )
        options = self._options_of(runtime, state, request, subject)
        return PooledReservation(runtime, state, estimate, options, optional_seconds("wait", wait))

    def guarded(self, estimate: AmountOption, *, actual: ActualOption = None, **options: Any) -> Callable[[F], F]:
        """Guard every call of a function with a guard of this pool, as `Cycles.guarded` does with a reservation.

        Args:
            estimate: As for `Cycles.guarded`.
            actual: As for `Cycles.guarded`.
            options: Any other option of `reserve`, or a callable of the call's arguments that returns it.

        Raises:
            InvalidRequestError: When decorating: the object cannot be guarded, or an option is wrong for every call.
        """
        from cycles._client.decorator import guarded_by

        unknown = sorted(set(options) - {"action", "subject", "metadata", "lease_policy", "wait"})
        if unknown:
            instead = "use client.guarded(...) for it"
            if unknown[0] in _OF_POOL:
                instead = "pass it to client.pool(...), or use client.guarded(...)"
            raise InvalidRequestError(f"{unknown[0]} is not an option of a guard in a pool: {instead}")
        action = options.pop("action", None)
        return guarded_by(self.reserve, estimate, action or self._request.action, actual, options)

    @property
    def aio(self) -> AsyncPool:
        """The operations as coroutines."""
        return AsyncPool(self)

    def flush(self, timeout: float = 10.0) -> FlushReport:
        """Settle every chunk, and wait at most `timeout` seconds for it. A chunk waits for its live guards.

        Returns:
            How many chunks were settled, and how many are still pending.
        """
        runtime = self._client._runtime()
        return run(flush(runtime.blocking, self._state(runtime), checked_seconds("timeout", timeout)))

    def close(self) -> None:
        """Settle every chunk and admit no more guards. Guards that still run are settled when they end."""
        run(self._close(lambda runtime: runtime.blocking))

    async def aclose(self) -> None:
        """As `close`, without blocking the event loop."""
        await self._close(lambda runtime: runtime.tasks())

    async def _close(self, io_of: Callable[[Runtime], Io]) -> None:
        state = self._own_state()
        io = None if state is None or state.closed else io_of(self._client._runtime())
        # Before the flush, so that a guard that is reserved in the meantime finds it closed.
        self._closed_in = os.getpid()
        if state is not None and io is not None:
            state.closed = True
            await flush(io, state, self._client.config.flush_timeout, force=True)

    def stats(self) -> PoolStats:
        """Return the amounts and counts of this process, also after the pool or the client was closed."""
        state, unit = self._own_state(), self._options.unit
        if state is None:
            none = Amount(unit, 0)
            return PoolStats(none, none, none, none, 0, 0, 0, 0, none)
        with state.lock:
            state.catch_up()
            subs = list(state.subs.values())
            return PoolStats(
                held=Amount(unit, 0 if self._request.shadow else sum(sub.allotment.held for sub in subs)),
                spent=Amount(unit, state.spent),
                live=Amount(unit, state.live),
                free=Amount(unit, sum(chunk.sums.free for sub in subs for chunk in sub.allotment.open)),
                chunks=sum(chunk.is_held for chunk in state.book.chunks),
                refills=state.opened,
                denied=state.denied,
                direct=state.directs,
                excess=Amount(unit, state.excess),
            )

    def __repr__(self) -> str:
        options = self._options
        return f"<Pool of at most {Amount(options.unit, options.max_held)} for {self._request.action.name}>"

    def _own_state(self) -> PoolState | None:
        """Return the pool of this process, never that of a parent process; None if there is none yet."""
        current = self._current
        return None if current is None or current[0] != os.getpid() else current[1]

    def _state(self, runtime: Runtime) -> PoolState:
        current = self._current
        if current is None or current[0] != runtime.pid:
            with first_use, loading:
                current = self._current
                if current is None or current[0] != runtime.pid:
                    state = runtime.pools.make(self._options)
                    state.closed = self._closed_in == runtime.pid
                    if self._current is current:  # else a signal handler has used the pool in the meantime
                        self._current = (runtime.pid, state)
                    current = self._current
                    assert current is not None
        return current[1]

    def _options_of(
        self, runtime: Runtime, state: PoolState, request: ReserveRequest, subject: AnySubject
    ) -> PooledOptions:
        resolved = self._merged(as_subject(subject), current_subject())
        key = tuple(getattr(resolved, level) for level in LEVELS)
        # A scope set is checked once. Its chunks have other amounts only, which are checked when they are given.
        if key not in state.subs:
            runtime.channel.wire.check(create_call(evolve(request, subject=resolved), "k"))
        # Without a log `kill -9` would lose a whole chunk, so each guard is reserved directly.
        sub = state.sub_pool(key, resolved) if runtime.pools.has_logs else None
        return PooledOptions(sub, evolve(request, subject=resolved))


def _subject_of(client: Owner, of_pool: Subject, given: Subject, around: Subject | None) -> Subject:
    """Return the subject of a guard: what its caller passed, then the blocks around it, the pool and the client."""
    return client._context().subject(given.over(around or Subject()).over(of_pool))


class AsyncPool:
    """The operations of a pool as coroutines: ``await pool.aio.flush()``."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def flush(self, timeout: float = 10.0) -> FlushReport:
        """As `Pool.flush`."""
        pool = self._pool
        runtime = pool._client._runtime()
        return await flush(runtime.tasks(), pool._state(runtime), checked_seconds("timeout", timeout))

    async def close(self) -> None:
        """As `Pool.aclose`."""
        await self._pool.aclose()


def make_pool(client: Owner, given: dict[str, Any]) -> Pool:
    """Return a pool with checked options.

    Raises:
        InvalidRequestError: a value is wrong.
    """
    max_held = checked_amount(given["max_held"], "max_held")
    limit = given["limit"]
    size = _chunk_size(max_held, given["chunk"], limit)
    config = client.config
    request = client._context().reserve_request(Amount(max_held.unit, size), given)
    client._runtime().channel.wire.check(create_call(request, "k"))
    own: Subject = as_subject(given["subject"])
    checked = PoolOptions(
        request=request,
        name=new_key()[:12],  # in the metadata of its commits
        unit=max_held.unit,
        max_held=max_held.amount,
        chunk=size,
        is_chunk_fixed=given["chunk"] is not None,
        limit=None if limit is None else limit.amount,
        dimensions=own.dimensions,
        settle_ms=min(SETTLE_MS, SETTLE_TTLS * request.ttl_ms),
        sync=config.journal and config.durability == "disk",
    )
    return Pool(client, checked, request, own)


def _chunk_size(max_held: Amount, chunk: Amount | None, limit: Amount | None) -> int:
    """Return the amount of one chunk. `chunk` and `limit` must be in the unit of `max_held`."""
    for name, amount in (("chunk", chunk), ("limit", limit)):
        if amount is not None and checked_amount(amount, name).unit != max_held.unit:
            raise InvalidRequestError(f"{name} must be in the unit of max_held: {amount} is not in {max_held.unit}")
    size = -(-max_held.amount // PARTS) if chunk is None else chunk.amount
    if not 1 <= size <= max_held.amount:
        raise InvalidRequestError(
            f"chunk must be from 1 to max_held, {max_held}: got {Amount(max_held.unit, size)}; pass a larger max_held"
        )
    return size


public(ChunkView, Pool, PoolStats)
