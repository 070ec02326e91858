"""A guard goes on elsewhere: detached here, attached in another thread, task or process; or found by its key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._core.messages.guard_token import members_of, token_of
from tests.support.inside import state_of

from .conftest import ACTION, World, held, spent

pytestmark = pytest.mark.anyio


def reserve(world: World, **options: Any) -> Any:
    return world.client.reserve(cycles.tokens(100), action=ACTION, **{"actual": cycles.tokens(1), **options})


async def test_a_detached_guard_continues_in_another_client(world: World, server: Any, tmp_path: Path) -> None:
    guard = await world.acquire(reserve(world, ttl_ms=120_000, metadata={"job": 1}))
    guard.spend(cycles.tokens(5))
    token = guard.detach()
    assert guard.state == "detached"
    assert state_of(guard).heartbeat.ended  # nobody here extends the lease any more
    assert json.loads(json.dumps(token)) == token
    assert world.client.config.api_key not in token
    with pytest.raises(cycles.GuardFinalizedError):
        await world.get(guard.commit(cycles.tokens(1)))
    with server.client(tenant="acme", journal_dir=tmp_path / "other") as other:
        there = World("async" if world.is_async else "sync", other)
        async with there.enter(other.attach(token)) as attached:
            assert attached.reservation_id == guard.reservation_id
            assert (attached.state, attached.estimate, attached.spent) == ("active", guard.estimate, cycles.tokens(5))
            assert attached.action == guard.action
            assert attached.scope_path == guard.scope_path
            attached.spend(cycles.tokens(7))
    assert (spent(server), held(server)) == (12, 0)


async def test_what_was_settled_meanwhile_cannot_be_attached(world: World) -> None:
    guard = await world.acquire(reserve(world))
    token = guard.detach()
    await world.get(world.operations.release_reservation(guard.reservation_id))
    with pytest.raises(cycles.ReservationFinalizedError):
        await world.acquire(world.client.attach(token))


async def test_a_block_does_not_settle_a_guard_it_gave_away(world: World, server: Any) -> None:
    async with world.enter(reserve(world)) as guard:
        token = guard.detach()
        assert state_of(guard).heartbeat.ended  # here too, nobody extends the lease any more
    assert (spent(server), held(server)) == (0, 100)
    attached = await world.acquire(world.client.attach(token, actual=cycles.tokens(2)))
    await world.get(attached.commit(cycles.tokens(2)))
    assert (spent(server), held(server)) == (2, 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"estimate": {"unit": "TOKENS"}},
        {"estimate": 5},
        {"action": {"kind": "llm.completion", "name": "m", "colour": "blue"}},
        {"subject": None},
        {"spent": {"amount": 5}},
        {"created": "res_1"},
    ],
)
async def test_a_token_with_other_members_is_an_error_that_says_so(
    world: World, server: Any, changed: dict[str, Any]
) -> None:
    token = (await world.acquire(reserve(world))).detach()
    bad = token_of({**members_of(token), **changed})
    with pytest.raises(cycles.InvalidRequestError, match=r"not a token of guard.detach\(\)"):
        await world.acquire(world.client.attach(bad))
    await world.get((await world.acquire(world.client.attach(token))).commit(cycles.tokens(2)))
    assert (spent(server), held(server)) == (2, 0)


async def test_what_has_expired_cannot_be_attached(tmp_path: Path) -> None:
    clock = cycles.ManualClock(start_ms=1_700_000_000_000)
    server = cycles.EmbeddedServer(clock=clock, budgets={"tenant:acme": cycles.tokens(1_000)})
    with server.client(tenant="acme", journal_dir=tmp_path) as client:
        token = client.reserve(cycles.tokens(5), action=ACTION, ttl_ms=60_000).acquire().detach()
        clock.advance(120_000)
        with pytest.raises(cycles.ReservationExpiredError):
            client.attach(token).acquire()
    server.close()


async def test_a_lease_that_cannot_be_extended_is_attached_for_what_is_left(
    world: World, server: Any, events: list[Any]
) -> None:
    server.ledger.set_tenant("acme", status="ACTIVE", max_reservation_extensions=0)
    token = (await world.acquire(reserve(world))).detach()
    attached = await world.acquire(world.client.attach(token))
    assert [event.kind for event in events if type(event).__name__ == "LeaseNotice"] == ["not_extendable"]
    await world.get(attached.commit(cycles.tokens(4)))
    assert spent(server) == 4


@pytest.mark.parametrize(
    ("of_guard", "of_attach", "raises"),
    [("warn", "fail_on_finalize", True), ("fail_on_finalize", "warn", False), ("fail_on_finalize", None, True)],
)
async def test_the_lease_policy_is_that_of_attach_or_else_that_of_the_detached_guard(
    world: World, server: Any, tmp_path: Path, of_guard: str, of_attach: Any, raises: bool
) -> None:
    token = (await world.acquire(reserve(world, lease_policy=of_guard))).detach()
    with server.client(tenant="acme", journal_dir=tmp_path / "other") as other:
        there = World("async" if world.is_async else "sync", other)
        guard = await there.acquire(other.attach(token, lease_policy=of_attach))
        other.close()  # its leases are lost: no thread renews them
        with pytest.raises(cycles.LeaseLostError) if raises else contextlib.nullcontext():
            await there.get(guard.commit(cycles.tokens(4)))
    assert spent(server) == 4


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        (5, "actual must be an Amount or a callable, got 5"),
        (cycles.usd(1), "actual must be in the unit of the estimate, TOKENS: got $1.00"),
    ],
)
async def test_a_wrong_actual_is_rejected_before_the_lease_is_extended(
    world: World, server: Any, actual: Any, message: str
) -> None:
    guard = await world.acquire(reserve(world))
    token, row = guard.detach(), await world.get(world.operations.reservation(guard.reservation_id))
    sent = len(server.requests)
    for given in (token, row):
        with pytest.raises(cycles.InvalidRequestError) as caught:
            world.client.attach(given, actual=actual)
        assert str(caught.value) == message
    assert len(server.requests) == sent


async def test_usage_travels_with_a_guard(world: World, server: Any) -> None:
    guard = await world.acquire(reserve(world))
    guard.usage.add(tokens_input=5, tokens_cached_input=3, model_version="m", custom={"images": 1})
    attached = await world.acquire(
        world.client.attach(guard.detach(), actual=lambda usage: cycles.tokens(usage.tokens_input))
    )
    usage = attached.usage
    assert (usage.tokens_input, usage.tokens_cached_input, usage.model_version) == (5, 3, "m")
    assert usage.custom == {"images": 1}
    async with world.enter(attached):
        pass
    assert spent(server) == 5


async def test_every_count_of_a_guard_is_counted_on_after_attach(world: World, server: Any) -> None:
    def cost(usage: cycles.Usage) -> cycles.Amount:
        return cycles.tokens(10 * usage.counts["web_searches"] + usage.counts["tokens_reasoning"])

    guard = await world.acquire(reserve(world))
    guard.usage.add(
        tokens_output=9, tokens_reasoning=4, web_searches=2, custom={"other_calls": "mine", "tokens_input": 1}
    )
    async with world.enter(world.client.attach(guard.detach(), actual=cost)) as attached:
        attached.usage.add(web_searches=1)
        custom = {"tokens_reasoning": 4, "web_searches": 3, "other_calls": "mine", "tokens_input": 1}
        assert attached.usage.metrics().custom == custom
    assert spent(server) == 34


async def test_a_shadow_guard_stays_a_shadow_guard_after_attach(world: World, server: Any) -> None:
    token = (await world.acquire(world.client.reserve(cycles.tokens(10**9), action=ACTION, shadow=True))).detach()
    attached = await world.acquire(world.client.attach(token))
    assert attached.decision == "DENY"
    await world.get(attached.commit(cycles.tokens(4)))
    assert spent(server) == 0


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_guard_without_a_reservation_cannot_be_detached(kind: str, tmp_path: Path) -> None:
    settings: Any = {"base_url": "http://127.0.0.1:9", "api_key": "k", "tenant": "acme", "journal_dir": tmp_path}
    world = World(kind, cycles.Cycles(**settings, timeout=0.5, flush_timeout=0.0))
    guard = await world.acquire(reserve(world, on_unavailable="allow"))
    assert guard.state == "unreserved"
    guard.spend(cycles.tokens(5))
    with pytest.raises(
        cycles.InvalidRequestError, match=r"cannot detach: guard of 'small-model' is unreserved.*commit"
    ):
        guard.detach()
    assert (guard.state, guard.spent) == ("unreserved", cycles.tokens(5))
    assert (await world.get(guard.commit())).actual == cycles.tokens(5)
    with pytest.raises(cycles.GuardFinalizedError):
        guard.detach()
    assert [record.amount for record in world.client.pending()] == [cycles.tokens(5)]
    await (world.client.aclose() if world.is_async else asyncio.to_thread(world.client.close))


@pytest.mark.parametrize("token", ["", "x", "cycles-guard-1:!!", "cycles-guard-1:e30", 5])
def test_a_damaged_token_is_rejected(client: cycles.Cycles, token: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError, match="token"):
        client.attach(token)


WRONG: dict[str, list[Any]] = {
    "estimate": [{"unit": "TOKENS"}, 5, None],
    "action": [{}, {"kind": "a", "name": "b", "other": 1}, None],
    "subject": [{"other": "x"}, None],
    "created": [{}, 5],
    "spent": [{"amount": 1}, 5],
    "ttl_ms": [],
    "lease_policy": [],
    "shadow": [],
    "key": [],
    "trace_id": [],
    "usage": [],
}
"""Values that a member of a token cannot have. Without the member, it is no token either."""


@pytest.mark.parametrize("member", WRONG)
def test_a_token_whose_members_are_wrong_is_rejected(client: cycles.Cycles, member: str) -> None:
    guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    guard.spend(cycles.tokens(7))
    members = members_of(guard.detach())
    without = {name: value for name, value in members.items() if name != member}
    assert members.keys() == WRONG.keys() | {"overage_policy"}  # tokens of older versions do not have it
    for wrong in (without, *({**without, member: value} for value in WRONG[member])):
        with pytest.raises(cycles.InvalidRequestError, match=r"not a token of guard\.detach|pass the returned string"):
            client.attach(token_of(wrong))
    client.attach(token_of(members)).acquire().commit()


@pytest.mark.parametrize("actual", [cycles.tokens(7), lambda usage: cycles.tokens(usage.tokens_input)])
async def test_the_block_of_a_found_reservation_commits_actual(world: World, server: Any, actual: Any) -> None:
    guard = await world.acquire(reserve(world, idempotency_key="job-7"))
    found = await world.get(world.operations.find(idempotency_key="job-7"))
    async with world.enter(world.client.attach(found, actual=actual)) as again:
        again.usage.add(tokens_input=7)
    assert (spent(server), held(server)) == (7, 0)
    guard.detach()


async def test_a_lost_reservation_is_found_by_its_key(world: World) -> None:
    guard = await world.acquire(reserve(world, idempotency_key="job-7"))
    found = await world.get(world.operations.find(idempotency_key="job-7"))
    assert (found.reservation_id, found.status) == (guard.reservation_id, "ACTIVE")
    assert await world.get(world.operations.find(idempotency_key="job-8")) is None
    again = await world.acquire(world.client.attach(found))
    assert again.idempotency_key == "job-7"
    await world.get(again.commit(cycles.tokens(3)))
    assert (await world.get(world.operations.find(idempotency_key="job-7"))).status == "COMMITTED"
    guard.detach()


def test_a_guard_continues_in_another_process(server: Any, tmp_path: Path) -> None:
    worker = (
        "import sys, cycles\n"
        "with cycles.Cycles() as client, client.attach(sys.argv[1]) as guard:\n"
        "    guard.commit(guard.spent + cycles.tokens(2))\n"
        "    print(guard.reservation_id)"
    )
    with server.listen(port=0) as url:
        settings = {"CYCLES_BASE_URL": url, "CYCLES_API_KEY": server.api_key, "CYCLES_TENANT": "acme"}
        with cycles.Cycles(base_url=url, api_key=server.api_key, tenant="acme", journal_dir=tmp_path) as client:
            guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
            guard.spend(cycles.tokens(5))
            told = subprocess.run(
                [sys.executable, "-c", worker, guard.detach()],
                env={**os.environ, **settings, "CYCLES_JOURNAL_DIR": str(tmp_path / "worker")},
                capture_output=True,
                text=True,
            )
    assert told.stdout.strip() == guard.reservation_id, told.stderr
    assert (spent(server), held(server)) == (7, 0)
