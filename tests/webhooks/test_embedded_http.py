"""The webhook operations of the embedded server over HTTP, as the reference admin server has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML

import cycles
from cycles.embedded import webhook_subscriptions
from tests.webhooks.conftest import ADMIN, Api, Hook, types


def test_the_operations_of_the_operator_over_http(server: cycles.EmbeddedServer, hook: Hook) -> None:
    api = Api(server, **{"X-Admin-API-Key": ADMIN})
    body = {"url": hook.url, "event_types": ["budget.funded"], "headers": {"Authorization": "Bearer x"}, "name": "n"}
    status, created = api("POST", "/v1/admin/webhooks?tenant_id=acme", body)
    subscription = created["subscription"]
    assert status == 201
    assert created["signing_secret"].startswith("whsec_")
    assert subscription["headers"] == {"Authorization": "Bearer x"}
    assert (subscription["tenant_id"], subscription["status"], subscription["consecutive_failures"]) == (
        "acme",
        "ACTIVE",
        0,
    )
    one = f"/v1/admin/webhooks/{subscription['subscription_id']}"
    status, read = api("GET", one)
    assert (status, read["headers"]) == (200, {"Authorization": "********"})
    assert "signing_secret" not in read
    assert "secret" not in read
    status, page = api("GET", "/v1/admin/webhooks")
    assert (status, page) == (200, {"subscriptions": [read], "has_more": False})
    assert api("PATCH", one, {"status": "PAUSED"})[1]["status"] == "PAUSED"
    assert api("PATCH", one, {"status": "ACTIVE", "signing_secret": "other"})[0] == 200
    status, result = api("POST", f"{one}/test")
    assert (status, result["success"]) == (200, True)
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    server.webhooks.deliver()
    status, log = api("GET", f"{one}/deliveries")
    [row] = log["deliveries"]
    assert (status, row["status"], row["attempts"], row["response_status"]) == (200, "SUCCESS", 1, 204)
    assert api("GET", f"{one}/deliveries?status=FAILED")[1]["deliveries"] == []
    assert types(hook.events("other")) == ["system.webhook_test", "budget.funded"]
    status, result = api("POST", f"{one}/replay", {"from": "2023-11-14T00:00:00Z", "max_events": 5})
    assert (status, result["events_queued"], result["estimated_completion_seconds"]) == (202, 1, 1)
    status, events = api("GET", "/v1/admin/events?event_type=budget.funded")
    assert [each["event_id"] for each in events["events"]] == [row["event_id"]]
    assert api("GET", f"/v1/admin/events/{row['event_id']}") == (200, events["events"][0])
    assert api("DELETE", one) == (204, None)
    status, error = api("DELETE", one)
    assert (status, error["error"]) == (404, "WEBHOOK_NOT_FOUND")


def test_responses_have_the_members_of_the_admin_document(server: cycles.EmbeddedServer, hook: Hook) -> None:
    document = YAML(typ="safe").load(Path(__file__).parents[2] / "admin-openapi.yaml")
    schemas = document["components"]["schemas"]
    subscription = server.webhooks.subscribe(hook.url, ["budget.funded"])
    hook.statuses = [500]
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    server.webhooks.deliver()
    [delivery] = server.webhooks.deliveries(subscription.subscription_id)
    for name, body in (
        ("WebhookSubscription", server.webhooks.subscription(subscription.subscription_id).to_dict()),
        ("WebhookDelivery", delivery.to_dict()),
        ("WebhookTestResponse", server.webhooks.test(subscription.subscription_id)),
        ("ReplayResponse", server.webhooks.replay(subscription.subscription_id)),
    ):
        assert set(schemas[name].get("required", ())) <= set(body), name
        # The reference server adds these two to a delivery; its document lacks them.
        assert set(body) - {"trace_id", "trace_flags"} <= set(schemas[name]["properties"]), name
    for kind in ("create", "update"):
        schema = schemas[f"Webhook{kind.title()}Request"]
        assert set(webhook_subscriptions.MEMBERS[kind]) == set(schema["properties"])


def test_lists_have_pages(server: cycles.EmbeddedServer) -> None:
    api = Api(server, **{"X-Admin-API-Key": ADMIN})
    for _ in range(3):
        server.webhooks.subscribe("http://127.0.0.1/hook", ["budget.funded"])
    found, cursor = [], ""
    for expected_more in (True, False):
        page = api("GET", f"/v1/admin/webhooks?limit=2{cursor}")[1]
        found += [each["subscription_id"] for each in page["subscriptions"]]
        assert page["has_more"] is expected_more
        cursor = f"&cursor={page.get('next_cursor')}"
    assert found == [each.subscription_id for each in server.webhooks.subscriptions()]


def test_errors_over_http(server: cycles.EmbeddedServer, hook: Hook) -> None:
    api = Api(server, **{"X-Admin-API-Key": ADMIN})
    good = {"url": hook.url, "event_types": ["budget.funded"]}
    one = f"/v1/admin/webhooks/{api('POST', '/v1/admin/webhooks', good)[1]['subscription']['subscription_id']}"
    cases: list[tuple[str, str, Any, int, str]] = [
        ("POST", "/v1/admin/webhooks", {**good, "event_types": []}, 400, "INVALID_REQUEST"),
        ("POST", "/v1/admin/webhooks", {**good, "other": 1}, 400, "INVALID_REQUEST"),
        ("POST", "/v1/admin/webhooks", {"url": hook.url}, 400, "INVALID_REQUEST"),
        ("POST", "/v1/admin/webhooks", [], 400, "INVALID_REQUEST"),
        ("POST", "/v1/admin/webhooks", None, 400, "INVALID_REQUEST"),
        ("POST", "/v1/admin/webhooks", {**good, "url": "ftp://x"}, 400, "WEBHOOK_URL_INVALID"),
        ("PATCH", one, {"url": "x"}, 400, "WEBHOOK_URL_INVALID"),
        ("PATCH", one, {"subscription_id": "x"}, 400, "INVALID_REQUEST"),
        ("PATCH", one, {"status": "DISABLED"}, 400, "INVALID_REQUEST"),
        ("POST", f"{one}/replay", {"max_events": 0}, 400, "INVALID_REQUEST"),
        ("POST", f"{one}/replay", {"from": "yesterday"}, 400, "INVALID_REQUEST"),
        ("POST", f"{one}/replay", {"from": "2026-01-01T00:00:00"}, 400, "INVALID_REQUEST"),
        ("GET", "/v1/admin/webhooks/nope", None, 404, "WEBHOOK_NOT_FOUND"),
        ("POST", "/v1/admin/webhooks/nope/test", None, 404, "WEBHOOK_NOT_FOUND"),
        ("GET", "/v1/admin/webhooks/nope/deliveries", None, 404, "WEBHOOK_NOT_FOUND"),
        ("GET", f"{one}/nothing", None, 404, "NOT_FOUND"),
        ("PUT", "/v1/admin/webhooks", good, 405, "INVALID_REQUEST"),
        ("POST", "/v1/admin/events", good, 405, "INVALID_REQUEST"),
        ("GET", f"{one}/test", None, 405, "INVALID_REQUEST"),
        ("GET", "/v1/admin/events/evt_nope", None, 404, "EVENT_NOT_FOUND"),
    ]
    for method, path, body, status, code in cases:
        found, error = api(method, path, body)
        assert (found, error["error"]) == (status, code), (method, path, body)
        assert error["message"]
        assert len(error["trace_id"]) == 32
    for headers in ({}, {"X-Admin-API-Key": "wrong"}, {"X-Cycles-API-Key": server.api_key}):
        assert Api(server, **headers)("GET", "/v1/admin/webhooks")[0] == 401
    with cycles.EmbeddedServer() as unmanaged:
        assert Api(unmanaged, **{"X-Admin-API-Key": ""})("GET", "/v1/admin/webhooks")[0] == 401
        assert Api(unmanaged, **{"X-Admin-API-Key": "x"})("GET", "/v1/admin/webhooks")[0] == 500


def test_a_tenant_reaches_its_own_subscriptions_only(server: cycles.EmbeddedServer, hook: Hook) -> None:
    acme, other, capitals = (
        Api(server, **{"X-Cycles-API-Key": server.api_key_for(name)}) for name in ("acme", "other", "ACME")
    )
    status, created = acme("POST", "/v1/webhooks", {"url": hook.url, "event_types": ["budget.funded"]})
    one = f"/v1/webhooks/{created['subscription']['subscription_id']}"
    assert (status, created["subscription"]["tenant_id"]) == (201, "acme")
    assert acme("POST", f"{one}/test")[1]["success"] is True
    assert len(acme("GET", "/v1/webhooks")[1]["subscriptions"]) == 1
    assert other("GET", "/v1/webhooks")[1]["subscriptions"] == []
    for method, path in (("GET", one), ("DELETE", one), ("POST", f"{one}/test"), ("GET", f"{one}/deliveries")):
        assert other(method, path)[1]["error"] == "WEBHOOK_NOT_FOUND"
        assert capitals(method, path)[1]["error"] == "WEBHOOK_NOT_FOUND"
    assert acme("POST", f"{one}/replay", {})[0] == 404  # an operation of the operator
    assert acme("POST", "/v1/webhooks", {"url": hook.url, "event_types": ["system.high_latency"]})[0] == 400
    assert Api(server)("GET", "/v1/webhooks")[0] == 401
    assert acme("DELETE", one)[0] == 204


def test_a_tenants_key_needs_the_permission_for_its_webhooks(server: cycles.EmbeddedServer, hook: Hook) -> None:
    admin = Api(server, **{"X-Admin-API-Key": ADMIN})
    body = {"url": hook.url, "event_types": ["budget.funded"]}

    def with_permission(permission: str) -> Api:
        form = {"tenant_id": "acme", "name": permission, "permissions": [permission]}
        return Api(server, **{"X-Cycles-API-Key": admin("POST", "/v1/admin/api-keys", form)[1]["key_secret"]})

    reads, writes = with_permission("webhooks:read"), with_permission("webhooks:write")
    assert reads("POST", "/v1/webhooks", body)[1]["error"] == "INSUFFICIENT_PERMISSIONS"
    one = f"/v1/webhooks/{writes('POST', '/v1/webhooks', body)[1]['subscription']['subscription_id']}"
    for path in ("/v1/webhooks", one, f"{one}/deliveries"):
        assert (reads("GET", path)[0], writes("GET", path)[0]) == (200, 403)
    for method, path in (("PATCH", one), ("POST", f"{one}/test"), ("DELETE", one)):
        assert reads(method, path, {})[0] == 403
        assert writes(method, path, {})[0] in (200, 204)
    unknown = Api(server, **{"X-Cycles-API-Key": "cyc_live_unknown"})
    status, error = unknown("GET", "/v1/webhooks")
    assert (status, error["error"]) == (403, "FORBIDDEN")


def test_the_admin_key_reaches_the_webhooks_of_the_tenant_that_is_named(
    server: cycles.EmbeddedServer, hook: Hook
) -> None:
    admin, acme = (
        Api(server, **{"X-Admin-API-Key": ADMIN}),
        Api(server, **{"X-Cycles-API-Key": server.api_key_for("acme")}),
    )
    body = {"url": hook.url, "event_types": ["budget.funded"]}
    one = f"/v1/webhooks/{acme('POST', '/v1/webhooks', body)[1]['subscription']['subscription_id']}"
    assert admin("GET", "/v1/webhooks")[0] == 400
    assert len(admin("GET", "/v1/webhooks?tenant=acme")[1]["subscriptions"]) == 1
    assert admin("GET", "/v1/webhooks?tenant=other")[1]["subscriptions"] == []
    assert admin("GET", "/v1/admin/webhooks?tenant_id=other")[1]["subscriptions"] == []
    assert admin("GET", one)[0] == 200
    assert admin("POST", "/v1/webhooks?tenant=acme", body)[0] == 401  # a tenant's own key is needed to create


def test_the_audit_log_has_the_changes_of_webhooks(server: cycles.EmbeddedServer, hook: Hook) -> None:
    admin = Api(server, **{"X-Admin-API-Key": ADMIN})
    body = {"url": hook.url, "event_types": ["budget.funded"]}
    made = admin("POST", "/v1/admin/webhooks?tenant_id=acme", body)[1]["subscription"]["subscription_id"]
    one = f"/v1/admin/webhooks/{made}"
    admin("GET", one)
    admin("PATCH", one, {"status": "PAUSED"})
    admin("POST", f"{one}/replay", {})
    admin("DELETE", one)
    admin("DELETE", one)
    rows = admin("GET", "/v1/admin/audit/logs")[1]["logs"]
    assert [(row["operation"], row["status"]) for row in rows] == [
        (f"DELETE:{one}", 404),
        ("deleteWebhookSubscription", 204),
        ("replayEvents", 202),
        ("updateWebhookSubscription", 200),
        ("createWebhookSubscription", 201),
    ]
    assert rows[1] | {"tenant_id": "acme", "resource_type": "webhook", "resource_id": made} == rows[1]
    assert rows[0]["error_code"] == "WEBHOOK_NOT_FOUND"
    assert "signing_secret" not in str(rows)


def test_a_fault_can_be_set_on_an_operation_of_webhooks(server: cycles.EmbeddedServer, hook: Hook) -> None:
    server.faults.drop_response("createWebhookSubscription")
    admin = cycles.Admin("http://cycles.test", ADMIN, http_client=httpx.Client(transport=server.transport()))
    with pytest.raises(cycles.AmbiguousResponseError, match="may exist"):
        admin.create_webhook(hook.url, ["budget.funded"])
    assert len(server.webhooks.subscriptions()) == 1
    assert len(server.requests.of("createWebhookSubscription")) == 1
