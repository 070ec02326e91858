"""`make demo` as a newcomer sees it: it runs, fits a terminal, and its table adds up."""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from decimal import Decimal
from email.message import Message
from pathlib import Path
from typing import NamedTuple

import pytest

import cycles
from cycles import Amount, SignedAmount

ROOT = Path(__file__).parents[2]
LATE = re.compile(r".*: heartbeat [\d.]+ s late: .*\n")  # what the demo warns of on a busy machine
ROW = re.compile(r"(\S+) +(\d+) +\$(\d+\.\d{4}) +\$(\d+\.\d{4}) +\$(\d+\.\d{4})(?:  (.+))?")
SERVER = re.compile(r"The server: \$(\S+) spent, \$(\S+) reserved, \$(\S+) left of \$(\S+)\.")


class Row(NamedTuple):
    calls: int
    reserved: Decimal
    charged: Decimal
    released: Decimal
    how: str


class Shown(NamedTuple):
    """What one run printed into a pipe, the rows of its table, and the home directory it ran with."""

    text: str
    rows: dict[str, Row]
    home: Path


def run_demo(home: Path) -> Shown:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CYCLES_", "XDG_"))}
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "examples/demo.py"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert (ran.returncode, LATE.sub("", ran.stderr)) == (0, ""), ran.stdout + ran.stderr
    found = filter(None, (ROW.fullmatch(line) for line in ran.stdout.splitlines()))
    rows = {row[1]: Row(int(row[2]), Decimal(row[3]), Decimal(row[4]), Decimal(row[5]), row[6] or "") for row in found}
    return Shown(ran.stdout, rows, home)


def every_line_adds_up(shown: Shown) -> None:
    assert len(shown.rows) == 6
    for name, row in shown.rows.items():
        assert row.reserved == row.charged + row.released, name


def the_last_line_sums_the_others(shown: Shown) -> None:
    total, rest = shown.rows["all"], [row for name, row in shown.rows.items() if name != "all"]
    for column in ("calls", "reserved", "charged", "released"):
        assert getattr(total, column) == sum(getattr(row, column) for row in rest), column


def the_server_agrees_with_the_table(shown: Shown) -> None:
    sums = SERVER.search(shown.text)
    assert sums is not None
    spent, reserved, left, budget = (Decimal(text) for text in sums.groups())
    assert spent == shown.rows["all"].charged
    assert reserved == 0
    assert left == budget - spent
    assert "It agrees with the table." in shown.text


def each_agent_ends_as_the_sentences_say(shown: Shown) -> None:
    assert {name: row.how for name, row in shown.rows.items()} == {
        "planner": "finished",
        "writer": "finished",
        "crasher": "crashed",
        "looper": "denied by its budget",
        "researcher": "finished",
        "all": "",
    }
    assert shown.rows["crasher"].charged == 0 < shown.rows["crasher"].released
    assert shown.rows["looper"].charged <= Decimal("0.05")
    assert shown.text.count("the lease is extended") >= 1


def it_begins_with_the_program_of_the_readme_and_ends_with_one_command(shown: Shown) -> None:
    assert "agent: Write the invitation? The call failed: 402 budget_exceeded" in shown.text
    *_, sentence, _, command = shown.text.rstrip().splitlines()
    assert sentence.startswith("Now your own program")
    assert command.strip().endswith("cycles run --budget 1USD -- python my_agent.py")


def it_reads_well_in_a_pipe_and_in_eighty_columns(shown: Shown) -> None:
    lines = [line for line in shown.text.splitlines() if not line.startswith("cycles: ")]  # of `cycles run`
    assert max(lines, key=len)[80:] == ""
    assert shown.text.isascii()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", shown.text)


def it_leaves_nothing_behind(shown: Shown) -> None:
    assert list(shown.home.rglob("*")) == []


def test_the_demo(tmp_path: Path) -> None:
    shown = run_demo(tmp_path)  # once for all: it takes 12 seconds
    every_line_adds_up(shown)
    the_last_line_sums_the_others(shown)
    the_server_agrees_with_the_table(shown)
    each_agent_ends_as_the_sentences_say(shown)
    it_begins_with_the_program_of_the_readme_and_ends_with_one_command(shown)
    it_reads_well_in_a_pipe_and_in_eighty_columns(shown)
    it_leaves_nothing_behind(shown)


@pytest.mark.parametrize(("spent", "agrees"), [(cycles.usd(0), True), (cycles.usd("0.01"), False)])
def test_the_report_names_a_balance_that_does_not_agree(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, spent: Amount, agrees: bool
) -> None:
    """The table is empty, so only a balance without spend agrees with it."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    demo = runpy.run_path(str(ROOT / "examples" / "demo.py"))
    balance = cycles.Balance(
        scope="tenant:demo",
        scope_path="tenant:demo",
        allocated=demo["BUDGET"],
        spent=spent,
        reserved=cycles.usd(0),
        remaining=SignedAmount("USD_MICROCENTS", demo["BUDGET"].amount - spent.amount),
    )
    assert demo["report"]([], balance) is agrees
    assert ("IT DOES NOT AGREE" in capsys.readouterr().out) is not agrees


def test_the_set_up_of_the_demo_names_packages_and_errors_and_keeps_the_exit_status(tmp_path: Path) -> None:
    """The awk program of the Makefile, with the output of a pip that fails at the end."""
    text = (ROOT / "Makefile").read_text("utf-8")
    body = re.search(r"define SHOW_PROGRESS\n(.+?)endef", text, re.DOTALL)
    assert body is not None
    program = body[1].replace("\\\n", "\n").replace("$$", "$")
    printed = (
        "Obtaining file:///x\nCollecting attrs>=23.1 (from cycles-sdk)\nCollecting h11\nERROR: no space left\nexit 2\n"
    )
    ran = subprocess.run(["awk", program], input=printed, capture_output=True, text=True, timeout=20)
    assert ran.stdout == "attrs h11 ERROR: no space left\n"
    assert ran.returncode == 2


@pytest.mark.parametrize(
    ("code", "shown"), [("budget_exceeded", "402 budget_exceeded"), (None, "402 the provider gave no response")]
)
def test_the_agent_prints_why_its_call_failed(
    code: str | None, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {"message": "the provider gave no response", "code": code}

    def fail(_: object) -> None:
        body = io.BytesIO(json.dumps({"error": error}).encode())
        raise urllib.error.HTTPError("http://127.0.0.1", 402, "", Message(), body)

    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1")
    monkeypatch.setattr(urllib.request, "urlopen", fail)
    assert runpy.run_path(str(ROOT / "examples" / "agent.py"))["main"]() == 1
    assert capsys.readouterr().out == f"agent: Plan a trip to Rome? The call failed: {shown}\n"


def test_the_first_part_of_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CYCLES_", "XDG_"))}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "examples/run_demo.py"]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert (ran.returncode, LATE.sub("", ran.stderr)) == (0, ""), ran.stdout + ran.stderr
    took = re.compile(r"\d+\.\d s")
    shown = took.sub("N s", ran.stdout.strip())
    assert shown in took.sub("N s", (ROOT / "README.md").read_text("utf-8"))
    assert list(tmp_path.rglob("*")) == []


def test_the_first_block_of_the_readme_does_what_is_printed_under_it(tmp_path: Path) -> None:
    """In an empty folder with a copy of the examples, without a key; stderr comes where a terminal shows it."""
    block = re.search(r"```bash\n\$ (.+)\n([^`]+)```", (ROOT / "README.md").read_text("utf-8"))
    assert block is not None
    folder, programs = tmp_path / "empty", tmp_path / "bin"
    shutil.copytree(ROOT / "examples", folder / "examples")
    programs.mkdir()
    for name, arguments in (("cycles", "-m cycles "), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments}"$@"\n')
        (programs / name).chmod(0o755)
    known = {
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    ran = subprocess.run(
        ["sh", "-c", f"{block[1]} 2>&1"], cwd=folder, env=known, capture_output=True, text=True, timeout=120
    )
    took = re.compile(r"\d+\.\d s")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert took.sub("N s", ran.stdout) == took.sub("N s", block[2])
