"""A signal at any point of a pooled call: no amount is lost or counted twice, and no guard stays in its chunk."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import cycles
from cycles._core.pool.allotment import Move
from cycles._core.pool.chunk_record import recovered_record
from cycles._core.pool.sums import Totals, encode
from cycles._core.settlement.record import decode
from cycles._drivers.io.threads import BlockingIo
from cycles._flows.pool import in_chunk
from cycles._flows.pool.chunks import carry_out
from cycles._flows.pool.in_chunk import InChunk
from cycles._flows.pool.parts import Place, Waiter
from cycles._flows.pool.pool import PoolState
from tests.support.points import run_at
from tests.support.short import IS_SHORT

from .conftest import ACTION, Shop, T, chunk_of, state_of
from .pool_use import pool_of

SPENT, OTHER = 3, 2

ignore_dropped = pytest.mark.filterwarnings(
    "ignore:.*was dropped without commit:ResourceWarning", "ignore:coroutine .* was never awaited:RuntimeWarning"
)
FOLDERS = ("_client", "_flows", "_drivers", "_journal", "_core")
LONGEST = 400  # points of one call in one folder; a test that reaches it has failed
EACH = 23 if IS_SHORT else 1


class Till:
    """A pool with a chunk in use, and what its guards have reported so far."""

    def __init__(self, client: cycles.Cycles, *, is_async: bool, limit: int = 10_000) -> None:
        self.client = client
        self.is_async = is_async
        self.pool = client.pool(T(40_000), action=ACTION, limit=T(limit))
        self.pool.reserve(T(1)).acquire().release()
        self.known = 0

    def spend(self) -> None:
        """Reserve, report what was spent, commit."""
        if self.is_async:
            self._run(self._spend_async())
            return
        with self.pool.reserve(T(5)) as guard:
            guard.spend(T(SPENT))
            self.known += SPENT  # not traced, so not interrupted
            guard.commit()

    def commit(self) -> None:
        """Reserve, and commit an amount: the caller knows it, the guard does not before the call."""
        if self.is_async:
            self._run(self._commit_async())
            return
        with self.pool.reserve(T(5)) as guard:
            guard.commit(T(SPENT))
            self.known += SPENT

    def release(self) -> None:
        """Reserve, and release."""
        guard = self.pool.reserve(T(5)).acquire()
        guard.release()

    def other(self) -> None:
        """What a signal handler does: use the same pool."""
        with self.pool.reserve(T(5)) as guard:
            guard.commit(T(OTHER))

    async def _spend_async(self) -> None:
        async with self.pool.reserve(T(5)) as guard:
            guard.spend(T(SPENT))
            self.known += SPENT
            await guard.commit()

    async def _commit_async(self) -> None:
        async with self.pool.reserve(T(5)) as guard:
            await guard.commit(T(SPENT))
            self.known += SPENT

    def _run(self, coroutine: Any) -> None:
        """Run a coroutine that never waits, without a loop of its own, whose steps would be points too."""
        loop = asyncio.new_event_loop()
        try:
            asyncio.events._set_running_loop(loop)
            coroutine.send(None)
        except StopIteration:
            pass
        finally:
            asyncio.events._set_running_loop(None)
            loop.close()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def settled(shop: Shop, till: Till) -> int:
    """Close the pool, check that nothing stays in it, and return what the ledger has charged in total."""
    till.pool.close()
    assert till.client.flush(5).pending == 0
    shop.until(lambda: till.pool.stats().live == T(0))
    shop.until(lambda: shop.money()[1] == 0)
    assert till.pool.stats().chunks == 0
    return shop.money()[0]


def kept(shop: Shop) -> int:
    """Return what the ledger has charged, or would have after this process was killed and another one started."""
    logs = [recovered_record(log.read_bytes(), 0)[1] for log in shop.logs()]
    saved = [] if not logs else [decode(path.read_bytes()) for path in shop.logs()[0].parent.glob("v2-*.json")]
    charged = {body["idempotency_key"] for body in (*shop.bodies("commit"), *shop.bodies("event"))}
    left = [record for record in (*logs, *saved) if record is not None]
    waiting = [record for record in left if record.body["idempotency_key"] not in charged]
    return shop.money()[0] + sum(record.actual.amount for record in waiting)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize(
    ("call", "is_async"),
    [("spend", False), ("spend", True), ("commit", False), ("commit", True), ("release", False)],
)
@ignore_dropped
def test_an_interrupt(client: cycles.Cycles, shop: Shop, folder: str, call: str, is_async: bool) -> None:
    before = 0
    for number in range(0, LONGEST, EACH):
        till = Till(client, is_async=is_async)
        act = getattr(till, call)
        act()
        till.known = 0
        try:
            more = run_at(f"/cycles/{folder}/", number, interrupt, act)
        except KeyboardInterrupt:
            more = True
        shop.until(lambda: till.pool.stats().live == T(0))  # noqa: B023 - it is called in this run only
        charged, known = till.pool.stats().spent.amount, till.known
        first = 0 if call == "release" else SPENT
        assert charged - first in ({known} if known or call == "release" else {0, SPENT}), f"point {number}"
        spent = settled(shop, till)
        assert spent - before == charged, f"point {number}: the ledger and the pool differ"
        before = spent
        if not more:
            assert number > (-1 if (call, folder) == ("release", "_journal") else 2)
            return
    pytest.fail("the call never ends")


@ignore_dropped
def test_the_amount_of_an_interrupted_commit_outside_of_a_block(client: cycles.Cycles, shop: Shop) -> None:
    """The caller drops the guard, and nothing else has the amount: the guard must have it from the first point on."""
    before = 0
    for number in range(LONGEST):
        till = Till(client, is_async=False)
        guard = till.pool.reserve(T(5)).acquire()
        try:
            more = run_at("/cycles/_flows/", number, interrupt, partial(guard.commit, T(SPENT)))
        except KeyboardInterrupt:
            more = True
        del guard
        shop.until(lambda: till.pool.stats().live == T(0))  # noqa: B023 - it is called in this run only
        before += SPENT
        assert settled(shop, till) == before, f"point {number}"
        if not more:
            assert number > 10
            return
    pytest.fail("the call never ends")


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("folder", FOLDERS)
@ignore_dropped
def test_a_signal_handler_that_uses_the_same_pool(
    client: cycles.Cycles, shop: Shop, folder: str, is_async: bool
) -> None:
    before = 0
    for number in range(0, LONGEST, EACH):
        till = Till(client, is_async=is_async)
        saved: list[bool] = []

        def handler() -> None:
            earlier = kept(shop)
            till.other()  # noqa: B023 - it is called in this run only
            saved.append(kept(shop) == earlier + OTHER)  # noqa: B023

        more = run_at(f"/cycles/{folder}/", number, handler, till.spend)
        assert saved == [True] * more, f"point {number}: the commit of the handler has returned and is not saved"
        expected = till.known + (OTHER if more else 0)
        assert kept(shop) == before + expected, f"point {number}: a killed process would lose an amount"
        assert till.pool.stats().spent == T(expected), f"point {number}"
        assert till.pool.stats().live == T(0), f"point {number}"
        before += expected
        assert settled(shop, till) == before, f"point {number}"
        if not more:
            return
    pytest.fail("the call never ends")


def in_a_thread(threads: list[threading.Thread], act: Callable[[], object]) -> None:
    """Begin something in another thread, which comes as far as the locks of this one let it."""
    threads.append(threading.Thread(target=act))
    threads[-1].start()
    threads[-1].join(0.002)


@pytest.mark.parametrize("is_thread", [False, True], ids=["signal handler", "thread"])
@pytest.mark.parametrize("second", [7, 2, None], ids="then {}".format)
@pytest.mark.parametrize("first", [3, 6, None], ids="{}".format)
def test_a_guard_that_is_ended_twice_counts_once(
    client: cycles.Cycles, shop: Shop, first: int | None, second: int | None, is_thread: bool
) -> None:
    """A second end begins at each point of the first one: above the estimate, below it, and without an amount."""
    pool, total, number, more = pool_of(client), 0, 0, True
    while more:
        guard, ends, threads = pool.reserve(T(5)).acquire(), list[int](), list[threading.Thread]()

        def end(amount: int | None) -> None:
            with contextlib.suppress(cycles.GuardFinalizedError):
                guard.release() if amount is None else guard.commit(T(amount))  # noqa: B023 - in this run only
                ends.append(amount or 0)  # noqa: B023

        act = partial(end, second)
        more = run_at(
            "/cycles/_flows/", number, partial(in_a_thread, threads, act) if is_thread else act, partial(end, first)
        )
        for thread in threads:
            thread.join()
        assert len(ends) == 1, f"point {number}"
        total += ends[0]
        assert (pool.stats().spent, pool.stats().live) == (T(total), T(0)), f"point {number}"
        number += 1
    assert number > 20
    pool.close()
    client.flush()
    assert shop.money() == (total, 0)


@ignore_dropped
def test_the_estimate_of_an_interrupted_reservation_is_free_again(client: cycles.Cycles, shop: Shop) -> None:
    """It would count against the limit of the pool for ever."""
    for number in range(LONGEST):
        till = Till(client, is_async=False, limit=5)

        def acquire() -> None:
            till.pool.reserve(T(5)).acquire()  # noqa: B023 - it is called in this run only

        try:
            more = run_at("/cycles/", number, interrupt, acquire)
        except KeyboardInterrupt:
            more = True
        shop.until(lambda: till.pool.stats().live == T(0))  # noqa: B023
        till.pool.reserve(T(5)).acquire().release()
        settled(shop, till)
        if not more:
            return
    pytest.fail("the call never ends")


def test_a_signal_handler_gives_the_waiters_their_results_that_its_thread_is_serving(client: cycles.Cycles) -> None:
    guard = pool_of(client).reserve(T(5)).acquire()
    guard.commit(T(SPENT))
    pool, sub = state_of(guard), chunk_of(guard).sub
    for number in range(LONGEST):
        waiters = [Waiter(sub, guard, Place(5)) for _ in range(3)]
        sub.waiters.extend(waiters)
        fail = partial(pool.fail_waiters, sub, cycles.CyclesError("no chunk"))
        more = run_at("/cycles/_flows/pool/", number, fail, fail)
        carry_out(pool)
        assert [waiter.signal.is_set for waiter in waiters] == [True] * 3, f"point {number}"
        assert len(sub.waiters) == 0, f"point {number}"
        if not more:
            assert number > 5
            return
    pytest.fail("the call never ends")


def left_in(shop: Shop) -> int:
    """Return what the log of the only chunk has."""
    (log,) = shop.logs()
    record = recovered_record(log.read_bytes(), 0)[1]
    return 0 if record is None else record.actual.amount


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_kill_at_any_point_leaves_the_amount_before_or_after(client: cycles.Cycles, shop: Shop, folder: str) -> None:
    """Mapped memory survives `kill -9`, so what the file has at a point is what the next process finds."""
    till = Till(client, is_async=False)
    found: set[int] = set()
    for number in range(LONGEST):
        spent: list[int] = []
        more = run_at(f"/cycles/{folder}/", number, lambda: spent.append(left_in(shop)), till.spend)  # noqa: B023
        assert left_in(shop) == SPENT * (number + 1), "the commit has returned"
        found |= {after - SPENT * number for after in spent}
        if not more:
            assert found in ({0, SPENT}, {0}), found
            return
    pytest.fail("the call never ends")


class Torn:
    """Mapped memory whose copies end after some bytes, as in a process that is killed in the middle."""

    def __init__(self, memory: Any, length: int) -> None:
        self._memory = memory
        self._length = length

    def __setitem__(self, at: slice, content: bytes) -> None:
        for index in range(min(self._length, len(content))):
            self._memory[at.start + index] = content[index]
        raise SystemExit


@contextlib.contextmanager
def torn(log: Any, length: int) -> Iterator[None]:
    """Let the copies into a log end after so many bytes."""
    memory, log._map = log._map, Torn(log._map, length)
    try:
        yield
    finally:
        log._map = memory


@pytest.mark.parametrize("calls", [1, 2])
@ignore_dropped
def test_a_kill_in_the_middle_of_a_copy_leaves_the_state_before(client: cycles.Cycles, shop: Shop, calls: int) -> None:
    length = len(encode(Totals()))
    for written in range(length + 1):
        till = Till(client, is_async=False)
        for _ in range(calls - 1):
            till.spend()
        guard: Any = till.pool.reserve(T(5)).acquire()
        with torn(chunk_of(guard).log, written):
            with pytest.raises(SystemExit):
                guard.commit(T(SPENT))
            assert left_in(shop) in (SPENT * (calls - 1), SPENT * calls)
            assert (left_in(shop) == SPENT * calls) == (written == length)
        assert till.pool.stats().spent == T(SPENT * calls), "the process lives: the next caller finishes the end"
        assert (left_in(shop), guard.state) == (SPENT * calls, "pooled")
        settled(shop, till)


@pytest.mark.parametrize("twice", [False, True])
@ignore_dropped
def test_a_second_signal_loses_nothing_that_a_chunk_has_no_space_for(
    client: cycles.Cycles, shop: Shop, monkeypatch: pytest.MonkeyPatch, twice: bool
) -> None:
    pool = pool_of(client)
    guard: Any = pool.reserve(T(5)).acquire()
    monkeypatch.setattr(InChunk, "_follow", interrupt)
    if twice:
        monkeypatch.setattr(InChunk, "_catch_up", interrupt)
    with pytest.raises(KeyboardInterrupt):
        guard.commit(T(2_000))
    monkeypatch.undo()
    pool.close()
    assert client.flush(5).pending == 0
    assert shop.money() == (2_000, 0)


def interrupt_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Interrupt the first call of a function; later ones run."""
    usual = getattr(owner, name)

    def first(*_: object) -> None:
        monkeypatch.setattr(owner, name, usual)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, first)


@ignore_dropped
def test_a_signal_after_an_amount_is_counted_loses_nothing_that_a_chunk_has_no_space_for(
    client: cycles.Cycles, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_of(client)
    guard: Any = pool.reserve(T(5)).acquire()
    interrupt_once(monkeypatch, PoolState, "carry_out")
    with pytest.raises(KeyboardInterrupt):
        guard.commit(T(2_000))
    pool.close()
    assert client.flush(5).pending == 0
    assert shop.money() == (2_000, 0)


@ignore_dropped
def test_a_signal_while_a_caller_sends_what_no_worker_takes_loses_nothing(
    client: cycles.Cycles, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is full, so the caller sends what the chunk has no space for."""
    pool = pool_of(client)
    guard: Any = pool.reserve(T(5)).acquire()
    hand_over, declined = BlockingIo.hand_over, list[object]()

    def decline_once(io: BlockingIo, work: Any, **how: Any) -> bool:
        declined.append(work)
        return len(declined) > 1 and hand_over(io, work, **how)

    monkeypatch.setattr(BlockingIo, "hand_over", decline_once)
    interrupt_once(monkeypatch, in_chunk, "settle_queued")
    with pytest.raises(KeyboardInterrupt):
        guard.commit(T(2_000))
    pool.close()
    assert client.flush(5).pending == 0
    assert shop.money() == (2_000, 0)


def test_the_stats_have_no_guard_that_a_handler_has_released(client: cycles.Cycles) -> None:
    pool = pool_of(client)
    guard: Any = pool.reserve(T(5)).acquire()
    with state_of(guard).lock:  # the handler has interrupted its thread there
        guard.release()
    assert (pool.stats().live, pool.stats().free) == (T(0), T(100))


def test_the_place_of_a_guard_that_a_handler_has_released_is_free_for_one_that_waits(client: cycles.Cycles) -> None:
    guard: Any = client.pool(T(400), action=ACTION, limit=T(5)).reserve(T(5)).acquire()
    state = state_of(guard)
    with state.lock:  # the handler has interrupted its thread there
        guard.release()
    waiter = Waiter(None, guard, Place(5))
    state.wait_for(waiter)
    assert waiter.result is Move.DIRECT
    state.end_admission(waiter.place)
