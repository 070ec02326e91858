"""`cycles runs`: kept ledgers are listed without a change, reset and deleted; and the total in the summary of a run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cycles
from cycles.proxy._kept import kept_file
from cycles.proxy._ledger import open_ledger
from tests.operators.conftest import Cycles
from tests.operators.kit import processes, run_process
from tests.operators.running import start, summary
from tests.support.waiting import until

AGENT = ("--", sys.executable, "examples/agent.py")


def keep(name: str, *budgets: cycles.Amount, spent: int = 0) -> Path:
    path = kept_file(name)
    with cycles.EmbeddedServer(path=path) as server:
        for budget in budgets:
            server.ledger.set_budget("tenant:run", budget, spent=spent)
            server.ledger.set_budget("tenant:run/agent:bot", budget, spent=spent)
    return path


def files(path: Path) -> dict[str, tuple[int, int]]:
    return {each.name: (each.stat().st_mtime_ns, each.stat().st_size) for each in path.parent.iterdir()}


def test_without_a_kept_run_it_says_how_to_keep_one_and_makes_no_folder(run: Cycles) -> None:
    assert run("runs").out == "no run is kept; cycles run --keep NAME keeps one\n"
    assert run("runs", "--json").document == {"runs": []}
    assert not (Path(os.environ["XDG_STATE_HOME"]) / "cycles-sdk" / "runs").exists()


@pytest.mark.parametrize("command", [("runs",), ("runs", "list")])
def test_kept_runs_are_listed_with_budget_spend_and_last_use_and_no_file_changes(
    run: Cycles, command: tuple[str, ...]
) -> None:
    path = keep("b.job", cycles.usd(5), cycles.tokens(500), spent=7)
    keep("a", cycles.usd(1))
    before = files(path)
    first, second, third = run(*command, "--json").document["runs"]
    assert [run("runs").out.splitlines()[number].split()[0] for number in (1, 2, 3)] == ["a", "b.job", "b.job"]
    assert files(path) == before
    assert first["name"] == "a"
    assert second == {
        "name": "b.job",
        "file": str(path),
        "budget": {"unit": "USD_MICROCENTS", "amount": 500_000_000},
        "spent": {"unit": "USD_MICROCENTS", "amount": 7},
        "last_use_ms": path.stat().st_mtime_ns // 1_000_000,
        "in_use": False,
    }
    assert third["spent"] == {"unit": "TOKENS", "amount": 7}


def test_what_was_spent_has_the_debt(run: Cycles) -> None:
    with cycles.EmbeddedServer(path=kept_file("job")) as server:
        server.ledger.set_budget("tenant:run", cycles.tokens(500), spent=400, debt=30, overdraft_limit=100)
    [kept] = run("runs", "--json").document["runs"]
    assert kept["spent"] == {"unit": "TOKENS", "amount": 430}


def test_another_budget_changes_neither_what_was_spent_nor_the_debt(run: Cycles) -> None:
    with cycles.EmbeddedServer(path=kept_file("job")) as server:
        server.ledger.set_budget("tenant:run", cycles.tokens(500), spent=400, debt=30, overdraft_limit=100)
    with contextlib.closing(open_ledger(cycles.Config(), cycles.tokens(600), embedded=True, keep="job")) as ledger:
        total = ledger.kept_total()
    assert total is not None
    assert (total["spent"]["amount"], total["budget"]["amount"]) == (430, 600)


@pytest.mark.parametrize("content", ["no database", ""], ids=["of another program", "empty"])
def test_a_file_that_is_no_ledger_is_listed_without_amounts(run: Cycles, content: str) -> None:
    """A full disk leaves an empty one."""
    kept_file("odd").write_text(content)
    [odd] = run("runs", "--json").document["runs"]
    assert (odd["budget"], odd["spent"], odd["in_use"]) == (None, None, False)


def test_reset_sets_the_spend_of_all_scopes_and_units_to_zero(run: Cycles) -> None:
    path = keep("job", cycles.usd(5), cycles.tokens(500), spent=7)
    assert run("runs", "reset", "job", "--yes").out == "reset job\n"
    with cycles.EmbeddedServer(path=path) as server:
        for scope in ("tenant:run", "tenant:run/agent:bot"):
            assert server.spent(scope, "USD_MICROCENTS").amount == server.spent(scope, "TOKENS").amount == 0
            assert server.ledger.balance(scope, "USD_MICROCENTS").allocated == cycles.usd(5)


def test_delete_removes_the_file_and_what_is_beside_it(run: Cycles) -> None:
    path = keep("job", cycles.usd(5))
    path.with_name("job.db-wal").touch()
    assert run("runs", "delete", "job", "--yes", "--json").document == {"name": "job", "status": "deleted"}
    assert list(path.parent.iterdir()) == []


def test_no_run_opens_a_ledger_that_is_being_deleted(run_here: Cycles, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep its ledger in a file that no other run finds."""
    path, remove, tried = keep("job", cycles.usd(5)), Path.unlink, list[str]()
    monkeypatch.setattr("cycles.embedded.store.LOCK_WAIT_S", 0.01)

    def unlink(file: Path, **options: bool) -> None:
        if file == path:
            with pytest.raises(cycles.ConfigurationError) as caught:
                open_ledger(cycles.Config(), cycles.usd(1), embedded=True, keep="job")
            tried.append(str(caught.value))
        remove(file, **options)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert run_here("runs", "delete", "job", "--yes").status == 0
    assert tried == [f"another run has {path} open: wait for its end, or pass another --keep"]


@pytest.mark.parametrize("verb", ["reset", "delete"])
def test_without_a_terminal_and_yes_nothing_is_changed(run: Cycles, verb: str) -> None:
    path = keep("job", cycles.usd(5), spent=7)
    ran = run("runs", verb, "job")
    assert (ran.status, "pass --yes to confirm" in ran.err) == (2, True)
    assert path.exists()
    assert run("runs", "--json").document["runs"][0]["spent"]["amount"] == 7


@pytest.mark.parametrize("verb", ["reset", "delete"])
def test_a_run_in_use_stays_and_is_listed_as_such(run: Cycles, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycles.embedded.store.LOCK_WAIT_S", 0.01)
    path = keep("job", cycles.usd(5), spent=7)
    with cycles.EmbeddedServer(path=path) as server:
        ran = run("runs", verb, "job", "--yes")
        assert ran.status == 2
        assert len(ran.err.splitlines()) == 1
        assert f"another run has {path} open" in ran.err
        [found] = run("runs", "--json").document["runs"]
        assert (found["in_use"], found["budget"]) == (True, None)
        assert server.spent("tenant:run").amount == 7


@pytest.mark.parametrize(
    ("name", "says"),
    [("other", "there is no kept run other; there are job"), ("../job", "NAME must be a name of letters")],
)
def test_a_wrong_name_is_one_line(run: Cycles, name: str, says: str) -> None:
    keep("job", cycles.usd(5))
    for verb in ("reset", "delete"):
        ran = run("runs", verb, name, "--yes")
        assert (ran.status, len(ran.err.splitlines())) == (2, 1)
        assert says in ran.err


@pytest.mark.parametrize("budget", [cycles.usd(5), cycles.tokens(50)])
def test_the_window_of_a_kept_ledger_is_the_last_one_if_a_budget_names_none(budget: cycles.Amount) -> None:
    """A run without a budget changes nothing. A changed window applies from the next edge."""
    day, week = (cycles.window(budget, period, timezone="Europe/Berlin") for period in ("day", "week"))
    found: list[tuple[str, str | None]] = []
    for given, window in ((budget, day), (None, None), (budget, week), (budget, None), (None, None), (budget, day)):
        unit = None if given is not None else budget.unit
        open_ledger(cycles.Config(), given, embedded=True, keep="mine", unit=unit, window=window).close()
        with cycles.EmbeddedServer(path=kept_file("mine")) as server:
            kept = server.ledger.window("tenant:run", budget.unit)
            assert kept is not None
            found.append((kept.period, kept.next_period))
    assert found == [("day", None), ("day", None), ("day", "week"), ("day", ""), ("day", ""), ("day", None)]


def test_what_is_left_of_a_run_is_neither_spent_nor_held() -> None:
    with contextlib.closing(open_ledger(cycles.Config(), cycles.usd(1), embedded=True, keep=None)) as ledger:
        guard = ledger.client.reserve(cycles.usd("0.4"), action=("llm.call", "m")).acquire()
        left = [ledger.left()]
        guard.commit(cycles.usd("0.1"))
        left.append(ledger.left())
        ledger.client.reserve(cycles.usd("0.9"), action=("llm.call", "m")).acquire().commit(cycles.usd(2))
        assert [*left, ledger.left()] == [cycles.usd("0.6"), cycles.usd("0.9"), cycles.usd(0)]


@pytest.mark.parametrize(
    ("unit", "says", "budget"),
    [(None, "5USD", cycles.usd(1)), ("TOKENS", "50000TOKENS", cycles.tokens(9))],
)
@pytest.mark.parametrize("measured", [False, True])
def test_a_run_without_a_budget_does_not_keep_the_ledger_from_the_next_one(
    unit: str | None, says: str, budget: cycles.Amount, measured: bool
) -> None:
    if measured:  # its ledger has a budget without a limit, which is no budget of a run
        open_ledger(cycles.Config(), None, embedded=True, keep="mine", unit=unit, unlimited=True).close()
    with pytest.raises(cycles.ConfigurationError, match=f"pass --budget {says}, or") as caught:
        open_ledger(cycles.Config(), None, embedded=True, keep="mine", unit=unit)
    with contextlib.closing(open_ledger(cycles.Config(), budget, embedded=True, keep="mine")) as ledger:
        assert (ledger.left(), ledger.unit) == (budget, budget.unit)
    assert caught.tb is not None, "what the error names is still in use"


@processes
def test_the_summary_has_the_total_of_all_runs() -> None:
    run_process("run", "--fake", "--keep", "job", "--budget", "1USD", *AGENT)
    ran = run_process("run", "--fake", "--keep", "job", "--json", *AGENT)
    found = summary(ran)
    assert found["kept"]["name"] == "job"
    assert found["kept"]["budget"] == {"unit": "USD_MICROCENTS", "amount": 100_000_000}
    assert found["kept"]["spent"]["amount"] == 2 * found["spent"]["amount"] > 0
    again = run_process("run", "--keep", "job", "--", "true")
    assert "cycles: kept as job: $0.1203 of $1.00 spent by all its runs" in again.err
    assert "kept" not in summary(run_process("run", "--budget", "1USD", "--json", "--", "true"))


@processes
def test_a_killed_run_is_listed_with_what_it_has_spent() -> None:
    keep("job", cycles.usd(5), spent=7)
    with start("run", "--budget", "1USD", "--keep", "job", "--", "cat", stdin=subprocess.PIPE) as process:
        until(lambda: run_process("runs", "--json").document["runs"][0]["in_use"])
        process.send_signal(signal.SIGKILL)
        process.communicate()
    [found] = run_process("runs", "--json").document["runs"]
    assert (found["in_use"], found["spent"]["amount"], found["budget"]["amount"]) == (False, 7, 100_000_000)
