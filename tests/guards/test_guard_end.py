"""`guard.end(raised=None)`: a guard ends as the end of its block would, for frameworks that call back."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import cycles
from cycles._core.lease.values import Stop, StopReason
from tests.support.inside import state_of
from tests.support.points import run_at

ACTION = ("llm.completion", "m")


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    made = cycles.EmbeddedServer(budgets={"tenant:acme": cycles.usd(10)}, clock=cycles.ManualClock(start_ms=10**12))
    yield made
    made.close()


@pytest.fixture
def client(server: cycles.EmbeddedServer) -> Iterator[cycles.Cycles]:
    with server.client(tenant="acme", journal=False) as made:
        yield made


def both(client: cycles.Cycles, use: Any, raised: BaseException | None = None, **options: Any) -> None:
    """Use and end a sync guard, then an async one."""
    guard = client.reserve(cycles.usd(1), action=ACTION, **options).acquire()
    use(guard)
    guard.end(raised)

    async def go() -> None:
        other = await client.reserve(cycles.usd(1), action=ACTION, **options)
        use(other)
        await other.end(raised)

    asyncio.run(go())


def last(server: cycles.EmbeddedServer, operation: str) -> list[Any]:
    return [request.json for request in server.requests.of(operation)]


def test_known_spend_is_committed(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    both(client, lambda guard: guard.spend(cycles.usd("0.25")))
    assert [body["actual"]["amount"] for body in last(server, "commit")] == [cycles.usd("0.25").amount] * 2


@pytest.mark.parametrize("is_async", [False, True])
def test_spend_of_another_thread_at_any_point_of_the_end_of_a_block_is_committed_or_refused(
    server: cycles.EmbeddedServer, client: cycles.Cycles, is_async: bool
) -> None:
    def spend_more() -> None:
        try:
            guards[-1].spend(cycles.usd("0.50"))
        except cycles.GuardFinalizedError:
            expected.append(cycles.usd("0.25").amount)
        else:
            expected.append(cycles.usd("0.75").amount)

    async def use_async() -> None:
        async with client.reserve(cycles.usd(1), action=ACTION) as guard:
            guards.append(guard)
            guard.spend(cycles.usd("0.25"))

    def use() -> None:
        if is_async:
            asyncio.run(use_async())
        else:
            with client.reserve(cycles.usd(1), action=ACTION) as guard:
                guards.append(guard)
                guard.spend(cycles.usd("0.25"))

    def spend_in_a_thread() -> None:
        thread = threading.Thread(target=spend_more)
        thread.start()
        thread.join()

    server.ledger.set_budget("tenant:acme", cycles.usd(1000))
    guards, expected = list[Any](), list[int]()
    gc.collect()  # a guard that an earlier test has dropped must not end in the middle
    while run_at("/cycles/_flows/block_end", len(expected), spend_in_a_thread, use):
        pass
    committed = [body["actual"]["amount"] for body in last(server, "commit")]
    assert committed == [*expected, cycles.usd("0.25").amount]
    assert set(expected) == {cycles.usd("0.25").amount, cycles.usd("0.75").amount}


def test_spend_of_work_that_raised_is_committed_and_marked(
    server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    both(client, lambda guard: guard.spend(cycles.usd("0.25")), RuntimeError("x"))
    assert [body["metadata"]["outcome"] for body in last(server, "commit")] == ["error"] * 2


def test_work_that_raised_without_spend_is_released(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    both(client, lambda guard: None, RuntimeError("x"))
    assert [body["reason"] for body in last(server, "release")] == ["block_raised:RuntimeError"] * 2


def test_an_actual_is_called(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    both(client, lambda guard: guard.usage.add(tokens_output=5), actual=lambda usage: cycles.usd(usage.tokens_output))
    assert [body["actual"]["amount"] for body in last(server, "commit")] == [cycles.usd(5).amount] * 2


def test_a_guard_without_any_amount_warns(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    with pytest.warns(cycles.UncommittedGuardWarning):
        client.reserve(cycles.usd(1), action=ACTION).acquire().end()
    assert [body["reason"] for body in last(server, "release")] == ["guard_exited_without_commit"]


def test_a_guard_that_has_ended_sends_nothing_more(server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
    guard = client.reserve(cycles.usd(1), action=ACTION).acquire()
    guard.commit(cycles.usd(1))
    guard.end()
    guard.end(RuntimeError("x"))
    assert len(server.requests) == 2


@pytest.mark.parametrize("policy", ["fail_on_finalize", "cancel"])
def test_the_lease_policy_applies_again(client: cycles.Cycles, policy: Any) -> None:
    guard = client.reserve(cycles.usd(1), action=ACTION, lease_policy=policy).acquire()
    guard.spend(cycles.usd(1))
    heartbeat = state_of(guard).heartbeat
    assert heartbeat is not None
    heartbeat.advance(heartbeat.lease, Stop(StopReason.REJECTED, "the test stopped it"))
    with pytest.raises(cycles.LeaseLostError):
        guard.end()
    with pytest.raises(cycles.LeaseLostError):
        guard.end()
    raised = RuntimeError("x")
    guard.end(raised)
    assert any("lost" in note for note in raised.__notes__)


def test_the_current_guard_is_reset_in_the_context_that_entered_it(client: cycles.Cycles) -> None:
    reservation = client.reserve(cycles.usd(1), action=ACTION)
    guard = reservation.__enter__()
    guard.spend(cycles.usd(1))
    contextvars.copy_context().run(guard._leave)  # another context keeps its own value
    assert cycles.current_guard() is guard
    reservation = client.reserve(cycles.usd(1), action=ACTION)
    inner = reservation.__enter__()
    inner.spend(cycles.usd(1))
    inner.end()
    assert cycles.current_guard() is guard
    inner.end()
    guard.end()


def test_a_rejected_settlement_is_raised_unless_the_work_raised(
    server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    for raised in (None, RuntimeError("x")):
        guard = client.reserve(cycles.usd(1), action=ACTION, overage_policy="REJECT").acquire()
        guard.spend(cycles.usd(5000))
        if raised is None:
            with pytest.raises(cycles.BudgetExceededError):
                guard.end()
        else:
            guard.end(raised)
            assert "could not be settled" in raised.__notes__[0]
