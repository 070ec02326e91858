"""From which chunk a guard is admitted, when chunks are opened and settled, in which scopes, with which options."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._client.pool import ChunkView, PoolStats
from cycles._flows.pool.admission import acquire
from tests.support.in_child import in_a_child
from tests.support.inside import runtime_of, state_of
from tests.support.points import run_at
from tests.support.waiting import PATIENCE_S

from .conftest import ACTION, Shop, T, World, chunk_of, close, named, state_of as pool_state_of
from .pool_use import estimates, pool_of, use

pytestmark = pytest.mark.anyio


@pytest.fixture
def one_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pool have chunks for one set of subject levels only, not for eight."""
    monkeypatch.setattr("cycles._flows.pool.pool.MOST_SCOPES", 1)


def test_a_pool_is_lazy(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    pool.close()
    assert shop.count("reserve") == 0
    with pytest.raises(cycles.CyclesError, match="this pool is closed"):
        pool.reserve(T(1)).acquire()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of threads that other tests have left
def test_a_closed_pool_is_open_in_a_forked_child(client: cycles.Cycles) -> None:
    pool = pool_of(client)
    pool.close()

    def work() -> Any:
        pool.reserve(T(1)).acquire().commit(T(1))
        return pool.stats().spent.amount

    assert in_a_child(work) == 1


def test_the_next_chunk_is_opened_when_half_of_one_is_used(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    use(pool, 40, 40)
    assert estimates(shop) == [100]
    guard = pool.reserve(T(10)).acquire()
    shop.until(lambda: pool.stats().chunks == 2)
    assert estimates(shop) == [100, 100]
    guard.release()


@pytest.mark.parametrize(("ttl_ms", "settle_ms"), [(7_000, 28_000), (60_000, 30_000)])
def test_a_chunk_is_settled_before_a_server_extends_its_lease_no_more(
    client: cycles.Cycles, ttl_ms: int, settle_ms: int
) -> None:
    with pool_of(client, ttl_ms=ttl_ms).reserve(T(10)) as guard:
        assert pool_state_of(guard).options.settle_ms == settle_ms
        guard.commit(T(1))


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


def test_any_number_of_guards_fits_into_a_chunk(client: cycles.Cycles, shop: Shop) -> None:
    pool = client.pool(T(40_000), action=ACTION)
    for _ in range(4_200):
        guard = pool.reserve(T(1)).acquire()
        guard.commit(T(1))
    (log,) = shop.logs()
    assert log.stat().st_size <= 2_048
    pool.close()
    assert shop.count("reserve") == 1
    assert [body["metrics"]["custom"]["pool_calls"] for body in shop.bodies("commit")] == [4_200]


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
        with cycles.run("of the first caller"):
            pool = pool_of(client, subject={"dimensions": {"team": "t"}})
        with pool.reserve(T(10), subject={"dimensions": {"job": "j"}}) as guard:
            guard.commit(T(1))
        assert use(pool, 10, 1).reservation_id == guard.reservation_id
        (body,) = shop.bodies("reserve")
        assert body["subject"]["dimensions"] == {"team": "t"}
        assert named(events, "PooledSettled")[0].subject.dimensions == {"team": "t", "job": "j"}

    def test_beyond_eight_scope_sets_guards_are_reserved_directly(self, client: cycles.Cycles, shop: Shop) -> None:
        pool = pool_of(client)
        guards = [pool.reserve(T(10), subject={"agent": f"a{number}"}).acquire() for number in range(9)]
        assert [guard.is_pooled for guard in guards] == [True] * 8 + [False]
        for guard in guards:
            guard.release()

    @pytest.mark.usefixtures("one_scope")
    def test_a_sub_pool_without_chunks_gives_up_its_place(self, client: cycles.Cycles) -> None:
        pool = pool_of(client)
        with cycles.subject(agent="a"):
            use(pool, 10, 1)
        pool.flush()
        with cycles.subject(agent="b"):
            assert use(pool, 10, 1).is_pooled

    @pytest.mark.usefixtures("one_scope")
    def test_a_scope_set_that_gave_up_its_place_gets_another_one(self, client: cycles.Cycles, shop: Shop) -> None:
        pool = pool_of(client)
        described = pool.reserve(T(10))
        use(pool, 10, 1)
        pool.flush()
        with cycles.subject(agent="a"):
            use(pool, 10, 1)
        with described as guard:
            assert not guard.is_pooled, "another scope set has its place"
            guard.commit(T(1))
        pool.flush()
        with described as guard:
            guard.commit(T(1))
        assert guard.is_pooled
        assert guard.reservation_id == use(pool, 10, 1).reservation_id
        assert pool.stats().held.amount == shop.money()[1]

    @pytest.mark.usefixtures("one_scope")
    def test_a_guard_without_a_place_does_not_keep_later_ones_out(self, client: cycles.Cycles) -> None:
        pool = pool_of(client)
        with cycles.subject(agent="a"):
            use(pool, 10, 1)
        assert not use(pool, 10, 1).is_pooled
        pool.flush()
        assert use(pool, 10, 1).is_pooled

    @pytest.mark.usefixtures("one_scope")
    def test_a_closed_pool_reserves_nothing_for_a_scope_set_without_a_place(
        self, client: cycles.Cycles, shop: Shop
    ) -> None:
        pool = pool_of(client)
        with cycles.subject(agent="a"):
            use(pool, 10, 1)
        described = pool.reserve(T(10))
        pool.close()
        before = shop.count("reserve")
        with pytest.raises(cycles.CyclesError, match="this pool is closed"):
            described.acquire()
        assert shop.count("reserve") == before

    @pytest.mark.usefixtures("one_scope")
    def test_many_subjects_fill_no_memory(self, client: cycles.Cycles) -> None:
        pool = pool_of(client)
        for number in range(300):
            pool.reserve(T(10), subject={"agent": f"a{number}"})
        assert pool._merged.cache_info().currsize == 256

    def test_a_wrong_subject_is_rejected_before_anything_is_sent(self, client: cycles.Cycles, shop: Shop) -> None:
        with pytest.raises(cycles.InvalidRequestError):
            pool_of(client).reserve(T(1), subject={"agent": "a" * 2_000})
        assert shop.count("reserve") == 0


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"chunk": cycles.usd(1)}, "chunk must be in the unit of max_held"),
            ({"limit": cycles.usd(1)}, "limit must be in the unit of max_held"),
            ({"chunk": T(401)}, "chunk must be from 1 to max_held"),
            ({"chunk": T(0)}, "chunk must be from 1 to max_held"),
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

    @pytest.mark.parametrize(
        ("option", "instead"),
        [({"ttl_ms": 5_000}, r"pass it to client.pool\(...\), or"), ({"settle": "background"}, "use client.guarded")],
    )
    def test_an_option_that_a_decorated_guard_cannot_have_is_named_with_what_has_it(
        self, client: cycles.Cycles, option: dict[str, Any], instead: str
    ) -> None:
        with pytest.raises(cycles.InvalidRequestError, match=f"is not an option of a guard in a pool: {instead}"):
            pool_of(client).guarded(T(1), **option)

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
        assert state_of(guard).request.lease_policy == "cancel"

    @pytest.mark.parametrize("option", ["settle_ms", "max_scopes"])
    def test_an_option_that_was_removed_is_a_type_error(self, client: cycles.Cycles, option: str) -> None:
        with pytest.raises(TypeError, match=option):
            made: Any = client.pool
            made(T(4), action=ACTION, **{option: 8})

    def test_the_age_at_which_chunks_are_committed_fits_short_leases(self, client: cycles.Cycles) -> None:
        assert state_of(pool_of(client, ttl_ms=1_000))(runtime_of(client)).options.settle_ms == 4_000


async def test_stats_can_be_read_after_the_client_is_closed(world: World, client: cycles.Cycles) -> None:
    pool, unused = pool_of(client), pool_of(client)
    async with world.enter(pool.reserve(T(10))) as guard:
        await world.get(guard.commit(T(7)))
    await close(world, pool)
    client.close()
    stats = pool.stats()
    zero = PoolStats(T(0), T(0), T(0), T(0), chunks=0, refills=0, denied=0, direct=0, excess=T(0))
    assert stats == evolve(zero, spent=T(7), refills=1)
    assert unused.stats() == zero


@pytest.mark.parametrize("shadow", [False, True])
async def test_the_stats_of_a_pool_and_the_chunk_of_a_guard_follow_it(world: World, shadow: bool) -> None:
    pool = pool_of(world.client, shadow=shadow)
    held = T(0) if shadow else T(100)
    async with world.enter(pool.reserve(T(10))) as guard:
        stats = PoolStats(held, T(0), T(10), T(90), chunks=1, refills=1, denied=0, direct=0, excess=T(0))
        assert pool.stats() == stats
        assert (guard.reserved, guard.chunk.reservation_id) == (T(10), guard.reservation_id)
        view = ChunkView(guard.reservation_id, T(100), spent=T(0), guards=0, state="open", settlement=None)
        assert guard.chunk == view
        await world.get(guard.commit(T(12)))
        assert guard.chunk == (view if shadow else evolve(view, spent=T(12), guards=1))
        spent = T(0) if shadow else T(12)  # a dry run settles nothing
        assert pool.stats() == evolve(stats, spent=spent, live=T(0), free=T(100) - spent)
    await close(world, pool)
    assert guard.chunk.state == ("empty" if shadow else "confirmed")


@pytest.mark.parametrize(("amount", "status"), [(10, "pooled"), (200, "direct")])
async def test_a_reserve_that_is_interrupted_at_its_end_holds_nothing_for_its_guard(
    world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch, amount: int, status: str
) -> None:
    async def interrupted(*args: Any) -> Any:
        await acquire(*args)
        raise KeyboardInterrupt

    pool = pool_of(world.client)
    monkeypatch.setattr("cycles._client.pool.acquire", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        await world.acquire(pool.reserve(T(amount)))
    await world.get(world.operations.flush())
    assert pool.stats().live == T(0)
    assert (estimates(shop), shop.count("release")) == ([100 if status == "pooled" else 200], int(status == "direct"))
    assert shop.money() == (0, 100 if status == "pooled" else 0)
    del caught  # until here its traceback refers to the guards, so the garbage collector has ended none of them


async def test_a_child_process_cannot_commit_a_pooled_guard_of_its_parent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_of(world.client)
    guard = await world.acquire(pool.reserve(T(10)))
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        with pytest.raises(cycles.InvalidRequestError, match="belongs to the parent process"):
            await world.get(guard.commit(T(7)))
    assert (guard.state, pool.stats().spent) == ("active", T(0))
    await world.get(guard.commit(T(7)))
    assert pool.stats().spent == T(7)


async def test_a_guard_whose_reserve_is_interrupted_while_the_next_chunk_is_opened_leaves_its_chunk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(pool: Any) -> None:
        raise KeyboardInterrupt

    pool = pool_of(world.client)
    await world.get((await world.acquire(pool.reserve(T(10)))).release())
    with monkeypatch.context() as patch:
        patch.setattr("cycles._client.pool.carry_out", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            await world.acquire(pool.reserve(T(60)))
    assert pool.stats().live == T(0)
    del caught  # its traceback refers to the guard
    await close(world, pool)


def test_a_signal_handler_that_uses_a_new_pool_first_uses_the_same_chunks(client: cycles.Cycles) -> None:
    number, more = 0, True
    while more:
        pool, reserved = pool_of(client), list[Any]()

        def reserve(pool: Any = pool, reserved: list[Any] = reserved) -> None:
            reserved.append(pool.reserve(T(10)))

        more = run_at("/cycles/_client/pool", number, reserve, reserve)
        guards = [each.acquire() for each in reserved]
        assert pool.stats().live == T(10 * len(guards)), number
        for guard in guards:
            guard.release()
        number += 1
    assert number > 10


async def test_wait_is_checked_also_if_the_amount_fits(world: World, client: cycles.Cycles) -> None:
    wrong: Any = "no"
    async with world.enter(pool_of(client).reserve(T(10))) as guard:
        with pytest.raises(cycles.InvalidRequestError, match="wait"):
            await world.get(guard.commit(T(7), wait=wrong))
        for amount in (wrong, 7, cycles.usd(7)):
            with pytest.raises(cycles.InvalidRequestError, match="actual must be"):
                await world.get(guard.commit(amount))
        assert (await world.get(guard.commit(T(7), wait=False))).status == "pooled"


def test_the_lock_of_a_pool_is_held_when_it_gets_a_chunk(client: cycles.Cycles) -> None:
    """Another thread would find a chunk that is counted in part."""
    pool = pool_of(client)
    state = state_of(pool)(runtime_of(client))
    pool_io, is_locked = state.pool_io, list[bool]()

    def at(moment_ms: float, job: Callable[[], object]) -> Any:
        is_locked.append(state.is_inside())
        return pool_io.at(moment_ms, job)

    state.pool_io = evolve(pool_io, at=at)
    use(pool, 10, 7)
    assert is_locked == [True]


def test_a_flush_waits_no_longer_than_its_timeout(client: cycles.Cycles, shop: Shop) -> None:
    shop.faults.refuse("commit", times=None)
    pool = pool_of(client)
    use(pool, 10, 7)
    assert pool.flush(0.01) == cycles.FlushReport(settled=0, pending=1)
    shop.faults.clear()


def test_a_flush_settles_no_chunk_with_a_live_guard(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    use(pool, 10, 7)
    guard = pool.reserve(T(10)).acquire()
    assert pool.flush(0.01) == cycles.FlushReport(pending=1)
    assert shop.count("commit") == 0
    guard.commit(T(5))
    assert pool.flush(PATIENCE_S).pending == 0
    assert [body["actual"]["amount"] for body in shop.bodies("commit")] == [12]
    assert shop.bodies("event") == []


def test_a_chunk_that_was_released_is_not_pending(client: cycles.Cycles, shop: Shop) -> None:
    pool = pool_of(client)
    with pool.reserve(T(10)) as guard:
        guard.release()
    assert pool.flush(PATIENCE_S) == cycles.FlushReport()
    assert len(shop.bodies("release")) == 1


def test_a_settled_chunk_is_freed(client: cycles.Cycles) -> None:
    """A pool may live for weeks, and settles a chunk every half minute."""
    pool = pool_of(client)
    chunk = weakref.ref(chunk_of(use(pool, 10, 7)))
    assert pool.flush(PATIENCE_S) == cycles.FlushReport(settled=1)
    gc.collect()
    assert chunk() is None
    assert pool.stats().spent == T(7)
