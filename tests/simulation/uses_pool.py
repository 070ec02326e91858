"""Uses of pools, and commits that do not wait: several guards of one chunk, whose sum reaches the ledger."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final

from attrs import evolve

import cycles
from cycles._core.protocol import BUDGET_EXCEEDED
from cycles._drivers.pools import WORKERS
from cycles._drivers.work.scheduler import GROW_AFTER_S
from tests.simulation.byte_codes import POOL_RAISES, POOL_USES
from tests.simulation.network import amount
from tests.simulation.swarm import Swarm
from tests.simulation.workload import ACTION, FLUSH_S, MOMENT_S, RESERVE_S, SETTLE_S, TIMEOUT_S, Op, Program

GUARDS: Final = 6
PARTS: Final = (5, 10, 20)
BLOCKS: Final = "pool with blocks"
LIMITED: Final = "pool with a limit"
WITH_HANDLERS: Final = ("pool", BLOCKS)
LIMITS: Final = "limited pools"
HANDLED: Final = 5  # what a signal handler spends
DIRECT: Final = 15  # the estimate of a guard that no chunk of a limited pool takes
RUN: Final = 60  # the limit of such a pool


def with_pools(threads: list[list[str]], swarm: Swarm, random: Random) -> list[list[str]]:
    """Return the kinds of uses of each thread, in some of which pools replace the first ones."""
    if threads and (POOL_RAISES in swarm or POOL_USES in swarm) and random.random() < 0.7:
        threads = [random.choices(WITH_HANDLERS, k=2) + threads[0][2:], *threads[1:]]
    if LIMITS in swarm and random.random() < 0.7:
        swarm.matters(LIMITS)
        threads = [*threads, [LIMITED]]
    return threads


def pool_of(program: Program, op: Op) -> Any:
    """Return a pool with small chunks and short leases."""
    ttl_ms = program.hub.random.choice((1_000, 5_000, 60_000))
    settle_ms = program.hub.random.choice((ttl_ms // 2, 2 * ttl_ms))
    pool = program.client.pool(amount(80), action=ACTION, subject=op.account.subject, chunk=amount(40), ttl_ms=ttl_ms)
    pool._options = evolve(pool._options, settle_ms=settle_ms)
    op.pool = pool
    return pool


def admits(program: Program, op: Op, pool: Any) -> contextlib.AbstractContextManager[None]:
    """Check that a pool makes one reserve of two attempts, and one more for each decision that requires another.

    A smaller chunk is reserved after a denial, and the guard itself after a chunk whose lease was over. A pool that
    holds all that it may hold first waits for the settlement of a chunk that it is sending. One that cannot
    make the log of a chunk releases it with one attempt: the guard, reserved directly, may need its budget. Pools whose
    chunks are opened at the same time get their threads one after the other. If no more threads can be started, the one
    that there is first settles the chunks that it has begun.
    """
    decisions, before = program.server.decisions, program.server.decisions[op.agent]
    refused, state = program.process.refused, _state(pool)
    chunks = 1 if state is None else max(1, len(state.book.chunks))
    answers, waits, direct_until = program.answers(op), _holds_all(pool), _direct_until(pool)

    def limit_s() -> float:
        settle_s = min(TIMEOUT_S * (1 + program.answers(op) - answers), SETTLE_S) if waits else 0.0
        release_s = TIMEOUT_S if _direct_until(pool) != direct_until else 0.0
        if program.process.refused != refused:
            settle_s += SETTLE_S * chunks
        return RESERVE_S * (1 + decisions[op.agent] - before) + settle_s + release_s + GROW_AFTER_S * (WORKERS - 1)

    return program.within(op, "reserve", limit_s)


def _state(pool: Any) -> Any:
    """Return the state of a pool in this process; None before its first guard. A method would switch threads."""
    return None if pool._current is None else pool._current[1]


def _holds_all(pool: Any) -> bool:
    state = _state(pool)
    allotments = [] if state is None else [sub.allotment for sub in state.subs.values()]
    return any(each.held + each.size > each.max_held for each in allotments)


def _direct_until(pool: Any) -> float:
    """Return a time that changes whenever the log of a chunk could not be made."""
    state = _state(pool)
    subs = [] if state is None else state.subs.values()
    return max((sub.direct_until_ms for sub in subs), default=0.0)


def check_denial(op: Op, error: cycles.CyclesError) -> None:
    """Check that no guard is denied for lack of budget where the budget is large."""
    account, code = op.account, getattr(error, "code", None) or getattr(error, "reason_code", None)
    is_large = not (account.is_tight or account.closes or account.freezes_s is not None)
    if is_large and code == BUDGET_EXCEEDED:
        op.problems.append(f"a guard is denied although its budget is large: {error}")


def entered(op: Op, guard: Any) -> None:
    """Note that a guard of the pool runs."""
    op.ran = True
    if guard.reservation_id is not None:
        op.reservations.add(guard.reservation_id)


def commits(op: Op, guard: Any, value: int, spent: int = 0) -> cycles.Amount:
    """Note that the caller commits one more amount beside what it has spent, and which part the guard's chunk takes."""
    op.reaching = op.known + value
    if guard.is_pooled:
        chunk = guard.chunk
        op.in_chunk = min(spent + value, (chunk.reserved - chunk.spent).amount)
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
        except (cycles.TransportError, cycles.ProtocolError) as error:
            check_denial(op, error)
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
        with closes(program, op, pool):
            pool.close()


def closes(program: Program, op: Op, pool: Any) -> contextlib.AbstractContextManager[None]:
    """Check that a close takes as long as one settlement; without threads it settles one chunk after the other."""
    thread, answers = program.hub.current, program.answers(op)
    assert thread is not None
    refused, chunks = thread.refused, pool.stats().chunks

    def limit_s() -> float:
        settle_s = min(TIMEOUT_S * (1 + program.answers(op) - answers), SETTLE_S)
        return settle_s * (1 if thread.refused == refused else max(1, chunks))

    return program.within(op, "the close of a pool", limit_s)


class _Block:
    """A block of a pool, whose entry has a bound in virtual time."""

    def __init__(self, program: Program, op: Op, pool: Any) -> None:
        self._admits = admits(program, op, pool)
        self._reservation = pool.reserve(amount(10))

    def __enter__(self) -> cycles.Guard:
        with self._admits:
            guard: cycles.Guard = self._reservation.__enter__()
        return guard

    def __exit__(self, *raised: Any) -> None:
        self._reservation.__exit__(*raised)


def pool_blocks_sync(program: Program, op: Op) -> None:
    """Report spend in blocks of a pool; some of them commit more."""
    pool = pool_of(program, op)
    with contextlib.suppress(cycles.TransportError, cycles.ProtocolError):
        for _ in range(GUARDS):
            with _Block(program, op, pool) as guard:
                entered(op, guard)
                program.spend(op, guard, 3)
                program.hub.sleep(program.work_s() / 2)
                program.spend(op, guard, 2)
                if program.hub.random.random() < 0.5:
                    _commit_more(program, op, guard, program.hub.random.choice(PARTS))
            op.returned = op.known


def _commit_more(program: Program, op: Op, guard: cycles.Guard, value: int) -> None:
    """Commit more than the block has spent. An interrupt may come before or after the commit."""
    commits(op, guard, value, spent=5)
    try:
        with program.settles(op, "commit"):
            guard.commit(amount(5 + value))
    except cycles.ProtocolError:  # in `rejected/`
        program.spent(op, value)
        raise
    committed(program, op, guard)
    program.spent(op, value)


def in_handler(program: Program, op: Op) -> None:
    """Use the pool of a use in a signal handler, which has interrupted a function of the pool."""
    if op.pool is None:
        return
    program.hub.suspended += 1  # the bounds of the interrupted call do not count what its handler takes
    try:
        guard = op.pool.reserve(amount(10)).acquire()
    except cycles.CyclesError:  # denied, or the pool is being closed
        return
    op.reaching, op.beside = max(op.reaching, op.known) + HANDLED, op.beside + HANDLED
    entered(op, guard)
    try:
        with contextlib.suppress(cycles.ProtocolError):
            guard.commit(amount(HANDLED))
    finally:
        if program.process.alive:
            op.known, op.returned, op.beside = op.known + HANDLED, op.returned + HANDLED, op.beside - HANDLED


def pool_limited_sync(program: Program, op: Op) -> None:
    """Spend more than the estimate in guards that no chunk takes, until the limit of the pool denies one."""
    pool = program.client.pool(
        amount(20),
        action=ACTION,
        subject=op.account.subject,
        chunk=amount(10),
        limit=amount(RUN),
        overage_policy="REJECT",
        ttl_ms=60_000,
    )
    op.pool = pool
    for _ in range(GUARDS):
        try:
            guard = pool.reserve(amount(DIRECT)).acquire()
        except (cycles.TransportError, cycles.ProtocolError) as error:
            if getattr(error, "code", None) == "POOL_LIMIT" and op.known + DIRECT <= RUN:
                op.problems.append(f"a pool with a limit of {RUN} denies a guard of {DIRECT} after {op.known}")
            check_denial(op, error)
            break
        if op.known + DIRECT > RUN:
            op.problems.append(f"a pool with a limit of {RUN} admits a guard of {DIRECT} after {op.known}")
        entered(op, guard)
        value = program.hub.random.choice((DIRECT, 2 * DIRECT))
        op.reaching = op.known + value
        try:
            with contextlib.suppress(cycles.ProtocolError), program.settles(op, "commit"):
                guard.commit(amount(value))
            op.returned = op.reaching
        finally:
            program.spent(op, value)


async def pool_async(program: Program, op: Op) -> None:
    pool = pool_of(program, op)
    for _ in range(GUARDS):
        value = program.hub.random.choice(PARTS)
        try:
            with admits(program, op, pool):
                guard = await pool.reserve(amount(10))
        except (cycles.TransportError, cycles.ProtocolError) as error:
            check_denial(op, error)
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
    """Check that a commit without waiting makes no request, unless the queue may be full, or no thread takes it."""
    if program.settings["most_queued"] <= 1:
        return program.settles(op, "commit")
    thread, before = program.hub.current, program.answers(op)
    assert thread is not None
    refused = thread.refused

    def limit_s() -> float:
        if thread.refused == refused:
            return MOMENT_S
        return min(TIMEOUT_S * (1 + program.answers(op) - before), SETTLE_S)  # as `Program.settles`

    return program.within(op, "commit", limit_s)


def unwaited_sync(program: Program, op: Op) -> None:
    with program.reserve(op) as guard:
        program.entered(op, guard)
        program.hub.sleep(program.work_s())
        program.commits(op, 60)
        with commits_unwaited(program, op):
            guard.commit(amount(60), wait=False)
        program.queued(guard)
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
        program.queued(guard)
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
        program.queued(guard)
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
            program.queued(guard)
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
LATER: Final[dict[str, Callable[[Program, Op], None]]] = {BLOCKS: pool_blocks_sync, LIMITED: pool_limited_sync}
"""Those that `with_pools` chooses."""
POOL_KINDS: Final = POOL_SYNC.keys() | POOL_ASYNC.keys() | LATER.keys()
