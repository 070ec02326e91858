"""The filters and the order of the lists of the embedded server are those of the reference admin server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import cycles
from cycles.embedded import EmbeddedServer

ADMIN = {"X-Admin-API-Key": "adm"}
SCOPES = ("tenant:acme", "tenant:acme/workspace:w")


class Site:
    """A server with one tenant, two budgets and two keys; `key` may read events."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.made("tenants", tenant_id="acme", name="Acme")
        self.key = self.made("api-keys", tenant_id="acme", name="one", permissions=["events:read"])["key_secret"]
        self.weak = self.made("api-keys", tenant_id="acme", name="two")["key_secret"]
        for scope in SCOPES:
            allocated = {"unit": "TOKENS", "amount": 10}
            self.made("budgets", tenant_id="acme", scope=scope, unit="TOKENS", allocated=allocated)

    def made(self, path: str, **body: Any) -> Any:
        return self.http.post(f"/v1/admin/{path}", json=body, headers=ADMIN).raise_for_status().json()

    def get(self, path: str, query: str = "", **headers: str) -> httpx.Response:
        return self.http.get(f"/v1/{path}?{query}", headers=headers or ADMIN)

    def types(self, query: str) -> list[str]:
        response = self.get("events", query, **{"X-Cycles-API-Key": self.key}).raise_for_status()
        return [event["event_type"] for event in response.json()["events"]]


@pytest.fixture
def site() -> Iterator[Site]:
    with (
        EmbeddedServer(admin_api_key="adm") as server,
        httpx.Client(transport=server.transport(), base_url="http://embedded.test") as http,
    ):
        yield Site(http)


def test_a_tenant_reads_its_own_events(site: Site) -> None:
    site.made("tenants", tenant_id="other", name="Other")
    assert site.types("") == [
        "budget.created",
        "budget.created",
        "api_key.created",
        "api_key.created",
        "tenant.created",
    ]
    assert site.types("category=tenant&tenant_id=other") == ["tenant.created"]
    assert site.types(f"scope={SCOPES[1]}") == ["budget.created"]
    assert site.types("search=nothing&sort_by=nope") == site.types("")  # the reference server ignores both here


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("event_type=nope", "event_type"),
        ("event_type=api_key.created", "needs the admin key"),
        ("category=policy", "needs the admin key"),
        ("from=yesterday", "from"),
        ("limit=x", "limit"),
        ("cursor=nope", "cursor"),
    ],
)
def test_a_wrong_query_of_a_tenant_is_rejected(site: Site, query: str, named: str) -> None:
    response = site.get("events", query, **{"X-Cycles-API-Key": site.key})
    assert (response.status_code, response.json()["error"]) == (400, "INVALID_REQUEST")
    assert named in response.json()["message"]


def test_events_need_the_permission_of_a_tenants_key(site: Site) -> None:
    weak = site.get("events", **{"X-Cycles-API-Key": site.weak})
    assert (weak.status_code, weak.json()["error"]) == (403, "INSUFFICIENT_PERMISSIONS")
    assert site.get("events").status_code == 401  # the admin key is of no use
    assert site.get("events", **{"X-Cycles-API-Key": "unknown"}).status_code == 401
    assert site.http.post("/v1/events", json={}, headers={"X-Cycles-API-Key": site.key}).status_code == 400


def test_a_key_that_no_administration_made_has_the_operations_of_the_runtime_document() -> None:
    with (
        EmbeddedServer({"tenant:acme": cycles.tokens(1)}, admin_api_key="adm") as server,
        httpx.Client(transport=server.transport(), base_url="http://embedded.test") as http,
    ):
        assert http.get("/v1/events", headers={"X-Cycles-API-Key": server.api_key}).status_code == 405


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("scope=tenant:acme", 2),
        (f"scope={SCOPES[1]}", 1),
        ("correlation_id=nope", 0),
        ("from=2090-01-01T00:00:00Z", 0),
        ("to=2020-01-01T00:00:00%2B02:00", 0),
        ("from=2020-01-01T00:00:00Z&to=2090-01-01T00:00:00Z", 5),
        ("search=WORKSPACE", 1),
        ("limit=0", 1),
    ],
)
def test_the_operator_filters_events(site: Site, query: str, count: int) -> None:
    assert len(site.get("admin/events", query).raise_for_status().json()["events"]) == count


def test_lists_are_sorted(site: Site) -> None:
    events = site.get("admin/events", "sort_by=event_type&sort_dir=ASC").json()["events"]
    types = [event["event_type"] for event in events]
    assert types == sorted(types)
    assert types[0] == "api_key.created"
    ledgers = site.get("admin/budgets", "sort_by=scope").json()["ledgers"]
    assert [row["scope"] for row in ledgers] == [*reversed(SCOPES)]  # descending, as on the reference server
    logs = site.get("admin/audit/logs", "sort_by=operation&sort_dir=asc").json()["logs"]
    assert logs[0]["operation"] == "createApiKey"
    assert len(site.get("admin/audit/logs", "from=2090-01-01T00:00:00%2B02:00").json()["logs"]) == 0


@pytest.mark.parametrize(
    "path",
    [
        "tenants?status=nope",
        "api-keys?status=nope",
        "budgets?utilization_min=2",
        "budgets?limit=nan",
        "webhooks?sort_by=nope",
        "webhooks?limit=x",
        "events?sort_dir=up",
        "audit/logs?sort_by=nope",
        "audit/logs?from=x",
        f"tenants?search={'x' * 129}",
    ],
)
def test_a_wrong_value_is_rejected(site: Site, path: str) -> None:
    response = site.get(f"admin/{path.partition('?')[0]}", path.partition("?")[2])
    assert (response.status_code, response.json()["error"]) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("path", "query", "count"),
    [
        ("admin/budgets", "unit=+&status=&over_limit=+&utilization_min=+&search=+&sort_by=+&cursor=+&tenant_id=+", 2),
        ("admin/budgets", "scope_prefix=", 2),
        ("admin/tenants", "status=+&search=+&sort_by=&limit=", 1),
        ("admin/tenants", "parent_tenant_id=", 0),
        ("admin/api-keys", "status=+&search=+", 2),
        ("admin/policies", "tenant_id=acme&status=+&search=nope&sort_by=nope&sort_dir=up", 2),
        ("admin/policies", "tenant_id=acme&scope_pattern=", 0),
        ("admin/webhooks", "search=+&sort_by=+", 2),
        ("admin/webhooks", "status=", 0),
        ("admin/webhooks", "tenant_id=", 0),
        ("webhooks", "tenant=acme&search=nope&event_type=nope&sort_by=nope&sort_dir=up", 2),
        ("webhooks", "tenant=acme&status=PAUSED", 0),
        ("admin/events", "correlation_id=+&from=+&to=&search=+&category=budget", 2),
        ("admin/events", "event_type=", 0),
        ("admin/events", "scope=&category=tenant", 0),
        ("admin/audit/logs", "operation=+&status=+&status_min=+&error_code=+&resource_type=tenant", 1),
        ("admin/audit/logs", "trace_id=", 0),
    ],
)
def test_a_blank_value_counts_as_on_the_reference_server(site: Site, path: str, query: str, count: int) -> None:
    for name in ("b", "a"):
        site.made("policies", tenant_id="acme", name=name, scope_pattern="tenant:acme/*")
        site.made("webhooks?tenant_id=acme", url=f"http://127.0.0.1:9/{name}", event_types=["budget.funded"])
    found = site.get(path, query).raise_for_status().json()
    rows = next(rows for rows in found.values() if isinstance(rows, list))
    assert len(rows) == count
    if path in ("admin/policies", "webhooks"):
        ids = [row.get("policy_id") or row["subscription_id"] for row in rows]
        assert ids == sorted(ids)


@pytest.mark.parametrize(
    "query", ["admin/budgets?sort_dir=", "admin/policies?tenant_id=+", "admin/tenants?limit=+", "webhooks?tenant="]
)
def test_some_blank_values_are_rejected(site: Site, query: str) -> None:
    path, _, rest = query.partition("?")
    assert site.get(path, rest).status_code == 400


def test_the_most_used_budgets_come_first(site: Site) -> None:
    body = {"operation": "RESET_SPENT", "amount": {"unit": "TOKENS", "amount": 10}}
    place = f"budgets/fund?scope={SCOPES[1]}&unit=TOKENS&tenant_id=acme"
    site.made(place, **body, spent={"unit": "TOKENS", "amount": 3})
    for query, order in (("", [SCOPES[1], SCOPES[0]]), ("sort_dir=asc", [*SCOPES])):
        assert [row["scope"] for row in site.get("admin/budgets", query).json()["ledgers"]] == order


@pytest.mark.parametrize(
    ("query", "scopes"),
    [
        ("utilization_min=0.3", [SCOPES[1]]),
        ("utilization_min=0.31", []),
        ("utilization_max=0.3", [SCOPES[1], SCOPES[0]]),
        ("utilization_max=0.29", [SCOPES[0]]),
        ("utilization_max=0&utilization_min=0", [SCOPES[0]]),
        ("utilization_max=1&utilization_min=1", []),
    ],
)
def test_the_bounds_of_a_utilization_are_included(site: Site, query: str, scopes: list[str]) -> None:
    body = {"operation": "RESET_SPENT", "amount": {"unit": "TOKENS", "amount": 10}}
    place = f"budgets/fund?scope={SCOPES[1]}&unit=TOKENS&tenant_id=acme"
    site.made(place, **body, spent={"unit": "TOKENS", "amount": 3})
    assert [row["scope"] for row in site.get("admin/budgets", query).json()["ledgers"]] == scopes


def test_a_subscription_without_failures_sorts_beside_one_with(site: Site) -> None:
    for name in ("one", "two"):
        site.made("webhooks", url=f"http://127.0.0.1:9/{name}", event_types=["budget.funded"])
    rows = site.get("admin/webhooks", "sort_by=consecutive_failures").raise_for_status().json()["subscriptions"]
    assert len(rows) == 2
