"""The figures of the dashboard equal the sums of the ledger, after a restart too, and take bounded memory."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

import cycles
from cycles.embedded.dashboard import history
from cycles.embedded.dashboard.history import Charge, History, Steps
from cycles.embedded.http import Request
from tests.support.short import fewer

BOT: Final = "tenant:acme/agent:bot"
MINUTE_MS: Final = 60_000
MODELS: Final = ("large", "medium", "small", "tiny", "nano", "pico", "femto")


@pytest.fixture
def clock() -> cycles.ManualClock:
    return cycles.ManualClock()


@pytest.fixture
def server(clock: cycles.ManualClock) -> Iterator[cycles.EmbeddedServer]:
    budgets: dict[str, Any] = {"tenant:acme": [cycles.usd(900), cycles.tokens(500)], BOT: cycles.usd(500)}
    with cycles.EmbeddedServer(budgets, clock=clock) as server:
        yield server


@pytest.fixture
def http(server: cycles.EmbeddedServer) -> Iterator[httpx.Client]:
    with server.listen() as url, httpx.Client(base_url=url) as http:
        yield http


def summary(http: httpx.Client, **query: str) -> dict[str, Any]:
    found = http.get("/dashboard/summary", params=query)
    assert found.status_code == 200, found.text
    document: dict[str, Any] = found.json()
    for group in document["groups"]:
        assert group["values"][-1] == group["spent"]
        assert len(group["values"]) == len(document["held"])
    assert sum(group["spent"] for group in document["groups"]) == document["spent"]
    return document


def spend(server: cycles.EmbeddedServer, clock: cycles.ManualClock, count: int, step_ms: int) -> None:
    chosen, client = random.Random(count), server.client(tenant="acme")
    for number in range(count):
        subject = {"agent": "bot"} if number % 2 else {}
        with client.reserve(
            cycles.usd("0.50"), action=("llm.completion", chosen.choice(MODELS)), subject=subject
        ) as guard:
            guard.commit(cycles.usd_microcents(chosen.randrange(1, 40_000_000)))
        clock.advance(step_ms)


def charged(server: cycles.EmbeddedServer, clock: cycles.ManualClock, scope: str, since_ms: int) -> int:
    """Return the sum of the ledger's own records."""
    rows = server.ledger.reservations()
    return sum(
        row.charged or 0
        for row in rows
        if scope in row.scopes and (row.finalized_at_ms or 0) >= clock.now_ms() - since_ms
    )


def test_the_sums_of_a_scope_with_more_than_200_reservations_equal_those_of_the_ledger(
    http: httpx.Client, server: cycles.EmbeddedServer, clock: cycles.ManualClock
) -> None:
    clock.advance(-clock.now_ms() % 1_200_000)  # a step begins, so that a period is a number of whole steps
    spend(server, clock, 420, 4 * MINUTE_MS)
    for scope in ("tenant:acme", BOT):
        everything = summary(http, scope=scope, period="all")["spent"]
        balance = server.ledger.balance(scope, "USD_MICROCENTS")
        assert balance.spent is not None
        assert everything == balance.spent.amount == charged(server, clock, scope, 1 << 50)
        for period, steps, step_ms in (("5m", 59, 5_000), ("1h", 59, 60_000), ("24h", 71, 1_200_000)):
            found = summary(http, scope=scope, period=period)
            assert 0 < found["spent"] == charged(server, clock, scope, steps * step_ms + clock.now_ms() % step_ms)
            assert found["spent"] < everything
            for by in ("scope", "action"):
                assert summary(http, scope=scope, period=period, by=by)["spent"] == found["spent"]
    names = Counter(group["name"] for group in summary(http, period="all", by="action")["groups"])
    assert len(names) == 6
    assert names["2 others"] == 1
    assert {group["name"] for group in summary(http, period="all", by="scope")["groups"]} == {"tenant:acme", BOT}
    assert len(http.get(f"/dashboard/state?scope={BOT}").json()["reservations"]) == 200


def test_reserved_and_left_are_those_of_now_and_reserved_has_a_past(
    http: httpx.Client, server: cycles.EmbeddedServer, clock: cycles.ManualClock
) -> None:
    client = server.client(tenant="acme")
    guard = client.reserve(cycles.usd(2), action=("a", "b"), subject={"agent": "bot"}).acquire()
    clock.advance(20_000)
    client.reserve(cycles.usd(1), action=("a", "b"), ttl_ms=200_000).acquire().detach()
    clock.advance(10_000)
    guard.commit(cycles.usd("0.5"))
    found = summary(http)
    assert (found["unit"], found["units"]) == ("USD_MICROCENTS", ["USD_MICROCENTS", "TOKENS"])
    assert (found["reserved"], found["spent"]) == (100_000_000, 50_000_000)
    assert (found["remaining"], found["allocated"]) == (89_850_000_000, 90_000_000_000)
    assert found["held"][-8:] == [0, 2 * 10**8, 2 * 10**8, 2 * 10**8, 2 * 10**8, 3 * 10**8, 3 * 10**8, 10**8]
    assert summary(http, scope=BOT)["remaining"] == 49_950_000_000
    assert summary(http, unit="TOKENS")["remaining"] == 500
    assert summary(http, scope="tenant:other") == summary(http, scope="tenant:other", unit="nonsense")


def test_the_forecast_counts_every_commit_of_its_15_minutes(
    http: httpx.Client, server: cycles.EmbeddedServer, clock: cycles.ManualClock
) -> None:
    """Of many commits half are too old, and the state of the page agrees with the ledger's own forecast."""
    reservation = server.client(tenant="acme").reserve(cycles.usd("0.1"), action=("a", "b"), subject={"agent": "bot"})
    for _ in range(fewer(1_500)):
        reservation.acquire().commit(cycles.usd("0.05"))
        clock.advance(1_800_000 // fewer(1_500))
    at_ms = {each.scope: each.exhausted_at_ms for each in server.ledger.forecasts()}
    rows = http.get("/dashboard/state").json()["budgets"]
    shown = {row["scope_path"]: row["exhausted_at_ms"] - clock.now_ms() for row in rows if "exhausted_at_ms" in row}
    assert set(shown) == {"tenant:acme", BOT}
    for scope, left_ms in shown.items():
        assert left_ms == pytest.approx(at_ms[scope] - clock.now_ms(), rel=0.01)


def test_an_event_is_spent_once_and_with_its_action(http: httpx.Client, server: cycles.EmbeddedServer) -> None:
    client = server.client(tenant="acme")
    for _ in range(2):
        client.record(cycles.tokens(7), action=("tool", "search"), subject={"workspace": "w"}, idempotency_key="k-1")
    [group] = summary(http, unit="TOKENS", by="action")["groups"]
    assert (group["name"], group["spent"]) == ("tool search", 7)
    below = summary(http, scope="tenant:acme/workspace:w")  # it has no budget, and its spend has a unit
    assert (below["units"], below["spent"], below["has_budget"]) == (["TOKENS"], 7, False)


def test_reads_with_large_responses_do_not_push_out_decisions(
    http: httpx.Client, server: cycles.EmbeddedServer
) -> None:
    client = server.client(tenant="acme")
    client.decide(cycles.usd(1), action=("a", "b"), subject={"agent": "bot"})
    for _ in range(400):
        server.handle(Request(method="GET", target="/v1/reservations", headers={"x-cycles-api-key": server.api_key}))
    state = http.get("/dashboard/state").json()
    assert [row["operation"] for row in state["requests"][-2:]] == ["list", "list"]
    narrowed = http.get(f"/dashboard/state?scope={BOT}").json()
    assert [row["operation"] for row in narrowed["requests"]] == ["decide"]


def test_a_budget_with_a_window_names_the_period_of_its_spend(
    http: httpx.Client, server: cycles.EmbeddedServer
) -> None:
    server.ledger.set_window(BOT, cycles.window(cycles.usd(500), "day"))
    periods = {row["scope_path"]: row.get("period") for row in http.get("/dashboard/state").json()["budgets"]}
    assert periods == {"tenant:acme": None, BOT: "day"}


def test_a_reservation_without_a_budget_counts_as_denied(http: httpx.Client, server: cycles.EmbeddedServer) -> None:
    with pytest.raises(cycles.NotFoundError):
        server.client(tenant="nobody").reserve(cycles.usd(1), action=("a", "b")).acquire()
    denied = summary(http, period="1h")["denied"]
    assert [(group["reason"], group["count"]) for group in denied["groups"]] == [("NOT_FOUND", 1)]


def test_denials_are_counted_by_scope_and_reason(
    http: httpx.Client, server: cycles.EmbeddedServer, clock: cycles.ManualClock
) -> None:
    client = server.client(tenant="acme")
    for _ in range(3):
        with pytest.raises(cycles.BudgetExceededError):
            client.reserve(cycles.usd(600), action=("a", "b"), subject={"agent": "bot"}).acquire()
    client.decide(cycles.usd(950), action=("a", "b"))
    server.ledger.set_status(BOT, "FROZEN")
    clock.advance(10 * MINUTE_MS)
    client.decide(cycles.usd(1), action=("a", "b"), subject={"agent": "bot"})
    denied = summary(http, period="1h")["denied"]
    assert denied["count"] == 5
    assert denied["most"] == [{"scope": BOT, "count": 4}]
    assert denied["groups"] == [
        {"scope": BOT, "reason": "BUDGET_EXCEEDED", "count": 3},
        {"scope": "tenant:acme", "reason": "BUDGET_EXCEEDED", "count": 1},
        {"scope": BOT, "reason": "BUDGET_FROZEN", "count": 1},
    ]
    assert denied["since_ms"] == clock.now_ms() - 10 * MINUTE_MS  # the server began in the period
    assert summary(http, period="5m")["denied"]["count"] == 1
    assert summary(http, period="all", scope=BOT)["denied"]["count"] == 4
    denials = http.get("/dashboard/denials")
    assert denials.status_code == 200
    assert denials.json()["denied"] == {BOT: 4, "tenant:acme": 1}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("period=2h", "unknown period: '2h'; use 5m, 1h, 24h, all"),
        ("by=colour", "unknown by: 'colour'; use unit, scope, action"),
    ],
)
def test_an_unknown_choice_is_named(http: httpx.Client, query: str, message: str) -> None:
    response = http.get(f"/dashboard/summary?{query}")
    assert (response.status_code, response.json()) == (400, {"message": message})


def test_the_history_is_in_the_file(tmp_path: Path, clock: cycles.ManualClock) -> None:
    path = tmp_path / "ledger.db"
    shown: list[list[dict[str, Any]]] = []
    for _ in range(2):
        with cycles.EmbeddedServer({"tenant:acme": cycles.usd(900)}, clock=clock, path=path) as server:
            if not shown:
                spend(server, clock, 250, 10 * MINUTE_MS)
                server.client(tenant="acme").record(cycles.usd(3), action=("tool", "search"))
            with server.listen() as url, httpx.Client(base_url=url) as http:
                shown.append([summary(http, period=name, by="action") for name in ("5m", "1h", "24h", "all")])
            spent = server.ledger.balance("tenant:acme").spent
    for found in shown:
        for document in found:
            document.pop("denied")
    assert shown[0] == shown[1]
    assert spent is not None
    assert shown[1][-1]["spent"] == spent.amount


# --- memory -----------------------------------------------------------------------------------------------------------


def total(steps: Steps, now_ms: int, scope: str = "") -> int:
    kept = History()
    kept.periods["5m"] = steps
    return sum(charge for _, _, charge, _ in kept.sums("5m", now_ms).within(scope, "u"))


@pytest.mark.parametrize("name", list(history.PERIODS))
def test_a_year_of_changes_is_a_bounded_number_of_steps(name: str) -> None:
    kept, step_ms = History(), 3_600_000
    for number in range(24 * 365):
        kept.add(Charge(number * step_ms, ("tenant:acme", "u", "a"), 1))
    steps, now_ms = kept.periods[name], (24 * 365 - 1) * step_ms
    assert len(steps.steps) <= steps.most
    assert total(steps, now_ms) == {"5m": 1, "1h": 1, "24h": 24, "all": 24 * 365}[name]


def test_more_names_than_are_kept_shorten_the_period_and_lose_no_sum_of_its_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, "MAX_SUMS", 100)
    steps = Steps(1_000, 60, joins=False)
    for number in range(900):
        steps.add(Charge(number * 100, (f"tenant:acme/agent:bot-{number}", "u", "a"), 1))
    assert steps.size == sum(map(len, steps.steps.values())) <= 100
    assert steps.since_ms == 80_000
    assert total(steps, 89_999) == 100
    crowded = Steps(1_000, 60, joins=False)
    for number in range(900):
        crowded.add(Charge(5, (f"tenant:acme/agent:bot-{number}", "u", "a"), 1))
    assert crowded.size <= 101
    assert total(crowded, 5, "tenant:acme") == 900  # those beyond are counted for the outermost scope


def test_a_change_before_the_period_is_left_out() -> None:
    steps = Steps(1_000, 60, joins=False)
    steps.add(Charge(100_000, ("s", "u", "a"), 1))
    steps.add(Charge(40_000, ("s", "u", "a"), 1))
    steps.add(Charge(41_000, ("s", "u", "a"), 1))
    assert total(steps, 100_999) == 2
