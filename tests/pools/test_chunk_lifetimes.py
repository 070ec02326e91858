"""When a pool closes its chunks: age, idle time, and leases that are lost."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import cycles
from cycles._core.lease.planner import Stop, StopReason
from cycles._flows.heartbeat import lose_lease, send_heartbeat
from cycles._flows.io import run
from cycles._journal.journal import Journal
from tests.support.inside import runtime_of, state_of
from tests.support.waiting import PATIENCE_S

from .conftest import Shop, T, chunk_of, named
from .pool_use import pool_of, use

pytestmark = pytest.mark.anyio


class TestTime:
    def test_a_chunk_that_reached_settle_ms_is_committed(self, client: cycles.Cycles, shop: Shop) -> None:
        pool = pool_of(client, settle_ms=20)
        use(pool, 10, 7)
        shop.until(lambda: shop.money() == (7, 0))

    def test_a_chunk_waits_for_its_live_guards(self, client: cycles.Cycles, shop: Shop) -> None:
        pool = pool_of(client, settle_ms=20)
        guard = pool.reserve(T(10)).acquire()
        shop.until(lambda: guard.chunk.state == "draining")
        assert shop.count("commit") == 0
        guard.commit(T(7))
        shop.until(lambda: shop.money() == (7, 0))

    def heartbeat(self, client: cycles.Cycles, guard: Any) -> None:
        run(send_heartbeat(runtime_of(client).blocking, chunk_of(guard).heartbeat))

    def test_an_idle_chunk_is_committed_instead_of_extended(self, client: cycles.Cycles, shop: Shop) -> None:
        pool = pool_of(client)
        guard = use(pool, 10, 7)
        self.heartbeat(client, guard)
        assert shop.count("extend") == 1
        self.heartbeat(client, guard)
        shop.until(lambda: shop.money() == (7, 0))
        assert shop.count("extend") == 1

    def test_a_live_guard_keeps_its_chunk_from_being_idle(self, client: cycles.Cycles, shop: Shop) -> None:
        pool = pool_of(client)
        guard = pool.reserve(T(10)).acquire()
        for count in range(1, 4):
            self.heartbeat(client, guard)
            assert shop.count("extend") == count
        guard.release()

    def test_a_draining_chunk_is_sealed_before_its_last_lease_ends(self, client: cycles.Cycles, shop: Shop) -> None:
        pool = pool_of(client)
        use(pool, 10, 7)
        guard = pool.reserve(T(10)).acquire()
        state = guard._place.pool
        with state.lock:
            state.drain(chunk_of(guard))
        self.heartbeat(client, guard)
        assert (guard.chunk.state, shop.count("extend")) == ("draining", 1)
        chunk_of(guard).lease.opened_ms -= 4 * 60_000
        self.heartbeat(client, guard)
        assert shop.count("extend") == 1
        shop.until(lambda: shop.money() == (7, 0))
        guard.commit(T(5))
        shop.until(lambda: guard.state == "committed")
        assert shop.money() == (12, 0)

    def test_no_guard_is_admitted_into_a_chunk_whose_lease_is_over(self, client: cycles.Cycles, shop: Shop) -> None:
        pool = pool_of(client)
        first = use(pool, 10, 7)
        heartbeat = chunk_of(first).heartbeat
        heartbeat.lease = heartbeat.lease._replace(confirmed_until_ms=0.0)  # this process was stopped for long
        second = use(pool, 10, 7)
        assert second.reservation_id != first.reservation_id
        shop.until(lambda: first.state == "committed")

    @pytest.mark.parametrize("is_denied", [False, True])
    def test_a_chunk_that_is_opened_while_its_pool_closes_is_released(
        self,
        client: cycles.Cycles,
        shop: Shop,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        is_denied: bool,
    ) -> None:
        arrived, respond, errors = threading.Event(), threading.Event(), list[str]()
        pool, handle = pool_of(client, settle_ms=3_600_000), shop.server.handle

        def slow(request: Any) -> Any:
            if request.target == "/v1/reservations":
                arrived.set()
                assert respond.wait(PATIENCE_S)
                if is_denied:
                    shop.server.faults.status("reserve", 403)
            return handle(request)

        def wait_for_the_chunk() -> None:
            with pytest.raises(cycles.CyclesError) as raised:
                pool.reserve(T(10)).acquire()
            errors.append(str(raised.value))

        monkeypatch.setattr(shop.server, "handle", slow)
        waiter, closer = threading.Thread(target=wait_for_the_chunk), threading.Thread(target=pool.close)
        waiter.start()
        assert arrived.wait(PATIENCE_S)
        state = state_of(pool)(runtime_of(client))
        closer.start()
        shop.until(lambda: state.closed)
        respond.set()
        closer.join()
        waiter.join()
        assert errors == ["this pool is closed: make a new one with client.pool(...)"]
        shop.until(lambda: shop.money() == (0, 0))
        client.close()
        assert "Traceback" not in caplog.text


class TestLostLeases:
    def lose(self, client: cycles.Cycles, guard: Any) -> None:
        stop = Stop(StopReason.NO_SAFE_RETRY, "planned by the test")
        lose_lease(runtime_of(client).blocking, chunk_of(guard).heartbeat, stop)

    @pytest.mark.parametrize("policy", ["warn", "fail_on_finalize", "cancel"])
    def test_the_policy_acts_on_each_live_guard(self, client: cycles.Cycles, shop: Shop, policy: Any) -> None:
        pool = pool_of(client, lease_policy=policy)
        use(pool, 10, 7)
        guards = []
        for _ in range(2):
            expected = pytest.raises(cycles.LeaseLostError) if policy != "warn" else _nothing()
            with expected, pool.reserve(T(10)) as guard:
                guards.append(guard)
                if len(guards) == 1:
                    self.lose(client, guard)
                    assert guard.state == "lost"
                    assert guard.chunk.state in ("sealed", "confirmed")
                    with pytest.raises(cycles.LeaseLostError):
                        guard.raise_if_lost()
                    guard.commit(T(5))
                else:
                    self.lose(client, guard)
                    guard.commit(T(5))
        shop.until(lambda: all(guard.state == "committed" for guard in guards))
        pool.close()
        assert shop.money() == (17, 0)

    def test_a_chunk_that_loses_its_lease_while_it_opens_is_settled_immediately(
        self, client: cycles.Cycles, shop: Shop, events: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make = Journal.chunk_log

        def make_late(logs: Journal, header: Any) -> Any:
            shop.until(lambda: named(events, "LeaseLost"))
            return make(logs, header)

        monkeypatch.setattr(Journal, "chunk_log", make_late)
        shop.faults.status("extend", 410, body={"error": "RESERVATION_EXPIRED", "message": "over", "request_id": "r"})
        pool = pool_of(client, ttl_ms=3_500)
        with pool.reserve(T(10)) as guard:
            shop.until(lambda: guard.chunk.state == "empty")
            guard.commit(T(7))
        assert guard.settled().status == "recorded_as_event"
        assert pool.stats().held == T(0)
        shop.until(lambda: shop.count("release"))  # another thread sends it
        assert shop.money() == (7, 0)

    async def test_cancel_cancels_the_blocks_of_tasks(self, client: cycles.Cycles, shop: Shop) -> None:
        pool = pool_of(client, lease_policy="cancel")
        entered = asyncio.Semaphore(0)
        guards: list[Any] = []

        async def work() -> None:
            async with pool.reserve(T(10)) as guard:
                guard.spend(T(3))
                guards.append(guard)
                entered.release()
                await asyncio.get_running_loop().create_future()

        tasks = [asyncio.create_task(work()) for _ in range(3)]
        for _ in tasks:
            await entered.acquire()
        await asyncio.to_thread(self.lose, client, guards[0])
        for task in tasks:
            with pytest.raises(cycles.LeaseLostError):
                await task
        await pool.aclose()
        await asyncio.to_thread(shop.until, lambda: shop.money() == (9, 0))


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()
