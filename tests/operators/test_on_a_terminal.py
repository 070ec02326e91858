"""What commands draw if standard output is a terminal, and what they do if it cannot be written."""

from __future__ import annotations

import errno
import io
import os
import sys
from pathlib import Path

import pytest

import cycles
from cycles.cli import main
from tests.operators.conftest import Cycles
from tests.operators.test_command_details import waits_of_balances
from tests.operators.test_commands import commit, reserve
from tests.operators.test_top import show_on_terminal


def shown_by(run: Cycles, monkeypatch: pytest.MonkeyPatch, *arguments: str, columns: int = 120) -> list[list[str]]:
    """Return the words of each line that a command draws on a terminal."""
    with monkeypatch.context() as terminal:
        screen = show_on_terminal(terminal)
        terminal.setenv("COLUMNS", str(columns))
        status = run(*arguments).status
    assert status == 0
    return [line.split() for line in screen.getvalue().splitlines()]


def test_a_table_that_a_terminal_is_too_narrow_for_is_names_and_values(
    run_here: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = shown_by(run_here, monkeypatch, "balances", "--tree")
    assert wide[0] == ["scope", "unit", "spent", "reserved", "left", "of"]
    narrow = shown_by(run_here, monkeypatch, "balances", "--tree", columns=30)
    assert [line[0] for line in narrow[:6]] == ["scope", "unit", "spent", "reserved", "left", "of"]
    assert ["left", "$10.00"] in narrow


def test_what_a_reservation_is_for_is_below_its_id_on_a_terminal(
    run_here: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = configured.client(tenant="acme", journal=False)
    commit(client, "other", 4)
    active = reserve(client)
    lines = shown_by(run_here, monkeypatch, "reservations")
    place = next(index for index, line in enumerate(lines) if active in line)
    assert lines[place][1:3] == ["ACTIVE", "$0.05"]
    assert lines[place + 1] == ["llm.completion/gpt-4o", "tenant:acme/agent:bot"]
    assert ["reserved", "$0.05"] in shown_by(run_here, monkeypatch, "reservation", active)


def test_each_check_of_doctor_has_its_remedy_below_it_on_a_terminal(
    run_here: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = shown_by(run_here, monkeypatch, "doctor")
    assert ["ok", "clock"] in [line[:2] for line in lines]
    configured.ledger.set_budget("tenant:acme", cycles.usd(1), spent=100_000_000)
    screen = show_on_terminal(monkeypatch)
    assert run_here("doctor").status == 1
    lines = [line.split() for line in screen.getvalue().splitlines()]
    place = next(index for index, line in enumerate(lines) if line[1:2] == ["budget"])
    assert lines[place][0] == "FAIL"
    assert "->" in [*lines[place + 1], *lines[place + 2]]


def test_a_page_is_drawn_without_its_comments(
    run_here: Cycles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- a comment -->\n\n**bold** text\n")
    monkeypatch.setattr("cycles.cli.docs.pages", lambda: {"page": page})
    assert "<!-- a comment -->" in run_here("docs", "page").out
    text = " ".join(word for line in shown_by(run_here, monkeypatch, "docs", "page") for word in line)
    assert ("bold text" in text, "comment" in text) == (True, False)


def test_balances_are_drawn_again_on_a_terminal(
    run_here: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = waits_of_balances(configured, monkeypatch, cycles.usd(3))
    screen = show_on_terminal(monkeypatch)
    assert run_here("balances", "--watch").status == 130
    assert waits == [2.0, 2.0]
    first, _, later = screen.getvalue().partition("tenant:acme/agent:bot")
    assert ("tenant:acme/agent:new" in first, "tenant:acme/agent:new" in later) == (False, True)


def test_colours_are_used_unless_no_color_is_set(
    run_here: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for no_color, coloured in (("1", False), ("", True)):
        screen = show_on_terminal(monkeypatch)
        monkeypatch.setenv("NO_COLOR", no_color)
        assert run_here("balances").status == 0
        assert ("\x1b[" in screen.getvalue()) is coloured


# --- output that cannot be written


class Broken(io.StringIO):
    """Standard output that cannot be written. Its descriptor is that of a file, which is replaced at the end."""

    def __init__(self, descriptor: int, error: OSError) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._error = error

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> int:
        raise self._error

    def flush(self) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 0, ""),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            "error: the output cannot be written: No space left on device; free some space, or send it elsewhere\n",
        ),
    ],
    ids=["its reader has ended", "the disk is full"],
)
def test_output_that_cannot_be_written(
    run_here: Cycles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, status: int, says: str
) -> None:
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", Broken(file.fileno(), error))
        ran = run_here("docs")
        assert os.fstat(file.fileno()).st_rdev == Path(os.devnull).stat().st_rdev  # what is left to print is discarded
    assert (ran.status, ran.err) == (status, says)


def test_another_error_of_the_output_is_not_hidden(
    run_here: Cycles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "out").open("w") as file:
        monkeypatch.setattr(sys, "stdout", Broken(file.fileno(), OSError(errno.EBADF, "Bad file descriptor")))
        with pytest.raises(OSError, match="Bad file descriptor"):
            run_here("docs")


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_the_caller_has_closed_discards_what_is_printed(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sys, name, None)
    status = main(["docs", "no-such-page"])
    stream = getattr(sys, name)
    stream.close()
    assert (status, stream.name) == (2, os.devnull)
