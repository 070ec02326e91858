"""Quota counters over `cycles.Admin`, on an embedded server of protocol 0.1.26."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

import cycles

KEY = "admin-key-of-the-test"
NEW = "action_quotas:read"
MAIL = ("message.email.send", "welcome")
NOON = int(datetime(2026, 4, 9, 12, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    clock = cycles.ManualClock(start_ms=NOON)
    budgets = {"tenant:acme": cycles.tokens(1000), "tenant:other": cycles.tokens(1000)}
    with cycles.EmbeddedServer(budgets, admin_api_key=KEY, protocol="0.1.26", clock=clock) as server:
        quotas: list[dict[str, Any]] = [
            {"action_kind": MAIL[0], "window": "per_day_tumbling", "limit": 2},
            {"risk_class": "external_side_effect", "window": "per_run", "limit": 5},
        ]
        server.ledger.set_policy("mail", "tenant:acme", quotas=quotas)
        yield server


@pytest.fixture
def admin(server: cycles.EmbeddedServer) -> Iterator[cycles.Admin]:
    with (
        httpx.Client(transport=server.transport()) as http,
        cycles.Admin("http://embedded.test", KEY, http_client=http) as admin,
    ):
        yield admin


def use(server: cycles.EmbeddedServer, *runs: str) -> None:
    with server.client(tenant="acme") as client:
        for run in runs:
            with cycles.run(run), client.reserve(cycles.tokens(1), action=MAIL, actual=cycles.tokens(1)):
                pass


def test_counters_are_listed_and_filtered(server: cycles.EmbeddedServer, admin: cycles.Admin) -> None:
    assert list(admin.quota_counters("acme")) == []
    use(server, "run-1", "run-2")
    daily = next(iter(admin.quota_counters("acme", window="per_day_tumbling")))
    assert (daily.action_kind, daily.used, daily.limit, daily.remaining) == (MAIL[0], 2, 2, 0)
    assert (daily.window_key, daily.policy_id) == ("2026-04-09", "mail")
    assert daily.last_incremented_at == datetime(2026, 4, 9, 12, tzinfo=UTC)
    (one,) = admin.quota_counters("acme", run_id="run-2")
    assert (one.action_kind, one.risk_class, one.used) == ("__risk__", "external_side_effect", 1)
    assert len(list(admin.quota_counters("acme"))) == 3
    assert list(admin.quota_counters("acme", scope="tenant:other")) == []
    assert list(admin.quota_counters("other", include_zero=True)) == []


def test_a_reset_counter_allows_actions_again(server: cycles.EmbeddedServer, admin: cycles.Admin) -> None:
    use(server, "run-1", "run-1")
    with pytest.raises(cycles.ActionQuotaExceededError):
        use(server, "run-1")
    counter = admin.reset_quota_counter(
        "acme", scope="tenant:acme", window="per_day_tumbling", action_kind=MAIL[0], reason="incident 7"
    )
    assert (counter.used, counter.previous_used) == (0, 2)
    shown = [each for each in admin.quota_counters("acme", include_zero=True) if each.window == counter.window]
    assert [each.used for each in shown] == [0]
    use(server, "run-1")
    (entry,) = admin.audit(operation="resetActionQuotaCounter")
    assert entry.metadata == {"previous_used": 2, "reason": "incident 7"}
    with pytest.raises(cycles.NotFoundError):
        admin.reset_quota_counter("acme", scope="tenant:acme", window="per_minute_tumbling", action_kind=MAIL[0])


def test_counters_of_a_run_and_of_the_day_end(server: cycles.EmbeddedServer, admin: cycles.Admin) -> None:
    clock = server.ledger._ledger.clock
    assert isinstance(clock, cycles.ManualClock)
    use(server, "run-1")
    clock.advance(36 * 60 * 60 * 1000 + 1)
    assert list(admin.quota_counters("acme", include_zero=True)) == []


def test_a_tenants_key_sees_its_own_counters_only(server: cycles.EmbeddedServer) -> None:
    use(server, "run-1")
    path = "http://embedded.test/v1/admin/action-quota-counters"
    with httpx.Client(transport=server.transport()) as http:
        own = http.get(f"{path}?tenant_id=acme", headers={"X-Cycles-API-Key": server.api_key_for("other")})
        assert own.json()["counters"] == []
        assert len(http.get(path, headers={"X-Cycles-API-Key": server.api_key_for("acme")}).json()["counters"]) == 2
        assert http.get(path, headers={"X-Admin-API-Key": KEY}).status_code == 400
        reset = http.post(f"{path}/reset", headers={"X-Cycles-API-Key": server.api_key_for("acme")}, json={})
        assert reset.status_code == 401


def test_the_former_permission_for_counters_works_and_the_response_says_so(
    server: cycles.EmbeddedServer, admin: cycles.Admin
) -> None:
    path = "http://embedded.test/v1/admin/action-quota-counters"
    with httpx.Client(transport=server.transport()) as http:
        for permission, said in (("balances:read", "balances:read; use action_quotas:read"), (NEW, None)):
            secret = admin.create_api_key("acme", permission, permissions=[permission]).secret
            response = http.get(path, headers={"X-Cycles-API-Key": secret})
            assert response.status_code == 200
            assert response.headers.get("X-Cycles-Permission-Deprecated") == said
        secret = admin.create_api_key("acme", "other", permissions=["budgets:read"]).secret
        assert http.get(path, headers={"X-Cycles-API-Key": secret}).status_code == 403


def test_counters_are_read_from_an_event_loop(server: cycles.EmbeddedServer) -> None:
    use(server, "run-1")

    async def read() -> list[int]:
        async with (
            httpx.AsyncClient(transport=server.transport()) as http,
            cycles.Admin("http://embedded.test", KEY, async_http_client=http) as admin,
        ):
            return [counter.used async for counter in admin.aio.quota_counters("acme")]

    assert asyncio.run(read()) == [1, 1]


def test_a_server_of_the_present_version_has_no_counters() -> None:
    with (
        cycles.EmbeddedServer({"tenant:acme": cycles.tokens(5)}, admin_api_key=KEY) as server,
        httpx.Client(transport=server.transport()) as http,
        cycles.Admin("http://embedded.test", KEY, http_client=http) as admin,
        pytest.raises(cycles.CyclesError) as caught,
    ):
        next(iter(admin.quota_counters("acme")))
    assert getattr(caught.value, "status", None) in (401, 404)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window": "per_day_tumbling", "limit": 1}, "action_kind or risk_class"),
        ({"action_kind": "a", "window": "per_week", "limit": 1}, "window must be one of"),
        ({"action_kind": "a", "window": "per_run", "limit": True}, "limit must be an integer"),
        ({"action_kind": "a", "window": "per_run", "limit": 1, "host": "x"}, "unknown member of a quota: 'host'"),
    ],
)
def test_wrong_quotas_are_rejected(server: cycles.EmbeddedServer, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=message):
        server.ledger.set_policy("wrong", "tenant:acme", quotas=[wrong])
