"""`cycles run --budget 5USD/month --keep NAME`: the summary, what the kept file stores, and wrong usage."""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from cycles.testing import FakeProvider
from tests.operators.conftest import Cycles
from tests.operators.kit import processes, run_process
from tests.operators.running import GPT_4O, USED, agent, far_from_midnight, summary, upstreams


def next_month(zone: str) -> str:
    now = datetime.now(ZoneInfo(zone))
    return f"{now.year + now.month // 12}-{now.month % 12 + 1:02d}-01 00:00 {zone}"


@processes
def test_the_summary_names_the_window_and_its_end(provider: FakeProvider) -> None:
    provider.reply(usage=USED, times=12)
    zone = far_from_midnight()
    budget = ("--budget", "1USD/month", "--timezone", zone, "--keep", "job")
    ran = run_process("run", *budget, *upstreams(provider), *agent("openai"))
    assert f"$0.0140 of $1.00 spent this month (until {next_month(zone)})" in ran.err
    again = run_process("run", "--json", *budget, *upstreams(provider), *agent("openai"))
    kept = summary(again)["kept"]
    assert kept["spent"]["amount"] == 8 * GPT_4O
    assert (kept["window"]["window"], kept["window"]["timezone"]) == ("month", zone)
    text = run_process("run", "--keep", "job", *upstreams(provider), *agent("openai"))
    assert re.search(r"\$0\.0420 of \$1\.00 spent this month", text.err)
    assert "by all its runs" not in text.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "5USD/day"], "--keep NAME"),
        (["--budget", "5USD/day", "--embedded"], "--keep NAME"),
        (["--budget", "5USD/year", "--keep", "job"], "minute, hour, day, week, month"),
        (["--budget", "5USD/", "--keep", "job"], "5USD/day"),
        (["--budget", "0USD/day", "--keep", "job"], "above zero"),
        (["--budget", "5USD/day", "--keep", "job", "--timezone", "Mars/Base"], "Europe/Berlin"),
        (["--budget", "5USD", "--keep", "job", "--timezone", "UTC"], "5USD/day"),
        (["--budget", "20%/day", "--keep", "job"], "20%"),
        (["--budget", "5USD/day", "--share", "planner"], "1USD"),
    ],
)
def test_a_wrong_window_starts_nothing(run: Cycles, arguments: list[str], message: str) -> None:
    ran = run("run", *arguments, "--", "false")
    assert (ran.status, ran.out) == (2, "")
    assert message in ran.err
