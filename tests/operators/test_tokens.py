"""`cycles run` and the proxy with budgets in tokens, and what says that a unit is the wrong one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import cycles
from cycles.proxy._totals import Totals
from tests.operators.conftest import Cycles
from tests.operators.kit import environment, processes, run_process
from tests.operators.proxying import proxied
from tests.operators.running import summary
from tests.operators.test_dev import dev

AGENT = ("--", sys.executable, "examples/agent.py")
USED = {"tokens_input": 40, "tokens_output": 100}


def test_a_call_is_counted_in_tokens_without_a_price_of_its_model() -> None:
    with proxied(cycles.tokens(100_000), unit="TOKENS") as place:
        place.provider.reply(usage=USED)
        body = {"model": "no price is known", "messages": [], "max_tokens": 500}
        assert place.post(json=body).status_code == 200
        assert place.server.spent("tenant:run", "TOKENS").amount == 140
        assert place.proxy.app.totals.document(1.0, 0)["spent"] == {"unit": "TOKENS", "amount": 140}
        line = place.proxy.app.totals.line(0.2, cycles.tokens(100_000))
        assert line.startswith("1 call, 140 of 100,000 tokens spent (no price is known 140 tokens), 0 denied")


def test_a_call_beyond_the_tokens_is_denied_and_says_so_in_tokens() -> None:
    with proxied(cycles.tokens(100), unit="TOKENS") as place:
        denied = place.post()
        assert denied.status_code == 402
        assert "100 tokens is left in tenant:run" in denied.json()["error"]["message"]


@pytest.mark.parametrize(
    ("unit", "budget", "other"),
    [("USD_MICROCENTS", cycles.tokens(10**6), "TOKENS"), ("TOKENS", cycles.usd(1), "USD_MICROCENTS")],
)
def test_budgets_in_another_unit_deny_the_call_and_name_the_option(
    unit: str, budget: cycles.Amount, other: str
) -> None:
    with proxied(budget, unit=unit) as place:
        denied = place.post()
        assert (denied.status_code, denied.headers["x-cycles-reason"]) == (402, "unit_mismatch")
        message = denied.json()["error"]["message"]
        assert f"counted in {unit}, and its budgets are in {other}" in message
        assert "pass --unit TOKENS or --unit USD" in message
        assert place.proxy.app.totals.denied_by == {"unit_mismatch": 1}
        assert f"1 denied (unit_mismatch: its budgets are in {other})" in place.proxy.app.totals.line(0.1, None)
        assert place.provider.requests == []


def test_shares_are_in_the_unit_of_the_run() -> None:
    with proxied(cycles.tokens(100_000), limit=cycles.tokens(10_000), unit="TOKENS") as place:
        made = place.post("/shares", json={"name": "bot", "limit": "20%"})
        assert made.status_code == 200
        state = place.proxy.shares.document()["bot"]
        assert state["limit"] == {"unit": "TOKENS", "amount": 2000}
        wrong = place.post("/shares", json={"name": "other", "limit": "1USD"})
        assert (wrong.status_code, "is not in TOKENS; write it like 1000TOKENS" in wrong.text) == (400, True)
        assert place.proxy.shares.lines() == ["share bot: 0 calls, 0 tokens of 2,000 tokens spent, 0 denied"]


def test_one_token_is_one_token() -> None:
    totals = Totals("TOKENS", spent=1)
    assert "1 token spent" in totals.line(0.1, None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--budget", "5USD", "--unit", "TOKENS"), "--unit TOKENS is not the unit of --budget $5.00"),
        (("--budget", "5CREDITS"), "neither in USD nor in TOKENS; write it like 5USD"),
        (("--unit", "TOKENS"), "there is no budget: pass --budget 50000TOKENS"),
    ],
)
def test_wrong_usage(run_here: Cycles, arguments: tuple[str, ...], says: str) -> None:
    ran = run_here("run", *arguments, "--", "true")
    assert ran.status == 2
    assert says in ran.err


@processes
def test_a_run_in_tokens_ends_where_its_budget_does(tmp_path: Path) -> None:
    env = environment(XDG_STATE_HOME=str(tmp_path))
    ran = run_process("run", "--fake", "--budget", "2500TOKENS", "--keep", "t", "--json", *AGENT, env=env)
    found = summary(ran)
    assert (found["calls"], found["denied"], found["spent"]["unit"]) == (2, 1, "TOKENS")
    assert 2000 < found["spent"]["amount"] <= 2500
    again = run_process("run", "--fake", "--keep", "t", *AGENT, env=env)  # the file knows its unit
    assert "of 2,500 tokens spent" in again.err
    dollars = run_process("run", "--fake", "--keep", "t", "--budget", "1USD", *AGENT, env=env)
    assert "6 calls, $0.06" in dollars.err


@processes
def test_dev_names_the_budgets_on_which_no_call_draws_by_default() -> None:
    budgets = ("--budget", "tenant:acme=10USD", "--budget", "tenant:acme/agent:bot=50000TOKENS")
    with dev(*budgets) as (process, _):
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(4)]
    said = [line for line in lines if "no call draws on it" in line]
    assert said == [
        "tenant:acme/agent:bot in TOKENS: no call draws on it by default; it needs --subject agent=bot --unit TOKENS"
    ]
    with dev("--json", *budgets) as (_, line):
        assert set(json.loads(line)) == {"url", "dashboard", "tenants"}
