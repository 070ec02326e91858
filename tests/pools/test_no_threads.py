"""A pool in a process that cannot start a thread: callers open its chunks, `flush` and `close` settle them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from tests.support.points import run_at
from tests.support.short import IS_SHORT

from .conftest import ACTION, Shop, T

PATIENCE_S = 240.0


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch, client: cycles.Cycles) -> Callable[[], None]:
    """Return a function after which this process can start no more threads."""
    started = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("cycles-"):
            raise RuntimeError("can't start new thread")
        started(thread)

    return lambda: monkeypatch.setattr(threading.Thread, "start", refuse)


def in_time(work: Callable[[], Any]) -> Any:
    """Run some work in a thread of the test, which fails if the work waits for ever."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert results, "the caller waits for a thread that cannot start"
    return results[0]


@pytest.mark.parametrize("ends_with", ["flush", "close", "client"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_sync_callers_open_and_settle_chunks(
    client: cycles.Cycles, shop: Shop, no_threads: Callable[[], None], ends_with: str
) -> None:
    pool = client.pool(T(400), action=ACTION)
    no_threads()

    def work() -> tuple[bool, str]:
        with pool.reserve(T(10)) as guard:
            guard.commit(T(7))
        with pool.reserve(T(60)) as second:  # half of the chunk is used: the next one cannot be opened ahead
            second.commit(T(60))
        with pool.reserve(T(60)) as third:
            third.commit(T(60))
        if ends_with == "client":
            client.close()
        else:
            getattr(pool, ends_with)()
        return third.is_pooled, guard.state

    assert in_time(work) == (True, "committed")
    assert shop.money() == (127, 0)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_async_callers_open_and_settle_chunks(
    client: cycles.Cycles, shop: Shop, no_threads: Callable[[], None]
) -> None:
    pool = client.pool(T(400), action=ACTION)

    async def go() -> list[str]:
        async def use() -> Any:
            async with pool.reserve(T(30)) as guard:
                await guard.commit(T(30))
            return guard

        async with client.reserve(T(1), action=ACTION) as direct:  # what an event loop needs is there
            await direct.commit(T(1))
        no_threads()
        guards = await asyncio.gather(*(use() for _ in range(5)))
        await pool.aclose()
        return [guard.state for guard in guards]

    assert in_time(lambda: asyncio.run(go())) == ["committed"] * 5
    assert shop.money() == (151, 0)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_cancelled_caller_leaves_the_chunk_that_it_should_open_to_the_next_one(
    client: cycles.Cycles, shop: Shop, no_threads: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = client.pool(T(400), action=ACTION)

    async def until_all_wait(_: float) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    monkeypatch.setattr("cycles.embedded.transports.asyncio", SimpleNamespace(sleep=until_all_wait))

    async def go() -> list[str]:
        async with client.reserve(T(1), action=ACTION) as direct:  # what an event loop needs is there
            await direct.commit(T(1))
        no_threads()
        waits: list[asyncio.Task[Any]] = []

        async def enter() -> Any:
            async with pool.reserve(T(90)) as guard:
                if waits:
                    waits.pop().cancel()  # it is to open a chunk, and has not begun
                await guard.commit(T(90))
            return guard

        shop.faults.delay("reserve", 1.0)
        first = asyncio.create_task(enter())
        second, third = asyncio.create_task(enter()), asyncio.create_task(enter())
        waits.append(second)
        await asyncio.wait([first, second, third])
        await pool.aclose()
        assert second.cancelled()
        return [first.result().state, third.result().state]

    assert in_time(lambda: asyncio.run(go())) == ["committed"] * 2
    assert shop.money() == (181, 0)


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_no_guard_waits_for_a_chunk_that_no_thread_settles(
    client: cycles.Cycles, shop: Shop, no_threads: Callable[[], None], *, is_async: bool
) -> None:
    pool = client.pool(T(80), action=ACTION, chunk=T(40))

    async def go() -> list[bool]:
        async with client.reserve(T(1), action=ACTION) as direct:  # what an event loop needs is there
            await direct.commit(T(1))
        no_threads()
        pooled = []
        for _ in range(3):
            guard: Any = await pool.reserve(T(40)) if is_async else pool.reserve(T(40)).acquire()
            settlement = guard.commit(T(40))
            if is_async:
                await settlement
            pooled.append(guard.is_pooled)
        await pool.aclose()
        return pooled

    assert in_time(lambda: asyncio.run(go())) == [True, True, False]
    assert shop.money() == (121, 0)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_signal_handler_does_not_wait_for_the_chunk_that_its_thread_opens(
    client: cycles.Cycles, shop: Shop, no_threads: Callable[[], None]
) -> None:
    no_threads()

    def use(pool: Any) -> None:
        pool.reserve(T(10)).acquire().commit(T(7))

    number, more = 0, True
    while more:
        pool = client.pool(T(400), action=ACTION)
        more = in_time(partial(run_at, "/cycles/_flows/pool/chunks", number, partial(use, pool), partial(use, pool)))
        pool.close()
        number += 20
    assert number > 40
    assert shop.money()[1] == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_signal_handler_does_not_wait_for_a_thread_that_needs_its_first_use(shop: Shop) -> None:
    def use(pool: Any) -> None:
        pool.reserve(T(10)).acquire().commit(T(7))

    number, more = 0, True
    while more:
        with shop.client() as client:
            pool = client.pool(T(400), action=ACTION)
            more = in_time(partial(run_at, "/cycles/_drivers/pools", number, partial(use, pool), partial(use, pool)))
        number += 10
    assert number > 20
    assert shop.money()[1] == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_no_guard_waits_for_a_chunk_that_a_signal_handler_found_half_sealed(
    client: cycles.Cycles, no_threads: Callable[[], None]
) -> None:
    """The handler sends what is to be sent, and without a thread it is not sent now: later guards are not to wait."""
    no_threads()

    def use(pool: Any, amount: int) -> bool:
        with pool.reserve(T(40)) as guard:
            guard.commit(T(amount))
        return bool(guard.is_pooled)

    def run(number: int) -> tuple[bool, bool]:
        pool = client.pool(T(80), action=ACTION, chunk=T(40))
        more = run_at("/cycles/_flows/pool/pool.py", number, partial(use, pool, 3), partial(use, pool, 40))
        last = [use(pool, 40) for _ in range(3)][-1]
        pool.close()
        return more, last

    number, more = 0, True
    while more:
        more, is_pooled = in_time(partial(run, number))
        assert not is_pooled, number
        number += 3 if IS_SHORT else 1
    assert number > 40
