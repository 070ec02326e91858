"""What a guard does besides reserving and settling: caps, shadow, outages, waiting, reprs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._drivers.io.tasks import TaskIo
from cycles._drivers.io.threads import BaseIo, BlockingIo

from .conftest import ACTION, BUDGETS, World, held, spent

pytestmark = pytest.mark.anyio

CAPS = {"max_tokens": 500, "max_steps_remaining": 2, "tool_allowlist": ["search"], "cooldown_ms": 20}


def reserve(world: World, **options: Any) -> Any:
    return world.client.reserve(cycles.tokens(100), action=ACTION, **{"actual": cycles.tokens(1), **options})


# Caps


@pytest.fixture
def capped(server: Any) -> None:
    server.ledger.set_budget("tenant:acme", cycles.tokens(1_000_000), caps=CAPS)


@pytest.mark.usefixtures("capped")
async def test_caps_limit_the_guard(world: World) -> None:
    async with world.enter(reserve(world)) as guard:
        assert guard.is_capped
        assert (guard.max_tokens(1024), guard.max_tokens(100), guard.max_tokens()) == (500, 100, 500)
        assert guard.filter_tools(["search", "shell"]) == ["search"]
        assert not guard.allows_tool("shell")
        with pytest.raises(cycles.ToolNotAllowedError):
            guard.require_tool("shell")
        assert (guard.step(), guard.step()) == (1, 2)
        with pytest.raises(cycles.StepsExhaustedError):
            guard.step()


async def test_without_caps_nothing_is_limited(world: World) -> None:
    async with world.enter(reserve(world)) as guard:
        assert not guard.is_capped
        assert (guard.max_tokens(1024), guard.max_tokens()) == (1024, None)
        assert guard.filter_tools(["search", "shell"]) == ["search", "shell"]
        assert guard.step() == 1
        await world.get(guard.cooldown())


@pytest.mark.usefixtures("capped")
async def test_cooldown_waits_for_the_cooldown_of_the_caps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    async with world.enter(reserve(world)) as guard:
        before = time.monotonic()
        await world.get(guard.cooldown())
        assert time.monotonic() - before >= 0.02


@pytest.mark.usefixtures("capped")
async def test_cooldown_takes_the_milliseconds_of_the_caps(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = list[float]()

    async def pause(io: Any, seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("cycles._client.guard.pause", pause)
    async with world.enter(reserve(world)) as guard:
        await world.get(guard.cooldown())
    assert pauses == [0.02]


@pytest.mark.usefixtures("capped")
def test_steps_are_counted_across_threads(client: cycles.Cycles) -> None:
    refused: list[Exception] = []

    def step() -> None:
        try:
            guard.step()
        except cycles.StepsExhaustedError as error:
            refused.append(error)

    with client.reserve(cycles.tokens(5), action=ACTION, actual=cycles.tokens(1)) as guard:
        threads = [threading.Thread(target=step) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(refused) == 4


# Rollout


async def test_shadow_runs_the_block_with_any_decision(world: World, server: Any, events: list[Any]) -> None:
    async with world.enter(reserve(world, shadow=True)) as guard:
        assert guard.decision == "ALLOW"
    too_much = world.client.reserve(cycles.tokens(10**9), action=ACTION, shadow=True)
    async with world.enter(too_much) as guard:
        assert guard.decision == "DENY"
        await world.get(guard.commit(cycles.tokens(40)))
    assert (spent(server), held(server)) == (0, 0)
    assert guard.reservation_id is None
    assert [type(event).__name__ for event in events] == ["ShadowDecided", "ShadowSettled"] * 2
    assert [event.would_deny for event in events] == [False, False, True, True]
    assert (events[-1].estimate, events[-1].actual) == (cycles.tokens(10**9), cycles.tokens(40))


async def test_shadow_runs_the_block_without_a_server(world: World, server: Any, events: list[Any]) -> None:
    server.faults.refuse("reserve", times=None)
    async with world.enter(reserve(world, shadow=True)) as guard:
        assert (guard.decision, guard.reservation_id) == (None, None)
        await world.get(guard.commit(cycles.tokens(40)))
    assert (spent(server), held(server)) == (0, 0)
    decided, settled = events
    assert (decided.decision, decided.would_deny) == (None, False)
    assert decided.detail
    assert (settled.estimate, settled.actual) == (guard.estimate, cycles.tokens(40))


async def test_shadow_may_be_a_setting_and_a_call_may_opt_out(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYCLES_SHADOW", "1")
    with server.client(tenant="acme", journal_dir=tmp_path) as client:
        with client.reserve(cycles.tokens(10**9), action=ACTION, actual=cycles.tokens(1)) as guard:
            assert guard.decision == "DENY"
        with client.reserve(cycles.tokens(5), action=ACTION, actual=cycles.tokens(1), shadow=False):
            assert held(server) == 5
    assert spent(server) == 1


async def test_an_outage_lets_the_block_run_and_its_actual_is_recorded_later(tmp_path: Path) -> None:
    for kind in ("sync", "async"):
        client = cycles.Cycles(
            base_url="http://127.0.0.1:9",
            api_key="k",
            tenant="acme",
            timeout=0.5,
            flush_timeout=0.0,
            journal_dir=tmp_path / kind,
        )
        world = World(kind, client)
        seen: list[Any] = []
        client.on_event(seen.append)
        async with world.enter(reserve(world, on_unavailable="allow")) as guard:
            assert guard.state == "unreserved"
            settlement = await world.get(guard.commit(cycles.tokens(9)))
        assert (settlement.status, guard.state) == ("pending", "pending")
        assert [record.amount for record in client.pending()] == [cycles.tokens(9)]
        assert [type(event).__name__ for event in seen[:2]] == ["Unreserved", "SettlementPending"]
        with pytest.raises(cycles.TransportError):
            await world.acquire(reserve(world))
        if world.is_async:
            await client.aclose()
        else:
            client.close()


async def test_a_run_that_was_settled_does_not_run_again(world: World) -> None:
    async with world.enter(reserve(world, idempotency_key="job-1")):
        pass
    with pytest.raises(cycles.ReservationNotActiveError, match="does not run again"):
        async with world.enter(reserve(world, idempotency_key="job-1")):
            raise AssertionError("ran twice")


async def test_waiting_for_budget(world: World, server: Any) -> None:
    async with world.enter(world.client.reserve(cycles.tokens(999_950), action=ACTION)) as first:
        timer = threading.Timer(0.05, server.ledger.fund, ("tenant:acme", cycles.tokens(500)))
        timer.start()
        async with world.enter(reserve(world, wait=60.0)) as second:
            assert second.state == "active"
        timer.join()
        with pytest.raises(cycles.BudgetExceededError):
            await world.acquire(world.client.reserve(cycles.tokens(10**9), action=ACTION, wait=0.01))
        await world.get(first.release())


@pytest.mark.parametrize("in_pool", [False, True])
async def test_the_last_attempt_is_at_the_end_of_the_wait(
    world: World, server: Any, monkeypatch: pytest.MonkeyPatch, in_pool: bool
) -> None:
    now_ms = began_ms = 1_000_000.0

    async def passes(io: Any, signal: Any, timeout_s: float | None = None) -> bool:
        nonlocal now_ms
        assert timeout_s is not None
        now_ms += timeout_s * 1000
        if now_ms == began_ms + 1_000:
            server.ledger.fund("tenant:acme", cycles.tokens(10_000_000))
        return bool(signal.is_set)

    monkeypatch.setattr(BaseIo, "clock", evolve(BaseIo.clock, now_ms=lambda: now_ms, random=lambda: 0.5))
    monkeypatch.setattr(BlockingIo, "wait", passes)
    monkeypatch.setattr(TaskIo, "wait", passes)
    reserved: Any = world.client.reserve(cycles.tokens(2_000_000), action=ACTION, wait=1.0)
    if in_pool:
        pool = world.client.pool(action=ACTION, max_held=cycles.tokens(1_000))
        reserved = pool.reserve(cycles.tokens(2_000_000), wait=1.0)
    guard = await world.acquire(reserved)
    assert now_ms == began_ms + 1_000
    assert len(server.requests.of("reserve")) == 4  # after pauses of 250 ms, 500 ms and the rest of 250 ms
    await world.get(guard.release())


@pytest.mark.parametrize("key", [None, "of the caller"])
async def test_after_a_decision_that_denies_the_next_attempt_has_a_new_key(
    world: World, server: Any, key: str | None
) -> None:
    """A server stores a decision under its key, and would return it for ever; an error response stores nothing."""
    denied = {"decision": "DENY", "reason_code": "BUDGET_EXCEEDED", "affected_scopes": [], "retry_after_ms": 1}
    server.faults.status("reserve", 200, body=denied)
    guard = await world.acquire(reserve(world, wait=60.0, idempotency_key=key))
    await world.get(guard.release())
    first, second = [request.json["idempotency_key"] for request in server.requests.of("reserve")]
    assert (first == second) is (key is not None)
    row = await world.get(world.operations.find(idempotency_key=second))
    assert row.reservation_id == guard.reservation_id


@pytest.mark.parametrize("in_pool", [False, True])
async def test_a_denial_that_lasts_longer_than_the_wait_is_raised_immediately(
    world: World, server: Any, in_pool: bool
) -> None:
    body = {"error": "LIMIT_EXCEEDED", "message": "m", "request_id": "r"}
    server.faults.status("reserve", 429, body=body, headers={"Retry-After": "30"})
    if in_pool:
        reserved = world.client.pool(action=ACTION, max_held=cycles.tokens(1_000)).reserve(cycles.tokens(1), wait=20.0)
    else:
        reserved = reserve(world, wait=20.0)
    with pytest.raises(cycles.RateLimitedError):
        await world.acquire(reserved)
    assert len(server.requests.of("reserve")) == 1


@pytest.mark.parametrize("in_pool", [False, True])
@pytest.mark.parametrize("code", ["BUDGET_CLOSED", "TENANT_CLOSED"])
async def test_no_budget_is_waited_for_that_is_closed(world: World, server: Any, code: str, in_pool: bool) -> None:
    body = {"error": code, "message": "it is closed", "request_id": "r"}
    server.faults.status("reserve", 409, body=body, times=None)
    if in_pool:
        reserved = world.client.pool(action=ACTION, max_held=cycles.tokens(1_000)).reserve(cycles.tokens(1), wait=30.0)
    else:
        reserved = reserve(world, wait=30.0)
    with pytest.raises(cycles.ReservationDeniedError) as raised:
        await world.acquire(reserved)
    assert raised.value.code == code
    assert len(server.requests.of("reserve")) == 1


async def test_a_bad_value_in_usage_never_keeps_an_amount_from_being_settled(
    world: World, server: Any, events: list[Any]
) -> None:
    async with world.enter(reserve(world)) as guard:
        guard.usage.custom["at"] = object()
    assert spent(server) == 1
    [told] = [event for event in events if type(event).__name__ == "ValuesOmitted"]
    assert told.names == ("metrics.custom.at",)


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "5", True])
def test_a_wait_is_seconds(client: cycles.Cycles, wrong: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError, match="wait"):
        client.reserve(cycles.tokens(1), action=ACTION, wait=wrong)


# What people see


async def test_reprs_help_and_hide_the_key(world: World, server: Any) -> None:
    reservation = world.client.reserve(cycles.usd("0.05"), action=ACTION, actual=cycles.usd("0.03"))
    assert "$0.05" in repr(reservation)
    assert "llm.completion" in repr(reservation)
    async with world.enter(reservation) as guard:
        text = repr(guard)
        assert text.startswith("<AsyncGuard " if world.is_async else "<Guard ")
        assert guard.reservation_id[:8] in text
        assert "active" in text
        assert "$0.05 reserved" in text
        assert " s left" in text
    assert "committed $0.03 charged" in repr(guard)
    released = await world.acquire(reserve(world))
    await world.get(released.release())
    assert "released 100 tokens" in repr(released)
    server.faults.refuse("commit", times=None)
    pending = await world.acquire(reserve(world))
    await world.get(pending.commit(cycles.tokens(3)))
    assert "pending 3 tokens" in repr(pending)
    server.faults.clear()
    assert server.api_key not in repr(world.client) + repr(world.client.config) + text


async def test_one_line_per_fact(world: World, log: Any, events: list[Any]) -> None:
    async with world.enter(reserve(world)) as guard:
        pass
    with pytest.raises(cycles.BudgetExceededError):
        await world.acquire(world.client.reserve(cycles.tokens(10**9), action=ACTION))
    with pytest.raises(KeyError):
        async with world.enter(reserve(world)):
            raise KeyError("a user's own")
    async with world.enter(reserve(world, shadow=True)):
        pass
    lines = [record for record in log.records if record.name == "cycles"]
    assert [record.levelname for record in lines] == ["INFO"] * 4
    assert lines[0].reservation_id == guard.reservation_id
    assert (lines[0].request_id, lines[0].trace_id) == (guard.settlement.request_id, guard.trace_id)
    assert not any(record.exc_info for record in lines)
    facts = ["Reserved", "Settled", "Denied", "Reserved", "Released", "ShadowDecided", "ShadowSettled"]
    assert [type(event).__name__ for event in events] == facts


async def test_an_observer_that_fails_breaks_nothing(world: World, server: Any, log: Any) -> None:
    def fail(event: Any) -> None:
        raise RuntimeError("observer")

    world.client.on_event(fail)
    async with world.enter(reserve(world)):
        pass
    assert spent(server) == 1
    assert "observer failed" in log.text


async def test_balances_are_those_of_the_last_response_that_had_some(world: World, server: Any) -> None:
    guard = await world.acquire(world.reserve())
    reserved = guard.balances
    assert [each.reserved for each in reserved] == [cycles.tokens(100)]
    body = {"status": "COMMITTED", "charged": cycles.tokens(5).to_dict()}
    server.faults.status("commit", 200, body=body)
    await world.get(guard.commit(cycles.tokens(5)))
    assert guard.balances == reserved
    settled = await world.acquire(world.reserve())
    await world.get(settled.commit(cycles.tokens(5)))
    assert [each.spent for each in settled.balances] == [cycles.tokens(5)]


async def test_budgets_of_several_units_are_apart(world: World, server: Any) -> None:
    async with world.enter(world.client.reserve(cycles.credits(2), action=ACTION, actual=cycles.credits(2))):
        pass
    assert (spent(server, "CREDITS"), spent(server)) == (2, 0)
    assert len(BUDGETS) == len(await world.all(world.operations.balances()))


async def test_a_settlement_that_lists_no_balances_has_none(world: World, server: Any) -> None:
    guard = await world.acquire(world.reserve())
    assert guard.balances
    body = {"status": "COMMITTED", "charged": cycles.tokens(5).to_dict(), "balances": []}
    server.faults.status("commit", 200, body=body)
    await world.get(guard.commit(cycles.tokens(5)))
    assert guard.balances == []
