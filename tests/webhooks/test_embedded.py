"""The embedded server delivers real signed webhooks over HTTP, with retries, a log, tests and replays."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

import cycles
from tests.support.waiting import until
from tests.webhooks.conftest import ACTION, ADMIN, START, Api, Hook, types

RUNTIME = [
    "reservation.denied",
    "reservation.expired",
    "reservation.commit_overage",
    "budget.exhausted",
    "budget.over_limit_entered",
    "budget.debt_incurred",
]


def test_the_events_of_runtime_operations_are_delivered_and_verify(
    server: cycles.EmbeddedServer, client: cycles.Cycles, clock: cycles.ManualClock, hook: Hook
) -> None:
    subscription = server.webhooks.subscribe(hook.url, RUNTIME, tenant="acme")
    denied = client.decide(cycles.tokens(5000), action=ACTION)
    assert client.preview(cycles.tokens(5000), action=ACTION).decision == "DENY"
    with pytest.raises(cycles.BudgetExceededError), client.reserve(cycles.tokens(5000), action=ACTION):
        pass  # a live rejection emits nothing
    body = {
        "idempotency_key": "left alone",
        "subject": {"tenant": "acme"},
        "action": {"kind": "a", "name": "b"},
        "estimate": {"unit": "TOKENS", "amount": 10},
        "ttl_ms": 1000,
        "grace_period_ms": 0,
    }
    assert Api(server, **{"X-Cycles-API-Key": server.api_key})("POST", "/v1/reservations", body)[0] == 200
    clock.advance(60_000)
    server.ledger.set_budget("tenant:acme", cycles.tokens(1000), overdraft_limit=100)
    with client.reserve(cycles.tokens(10), action=ACTION, overage_policy="ALLOW_WITH_OVERDRAFT") as guard:
        guard.commit(cycles.tokens(1050))
    assert server.webhooks.deliver() == 6
    events = hook.events(subscription.secret)
    assert types(events) == [
        "reservation.denied",
        "reservation.denied",
        "reservation.expired",
        "budget.debt_incurred",
        "budget.exhausted",
        "reservation.commit_overage",
    ]
    first = events[0]
    assert first.amount("requested_amount") == cycles.tokens(5000)
    assert first.data["reason_code"] == "BUDGET_EXCEEDED"
    assert (first.tenant_id, first.scope, first.request_id) == ("acme", "tenant:acme", denied.request_id)
    assert first.actor is not None
    assert first.actor["type"] == "api_key"
    by_type = {event.type: event for event in events}
    expired = by_type["reservation.expired"]
    assert (expired.data["ttl_ms"], expired.data["estimated_amount"], expired.actor) == (1000, 10, {"type": "system"})
    assert expired.request_id is None
    overage = by_type["reservation.commit_overage"]
    assert (overage.amount("overage"), overage.amount("debt_incurred")) == (cycles.tokens(1040), cycles.tokens(50))
    assert overage.data["reservation_id"] == guard.reservation_id
    assert by_type["budget.debt_incurred"].data["overage_policy"] == "ALLOW_WITH_OVERDRAFT"
    assert by_type["budget.exhausted"].amount("remaining") == cycles.SignedAmount("TOKENS", -50)


def test_a_replayed_request_emits_nothing_again(
    server: cycles.EmbeddedServer, client: cycles.Cycles, hook: Hook
) -> None:
    server.webhooks.subscribe(hook.url, RUNTIME)
    for _ in range(3):
        client.decide(cycles.tokens(5000), action=ACTION, idempotency_key="k")
    assert server.webhooks.deliver() == 1


def test_changes_by_the_operator_are_events(server: cycles.EmbeddedServer, hook: Hook) -> None:
    names = ["created", "funded", "debited", "frozen", "unfrozen", "closed", "debt_repaid", "over_limit_entered"]
    chosen = [*(f"budget.{name}" for name in names), "budget.over_limit_exited", "tenant.created", "tenant.suspended"]
    secret = server.webhooks.subscribe(hook.url, chosen).secret
    ledger = server.ledger
    ledger.set_budget("tenant:new", cycles.tokens(5))
    ledger.fund("tenant:new", cycles.tokens(5))
    ledger.set_budget("tenant:new", cycles.tokens(8))
    ledger.set_budget("tenant:new", cycles.tokens(8), status="FROZEN")
    ledger.set_budget("tenant:new", cycles.tokens(8))
    ledger.set_budget("tenant:new", cycles.tokens(8), is_over_limit=True)
    ledger.set_budget("tenant:new", cycles.tokens(8), status="CLOSED")
    ledger.set_tenant("new")
    ledger.set_tenant("new", status="SUSPENDED")
    server.webhooks.deliver()
    events = hook.events(secret)
    assert types(events) == [
        "budget.created",
        "budget.funded",
        "budget.debited",
        "budget.frozen",
        "budget.unfrozen",
        "budget.over_limit_entered",
        "budget.closed",
        "budget.over_limit_exited",
        "tenant.created",
        "tenant.suspended",
    ]
    funded = events[1]
    assert (funded.data["operation"], funded.data["previous_state"]["allocated"]) == ("CREDIT", 5)
    assert funded.data["new_state"]["allocated"] == 10
    assert funded.tenant_id == "new"


def test_an_operator_who_leaves_nothing_of_a_budget_exhausts_it(server: cycles.EmbeddedServer, hook: Hook) -> None:
    secret = server.webhooks.subscribe(hook.url, ["budget.exhausted"]).secret
    for amount in (5, 0):
        server.ledger.set_budget("tenant:new", cycles.tokens(amount))
    assert server.webhooks.deliver() == 1
    (event,) = hook.events(secret)
    amounts = {name: event.data[name] for name in ("allocated", "remaining", "spent", "reserved", "threshold")}
    assert amounts == {"allocated": 0, "remaining": 0, "spent": 0, "reserved": 0, "threshold": 1.0}


def test_the_admin_operations_name_what_they_do(server: cycles.EmbeddedServer, hook: Hook) -> None:
    types_of_funding = ["funded", "debited", "reset", "reset_spent", "debt_repaid", "frozen", "unfrozen", "created"]
    secret = server.webhooks.subscribe(hook.url, [f"budget.{name}" for name in types_of_funding]).secret
    api = Api(server, **{"X-Admin-API-Key": ADMIN})
    status, tenant = api("POST", "/v1/admin/tenants", {"tenant_id": "acme", "name": "Acme"})
    assert status in (200, 201), tenant
    server.ledger.set_budget("tenant:acme", cycles.tokens(1000), debt=7, overdraft_limit=10, spent=5)
    path = "/v1/admin/budgets/fund?scope=tenant:acme&unit=TOKENS&tenant_id=acme"
    for operation, amount in (("CREDIT", 5), ("DEBIT", 1), ("RESET", 900), ("REPAY_DEBT", 7), ("RESET_SPENT", 100)):
        body = {"operation": operation, "amount": {"unit": "TOKENS", "amount": amount}, "reason": "why"}
        status, response = api("POST", path, body)
        assert status == 200, response
    for change, reason in (("freeze", {}), ("unfreeze", None)):  # its body is optional
        assert api("POST", f"/v1/admin/budgets/{change}?scope=tenant:acme&unit=TOKENS", reason)[0] == 200
    server.webhooks.deliver()
    events = [event for event in hook.events(secret) if event.request_id is not None]
    names = ["funded", "debited", "reset", "debt_repaid", "reset_spent", "frozen", "unfrozen"]
    assert types(events) == [f"budget.{name}" for name in names]
    assert [event.data["operation"] for event in events[:5]] == [
        "CREDIT",
        "DEBIT",
        "RESET",
        "REPAY_DEBT",
        "RESET_SPENT",
    ]
    assert {event.data.get("reason") for event in events[:5]} == {"why"}
    assert events[4].data["spent_override_provided"] is False
    assert all(event.actor == {"type": "admin", "source_ip": "127.0.0.1"} for event in events)


def test_a_subscription_gets_its_tenant_its_types_and_its_scope_only(server: cycles.EmbeddedServer, hook: Hook) -> None:
    webhooks = server.webhooks
    mine = webhooks.subscribe(hook.url, ["budget.funded"], tenant="ACME")
    scoped = webhooks.subscribe(hook.url, ["budget.funded"], scope_filter="tenant:oth*")
    exact = webhooks.subscribe(hook.url, ["budget.funded"], scope_filter="tenant:oth")
    category = webhooks.subscribe(hook.url, ["custom.x"], event_categories=["budget"])
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    server.ledger.fund("tenant:other", cycles.tokens(1))
    webhooks.emit("custom.x", "acme", {"a": 1})
    webhooks.emit("custom.y", "acme")
    webhooks.deliver()
    found = {
        each.subscription_id: [row.event.members["event_type"] for row in webhooks.deliveries(each.subscription_id)]
        for each in (mine, scoped, exact, category)
    }
    assert list(found.values()) == [
        ["budget.funded"],
        ["budget.funded"],
        [],
        ["custom.x", "budget.funded", "budget.funded"],
    ]


def test_a_failed_delivery_is_retried_as_its_policy_says_and_then_given_up(
    server: cycles.EmbeddedServer, clock: cycles.ManualClock, hook: Hook
) -> None:
    webhooks = server.webhooks
    policy = {"max_retries": 3, "initial_delay_ms": 100, "backoff_multiplier": 3.0, "max_delay_ms": 1000}
    subscription = webhooks.subscribe(hook.url, ["budget.funded"], retry_policy=policy, headers={"Authorization": "x"})
    hook.statuses = [500, 302, 404, 503]
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    seen = []
    for advance in (0, 99, 1, 299, 1, 899, 1, 10_000):
        clock.advance(advance)
        seen.append(webhooks.deliver())
    assert seen == [1, 0, 1, 0, 1, 0, 1, 0]
    [row] = [each.to_dict() for each in webhooks.deliveries(subscription.subscription_id)]
    assert (row["status"], row["attempts"], row["response_status"]) == ("FAILED", 4, 503)
    assert webhooks.subscription(subscription.subscription_id).consecutive_failures == 1
    bodies = {body for _, body in hook.received}
    assert len(bodies) == 1  # the same bytes, and so the same signature, each time
    assert len({dict(headers)["X-Cycles-Signature"] for headers, _ in hook.received}) == 1
    parents = [dict(headers)["traceparent"] for headers, _ in hook.received]
    assert len(set(parents)) == 4
    assert len({parent[3:35] for parent in parents}) == 1
    assert {dict(headers)["Authorization"] for headers, _ in hook.received} == {"x"}


def test_a_success_ends_the_retries(server: cycles.EmbeddedServer, clock: cycles.ManualClock, hook: Hook) -> None:
    subscription = server.webhooks.subscribe(hook.url, ["budget.funded"])
    hook.statuses = [500]
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    server.webhooks.deliver()
    [row] = server.webhooks.deliveries(subscription.subscription_id)
    assert row.to_dict()["next_retry_at"] == "2023-11-14T22:13:21.000Z"
    clock.advance(1000)
    assert server.webhooks.deliver() == 1
    assert (row.status, row.attempts) == ("SUCCESS", 2)
    assert row.to_dict()["completed_at"] == "2023-11-14T22:13:21.000Z"
    shown = server.webhooks.subscription(subscription.subscription_id).to_dict()
    assert (shown["last_failure_at"], shown["last_success_at"]) == ("2023-11-14T22:13:20.000Z", row.completed_at)
    clock.advance(10**9)
    assert server.webhooks.deliver() == 0


def test_a_receiver_that_cannot_be_reached_is_a_failure_with_its_reason(
    server: cycles.EmbeddedServer, hook: Hook
) -> None:
    subscription = server.webhooks.subscribe("http://127.0.0.1:9/hook", ["budget.funded"])
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    server.webhooks.deliver()
    [row] = server.webhooks.deliveries(subscription.subscription_id)
    assert row.status == "RETRYING"
    assert "ConnectError" in row.to_dict()["error_message"]
    assert server.webhooks.test(subscription.subscription_id)["success"] is False


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_delivery_follows_a_redirect(server: cycles.EmbeddedServer, hook: Hook, status: int) -> None:
    subscription = server.webhooks.subscribe(hook.url, ["budget.funded"])
    hook.statuses = [status]
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    server.webhooks.deliver()
    [row] = server.webhooks.deliveries(subscription.subscription_id)
    assert (row.status, row.to_dict()["response_status"], len(hook.received)) == ("RETRYING", status, 1)


def test_a_subscription_is_disabled_after_failures_in_a_row_and_can_be_resumed(
    server: cycles.EmbeddedServer, hook: Hook
) -> None:
    webhooks = server.webhooks
    policy = {"max_retries": 0}
    bad = webhooks.subscribe(hook.url, ["budget.funded"], retry_policy=policy, disable_after_failures=2)
    hook.statuses = [500, 204, 500, 500]
    statuses = []
    for _ in range(4):
        server.ledger.fund("tenant:acme", cycles.tokens(1))
        webhooks.deliver()
        statuses.append(webhooks.subscription(bad.subscription_id).status)
    assert statuses == ["ACTIVE", "ACTIVE", "ACTIVE", "DISABLED"]
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    assert webhooks.deliver() == 0
    assert webhooks.events()[1]["event_type"] == "webhook.disabled"
    assert webhooks.update(bad.subscription_id, status="ACTIVE").consecutive_failures == 0
    assert webhooks.replay(bad.subscription_id, event_types=["budget.funded"])["events_queued"] == 5
    assert webhooks.deliver() == 5


def test_every_change_of_a_subscription_is_an_event(server: cycles.EmbeddedServer, hook: Hook) -> None:
    webhooks = server.webhooks
    webhooks.subscribe(hook.url, ["budget.frozen"], tenant="other")
    first = webhooks.subscribe(hook.url, ["budget.frozen"], tenant="acme").subscription_id
    for members in ({"status": "PAUSED"}, {"status": "ACTIVE"}, {"status": "ACTIVE"}, {"url": f"{hook.url}/2"}):
        webhooks.update(first, **members)
    webhooks.unsubscribe(first)
    bad = {"retry_policy": {"max_retries": 0}, "disable_after_failures": 1}
    second = webhooks.subscribe(hook.url, ["budget.funded"], tenant="acme", **bad).subscription_id
    hook.statuses = [500]
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    webhooks.deliver()
    webhooks.update(second, status="ACTIVE")
    server.ledger.set_tenant("acme", status="CLOSED")
    webhooks.update(second, name="n")
    seen = [
        (
            event["event_type"].partition(".")[2],
            data["subscription_id"],
            data.get("previous_status"),
            data["new_status"],
        )
        for event in webhooks.events()
        if event["category"] == "webhook" and (data := event["data"])["tenant_id"] == "acme"
    ]
    assert seen[::-1] == [
        ("created", first, None, "ACTIVE"),
        ("paused", first, "ACTIVE", "PAUSED"),
        ("resumed", first, "PAUSED", "ACTIVE"),
        ("updated", first, "ACTIVE", "ACTIVE"),
        ("updated", first, "ACTIVE", "ACTIVE"),
        ("deleted", first, "ACTIVE", "ACTIVE"),
        ("created", second, None, "ACTIVE"),
        ("disabled", second, "ACTIVE", "DISABLED"),
        ("resumed", second, "DISABLED", "ACTIVE"),
        ("disabled_via_tenant_cascade", second, "ACTIVE", "DISABLED"),
        ("updated", second, "DISABLED", "DISABLED"),
    ]
    assert webhooks.subscriptions()[-1].status == "ACTIVE"  # the other tenant's


def test_a_rotated_secret_signs_the_next_attempt_of_an_older_event(
    server: cycles.EmbeddedServer, clock: cycles.ManualClock, hook: Hook
) -> None:
    subscription = server.webhooks.subscribe(hook.url, ["budget.funded"], signing_secret="old")
    assert subscription.secret == "old"
    hook.statuses = [500]
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    server.webhooks.deliver()
    server.webhooks.update(subscription.subscription_id, signing_secret="schlüssel")
    clock.advance(1000)
    server.webhooks.deliver()
    signed = [
        cycles.sign_webhook(body, key) for (_, body), key in zip(hook.received, ("old", "schlüssel"), strict=True)
    ]
    assert [dict(headers)["X-Cycles-Signature"] for headers, _ in hook.received] == signed
    for text in (repr(subscription), str(subscription.to_dict()), repr(server.webhooks.subscriptions())):
        assert "old" not in text
        assert "schlüssel" not in text


def test_a_test_event_is_sent_immediately_and_not_logged(server: cycles.EmbeddedServer, hook: Hook) -> None:
    subscription = server.webhooks.subscribe(hook.url, ["budget.funded"], tenant="acme")
    result = server.webhooks.test(subscription.subscription_id)
    assert (result["success"], result["response_status"]) == (True, 204)
    assert type(result["response_time_ms"]) is int
    [event] = hook.events(subscription.secret)
    assert (event.is_test, event.id, event.tenant_id) == (True, result["event_id"], "acme")
    assert event.data == {"subscription_id": subscription.subscription_id, "test": True}
    assert "traceparent" not in dict(hook.received[0][0])
    assert server.webhooks.deliveries(subscription.subscription_id) == []
    hook.statuses = [500]
    result = server.webhooks.test(subscription.subscription_id)
    assert (result["success"], result["response_status"]) == (False, 500)


def test_a_replay_sends_the_bytes_of_the_first_delivery(
    server: cycles.EmbeddedServer, clock: cycles.ManualClock, hook: Hook
) -> None:
    webhooks = server.webhooks
    subscription = webhooks.subscribe(hook.url, ["budget.funded"])
    for _ in range(3):
        clock.advance(1000)
        server.ledger.fund("tenant:acme", cycles.tokens(1))
    webhooks.deliver()
    first = list(hook.received)
    result = webhooks.replay(subscription.subscription_id, from_ms=START + 2000, to_ms=START + 2000)
    assert result["events_queued"] == 1  # both ends are included
    webhooks.deliver()
    assert hook.received[3][1] == first[1][1]
    assert webhooks.replay(subscription.subscription_id, max_events=2)["events_queued"] == 2
    assert webhooks.replay(subscription.subscription_id, event_types=["budget.closed"])["events_queued"] == 0
    seen = cycles.SeenEvents()
    receiver = cycles.WebhookReceiver(subscription.secret, seen=seen)
    for headers, body in hook.received[:3]:
        receiver.done(receiver.receive(body=body, headers=headers))
    assert receiver.receive(body=hook.received[3][1], headers=hook.received[3][0]).is_duplicate


def test_events_while_paused_are_not_queued_and_a_deleted_subscription_gets_nothing(
    server: cycles.EmbeddedServer, hook: Hook
) -> None:
    webhooks = server.webhooks
    subscription = webhooks.subscribe(hook.url, ["budget.funded"])
    webhooks.update(subscription.subscription_id, status="PAUSED")
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    webhooks.update(subscription.subscription_id, status="ACTIVE")
    assert webhooks.deliver() == 0
    server.ledger.fund("tenant:acme", cycles.tokens(1))
    webhooks.unsubscribe(subscription.subscription_id)
    assert webhooks.deliver() == 0
    assert hook.received == []
    with pytest.raises(KeyError):
        webhooks.subscription(subscription.subscription_id)


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"event_types": []}, "event_types"),
        ({"event_types": ["nope.x"]}, "nope.x"),
        ({"event_types": ["custom."]}, "custom."),
        ({"event_types": ["webhook.created"], "tenant": "acme"}, "webhook.created"),
        ({"event_categories": ["nope"]}, "nope"),
        ({"event_categories": ["system"], "tenant": "acme"}, "system"),
        ({"url": "ftp://x"}, "url"),
        ({"url": "nothing"}, "url"),
        ({"retry_policy": {"max_retries": 11}}, "retry_policy.max_retries"),
        ({"retry_policy": {"initial_delay_ms": 99}}, "retry_policy.initial_delay_ms"),
        ({"retry_policy": {"other": 1}}, "retry_policy.other"),
        ({"disable_after_failures": 0}, "disable_after_failures"),
        ({"signing_secret": ""}, "signing_secret"),
        ({"headers": {"a": 1}}, "headers"),
        ({"other": 1}, "other"),
    ],
    ids=str,
)
def test_a_wrong_subscription_names_the_member(
    server: cycles.EmbeddedServer, members: dict[str, Any], named: str
) -> None:
    given = {"url": "http://127.0.0.1/hook", "event_types": ["budget.funded"], **members}
    with pytest.raises(cycles.InvalidRequestError, match=named):
        server.webhooks.subscribe(given.pop("url"), given.pop("event_types"), **given)
    assert server.webhooks.subscriptions() == []


def test_with_the_clock_of_the_machine_a_thread_delivers(hook: Hook) -> None:
    before = set(threading.enumerate())
    with cycles.EmbeddedServer(budgets={"tenant:acme": cycles.tokens(1)}) as server:
        policy = {"initial_delay_ms": 100}
        secret = server.webhooks.subscribe(hook.url, ["budget.funded"], retry_policy=policy).secret
        hook.statuses = [500]
        server.ledger.fund("tenant:acme", cycles.tokens(1))
        for _ in range(2):
            assert hook.arrived.acquire(timeout=120)
    assert types(hook.events(secret)) == ["budget.funded"] * 2
    new = {each for each in threading.enumerate() if each.name == "cycles-embedded-webhooks"} - before
    until(lambda: not new & set(threading.enumerate()))


def test_an_event_body_is_compact_json_in_utf_8(server: cycles.EmbeddedServer, hook: Hook) -> None:
    subscription = server.webhooks.subscribe(hook.url, ["custom.note"])
    event_id = server.webhooks.emit("custom.note", "acme", {"text": "Grüße ✓"}, scope="tenant:acme")
    server.webhooks.deliver()
    headers, body = hook.received[0]
    assert "Grüße ✓".encode() in body
    assert json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False).encode() == body
    assert dict(headers)["X-Cycles-Event-Id"] == event_id
    assert dict(headers)["Content-Type"] == "application/json"
    [event] = hook.events(subscription.secret)
    assert event.timestamp.timestamp() * 1000 == START
