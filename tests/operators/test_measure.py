"""`cycles measure` and `cycles report`: what calls cost, and what a budget would have denied."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings, strategies as st

import cycles
from cycles.embedded.records import Reservation
from cycles.proxy._kept import kept_file
from cycles.proxy._report import Measured, measured, percentile, rounded_up
from cycles.testing import FakeProvider
from tests.operators.conftest import Cycles
from tests.operators.kit import processes, run_process
from tests.operators.running import GPT_4O, USED, far_from_midnight, summary, upstreams
from tests.support.short import fewer

NOON = int(datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp() * 1000)
HOUR = 3_600_000


def call(number: int, reserved: int, cost: int, *, at: int | None = None, took: int = 10, **more: Any) -> Reservation:
    """Return a committed call, at the time `at` after noon, by default one second after the one before."""
    at_ms = NOON + (1_000 * number if at is None else at)
    named: dict[str, Any] = {
        "metadata": {},
        "committed_metadata": {},
        "action": {"kind": "llm.completion", "name": "gpt-4o"},
        **more,
    }
    return Reservation(
        reservation_id=f"r{number}",
        number=number,
        tenant="run",
        idempotency_key=f"k{number}",
        subject={"tenant": "run"},
        unit="USD_MICROCENTS",
        reserved=reserved,
        overage_policy="REJECT",
        scopes=("tenant:run",),
        budgeted=("tenant:run",),
        created_at_ms=at_ms,
        expires_at_ms=at_ms + 60_000,
        grace_period_ms=0,
        max_extensions=0,
        status="COMMITTED",
        charged=cost,
        finalized_at_ms=at_ms + took,
        **named,
    )


def dollars(amount: int) -> cycles.Amount:
    return cycles.Amount("USD_MICROCENTS", amount)


def would_deny(calls: Sequence[Reservation], budget: int, period: Any = None) -> Any:
    window = None if period is None else cycles.window(dollars(budget), period)
    found = measured(calls).document(dollars(budget), window)["would_deny"]
    return found["calls"], found["first_call"], found["spent"]["amount"]


def test_a_budget_that_is_used_up_denies_from_there_on() -> None:
    calls = [call(number, 30, 20) for number in range(1, 8)]
    assert would_deny(calls, 1_000) == (0, None, 140)
    assert would_deny(calls, 70) == (4, 4, 60)  # 60 are spent, and 30 do not fit into 10


def test_a_denied_call_costs_nothing_so_a_smaller_one_fits_later() -> None:
    calls = [call(1, 50, 50), call(2, 60, 10), call(3, 40, 40), call(4, 10, 5)]
    assert would_deny(calls, 100) == (1, 2, 95)


def test_what_runs_holds_what_it_reserved() -> None:
    together = [call(1, 60, 10, at=0, took=10_000), call(2, 60, 10, at=5_000, took=10_000)]
    assert would_deny(together, 100) == (1, 2, 10)
    after = [call(1, 60, 10, at=0, took=10_000), call(2, 60, 10, at=10_000, took=10_000)]
    assert would_deny(after, 100) == (0, None, 20)


def test_a_window_begins_again() -> None:
    calls = [call(number, 20, 20, at=number * 9 * HOUR) for number in range(6)]  # 12, 21, 6, 15, 0, 9 o'clock
    assert would_deny(calls, 40) == (4, 3, 40)
    assert would_deny(calls, 40, "day") == (0, None, 120)
    assert would_deny(calls, 20, "day") == (3, 2, 60)


def test_a_call_that_ends_after_the_edge_of_a_window_is_spent_in_the_new_one() -> None:
    over_midnight = call(1, 30, 30, at=11 * HOUR, took=2 * HOUR)  # from 23 to 1 o'clock
    assert would_deny([over_midnight, call(2, 20, 20, at=14 * HOUR)], 40, "day") == (1, 2, 30)
    assert would_deny([over_midnight, call(2, 10, 10, at=14 * HOUR)], 40, "day") == (0, None, 40)
    before_midnight = call(1, 30, 30, at=9 * HOUR, took=2 * HOUR)  # from 21 to 23 o'clock
    assert would_deny([before_midnight, call(2, 20, 20, at=14 * HOUR)], 40, "day") == (0, None, 50)


@settings(max_examples=fewer(100))
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 5_000)), max_size=12), st.integers(1, 200)
)
def test_a_replay_is_what_a_ledger_would_have_done(given_calls: list[tuple[int, int, int]], budget: int) -> None:
    """The embedded server with this budget, a manual clock and the same calls."""
    calls, at = [], 0
    for number, (reserved, part, pause) in enumerate(given_calls, 1):
        at += pause
        calls.append(call(number, reserved, min(part, reserved), at=at, took=1_500))
    clock = cycles.ManualClock(NOON)
    with (
        cycles.EmbeddedServer({"tenant:run": dollars(budget)}, clock=clock) as server,
        server.client(journal=False) as client,
    ):
        running: list[tuple[int, Any, Reservation]] = []
        denied = 0
        for row in calls:
            for ended_ms, guard, ended in [each for each in running if each[0] <= row.created_at_ms]:
                clock.advance(max(0, ended_ms - clock.now_ms()))
                guard.commit(dollars(ended.charged or 0))
            running = [each for each in running if each[0] > row.created_at_ms]
            clock.advance(max(0, row.created_at_ms - clock.now_ms()))
            try:
                guard = client.reserve(dollars(row.reserved), action=("llm.completion", "m")).acquire()
                running.append((row.finalized_at_ms or 0, guard, row))
            except cycles.BudgetExceededError:
                denied += 1
        for _, guard, ended in running:
            guard.commit(dollars(ended.charged or 0))
        assert would_deny(calls, budget)[::2] == (denied, server.spent("tenant:run").amount)


def test_the_members_of_the_report() -> None:
    calls = [
        call(1, 20, 10, metadata={"run": "a", "agent_path": "planner"}),
        call(2, 20, 11, metadata={"run": "a", "agent_path": "planner/searcher"}),
        call(3, 20, 4, metadata={"run": "b"}, action={"kind": "llm.embedding", "name": "small"}),
        call(4, 0, 0, metadata={"run": "b"}, committed_metadata={"actual_source": "estimate"}),
        call(5, 20, 1, metadata={"run": "b"}, committed_metadata={"unpriced": ["web_searches"]}),
        call(6, 20, 9, action={"kind": "tool.search", "name": "x"}),
        call(7, 20, 9, action={"kind": "llm.imported", "name": "gpt-4o"}),
    ]

    def usd(amount: int) -> dict[str, Any]:
        return {"unit": "USD_MICROCENTS", "amount": amount}

    assert measured(calls).document() == {
        "calls": 5,
        "spent": usd(26),
        "models": {
            "gpt-4o": {"calls": 4, "spent": usd(22), "p50": usd(1), "p95": usd(11), "max": usd(11)},
            "small": {"calls": 1, "spent": usd(4), "p50": usd(4), "p95": usd(4), "max": usd(4)},
        },
        "agents": {
            "planner": {"calls": 1, "spent": usd(10)},
            "planner/searcher": {"calls": 1, "spent": usd(11)},
        },
        "runs": {"count": 2, "p50": usd(5), "p95": usd(21)},
        "unpriced": 2,
        "would_deny": None,
        "proposed": usd(21),
    }
    assert measured(calls, since_ms=NOON + 4_500).document()["calls"] == 1
    assert measured(calls, since_ms=calls[1].created_at_ms).document()["calls"] == 4
    assert Measured("TOKENS", []).document()["proposed"] is None


@pytest.mark.parametrize(
    ("units", "unit"),
    [
        (("TOKENS", "USD_MICROCENTS"), "USD_MICROCENTS"),
        (("TOKENS",), "TOKENS"),
        (("USD_MICROCENTS",), "USD_MICROCENTS"),
        ((), "USD_MICROCENTS"),
    ],
)
def test_the_unit_of_a_report_is_dollars_unless_all_calls_are_counted_in_tokens(
    units: Sequence[str], unit: str
) -> None:
    rows = [attrs.evolve(call(number, 20, 10), unit=each) for number, each in enumerate(units)]
    for named, expected in ((None, unit), ("TOKENS", "TOKENS"), ("USD_MICROCENTS", "USD_MICROCENTS")):
        found = measured(rows, named)
        assert (found.unit, list(found.calls)) == (expected, [row for row in rows if row.unit == expected])


def test_calls_are_replayed_in_the_order_of_their_reservations() -> None:
    rows = [call(number, 20, 10, at=0) for number in (3, 1, 2)]
    assert [row.number for row in measured(rows).calls] == [1, 2, 3]


def test_the_proposal_is_rounded_up_to_two_digits() -> None:
    assert [rounded_up(n) for n in (0, 7, 99, 100, 101, 1_234, 43_710_001)] == [0, 7, 99, 100, 110, 1_300, 44_000_000]
    assert [percentile([5, 1, 3, 2, 4], p) for p in (50, 95, 100)] == [3, 5, 5]
    window = cycles.window(dollars(1), "day")
    calls = [call(number, 20, 20, at=number * 9 * HOUR) for number in range(6)]
    assert measured(calls).document(dollars(1), window)["proposed"]["amount"] == 40
    over_midnight = [call(1, 30, 30, at=11 * HOUR, took=2 * HOUR), call(2, 20, 20, at=14 * HOUR)]
    assert measured(over_midnight).document(dollars(1), window)["proposed"]["amount"] == 50, "of one day"


def test_since_leaves_earlier_calls_out(run: Cycles) -> None:
    clock = cycles.ManualClock(int(time.time() * 1000) - 3 * 24 * HOUR)
    with (
        cycles.EmbeddedServer({"tenant:run": cycles.usd(1)}, path=kept_file("job"), clock=clock) as server,
        server.client(tenant="run", journal=False) as client,
    ):
        for cost in ("0.01", "0.02"):
            with client.reserve(cycles.usd(cost), action=("llm.completion", "gpt-4o")) as guard:
                guard.commit(cycles.usd(cost))
            clock.advance(2 * 24 * HOUR)
    calls = {since: run("report", "--keep", "job", "--since", since, "--json").document for since in ("2d", "4d")}
    assert {since: each["calls"] for since, each in calls.items()} == {"2d": 1, "4d": 2}
    assert calls["2d"]["spent"] == cycles.usd("0.02").to_dict()


@pytest.mark.parametrize("budget", ["50TOKENS", "50TOKENS/day"])
def test_the_calls_of_a_report_are_those_in_the_unit_of_its_budget(run: Cycles, budget: str) -> None:
    budgets = {"tenant:run": [cycles.usd(1), cycles.tokens(1000)]}
    with (
        cycles.EmbeddedServer(budgets, path=kept_file("job")) as server,
        server.client(tenant="run", journal=False) as client,
    ):
        for cost in (cycles.usd("0.01"), cycles.usd("0.01"), cycles.tokens(70)):
            with client.reserve(cost, action=("llm.completion", "gpt-4o")) as guard:
                guard.commit(cost)
    found = run("report", "--keep", "job", "--budget", budget, "--json").document
    assert (found["calls"], found["spent"]) == (1, {"unit": "TOKENS", "amount": 70})
    assert found["would_deny"]["calls"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report"], "cycles measure"),
        (["report", "--keep", "nothing"], "cycles measure"),
        (["report", "--keep", "../x"], "must be a name"),
        (["report", "--budget", "5USD/year"], "5USD/day"),
        (["report", "--budget", "20%"], "5USD"),
        (["report", "--budget", "5"], "5USD"),
        (["report", "--budget", "5USD", "--budget", "6USD"], "it is there 2 times (5USD, 6USD); pass one"),
        (["report", "--budget", "5USD", "--timezone", "UTC"], "5USD/day"),
        (["report", "--budget", "5USD/day", "--timezone", "Mars/Base"], "Europe/Berlin"),
        (["report", "--since", "yesterday"], "7d"),
        (["measure"], "cycles measure -- COMMAND"),
        (["measure", "--budget", "5USD", "--", "false"], "--budget"),
        (["measure", "--ask-at", "90%", "--", "false"], "--ask-at"),
        (["measure", "--warn-at", "90%", "--", "false"], "--warn-at"),
    ],
)
def test_wrong_usage(run: Cycles, arguments: list[str], message: str) -> None:
    ran = run(*arguments)
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err


def test_a_file_that_is_no_ledger(run: Cycles) -> None:
    kept_file("odd").write_bytes(b"no database, but long enough to look like one" * 100)
    ran = run("report", "--keep", "odd")
    assert (ran.status, ran.out) == (2, "")


PROGRAM = """
import openai
for model, path in (("gpt-4o", "planner"), ("gpt-4o", "planner/searcher"), ("nobody-knows-this", None)):
    headers = {} if path is None else {"X-Cycles-Agent": path}
    llm = openai.OpenAI(api_key="k", default_headers=headers)
    llm.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=100)
"""


def digests(folder: Path) -> dict[str, str]:
    """Return the files of a folder with what they contain."""
    return {
        str(path): f"{path.stat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@processes
def test_measure_two_runs_and_report(provider: FakeProvider, tmp_path: Path) -> None:
    provider.reply(usage=USED, times=9)
    program = ("--", sys.executable, "-c", PROGRAM)
    ran = run_process("measure", *upstreams(provider), *program)
    assert ran.status == 0, ran
    assert ran.err.splitlines()[0].startswith("cycles: 3 calls, $0.0070 spent (gpt-4o $0.0070"), ran.err
    assert "kept as measure: $0.0070 spent by all its runs" in ran.err
    again = run_process("measure", "--json", *upstreams(provider), *program)
    assert (summary(again)["denied"], summary(again)["calls"]) == (0, 3)
    state = Path(os.environ["XDG_STATE_HOME"])
    before = digests(state)
    report = run_process("report", "--json", "--budget", "0.01USD").document
    assert digests(state) == before
    assert (report["calls"], report["spent"]["amount"]) == (6, 4 * GPT_4O)
    assert report["models"]["gpt-4o"]["p50"]["amount"] == GPT_4O
    assert {path: each["calls"] for path, each in report["agents"].items()} == {"planner": 2, "planner/searcher": 2}
    assert (report["runs"]["count"], report["runs"]["p95"]["amount"]) == (2, 2 * GPT_4O)
    assert report["unpriced"] == 2
    assert report["would_deny"]["calls"] == 2, report["would_deny"]
    assert report["proposed"] == {"unit": "USD_MICROCENTS", "amount": 2 * GPT_4O}
    text = run_process("report", "--budget", "0.01USD/day", "--timezone", far_from_midnight())
    assert "proposed for each day: $0.014" in text.out, text
    # A ledger without a limit is none for a run that has no budget.
    assert run_process("run", "--keep", "measure", *program).status == 2
    assert run_process("report", "--keep", "measure", "--since", "1h").status == 0
