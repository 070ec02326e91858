"""Each argument of each admin method is in the request: alone, with all others, and if its value counts as false."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeAlias
from urllib.parse import parse_qs

import pytest

import cycles

from .scripted import FIVE, TENANT, Script, budget_body, funding_body, key_body, ok

ZERO = cycles.tokens(0)
SCOPE = "tenant:acme"
EAST = timezone(timedelta(hours=2))
AT = datetime(2026, 1, 2, 1, tzinfo=EAST)
IN_UTC = "2026-01-01T23:00:00"
POLICY = {"policy_id": "p1", "scope_pattern": "tenant:acme/*", "status": "ACTIVE", "tenant_id": "acme", "name": "p"}
REPORT = {"action": "SUSPEND", "total_matched": 0, "succeeded": [], "failed": [], "skipped": []}
WEBHOOK = {
    "subscription": {
        "subscription_id": "w1", "url": "https://a.test", "event_types": ["budget.funded"], "status": "ACTIVE"
    },
    "signing_secret": "whsec_of_the_server",
}  # fmt: skip
COUNTER = {"action_kind": "a.b", "scope": SCOPE, "window": "per_run", "used": 0, "limit": 5}
NONE_OF_ANY_UNIT = {"unit": "TOKENS", "amount": 0}

Options: TypeAlias = dict[str, tuple[Any, dict[str, Any]]]  # the value of each, and what it adds to the body
TENANT_SETTINGS: Options = {
    "overage_policy": ("REJECT", {"default_commit_overage_policy": "REJECT"}),
    "default_ttl_ms": (1000, {"default_reservation_ttl_ms": 1000}),
    "max_ttl_ms": (86_400_000, {"max_reservation_ttl_ms": 86_400_000}),
    "max_extensions": (0, {"max_reservation_extensions": 0}),
    "metadata": ({}, {"metadata": {}}),
}
REASON: Options = {"reason": ("because", {"reason": "because"})}
BULK: Options = {"expected_count": (0, {"expected_count": 0})}
FUNDING = {"amount": {"unit": "TOKENS", "amount": 5}}

# Name, arguments, keywords that are always passed, response, what is always in the body, and each option.
WRITES: list[tuple[str, tuple[Any, ...], dict[str, Any], Any, dict[str, Any], Options]] = [
    (
        "create_tenant", ("acme", "Acme"), {}, ok(TENANT, 201), {"tenant_id": "acme", "name": "Acme"},
        {"parent": ("root", {"parent_tenant_id": "root"}), **TENANT_SETTINGS},
    ),
    (
        "update_tenant", ("acme",), {}, ok(TENANT), {},
        {"name": ("New", {"name": "New"}), "status": ("SUSPENDED", {"status": "SUSPENDED"}), **TENANT_SETTINGS},
    ),
    ("suspend_tenant", ("acme",), {}, ok(TENANT), {"status": "SUSPENDED"}, {}),
    ("reactivate_tenant", ("acme",), {}, ok(TENANT), {"status": "ACTIVE"}, {}),
    ("close_tenant", ("acme",), {"confirm": "acme"}, ok(TENANT), {"status": "CLOSED"}, {}),
    (
        "create_budget", ("tenant:acme/agent:Bot", FIVE), {}, ok(budget_body(), 201),
        {
            "tenant_id": "acme", "scope": "tenant:acme/agent:bot", "unit": "TOKENS",
            "allocated": {"unit": "TOKENS", "amount": 5},
        },
        {
            "overdraft_limit": (ZERO, {"overdraft_limit": NONE_OF_ANY_UNIT}),
            "overage_policy": ("REJECT", {"commit_overage_policy": "REJECT"}),
            "period": ((AT, datetime(2026, 2, 1, tzinfo=UTC)), {
                "period_start": f"{IN_UTC}Z", "period_end": "2026-02-01T00:00:00Z"
            }),
            "metadata": ({}, {"metadata": {}}),
        },
    ),
    ("freeze", (SCOPE,), {"unit": "TOKENS"}, ok(budget_body()), {}, REASON),
    ("unfreeze", (SCOPE,), {"unit": "TOKENS"}, ok(budget_body()), {}, REASON),
    *(
        (
            name, (SCOPE, FIVE), {"idempotency_key": "k"}, ok(funding_body()),
            {**FUNDING, "operation": operation, "idempotency_key": f"k:{operation}:{SCOPE}:TOKENS"}, REASON,
        )
        for name, operation in
        [("credit", "CREDIT"), ("debit", "DEBIT"), ("resize", "RESET"), ("repay_debt", "REPAY_DEBT")]
    ),
    (
        "fund", (SCOPE, FIVE), {"operation": "RESET_SPENT", "idempotency_key": "k"}, ok(funding_body()),
        {**FUNDING, "operation": "RESET_SPENT", "idempotency_key": f"k:RESET_SPENT:{SCOPE}:TOKENS"},
        {**REASON, "spent": (ZERO, {"spent": NONE_OF_ANY_UNIT})},
    ),
    (
        "start_period", (SCOPE, FIVE), {"period": "2026-01"}, ok(funding_body()),
        {**FUNDING, "operation": "RESET_SPENT", "idempotency_key": f"2026-01:RESET_SPENT:{SCOPE}:TOKENS"},
        {**REASON, "spent": (ZERO, {"spent": NONE_OF_ANY_UNIT})},
    ),
    (
        "create_api_key", ("acme", "prod"), {}, ok(key_body(), 201),
        {"tenant_id": "acme", "name": "prod", "permissions": list(cycles.RUNTIME_PERMISSIONS)},
        {
            "permissions": (("balances:read",), {"permissions": ["balances:read"]}),
            "scope_filter": (("agent:a",), {"scope_filter": ["agent:a"]}),
            "expires_at": (AT, {"expires_at": f"{IN_UTC}+00:00"}),
            "description": ("", {"description": ""}),
        },
    ),
    (
        "create_policy", ("acme", "p", "tenant:acme/*"), {}, ok(POLICY, 201),
        {"tenant_id": "acme", "name": "p", "scope_pattern": "tenant:acme/*"},
        {
            "description": ("", {"description": ""}),
            "priority": (0, {"priority": 0}),
            "caps": ({"max_tokens": 0}, {"caps": {"max_tokens": 0}}),
            "overage_policy": ("REJECT", {"commit_overage_policy": "REJECT"}),
        },
    ),
    (
        "update_policy", ("p1",), {}, ok(POLICY), {},
        {
            "name": ("New", {"name": "New"}),
            "description": ("", {"description": ""}),
            "priority": (0, {"priority": 0}),
            "caps": ({"max_tokens": 0}, {"caps": {"max_tokens": 0}}),
            "overage_policy": ("REJECT", {"commit_overage_policy": "REJECT"}),
            "status": ("DISABLED", {"status": "DISABLED"}),
        },
    ),
    (
        "create_webhook", ("https://a.test", ("budget.funded",)), {}, ok(WEBHOOK, 201),
        {"url": "https://a.test", "event_types": ["budget.funded"]},
        {
            "secret": ("whsec_of_the_caller", {"signing_secret": "whsec_of_the_caller"}),
            "scope_filter": ("tenant:acme/*", {"scope_filter": "tenant:acme/*"}),
            "headers": ({}, {"headers": {}}),
            "name": ("", {"name": ""}),
            "description": ("", {"description": ""}),
            "disable_after_failures": (1, {"disable_after_failures": 1}),
            "metadata": ({}, {"metadata": {}}),
        },
    ),
    (
        "change_tenants", ("SUSPEND",), {"idempotency_key": "k", "search": "a"}, ok(REPORT),
        {"action": "SUSPEND", "idempotency_key": "k"}, BULK,
    ),
    (
        "change_webhooks", ("PAUSE",), {"idempotency_key": "k", "search": "a"}, ok(REPORT),
        {"action": "PAUSE", "idempotency_key": "k"}, BULK,
    ),
    (
        "start_periods", ("acme", FIVE), {"period": "p", "expected_count": 0}, ok(REPORT),
        {
            "action": "RESET_SPENT", **FUNDING, "expected_count": 0,
            "idempotency_key": "p:RESET_SPENT:acme/*:TOKENS",
        },
        {"scope_prefix": ("tenant:acme/Agent:", {"idempotency_key": "p:RESET_SPENT:acme/tenant:acme/agent::TOKENS"})},
    ),
    (
        "reset_quota_counter", ("acme",), {"scope": SCOPE, "window": "per_run"}, ok({"counter": COUNTER}),
        {"tenant_id": "acme", "scope": SCOPE, "window": "per_run"},
        {
            "action_kind": ("a.b", {"action_kind": "a.b"}),
            "risk_class": ("high_risk", {"risk_class": "high_risk"}),
            "window_key": ("w", {"window_key": "w"}),
            "run_id": ("r", {"run_id": "r"}),
            **REASON,
        },
    ),
    (
        "set_webhook_security", (), {"allow_http": False, "blocked_cidr_ranges": ()}, ok({"allow_http": False}),
        {"allow_http": False, "blocked_cidr_ranges": [], "allowed_url_patterns": []},
        {"allowed_url_patterns": (("https://a.test/*",), {"allowed_url_patterns": ["https://a.test/*"]})},
    ),
]  # fmt: skip


def sent(script: Script) -> dict[str, Any]:
    """Return the body of the only request, without its filter."""
    [request] = script.requests
    body: dict[str, Any] = json.loads(request.content) if request.content else {}
    body.pop("filter", None)
    return body


ALONE = [(row[0], option) for row in WRITES for option in row[5]]


@pytest.mark.parametrize(("name", "option"), ALONE, ids=[f"{name}-{option}" for name, option in ALONE])
def test_an_argument_alone(name: str, option: str) -> None:
    [(_, arguments, keywords, response, always, options)] = [row for row in WRITES if row[0] == name]
    value, added = options[option]
    script = Script(response)
    getattr(script.admin, name)(*arguments, **keywords, **{option: value})
    assert sent(script) == {**always, **added}


@pytest.mark.parametrize("row", WRITES, ids=[row[0] for row in WRITES])
def test_no_optional_argument_and_all_of_them(row: Any) -> None:
    name, arguments, keywords, response, always, options = row
    script = Script(response)
    getattr(script.admin, name)(*arguments, **keywords)
    assert sent(script) == always
    script = Script(response)
    getattr(script.admin, name)(*arguments, **keywords, **{option: value for option, (value, _) in options.items()})
    expected = dict(always)
    for _, added in options.values():
        expected |= added
    assert sent(script) == expected


FILTERS: dict[str, dict[str, tuple[Any, str, str]]] = {
    "budgets": {
        "tenant": ("acme", "tenant_id", "acme"),
        "scope_prefix": ("tenant:acme/Agent:", "scope_prefix", "tenant:acme/agent:"),
        "unit": ("TOKENS", "unit", "TOKENS"),
        "status": ("FROZEN", "status", "FROZEN"),
        "over_limit": (False, "over_limit", "false"),
        "has_debt": (False, "has_debt", "false"),
        "utilization_min": (0.0, "utilization_min", "0.0"),
        "utilization_max": (0.0, "utilization_max", "0.0"),
        "search": ("a", "search", "a"),
        "page_size": (1, "limit", "1"),
    },
    "api_keys": {
        "tenant": ("acme", "tenant_id", "acme"),
        "status": ("REVOKED", "status", "REVOKED"),
        "search": ("a", "search", "a"),
        "page_size": (1, "limit", "1"),
    },
    "audit": {
        "tenant": ("acme", "tenant_id", "acme"),
        "operation": ("fundBudget", "operation", "fundBudget"),
        "resource_type": (["tenant", "budget"], "resource_type", "tenant,budget"),
        "resource_id": ("r", "resource_id", "r"),
        "error_code": ("FORBIDDEN", "error_code", "FORBIDDEN"),
        "key_id": ("k", "key_id", "k"),
        "status": (404, "status", "404"),
        "since": (AT, "from", f"{IN_UTC}.000Z"),
        "until": (AT + timedelta(hours=1), "to", "2026-01-02T00:00:00.000Z"),
        "search": ("a", "search", "a"),
        "page_size": (1, "limit", "1"),
    },
    "policies": {
        "status": ("DISABLED", "status", "DISABLED"),
        "search": ("a", "search", "a"),
        "page_size": (1, "limit", "1"),
    },
    "quota_counters": {
        "scope": (SCOPE, "scope", SCOPE),
        "action_kind": ("a.b", "action_kind", "a.b"),
        "window": ("per_run", "window", "per_run"),
        "run_id": ("r", "run_id", "r"),
        "include_zero": (True, "include_zero", "true"),
    },
}
MEMBERS = {"budgets": "ledgers", "api_keys": "keys", "audit": "logs", "quota_counters": "counters"}
OF_TENANT = ("policies", "quota_counters")


def queried(name: str, filters: Mapping[str, Any]) -> list[dict[str, list[str]]]:
    """Return the queries of two pages, after the tenant of lists that need one."""
    member = MEMBERS.get(name, name)
    script = Script(ok({member: [], "has_more": True, "next_cursor": "c"}), ok({member: [], "has_more": False}))
    assert list(getattr(script.admin, name)(*(("acme",) if name in OF_TENANT else ()), **filters)) == []
    return [parse_qs(request.url.query.decode(), keep_blank_values=True) for request in script.requests]


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in FILTERS for option in FILTERS[name]])
def test_a_filter_alone(name: str, option: str) -> None:
    value, wire, text = FILTERS[name][option]
    always = {"tenant_id": ["acme"]} if name in OF_TENANT else {}
    first, second = queried(name, {option: value})
    assert first == {**always, wire: [text]}
    assert second == {**first, "cursor": ["c"]}


@pytest.mark.parametrize("name", FILTERS)
def test_no_filter_and_all_of_them(name: str) -> None:
    always = {"tenant_id": ["acme"]} if name in OF_TENANT else {}
    assert queried(name, {})[0] == always
    given = {option: value for option, (value, _, _) in FILTERS[name].items()}
    every = {**always, **{wire: [text] for _, wire, text in FILTERS[name].values()}}
    assert queried(name, given) == [every, {**every, "cursor": ["c"]}]


@pytest.mark.parametrize(
    ("name", "action", "given", "chosen"),
    [
        *(
            ("change_tenants", "CLOSE", given, chosen)
            for given, chosen in [
                ({"status": "ACTIVE"}, {"status": "ACTIVE"}),
                ({"parent": "root"}, {"parent_tenant_id": "root"}),
                ({"search": "a"}, {"search": "a"}),
                (
                    {"status": "ACTIVE", "parent": "root", "search": "a"},
                    {"status": "ACTIVE", "parent_tenant_id": "root", "search": "a"},
                ),
            ]
        ),
        *(
            ("change_webhooks", "DELETE", given, chosen)
            for given, chosen in [
                ({"tenant": "acme"}, {"tenant_id": "acme"}),
                ({"status": "ACTIVE"}, {"status": "ACTIVE"}),
                ({"event_type": "budget.funded"}, {"event_type": "budget.funded"}),
                ({"search": "a"}, {"search": "a"}),
                (
                    {"tenant": "acme", "status": "ACTIVE", "event_type": "budget.funded", "search": "a"},
                    {"tenant_id": "acme", "status": "ACTIVE", "event_type": "budget.funded", "search": "a"},
                ),
            ]
        ),
    ],
)
def test_what_a_bulk_action_changes(name: str, action: str, given: dict[str, Any], chosen: dict[str, Any]) -> None:
    script = Script(ok(REPORT))
    getattr(script.admin, name)(action, **given)
    assert (script.body()["filter"], script.body()["action"]) == (chosen, action)
    with pytest.raises(cycles.InvalidRequestError, match="needs a filter"):
        getattr(script.admin, name)(action, expected_count=1)
    with pytest.raises(cycles.InvalidRequestError, match="idempotency_key"):
        getattr(script.admin, name)(action, **given, idempotency_key="")
    assert len(script.requests) == 1


@pytest.mark.parametrize(("secret", "shown"), [(None, "whsec_of_the_server"), ("whsec_of_the_caller",) * 2])
def test_the_secret_of_a_webhook_is_that_of_the_caller_or_of_the_server(secret: str | None, shown: str) -> None:
    assert (
        Script(ok(WEBHOOK, 201)).admin.create_webhook("https://a.test", ["budget.funded"], secret=secret).secret
        == shown
    )


@pytest.mark.parametrize(("tenant", "query"), [(None, {}), ("acme", {"tenant_id": "acme"})])
def test_a_webhook_is_that_of_the_system_or_of_a_tenant(tenant: str | None, query: dict[str, str]) -> None:
    script = Script(ok(WEBHOOK, 201))
    script.admin.create_webhook("https://a.test", ["budget.funded"], tenant=tenant)
    assert dict(script.requests[0].url.params) == query


@pytest.mark.parametrize("used", [0, 3, None])
def test_what_a_counter_had_before_it_was_reset(used: int | None) -> None:
    body = {"counter": COUNTER} if used is None else {"counter": COUNTER, "previous_used": used}
    found = Script(ok(body)).admin.reset_quota_counter("acme", scope=SCOPE, window="per_run", action_kind="a.b")
    assert (found.used, found.limit, found.previous_used) == (0, 5, used)


@pytest.mark.parametrize(("length", "is_hashed"), [(128, False), (129, True)])
def test_the_key_of_a_bulk_period_has_at_most_128_characters(length: int, is_hashed: bool) -> None:
    period = "p" * (length - len(":RESET_SPENT:acme/*:TOKENS"))
    script = Script(ok(REPORT))
    script.admin.start_periods("acme", FIVE, period=period, expected_count=1)
    key = script.body()["idempotency_key"]
    assert key.startswith("sha256:") is is_hashed
    assert len(key) == (len("sha256:") + 64 if is_hashed else length)


def test_the_budgets_of_a_bulk_period_are_counted_with_its_filter() -> None:
    page = {"ledgers": [budget_body(), budget_body()], "has_more": False}
    script = Script(ok(page), ok(REPORT))
    script.admin.start_periods("acme", FIVE, period="p", scope_prefix="tenant:acme/Agent:")
    chosen = {"tenant_id": "acme", "scope_prefix": "tenant:acme/agent:", "unit": "TOKENS"}
    assert dict(script.requests[0].url.params) == {**chosen, "limit": "100"}
    assert (script.body()["filter"], script.body()["expected_count"]) == (chosen, 2)
