"""`make demo` as a newcomer sees it: it runs, fits a terminal, and its table adds up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.xdist_group("demo")  # one run of the demo serves all of these

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"(\S+) +(\d+) +\$(\d+\.\d{8}) +\$(\d+\.\d{8}) +\$(\d+\.\d{8})(?:  (.+))?")
BOOKS = re.compile(r"allocated \$(\S+), spent \$(\S+), reserved \$(\S+), remaining \$(\S+)")


class Row(NamedTuple):
    jobs: int
    estimated: Decimal
    charged: Decimal
    released: Decimal
    why: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What one run printed into a pipe, and the home directory it ran with."""
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CYCLES_", "XDG_"))}
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "examples/demo.py"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=90)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    return ran.stdout, home


@pytest.fixture(scope="module")
def rows(demo: tuple[str, Path]) -> dict[str, Row]:
    found = (ROW.fullmatch(line) for line in demo[0].splitlines())
    return {
        match[1]: Row(int(match[2]), Decimal(match[3]), Decimal(match[4]), Decimal(match[5]), match[6] or "")
        for match in found
        if match
    }


def test_every_line_adds_up(rows: dict[str, Row]) -> None:
    assert len(rows) == 10
    for name, row in rows.items():
        assert row.estimated == row.charged + row.released, name


def test_the_last_line_sums_the_others(rows: dict[str, Row]) -> None:
    total, rest = rows["all"], [row for name, row in rows.items() if name != "all"]
    for column in ("jobs", "estimated", "charged", "released"):
        assert getattr(total, column) == sum(getattr(row, column) for row in rest), column


def test_the_servers_books_agree_with_the_table(demo: tuple[str, Path], rows: dict[str, Row]) -> None:
    books = BOOKS.search(demo[0])
    assert books is not None
    allocated, spent, reserved, remaining = (Decimal(text) for text in books.groups())
    assert spent == rows["all"].charged
    assert reserved == 0
    assert remaining == allocated - spent
    assert "They agree with the table." in demo[0]


def test_the_crashed_worker_pays_nothing(rows: dict[str, Row]) -> None:
    assert rows["crash"].why == "crashed: power cut"
    assert rows["crash"].charged == 0
    assert rows["crash"].released > 0


def test_the_slow_worker_lives_on_heartbeats(rows: dict[str, Row]) -> None:
    beats = re.fullmatch(r"finished, (\d+) heartbeats", rows["slow"].why)
    assert beats is not None
    assert int(beats[1]) >= 2


def test_the_last_worker_is_denied_once_the_budget_is_gone(rows: dict[str, Row]) -> None:
    assert rows["last"].why == "denied: the budget is gone"
    assert rows["last"].charged > 0
    assert [row.why for name, row in rows.items() if name.startswith(("hash", "zip"))] == ["finished"] * 6


def test_it_reads_well_in_a_pipe_and_in_eighty_columns(demo: tuple[str, Path]) -> None:
    assert max(len(line) for line in demo[0].splitlines()) <= 80
    assert demo[0].isascii()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", demo[0])


def test_it_leaves_nothing_behind(demo: tuple[str, Path]) -> None:
    assert list(demo[1].rglob("*")) == []
