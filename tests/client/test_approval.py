"""Approval: reservations above a used fraction need a reply of a function."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cycles
from tests.client.soft_limits import ACTION, SCOPE, spend
from tests.support.inside import runtime_of
from tests.support.points import run_at
from tests.support.waiting import PATIENCE_S, Arrivals, set_by, until


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({SCOPE: [cycles.usd(100), cycles.tokens(100)]}) as server:
        yield server


class Reviewer:
    """A function for `approve`: it returns the replies in order, and keeps what it got."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.requests: list[cycles.ApprovalRequest] = []

    def __call__(self, request: cycles.ApprovalRequest) -> Any:
        self.requests.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def test_approve_is_called_from_the_fraction_on_and_a_no_sends_nothing(server: cycles.EmbeddedServer) -> None:
    review = Reviewer(True, False)
    with server.client(approve=review) as client:
        spend(client, 90)
        assert review.requests == []  # nothing was known yet
        spend(client, 1)
        [request] = review.requests
        assert (request.scope, request.fraction, request.estimate) == (SCOPE, 0.9, cycles.usd(1))
        assert cycles.to_usd(request.remaining) == 10
        assert request.action.name == "m"
        assert request.subject.tenant == "acme"
        sent = len(server.requests)
        with pytest.raises(cycles.ApprovalDeniedError, match="was not approved: 91% of tenant:acme is used") as caught:
            spend(client, 1)
        assert caught.value.request_sent is False
        assert caught.value.code == "APPROVAL_DENIED"
        assert isinstance(caught.value, cycles.ReservationDeniedError)
        assert len(server.requests) == sent


def test_below_the_fraction_and_in_another_unit_nothing_is_asked(server: cycles.EmbeddedServer) -> None:
    review = Reviewer()
    with server.client(approve=review, approve_above=0.5) as client:
        spend(client, 40)
        spend(client, 20)
        client.reserve(cycles.tokens(10), action=ACTION).acquire().release()
        client.reserve(cycles.usd(1), action=ACTION, shadow=True).acquire().release()
        assert review.requests == []


def test_what_is_left_of_an_overdrawn_budget_is_below_zero(server: cycles.EmbeddedServer) -> None:
    review = Reviewer(False)
    with server.client(approve=review) as client:
        guard = client.reserve(cycles.usd(60), action=ACTION).acquire()
        server.ledger.set_budget(SCOPE, cycles.usd(40), reserved=60_00000000, spent=45_00000000)
        guard.release()
        with pytest.raises(cycles.ApprovalDeniedError, match="112% of tenant:acme is used"):
            spend(client, 1)
        assert [request.remaining for request in review.requests] == [
            cycles.SignedAmount("USD_MICROCENTS", -5_00000000)
        ]


def test_of_the_budgets_of_a_subject_the_most_used_one_counts() -> None:
    review = Reviewer(True)
    budgets = {SCOPE: cycles.usd(1000), f"{SCOPE}/agent:bot": cycles.usd(10), f"{SCOPE}/agent:other": cycles.usd(10)}
    with cycles.EmbeddedServer(budgets) as server, server.client(approve=review) as client:
        spend(client, 9, subject={"agent": "bot"})
        spend(client, 1, subject={"agent": "other"})
        spend(client, 1)
        assert review.requests == []
        spend(client, 1, subject={"agent": "Bot"})
        assert [(request.scope, request.fraction) for request in review.requests] == [(f"{SCOPE}/agent:bot", 0.9)]


@pytest.mark.parametrize(
    ("reply", "is_yes"), [(True, True), (False, False), (cycles.usd(1), True), (cycles.usd("0.99"), False)], ids=str
)
def test_a_reply_without_more_than_its_reservation_grants_nothing_to_the_next(
    server: cycles.EmbeddedServer, reply: Any, is_yes: bool
) -> None:
    review = Reviewer(reply, True)
    with server.client(approve=review, approve_above=0.5) as client:
        spend(client, 50)
        with contextlib.nullcontext() if is_yes else pytest.raises(cycles.ApprovalDeniedError):
            spend(client, 1)
        client.reserve(cycles.Amount("USD_MICROCENTS", 1), action=ACTION).acquire().release()
        assert len(review.requests) == 2


def test_an_amount_lets_reservations_up_to_that_sum_pass(server: cycles.EmbeddedServer) -> None:
    review = Reviewer(cycles.usd(4), False)
    with server.client(approve=review, approve_above=0.5) as client:
        spend(client, 50)
        spend(client, 2)
        spend(client, 1)
        spend(client, 1)
        assert len(review.requests) == 1
        with pytest.raises(cycles.ApprovalDeniedError):
            spend(client, 1)
        assert len(review.requests) == 2


def test_what_is_left_of_an_amount_adds_to_that_of_the_next(server: cycles.EmbeddedServer) -> None:
    review = Reviewer(cycles.usd(5), cycles.usd(8))
    with server.client(approve=review, approve_above=0.5) as client:
        spend(client, 50)
        spend(client, 1)  # $4 are left of the first amount
        spend(client, 6)  # more than that, so approve is called: $2 are left of the second one
        spend(client, 6)
        assert [request.estimate for request in review.requests] == [cycles.usd(1), cycles.usd(6)]


def test_an_amount_is_of_one_subject(server: cycles.EmbeddedServer) -> None:
    review = Reviewer(cycles.usd(4), cycles.usd(4), True)
    with server.client(approve=review, approve_above=0.5) as client:
        spend(client, 50)
        for agent in (None, "one", "one", "other"):
            spend(client, 1, subject={"agent": agent})
        assert [request.subject.agent for request in review.requests] == [None, "one", "other"]


def test_an_amount_is_of_one_unit(server: cycles.EmbeddedServer) -> None:
    review = Reviewer(cycles.usd(4), False)
    with server.client(approve=review, approve_above=0.5) as client:
        client.reserve(cycles.tokens(60), action=ACTION).acquire().commit(cycles.tokens(60))
        spend(client, 50)
        spend(client, 1)
        with pytest.raises(cycles.ApprovalDeniedError):
            client.reserve(cycles.tokens(1), action=ACTION).acquire()
        assert [request.estimate for request in review.requests] == [cycles.usd(1), cycles.tokens(1)]


def test_an_amount_that_is_too_small_denies(server: cycles.EmbeddedServer) -> None:
    with server.client(approve=Reviewer(cycles.usd(1)), approve_above=0.5) as client:
        spend(client, 50)
        with pytest.raises(cycles.ApprovalDeniedError):
            spend(client, 2)


@pytest.mark.parametrize("reply", [RuntimeError("no reviewer"), None, "yes", cycles.tokens(5)])
def test_if_approve_fails_the_reservation_is_denied_with_the_cause(server: cycles.EmbeddedServer, reply: Any) -> None:
    with server.client(approve=Reviewer(reply, True), approve_above=0.5) as client:
        spend(client, 50)
        with pytest.raises(cycles.ApprovalDeniedError, match="because approve failed") as caught:
            spend(client, 2)
        cause = caught.value.__cause__
        assert cause is reply if isinstance(reply, Exception) else isinstance(cause, TypeError)
        spend(client, 1)  # the next one calls it again


def test_a_reserve_inside_approve_is_exempt(server: cycles.EmbeddedServer) -> None:
    def review(request: cycles.ApprovalRequest) -> bool:
        calls.append(request)
        spend(client, 1)
        return True

    calls: list[cycles.ApprovalRequest] = []
    with server.client(approve=review, approve_above=0.5) as client:
        spend(client, 50)
        spend(client, 1)
        assert len(calls) == 1
        assert server.spent(SCOPE, "USD_MICROCENTS") == cycles.usd(52)


def test_a_reserve_inside_approve_of_a_task_is_exempt(server: cycles.EmbeddedServer) -> None:
    """The function runs in another thread, in the context of the task."""

    def review(request: cycles.ApprovalRequest) -> bool:
        calls.append(request)
        if len(calls) == 1:
            spend(client, 1)
        return True

    async def main() -> None:
        async with client.reserve(cycles.usd(1), action=ACTION) as guard:
            await guard.commit(cycles.usd(1))

    calls: list[cycles.ApprovalRequest] = []
    with server.client(approve=review, approve_above=0.5) as client:
        spend(client, 50)
        asyncio.run(main())
        assert len(calls) == 1
        assert server.spent(SCOPE, "USD_MICROCENTS") == cycles.usd(52)


class Queue:
    """Lets several threads reserve while `approve` runs, and then lets it return."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.asked = threading.Event()
        self.go = threading.Event()
        self.calls = 0
        self.waiting: list[tuple[int, int]] = []

    def __call__(self, request: cycles.ApprovalRequest) -> Any:
        self.calls += 1
        self.asked.set()
        assert self.go.wait(60)
        count, total = request.waiting
        assert isinstance(count, int)
        assert isinstance(total, cycles.Amount)
        self.waiting.append((count, total.amount))
        return self.replies.pop(0)


def _compete(server: cycles.EmbeddedServer, queue: Queue, count: int) -> list[str]:
    """Reserve from several threads at the same time, and return how each of them ended."""
    ends: list[str] = []
    with server.client(approve=queue, approve_above=0.5) as client:
        spend(client, 50)

        def work() -> None:
            try:
                spend(client, 1)
                ends.append("spent")
            except cycles.ApprovalDeniedError:
                ends.append("denied")

        first = threading.Thread(target=work)
        first.start()
        assert queue.asked.wait(60)
        others = [threading.Thread(target=work) for _ in range(count - 1)]
        gates = runtime_of(client).channel.soft_limits.approvals._gates  # type: ignore[union-attr]
        [gate] = gates.values()
        entered = _counting(gate, count - 1)
        for thread in others:
            thread.start()
        assert entered.wait(60)
        queue.go.set()
        for thread in (first, *others):
            thread.join()
    return sorted(ends)


def _counting(gate: Any, count: int) -> threading.Event:
    """Return an event that is set when this many reservations wait at the gate."""
    full = threading.Event()
    enter: Callable[[Any, int], Any] = gate.enter

    def counted(turn: Any, estimate: int) -> Any:
        waits = enter(turn, estimate)
        if len(gate.waiting) == count:
            full.set()
        return waits

    gate.enter = counted
    return full


@pytest.mark.parametrize("reply", [False, "perhaps", cycles.tokens(9)])
def test_a_no_and_a_failure_apply_to_all_that_wait(server: cycles.EmbeddedServer, reply: Any) -> None:
    queue = Queue(reply)
    assert _compete(server, queue, 4) == ["denied"] * 4
    assert queue.waiting == [(3, 3_00000000)]


def test_an_amount_applies_to_those_that_it_covers(server: cycles.EmbeddedServer) -> None:
    queue = Queue(cycles.usd(3), False)
    assert _compete(server, queue, 4) == ["denied", "spent", "spent", "spent"]
    assert queue.calls == 2


def test_a_yes_is_for_one_reservation(server: cycles.EmbeddedServer) -> None:
    queue = Queue(True, True, True)
    assert _compete(server, queue, 3) == ["spent"] * 3
    assert queue.calls == 3
    first, *others = queue.waiting
    assert first == (2, 2_00000000)
    assert max(others) <= (1, 1_00000000)  # of the two that were left, one has its turn


def test_in_async_code_a_blocking_function_runs_in_a_thread(server: cycles.EmbeddedServer) -> None:
    threads: list[threading.Thread] = []

    def review(_: cycles.ApprovalRequest) -> bool:
        threads.append(threading.current_thread())
        return True

    async def main() -> None:
        async with server.client(approve=review, approve_above=0.5) as client:
            for _ in range(2):
                async with client.reserve(cycles.usd(50), action=ACTION) as guard:
                    await guard.commit(cycles.usd(50))

    asyncio.run(main())
    [used] = threads
    assert used is not threading.main_thread()


def test_a_coroutine_function_does_not_take_away_the_event_loop_of_a_sync_program(
    server: cycles.EmbeddedServer,
) -> None:
    async def review(request: cycles.ApprovalRequest) -> bool:
        await asyncio.sleep(0)
        return True

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        with server.client(approve=review, approve_above=0.5) as client:
            spend(client, 50)
            spend(client, 1)
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@pytest.mark.parametrize("reply", [True, False])
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_approve_may_be_a_coroutine_function_in_async_and_in_sync_code(
    server: cycles.EmbeddedServer, reply: bool, is_wrapped: bool
) -> None:
    async def review(request: cycles.ApprovalRequest) -> bool:
        await asyncio.sleep(0)
        return reply

    async def main() -> None:
        async with client.reserve(cycles.usd(1), action=ACTION) as guard:
            await guard.commit(cycles.usd(1))

    approve: Any = (lambda request: review(request)) if is_wrapped else review
    with server.client(approve=approve, approve_above=0.5) as client:
        spend(client, 50)
        with contextlib.nullcontext() if reply else pytest.raises(cycles.ApprovalDeniedError):
            spend(client, 1)
        with contextlib.nullcontext() if reply else pytest.raises(cycles.ApprovalDeniedError):
            asyncio.run(main())


def test_tasks_wait_for_one_reply_and_a_cancelled_one_passes_the_question_on(server: cycles.EmbeddedServer) -> None:
    asked: list[asyncio.Event] = []

    async def review(request: cycles.ApprovalRequest) -> bool:
        asked.append(go)
        called.set()
        await go.wait()
        return True

    async def one(client: cycles.Cycles) -> str:
        async with client.reserve(cycles.usd(1), action=ACTION) as guard:
            await guard.commit(cycles.usd(1))
        return "spent"

    async def main() -> list[Any]:
        async with server.client(approve=review, approve_above=0.5) as client:
            async with client.reserve(cycles.usd(50), action=ACTION) as guard:
                await guard.commit(cycles.usd(50))
            first = asyncio.create_task(one(client))
            await set_by(first, called)
            called.clear()
            second = asyncio.create_task(one(client))
            await asyncio.sleep(0)
            first.cancel()
            await set_by(second, called)  # it calls it now
            go.set()
            return list(await asyncio.gather(first, second, return_exceptions=True))

    go, called = asyncio.Event(), asyncio.Event()
    cancelled, spent = asyncio.run(main())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert spent == "spent"
    assert len(asked) == 2


def test_approve_is_not_shown_what_waits_no_longer(server: cycles.EmbeddedServer) -> None:
    """Else it grants that amount, too, and a later reservation uses that up without a call of it."""
    shown: list[tuple[int, cycles.Amount]] = []
    outside = contextvars.copy_context()

    async def review(request: cycles.ApprovalRequest) -> bool:
        # A reservation that `approve` makes itself needs no approval: these are of other code.
        waits = [asyncio.get_running_loop().create_task(one(dollars), context=outside.copy()) for dollars in (1, 2)]
        await asyncio.to_thread(until, lambda: request.waiting.count == 2)
        for task in waits:
            task.cancel()
            await asyncio.wait([task])
            shown.append((request.waiting.count, request.waiting.sum))
        return True

    async def one(dollars: int) -> None:
        async with client.reserve(cycles.usd(dollars), action=ACTION) as guard:
            await guard.commit(cycles.usd(dollars))

    with server.client(approve=review, approve_above=0.5) as client:
        spend(client, 50)
        asyncio.run(one(5))
    assert shown == [(1, cycles.usd(2)), (0, cycles.usd(0))]


def test_a_decorated_function_needs_approval_too(server: cycles.EmbeddedServer) -> None:
    ran: list[int] = []
    with server.client(approve=Reviewer(False), approve_above=0.5) as client:

        @client.guarded(cycles.usd(1), action=ACTION)
        def work() -> None:
            ran.append(1)

        spend(client, 50)
        with pytest.raises(cycles.ApprovalDeniedError):
            work()
    assert ran == []


def test_a_run_limit_denies_before_anything_is_asked(server: cycles.EmbeddedServer) -> None:
    review = Reviewer()
    with server.client(approve=review, approve_above=0.5) as client:
        spend(client, 50)
        with cycles.limit(cycles.usd(1)), pytest.raises(cycles.BudgetExceededError):
            spend(client, 2)
    assert review.requests == []


def test_heartbeats_of_running_guards_continue_while_approve_runs() -> None:
    with cycles.EmbeddedServer({SCOPE: cycles.usd(100)}) as server:
        arrivals = Arrivals(server)

        def review(_: cycles.ApprovalRequest) -> bool:
            arrivals.wait_for("extend")
            return True

        with server.client(approve=review, approve_above=0.5) as client:
            guard = client.reserve(cycles.usd(50), action=ACTION, ttl_ms=5_000).acquire()
            spend(client, 1)
            assert guard.state == "active"
            guard.commit(cycles.usd(50))


@pytest.mark.parametrize("settings", [{"approve": True}, {"approve_above": 2}, {"approve_above": "x"}])
def test_wrong_settings_are_configuration_errors(settings: dict[str, Any]) -> None:
    [name] = settings
    with pytest.raises(cycles.ConfigurationError, match=f"{name} must be"):
        cycles.Config(**settings)


def test_the_fraction_comes_from_the_environment_and_the_function_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_APPROVE_ABOVE", "0.7")
    monkeypatch.setenv("CYCLES_APPROVE", "x")
    config = cycles.Config.from_env()
    assert (config.approve, config.approve_above) == (None, 0.7)


@pytest.mark.parametrize(("file", "points"), [("approval", 40), ("signal", 5)])
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_caller_that_is_interrupted_at_any_point_lets_the_next_one_ask(
    server: cycles.EmbeddedServer, file: str, points: int
) -> None:
    """The other one waits for its reply, which does not come."""
    others: list[threading.Thread] = []

    def reserve() -> None:
        client.reserve(cycles.usd("0.01"), action=ACTION).acquire().release()

    def approve(request: cycles.ApprovalRequest) -> bool:
        if threading.current_thread() is threading.main_thread():
            others.append(threading.Thread(target=reserve, daemon=True))
            others[-1].start()
            until(lambda: request.waiting.count)
        return True

    def interrupt() -> None:
        raise KeyboardInterrupt

    with server.client(approve=approve, approve_above=0.5, flush_timeout=0.0) as client:
        spend(client, 60)
        number, more = 0, True
        while more:
            with contextlib.suppress(KeyboardInterrupt):
                more = run_at(f"/cycles/_flows/{file}", number, interrupt, reserve)
            for other in others:
                other.join(PATIENCE_S)
                assert not other.is_alive(), f"point {number}"
            others.clear()
            number += 1
    assert number > points
