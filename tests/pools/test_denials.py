"""What a pool does when a chunk is denied, when its limit is reached, and when requests fail."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from tests.support.inside import runtime_of, state_of

from .conftest import ACTION, Shop, T, World, named, seal
from .pool_use import TOO_LITTLE, estimates, eventually, pool_of, use
from .test_no_threads import in_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def denied_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A denial counts until the end of the test, however slow the machine."""
    monkeypatch.setattr("cycles._flows.pool.chunks.DENIED_MS", 3_600_000.0)


class TestDenials:
    def test_a_denied_chunk_is_halved(self, client: cycles.Cycles, shop: Shop) -> None:
        shop.ledger.set_budget("tenant:acme", T(30))
        pool = pool_of(client)
        assert use(pool, 10, 5).is_pooled
        assert estimates(shop)[:3] == [100, 50, 25]
        shop.until(lambda: pool.stats().held == T(25) and not state_of(pool)(runtime_of(client)).busy)

    def test_a_chunk_that_a_decision_denies_is_halved(self, client: cycles.Cycles, shop: Shop) -> None:
        """A server may deny with status 200, whose code is the reason of the decision."""
        decision = {"decision": "DENY", "reason_code": "BUDGET_EXCEEDED", "affected_scopes": []}
        shop.faults.status("reserve", 200, body=decision, times=2)
        assert use(pool_of(client), 10, 5).is_pooled
        assert estimates(shop)[:3] == [100, 50, 25]
        assert len({body["idempotency_key"] for body in shop.bodies("reserve")[:3]}) == 3

    def test_a_chunk_is_not_halved_below_the_estimate(self, client: cycles.Cycles, shop: Shop) -> None:
        shop.ledger.set_budget("tenant:acme", T(30))
        pool = pool_of(client)
        with pytest.raises(cycles.BudgetExceededError) as raised:
            use(pool, 40, 5)
        assert raised.value.request_id
        assert estimates(shop) == [100, 50, 40]

    def test_below_a_sixteenth_the_estimate_alone_is_requested(self, client: cycles.Cycles, shop: Shop) -> None:
        shop.ledger.set_budget("tenant:acme", T(3))
        pool = pool_of(client)
        assert use(pool, 3, 1).is_pooled
        assert estimates(shop)[:6] == [100, 50, 25, 12, 7, 3]

    @pytest.mark.usefixtures("denied_for_long")
    def test_a_denial_is_not_that_of_a_smaller_guard(self, client: cycles.Cycles, shop: Shop) -> None:
        shop.ledger.set_budget("tenant:acme", T(30))
        pool = pool_of(client)
        for estimate in (40, 45):
            with pytest.raises(cycles.BudgetExceededError):
                use(pool, estimate, 5)
        assert estimates(shop) == [100, 50, 40]
        assert use(pool, 20, 5).is_pooled

    @pytest.mark.parametrize("world", ["async"], indirect=True)
    async def test_a_guard_that_waits_beside_a_larger_one_is_not_denied(self, world: World, shop: Shop) -> None:
        shop.ledger.set_budget("tenant:acme", T(30))
        pool = pool_of(world.client)
        both: Any = await asyncio.gather(*(pool.reserve(T(n)) for n in (40, 5)), return_exceptions=True)
        large, small = both
        assert isinstance(large, cycles.BudgetExceededError)
        assert small.is_pooled
        await small.commit(T(5))

    @pytest.mark.usefixtures("denied_for_long")
    def test_later_callers_get_the_denial_without_a_request(self, client: cycles.Cycles, shop: Shop) -> None:
        shop.ledger.set_budget("tenant:acme", T(1))
        pool = pool_of(client)
        errors = []
        for _ in range(3):
            with pytest.raises(cycles.BudgetExceededError) as raised:
                use(pool, 10, 1)
            errors.append(raised.value)
        assert len({id(error) for error in errors}) == 3
        assert len({error.request_id for error in errors}) == 1
        assert shop.count("reserve") == 5
        assert pool.stats().denied == 3

    def test_the_server_is_called_again_after_the_pause(self, client: cycles.Cycles, shop: Shop) -> None:
        shop.ledger.set_budget("tenant:acme", T(1))
        pool = pool_of(client)
        with pytest.raises(cycles.BudgetExceededError):
            use(pool, 10, 1)
        shop.ledger.set_budget("tenant:acme", T(1_000))
        (sub,) = state_of(pool)(runtime_of(client)).subs.values()
        sub.allotment.denied_until_ms = 0.0
        assert use(pool, 10, 1).is_pooled
        assert sub.allotment.size >= 20, "success doubles the size again; a chunk may be opened ahead already"

    def test_a_rate_limit_keeps_later_callers_from_sending_requests(
        self, client: cycles.Cycles, shop: Shop, events: list[Any]
    ) -> None:
        shop.faults.status("reserve", 429, headers={"Retry-After": "600"}, times=None)
        pool = pool_of(client)
        for _ in range(3):
            with pytest.raises(cycles.RateLimitedError) as raised:
                use(pool, 10, 1)
            assert raised.value.retry_after_ms == 600_000
        assert (shop.count("reserve"), pool.stats().denied) == (1, 3)
        assert len(named(events, "PoolDenied")) == 1
        (sub,) = state_of(pool)(runtime_of(client)).subs.values()
        assert sub.allotment.denied_until_ms - runtime_of(client).blocking.clock.now_ms() > 300_000
        shop.faults.clear()
        sub.allotment.denied_until_ms = 0.0
        assert use(pool, 10, 1).is_pooled

    def test_other_denials_are_raised_after_one_request(self, client: cycles.Cycles, shop: Shop) -> None:
        shop.ledger.set_budget("tenant:acme", T(1_000), status="FROZEN")
        pool = pool_of(client)
        with pytest.raises(cycles.BudgetFrozenError):
            use(pool, 10, 1)
        assert shop.count("reserve") == 1

    @pytest.mark.parametrize("world", ["sync", "async"], indirect=True)
    async def test_wait_waits_for_budget(self, world: World, shop: Shop) -> None:
        shop.ledger.set_budget("tenant:acme", T(1))
        pool = pool_of(world.client)
        state = state_of(pool)(runtime_of(world.client))

        def fund() -> None:
            shop.until(lambda: state.denied)
            shop.ledger.set_budget("tenant:acme", T(1_000))
            next(iter(state.subs.values())).allotment.denied_until_ms = 0.0

        funding = threading.Thread(target=fund)
        funding.start()
        guard = await world.acquire(pool.reserve(T(10), wait=20))
        funding.join()
        assert guard.is_pooled
        await world.get(guard.release())

    @pytest.mark.usefixtures("denied_for_long")
    def test_every_waiting_caller_gets_a_copy_of_the_error(self, client: cycles.Cycles, shop: Shop) -> None:
        shop.faults.status("reserve", 409, body=TOO_LITTLE, times=None)
        pool = pool_of(client)
        errors: list[Any] = []

        def call() -> None:
            try:
                use(pool, 10, 1)
            except cycles.BudgetExceededError as error:
                errors.append(error)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(error) for error in errors}) == 8
        assert shop.count("reserve") == 5

    def test_a_denial_is_reported(self, client: cycles.Cycles, shop: Shop, events: list[Any]) -> None:
        shop.ledger.set_budget("tenant:acme", T(1))
        with pytest.raises(cycles.BudgetExceededError):
            use(pool_of(client), 10, 1)
        (denied,) = named(events, "PoolDenied")
        assert denied.request_id


class TestLimit:
    def test_beyond_the_limit_nothing_is_sent(self, client: cycles.Cycles, shop: Shop, events: list[Any]) -> None:
        pool = pool_of(client, limit=T(50))
        use(pool, 30, 30)
        guard = pool.reserve(T(10)).acquire()
        before = len(shop.server.requests)
        with pytest.raises(cycles.BudgetExceededError, match="the limit of this pool is 50 tokens") as raised:
            use(pool, 11, 1)
        assert (raised.value.code, len(shop.server.requests)) == ("POOL_LIMIT", before)
        assert len(named(events, "PoolDenied")) == 1
        guard.release()
        use(pool, 20, 20)
        with pytest.raises(cycles.BudgetExceededError):
            use(pool, 1, 1)

    @pytest.mark.parametrize("estimate", [10, 150])  # in a chunk, and reserved directly
    def test_what_a_signal_handler_has_released_counts_no_longer(self, client: cycles.Cycles, estimate: int) -> None:
        """It came while its thread was in the pool, whose next caller frees the place."""
        pool = pool_of(client, limit=T(estimate))
        guard = pool.reserve(T(10)).acquire()
        with state_of(pool)(runtime_of(client)).lock:
            guard.release()
        with cycles.limit(T(estimate)):
            pool.reserve(T(estimate)).acquire().commit(T(estimate))
        assert pool.stats().spent == T(estimate)

    def test_direct_guards_and_excess_count(self, client: cycles.Cycles) -> None:
        pool = pool_of(client, limit=T(300))
        use(pool, 150, 120)
        use(pool, 50, 110)
        assert (pool.stats().spent, pool.stats().direct) == (T(230), 1)
        with pytest.raises(cycles.BudgetExceededError):
            pool.reserve(T(71)).acquire()
        with pytest.raises(cycles.BudgetExceededError):
            pool.reserve(T(150)).acquire()

    def test_a_live_guard_counts_also_after_its_chunk_is_settled(self, client: cycles.Cycles, shop: Shop) -> None:
        pool = pool_of(client, limit=T(50))
        use(pool, 10, 10)
        guard = pool.reserve(T(30)).acquire()
        seal(guard)
        shop.until(lambda: shop.money() == (10, 0))
        pool.flush()
        assert (pool.stats().live, pool.stats().spent) == (T(30), T(10))
        with pytest.raises(cycles.BudgetExceededError):
            pool.reserve(T(11)).acquire()
        guard.commit(T(25))
        use(pool, 15, 15)
        assert (pool.stats().live, pool.stats().spent) == (T(0), T(50))

    @pytest.mark.parametrize("estimate", [10, 150])  # in the first chunk, and reserved directly
    async def test_guards_that_are_admitted_at_the_same_time_share_the_limit(
        self, client: cycles.Cycles, shop: Shop, estimate: int
    ) -> None:
        shop.faults.delay("reserve", 0.01, times=None)
        pool = pool_of(client, limit=T(3 * estimate))
        waiting = [pool.reserve(T(estimate)) for _ in range(8)]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        guards = [result for result in results if isinstance(result, cycles.AsyncGuard)]
        codes = [result.code for result in results if isinstance(result, cycles.BudgetExceededError)]
        assert (len(guards), codes) == (3, ["POOL_LIMIT"] * 5)
        for guard in guards:
            await guard.commit(T(estimate))
        assert pool.stats().spent == T(3 * estimate)

    async def test_a_reservation_that_fails_takes_nothing_of_the_limit(self, client: cycles.Cycles, shop: Shop) -> None:
        pool = pool_of(client, limit=T(200))
        for estimate in (10, 150):
            shop.faults.refuse("reserve", times=2)
            with pytest.raises(cycles.TransportError):
                await pool.reserve(T(estimate))
        for estimate in (150, 50):
            await (await pool.reserve(T(estimate))).commit(T(estimate))

    async def test_a_direct_reservation_that_is_cancelled_takes_nothing_of_the_limit(
        self, client: cycles.Cycles, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        respond = asyncio.Event()
        monkeypatch.setattr("cycles.embedded.transports.asyncio", SimpleNamespace(sleep=lambda _: respond.wait()))
        shop.faults.delay("reserve", 1.0)
        pool = pool_of(client, limit=T(200))

        async def reserve() -> None:
            await pool.reserve(T(150))

        task = asyncio.create_task(reserve())
        await eventually(shop, lambda: shop.count("reserve"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        respond.set()
        await (await pool.reserve(T(200))).commit(T(200))
        assert pool.stats().spent == T(200)

    @pytest.mark.parametrize("world", ["sync", "async"], indirect=True)
    async def test_the_known_spend_of_a_direct_guard_counts_although_its_commit_is_rejected(
        self, world: World, shop: Shop
    ) -> None:
        shop.ledger.set_budget("tenant:acme", T(400))
        pool = pool_of(world.client, limit=T(1_000), overage_policy="REJECT")
        for _ in range(2):
            guard = await world.acquire(pool.reserve(T(150)))
            with pytest.raises(cycles.BudgetExceededError, match="BUDGET_EXCEEDED"):
                await world.get(guard.commit(T(600)))
            assert (guard.state, guard.is_pooled) == ("rejected", False)
        assert pool.stats().spent == T(1_200)
        with pytest.raises(cycles.BudgetExceededError) as raised:
            await world.acquire(pool.reserve(T(1)))
        assert raised.value.code == "POOL_LIMIT"

    @pytest.mark.parametrize("world", ["sync", "async"], indirect=True)
    async def test_a_direct_guard_that_is_attached_again_counts_once(self, world: World) -> None:
        pool = pool_of(world.client, limit=T(1_000))
        token = (await world.acquire(pool.reserve(T(150)))).detach()
        assert pool.stats().live == T(150)
        await world.get((await world.acquire(world.client.attach(token))).commit(T(120)))
        assert (pool.stats().live, pool.stats().spent) == (T(0), T(120))

    @pytest.mark.parametrize("world", ["sync", "async"], indirect=True)
    async def test_a_run_limit_includes_pools(self, world: World, shop: Shop) -> None:
        pool = pool_of(world.client)
        with cycles.limit(T(30)) as limit:
            guard = await world.acquire(pool.reserve(T(20)))
            assert limit.held == T(20)
            with pytest.raises(cycles.BudgetExceededError) as raised:
                await world.acquire(pool.reserve(T(11)))
            assert raised.value.code == "RUN_LIMIT"
            await world.get(guard.commit(T(5)))
            assert (limit.spent, limit.held) == (T(5), T(0))
            direct = await world.acquire(world.client.pool(T(4), action=ACTION).reserve(T(20)))
            assert (direct.is_pooled, limit.held) == (False, T(20))
            await world.get(direct.release())
        assert estimates(shop)[0] == 100, "the chunk itself is not limited"


class TestFailures:
    def test_an_unknown_outcome_is_retried_once_with_the_same_key(self, client: cycles.Cycles, shop: Shop) -> None:
        shop.faults.drop_response("reserve")
        assert use(pool_of(client), 10, 7).is_pooled
        first, second = shop.bodies("reserve")
        assert first == second

    def test_without_a_server_callers_get_the_error(self, client: cycles.Cycles, shop: Shop) -> None:
        shop.faults.refuse("reserve", times=None)
        pool = pool_of(client)
        with pytest.raises(cycles.TransportError):
            use(pool, 10, 7)
        assert pool.stats().denied == 0, "no server responded"
        shop.faults.clear()
        assert use(pool, 10, 7).is_pooled

    @pytest.mark.parametrize("world", ["sync", "async"], indirect=True)
    async def test_without_a_server_guards_may_run_unreserved(
        self, world: World, shop: Shop, events: list[Any]
    ) -> None:
        shop.faults.refuse("reserve", times=2)
        pool = pool_of(world.client, on_unavailable="allow")
        async with world.enter(pool.reserve(T(10))) as guard:
            assert (guard.state, guard.is_pooled) == ("unreserved", False)
            await world.get(guard.commit(T(7)))
        assert shop.bodies("event")[0]["actual"]["amount"] == 7
        assert pool.stats().spent == T(7)
        (unreserved,) = named(events, "Unreserved")  # of the guard: no block runs in a chunk
        assert unreserved.estimate == T(10)
        assert "Connection refused" in unreserved.detail

    @pytest.mark.parametrize("status", [503, 429, 401])
    def test_a_pending_chunk_counts_as_held(self, client: cycles.Cycles, shop: Shop, status: int) -> None:
        shop.faults.status("commit", status, times=None)
        pool = pool_of(client)
        guard = use(pool, 10, 7)
        assert pool.flush(0.3).pending == 1
        assert pool.stats().held == T(100)
        shop.faults.clear()
        client.flush()
        assert (pool.stats().held, guard.state) == (T(0), "committed")
        assert shop.money() == (7, 0)

    def test_no_guard_waits_for_the_amount_of_a_pending_chunk(self, client: cycles.Cycles, shop: Shop) -> None:
        shop.faults.status("commit", 503, times=None)
        pool = pool_of(client, max_held=100, chunk=T(100))
        use(pool, 100, 100)
        assert not in_time(lambda: use(pool, 10, 7)).is_pooled
        shop.faults.clear()
        client.flush()
        assert shop.money() == (107, 0)

    def test_a_chunk_that_the_server_lost_is_an_event(self, client: cycles.Cycles, shop: Shop) -> None:
        lost = {"error": "NOT_FOUND", "message": "no such reservation", "request_id": "r"}
        shop.faults.status("commit", 404, body=lost)
        pool = pool_of(client)
        guard = use(pool, 10, 7)
        pool.close()
        assert guard.settlement.status == "recorded_as_event"
        assert shop.bodies("event")[0]["actual"]["amount"] == 7

    def test_without_a_log_guards_are_reserved_directly(
        self, client: cycles.Cycles, shop: Shop, events: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_: object, header: Any) -> None:
            raise OSError(28, "No space left on device", f"/journal/{header.reservation_id}")

        monkeypatch.setattr("cycles._journal.journal.Journal.chunk_log", full)
        pool = pool_of(client)
        assert not use(pool, 10, 7).is_pooled
        with cycles.subject(agent="a"):
            for _ in range(2):
                assert not use(pool, 10, 7).is_pooled
        (problem,) = named(events, "JournalProblem")
        assert "No space left on device" in problem.detail
        assert pool.stats().direct == 3
        assert shop.money() == (21, 0)

    def test_a_chunk_without_a_log_is_released_before_its_guard_is_reserved(
        self, client: cycles.Cycles, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("cycles._journal.journal.Journal.chunk_log", full)
        shop.ledger.set_budget("tenant:acme", T(100))
        pool = pool_of(client)
        assert not use(pool, 10, 7).is_pooled
        assert estimates(shop) == [100, 10]  # the chunk holds the whole budget until it is released
        assert shop.money() == (7, 0)

    def test_a_chunk_without_a_log_whose_release_is_rejected_denies_no_guard(
        self, client: cycles.Cycles, shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("cycles._journal.journal.Journal.chunk_log", full)
        shop.faults.status("release", 400, body={"error": "INVALID_REQUEST", "message": "no", "request_id": "r"})
        assert not use(pool_of(client), 10, 7).is_pooled
        assert shop.money() == (7, 100), "the server holds the chunk that it did not release"

    def test_without_file_locks_guards_are_reserved_directly(
        self, client: cycles.Cycles, events: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cycles._journal.files.locked_file.fcntl", None)
        pool = pool_of(client)
        for _ in range(3):
            assert not use(pool, 10, 7).is_pooled
        assert "no file locks" in named(events, "JournalProblem")[0].detail
        assert len(named(events, "JournalProblem")) == 1

    def test_without_a_journal_a_pool_has_no_logs(self, shop: Shop) -> None:
        client = shop.client(journal_dir=shop.folder, journal=False)
        pool = pool_of(client)
        assert use(pool, 10, 7).is_pooled
        assert shop.logs() == []
        pool.close()
        assert shop.money() == (7, 0)
