"""Threads, tasks and several event loops use one pool at the same time."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles._flows.pool import chunks
from tests.support.waiting import Arrivals

from .conftest import ACTION, Shop, T


def test_ten_thousand_tasks_are_all_settled(client: cycles.Cycles, shop: Shop) -> None:
    pool = client.pool(T(400_000), action=ACTION)

    async def work() -> None:
        async with pool.reserve(T(10)) as guard:
            await asyncio.sleep(0)
            await guard.commit(T(7))

    async def everything() -> None:
        await asyncio.gather(*(work() for _ in range(10_000)))
        await pool.aclose()

    asyncio.run(everything())
    assert shop.money() == (70_000, 0)
    assert pool.stats().direct == 0
    assert client.pending() == []


def test_sixteen_threads_share_the_chunks(client: cycles.Cycles, shop: Shop) -> None:
    pool = client.pool(T(4_000), action=ACTION)

    def work() -> None:
        for _ in range(200):
            with pool.reserve(T(10)) as guard:
                guard.commit(T(7))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = pool.stats()
    assert (stats.spent, stats.live) == (T(22_400), T(0))
    pool.close()
    assert shop.money() == (22_400, 0)


def test_several_loops_and_threads_share_one_pool(client: cycles.Cycles, shop: Shop) -> None:
    pool = client.pool(T(4_000), action=ACTION)
    ids: set[str | None] = set()

    async def tasks() -> None:
        async def work() -> None:
            async with pool.reserve(T(10)) as guard:
                await asyncio.sleep(0)
                ids.add(guard.reservation_id)
                await guard.commit(T(7))

        await asyncio.gather(*(work() for _ in range(100)))

    def loop() -> None:
        asyncio.run(tasks())

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.close()
    assert shop.money() == (2_800, 0)


def test_a_cancelled_waiter_holds_nothing(client: cycles.Cycles, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    respond = asyncio.Event()
    monkeypatch.setattr("cycles.embedded.transports.asyncio", SimpleNamespace(sleep=lambda _: respond.wait()))
    shop.faults.delay("reserve", 1.0)
    pool, arrivals = client.pool(T(400), action=ACTION, limit=T(100)), Arrivals(shop.server)

    async def cancelled() -> None:
        waiting = asyncio.create_task(enter())
        await arrivals.arrives("reserve")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        respond.set()
        async with pool.reserve(T(100)) as guard:
            await guard.commit(T(7))

    async def enter() -> None:
        async with pool.reserve(T(100)) as guard:
            await guard.commit(T(1))

    asyncio.run(cancelled())
    assert pool.stats().live == T(0)
    pool.close()
    assert shop.money() == (7, 0)


def test_a_cancelled_waiter_serves_those_behind_it(
    client: cycles.Cycles, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second guard waits behind one that needs a new chunk, and has space in the old one when that is cancelled."""
    arrived, respond = threading.Event(), threading.Event()
    pool, handle = client.pool(T(400), action=ACTION), shop.server.handle
    first = pool.reserve(T(30)).acquire()

    def slow(request: Any) -> Any:
        if request.target == "/v1/reservations":
            arrived.set()
            assert respond.wait(60)
        return handle(request)

    monkeypatch.setattr(shop.server, "handle", slow)

    async def enter(estimate: int) -> None:
        async with pool.reserve(T(estimate)) as guard:
            await guard.commit(T(estimate))

    async def cancelled() -> bool:
        large = asyncio.create_task(enter(90))
        assert await asyncio.to_thread(arrived.wait, 60)
        small = asyncio.create_task(enter(10))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not small.done()
        large.cancel()
        await asyncio.wait([small], timeout=30)
        is_served = small.done()
        respond.set()
        await asyncio.wait([large, small])
        return is_served

    assert asyncio.run(cancelled())
    first.release()
    pool.close()
    assert shop.money() == (10, 0)


def test_waiters_are_served_in_their_order(client: cycles.Cycles, shop: Shop) -> None:
    shop.faults.delay("reserve", 0.05, times=None)
    pool = client.pool(T(400), action=ACTION)
    order: list[int] = []

    async def work(number: int) -> None:
        async with pool.reserve(T(60)) as guard:
            order.append(number)
            await guard.commit(T(60))

    async def everything() -> None:
        await asyncio.gather(*(work(number) for number in range(6)))

    asyncio.run(everything())
    assert order == sorted(order)


def test_two_threads_end_one_guard_once(client: cycles.Cycles) -> None:
    pool = client.pool(T(400_000), action=ACTION)
    for _ in range(50):
        guard = pool.reserve(T(10)).acquire()
        barrier = threading.Barrier(2)
        outcomes: list[str] = []

        def end(commit: Any, barrier: Any = barrier, outcomes: Any = outcomes) -> None:
            barrier.wait()
            try:
                commit()
                outcomes.append("ended")
            except cycles.GuardFinalizedError:
                outcomes.append("too late")

        ends = (partial(guard.commit, T(7)), guard.release)
        threads = [threading.Thread(target=end, args=(commit,)) for commit in ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["ended", "too late"]
    assert pool.stats().live == T(0)


def test_what_is_passed_on_twice_is_done_once(
    client: cycles.Cycles, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt after it was passed on, and before that is noted, makes the next caller pass it on again."""
    open_chunk, settle = chunks.open_chunk, chunks.settle

    async def open_twice(*words: Any) -> None:
        await open_chunk(*words)
        await open_chunk(*words)

    async def settle_twice(*words: Any) -> None:
        await settle(*words)
        await settle(*words)

    monkeypatch.setattr(chunks, "open_chunk", open_twice)
    monkeypatch.setattr(chunks, "settle", settle_twice)
    with client.pool(T(400), action=ACTION) as pool:
        with pool.reserve(T(10)) as guard:
            guard.commit(T(7))
        pool.flush()
        assert (shop.count("reserve"), shop.count("commit")) == (1, 1)
    assert shop.money() == (7, 0)
