"""How the guards of a pool end: every row of the table in `docs/pools.md`, sync and async."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable
from typing import Any

import pytest

import cycles
from tests.recovery.kit import records_in, rejected_in
from tests.support.inside import state_of

from .conftest import ACTION, Shop, T, World, close, named, seal

pytestmark = pytest.mark.anyio


def pool_of(world: World, max_held: int = 400, **options: Any) -> Any:
    return world.client.pool(T(max_held), action=ACTION, **options)


async def eventually(shop: Shop, condition: Callable[[], object]) -> None:
    await asyncio.to_thread(shop.until, condition)


async def test_a_commit_within_the_estimate_sends_nothing(world: World, shop: Shop) -> None:
    pool = pool_of(world)
    async with world.enter(pool.reserve(T(40))) as guard:
        assert (guard.state, guard.is_pooled, guard.estimate, guard.reserved) == ("active", True, T(40), T(40))
        settlement = await world.get(guard.commit(T(7)))
    assert (settlement.status, settlement.actual, settlement.charged) == ("pooled", T(7), None)
    assert guard.state == "pooled"
    assert (guard.chunk.spent, guard.chunk.guards, guard.chunk.state) == (T(7), 1, "open")
    assert isinstance(guard, cycles.AsyncGuard if world.is_async else cycles.Guard)
    assert (shop.count("reserve"), shop.count("commit")) == (1, 0)
    await close(world, pool)
    confirmed: Any = guard.settlement
    assert (guard.state, confirmed.status, confirmed.charged) == ("committed", "committed", T(7))
    assert shop.money() == (7, 0)
    assert (shop.count("reserve"), shop.count("commit")) == (1, 1)


async def test_an_actual_above_the_estimate_is_pooled_if_it_fits(world: World, shop: Shop) -> None:
    pool = pool_of(world, overage_policy="REJECT")
    async with world.enter(pool.reserve(T(10))) as guard:
        assert (await world.get(guard.commit(T(90)))).status == "pooled"
    await close(world, pool)
    assert shop.money() == (90, 0)
    assert shop.count("event") == 0


async def test_under_reject_an_excess_that_does_not_fit_raises(world: World, shop: Shop, events: list[Any]) -> None:
    pool = pool_of(world, overage_policy="REJECT")
    guard = await world.acquire(pool.reserve(T(10)))
    with pytest.raises(cycles.BudgetExceededError, match="no space for 120 tokens above the estimate"):
        await world.get(guard.commit(T(130)))
    assert (guard.state, guard.settlement) == ("rejected", None)
    await close(world, pool)
    assert shop.money() == (10, 0)
    assert (guard.state, guard.settlement) == ("rejected", None), "the chunk is committed, this amount is not"
    (kept,) = rejected_in(shop.folder)
    assert kept["record"]["event_fallback_body"]["actual"]["amount"] == 120
    assert [each.amount for each in world.client.pending(rejected=True)] == [T(120)]
    assert [event.actual for event in named(events, "SettlementRejected")] == [T(120)]


@pytest.mark.parametrize("policy", [None, "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"])
async def test_an_excess_that_does_not_fit_is_an_event(world: World, shop: Shop, policy: str | None) -> None:
    pool = pool_of(world, overage_policy=policy)
    guard = await world.acquire(pool.reserve(T(10)))
    assert (await world.get(guard.commit(T(130), metadata={"job": "j"}))).status == "pooled"
    await eventually(shop, lambda: shop.count("event") == 1)
    await close(world, pool)
    assert shop.money() == (130, 0)
    (event,) = shop.bodies("event")
    assert event["actual"]["amount"] == 30
    assert event["metadata"] == {"job": "j", "pool_excess_of": guard.reservation_id}
    assert event.get("overage_policy") == policy
    await eventually(shop, lambda: guard.settlement.charged == T(130))
    assert pool_stats_excess(pool) == T(30)


def pool_stats_excess(pool: Any) -> cycles.Amount:
    excess: cycles.Amount = pool.stats().excess
    return excess


async def test_the_excess_is_saved_before_it_is_sent(world: World, shop: Shop) -> None:
    shop.faults.status("event", 503, times=None)
    pool = pool_of(world)
    guard = await world.acquire(pool.reserve(T(10)))
    await world.get(guard.commit(T(130)))
    # The full chunk is committed in the background: its record may be there as well.
    (record,) = [each for each in records_in(shop.folder) if each["mode"] == "event"]
    assert record["event_fallback_body"]["actual"]["amount"] == 30
    await eventually(shop, lambda: guard.state == "committed")
    assert guard.settlement.charged is None  # a part of it is not charged yet
    shop.faults.clear()
    await world.get(world.operations.flush())
    await eventually(shop, lambda: guard.settlement.charged == T(130))
    await close(world, pool)
    assert shop.money() == (130, 0)


async def test_a_guard_of_a_sealed_chunk_moves_into_an_open_one(world: World, shop: Shop) -> None:
    pool = pool_of(world)
    guard = await world.acquire(pool.reserve(T(10)))
    first = guard.reservation_id
    seal(guard)
    other = await world.acquire(pool.reserve(T(10)))
    assert other.reservation_id != first
    assert (await world.get(guard.commit(T(7)))).status == "pooled"
    assert guard.reservation_id == other.reservation_id
    await world.get(other.release())
    await close(world, pool)
    assert shop.money() == (7, 0)


async def test_without_an_open_chunk_the_amount_of_a_sealed_one_is_an_event(world: World, shop: Shop) -> None:
    pool = pool_of(world)
    guard = await world.acquire(pool.reserve(T(10)))
    await close(world, pool)
    assert (await world.get(guard.commit(T(7)))).status == "pooled"
    await eventually(shop, lambda: guard.state == "committed")
    assert guard.settlement.status == "recorded_as_event"
    (event,) = shop.bodies("event")
    assert event["metadata"]["recovered_reservation_id"] == guard.reservation_id
    assert shop.money() == (7, 0)


async def test_a_release_frees_the_estimate_and_sends_nothing(world: World, shop: Shop) -> None:
    pool = pool_of(world)
    guard = await world.acquire(pool.reserve(T(40)))
    assert pool.stats().free == T(60)
    assert await world.get(guard.release()) is None
    assert (guard.state, guard.settlement) == ("released", None)
    assert pool.stats().free == T(100)
    await close(world, pool)
    assert shop.money() == (0, 0)
    assert shop.bodies("release")[0]["reason"] == "pool_unused"


async def test_a_block_that_reports_no_cost_warns_as_for_other_guards(
    world: World, shop: Shop, events: list[Any]
) -> None:
    pool = pool_of(world)
    with pytest.warns(cycles.UncommittedGuardWarning):
        async with world.enter(pool.reserve(T(10))) as guard:
            pass
    assert guard.state == "released"
    assert len(named(events, "GuardNotCommitted")) == 1


@pytest.mark.parametrize("end", ["spend", "actual", "raise", "usage"])
async def test_a_block_ends_by_the_table_of_guards(world: World, shop: Shop, end: str) -> None:
    pool = pool_of(world)
    actual = {"actual": T(7), "usage": lambda usage: T(usage.tokens_output)}.get(end)
    with pytest.raises(KeyError) if end in ("raise", "usage") else _nothing():
        async with world.enter(pool.reserve(T(50), actual=actual)) as guard:
            if end == "usage":
                guard.usage.add(tokens_output=7)
            elif end != "actual":
                guard.spend(T(7))
            if end in ("raise", "usage"):
                raise KeyError(end)
    assert (guard.state, guard.settlement.actual) == ("pooled", T(7))
    await close(world, pool)
    (commit,) = shop.bodies("commit")
    assert commit["actual"]["amount"] == 7
    assert commit["metrics"]["custom"]["pool_errors"] == (end in ("raise", "usage"))


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


async def test_a_block_that_raises_without_spend_is_released(world: World, shop: Shop) -> None:
    pool = pool_of(world)
    with pytest.raises(KeyError):
        async with world.enter(pool.reserve(T(50))) as guard:
            raise KeyError
    assert guard.state == "released"
    assert pool.stats().live == T(0)


async def test_a_second_end_raises_and_changes_nothing(world: World) -> None:
    pool = pool_of(world)
    guard = await world.acquire(pool.reserve(T(50)))
    await world.get(guard.commit(T(7)))
    for end in (lambda: guard.commit(T(1)), guard.release, lambda: guard.commit(T(1), metadata={"a": 1})):
        with pytest.raises(cycles.GuardFinalizedError):
            await world.get(end())
    with pytest.raises(cycles.GuardFinalizedError):
        guard.spend(T(1))
    assert pool.stats().spent == T(7)


async def test_a_commit_without_an_amount_needs_known_spend(world: World) -> None:
    pool = pool_of(world)
    guard = await world.acquire(pool.reserve(T(50)))
    with pytest.raises(cycles.InvalidRequestError, match=r"commit\(\) has no amount"):
        await world.get(guard.commit())
    assert guard.state == "active"
    guard.spend(T(3))
    guard.spend(T(4))
    assert (await world.get(guard.commit())).actual == T(7)


async def test_an_amount_in_another_unit_is_rejected(world: World) -> None:
    pool = pool_of(world)
    guard = await world.acquire(pool.reserve(T(50)))
    with pytest.raises(cycles.InvalidRequestError, match="unit of the reservation"):
        await world.get(guard.commit(cycles.usd(1)))
    await world.get(guard.release())
    with pytest.raises(cycles.InvalidRequestError, match="unit of the pool"):
        pool.reserve(cycles.usd(1))


async def test_a_shadow_pool_holds_and_sends_nothing(world: World, shop: Shop, events: list[Any]) -> None:
    pool = pool_of(world, shadow=True)
    for number in range(20):
        async with world.enter(pool.reserve(T(10))) as guard:
            if number % 2:
                assert (await world.get(guard.commit(T(7)))).status == "shadow"
            else:
                await world.get(guard.release())
        assert guard.state == ("committed" if number % 2 else "released")
    assert pool.stats().held == T(0)
    await close(world, pool)
    assert shop.money() == (0, 0)
    assert shop.count("commit") == shop.count("release") == 0
    assert [body["dry_run"] for body in shop.bodies("reserve")] == [True] * shop.count("reserve")
    assert shop.count("reserve") <= 2


async def test_a_shadow_pool_runs_with_any_decision(world: World, shop: Shop) -> None:
    shop.ledger.set_budget("tenant:acme", T(10))
    pool = pool_of(world, shadow=True)
    async with world.enter(pool.reserve(T(50))) as guard:
        assert guard.decision == "DENY"
        await world.get(guard.commit(T(7)))
    assert guard.state == "committed"


async def test_a_pooled_guard_cannot_be_detached_extended_or_copied(world: World) -> None:
    pool = pool_of(world)
    guard = await world.acquire(pool.reserve(T(50)))
    with pytest.raises(cycles.InvalidRequestError, match="cannot be detached"):
        guard.detach()
    assert await world.get(guard.extend()) is None
    with pytest.raises(TypeError):
        copy.copy(guard)
    with pytest.raises(cycles.InvalidRequestError, match="idempotency_key"):
        pool.reserve(T(1), idempotency_key="k")
    await world.get(guard.release())
    with pytest.raises(cycles.GuardFinalizedError):
        await world.get(guard.extend())


async def test_settled_waits_for_the_commit_of_the_chunk(world: World, shop: Shop) -> None:
    pool = pool_of(world)
    guard = await world.acquire(pool.reserve(T(50)))
    await world.get(guard.commit(T(7)))
    assert (await world.get(guard.settled(0.0))).status == "pooled"
    await world.get(pool.aio.flush() if world.is_async else pool.flush())
    settlement = await world.get(guard.settled())
    assert (settlement.status, settlement.charged) == ("committed", T(7))


async def test_the_rejection_of_a_chunk_is_that_of_its_guards(world: World, shop: Shop, events: list[Any]) -> None:
    frozen = {"error": "BUDGET_FROZEN", "message": "frozen", "request_id": "r"}
    shop.faults.status("commit", 409, body=frozen)
    pool = pool_of(world)
    guards = [await world.acquire(pool.reserve(T(10))) for _ in range(3)]
    for guard in guards:
        await world.get(guard.commit(T(7)))
    await close(world, pool)
    assert {guard.state for guard in guards} == {"rejected"}
    with pytest.raises(cycles.BudgetFrozenError):
        await world.get(guards[0].settled())
    await eventually(shop, lambda: named(events, "SettlementRejected"))
    (rejected,) = named(events, "SettlementRejected")
    assert (rejected.actual, rejected.guards) == (T(21), 3)
    assert "commit of 21 tokens of 3 guards of a pool was rejected" in rejected.text()
    assert shop.logs() == []
    await eventually(shop, lambda: [each.amount for each in world.client.pending(rejected=True)] == [T(21)])


async def test_an_expired_chunk_is_one_event_with_the_same_key_and_sum(world: World, shop: Shop) -> None:
    expired = {"error": "RESERVATION_EXPIRED", "message": "over", "request_id": "r"}
    shop.faults.status("commit", 410, body=expired)
    pool = pool_of(world)
    guards = [await world.acquire(pool.reserve(T(10))) for _ in range(3)]
    for guard in guards:
        await world.get(guard.commit(T(7)))
    await close(world, pool)
    assert {guard.settlement.status for guard in guards} == {"recorded_as_event"}
    (commit,), (event,) = shop.bodies("commit"), shop.bodies("event")
    assert commit["idempotency_key"] == event["idempotency_key"]
    assert event["actual"]["amount"] == 21


async def test_an_undercharged_event_leaves_the_charged_amounts_unknown(world: World, shop: Shop) -> None:
    expired = {"error": "RESERVATION_EXPIRED", "message": "over", "request_id": "r"}
    pool = pool_of(world)
    guard = await world.acquire(pool.reserve(T(50)))
    await world.get(guard.commit(T(50)))
    shop.faults.status("commit", 410, body=expired)
    shop.ledger.set_budget("tenant:acme", T(120))
    await close(world, pool)
    assert guard.state == "committed"
    assert guard.chunk.settlement.undercharged
    assert guard.settlement.charged is None


async def test_the_commit_has_sums_and_the_event_has_the_rest(world: World, shop: Shop, events: list[Any]) -> None:
    began_ms = time.time() * 1000
    pool = pool_of(world, metadata={"team": "t"})
    for number in range(3):
        guard = await world.acquire(pool.reserve(T(10), action=("tool", f"n{number % 2}"), metadata={"job": number}))
        metrics = cycles.Metrics(tokens_input=10, tokens_output=number, model_version="m")
        await world.get(guard.commit(T(7), metrics=metrics, metadata={"x": number}))
    released = await world.acquire(pool.reserve(T(10)))
    await world.get(released.release())
    await close(world, pool)
    (commit,) = shop.bodies("commit")
    assert (commit["metrics"]["tokens_input"], commit["metrics"]["tokens_output"]) == (30, 3)
    assert commit["metrics"]["model_version"] == "m"
    assert "latency_ms" not in commit["metrics"]
    custom = commit["metrics"]["custom"]
    assert (custom["pool_calls"], custom["pool_released"], custom["pool_errors"]) == (3, 1, 0)
    metadata = commit["metadata"]
    assert metadata["actions"] == {"n0": [2, 14], "n1": [1, 7]}
    assert (metadata["team"], metadata["pool_calls"], metadata["pool_chunk"]) == ("t", 3, 1)
    hour_ms = 3_600_000  # the clock of the machine may be set while the test runs
    assert began_ms - hour_ms < metadata["first_ms"] <= metadata["last_ms"] < began_ms + hour_ms
    assert 0 <= custom["pool_latency_ms"] < hour_ms
    settled = named(events, "PooledSettled")
    assert [(event.actual, event.action.name, event.metadata) for event in settled] == [
        (T(7), f"n{number % 2}", {"job": number, "x": number}) for number in range(3)
    ]
    assert [event.metrics.tokens_output for event in settled] == [0, 1, 2]
    (opened,), (done,) = named(events, "ChunkOpened"), named(events, "ChunkSettled")
    assert (opened.amount, done.spent, done.guards) == (T(100), T(21), 3)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize(
    ("given", "metadata"),
    [
        ({}, {"team": "t"}),
        ({"action": ("k", "n")}, {"team": "t"}),
        ({"subject": {"agent": "a"}}, {"team": "t"}),
        ({"lease_policy": "cancel"}, {"team": "t"}),
        ({"action": ("k", "n"), "metadata": {"job": 1}}, {"job": 1}),
    ],
    ids=["nothing", "action", "subject", "lease policy", "metadata"],
)
async def test_a_guard_has_the_metadata_of_its_pool_unless_it_has_its_own(
    world: World, shop: Shop, given: dict[str, Any], metadata: dict[str, Any], outside: bool
) -> None:
    pool = pool_of(world, metadata={"team": "t"})
    # An estimate that no chunk has space for is reserved directly, by a request that has the metadata.
    guard = await world.acquire(pool.reserve(T(150 if outside else 10), **given))
    assert state_of(guard).request.metadata == metadata
    await world.get(guard.commit(T(7)))
    await close(world, pool)


@pytest.mark.parametrize("given", ["metrics", "metadata"])
async def test_a_commit_may_have_metrics_without_metadata_or_the_other_way_around(
    world: World, shop: Shop, events: list[Any], given: str
) -> None:
    pool = pool_of(world)
    guard = await world.acquire(pool.reserve(T(10)))
    if given == "metrics":
        await world.get(guard.commit(T(7), metrics=cycles.Metrics(tokens_input=10)))
    else:
        await world.get(guard.commit(T(7), metadata={"x": 1}))
    await close(world, pool)
    (settled,) = named(events, "PooledSettled")
    assert settled.metadata == ({} if given == "metrics" else {"x": 1})
    (commit,) = shop.bodies("commit")
    assert commit["metrics"].get("tokens_input") == (10 if given == "metrics" else None)


async def test_caps_and_steps_are_those_of_the_chunk(world: World, shop: Shop) -> None:
    shop.ledger.set_budget("tenant:acme", T(1000), caps={"max_tokens": 5, "max_steps_remaining": 1})
    pool = pool_of(world)
    first, second = [await world.acquire(pool.reserve(T(10))) for _ in range(2)]
    assert (first.is_capped, second.caps.max_tokens) == (True, 5)
    assert first.step() == 1
    with pytest.raises(cycles.StepsExhaustedError):
        second.step()
    for guard in (first, second):
        await world.get(guard.release())


@pytest.mark.parametrize(("before", "after"), [(None, 5), (7, 5), (7, None)])
async def test_changed_caps_end_the_older_chunks(
    world: World, shop: Shop, before: int | None, after: int | None
) -> None:
    caps: list[Any] = [None if limit is None else {"max_tokens": limit} for limit in (before, after)]
    shop.ledger.set_budget("tenant:acme", T(1000), caps=caps[0])
    pool = pool_of(world)
    old = await world.acquire(pool.reserve(T(40)))
    shop.ledger.set_budget("tenant:acme", T(1000), caps=caps[1])
    new = await world.acquire(pool.reserve(T(90)))
    assert [guard.max_tokens() for guard in (old, new)] == [before, after]
    assert old.chunk.state == "draining"
    for guard in (old, new):
        await world.get(guard.release())


async def test_a_dropped_guard_gives_its_estimate_back(world: World, shop: Shop) -> None:
    pool = pool_of(world)
    guard = await world.acquire(pool.reserve(T(50)))
    with pytest.warns(ResourceWarning):
        del guard
    await eventually(shop, lambda: pool.stats().live == T(0))


async def test_a_decorated_function_and_a_stream_use_the_pool(world: World, shop: Shop) -> None:
    pool = pool_of(world)
    work = pool.guarded(T(50), actual=lambda result: T(result))(world.function(lambda: 7))
    assert await world.get(work()) == 7

    def numbers() -> Any:
        yield from (1, 2)

    stream = pool.guarded(lambda: T(20), actual=lambda usage: T(5), action=("tool", "t"))(world.generator(numbers))
    assert await world.all(stream()) == [1, 2]
    await close(world, pool)
    assert shop.money() == (12, 0)
    with pytest.raises(cycles.InvalidRequestError, match="ttl_ms is not an option of a guard in a pool"):
        pool.guarded(T(1), ttl_ms=5_000)


async def test_the_current_guard_is_that_of_the_pool(world: World) -> None:
    pool = pool_of(world)
    async with world.enter(pool.reserve(T(50))) as guard:
        assert cycles.current_guard() is guard
        assert guard is not None
        guard.spend(T(1))
    assert cycles.current_guard() is None


async def test_what_is_free_is_the_sum_of_all_open_chunks(world: World, shop: Shop) -> None:
    pool = pool_of(world, 200, chunk=T(100))  # no third one is opened ahead
    guards = [await world.acquire(pool.reserve(T(estimate))) for estimate in (70, 80)]
    assert (pool.stats().chunks, pool.stats().free, pool.stats().live) == (2, T(50), T(150))
    for guard in guards:
        await world.get(guard.release())
    assert (pool.stats().free, pool.stats().live) == (T(200), T(0))
    await close(world, pool)
    assert (pool.stats().free, pool.stats().held) == (T(0), T(0))


async def test_a_pool_may_be_closed_again_also_after_its_client(world: World, shop: Shop) -> None:
    pool = pool_of(world)
    await world.get((await world.acquire(pool.reserve(T(10)))).commit(T(7)))
    for _ in range(2):
        await close(world, pool)
    await world.client.aclose()
    await close(world, pool)
    assert pool.stats().spent == T(7)
    assert shop.money() == (7, 0)
    assert len(shop.bodies("commit")) == 1


async def test_chunks_have_the_dimensions_of_their_pool_and_not_of_the_block_that_made_it(
    world: World, shop: Shop
) -> None:
    with cycles.run("r1"):
        pool = pool_of(world, subject={"dimensions": {"team": "red"}})
    await world.get((await world.acquire(pool.reserve(T(10)))).commit(T(7)))
    assert [body["subject"]["dimensions"] for body in shop.bodies("reserve")] == [{"team": "red"}]
    await close(world, pool)
