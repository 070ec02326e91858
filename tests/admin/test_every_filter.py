"""Each filter of each list of the embedded server: what it chooses, and that all pages together are the list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import cycles
from cycles.embedded import EmbeddedServer, ManualClock
from cycles_admin_client.protocol import OPERATIONS

ADMIN = {"X-Admin-API-Key": "adm"}
START_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z"""
NOON = "2026-01-01T12:00:00Z"
NO_FILTERS = ("cursor", "limit", "sort_by", "sort_dir", "subscription_id")
IGNORED = {
    ("listTenants", "observe_mode"),
    *(("listPolicies", name) for name in ("search",)),
    *(("listTenantWebhooks", name) for name in ("event_type", "search")),
    ("listTenantEvents", "search"),
}
"""The reference server ignores these too."""


class Site:
    """A server with rows that each filter tells apart."""

    def __init__(self, server: EmbeddedServer, clock: ManualClock, http: httpx.Client) -> None:
        self.server = server
        self.http = http
        self.names: dict[str, str] = {}
        """Ids that the server has made, by the names that the table has."""
        for tenant, name, more in (("acme", "Acme", {}), ("zeta", "Zeta Ltd", {"parent_tenant_id": "acme"})):
            self.made("tenants", tenant_id=tenant, name=name, **more)
        self.keys()
        self.budgets()
        self.policies()
        self.webhooks(clock)
        self.audit()
        self.quotas()
        self.send("PATCH", "tenants/zeta", status="SUSPENDED")

    def send(self, method: str, path: str, headers: Any = None, **body: Any) -> httpx.Response:
        return self.http.request(method, f"/v1/admin/{path}", json=body, headers=headers or ADMIN)

    def made(self, path: str, **body: Any) -> Any:
        return self.send("POST", path, **body).raise_for_status().json()

    def keys(self) -> None:
        permissions = ["webhooks:read", "events:read", "budgets:read", "action_quotas:read", "policies:read"]
        for tenant, name in (("acme", "one"), ("acme", "two"), ("zeta", "three")):
            made = self.made("api-keys", tenant_id=tenant, name=name, permissions=permissions)
            self.names[name] = made["key_id"]
            self.names[f"secret of {name}"] = made["key_secret"]
        self.send("DELETE", f"api-keys/{self.names['two']}")

    def budgets(self) -> None:
        ten = cycles.tokens(10)
        ledger = self.server.ledger
        ledger.set_budget("tenant:acme", ten, spent=4)
        ledger.set_budget("tenant:acme/workspace:w", ten, status="FROZEN", spent=8)
        ledger.set_budget("tenant:acme", cycles.usd(1))
        ledger.set_budget("tenant:zeta", ten, debt=3, is_over_limit=True)

    def policies(self) -> None:
        for name, pattern in (("first", "tenant:acme/*"), ("second", "tenant:acme/workspace:w")):
            made = self.made("policies", tenant_id="acme", name=name, scope_pattern=pattern)
            self.names[name] = made["policy_id"]
        self.send("PATCH", f"policies/{self.names['second']}", status="DISABLED")

    def webhooks(self, clock: ManualClock) -> None:
        for name, tenant, event in (("of acme", "acme", "tenant.updated"), ("of all", None, "custom.sent")):
            place = "webhooks" if tenant is None else f"webhooks?tenant_id={tenant}"
            made = self.made(
                place,
                url=f"http://127.0.0.1:9/{name.rpartition(' ')[2]}",
                event_types=[event],
                retry_policy={"max_retries": 0},
            )
            self.names[name] = made["subscription"]["subscription_id"]
        emit = self.server.webhooks.emit
        self.names["early"] = emit("tenant.updated", "acme", scope="tenant:acme")
        self.server.webhooks.deliver()
        clock.advance(24 * 3_600_000)
        self.names["late"] = emit("tenant.updated", "acme", scope="tenant:acme/workspace:w")
        self.names["of zeta"] = emit("custom.sent", "zeta")
        self.send("PATCH", f"webhooks/{self.names['of all']}", status="PAUSED")

    def audit(self) -> None:
        self.names["not found"] = self.send("GET", "tenants/nobody").headers["X-Request-Id"]
        self.names["unauthorized"] = self.send("GET", "tenants/acme", {"X-Admin-API-Key": "no"}).headers["X-Request-Id"]
        traced = {"X-Cycles-Trace-Id": "ab" * 16}
        self.send("POST", "tenants", ADMIN | traced, tenant_id="third", name="Third")

    def quotas(self) -> None:
        quotas = [
            {"action_kind": "tool.call", "window": "per_run", "limit": 5},
            {"action_kind": "llm.completion", "window": "per_day_tumbling", "limit": 5},
        ]
        self.server.ledger.set_policy("quotas", "tenant:acme", quotas=quotas)
        with self.server.client(tenant="acme") as client, cycles.run("run-1"):
            client.reserve(cycles.tokens(1), action=("llm.completion", "m")).acquire().release()
            client.reserve(cycles.tokens(1), action=("tool.call", "t")).acquire().release()
            client.reserve(cycles.tokens(1), action=("tool.call", "t"), subject={"dimensions": {"run_id": "run-2"}})
        self.server.ledger.set_policy("quotas", "tenant:acme/workspace:w", quotas=quotas[1:])

    def listed(self, operation: str, /, **query: str) -> list[Any]:
        """Return the rows of a list; `names` stand for ids."""
        found = self.response(operation, **query).raise_for_status().json()
        return next(rows for rows in found.values() if isinstance(rows, list))

    def response(self, operation: str, /, **query: str) -> httpx.Response:
        path = OPERATIONS[operation]["path"].replace("{subscription_id}", self.names["of acme"])
        named = {name: self.names.get(value, value) for name, value in query.items()}
        of_tenant = operation in ("listTenantEvents",)
        headers = {"X-Cycles-API-Key": self.names["secret of one"]} if of_tenant else ADMIN
        return self.http.get(path, params={**BASE.get(operation, {}), **named}, headers=headers)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    clock = ManualClock(START_MS)
    with (
        EmbeddedServer(admin_api_key="adm", clock=clock, protocol="0.1.26") as server,
        httpx.Client(transport=server.transport(), base_url="http://embedded.test") as http,
    ):
        yield Site(server, clock, http)


BASE: dict[str, dict[str, str]] = {
    "listPolicies": {"tenant_id": "acme"},
    "listTenantWebhooks": {"tenant": "acme"},
    "listActionQuotaCounters": {"tenant_id": "acme"},
}
"""Parameters that a list needs."""
SHOWN = {
    "listTenants": "tenant_id",
    "listBudgets": "scope",
    "listPolicies": "name",
    "listApiKeys": "name",
    "listWebhookSubscriptions": "url",
    "listTenantWebhooks": "url",
    "listWebhookDeliveries": "status",
    "listTenantWebhookDeliveries": "status",
    "listEvents": "event_type",
    "listTenantEvents": "event_type",
    "listAuditLogs": "operation",
    "listActionQuotaCounters": "window_key",
}
"""The member of the rows that the table names."""
OF_ACME, OF_ALL = "http://127.0.0.1:9/acme", "http://127.0.0.1:9/all"
ROOT, BELOW, ZETA = "tenant:acme", "tenant:acme/workspace:w", "tenant:zeta"
DAY = "2026-01-02"

FILTERS: dict[tuple[str, str], list[tuple[str, list[str]]]] = {
    ("listTenants", "status"): [("ACTIVE", ["acme", "third"]), ("SUSPENDED", ["zeta"]), ("CLOSED", [])],
    ("listTenants", "parent_tenant_id"): [("acme", ["zeta"]), ("zeta", [])],
    ("listTenants", "search"): [("LTD", ["zeta"]), ("ACM", ["acme"]), ("nothing", [])],
    ("listBudgets", "tenant_id"): [("acme", [ROOT, ROOT, BELOW]), ("zeta", [ZETA]), ("nobody", [])],
    ("listBudgets", "scope_prefix"): [("tenant:ACME/", [BELOW]), ("tenant:z", [ZETA])],
    ("listBudgets", "unit"): [("USD_MICROCENTS", [ROOT]), ("TOKENS", [ROOT, BELOW, ZETA])],
    ("listBudgets", "status"): [("FROZEN", [BELOW]), ("ACTIVE", [ROOT, ROOT, ZETA])],
    ("listBudgets", "over_limit"): [("true", [ZETA]), ("false", [ROOT, ROOT, BELOW])],
    ("listBudgets", "has_debt"): [("true", [ZETA]), ("false", [ROOT, ROOT, BELOW])],
    ("listBudgets", "utilization_min"): [("0.5", [BELOW]), ("0.4", [ROOT, BELOW])],
    ("listBudgets", "utilization_max"): [("0.4", [ROOT, ROOT, ZETA]), ("0", [ROOT, ZETA])],
    ("listBudgets", "search"): [("WORKSPACE", [BELOW]), ("nothing", [])],
    ("listPolicies", "tenant_id"): [("acme", ["first", "second"]), ("zeta", [])],
    ("listPolicies", "scope_pattern"): [("tenant:acme/*", ["first"]), ("tenant:acme", [])],
    ("listPolicies", "status"): [("ACTIVE", ["first"]), ("DISABLED", ["second"])],
    ("listApiKeys", "tenant_id"): [("acme", ["", "one", "two"]), ("zeta", ["three"])],
    ("listApiKeys", "status"): [("REVOKED", ["two"]), ("ACTIVE", ["", "one", "three"])],
    ("listApiKeys", "search"): [("THR", ["three"]), ("nothing", [])],
    ("listWebhookSubscriptions", "tenant_id"): [("acme", [OF_ACME]), ("__system__", [OF_ALL])],
    ("listWebhookSubscriptions", "status"): [("PAUSED", [OF_ALL]), ("ACTIVE", [OF_ACME])],
    ("listWebhookSubscriptions", "event_type"): [("tenant.updated", [OF_ACME]), ("custom.sent", [OF_ALL])],
    ("listWebhookSubscriptions", "search"): [("/ACME", [OF_ACME]), (":9/", [OF_ACME, OF_ALL])],
    ("listTenantWebhooks", "tenant"): [("acme", [OF_ACME]), ("zeta", [])],
    ("listTenantWebhooks", "status"): [("ACTIVE", [OF_ACME]), ("PAUSED", [])],
    **{
        (operation, name): rows
        for operation in ("listWebhookDeliveries", "listTenantWebhookDeliveries")
        for name, rows in {
            "status": [("FAILED", ["FAILED"]), ("PENDING", ["PENDING"]), ("SUCCESS", [])],
            "from": [(NOON, ["PENDING"]), ("2026-01-01T00:00:00Z", ["FAILED", "PENDING"])],
            "to": [(NOON, ["FAILED", "PENDING"]), ("2025-12-31T00:00:00Z", ["PENDING"])],
        }.items()
    },
    ("listEvents", "tenant_id"): [
        ("zeta", ["api_key.created", "budget.created", "custom.sent", "tenant.created", "tenant.suspended"])
    ],
    ("listEvents", "event_type"): [("custom.sent", ["custom.sent"]), ("tenant.updated", ["tenant.updated"] * 2)],
    ("listEvents", "category"): [("custom", ["custom.sent"]), ("policy", ["policy.created"] * 2 + ["policy.updated"])],
    ("listEvents", "scope"): [(BELOW, ["budget.created", "policy.created", "policy.updated", "tenant.updated"])],
    ("listEvents", "correlation_id"): [("nope", [])],
    ("listEvents", "from"): [("2026-01-03T00:00:00Z", [])],
    ("listEvents", "to"): [("2025-12-31T00:00:00Z", [])],
    ("listEvents", "search"): [("ZETA", ["budget.created"]), ("nothing", [])],
    ("listTenantEvents", "event_type"): [("tenant.updated", ["tenant.updated"] * 2)],
    ("listTenantEvents", "category"): [("tenant", ["tenant.created", "tenant.updated", "tenant.updated"])],
    ("listTenantEvents", "scope"): [(BELOW, ["budget.created", "policy.created", "policy.updated", "tenant.updated"])],
    ("listTenantEvents", "correlation_id"): [("nope", [])],
    ("listTenantEvents", "from"): [("2026-01-03T00:00:00Z", [])],
    ("listTenantEvents", "to"): [("2025-12-31T00:00:00Z", [])],
    ("listAuditLogs", "tenant_id"): [("third", ["createTenant"]), ("__unauth__", ["GET:/v1/admin/tenants/acme"])],
    ("listAuditLogs", "key_id"): [("nope", [])],
    ("listAuditLogs", "operation"): [
        ("revokeApiKey", ["revokeApiKey"]),
        ("revokeApiKey,updatePolicy", ["revokeApiKey", "updatePolicy"]),
    ],
    ("listAuditLogs", "resource_type"): [
        ("api_key", ["createApiKey"] * 3 + ["revokeApiKey"]),
        (
            "webhook,policy",
            ["createPolicy"] * 2 + ["createWebhookSubscription"] * 2 + ["updatePolicy", "updateWebhookSubscription"],
        ),
    ],
    ("listAuditLogs", "resource_id"): [("two", ["createApiKey", "revokeApiKey"]), ("third", ["createTenant"])],
    ("listAuditLogs", "error_code"): [
        ("TENANT_NOT_FOUND", ["GET:/v1/admin/tenants/nobody"]),
        ("UNAUTHORIZED,NOPE", ["GET:/v1/admin/tenants/acme"]),
    ],
    ("listAuditLogs", "error_code_exclude"): [],
    ("listAuditLogs", "status"): [
        ("404", ["GET:/v1/admin/tenants/nobody"]),
        ("200", ["revokeApiKey", "updatePolicy", "updateTenant", "updateWebhookSubscription"]),
    ],
    ("listAuditLogs", "status_min"): [
        ("401", ["GET:/v1/admin/tenants/acme", "GET:/v1/admin/tenants/nobody"]),
        ("404", ["GET:/v1/admin/tenants/nobody"]),
    ],
    ("listAuditLogs", "status_max"): [
        ("200", ["revokeApiKey", "updatePolicy", "updateTenant", "updateWebhookSubscription"]),
        ("199", []),
    ],
    ("listAuditLogs", "request_id"): [("not found", ["GET:/v1/admin/tenants/nobody"]), ("nope", [])],
    ("listAuditLogs", "trace_id"): [("ab" * 16, ["createTenant"]), ("nope", [])],
    ("listAuditLogs", "from"): [("2026-01-03T00:00:00Z", [])],
    ("listAuditLogs", "to"): [("2025-12-31T00:00:00Z", [])],
    ("listAuditLogs", "search"): [("REVOKE", ["revokeApiKey"]), ("third", ["createTenant"]), ("nothing", [])],
    ("listActionQuotaCounters", "tenant_id"): [("acme", [DAY]), ("zeta", [])],
    ("listActionQuotaCounters", "scope"): [("tenant:ACME", [DAY]), (BELOW, [])],
    ("listActionQuotaCounters", "action_kind"): [("llm.completion", [DAY]), ("tool.call", [])],
    ("listActionQuotaCounters", "window"): [("per_day_tumbling", [DAY]), ("per_run", [])],
    ("listActionQuotaCounters", "run_id"): [("run-1", [])],
    ("listActionQuotaCounters", "include_zero"): [("true", [DAY, "run-1"]), ("false", [DAY])],
}
"""What each filter of each list chooses."""


def query_parameters(operation: str) -> list[str]:
    return [each["name"] for each in OPERATIONS[operation]["parameters"] if each["name"] not in NO_FILTERS]


LISTS = [name for name in OPERATIONS if name.startswith("list")]


def test_each_filter_of_each_list_has_a_row() -> None:
    wanted = {(name, parameter) for name in LISTS for parameter in query_parameters(name)}
    assert {*FILTERS, *IGNORED} == wanted
    assert SHOWN.keys() == set(LISTS)


@pytest.mark.parametrize(
    ("operation", "name", "value", "chosen"),
    [(*key, value, chosen) for key, rows in FILTERS.items() for value, chosen in rows],
)
def test_what_a_filter_chooses(site: Site, operation: str, name: str, value: str, chosen: list[str]) -> None:
    rows = site.listed(operation, **{name: value})
    assert sorted(str(row.get(SHOWN[operation], "")) for row in rows) == sorted(chosen)


@pytest.mark.parametrize(("operation", "name"), sorted(IGNORED))
def test_what_the_reference_server_ignores_changes_nothing(site: Site, operation: str, name: str) -> None:
    assert site.listed(operation, **{name: "nope"}) == site.listed(operation)
    assert site.listed(operation) != []


def test_codes_can_be_excluded(site: Site) -> None:
    every = site.listed("listAuditLogs", limit="100")
    rest = site.listed("listAuditLogs", limit="100", error_code_exclude="TENANT_NOT_FOUND,NOPE")
    assert [row["operation"] for row in every if row not in rest] == ["GET:/v1/admin/tenants/nobody"]
    both = site.listed("listAuditLogs", limit="100", error_code_exclude="TENANT_NOT_FOUND,UNAUTHORIZED")
    assert len(every) - len(both) == 2


def test_both_filters_must_hold(site: Site) -> None:
    assert site.listed("listBudgets", tenant_id="acme", status="FROZEN", unit="USD_MICROCENTS") == []
    assert len(site.listed("listAuditLogs", status_min="401", status_max="404")) == 2
    assert site.listed("listAuditLogs", status_min="402", status_max="403") == []


@pytest.mark.parametrize("operation", LISTS)
def test_all_pages_together_are_the_list(site: Site, operation: str) -> None:
    more = {"include_zero": "true"} if operation == "listActionQuotaCounters" else {}
    whole, pages, cursor = site.listed(operation, limit="100", **more), list[Any](), None
    for _ in range(len(whole) + 1):
        found = site.response(operation, limit="1", **more, **({} if cursor is None else {"cursor": cursor})).json()
        pages += next(rows for rows in found.values() if isinstance(rows, list))
        cursor = found.get("next_cursor")
        assert found["has_more"] is (cursor is not None)
        if cursor is None:
            break
    assert pages == whole
    assert len(whole) > 0
    assert site.response(operation, cursor="nope").status_code == 400


@pytest.mark.parametrize(
    ("operation", "by"),
    [
        *(("listTenants", by) for by in ("status", "name", "created_at", "tenant_id")),
        *(("listBudgets", by) for by in ("tenant_id", "scope", "unit", "status")),
        *(("listApiKeys", by) for by in ("key_id", "name", "tenant_id", "status", "created_at", "expires_at")),
        *(("listWebhookSubscriptions", by) for by in ("url", "tenant_id", "status", "consecutive_failures")),
        *(("listEvents", by) for by in ("timestamp", "event_type", "category", "tenant_id")),
        *(("listAuditLogs", by) for by in ("timestamp", "operation", "tenant_id", "status")),
    ],
)
def test_a_list_is_sorted_by_each_of_its_members(site: Site, operation: str, by: str) -> None:
    """Equal rows keep their order; without a direction the order is descending."""
    for direction in ("asc", "desc", ""):
        how = {"sort_dir": direction} if direction else {}
        values = [(by in row, row.get(by)) for row in site.listed(operation, sort_by=by, limit="100", **how)]
        assert values == sorted(values, reverse=direction != "asc")
