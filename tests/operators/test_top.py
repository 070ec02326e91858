"""`cycles top`, and what other commands draw on a terminal."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import cycles
from tests.operators.conftest import Cycles
from tests.operators.journals import a_record, journal
from tests.operators.kit import processes
from tests.operators.test_commands import commit, reserve

MEMBERS = {"at_ms", "balances", "forecast", "reservations", "records"}


@pytest.fixture
def busy(configured: cycles.EmbeddedServer) -> cycles.EmbeddedServer:
    """A server with one live and one settled reservation, and a pending record."""
    client = configured.client(tenant="acme", journal=False)
    commit(client, "other", 4)
    reserve(client)
    gone = "http://127.0.0.1:9"
    journal(Path(os.environ["CYCLES_JOURNAL_DIR"]), gone).save(a_record(gone, "rsv-pending"))
    return configured


def test_one_view(run: Cycles, busy: cycles.EmbeddedServer) -> None:
    ran = run("top", "--once", "--json")
    assert ran.status == 0
    assert set(ran.document) == MEMBERS
    assert len(ran.document["balances"]) == 3
    assert [row["status"] for row in ran.document["reservations"]] == ["ACTIVE", "COMMITTED"]
    assert [record["reservation_id"] for record in ran.document["records"]] == ["rsv-pending"]
    shown = run("top", "--once").out
    for text in ("tenant:acme", "agent:bot", "$0.05", "llm.completion/gpt-4o", "rsv-pending", "#"):
        assert text in shown
    assert run("top", "--interval", "0").status == 2


def test_lines_are_shared_fairly() -> None:
    from cycles.cli._top_view import share_lines

    assert share_lines([3, 1, 2, 1], 10) == [3, 2, 2, 2]
    assert share_lines([100, 1, 2, 50], 24) == [10, 2, 2, 10]
    assert share_lines([9, 9], 0) == [2, 2]


def test_the_spend_rate_is_that_of_the_last_minute() -> None:
    from cycles.cli._top_view import Rates, Snapshot

    def at(second: int, cents: int) -> Snapshot:
        spent = cycles.Amount("USD_MICROCENTS", cents * 1_000_000)
        left = cycles.SignedAmount("USD_MICROCENTS", 0)
        balance = cycles.Balance(scope="tenant:a", scope_path="tenant:a", remaining=left, spent=spent)
        return Snapshot(at_ms=second * 1000, balances=[balance])

    rates, key = Rates(), ("tenant:a", "USD_MICROCENTS")
    assert rates.after(at(0, 5))[key] == 0.0
    assert rates.after(at(4, 6))[key] == 0.0, "too early to say"
    assert rates.after(at(30, 10))[key] == pytest.approx(10_000_000)
    assert rates.after(at(60, 10))[key] == pytest.approx(5_000_000)
    assert rates.after(at(90, 10))[key] == pytest.approx(0)


@processes
def test_top_is_live_and_ends_with_q(busy: cycles.EmbeddedServer) -> None:
    from tests.operators.terminal import in_terminal

    with in_terminal("top", "--interval", "0.2") as terminal:
        terminal.read_until("rsv-pending")
        assert "$0.04" in terminal.text
        seen = len(terminal.text)
        commit(busy.client(tenant="acme", journal=False), "other", 3)
        terminal.read_until("$0.07", since=seen)
        busy.faults.status("balances", 503, times=None)
        terminal.read_until("HTTP 503", since=seen)
        seen = len(terminal.text)
        busy.faults.clear()
        terminal.read_until("q exits", since=seen)
        terminal.type("q")
        assert terminal.wait() == 0
        assert "\x1b[?1049l" in terminal.output, "the screen of before is shown again"
        assert "Traceback" not in terminal.output


@processes
def test_an_interrupt_exits_130(busy: cycles.EmbeddedServer) -> None:
    from tests.operators.terminal import in_terminal

    with in_terminal("top") as terminal:
        terminal.read_until("rsv-pending")
        os.kill(terminal.process.pid, signal.SIGINT)
        assert terminal.wait() == 130
        assert "Traceback" not in terminal.output


@processes
def test_colours_are_used_on_a_terminal_unless_no_color_is_set(busy: cycles.EmbeddedServer) -> None:
    from tests.operators.terminal import in_terminal

    with in_terminal("balances", "--tree") as terminal:
        assert terminal.wait() == 0
        assert "\x1b[" in terminal.output
        assert max(len(line) for line in terminal.text.splitlines()) <= 80
    with in_terminal("balances", "--tree", NO_COLOR="1") as terminal:
        assert terminal.wait() == 0
        assert "tenant:acme" in terminal.output
        assert "\x1b" not in terminal.output


@processes
def test_a_terminal_that_is_too_narrow_for_a_table_shows_names_and_values(busy: cycles.EmbeddedServer) -> None:
    from tests.operators.terminal import in_terminal

    with in_terminal("balances", "--tree", COLUMNS="30", NO_COLOR="1") as terminal:
        assert terminal.wait() == 0
    lines = [line.split() for line in terminal.text.splitlines()]
    assert ["scope", "tenant:acme"] in lines
    assert [line[0] for line in lines[:6]] == ["scope", "unit", "spent", "reserved", "left", "of"]
    assert max(len(line) for line in terminal.text.splitlines()) <= 30
