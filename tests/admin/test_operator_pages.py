"""What a dashboard of operators calls: login, overview, tenants, keys, policies, webhooks, events, the audit log.

The cases also run against a reference server, whose dashboard makes these calls.
"""

from __future__ import annotations

import secrets
from typing import Any

import httpx
import pytest

import cycles
from cycles.admin import Admin
from cycles.embedded import EmbeddedServer
from tests.admin.conftest import FIVE, TEN, AdminTarget

HOOK = {"event_types": ["budget.funded"]}


@pytest.fixture
def call(target: AdminTarget) -> Any:
    """Return a function that sends a request with the admin key, and returns status and body."""
    key = target.admin._channels.config.api_key

    def send(method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        response = target.send(method, path, json=body, headers=headers or {"X-Admin-API-Key": key})
        return response.status_code, response.json() if response.content else None

    return send


def test_a_login_says_what_the_key_may_do(target: AdminTarget, call: Any) -> None:
    status, admin = call("GET", "/v1/auth/introspect")
    assert (status, admin["auth_type"], admin["permissions"]) == (200, "admin", ["*"])
    assert all(admin["capabilities"].values())
    secret = target.onboarded().key.secret
    status, own = call("GET", "/v1/auth/introspect", **{"X-Cycles-API-Key": secret})
    assert (status, own["auth_type"], own["tenant_id"]) == (200, "tenant", target.tenant)
    assert set(own["capabilities"]) == set(admin["capabilities"])
    assert own["capabilities"]["view_reservations"]
    assert not own["capabilities"]["view_overview"]
    assert not own["capabilities"]["manage_policies"]
    assert call("GET", "/v1/auth/introspect", **{"X-Cycles-API-Key": "nope"})[0] == 403
    assert call("GET", "/v1/auth/introspect", **{"X-Admin-API-Key": "nope"})[0] == 401
    assert call("GET", "/v1/auth/introspect", **{"X-Other": "1"})[0] == 401


def test_a_key_can_be_checked(target: AdminTarget, call: Any) -> None:
    key = target.onboarded().key
    status, found = call("POST", "/v1/auth/validate", {"key_secret": key.secret})
    assert (status, found["valid"], found["tenant_id"], found["key_id"]) == (200, True, target.tenant, key.key_id)
    target.admin.revoke_api_key(key.key_id)
    assert call("POST", "/v1/auth/validate", {"key_secret": key.secret})[1]["valid"] is False
    unknown = {"valid": False, "tenant_id": "", "reason": "KEY_NOT_FOUND"}
    assert call("POST", "/v1/auth/validate", {"key_secret": "cyc_live_nope"}) == (200, unknown)


def test_the_overview_counts_what_there_is(target: AdminTarget) -> None:
    before = target.admin.overview()
    site = target.onboarded()
    with target.client(site.key.secret) as client, pytest.raises(cycles.BudgetExceededError):
        client.reserve(cycles.tokens(50), action=("test", "work")).acquire()
    after = target.admin.overview()
    assert after.tenant_counts["total"] == before.tenant_counts["total"] + 1
    assert after.budget_counts["by_unit"]["TOKENS"] == before.budget_counts["by_unit"].get("TOKENS", 0) + 1
    assert set(after.budget_counts) == {"total", "active", "frozen", "closed", "over_limit", "with_debt", "by_unit"}
    assert set(after.webhook_counts) == {"total", "active", "disabled", "with_failures"}
    assert after.event_counts["total_recent"] > before.event_counts["total_recent"]
    assert after.event_window_seconds == 3600


def test_debt_is_in_the_overview(target: AdminTarget) -> None:
    site = target.onboarded()
    call = target.admin.raw("updateBudget", scope=target.scope, unit="TOKENS", body={"overdraft_limit": FIVE_TOKENS})
    assert call.overdraft_limit.amount == 5
    with target.client(site.key.secret) as client:
        with client.reserve(FIVE, action=("test", "work"), overage_policy="ALLOW_WITH_OVERDRAFT") as guard:
            guard.commit(cycles.tokens(12))
        shown = target.admin.overview()
    owed = {"scope": target.scope, "unit": "TOKENS", "debt": 2, "overdraft_limit": 5}
    assert shown.budget_counts["with_debt"] >= 1
    if len(shown.debt_scopes) < 10:  # the reference server of a long run has others
        assert owed in shown.debt_scopes


def test_the_overview_shows_the_last_hour_and_ten_of_each() -> None:
    clock = cycles.ManualClock()
    with (
        EmbeddedServer(admin_api_key="k", clock=clock) as server,
        httpx.Client(transport=server.transport()) as http,
    ):
        admin = Admin("http://embedded.test", "k", http_client=http)
        key = admin.onboard("acme", "Acme", budgets={"tenant:acme": TEN}, key_name="prod").key.secret
        for number in range(11):
            scope = f"tenant:acme/agent:{number:02}"
            server.ledger.set_budget(scope, TEN, debt=2, overdraft_limit=1, is_over_limit=number > 0)
        with server.client(tenant="acme", api_key=key, journal=False) as client:
            for amount in range(11, 22):
                assert not client.decide(cycles.tokens(amount), action=("test", "work")).allowed
        shown = admin.overview()
        owes: dict[str, Any] = {"unit": "TOKENS", "debt": 2, "overdraft_limit": 1}
        owed = [owes | {"scope": f"tenant:acme/agent:{number:02}"} for number in range(11)]
        assert (shown.debt_scopes, shown.over_limit_scopes) == (owed[:10], owed[1:])
        assert (shown.budget_counts["with_debt"], shown.budget_counts["over_limit"]) == (11, 10)
        assert shown.event_counts["by_category"]["reservation"] == 11
        assert [each["data"]["requested_amount"] for each in shown.recent_denials] == [*range(21, 11, -1)]
        raw = http.get("http://embedded.test/v1/admin/overview", headers={"X-Admin-API-Key": "k"}).json()
        assert raw["recent_denials_by_reason"] == {"BUDGET_EXCEEDED": 11}
        clock.advance(3_600_000)
        assert admin.overview().event_counts == shown.event_counts
        clock.advance(1)
        assert admin.overview().event_counts["total_recent"] == 0


FIVE_TOKENS = {"unit": "TOKENS", "amount": 5}


def test_tenants_are_suspended_and_closed_together(target: AdminTarget) -> None:
    name = secrets.token_hex(6)
    for number in "123":
        target.admin.create_tenant(f"t-{name}-{number}", "Test")
    report = target.admin.change_tenants("SUSPEND", search=name, expected_count=3, idempotency_key=f"k-{name}")
    assert {row.id for row in report.succeeded} == {f"t-{name}-{number}" for number in "123"}
    assert target.admin.tenant(f"t-{name}-1").status == "SUSPENDED"
    again = target.admin.change_tenants("SUSPEND", search=name, expected_count=3, idempotency_key=f"k-{name}")
    assert again.succeeded == report.succeeded
    skipped = target.admin.change_tenants("SUSPEND", search=name).skipped
    assert {row.reason for row in skipped} == {"ALREADY_IN_TARGET_STATE"}
    target.admin.change_tenants("CLOSE", search=f"{name}-1")
    with pytest.raises(cycles.BulkActionError) as raised:
        target.admin.change_tenants("REACTIVATE", search=name)
    assert [row.id for row in raised.value.report.failed] == [f"t-{name}-1"]
    assert len(raised.value.report.succeeded) == 2


def test_a_bulk_action_that_matches_another_number_changes_nothing(target: AdminTarget, call: Any) -> None:
    target.onboarded()
    with pytest.raises(cycles.ProtocolError) as raised:
        target.admin.change_tenants("CLOSE", search=target.tenant, expected_count=7)
    assert (raised.value.status, raised.value.code) == (409, "COUNT_MISMATCH")
    assert target.admin.tenant(target.tenant).status == "ACTIVE"
    with pytest.raises(cycles.InvalidRequestError, match="needs a filter"):
        target.admin.change_tenants("CLOSE")
    body = {"filter": {}, "action": "CLOSE", "idempotency_key": "k"}
    assert call("POST", "/v1/admin/tenants/bulk-action", body)[0] == 400


def test_policies_are_stored_listed_and_changed(target: AdminTarget, call: Any) -> None:
    target.onboarded()
    made = target.admin.create_policy(target.tenant, "first", f"{target.scope}/*", priority=3)
    assert (made.status, made.priority, made.scope_pattern) == ("ACTIVE", 3, f"{target.scope}/*")
    second = target.admin.create_policy(target.tenant, "second", target.scope)
    assert {each.policy_id for each in target.admin.policies(target.tenant)} == {made.policy_id, second.policy_id}
    changed = target.admin.update_policy(made.policy_id, status="DISABLED")
    assert (changed.status, changed.name) == ("DISABLED", "first")
    assert [each.name for each in target.admin.policies(target.tenant, status="DISABLED")] == ["first"]
    with pytest.raises(cycles.NotFoundError):
        target.admin.update_policy("pol_nope", priority=1)
    assert call("GET", "/v1/admin/policies")[0] == 400


@pytest.mark.parametrize(
    ("pattern", "status"),
    [
        ("tenant:{0}/agent:*", 201),
        ("tenant:{0}/agent:a", 201),
        ("tenant:{0}/agent:A", 201),
        ("TENANT:{0}", 400),
        ("nonsense", 400),
        ("*", 400),
        ("tenant:*", 400),
        ("*/agent:x", 400),
        ("tenant:{0}/*/*", 400),
        ("tenant:{0}/agent:*/toolset:x", 400),
        ("tenant:{0}/agent:a*", 400),
        ("tenant:{0}/agent:a/app:b", 400),
        ("tenant:other", 400),
        ("agent:x", 400),
        ("a:b", 400),
    ],
)
def test_a_policy_is_for_scopes_of_its_tenant(target: AdminTarget, call: Any, pattern: str, status: int) -> None:
    target.onboarded()
    form = {"tenant_id": target.tenant, "name": "x", "scope_pattern": pattern.format(target.tenant)}
    assert call("POST", "/v1/admin/policies", form)[0] == status


@pytest.mark.parametrize("more", ["", "/*", "/agent:a"])
def test_the_tenant_of_a_policy_is_not_in_capitals(target: AdminTarget, call: Any, more: str) -> None:
    target.onboarded()
    form = {"tenant_id": target.tenant, "name": "x", "scope_pattern": f"tenant:{target.tenant.upper()}{more}"}
    assert call("POST", "/v1/admin/policies", form)[0] == 400


@pytest.mark.parametrize("spent", [None, 0, 100])
def test_the_audit_log_says_whether_a_new_period_begins_with_a_given_amount(
    target: AdminTarget, call: Any, spent: int | None
) -> None:
    target.onboarded()
    form: dict[str, Any] = {"operation": "RESET_SPENT", "amount": {"unit": "TOKENS", "amount": 2000}}
    if spent is not None:
        form["spent"] = {"unit": "TOKENS", "amount": spent}
    place = f"/v1/admin/budgets/fund?tenant_id={target.tenant}&scope={target.scope}&unit=TOKENS"
    assert call("POST", place, form)[0] == 200
    target.admin.credit(target.scope, FIVE)
    credited, reset = list(target.admin.audit(operation="fundBudget", tenant=target.tenant))
    assert reset.metadata is not None
    assert credited.metadata is not None
    assert reset.metadata["spent_override_provided"] is (spent is not None)
    assert "spent_override_provided" not in credited.metadata


def test_a_higher_spent_amount_is_an_event_too(target: AdminTarget, call: Any) -> None:
    target.onboarded()
    unit = "TOKENS"
    place = f"/v1/admin/budgets/fund?tenant_id={target.tenant}&scope={target.scope}&unit={unit}"
    for spent in (0, 100):
        form = {"operation": "RESET_SPENT", "amount": {"unit": unit, "amount": 2000}, "idempotency_key": f"{spent}"}
        assert call("POST", place, form | {"spent": {"unit": unit, "amount": spent}})[0] == 200
    events = call("GET", f"/v1/admin/events?tenant_id={target.tenant}&event_type=budget.reset_spent")[1]["events"]
    assert sorted(each["data"]["new_state"]["spent"] for each in events) == [0, 100]


def test_webhooks_are_searched_and_changed_together(target: AdminTarget, call: Any) -> None:
    target.admin.set_webhook_security(allow_http=True, blocked_cidr_ranges=[])
    place = f"http://127.0.0.1:9/{secrets.token_hex(6)}"
    one = call("POST", "/v1/admin/webhooks", {"url": place, **HOOK})[1]["subscription"]["subscription_id"]
    listed = f"/v1/admin/webhooks?search={place}"
    assert [each["subscription_id"] for each in call("GET", listed)[1]["subscriptions"]] == [one]
    assert call("GET", f"{listed}&event_type=budget.created")[1]["subscriptions"] == []
    assert [row.id for row in target.admin.change_webhooks("PAUSE", search=place).succeeded] == [one]
    assert [row.id for row in target.admin.change_webhooks("PAUSE", search=place).skipped] == [one]
    assert call("GET", f"/v1/admin/webhooks/{one}")[1]["status"] == "PAUSED"
    assert call("POST", f"/v1/admin/webhooks/{one}/replay", {"max_events": 1001})[0] == 400
    assert [row.id for row in target.admin.change_webhooks("DELETE", search=place).succeeded] == [one]
    assert call("GET", f"/v1/admin/webhooks/{one}")[0] == 404


def test_addresses_of_webhooks_can_be_forbidden(target: AdminTarget, call: Any) -> None:
    def status(url: str) -> int:
        return int(call("POST", "/v1/admin/webhooks", {"url": url, **HOOK})[0])

    shown = target.admin.set_webhook_security(allow_http=False, blocked_cidr_ranges=["10.0.0.0/8"])
    assert (shown.allow_http, shown.blocked_cidr_ranges) == (False, ["10.0.0.0/8"])
    assert target.admin.webhook_security().blocked_cidr_ranges == ["10.0.0.0/8"]
    assert [status("http://192.0.2.1/x"), status("https://10.1.2.3/x"), status("https://192.0.2.1/x")] == [
        400,
        400,
        201,
    ]
    patterns = ["https://ok.test/*"]
    target.admin.set_webhook_security(allow_http=True, blocked_cidr_ranges=[], allowed_url_patterns=patterns)
    assert status("https://192.0.2.1/x") == 400
    target.admin.set_webhook_security(allow_http=True, blocked_cidr_ranges=[])
    assert status("http://127.0.0.1:9/x") == 201


def test_events_tell_of_keys_and_policies(target: AdminTarget, call: Any) -> None:
    key = target.onboarded().key
    target.admin.create_policy(target.tenant, "first", target.scope)
    target.admin.revoke_api_key(key.key_id, reason="old")
    events = call("GET", f"/v1/admin/events?tenant_id={target.tenant}")[1]["events"]
    types = {event["event_type"]: event.get("data") for event in events}
    assert {"api_key.created", "api_key.revoked", "policy.created", "tenant.created"} <= set(types)
    assert types["api_key.revoked"]["key_id"] == key.key_id
    assert types["api_key.revoked"]["failure_reason"] == "old"
    found = call("GET", f"/v1/admin/events?search={target.tenant}")[1]["events"]
    assert {event["tenant_id"] for event in found} == {target.tenant}
    assert call("GET", f"/v1/admin/events?search={secrets.token_hex(8)}")[1]["events"] == []


def test_the_audit_log_has_funding_and_releases(target: AdminTarget, call: Any) -> None:
    site = target.onboarded()
    target.admin.credit(target.scope, FIVE, reason="invoice 7", idempotency_key="invoice-7")
    entry = next(iter(target.admin.audit(operation="fundBudget", tenant=target.tenant)))
    assert entry.metadata is not None
    assert (entry.metadata["amount"], entry.metadata["reason"]) == (5, "invoice 7")
    assert "invoice-7" in entry.metadata["idempotency_key"]
    assert (entry.metadata["previous_spent"], entry.metadata["new_spent"]) == (0, 0)
    found = target.admin.audit(search="FUNDBUD", tenant=target.tenant)
    assert [each.operation for each in found] == ["fundBudget"]
    if target.server is None:
        return
    assert (entry.metadata["previous_allocated"], entry.metadata["new_allocated"]) == (10, 15)
    with target.client(site.key.secret) as client:
        guard = client.reserve(FIVE, action=("test", "work")).acquire()
        path = f"/v1/reservations/{guard.reservation_id}/release"
        assert call("POST", path, {"idempotency_key": "r1", "reason": "stuck"})[0] == 200
        released = next(iter(target.admin.audit(resource_type="reservation")))
        assert (released.operation, released.resource_id) == ("releaseReservation", guard.reservation_id)
        assert released.metadata == {"actor_type": "admin_on_behalf_of", "reason": "stuck"}
        assert released.tenant_id == target.tenant
        guard.release()


def test_every_key_shows_when_it_was_made_and_when_it_ends(target: AdminTarget) -> None:
    target.onboarded()
    (key,) = target.admin.api_keys(tenant=target.tenant)
    assert key.created_at is not None
    assert key.expires_at is not None
    with EmbeddedServer({"tenant:acme": FIVE}, admin_api_key="adm", api_keys={"cyc_test": "acme"}) as server:
        http = httpx.Client(transport=server.transport())
        with http, Admin("http://embedded.test", "adm", http_client=http) as admin:
            shown = list(admin.api_keys(tenant="acme"))
            assert shown
            assert all(each.created_at and each.expires_at for each in shown)


def test_health_needs_no_key(target: AdminTarget) -> None:
    for part in ("liveness", "readiness"):
        response = target.send("GET", f"/actuator/health/{part}")
        assert (response.status_code, response.json()["status"]) == (200, "UP")


def test_what_is_missing_is_not_found(target: AdminTarget, call: Any) -> None:
    assert call("GET", "/v1/auth/nonsense")[0] in (404, 500)
    if target.server is not None:
        assert call("GET", "/v1/admin/nonsense")[0] == 404
