"""From which chunk a guard is admitted, when chunks are opened and settled, and what denials and failures do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

import cycles
from cycles._core.lease.planner import Stop, StopReason
from cycles._flows.heartbeat import lose_lease, send_heartbeat
from cycles._flows.io import run

from .conftest import ACTION, Shop, T, World, chunk_of, close, named

pytestmark = pytest.mark.anyio

TOO_LITTLE = {"error": "BUDGET_EXCEEDED", "message": "too little", "request_id": "r"}


async def eventually(shop: Shop, condition: Callable[[], object]) -> None:
    await asyncio.to_thread(shop.until, condition)


def pool_of(client: cycles.Cycles, max_held: int = 400, **options: Any) -> Any:
    return client.pool(T(max_held), action=ACTION, **options)


def estimates(shop: Shop) -> list[int]:
    return [body["estimate"]["amount"] for body in shop.bodies("reserve")]


def use(pool: Any, estimate: int, actual: int) -> Any:
    with pool.reserve(T(estimate)) as guard:
        guard.commit(T(actual))
    return guard


def test_a_pool_is_lazy(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    pool.close()
    assert shop.count("reserve") == 0
    with pytest.raises(cycles.CyclesError, match="this pool is closed"):
        pool.reserve(T(1)).acquire()


def test_the_next_chunk_is_opened_when_half_of_one_is_used(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    use(pool, 40, 40)
    assert estimates(shop) == [100]
    guard = pool.reserve(T(10)).acquire()
    shop.until(lambda: pool.stats().chunks == 2)
    assert estimates(shop) == [100, 100]
    guard.release()


def test_guards_are_admitted_into_the_oldest_chunk_that_has_space(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    old = pool.reserve(T(60)).acquire()
    new = pool.reserve(T(60)).acquire()
    assert new.reservation_id != old.reservation_id
    third = pool.reserve(T(40)).acquire()
    assert third.reservation_id == old.reservation_id
    for guard in (old, new, third):
        guard.release()


def test_ten_thousand_calls_cost_few_requests(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client, 4_000, chunk=T(1_000))
    for _ in range(10_000):
        use(pool, 2, 1)
    pool.close()
    assert len(shop.server.requests) <= 32
    assert shop.money() == (10_000, 0)


def test_held_stays_below_max_held(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    guards = [pool.reserve(T(90)).acquire() for _ in range(4)]
    assert (pool.stats().held, pool.stats().direct) == (T(400), 0)
    for guard in guards:
        guard.release()


@pytest.mark.parametrize("world", ["sync", "async"], indirect=True)
async def test_nested_guards_with_max_held_used_up_are_reserved_directly(world: World, shop: Shop) -> None:
    pool = pool_of(world.client, 100, chunk=T(100))
    async with world.enter(pool.reserve(T(90))) as outer, world.enter(pool.reserve(T(90))) as inner:
        assert (outer.is_pooled, inner.is_pooled) == (True, False)
        assert (await world.get(inner.commit(T(5)))).status == "committed"
        await world.get(outer.commit(T(7)))
    assert pool.stats().direct == 1
    await close(world, pool)
    assert shop.money() == (12, 0)


def test_an_estimate_above_the_chunk_is_reserved_directly(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    guard = pool.reserve(T(101)).acquire()
    assert not guard.is_pooled
    guard.commit(T(101))
    assert estimates(shop) == [101]
    assert (pool.stats().direct, pool.stats().spent) == (1, T(101))


def test_a_used_up_chunk_is_committed_immediately(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    use(pool, 100, 100)
    shop.until(lambda: shop.count("commit") == 1)


def test_a_chunk_whose_rest_is_too_small_makes_place_for_the_next(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client, 100, chunk=T(100))
    use(pool, 90, 90)
    guard = use(pool, 20, 20)
    assert guard.is_pooled
    pool.close()
    assert shop.money() == (110, 0)


def test_slots_limit_the_guards_of_a_chunk(client: cycles.Cycles, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    from cycles._core import allotment

    monkeypatch.setattr(allotment.Chunk.__init__, "__defaults__", (4,))
    pool = pool_of(client)
    for _ in range(10):
        use(pool, 1, 1)
    pool.close()
    assert [body["metrics"]["custom"]["pool_calls"] for body in shop.bodies("commit")] == [4, 4, 2]


class TestDenials:
    def test_a_denied_chunk_is_halved(self, client: cycles.Cycles, shop: Shop) -> None:
        shop.ledger.set_budget("tenant:acme", T(30))
        pool = pool_of(client)
        assert use(pool, 10, 5).is_pooled
        assert estimates(shop)[:3] == [100, 50, 25]
        shop.until(lambda: pool.stats().held == T(25) and not pool._state(client._runtime()).busy)

    def test_a_chunk_is_not_halved_below_the_estimate(self, client: cycles.Cycles, shop: Shop) -> None:
        shop.ledger.set_budget("tenant:acme", T(30))
        pool = pool_of(client)
        with pytest.raises(cycles.BudgetExceededError) as raised:
            use(pool, 40, 5)
        assert raised.value.request_id
        assert estimates(shop) == [100, 50, 40]

    def test_a_chunk_is_not_halved_below_a_sixteenth(self, client: cycles.Cycles, shop: Shop) -> None:
        shop.ledger.set_budget("tenant:acme", T(1))
        pool = pool_of(client)
        with pytest.raises(cycles.BudgetExceededError):
            use(pool, 1, 1)
        assert estimates(shop) == [100, 50, 25, 12, 7]

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
        (sub,) = pool._state(client._runtime()).subs.values()
        sub.allotment.denied_until_ms = 0.0
        assert use(pool, 10, 1).is_pooled
        assert sub.allotment.size >= 20, "success doubles the size again; a chunk may be opened ahead already"

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
        state = pool._state(world.client._runtime())

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

    def test_direct_guards_and_excess_count(self, client: cycles.Cycles) -> None:
        pool = pool_of(client, limit=T(300))
        use(pool, 150, 120)
        use(pool, 50, 110)
        assert (pool.stats().spent, pool.stats().direct) == (T(230), 1)
        with pytest.raises(cycles.BudgetExceededError):
            pool.reserve(T(71)).acquire()
        with pytest.raises(cycles.BudgetExceededError):
            pool.reserve(T(150)).acquire()

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


class TestScopes:
    def test_each_scope_set_has_its_chunks(self, client: cycles.Cycles, shop: Shop) -> None:
        pool = pool_of(client)
        plain = use(pool, 10, 1)
        with cycles.subject(agent="a"):
            ambient = use(pool, 10, 1)
        with pool.reserve(T(10), subject={"agent": "a"}) as given:
            given.commit(T(1))
        assert plain.reservation_id != ambient.reservation_id == given.reservation_id
        assert (plain.subject.agent, ambient.subject.agent, given.subject.agent) == (None, "a", "a")
        subjects = [body["subject"] for body in shop.bodies("reserve")]
        assert subjects == [{"tenant": "acme"}, {"tenant": "acme", "agent": "a"}]

    def test_dimensions_stay_out_of_chunks_but_for_those_of_the_pool(
        self, client: cycles.Cycles, shop: Shop, events: list[Any]
    ) -> None:
        pool = pool_of(client, subject={"dimensions": {"team": "t"}})
        with pool.reserve(T(10), subject={"dimensions": {"job": "j"}}) as guard:
            guard.commit(T(1))
        assert use(pool, 10, 1).reservation_id == guard.reservation_id
        (body,) = shop.bodies("reserve")
        assert body["subject"]["dimensions"] == {"team": "t"}
        assert named(events, "PooledSettled")[0].subject.dimensions == {"team": "t", "job": "j"}

    def test_beyond_max_scopes_guards_are_reserved_directly(self, client: cycles.Cycles, shop: Shop) -> None:
        pool = pool_of(client, max_scopes=2)
        guards = [pool.reserve(T(10), subject={"agent": f"a{number}"}).acquire() for number in range(3)]
        assert [guard.is_pooled for guard in guards] == [True, True, False]
        for guard in guards:
            guard.release()

    def test_a_sub_pool_without_chunks_gives_up_its_place(self, client: cycles.Cycles) -> None:
        pool = pool_of(client, max_scopes=1)
        with cycles.subject(agent="a"):
            use(pool, 10, 1)
        pool.flush()
        with cycles.subject(agent="b"):
            assert use(pool, 10, 1).is_pooled

    def test_many_subjects_fill_no_memory(self, client: cycles.Cycles) -> None:
        pool = pool_of(client, max_scopes=1)
        for number in range(300):
            pool.reserve(T(10), subject={"agent": f"a{number}"})
        assert len(pool._subjects) == 256

    def test_a_wrong_subject_is_rejected_before_anything_is_sent(self, client: cycles.Cycles, shop: Shop) -> None:
        with pytest.raises(cycles.InvalidRequestError):
            pool_of(client).reserve(T(1), subject={"agent": "a" * 2_000})
        assert shop.count("reserve") == 0


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
        run(send_heartbeat(client._runtime().blocking, chunk_of(guard).heartbeat))

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
        state = guard._state.pool
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
        import attrs

        heartbeat.lease = attrs.evolve(heartbeat.lease, confirmed_until_ms=0.0)  # this process was stopped for long
        second = use(pool, 10, 7)
        assert second.reservation_id != first.reservation_id
        shop.until(lambda: first.state == "committed")


class TestLostLeases:
    def lose(self, client: cycles.Cycles, guard: Any) -> None:
        stop = Stop(StopReason.NO_SAFE_RETRY, "planned by the test")
        lose_lease(client._runtime().blocking, chunk_of(guard).heartbeat, stop)

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
        shop.faults.clear()
        assert use(pool, 10, 7).is_pooled

    @pytest.mark.parametrize("world", ["sync", "async"], indirect=True)
    async def test_without_a_server_guards_may_run_unreserved(self, world: World, shop: Shop) -> None:
        shop.faults.refuse("reserve", times=2)
        pool = pool_of(world.client, on_unavailable="allow")
        async with world.enter(pool.reserve(T(10))) as guard:
            assert (guard.state, guard.is_pooled) == ("unreserved", False)
            await world.get(guard.commit(T(7)))
        assert shop.bodies("event")[0]["actual"]["amount"] == 7
        assert pool.stats().spent == T(7)

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
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("cycles._journal.pool_log.ChunkLogs.make", full)
        pool = pool_of(client)
        for _ in range(3):
            assert not use(pool, 10, 7).is_pooled
        (problem,) = named(events, "JournalProblem")
        assert "No space left on device" in problem.detail
        assert pool.stats().direct == 3
        assert shop.money() == (21, 0)

    def test_without_file_locks_guards_are_reserved_directly(
        self, client: cycles.Cycles, events: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cycles._journal.pool_log._fcntl", None)
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


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"chunk": cycles.usd(1)}, "chunk must be in the unit of max_held"),
            ({"limit": cycles.usd(1)}, "limit must be in the unit of max_held"),
            ({"chunk": T(401)}, "chunk must be from 1 to max_held"),
            ({"chunk": T(0)}, "chunk must be from 1 to max_held"),
            ({"settle_ms": 240_001}, "settle_ms must be an integer from 1 to 240000"),
            ({"settle_ms": 1.5}, "settle_ms must be an integer"),
            ({"max_scopes": 0}, "max_scopes must be an integer from 1"),
            ({"ttl_ms": 5}, "ttl_ms"),
            ({"overage_policy": "SOMETIMES"}, "overage_policy"),
            ({"lease_policy": "never"}, "lease_policy must be one of"),
            ({"on_unavailable": "ask"}, "on_unavailable must be one of"),
            ({"shadow": "yes"}, "shadow must be True or False"),
        ],
    )
    def test_a_wrong_option_is_named(self, client: cycles.Cycles, options: dict[str, Any], message: str) -> None:
        with pytest.raises(cycles.InvalidRequestError, match=message):
            pool_of(client, **options)

    def test_a_chunk_is_a_quarter_rounded_up(self, client: cycles.Cycles, shop: Shop) -> None:
        use(pool_of(client, 10), 1, 1)
        assert estimates(shop)[0] == 3

    def test_options_of_the_pool_are_those_of_its_chunks(self, client: cycles.Cycles, shop: Shop) -> None:
        options: dict[str, Any] = {
            "ttl_ms": 30_000,
            "grace_period_ms": 1_000,
            "overage_policy": "REJECT",
            "metadata": {"a": 1},
        }
        use(pool_of(client, **options), 1, 1)
        (body,) = shop.bodies("reserve")
        assert options.items() <= body.items()
        assert body["action"] == {"kind": ACTION[0], "name": ACTION[1]}

    def test_a_view_of_the_client_gives_its_defaults(self, client: cycles.Cycles, shop: Shop) -> None:
        view = client.with_options(overage_policy="REJECT", lease_policy="cancel", subject={"agent": "a"})
        guard = use(pool_of(view), 1, 1)
        (body,) = shop.bodies("reserve")
        assert (body["overage_policy"], body["subject"]["agent"]) == ("REJECT", "a")
        assert guard._state.request.lease_policy == "cancel"

    def test_the_default_of_settle_ms_fits_short_leases(self, client: cycles.Cycles, shop: Shop) -> None:
        assert use(pool_of(client, ttl_ms=1_000), 1, 1).is_pooled
