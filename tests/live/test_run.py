"""The program of `make test-live`: it stops the servers that it started and fails if it has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from . import run

SCRIPT = """
import pathlib, sys
with open(pathlib.Path(__file__).with_name("calls"), "a") as log:
    log.write(sys.argv[1] + "\\n")
if sys.argv[1] == "{failing}":
    sys.exit(3)
if sys.argv[1] == "start":
    print("export CYCLES_CONTRACT_URL=http://127.0.0.1:1")
"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Mapping[str, str]]]:
    """The test runs that the program starts; the first one fails."""
    runs: list[tuple[str, Mapping[str, str]]] = []

    def run_tests(path: str, settings: Mapping[str, str]) -> int:
        runs.append((path, settings))
        return 1 if len(runs) == 1 else 0

    monkeypatch.setattr(run, "run_tests", run_tests)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # pytest keeps its signal handlers
    return runs


def script(folder: Path, failing: str = "") -> Path:
    file = folder / "servers.py"
    file.write_text(SCRIPT.format(failing=failing))
    return file


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().split()


def test_the_servers_are_stopped_after_failed_tests(
    tmp_path: Path, started: list[tuple[str, Mapping[str, str]]]
) -> None:
    assert run.main(script(tmp_path)) == 1
    assert calls(tmp_path) == ["need", "start", "stop"]
    assert [path for path, _ in started] == [run.CONTRACT, run.FAULTS]
    assert all(settings["CYCLES_CONTRACT_URL"] == "http://127.0.0.1:1" for _, settings in started)


@pytest.mark.parametrize(("failing", "called"), [("need", ["need"]), ("start", ["need", "start", "stop"])])
def test_a_server_that_does_not_start_is_a_failure(
    tmp_path: Path, started: list[tuple[str, Mapping[str, str]]], failing: str, called: list[str]
) -> None:
    with pytest.raises(SystemExit, match=f"{failing}.* failed with status 3"):
        run.main(script(tmp_path, failing))
    assert (calls(tmp_path), started) == (called, [])


def test_a_named_server_is_used_without_fault_runs(
    tmp_path: Path,
    started: list[tuple[str, Mapping[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CYCLES_CONTRACT_URL", "https://cycles.example")
    assert run.main(script(tmp_path)) == 1
    assert started == [(run.CONTRACT, {})]
    assert "fault runs skipped" in capsys.readouterr().out


@pytest.mark.usefixtures("started")
def test_without_any_server_the_message_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"does not exist; set REFERENCE_SERVERS or CYCLES_CONTRACT_URL"):
        run.main(tmp_path / "none.py")
