"""`cycles top`, and what other commands draw on a terminal."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

import cycles
from tests.operators.conftest import Cycles
from tests.operators.journals import a_record, fill, journal
from tests.operators.kit import processes
from tests.operators.test_commands import commit, reserve

MEMBERS = {"at_ms", "balances", "denied", "forecast", "reservations", "records"}


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


def test_a_view_has_the_records_of_every_state_but_the_rejected(
    run_here: Cycles, configured: cycles.EmbeddedServer
) -> None:
    fill(Path(os.environ["CYCLES_JOURNAL_DIR"]), "http://127.0.0.1:9")
    found = [record["state"] for record in run_here("top", "--once", "--json").document["records"]]
    assert sorted(found) == ["deferred", "pending", "pending", "quarantined", "unfinished"]


def test_a_view_has_no_more_reservations_than_it_reads(
    run_here: Cycles, busy: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles.cli.top.LIVE", 2)
    client = busy.client(tenant="acme", journal=False)
    for _ in range(2):
        reserve(client)
    rows = run_here("top", "--once", "--json").document["reservations"]
    assert [row["status"] for row in rows].count("ACTIVE") == 2  # of three


def test_the_reservations_of_a_view_are_the_newest(
    run_here: Cycles, busy: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles.cli.top.SETTLED", 2)
    client = busy.client(tenant="acme", journal=False)
    for cents in (1, 2):
        commit(client, "other", cents)
    rows = run_here("top", "--once", "--json").document["reservations"]
    settled = [row["committed"]["amount"] for row in rows if row["status"] == "COMMITTED"]
    assert sorted(settled) == [1_000_000, 2_000_000]  # not the first one, of 4 cents


def test_denials_of_the_built_in_server_are_counted_by_scope(
    run: Cycles, busy: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = busy.client(tenant="acme", journal=False)
    busy.ledger.set_budget("tenant:other", cycles.usd(1))
    assert run("top", "--once", "--json").document["denied"] == {}
    for amount in (900, 901):
        client.decide(cycles.usd(amount), action=("a", "b"), subject={"agent": "bot"})
    client.decide(cycles.usd(900), action=("a", "b"))
    busy.client(tenant="other", journal=False).decide(cycles.usd(9), action=("a", "b"))
    assert run("top", "--once", "--json").document["denied"] == {"tenant:acme/agent:bot": 2, "tenant:acme": 1}
    lines = [line.split() for line in run("top", "--once").out.splitlines()]
    place = lines.index(["denied", "times"])
    assert lines[place + 1 : place + 3] == [["tenant:acme/agent:bot", "2"], ["tenant:acme", "1"]]
    with busy.listen(dashboard=False) as url:  # like another server
        monkeypatch.setenv("CYCLES_BASE_URL", url)
        assert run("top", "--once", "--json").document["denied"] is None


def test_budgets_are_sorted_by_the_used_share_and_amounts_have_four_digits(
    run: Cycles, busy: cycles.EmbeddedServer
) -> None:
    for name, spent in (("half", 50_000_049), ("full", 100_000_000), ("most", 96_123_456), ("tiny", 40)):
        busy.ledger.set_budget(f"tenant:acme/agent:{name}", cycles.usd(1), spent=spent)
    rows = [line.split() for line in run("top", "--once").out.splitlines() if line.startswith("tenant:acme/agent:")]
    shown = {row[0].partition("agent:")[2]: row[1:] for row in rows}
    assert list(shown)[:3] == ["full", "most", "half"]
    assert shown["full"] == ["$1.00", "-", "$0.00", "$0.00", "#" * 12, "used", "up"]
    assert shown["most"] == ["$0.9612", "-", "$0.00", "$0.0388", "#" * 11 + ".", "96%"]
    assert shown["half"][0] == "$0.50"
    assert shown["tiny"][0] == "<$0.0001"


@pytest.mark.parametrize("width", [40, 60, 78, 80, 120])
def test_no_amount_of_a_budget_is_cut_in_a_narrow_terminal(width: int) -> None:
    from rich.console import Console

    from cycles.cli._output import Output
    from cycles.cli._top_keys import Controls
    from cycles.cli._top_view import Snapshot, draw

    balance = cycles.Balance(
        scope="tenant:acme",
        scope_path="tenant:acme/agent:a-name-that-is-long",
        remaining=cycles.SignedAmount("TOKENS", 50_000),
        allocated=cycles.tokens(50_000),
    )
    console = Console(width=width, record=True, file=io.StringIO())
    view = draw(Output(json=False), Snapshot(at_ms=0, balances=[balance]), {}, Controls(), width=width, height=20)
    console.print(view)
    row = next(line for line in console.export_text().splitlines() if "is-long" in line)
    assert "50,000 TOKENS" in row
    assert "0%" in row


def test_keys_scroll_filter_and_exit() -> None:
    from cycles.cli._top_keys import Controls

    controls = Controls()
    assert not controls.take(b"\x1b[B\x1b[Bj\x1b[A", 50)
    assert controls.offset == 2
    assert not controls.take(b"\x1b[6~", 50)
    assert controls.offset == 12
    assert not controls.take(b"G\x1b[B", 50)
    assert controls.offset == 49
    assert not controls.take(b"\x1b[H\x1bOA", 50)
    assert controls.offset == 0
    assert not controls.take(b"j/Qg\x7fk", 50)
    assert (controls.text, controls.offset, controls.is_typing) == ("qk", 0, True)
    assert not controls.take(b"\r", 50)
    assert (controls.text, controls.is_typing) == ("qk", False)
    assert not controls.take(b"\x1b\xc3\xa4", 50)
    assert controls.text == ""
    assert not controls.take(b"jj/ab\x1bj", 50)
    assert (controls.text, controls.offset, controls.is_typing) == ("", 1, False)
    assert not controls.take(b"/a\x7f\bc\n", 50)
    assert (controls.text, controls.is_typing) == ("c", False)
    assert controls.take(b"xQ", 50)


@pytest.mark.parametrize("key", [b"\x1b[A", b"\x1b[B", b"j", b"\x1b[6~", b" ", b"G", b"\x1b[F", b"g"])
def test_a_view_without_rows_and_one_that_lost_them_begin_with_their_first(key: bytes) -> None:
    from cycles.cli._top_keys import Controls

    for rows in (0, 1):
        controls = Controls(offset=7)
        assert not controls.take(key, rows)
        assert controls.offset == 0


@pytest.mark.parametrize("typed", [b"\x1b", b"/", b"/x\x1b", b"/x\r", b"/x\x7f"])
def test_another_filter_begins_with_its_first_row(typed: bytes) -> None:
    from cycles.cli._top_keys import Controls

    controls = Controls(text="bot")
    controls.take(b"jj", 50)
    assert controls.offset == 2
    controls.take(typed, 50)
    assert controls.offset == 0


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
    rates.after(at(120, 13))
    for second in (150, 200):
        late = attrs.evolve(at(second, 13), error="no connection")
        assert rates.after(late)[key] == pytest.approx(3_000_000 * 60 / (second - 60)), "of what was seen"


def test_what_a_budget_had_spent_before_it_appeared_is_no_spend_of_the_last_minute() -> None:
    from cycles.cli._top_view import Rates, Snapshot

    def at(second: int, **spent: int) -> Snapshot:
        left = cycles.SignedAmount("TOKENS", 0)
        balances = [
            cycles.Balance(scope=scope, scope_path=scope, remaining=left, spent=cycles.tokens(amount))
            for scope, amount in spent.items()
        ]
        return Snapshot(at_ms=second * 1000, balances=balances)

    rates = Rates()
    rates.after(at(0, old=5))
    assert rates.after(at(30, old=6, new=500)) == {("old", "TOKENS"): pytest.approx(2), ("new", "TOKENS"): 0}


def test_escape_ends_a_filter_that_is_typed_and_shows_all_rows() -> None:
    from cycles.cli._top_keys import Controls

    controls = Controls()
    assert not controls.take(b"/bot", 50)
    assert not controls.take(b"\x1b", 50)
    assert (controls.text, controls.is_typing) == ("", False)
    assert controls.take(b"q", 50)


def drawn(snapshot: Any, controls: Any, *, width: int = 120, height: int = 20) -> list[str]:
    from rich.console import Console

    from cycles.cli._output import Output
    from cycles.cli._top_view import draw

    console = Console(width=width, record=True, file=io.StringIO())
    console.print(draw(Output(json=False), snapshot, {}, controls, width=width, height=height))
    return [line.rstrip() for line in console.export_text().splitlines()]


def balance_of(scope: str) -> cycles.Balance:
    left = cycles.SignedAmount("TOKENS", 50_000)
    return cycles.Balance(scope=scope, scope_path=scope, remaining=left, allocated=cycles.tokens(50_000))


def test_a_view_that_was_scrolled_has_room_for_the_count_of_the_rows_above() -> None:
    from cycles.cli._top_keys import Controls
    from cycles.cli._top_view import Snapshot

    snapshot = Snapshot(at_ms=0, balances=[balance_of(f"tenant:t{number:02}") for number in range(20)])
    lines = drawn(snapshot, Controls(offset=5), height=20)  # 15 rows are left, and the view has lines for 15
    assert len(lines) <= 20
    assert "... 1 more below, 5 above" in lines


@pytest.mark.parametrize(
    ("offset", "text", "last"), [(49, "", "t02"), (3, "", "t02"), (49, "t01", "t01"), (1, "", "t01")]
)
def test_a_view_whose_rows_become_fewer_shows_the_last_ones(offset: int, text: str, last: str) -> None:
    from cycles.cli._top_keys import Controls
    from cycles.cli._top_view import Snapshot

    snapshot = Snapshot(at_ms=0, balances=[balance_of(f"tenant:t{number:02}") for number in range(3)])
    lines = drawn(snapshot, Controls(offset=offset, text=text))
    assert [line.split()[0] for line in lines if line.startswith("tenant:")][:1] == [f"tenant:{last}"]


def test_how_long_ago_a_reservation_was_settled(busy: cycles.EmbeddedServer) -> None:
    from cycles.cli._top_keys import Controls
    from cycles.cli._top_view import Snapshot

    [row] = busy.client(tenant="acme", journal=False).reservations(status="COMMITTED")
    settled = attrs.evolve(row, created_at_ms=0, finalized_at_ms=3_600_000)
    lines = drawn(Snapshot(at_ms=3_645_000, settled=[settled]), Controls())
    assert any(line.split()[1:4] == ["$0.04", "45", "s"] for line in lines)


def test_a_record_is_found_by_an_id_in_either_case(tmp_path: Path) -> None:
    from cycles.cli._top_keys import Controls
    from cycles.cli._top_view import Snapshot

    gone = "http://127.0.0.1:9"
    for name in ("Rsv-ONE", "Rsv-TWO"):
        journal(tmp_path, gone).save(a_record(gone, name))
    controls = Controls()
    controls.take(b"/RSV-one\r", 2)
    text = "\n".join(drawn(Snapshot(at_ms=0, records=list(cycles.journal.inspect(tmp_path))), controls))
    assert ("Rsv-ONE" in text, "Rsv-TWO" in text) == (True, False)


def test_the_scopes_with_most_denials_are_first() -> None:
    from cycles.cli._top_keys import Controls
    from cycles.cli._top_view import Snapshot

    lines = drawn(Snapshot(at_ms=0, denied={"tenant:a": 1, "tenant:b": 3, "tenant:c": 2}), Controls())
    assert [line.split() for line in lines if line.startswith("tenant:")] == [
        ["tenant:b", "3"], ["tenant:c", "2"], ["tenant:a", "1"],
    ]  # fmt: skip


class Terminal(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def view(self) -> str:
        """What was drawn last: each view begins at the top of the screen."""
        return self.getvalue().rpartition("\x1b[H")[2]


def show_on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Let standard output of this process be a terminal of 120 columns without colours, and return it."""
    for name, value in {"TERM": "xterm", "COLUMNS": "120", "LINES": "40", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    return terminal


def test_the_live_view_reads_again_after_each_interval_and_shows_that_the_server_does_not_respond(
    run_here: Cycles, busy: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = show_on_terminal(monkeypatch)
    now, waits, shown = [0.0], list[float](), list[str]()
    spend = lambda: commit(busy.client(tenant="acme", journal=False), "other", 3)  # noqa: E731
    fail = lambda: busy.faults.status("balances", 403, times=None)  # noqa: E731
    steps: list[Callable[[], Any]] = [lambda: None, spend, fail, busy.faults.clear]

    def typed(seconds: float) -> bytes | None:
        if seconds < 1:  # a read is running
            for thread in threading.enumerate():
                if thread.name == "cycles-top":
                    thread.join(60)
            return None
        now[0] += seconds
        waits.append(seconds)
        shown.append(screen.view)
        if not steps:
            return b"q"
        steps.pop(0)()
        return None

    @contextmanager
    def keys() -> Iterator[Callable[[float], bytes | None]]:
        yield typed

    monkeypatch.setattr("cycles.cli.top._keys", keys)
    monkeypatch.setattr("cycles.cli.top.time", SimpleNamespace(monotonic=lambda: now[0]))
    assert run_here("top", "--interval", "7").status == 0
    assert waits == [7.0] * 5
    assert ["$0.07" in text for text in shown] == [False, False, True, True, True]
    assert ["HTTP 403" in text for text in shown] == [False, False, False, True, False]
    assert ["tenant:acme/agent:bot" in text for text in shown] == [True] * 5


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_keys_are_read_one_by_one_from_a_terminal_which_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    import termios

    from cycles.cli.top import _keys as keys

    far, near = os.openpty()
    with os.fdopen(near, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        before = termios.tcgetattr(near)
        with pytest.raises(ZeroDivisionError), keys() as typed:
            assert typed(0) is None
            os.write(far, b"j")
            assert typed(60) == b"j"
            assert termios.tcgetattr(near) != before
            raise ZeroDivisionError
        assert termios.tcgetattr(near) == before
        os.close(far)


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
def test_the_view_scrolls_and_filters(busy: cycles.EmbeddedServer) -> None:
    from tests.operators.terminal import in_terminal

    for number in range(60):
        busy.ledger.set_budget(
            f"tenant:acme/agent:bot-{number:02}", cycles.usd(1), spent=100_000_000 - number * 1_000_000
        )
    with in_terminal("top", "--interval", "600") as terminal:
        terminal.read_until("rsv-pending")
        assert "bot-00" in terminal.text
        assert "bot-40" not in terminal.text
        for _ in range(4):
            terminal.type("\x1b[6~")
        terminal.read_until("bot-40")
        terminal.read_until("40 above")
        seen = len(terminal.text)
        terminal.type("/bot-33")
        terminal.read_until("/bot-33_ (Enter: done)", since=seen)
        terminal.read_until("agent:bot-33", since=seen)
        seen = len(terminal.text)
        terminal.type("-q\r")
        terminal.read_until("nothing contains 'bot-33-q'", since=seen)
        terminal.type("\x1bq")
        assert terminal.wait() == 0
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
