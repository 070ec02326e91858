"""`cycles.Admin` with the embedded server: code that onboards tenants can be tested without a deployment.

The cases also run against a reference server that ``CYCLES_CONTRACT_ADMIN_URL`` and ``CYCLES_CONTRACT_ADMIN_KEY`` name.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

import cycles
from cycles.admin import Admin
from cycles.embedded import EmbeddedServer
from tests.admin.conftest import FIVE, TEN, AdminTarget


def test_an_onboarded_tenant_can_spend(target: AdminTarget) -> None:
    site = target.onboarded()
    assert site.tenant.created
    assert (site.budgets[0].remaining, site.budgets[0].status) == (TEN, "ACTIVE")
    with target.client(site.key.secret) as client:
        with client.reserve(FIVE, action=("test", "work")) as guard:
            guard.commit(cycles.tokens(3))
        with pytest.raises(cycles.BudgetExceededError), client.reserve(TEN, action=("test", "work")):
            pass
    assert target.admin.budget(target.scope, unit="TOKENS").spent == cycles.tokens(3)


def test_onboarding_again_makes_a_second_key_only(target: AdminTarget) -> None:
    first, second = target.onboarded(), target.onboarded()
    assert (second.tenant.created, second.budgets[0].ledger_id) == (False, first.budgets[0].ledger_id)
    assert second.key.key_id != first.key.key_id
    assert [key.key_id for key in target.admin.api_keys(tenant=target.tenant)] == [second.key.key_id, first.key.key_id]


def test_funding_changes_the_budget_and_repeats_nothing(target: AdminTarget) -> None:
    target.onboarded()
    admin, scope = target.admin, target.scope
    assert admin.credit(scope, FIVE, idempotency_key="invoice-1").new_allocated == cycles.tokens(15)
    assert admin.credit(scope, FIVE, idempotency_key="invoice-1").new_allocated == cycles.tokens(15)
    assert admin.debit(scope, FIVE).new_remaining == TEN
    assert admin.resize(scope, cycles.tokens(7)).new_allocated == cycles.tokens(7)
    assert admin.repay_debt(scope, cycles.tokens(1)).new_allocated == cycles.tokens(8)
    period = admin.start_period(scope, TEN, period="2026-01", spent=FIVE)
    assert (period.new_allocated, period.new_spent, period.new_remaining) == (TEN, FIVE, FIVE)
    assert admin.budget(scope, unit="TOKENS").remaining == FIVE


def test_a_debit_of_more_than_remains_is_rejected(target: AdminTarget) -> None:
    target.onboarded()
    with pytest.raises(cycles.BudgetExceededError) as raised:
        target.admin.debit(target.scope, cycles.tokens(11))
    assert (raised.value.code, raised.value.status) == ("BUDGET_EXCEEDED", 409)


def test_one_budget_of_a_scope_in_two_units_is_funded_alone() -> None:
    with EmbeddedServer(admin_api_key="k") as server, httpx.Client(transport=server.transport()) as http:
        admin = Admin("http://embedded.test", "k", http_client=http)
        admin.onboard("acme", "Acme", budgets={"tenant:acme": TEN}, key_name="prod")
        admin.create_budget("tenant:acme", cycles.credits(9))
        server.ledger.set_budget("tenant:acme", TEN, spent=4, debt=3, overdraft_limit=5)
        assert admin.debit("tenant:acme", cycles.tokens(3)).new_remaining == cycles.tokens(0)
        repaid = admin.repay_debt("tenant:acme", FIVE)
        assert (repaid.new_debt, repaid.new_allocated) == (cycles.tokens(0), cycles.tokens(9))
        admin.start_periods("acme", FIVE, period="2026-02")
        funded, other = (server.ledger.balance("tenant:acme", unit) for unit in ("TOKENS", "CREDITS"))
        assert (funded.allocated, funded.spent, other.allocated) == (FIVE, cycles.tokens(0), cycles.credits(9))


def test_the_same_key_with_another_amount_is_a_mismatch(target: AdminTarget) -> None:
    target.onboarded()
    target.admin.credit(target.scope, FIVE, idempotency_key="k")
    with pytest.raises(cycles.IdempotencyMismatchError):
        target.admin.credit(target.scope, TEN, idempotency_key="k")


def test_a_frozen_budget_rejects_funding_and_reservations(target: AdminTarget) -> None:
    site = target.onboarded()
    assert target.admin.freeze(target.scope, unit="TOKENS", reason="test").status == "FROZEN"
    with pytest.raises(cycles.BudgetFrozenError):
        target.admin.credit(target.scope, FIVE)
    with target.client(site.key.secret) as client, pytest.raises(cycles.BudgetFrozenError):
        client.reserve(FIVE, action=("test", "work")).acquire()
    with pytest.raises(cycles.ProtocolError) as raised:
        target.admin.freeze(target.scope, unit="TOKENS")
    assert (raised.value.code, raised.value.status) == ("INVALID_REQUEST", 409)
    assert target.admin.unfreeze(target.scope, unit="TOKENS").status == "ACTIVE"


def test_periods_of_all_budgets_start_with_one_call(target: AdminTarget) -> None:
    target.onboarded(**{f"{target.scope}/agent:a": TEN, f"{target.scope}/agent:b": cycles.credits(3)})
    report = target.admin.start_periods(target.tenant, FIVE, period="2026-01")
    assert (report.total_matched, len(report.succeeded), report.failed) == (2, 2, ())
    amounts = {budget.scope: budget.allocated for budget in target.admin.budgets(tenant=target.tenant, unit="TOKENS")}
    assert amounts == {target.scope: FIVE, f"{target.scope}/agent:a": FIVE}


def test_a_failed_row_leaves_the_others_changed(target: AdminTarget) -> None:
    target.onboarded(**{f"{target.scope}/agent:a": TEN})
    target.admin.freeze(target.scope, unit="TOKENS")
    with pytest.raises(cycles.BulkActionError) as raised:
        target.admin.start_periods(target.tenant, FIVE, period="2026-01")
    report = raised.value.report
    assert [row.error_code for row in report.failed] == ["INVALID_TRANSITION"]
    assert target.admin.budget(f"{target.scope}/agent:a", unit="TOKENS").allocated == FIVE


def test_another_count_than_expected_changes_nothing(target: AdminTarget) -> None:
    target.onboarded()
    with pytest.raises(cycles.ProtocolError) as raised:
        target.admin.start_periods(target.tenant, FIVE, period="2026-01", expected_count=9)
    assert (raised.value.code, raised.value.status) == ("COUNT_MISMATCH", 409)
    assert raised.value.details == {"total_matched": 1}
    assert target.admin.budget(target.scope, unit="TOKENS").allocated == TEN


def test_a_revoked_key_and_a_suspended_tenant_get_401(target: AdminTarget) -> None:
    site = target.onboarded()
    new = target.admin.rotate_api_key(site.key.key_id)
    revoked = target.admin.revoke_api_key(site.key.key_id, reason="rotated")
    assert (revoked.status, revoked.revoked_reason) == ("REVOKED", "rotated")
    with target.client(site.key.secret) as client, pytest.raises(cycles.UnauthorizedError):
        client.decide(FIVE, action=("test", "work"))
    target.admin.suspend_tenant(target.tenant)
    with target.client(new.secret) as client:
        with pytest.raises(cycles.UnauthorizedError):
            client.decide(FIVE, action=("test", "work"))
        target.admin.reactivate_tenant(target.tenant)
        assert client.decide(FIVE, action=("test", "work")).decision == "ALLOW"


def test_a_suspended_tenant_gets_no_new_key(target: AdminTarget) -> None:
    target.onboarded()
    target.admin.suspend_tenant(target.tenant)
    with pytest.raises(cycles.CyclesError, match="SUSPENDED"):
        target.admin.create_api_key(target.tenant, name="more")


def test_closing_a_tenant_closes_what_it_owns(target: AdminTarget) -> None:
    site = target.onboarded()
    with target.client(site.key.secret) as client:
        guard = client.reserve(FIVE, action=("test", "work")).acquire()
        closed = target.admin.close_tenant(target.tenant, confirm=target.tenant)
        assert (closed.status, closed.closed_at is not None) == ("CLOSED", True)
        assert target.admin.close_tenant(target.tenant, confirm=target.tenant).status == "CLOSED"
        guard.release()  # the revoked key cannot send it; the server has released the reservation
    budget = target.admin.budget(target.scope, unit="TOKENS")
    assert (budget.status, budget.reserved) == ("CLOSED", cycles.tokens(0))
    assert [key.status for key in target.admin.api_keys(tenant=target.tenant)] == ["REVOKED"]
    for change in (
        lambda: target.admin.credit(target.scope, FIVE),
        lambda: target.admin.create_api_key(target.tenant, "another"),
        lambda: target.admin.create_budget(f"{target.scope}/agent:c", FIVE),
        lambda: target.admin.freeze(target.scope, unit="TOKENS"),
    ):
        with pytest.raises(cycles.TenantClosedError):
            change()


def test_closing_a_tenant_disables_its_webhooks(target: AdminTarget) -> None:
    target.onboarded()
    hook = target.admin.create_webhook("https://192.0.2.1/cycles", ["budget.exhausted"], tenant=target.tenant)
    target.admin.close_tenant(target.tenant, confirm=target.tenant)
    shown = target.admin.raw("getWebhookSubscription", subscription_id=hook.subscription_id)
    assert str(shown.status) == "DISABLED"


def test_a_tenant_keeps_its_settings(target: AdminTarget) -> None:
    settings: dict[str, Any] = {
        "overage_policy": "REJECT",
        "default_ttl_ms": 5_000,
        "max_ttl_ms": 9_000,
        "max_extensions": 2,
    }
    made = target.admin.create_tenant(target.tenant, "Test", metadata={"a": "b"}, **settings)
    assert (made.created, made.metadata, made.max_reservation_extensions) == (True, {"a": "b"}, 2)
    changed = target.admin.update_tenant(target.tenant, name="Renamed", default_ttl_ms=6_000)
    assert (changed.name, changed.default_reservation_ttl_ms, changed.metadata) == ("Renamed", 6_000, {"a": "b"})
    assert target.admin.tenant(target.tenant) == changed


def test_a_new_tenant_has_the_defaults_of_the_server(target: AdminTarget) -> None:
    made = target.admin.create_tenant(target.tenant, "Test")
    assert (made.default_commit_overage_policy, made.max_reservation_extensions) == ("ALLOW_IF_AVAILABLE", 10)
    assert (made.default_reservation_ttl_ms, made.max_reservation_ttl_ms) == (60_000, 3_600_000)


def test_lists_are_filtered_and_paged(target: AdminTarget) -> None:
    target.onboarded(**{f"{target.scope}/agent:a": TEN, f"{target.scope}/agent:b": TEN})
    admin = target.admin
    assert len(list(admin.budgets(tenant=target.tenant, page_size=1))) == 3
    prefixed = admin.budgets(tenant=target.tenant, scope_prefix=f"{target.scope}/agent:A")
    assert [budget.scope for budget in prefixed] == [f"{target.scope}/agent:a"]
    assert list(admin.budgets(tenant=target.tenant, has_debt=True)) == []
    assert list(admin.budgets(tenant=target.tenant, status="FROZEN")) == []
    assert list(admin.api_keys(tenant=target.tenant, status="REVOKED")) == []


def test_the_audit_log_names_calls_and_errors(target: AdminTarget) -> None:
    target.onboarded()
    target.admin.credit(target.scope, FIVE, reason="test")
    with pytest.raises(cycles.DuplicateResourceError):
        target.admin.create_budget(target.scope, FIVE)
    since = datetime.now(UTC) - timedelta(minutes=5)
    rows = list(target.admin.audit(tenant=target.tenant, since=since, page_size=2))
    assert {row.operation for row in rows} >= {"createTenant", "createBudget", "createApiKey", "fundBudget"}
    assert [row.timestamp for row in rows] == sorted((row.timestamp for row in rows), reverse=True)
    funded = next(target.admin.audit(tenant=target.tenant, operation="fundBudget"))
    assert (funded.resource_type, funded.resource_id, funded.status) == ("budget", f"{target.scope}:TOKENS", 200)


def test_the_audit_log_tells_calls_without_a_valid_key_from_those_of_the_operator() -> None:
    with (
        EmbeddedServer(admin_api_key="k") as server,
        httpx.Client(transport=server.transport()) as http,
    ):
        other = Admin("http://embedded.test", "wrong", http_client=http)
        with pytest.raises(cycles.UnauthorizedError):
            other.create_tenant("acme", "Acme")
        admin = Admin("http://embedded.test", "k", http_client=http)
        wrong = http.post("http://embedded.test/v1/admin/tenants", headers={"X-Admin-API-Key": "k"}, json={"name": "x"})
        assert wrong.status_code == 400
        assert [(row.status, row.tenant_id) for row in admin.audit()] == [(400, "__admin__"), (401, "__unauth__")]


def test_budgets_that_are_used_alike_are_listed_by_scope() -> None:
    scopes = [f"tenant:acme/agent:{name}" for name in ("c", "a", "b")]
    with (
        EmbeddedServer(dict.fromkeys(scopes, TEN), admin_api_key="k") as server,
        httpx.Client(transport=server.transport()) as http,
    ):
        admin = Admin("http://embedded.test", "k", http_client=http)
        assert [budget.scope for budget in admin.budgets(tenant="acme")] == sorted(scopes)


def test_admin_data_survives_a_restart_of_the_embedded_server(tmp_path: Any) -> None:
    path = tmp_path / "ledger.db"
    for run in range(2):
        with (
            EmbeddedServer(path=path, admin_api_key="k") as server,
            httpx.Client(transport=server.transport()) as http,
        ):
            admin = Admin("http://embedded.test", "k", http_client=http)
            if run == 0:
                admin.onboard("acme", "Acme", budgets={"tenant:acme": TEN}, key_name="prod")
            assert admin.tenant("acme").name == "Acme"
            assert [key.name for key in admin.api_keys(tenant="acme")] == ["prod"]
            assert admin.budget("tenant:acme", unit="TOKENS").created_at is not None
