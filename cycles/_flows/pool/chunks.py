"""Open and settle the chunks of a pool, in threads of the client. See `docs/pools.md`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Literal

from attrs import evolve

from cycles._core.amounts import INT64_MAX, Amount
from cycles._core.messages.requests import new_key
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.pool.allotment import Move
from cycles._core.pool.chunk_record import ChunkHeader
from cycles._core.protocol import BUDGET_EXCEEDED, OVERDRAFT_LIMIT_EXCEEDED
from cycles._core.settlement.record import Made, Record
from cycles._core.settlement.settlement import FlushReport
from cycles._errors import CyclesError, ObservedReservationError, ReservationDeniedError
from cycles._flows.guard_state import ANY_AMOUNT, GuardState, Release
from cycles._flows.io import Io
from cycles._flows.pool.parts import DENIALS, Open, PoolChunk, SubPool, Waiter
from cycles._flows.pool.pool import PoolState
from cycles._flows.release import release_of, send_release
from cycles._flows.reserve import open_lease
from cycles._flows.settle import settle_queued
from cycles._flows.signal import Signal

UNUSED: Final = "pool_unused"
DENIED_MS: Final = 1_000.0  # how long a denial is repeated without a request, if the server names no time
_TOO_LITTLE: Final = (BUDGET_EXCEEDED, OVERDRAFT_LIMIT_EXCEEDED)  # a smaller chunk may fit


def carry_out(pool: PoolState) -> None:
    """Do what changes of the pool require: wake waiters, open and settle chunks in threads of the client.

    Work leaves the queue after it was passed on, so an interrupt loses none; doing some twice changes nothing.
    """
    while pool.work:
        # The first entry stays in the queue while it is passed on: an interrupt here must not lose it.
        with pool.lock:
            work = pool.work[0] if pool.work else None
            if isinstance(work, Waiter):
                work.signal.set()
            elif isinstance(work, PoolChunk):
                work.sub.allotment.sealed(work)  # it is not yet if a signal handler interrupts `seal`
                work.has_thread = _start(pool, partial(settle, pool.io, pool, work))
                if not work.has_thread:
                    work.sub.allotment.sent(work)  # no guard waits for it
                    pool.serve(work.sub)
            elif work is not None and not _start(pool, partial(open_chunk, pool.io, pool, work)):
                _open_in_caller(work)
            if work is not None and pool.work and pool.work[0] is work:  # else a signal handler was faster
                pool.work.popleft()


def _start(pool: PoolState, flow: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Run a flow in a thread of the client. The lock is held."""
    done = Signal()
    pool.busy.add(done)
    if pool.pool_io.soon(partial(_until_done, pool, flow, done)):
        return True
    pool.busy.discard(done)
    return False


async def _until_done(pool: PoolState, flow: Callable[[], Coroutine[Any, Any, None]], done: Signal) -> None:
    try:
        await flow()
    finally:
        with pool.lock:
            pool.busy.discard(done)
        done.set()


def _open_in_caller(work: Open) -> None:
    """Let the first guard that waits for a chunk open it, because no thread can start. The lock is held."""
    # The first in the queue gets its chunk first, so it loses least by making the request itself.
    waiter = work.sub.waiters[0] if work.sub.waiters else None
    if waiter is not None:
        waiter.opens = work
        waiter.signal.set()
    else:  # it was to be opened ahead of need
        work.begun = True
        work.sub.allotment.failed()


async def open_chunk(io: Io, pool: PoolState, work: Open) -> None:
    """Reserve a chunk, and a smaller one after each denial for lack of budget."""
    with pool.lock:
        # Two may try: a thread that started late, and a caller that opens it because none could be started.
        if work.begun:
            return
        work.begun = True
    sub = work.sub
    result: PoolChunk | GuardState | CyclesError | Move = CyclesError(
        "a chunk of the pool was not opened because of a bug in cycles; report the traceback in the log"
    )
    try:
        lease = await _reserved(io, pool, sub)
        result = await _with_log(io, pool, sub, work.number, lease) if isinstance(lease, GuardState) else lease
    finally:
        with pool.lock:
            _opened(pool, sub, result)
        _report_opened(pool, sub, result)
        carry_out(pool)
    if isinstance(result, PoolChunk) and result.state == "sealed" and pool.closed:
        await settle(io, pool, result)  # here: the threads of the client may have ended


async def settle(io: Io, pool: PoolState, chunk: PoolChunk) -> None:
    """Settle a sealed chunk: save its record, remove its log, send its commit.

    If another client of a shared store has its record, an event charges what is not in that record.
    """
    with pool.lock:
        if chunk.begun:
            return
        pool.settling += 1
    try:
        record = begin_settling(pool, chunk)
        if isinstance(record, Record):
            await settle_queued(io, record, chunk.lease, is_saved=False)
        elif record is not None:
            await send_release(io, record)
    finally:
        chunk.lease.end_trace()
        with pool.lock:
            pool.settling -= 1
            chunk.sub.allotment.sent(chunk)
            pool.serve(chunk.sub)
        carry_out(pool)


def begin_settling(pool: PoolState, chunk: PoolChunk) -> Record | Release | None:
    """Claim the lease of a sealed chunk. Return what settles it; None if nothing is to be sent, or it has begun."""
    with pool.lock:
        pool.catch_up()
        if chunk.begun:
            return None
        chunk.begun = True
        chunk.leave_guards()
    with chunk.put_lock:  # wait for a put of its sum that is in progress
        lease = chunk.lease
    # Nothing was spent: a commit of zero would cost the same request, and say less.
    if lease.request.shadow or not chunk.sums.totals.calls:
        release = _claim_release(pool.io, lease)
        pool.end_chunk(chunk)
        return release
    # Another client of a shared store may have sent what was put there so far.
    record = evolve(chunk.record(pool.io.clock.wall_ms()), made=Made(pool.io.clock.boot_ms(), is_interrupted=True))
    lease.claim("commit", ANY_AMOUNT, record)
    # The outcome may come much later, from the background, or from another process of the fleet.
    lease.when_settled().on_set(partial(_settled, pool, chunk))
    return record


def _settled(pool: PoolState, chunk: PoolChunk) -> None:
    """Continue when the outcome of a chunk is known, or when the client stops waiting for it."""
    settlement = chunk.lease.settlement
    pool.end_chunk(chunk)
    carry_out(pool)
    if chunk.lease.state == "committed" and settlement is not None:
        unit, calls, name = pool.options.unit, chunk.sums.totals.calls, pool.options.name
        amounts = {"reserved": Amount(unit, chunk.amount), "spent": Amount(unit, chunk.spent)}
        pool.io.report("ChunkSettled", chunk.lease, pool=name, guards=calls, status=settlement.status, **amounts)


async def _reserved(io: Io, pool: PoolState, sub: SubPool) -> GuardState | CyclesError | Move:
    """Return the lease of a chunk, the error of the last attempt, or DIRECT if the server only observes."""
    while True:
        try:
            # Each attempt is a reservation with its own key: another amount is another request.
            return await open_lease(io, _request(pool, sub, sub.allotment.opening), lambda lease: None)
        except ReservationDeniedError as error:
            is_too_large = (error.code or error.reason_code) in _TOO_LITTLE
            with pool.lock:
                waiting = [waiter.place.held for waiter in sub.waiters]
                until_ms = io.clock.now_ms() + _pause_ms(error)
                if not is_too_large or pool.closed or sub.allotment.smaller(waiting, until_ms) is None:
                    return error
                sub.denial = error
        except ObservedReservationError as error:
            return Move.DIRECT if pool.options.request.on_observed == "run" else error
        except CyclesError as error:
            return error


def _request(pool: PoolState, sub: SubPool, amount: int) -> ReserveRequest:
    options = pool.options
    # Levels choose the budget, so guards of one sub-pool share them; dimensions are those of the pool.
    subject, estimate = evolve(sub.subject, dimensions=dict(options.dimensions)), Amount(options.unit, amount)
    request = evolve(options.request, estimate=estimate, subject=subject, on_observed="raise", is_chunk=True)
    return evolve(request, is_approved=True)  # the guards that wait for it were


async def _with_log(
    io: Io, pool: PoolState, sub: SubPool, number: int, lease: GuardState
) -> PoolChunk | GuardState | Move:
    """Return the chunk of a lease, with its log in place.

    Returns the lease itself if no server could be reached, and DIRECT if the log cannot be made.
    """
    request = lease.request
    if not request.shadow and lease.reservation_id is None:
        _claim_release(io, lease)  # the guards that wait run unreserved; each records its own amount
        lease.end_trace()
        return lease
    # The offset turns the monotonic times of ends into those of the audit, without a call for each guard.
    offset_ms = pool.io.clock.wall_ms() - pool.io.clock.now_ms()
    chunk = PoolChunk(request.estimate.amount, sub, number, lease, offset_ms, pool.pool_io.write_ahead)
    if lease.reservation_id is None:
        return chunk
    # Written into the log before the first guard: a later process commits the sum with the same key.
    lease.commit_key = new_key()
    chunk.header = ChunkHeader(
        reservation_id=lease.reservation_id,
        base_url=pool.io.settings.base_url,
        unit=request.estimate.unit,
        amount=request.estimate.amount,
        key=lease.commit_key,
        subject=request.subject,
        action=request.action,
        overage_policy=request.overage_policy,
        metadata={**(request.metadata or {}), "pool": pool.options.name, "pool_chunk": number},
    )
    open_log = pool.pool_io.open_log
    if open_log is not None and not pool.closed:
        try:
            chunk.log = open_log(chunk.header)
            lease.ahead = chunk
        except OSError as error:
            pool.pool_io.report_problem(
                f"the log of a pool cannot be made ({error.strerror or error}); its guards are reserved directly, "
                "with two requests each"
            )
            release = _claim_release(io, lease)
            if release is not None:
                await send_release(io, release)
            lease.end_trace()
            return Move.DIRECT
    return chunk


def _claim_release(io: Io, lease: GuardState) -> Release | None:
    """End a lease without an amount. Return what releases it; None if the server holds nothing."""
    release = release_of(lease, UNUSED)
    lease.claim("release", ANY_AMOUNT, release)
    lease.start_release()
    return release


class _Owner:
    """A chunk as the owner of its lease: asks the pool whether it needs it, and passes its loss to the guards."""

    __slots__ = ("_chunk", "_pool")

    def __init__(self, pool: PoolState, chunk: PoolChunk) -> None:
        self._pool = pool
        self._chunk = chunk

    def may_extend(self) -> bool:
        needed = self._pool.may_extend(self._chunk)
        carry_out(self._pool)
        return needed

    def lease_changed(self, event: Literal["lease_lost", "extended"]) -> None:
        self._chunk.lease.lease_changed(event)
        with self._pool.lock:
            guards = list(self._chunk.guards)
        for guard in guards:
            guard.lease_changed(event)
            if event == "lease_lost":  # before the chunk is settled, which ends its heartbeat
                guard.lease_lost()

    def lease_lost(self) -> None:
        """Settle the chunk within its grace period; guards that still run are settled elsewhere."""
        _end_chunk(self._pool, self._chunk, self._pool.seal)


def _end_chunk(pool: PoolState, chunk: PoolChunk, end: Callable[[PoolChunk], None]) -> None:
    """Drain or seal a chunk."""
    with pool.lock:
        pool.catch_up()
        end(chunk)
    carry_out(pool)


def _opened(pool: PoolState, sub: SubPool, result: PoolChunk | GuardState | CyclesError | Move) -> None:
    """Continue with what the attempt to open a chunk brought. The lock is held."""
    now_ms, allotment = pool.io.clock.now_ms(), sub.allotment
    if not isinstance(result, PoolChunk):
        _not_opened(pool, sub, result, now_ms)
        return
    pool.add_chunk(result)
    caps = result.lease.created.caps if result.lease.created is not None else None
    for older in list(allotment.open):
        created = older.lease.created
        # The operator has changed the caps: guards from here on get the new ones only.
        if created is not None and created.caps != caps:
            pool.drain(older)
    balances = (result.lease.created.balances if result.lease.created is not None else None) or ()
    left = [each.remaining.amount for each in balances if each.remaining.unit == pool.options.unit]
    allotment.opened(result, min(left, default=INT64_MAX))
    if result.heartbeat is not None:
        result.heartbeat.owner = _Owner(pool, result)
    result.timer = pool.pool_io.at(now_ms + pool.options.settle_ms, partial(_end_chunk, pool, result, pool.drain))
    if pool.closed:
        pool.seal(result)
    elif not result.is_live(now_ms):  # another chunk could be as late, so the waiting callers reserve directly
        pool.seal(result)
        pool.fail_waiters(sub, Move.DIRECT)
    pool.serve(sub)
    if result.heartbeat is not None and result.heartbeat.lost:  # before the pool was notified of it
        pool.seal(result)


def _report_opened(pool: PoolState, sub: SubPool, result: PoolChunk | GuardState | CyclesError | Move) -> None:
    """Report what the attempt brought: observers run without the lock."""
    unit, name = pool.options.unit, pool.options.name
    if isinstance(result, PoolChunk):
        held = Amount(unit, sub.allotment.held)
        pool.io.report("ChunkOpened", result.lease, pool=name, amount=Amount(unit, result.amount), held=held)
    elif isinstance(result, DENIALS):
        estimate = Amount(unit, max(sub.floor, sub.allotment.size))
        pool.io.report("PoolDenied", result, estimate=estimate, pool=name, reason=str(result))


def _not_opened(pool: PoolState, sub: SubPool, result: GuardState | CyclesError | Move, now_ms: float) -> None:
    """Give the guards that wait what the attempt brought instead of a chunk. The lock is held."""
    is_denied = isinstance(result, DENIALS)
    pause_ms = now_ms + _pause_ms(result) if is_denied and sub.floor else 0.0
    is_too_large = isinstance(result, ReservationDeniedError) and (result.code or result.reason_code) in _TOO_LITTLE
    sub.allotment.failed(denied=sub.allotment.opening if is_too_large else 0, denied_until_ms=pause_ms)
    if isinstance(result, CyclesError) and is_denied:
        sub.denial = result
    if result is Move.DIRECT:
        sub.direct_until_ms = now_ms + max(DENIED_MS, pool.options.settle_ms)
    if pool.closed:
        pool.serve(sub)
    pool.fail_waiters(sub, result)


def _pause_ms(error: Any) -> float:
    return max(DENIED_MS, float(error.retry_after_ms or 0))


async def flush(io: Io, pool: PoolState, timeout_s: float, *, force: bool = False) -> FlushReport:
    """Settle the chunks of a pool and wait for at most `timeout_s` seconds. `force` does not wait for live guards."""
    ends_at_ms = io.clock.now_ms() + timeout_s * 1000
    with pool.lock:
        pool.catch_up()
        chunks = [chunk for chunk in pool.book.chunks if chunk.is_held]
        for chunk in chunks:
            pool.drain(chunk)
            if force:
                pool.seal(chunk)
    carry_out(pool)
    for chunk in chunks:
        # No thread could be started to settle it, so the caller of the flush does.
        if not chunk.has_thread:
            await settle(io, pool, chunk)
    while (left_s := (ends_at_ms - io.clock.now_ms()) / 1000) > 0:
        with pool.lock:
            signals = [*(chunk.ended for chunk in chunks), *pool.busy]
        waiting = next((signal for signal in signals if not signal.is_set), None)
        if waiting is None:
            break
        await io.wait(waiting, left_s)
    settled = sum(chunk.lease.state == "committed" for chunk in chunks)
    pending = sum(chunk.lease.state not in ("committed", "released", "rejected") for chunk in chunks)
    return FlushReport(settled, pending)


def settle_now(pool: PoolState) -> list[tuple[Record, GuardState]]:
    """Seal every chunk when the client closes. Return the records to save and settle, with their leases."""
    with pool.lock:
        pool.catch_up()
        pool.closed = True
        for sub in pool.subs.values():
            pool.serve(sub)
        chunks = [chunk for chunk in pool.book.chunks if chunk.is_held]
        for chunk in chunks:
            pool.seal(chunk)
        # Threads end with the client: what they would open or settle is done below, or not at all.
        pool.work = deque(work for work in pool.work if isinstance(work, Waiter))
    carry_out(pool)
    left = []
    for chunk in chunks:
        record = begin_settling(pool, chunk)
        if isinstance(record, Record):
            left.append((record, chunk.lease))
        elif record is not None:
            pool.io.hand_over(record, now=True)
            chunk.lease.end_trace()
    return left


def live_guards(pool: PoolState) -> list[GuardState]:
    """Return the live guards of the chunks of a pool."""
    with pool.lock:
        return [guard for chunk in pool.book.chunks for guard in chunk.guards]
