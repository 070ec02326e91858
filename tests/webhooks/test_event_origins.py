"""Whose request made an event, in its members and in the headers of its delivery."""

from __future__ import annotations

import pytest

import cycles
from cycles.embedded import webhooks as module
from cycles.embedded.webhook_delivery import Delivery, Event, Sender

from .conftest import Api, Hook

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
BODY = {
    "idempotency_key": "k",
    "subject": {"tenant": "acme"},
    "action": {"kind": "a", "name": "b"},
    "estimate": {"unit": "TOKENS", "amount": 5000},
}


def test_the_trace_of_the_request_is_that_of_the_delivery(server: cycles.EmbeddedServer, hook: Hook) -> None:
    subscription = server.webhooks.subscribe(hook.url, ["reservation.denied"], tenant="acme")
    parent = f"00-{TRACE}-00f067aa0ba902b7-00"
    api = Api(server, **{"X-Cycles-API-Key": server.api_key, "traceparent": parent, "X-Request-Id": "mine"})
    assert api("POST", "/v1/decide", BODY)[1]["decision"] == "DENY"
    server.webhooks.deliver()
    [event] = hook.events(subscription.secret)
    headers = dict(hook.received[0][0])
    assert (event.trace_id, headers["X-Cycles-Trace-Id"]) == (TRACE, TRACE)
    assert (headers["traceparent"][:36], headers["traceparent"][-3:]) == (f"00-{TRACE}-", "-00")
    [row] = server.webhooks.deliveries(subscription.subscription_id)
    assert (row.to_dict()["trace_id"], row.to_dict()["trace_flags"]) == (TRACE, "00")


def test_an_expiry_is_nobodys_request(server: cycles.EmbeddedServer, clock: cycles.ManualClock, hook: Hook) -> None:
    """A request that finds a reservation expired is not what expired it."""
    subscription = server.webhooks.subscribe(hook.url, ["reservation.expired"], tenant="acme")
    api = Api(server, **{"X-Cycles-API-Key": server.api_key, "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    brief = {**BODY, "estimate": {"unit": "TOKENS", "amount": 5}, "ttl_ms": 1000, "grace_period_ms": 0}
    assert api("POST", "/v1/reservations", brief)[0] == 200
    clock.advance(60_000)
    assert api("POST", "/v1/decide", {**BODY, "idempotency_key": "next"})[0] == 200
    server.webhooks.deliver()
    [event] = hook.events(subscription.secret)
    assert (event.actor, event.request_id, event.trace_id) == ({"type": "system"}, None, None)


def test_a_closed_tenant_disables_each_subscription_once(server: cycles.EmbeddedServer, hook: Hook) -> None:
    once = {"retry_policy": {"max_retries": 0}, "disable_after_failures": 1}
    server.webhooks.subscribe(hook.url, ["budget.funded"], tenant="acme", **once)
    other = server.webhooks.subscribe(hook.url, ["budget.frozen"], tenant="acme")
    hook.statuses = [500]
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    server.webhooks.deliver()  # disables the first one
    server.ledger.set_tenant("acme", status="CLOSED")
    found = server.webhooks.events()
    closed = [each["data"] for each in found if each["event_type"] == "webhook.disabled_via_tenant_cascade"]
    assert [data["subscription_id"] for data in closed] == [other.subscription_id]


def test_the_oldest_events_are_dropped(server: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    made = [server.webhooks.emit("custom.made", "acme") for _ in range(5)]
    events = Api(server, **{"X-Admin-API-Key": "admin-key"})("GET", "/v1/admin/events")[1]["events"]
    assert {event["event_id"] for event in events} == set(made[2:])


def test_a_delivery_that_is_due_for_the_first_time_names_no_retry() -> None:
    event = Event({"event_id": "evt_1", "event_type": "budget.funded"}, 5, "01", b"{}")
    delivery = Delivery(subscription_id="s", event=event, trace_id=TRACE, due_ms=5)
    assert "next_retry_at" not in delivery.to_dict()
    delivery.status = "RETRYING"
    assert delivery.to_dict()["next_retry_at"] == "1970-01-01T00:00:00.005Z"


def test_a_delivery_uses_no_proxy_of_the_environment(
    server: cycles.EmbeddedServer, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    subscription = server.webhooks.subscribe(hook.url, ["budget.funded"])
    sender = Sender()
    try:
        found = sender.post(subscription, Event({"event_id": "e", "event_type": "t"}, 5, "01", b"{}"), None)
    finally:
        sender.close()
    assert (found.status, found.error) == (204, None)
