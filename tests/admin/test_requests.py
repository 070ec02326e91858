"""Requests of the facade: funding keys, tenants of scopes, filters, pages, and what is rejected before sending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import cycles
from cycles.admin import Admin

from .scripted import FIVE, KEY, TENANT, Script, budget_body, funding_body, key_body, ok, rejected


def test_the_admin_key_is_the_only_key_that_is_sent() -> None:
    script = Script(ok(TENANT))
    script.admin.tenant("acme")
    headers = script.requests[0].headers
    assert headers["X-Admin-API-Key"] == KEY
    assert "X-Cycles-API-Key" not in headers


def test_the_environment_configures_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_ADMIN_BASE_URL", "http://from.env")
    monkeypatch.setenv("CYCLES_ADMIN_API_KEY", KEY)
    assert repr(Admin()) == "<Admin http://from.env>"


@pytest.mark.parametrize(
    ("base_url", "api_key", "message"),
    [
        (None, KEY, "CYCLES_ADMIN_BASE_URL"),
        ("http://a.test", None, "CYCLES_ADMIN_API_KEY"),
        ("x", KEY, "base_url"),
        ("http://a.test", lambda: KEY, "api_key must be a string"),
    ],
)
def test_a_missing_or_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, base_url: str | None, api_key: Any, message: str
) -> None:
    monkeypatch.delenv("CYCLES_ADMIN_BASE_URL", raising=False)
    monkeypatch.delenv("CYCLES_ADMIN_API_KEY", raising=False)
    with pytest.raises(cycles.ConfigurationError, match=message):
        Admin(base_url, api_key)


def test_times_of_another_zone_are_sent_in_utc() -> None:
    begin, end = (datetime(2026, month, 1, tzinfo=timezone(timedelta(hours=2))) for month in (5, 6))
    script = Script(ok(key_body(), 201), ok(budget_body(), 201))
    script.admin.create_api_key("acme", "prod", expires_at=end)
    script.admin.create_budget("tenant:acme", FIVE, period=(begin, end))
    assert datetime.fromisoformat(script.body(0)["expires_at"]) == end
    assert script.body(0)["expires_at"].endswith("+00:00")
    assert [script.body(1)[f"period_{edge}"] for edge in ("start", "end")] == [
        "2026-04-30T22:00:00Z",
        "2026-05-31T22:00:00Z",
    ]


def test_funding_names_the_tenant_of_the_scope_in_lower_case() -> None:
    script = Script(ok(funding_body()))
    script.admin.credit("tenant:Acme/agent:Bot", FIVE, reason="invoice 42", idempotency_key="invoice-42")
    query = dict(script.requests[0].url.params)
    assert query == {"scope": "tenant:acme/agent:bot", "unit": "TOKENS", "tenant_id": "acme"}
    assert script.body() == {
        "operation": "CREDIT",
        "amount": {"unit": "TOKENS", "amount": 5},
        "reason": "invoice 42",
        "idempotency_key": "invoice-42:CREDIT:tenant:acme/agent:bot:TOKENS",
    }


def test_keys_of_two_budgets_operations_units_or_periods_differ() -> None:
    script = Script(*[ok(funding_body())] * 6)
    admin = script.admin
    admin.start_period("tenant:acme", FIVE, period="2026-01")
    admin.start_period("tenant:acme", FIVE, period="2026-02")
    admin.start_period("tenant:acme/agent:a", FIVE, period="2026-01")
    admin.start_period("tenant:acme", cycles.credits(5), period="2026-01")
    admin.credit("tenant:acme", FIVE, idempotency_key="2026-01")
    admin.start_period("tenant:acme", FIVE, period="2026-01")
    keys = [script.body(number)["idempotency_key"] for number in range(6)]
    assert len(set(keys[:5])) == 5
    assert keys[5] == keys[0]


def test_two_changes_without_a_key_have_different_keys() -> None:
    script = Script(ok(funding_body()), ok(funding_body()))
    for _ in range(2):
        script.admin.credit("tenant:acme", FIVE)
    assert script.body(0)["idempotency_key"] != script.body(1)["idempotency_key"]


def test_a_long_key_is_hashed() -> None:
    script = Script(ok(funding_body()))
    script.admin.credit("tenant:acme", FIVE, idempotency_key="k" * 250)
    assert len(script.body()["idempotency_key"]) == len("sha256:") + 64


@pytest.mark.parametrize(
    ("name", "operation"),
    [("credit", "CREDIT"), ("debit", "DEBIT"), ("resize", "RESET"), ("repay_debt", "REPAY_DEBT")],
)
def test_each_funding_method_sends_its_operation(name: str, operation: str) -> None:
    script = Script(ok(funding_body(operation)))
    assert getattr(script.admin, name)("tenant:acme", FIVE).operation == operation
    assert script.body()["operation"] == operation


def test_a_new_period_may_begin_with_a_spent_amount() -> None:
    script = Script(ok(funding_body("RESET_SPENT")))
    script.admin.start_period("tenant:acme", FIVE, period="2026-01", spent=cycles.tokens(1))
    assert script.body()["spent"] == {"unit": "TOKENS", "amount": 1}


def rows(*ids: str) -> list[dict[str, str]]:
    return [{"id": each} for each in ids]


def test_bulk_periods_count_first_and_name_period_tenant_and_unit_in_the_key() -> None:
    report = {"action": "RESET_SPENT", "total_matched": 2, "succeeded": rows("a", "b"), "failed": [], "skipped": []}
    pages = [
        ok({"ledgers": [budget_body()], "has_more": True, "next_cursor": "c"}),
        ok({"ledgers": [budget_body()], "has_more": False}),
    ]
    script = Script(*pages, ok(report))
    assert script.admin.start_periods("acme", FIVE, period="2026-01").total_matched == 2
    assert script.body() == {
        "filter": {"tenant_id": "acme", "unit": "TOKENS"},
        "action": "RESET_SPENT",
        "amount": {"unit": "TOKENS", "amount": 5},
        "expected_count": 2,
        "idempotency_key": "2026-01:RESET_SPENT:acme/*:TOKENS",
    }


def test_a_failed_row_of_a_bulk_action_is_an_error_with_the_report() -> None:
    failed = [{"id": "b", "error_code": "INVALID_TRANSITION", "message": "Budget is frozen"}]
    body = {"action": "RESET_SPENT", "total_matched": 2, "succeeded": rows("a"), "failed": failed, "skipped": []}
    with pytest.raises(cycles.BulkActionError, match="1 of 2 rows are unchanged: b: Budget is frozen") as raised:
        Script(ok(body)).admin.start_periods("acme", FIVE, period="2026-01", expected_count=2)
    assert [row.id for row in raised.value.report.succeeded] == ["a"]


def test_an_error_of_a_bulk_action_shows_three_rows_by_message_or_code() -> None:
    failed = [{"id": "a", "error_code": "ONE"}, {"id": "b", "error_code": "TWO", "message": "why"}, *rows("c", "d")]
    body = {"action": "CLOSE", "total_matched": 5, "succeeded": rows("e"), "failed": failed, "skipped": []}
    with pytest.raises(cycles.BulkActionError) as raised:
        Script(ok(body)).admin.change_tenants("CLOSE", search="x")
    assert str(raised.value).startswith("4 of 5 rows are unchanged: a: ONE; b: why; c: None; see")
    assert len(raised.value.report.failed) == 4


def test_lists_are_lazy_and_read_every_page() -> None:
    script = Script(
        ok({"ledgers": [budget_body("tenant:acme")], "next_cursor": "c1"}),
        ok({"ledgers": [budget_body("tenant:acme/agent:a")], "has_more": False, "next_cursor": None}),
    )
    listed = script.admin.budgets(tenant="acme", over_limit=False, unit="TOKENS", page_size=1)
    assert script.calls == []
    assert [budget.scope for budget in listed] == ["tenant:acme", "tenant:acme/agent:a"]
    first = {"tenant_id": "acme", "over_limit": "false", "unit": "TOKENS", "limit": "1"}
    assert [dict(request.url.params) for request in script.requests] == [first, {**first, "cursor": "c1"}]


def test_a_list_that_repeats_its_cursor_is_an_error() -> None:
    page = {"keys": [], "next_cursor": "c1"}
    with pytest.raises(cycles.AmbiguousResponseError, match="the same next_cursor"):
        list(Script(ok(page), ok(page)).admin.api_keys())


def test_a_list_that_goes_in_a_circle_is_an_error() -> None:
    pages = [ok({"keys": [], "next_cursor": cursor}) for cursor in ("c1", "c2", "c1")]
    script = Script(*pages)
    with pytest.raises(cycles.AmbiguousResponseError, match="the list does not end"):
        list(script.admin.api_keys())
    assert len(script.calls) == 3


def test_filters_of_the_audit_log() -> None:
    script = Script(ok({"logs": [], "has_more": False}))
    since = datetime(2026, 1, 2, tzinfo=UTC)
    assert list(script.admin.audit(tenant="acme", operation=["createBudget", "fundBudget"], since=since)) == []
    params = dict(script.requests[0].url.params)
    assert params == {"tenant_id": "acme", "operation": "createBudget,fundBudget", "from": "2026-01-02T00:00:00.000Z"}


def test_permissions_are_always_sent() -> None:
    script = Script(ok(key_body(), 201))
    script.admin.create_api_key("acme", "prod")
    assert script.body()["permissions"] == list(cycles.RUNTIME_PERMISSIONS)


def test_a_rotated_key_has_the_properties_of_the_old_one() -> None:
    old = {"key_id": "key_0", "tenant_id": "acme", "status": "ACTIVE", "name": "prod", "permissions": ["budgets:read"]}
    script = Script(ok({"keys": [old | {"scope_filter": ["agent:a"]}]}), ok(key_body(), 201))
    assert script.admin.rotate_api_key("key_0").key_id == "key_1"
    assert script.body() == {
        "tenant_id": "acme",
        "name": "prod",
        "permissions": ["budgets:read"],
        "scope_filter": ["agent:a"],
    }


Wrong = Callable[[Admin], Any]
POLICY = {"name": "p", "scope_pattern": "tenant:acme"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda admin: admin.close_tenant("acme", confirm="acne"), "confirm must repeat the tenant id 'acme'"),
        (lambda admin: admin.update_tenant("acme", status="CLOSED"), "use close_tenant"),
        (lambda admin: admin.create_tenant("A b", "x"), "tenant_id: must match"),
        (lambda admin: admin.create_tenant("acme", "x", default_ttl_ms=5), "default_reservation_ttl_ms"),
        (lambda admin: admin.create_budget("agent:a", FIVE), "has no tenant"),
        (lambda admin: admin.create_budget("tenant:a/agent:*", FIVE), r"'agent:\*' is not level:id"),
        (lambda admin: admin.create_budget("tenant:a/agent:b/app:c", FIVE), "out of order"),
        (lambda admin: admin.create_budget("tenant:a", 5), "allocated must be an amount"),
        (lambda admin: admin.credit("tenant:a", FIVE, idempotency_key=""), "idempotency_key"),
        (lambda admin: admin.fund("tenant:a", FIVE, operation="GIVE"), "operation: must be one of CREDIT"),
        (lambda admin: admin.fund("tenant:a", FIVE, operation="RESET", spent=FIVE), "spent belongs to"),
        (lambda admin: admin.start_period("tenant:a", FIVE, period=""), "period must name the period"),
        (lambda admin: admin.start_period("tenant:a", FIVE, period="p", spent=cycles.credits(1)), "unit of the amount"),
        (lambda admin: admin.budgets(page_size=101), "limit: must be 100 or less"),
        (lambda admin: admin.audit(since=datetime(2026, 1, 1)), "time zone"),  # noqa: DTZ001
        (lambda admin: admin.create_webhook("https://a.test", []), "event_types"),
        (lambda admin: admin.onboard("acme", "A", budgets={"tenant:b": FIVE}, key_name="k"), "not a scope of tenant"),
        (lambda admin: admin.raw("nope"), "no 'nope'"),
        (
            lambda admin: admin.raw("createPolicy", body=POLICY | {"caps": {"a": float("nan")}}),
            "cannot be encoded as JSON",
        ),
        (lambda admin: admin.raw("createPolicy", body=POLICY | {"caps": {"a": {1}}}), "cannot be encoded as JSON"),
        (lambda admin: admin.fund("tenant:a", 5, operation="RESET_SPENT", spent=FIVE), "amount must be an amount"),
        (lambda admin: admin.create_tenant("acme\n", "x"), "tenant_id: must match"),
        (lambda admin: admin.create_tenant("acme", "x", metadata=["a"]), "metadata must be a mapping"),
        (lambda admin: admin.budgets(scope_prefix=5), "scope_prefix must be a string"),
        (lambda admin: admin.start_periods("acme", FIVE, period="p", scope_prefix=5), "scope_prefix must be a string"),
        (lambda admin: admin.audit(operation=None), "operation must be a list of strings"),
        (lambda admin: admin.audit(operation=["fundBudget"] * 26), "operation: must have at most 25 items, has 26"),
        (lambda admin: admin.create_api_key("acme", "k", permissions="balances:read"), "permissions must be a list"),
        (lambda admin: admin.create_api_key("acme", "k", permissions=None), "permissions must be a list"),
        (lambda admin: admin.create_api_key("acme", "k", scope_filter="agent:a"), "scope_filter must be a list"),
        (lambda admin: admin.create_webhook("https://a.test", "budget.funded"), "event_types must be a list"),
        (lambda admin: admin.create_webhook("https://a.test", ["budget.funded"], secret=""), "secret is empty"),
        (lambda admin: admin.create_webhook("https://a.test", ["budget.funded"], headers="a"), "headers must be a map"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_sent(wrong: Wrong, message: str) -> None:
    script = Script()
    with pytest.raises(cycles.InvalidRequestError, match=message):
        wrong(script.admin)
    assert script.calls == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"budgets": None}, "budgets must be a mapping"),
        ({"budgets": {"tenant:acme": "5"}}, "must be an amount"),
        ({"budgets": {"tenant:acme": FIVE, "tenant:ACME": FIVE}}, "two amounts in TOKENS"),
        ({"overdraft_limit": 5}, "overdraft_limit must be an amount"),
        ({"overdraft_limit": cycles.credits(1)}, "overdraft_limit is in CREDITS, but no budget is"),
        ({"key_name": 5}, "name: must be string"),
        ({"key_name": "k" * 257}, "name: must have at most 256 characters"),
        ({"permissions": "balances:read"}, "permissions must be a list"),
        ({"max_ttl_ms": 5}, "max_reservation_ttl_ms"),
    ],
)
def test_onboarding_checks_every_step_before_the_first_is_sent(wrong: dict[str, Any], message: str) -> None:
    script = Script()
    given: dict[str, Any] = {"budgets": {"tenant:acme": FIVE}, "key_name": "prod", **wrong}
    with pytest.raises(cycles.InvalidRequestError, match=message):
        script.admin.onboard("acme", "Acme", **given)
    assert script.calls == []


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (409, "DUPLICATE_RESOURCE", cycles.DuplicateResourceError),
        (403, "INSUFFICIENT_PERMISSIONS", cycles.InsufficientPermissionsError),
        (404, "TENANT_NOT_FOUND", cycles.NotFoundError),
        (401, "UNAUTHORIZED", cycles.UnauthorizedError),
        (409, "BUDGET_FROZEN", cycles.BudgetFrozenError),
        (409, "TENANT_CLOSED", cycles.TenantClosedError),
        (400, "LIMIT_EXCEEDED", cycles.ProtocolError),
        (409, "COUNT_MISMATCH", cycles.ProtocolError),
        (500, "INTERNAL_ERROR", cycles.ServerError),
    ],
)
def test_each_code_has_its_error(status: int, code: str, kind: type[cycles.ProtocolError]) -> None:
    response = rejected(status, code)
    with pytest.raises(kind) as raised:
        Script(response, response).admin.credit("tenant:acme", FIVE)
    assert type(raised.value) is kind
    assert (raised.value.code, raised.value.status) == (code, status)


def test_the_same_operations_from_async_code() -> None:
    async def run() -> None:
        script = Script(ok(TENANT, 201), ok({"ledgers": [budget_body()]}), ok(funding_body()))
        async with script.admin as admin:
            assert (await admin.aio.create_tenant("acme", "Acme")).created
            assert [budget.scope async for budget in admin.aio.budgets()] == ["tenant:acme"]
            assert (await admin.aio.credit("tenant:acme", FIVE)).operation == "CREDIT"
        with pytest.raises(cycles.CyclesError, match="closed"):
            await admin.aio.tenant("acme")
        await script.async_http.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("tenant", ["", "  "])
def test_an_empty_tenant_is_not_all_tenants(tenant: str) -> None:
    script = Script()
    admin = script.admin
    counter: dict[str, Any] = {"scope": "tenant:acme", "window": "per_day_tumbling", "action_kind": "code.exec"}
    calls: list[Callable[[], Any]] = [
        lambda: list(admin.budgets(tenant=tenant)),
        lambda: list(admin.api_keys(tenant=tenant)),
        lambda: list(admin.audit(tenant=tenant)),
        lambda: list(admin.quota_counters(tenant)),
        lambda: admin.reset_quota_counter(tenant, **counter),
        lambda: admin.create_webhook("https://example.com/hook", ["budget.funded"], tenant=tenant),
    ]
    for call in calls:
        with pytest.raises(cycles.InvalidRequestError, match="tenant is empty"):
            call()
    assert script.requests == []


def test_an_overdraft_limit_in_another_unit_is_rejected_before_sending() -> None:
    script = Script()
    with pytest.raises(cycles.InvalidRequestError, match="overdraft_limit must be in the unit of allocated, TOKENS"):
        script.admin.create_budget("tenant:acme", FIVE, overdraft_limit=cycles.usd(1))
    assert script.requests == []
