"""Each operation of the admin document, on the embedded and on the reference server: equal status and shape.

`make test-live` runs it; without a reference server, only the list of operations is checked.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from cycles.embedded import EmbeddedServer
from cycles.embedded.routes import OPERATIONS
from cycles_admin_client.protocol import OPERATIONS as DOCUMENT

URL, KEY = os.environ.get("CYCLES_CONTRACT_ADMIN_URL"), os.environ.get("CYCLES_CONTRACT_ADMIN_KEY")
NEXT = {"listActionQuotaCounters", "resetActionQuotaCounter"}  # of protocol 0.1.26, which the reference has not
MISSING = {"getBalances"}  # docs/admin.md: the embedded server has it on the runtime plane
BY_TENANT = {"listTenantEvents"}  # sent with the key that createApiKey returned
UNIT, SCOPE = "TOKENS", "tenant:{tenant}"
TEN: dict[str, Any] = {"unit": UNIT, "amount": 10}
PLACE = f"scope={SCOPE}&unit={UNIT}"
BULK = {"idempotency_key": "{key}", "filter": {"search": "{tenant}"}}

Case = tuple[str, str, str, Any]
# Operation, method, path with query, body. In the order of a life: what an earlier case made is used by later ones.
CASES: list[Case] = [
    ("createTenant", "POST", "/v1/admin/tenants", {"tenant_id": "{tenant}", "name": "Shape"}),
    ("createTenant", "POST", "/v1/admin/tenants", {"tenant_id": "{tenant}", "name": "Other"}),
    ("getTenant", "GET", "/v1/admin/tenants/{tenant}", None),
    ("getTenant", "GET", "/v1/admin/tenants/t-nope", None),
    ("updateTenant", "PATCH", "/v1/admin/tenants/{tenant}", {"name": "Shapes", "metadata": {"a": "b"}}),
    ("listTenants", "GET", "/v1/admin/tenants?search={tenant}", None),
    ("listTenants", "GET", "/v1/admin/tenants?search={tenant}&status=CLOSED", None),
    ("listTenants", "GET", "/v1/admin/tenants?search={tenant}&sort_by=name&sort_dir=asc&limit=1", None),
    (
        "createBudget", "POST", "/v1/admin/budgets",
        {"tenant_id": "{tenant}", "scope": SCOPE, "unit": UNIT, "allocated": TEN},
    ),
    ("listBudgets", "GET", "/v1/admin/budgets?tenant_id={tenant}", None),
    ("listBudgets", "GET", "/v1/admin/budgets?tenant_id={tenant}&unit=TOKENS&status=FROZEN", None),
    ("listBudgets", "GET", "/v1/admin/budgets?tenant_id={tenant}&has_debt=true&over_limit=false", None),
    ("lookupBudget", "GET", f"/v1/admin/budgets/lookup?{PLACE}", None),
    ("lookupBudget", "GET", f"/v1/admin/budgets/lookup?scope={SCOPE}&unit=CREDITS", None),
    ("updateBudget", "PATCH", f"/v1/admin/budgets?{PLACE}", {"overdraft_limit": TEN}),
    (
        "fundBudget", "POST", f"/v1/admin/budgets/fund?{PLACE}&tenant_id={{tenant}}",
        {"operation": "CREDIT", "amount": TEN},
    ),
    ("freezeBudget", "POST", f"/v1/admin/budgets/freeze?{PLACE}", {"reason": "why"}),
    ("freezeBudget", "POST", f"/v1/admin/budgets/freeze?{PLACE}", {"reason": "why"}),
    ("unfreezeBudget", "POST", f"/v1/admin/budgets/unfreeze?{PLACE}", {"reason": "why"}),
    (
        "bulkActionBudgets", "POST", "/v1/admin/budgets/bulk-action",
        {"idempotency_key": "{key}", "filter": {"tenant_id": "{tenant}"}, "action": "CREDIT", "amount": TEN},
    ),
    (
        "createPolicy", "POST", "/v1/admin/policies",
        {"tenant_id": "{tenant}", "name": "p", "scope_pattern": f"{SCOPE}/*"},
    ),
    ("updatePolicy", "PATCH", "/v1/admin/policies/pol_nope", {"priority": 1}),
    ("listPolicies", "GET", "/v1/admin/policies?tenant_id={tenant}", None),
    ("listPolicies", "GET", "/v1/admin/policies?tenant_id={tenant}&status=DISABLED", None),
    (
        "createApiKey", "POST", "/v1/admin/api-keys",
        {"tenant_id": "{tenant}", "name": "k", "permissions": ["events:read"]},
    ),
    ("listApiKeys", "GET", "/v1/admin/api-keys?tenant_id={tenant}", None),
    ("listApiKeys", "GET", "/v1/admin/api-keys?tenant_id={tenant}&status=REVOKED", None),
    ("updateApiKey", "PATCH", "/v1/admin/api-keys/key_nope", {"name": "x"}),
    ("revokeApiKey", "DELETE", "/v1/admin/api-keys/key_nope", None),
    ("validateApiKey", "POST", "/v1/auth/validate", {"key_secret": "cyc_live_nope"}),
    ("introspectAuth", "GET", "/v1/auth/introspect", None),
    (
        "updateWebhookSecurityConfig", "PUT", "/v1/admin/config/webhook-security",
        {"allow_http": True, "blocked_cidr_ranges": []},
    ),
    ("getWebhookSecurityConfig", "GET", "/v1/admin/config/webhook-security", None),
    (
        "createWebhookSubscription", "POST", "/v1/admin/webhooks?tenant_id={tenant}",
        {"url": "http://127.0.0.1:9/{tenant}", "event_types": ["budget.funded"]},
    ),
    ("listWebhookSubscriptions", "GET", "/v1/admin/webhooks?tenant_id={tenant}", None),
    ("listWebhookSubscriptions", "GET", "/v1/admin/webhooks?search=127.0.0.1:9/{tenant}&status=PAUSED", None),
    ("getWebhookSubscription", "GET", "/v1/admin/webhooks/whsub_nope", None),
    ("updateWebhookSubscription", "PATCH", "/v1/admin/webhooks/whsub_nope", {"status": "PAUSED"}),
    ("deleteWebhookSubscription", "DELETE", "/v1/admin/webhooks/whsub_nope", None),
    ("testWebhookSubscription", "POST", "/v1/admin/webhooks/whsub_nope/test", None),
    ("listWebhookDeliveries", "GET", "/v1/admin/webhooks/whsub_nope/deliveries", None),
    ("replayEvents", "POST", "/v1/admin/webhooks/whsub_nope/replay", {"max_events": 1}),
    (
        "bulkActionWebhooks", "POST", "/v1/admin/webhooks/bulk-action",
        {"idempotency_key": "{key}", "filter": {"search": "127.0.0.1:9/{tenant}"}, "action": "PAUSE"},
    ),
    ("listEvents", "GET", "/v1/admin/events?tenant_id={tenant}&event_type=tenant.created", None),
    ("listEvents", "GET", "/v1/admin/events?tenant_id={tenant}&category=policy", None),
    *(
        ("listEvents", "GET", f"/v1/admin/events?tenant_id={{tenant}}&{query}", None)
        for query in (
            f"scope={SCOPE}", "scope=tenant:nope", "correlation_id=nope", "from=2090-01-01T00:00:00Z", "from=x",
            "to=2020-01-01T00:00:00Z", "search={tenant}", "sort_by=event_type&sort_dir=asc", "sort_by=nope",
            "limit=0", "limit=x", "cursor=nope",
        )
    ),
    *(
        ("listTenantEvents", "GET", f"/v1/events?{query}", None)
        for query in (
            "", "event_type=budget.created", "event_type=api_key.created", "event_type=nope", "category=budget",
            "category=policy", f"scope={SCOPE}", "from=2090-01-01T00:00:00Z", "sort_by=nope", "limit=1", "cursor=nope",
        )
    ),
    *(
        (name, "GET", f"/v1/admin/{path}{query}", None)
        for name, path in (
            ("listTenants", "tenants?search={tenant}&"), ("listBudgets", "budgets?tenant_id={tenant}&"),
            ("listApiKeys", "api-keys?tenant_id={tenant}&"), ("listAuditLogs", "audit/logs?tenant_id={tenant}&"),
            ("listWebhookSubscriptions", "webhooks?tenant_id={tenant}&"),
        )
        for query in ("sort_by=status&sort_dir=ASC", "sort_by=nope", "sort_dir=up", "limit=0", "limit=x", "cursor=nope")
    ),
    *(
        (name, "GET", f"/v1/admin/{path}", None)
        for name, path in (
            ("listTenants", "tenants?search={tenant}&status=+&sort_by=&cursor=+"),
            ("listTenants", "tenants?search={tenant}&parent_tenant_id="), ("listTenants", "tenants?limit=+"),
            ("listBudgets", "budgets?tenant_id={tenant}&unit=+&has_debt=+&utilization_max=+&search=+&sort_by=+"),
            ("listBudgets", "budgets?tenant_id={tenant}&sort_dir="),
            ("listApiKeys", "api-keys?tenant_id={tenant}&status=+&search=+"),
            ("listPolicies", "policies?tenant_id={tenant}&status=+&search=nope&sort_by=nope&sort_dir=up"),
            ("listPolicies", "policies?tenant_id={tenant}&scope_pattern="), ("listPolicies", "policies?tenant_id=+"),
            ("listWebhookSubscriptions", "webhooks?tenant_id={tenant}&search=+&sort_by="),
            ("listWebhookSubscriptions", "webhooks?tenant_id={tenant}&status="),
            ("listEvents", "events?tenant_id={tenant}&from=+&correlation_id=+&search=+"),
            ("listEvents", "events?tenant_id={tenant}&event_type="),
            ("listAuditLogs", "audit/logs?tenant_id={tenant}&operation=+&status=+&status_min=+"),
            ("listAuditLogs", "audit/logs?tenant_id={tenant}&trace_id="),
        )
    ),
    ("listTenants", "GET", "/v1/admin/tenants?status=nope", None),
    ("listApiKeys", "GET", "/v1/admin/api-keys?status=nope", None),
    ("listBudgets", "GET", "/v1/admin/budgets?utilization_min=2", None),
    ("getEvent", "GET", "/v1/admin/events/evt_nope", None),
    ("listAuditLogs", "GET", "/v1/admin/audit/logs?tenant_id={tenant}&operation=fundBudget", None),
    ("listAuditLogs", "GET", "/v1/admin/audit/logs?tenant_id={tenant}&status=500", None),
    ("getAdminOverview", "GET", "/v1/admin/overview", None),
    ("bulkActionTenants", "POST", "/v1/admin/tenants/bulk-action", {**BULK, "action": "SUSPEND"}),
]  # fmt: skip
# Members that one of the two shows and the other does not; each is allowed to be absent by the document.
FREE = {
    "request_id", "trace_id", "message", "details", "user_agent", "key_id", "metadata", "updated_at", "correlation_id",
    "actor", "source", "data", "next_cursor", "period_start", "period_end", "reason_code",
}  # fmt: skip

Send = Callable[[Case], tuple[int, Any]]


def _sender(http: httpx.Client, key: str, tenant: str) -> Send:
    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{tenant}", tenant).replace("{key}", f"k-{tenant}")
        return {name: filled(member) for name, member in value.items()} if isinstance(value, dict) else value

    def send(case: Case) -> tuple[int, Any]:
        operation, method, path, body = case
        headers = {"X-Cycles-API-Key": secret[0]} if operation in BY_TENANT else {"X-Admin-API-Key": key}
        response = http.request(method, filled(path), json=filled(body), headers=headers)
        found = response.json() if response.content else None
        if operation == "createApiKey" and found is not None:
            secret[:] = [found["key_secret"]]
        return response.status_code, found

    secret: list[str] = []

    return send


@pytest.fixture
def pair() -> Iterator[tuple[Send, Send]]:
    if not URL or not KEY:
        pytest.skip("needs a reference admin server: run make test-live")
    tenant = f"t-{secrets.token_hex(5)}"
    with EmbeddedServer(admin_api_key="adm") as server:
        embedded = httpx.Client(transport=server.transport(), base_url="http://embedded.test")
        with embedded, httpx.Client(base_url=URL) as reference:
            yield _sender(embedded, "adm", tenant), _sender(reference, KEY, tenant)


def shape(value: Any) -> Any:
    """Return the members of a value without their contents; a list has the members of all its rows."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items() if name not in FREE and member is not None}
    if isinstance(value, list):
        return [shape(value[0])] if value and isinstance(value[0], dict) else []
    return type(value).__name__


def test_the_embedded_server_is_like_the_reference_server(pair: tuple[Send, Send]) -> None:
    embedded, reference = pair
    different = []
    for case in CASES:
        own, other = embedded(case), reference(case)
        if own[0] != other[0] or (case[0] != "getAdminOverview" and shape(own[1]) != shape(other[1])):
            different.append(f"{case[0]} {case[2]}\n  embedded  {own}\n  reference {other}")
        elif case[0] == "getAdminOverview":
            assert set(own[1]) == set(other[1]) - {"recent_denials_by_reason"}  # a server without denials has none
    assert not different, "\n".join(different)


def test_every_operation_of_the_document_is_sent_or_named() -> None:
    sent = {case[0] for case in CASES}
    tenants = {name for name in DOCUMENT if "Tenant" in name and "Webhook" in name}  # the same with a tenant's key
    assert set(DOCUMENT) - sent - tenants - NEXT - MISSING == set(), "add a case, or say why there is none"
    assert sent <= set(OPERATIONS)
