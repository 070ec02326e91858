"""Errors of the admin operations of the embedded server: status and code, permissions, responses that are lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import cycles
from cycles.admin import Admin
from cycles.embedded import EmbeddedServer
from tests.admin.conftest import FIVE, KEY, TEN, AdminTarget


@pytest.mark.parametrize(
    ("call", "status", "code"),
    [
        (lambda w: w.admin.tenant("none-such"), 404, "TENANT_NOT_FOUND"),
        (lambda w: w.admin.create_tenant(w.tenant, "Another name"), 409, "DUPLICATE_RESOURCE"),
        (lambda w: w.admin.create_budget(w.scope, FIVE), 409, "DUPLICATE_RESOURCE"),
        (lambda w: w.admin.create_budget("tenant:none-such", FIVE), 404, "TENANT_NOT_FOUND"),
        (lambda w: w.admin.budget(f"{w.scope}/agent:z", unit="TOKENS"), 404, "BUDGET_NOT_FOUND"),
        (lambda w: w.admin.credit(f"{w.scope}/agent:z", FIVE), 404, "BUDGET_NOT_FOUND"),
        (lambda w: w.admin.freeze(f"{w.scope}/agent:z", unit="TOKENS"), 404, "BUDGET_NOT_FOUND"),
        (lambda w: w.admin.create_api_key("none-such", "k"), 404, "TENANT_NOT_FOUND"),
        (lambda w: w.admin.create_api_key(w.tenant, "k", permissions=["nope"]), 400, "INVALID_REQUEST"),
        (lambda w: w.admin.revoke_api_key("none-such"), 404, "NOT_FOUND"),
        (lambda w: w.admin.raw("getTenant", tenant_id="none-such"), 404, "TENANT_NOT_FOUND"),
    ],
)
def test_each_error_has_the_status_and_code_of_the_reference_server(
    target: AdminTarget, call: Callable[[AdminTarget], Any], status: int, code: str
) -> None:
    target.onboarded()
    with pytest.raises(cycles.ProtocolError) as raised:
        call(target)
    assert (raised.value.status, raised.value.code) == (status, code)


BUDGET = {"unit": "TOKENS", "allocated": {"unit": "TOKENS", "amount": 5}}
CREDIT = {"operation": "CREDIT", "amount": {"unit": "TOKENS", "amount": 5}}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/admin/tenants", {"tenant_id": "A B", "name": "x"}, 400, "INVALID_REQUEST"),
        ("POST", "/v1/admin/tenants", {"tenant_id": "abc", "name": "x", "nope": 1}, 400, "INVALID_REQUEST"),
        ("PUT", "/v1/admin/tenants", {}, 405, "INVALID_REQUEST"),
        ("POST", "/v1/admin/budgets", {"scope": "tenant:TENANT", **BUDGET}, 400, "INVALID_REQUEST"),
        ("POST", "/v1/admin/budgets", {"tenant_id": "TENANT", "scope": "agent:a", **BUDGET}, 400, "INVALID_REQUEST"),
        ("POST", "/v1/admin/budgets", {"tenant_id": "TENANT", "scope": "tenant:x", **BUDGET}, 400, "INVALID_REQUEST"),
        (
            "POST",
            "/v1/admin/budgets",
            {"tenant_id": "TENANT", "scope": "tenant:TENANT/agent:*", **BUDGET},
            400,
            "INVALID_REQUEST",
        ),
        (
            "POST",
            "/v1/admin/budgets",
            {"tenant_id": "TENANT", "scope": "tenant:TENANT/agent:q", **BUDGET, "unit": "CREDITS"},
            400,
            "UNIT_MISMATCH",
        ),
        ("GET", "/v1/admin/budgets/lookup?scope=tenant:TENANT", None, 400, "INVALID_REQUEST"),
        ("GET", "/v1/admin/budgets?unit=BAD", None, 400, "INVALID_REQUEST"),
        ("GET", "/v1/admin/budgets?limit=x", None, 400, "INVALID_REQUEST"),
        ("GET", "/v1/admin/tenants?sort_by=bad", None, 400, "INVALID_REQUEST"),
        ("GET", "/v1/admin/tenants?cursor=bad", None, 400, "INVALID_REQUEST"),
        ("GET", "/v1/admin/audit/logs?status=200&status_min=100", None, 400, "INVALID_REQUEST"),
        ("POST", "/v1/admin/budgets/fund?scope=tenant:TENANT&unit=TOKENS", CREDIT, 400, "INVALID_REQUEST"),
        ("POST", "/v1/admin/budgets/fund?scope=tenant:TENANT&unit=TOKENS&tenant_id=other", CREDIT, 403, "FORBIDDEN"),
        (
            "POST",
            "/v1/admin/budgets/fund?scope=tenant:TENANT&unit=TOKENS&tenant_id=TENANT",
            {"operation": "CREDIT", "amount": {"unit": "CREDITS", "amount": 5}},
            400,
            "UNIT_MISMATCH",
        ),
        (
            "POST",
            "/v1/admin/budgets/fund?scope=tenant:TENANT&unit=TOKENS&tenant_id=TENANT",
            {**CREDIT, "spent": {"unit": "TOKENS", "amount": 5}},
            400,
            "INVALID_REQUEST",
        ),
        (
            "POST",
            "/v1/admin/budgets/bulk-action",
            {"filter": {"tenant_id": "TENANT"}, "action": "CREDIT", "idempotency_key": "k-TENANT"},
            400,
            "INVALID_REQUEST",
        ),
        ("POST", "/v1/admin/api-keys", {"tenant_id": "TENANT", "name": ""}, 400, "INVALID_REQUEST"),
    ],
)
def test_each_wrong_request_has_the_status_and_code_of_the_reference_server(
    target: AdminTarget, method: str, path: str, body: Any, status: int, code: str
) -> None:
    target.onboarded()
    response = sent(target, method, path, body, admin_headers(target))
    assert (response.status_code, response.json()["error"]) == (status, code)


def admin_headers(target: AdminTarget) -> dict[str, str]:
    return {"X-Admin-API-Key": "admin-key-of-the-test" if target.server is not None else KEY or ""}


def sent(target: AdminTarget, method: str, path: str, body: Any, headers: dict[str, str]) -> httpx.Response:
    """Send a request in which ``TENANT`` is the id of the tenant."""
    content = None if body is None else json.dumps(body).replace("TENANT", target.tenant).encode()
    headers = {"Content-Type": "application/json", **headers}
    return target.send(method, path.replace("TENANT", target.tenant), content=content, headers=headers)


@pytest.mark.parametrize(
    ("path", "key", "status", "code"),
    [
        ("/v1/admin/tenants", {}, 401, "UNAUTHORIZED"),
        ("/v1/admin/tenants", {"X-Admin-API-Key": "wrong"}, 401, "UNAUTHORIZED"),
        ("/v1/admin/tenants", {"X-Cycles-API-Key": "tenant"}, 401, "UNAUTHORIZED"),
        ("/v1/admin/budgets", {}, 401, "UNAUTHORIZED"),
        ("/v1/admin/budgets", {"X-Cycles-API-Key": "wrong"}, 403, "FORBIDDEN"),
        ("/v1/admin/budgets", {"X-Cycles-API-Key": "tenant"}, 403, "INSUFFICIENT_PERMISSIONS"),
        ("/v1/admin/budgets", {"X-Cycles-API-Key": "budgets"}, 200, None),
    ],
)
def test_keys_and_permissions(
    target: AdminTarget, path: str, key: dict[str, str], status: int, code: str | None
) -> None:
    site = target.onboarded()
    names = {
        "tenant": site.key.secret,
        "budgets": target.admin.create_api_key(target.tenant, "b", permissions=["budgets:read"]).secret,
    }
    response = target.send("GET", path, headers={name: names.get(value, value) for name, value in key.items()})
    assert (response.status_code, response.json().get("error")) == (status, code)


def test_a_tenant_key_reads_the_budgets_of_its_tenant_only(target: AdminTarget) -> None:
    """The reference server does not compare the tenants here; the development server does."""
    target.onboarded()
    other = f"{target.tenant}-2"
    target.admin.onboard(other, "Other", budgets={f"tenant:{other}": TEN}, key_name="other")
    secret = target.admin.create_api_key(target.tenant, "b", permissions=["budgets:read"]).secret
    statuses = [
        target.send(
            "GET",
            f"/v1/admin/budgets/lookup?scope=tenant:{tenant}&unit=TOKENS",
            headers={"X-Cycles-API-Key": secret},
        ).status_code
        for tenant in (target.tenant, other)
    ]
    assert statuses == [200, 200 if target.server is None else 403]


def test_a_lost_response_of_the_embedded_server_is_repeated() -> None:
    with EmbeddedServer(admin_api_key="k") as server, httpx.Client(transport=server.transport()) as http:
        admin = Admin("http://embedded.test", "k", http_client=http)
        admin.onboard("acme", "Acme", budgets={"tenant:acme": TEN}, key_name="prod")
        server.faults.drop_response("fundBudget")
        assert admin.credit("tenant:acme", FIVE).new_allocated == cycles.tokens(15)
        assert admin.budget("tenant:acme", unit="TOKENS").allocated == cycles.tokens(15)


def test_a_server_without_an_admin_key_says_so() -> None:
    with EmbeddedServer() as server, httpx.Client(transport=server.transport()) as http:
        admin = Admin("http://embedded.test", "a-key-of-another-server", http_client=http)
        with pytest.raises(cycles.ServerError, match="no admin API key"):
            admin.create_tenant("acme", "Acme")  # a read would be repeated until its deadline
