"""Every row of the table "How a block ends", sync and async, over real HTTP."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any

import pytest

import cycles
from cycles import events as told
from cycles._flows.heartbeat import send_heartbeat
from cycles._flows.io import run
from tests.support.inside import runtime_of, state_of

from .conftest import Shop, World

pytestmark = pytest.mark.anyio

T = cycles.tokens


class Boom(Exception):
    pass


async def test_a_commit_inside_is_all_that_happens(world: World, shop: Shop) -> None:
    async with world.enter(world.reserve()) as guard:
        settlement = await world.get(guard.commit(T(32)))
        assert guard.state == "committed"
    assert shop.operations == ["reserve", "commit"]
    assert (settlement.status, settlement.charged, settlement.released) == ("committed", T(32), T(68))
    assert guard.settlement is settlement
    assert shop.money() == (32, 0)


async def test_a_release_inside_is_all_that_happens(world: World, shop: Shop) -> None:
    async with world.enter(world.reserve()) as guard:
        response = await world.get(guard.release("changed my mind"))
    assert shop.operations == ["reserve", "release"]
    assert shop.bodies("release")[0]["reason"] == "changed my mind"
    assert response.released == T(100)
    assert guard.state == "released"
    assert shop.money() == (0, 0)


async def test_no_lease_is_renewed_while_its_release_is_sent(world: World, shop: Shop) -> None:
    """The server would reject an extend that it receives after the release, and the lease would count as lost."""
    guard = await world.acquire(world.reserve())
    heartbeat = state_of(guard).heartbeat
    blocking = runtime_of(world.client).blocking
    shop.on_arrival["release"] = lambda: run(send_heartbeat(blocking, heartbeat))
    await world.get(guard.release())
    assert shop.operations == ["reserve", "release"]


async def test_what_was_spent_is_committed(world: World, shop: Shop) -> None:
    async with world.enter(world.reserve()) as guard:
        assert guard.spend(T(3)) == T(3)
        assert guard.spend(T(4)) == guard.spent == T(7)
    assert shop.money() == (7, 0)
    assert "metadata" not in shop.bodies("commit")[0]


async def test_nothing_spent_is_an_amount_too(world: World, shop: Shop) -> None:
    async with world.enter(world.reserve()) as guard:
        guard.spend(T(0))
    assert (guard.state, shop.operations) == ("committed", ["reserve", "commit"])


async def test_spend_goes_before_actual(world: World, shop: Shop) -> None:
    async with world.enter(world.reserve(actual=T(50))) as guard:
        guard.spend(T(4))
    assert shop.money() == (4, 0)


async def test_commit_without_an_amount_commits_what_was_spent(world: World, shop: Shop) -> None:
    async with world.enter(world.reserve()) as guard:
        guard.spend(T(9))
        await world.get(guard.commit())
    assert shop.money() == (9, 0)


async def test_a_fixed_actual_is_committed(world: World, shop: Shop) -> None:
    async with world.enter(world.reserve(actual=T(11))):
        pass
    assert shop.money() == (11, 0)


async def test_an_actual_is_called_with_the_usage(world: World, shop: Shop) -> None:
    async with world.enter(world.reserve(actual=lambda usage: T(usage.tokens_input + usage.tokens_output))) as guard:
        guard.usage.add(tokens_input=5, tokens_output=6)
    assert shop.money() == (11, 0)


def without_price(usage: object) -> cycles.Amount:
    class UnpricedError(Exception):
        pass

    raise UnpricedError


@pytest.mark.parametrize(
    "wrong",
    [lambda usage: 1 // 0, without_price, lambda usage: cycles.usd(1), lambda usage: 12, lambda: T(1)],
    ids=["raises", "raises its own", "other unit", "no amount", "wrong signature"],
)
async def test_an_actual_that_fails_costs_the_estimate(world: World, shop: Shop, events: list[Any], wrong: Any) -> None:
    async with world.enter(world.reserve(actual=wrong)) as guard:
        pass
    assert shop.money() == (100, 0)
    assert shop.bodies("commit")[0]["metadata"] == {"actual_source": "estimate"}
    assert [event.reservation_id for event in events if isinstance(event, told.ActualFailed)] == [guard.reservation_id]


async def test_a_block_without_an_amount_is_released_with_a_warning(
    world: World, shop: Shop, events: list[Any]
) -> None:
    with pytest.warns(cycles.UncommittedGuardWarning, match="guard.commit") as warned:
        async with world.enter(world.reserve()) as guard:
            guard.usage.add(tokens_input=5)  # usage alone is no amount
    assert shop.bodies("release")[0]["reason"] == "guard_exited_without_commit"
    assert (guard.state, shop.money()) == ("released", (0, 0))
    assert any(isinstance(event, told.GuardNotCommitted) for event in events)
    assert len(warned) == 1


@pytest.mark.parametrize("kind", [Boom, asyncio.CancelledError, KeyboardInterrupt, SystemExit])
async def test_a_block_that_raises_releases_the_budget(world: World, shop: Shop, kind: Any) -> None:
    thrown = kind("mine")
    with pytest.raises(kind) as caught:
        async with world.enter(world.reserve(actual=T(50))) as guard:
            raise thrown
    assert caught.value is thrown
    assert shop.bodies("release")[0]["reason"] == f"block_raised:{kind.__name__}"
    assert (guard.state, shop.money()) == ("released", (0, 0))


@pytest.mark.parametrize("kind", [Boom, asyncio.CancelledError, KeyboardInterrupt])
async def test_a_block_that_raises_still_pays_what_it_spent(world: World, shop: Shop, kind: Any) -> None:
    thrown = kind("mine")
    with pytest.raises(kind) as caught:
        async with world.enter(world.reserve()) as guard:
            guard.spend(T(7))
            raise thrown
    assert caught.value is thrown
    assert shop.bodies("commit")[0]["metadata"] == {"outcome": "error"}
    assert (guard.state, shop.money()) == ("committed", (7, 0))


async def test_a_block_that_raises_calls_actual_if_it_used_anything(world: World, shop: Shop) -> None:
    with pytest.raises(Boom):
        async with world.enter(world.reserve(actual=lambda usage: T(usage.tokens_input))) as guard:
            guard.usage.add(tokens_input=8)
            raise Boom
    assert shop.money() == (8, 0)
    assert shop.bodies("commit")[0]["metadata"] == {"outcome": "error"}
    assert shop.bodies("commit")[0]["metrics"]["tokens_input"] == 8


async def test_a_block_that_raises_calls_nothing_if_it_used_nothing(world: World, shop: Shop) -> None:
    with pytest.raises(Boom):
        async with world.enter(world.reserve(actual=lambda usage: T(8))):
            raise Boom
    assert shop.operations == ["reserve", "release"]


async def test_a_failing_actual_of_a_block_that_raised_is_marked_twice(world: World, shop: Shop) -> None:
    with pytest.raises(Boom):
        async with world.enter(world.reserve(actual=lambda usage: 1 // 0)) as guard:
            guard.usage.add(tokens_input=8)
            raise Boom
    assert shop.bodies("commit")[0]["metadata"] == {"outcome": "error", "actual_source": "estimate"}


@pytest.mark.parametrize("status", [409, 500, 404], ids=["refused", "failing", "gone"])
async def test_a_failing_release_never_hides_the_exception(world: World, shop: Shop, status: int) -> None:
    body = {"error": "RESERVATION_FINALIZED", "message": "no", "request_id": "r"} if status == 409 else "<html>"
    shop.faults.status("release", status, body=body)
    with pytest.raises(Boom):
        async with world.enter(world.reserve()):
            raise Boom


async def test_a_rejected_commit_never_hides_the_exception(world: World, shop: Shop) -> None:
    shop.faults.status("commit", 409, body={"error": "BUDGET_EXCEEDED", "message": "no", "request_id": "r"})
    with pytest.raises(Boom) as caught:
        async with world.enter(world.reserve()) as guard:
            guard.spend(T(7))
            raise Boom
    assert guard.state == "rejected"
    assert "BUDGET_EXCEEDED" in caught.value.__notes__[0]


async def test_a_rejected_commit_at_the_end_of_a_block_raises(world: World, shop: Shop) -> None:
    with pytest.raises(cycles.BudgetExceededError):
        async with world.enter(world.reserve(overage_policy="REJECT")) as guard:
            guard.spend(T(2_000_000))
    assert (guard.state, shop.money()[0]) == ("rejected", 100)  # the estimate is charged, the rest is not


async def test_a_block_that_raises_after_its_commit_changes_nothing(world: World, shop: Shop) -> None:
    with pytest.raises(Boom):
        async with world.enter(world.reserve()) as guard:
            await world.get(guard.commit(T(5)))
            raise Boom
    assert shop.operations == ["reserve", "commit"]
    assert shop.money() == (5, 0)


async def test_a_denial_comes_before_the_block(world: World, shop: Shop) -> None:
    ran = []
    with pytest.raises(cycles.BudgetExceededError) as caught:
        async with world.enter(world.reserve(T(2_000_000))):
            ran.append(1)
    assert not ran
    assert caught.value.code == "BUDGET_EXCEEDED"
    assert caught.value.request_id
    assert shop.operations == ["reserve"]


async def test_leaving_a_block_takes_its_guard_away_from_the_context(world: World) -> None:
    outer = cycles.current_guard()
    async with world.enter(world.reserve(actual=T(1))) as guard:
        assert cycles.current_guard() is guard
        async with world.enter(world.reserve(actual=T(1))) as inner:
            assert cycles.current_guard() is inner
        assert cycles.current_guard() is guard
    assert cycles.current_guard() is outer


async def test_an_async_generator_closed_in_its_block_settles(client: cycles.Cycles, shop: Shop) -> None:
    async def stream(spends: bool) -> Any:
        async with client.reserve(T(100), action=("a", "b")) as guard:
            if spends:
                guard.spend(T(6))
            yield guard

    for spends in (True, False):
        items = stream(spends)
        await anext(items)
        await items.aclose()
    assert shop.bodies("commit")[0]["metadata"] == {"outcome": "error"}  # the block's rule: it raised
    assert shop.bodies("release")[0]["reason"] == "block_raised:GeneratorExit"
    assert shop.money() == (6, 0)


async def test_a_generator_closed_in_its_block_settles(client: cycles.Cycles, shop: Shop) -> None:
    def stream(spends: bool) -> Any:
        with client.reserve(T(100), action=("a", "b")) as guard:
            if spends:
                guard.spend(T(6))
            yield guard

    for spends in (True, False):
        items = stream(spends)
        next(items)
        items.close()
    assert shop.bodies("release")[0]["reason"] == "block_raised:GeneratorExit"
    assert shop.money() == (6, 0)


async def test_a_block_whose_commit_is_rejected_has_the_current_guard_no_longer(world: World, shop: Shop) -> None:
    shop.faults.status("commit", 409, body={"error": "BUDGET_EXCEEDED", "message": "no", "request_id": "r"})
    reservation = world.reserve(actual=T(7))
    guards: list[Any] = []
    with pytest.raises(cycles.BudgetExceededError):
        async with world.enter(reservation) as guard:
            guards.append(guard)
            assert cycles.current_guard() is guard
    assert guards[0].state == "rejected"
    assert cycles.current_guard() is None


USES: dict[str, Any] = {
    "commit": lambda guard: guard.commit(T(1)),
    "settled": lambda guard: guard.settled(),
    "release": lambda guard: guard.release(),
    "extend": lambda guard: guard.extend(),
    "spend": lambda guard: guard.spend(T(1)),
    "detach": lambda guard: guard.detach(),
    "wrap": lambda guard: guard.wrap([]),
}


@pytest.mark.parametrize("use", USES)
async def test_a_child_process_cannot_use_a_guard_of_its_parent(
    world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    guard = await world.acquire(world.reserve())
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        with pytest.raises(cycles.InvalidRequestError, match="belongs to the parent process, which settles it"):
            await world.get(USES[use](guard))
        with pytest.raises(cycles.InvalidRequestError, match="belongs to the parent process"):
            async with world.enter(guard):
                raise AssertionError("never runs")
    assert (shop.operations, guard.state, guard.spent) == (["reserve"], "active", None)
    await world.get(guard.release())


@pytest.mark.parametrize("is_shadow", [False, True])
async def test_a_guard_that_is_dropped_in_a_child_or_is_a_shadow_ends_silently(
    world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch, is_shadow: bool
) -> None:
    guard = await world.acquire(world.reserve(shadow=is_shadow))
    reservation_id = guard.reservation_id
    with monkeypatch.context() as child:
        if not is_shadow:
            child.setattr(os, "getpid", lambda: -1)
        del guard
        gc.collect()
    await world.get(world.operations.flush())
    assert shop.operations == ["reserve"]
    if not is_shadow:
        await world.get(world.operations.release_reservation(reservation_id))


async def test_the_block_of_a_parent_process_ends_in_its_child_without_a_request(
    world: World, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as child:
        async with world.enter(world.reserve(actual=T(7))) as guard:
            child.setattr(os, "getpid", lambda: -1)
        assert cycles.current_guard() is None
        assert shop.operations == ["reserve"]
    await world.get(guard.release())
