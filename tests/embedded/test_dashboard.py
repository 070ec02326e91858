"""The dashboard over HTTP: its state, its secrets and its controls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import cycles
from cycles.embedded.dashboard import rows
from cycles.embedded.dashboard.redaction import REDACTED, Redactor
from cycles.embedded.dashboard.static_files import static_files

ACTION = ("llm.completion", "small-model")
LISTS = {"budgets", "reservations", "decisions", "requests", "faults"}
STATE = {"last_event_id", "at_ms", "kept_since_ms", "budget_count", *LISTS}
KEY = "a-key-that-was-set"


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    budgets: dict[str, Any] = {
        "tenant:acme": [cycles.usd(10), cycles.tokens(500)],
        "tenant:acme/agent:bot": cycles.usd(1),
    }
    with cycles.EmbeddedServer(budgets, clock=cycles.ManualClock(), api_keys={KEY: "acme"}) as server:
        yield server


@pytest.fixture
def http(server: cycles.EmbeddedServer) -> Iterator[httpx.Client]:
    with server.listen() as url, httpx.Client(base_url=url) as http:
        yield http


@pytest.fixture
def client(server: cycles.EmbeddedServer, http: httpx.Client) -> cycles.Cycles:
    return server.client(tenant="acme")


def state(http: httpx.Client, query: str = "") -> dict[str, Any]:
    found = http.get(f"/dashboard/state{query}")
    assert found.status_code == 200
    document = found.json()
    assert set(document) == STATE
    assert isinstance(document, dict)
    return document


def control(http: httpx.Client, server: cycles.EmbeddedServer, **form: Any) -> httpx.Response:
    return http.post("/dashboard/control", json=form, headers={"Authorization": f"Bearer {token_of(server)}"})


def token_of(server: cycles.EmbeddedServer) -> str:
    assert server.dashboard_url is not None
    return server.dashboard_url.partition("#")[2]


# --- state ------------------------------------------------------------------------------------------------------------


def test_the_state_has_budgets_with_their_status(http: httpx.Client, server: cycles.EmbeddedServer) -> None:
    server.ledger.set_status("tenant:acme/agent:bot", "FROZEN")
    found = state(http)
    assert found["budget_count"] == 3
    assert found["at_ms"] == 1_700_000_000_000
    last = found["budgets"][-1]
    assert (last["scope_path"], last["status"]) == ("tenant:acme/agent:bot", "FROZEN")
    assert last["remaining"] == {"unit": "USD_MICROCENTS", "amount": 100_000_000}
    assert [budget["status"] for budget in found["budgets"][:2]] == ["ACTIVE", "ACTIVE"]


def test_a_reservation_is_shown_until_and_after_it_is_settled(http: httpx.Client, client: cycles.Cycles) -> None:
    with client.reserve(cycles.usd("0.50"), action=ACTION, subject={"agent": "bot"}) as guard:
        [active] = state(http)["reservations"]
        guard.extend()
        guard.commit(cycles.usd("0.20"))
    assert (active["status"], active["extensions"]) == ("ACTIVE", 0)
    assert "charged" not in active
    [settled] = state(http)["reservations"]
    assert (settled["status"], settled["extensions"]) == ("COMMITTED", 1)
    assert settled["reservation_id"] == active["reservation_id"]
    assert (settled["charged"]["amount"], settled["released"]["amount"]) == (20_000_000, 30_000_000)


def test_many_active_reservations_leave_room_for_settled_ones(http: httpx.Client, client: cycles.Cycles) -> None:
    for _ in range(60):
        client.reserve(cycles.tokens(1), action=ACTION).acquire().release()
    for _ in range(210):
        client.reserve(cycles.tokens(1), action=ACTION).acquire().detach()
    found = [row["status"] for row in state(http)["reservations"]]
    assert found == ["ACTIVE"] * 150 + ["RELEASED"] * 50


def test_decisions_say_which_rule_denied_and_what_was_missing(
    http: httpx.Client, server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    client.decide(cycles.usd(1), action=ACTION)
    server.ledger.set_budget("tenant:acme/agent:bot", cycles.usd(1), caps={"max_tokens": 7})
    client.decide(cycles.usd(1), action=ACTION, subject={"agent": "bot"})
    with pytest.raises(cycles.BudgetExceededError) as denied:
        client.reserve(cycles.usd(3), action=ACTION, subject={"agent": "bot"}).acquire()
    server.ledger.set_status("tenant:acme", "FROZEN", "USD_MICROCENTS")
    client.decide(cycles.usd(1), action=ACTION)
    server.client(tenant="other").decide(cycles.usd(1), action=ACTION)
    unbudgeted, frozen, exceeded, capped, allowed = state(http)["decisions"]
    assert [row["decision"] for row in (allowed, capped)] == ["ALLOW", "ALLOW_WITH_CAPS"]
    assert capped["caps"] == {"max_tokens": 7}
    assert exceeded["decision"] == frozen["decision"] == unbudgeted["decision"] == "DENY"
    assert exceeded["reason"] == "BUDGET_EXCEEDED"
    assert exceeded["denied_by"] == "tenant:acme/agent:bot"
    assert exceeded["missing"] == {"unit": "USD_MICROCENTS", "amount": 200_000_000}
    assert exceeded["request_id"] == denied.value.request_id
    assert exceeded["action"] == {"kind": "llm.completion", "name": "small-model"}
    assert (frozen["reason"], frozen["rule"]) == ("BUDGET_FROZEN", "the budget is FROZEN")
    assert unbudgeted["rule"] == "no scope of the subject has a budget in USD_MICROCENTS"


def test_denials_of_debt_and_of_a_limit_are_explained(
    http: httpx.Client, server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    server.ledger.set_budget("tenant:acme", cycles.usd(10), debt=5)
    client.decide(cycles.usd(1), action=ACTION)
    server.ledger.set_budget("tenant:acme", cycles.usd(10), is_over_limit=True)
    client.decide(cycles.usd(1), action=ACTION)
    over, debt = (row["rule"] for row in state(http)["decisions"])
    assert (over, debt) == ("the budget is over its limit", "the budget has debt and no overdraft limit")


def test_requests_have_status_replay_and_fault(
    http: httpx.Client, server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    for _ in range(2):
        client.record(cycles.tokens(1), action=ACTION, idempotency_key="k-1")
    server.faults.status("get", 503)
    http.get("/v1/reservations/r-1")
    http.get("/v1/nonsense")
    unknown, lost, replay, first = state(http)["requests"]
    assert [row["replay"] for row in (unknown, lost, replay, first)] == [False, False, True, False]
    assert (first["operation"], first["status"], first["scope_path"]) == ("event", 201, "tenant:acme")
    assert (lost["fault"], "status" in lost) == ("status", False)
    assert ("operation" in unknown, unknown["status"], unknown["target"]) == (False, 401, "/v1/nonsense")
    assert len(state(http)["decisions"]) == 1  # a replay decides nothing


def test_the_body_of_a_request_is_read_on_demand(http: httpx.Client, client: cycles.Cycles) -> None:
    client.record(cycles.tokens(3), action=ACTION)
    [row] = state(http)["requests"]
    assert "body" not in row
    bodies = http.get(f"/dashboard/requests/{row['id']}").json()
    assert json.loads(bodies["body"])["actual"] == {"unit": "TOKENS", "amount": 3}
    assert json.loads(bodies["response"])["status"] == "APPLIED"
    assert http.get("/dashboard/requests/99").status_code == 404
    assert http.get("/dashboard/requests/x").status_code == 404


def test_a_scope_selects_what_is_in_it(http: httpx.Client, client: cycles.Cycles) -> None:
    for subject in ({}, {"agent": "bot"}, {"agent": "bot2"}):
        client.reserve(cycles.usd("0.1"), action=ACTION, subject=subject).acquire().release()
    found = state(http, "?scope=tenant:Acme/agent:bot")
    assert [row["scope_path"] for row in found["budgets"]] == ["tenant:acme/agent:bot"]
    assert found["budget_count"] == len(found["reservations"]) == len(found["decisions"]) == 1
    assert len(found["requests"]) == 2  # reserve and release
    assert state(http, "?search=AGENT")["budget_count"] == 1
    assert state(http, "?scope=tenant:other")["budget_count"] == 0


def test_of_many_budgets_the_first_500_of_an_order_are_in_a_state_below_1_mb(
    http: httpx.Client, server: cycles.EmbeddedServer
) -> None:
    team = "tenant:acme/workspace:team"
    for number in range(10_000):
        server.ledger.set_budget(f"{team}/agent:bot-{number}", cycles.usd(5), spent=number)
    server.ledger.set_budget(f"{team}/agent:empty", cycles.usd(0))
    server.ledger.set_budget("tenant:acme/agent:small", cycles.usd("0.5"))
    response = http.get("/dashboard/state")
    found = response.json()
    assert found["budget_count"] == 10_005
    assert [row["scope"] for row in found["budgets"][:3]] == ["agent:empty", "agent:bot-9999", "agent:bot-9998"]
    assert len(found["budgets"]) == 500
    assert len(response.content) < 1_000_000
    first = [row["scope_path"] for row in state(http, "?sort=left")["budgets"]]
    assert first[:3] == [f"{team}/agent:empty", "tenant:acme/agent:small", "tenant:acme/agent:bot"]
    first = [row["scope_path"] for row in state(http, "?sort=name")["budgets"]]
    assert first[:2] == ["tenant:acme", "tenant:acme"]
    assert first == sorted(first, key=lambda path: path.split("/"))
    assert http.get("/dashboard/state?sort=colour").json() == {
        "message": "unknown sort: 'colour'; use share, name, left"
    }


def test_the_lock_of_the_ledger_is_never_held_to_make_or_encode_rows(
    http: httpx.Client, server: cycles.EmbeddedServer, client: cycles.Cycles, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = server._ledger._lock
    held: list[bool] = []

    def watched(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            held.append(lock._is_owned())  # type: ignore[attr-defined]
            return function(*arguments)

        return call

    assert server._dashboard is not None
    feed = server._dashboard.feed
    for name in ("budget_row", "reservation_row", "decision_row", "request_row", "fault_rows"):
        monkeypatch.setattr(rows, name, watched(getattr(rows, name)))
    monkeypatch.setattr(feed._log, "_encode", watched(feed._log._encode))
    client.reserve(cycles.usd("0.1"), action=ACTION).acquire().release()
    feed.publish()
    state(http)
    assert len(held) >= 10
    assert not any(held)


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_no_byte_of_the_dashboard_has_an_api_key_or_the_token(
    http: httpx.Client, server: cycles.EmbeddedServer, client: cycles.Cycles
) -> None:
    keys = [server.api_key, KEY, "set-while-it-runs"]
    server.ledger.set_api_key(keys[2], tenant="acme")
    for key in keys:
        http.post(f"/v1/{key}?key={key}", content=json.dumps({"key": key}), headers={"X-Cycles-API-Key": key})
        client.decide(cycles.usd(1), action=(key[:64], key), metadata={"key": key})
    found = state(http)
    paths = [
        "state",
        "summary",
        "denials",
        *(f"requests/{row['id']}" for row in found["requests"]),
        *(p for p in static_files() if p),
    ]
    content = b"".join(http.get(f"/dashboard/{path.lstrip('/')}").content for path in paths)
    assert server._dashboard is not None
    server._dashboard.feed.publish()
    content += b"".join(server._dashboard.feed.after(found["last_event_id"])[0])
    assert [secret for secret in (*keys, token_of(server)) if secret.encode() in content] == []
    assert content.count(REDACTED.encode()) >= 6


def test_the_root_leads_to_the_dashboard(http: httpx.Client) -> None:
    found = http.get("/")
    assert (found.status_code, found.headers["location"]) == (302, "/dashboard")
    assert http.post("/").status_code == 405


def test_the_redactor_leaves_everything_else_alone() -> None:
    redactor = Redactor(["longer-key-1", "longer-key", "x", None, 'quoted"key'])
    value = {"longer-key": ["longer-key-1 and longer-key", 'a quoted"key', 3], "x": "xx", "n": None}
    cleaned = json.loads(redactor.encode(value))
    assert cleaned == {"longer-key": ["*** and ***", "a ***", 3], "x": "xx", "n": None}
    assert json.loads(Redactor(["test"]).encode("the latest test")) == "the latest ***"


@pytest.mark.parametrize("key", ['quoted"key', "back\\slash", "new\nline"])
def test_a_key_is_replaced_also_if_json_writes_it_in_another_way(key: str) -> None:
    assert json.loads(Redactor([key]).encode({"message": f"the key {key} is unknown"})) == {
        "message": "the key *** is unknown"
    }


# --- controls ---------------------------------------------------------------------------------------------------------


def test_the_controls_change_budgets_clock_and_faults(http: httpx.Client, server: cycles.EmbeddedServer) -> None:
    bot = "tenant:acme/agent:bot"
    server.ledger.set_budget(bot, cycles.usd(1), spent=5, caps={})
    for form in (
        {"do": "fund", "scope": bot, "amount": "2USD"},
        {"do": "set", "scope": "tenant:acme/agent:new", "amount": "50", "unit": "TOKENS"},
        {"do": "fund", "scope": "tenant:acme/agent:new", "amount": "1_000"},
        {"do": "fund", "scope": "tenant:acme", "amount": "0.5", "unit": "USD"},
        {"do": "freeze", "scope": "tenant:acme", "unit": "USD"},
        {"do": "freeze", "scope": bot},
        {"do": "unfreeze", "scope": bot, "unit": "USD_MICROCENTS"},
        {"do": "advance", "ms": 5_000},
        {"do": "fault", "operation": "commit", "kind": "delay", "seconds": 2, "times": 3},
        {"do": "fault", "operation": "commit", "kind": "status", "status": 429},
        {"do": "fault", "operation": "list", "kind": "drip", "seconds": 0.5},
        {"do": "fault", "operation": "event", "kind": "drop_response"},
    ):
        done = control(http, server, **form)
        assert (done.status_code, list(done.json())) == (200, ["message"]), form
    assert server.ledger.balance(bot).allocated == cycles.usd(3)
    assert server.ledger.balance("tenant:acme/agent:new").allocated == cycles.tokens(1_050)
    assert server.ledger.balance("tenant:acme", "USD_MICROCENTS").allocated == cycles.usd("10.5")
    found = state(http)
    assert found["at_ms"] == 1_700_000_005_000
    statuses = {(row["scope_path"], row["spent"]["unit"]): row["status"] for row in found["budgets"]}
    assert statuses["tenant:acme", "USD_MICROCENTS"] == "FROZEN"
    assert statuses["tenant:acme", "TOKENS"] == statuses[bot, "USD_MICROCENTS"] == "ACTIVE"
    assert found["faults"] == [
        {"operation": "commit", "kind": "delay", "times": 3, "seconds": 2.0},
        {"operation": "commit", "kind": "status", "times": 1, "status": 429},
        {"operation": "list", "kind": "drip", "times": 1, "seconds": 0.5},
        {"operation": "event", "kind": "drop_response", "times": 1},
    ]
    control(http, server, do="set", scope=bot, amount="7USD")
    kept = server.ledger.balance(bot)
    assert (kept.allocated, kept.spent) == (cycles.usd(7), cycles.usd_microcents(5))
    control(http, server, do="clear_faults")
    assert state(http)["faults"] == []


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({}, "unknown do: None; use fund, set, freeze"),
        ({"do": "fund", "scope": "tenant:acme"}, "amount must be a string, got None"),
        ({"do": "fund", "scope": "tenant:acme", "amount": "ten"}, "cannot read an amount from 'ten'"),
        ({"do": "fund", "scope": "tenant:x", "amount": "5"}, "'5' names no unit; use USD"),
        ({"do": "fund", "scope": "tenant:acme", "amount": "5"}, "tenant:acme has budgets in USD_MICROCENTS, TOKENS"),
        ({"do": "fund", "scope": "acme", "amount": "1USD"}, "'acme' is not level:value"),
        ({"do": "fund", "scope": "tenant:x", "amount": "1USD"}, "no budget for tenant:x in USD_MICROCENTS; use set"),
        ({"do": "freeze", "scope": "tenant:acme"}, "tenant:acme has budgets in USD_MICROCENTS, TOKENS; pass unit="),
        ({"do": "freeze", "scope": "tenant:acme", "unit": "EUR"}, "unknown unit: 'EUR'"),
        ({"do": "advance", "ms": -1}, "ms must be an integer, got -1; send 1 to"),
        ({"do": "advance", "ms": True}, "ms must be an integer, got True"),
        ({"do": "fault", "operation": "nonsense", "kind": "delay"}, "unknown operation: 'nonsense'"),
        ({"do": "fault", "operation": "commit", "kind": "explode"}, "unknown kind: 'explode'; use delay"),
        ({"do": "fault", "operation": "commit", "kind": "delay", "seconds": "x"}, "seconds must be a number, got 'x'"),
        ({"do": "fault", "operation": "commit", "kind": "delay", "times": 0}, "times must be an integer, got 0"),
        ({"do": "fault", "operation": "commit", "kind": "status", "status": 99}, "status must be an integer, got 99"),
    ],
)
def test_a_wrong_control_says_what_to_send(
    http: httpx.Client, server: cycles.EmbeddedServer, form: dict[str, Any], message: str
) -> None:
    response = control(http, server, **form)
    assert response.status_code == 400
    assert message in response.json()["message"]


@pytest.mark.parametrize("body", ["", "{", "[1]", '"x"', " " * 10_001])
def test_a_body_that_is_no_small_json_object_is_rejected(
    http: httpx.Client, server: cycles.EmbeddedServer, body: str
) -> None:
    headers = {"Authorization": f"Bearer {token_of(server)}"}
    response = http.post("/dashboard/control", content=body, headers=headers)
    assert (response.status_code, list(response.json())) == (400, ["message"])


def test_the_clock_of_the_machine_cannot_be_advanced() -> None:
    with cycles.EmbeddedServer() as server, server.listen() as url, httpx.Client(base_url=url) as http:
        response = control(http, server, do="advance", ms=1)
        assert response.status_code == 400
        assert "start the server with a cycles.ManualClock" in response.json()["message"]
        assert http.get("/dashboard/state").headers["X-Cycles-Clock"] == "system"


def test_a_reservation_that_is_used_whole_or_above_releases_nothing(http: httpx.Client, client: cycles.Cycles) -> None:
    for actual in ("0.50", "0.70"):
        with client.reserve(cycles.usd("0.50"), action=ACTION, subject={"agent": "bot"}) as guard:
            guard.commit(cycles.usd(actual))
        settled = state(http)["reservations"][0]
        assert settled["released"]["amount"] == 0
