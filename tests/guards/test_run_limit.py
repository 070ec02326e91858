"""`cycles.limit(amount)`: what reservations inside may together hold and spend."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import ref

import pytest

import cycles
from cycles._flows.run_limit import HeldByLimits
from tests.support.points import run_at
from tests.support.waiting import until

ACTION = ("llm.completion", "m")
TOO_LITTLE = {"error": "BUDGET_EXCEEDED", "message": "the budget is too small", "request_id": "r"}


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    budgets: list[Any] = [cycles.usd(1000), cycles.tokens(10**9)]
    made = cycles.EmbeddedServer(budgets={"tenant:acme": budgets})
    yield made
    made.close()


@pytest.fixture
def client(server: cycles.EmbeddedServer) -> Iterator[cycles.Cycles]:
    with server.client(tenant="acme", journal=False) as made:
        yield made


def spend(client: cycles.Cycles, estimate: int, actual: int | None = None) -> None:
    with client.reserve(cycles.usd(estimate), action=ACTION) as guard:
        guard.commit(cycles.usd(estimate if actual is None else actual))


def denied(client: cycles.Cycles, estimate: int) -> cycles.BudgetExceededError:
    with pytest.raises(cycles.BudgetExceededError) as raised:
        spend(client, estimate)
    return raised.value


def test_beyond_the_limit_nothing_is_sent(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    with cycles.limit(cycles.usd(3)) as limit:
        spend(client, 2)
        before = len(server.requests)
        error = denied(client, 2)
        assert len(server.requests) == before
        assert (error.code, error.status) == ("RUN_LIMIT", None)
        assert str(error).startswith("the limit of this run is $3.00, and $1.00 of it is left: a reservation of $2.00")
        spend(client, 1)
        assert (limit.spent, limit.held, limit.remaining) == (cycles.usd(3), cycles.usd(0), cycles.usd(0))
    spend(client, 2)


def test_what_is_held_counts_until_it_is_settled(client: cycles.Cycles) -> None:
    with cycles.limit(cycles.usd(3)) as limit:
        guard = client.reserve(cycles.usd(3), action=ACTION).acquire()
        assert limit.held == cycles.usd(3)
        denied(client, 1)
        guard.commit(cycles.usd(1))
        assert (limit.held, limit.spent) == (cycles.usd(0), cycles.usd(1))
        spend(client, 2)


def test_a_release_makes_its_amount_available_again(client: cycles.Cycles) -> None:
    with cycles.limit(cycles.usd(3)) as limit:
        client.reserve(cycles.usd(3), action=ACTION).acquire().release()
        with pytest.raises(RuntimeError), client.reserve(cycles.usd(3), action=ACTION):
            raise RuntimeError
        with pytest.warns(cycles.UncommittedGuardWarning), client.reserve(cycles.usd(3), action=ACTION):
            pass
        assert limit.spent == cycles.usd(0)
        spend(client, 3)


def test_a_commit_above_the_estimate_counts_completely(client: cycles.Cycles) -> None:
    with cycles.limit(cycles.usd(3)) as limit:
        spend(client, 1, actual=5)
        assert (limit.spent, limit.remaining) == (cycles.usd(5), cycles.usd(0))
        denied(client, 1)


def test_spend_above_the_estimate_counts_before_the_commit(client: cycles.Cycles) -> None:
    with cycles.limit(cycles.usd(1)) as limit:
        with client.reserve(cycles.usd("0.20"), action=ACTION) as guard:
            guard.spend(cycles.usd("0.10"))
            assert limit.held == cycles.usd("0.20")
            guard.spend(cycles.usd("0.80"))
            assert (limit.held, limit.remaining) == (cycles.usd("0.90"), cycles.usd("0.10"))
            with pytest.raises(cycles.BudgetExceededError, match=r"\$0.10 of it is left"):
                client.reserve(cycles.usd("0.50"), action=ACTION).acquire()
        assert (limit.spent, limit.held) == (cycles.usd("0.90"), cycles.usd(0))


def test_nested_limits_all_apply(client: cycles.Cycles) -> None:
    with cycles.limit(cycles.usd(10)) as outer:
        with cycles.limit(cycles.usd(2)) as inner:
            spend(client, 2)
            denied(client, 1)
        assert (inner.spent, outer.spent) == (cycles.usd(2), cycles.usd(2))
        with cycles.limit(cycles.usd(100)) as wide:
            denied(client, 9)
            assert (wide.held, outer.held) == (cycles.usd(0), cycles.usd(0))
            spend(client, 8)
        denied(client, 1)


def test_a_denial_of_the_server_holds_nothing(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    server.ledger.set_budget("tenant:acme", cycles.usd(1))
    with cycles.limit(cycles.usd(3)) as limit:
        assert denied(client, 2).code != "RUN_LIMIT"
        assert limit.held == cycles.usd(0)


def test_another_unit_and_shadow_reservations_do_not_count(client: cycles.Cycles) -> None:
    with cycles.limit(cycles.usd(1)) as limit:
        with client.reserve(cycles.tokens(10**6), action=ACTION) as guard:
            guard.commit(cycles.tokens(10**6))
        with client.reserve(cycles.usd(100), action=ACTION, shadow=True) as guard:
            guard.commit(cycles.usd(100))
        assert limit.remaining == cycles.usd(1)


def test_threads_share_the_limit_if_they_share_the_context(client: cycles.Cycles) -> None:
    outcomes: list[str] = []

    def work(_: int) -> None:
        try:
            spend(client, 1)
        except cycles.BudgetExceededError as error:
            outcomes.append(str(error.code))
        else:
            outcomes.append("spent")

    with cycles.limit(cycles.usd(5)), cycles.copy_context_to(ThreadPoolExecutor(8)) as pool:
        list(pool.map(work, range(20)))
    assert sorted(outcomes) == ["RUN_LIMIT"] * 15 + ["spent"] * 5
    outside = threading.Thread(target=work, args=(0,))
    outside.start()
    outside.join()
    assert outcomes[-1] == "spent"


def test_tasks_share_the_limit(client: cycles.Cycles) -> None:
    async def work() -> bool:
        try:
            async with client.reserve(cycles.usd(1), action=ACTION) as guard:
                await guard.commit(cycles.usd(1))
        except cycles.BudgetExceededError as error:
            return error.code != "RUN_LIMIT"
        return True

    async def go() -> list[bool]:
        async with cycles.limit(cycles.usd(5)) as limit:
            done = await asyncio.gather(*(work() for _ in range(12)))
            assert limit.spent == cycles.usd(5)
        assert await work()
        return done

    assert sorted(asyncio.run(go())) == [False] * 7 + [True] * 5


def test_guards_that_are_settled_in_other_ways_count(client: cycles.Cycles) -> None:
    with cycles.limit(cycles.usd(10)) as limit:
        with client.reserve(cycles.usd(4), action=ACTION) as guard:
            guard.spend(cycles.usd(3))
        with pytest.raises(RuntimeError), client.reserve(cycles.usd(4), action=ACTION) as guard:
            guard.spend(cycles.usd(2))
            raise RuntimeError
        assert (limit.spent, limit.held) == (cycles.usd(5), cycles.usd(0))


def test_a_limit_ends_with_its_block_and_may_be_used_again(client: cycles.Cycles) -> None:
    limit = cycles.limit(cycles.usd(2))
    with limit:
        spend(client, 1)
    with limit:
        spend(client, 1)
        denied(client, 1)
    spend(client, 1)


@pytest.mark.parametrize("wrong", [5, "5", None])
def test_a_limit_is_an_amount(wrong: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=r"limit must be an amount: .*cycles\.usd"):
        cycles.limit(wrong)


def test_two_threads_may_be_inside_one_limit_and_leave_it_in_any_order(client: cycles.Cycles) -> None:
    limit, outcomes = cycles.limit(cycles.usd(3)), list[object]()
    inside, left = threading.Event(), threading.Event()

    def other() -> None:
        try:
            with limit:
                inside.set()
                assert left.wait(20)
                spend(client, 2)
                denied(client, 1)
            spend(client, 5)
        except BaseException as error:
            outcomes.append(error)

    thread = threading.Thread(target=other)
    with limit:
        spend(client, 1)
        thread.start()
        assert inside.wait(20)
    left.set()
    thread.join()
    assert (outcomes, limit.spent) == ([], cycles.usd(3))


def test_two_tasks_may_be_inside_one_limit_and_leave_it_in_any_order(client: cycles.Cycles) -> None:
    limit = cycles.limit(cycles.usd(3))

    async def work(cost: int, begins: asyncio.Event, ends: asyncio.Event) -> None:
        async with limit:
            begins.set()
            await ends.wait()
            async with client.reserve(cycles.usd(cost), action=ACTION) as guard:
                await guard.commit(cycles.usd(cost))
        async with client.reserve(cycles.usd(9), action=ACTION) as guard:
            await guard.commit(cycles.usd(9))

    async def go() -> None:
        first, second, never = asyncio.Event(), asyncio.Event(), asyncio.Event()
        one = asyncio.create_task(work(1, first, second))
        await first.wait()
        two = asyncio.create_task(work(2, second, never))
        await one
        never.set()
        await two

    asyncio.run(go())
    assert limit.spent == cycles.usd(3)


def test_a_limit_that_is_entered_twice_counts_each_reservation_once(client: cycles.Cycles) -> None:
    limit = cycles.limit(cycles.usd(2))
    with limit, limit:
        spend(client, 2)
        denied(client, 1)
    assert limit.spent == cycles.usd(2)


def test_a_limit_that_is_entered_again_inside_its_block_applies_after_the_inner_block(client: cycles.Cycles) -> None:
    with cycles.limit(cycles.usd(2)) as limit:
        with limit:
            spend(client, 1)
        denied(client, 2)
    spend(client, 2)
    assert limit.spent == cycles.usd(1)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_guard_that_is_attached_again_counts_once_and_until_its_end(client: cycles.Cycles, is_async: bool) -> None:
    async def attach_async(token: str) -> None:
        async with client.attach(token) as guard:
            assert (limit.held, limit.spent) == (cycles.usd(3), cycles.usd(0))
            await guard.commit(cycles.usd(1))

    with cycles.limit(cycles.usd(3)) as limit:
        token = client.reserve(cycles.usd(3), action=ACTION).acquire().detach()
        assert limit.held == cycles.usd(3)
        if is_async:
            asyncio.run(attach_async(token))
        else:
            with client.attach(token) as guard:
                assert (limit.held, limit.spent) == (cycles.usd(3), cycles.usd(0))
                guard.commit(cycles.usd(1))
        assert (limit.held, limit.spent) == (cycles.usd(0), cycles.usd(1))
        spend(client, 2)


@pytest.mark.parametrize("is_async", [False, True])
def test_spend_above_the_estimate_of_an_attached_guard_counts_before_its_commit(
    client: cycles.Cycles, is_async: bool
) -> None:
    async def attach_async(token: str) -> None:
        async with client.attach(token) as guard:
            see(guard)

    def see(guard: Any) -> None:
        guard.spend(cycles.usd(2))
        assert (limit.held, limit.spent, limit.remaining) == (cycles.usd(2), cycles.usd(0), cycles.usd(1))
        denied(client, 2)

    with cycles.limit(cycles.usd(3)) as limit:
        token = client.reserve(cycles.usd(1), action=ACTION).acquire().detach()
        if is_async:
            asyncio.run(attach_async(token))
        else:
            with client.attach(token) as guard:
                see(guard)
        assert (limit.held, limit.spent) == (cycles.usd(0), cycles.usd(2))


@pytest.mark.parametrize("is_async", [False, True])
def test_a_guard_that_is_detached_twice_and_released_holds_nothing(client: cycles.Cycles, is_async: bool) -> None:
    async def again(token: str) -> str:
        return (await client.attach(token)).detach()

    with cycles.limit(cycles.usd(3)) as limit:
        token = client.reserve(cycles.usd(3), action=ACTION).acquire().detach()
        token = asyncio.run(again(token)) if is_async else client.attach(token).acquire().detach()
        assert limit.held == cycles.usd(3)
        client.attach(token).acquire().release()
        assert (limit.held, limit.spent) == (cycles.usd(0), cycles.usd(0))


def test_of_a_token_that_is_attached_twice_the_first_guard_counts(client: cycles.Cycles) -> None:
    with cycles.limit(cycles.usd(3)) as limit:
        token = client.reserve(cycles.usd(3), action=ACTION).acquire().detach()
        first, again = client.attach(token).acquire(), client.attach(token).acquire()
        first.commit(cycles.usd(2))
        assert (limit.held, limit.spent) == (cycles.usd(0), cycles.usd(2))
        with pytest.raises(cycles.ReservationFinalizedError):
            again.release()


def test_a_rejected_commit_counts_with_its_known_spend(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    with cycles.limit(cycles.usd(3)) as limit:
        guard = client.reserve(cycles.usd(1), action=ACTION, overage_policy="REJECT").acquire()
        with pytest.raises(cycles.BudgetExceededError):
            guard.commit(cycles.usd(2000))
        assert limit.spent == cycles.usd(2000)


def test_a_rejected_excess_counts_while_the_commit_of_its_estimate_has_no_response(
    server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    with cycles.limit(cycles.usd(3)) as limit:
        guard = client.reserve(cycles.usd(1), action=ACTION, overage_policy="REJECT").acquire()
        server.faults.status("commit", 409, body=TOO_LITTLE)
        server.faults.refuse("commit")
        guard.spend(cycles.usd("0.50"))
        with pytest.raises(cycles.BudgetExceededError):
            guard.commit(cycles.usd(2))
        assert (guard.state, limit.spent) == ("pending", cycles.usd(2))


@pytest.mark.parametrize("is_pooled", [False, True])
def test_a_second_commit_of_a_guard_counts_nothing(
    server: cycles.EmbeddedServer, client: cycles.Cycles, is_pooled: bool
) -> None:
    """It raises, so the limit keeps the amount of the first one, whose response is missing."""
    with cycles.limit(cycles.tokens(100)) as limit:
        pays: Any = client.pool(cycles.tokens(40), action=ACTION) if is_pooled else client
        guard = pays.reserve(cycles.tokens(10), action=ACTION).acquire()
        server.faults.refuse("commit", times=None)
        guard.commit(cycles.tokens(5))
        with pytest.raises(cycles.GuardFinalizedError):
            guard.commit(cycles.tokens(80))
        assert limit.spent == cycles.tokens(5)
        server.faults.clear()


@pytest.mark.parametrize("is_async", [False, True])
def test_guards_that_have_ended_do_not_stay_in_memory_until_the_end_of_the_block(
    client: cycles.Cycles, is_async: bool
) -> None:
    def spend_once() -> ref[Any]:
        def actual(_: object) -> cycles.Amount:  # lives as long as its guard
            return cycles.usd(1)

        async def spend_async() -> None:
            async with client.reserve(cycles.usd(2), action=ACTION, actual=actual):
                pass

        if is_async:
            asyncio.run(spend_async())
        else:
            with client.reserve(cycles.usd(2), action=ACTION, actual=actual):
                pass
        return ref(actual)

    with cycles.limit(cycles.usd(10)) as limit:
        guards = [spend_once() for _ in range(3)]
        spend(client, 1)
        gc.collect()
        assert [each() for each in guards] == [None, None, None]
        assert (limit.spent, limit.held) == (cycles.usd(4), cycles.usd(0))


@pytest.mark.filterwarnings("ignore:.*was dropped without commit:ResourceWarning")
def test_a_caller_that_was_interrupted_frees_no_estimate_but_its_own() -> None:
    with cycles.limit(cycles.usd(10)) as limit:
        interrupted, other = HeldByLimits(cycles.usd(4)), HeldByLimits(cycles.usd(6))
        del interrupted
        assert (limit.held, limit.remaining) == (cycles.usd(6), cycles.usd(4))
        with pytest.raises(cycles.BudgetExceededError):
            HeldByLimits(cycles.usd(5))
        with other:
            pass
        assert limit.remaining == cycles.usd(10)


def test_an_interrupt_at_any_point_of_the_limit_holds_nothing_for_ever(client: cycles.Cycles) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    number, more = 0, True
    while more:
        with cycles.limit(cycles.usd(3)) as limit:
            try:
                more = run_at("/cycles/_flows/run_limit", number, interrupt, lambda: spend(client, 2, actual=1))
            except KeyboardInterrupt:
                client.flush(5)
            until(lambda: limit.held == cycles.usd(0))
            assert limit.spent in (cycles.usd(0), cycles.usd(1))
        number += 1
    assert number > 20


def test_a_signal_handler_may_reserve_inside_the_limit_at_any_point(client: cycles.Cycles) -> None:
    number, more = 0, True
    while more:
        with cycles.limit(cycles.usd(6)) as limit:
            more = run_at("/cycles/_flows/run_limit", number, lambda: spend(client, 1), lambda: spend(client, 2))
            assert (limit.spent, limit.held) == (cycles.usd(3 if more else 2), cycles.usd(0)), number
        number += 1
    assert number > 20
