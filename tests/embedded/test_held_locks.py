"""The embedded server serves threads: what they share is used with a lock held, in every operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import httpx
import pytest

import cycles
from cycles.embedded import EmbeddedServer
from cycles.embedded.clock import ManualClock
from cycles.embedded.dashboard.event_log import EventLog
from cycles.embedded.dashboard.feed import Feed
from cycles.embedded.dashboard.history import Charge, History
from cycles.embedded.evidence import EvidenceSigner
from cycles.embedded.faults import Faults
from cycles.embedded.forecast import Pace
from cycles.embedded.http import Application as Application
from cycles.embedded.operator import Operator
from cycles.embedded.operator_policies import PolicyOperator as PolicyOperator
from cycles.embedded.server import PROTOCOLS
from cycles.embedded.tables import Tables
from cycles.embedded.webhook_queue import DeliveryQueue
from cycles.embedded.webhook_routes import WebhookRoutes as WebhookRoutes
from cycles.embedded.webhooks import Webhooks
from tests.support.held import Watch
from tests.support.inside import ledger_lock_of

A, TEN = "tenant:acme", cycles.tokens(10)
TABLES = "budgets windows reservations responses tenants api_keys policies counters admin_info apply overdue"


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    options: dict[str, Any] = {"admin_api_key": "admin-key", "evidence_key": b"k" * 32, "protocol": PROTOCOLS[1]}
    budgets: dict[str, Any] = {A: TEN, f"{A}/agent:bot": cycles.window(TEN, "day")}
    with EmbeddedServer(budgets, clock=ManualClock(), **options) as server:
        server.api_key_for("acme")
        yield server


OPERATOR: dict[str, Callable[[Operator], object]] = {
    "set_budget": lambda it: it.set_budget(A, TEN),
    "fund": lambda it: it.fund(A, TEN),
    "set_allocated": lambda it: it.set_allocated(A, TEN),
    "set_allocated of a new scope": lambda it: it.set_allocated(f"{A}/app:new", TEN),
    "set_window": lambda it: it.set_window(A, cycles.window(TEN, "day"), "TOKENS"),
    "set_window again": lambda it: it.set_window(f"{A}/agent:bot", cycles.window(TEN, "hour"), "TOKENS"),
    "window": lambda it: it.window(A, "TOKENS"),
    "reset_spent": lambda it: it.reset_spent(),
    "set_status": lambda it: it.set_status(A, "FROZEN"),
    "delete_budget": lambda it: it.delete_budget(f"{A}/agent:bot"),
    "balance": lambda it: it.balance(A),
    "set_tenant": lambda it: it.set_tenant("acme"),
    "delete_tenant": lambda it: it.delete_tenant("acme"),
    "set_api_key": lambda it: it.set_api_key("another", tenant="acme"),
    "api_key_for": lambda it: it.api_key_for("acme"),
    "api_key_for a new tenant": lambda it: it.api_key_for("other"),
    "scopes": lambda it: it.scopes(),
    "tenants": lambda it: it.tenants(),
    "records": lambda it: it.records(),
    "reservations": lambda it: it.reservations(),
    "forecasts": lambda it: it.forecasts(),
    "api_keys": lambda it: it.api_keys(),
    "active_reservations": lambda it: it.active_reservations(),
    "set_policy": lambda it: it.set_policy("p", A),
    "delete_policy": lambda it: it.delete_policy("p"),
    "set_action_kind": lambda it: it.set_action_kind("custom.acme.deploy"),
}


@pytest.mark.parametrize("name", OPERATOR)
def test_an_operation_of_the_operator(server: EmbeddedServer, watch: Watch, name: str) -> None:
    watch.of(Tables, lambda: ledger_lock_of(server), TABLES)
    OPERATOR[name](server.ledger)
    assert watch.used
    assert not watch.without


def test_every_operation_of_the_operator_is_above() -> None:
    public = {name for name in dir(Operator) if not name.startswith("_")}
    # `locked` is the lock, `observe` has none to take, and the caller of `budgets_of` may hold it.
    assert {name.partition(" ")[0] for name in OPERATOR} == public - {"locked", "observe", "budgets_of"}


RESERVE = {
    "subject": {"tenant": "acme"},
    "action": {"kind": "llm.completion", "name": "n"},
    "estimate": {"unit": "TOKENS", "amount": 1},
}
REQUESTS: dict[str, tuple[str, str, Any]] = {
    "reserve": ("POST", "/v1/reservations", RESERVE),
    "decide": ("POST", "/v1/decide", RESERVE),
    "commit": ("POST", "/v1/reservations/{id}/commit", {"actual": {"unit": "TOKENS", "amount": 1}}),
    "release": ("POST", "/v1/reservations/{id}/release", {}),
    "extend": ("POST", "/v1/reservations/{id}/extend", {"extend_by_ms": 1_000}),
    "get": ("GET", "/v1/reservations/{id}", None),
    "list": ("GET", "/v1/reservations", None),
    "balances": ("GET", "/v1/balances?tenant=acme", None),
    "action kinds": ("GET", "/v1/action-kinds", None),
    "unknown key": ("GET", "/v1/balances?tenant=acme", None),
    "release by the operator": ("POST", "/v1/reservations/{id}/release", {"reason": "r"}),
    "webhooks": ("GET", "/v1/admin/webhooks", None),
    "security of webhooks": ("GET", "/v1/admin/config/webhook-security", None),
    "other security": ("PUT", "/v1/admin/config/webhook-security", {"allow_http": True}),
    "budgets": ("GET", "/v1/admin/budgets", None),
    "overview": ("GET", "/v1/admin/overview", None),
    "audit": ("GET", "/v1/admin/audit/logs", None),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request(server: EmbeddedServer, watch: Watch, name: str) -> None:
    method, path, body = REQUESTS[name]
    own = {"X-Cycles-API-Key": "wrong" if name == "unknown key" else server.api_key_for("acme")}
    headers = {"X-Admin-API-Key": "admin-key"} if "operator" in name or "/admin/" in path else own
    with httpx.Client(transport=server.transport(), base_url="http://embedded.test") as http:
        made = http.post("/v1/reservations", json={**RESERVE, "idempotency_key": "made"}, headers=own).json()
        watch.of(Tables, lambda: ledger_lock_of(server), TABLES)
        sent = body if body is None or "config" in path else {**body, "idempotency_key": "k"}
        response = http.request(method, path.format(id=made.get("reservation_id")), json=sent, headers=headers)
    assert response.status_code == (401 if name == "unknown key" else 200), response.text
    assert watch.used
    assert not watch.without


def test_a_dashboard_that_is_opened_and_the_close(server: EmbeddedServer, watch: Watch) -> None:
    watch.of(Tables, lambda: ledger_lock_of(server), f"{TABLES} close observers")
    Feed(server.ledger, server.faults, ManualClock(), lambda body: b"")
    server.close()
    assert watch.used > {"budgets", "close", "observers"}
    assert not watch.without


def test_the_events_of_the_dashboard(server: EmbeddedServer, watch: Watch) -> None:
    feed = Feed(server.ledger, server.faults, ManualClock(), lambda body: b"")
    watch.of(EventLog, lambda: attrgetter("_publishing")(feed), "_kept", "last_id")
    begun = feed.last_event_id
    server.ledger.fund(A, TEN)
    feed.publish()
    assert feed.after(begun)[1] == begun + 1
    assert watch.used == {"_kept", "last_id"}
    assert not watch.without


def test_the_history_of_the_dashboard(watch: Watch) -> None:
    watch.of(History, "_lock", "periods")
    history = History()
    history.add(Charge(1, (A, "TOKENS", "n"), 5))
    history.sums("all", 1)
    assert watch.used == {"periods"}
    assert not watch.without


def test_webhooks_and_their_deliveries(server: EmbeddedServer, watch: Watch) -> None:
    watch.of(Webhooks, "_lock", "_events _subscriptions")
    watch.of(DeliveryQueue, "_changed", "_closed _deliveries", "_thread")
    hooks = server.webhooks
    first = hooks.subscribe("http://127.0.0.1:1/x", ["tenant.created"], tenant="acme")
    hooks.update(first.subscription_id, status="PAUSED")
    hooks.replay(first.subscription_id)
    hooks.deliver()
    assert hooks.deliveries(first.subscription_id) == []
    server.ledger.set_tenant("acme", status="CLOSED")
    hooks.unsubscribe(first.subscription_id)
    assert hooks.events()
    hooks.close()
    assert watch.used == {"_events", "_closed", "_deliveries", "_subscriptions"}
    assert watch.without.keys() == {"_subscriptions in subscription"}  # one look


def test_faults(watch: Watch) -> None:
    watch.of(Faults, "_lock", "_waiting")
    faults = Faults()
    faults.refuse("reserve")
    assert faults.waiting()
    faults.take("reserve")
    faults.clear()
    assert watch.used == {"_waiting"}
    assert watch.without == {"_waiting in take": 1}  # a look whether there are any


def test_the_pace_of_commits(watch: Watch) -> None:
    watch.of(Pace, "_lock", "_commits")
    pace = Pace(1_000_000)
    pace.add((A,), "TOKENS", 1_000_000, 5)
    pace.of(A, "TOKENS", 5, 5)
    assert watch.used == {"_commits"}
    assert not watch.without


def test_the_evidence_of_a_response(server: EmbeddedServer, watch: Watch) -> None:
    watch.of(EvidenceSigner, "_lock", "_envelopes _by_reservation")
    with server.client(tenant="acme") as client:
        guard = client.reserve(cycles.tokens(1), action=("llm.completion", "n")).acquire()
        guard.release()
        client.reservation(guard.reservation_id or "")
    assert watch.used == {"_envelopes", "_by_reservation"}
    assert not watch.without


def test_a_clock_that_is_advanced(watch: Watch) -> None:
    watch.of(ManualClock, "_lock", written="_now_ms")
    ManualClock().advance(5)
    assert watch.used == {"_now_ms"}
    assert not watch.without
