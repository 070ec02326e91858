"""What commands draw on a terminal: tables, names and values of a narrow one, and budgets that are read again."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from rich.text import Text

import cycles
from cycles.cli._output import Output
from tests.operators.conftest import Cycles
from tests.operators.terminal_here import terminal_here
from tests.operators.test_commands import commit, reserve

COLUMNS = ("scope", "amount", "")
ROWS = (("tenant:acme/agent:planner", "12", "##"), ("b", "1,234,567", "#"))
# 12 columns of a name that may be folded, whole amounts and bars, and a blank behind each
LEAST = 12 + len("1,234,567") + len("##") + 3


def shown(columns: int, draw: Callable[[Output], object]) -> list[str]:
    with terminal_here(columns) as terminal:
        draw(Output(json=False))
    return [line.rstrip() for line in terminal.text.splitlines()]


def test_a_table_is_drawn_if_amounts_and_twelve_columns_of_each_name_have_room() -> None:
    lines = shown(LEAST, lambda out: out.table(COLUMNS, ROWS, right=("amount",)))
    assert lines[0].split() == ["scope", "amount"]
    assert lines[-1].split() == ["b", "1,234,567", "#"]
    assert "".join(line.split()[0] for line in lines[2:-1]) == "tenant:acme/agent:planner"
    assert [line.split()[1:] for line in lines[2:-1]] == [["12", "##"], *[[]] * (len(lines) - 4)]
    assert lines[2].index("12") + 2 == lines[-1].index("1,234,567") + 9, "amounts are aligned to the right"


def test_in_a_narrower_terminal_each_row_is_names_and_values() -> None:
    lines = shown(LEAST - 1, lambda out: out.table(COLUMNS, ROWS, right=("amount",)))
    assert [line.split() for line in lines] == [
        ["scope", "tenant:acme/agent"],
        [":planner"],
        ["amount", "12"],
        ["##"],
        [],
        ["scope", "b"],
        ["amount", "1,234,567"],
        ["#"],
        [],
    ]


def test_a_name_that_is_short_needs_no_twelve_columns() -> None:
    rows = [("ab", "12")]
    assert shown(6, lambda out: out.table(("n", "m"), rows, right=("m",)))[0].split() == ["n", "m"]
    assert shown(5, lambda out: out.table(("n", "m"), rows, right=("m",)))[0].split() == ["n", "ab"]
    assert shown(5, lambda out: out.table(("n", "m"), []))[0].split() == ["n", "m"]


def test_a_bar_is_never_folded() -> None:
    rows = [("ab", "#" * 14)]
    assert shown(18, lambda out: out.table(("n", ""), rows))[-1].split() == ["ab", "#" * 14]
    assert shown(17, lambda out: out.table(("n", ""), rows))[0].split() == ["n", "ab"]


def test_wide_characters_count_twice() -> None:
    rows = [("\u4e2d\u6587", "12")]
    assert shown(8, lambda out: out.table(("n", "m"), rows))[0].split() == ["n", "m"]
    assert shown(7, lambda out: out.table(("n", "m"), rows))[0].split() == ["n", "\u4e2d\u6587"]


def test_names_and_values_leave_out_what_is_unknown_and_escape_what_a_server_sent() -> None:
    pairs = [("name", "[bold]x\x1b[31m"), ("missing", None), ("longer name", Text("red", style="red")), ("empty", "")]
    lines = shown(60, lambda out: out.pairs(pairs))
    assert lines == ["name         [bold]x\\x1b[31m", "longer name  red", "empty"]


def test_without_a_terminal_names_and_values_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json=False).pairs([("name", "x"), ("left out for its value", None), ("longer", "y")])
    Output(json=False).pairs([])
    assert capsys.readouterr().out == "name    x\nlonger  y\n"


@pytest.mark.parametrize("no_color", [False, True])
def test_colours_are_used_on_a_terminal_unless_no_color_is_set(
    run_here: Cycles, configured: cycles.EmbeddedServer, no_color: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    with terminal_here(80) as terminal:
        assert run_here("balances", "--tree").status == 0
    assert "  agent:bot" in terminal.text
    assert ("\x1b[" in terminal.output) is not no_color
    assert max(len(line) for line in terminal.text.splitlines()) <= 80


def test_one_reservation_is_shown_as_names_and_values(run_here: Cycles, configured: cycles.EmbeddedServer) -> None:
    identifier = reserve(configured.client(tenant="acme", journal=False))
    with terminal_here(60) as terminal:
        assert run_here("reservation", identifier).status == 0
    pairs = dict(line.split(maxsplit=1) for line in terminal.text.splitlines() if len(line.split()) == 2)
    assert pairs["status"].rstrip() == "ACTIVE"


class Pauses:
    """Counts the pauses; a commit is made in the first, and the last one ends the command."""

    def __init__(self, server: cycles.EmbeddedServer) -> None:
        self.server = server
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) == 2:
            raise cycles.ConfigurationError("the test has seen enough")
        commit(self.server.client(tenant="acme", journal=False), "other", 3)


@pytest.fixture
def pauses(configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Pauses:
    made = Pauses(configured)
    monkeypatch.setattr("cycles.cli.balances.time", SimpleNamespace(sleep=made))
    return made


def test_watch_reads_budgets_again_after_each_pause(run_here: Cycles, pauses: Pauses) -> None:
    lines = [line.split() for line in run_here("balances", "--watch", "--tree").out.splitlines()]
    assert [line[:3] for line in lines if line[0] == "tenant:acme" and "USD" in line] == [
        ["tenant:acme", "USD", "$0.00"],
        ["tenant:acme", "USD", "$0.03"],
    ]
    assert sum(line[0] == "agent:bot" for line in lines) == 2
    assert pauses.seconds == [2.0, 2.0]


def test_watch_prints_documents_also_on_a_terminal(run_here: Cycles, pauses: Pauses) -> None:
    with terminal_here(10_000) as terminal:
        run_here("balances", "--watch", "--json")
    documents = [line for line in terminal.text.splitlines() if line.startswith('{"balances"')]
    found = [[each["spent"]["amount"] for each in json.loads(line)["balances"]] for line in documents]
    assert [max(each) for each in found] == [0, 3_000_000]


def test_watch_draws_the_table_in_the_same_place(run_here: Cycles, pauses: Pauses) -> None:
    with terminal_here(100) as terminal:
        ran = run_here("balances", "--watch", "--tree")
    assert (ran.status, ran.err) == (2, "error: the test has seen enough\n")
    rows = [line.split() for line in terminal.text.splitlines() if "tenant:acme" in line and "USD" in line]
    spent = [row[row.index("USD") + 1] for row in rows]
    assert (spent[0], spent[-1]) == ("$0.00", "$0.03")
    assert "  agent:bot" in terminal.text
    assert "\x1b[1A" in terminal.output, "the second is drawn over the first"
    assert "\x1b[?1049h" not in terminal.output
    assert pauses.seconds == [2.0, 2.0]


def test_output_that_is_no_terminal_has_no_escape_sequence_and_is_never_folded() -> None:
    out = Output(json=False)
    stream = io.StringIO()
    out.console.file = stream
    out.line("x" * 5_000)
    assert stream.getvalue() == "x" * 5_000 + "\n"
