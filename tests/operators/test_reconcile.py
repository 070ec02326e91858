"""`cycles reconcile`: each row and cause of the bill beside the ledger, what is rejected, and where the key goes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

import cycles
from tests.operators.admin_apis import CENT, KEY, AdminApis, Billed, Ledger, ago, serving, today
from tests.operators.conftest import Cycles
from tests.operators.journals import fill
from tests.operators.kit import Ran

DOLLAR = 100 * CENT


EMBEDDINGS = "/v1/organization/usage/embeddings"


@pytest.fixture
def apis(one_day: None) -> Iterator[AdminApis]:
    with serving(AdminApis()) as made:
        yield made


@pytest.fixture
def ledger(one_day: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """A ledger over HTTP, and both admin keys in the environment."""
    made = Ledger()
    with made.server.listen() as made.url:
        url = made.url
        monkeypatch.setenv("CYCLES_BASE_URL", url)
        monkeypatch.setenv("CYCLES_API_KEY", made.server.api_key)
        monkeypatch.setenv("CYCLES_TENANT", "acme")
        monkeypatch.setenv("OPENAI_ADMIN_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_ADMIN_API_KEY", KEY)
        yield made
    made.close()


class Reconcile:
    """Runs the command against the fake admin APIs, and checks that the key is nowhere in its output."""

    def __init__(self, run: Cycles, apis: AdminApis) -> None:
        self._run = run
        self._apis = apis

    def __call__(self, *more: str, provider: str = "openai", upstream: str | None = None) -> Ran:
        address = ("--upstream", upstream or self._apis.url)
        ran = self._run("reconcile", "--provider", provider, *address, *more)
        assert KEY not in ran.out + ran.err
        return ran

    def rows(self, *more: str, provider: str = "openai") -> list[Any]:
        found: list[Any] = self(*more, "--json", provider=provider).document["rows"]
        return found


@pytest.fixture
def reconcile(run_on_that_day: Cycles, apis: AdminApis) -> Reconcile:
    return Reconcile(run_on_that_day, apis)


def causes(row: Any) -> list[tuple[str, int | None]]:
    return [(each["cause"], each["amount"]) for each in row["causes"]]


# --- what is compared ---------------------------------------------------------------------------------------------


def test_a_ledger_that_agrees_with_the_bill_is_ok(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    """Dates of model names do not matter, seven days are read page by page, and every sum is exact."""
    for days in range(7, 0, -1):
        ledger.spend(ago(days), "gpt-4o", "0.10000001")
        ledger.spend(ago(days), "gpt-4o", "0.2")
        apis.bill.append(Billed(day=ago(days), model="gpt-4o-2024-08-06", amount="0.10000001"))
        apis.bill.append(Billed(day=ago(days), model="gpt-4o-2024-08-06", amount="0.2", item="output_tokens"))
    ran = reconcile("--json", "--tolerance", "0%")
    assert ran.status == 0, ran
    found = ran.document
    assert {name: found[name] for name in found if name not in ("rows", "imports")} == {
        "provider": "openai",
        "since": ago(7).isoformat(),
        "until": today().isoformat(),
        "unit": "USD_MICROCENTS",
        "bill": 7 * 30_000_001,
        "ledger": 7 * 30_000_001,
        "imported": 0,
        "difference": 0,
        "ok": True,
    }
    assert found["imports"] == []
    assert found["rows"][0] == {
        "day": ago(7).isoformat(),
        "model": "gpt-4o",
        "bill": 30_000_001,
        "ledger": 30_000_001,
        "imported": 0,
        "difference": 0,
        "bill_calls": 2,
        "ledger_calls": 2,
        "ok": True,
        "causes": [],
    }
    assert [row["day"] for row in found["rows"]] == [ago(days).isoformat() for days in range(7, 0, -1)]


def test_the_requests_to_openai(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    assert reconcile().status == 0
    costs = [seen for seen in apis.requests if seen.path == "/v1/organization/costs"]
    usage = [seen for seen in apis.requests if seen.path == "/v1/organization/usage/completions"]
    assert len(costs) == len(usage) == 4  # seven days, two a page
    assert {seen.path for seen in apis.requests} == {costs[0].path, usage[0].path}
    start, end = (str(int(datetime.combine(day, datetime.min.time(), UTC).timestamp())) for day in (ago(7), today()))
    assert costs[0].query == {
        "start_time": [start],
        "end_time": [end],
        "bucket_width": ["1d"],
        "group_by[]": ["line_item"],
        "limit": ["31"],
    }
    assert usage[0].query["group_by[]"] == ["model", "service_tier", "batch"]
    assert [seen.query.get("page") for seen in costs] == [None, ["page_1"], ["page_2"], ["page_3"]]
    for seen in apis.requests:
        assert seen.headers["authorization"] == f"Bearer {KEY}"
        assert seen.headers["user-agent"].startswith("cycles-sdk/")


def test_the_requests_to_anthropic(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    assert reconcile("--since", "2d", provider="anthropic").status == 0
    [seen] = apis.requests
    assert seen.path == "/v1/organizations/analytics/cost"
    assert seen.query == {
        "starting_at": [f"{ago(2)}T00:00:00Z"],
        "ending_at": [f"{today()}T00:00:00Z"],
        "time_bucket_width": ["1d"],
        "group_by[]": ["model", "service_tier"],
        "order_by": ["time"],
        "order": ["asc"],
        "limit": ["1000"],
    }
    assert seen.headers["x-api-key"] == KEY
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert seen.headers["anthropic-beta"] == "analytics-usage-cost-2026-08-24"
    assert "authorization" not in seen.headers


def test_anthropic_in_cents_with_both_reports(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    ledger.spend(ago(2), "claude-sonnet-4-5-20250929", "1.23456789")
    ledger.spend(ago(1), "claude-opus-4@20250514", "0.5", metadata={"provider": "anthropic"})
    apis.bill = [
        Billed(day=ago(2), model="claude-sonnet-4-5", amount="1.23456789"),
        Billed(day=ago(1), model="claude-opus-4-20250514", amount="0.5"),
    ]
    rows = reconcile.rows(provider="anthropic")
    assert [(row["model"], row["bill"], row["bill_calls"], row["ok"]) for row in rows] == [
        ("claude-sonnet-4-5", 123_456_789, 1, True),
        ("claude-opus-4", 50_000_000, 1, True),
    ]
    apis.has_analytics = False
    older = reconcile.rows(provider="anthropic")
    assert [row["bill_calls"] for row in older] == [None, None]
    assert [(row["bill"], row["ledger"], row["ok"]) for row in older] == [
        (123_456_789, 123_456_789, True),
        (50_000_000, 50_000_000, True),
    ]
    last = apis.requests[-1]
    assert (last.path, last.query["bucket_width"], last.query["group_by[]"]) == (
        "/v1/organizations/cost_report",
        ["1d"],
        ["description"],
    )


def test_amounts_are_decimals_and_never_floats(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    """0.1 ten times is not 1 as a float; 8 million dollars and a microcent need more digits than a float has."""
    for number in range(10):
        apis.bill.append(Billed(day=ago(1), model="gpt-4o", amount="0.1", item=f"part {number}"))
    apis.bill.append(Billed(day=ago(2), model="gpt-5", amount="90071992.54740993"))
    apis.bill.append(Billed(day=ago(3), model="gpt-5", amount="1.56e-7"))
    rows = {row["day"]: row["bill"] for row in reconcile.rows()}
    assert rows == {ago(1).isoformat(): DOLLAR, ago(2).isoformat(): 9_007_199_254_740_993, ago(3).isoformat(): 16}


def test_the_day_is_that_of_the_reservation_in_utc(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    """A settlement from the journal may come days later."""
    ledger.go_to(ago(5), 23.9)
    guard = ledger.client.reserve(
        cycles.usd(1), action=("llm.completion", "gpt-4o"), ttl_ms=3_600_000, grace_period_ms=60_000
    ).acquire()
    reservation_id = guard.reservation_id
    assert reservation_id is not None
    guard.detach()
    ledger.go_to(ago(4), 0.5)
    ledger.client.commit_reservation(reservation_id, cycles.usd(1))
    apis.bill = [Billed(day=ago(5), model="gpt-4o", amount="1")]
    [row] = reconcile.rows()
    assert (row["day"], row["ok"]) == (ago(5).isoformat(), True)


def test_which_reservations_belong_to_the_provider(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    day = ago(1)
    apis.bill = [Billed(day=day, model="named-by-the-bill", amount="1")]
    ledger.spend(day, "named-by-the-bill", "1")
    ledger.spend(day, "models/ft-of-mine", "2", metadata={"provider": "openai"})
    ledger.spend(day, "gpt-4o-2024-08-06", "3")
    ledger.spend(day, "o3", "4")
    ledger.spend(day, "claude-sonnet-4-5", "5")
    ledger.spend(day, "gpt-4o", "6", metadata={"provider": "azure"})
    ledger.spend(day, "gpt-4o", "7", kind="tool.search")
    ledger.go_to(day)
    assert {row["model"]: row["ledger"] for row in reconcile.rows()} == {
        "named-by-the-bill": DOLLAR,
        "ft-of-mine": 2 * DOLLAR,
        "gpt-4o": 3 * DOLLAR,
        "o3": 4 * DOLLAR,
    }


def test_an_alias_joins_two_names(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    ledger.spend(ago(1), "my-deployment", "1")
    apis.bill = [Billed(day=ago(1), model="gpt-4o-2024-08-06", amount="1")]
    assert reconcile("--json").status == 4
    [row] = reconcile.rows("--alias", "gpt-4o=my-deployment")
    assert (row["model"], row["ledger"], row["ok"]) == ("gpt-4o", DOLLAR, True)
    [row] = reconcile.rows("--alias", "gpt-4o-2024-08-06=my-deployment")
    assert row["ok"]


def test_the_model_of_the_response_joins_a_name_that_the_provider_resolves(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger
) -> None:
    ledger.spend(ago(1), "gpt-latest", "1", committed={"response_model": "gpt-5-2026-01-01"})
    apis.bill = [Billed(day=ago(1), model="gpt-5-2026-01-01", amount="1")]
    [row] = reconcile.rows()
    assert (row["model"], row["ok"]) == ("gpt-5", True)


def test_chunks_of_pools_are_itemised(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    day = ago(1)
    ledger.go_to(day)
    with ledger.client.pool(limit=cycles.usd(9), max_held=cycles.usd(9), action=("llm.completion", "gpt-4o")) as pool:
        for model, cost in (("gpt-4o", "1"), ("gpt-4o-mini", "0.25"), ("gpt-4o-mini", "0.25")):
            with pool.reserve(cycles.usd(2), action=("llm.completion", model)) as guard:
                guard.commit(cycles.usd(cost))
    listed = {"pool": "p", "pool_chunk": 1, "pool_calls": 5, "actions": {"o3": [2, 10 * CENT]}}
    ledger.spend(day, "gpt-5", "0.5", committed=listed)
    apis.bill = [
        Billed(day=day, model="gpt-4o", amount="1", calls=1),
        Billed(day=day, model="gpt-4o-mini", amount="0.5", calls=2),
        Billed(day=day, model="o3", amount="0.1", calls=2),
        Billed(day=day, model="gpt-5", amount="0.4", calls=3),
    ]
    rows = reconcile.rows("--tolerance", "0%")
    assert [(row["model"], row["ledger_calls"], row["ok"]) for row in rows] == [
        ("gpt-4o", 1, True),
        ("gpt-4o-mini", 2, True),
        ("gpt-5", 3, True),
        ("o3", 2, True),
    ]


def test_a_subject_selects_reservations(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    ledger.spend(ago(1), "gpt-4o", "1", subject={"agent": "planner"})
    ledger.spend(ago(1), "gpt-4o", "2", subject={"agent": "writer"})
    apis.bill = [Billed(day=ago(1), model="gpt-4o", amount="1")]
    assert [row["ledger"] for row in reconcile.rows("--subject", "agent=planner")] == [DOLLAR]
    assert [row["ledger"] for row in reconcile.rows()] == [3 * DOLLAR]


def test_the_tolerance_is_a_part_of_the_bill_of_a_row(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    ledger.spend(ago(2), "gpt-4o", "0.999")
    ledger.spend(ago(1), "gpt-5", "0.00000001")
    apis.bill = [Billed(day=ago(2), model="gpt-4o", amount="1")]
    assert [row["ok"] for row in reconcile.rows()] == [True, False]  # without a bill only 0 is ok
    assert [row["ok"] for row in reconcile.rows("--tolerance", "0.09%")] == [False, False]
    assert [row["ok"] for row in reconcile.rows("--until", ago(1).isoformat())] == [True]


# --- causes -------------------------------------------------------------------------------------------------------


def test_calls_outside_the_guard(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    ledger.spend(ago(1), "gpt-4o", "1")
    apis.bill = [
        Billed(day=ago(1), model="gpt-4o", amount="4", calls=4),
        Billed(day=ago(1), model="gpt-5", amount="2", calls=2),
    ]
    some, all_outside = reconcile.rows()
    assert some["causes"] == [
        {"cause": "outside_guard", "amount": None, "detail": "3 calls outside the guard", "calls": 3}
    ]
    assert causes(all_outside) == [("outside_guard", 2 * DOLLAR)]
    assert all_outside["causes"][0]["calls"] == 2


def test_embeddings_have_their_own_report_of_calls(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    ledger.spend(ago(1), "text-embedding-3-small", "0.1")
    apis.bill = [Billed(day=ago(1), model="text-embedding-3-small", amount="0.3", calls=3)]
    [row] = reconcile.rows()
    assert (row["bill_calls"], causes(row)) == (3, [("outside_guard", None)])
    assert [seen.path for seen in apis.requests if "embeddings" in seen.path] == [EMBEDDINGS] * 4  # two days a page
    assert {tuple(seen.query["group_by[]"]) for seen in apis.requests if seen.path == EMBEDDINGS} == {("model",)}
    apis.requests.clear()
    apis.bill = [Billed(day=ago(1), model="gpt-4o", amount="0.3")]
    reconcile.rows()
    assert EMBEDDINGS not in [seen.path for seen in apis.requests]


def test_without_a_number_of_calls_no_price_is_blamed_alone(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger
) -> None:
    """A gateway without the report of embeddings, and images: the bill does not say how many calls it has."""
    apis.has_embeddings = False
    for model in ("text-embedding-3-small", "gpt-image-1"):
        ledger.spend(ago(1), model, "0.1")
    apis.bill = [
        Billed(day=ago(1), model="text-embedding-3-small", amount="0.3"),
        Billed(day=ago(1), model="gpt-image-1", amount="0.3", calls=None),
    ]
    rows = reconcile.rows()
    assert len(rows) == 2
    for row in rows:
        assert (row["bill_calls"], causes(row)) == (None, [("price", None)])
        assert "calls outside the guard" in row["causes"][0]["detail"]


def test_a_line_without_a_model(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    apis.bill = [Billed(day=ago(1), model=None, amount="0.3", item="Vector storage")]
    [row] = reconcile.rows()
    assert (row["model"], causes(row)) == ("Vector storage", [("not_a_model", 30 * CENT)])
    [row] = reconcile.rows(provider="anthropic")
    assert causes(row) == [("not_a_model", 30 * CENT)]
    apis.has_analytics = False
    [row] = reconcile.rows(provider="anthropic")
    assert (row["model"], causes(row)) == ("Vector storage", [("not_a_model", 30 * CENT)])


def test_which_line_items_of_openai_have_a_model(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    """A name without a comma may be that of a model, and one with a comma may be that of a tool."""
    ledger.spend(ago(1), "gpt-4o", "1")
    apis.bill = [
        Billed(day=ago(1), model=None, amount="1", item="gpt-4o-2024-08-06"),
        Billed(day=ago(1), model=None, amount="0.3", item="Code Interpreter, sessions"),
    ]
    tool, model = reconcile.rows()
    assert (tool["model"], causes(tool)) == ("Code Interpreter", [("not_a_model", 30 * CENT)])
    assert (model["model"], model["ok"]) == ("gpt-4o", True)


def test_the_edge_of_a_day(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    ledger.spend(ago(3), "gpt-4o", "1", hours=23.99)
    ledger.spend(ago(2), "gpt-4o", "5")
    apis.bill = [
        Billed(day=ago(3), model="gpt-4o", amount="0", calls=0),
        Billed(day=ago(2), model="gpt-4o", amount="6", calls=2),
    ]
    first, second = reconcile.rows()
    assert causes(first) == [("day_edge", -DOLLAR)]
    assert causes(second) == [("day_edge", DOLLAR), ("outside_guard", None)]


def test_reservations_that_expired(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    ledger.spend(ago(1), "gpt-4o", "1")
    ledger.expire(ago(1), "gpt-4o", "0.7")
    apis.bill = [Billed(day=ago(1), model="gpt-4o", amount="1.5", calls=2)]
    [row] = reconcile.rows()
    assert (row["ledger_calls"], causes(row)) == (2, [("expired", 70 * CENT)])


@pytest.mark.parametrize(
    ("committed", "expected"),
    [
        ({"actual_source": "estimate"}, [("estimate", DOLLAR)]),
        ({"unpriced": ["web_searches"]}, [("unpriced", None)]),
        ({"price_source": "fallback"}, [("fallback_price", DOLLAR)]),
        (
            {"actual_source": "estimate", "unpriced": ["x"], "price_source": "fallback"},
            [("estimate", DOLLAR), ("unpriced", None), ("fallback_price", DOLLAR)],
        ),
        ({}, [("price", None)]),
    ],
)
def test_what_the_ledger_says_about_its_amounts(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger, committed: Any, expected: Any
) -> None:
    ledger.spend(ago(1), "gpt-4o", "1", committed=committed)
    apis.bill = [Billed(day=ago(1), model="gpt-4o", amount="1.2")]
    [row] = reconcile.rows()
    assert causes(row) == expected


def test_another_tier(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    for model in ("gpt-4o", "gpt-5"):
        ledger.spend(ago(1), model, "1")
    apis.bill = [
        Billed(day=ago(1), model="gpt-4o", amount="0.5", tier="flex"),
        Billed(day=ago(1), model="gpt-5", amount="0.5", batch=True),
    ]
    flex, batch = reconcile.rows()
    assert causes(flex) == causes(batch) == [("tier", None)]
    assert ("flex" in flex["causes"][0]["detail"], "batch" in batch["causes"][0]["detail"]) == (True, True)


def test_a_discount(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    ledger.spend(ago(1), "claude-opus-4", "1")
    apis.bill = [Billed(day=ago(1), model="claude-opus-4", amount="0.9", listed="1")]
    [row] = reconcile.rows(provider="anthropic")
    assert causes(row) == [("discount", 10 * CENT)]


def test_the_text_names_every_difference(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    ledger.spend(ago(2), "gpt-4o", "1")
    ledger.spend(ago(1), "gpt-4o-mini", "0.1", committed={"actual_source": "estimate"})
    ledger.spend(ago(1), "o3", "0.5")
    apis.bill = [
        Billed(day=ago(2), model="gpt-4o", amount="4", calls=4),
        Billed(day=ago(1), model="gpt-4o-mini", amount="0.16"),
        Billed(day=ago(1), model="o3", amount="0.5"),
    ]
    ran = reconcile()
    assert ran.status == 4
    assert ran.out.splitlines() == [
        f"{ago(2)}  gpt-4o       bill $4.0000  ledger $1.0000  $3.0000 more on the bill: 3 calls outside the guard",
        f"{ago(1)}  gpt-4o-mini  bill $0.1600  ledger $0.1000  $0.0600 more on the bill: 1 call was settled at an "
        "estimate ($0.1000)",
        "7 days, 3 models: bill $4.6600, ledger $1.6000; 2 of 3 rows differ by more than 0.1%",
        "events cannot be listed: spend that was recorded with cycles record, or as an event, is missing",
    ]


def test_reading_changes_nothing(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    ledger.spend(ago(1), "gpt-4o", "1")
    apis.bill = [Billed(day=ago(1), model="gpt-4o", amount="4")]
    before = len(ledger.server.requests)
    reconcile()
    assert {request.method for request in ledger.server.requests[before:]} == {"GET"}
    assert ledger.spent == DOLLAR


def _dated(text: str) -> str:
    """Return a text with the day that was so many days ago in place of ``DAY7``."""
    return re.sub(r"DAY(\d+)", lambda found: ago(int(found[1])).isoformat(), text)


# --- what is rejected ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--provider", "acme"], "openai"),
        ([], "--provider'. Choose from: openai, anthropic"),
        (["--provider", "openai", "--since", "yesterday"], "7d"),
        (["--provider", "openai", "--since", "2026-13-01"], "is no day"),
        (["--provider", "openai", "--since", "20260101"], "is no day"),
        (["--provider", "openai", "--since", "0d"], "7d"),
        (["--provider", "openai", "--since", "2999-01-01"], "future"),
        (["--provider", "openai", "--until", "2999-01-01"], "future"),
        (["--provider", "openai", "--until", "7d"], "2026-11-24"),
        (["--provider", "openai", "--since", "DAY0"], "not over"),
        (["--provider", "openai", "--since", "DAY2", "--until", "DAY3"], "not after"),
        (["--provider", "openai", "--since", "31d"], "30 days"),
        (["--provider", "openai", "--since", "DAY31"], "DAY30"),
        (["--provider", "openai", "--since", "DAY31", "--until", "DAY29"], "30 days"),
        (["--provider", "openai", "--since", "29d", "--import", "--yes"], "DAY28"),
        (["--provider", "openai", "--import"], "--yes"),
        (["--provider", "openai", "--tolerance", "0.1"], "0.1%"),
        (["--provider", "openai", "--tolerance", "101%"], "0.1%"),
        (["--provider", "openai", "--tolerance", "-1%"], "0.1%"),
        (["--provider", "openai", "--alias", "gpt-4o"], "BILL=LEDGER"),
        (["--provider", "openai", "--upstream", "api.openai.com"], "https://"),
        (["--provider", "openai", "--upstream", "http://api.openai.com"], "https://"),
        (["--provider", "openai", "--upstream", "https://user@host"], "https://"),
    ],
)
def test_wrong_usage_sends_nothing(
    run: Cycles, ledger: Ledger, apis: AdminApis, arguments: list[str], message: str
) -> None:
    before = len(ledger.server.requests)
    ran = run("reconcile", *map(_dated, arguments))
    assert (ran.status, ran.out) == (2, ""), ran
    assert _dated(message) in ran.err
    assert len(ledger.server.requests) == before
    assert apis.requests == []


def test_the_longest_periods(reconcile: Reconcile, ledger: Ledger) -> None:
    assert reconcile("--since", "30d").status == 0
    assert reconcile("--since", "28d", "--import", "--yes").status == 0


@pytest.mark.parametrize(
    ("provider", "variable"), [("openai", "OPENAI_ADMIN_KEY"), ("anthropic", "ANTHROPIC_ADMIN_API_KEY")]
)
@pytest.mark.parametrize("value", [None, "", "line\nend", "gr\u00fcn", "two words"])
def test_a_missing_or_impossible_key_names_the_variable(
    reconcile: Reconcile,
    apis: AdminApis,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    variable: str,
    value: str | None,
) -> None:
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    ran = reconcile(provider=provider)
    assert (ran.status, ran.out) == (2, "")
    assert variable in ran.err
    if value:
        assert value not in ran.err
    assert apis.requests == []


HTML = b"<html>" + b"x" * 10_000
REPEATED = json.dumps({"object": "page", "data": [], "has_more": True, "next_page": "page_1"}).encode()
ENDLESS = json.dumps({"object": "page", "data": [], "has_more": True, "next_page": None}).encode()
EMPTY = json.dumps({"object": "page", "data": [], "has_more": False, "next_page": None}).encode()
NOT_A_LIST = json.dumps({"object": "page", "data": {}, "has_more": False}).encode()


def bucket(result: Any) -> bytes:
    at = int(datetime.combine(ago(1), datetime.min.time(), UTC).timestamp())
    data = [{"object": "bucket", "start_time": at, "end_time": at + 86_400, "results": [result]}]
    return json.dumps({"object": "page", "data": data, "has_more": False, "next_page": None}).encode()


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize(
    ("status", "body", "exit_status"),
    [
        (500, b"", 3),
        (503, HTML, 3),
        (429, b"{}", 3),
        (200, HTML, 3),
        (200, b"", 3),
        (200, b"[]", 3),
        (200, b'{"data": [', 3),
        (200, NOT_A_LIST, 3),
        (200, REPEATED, 3),
        (200, ENDLESS, 3),
        (302, b"", 3),
        (307, b"", 3),
        (400, json.dumps({"error": {"message": f"bad {KEY}"}}).encode(), 1),
        (401, json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}}).encode(), 1),
        (403, json.dumps({"error": {"message": f"no access for {KEY}"}}).encode(), 1),
    ],
)
def test_what_is_no_report(
    reconcile: Reconcile,
    apis: AdminApis,
    ledger: Ledger,
    provider: str,
    status: int,
    body: bytes,
    exit_status: int,
) -> None:
    with serving(AdminApis()) as elsewhere:
        apis.respond = lambda seen: (status, {"Location": elsewhere.url + seen.path}, body)
        ran = reconcile(provider=provider)
        assert (ran.status, ran.out) == (exit_status, "")
        assert ran.err.startswith("error: ")
        document = reconcile("--json", provider=provider).document
        assert set(document) == {"error", "message"}
        assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("result", "detail"),
    [
        ({}, "KeyError"),
        ({"line_item": "gpt-4o, input", "amount": {"value": "many", "currency": "usd"}}, "'many' is no amount"),
        ({"line_item": "gpt-4o, input", "amount": {"value": True, "currency": "usd"}}, "True is no amount"),
        ({"line_item": "gpt-4o, input", "amount": {"value": "NaN", "currency": "usd"}}, "'NaN' is no amount"),
        ({"line_item": "gpt-4o, input", "amount": {"value": "1e999999999", "currency": "usd"}}, "is no amount"),
        ({"line_item": "gpt-4o, input", "amount": {"value": "1e-999999999", "currency": "usd"}}, "is no amount"),
        ({"line_item": "gpt-4o, input", "amount": {"value": 1, "currency": "eur"}}, "in 'eur', and not in usd"),
        ({"line_item": "gpt-4o, input", "amount": {"value": 1, "currency": None}}, "in None, and not in usd"),
        ({"line_item": "gpt-4o, input", "amount": 1}, "AttributeError"),
        ("text", "AttributeError"),
    ],
)
def test_an_amount_that_is_none_is_no_report(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger, result: Any, detail: str
) -> None:
    apis.respond = lambda seen: (200, {}, bucket(result) if "costs" in seen.path else EMPTY)
    ran = reconcile()
    assert (ran.status, ran.out) == (3, "")
    assert "/v1/organization/costs returned a body that is no report: " in ran.err
    assert detail in ran.err


def test_a_bill_of_anthropic_in_another_currency_is_no_report(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger
) -> None:
    item = {"starting_at": f"{ago(1)}T00:00:00Z", "group": {"model": "claude-haiku-4-5"}}
    page = {"object": "page", "data": [{**item, "cost": {"amount": "1", "currency": "EUR"}}], "has_more": False}
    apis.respond = lambda seen: (200, {}, json.dumps(page).encode())
    ran = reconcile(provider="anthropic")
    assert (ran.status, ran.out) == (3, "")
    assert "an amount is in 'EUR', and not in USD" in ran.err


def test_a_body_without_an_end_is_not_read_to_its_end(reconcile: Reconcile, apis: AdminApis, ledger: Ledger) -> None:
    apis.respond = lambda seen: (200, {}, b" " * (17 * 1024 * 1024))
    ran = reconcile()
    assert ran.status == 3
    assert "more than 16777216 bytes" in ran.err


@pytest.mark.usefixtures("no_pause")
def test_no_admin_api_and_no_ledger(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reconcile(upstream="http://127.0.0.1:9").status == 3
    monkeypatch.setenv("CYCLES_BASE_URL", "http://127.0.0.1:9")
    assert reconcile().status == 3
    monkeypatch.delenv("CYCLES_BASE_URL")
    ran = reconcile()
    assert (ran.status, "CYCLES_BASE_URL" in ran.err) == (2, True)


def test_the_admin_key_reaches_no_proxy_and_no_cycles_server(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(AdminApis()) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")  # the server of Cycles, and not the admin API by its other name
        assert reconcile(upstream=apis.url.replace("127.0.0.1", "localhost")).status == 0
        assert proxy.requests == []
    sent = [value for request in ledger.server.requests for value in request.headers.values()]
    assert not any(KEY in value for value in sent)


def test_pending_records_are_counted(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYCLES_JOURNAL_DIR", str(tmp_path / "journal"))
    ledger.server.faults.refuse("event", times=None)
    with ledger.server.client(tenant="acme", journal=True, journal_dir=tmp_path / "journal", flush_timeout=0) as client:
        client.record(cycles.usd(1), action=("llm.completion", "gpt-4o"))
    ran = reconcile()
    assert ran.out.splitlines()[-2] == "1 record of this machine is pending and not in the ledger yet"


def test_what_is_pending_may_be_deferred_or_of_another_server(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYCLES_JOURNAL_DIR", str(tmp_path / "journal"))
    fill(tmp_path / "journal", ledger.url)
    ran = reconcile()
    assert ran.out.splitlines()[-2] == "3 records of this machine are pending and not in the ledger yet"
