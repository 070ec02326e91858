"""`cycles fund`, `cycles budget` and `cycles budgets`: effects, prompts, and where address and key come from."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import cycles
from tests.operators.conftest import Cycles
from tests.operators.kit import processes
from tests.operators.test_dev import dev, end

ADMIN_KEY = "cyc_admin_s3cret"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[cycles.EmbeddedServer]:
    budgets = {"tenant:acme": [cycles.usd(10), cycles.tokens(500)], "tenant:acme/agent:bot": [cycles.usd(1)]}
    with cycles.EmbeddedServer(budgets, admin_api_key=ADMIN_KEY) as server, server.listen() as url:
        monkeypatch.setenv("CYCLES_ADMIN_BASE_URL", url)
        monkeypatch.setenv("CYCLES_ADMIN_API_KEY", ADMIN_KEY)
        yield server


def allocated(server: cycles.EmbeddedServer, scope: str = "tenant:acme", unit: str = "USD_MICROCENTS") -> int:
    found = server.ledger.balance(scope, unit).allocated
    assert found is not None
    return found.amount


def test_fund_adds_in_the_unit_of_the_amount(run: Cycles, server: cycles.EmbeddedServer) -> None:
    ran = run("fund", "tenant:acme", "5USD", "--yes", "--reason", "invoice 7")
    assert (ran.status, ran.out) == (0, "tenant:acme: $10.00 became $15.00, $15.00 left\n")
    document = run("fund", "tenant:acme", "100TOKENS", "--yes", "--json").document
    assert document["new_allocated"] == {"unit": "TOKENS", "amount": 600}
    assert (allocated(server), allocated(server, unit="TOKENS")) == (cycles.usd(15).amount, 600)


def test_one_key_funds_once(run: Cycles, server: cycles.EmbeddedServer) -> None:
    for _ in range(2):
        assert run("fund", "tenant:acme", "5USD", "-y", "--idempotency-key", "invoice-7").status == 0
    assert allocated(server) == cycles.usd(15).amount


def test_budget_set_changes_the_amount_or_creates_the_budget(run: Cycles, server: cycles.EmbeddedServer) -> None:
    ran = run("budget", "set", "tenant:acme", "20USD", "--yes")
    assert ran.out == "tenant:acme: $20.00 of $20.00 left, ACTIVE\n"
    document = run("budget", "set", "tenant:acme/agent:new", "2USD", "--yes", "--json").document
    assert (document["scope"], document["allocated"]["amount"]) == ("tenant:acme/agent:new", cycles.usd(2).amount)
    assert allocated(server, "tenant:acme/agent:new") == cycles.usd(2).amount


def test_freeze_and_unfreeze_find_the_only_unit_and_ask_for_it_among_several(
    run: Cycles, server: cycles.EmbeddedServer
) -> None:
    bot = "tenant:acme/agent:bot"
    assert run("budget", "freeze", bot, "--yes").out == f"{bot}: $1.00 of $1.00 left, FROZEN\n"
    assert [row["status"] for row in run("budgets", "--json", "--status", "frozen").document["budgets"]] == ["FROZEN"]
    assert run("budget", "unfreeze", bot, "--yes", "--json").document["status"] == "ACTIVE"
    several = run("budget", "freeze", "tenant:acme", "--yes")
    assert several.status == 2
    assert "tenant:acme has budgets in" in several.err
    assert "pass --unit with one of them" in several.err
    assert run("budget", "freeze", "tenant:acme", "--unit", "tokens", "--yes").status == 0
    with pytest.raises(cycles.BudgetFrozenError):
        server.client().reserve(cycles.tokens(1), action=("tool.call", "x")).acquire()


def test_budgets_lists_all_of_them(run: Cycles, server: cycles.EmbeddedServer) -> None:
    server.client().record(cycles.usd(4), action=("tool.call", "x"))
    lines = [line.split() for line in run("budgets").out.splitlines()]
    assert lines[0] == ["scope", "unit", "spent", "reserved", "left", "of", "status"]
    assert ["tenant:acme", "USD", "$4.00", "$0.00", "$6.00", "$10.00", "ACTIVE"] in lines
    assert len(lines) == 4
    assert len(run("budgets", "--search", "bot", "--json").document["budgets"]) == 1
    assert run("budgets", "--tenant", "other").out == "no budget\n"


@pytest.mark.parametrize(
    "command",
    [
        ("fund", "tenant:acme", "5USD"),
        ("budget", "set", "tenant:acme", "5USD"),
        ("budget", "set", "tenant:acme/agent:new", "5USD"),
        ("budget", "freeze", "tenant:acme/agent:bot"),
        ("budget", "unfreeze", "tenant:acme/agent:bot"),
    ],
)
def test_without_a_terminal_and_yes_nothing_is_changed(
    run: Cycles, server: cycles.EmbeddedServer, command: tuple[str, ...]
) -> None:
    before = run("budgets", "--json").document
    ran = run(*command)
    assert ran.status == 2
    assert "pass --yes to confirm" in ran.err
    assert run("budgets", "--json").document == before


@pytest.mark.parametrize("command", [("fund", "tenant:acme", "5USD", "--yes"), ("budgets",)])
@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("CYCLES_ADMIN_API_KEY", "no admin key: set CYCLES_ADMIN_API_KEY"),
        ("CYCLES_ADMIN_BASE_URL", "no admin server: set CYCLES_ADMIN_BASE_URL"),
    ],
)
def test_a_missing_setting_is_one_line_with_exit_status_2(
    run: Cycles,
    server: cycles.EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    missing: str,
    says: str,
) -> None:
    monkeypatch.delenv(missing)
    ran = run(*command)
    assert (ran.status, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert says in ran.err


@pytest.mark.usefixtures("no_pause")
def test_a_wrong_key_a_missing_budget_and_a_wrong_scope(
    run: Cycles, server: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("fund", "acme", "5USD", "--yes").status == 2
    missing = run("fund", "tenant:acme/agent:none", "5USD", "--yes", "--json")
    assert (missing.status, missing.document["error"]) == (1, "BUDGET_NOT_FOUND")
    monkeypatch.setenv("CYCLES_ADMIN_API_KEY", "wrong")
    assert run("budgets", "--json").status == 1
    monkeypatch.setenv("CYCLES_ADMIN_BASE_URL", "http://127.0.0.1:9")
    assert run("budgets").status == 3


def test_a_profile_has_address_and_key_and_other_commands_ignore_them(
    run: Cycles, server: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = os.environ["CYCLES_ADMIN_BASE_URL"]
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "cycles-sdk" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(
        f'[ops]\nbase_url = "{url}"\napi_key = "{server.api_key}"\ntenant = "acme"\n'
        f'admin_base_url = "{url}"\nadmin_api_key = "{ADMIN_KEY}"\n'
    )
    path.chmod(0o600)
    for name in ("CYCLES_ADMIN_BASE_URL", "CYCLES_ADMIN_API_KEY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the profile comes first
    assert run("budgets", "--profile", "ops").status == 0
    assert run("fund", "tenant:acme", "5USD", "--yes", "--profile", "ops").status == 0
    assert "$15.00" in run("balances", "--profile", "ops").out
    assert ADMIN_KEY not in run("doctor", "--profile", "ops").out


@processes
def test_dev_prints_an_admin_key_only_with_its_option(run: Cycles, monkeypatch: pytest.MonkeyPatch) -> None:
    with dev("--admin", "--json") as (process, line):
        for name, value in json.loads(line)["environment"].items():
            monkeypatch.setenv(name, value)
        assert run("fund", "tenant:acme", "5USD", "--yes").out == "tenant:acme: $10.00 became $15.00, $15.00 left\n"
        end(process, signal.SIGTERM)
    with dev("--json") as (_, line):
        assert "environment" not in json.loads(line)
