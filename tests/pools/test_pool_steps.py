"""The steps of pools in their order: threads, requests, logs, records, reports, and what the pool counts.

Threads of the client run while a caller waits, and before a look at the end.
"""

from __future__ import annotations

import contextlib
import errno
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import cycles
from cycles._core.lease.planner import Stop, StopReason
from cycles._core.messages.outcome import Outcome
from cycles._core.settlement.lifecycle import Dropped
from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record
from cycles._flows.block_end import end_block, end_later
from cycles._flows.commit import commit
from cycles._flows.guard_state import GuardState
from cycles._flows.heartbeat import lose_lease
from cycles._flows.io import Settle, run
from cycles._flows.pool.chunks import carry_out, live_guards
from cycles._flows.pool.in_chunk import InChunk
from cycles._flows.pool.parts import Place, PoolChunk, Waiter
from cycles._flows.settle import settle_queued
from tests.support.points import run_at
from tests.support.scripted_io import (
    LOST,
    NOW_MS,
    SCOPE,
    UNSENT,
    ScriptedIo,
    allowed,
    committed,
    recorded,
    rejected,
    short,
    success,
    tokens,
)
from tests.support.scripted_pool import CheckedSet, Log, NotingLock, ScriptedPool
from tests.support.short import some

T = cycles.tokens
Act = Callable[[ScriptedPool], object]
TOO_MUCH = rejected(409, "BUDGET_EXCEEDED")
LIMITED = rejected(429, "LIMIT_EXCEEDED", retry_after_ms=3_000)
EXPIRED = rejected(410, "RESERVATION_EXPIRED")
RELEASED = success(status="RELEASED", released=tokens(100))
OBSERVED = success(decision="ALLOW", affected_scopes=[SCOPE])


NO_SPACE = OSError(errno.ENOSPC, "no space left")


class Case:
    def __init__(self, act: Act, *responses: Outcome | BaseException, **options: Any) -> None:
        self.act = act
        self.script = responses, options

    def run(self) -> ScriptedIo:
        responses, options = self.script
        pool = ScriptedPool(responses, **options)
        self.act(pool)
        pool.run_threads()
        pool.look()
        return pool.io


def chunk(amount: int = 100, **changes: Any) -> Outcome:
    return allowed(reserved=tokens(amount), **changes)


def flushed(pool: ScriptedPool, **options: Any) -> None:
    pool.io.note(f"flushed: {pool.flush(**options)}")


def one(pool: ScriptedPool) -> None:
    pool.use(10, 7)
    flushed(pool)


def two(pool: ScriptedPool) -> None:
    first, second = pool.reserve(60), pool.reserve(40)
    pool.look()
    pool.commit(second, 40)
    pool.commit(first, 60)


def ahead(pool: ScriptedPool) -> None:
    """The second chunk is opened when the first one is half used."""
    pool.reserve(49)
    pool.look()
    pool.reserve(1)


def released(pool: ScriptedPool) -> None:
    pool.release(pool.reserve(10))
    pool.look()
    flushed(pool)


def spends(pool: ScriptedPool) -> None:
    guard = pool.reserve(10)
    pool.spend(guard, 3)
    pool.spend(guard, 2)
    pool.commit(guard)


def spends_and_releases(pool: ScriptedPool) -> None:
    guard = pool.reserve(10)
    pool.spend(guard, 3)
    pool.release(guard)


def over_estimate(actual: int, overage_policy: str | None = None) -> Act:
    def act(pool: ScriptedPool) -> None:
        guard, other = pool.reserve(10), pool.reserve(80)
        pool.run_threads()
        pool.attempt(lambda: pool.io.note(pool.commit(guard, actual)))
        pool.run_threads()
        pool.look()
        pool.commit(other, 80)

    return act


def sealed(end: Callable[[ScriptedPool, GuardState], object], spend: int = 0) -> Act:
    """End a guard whose chunk was settled without it."""

    def act(pool: ScriptedPool) -> None:
        guard, other = pool.reserve(10), pool.reserve(20)
        pool.commit(other, 20)
        if spend:
            pool.spend(guard, spend)
        flushed(pool, force=True)
        pool.look()
        end(pool, guard)

    return act


def moved(actual: int, later_ms: float = 0) -> Act:
    """A guard of a sealed chunk ends in the open one, if that has enough and its lease lasts."""

    def act(pool: ScriptedPool) -> None:
        guard = pool.reserve(10)
        pool.reserve(50)
        pool.run_threads()
        with pool.pool.lock:
            pool.pool.seal(pool.chunk_of(guard))
        pool.run_threads()
        pool.look()
        pool.io.clock_ms += later_ms
        pool.commit(guard, actual)

    return act


def in_a_sealed_chunk(pool: ScriptedPool) -> None:
    """A guard with spend ends after its chunk was sealed, and before that is settled."""
    guard = pool.reserve(10)
    pool.spend(guard, 3)
    with pool.pool.lock:
        pool.pool.seal(pool.chunk_of(guard))
    pool.commit(guard, 5)


def lost(pool: ScriptedPool) -> None:
    guard = pool.reserve(10)
    pool.commit(pool.reserve(20), 20)
    heartbeat = pool.chunk_of(guard).heartbeat
    assert heartbeat is not None
    lose_lease(pool.io.io, heartbeat, Stop(StopReason.EXPIRED, "it is over"))
    pool.io.note(f"guard is {guard.state}")
    pool.run_threads()
    pool.look()
    pool.attempt(lambda: pool.commit(guard, 9))


def attempts(*estimates: int, wait_s: float | None = None, pause_ms: float = 0) -> Act:
    def act(pool: ScriptedPool) -> None:
        for estimate in estimates:
            pool.attempt(lambda estimate=estimate: pool.io.note(pool.reserve(estimate, wait_s).state))  # type: ignore[misc]
            pool.io.clock_ms += pause_ms

    return act


def after_approval(pool: ScriptedPool) -> None:
    pool.io.approval_ms = 6_000
    attempts(100, wait_s=5)(pool)


def limit(pool: ScriptedPool) -> None:
    guard = pool.reserve(30)
    pool.attempt(lambda: pool.reserve(21))
    other = pool.reserve(20)
    pool.commit(guard, 10)
    pool.attempt(lambda: pool.reserve(21))
    pool.reserve(20)
    pool.commit(other, 20)


def without_threads(act: Act) -> Act:
    def acts(pool: ScriptedPool) -> None:
        pool.threads = False
        act(pool)

    return acts


def in_first_use(pool: ScriptedPool) -> None:
    pool.first_use = True
    pool.reserve(10)


def closes(pool: ScriptedPool) -> None:
    guard = pool.reserve(10)
    pool.use(20, 20)
    pool.io.note(f"closed: {pool.close()}")
    pool.attempt(lambda: pool.reserve(10))
    pool.commit(guard, 9)


def closes_unused(pool: ScriptedPool) -> None:
    pool.release(pool.reserve(10))
    pool.io.note(f"closed: {pool.close()}")


def closes_while_opening(pool: ScriptedPool) -> None:
    def closing() -> None:
        pool.io.note(f"closed: {pool.close()}, {[len(sub.waiters) for sub in pool.pool.subs.values()]} wait")

    pool.io.acts["send reserve"] = closing
    pool.attempt(lambda: pool.reserve(10))


def closes_without_threads(pool: ScriptedPool) -> None:
    def closing() -> None:
        pool.io.note(f"closed: {pool.close()}")
        pool.threads = False

    pool.io.acts["send reserve"] = closing
    pool.attempt(lambda: pool.reserve(10))


def beats(pool: ScriptedPool) -> None:
    """An idle chunk is settled at its second heartbeat without a new guard."""
    guard = pool.use(10, 7)
    pool.io.note(f"beat: {pool.beat(guard)}")
    pool.use(10, 7)
    pool.io.note(f"beat: {pool.beat(guard)}")
    live = pool.reserve(10)
    pool.io.note(f"beat: {pool.beat(guard)}")
    pool.io.note(f"beat: {pool.beat(guard)}")
    pool.release(live)
    pool.io.note(f"beat: {pool.beat(guard)}")


def old(age_ms: float) -> Act:
    """A draining chunk with a live guard is renewed for four times its ttl."""

    def act(pool: ScriptedPool) -> None:
        guard = pool.reserve(10)
        pool.jobs[0].run()
        pool.io.clock_ms += age_ms
        pool.io.note(f"beat: {pool.beat(guard)}")

    return act


def timer(pool: ScriptedPool) -> None:
    guard = pool.reserve(10)
    (job,) = pool.jobs
    pool.io.note(f"due after {job.due_ms - pool.io.clock_ms:g} ms")
    job.run()
    pool.look()
    pool.commit(guard, 7)


def late_lease(pool: ScriptedPool) -> None:
    """The process was stopped for longer than the lease of its chunk."""
    pool.use(10, 7)
    pool.io.clock_ms += 60_000
    pool.attempt(lambda: pool.io.note(pool.reserve(10).state))


def caps(pool: ScriptedPool) -> None:
    """A chunk with other caps drains the earlier ones."""
    pool.reserve(50)
    pool.run_threads()
    pool.look()


def scopes(pool: ScriptedPool) -> None:
    for number in range(9):
        pool.reserve(10, agent=f"a{number}")


def ended_later(raised: BaseException | None = None, spend: int = 0) -> Act:
    def act(pool: ScriptedPool) -> None:
        guard = pool.reserve(10)
        if spend:
            pool.spend(guard, spend)
        guard.claim("drop")
        end_later(pool.io.io, guard, raised)

    return act


def pending(pool: ScriptedPool) -> None:
    one(pool)
    pool.look()
    pool.reserve(10)


def of_another_client(amount: int, after: int | None = None) -> dict[str, Record]:
    """Return the record of another client for the same chunk, with another sum, or the rest beyond an earlier one."""
    metadata = {"pool_chunk": 1, "pool_calls": 1}
    key = "k" if after is None else f"k:late:{after}"
    body = {"idempotency_key": key, "actual": tokens(amount), "metadata": metadata}
    record = Record(reservation_id="r1", base_url="http://x", commit_body=body, event_fallback_body=body)
    return {"r1": record if after is None else record.to_event_mode(NOW_MS)}


def direct(pool: ScriptedPool) -> None:
    """Guards that are larger than a chunk are reserved directly, and counted."""
    guard = pool.reserve(101)
    pool.commit(guard, 90)
    pool.look()
    pool.reserve(102)
    pool.look()
    pool.reserve(103)


def too_small(spent: int) -> Act:
    """A chunk that can never take the next estimate again makes place for one that can."""

    def act(pool: ScriptedPool) -> None:
        pool.use(60, spent)
        pool.look()
        pool.io.note(pool.reserve(10).state)

    return act


def whole_chunk(pool: ScriptedPool) -> None:
    pool.use(40, 5)
    pool.io.note(pool.reserve(100).state)


def interrupted_spend(pool: ScriptedPool) -> None:
    """What is written ahead of a guard ends with it, also if an interrupt came while it was written."""
    guard = pool.reserve(10)
    pool.io.raises["log 0 + 3"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        pool.spend(guard, 3)
    pool.release(guard)


def wrong_end(pool: ScriptedPool) -> None:
    """An end that fails does what an interrupted one has left."""
    guard, other = pool.reserve(100), pool.reserve(10)
    pool.io.raises |= {"log 100": KeyboardInterrupt(), "log 100 +": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        pool.commit(guard, 100)
    pool.attempt(lambda: pool.commit(other))
    pool.run_threads()
    pool.io.note(f"guard is {guard.state}")


def drained(interrupt: BaseException | None = None) -> Act:
    """Release the last guard of a drained chunk."""

    def act(pool: ScriptedPool) -> None:
        guard = pool.reserve(10)
        pool.spend(guard, 3)
        pool.jobs[0].run()
        if interrupt is not None:
            pool.io.raises["log 0 + 0"] = interrupt
        with pytest.raises(KeyboardInterrupt) if interrupt is not None else contextlib.nullcontext():
            pool.release(guard)
        pool.look()

    return act


def freed_by_a_handler(pool: ScriptedPool) -> None:
    def catch_up() -> None:
        with pool.pool.lock:
            pool.pool.catch_up()

    guard = pool.reserve(10)
    pool.spend(guard, 3)
    pool.io.acts["log 0 + 0"] = catch_up
    pool.release(guard)


def overtaken(handler: Callable[[ScriptedPool, GuardState], object]) -> Act:
    """A signal handler uses a guard while the code that it interrupts commits the known spend of the guard."""

    def act(pool: ScriptedPool) -> None:
        guard = pool.reserve(10)
        pool.spend(guard, 3)

        pool.io.on_clock = partial(handler, pool, guard)
        pool.attempt(lambda: pool.commit(guard))

    return act


def interrupted_excess(pool: ScriptedPool) -> None:
    """What the chunk has no space for is settled, also if its caller is interrupted."""
    guard = pool.reserve(10)
    pool.reserve(80)
    pool.run_threads()
    with pytest.raises(KeyboardInterrupt):
        pool.commit(guard, 25)
    pool.io.note(f"guard is {guard.state}")


def used_up(actual: int) -> Act:
    def act(pool: ScriptedPool) -> None:
        pool.use(50, actual)
        pool.attempt(lambda: pool.reserve(1))

    return act


def served_early(pool: ScriptedPool) -> None:
    """A guard that waits gets the space that another one leaves, before its own chunk is opened."""
    guard = pool.reserve(40)
    waiting = pool.waiter(70)
    pool.release(guard)
    pool.io.note(f"{waiting.place.held} waits for {waiting.result is not None}")


def spend_in_a_sealed_chunk(pool: ScriptedPool) -> None:
    """What other guards have spent leaves the log of a sealed chunk."""
    guard, other = pool.reserve(10), pool.reserve(10)
    pool.spend(guard, 3)
    with pool.pool.lock:
        pool.pool.seal(pool.chunk_of(guard))
    pool.spend(other, 3)


def watched_release(pool: ScriptedPool, guard: GuardState) -> None:
    pool.io.watched = guard
    pool.release(guard)


def commit_overtaken(pool: ScriptedPool, guard: GuardState) -> None:
    pool.io.on_clock = lambda: guard.spend(T(2))
    pool.commit(guard)


def another_ends(pool: ScriptedPool) -> None:
    """A signal handler ends another guard while the sums of a guard's end are computed."""
    guard, other = pool.reserve(10), pool.reserve(10)

    def handler() -> None:
        pool.commit(other, 4)

    def look() -> None:
        pool.io.on_clock = handler

    pool.io.on_clock = look
    pool.commit(guard, 7, metadata={"run": 1})
    pool.io.note(f"guards are {guard.state} and {other.state}")


def waiters(*estimates: int) -> Act:
    """Several guards wait for the same chunk."""

    def act(pool: ScriptedPool) -> None:
        waiting = [pool.waiter(estimate) for estimate in estimates]
        pool.look()
        pool.run_threads()
        for each in waiting:
            result = each.result
            got = (
                str(result.amount) if isinstance(result, PoolChunk) else getattr(result, "name", type(result).__name__)
            )
            pool.io.note(f"{each.place.held} has {got}")

    return act


def denied_and_returned(actual: int) -> Act:
    """A denial holds no longer than until a chunk has returned something to the budget."""

    def act(pool: ScriptedPool) -> None:
        live = pool.reserve(10)
        pool.use(40, actual)
        pool.attempt(lambda: pool.reserve(90))
        pool.commit(live, 10)
        flushed(pool)
        pool.attempt(lambda: pool.io.note(pool.reserve(90).state))

    return act


def drained_by_a_handler(pool: ScriptedPool) -> None:
    guard = pool.use(10, 7)
    with pool.pool.lock:
        pool.chunk_of(guard).sub.allotment.drained(pool.chunk_of(guard))
    pool.io.note(f"beat: {pool.beat(guard)}")


def ended_after(spend: int) -> Act:
    """End a claimed guard with more than its chunk takes."""

    def act(pool: ScriptedPool) -> None:
        guard = pool.reserve(10)
        pool.reserve(85)
        guard.spend(T(spend))
        guard.claim("drop")
        end_later(pool.io.io, guard, None)
        pool.io.note(f"guard is {guard.state}")

    return act


def fails_to_sync(pool: ScriptedPool) -> None:
    guard = pool.reserve(10)
    log = pool.chunk_of(guard).log
    assert isinstance(log, Log)
    log.sync_error = NO_SPACE
    pool.commit(guard, 7)


def raising(pool: ScriptedPool) -> None:
    """The block of one guard raises."""
    for raised in (None, ValueError("x")):
        guard = pool.reserve(10)
        guard.spend(T(4))
        run(end_block(pool.io.io, guard, raised))
    pool.io.note(f"errors: {pool.chunk_of(guard).sums.totals.errors}")


def spends_more(pool: ScriptedPool) -> None:
    guard = pool.reserve(10)
    seen = guard.known
    guard.spend(T(3))
    assert guard.settler is not None
    pool.io.note(f"released: {guard.settler.release(pool.io.io, guard, seen)}")
    pool.io.note(f"released: {guard.settler.release(pool.io.io, guard, guard.known)}")


def in_dollars(pool: ScriptedPool) -> None:
    guard = pool.reserve(10)
    assert guard.settler is not None
    pool.io.note(f"quickly: {guard.settler.commit_quickly(guard, cycles.Amount('USD_MICROCENTS', 1))}")
    pool.attempt(lambda: run(commit(pool.io.io, guard, cycles.usd(1), wait=True)))


def twice(pool: ScriptedPool) -> None:
    guard = pool.use(10, 7)
    for end in (lambda: pool.commit(guard, 7), lambda: pool.commit(guard), lambda: pool.release(guard)):
        pool.attempt(end)
    pool.attempt(lambda: pool.spend(guard, 1))


def interrupted(pool: ScriptedPool) -> None:
    with pytest.raises(KeyboardInterrupt):
        pool.reserve(10)
    pool.look()
    flushed(pool)


def settled_late(pool: ScriptedPool) -> None:
    """What a chunk held is opened again when its outcome is known."""
    pool.commit(pool.reserve(100), 100)
    pool.run_threads()
    pool.reserve(50)
    pool.run_threads()
    pool.look()
    work = pool.io.work[-1]
    run(settle_queued(pool.io.io, work.record, work.guard))


def full(pool: ScriptedPool) -> None:
    """A guard waits for the commit of a chunk only as long as its first attempt takes."""
    pool.commit(pool.reserve(100), 100)
    pool.io.note(pool.reserve(50).state)


def too_little_is_left(pool: ScriptedPool) -> None:
    """The rest of a chunk is too small, so it is settled. The guard does not wait for that if no thread does it."""
    pool.use(10, 95)
    pool.io.note(pool.reserve(60).state)


def started_twice(pool: ScriptedPool) -> None:
    """A signal handler does the work that the code which it interrupts is passing on."""
    pool.io.acts["start a thread"] = lambda: carry_out(pool.pool)
    pool.reserve(10)


def locked(pool: ScriptedPool) -> None:
    guard = pool.use(10, 7)
    pool.chunk_of(guard).put_lock = NotingLock(pool.io, "the lock of puts")  # type: ignore[assignment]
    flushed(pool)


HELD_BACK, TAKEN, FAILED = PutResult.HELD_BACK, PutResult.TAKEN, PutResult.FAILED
INVALID = rejected(400, "INVALID_REQUEST")
STOP = KeyboardInterrupt()
CASES: dict[str, tuple[Case, str]] = {
    "one guard": (
        Case(one, chunk(), committed(7)),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > 7 ARE COMMITTED > flushed: 1 settled, 0 pending > look: held 0, spent 7, live 0,
        free 0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "one guard without logs": (
        Case(one, chunk(), committed(7), has_logs=False),
        """
        approve > start a thread > wait for ever > A LEASE OPENS > report ChunkOpened > trace of active
        guard opens > report PooledSettled > end trace > cancel timer > start a thread > wait 5 s > put
        commit 7 > send commit > report ChunkSettled > report Settled > finish commit 7 Settled > end trace
        > flushed: 1 settled, 0 pending > look: held 0, spent 7, live 0, free 0, awaited 0, 0 of 1 chunks, 0
        direct, 0 denied
        """,
    ),
    "one guard on disk": (
        Case(one, chunk(), committed(7), sync=True),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > sync log > end trace > cancel timer >
        start a thread > wait 5 s > 7 ARE COMMITTED > flushed: 1 settled, 0 pending > look: held 0, spent 7,
        live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "one guard in a dry run": (
        Case(one, success(decision="ALLOW"), shadow=True),
        """
        approve > start a thread > wait for ever > send reserve > report ShadowDecided > trace of active
        guard opens > report ChunkOpened > trace of active guard opens > report ShadowSettled > end trace >
        cancel timer > start a thread > wait 5 s > end trace > flushed: 0 settled, 0 pending > look: held 0,
        spent 0, live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a commit without a response": (
        Case(pending, chunk(), LOST, chunk()),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > put commit 7 > remove log > send commit > put commit 7 may have arrived > queue
        Settle later > finish commit 7 Unresolved > end trace > flushed: 0 settled, 1 pending > look: held
        100, spent 7, live 0, free 0, awaited 0, 1 of 1 chunks, 0 direct, 0 denied > A GUARD IN A NEW CHUNK
        > look: held 200, spent 7, live 10, free 90, awaited 0, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a commit that is rejected": (
        Case(pending, chunk(), rejected(409, "TENANT_CLOSED"), chunk()),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > put commit 7 > remove log > send commit > report SettlementRejected > finish
        commit 7 Rejected > end trace > flushed: 0 settled, 0 pending > look: held 0, spent 7, live 0, free
        0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied > A GUARD IN A NEW CHUNK > look: held 100, spent 7,
        live 10, free 90, awaited 0, 1 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a commit that is too late": (
        Case(pending, chunk(), EXPIRED, recorded(), chunk()),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > put commit 7 > remove log > send commit > put event 7 since 0 ms > send event >
        report ChunkSettled > report Settled > finish event 7 Settled > end trace > flushed: 1 settled, 0
        pending > look: held 0, spent 7, live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied > A
        GUARD IN A NEW CHUNK > look: held 100, spent 7, live 10, free 90, awaited 0, 1 of 2 chunks, 0
        direct, 0 denied
        """,
    ),
    "a commit that another client makes": (
        Case(pending, chunk(), chunk(), puts=[TAKEN]),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > put commit 7 > pending r1 > finish commit 7 Taken > remove log > finish commit 7
        Taken > end trace > flushed: 0 settled, 1 pending > look: held 0, spent 7, live 0, free 0, awaited
        0, 0 of 1 chunks, 0 direct, 0 denied > A GUARD IN A NEW CHUNK > look: held 100, spent 7, live 10,
        free 90, awaited 0, 1 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a commit of which another client makes a part": (
        Case(pending, chunk(), recorded(), chunk(), puts=[TAKEN], journal=of_another_client(3)),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > put commit 7 > pending r1 > put event 4 since 0 ms > remove log > finish commit
        7 Taken > send event > report ChunkSettled > report Settled > finish event 4 Settled > end trace >
        flushed: 1 settled, 0 pending > look: held 0, spent 7, live 0, free 0, awaited 0, 0 of 1 chunks, 0
        direct, 0 denied > A GUARD IN A NEW CHUNK > look: held 100, spent 7, live 10, free 90, awaited 0, 1
        of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a commit of which another client makes a part by an event": (
        Case(pending, chunk(), recorded(), chunk(), puts=[TAKEN], journal=of_another_client(2, after=3)),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > put commit 7 > pending r1 > put event 2 since 0 ms > remove log > finish commit
        7 Taken > send event > report ChunkSettled > report Settled > finish event 2 Settled > end trace >
        flushed: 1 settled, 0 pending > look: held 0, spent 7, live 0, free 0, awaited 0, 0 of 1 chunks, 0
        direct, 0 denied > A GUARD IN A NEW CHUNK > look: held 100, spent 7, live 10, free 90, awaited 0, 1
        of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a commit of which another client makes a part after each of its forms was rejected": (
        Case(
            pending,
            *(chunk(), INVALID, EXPIRED, INVALID, rejected(409, "BUDGET_EXCEEDED"), recorded(), chunk()),
            puts=[PutResult.SAVED] * 4 + [TAKEN],
            journal=of_another_client(3),
        ),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > put commit 7 > remove log > send commit > report ValuesOmitted > put commit 7 >
        send commit > put event 7 since 0 ms > send event > report ValuesOmitted > put event 7 since 0 ms >
        send event > put event 7 since 0 ms > pending r1 > put event 4 since 0 ms > finish commit 7 Taken >
        send event > report ChunkSettled > report Settled > finish event 4 Settled > end trace > flushed: 1
        settled, 0 pending > look: held 0, spent 7, live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0
        denied > A GUARD IN A NEW CHUNK > look: held 100, spent 7, live 10, free 90, awaited 0, 1 of 2
        chunks, 0 direct, 0 denied
        """,
    ),
    "a commit of which another client makes more": (
        Case(pending, chunk(), chunk(), puts=[TAKEN], journal=of_another_client(9)),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > put commit 7 > pending r1 > finish commit 7 Taken > remove log > finish commit 7
        Taken > end trace > flushed: 0 settled, 1 pending > look: held 0, spent 7, live 0, free 0, awaited
        0, 0 of 1 chunks, 0 direct, 0 denied > A GUARD IN A NEW CHUNK > look: held 100, spent 7, live 10,
        free 90, awaited 0, 1 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a commit of which another client makes a part, and the journal fails": (
        Case(pending, chunk(), recorded(), chunk(), puts=[TAKEN, FAILED], journal=of_another_client(3)),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > put commit 7 > pending r1 > put event 4 since 0 ms > finish commit 7 Taken >
        send event > remove log > report ChunkSettled > report Settled > finish event 4 Settled > end trace
        > flushed: 1 settled, 0 pending > look: held 0, spent 7, live 0, free 0, awaited 0, 0 of 1 chunks, 0
        direct, 0 denied > A GUARD IN A NEW CHUNK > look: held 100, spent 7, live 10, free 90, awaited 0, 1
        of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a commit that the journal does not take": (
        Case(pending, chunk(), committed(7), chunk(), puts=[FAILED]),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > put commit 7 > send commit > remove log > report ChunkSettled > report Settled >
        finish commit 7 Settled > end trace > flushed: 1 settled, 0 pending > look: held 0, spent 7, live 0,
        free 0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied > A GUARD IN A NEW CHUNK > look: held 100,
        spent 7, live 10, free 90, awaited 0, 1 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a chunk that is used up": (
        Case(two, chunk(), chunk(), committed(100)),
        """
        approve > start a thread > wait for ever > A CHUNK OPENS > start a thread > A CHUNK OPENS > trace of
        active guard opens > look: held 200, spent 0, live 100, free 100, awaited 0, 2 of 2 chunks, 0
        direct, 0 denied > log 40 + 0 > report PooledSettled > end trace > log 100 + 0 > cancel timer >
        start a thread > report PooledSettled > end trace > put commit 100 > remove log > send commit >
        report ChunkSettled > report Settled > finish commit 100 Settled > end trace > look: held 100, spent
        100, live 0, free 100, awaited 0, 1 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a chunk that is half used": (
        Case(ahead, chunk(), chunk()),
        """
        A GUARD IN A NEW CHUNK > look: held 100, spent 0, live 49, free 51, awaited 0, 1 of 1 chunks, 0
        direct, 0 denied > start a thread > A CHUNK OPENS > look: held 200, spent 0, live 50, free 150,
        awaited 0, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "an unused chunk": (
        Case(released, chunk(), RELEASED),
        """
        A GUARD IN A NEW CHUNK > end trace > look: held 100, spent 0, live 0, free 100, awaited 0, 1 of 1
        chunks, 0 direct, 0 denied > cancel timer > start a thread > wait 5 s > remove log > send release >
        report Released > end trace > flushed: 0 settled, 0 pending > look: held 0, spent 0, live 0, free 0,
        awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "an unused chunk, and its release fails": (
        Case(released, chunk(), LOST),
        """
        A GUARD IN A NEW CHUNK > end trace > look: held 100, spent 0, live 0, free 100, awaited 0, 1 of 1
        chunks, 0 direct, 0 denied > cancel timer > start a thread > wait 5 s > remove log > send release >
        report ReleaseFailed > queue Release later > end trace > flushed: 0 settled, 0 pending > look: held
        0, spent 0, live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "spend": (
        Case(spends, chunk()),
        """
        A GUARD IN A NEW CHUNK > log 0 + 3 > log 0 + 5 > log 5 + 0 > report PooledSettled > end trace >
        look: held 100, spent 5, live 0, free 95, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "spend without logs": (
        Case(spends, chunk(), has_logs=False),
        """
        approve > start a thread > wait for ever > A LEASE OPENS > report ChunkOpened > trace of active
        guard opens > write ahead 3 tokens > write ahead 5 tokens > report PooledSettled > end trace > look:
        held 100, spent 5, live 0, free 95, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "spend and a release": (
        Case(spends_and_releases, chunk()),
        """
        A GUARD IN A NEW CHUNK > log 0 + 3 > log 0 + 0 > end trace > look: held 100, spent 0, live 0, free
        100, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "more than the estimate": (
        Case(over_estimate(15), chunk(), chunk()),
        """
        A GUARD IN A NEW CHUNK > start a thread > A CHUNK OPENS > log 15 + 0 > report PooledSettled > end
        trace > pooled > look: held 200, spent 15, live 80, free 105, awaited 0, 2 of 2 chunks, 0 direct, 0
        denied > log 95 + 0 > report PooledSettled > end trace > look: held 200, spent 95, live 0, free 105,
        awaited 0, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "more than the chunk has": (
        Case(over_estimate(25), chunk(), chunk(), committed(100)),
        """
        A GUARD IN A NEW CHUNK > start a thread > A CHUNK OPENS > log 20 + 0 > report PooledSettled > put
        event 5 > queue Settle now > pooled > look: held 200, spent 25, live 80, free 100, awaited 0, excess
        5, 2 of 2 chunks, 0 direct, 0 denied > log 100 + 0 > cancel timer > start a thread > report
        PooledSettled > end trace > put commit 100 > remove log > send commit > report ChunkSettled > report
        Settled > finish commit 100 Settled > end trace > look: held 100, spent 105, live 0, free 100,
        awaited 0, excess 5, 1 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "more than the chunk has, and no queue": (
        Case(over_estimate(25), chunk(), chunk(), recorded(), committed(100), takes=False),
        """
        A GUARD IN A NEW CHUNK > start a thread > A CHUNK OPENS > log 20 + 0 > report PooledSettled > put
        event 5 > queue Settle now > send event > report Settled > finish event 5 Settled > end trace >
        pooled > look: held 200, spent 25, live 80, free 100, awaited 0, excess 5, 2 of 2 chunks, 0 direct,
        0 denied > log 100 + 0 > cancel timer > start a thread > report PooledSettled > end trace > put
        commit 100 > remove log > send commit > report ChunkSettled > report Settled > finish commit 100
        Settled > end trace > look: held 100, spent 105, live 0, free 100, awaited 0, excess 5, 1 of 2
        chunks, 0 direct, 0 denied
        """,
    ),
    "more than the chunk has, rejected": (
        Case(over_estimate(25), chunk(), chunk(), overage_policy="REJECT"),
        """
        A GUARD IN A NEW CHUNK > start a thread > A CHUNK OPENS > log 10 + 0 > report PooledSettled > report
        SettlementRejected > finish event 15 Rejected > end trace > raise BudgetExceededError
        BUDGET_EXCEEDED > look: held 200, spent 25, live 80, free 110, awaited 0, excess 15, 2 of 2 chunks,
        0 direct, 0 denied > log 90 + 0 > report PooledSettled > end trace > look: held 200, spent 105, live
        0, free 110, awaited 0, excess 15, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "all that the chunk has": (
        Case(over_estimate(20), chunk(), chunk(), committed(100), overage_policy="REJECT"),
        """
        A GUARD IN A NEW CHUNK > start a thread > A CHUNK OPENS > log 20 + 0 > report PooledSettled > end
        trace > pooled > look: held 200, spent 20, live 80, free 100, awaited 0, 2 of 2 chunks, 0 direct, 0
        denied > log 100 + 0 > cancel timer > start a thread > report PooledSettled > end trace > put commit
        100 > remove log > send commit > report ChunkSettled > report Settled > finish commit 100 Settled >
        end trace > look: held 100, spent 100, live 0, free 100, awaited 0, 1 of 2 chunks, 0 direct, 0
        denied
        """,
    ),
    "a commit after the chunk": (
        Case(sealed(lambda pool, guard: pool.commit(guard, 9)), chunk(), committed(20)),
        """
        A GUARD IN A NEW CHUNK > log 20 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > put commit 20 > remove log > send commit > report ChunkSettled > report Settled
        > finish commit 20 Settled > end trace > flushed: 1 settled, 0 pending > look: held 0, spent 20,
        live 10, free 0, awaited 0, 1 of 1 chunks, 0 direct, 0 denied > report PooledSettled > put event 9 >
        queue Settle now > look: held 0, spent 29, live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0
        denied
        """,
    ),
    "a commit of spend after the chunk": (
        Case(sealed(lambda pool, guard: pool.commit(guard), spend=3), chunk(), committed(20)),
        """
        A GUARD IN A NEW CHUNK > log 20 + 0 > report PooledSettled > end trace > log 20 + 3 > cancel timer >
        start a thread > wait 5 s > write ahead 3 tokens > log 20 + 0 > sync log if durable > put commit 20
        > remove log > send commit > report ChunkSettled > report Settled > finish commit 20 Settled > end
        trace > flushed: 1 settled, 0 pending > look: held 0, spent 20, live 10, free 0, awaited 0, 1 of 1
        chunks, 0 direct, 0 denied > report PooledSettled > put event 3 > end ahead > queue Settle now >
        look: held 0, spent 23, live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a release after the chunk": (
        Case(sealed(lambda pool, guard: pool.release(guard)), chunk(), committed(20)),
        """
        A GUARD IN A NEW CHUNK > log 20 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > put commit 20 > remove log > send commit > report ChunkSettled > report Settled
        > finish commit 20 Settled > end trace > flushed: 1 settled, 0 pending > look: held 0, spent 20,
        live 10, free 0, awaited 0, 1 of 1 chunks, 0 direct, 0 denied > end trace > look: held 0, spent 20,
        live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "spend after the chunk": (
        Case(sealed(lambda pool, guard: pool.spend(guard, 3)), chunk(), committed(20)),
        """
        A GUARD IN A NEW CHUNK > log 20 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > put commit 20 > remove log > send commit > report ChunkSettled > report Settled
        > finish commit 20 Settled > end trace > flushed: 1 settled, 0 pending > look: held 0, spent 20,
        live 10, free 0, awaited 0, 1 of 1 chunks, 0 direct, 0 denied > write ahead 3 tokens > look: held 0,
        spent 20, live 10, free 0, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "more than the next chunk has": (
        Case(moved(101), chunk(), chunk(reservation_id="r2"), RELEASED),
        """
        A GUARD IN A NEW CHUNK > start a thread > A CHUNK OPENS > cancel timer > look: held 200, spent 0,
        live 60, free 100, awaited 0, 2 of 2 chunks, 0 direct, 0 denied > start a thread > report
        PooledSettled > put event 101 > queue Settle now > remove log > send release > report Released > end
        trace > look: held 100, spent 101, live 50, free 100, awaited 0, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "all that the next chunk has": (
        Case(moved(100), chunk(), chunk(reservation_id="r2"), RELEASED, committed(100)),
        """
        A GUARD IN A NEW CHUNK > start a thread > A CHUNK OPENS > cancel timer > look: held 200, spent 0,
        live 60, free 100, awaited 0, 2 of 2 chunks, 0 direct, 0 denied > log 100 + 0 > cancel timer > start
        a thread > start a thread > report PooledSettled > end trace > remove log > send release > report
        Released > end trace > put commit 100 > remove log > send commit > report ChunkSettled > report
        Settled > finish commit 100 Settled > end trace > look: held 0, spent 100, live 50, free 0, awaited
        0, 1 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a commit after the lease of the next chunk": (
        Case(moved(9, 60_000), chunk(), chunk(reservation_id="r2"), RELEASED),
        """
        A GUARD IN A NEW CHUNK > start a thread > A CHUNK OPENS > cancel timer > look: held 200, spent 0,
        live 60, free 100, awaited 0, 2 of 2 chunks, 0 direct, 0 denied > start a thread > report
        PooledSettled > put event 9 > queue Settle now > remove log > send release > report Released > end
        trace > look: held 100, spent 9, live 50, free 100, awaited 0, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a commit in a sealed chunk": (
        Case(in_a_sealed_chunk, chunk(), RELEASED),
        """
        A GUARD IN A NEW CHUNK > log 0 + 3 > cancel timer > write ahead 5 tokens > log 0 + 0 > sync log if
        durable > start a thread > report PooledSettled > put event 5 > end ahead > queue Settle now >
        remove log > send release > report Released > end trace > look: held 0, spent 5, live 0, free 0,
        awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a commit in the next chunk": (
        Case(moved(9), chunk(), chunk(reservation_id="r2"), RELEASED),
        """
        A GUARD IN A NEW CHUNK > start a thread > A CHUNK OPENS > cancel timer > look: held 200, spent 0,
        live 60, free 100, awaited 0, 2 of 2 chunks, 0 direct, 0 denied > log 9 + 0 > start a thread >
        report PooledSettled > end trace > remove log > send release > report Released > end trace > look:
        held 100, spent 9, live 50, free 91, awaited 0, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a lost lease": (
        Case(lost, chunk(), committed(20)),
        """
        A GUARD IN A NEW CHUNK > log 20 + 0 > report PooledSettled > end trace > report LeaseLost > cancel
        timer > start a thread > guard is lost > put commit 20 > remove log > send commit > report
        ChunkSettled > report Settled > finish commit 20 Settled > end trace > look: held 0, spent 20, live
        10, free 0, awaited 0, 1 of 1 chunks, 0 direct, 0 denied > report PooledSettled > put event 9 >
        queue Settle now > look: held 0, spent 29, live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0
        denied
        """,
    ),
    "a lost lease under fail": (
        Case(lost, chunk(), committed(20), lease_policy="fail_on_finalize"),
        """
        A GUARD IN A NEW CHUNK > log 20 + 0 > report PooledSettled > end trace > report LeaseLost > cancel
        timer > start a thread > guard is lost > put commit 20 > remove log > send commit > report
        ChunkSettled > report Settled > finish commit 20 Settled > end trace > look: held 0, spent 20, live
        10, free 0, awaited 0, 1 of 1 chunks, 0 direct, 0 denied > report PooledSettled > put event 9 >
        queue Settle now > raise LeaseLostError > look: held 0, spent 29, live 0, free 0, awaited 0, 0 of 1
        chunks, 0 direct, 0 denied
        """,
    ),
    "denied": (
        Case(attempts(10, 10, 9), *[TOO_MUCH] * 5, chunk(9)),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > report Denied > trace
        without a guard: BudgetExceededError > ensure journal > send reserve > report Denied > trace without
        a guard: BudgetExceededError > ensure journal > send reserve > report Denied > trace without a
        guard: BudgetExceededError > ensure journal > send reserve > report Denied > trace without a guard:
        BudgetExceededError > ensure journal > send reserve > report Denied > trace without a guard:
        BudgetExceededError > report PoolDenied > trace without a guard: BudgetExceededError > raise
        BudgetExceededError BUDGET_EXCEEDED > approve > trace without a guard: BudgetExceededError > raise
        BudgetExceededError BUDGET_EXCEEDED > approve > start a thread > wait for ever > A LEASE OPENS >
        open log 9 > report ChunkOpened > trace of active guard opens > active > look: held 9, spent 0, live
        9, free 0, awaited 0, 1 of 1 chunks, 0 direct, 2 denied
        """,
    ),
    "denied, then asked again": (
        Case(attempts(100, 100, pause_ms=1_000), TOO_MUCH, chunk(), chunk()),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > report Denied > trace
        without a guard: BudgetExceededError > report PoolDenied > trace without a guard:
        BudgetExceededError > raise BudgetExceededError BUDGET_EXCEEDED > approve > start a thread > wait
        for ever > A CHUNK OPENS > start a thread > A CHUNK OPENS > trace of active guard opens > active >
        look: held 200, spent 0, live 100, free 100, awaited 0, 2 of 2 chunks, 0 direct, 1 denied
        """,
    ),
    "denied, then asked too early": (
        Case(attempts(100, 100, pause_ms=999), TOO_MUCH),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > report Denied > trace
        without a guard: BudgetExceededError > report PoolDenied > trace without a guard:
        BudgetExceededError > raise BudgetExceededError BUDGET_EXCEEDED > approve > trace without a guard:
        BudgetExceededError > raise BudgetExceededError BUDGET_EXCEEDED > look: held 0, spent 0, live 0,
        free 0, awaited 0, 0 of 0 chunks, 0 direct, 2 denied
        """,
    ),
    "a smaller chunk": (
        Case(attempts(10, 30), TOO_MUCH, chunk(50)),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > report Denied > trace
        without a guard: BudgetExceededError > A LEASE OPENS > open log 50 > report ChunkOpened > trace of
        active guard opens > active > active > look: held 50, spent 0, live 40, free 10, awaited 0, 1 of 1
        chunks, 0 direct, 0 denied
        """,
    ),
    "a denied chunk, and wait": (
        Case(attempts(100, wait_s=5), TOO_MUCH, chunk(), chunk()),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > report Denied > trace
        without a guard: BudgetExceededError > report PoolDenied > wait 0.25 s > wait 0.5 s > wait 1 s >
        start a thread > wait for ever > A CHUNK OPENS > start a thread > A CHUNK OPENS > trace of active
        guard opens > active > look: held 200, spent 0, live 100, free 100, awaited 0, 2 of 2 chunks, 0
        direct, 3 denied
        """,
    ),
    "a denied chunk, and wait after an approval that took longer": (
        Case(after_approval, TOO_MUCH, chunk(), chunk()),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > report Denied > trace
        without a guard: BudgetExceededError > report PoolDenied > wait 0.25 s > wait 0.5 s > wait 1 s >
        start a thread > wait for ever > A CHUNK OPENS > start a thread > A CHUNK OPENS > trace of active
        guard opens > active > look: held 200, spent 0, live 100, free 100, awaited 0, 2 of 2 chunks, 0
        direct, 3 denied
        """,
    ),
    "too many requests": (
        Case(attempts(10, 10), LIMITED),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > report Denied > trace
        without a guard: RateLimitedError > report PoolDenied > trace without a guard: RateLimitedError >
        raise RateLimitedError LIMIT_EXCEEDED > approve > trace without a guard: RateLimitedError > raise
        RateLimitedError LIMIT_EXCEEDED > look: held 0, spent 0, live 0, free 0, awaited 0, 0 of 0 chunks, 0
        direct, 2 denied
        """,
    ),
    "a closed budget": (
        Case(attempts(10, wait_s=5), rejected(409, "BUDGET_CLOSED")),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > report Denied > trace
        without a guard: BudgetClosedError > report PoolDenied > trace without a guard: BudgetClosedError >
        raise BudgetClosedError BUDGET_CLOSED > look: held 0, spent 0, live 0, free 0, awaited 0, 0 of 0
        chunks, 0 direct, 1 denied
        """,
    ),
    "no response": (
        Case(attempts(10), LOST, LOST),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > send reserve > queue
        CleanUp later > trace without a guard: TransportError > trace without a guard: TransportError >
        raise TransportError > look: held 0, spent 0, live 0, free 0, awaited 0, 0 of 0 chunks, 0 direct, 0
        denied
        """,
    ),
    "no connection, with allow": (
        Case(attempts(10, 10), *[UNSENT] * 4, on_unavailable="allow"),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > send reserve > trace of
        unreserved guard opens > end trace > report Unreserved > trace of unreserved guard opens >
        unreserved > approve > start a thread > wait for ever > ensure journal > send reserve > send reserve
        > trace of unreserved guard opens > end trace > report Unreserved > trace of unreserved guard opens
        > unreserved > look: held 0, spent 0, live 20, free 0, awaited 0, 0 of 0 chunks, 2 direct, 0 denied
        """,
    ),
    "more than a chunk": (
        Case(attempts(101), allowed()),
        """
        approve > ensure journal > send reserve > take > schedule 49000 > report Reserved > trace of active
        guard opens > active > look: held 0, spent 0, live 101, free 0, awaited 0, 0 of 0 chunks, 1 direct,
        0 denied
        """,
    ),
    "more than a chunk, denied": (
        Case(attempts(101), TOO_MUCH),
        """
        approve > ensure journal > send reserve > report Denied > trace without a guard: BudgetExceededError
        > raise BudgetExceededError BUDGET_EXCEEDED > look: held 0, spent 0, live 0, free 0, awaited 0, 0 of
        0 chunks, 0 direct, 0 denied
        """,
    ),
    "exactly a chunk": (
        Case(attempts(100), chunk(), chunk()),
        """
        approve > start a thread > wait for ever > A CHUNK OPENS > start a thread > A CHUNK OPENS > trace of
        active guard opens > active > look: held 200, spent 0, live 100, free 100, awaited 0, 2 of 2 chunks,
        0 direct, 0 denied
        """,
    ),
    "more than may be held": (
        Case(attempts(60, 60), chunk(), allowed(), max_held=100),
        """
        A GUARD IN A NEW CHUNK > active > approve > ensure journal > send reserve > take > schedule 49000 >
        report Reserved > trace of active guard opens > active > look: held 100, spent 0, live 120, free 40,
        awaited 0, 1 of 1 chunks, 1 direct, 0 denied
        """,
    ),
    "a limit": (
        Case(limit, chunk(), chunk(), limit=50),
        """
        A GUARD IN A NEW CHUNK > report PoolDenied > trace without a guard: BudgetExceededError > raise
        BudgetExceededError POOL_LIMIT > start a thread > log 10 + 0 > report PooledSettled > end trace >
        report PoolDenied > trace without a guard: BudgetExceededError > raise BudgetExceededError
        POOL_LIMIT > log 30 + 0 > report PooledSettled > end trace > A CHUNK OPENS > look: held 200, spent
        30, live 20, free 150, awaited 0, 2 of 2 chunks, 0 direct, 2 denied
        """,
    ),
    "a limit and wait": (
        Case(attempts(51, wait_s=5), limit=50),
        """
        report PoolDenied > trace without a guard: BudgetExceededError > raise BudgetExceededError
        POOL_LIMIT > look: held 0, spent 0, live 0, free 0, awaited 0, 0 of 0 chunks, 0 direct, 1 denied
        """,
    ),
    "only observed": (
        Case(attempts(10), OBSERVED),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > trace without a guard:
        ObservedReservationError > trace without a guard: ObservedReservationError > raise
        ObservedReservationError > look: held 0, spent 0, live 0, free 0, awaited 0, 0 of 0 chunks, 0
        direct, 0 denied
        """,
    ),
    "only observed, and runs": (
        Case(attempts(10, 10), *[OBSERVED] * 3, on_observed="run"),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > trace without a guard:
        ObservedReservationError > ensure journal > send reserve > trace of observed guard opens > observed
        > approve > ensure journal > send reserve > trace of observed guard opens > observed > look: held 0,
        spent 0, live 20, free 0, awaited 0, 0 of 0 chunks, 2 direct, 0 denied
        """,
    ),
    "no log": (
        Case(attempts(10, 10), chunk(), RELEASED, allowed(), allowed(), log_error=NO_SPACE),
        """
        approve > start a thread > wait for ever > A LEASE OPENS > open log 100 > problem: the log of a pool
        cannot be made (no space left); its guards are reserved directly, with two requests each > send
        release > report Released > end trace > ensure journal > send reserve > take > schedule 49000 >
        report Reserved > trace of active guard opens > active > approve > ensure journal > send reserve >
        take > schedule 49000 > report Reserved > trace of active guard opens > active > look: held 0, spent
        0, live 20, free 0, awaited 0, 0 of 0 chunks, 2 direct, 0 denied
        """,
    ),
    "no thread": (
        Case(without_threads(one), chunk(), committed(7)),
        """
        approve > no thread > wait for ever > A CHUNK OPENS > trace of active guard opens > log 7 + 0 >
        report PooledSettled > end trace > cancel timer > no thread > 7 ARE COMMITTED > flushed: 1 settled,
        0 pending > look: held 0, spent 7, live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "no thread ahead of need": (
        Case(without_threads(ahead), chunk()),
        """
        approve > no thread > wait for ever > A CHUNK OPENS > trace of active guard opens > look: held 100,
        spent 0, live 49, free 51, awaited 0, 1 of 1 chunks, 0 direct, 0 denied > no thread > look: held
        100, spent 0, live 50, free 50, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "no thread, used up": (
        Case(without_threads(two), chunk()),
        """
        approve > no thread > wait for ever > A CHUNK OPENS > no thread > trace of active guard opens >
        look: held 100, spent 0, live 100, free 0, awaited 0, 1 of 1 chunks, 0 direct, 0 denied > log 40 + 0
        > report PooledSettled > end trace > log 100 + 0 > cancel timer > no thread > report PooledSettled >
        end trace > look: held 100, spent 100, live 0, free 0, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a first use": (
        Case(in_first_use, allowed()),
        """
        approve > ensure journal > send reserve > take > schedule 49000 > report Reserved > trace of active
        guard opens > look: held 0, spent 0, live 10, free 0, awaited 0, 0 of 0 chunks, 1 direct, 0 denied
        """,
    ),
    "closed": (
        Case(closes, chunk(), recorded()),
        """
        A GUARD IN A NEW CHUNK > log 20 + 0 > report PooledSettled > end trace > cancel timer > closed: [20]
        > approve > trace without a guard: CyclesError > raise CyclesError > report PooledSettled > put
        event 9 > queue Settle now > look: held 100, spent 29, live 0, free 0, awaited 0, 1 of 1 chunks, 0
        direct, 0 denied
        """,
    ),
    "closed and unused": (
        Case(closes_unused, chunk()),
        """
        A GUARD IN A NEW CHUNK > end trace > cancel timer > remove log > queue Release now > end trace >
        closed: [] > look: held 0, spent 0, live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "closed while a chunk is opened": (
        Case(closes_while_opening, chunk(), RELEASED),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > closed: [], [0] wait >
        schedule 49000 > report Reserved > trace of active guard opens > cancel timer > report ChunkOpened >
        start a thread > send release > report Released > end trace > trace without a guard: CyclesError >
        raise CyclesError > look: held 0, spent 0, live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0
        denied
        """,
    ),
    "closed while a chunk is opened, without threads": (
        Case(closes_without_threads, chunk(), RELEASED),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > closed: [] > schedule
        49000 > report Reserved > trace of active guard opens > cancel timer > report ChunkOpened > no
        thread > send release > report Released > end trace > trace without a guard: CyclesError > raise
        CyclesError > look: held 0, spent 0, live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "closed while a chunk is denied": (
        Case(closes_while_opening, TOO_MUCH),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > closed: [], [0] wait >
        report Denied > trace without a guard: BudgetExceededError > report PoolDenied > trace without a
        guard: CyclesError > raise CyclesError > look: held 0, spent 0, live 0, free 0, awaited 0, 0 of 0
        chunks, 0 direct, 0 denied
        """,
    ),
    "heartbeats": (
        Case(beats, chunk(), committed(14)),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > beat: True > log 14 + 0 >
        report PooledSettled > end trace > beat: True > beat: True > beat: True > end trace > cancel timer >
        start a thread > beat: False > put commit 14 > remove log > send commit > report ChunkSettled >
        report Settled > finish commit 14 Settled > end trace > look: held 0, spent 14, live 0, free 0,
        awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "an old chunk": (
        Case(old(240_000), chunk(), RELEASED),
        """
        A GUARD IN A NEW CHUNK > cancel timer > start a thread > beat: False > remove log > send release >
        report Released > end trace > look: held 0, spent 0, live 10, free 0, awaited 0, 1 of 1 chunks, 0
        direct, 0 denied
        """,
    ),
    "a chunk that is not that old": (
        Case(old(239_999), chunk()),
        """
        A GUARD IN A NEW CHUNK > beat: True > look: held 100, spent 0, live 10, free 0, awaited 0, 1 of 1
        chunks, 0 direct, 0 denied
        """,
    ),
    "a chunk of 30 s": (
        Case(timer, chunk(), committed(7)),
        """
        A GUARD IN A NEW CHUNK > due after 30000 ms > look: held 100, spent 0, live 10, free 0, awaited 0, 1
        of 1 chunks, 0 direct, 0 denied > log 7 + 0 > cancel timer > start a thread > report PooledSettled >
        end trace > 7 ARE COMMITTED > look: held 0, spent 7, live 0, free 0, awaited 0, 0 of 1 chunks, 0
        direct, 0 denied
        """,
    ),
    "a chunk whose lease was over": (
        Case(late_lease, chunk(), committed(7), chunk(after_ms=60_000)),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > cancel timer > approve >
        start a thread > start a thread > wait for ever > 7 ARE COMMITTED > ensure journal > send reserve >
        schedule 109000 > report Reserved > trace of active guard opens > open log 100 > report ChunkOpened
        > trace of active guard opens > active > look: held 100, spent 7, live 10, free 90, awaited 0, 1 of
        2 chunks, 0 direct, 0 denied
        """,
    ),
    "a chunk whose lease is over when it comes": (
        Case(attempts(10), chunk(remaining_ttl_ms=0), RELEASED, allowed()),
        """
        approve > start a thread > wait for ever > ensure journal > send reserve > report LeaseNotice >
        schedule 0 > report Reserved > trace of active guard opens > open log 100 > cancel timer > report
        ChunkOpened > start a thread > remove log > send release > report Released > end trace > ensure
        journal > send reserve > take > schedule 49000 > report Reserved > trace of active guard opens >
        active > look: held 0, spent 0, live 10, free 0, awaited 0, 0 of 1 chunks, 1 direct, 0 denied
        """,
    ),
    "other caps": (
        Case(caps, chunk(), chunk(decision="ALLOW_WITH_CAPS", caps={"max_tokens": 5})),
        """
        approve > start a thread > wait for ever > A CHUNK OPENS > start a thread > A CHUNK OPENS > trace of
        active guard opens > look: held 200, spent 0, live 50, free 100, awaited 0, 2 of 2 chunks, 0 direct,
        0 denied > look: held 200, spent 0, live 50, free 100, awaited 0, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "the same caps": (
        Case(caps, chunk(), chunk()),
        """
        approve > start a thread > wait for ever > A CHUNK OPENS > start a thread > A CHUNK OPENS > trace of
        active guard opens > look: held 200, spent 0, live 50, free 150, awaited 0, 2 of 2 chunks, 0 direct,
        0 denied > look: held 200, spent 0, live 50, free 150, awaited 0, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "nine scope sets": (
        Case(scopes, *[chunk()] * 8, allowed()),
        """
        A GUARD IN A NEW CHUNK > A GUARD IN A NEW CHUNK > A GUARD IN A NEW CHUNK > A GUARD IN A NEW CHUNK >
        A GUARD IN A NEW CHUNK > A GUARD IN A NEW CHUNK > A GUARD IN A NEW CHUNK > A GUARD IN A NEW CHUNK >
        approve > ensure journal > send reserve > take > schedule 49000 > report Reserved > trace of active
        guard opens > look: held 800, spent 0, live 90, free 720, awaited 0, 8 of 8 chunks, 1 direct, 0
        denied
        """,
    ),
    "ended later": (
        Case(ended_later(), chunk()),
        """
        A GUARD IN A NEW CHUNK > end trace > look: held 100, spent 0, live 0, free 100, awaited 0, 1 of 1
        chunks, 0 direct, 0 denied
        """,
    ),
    "ended later with spend": (
        Case(ended_later(Dropped("dropped"), 7), chunk()),
        """
        A GUARD IN A NEW CHUNK > log 0 + 7 > report GuardNotCommitted > log 7 + 0 > report PooledSettled >
        end trace > look: held 100, spent 7, live 0, free 93, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "ended later in a dry run": (
        Case(ended_later(spend=7), success(decision="ALLOW"), shadow=True),
        """
        approve > start a thread > wait for ever > send reserve > report ShadowDecided > trace of active
        guard opens > report ChunkOpened > trace of active guard opens > write ahead 7 tokens > report
        ShadowSettled > end trace > look: held 100, spent 0, live 0, free 100, awaited 0, 1 of 1 chunks, 0
        direct, 0 denied
        """,
    ),
    "settled late": (
        Case(settled_late, chunk(), chunk(), LOST, committed(100), chunk(), max_held=200),
        """
        approve > start a thread > wait for ever > A CHUNK OPENS > start a thread > A CHUNK OPENS > trace of
        active guard opens > log 100 + 0 > cancel timer > start a thread > report PooledSettled > end trace
        > put commit 100 > remove log > send commit > put commit 100 may have arrived > queue Settle later >
        finish commit 100 Unresolved > end trace > look: held 200, spent 100, live 50, free 50, awaited 0, 2
        of 2 chunks, 0 direct, 0 denied > send commit > start a thread > report ChunkSettled > report
        Settled > finish commit 100 Settled > A CHUNK OPENS > look: held 200, spent 100, live 50, free 150,
        awaited 0, 2 of 3 chunks, 0 direct, 0 denied
        """,
    ),
    "as much as may be held": (
        Case(full, chunk(), LOST, allowed(), max_held=100),
        """
        A GUARD IN A NEW CHUNK > log 100 + 0 > cancel timer > start a thread > report PooledSettled > end
        trace > approve > wait for ever > put commit 100 > remove log > send commit > put commit 100 may
        have arrived > queue Settle later > finish commit 100 Unresolved > end trace > ensure journal > send
        reserve > take > schedule 49000 > report Reserved > trace of active guard opens > active > look:
        held 100, spent 100, live 50, free 0, awaited 0, 1 of 1 chunks, 1 direct, 0 denied
        """,
    ),
    "as much as may be held, and it is settled": (
        Case(full, chunk(), committed(100), chunk(), chunk(), max_held=100),
        """
        A GUARD IN A NEW CHUNK > log 100 + 0 > cancel timer > start a thread > report PooledSettled > end
        trace > approve > wait for ever > put commit 100 > remove log > send commit > start a thread >
        report ChunkSettled > report Settled > finish commit 100 Settled > end trace > A CHUNK OPENS > trace
        of active guard opens > active > look: held 100, spent 100, live 50, free 50, awaited 0, 1 of 2
        chunks, 0 direct, 0 denied
        """,
    ),
    "a put in progress": (
        Case(locked, chunk(), committed(7)),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > wait 5 s > take the lock of puts > 7 ARE COMMITTED > flushed: 1 settled, 0 pending > look:
        held 0, spent 7, live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "direct guards": (
        Case(direct, allowed(), committed(90), *[allowed()] * 2),
        """
        approve > ensure journal > send reserve > take > schedule 49000 > report Reserved > trace of active
        guard opens > check commit > put commit 90 > send commit > report Settled > finish commit 90 Settled
        > end trace > look: held 0, spent 90, live 0, free 0, awaited 0, 0 of 0 chunks, 1 direct, 0 denied >
        approve > ensure journal > send reserve > take > schedule 49000 > report Reserved > trace of active
        guard opens > look: held 0, spent 90, live 102, free 0, awaited 0, 0 of 0 chunks, 2 direct, 0 denied
        > approve > ensure journal > send reserve > take > schedule 49000 > report Reserved > trace of
        active guard opens > look: held 0, spent 90, live 205, free 0, awaited 0, 0 of 0 chunks, 3 direct, 0
        denied
        """,
    ),
    "a rest that is too small": (
        Case(too_small(91), chunk(), committed(91), chunk(), max_held=100),
        """
        A GUARD IN A NEW CHUNK > log 91 + 0 > report PooledSettled > end trace > look: held 100, spent 91,
        live 0, free 9, awaited 0, 1 of 1 chunks, 0 direct, 0 denied > approve > cancel timer > start a
        thread > wait for ever > put commit 91 > remove log > send commit > start a thread > report
        ChunkSettled > report Settled > finish commit 91 Settled > end trace > A CHUNK OPENS > trace of
        active guard opens > active > look: held 100, spent 91, live 10, free 90, awaited 0, 1 of 2 chunks,
        0 direct, 0 denied
        """,
    ),
    "a rest that is just enough": (
        Case(too_small(90), chunk(), max_held=100),
        """
        A GUARD IN A NEW CHUNK > log 90 + 0 > report PooledSettled > end trace > look: held 100, spent 90,
        live 0, free 10, awaited 0, 1 of 1 chunks, 0 direct, 0 denied > active > look: held 100, spent 90,
        live 10, free 0, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a rest that is too small for a whole chunk": (
        Case(whole_chunk, chunk(), committed(5), chunk(), max_held=100),
        """
        A GUARD IN A NEW CHUNK > log 5 + 0 > report PooledSettled > end trace > approve > cancel timer >
        start a thread > wait for ever > put commit 5 > remove log > send commit > start a thread > report
        ChunkSettled > report Settled > finish commit 5 Settled > end trace > A CHUNK OPENS > trace of
        active guard opens > active > look: held 100, spent 5, live 100, free 0, awaited 0, 1 of 2 chunks, 0
        direct, 0 denied
        """,
    ),
    "interrupted while spend is written": (
        Case(interrupted_spend, chunk()),
        """
        A GUARD IN A NEW CHUNK > log 0 + 3 > log 0 + 0 > end trace > look: held 100, spent 0, live 0, free
        100, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a wrong end after an interrupted one": (
        Case(wrong_end, chunk(), chunk(), committed(100)),
        """
        approve > start a thread > wait for ever > A CHUNK OPENS > start a thread > A CHUNK OPENS > trace of
        active guard opens > log 100 + 0 > log 100 + 0 > log 100 + 0 > cancel timer > start a thread > raise
        InvalidRequestError > put commit 100 > remove log > send commit > report ChunkSettled > report
        Settled > finish commit 100 Settled > end trace > guard is committed > look: held 100, spent 100,
        live 10, free 90, awaited 0, 1 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a drained chunk is released": (
        Case(drained(), chunk(), RELEASED),
        """
        A GUARD IN A NEW CHUNK > log 0 + 3 > log 0 + 0 > cancel timer > start a thread > end trace > look:
        held 100, spent 0, live 0, free 0, awaited 0, 1 of 1 chunks, 0 direct, 0 denied > remove log > send
        release > report Released > end trace > look: held 0, spent 0, live 0, free 0, awaited 0, 0 of 1
        chunks, 0 direct, 0 denied
        """,
    ),
    "a drained chunk is released, interrupted": (
        Case(drained(KeyboardInterrupt()), chunk(), RELEASED),
        """
        A GUARD IN A NEW CHUNK > log 0 + 3 > log 0 + 0 > log 0 + 0 > cancel timer > start a thread > end
        trace > look: held 100, spent 0, live 0, free 0, awaited 0, 1 of 1 chunks, 0 direct, 0 denied >
        remove log > send release > report Released > end trace > look: held 0, spent 0, live 0, free 0,
        awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a place is freed by a signal handler": (
        Case(freed_by_a_handler, chunk()),
        """
        A GUARD IN A NEW CHUNK > log 0 + 3 > log 0 + 0 > log 0 + 0 > end trace > look: held 100, spent 0,
        live 0, free 100, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a signal handler spends while a guard ends": (
        Case(overtaken(lambda pool, guard: guard.spend(T(2))), chunk()),
        """
        A GUARD IN A NEW CHUNK > log 0 + 3 > log 5 + 0 > report PooledSettled > end trace > look: held 100,
        spent 5, live 0, free 95, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a signal handler ends a guard that ends": (
        Case(overtaken(lambda pool, guard: pool.commit(guard, 9)), chunk()),
        """
        A GUARD IN A NEW CHUNK > log 0 + 3 > report PooledSettled > put event 9 > queue Settle now > log 0 +
        0 > end trace > raise GuardFinalizedError > look: held 100, spent 9, live 0, free 100, awaited 0, 1
        of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "an interrupted excess": (
        Case(interrupted_excess, chunk(), chunk(), KeyboardInterrupt(), takes=False),
        """
        A GUARD IN A NEW CHUNK > start a thread > A CHUNK OPENS > log 20 + 0 > report PooledSettled > put
        event 5 > queue Settle now > send event > queue Settle unsaved now > guard is pooled > look: held
        200, spent 25, live 80, free 100, awaited 0, excess 5, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "an interrupted excess that is rejected": (
        Case(interrupted_excess, chunk(), chunk(), overage_policy="REJECT", raises={"report Settlement": STOP}),
        """
        A GUARD IN A NEW CHUNK > start a thread > A CHUNK OPENS > log 10 + 0 > report PooledSettled > report
        SettlementRejected > queue Settle unsaved now > end trace > guard is rejected > look: held 200,
        spent 25, live 80, free 110, awaited 0, excess 15, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a limit that is used up": (
        Case(used_up(50), chunk(), chunk(), limit=50),
        """
        approve > start a thread > wait for ever > A CHUNK OPENS > start a thread > A CHUNK OPENS > trace of
        active guard opens > log 50 + 0 > report PooledSettled > end trace > report PoolDenied > trace
        without a guard: BudgetExceededError > raise BudgetExceededError POOL_LIMIT > look: held 200, spent
        50, live 0, free 150, awaited 0, 2 of 2 chunks, 0 direct, 1 denied
        """,
    ),
    "a limit that is exceeded": (
        Case(used_up(60), chunk(), chunk(), limit=50),
        """
        approve > start a thread > wait for ever > A CHUNK OPENS > start a thread > A CHUNK OPENS > trace of
        active guard opens > log 60 + 0 > report PooledSettled > end trace > report PoolDenied > trace
        without a guard: BudgetExceededError > raise BudgetExceededError POOL_LIMIT > look: held 200, spent
        60, live 0, free 140, awaited 0, 2 of 2 chunks, 0 direct, 1 denied
        """,
    ),
    "served before the next chunk": (
        Case(served_early, chunk(), chunk()),
        """
        A GUARD IN A NEW CHUNK > start a thread > end trace > 70 waits for True > A CHUNK OPENS > look: held
        200, spent 0, live 70, free 130, awaited 0, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "spend in a sealed chunk": (
        Case(spend_in_a_sealed_chunk, chunk(), RELEASED),
        """
        A GUARD IN A NEW CHUNK > log 0 + 3 > cancel timer > write ahead 3 tokens > write ahead 3 tokens >
        log 0 + 0 > sync log if durable > write ahead 3 tokens > look: held 100, spent 0, live 20, free 0,
        awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a release of spend after the chunk": (
        Case(sealed(watched_release, spend=3), chunk(), committed(20)),
        """
        A GUARD IN A NEW CHUNK > log 20 + 0 > report PooledSettled > end trace > log 20 + 3 > cancel timer >
        start a thread > wait 5 s > write ahead 3 tokens > log 20 + 0 > sync log if durable > put commit 20
        > remove log > send commit > report ChunkSettled > report Settled > finish commit 20 Settled > end
        trace > flushed: 1 settled, 0 pending > look: held 0, spent 20, live 10, free 0, awaited 0, 1 of 1
        chunks, 0 direct, 0 denied > [released] end ahead > end trace > look: held 0, spent 20, live 0, free
        0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a signal handler spends while a guard ends after its chunk": (
        Case(sealed(commit_overtaken, spend=3), chunk(), committed(20)),
        """
        A GUARD IN A NEW CHUNK > log 20 + 0 > report PooledSettled > end trace > log 20 + 3 > cancel timer >
        start a thread > wait 5 s > write ahead 3 tokens > log 20 + 0 > sync log if durable > put commit 20
        > remove log > send commit > report ChunkSettled > report Settled > finish commit 20 Settled > end
        trace > flushed: 1 settled, 0 pending > look: held 0, spent 20, live 10, free 0, awaited 0, 1 of 1
        chunks, 0 direct, 0 denied > report PooledSettled > put event 5 > end ahead > queue Settle now >
        look: held 0, spent 25, live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a signal handler ends another guard": (
        Case(another_ends, chunk()),
        """
        A GUARD IN A NEW CHUNK > report PooledSettled > put event 4 > queue Settle now > log 7 + 0 > report
        PooledSettled > end trace > guards are pooled and pooled > look: held 100, spent 11, live 10, free
        83, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "two that wait, one for a whole chunk": (
        Case(waiters(30, 100), chunk(), chunk(), chunk(), is_chunk_fixed=False, limit=500),
        """
        start a thread > look: held 120, spent 0, live 0, free 0, awaited 130, 0 of 0 chunks, 0 direct, 0
        denied > A LEASE OPENS > open log 120 > report ChunkOpened > start a thread > A CHUNK OPENS > start
        a thread > A CHUNK OPENS > 30 has 120 > 100 has 100 > look: held 320, spent 0, live 130, free 190,
        awaited 0, 3 of 3 chunks, 0 direct, 0 denied
        """,
    ),
    "no log, asked again after 30 s": (
        Case(attempts(10, 10, pause_ms=30_000), *[chunk(), RELEASED, allowed()] * 2, log_error=NO_SPACE),
        """
        approve > start a thread > wait for ever > A LEASE OPENS > open log 100 > problem: the log of a pool
        cannot be made (no space left); its guards are reserved directly, with two requests each > send
        release > report Released > end trace > ensure journal > send reserve > take > schedule 49000 >
        report Reserved > trace of active guard opens > active > approve > start a thread > wait for ever >
        A LEASE OPENS > open log 100 > problem: the log of a pool cannot be made (no space left); its guards
        are reserved directly, with two requests each > send release > report Released > end trace > ensure
        journal > send reserve > take > schedule 49000 > report Reserved > trace of active guard opens >
        active > look: held 0, spent 0, live 20, free 0, awaited 0, 0 of 0 chunks, 2 direct, 0 denied
        """,
    ),
    "no log, asked again before": (
        Case(attempts(10, 10, pause_ms=29_999), chunk(), RELEASED, allowed(), allowed(), log_error=NO_SPACE),
        """
        approve > start a thread > wait for ever > A LEASE OPENS > open log 100 > problem: the log of a pool
        cannot be made (no space left); its guards are reserved directly, with two requests each > send
        release > report Released > end trace > ensure journal > send reserve > take > schedule 49000 >
        report Reserved > trace of active guard opens > active > approve > ensure journal > send reserve >
        take > schedule 49000 > report Reserved > trace of active guard opens > active > look: held 0, spent
        0, live 20, free 0, awaited 0, 0 of 0 chunks, 2 direct, 0 denied
        """,
    ),
    "three that wait": (
        Case(waiters(30, 30, 30), chunk(), chunk()),
        """
        start a thread > look: held 100, spent 0, live 0, free 0, awaited 90, 0 of 0 chunks, 0 direct, 0
        denied > A CHUNK OPENS > start a thread > A CHUNK OPENS > 30 has 100 > 30 has 100 > 30 has 100 >
        look: held 200, spent 0, live 90, free 110, awaited 0, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "three that wait for two chunks": (
        Case(waiters(60, 60, 30), chunk(), chunk(), chunk()),
        """
        start a thread > look: held 100, spent 0, live 0, free 0, awaited 150, 0 of 0 chunks, 0 direct, 0
        denied > A CHUNK OPENS > start a thread > A CHUNK OPENS > start a thread > A CHUNK OPENS > 60 has
        100 > 60 has 100 > 30 has 100 > look: held 300, spent 0, live 150, free 150, awaited 0, 3 of 3
        chunks, 0 direct, 0 denied
        """,
    ),
    "one of three is larger than a chunk": (
        Case(waiters(30, 101, 30), chunk(), chunk()),
        """
        start a thread > look: held 100, spent 0, live 0, free 0, awaited 161, 0 of 0 chunks, 0 direct, 0
        denied > A CHUNK OPENS > start a thread > A CHUNK OPENS > 30 has 100 > 101 has DIRECT > 30 has 100 >
        look: held 200, spent 0, live 60, free 140, awaited 101, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "three that are denied": (
        Case(waiters(30, 30, 100), *[TOO_MUCH] * 3),
        """
        start a thread > look: held 100, spent 0, live 0, free 0, awaited 160, 0 of 0 chunks, 0 direct, 0
        denied > ensure journal > send reserve > report Denied > trace without a guard: BudgetExceededError
        > ensure journal > send reserve > report Denied > trace without a guard: BudgetExceededError >
        report PoolDenied > 30 has BudgetExceededError > 30 has BudgetExceededError > 100 has
        BudgetExceededError > look: held 0, spent 0, live 0, free 0, awaited 160, 0 of 0 chunks, 0 direct, 3
        denied
        """,
    ),
    "three that wait for a size of their own": (
        Case(waiters(30, 30, 50), chunk(110), *[chunk()] * 2, is_chunk_fixed=False, limit=500),
        """
        start a thread > look: held 120, spent 0, live 0, free 0, awaited 110, 0 of 0 chunks, 0 direct, 0
        denied > A LEASE OPENS > open log 120 > report ChunkOpened > start a thread > A LEASE OPENS > open
        log 120 > report ChunkOpened > 30 has 120 > 30 has 120 > 50 has 120 > look: held 240, spent 0, live
        110, free 130, awaited 0, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "three that wait, without a response": (
        Case(waiters(30, 30, 30), LOST, LOST),
        """
        start a thread > look: held 100, spent 0, live 0, free 0, awaited 90, 0 of 0 chunks, 0 direct, 0
        denied > ensure journal > send reserve > send reserve > queue CleanUp later > trace without a guard:
        TransportError > 30 has TransportError > 30 has TransportError > 30 has TransportError > look: held
        0, spent 0, live 0, free 0, awaited 90, 0 of 0 chunks, 0 direct, 0 denied
        """,
    ),
    "denied until budget is returned": (
        Case(denied_and_returned(5), chunk(), *[TOO_MUCH] * 2, committed(15), chunk(), chunk()),
        """
        A GUARD IN A NEW CHUNK > start a thread > log 5 + 0 > report PooledSettled > end trace > approve >
        wait for ever > ensure journal > send reserve > report Denied > trace without a guard:
        BudgetExceededError > ensure journal > send reserve > report Denied > trace without a guard:
        BudgetExceededError > report PoolDenied > trace without a guard: BudgetExceededError > raise
        BudgetExceededError BUDGET_EXCEEDED > log 15 + 0 > report PooledSettled > end trace > cancel timer >
        start a thread > wait 5 s > put commit 15 > remove log > send commit > report ChunkSettled > report
        Settled > finish commit 15 Settled > end trace > flushed: 1 settled, 0 pending > approve > start a
        thread > wait for ever > A LEASE OPENS > open log 90 > report ChunkOpened > start a thread > A CHUNK
        OPENS > trace of active guard opens > active > look: held 190, spent 15, live 90, free 100, awaited
        0, 2 of 3 chunks, 0 direct, 1 denied
        """,
    ),
    "denied, and nothing is returned": (
        Case(denied_and_returned(90), chunk(), *[TOO_MUCH] * 2, committed(100)),
        """
        A GUARD IN A NEW CHUNK > start a thread > log 90 + 0 > report PooledSettled > end trace > approve >
        wait for ever > ensure journal > send reserve > report Denied > trace without a guard:
        BudgetExceededError > ensure journal > send reserve > report Denied > trace without a guard:
        BudgetExceededError > report PoolDenied > trace without a guard: BudgetExceededError > raise
        BudgetExceededError BUDGET_EXCEEDED > log 100 + 0 > cancel timer > start a thread > report
        PooledSettled > end trace > wait 5 s > put commit 100 > remove log > send commit > report
        ChunkSettled > report Settled > finish commit 100 Settled > end trace > flushed: 1 settled, 0
        pending > approve > trace without a guard: BudgetExceededError > raise BudgetExceededError
        BUDGET_EXCEEDED > look: held 0, spent 100, live 0, free 0, awaited 0, 0 of 1 chunks, 0 direct, 2
        denied
        """,
    ),
    "drained by a signal handler": (
        Case(drained_by_a_handler, chunk(), committed(7)),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > cancel timer > start a
        thread > beat: False > 7 ARE COMMITTED > look: held 0, spent 7, live 0, free 0, awaited 0, 0 of 1
        chunks, 0 direct, 0 denied
        """,
    ),
    "ended later with all that is free": (
        Case(ended_after(15), chunk(), chunk()),
        """
        A GUARD IN A NEW CHUNK > start a thread > log 15 + 0 > report PooledSettled > end trace > guard is
        pooled > A CHUNK OPENS > look: held 200, spent 15, live 85, free 100, awaited 0, 2 of 2 chunks, 0
        direct, 0 denied
        """,
    ),
    "ended later with more than is free": (
        Case(ended_after(16), chunk(), chunk()),
        """
        A GUARD IN A NEW CHUNK > start a thread > log 15 + 0 > report PooledSettled > queue Settle unsaved
        now > end trace > guard is pooled > A CHUNK OPENS > look: held 200, spent 16, live 85, free 100,
        awaited 0, excess 1, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "ended later with more than is free, rejected": (
        Case(ended_after(16), chunk(), chunk(), overage_policy="REJECT"),
        """
        A GUARD IN A NEW CHUNK > start a thread > log 10 + 0 > report PooledSettled > queue Settle unsaved
        now > end trace > guard is rejected > A CHUNK OPENS > look: held 200, spent 16, live 85, free 105,
        awaited 0, excess 6, 2 of 2 chunks, 0 direct, 0 denied
        """,
    ),
    "a log that cannot be synced": (
        Case(fails_to_sync, chunk(), sync=True),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > sync log > problem: the log of a pool
        cannot be synced ([Errno 28] no space left): a loss of power may lose what its guards spent; the
        amounts are charged as long as the system runs > end trace > look: held 100, spent 7, live 0, free
        93, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a block that raises": (
        Case(raising, chunk()),
        """
        A GUARD IN A NEW CHUNK > log 4 + 0 > report PooledSettled > end trace > end trace > log 8 + 0 >
        report PooledSettled > end trace > end trace > errors: 1 > look: held 100, spent 8, live 0, free 92,
        awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a release that overlooks spend": (
        Case(spends_more, chunk()),
        """
        A GUARD IN A NEW CHUNK > released: False > released: True > look: held 100, spent 0, live 0, free
        100, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "a commit in dollars": (
        Case(in_dollars, chunk()),
        """
        A GUARD IN A NEW CHUNK > quickly: None > raise InvalidRequestError > look: held 100, spent 0, live
        10, free 90, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "ended twice": (
        Case(twice, chunk()),
        """
        A GUARD IN A NEW CHUNK > log 7 + 0 > report PooledSettled > end trace > end trace > raise
        GuardFinalizedError > end trace > raise GuardFinalizedError > end trace > raise GuardFinalizedError
        > raise GuardFinalizedError > look: held 100, spent 7, live 0, free 93, awaited 0, 1 of 1 chunks, 0
        direct, 0 denied
        """,
    ),
    "too little is left, and no thread": (
        Case(without_threads(too_little_is_left), chunk(), allowed(reservation_id="r2"), max_held=100),
        """
        approve > no thread > wait for ever > A CHUNK OPENS > trace of active guard opens > log 95 + 0 >
        report PooledSettled > end trace > approve > cancel timer > no thread > ensure journal > send
        reserve > take > schedule 49000 > report Reserved > trace of active guard opens > active > look:
        held 100, spent 95, live 60, free 0, awaited 0, 1 of 1 chunks, 1 direct, 0 denied
        """,
    ),
    "interrupted before its own request": (
        Case(without_threads(interrupted), raises={"wait": STOP}),
        """
        approve > no thread > wait for ever > no thread > trace without a guard: KeyboardInterrupt > look:
        held 0, spent 0, live 0, free 0, awaited 0, 0 of 0 chunks, 0 direct, 0 denied > flushed: 0 settled,
        0 pending > look: held 0, spent 0, live 0, free 0, awaited 0, 0 of 0 chunks, 0 direct, 0 denied
        """,
    ),
    "a thread that is started twice": (
        Case(started_twice, chunk()),
        """
        approve > start a thread > start a thread > wait for ever > A CHUNK OPENS > trace of active guard
        opens > look: held 100, spent 0, live 10, free 90, awaited 0, 1 of 1 chunks, 0 direct, 0 denied
        """,
    ),
    "interrupted while it waits": (
        Case(interrupted, chunk(), raises={"wait": STOP}),
        """
        approve > start a thread > wait for ever > trace without a guard: KeyboardInterrupt > look: held
        100, spent 0, live 0, free 0, awaited 0, 0 of 0 chunks, 0 direct, 0 denied > wait 5 s > A CHUNK
        OPENS > flushed: 0 settled, 0 pending > look: held 100, spent 0, live 0, free 100, awaited 0, 1 of 1
        chunks, 0 direct, 0 denied
        """,
    ),
    "interrupted in its own request": (
        Case(without_threads(interrupted), STOP),
        """
        approve > no thread > wait for ever > ensure journal > send reserve > queue CleanUp now > trace
        without a guard: KeyboardInterrupt > trace without a guard: KeyboardInterrupt > look: held 0, spent
        0, live 0, free 0, awaited 0, 0 of 0 chunks, 0 direct, 0 denied > flushed: 0 settled, 0 pending >
        look: held 0, spent 0, live 0, free 0, awaited 0, 0 of 0 chunks, 0 direct, 0 denied
        """,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_steps_of_a_pool(name: str) -> None:
    case, steps = CASES[name]
    io = case.run()
    assert io.story == " ".join(steps.split())
    assert io.with_other_options() == []


@pytest.mark.parametrize("name", some(list(CASES)))
def test_a_pool_without_a_tracer_takes_the_same_steps(name: str) -> None:
    """Its guards end in a quicker way, without a flow."""
    case = CASES[name][0]
    responses, options = case.script
    untraced = Case(case.act, *responses, **options, is_traced=False).run()
    assert untraced.steps == [step for step in case.run().steps if "trace" not in step]


def settles(pool: ScriptedPool) -> None:
    """Settle the chunk in a thread."""
    pool.io.responses = [committed(7)]
    with pool.pool.lock:
        for each in pool.pool.book.chunks:
            pool.pool.seal(each)
    carry_out(pool.pool)
    pool.run_threads()


OPERATIONS: dict[str, Act] = {
    "a settlement": settles,
    "a timer": lambda pool: pool.jobs[0].run(),
    "a flush": lambda pool: pool.flush(timeout_s=0),
    "a close": lambda pool: pool.close(),
    "a guard that is admitted": lambda pool: pool.reserve(1),
    "a guard that waits": lambda pool: pool.reserve(101),
}
ON_ANOTHER: dict[str, Callable[[ScriptedPool, GuardState], object]] = {
    "spend": lambda pool, guard: pool.spend(guard, 1),
    "a commit": lambda pool, guard: pool.commit(guard, 1),
    "a commit with labels": lambda pool, guard: pool.commit(guard, 1, metadata={"run": 1}),
    "a release": lambda pool, guard: pool.release(guard),
    "a heartbeat": lambda pool, guard: pool.beat(guard),
}


@pytest.mark.parametrize("is_traced", [True, False])
@pytest.mark.parametrize("operation", [*OPERATIONS, *ON_ANOTHER])
def test_what_follows_an_interrupted_end_carries_it_out(operation: str, is_traced: bool) -> None:
    pool = ScriptedPool([chunk(), allowed(reservation_id="r2")], is_traced=is_traced)
    guard, other = pool.reserve(10), pool.reserve(10)
    pool.io.raises |= {"log 7": KeyboardInterrupt(), "log 7 +": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        pool.commit(guard, 7)
    assert (guard.claimed, guard.state, pool.pool.spent) == ("commit", "active", 7)
    if operation in OPERATIONS:
        OPERATIONS[operation](pool)
    else:
        ON_ANOTHER[operation](pool, other)
    assert (guard.state, pool.pool.redo) == ("committed" if operation == "a settlement" else "pooled", None)
    assert pool.pool.spent == 7 + ("commit" in operation)


@pytest.mark.parametrize("reads", ["live guards", "a lost lease", "an extended lease"])
def test_no_guard_is_admitted_while_the_live_ones_are_read(reads: str) -> None:
    pool = ScriptedPool([chunk()])
    guard = pool.reserve(10)
    own = pool.chunk_of(guard)
    own.guards = CheckedSet(pool.pool, own.guards)
    if reads == "live guards":
        assert live_guards(pool.pool) == [guard]
        return
    assert own.heartbeat is not None
    assert own.heartbeat.owner is not None
    own.heartbeat.owner.lease_changed("lease_lost")
    assert (guard.state, own.lease.state) == ("lost", "lost")
    if reads == "an extended lease":
        own.heartbeat.owner.lease_changed("extended")
    assert guard.state == own.lease.state == ("active" if reads == "an extended lease" else "lost")


class InterruptedWork(deque[Any]):
    """The work of a pool. A signal handler does it as soon as a chunk is added."""

    def __init__(self, pool: ScriptedPool) -> None:
        super().__init__()
        self._pool = pool

    def append(self, work: Any) -> None:
        super().append(work)
        carry_out(self._pool.pool)


def test_a_signal_handler_that_settles_a_chunk_seals_it_first() -> None:
    pool = ScriptedPool([chunk(), committed(7)])
    own = pool.chunk_of(pool.use(10, 7))
    pool.pool.work = InterruptedWork(pool)
    seen: list[str] = []
    pool.io.acts["start a thread"] = lambda: seen.append(own.state)
    assert pool.flush() == "1 settled, 0 pending"
    assert seen == ["sealed"]


@pytest.mark.parametrize("is_traced", [True, False])
def test_an_interrupted_end_is_carried_out_before_the_interrupt_continues(is_traced: bool) -> None:
    pool = ScriptedPool([chunk()], is_traced=is_traced)
    guard = pool.reserve(10)
    pool.io.raises["log 7"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        pool.commit(guard, 7)
    assert (guard.state, guard.settlement and guard.settlement.actual, pool.pool.redo) == ("pooled", T(7), None)


def test_a_flush_counts_no_chunk_that_was_settled_before() -> None:
    """It is listed as long as it has a live guard."""
    pool = ScriptedPool([chunk(), committed(20)])
    pool.reserve(10)
    pool.commit(pool.reserve(20), 20)
    assert [pool.flush(force=True), pool.flush()] == ["1 settled, 0 pending", "0 settled, 0 pending"]


@pytest.mark.parametrize("work", ["open", "settle"])
def test_two_threads_do_the_same_work_once(work: str) -> None:
    number, more = 0, True
    while more:
        pool = ScriptedPool([chunk(), committed(7)])
        guard = pool.waiter(10).guard
        if work == "settle":
            pool.run_threads()
            pool.commit(guard, 7)
            with pool.pool.lock:
                pool.pool.seal(pool.chunk_of(guard))
            carry_out(pool.pool)
        (flow,) = pool.flows
        pool.flows.clear()
        lock = pool.at_its_lock(number, lambda: run(flow()))  # noqa: B023
        run(flow())
        more = lock.its is None
        number += 1
        sent = [step for step in pool.io.steps if step.startswith("send")]
        assert (sent, pool.pool.opened) == (["send reserve"] + ["send commit"] * (work == "settle"), 1), number
    assert number > 4


@pytest.mark.parametrize("is_traced", [True, False])
@pytest.mark.parametrize(("act", "spent"), [("commit", 7), ("commit more", 15), ("spend", 7), ("release", 0)])
def test_what_a_guard_spends_while_another_thread_closes_its_pool_is_settled_once(
    act: str, spent: int, is_traced: bool
) -> None:
    number, more = 0, True
    while more:
        pool = ScriptedPool([chunk()], is_traced=is_traced)
        guard, closed = pool.reserve(10), list[int]()
        if act == "spend":
            pool.spend(guard, 3)
        lock = pool.at_its_lock(number, lambda: closed.extend(pool.close()))  # noqa: B023
        acts: dict[str, Callable[[], object]] = {
            "commit": partial(pool.commit, guard, 7),
            "commit more": partial(pool.commit, guard, 15),
            "spend": partial(pool.spend, guard, 4),
            "release": partial(pool.release, guard),
        }
        acts[act]()
        more = lock.its is None
        number += 1
        if act == "spend":
            pool.commit(guard)
        closed += pool.close()
        events = [work.record.actual.amount for work in pool.io.work if isinstance(work, Settle)]
        assert (sum(closed) + sum(events), pool.pool.spent, pool.pool.live) == (spent, spent, 0), number
    assert number > 1


@pytest.mark.parametrize("is_traced", [True, False])
@pytest.mark.parametrize("end", ["commit", "release"])
def test_a_guard_that_waits_for_a_chunk_gets_what_another_one_leaves(end: str, is_traced: bool) -> None:
    """Without a look at those that wait, it would wait for a chunk that may be denied."""
    pool = ScriptedPool([chunk()], is_traced=is_traced)
    pool.reserve(10)
    guard, waiter = pool.reserve(50), pool.waiter(50)
    assert waiter.result is None
    if end == "commit":
        pool.commit(guard, 10)
    else:
        pool.release(guard)
    assert waiter.result is pool.chunk_of(guard)


def test_a_guard_that_comes_as_another_one_begins_to_wait_is_served_after_it() -> None:
    pool, large = ScriptedPool([chunk()] * 3), list[Waiter]()
    pool.reserve(10)
    pool.reserve(50)
    pool.at_its_lock(0, lambda: large.append(pool.waiter(50)))
    pool.reserve(10)
    assert [each.result is None for each in large] == [False]


def test_the_close_of_a_client_ends_guards_of_chunks_that_are_settled() -> None:
    pool = ScriptedPool([chunk(), committed(20)])
    guard = pool.reserve(10)
    pool.use(20, 20)
    pool.flush(force=True)
    assert (pool.chunk_of(guard).is_held, live_guards(pool.pool)) == (False, [guard])


def test_changed_caps_end_every_older_chunk() -> None:
    capped = chunk(reservation_id="r3", decision="ALLOW_WITH_CAPS", caps={"max_tokens": 5})
    pool = ScriptedPool([chunk(), chunk(reservation_id="r2"), capped])
    for estimate in (50, 60):
        pool.reserve(estimate)
        pool.run_threads()
    assert pool.reserve(10).reservation_id == "r3"


@pytest.mark.parametrize("other", ["a guard", "an end"])
def test_a_guard_that_is_reserved_directly_counts_whatever_another_thread_does(other: str) -> None:
    number, more = 0, True
    while more:
        pool = ScriptedPool([allowed(), allowed(reservation_id="r2"), allowed(reservation_id="r3"), committed(7)])
        first = pool.reserve(20, has_place=False)
        others: dict[str, Callable[[], object]] = {
            "a guard": partial(pool.reserve, 30, has_place=False),
            "an end": lambda: first.apply("release_started"),  # noqa: B023
        }
        lock = pool.at_its_lock(number, others[other])
        pool.reserve(40, has_place=False)
        more = lock.its is None
        number += 1
        live, count = {("a guard", True): (90, 3), ("an end", True): (40, 2)}.get((other, more), (60, 2))
        assert (pool.pool.live, pool.pool.directs, pool.pool.awaited) == (live, count, 0), number
    assert number > 2


def test_a_guard_that_ends_while_another_one_is_reserved_directly_is_counted_once() -> None:
    number, more = 0, True
    while more:
        pool = ScriptedPool([allowed(), committed(7)])
        first = pool.reserve(20, has_place=False)
        second = ScriptedPool([allowed(reservation_id="r2")]).reserve(40, has_place=False)
        count = partial(pool.pool.add_direct, second, Place(40))
        more = run_at("/cycles/_flows/pool/pool", number, partial(pool.commit, first, 7), count)
        number += 1
        assert (pool.pool.spent, pool.pool.live) == ((7, 40) if more else (0, 60)), number
    assert number > 4


class ClosingSet(CheckedSet):
    """The live guards of a chunk. A signal handler closes the pool when one is added."""

    def __init__(self, pool: ScriptedPool) -> None:
        super().__init__(pool.pool)
        self._closing = pool

    def add(self, value: Any) -> None:
        super().add(value)
        self._closing.close()


def test_no_guard_is_admitted_into_a_chunk_that_a_signal_handler_closes() -> None:
    pool = ScriptedPool([chunk(), committed(7)])
    own = pool.chunk_of(pool.use(10, 7))
    own.guards = ClosingSet(pool)
    pool.attempt(lambda: pool.reserve(10))
    assert pool.io.steps[-1] == "raise CyclesError"
    assert (own.state, own.sums.guards, len(own.guards)) == ("sealed", 0, 0)


@pytest.mark.parametrize("has_place", [True, False])
def test_a_place_that_a_signal_handler_has_left_counts_for_no_limit(has_place: bool) -> None:
    pool = ScriptedPool([chunk(20), chunk(20), allowed(reservation_id="r2")], limit=20, chunk=20)
    guard = pool.reserve(10)
    guard.claim("release")
    assert isinstance(guard.settler, InChunk)
    pool.pool.freed.append((guard, guard.settler))
    assert pool.reserve(15, has_place=has_place).state == "active"
    assert pool.pool.live == 15
    assert not pool.pool.freed


def test_an_observer_of_a_denial_finds_it_counted() -> None:
    pool = ScriptedPool(limit=50)
    seen: list[int] = []
    pool.io.acts["report PoolDenied"] = lambda: seen.append(pool.pool.denied)
    pool.attempt(lambda: pool.reserve(51))
    assert seen == [1]


@pytest.mark.parametrize("is_traced", [True, False])
@pytest.mark.parametrize("end", ["commit", "release", "drop"])
def test_a_chunk_keeps_no_guard_that_has_ended(end: str, is_traced: bool) -> None:
    pool = ScriptedPool([chunk()], is_traced=is_traced)
    guard = pool.reserve(10)
    own = pool.chunk_of(guard)
    assert own.guards == {guard}
    if end == "commit":
        pool.commit(guard, 7)
    elif end == "release":
        pool.release(guard)
    else:
        guard.claim("drop")
        end_later(pool.io.io, guard, None)
    assert not own.guards
    assert (own.sums.guards, own.sums.live, own.audit.released) == (0, 0, int(end != "commit"))


def test_estimates_that_wait_count_for_the_limit() -> None:
    pool = ScriptedPool([chunk(50), chunk(50)], limit=50, chunk=50)
    first, second = pool.waiter(30), pool.waiter(21)
    assert getattr(second.result, "code", None) == "POOL_LIMIT"
    with pool.pool.lock:
        for _ in range(2):
            pool.pool.end_admission(second.place)
    assert pool.pool.awaited == 30
    third = pool.waiter(20)
    pool.run_threads()
    assert isinstance(first.result, PoolChunk)
    assert first.result is third.result
    assert pool.pool.awaited == 0


def test_a_chunk_is_large_enough_for_the_guards_that_wait_behind_the_first_one() -> None:
    pool = ScriptedPool([chunk(100), chunk(160), chunk(100)], limit=1_000, is_chunk_fixed=False)
    first, second, as_large_as_a_chunk = pool.waiter(100), pool.waiter(60), pool.waiter(100)
    pool.run_threads()
    assert [getattr(each.result, "amount", None) for each in (first, second)] == [100, 160]
    assert as_large_as_a_chunk.result is second.result


def test_what_is_left_of_a_budget_in_another_unit_makes_no_chunk_smaller() -> None:
    def balance(unit: str, left: int) -> dict[str, Any]:
        return {"scope": SCOPE, "scope_path": SCOPE, "remaining": {"unit": unit, "amount": left}}

    both = [balance("TOKENS", 10_000), balance("USD_MICROCENTS", 70)]
    pool = ScriptedPool([chunk(balances=both), chunk()])
    pool.reserve(60)
    pool.reserve(60)
    assert [call.body["estimate"]["amount"] for call in pool.io.calls if call.body] == [100, 100]


def test_a_rejected_excess_is_a_conflict() -> None:
    pool = ScriptedPool([chunk(), chunk()], overage_policy="REJECT")
    guard = pool.reserve(10)
    pool.reserve(90)
    with pytest.raises(cycles.BudgetExceededError):
        pool.commit(guard, 25)
    assert guard.rejection is not None
    assert (guard.rejection.status, guard.rejection.code) == (409, "BUDGET_EXCEEDED")
    assert (guard.state, guard.settlement, guard.cost) == ("rejected", None, 25)


TRACE = "trace_id='tttttttttttttttttttttttttttttttt'"
R1 = f"reservation_id='r1', request_id=None, {TRACE}"
T_100 = "<Amount 100 tokens>"


@pytest.mark.parametrize(
    ("name", "kind", "reports"),
    [
        ("one guard", "ChunkOpened", [f"ChunkOpened({R1}, pool='pool-1', amount={T_100}, held={T_100})"]),
        (
            "a chunk that is half used",
            "ChunkOpened",
            [
                f"ChunkOpened({R1}, pool='pool-1', amount={T_100}, held={T_100})",
                f"ChunkOpened({R1}, pool='pool-1', amount={T_100}, held=<Amount 200 tokens>)",
            ],
        ),
        (
            "a lost lease",
            "ChunkSettled",
            [
                f"ChunkSettled({R1}, pool='pool-1', reserved={T_100}, spent=<Amount 20 tokens>, guards=1, "
                "status='committed')",
            ],
        ),
        (
            "a commit that is too late",
            "ChunkSettled",
            [
                f"ChunkSettled({R1}, pool='pool-1', reserved={T_100}, spent=<Amount 7 tokens>, guards=1, "
                "status='recorded_as_event')",
            ],
        ),
        (
            "more than the chunk has, rejected",
            "SettlementRejected",
            [
                f"SettlementRejected({R1}, actual=<Amount 15 tokens>, detail='reservation r1: its chunk has no space "
                "for 15 tokens above the estimate of 10 tokens, and the overage policy is REJECT; the estimate is "
                "charged and the rest is in no ledger; kept in rejected/ [BUDGET_EXCEEDED]', guards=None, hint='kept "
                "in rejected/')",
            ],
        ),
        (
            "a limit",
            "PoolDenied",
            [
                "PoolDenied(reservation_id=None, request_id=None, trace_id=None, pool='pool-1', estimate=<Amount 21 "
                "tokens>, reason='the limit of this pool is 50 tokens, and 20 tokens of it is left: a reservation of "
                "21 tokens was not made; pass a larger limit to client.pool(...), or finish the guards that are open "
                "[POOL_LIMIT]')",
            ]
            * 2,
        ),
        *(
            (
                name,
                "PoolDenied",
                [
                    "PoolDenied(reservation_id=None, request_id=None, trace_id=None, pool='pool-1', estimate=<Amount 1 "
                    "token>, reason='the limit of this pool is 50 tokens, and 0 tokens of it is left: a reservation of "
                    "1 token was not made; pass a larger limit to client.pool(...), or finish the guards that are open "
                    "[POOL_LIMIT]')",
                ],
            )
            for name in ("a limit that is used up", "a limit that is exceeded")
        ),
        (
            "too many requests",
            "PoolDenied",
            [
                "PoolDenied(reservation_id=None, request_id='req-9', trace_id='trace-9', pool='pool-1', "
                f"estimate={T_100}, reason='no [LIMIT_EXCEEDED, HTTP 429, request req-9]')",
            ],
        ),
    ],
)
def test_what_the_reports_of_a_pool_say(name: str, kind: str, reports: list[str]) -> None:
    assert [repr(event) for event in CASES[name][0].run().of(kind)] == reports


def test_what_the_report_of_the_end_of_a_pooled_guard_says() -> None:
    pool = ScriptedPool([chunk()], metadata={"run": 1}, settlement_metadata={"of": "settings"})
    guard = pool.reserve(10)
    guard.usage.add(tokens_input=3)
    pool.io.clock_ms += 25.5
    pool.commit(guard, 7, metadata={"mine": 2})
    (event,) = pool.io.of("PooledSettled")
    assert (event.actual, event.estimate, event.latency_ms, event.metrics.tokens_input) == (T(7), T(10), 25, 3)
    assert event.metadata == {"run": 1, "mine": 2, "of": "settings"}
    given = pool.reserve(10)
    pool.commit(given, 7, metrics=cycles.Metrics(tokens_output=4))
    assert pool.io.of("PooledSettled")[-1].metrics == cycles.Metrics(tokens_output=4)
    assert pool.chunk_of(given).sums.totals[:6] == (14, 3, 4, 25, 2, 0)


@pytest.mark.parametrize(
    ("name", "number", "amount", "metadata"),
    [
        (
            "one guard",
            0,
            7,
            {
                "pool": "pool-1",
                "pool_chunk": 1,
                "pool_calls": 1,
                "first_ms": NOW_MS,
                "last_ms": NOW_MS,
                "actions": {"work": (1, 7)},
            },
        ),
        ("more than the chunk has", 0, 5, {"pool_excess_of": "r1"}),
        (
            "a commit after the chunk",
            1,
            9,
            {"recovered_reservation_id": "r1", "recovery_reason": "commit_after_reservation_expired"},
        ),
        ("closed", 0, 9, {"recovered_reservation_id": "r1", "recovery_reason": "commit_after_reservation_expired"}),
    ],
)
def test_what_the_records_of_a_pool_say(name: str, number: int, amount: int, metadata: dict[str, Any]) -> None:
    record = CASES[name][0].run().records[number]
    assert (record.body["actual"], record.body["metadata"]) == (tokens(amount), metadata)
    # What a chunk has spent is in a shared store before, from which another client may send it.
    assert record.may_have_arrived is (record.mode == "commit")


def test_a_chunk_is_halved_until_it_fits_and_each_request_has_its_key() -> None:
    bodies = [call.body for call in CASES["denied"][0].run().calls if call.body is not None]
    assert [body["estimate"]["amount"] for body in bodies] == [100, 50, 25, 12, 10, 9]
    assert len({body["idempotency_key"] for body in bodies}) == 6


@pytest.mark.parametrize("name", ["more than the chunk has", "more than the chunk has, and no queue"])
def test_a_guard_gets_the_outcome_of_its_excess(name: str) -> None:
    responses, options = CASES[name][0].script
    pool = ScriptedPool(responses, **options)
    guard, other = pool.reserve(10), pool.reserve(80)
    pool.run_threads()
    assert pool.commit(guard, 25) == "pooled"
    assert guard.excess is not None
    assert guard.excess.estimate == T(10)
    is_settled = "no queue" in name
    assert guard.excess.charged == (T(5) if is_settled else None)
    assert guard.settlement is not None
    assert (guard.state, guard.settlement.actual) == ("pooled", T(25))
    pool.commit(other, 80)
    pool.run_threads()
    assert (guard.state, guard.settlement.charged) == ("committed", T(25) if is_settled else None)
    assert (other.state, other.settlement and other.settlement.charged) == ("committed", T(80))


def test_the_records_of_a_pool_have_the_metadata_and_the_metrics_of_their_callers() -> None:
    policy = "ALLOW_WITH_OVERDRAFT"
    options: dict[str, Any] = {"metadata": {"run": 1, "pool_calls": 9}, "settlement_metadata": {"of": "settings"}}
    pool = ScriptedPool([chunk(), chunk(), LOST], overage_policy=policy, **options)
    guard, other = pool.reserve(10), pool.reserve(80)
    guard.usage.add(tokens_input=3)
    pool.commit(guard, 25, metrics=cycles.Metrics(tokens_output=4, custom={"pages": 5}), metadata={"mine": 2})
    excess = pool.io.records[-1].body
    assert (excess["metrics"], excess["overage_policy"]) == ({"tokens_output": 4, "custom": {"pages": 5}}, policy)
    assert excess["metadata"] == {"mine": 2, "of": "settings", "pool_excess_of": "r1"}
    pool.commit(other, 80, metadata={"mine": 2})
    pool.run_threads()
    whole = pool.io.records[-1]
    of_chunk = whole.body["metadata"]
    assert (of_chunk["run"], of_chunk["pool"], of_chunk["pool_calls"]) == (1, "pool-1", 2)
    assert whole.event_fallback_body is not None
    assert (whole.event_fallback_body["metadata"]["run"], whole.event_fallback_body["overage_policy"]) == (1, policy)


@pytest.mark.parametrize("is_stream", [True, False])
@pytest.mark.parametrize(
    ("raised", "errors"),
    [(None, 0), (ValueError(), 1), (GeneratorExit(), 1), (Dropped("dropped"), 0), (KeyboardInterrupt(), 1)],
    ids=["normal", "error", "closed", "dropped", "interrupted"],
)
def test_a_pool_counts_the_blocks_that_raised(raised: BaseException | None, errors: int, is_stream: bool) -> None:
    pool = ScriptedPool([chunk()])
    for _ in range(2):
        guard = pool.reserve(10)
        guard.is_stream = is_stream
        guard.spend(T(7))
        run(end_block(pool.io.io, guard, raised))
    # A stream that its consumer closes early has ended normally.
    expected = 0 if is_stream and isinstance(raised, GeneratorExit) else 2 * errors
    assert pool.chunk_of(guard).sums.totals[4:6] == (2, expected)


def test_the_commit_of_a_chunk_counts_the_guards_that_were_released() -> None:
    pool = ScriptedPool([chunk(), LOST])
    guards = [pool.reserve(10) for _ in range(3)]
    pool.release(guards[0])
    run(end_block(pool.io.io, guards[1], ValueError()))
    pool.commit(guards[2], 7)
    pool.flush()
    custom = pool.io.records[-1].body["metrics"]["custom"]
    assert (custom["pool_calls"], custom["pool_released"], custom["pool_errors"]) == (1, 2, 0)


@pytest.mark.parametrize(("retry_after_ms", "lasts_ms"), [(None, 1_000), (0, 1_000), (1, 1_000), (1_500, 1_500)])
def test_a_denial_is_repeated_without_a_request_for_a_second_or_as_long_as_the_server_says(
    retry_after_ms: int | None, lasts_ms: int
) -> None:
    pool = ScriptedPool([rejected(429, "LIMIT_EXCEEDED", retry_after_ms=retry_after_ms), chunk()])
    attempts(10, 10, pause_ms=lasts_ms - 1)(pool)
    assert [short(call) for call in pool.io.calls] == ["reserve"]
    pool.io.clock_ms -= lasts_ms - 2
    pool.reserve(10)
    assert [short(call) for call in pool.io.calls] == ["reserve", "reserve"]


@pytest.mark.parametrize("dimensions", [{}, {"team": "a"}])
def test_a_chunk_has_the_dimensions_of_its_pool_and_not_of_a_guard(dimensions: dict[str, str]) -> None:
    pool = ScriptedPool([chunk()], dimensions=dimensions)
    pool.reserve(10, agent="bot", dimensions={"job": "7"})
    (call,) = pool.io.calls
    assert call.body is not None
    subject = {"tenant": "acme", "agent": "bot"}
    assert call.body["subject"] == (subject | {"dimensions": dimensions} if dimensions else subject)


@pytest.mark.parametrize(
    ("state", "age_ms", "is_extended"),
    [("open", 240_000, True), ("open", 600_000, True), ("draining", 239_999, True), ("draining", 240_000, False)],
)
def test_the_lease_of_a_chunk_that_admits_guards_is_renewed_at_any_age(
    state: str, age_ms: int, is_extended: bool
) -> None:
    pool = ScriptedPool([chunk()])
    guard = pool.reserve(10)
    if state == "draining":
        with pool.pool.lock:
            pool.pool.drain(pool.chunk_of(guard))
    pool.io.clock_ms += age_ms
    assert pool.beat(guard) is is_extended
    assert pool.chunk_of(guard).state == (state if is_extended else "sealed")


def test_a_denied_chunk_that_no_guard_waits_for_denies_no_later_guard() -> None:
    pool = ScriptedPool([chunk(), LIMITED, chunk()])
    pool.reserve(50)
    pool.run_threads()  # the chunk ahead of need is denied
    pool.reserve(40)
    guard = pool.reserve(20)
    assert pool.io.responses == []
    assert (guard.state, pool.chunk_of(guard).number) == ("active", 3)
