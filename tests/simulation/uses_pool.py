"""Uses of pools, and commits that do not wait: several guards of one chunk, whose sum reaches the ledger."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

from attrs import evolve

import cycles
from tests.simulation.network import amount
from tests.simulation.workload import ACTION, FLUSH_S, MOMENT_S, RESERVE_S, SETTLE_S, TIMEOUT_S, Op, Program

GUARDS: Final = 6
PARTS: Final = (5, 10, 20)


def pool_of(program: Program, op: Op) -> Any:
    """Return a pool with small chunks and short leases."""
    ttl_ms = program.hub.random.choice((1_000, 5_000, 60_000))
    settle_ms = program.hub.random.choice((ttl_ms // 2, 2 * ttl_ms))
    pool = program.client.pool(amount(80), action=ACTION, subject=op.account.subject, chunk=amount(40), ttl_ms=ttl_ms)
    pool._options = evolve(pool._options, settle_ms=settle_ms)
    return pool


def admits(program: Program, op: Op, pool: Any) -> contextlib.AbstractContextManager[None]:
    """Check that a pool makes one reserve of two attempts, and one more for each decision that requires another.

    A smaller chunk is reserved after a denial, and the guard itself after a chunk whose lease was over. A pool that
    holds all that it may hold first waits for the settlement of a chunk that it is sending. One that cannot
    make the log of a chunk releases it with one attempt: the guard, reserved directly, may need its budget.
    """
    decisions, before = program.server.decisions, program.server.decisions[op.agent]
    answers, waits, direct_until = program.answers(op), _holds_all(pool), _direct_until(pool)

    def limit_s() -> float:
        settle_s = min(TIMEOUT_S * (1 + program.answers(op) - answers), SETTLE_S) if waits else 0.0
        release_s = TIMEOUT_S if _direct_until(pool) != direct_until else 0.0
        return RESERVE_S * (1 + decisions[op.agent] - before) + settle_s + release_s

    return program.within(op, "reserve", limit_s)


def _holds_all(pool: Any) -> bool:
    allotments = [] if pool._current is None else [sub.allotment for sub in pool._current[1].subs.values()]
    return any(each.held + each.size > each.max_held for each in allotments)


def _direct_until(pool: Any) -> float:
    """Return a time that changes whenever the log of a chunk could not be made."""
    subs = [] if pool._current is None else pool._current[1].subs.values()
    return max((sub.direct_until_ms for sub in subs), default=0.0)


def entered(op: Op, guard: Any) -> None:
    """Note that a guard of the pool runs."""
    op.ran = True
    if guard.reservation_id is not None:
        op.reservations.add(guard.reservation_id)


def commits(op: Op, guard: Any, value: int) -> cycles.Amount:
    """Note that the caller commits one more amount, and which part of it the guard's chunk takes."""
    op.reaching = op.known + value
    if guard.is_pooled:
        chunk = guard.chunk
        op.in_chunk = min(value, (chunk.reserved - chunk.spent).amount)
    return amount(value)


def committed(program: Program, op: Op, guard: Any) -> None:
    """Note that the commit has returned: its amount survives the end of the process."""
    op.returned, op.in_chunk = op.reaching, None
    if guard.is_pooled:
        program.observer.pooled(op, guard.reservation_id)


def pool_sync(program: Program, op: Op) -> None:
    pool = pool_of(program, op)
    for _ in range(GUARDS):
        value = program.hub.random.choice(PARTS)
        try:
            with admits(program, op, pool):
                guard = pool.reserve(amount(10)).acquire()
        except (cycles.TransportError, cycles.ProtocolError):
            break
        entered(op, guard)
        program.hub.sleep(program.work_s() / 2)
        committing = commits(op, guard, value)
        try:
            with program.settles(op, "commit"):
                guard.commit(committing)
            committed(program, op, guard)
        finally:
            program.spent(op, value)
    if program.hub.random.random() < 0.5:
        with program.settles(op, "the close of a pool"):
            pool.close()


async def pool_async(program: Program, op: Op) -> None:
    pool = pool_of(program, op)
    for _ in range(GUARDS):
        value = program.hub.random.choice(PARTS)
        try:
            with admits(program, op, pool):
                guard = await pool.reserve(amount(10))
        except (cycles.TransportError, cycles.ProtocolError):
            break
        entered(op, guard)
        try:
            await asyncio.sleep(program.work_s() / 2)
        except asyncio.CancelledError:
            await guard.release()
            raise
        committing = commits(op, guard, value)
        try:
            with program.settles(op, "commit"):
                await guard.commit(committing)
            committed(program, op, guard)
        finally:
            program.spent(op, value)


def commits_unwaited(program: Program, op: Op) -> contextlib.AbstractContextManager[None]:
    """Check that a commit without waiting makes no request, unless the queue may be full."""
    if program.settings["most_queued"] > 1:
        return program.within(op, "commit", MOMENT_S)
    return program.settles(op, "commit")


def unwaited_sync(program: Program, op: Op) -> None:
    with program.reserve(op) as guard:
        program.entered(op, guard)
        program.hub.sleep(program.work_s())
        program.commits(op, 60)
        with commits_unwaited(program, op):
            guard.commit(amount(60), wait=False)
        committed(program, op, guard)
    if program.hub.random.random() < 0.3:
        with program.within(op, "settled", SETTLE_S):
            guard.settled(SETTLE_S)


def burst_sync(program: Program, op: Op) -> None:
    guards = []
    for value in PARTS:
        try:
            guard = program.reserve(op, ttl_ms=60_000).acquire()
        except (cycles.TransportError, cycles.ProtocolError):
            break
        program.entered(op, guard)
        op.reaching = op.known + value
        with commits_unwaited(program, op):
            guard.commit(amount(value), wait=False)
        committed(program, op, guard)
        program.spent(op, value)
        guards.append(guard)
    timeout_s = program.hub.random.choice((1.0, FLUSH_S))
    with program.within(op, "flush", timeout_s):
        flushed = program.client.flush(timeout=timeout_s)
    _check_flushed(op, guards, flushed)


async def unwaited_async(program: Program, op: Op) -> None:
    async with program.reserve(op) as guard:
        program.entered(op, guard)
        await asyncio.sleep(program.work_s())
        program.commits(op, 60)
        with commits_unwaited(program, op):
            await guard.commit(amount(60), wait=False)
        committed(program, op, guard)


async def burst_async(program: Program, op: Op) -> None:
    guards = []
    for value in PARTS:
        try:
            guard = await program.reserve(op, ttl_ms=60_000)
        except (cycles.TransportError, cycles.ProtocolError):
            break
        try:
            program.entered(op, guard)
            op.reaching = op.known + value
            with commits_unwaited(program, op):
                await guard.commit(amount(value), wait=False)
            committed(program, op, guard)
        finally:
            if guard.state != "active":
                program.spent(op, value)
        guards.append(guard)
    if program.hub.random.random() < 0.5:
        _check_flushed(op, guards, await program.client.aio.flush(timeout=1.0))


def _check_flushed(op: Op, guards: list[Any], flushed: cycles.FlushReport) -> None:
    """Check that a flush leaves no settlement open that it does not count as pending."""
    pending = [guard.reservation_id for guard in guards if guard.state == "pending"]
    if len(pending) > flushed.pending:
        op.problems.append(f"a flush counts {flushed.pending} as pending, but these are: {pending}")


POOL_SYNC: Final[dict[str, Callable[[Program, Op], None]]] = {
    "pool": pool_sync,
    "commit without waiting": unwaited_sync,
    "commits without waiting": burst_sync,
}
POOL_ASYNC: Final[dict[str, Callable[[Program, Op], Coroutine[Any, Any, None]]]] = {
    "pool": pool_async,
    "commit without waiting": unwaited_async,
    "commits without waiting": burst_async,
}
POOL_KINDS: Final = POOL_SYNC.keys() | POOL_ASYNC.keys()
