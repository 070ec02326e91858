"""Subscriptions, events and attempts of the embedded server's webhooks, without HTTP."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from attrs import evolve

import cycles
from cycles.embedded import webhook_queue, webhooks
from cycles.embedded.http import Request
from cycles.embedded.records import Budget, Tenant
from cycles.embedded.webhook_delivery import TEST_TIMEOUT, TIMEOUT, Attempt, Delivery, Event, Sender, headers_of
from cycles.embedded.webhook_subscriptions import RetryPolicy, Subscription, checked, created, updated
from cycles.embedded.webhooks import Happening, Webhooks

NOW, AT = 1_700_000_000_000, "2023-11-14T22:13:20.000Z"
URL, DELIVERY = "https://hooks.test/x", "cycles.embedded.webhook_delivery"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def happening(body: bytes = b"", **headers: str) -> Happening:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return Happening(Request(method="POST", target="/", headers=given, body=body, address="10.0.0.1"))


# --- events ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("traceparent", "flags"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-00", "00"),
        (f"00-{TRACE}-00f067aa0ba902b7-a1", "a1"),
        (f"01-{TRACE}-00f067aa0ba902b7-00", "01"),
        (f"00-{TRACE}-00f067aa0ba902b7-00-x", "01"),
        ("", "01"),
    ],
)
def test_the_trace_flags_of_a_request(traceparent: str, flags: str) -> None:
    assert happening(traceparent=traceparent).flags == flags
    assert happening().flags == "01"


def test_who_sent_a_request_and_what_it_asked_for() -> None:
    assert happening(x_admin_api_key="k").actor == {"type": "admin", "source_ip": "10.0.0.1"}
    assert happening(x_cycles_api_key="k").actor == {"type": "api_key", "source_ip": "10.0.0.1"}
    forms = {b'{"a": 1}': {"a": 1}, b"": {}, b"{": {}, b"[1]": {}, b"null": {}}
    assert {body: happening(body).form() for body in forms} == forms


def test_the_members_of_an_event() -> None:
    hooks = Webhooks(cycles.ManualClock(NOW))
    made = hooks.emit("custom.x.y", "acme", {"a": 1}, scope="tenant:acme")
    bare = hooks.emit("custom.x", "acme")
    fixed = {"timestamp": AT, "tenant_id": "acme", "actor": {"type": "admin"}, "source": "cycles-embedded"}
    assert hooks.events() == [
        {"event_id": bare, "event_type": "custom.x", "category": "custom", **fixed},
        {
            "event_id": made, "event_type": "custom.x.y", "category": "custom", **fixed, "scope": "tenant:acme",
            "data": {"a": 1},
        },
    ]  # fmt: skip
    assert list(hooks.events()[1]) == [
        "event_id", "event_type", "category", "timestamp", "tenant_id", "scope", "actor", "source", "data",
    ]  # fmt: skip
    assert (made[:4], len(made), made != bare) == ("evt_", 20, True)


def test_the_body_of_a_delivery_has_the_members_of_its_event() -> None:
    hooks = Webhooks(cycles.ManualClock(NOW))
    made = hooks.subscribe(URL, ["custom.x"])
    hooks.emit("custom.x", "acme", {"a": "\u00e9"})
    (delivery,) = hooks.deliveries(made.subscription_id)
    text = json.dumps(hooks.events()[0], separators=(",", ":"), ensure_ascii=False)
    assert (delivery.event.body, "null" in text, delivery.event.at_ms) == (text.encode(), False, NOW)
    assert delivery.event.flags == "01"


def test_the_events_of_a_request_are_sent_at_its_end() -> None:
    hooks = Webhooks(cycles.ManualClock(NOW))
    budget = Budget(scope="tenant:acme", unit="TOKENS", allocated=1)
    request = Request(method="POST", target="/", headers={"x-admin-api-key": "k"}, body=b"")
    with hooks.during(request) as now:
        hooks.on_change([(None, budget)])
        now.request_id, now.trace_id = "r", TRACE
        assert hooks.events() == []
    (event,) = hooks.events()
    assert (event["request_id"], event["trace_id"], event["actor"]["type"]) == ("r", TRACE, "admin")
    with pytest.raises(ZeroDivisionError), hooks.during(request):
        hooks.on_change([(None, evolve(budget, unit="CREDITS"))])
        raise ZeroDivisionError
    assert len(hooks.events()) == 2
    hooks.on_change([(None, evolve(budget, unit="USD_MICROCENTS"))])
    assert ("request_id" in hooks.events()[0], hooks.events()[0]["actor"]) == (False, {"type": "admin"})


def test_a_closed_tenant_disables_its_own_subscriptions() -> None:
    hooks = Webhooks(clock := cycles.ManualClock(NOW))
    own, paused, other = (hooks.subscribe(URL, ["budget.funded"], tenant=name) for name in ("acme", "acme", "other"))
    hooks.update(paused.subscription_id, status="PAUSED")
    clock.advance(5)
    hooks.on_change([(None, Tenant(name="acme", status="SUSPENDED")), (Tenant(name="acme", status="CLOSED"), None)])
    assert hooks.subscription(own.subscription_id).status == "ACTIVE"
    for status in ("CLOSED", "CLOSED"):
        hooks.on_change([(None, Tenant(name="acme", status=status))])
    found = [hooks.subscription(each.subscription_id) for each in (own, paused, other)]
    assert [(each.status, each.updated_at) for each in found] == [
        ("DISABLED", "2023-11-14T22:13:20.005Z"), ("DISABLED", "2023-11-14T22:13:20.005Z"), ("ACTIVE", None),
    ]  # fmt: skip
    cascades = [each for each in hooks.events() if each["event_type"] == "webhook.disabled_via_tenant_cascade"]
    assert [each["data"]["previous_status"] for each in cascades] == ["PAUSED", "ACTIVE"]


def test_only_the_newest_events_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert webhook_queue.MAX_KEPT == 10_000
    monkeypatch.setattr(webhooks, "MAX_KEPT", 2)
    monkeypatch.setattr(webhook_queue, "MAX_KEPT", 2)
    hooks = Webhooks(cycles.ManualClock(NOW))
    made = hooks.subscribe(URL, ["custom.x"])
    ids = [hooks.emit("custom.x", "acme") for _ in range(3)]
    assert [each["event_id"] for each in hooks.events()] == ids[:0:-1]
    rows = [each.to_dict()["event_id"] for each in hooks.deliveries(made.subscription_id)]
    assert rows == ids[:0:-1]
    assert hooks.replay(made.subscription_id)["events_queued"] == 2


def test_a_subscription_that_is_unknown() -> None:
    hooks = Webhooks(cycles.ManualClock(NOW))
    for call in (hooks.subscription, hooks.unsubscribe, hooks.deliveries, hooks.test, hooks.update, hooks.replay):
        with pytest.raises(KeyError):
            call("nope")
    assert (hooks.events(), hooks.subscriptions(), hooks.deliver()) == ([], [], 0)


# --- subscriptions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "event", "wants"),
    [
        ({}, {}, True),
        ({"tenant_id": "ACME"}, {}, True),
        ({"tenant_id": "other"}, {}, False),
        ({"status": "PAUSED"}, {}, False),
        ({"event_types": ["budget.closed"]}, {}, False),
        ({"event_types": [], "event_categories": ["budget"]}, {}, True),
        ({"event_types": [], "event_categories": ["tenant"]}, {}, False),
        ({"scope_filter": "tenant:acme"}, {}, True),
        ({"scope_filter": "tenant:acm"}, {}, False),
        ({"scope_filter": "tenant:acm*"}, {}, True),
        ({"scope_filter": "*"}, {}, True),
        ({"scope_filter": "*"}, {"scope": None}, False),
        ({"scope_filter": ""}, {}, False),
        ({}, {"scope": None}, True),
    ],
)
def test_which_events_a_subscription_wants(members: dict[str, Any], event: dict[str, Any], wants: bool) -> None:
    made = Subscription(**{"url": URL, "event_types": ["budget.funded"], **members})
    fixed = {"event_type": "budget.funded", "category": "budget", "tenant_id": "acme", "scope": "tenant:acme"}
    assert made.wants({**fixed, **event}) is wants


def test_how_a_subscription_is_shown() -> None:
    form = {
        "url": URL, "event_types": ["budget.funded"], "headers": {"A": "hidden"}, "signing_secret": "hidden",
        "name": None, "thresholds": {"x": 1}, "retry_policy": {"max_retries": 0}, "metadata": {},
        "disable_after_failures": 3,
    }  # fmt: skip
    made = created(checked("create", form), "acme", "now")
    policy = {"max_retries": 0, "initial_delay_ms": 1_000, "backoff_multiplier": 2.0, "max_delay_ms": 60_000}
    shown = {
        "subscription_id": made.subscription_id, "tenant_id": "acme", "url": URL, "event_types": ["budget.funded"],
        "headers": {"A": "********"}, "retry_policy": policy, "disable_after_failures": 3, "status": "ACTIVE",
        "consecutive_failures": 0, "created_at": "now",
    }  # fmt: skip
    assert made.to_dict() == shown
    assert made.to_dict(masked=False) == {**shown, "headers": {"A": "hidden"}}
    assert "hidden" not in repr(made)
    assert (made.secret, made.subscription_id[:6], len(made.subscription_id)) == ("hidden", "whsub_", 22)
    changed = updated(
        evolve(made, consecutive_failures=2, status="PAUSED"), {"name": "n", "scope_filter": "x"}, "later"
    )
    assert (changed.consecutive_failures, changed.updated_at, changed.status) == (2, "later", "PAUSED")
    assert (changed.name, changed.scope_filter, changed.secret, changed.created_at) == ("n", "x", "hidden", "now")
    active = updated(changed, {"status": "ACTIVE"}, "later")
    assert (active.consecutive_failures, active.status, active.retry_policy) == (
        0,
        "ACTIVE",
        RetryPolicy(max_retries=0),
    )
    assert updated(active, {"status": "PAUSED"}, "later").status == "PAUSED"
    failing = evolve(active, consecutive_failures=2)
    assert updated(failing, {"name": "n"}, "later").consecutive_failures == 2
    assert updated(failing, {"status": "PAUSED"}, "later").consecutive_failures == 2
    assert updated(failing, {"status": "ACTIVE"}, "later").consecutive_failures == 0


def test_a_new_retry_policy_replaces_the_earlier_one() -> None:
    first = {"max_retries": 0, "initial_delay_ms": 200, "backoff_multiplier": 3, "max_delay_ms": 5_000}
    made = created({"url": URL, "event_types": ["budget.funded"], "retry_policy": first}, "acme", "now")
    assert made.retry_policy == RetryPolicy(**first)
    changed = updated(made, {"retry_policy": {"max_delay_ms": 9_000}}, "later")
    assert changed.retry_policy == RetryPolicy(max_delay_ms=9_000)
    assert updated(changed, {"name": "n"}, "later").retry_policy == RetryPolicy(max_delay_ms=9_000)
    assert updated(changed, {"retry_policy": {}}, "later").retry_policy == RetryPolicy()


BODY: dict[str, Any] = {"url": URL, "event_types": ["budget.funded"]}


@pytest.mark.parametrize(
    ("kind", "body", "tenant", "message"),
    [
        ("create", {**BODY, "event_types": ["x" * 90]}, "acme", f"event_types: unknown event type {'x' * 90!r:.80}"),
        ("create", {**BODY, "event_categories": ["x"]}, "acme", "event_categories: unknown category 'x'"),
        ("create", {"url": URL}, "acme", "event_types: is required"),
        ("create", {**BODY, "event_types": None}, "acme", "event_types: is required"),
        ("create", {**BODY, "status": "PAUSED"}, "acme", "status: "),
        ("update", {"status": "DISABLED"}, "acme", "status: "),
        ("update", {"x": 1}, "acme", "x: "),
        ("replay", {"max_events": 1_001}, "acme", "max_events: "),
        ("replay", [], "acme", "must be object, got []"),
        ("create", {**BODY, "event_types": ["policy.created"]}, "acme",
         "a tenant cannot subscribe to policy.created; it can to budget.*, reservation.* and tenant.*"),
        ("create", {**BODY, "event_categories": ["system"]}, "acme", "a tenant cannot subscribe to system; "),
        ("create", {**BODY, "url": "ftp://hooks.test/x"}, "acme",
         "url is not an http or https address: 'ftp://hooks.test/x'; write https://HOST/PATH"),
        ("create", {**BODY, "url": "http://[::1"}, "acme", "url is not an http or https address: 'http://[::1'"),
        ("create", {**BODY, "url": "https://[x]/"}, "acme", "url is not an http or https address: 'https://[x]/'"),
        ("create", {**BODY, "url": "https:///path"}, "acme", "url is not an http or https address: 'https:///path'"),
        ("create", {**BODY, "event_types": ["policy.created"]}, "__system__", None),
        ("create", {**BODY, "event_categories": ["system"]}, "__system__", None),
        ("create", {**BODY, "event_types": ["tenant.created", "reservation.denied"]}, "acme", None),
        ("create", {**BODY, "url": "http://localhost:1"}, "acme", None),
    ],
)  # fmt: skip
def test_which_subscriptions_are_made(kind: str, body: Any, tenant: str, message: str | None) -> None:
    if message is None:
        assert created(checked(kind, body), tenant, "now").tenant_id == tenant
        return
    with pytest.raises(cycles.InvalidRequestError) as caught:
        created(checked(kind, body), tenant, "now")
    assert str(caught.value).startswith(message)


def test_the_delays_of_a_retry_policy() -> None:
    policy = RetryPolicy(initial_delay_ms=101, backoff_multiplier=1.5, max_delay_ms=300)
    assert [policy.delay_ms(retry) for retry in range(1, 6)] == [101, 151, 227, 300, 300]


# --- attempts -------------------------------------------------------------------------------------------------------


def test_the_headers_of_an_attempt_and_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{DELIVERY}.secrets", SimpleNamespace(token_hex=lambda size: "f" * (2 * size)))
    subscription = Subscription(url=URL, secret="s", headers={"Content-Type": "own"})
    event = Event({"event_id": "e", "event_type": "t", "request_id": "r"}, 1, "00", b"body")
    fixed = [
        ("Content-Type", "application/json"), ("Content-Type", "own"),
        ("User-Agent", f"cycles-embedded/{cycles.__version__}"), ("X-Cycles-Event-Id", "e"),
        ("X-Cycles-Event-Type", "t"), ("X-Cycles-Signature", cycles.sign_webhook(b"body", "s")),
    ]  # fmt: skip
    trace = [("X-Cycles-Trace-Id", TRACE), ("traceparent", f"00-{TRACE}-{'f' * 16}-00")]
    assert headers_of(subscription, event, TRACE) == [*fixed, *trace, ("X-Request-Id", "r")]
    assert headers_of(subscription, event, None) == [*fixed, ("X-Request-Id", "r")]


def test_the_row_of_a_delivery() -> None:
    event = Event({"event_id": "e", "event_type": "t"}, 1, "00", b"body")
    row = Delivery(subscription_id="s", event=event, trace_id=TRACE, due_ms=NOW)
    shown = {
        "delivery_id": row.delivery_id, "subscription_id": "s", "event_id": "e", "event_type": "t",
        "status": "PENDING", "attempts": 0, "trace_id": TRACE, "trace_flags": "00",
    }  # fmt: skip
    assert row.to_dict() == shown
    assert "body" not in repr(row)
    assert (row.delivery_id[:4], len(row.delivery_id)) == ("del_", 20)
    row = evolve(row, status="RETRYING", found=Attempt(500, 1, "why"), attempted_at="a")
    failed = {"status": "RETRYING", "attempted_at": "a", "response_status": 500, "error_message": "why"}
    assert row.to_dict() == {**shown, **failed, "next_retry_at": AT}
    assert "next_retry_at" not in evolve(row, due_ms=None).to_dict()


def test_what_an_attempt_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[httpx.Request] = []
    kinds: list[Any] = [204, 302, httpx.ConnectError("refused"), httpx.InvalidURL("odd"), RuntimeError("closed")]

    def respond(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        kind = kinds.pop(0)
        if isinstance(kind, Exception):
            raise kind
        return httpx.Response(kind, headers={"Location": "/other"})

    options: dict[str, Any] = {}

    def client(**given: Any) -> httpx.Client:
        options.update(given)
        return real(transport=httpx.MockTransport(respond), **given)

    real = httpx.Client
    monkeypatch.setattr(f"{DELIVERY}.httpx.Client", client)
    clock = iter(range(100))
    monkeypatch.setattr(f"{DELIVERY}.time", SimpleNamespace(monotonic=lambda: next(clock) * 1.5))
    sender = Sender()
    event = Event({"event_id": "e", "event_type": "t"}, 1, "00", b'{"a":1}')
    found = [sender.post(Subscription(url=URL, secret="s"), event, TRACE) for _ in range(5)]
    assert found == [
        Attempt(204, 1_500, None), Attempt(302, 1_500, None), Attempt(None, 1_500, "ConnectError: refused"),
        Attempt(None, 1_500, "InvalidURL: odd"), Attempt(None, 1_500, "RuntimeError: closed"),
    ]  # fmt: skip
    assert options == {"follow_redirects": False, "trust_env": False}
    assert (sent[0].method, str(sent[0].url), sent[0].content) == ("POST", URL, b'{"a":1}')
    assert sent[0].extensions["timeout"] == TIMEOUT.as_dict()
    assert TIMEOUT.as_dict() == {"connect": 5.0, "read": 30.0, "write": 30.0, "pool": 30.0}
    assert set(TEST_TIMEOUT.as_dict().values()) == {10.0}
    sender.close()
    closed = sender.post(Subscription(url=URL, secret="s"), event, None)
    assert (closed.status, str(closed.error)[:13]) == (None, "RuntimeError:")


def test_a_header_that_is_not_ascii_fails_its_own_deliveries_only() -> None:
    hooks = Webhooks(cycles.ManualClock(NOW))
    own, other = (hooks.subscribe("http://127.0.0.1:9/", ["custom.x"], headers={"X": value}) for value in "\u00e9x")
    hooks.emit("custom.x", "acme")
    assert hooks.deliver() == 2
    reasons = [hooks.deliveries(each.subscription_id)[0].to_dict()["error_message"] for each in (own, other)]
    assert [reason.partition(":")[0] for reason in reasons] == ["UnicodeEncodeError", "ConnectError"]


def test_the_test_event_of_a_subscription(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[Any, ...]] = []

    def post(_: Sender, subscription: Subscription, event: Event, trace_id: str | None, timeout: Any) -> Attempt:
        sent.append((subscription.url, event, trace_id, timeout))
        return Attempt(500, 7, None)

    monkeypatch.setattr(Sender, "post", post)
    hooks = Webhooks(cycles.ManualClock(NOW))
    made = hooks.subscribe(URL, ["budget.funded"], tenant="acme")
    found = hooks.test(made.subscription_id)
    ((url, event, trace_id, timeout),) = sent
    assert found == {
        "success": False, "response_status": 500, "response_time_ms": 7, "event_id": event.members["event_id"],
    }  # fmt: skip
    assert event.members == {
        "event_id": found["event_id"], "event_type": "system.webhook_test", "category": "system", "timestamp": AT,
        "tenant_id": "acme", "source": "cycles-embedded",
        "data": {"subscription_id": made.subscription_id, "test": True},
    }  # fmt: skip
    assert (found["event_id"][:9], len(found["event_id"])) == ("evt_test_", 21)
    assert (url, trace_id, timeout, event.flags, event.at_ms) == (URL, None, TEST_TIMEOUT, "01", NOW)
    assert event.body == json.dumps(event.members, separators=(",", ":")).encode()
    assert hooks.deliveries(made.subscription_id) == []
