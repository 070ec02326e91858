"""Whole answers of the embedded server about tenants and API keys, and their entries in the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

import cycles
from cycles.embedded.webhook_events import timestamp
from tests.admin.site import ACME, BOT, DAY_MS, SECOND, START, START_MS, Site, error

CAPABILITIES: Final = [
    *(f"view_{name}" for name in ("budgets", "events", "webhooks", "policies", "reservations")),
    *(f"manage_{name}" for name in ("budgets", "policies", "webhooks", "reservations")),
    *(f"view_{name}" for name in ("overview", "audit", "tenants", "api_keys")),
    *(f"manage_{name}" for name in ("tenants", "api_keys")),
]


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.close()


# --- tenants ----------------------------------------------------------------------------------------------------------


def test_a_tenant_is_made_once_and_changed_with_its_times(site: Site) -> None:
    settings = {
        "default_commit_overage_policy": "REJECT",
        "default_reservation_ttl_ms": 5_000,
        "max_reservation_ttl_ms": 6_000,
        "max_reservation_extensions": 3,
    }
    form = {"tenant_id": "beta", "name": "Beta", "parent_tenant_id": "acme", "metadata": {"a": "b"}, **settings}
    shown = {**form, "status": "ACTIVE", "created_at": START}
    assert site.send("POST", "tenants", form) == (201, shown)
    audited = {
        "timestamp": START,
        "tenant_id": "beta",
        "operation": "createTenant",
        "status": 201,
        "source_ip": "192.0.2.7",
        "resource_type": "tenant",
        "resource_id": "beta",
    }
    assert site.audited() == audited
    site.clock.advance(1_000)
    assert site.send("POST", "tenants", {"tenant_id": "beta", "name": "Beta"}) == (200, shown)
    message = "tenant beta exists with another name; update it, or choose another id"
    other = {"tenant_id": "beta", "name": "B"}
    assert site.send("POST", "tenants", other) == (409, error("DUPLICATE_RESOURCE", message))
    assert site.send("GET", "tenants/beta") == (200, shown)
    changed = site.send("PATCH", "tenants/beta", {"name": "B", "status": "SUSPENDED", "max_reservation_extensions": 4})
    shown |= {"name": "B", "status": "SUSPENDED", "max_reservation_extensions": 4}
    shown |= {"updated_at": SECOND, "suspended_at": SECOND}
    assert changed == (200, shown)
    assert site.audited() == {**audited, "timestamp": SECOND, "operation": "updateTenant", "status": 200}
    site.clock.advance(1_000)
    assert site.send("PATCH", "tenants/beta", {"status": "SUSPENDED"})[1]["suspended_at"] == SECOND
    active = site.send("PATCH", "tenants/beta", {"status": "ACTIVE"})[1]
    assert (active["status"], "closed_at" in active) == ("ACTIVE", False)
    closed = site.send("PATCH", "tenants/beta", {"status": "CLOSED"})[1]
    assert (closed["closed_at"], closed["suspended_at"]) == ("2026-01-01T00:00:02.000Z", SECOND)
    site.clock.advance(1_000)
    assert site.send("PATCH", "tenants/beta", {"name": "C", "status": "CLOSED"})[1]["closed_at"] == closed["closed_at"]
    for status in ("ACTIVE", "SUSPENDED"):
        assert site.send("PATCH", "tenants/beta", {"status": status}) == (
            400,
            error("INVALID_REQUEST", "tenant beta is closed; no other status can follow"),
        )


def test_a_tenant_without_settings_shows_the_defaults_of_the_server(site: Site) -> None:
    defaults = {
        "status": "ACTIVE",
        "default_commit_overage_policy": "ALLOW_IF_AVAILABLE",
        "default_reservation_ttl_ms": 60_000,
        "max_reservation_ttl_ms": 3_600_000,
        "max_reservation_extensions": 10,
    }
    assert site.send("GET", "tenants/acme")[1] == {**defaults, "tenant_id": "acme", "name": "Acme", "created_at": START}
    site.server.ledger.set_budget("tenant:seen", cycles.tokens(1))
    assert site.send("GET", "tenants/seen") == (200, {**defaults, "tenant_id": "seen", "name": "seen"})
    assert site.send("GET", f"tenants/{'x' * 100}") == (
        404,
        error("TENANT_NOT_FOUND", f"tenant not found: {'x' * 80}"),
    )


def test_a_tenant_that_is_closed_closes_what_it_owns_and_nothing_else(site: Site) -> None:
    ledger = site.server.ledger
    site.made("tenants", tenant_id="beta", name="Beta")
    other = site.made("api-keys", tenant_id="beta", name="other")
    revoked = site.made("api-keys", tenant_id="acme", name="old")["key_id"]
    site.send("DELETE", f"api-keys/{revoked}?reason=old")
    for scope in (BOT, f"{ACME}/app:unused", "tenant:beta"):
        ledger.set_budget(scope, cycles.tokens(10))
    ledger.set_budget(BOT, cycles.usd(1))
    with (
        site.server.client(tenant="acme", journal=False) as acme,
        site.server.client(tenant="beta", journal=False) as beta,
    ):
        for client, subject in ((acme, {"agent": "bot"}), (acme, {"agent": "bot"}), (acme, {}), (beta, {})):
            client.reserve(cycles.tokens(2), action=("a", "b"), subject=subject).acquire().detach()
    site.clock.advance(1_000)
    assert site.send("PATCH", "tenants/acme", {"status": "CLOSED"})[0] == 200
    budgets = {(budget.scope, budget.unit): (budget.reserved, budget.status) for budget in ledger.records()[0]}
    assert budgets == {
        (ACME, "TOKENS"): (0, "CLOSED"),
        (BOT, "TOKENS"): (0, "CLOSED"),
        (BOT, "USD_MICROCENTS"): (0, "CLOSED"),
        (f"{ACME}/app:unused", "TOKENS"): (0, "CLOSED"),
        ("tenant:beta", "TOKENS"): (2, "ACTIVE"),
    }
    ended = {(row.tenant, row.status, row.finalized_at_ms) for row in ledger.reservations()}
    assert ended == {("acme", "RELEASED", START_MS + 1_000), ("beta", "ACTIVE", None)}
    keys = {row["key_id"]: row for row in site.send("GET", "api-keys")[1]["keys"]}
    assert (keys[site.key["key_id"]]["status"], keys[other["key_id"]]["status"]) == ("REVOKED", "ACTIVE")
    assert keys[site.key["key_id"]]["revoked_reason"] == "tenant_closed"
    assert keys[site.key["key_id"]]["revoked_at"] == SECOND
    assert (keys[revoked]["revoked_reason"], keys[revoked]["revoked_at"]) == ("old", START)


@pytest.mark.parametrize("known_by", ["record", "budget", "key", "operation"])
def test_a_tenant_is_known_by_each_thing_that_it_has(site: Site, known_by: str) -> None:
    match known_by:
        case "record":
            site.server.ledger.set_tenant("beta")
        case "budget":
            site.server.ledger.set_budget("tenant:Beta/agent:x", cycles.tokens(1))
        case "key":
            site.server.ledger.set_api_key("a-key-of-a-test", tenant="beta")
        case _:
            site.made("tenants", tenant_id="beta", name="beta")
    tenants = site.send("GET", "tenants?sort_by=tenant_id&sort_dir=asc")[1]["tenants"]
    assert [(row["tenant_id"], row["name"], row["status"]) for row in tenants] == [
        ("acme", "Acme", "ACTIVE"), ("beta", "beta", "ACTIVE"),
    ]  # fmt: skip
    assert site.send("GET", "overview")[1]["tenant_counts"]["total"] == 2
    assert site.send("POST", "api-keys", {"tenant_id": "beta", "name": "x"})[0] == 201
    assert site.send("PATCH", "tenants/beta", {"status": "SUSPENDED"})[1]["status"] == "SUSPENDED"
    counts = site.send("GET", "overview")[1]["tenant_counts"]
    assert (counts["total"], counts["suspended"]) == (2, 1)


def test_a_tenant_that_does_not_exist_is_not_changed(site: Site) -> None:
    missing = (404, error("TENANT_NOT_FOUND", "tenant not found: nobody"))
    assert site.send("PATCH", "tenants/nobody", {"name": "x", "status": "SUSPENDED"}) == missing
    assert site.send("GET", "tenants/nobody") == missing
    assert [row["tenant_id"] for row in site.send("GET", "tenants")[1]["tenants"]] == ["acme"]


# --- API keys ---------------------------------------------------------------------------------------------------------


def test_a_key_is_made_changed_and_revoked(site: Site) -> None:
    form = {
        "tenant_id": "acme",
        "name": "ci",
        "description": "for builds",
        "scope_filter": [BOT],
        "metadata": {"a": "b"},
        "permissions": ["budgets:read"],
    }
    status, made = site.send("POST", "api-keys", form)
    shown = {
        "key_id": made["key_id"],
        "key_prefix": made["key_secret"][:14],
        "tenant_id": "acme",
        "permissions": ["budgets:read"],
        "created_at": START,
        "expires_at": "2026-04-01T00:00:00.000Z",
    }
    assert (status, made) == (201, {"key_secret": made["key_secret"], **shown})
    assert made["key_secret"].startswith("cyc_live_")
    assert len(made["key_secret"]) == 41
    audited = {
        "timestamp": START,
        "tenant_id": "acme",
        "operation": "createApiKey",
        "status": 201,
        "source_ip": "192.0.2.7",
        "resource_type": "api_key",
        "resource_id": made["key_id"],
        "metadata": {"name": "ci"},
    }
    assert site.audited() == audited
    listed = {**shown, "status": "ACTIVE", **{name: form[name] for name in ("name", "description", "scope_filter")}}
    listed["metadata"] = {"a": "b"}
    assert site.send("GET", "api-keys?search=CI")[1] == {"keys": [listed], "has_more": False}
    changed = site.send("PATCH", f"api-keys/{made['key_id']}", {"name": "cd", "permissions": ["events:read"]})
    assert changed == (200, {**listed, "name": "cd", "permissions": ["events:read"]})
    site.clock.advance(1_000)
    status, revoked = site.send("DELETE", f"api-keys/{made['key_id']}?reason=lost")
    assert status == 200
    assert revoked == {**changed[1], "status": "REVOKED", "revoked_at": SECOND, "revoked_reason": "lost"}
    del audited["metadata"]
    audited |= {"timestamp": SECOND, "operation": "revokeApiKey", "status": 200, "metadata": {"reason": "lost"}}
    assert site.audited() == audited
    message = f"API key {made['key_id']} is revoked already; nothing was changed"
    assert site.send("DELETE", f"api-keys/{made['key_id']}") == (409, error("KEY_REVOKED", message))
    site.send("DELETE", f"api-keys/{site.key['key_id']}")
    assert "metadata" not in site.audited()
    assert site.send("DELETE", f"api-keys/{'x' * 90}") == (404, error("NOT_FOUND", f"API key not found: {'x' * 60}"))


def test_a_key_may_end_earlier_and_has_the_permissions_of_the_runtime_operations(site: Site) -> None:
    made = site.made("api-keys", tenant_id="acme", name="x", expires_at="2026-02-01T01:00:00.789+01:00")
    assert made["expires_at"] == "2026-02-01T00:00:00.789Z"
    assert made["permissions"] == [
        *(f"reservations:{name}" for name in ("create", "commit", "release", "extend", "list")),
        "balances:read",
    ]
    site.server.ledger.set_api_key("a-key-of-a-test", tenant="acme")
    [shown] = [row for row in site.send("GET", "api-keys")[1]["keys"] if row["key_prefix"] == "a-key-of-a-tes"]
    del shown["key_id"]
    assert shown == {
        "tenant_id": "acme",
        "key_prefix": "a-key-of-a-tes",
        "status": "ACTIVE",
        "created_at": "1970-01-01T00:00:00.000Z",
        "expires_at": "9999-12-31T23:59:59.000Z",
    }


@pytest.mark.parametrize("days", [89, 91, 3650])
def test_a_key_may_end_earlier_and_later_than_by_default(site: Site, days: int) -> None:
    end = timestamp(START_MS + days * DAY_MS)
    made = site.made("api-keys", tenant_id="acme", name="x", expires_at=end)
    site.clock.advance(days * DAY_MS - 1)
    assert made["expires_at"] == end
    assert site.send("POST", "auth/validate", {"key_secret": made["key_secret"]})[1]["valid"] is True
    site.clock.advance(1)
    assert site.send("POST", "auth/validate", {"key_secret": made["key_secret"]})[1]["reason"] == "KEY_EXPIRED"


def test_a_key_that_is_made_without_permissions_has_none(site: Site) -> None:
    made = site.made("api-keys", tenant_id="acme", name="x", permissions=[])
    key = made["key_secret"]
    assert made["permissions"] == []
    found = site.send("GET", "auth/introspect", key=key)[1]
    assert (found["permissions"], set(found["capabilities"].values())) == ([], {False})
    assert site.send("POST", "auth/validate", {"key_secret": key})[1]["permissions"] == []
    assert site.send("GET", "budgets", key=key)[1]["error"] == "INSUFFICIENT_PERMISSIONS"
    changed = site.send("PATCH", f"api-keys/{made['key_id']}", {"permissions": ["budgets:read"]})[1]
    assert (changed["permissions"], site.send("GET", "budgets", key=key)[0]) == (["budgets:read"], 200)
    assert site.send("PATCH", f"api-keys/{made['key_id']}", {"permissions": []})[1]["permissions"] == []
    assert site.send("GET", "budgets", key=key)[0] == 403


def test_a_check_of_a_key_says_why_it_does_not_work(site: Site) -> None:
    def checked() -> dict[str, Any]:
        return site.send("POST", "auth/validate", {"key_secret": made["key_secret"]})[1]

    made = site.made("api-keys", tenant_id="acme", name="x", scope_filter=[BOT], permissions=["events:read"])
    shown = {
        "valid": True,
        "tenant_id": "acme",
        "key_id": made["key_id"],
        "expires_at": made["expires_at"],
        "permissions": ["events:read"],
        "scope_filter": [BOT],
    }
    assert checked() == shown
    site.clock.advance(90 * DAY_MS - 1)
    assert checked() == shown
    site.clock.advance(1)
    assert checked() == {**shown, "valid": False, "reason": "KEY_EXPIRED"}
    made = site.made("api-keys", tenant_id="acme", name="y")
    assert checked()["valid"] is True
    assert "scope_filter" not in checked()
    site.send("PATCH", "tenants/acme", {"status": "SUSPENDED"})
    assert (checked()["valid"], checked()["reason"]) == (False, "TENANT_SUSPENDED")
    for status in ("CLOSED", "ODD"):
        site.server.ledger.set_tenant("acme", status=status)
        assert (checked()["valid"], checked()["reason"]) == (False, f"TENANT_{status}")
    site.server.ledger.set_tenant("acme", status="SUSPENDED")
    site.send("DELETE", f"api-keys/{made['key_id']}")
    assert (checked()["valid"], checked()["reason"]) == (False, "KEY_REVOKED")


@pytest.mark.parametrize(
    ("permissions", "allowed"),
    [
        (["budgets:read"], ["view_budgets"]),
        (["events:read", "webhooks:write"], ["view_events", "manage_webhooks"]),
        (["webhooks:read", "policies:write"], ["view_webhooks", "manage_policies"]),
        (["policies:read", "budgets:write"], ["view_policies", "manage_budgets"]),
        (["reservations:list", "reservations:release"], ["view_reservations", "manage_reservations"]),
        (["admin:read"], [name for name in CAPABILITIES[:9] if name.startswith("view")]),
        (["admin:write"], [name for name in CAPABILITIES[:9] if name.startswith("manage")]),
        (["balances:read"], []),
    ],
)
def test_a_login_of_a_tenants_key_allows_what_its_permissions_do(
    site: Site, permissions: list[str], allowed: list[str]
) -> None:
    key = site.made("api-keys", tenant_id="acme", name="x", permissions=permissions)["key_secret"]
    assert site.send("GET", "auth/introspect", key=key) == (
        200,
        {
            "authenticated": True,
            "auth_type": "tenant",
            "permissions": permissions,
            "capabilities": {name: name in allowed for name in CAPABILITIES},
            "tenant_id": "acme",
        },
    )


def test_a_login_of_the_operator_or_of_a_key_that_a_test_made_allows_all_of_its_kind(site: Site) -> None:
    assert site.send("GET", "auth/introspect")[1] == {
        "authenticated": True,
        "auth_type": "admin",
        "permissions": ["*"],
        "capabilities": dict.fromkeys(CAPABILITIES, True),
    }
    site.server.ledger.set_api_key("a-key-of-a-test", tenant="acme")
    own = site.send("GET", "auth/introspect", key="a-key-of-a-test")[1]
    assert own["capabilities"] == {name: name in CAPABILITIES[:9] for name in CAPABILITIES}
    assert len(own["permissions"]) == 16
    scoped = site.made("api-keys", tenant_id="acme", name="x", scope_filter=[BOT])["key_secret"]
    assert site.send("GET", "auth/introspect", key=scoped)[1]["scope_filter"] == [BOT]
