"""The whole answer of each admin operation of the embedded server, what its audit log keeps, and each error's text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

import cycles
from cycles.embedded import EmbeddedServer, ManualClock, admin_bulk, admin_overview
from cycles.embedded.admin_state import AdminCall, AdminState, Result
from cycles.embedded.errors import ApiError
from cycles.embedded.http import Request
from cycles.embedded.ledger import Ledger
from cycles.embedded.tables import Tables
from cycles.embedded.webhook_subscriptions import Subscription

START_MS: Final = 1_767_225_600_000
START: Final = "2026-01-01T00:00:00.000Z"
SECOND: Final = "2026-01-01T00:00:01.000Z"
DAY_MS: Final = 86_400_000
ACME: Final = "tenant:acme"
BOT: Final = "tenant:acme/agent:bot"
PLACE: Final = f"scope={ACME}&unit=TOKENS"
FUND: Final = f"budgets/fund?tenant_id=acme&{PLACE}"
CAPABILITIES: Final = [
    *(f"view_{name}" for name in ("budgets", "events", "webhooks", "policies", "reservations")),
    *(f"manage_{name}" for name in ("budgets", "policies", "webhooks", "reservations")),
    *(f"view_{name}" for name in ("overview", "audit", "tenants", "api_keys")),
    *(f"manage_{name}" for name in ("tenants", "api_keys")),
]


def tokens(amount: int) -> dict[str, Any]:
    return {"unit": "TOKENS", "amount": amount}


class Site:
    """A server with the tenant acme, its key and a budget of ten tokens. Requests have no socket."""

    def __init__(self) -> None:
        self.clock = ManualClock(START_MS)
        self.server = EmbeddedServer(admin_api_key="adm", clock=self.clock, protocol="0.1.26")
        self.headers: dict[str, str] = {}
        """Those of the last response."""
        self.made("tenants", tenant_id="acme", name="Acme")
        self.key = self.made("api-keys", tenant_id="acme", name="one")
        self.budget = self.made("budgets", tenant_id="acme", scope=ACME, unit="TOKENS", allocated=tokens(10))

    def send(
        self, method: str, path: str, body: Any = None, key: str | None = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Send a request with the admin key, or with a tenant's; return status and body."""
        own = {"x-admin-api-key": "adm"} if key is None else {"x-cycles-api-key": key}
        request = Request(
            method=method,
            target=f"/v1/{path}" if path.startswith("auth/") else f"/v1/admin/{path}",
            headers={**own, "content-type": "application/json", **headers},
            body=b"" if body is None else json.dumps(body).encode(),
            address="192.0.2.7",
        )
        response, _ = self.server.handle(request)
        assert response is not None
        self.headers = response.headers
        found = json.loads(response.body)
        if "error" in found:
            assert (found.pop("request_id"), found.pop("trace_id")) == (
                response.headers["X-Request-Id"],
                response.headers["X-Cycles-Trace-Id"],
            )
        return response.status, found

    def made(self, path: str, **body: Any) -> dict[str, Any]:
        status, found = self.send("POST", path, body)
        assert status in (200, 201), found
        return found

    def audited(self) -> dict[str, Any]:
        """Return the newest entry of the audit log, without what is random."""
        entry: dict[str, Any] = self.send("GET", "audit/logs?limit=1")[1]["logs"][0]
        return {name: entry[name] for name in entry if name not in ("log_id", "request_id", "trace_id")}


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.close()


def error(code: str, message: str) -> dict[str, Any]:
    return {"error": code, "message": message}


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
    for scope in (BOT, "tenant:beta"):
        ledger.set_budget(scope, cycles.tokens(10))
    with (
        site.server.client(tenant="acme", journal=False) as acme,
        site.server.client(tenant="beta", journal=False) as beta,
    ):
        for client, subject in ((acme, {"agent": "bot"}), (acme, {"agent": "bot"}), (acme, {}), (beta, {})):
            client.reserve(cycles.tokens(2), action=("a", "b"), subject=subject).acquire().detach()
    site.clock.advance(1_000)
    assert site.send("PATCH", "tenants/acme", {"status": "CLOSED"})[0] == 200
    budgets = {budget.scope: (budget.reserved, budget.status) for budget in ledger.records()[0]}
    assert budgets == {ACME: (0, "CLOSED"), BOT: (0, "CLOSED"), "tenant:beta": (2, "ACTIVE")}
    ended = {(row.tenant, row.status, row.finalized_at_ms) for row in ledger.reservations()}
    assert ended == {("acme", "RELEASED", START_MS + 1_000), ("beta", "ACTIVE", None)}
    keys = {row["key_id"]: row for row in site.send("GET", "api-keys")[1]["keys"]}
    assert (keys[site.key["key_id"]]["status"], keys[other["key_id"]]["status"]) == ("REVOKED", "ACTIVE")
    assert keys[site.key["key_id"]]["revoked_reason"] == "tenant_closed"
    assert keys[site.key["key_id"]]["revoked_at"] == SECOND
    assert (keys[revoked]["revoked_reason"], keys[revoked]["revoked_at"]) == ("old", START)


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
    made = site.made("api-keys", tenant_id="acme", name="x", expires_at="2026-02-01T01:00:00+01:00")
    assert made["expires_at"] == "2026-02-01T00:00:00.000Z"
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


# --- budgets ----------------------------------------------------------------------------------------------------------


def test_a_budget_is_made_changed_frozen_and_thawed(site: Site) -> None:
    form = {
        "tenant_id": "acme",
        "scope": "tenant:ACME/agent:Bot",
        "unit": "TOKENS",
        "allocated": tokens(10),
        "overdraft_limit": tokens(3),
        "commit_overage_policy": "REJECT",
        "rollover_policy": "NONE",
        "period_start": START,
        "period_end": SECOND,
    }
    status, made = site.send("POST", "budgets", form)
    shown = {
        "ledger_id": made["ledger_id"],
        "tenant_id": "acme",
        "scope": BOT,
        "unit": "TOKENS",
        "allocated": tokens(10),
        "remaining": tokens(10),
        **{name: tokens(0) for name in ("reserved", "spent", "debt")},
        "overdraft_limit": tokens(3),
        "is_over_limit": False,
        "status": "ACTIVE",
        "created_at": START,
        **{name: form[name] for name in ("commit_overage_policy", "rollover_policy", "period_start", "period_end")},
    }
    assert (status, made) == (201, shown)
    audited = {
        "timestamp": START,
        "tenant_id": "acme",
        "operation": "createBudget",
        "status": 201,
        "source_ip": "192.0.2.7",
        "resource_type": "budget",
        "resource_id": f"{BOT}:TOKENS",
    }
    assert site.audited() == audited
    site.clock.advance(1_000)
    place = "scope=TENANT:acme/agent:BOT&unit=TOKENS"
    changed = site.send("PATCH", f"budgets?{place}", {"overdraft_limit": tokens(4)})
    shown |= {"overdraft_limit": tokens(4), "updated_at": SECOND}
    assert changed == (200, shown)
    changed = site.send("PATCH", f"budgets?{place}", {"commit_overage_policy": "ALLOW_WITH_OVERDRAFT"})
    shown["commit_overage_policy"] = "ALLOW_WITH_OVERDRAFT"
    assert changed == (200, shown)
    assert site.audited() == {**audited, "timestamp": SECOND, "operation": "updateBudget", "status": 200}
    assert site.send("POST", f"budgets/freeze?{place}", {"reason": "why"}) == (200, {**shown, "status": "FROZEN"})
    audited |= {"timestamp": SECOND, "status": 200}
    assert site.audited() == {**audited, "operation": "freezeBudget", "metadata": {"reason": "why"}}
    message = "the budget is FROZEN, but it must be ACTIVE"
    assert site.send("POST", f"budgets/freeze?{place}") == (409, error("INVALID_REQUEST", message))
    assert site.send("POST", f"budgets/unfreeze?{place}") == (200, shown)
    assert site.audited() == {**audited, "operation": "unfreezeBudget"}
    message = "the budget is ACTIVE, but it must be FROZEN"
    assert site.send("POST", f"budgets/unfreeze?{place}") == (409, error("INVALID_REQUEST", message))
    assert site.send("GET", f"budgets/lookup?{place}") == (200, shown)


@pytest.mark.parametrize(("limit", "is_over"), [(0, True), (1, True), (2, False), (3, False)])
def test_a_budget_is_over_its_limit_while_it_owes_more(site: Site, limit: int, is_over: bool) -> None:
    site.server.ledger.set_budget(ACME, cycles.tokens(10), debt=2, is_over_limit=True)
    changed = site.send("PATCH", f"budgets?{PLACE}", {"overdraft_limit": tokens(limit)})[1]
    assert (changed["is_over_limit"], changed["debt"], changed["remaining"]) == (is_over, tokens(2), tokens(8))
    assert site.send("GET", f"budgets/lookup?{PLACE}") == (200, changed)


NEW: Final = {"scope": BOT, "unit": "TOKENS", "allocated": tokens(5)}


@pytest.mark.parametrize(
    ("form", "by_tenant", "status", "code", "message"),
    [
        ({}, False, 400, "INVALID_REQUEST", "tenant_id: is required with the admin key"),
        (
            {"tenant_id": "acme"},
            True,
            400,
            "INVALID_REQUEST",
            "tenant_id: is not allowed with a tenant's key, which decides the tenant",
        ),
        ({}, True, 201, None, None),
        ({"tenant_id": "nobody", "scope": "tenant:nobody"}, False, 404, "TENANT_NOT_FOUND", "tenant not found: nobody"),
        (
            {"tenant_id": "acme", "scope": ACME},
            False,
            409,
            "DUPLICATE_RESOURCE",
            f"{ACME} has a budget in TOKENS already; update that one",
        ),
        (
            {"tenant_id": "acme", "allocated": {"unit": "CREDITS", "amount": 1}},
            False,
            400,
            "UNIT_MISMATCH",
            "the budget is in TOKENS, got an amount in CREDITS",
        ),
        (
            {"tenant_id": "acme", "overdraft_limit": {"unit": "CREDITS", "amount": 1}},
            False,
            400,
            "UNIT_MISMATCH",
            "the budget is in TOKENS, got an amount in CREDITS",
        ),
        (
            {"tenant_id": "acme", "scope": "tenant:acme/agent:*"},
            False,
            400,
            "INVALID_REQUEST",
            "scope: 'agent:*' is not level:id without wildcards",
        ),
        (
            {"tenant_id": "acme", "scope": "tenant:other"},
            False,
            400,
            "INVALID_REQUEST",
            "scope: 'tenant:other' does not begin with tenant:acme",
        ),
    ],
)
def test_a_wrong_budget_is_not_made(
    site: Site, form: dict[str, Any], by_tenant: bool, status: int, code: str | None, message: str | None
) -> None:
    key = site.made("api-keys", tenant_id="acme", name="x", permissions=["budgets:write"])["key_secret"]
    found = site.send("POST", "budgets", {**NEW, **form}, key if by_tenant else None)
    assert found[0] == status
    assert {name: found[1].get(name) for name in ("error", "message")} == {"error": code, "message": message}
    assert len(site.server.ledger.scopes()) == 1 + (status == 201)


@pytest.mark.parametrize(
    ("tenant_status", "of_key", "of_freeze"),
    [
        ("SUSPENDED", (400, "INVALID_REQUEST", "tenant acme is SUSPENDED; reactivate it first"), None),
        (
            "CLOSED",
            (409, "TENANT_CLOSED", "tenant acme is closed; what it owns cannot be changed"),
            (409, "TENANT_CLOSED", "tenant acme is closed; what it owns cannot be changed"),
        ),
    ],
)
def test_a_tenant_that_is_not_active_gets_nothing_new(
    site: Site, tenant_status: str, of_key: tuple[int, str, str], of_freeze: tuple[int, str, str] | None
) -> None:
    policy = site.made("policies", tenant_id="acme", name="p", scope_pattern=ACME)["policy_id"]
    site.send("PATCH", "tenants/acme", {"status": tenant_status})
    for path, form in (
        ("api-keys", {"tenant_id": "acme", "name": "x"}),
        ("budgets", {"tenant_id": "acme", **NEW}),
        ("policies", {"tenant_id": "acme", "name": "p", "scope_pattern": ACME}),
    ):
        assert site.send("POST", path, form) == (of_key[0], error(*of_key[1:]))
    changes: list[tuple[str, str, Any]] = [
        ("POST", f"budgets/freeze?{PLACE}", None),
        ("PATCH", f"budgets?{PLACE}", {"overdraft_limit": tokens(1)}),
        ("POST", FUND, {"operation": "CREDIT", "amount": tokens(1)}),
        ("PATCH", f"api-keys/{site.key['key_id']}", {"name": "y"}),
        ("DELETE", f"api-keys/{site.key['key_id']}", None),
    ]
    if of_freeze is None:
        changes.insert(1, ("POST", f"budgets/unfreeze?{PLACE}", None))
    for change in changes:
        status, found = site.send(*change)
        assert (status, found if status >= 400 else None) == (
            (200, None) if of_freeze is None else (of_freeze[0], error(*of_freeze[1:]))
        ), change
    assert site.send("PATCH", f"policies/{policy}", {"priority": 1})[0] == 200


# --- funding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "amount", "more", "after"),
    [  # after: allocated, remaining, debt, spent; before: 20, 13, 3, 4
        ("CREDIT", 5, {}, (25, 18, 3, 4)),
        ("DEBIT", 13, {}, (7, 0, 3, 4)),
        ("DEBIT", 0, {}, (20, 13, 3, 4)),
        ("RESET", 9, {}, (9, 2, 3, 4)),
        ("RESET_SPENT", 9, {}, (9, 6, 3, 0)),
        ("RESET_SPENT", 9, {"spent": tokens(2)}, (9, 4, 3, 2)),
        ("REPAY_DEBT", 2, {}, (20, 15, 1, 4)),
        ("REPAY_DEBT", 3, {}, (20, 16, 0, 4)),
        ("REPAY_DEBT", 5, {}, (22, 18, 0, 4)),
    ],
)
def test_funding_shows_the_amounts_before_and_after(
    site: Site, operation: str, amount: int, more: dict[str, Any], after: tuple[int, int, int, int]
) -> None:
    site.server.ledger.set_budget(ACME, cycles.tokens(20), spent=4, debt=3, overdraft_limit=5)
    site.clock.advance(1_000)
    names, before = ("allocated", "remaining", "debt", "spent"), (20, 13, 3, 4)
    shown = {
        "operation": operation,
        **{f"previous_{name}": tokens(number) for name, number in zip(names, before, strict=True)},
        **{f"new_{name}": tokens(number) for name, number in zip(names, after, strict=True)},
        "timestamp": SECOND,
    }
    form = {"operation": operation, "amount": tokens(amount), "reason": "why", **more}
    assert site.send("POST", FUND, form) == (200, shown)
    balance = site.server.ledger.balance(ACME)
    assert (balance.allocated, balance.remaining) == (cycles.tokens(after[0]), cycles.tokens(after[1]))
    moved = {name: value["amount"] for name, value in shown.items() if isinstance(value, dict)}
    if operation == "RESET_SPENT":
        moved["spent_override_provided"] = bool(more)
    assert site.audited() == {
        "timestamp": SECOND,
        "tenant_id": "acme",
        "operation": "fundBudget",
        "status": 200,
        "source_ip": "192.0.2.7",
        "resource_type": "budget",
        "resource_id": f"{ACME}:TOKENS",
        "metadata": {
            "scope": ACME,
            "unit": "TOKENS",
            "funding_operation": operation,
            "reason": "why",
            "amount": amount,
            **moved,
        },
    }


@pytest.mark.parametrize(
    ("path", "form", "status", "code", "message"),
    [
        (
            f"budgets/fund?{PLACE}",
            {},
            400,
            "INVALID_REQUEST",
            "the query parameter tenant_id is missing; send it with the admin key",
        ),
        (
            f"budgets/fund?tenant_id=other&{PLACE}",
            {},
            403,
            "FORBIDDEN",
            "the budget belongs to another tenant; use a key of that tenant",
        ),
        (
            f"budgets/fund?tenant_id=acme&scope={BOT}&unit=TOKENS",
            {},
            404,
            "BUDGET_NOT_FOUND",
            f"{BOT} has no budget in TOKENS; create one first",
        ),
        (
            "budgets/fund?tenant_id=acme&unit=TOKENS",
            {},
            400,
            "INVALID_REQUEST",
            "the query parameter scope is missing; send it",
        ),
        (
            f"budgets/fund?tenant_id=acme&scope={ACME}",
            {},
            400,
            "INVALID_REQUEST",
            "the query parameter unit is missing; send it",
        ),
        (
            FUND,
            {"spent": tokens(1)},
            400,
            "INVALID_REQUEST",
            "spent: belongs to RESET_SPENT only; omit it",
        ),
        (
            FUND,
            {"operation": "RESET_SPENT", "spent": {"unit": "CREDITS", "amount": 1}},
            400,
            "UNIT_MISMATCH",
            "the budget is in TOKENS, got an amount in CREDITS",
        ),
        (
            FUND,
            {"operation": "DEBIT", "amount": tokens(11)},
            409,
            "BUDGET_EXCEEDED",
            f"the amount is too large; {ACME} has 10 TOKENS left",
        ),
        (
            FUND,
            {"amount": tokens(2**63 - 1)},
            500,
            "INTERNAL_ERROR",
            f"a number of {ACME} would no longer fit into 64 bits; nothing was changed",
        ),
    ],
)
def test_wrong_funding_changes_nothing(
    site: Site, path: str, form: dict[str, Any], status: int, code: str, message: str
) -> None:
    found = site.send("POST", path, {"operation": "CREDIT", "amount": tokens(1), **form})
    assert found == (status, error(code, message))
    assert site.server.ledger.balance(ACME).allocated == cycles.tokens(10)
    assert site.audited() == {
        "timestamp": START,
        "tenant_id": "__admin__",
        "operation": "POST:/v1/admin/budgets/fund",
        "status": status,
        "source_ip": "192.0.2.7",
        "error_code": code,
        "metadata": {"error_message": message},
    }


@pytest.mark.parametrize("status", ["FROZEN", "CLOSED"])
def test_only_an_active_budget_can_be_funded(site: Site, status: str) -> None:
    site.server.ledger.set_status(ACME, status)
    message = f"the budget of {ACME} is {status}; only an ACTIVE one can be funded"
    found = site.send("POST", FUND, {"operation": "CREDIT", "amount": tokens(1)})
    assert found == (409, error(f"BUDGET_{status}", message))


def test_funding_with_a_known_key_changes_nothing_for_a_day(site: Site) -> None:
    form = {"operation": "CREDIT", "amount": tokens(1), "idempotency_key": "k-1"}
    first = site.send("POST", FUND, form)[1]
    site.clock.advance(DAY_MS)
    assert site.send("POST", FUND, form) == (200, {**first, "timestamp": "2026-01-02T00:00:00.000Z"})
    audited = site.audited()["metadata"]
    assert audited == {"scope": ACME, "unit": "TOKENS", "funding_operation": "CREDIT", "idempotency_key": "k-1"}
    message = "the idempotency key was used with another body; send a new key"
    other = {**form, "amount": tokens(2)}
    assert site.send("POST", FUND, other) == (409, error("IDEMPOTENCY_MISMATCH", message))
    assert site.server.ledger.balance(ACME).allocated == cycles.tokens(11)
    site.clock.advance(1)
    assert site.send("POST", FUND, form)[1]["new_allocated"] == tokens(12)


def test_a_tenants_key_funds_and_reads_its_own_budgets_only(site: Site) -> None:
    site.made("tenants", tenant_id="beta", name="Beta")
    own, other = (
        site.made("api-keys", tenant_id=tenant, name="x", permissions=["budgets:write", "budgets:read"])["key_secret"]
        for tenant in ("acme", "beta")
    )
    form = {"operation": "CREDIT", "amount": tokens(1)}
    forbidden = (403, error("FORBIDDEN", "the budget belongs to another tenant; use a key of that tenant"))
    assert site.send("POST", FUND, form, other) == forbidden
    assert site.send("GET", f"budgets/lookup?{PLACE}", key=other) == forbidden
    assert site.send("POST", FUND, form, own)[1]["new_allocated"] == tokens(11)
    assert site.send("POST", f"budgets/fund?tenant_id=beta&{PLACE}", form, own)[1]["new_allocated"] == tokens(12)
    assert site.send("GET", f"budgets/lookup?{PLACE}", key=own)[1]["allocated"] == tokens(12)
    assert [row["scope"] for row in site.send("GET", "budgets?tenant_id=beta", key=own)[1]["ledgers"]] == [ACME]
    assert site.send("GET", "budgets", key=other)[1]["ledgers"] == []


# --- bulk actions -----------------------------------------------------------------------------------------------------


def bulk(**form: Any) -> dict[str, Any]:
    given = {"filter": {"tenant_id": "acme"}, "action": "DEBIT", "idempotency_key": "k-1", "amount": tokens(4)}
    return {**given, **form}


def test_rows_of_a_bulk_action_end_one_by_one_and_are_kept_for_15_minutes(site: Site) -> None:
    for name, left in (("a", 3), ("b", 4), ("c", 9)):
        site.server.ledger.set_budget(f"{ACME}/agent:{name}", cycles.tokens(left))
    site.server.ledger.set_status(f"{ACME}/agent:c", "FROZEN")
    ids = {row["scope"]: row["ledger_id"] for row in site.send("GET", "budgets")[1]["ledgers"]}
    status, found = site.send("POST", "budgets/bulk-action", bulk(expected_count=4))
    assert status == 200
    failed = [
        {
            "id": ids[f"{ACME}/agent:a"],
            "error_code": "BUDGET_EXCEEDED",
            "message": f"the amount is too large; {ACME}/agent:a has 3 TOKENS left",
        },
        {
            "id": ids[f"{ACME}/agent:c"],
            "error_code": "INVALID_TRANSITION",
            "message": f"the budget of {ACME}/agent:c is FROZEN; only an ACTIVE one can be funded",
        },
    ]
    assert found == {
        "action": "DEBIT",
        "total_matched": 4,
        "succeeded": [{"id": ids[ACME]}, {"id": ids[f"{ACME}/agent:b"]}],
        "failed": failed,
        "skipped": [],
        "idempotency_key": "k-1",
    }
    assert site.audited() == {
        "timestamp": START,
        "tenant_id": "acme",
        "operation": "bulkActionBudgets",
        "status": 200,
        "source_ip": "192.0.2.7",
        "resource_type": "budget",
        "resource_id": "bulk-action",
        "metadata": {
            "action": "DEBIT",
            "filter": {"tenant_id": "acme"},
            "idempotency_key": "k-1",
            "total_matched": 4,
            "succeeded": 2,
            "failed": 2,
            "skipped": 0,
            "succeeded_ids": [ids[ACME], ids[f"{ACME}/agent:b"]],
            "failed_rows": failed,
            "skipped_rows": [],
        },
    }
    site.clock.advance(15 * 60_000)
    assert site.send("POST", "budgets/bulk-action", bulk(expected_count=4)) == (200, found)
    assert site.send("POST", "budgets/bulk-action", bulk())[1]["error"] == "IDEMPOTENCY_MISMATCH"
    site.clock.advance(1)
    again = site.send("POST", "budgets/bulk-action", bulk(expected_count=4))[1]
    assert again["succeeded"] == [{"id": ids[ACME]}]


@pytest.mark.parametrize(
    ("form", "status", "code", "message"),
    [
        ({"expected_count": 2}, 409, "COUNT_MISMATCH", "expected_count is 2, but 1 match; nothing was changed"),
        ({"expected_count": 0}, 409, "COUNT_MISMATCH", "expected_count is 0, but 1 match; nothing was changed"),
        ({"amount": None}, 400, "INVALID_REQUEST", "amount: is required for DEBIT"),
    ],
)
def test_a_wrong_bulk_action_changes_nothing(
    site: Site, form: dict[str, Any], status: int, code: str, message: str
) -> None:
    found = site.send("POST", "budgets/bulk-action", bulk(**form))
    details = {"details": {"total_matched": 1}} if code == "COUNT_MISMATCH" else {}
    assert found == (status, {**error(code, message), **details})
    assert site.server.ledger.balance(ACME).allocated == cycles.tokens(10)
    assert site.send("POST", "budgets/bulk-action", bulk(expected_count=1))[0] == 200


def test_a_bulk_action_is_for_at_most_500_rows() -> None:
    state = AdminState(Ledger(Tables(), ManualClock(START_MS)))

    def run(rows: int) -> Result:
        form = {"filter": {"tenant_id": "acme"}, "action": "x", "idempotency_key": f"k-{rows}"}
        return admin_bulk.run(
            state, AdminCall(None, "", {}, form, START_MS), "budget", lambda _: range(rows), str, lambda _: True
        )

    found = run(500)
    assert (found.status, found.body is not None and found.body["total_matched"]) == (200, 500)
    with pytest.raises(ApiError) as caught:
        run(501)
    assert (caught.value.code, caught.value.status) == ("LIMIT_EXCEEDED", 400)
    assert caught.value.message == "501 rows of budget match, but at most 500 may; narrow the filter"


def test_a_bulk_action_fails_for_budgets_of_a_closed_tenant(site: Site) -> None:
    site.send("PATCH", "tenants/acme", {"status": "CLOSED"})
    found = site.send("POST", "budgets/bulk-action", bulk())[1]
    message = "tenant acme is closed; what it owns cannot be changed"
    failed = {"id": site.budget["ledger_id"], "error_code": "INVALID_TRANSITION", "message": message}
    assert (found["failed"], found["succeeded"]) == ([failed], [])


@pytest.mark.parametrize(
    ("action", "before", "ended", "after"),
    [
        ("SUSPEND", "ACTIVE", "succeeded", "SUSPENDED"),
        ("SUSPEND", "SUSPENDED", "skipped", "SUSPENDED"),
        ("REACTIVATE", "SUSPENDED", "succeeded", "ACTIVE"),
        ("REACTIVATE", "ACTIVE", "skipped", "ACTIVE"),
        ("CLOSE", "SUSPENDED", "succeeded", "CLOSED"),
        ("CLOSE", "CLOSED", "skipped", "CLOSED"),
        ("SUSPEND", "CLOSED", "failed", "CLOSED"),
    ],
)
def test_a_bulk_action_on_tenants(site: Site, action: str, before: str, ended: str, after: str) -> None:
    site.made("tenants", tenant_id="beta", name="Beta", parent_tenant_id="acme")
    site.send("PATCH", "tenants/beta", {"status": before})
    form = {"filter": {"parent_tenant_id": "acme"}, "action": action, "idempotency_key": "k-1"}
    status, found = site.send("POST", "tenants/bulk-action", form)
    rows: dict[str, Any] = {
        "succeeded": {"id": "beta"},
        "skipped": {"id": "beta", "reason": "ALREADY_IN_TARGET_STATE"},
        "failed": {
            "id": "beta",
            "error_code": "INVALID_TRANSITION",
            "message": "tenant beta is closed; no other status can follow",
        },
    }
    assert (status, found["total_matched"]) == (200, 1)
    assert {name: found[name] for name in rows} == {name: [rows[name]] if name == ended else [] for name in rows}
    assert [site.send("GET", f"tenants/{name}")[1]["status"] for name in ("beta", "acme")] == [after, "ACTIVE"]


# --- policies ---------------------------------------------------------------------------------------------------------


def test_a_policy_is_made_listed_and_changed(site: Site) -> None:
    form = {"tenant_id": "acme", "name": "first", "scope_pattern": f"{ACME}/*"}
    status, made = site.send("POST", "policies", form)
    shown = {
        "policy_id": made["policy_id"],
        "priority": 0,
        "name": "first",
        "scope_pattern": f"{ACME}/*",
        "status": "ACTIVE",
        "created_at": START,
    }
    assert (status, made) == (201, shown)
    audited = {
        "timestamp": START,
        "tenant_id": "acme",
        "operation": "createPolicy",
        "status": 201,
        "source_ip": "192.0.2.7",
        "resource_type": "policy",
        "resource_id": made["policy_id"],
        "metadata": {"scope_pattern": f"{ACME}/*", "name": "first"},
    }
    assert site.audited() == audited
    assert (len(made["policy_id"]), made["policy_id"][:4]) == (20, "pol_")
    site.clock.advance(1_000)
    changed = site.send("PATCH", f"policies/{made['policy_id']}", {"status": "DISABLED", "priority": 2})
    shown |= {"status": "DISABLED", "priority": 2, "updated_at": SECOND}
    assert changed == (200, shown)
    del audited["metadata"]
    assert site.audited() == {**audited, "timestamp": SECOND, "operation": "updatePolicy", "status": 200}
    second = site.made("policies", tenant_id="acme", name="second", scope_pattern=ACME, priority=5)
    assert second["priority"] == 5

    def listed(query: str, key: str | None = None) -> list[str]:
        return sorted(row["name"] for row in site.send("GET", f"policies?{query}", key=key)[1]["policies"])

    names = "tenant_id=acme"
    assert listed(names) == ["first", "second"]
    assert listed(f"{names}&status=DISABLED") == ["first"]
    assert listed(f"{names}&scope_pattern={ACME}") == ["second"]
    assert listed(f"{names}&status=DISABLED&scope_pattern={ACME}") == []
    assert listed("tenant_id=other") == []
    message = "tenant_id: is required with the admin key"
    assert site.send("GET", "policies") == (400, error("INVALID_REQUEST", message))
    site.made("tenants", tenant_id="beta", name="Beta")
    writes = ["policies:read", "policies:write"]
    own, other = (
        site.made("api-keys", tenant_id=tenant, name="x", permissions=writes)["key_secret"]
        for tenant in ("acme", "beta")
    )
    assert (listed("", own), listed(names, other)) == (["first", "second"], [])
    path = f"policies/{made['policy_id']}"
    missing = (404, error("NOT_FOUND", f"policy not found: {made['policy_id']}"))
    assert site.send("PATCH", path, {"priority": 9}, other) == missing
    assert site.send("PATCH", path, {"priority": 9}, own)[1]["priority"] == 9
    assert site.send("PATCH", f"policies/{'x' * 90}", {})[1] == error("NOT_FOUND", f"policy not found: {'x' * 60}")
    pages = [site.send("GET", f"policies?{names}&limit=1")[1]]
    pages.append(site.send("GET", f"policies?{names}&limit=1&cursor={pages[0]['next_cursor']}")[1])
    ids = [page["policies"][0]["policy_id"] for page in pages]
    assert ids == sorted([made["policy_id"], second["policy_id"]])
    assert [page["has_more"] for page in pages] == [True, False]


def test_a_wrong_pattern_is_named(site: Site) -> None:
    form = {"tenant_id": "acme", "name": "x", "scope_pattern": "tenant:other"}
    message = "scope_pattern: 'tenant:other' must be a scope below tenant:acme; only its last level or id may be *"
    assert site.send("POST", "policies", form) == (400, error("INVALID_REQUEST", message))


# --- access and the audit log -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "path", "status", "code", "message"),
    [
        (
            "",
            "budgets",
            401,
            "UNAUTHORIZED",
            "the API key is missing; send it in the header X-Cycles-API-Key",
        ),
        ("wrong", "budgets", 403, "FORBIDDEN", "invalid API key: KEY_NOT_FOUND"),
        (
            "one",
            "budgets",
            403,
            "INSUFFICIENT_PERMISSIONS",
            "the API key lacks the permission budgets:read; use a key that has it, or the admin key",
        ),
        (
            "one",
            "tenants",
            401,
            "UNAUTHORIZED",
            "the admin API key is missing; send it in the header X-Admin-API-Key",
        ),
    ],
)
def test_a_caller_without_permission_is_told_and_kept(
    site: Site, key: str, path: str, status: int, code: str, message: str
) -> None:
    found = site.send("GET", path, key=site.key["key_secret"] if key == "one" else key)
    assert found == (status, error(code, message))
    assert site.audited() == {
        "timestamp": START,
        "tenant_id": "acme" if key == "one" else "__unauth__" if status == 401 else "__admin__",
        "operation": f"GET:/v1/admin/{path}",
        "status": status,
        "source_ip": "192.0.2.7",
        "error_code": code,
        "metadata": {"error_message": message},
    }


def test_a_wrong_admin_key_is_told_and_kept(site: Site) -> None:
    message = "the admin API key is wrong; send the admin_api_key of the server"
    for path in ("tenants", "auth/introspect"):
        found = site.send("GET", path, **{"x-admin-api-key": "adm2", "x-cycles-api-key": site.key["key_secret"]})
        assert found == (401, error("UNAUTHORIZED", message))
        assert (site.audited()["tenant_id"], site.audited()["status"]) == ("__unauth__", 401)


def test_each_response_has_the_ids_of_its_entry_in_the_audit_log(site: Site) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    site.send("POST", "tenants", {"tenant_id": "beta", "name": "Beta"}, traceparent=f"00-{trace}-b7ad6b7169203331-01")
    assert set(site.headers) == {"X-Request-Id", "X-Cycles-Trace-Id", "Content-Type"}
    assert (site.headers["X-Cycles-Trace-Id"], site.headers["Content-Type"]) == (trace, "application/json")
    request_id = site.headers["X-Request-Id"]
    entry = site.send("GET", "audit/logs?limit=1")[1]["logs"][0]
    assert (entry["request_id"], entry["trace_id"]) == (request_id, trace)
    assert (entry["log_id"][:4], len(entry["log_id"])) == ("log_", 20)
    assert site.send("GET", "audit/logs?limit=1")[1]["logs"] == [entry]  # a successful read has no entry


def test_the_first_and_the_last_moment_of_the_audit_log_are_included(site: Site) -> None:
    site.clock.advance(1_000)
    site.made("tenants", tenant_id="beta", name="Beta")

    def names(query: str) -> list[str]:
        return [row["operation"] for row in site.send("GET", f"audit/logs?operation=createTenant&{query}")[1]["logs"]]

    found = {
        query: len(names(query)) for query in ("", f"from={START}", f"to={START}", f"from={SECOND}", f"to={SECOND}")
    }
    assert list(found.values()) == [2, 2, 1, 1, 2]
    assert names(f"from={SECOND}&to={SECOND}") == ["createTenant"]
    assert names("from=2026-01-01T00:00:00.001Z&to=2026-01-01T00:00:00.999Z") == []


def test_an_entry_of_the_audit_log_is_kept_for_30_days(site: Site) -> None:
    site.clock.advance(30 * DAY_MS)
    assert site.send("GET", "audit/logs")[1]["logs"][-1]["operation"] == "createTenant"
    site.clock.advance(1)
    assert site.send("GET", "audit/logs")[1]["logs"] == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "message"),
    [
        (
            "GET",
            "x" * 300,
            404,
            "NOT_FOUND",
            f"unknown path: /v1/admin/{'x' * 190}; the embedded server has no such admin operation",
        ),
        (
            "GET",
            "audit/logs?status=200&status_max=1",
            400,
            "INVALID_REQUEST",
            "status cannot be combined with status_min or status_max; send one of them",
        ),
    ],
)
def test_a_wrong_path_or_query_is_named(
    site: Site, method: str, path: str, status: int, code: str, message: str
) -> None:
    assert site.send(method, path) == (status, error(code, message))


def test_a_wrong_method_is_answered_with_those_that_are_allowed(site: Site) -> None:
    status, found = site.send("PUT", "tenants/acme")
    assert (status, found["error"]) == (405, "INVALID_REQUEST")
    assert sorted(site.headers["Allow"].replace(" ", "").split(",")) == ["GET", "PATCH"]


@pytest.mark.parametrize("path", ["action-quota-counters", "action-quota-counters/reset"])
def test_counters_are_unknown_to_the_present_version(path: str) -> None:
    with EmbeddedServer(admin_api_key="adm") as server:
        for method in ("GET", "POST", "PUT"):
            request = Request(method=method, target=f"/v1/admin/{path}", headers={"x-admin-api-key": "adm"})
            response, _ = server.handle(request)
            assert response is not None
            assert response.status == 404


# --- the overview -----------------------------------------------------------------------------------------------------


def test_the_overview_counts_each_state_once(site: Site) -> None:
    ledger = site.server.ledger
    for name, status in (("beta", "SUSPENDED"), ("gamma", "SUSPENDED"), ("delta", "CLOSED")):
        site.made("tenants", tenant_id=name, name=name)
        site.send("PATCH", f"tenants/{name}", {"status": status})
    ledger.set_budget(f"{BOT}-1", cycles.tokens(1), status=None)
    ledger.set_budget(f"{BOT}-2", cycles.tokens(1), status="FROZEN", debt=1)
    ledger.set_budget(f"{BOT}-3", cycles.usd(1), status="CLOSED", is_over_limit=True, overdraft_limit=7)
    ledger.set_budget(f"{BOT}-4", cycles.usd(1), status="FROZEN", debt=2, is_over_limit=True)
    site.clock.advance(3_600_001)
    with site.server.client(tenant="acme", journal=False) as client:
        client.reserve(cycles.tokens(1), action=("a", "b"), ttl_ms=1_000, grace_period_ms=0).acquire().detach()
        site.clock.advance(1_001)
        client.decide(cycles.tokens(50), action=("a", "b"))
    shown = site.send("GET", "overview")[1]
    expired, denied = shown.pop("recent_expiries"), shown.pop("recent_denials")
    assert [event["event_type"] for event in (*expired, *denied)] == ["reservation.expired", "reservation.denied"]
    owing = {f"{BOT}-2": (1, 0, "TOKENS"), f"{BOT}-4": (2, 0, "USD_MICROCENTS"), f"{BOT}-3": (0, 7, "USD_MICROCENTS")}
    rows = [
        {"scope": scope, "unit": unit, "debt": debt, "overdraft_limit": limit}
        for scope, (debt, limit, unit) in owing.items()
    ]
    assert shown == {
        "as_of": "2026-01-01T01:00:01.002Z",
        "event_window_seconds": 3600,
        "tenant_counts": {"total": 4, "active": 1, "suspended": 2, "closed": 1},
        "budget_counts": {
            "total": 5,
            "active": 2,
            "frozen": 2,
            "closed": 1,
            "over_limit": 2,
            "with_debt": 2,
            "by_unit": {"TOKENS": 3, "USD_MICROCENTS": 2},
        },
        "over_limit_scopes": [rows[2], rows[1]],
        "debt_scopes": rows[:2],
        "webhook_counts": {"total": 0, "active": 0, "disabled": 0, "with_failures": 0},
        "failing_webhooks": [],
        "event_counts": {"total_recent": 2, "by_category": {"reservation": 2}},
        "recent_denials_by_reason": {"BUDGET_EXCEEDED": 1},
    }


def test_the_overview_names_webhooks_that_fail() -> None:
    state = AdminState(Ledger(Tables(), ManualClock(START_MS)))
    call = AdminCall(None, "", {}, {}, START_MS)
    hooks = [
        Subscription(subscription_id="a", url="https://a.test", consecutive_failures=1, last_failure_at=START),
        Subscription(subscription_id="b", url="https://b.test", consecutive_failures=2, status="DISABLED"),
        Subscription(subscription_id="c", url="https://c.test", status="PAUSED"),
    ]
    shown = admin_overview.overview(state, call, hooks, []).body
    assert shown is not None
    assert shown["webhook_counts"] == {"total": 3, "active": 1, "disabled": 1, "with_failures": 2}
    assert shown["failing_webhooks"] == [
        {"subscription_id": "a", "url": "https://a.test", "consecutive_failures": 1, "last_failure_at": START},
        {"subscription_id": "b", "url": "https://b.test", "consecutive_failures": 2},
    ]
    many = [Subscription(subscription_id=str(number), url="", consecutive_failures=1) for number in range(11)]
    shown = admin_overview.overview(state, call, many, []).body
    assert shown is not None
    assert [each["subscription_id"] for each in shown["failing_webhooks"]] == [str(number) for number in range(10)]
    assert shown["webhook_counts"]["with_failures"] == 11


@pytest.mark.parametrize(
    "path",
    [
        "tenants",
        "budgets",
        "api-keys",
        "policies?tenant_id=acme",
        "audit/logs",
        "overview",
        "action-quota-counters?tenant_id=acme",
        f"budgets/lookup?{PLACE}",
        "tenants/acme",
        "auth/introspect",
    ],
)
def test_each_read_has_the_status_200_and_no_entry_in_the_audit_log(site: Site, path: str) -> None:
    before = site.audited()
    assert site.send("GET", path)[0] == 200
    assert site.audited() == before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("budgets?utilization_min=1.5", "utilization_min: must be 0 to 1, got 1.5"),
        ("budgets?utilization_max=-0.25", "utilization_max: must be 0 to 1, got -0.25"),
        ("budgets?status=X", "status: invalid value 'X'; use ACTIVE, FROZEN, CLOSED"),
        ("budgets?unit=X", "unit: invalid value 'X'; use USD_MICROCENTS, TOKENS, CREDITS, RISK_POINTS"),
        ("budgets?over_limit=X", "over_limit: invalid value 'X'; use true, false"),
        ("budgets?has_debt=X", "has_debt: invalid value 'X'; use true, false"),
        (
            "budgets?sort_by=X",
            "sort_by: invalid value 'X'; use tenant_id, scope, unit, status, utilization, debt, commit_overage_policy",
        ),
        ("tenants?status=X", "status: invalid value 'X'; use ACTIVE, SUSPENDED, CLOSED"),
        ("tenants?sort_by=X", "sort_by: invalid value 'X'; use status, name, created_at, tenant_id"),
        ("api-keys?status=X", "status: invalid value 'X'; use ACTIVE, REVOKED, EXPIRED"),
        (
            "api-keys?sort_by=X",
            "sort_by: invalid value 'X'; use key_id, name, tenant_id, status, created_at, expires_at",
        ),
        ("policies?tenant_id=acme&status=X", "status: invalid value 'X'; use ACTIVE, DISABLED"),
        (
            "audit/logs?sort_by=X",
            "sort_by: invalid value 'X'; use timestamp, operation, resource_type, tenant_id, key_id, status",
        ),
        (
            "action-quota-counters?tenant_id=acme&window=X",
            "window: invalid value 'X'; use per_run, per_minute_tumbling, per_hour_tumbling, per_day_tumbling, "
            "per_tenant_per_day",
        ),
        ("action-quota-counters?tenant_id=acme&include_zero=X", "include_zero: invalid value 'X'; use true, false"),
        *(
            (f"{name}?search={'x' * 129}", "search: has 129 characters; use at most 128")
            for name in (
                "tenants",
                "budgets",
                "api-keys",
                "audit/logs",
            )
        ),
    ],
)
def test_a_wrong_filter_is_named(site: Site, path: str, message: str) -> None:
    assert site.send("GET", path) == (400, error("INVALID_REQUEST", message))


def test_budgets_are_listed_by_their_used_share_then_by_scope_and_unit(site: Site) -> None:
    ledger = site.server.ledger
    for name, spent, reserved in (("a", 5, 0), ("b", 2, 3), ("c", 9, 0), ("d", 0, 0)):
        ledger.set_budget(f"{BOT}-{name}", cycles.tokens(10), spent=spent, reserved=reserved)
    ledger.set_budget(f"{BOT}-e", cycles.tokens(0), spent=3)

    def listed(query: str) -> str:
        rows = site.send("GET", f"budgets?scope_prefix=tenant:ACME/agent:BOT-&{query}")[1]["ledgers"]
        return "".join(row["scope"][-1] for row in rows)

    assert (listed(""), listed("sort_dir=asc")) == ("cabde", "deabc")
    assert listed("sort_by=scope&sort_dir=asc") == "abcde"
    found = [listed(f"utilization_{query}") for query in ("min=0.5", "max=0.5", "min=0", "max=0", "min=0.51", "min=1")]
    assert found == ["cab", "abde", "cabde", "de", "c", ""]
    assert (listed("search=BOT-A"), listed("search=none")) == ("a", "")


# --- quota counters ---------------------------------------------------------------------------------------------------


def test_a_counter_is_listed_and_reset_by_its_window(site: Site) -> None:
    quotas = [{"action_kind": "a.b", "window": "per_run", "limit": 2}]
    quotas.append({"risk_class": "side_effect", "window": "per_day_tumbling", "limit": 9})
    site.server.ledger.set_policy("p", ACME, quotas=quotas)
    headers = {"x-cycles-api-key": site.key["key_secret"], "content-type": "application/json"}
    for number, run in enumerate(("r1", "r2", "r2")):
        body = {
            "idempotency_key": f"k-{number}",
            "subject": {"tenant": "acme", "dimensions": {"run_id": run}},
            "action": {"kind": "a.b", "name": "n"},
            "estimate": tokens(1),
        }
        request = Request(method="POST", target="/v1/reservations", headers=headers, body=json.dumps(body).encode())
        response, _ = site.server.handle(request)
        assert response is not None
        assert response.status == 200
    counters = "action-quota-counters"
    risk, one, two = (
        {
            "action_kind": kind,
            "scope": ACME,
            "scope_path": ACME,
            "window": window,
            "window_key": key,
            "used": used,
            "limit": limit,
            "remaining": limit - used,
            "policy_id": "p",
            **more,
            "last_incremented_at": START,
            "expires_at": expires_at,
        }
        for kind, window, key, used, limit, more, expires_at in (
            (
                "__risk__",
                "per_day_tumbling",
                "2026-01-01",
                3,
                9,
                {"risk_class": "side_effect"},
                "2026-01-03T00:00:00.000Z",
            ),
            ("a.b", "per_run", "r1", 1, 2, {}, "2026-01-02T00:00:00.000Z"),
            ("a.b", "per_run", "r2", 2, 2, {}, "2026-01-02T00:00:00.000Z"),
        )
    )

    def listed(query: str) -> list[Any]:
        found: list[Any] = site.send("GET", f"{counters}?tenant_id=acme&{query}")[1]["counters"]
        return sorted(found, key=lambda row: (row["action_kind"], row["window_key"]))

    assert listed("") == [risk, one, two]
    page = site.send("GET", f"{counters}?tenant_id=acme&limit=1&action_kind=a.b")[1]
    assert page["next_cursor"] == f"{ACME}|a.b||per_run|r1"
    assert listed(f"cursor={page['next_cursor']}&action_kind=a.b") == [two]
    assert [listed(query) for query in ("run_id=r1", "run_id=2026-01-01", "window=per_run", "scope=TENANT:A")] == [
        [one],
        [],
        [one, two],
        [risk, one, two],
    ]
    missing = "the query parameter tenant_id is missing; send it with the admin key"
    assert site.send("GET", counters) == (400, error("INVALID_REQUEST", missing))
    form = {"tenant_id": "acme", "scope": "TENANT:ACME", "window": "per_run", "action_kind": "a.b", "run_id": "r1"}
    status, found = site.send("POST", f"{counters}/reset", {**form, "reason": "why"})
    cleared = {**one, "used": 0, "remaining": 2}
    assert (status, found) == (200, {"counter": cleared, "previous_used": 1})
    audited = site.audited()
    assert (audited["operation"], audited["tenant_id"], audited["resource_type"], audited["resource_id"]) == (
        "resetActionQuotaCounter",
        "acme",
        "action_quota_counter",
        f"{ACME}|a.b||per_run|r1",
    )
    assert audited["metadata"] == {"previous_used": 1, "reason": "why"}
    assert (listed(""), listed("include_zero=true"), listed("include_zero=false")) == (
        [risk, two],
        [risk, cleared, two],
        [risk, two],
    )
    by_key = {**form, "window_key": "r2", "run_id": "r1"}
    assert site.send("POST", f"{counters}/reset", by_key)[1]["previous_used"] == 2
    assert site.audited()["metadata"] == {"previous_used": 2}
    by_class = {"tenant_id": "acme", "scope": ACME, "window": "per_day_tumbling", "risk_class": "side_effect"}
    assert site.send("POST", f"{counters}/reset", by_class)[1]["previous_used"] == 3
    for wrong in ({"run_id": "r3"}, {"scope": f"{ACME}2"}, {"action_kind": "a.c"}, {"tenant_id": "beta"}):
        status, found = site.send("POST", f"{counters}/reset", {**form, **wrong})
        scope = wrong.get("scope", "TENANT:ACME")
        assert (status, found) == (404, error("NOT_FOUND", f"no such quota counter: {scope!r}, per_run"))
    del form["tenant_id"]
    message = "tenant_id is missing; send the tenant of the counter"
    assert site.send("POST", f"{counters}/reset", form) == (400, error("INVALID_REQUEST", message))
