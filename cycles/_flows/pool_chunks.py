"""Open and settle the chunks of a pool, in threads of the client. See `docs/pools.md`."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, Literal

from attrs import evolve

from cycles._core.allotment import Move
from cycles._core.amounts import Amount
from cycles._core.pool_log import ChunkHeader, chunk_record
from cycles._core.protocol import BUDGET_EXCEEDED, OVERDRAFT_LIMIT_EXCEEDED
from cycles._core.put import PutResult
from cycles._core.records import Made, Record
from cycles._core.requests import new_key
from cycles._core.reserve_request import ReserveRequest
from cycles._core.settlement import FlushReport, Taken
from cycles._core.subjects import LEVELS, Subject
from cycles._errors import CyclesError, GuardFinalizedError, ObservedReservationError, ReservationDeniedError
from cycles._flows.approval import exempt_from_approval
from cycles._flows.guard_state import ANY_AMOUNT, GuardState, Release
from cycles._flows.io import Io
from cycles._flows.pool import PoolState
from cycles._flows.pool_parts import DENIALS, PoolChunk, SubPool
from cycles._flows.release import send_release
from cycles._flows.reports import report
from cycles._flows.reserve import open_lease
from cycles._flows.settle import conclude, rest_of, settle_queued

UNUSED: Final = "pool_unused"
DENIED_MS: Final = 1_000.0  # how long a denial is repeated without a request, if the server names no time
_TOO_LITTLE: Final = (BUDGET_EXCEEDED, OVERDRAFT_LIMIT_EXCEEDED)  # a smaller chunk may fit


class Chunks:
    """The flows of a pool's chunks."""

    async def open(self, pool: PoolState, sub: SubPool, number: int) -> None:
        """Reserve a chunk, and a smaller one after each denial for lack of budget."""
        result: PoolChunk | GuardState | CyclesError | Move = CyclesError(
            "a chunk of the pool was not opened because of a bug in cycles; report the traceback in the log"
        )
        try:
            lease = await _reserved(pool, sub)
            result = await _with_log(pool, sub, number, lease) if isinstance(lease, GuardState) else lease
        finally:
            with pool.lock:
                _opened(pool, sub, result)
        if isinstance(result, PoolChunk) and result.state == "sealed" and pool.closed:
            await self.settle(pool, result)  # here: the threads of the client may have ended

    async def settle(self, pool: PoolState, chunk: PoolChunk) -> None:
        """Settle a sealed chunk: save its record, remove its log, send its commit."""
        record = begin_settling(pool, chunk)
        try:
            if isinstance(record, Record):
                result = await pool.io.put(record)
                if result is PutResult.SAVED:
                    chunk.end()
                await _settle_own_part(pool, chunk, record, result)
            elif record is not None:
                await send_release(pool.io, record, quiet=True)
        finally:
            chunk.lease.end_trace()
            with pool.lock:
                chunk.sub.allotment.sent()
                pool.serve(chunk.sub)


async def _settle_own_part(pool: PoolState, chunk: PoolChunk, record: Record, put: PutResult) -> None:
    """Commit the chunk; if another client has its record, send as an event what is not in that record."""
    if put is not PutResult.TAKEN:
        await settle_queued(pool.io, record, chunk.lease)
        return
    rest = await rest_of(pool.io, record)
    chunk.end()
    if rest is None:
        conclude(pool.io, record, Taken(), chunk.lease)
    else:
        await settle_queued(pool.io, rest, chunk.lease)


def begin_settling(pool: PoolState, chunk: PoolChunk) -> Record | Release | None:
    """Claim the lease of a sealed chunk. Return what settles it; None if nothing is to be sent, or it has begun."""
    with pool.lock:
        if chunk.begun:
            return None
        chunk.begun = True
    with chunk.put_lock:  # wait for a put of its sum that is in progress
        lease = chunk.lease
    if lease.request.shadow or not chunk.used:
        release = None
        if lease.reservation_id is not None:
            release = Release(lease.reservation_id, new_key(), UNUSED, lease.call_options)
        lease.claim("release", ANY_AMOUNT, release)
        lease.apply("release_started", if_accepted=True)
        if lease.heartbeat is not None:
            pool.io.stop(lease.heartbeat)
        chunk.end()
        pool.end_chunk(chunk)
        return release
    assert chunk.header is not None
    record = chunk_record(
        chunk.header,
        chunk.spent,
        chunk.totals.metrics(chunk.used),
        chunk.totals.metadata(chunk.used, chunk.header.metadata),
        pool.io.clock.wall_ms(),
    )
    # Another client of a shared store may have sent what was put there so far.
    record = evolve(record, made=Made(pool.io.clock.boot_ms(), is_interrupted=True))
    lease.claim("commit", ANY_AMOUNT, record)
    lease.when_settled().on_set(partial(_settled, pool, chunk))
    return record


def _settled(pool: PoolState, chunk: PoolChunk) -> None:
    """Continue when the outcome of a chunk is known, or when the client stops waiting for it."""
    settlement = chunk.lease.settlement
    pool.end_chunk(chunk)
    if chunk.lease.state in ("committed", "rejected"):
        chunk.end()
    if chunk.lease.state == "committed" and settlement is not None:
        report(
            pool.io,
            "ChunkSettled",
            chunk.lease,
            pool=pool.options.name,
            reserved=Amount(pool.options.unit, chunk.amount),
            spent=Amount(pool.options.unit, chunk.spent),
            guards=chunk.used,
            status=settlement.status,
        )


async def _reserved(pool: PoolState, sub: SubPool) -> GuardState | CyclesError | Move:
    """Return the lease of a chunk, the error of the last attempt, or DIRECT if the server only observes."""
    while True:
        try:
            with exempt_from_approval():  # the guards that wait were approved
                return await open_lease(pool.io, _request(pool, sub, sub.allotment.opening), _take)
        except ReservationDeniedError as error:
            is_too_large = (error.code or error.reason_code) in _TOO_LITTLE
            with pool.lock:
                if not is_too_large or pool.closed or sub.allotment.smaller(sub.floor) is None:
                    return error
        except ObservedReservationError as error:
            return Move.DIRECT if pool.options.request.on_observed == "run" else error
        except CyclesError as error:
            return error


def _take(lease: GuardState) -> None:
    """Do nothing: the flow that opens the chunk returns its lease."""


def _request(pool: PoolState, sub: SubPool, amount: int) -> ReserveRequest:
    options = pool.options
    levels = {level: getattr(sub.subject, level) for level in LEVELS}
    subject = Subject(**levels, dimensions=dict(options.dimensions))
    estimate = Amount(options.unit, amount)
    return evolve(options.request, estimate=estimate, subject=subject, on_observed="raise", is_chunk=True)


async def _with_log(pool: PoolState, sub: SubPool, number: int, lease: GuardState) -> PoolChunk | GuardState | Move:
    """Return the chunk of a lease, with its log in place.

    Returns the lease itself if no server could be reached, and DIRECT if the log cannot be made.
    """
    request = lease.request
    if not request.shadow and lease.reservation_id is None:
        lease.claim("release", ANY_AMOUNT)  # the guards that wait run unreserved; each records its own amount
        lease.apply("release_started")
        lease.end_trace()
        return lease
    chunk = PoolChunk(sub, number, lease, request.estimate.amount, pool.io.clock.wall_ms() - pool.io.clock.now_ms())
    if lease.reservation_id is None:
        return chunk
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
    if pool.pool_io.journaled and not pool.closed:
        try:
            chunk.log = pool.pool_io.open_log(chunk.header)
            lease.ahead = chunk
        except OSError as error:
            pool.pool_io.report_problem(
                f"the log of a pool cannot be made ({error.strerror or error}); its guards are reserved directly, "
                "with two requests each"
            )
            await _release_unused(pool.io, lease)
            return Move.DIRECT
    return chunk


async def _release_unused(io: Io, lease: GuardState) -> None:
    assert lease.reservation_id is not None
    release = Release(lease.reservation_id, new_key(), UNUSED, lease.call_options)
    lease.claim("release", ANY_AMOUNT, release)
    lease.apply("release_started", if_accepted=True)
    if lease.heartbeat is not None:
        io.stop(lease.heartbeat)
    await send_release(io, release, quiet=True)
    lease.end_trace()


def _watch(pool: PoolState, chunk: PoolChunk) -> None:
    """Let the heartbeat of a chunk consult the pool, and report the loss of the lease to it."""
    heartbeat = chunk.heartbeat
    if heartbeat is None:
        return

    def changed(event: Literal["lease_lost", "extended"]) -> None:
        chunk.lease.lease_changed(event)
        if event == "lease_lost":
            for state in list(chunk.states):  # before the chunk is settled, which ends its heartbeat
                state.lease_lost()

    heartbeat.may_extend = partial(pool.may_extend, chunk)
    heartbeat.on_change = changed
    heartbeat.on_lost = partial(pool.lease_lost, chunk)  # after the loss is reported


def _opened(pool: PoolState, sub: SubPool, result: PoolChunk | GuardState | CyclesError | Move) -> None:
    """Continue with what the attempt to open a chunk brought. The lock is held."""
    now_ms, allotment = pool.io.clock.now_ms(), sub.allotment
    if not isinstance(result, PoolChunk):
        _not_opened(pool, sub, result, now_ms)
        return
    pool.opened += 1
    pool.chunks.add(result)
    caps = result.lease.created.caps if result.lease.created is not None else None
    for older in list(allotment.open):
        assert isinstance(older, PoolChunk)
        created = older.lease.created
        if created is not None and created.caps != caps:
            pool.drain(older)
    allotment.opened(result)
    _watch(pool, result)
    result.timer = pool.pool_io.at(now_ms + pool.options.settle_ms, partial(pool.expire, result))
    report(
        pool.io,
        "ChunkOpened",
        result.lease,
        pool=pool.options.name,
        amount=Amount(pool.options.unit, result.amount),
        held=Amount(pool.options.unit, allotment.held),
    )
    if pool.closed:
        pool.seal(result, now=True)
    elif not result.is_live(now_ms):  # another chunk could be as late, so the waiting callers reserve directly
        pool.seal(result)
        pool.fail_waiters(sub, Move.DIRECT)
    pool.serve(sub)
    if result.heartbeat is not None and result.heartbeat.lost:  # before the pool was notified of it
        pool.lease_lost(result)


def _not_opened(pool: PoolState, sub: SubPool, result: GuardState | CyclesError | Move, now_ms: float) -> None:
    """Give the guards that wait what the attempt brought instead of a chunk. The lock is held."""
    is_denied = isinstance(result, DENIALS)
    sub.allotment.failed(denied_until_ms=now_ms + _pause_ms(result) if is_denied and sub.floor else 0.0)
    if isinstance(result, CyclesError):
        sub.denial = result if is_denied else sub.denial
        _report_denied(pool, sub, result)
    if result is Move.DIRECT:
        sub.direct_until_ms = now_ms + max(DENIED_MS, pool.options.settle_ms)
    if pool.closed:
        pool.serve(sub)
    pool.fail_waiters(sub, result)


def _pause_ms(error: Any) -> float:
    return max(DENIED_MS, float(error.retry_after_ms or 0))


def _report_denied(pool: PoolState, sub: SubPool, error: CyclesError) -> None:
    if isinstance(error, DENIALS):
        estimate = Amount(pool.options.unit, max(sub.floor, sub.allotment.size))
        report(pool.io, "PoolDenied", error, estimate=estimate, pool=pool.options.name, reason=str(error))


async def flush(io: Io, pool: PoolState, timeout_s: float, *, force: bool = False) -> FlushReport:
    """Settle the chunks of a pool and wait for at most `timeout_s` seconds. `force` does not wait for live guards."""
    ends_at_ms = io.clock.now_ms() + timeout_s * 1000
    with pool.lock:
        chunks = list(pool.chunks)
        for chunk in chunks:
            pool.drain(chunk)
            if force:
                pool.seal(chunk)
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
        pool.closed = True
        for sub in pool.subs.values():
            pool.serve(sub)
        for chunk in pool.chunks:
            pool.seal(chunk, now=True)
        chunks = list(pool.chunks)
    left = []
    for chunk in chunks:
        record = begin_settling(pool, chunk)
        if isinstance(record, Record):
            left.append((record, chunk.lease))
        elif record is not None:
            pool.io.hand_over(record, now=True)
            chunk.lease.end_trace()
    return left


def end_live(pool: PoolState, end: Any) -> None:
    """Call `end` with every live guard of the pool."""
    with pool.lock:
        states = [state for chunk in pool.chunks for state in chunk.states]
    for state in states:
        try:
            state.claim("exit")
        except GuardFinalizedError:
            continue
        end(state)
