"""Kinds and quotas that policies of the server allow or deny."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

import cycles
from tests.client.conftest import World, spent
from tests.client.next_protocol.conftest import MAIL, denied, of

pytestmark = pytest.mark.anyio


async def test_a_used_up_quota_raises_an_error_that_says_which(
    world: World, server: cycles.EmbeddedServer, clock: cycles.ManualClock
) -> None:
    quota = {"action_kind": MAIL.kind, "window": "per_day_tumbling", "limit": 1}
    server.ledger.set_policy("mail", "tenant:acme", quotas=[quota])
    async with world.enter(of(world)):
        pass
    error = await denied(world)
    assert type(error) is cycles.ActionQuotaExceededError
    assert (error.status, error.code, error.retryable) == (409, "ACTION_QUOTA_EXCEEDED", False)
    assert (error.quota.used, error.quota.limit, error.quota.window_key) == (1, 1, "2026-04-09")
    assert error.quota.resets_at == datetime(2026, 4, 10, tzinfo=UTC)
    assert error.deny_detail.blocked_by_policy == "mail"
    assert pickle.loads(pickle.dumps(error)).quota == error.quota
    clock.advance(12 * 60 * 60 * 1000)
    async with world.enter(of(world)):
        pass


@pytest.mark.parametrize(
    ("lists", "code"),
    [
        ({"denied_kinds": ["message.email.send"], "allowed_kinds": ["message.email.send"]}, "ACTION_KIND_DENIED"),
        ({"allowed_kinds": ["llm.completion"]}, "ACTION_KIND_NOT_ALLOWED"),
    ],
)
async def test_a_kind_that_a_policy_does_not_permit(
    world: World, server: cycles.EmbeddedServer, lists: dict[str, Any], code: str
) -> None:
    server.ledger.set_policy("kinds", "tenant:acme", **lists)
    error = await denied(world)
    assert type(error) is cycles.ActionNotPermittedError
    assert (error.code, error.deny_detail.reason_code, error.deny_detail.blocked_by_scope) == (
        code,
        code,
        "tenant:acme",
    )
    preview = await world.get(world.operations.preview(cycles.tokens(1), action=MAIL))
    assert (preview.decision, preview.reason_code, preview.deny_detail.blocked_by_policy) == ("DENY", code, "kinds")
    decision = await world.get(world.operations.decide(cycles.tokens(1), action=MAIL))
    assert decision.deny_detail == preview.deny_detail


async def test_a_quota_of_a_run_needs_a_run_and_a_release_returns_its_call(
    world: World, server: cycles.EmbeddedServer
) -> None:
    quota = {"risk_class": "external_side_effect", "window": "per_run", "limit": 1}
    server.ledger.set_policy("runs", "tenant:acme", quotas=[quota])
    with pytest.raises(cycles.ProtocolError, match="run_id is required"):
        await world.acquire(of(world))
    with cycles.run("run-1"):
        guard = await world.acquire(of(world))
        error = await denied(world)
        assert (error.quota.risk_class, error.quota.window_key, error.quota.resets_at) == (
            "external_side_effect",
            "run-1",
            None,
        )
        await world.get(guard.release())
        async with world.enter(of(world)):
            pass
    with cycles.run("run-2"):
        async with world.enter(of(world)):
            pass


async def test_an_expired_reservation_returns_its_call_to_the_quota_of_its_run(
    world: World, server: cycles.EmbeddedServer, clock: cycles.ManualClock
) -> None:
    server.ledger.set_policy(
        "runs", "tenant:acme", quotas=[{"action_kind": MAIL.kind, "window": "per_run", "limit": 1}]
    )
    with cycles.run("run-1"):
        (await world.acquire(of(world))).detach()
        assert (await denied(world)).quota.used == 1
        clock.advance(600_000)
        async with world.enter(of(world)):
            pass


async def test_a_quota_for_hosts_applies_only_to_their_actions(world: World, server: cycles.EmbeddedServer) -> None:
    quota = {"action_kind": MAIL.kind, "window": "per_hour_tumbling", "limit": 0, "hosts": ["api.mail.example"]}
    server.ledger.set_policy("hosts", "tenant:acme", quotas=[quota])
    async with world.enter(of(world, cycles.Action(MAIL.kind, "welcome"))):
        pass
    assert (await denied(world)).code == "ACTION_QUOTA_EXCEEDED"


async def test_the_policy_with_the_highest_priority_counts(world: World, server: cycles.EmbeddedServer) -> None:
    server.ledger.set_policy("strict", "tenant:acme", denied_kinds=[MAIL.kind])
    server.ledger.set_policy("lenient", "tenant:acme/agent:mailer", priority=1)
    async with world.enter(of(world, subject={"agent": "mailer"})):
        pass
    assert (await denied(world)).code == "ACTION_KIND_DENIED"
    server.ledger.delete_policy("strict")
    async with world.enter(of(world)):
        pass


async def test_a_denied_kind_hides_an_empty_budget_and_an_event_passes(
    world: World, server: cycles.EmbeddedServer
) -> None:
    server.ledger.set_policy("kinds", "tenant:acme", denied_kinds=[MAIL.kind])
    with pytest.raises(cycles.ActionNotPermittedError):
        await world.acquire(world.client.reserve(cycles.tokens(10**9), action=MAIL))
    recorded = await world.get(world.operations.record(cycles.tokens(3), action=MAIL))
    assert (recorded.status, spent(server)) == ("APPLIED", 3)
