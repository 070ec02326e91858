"""Whole answers of the embedded server about policies, access, the audit log, the overview and quota counters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import cycles
from cycles.embedded import EmbeddedServer, ManualClock, admin_overview
from cycles.embedded.admin_state import AdminCall, AdminState
from cycles.embedded.http import Request
from cycles.embedded.ledger import Ledger
from cycles.embedded.tables import Tables
from cycles.embedded.webhook_subscriptions import Subscription
from tests.admin.site import ACME, BOT, DAY_MS, PLACE, SECOND, START, START_MS, Site, error, tokens


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.close()


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
    missing = (404, error("TENANT_NOT_FOUND", "tenant not found: nobody"))
    assert site.send("POST", "policies", {**form, "tenant_id": "nobody"}) == missing  # whatever the pattern


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
    ledger.set_budget(f"{BOT}-e", cycles.tokens(1), debt=1)
    assert (listed("has_debt=true"), listed("has_debt=false")) == ("e", "cabd")


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
    without_kind = {"tenant_id": "acme", "scope": ACME, "window": "per_run"}  # it names a quota of a risk class
    assert site.send("POST", f"{counters}/reset", without_kind)[0] == 404
    assert site.send("POST", f"{counters}/reset", by_class)[1]["previous_used"] == 3
    for wrong in ({"run_id": "r3"}, {"scope": f"{ACME}2"}, {"action_kind": "a.c"}, {"tenant_id": "beta"}):
        status, found = site.send("POST", f"{counters}/reset", {**form, **wrong})
        scope = wrong.get("scope", "TENANT:ACME")
        assert (status, found) == (404, error("NOT_FOUND", f"no such quota counter: {scope!r}, per_run"))
    del form["tenant_id"]
    message = "tenant_id is missing; send the tenant of the counter"
    assert site.send("POST", f"{counters}/reset", form) == (400, error("INVALID_REQUEST", message))
