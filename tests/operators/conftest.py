"""A server over HTTP, settings that point to it, and `cycles` in this process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import cycles
from cycles.testing import FakeProvider
from tests.operators.browser import Browser, browser
from tests.operators.kit import AS_PROCESSES, Ran, run_process

Cycles = Callable[..., Ran]


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of this machine is seen; journal, state and configuration are temporary."""
    for name in [name for name in os.environ if name.startswith("CYCLES_") and name != "CYCLES_OPERATORS"]:
        monkeypatch.delenv(name)
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "CYCLES_JOURNAL_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    """A server with budgets of the tenant acme."""
    budgets = {"tenant:acme": [cycles.usd(10), cycles.tokens(1_000_000)], "tenant:acme/agent:bot": [cycles.usd(1)]}
    with cycles.EmbeddedServer(budgets) as server:
        yield server


@pytest.fixture
def configured(server: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[cycles.EmbeddedServer]:
    """That server over HTTP, with the variables that point to it."""
    with server.listen() as url:
        monkeypatch.setenv("CYCLES_BASE_URL", url)
        monkeypatch.setenv("CYCLES_API_KEY", server.api_key)
        monkeypatch.setenv("CYCLES_TENANT", "acme")
        yield server


@pytest.fixture
def one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the day of `cycles reconcile` be the same for a whole test; `run_on_that_day` does it for processes."""
    from cycles.cli import reconcile

    day = reconcile.today()
    monkeypatch.setattr(reconcile, "today", lambda: day)


@pytest.fixture
def run_here(capsys: pytest.CaptureFixture[str]) -> Cycles:
    """Run `cycles` in this process; its input is no terminal."""
    from cycles.cli import main

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        status = main(arguments)
        # Otherwise no later test of this process, and no process that it starts, would get a Ctrl-C.
        assert signal.pthread_sigmask(signal.SIG_SETMASK, blocked) == blocked, "run it as a process: it blocks signals"
        out, err = capsys.readouterr()
        return Ran(status, out, err)

    return run


@pytest.fixture
def run(run_here: Cycles) -> Cycles:
    """Run `cycles` in this process with `make test`, as a process of its own with `make test-operators`."""
    return run_process if AS_PROCESSES else run_here


@pytest.fixture
def run_on_that_day(one_day: None, run_here: Cycles) -> Cycles:
    """Run `cycles` as `run` does, with the day that `one_day` keeps."""
    from cycles.cli import reconcile

    day = reconcile.today().isoformat()
    return partial(run_process, day, module="tests.operators.on_a_day") if AS_PROCESSES else run_here


@pytest.fixture(scope="session")
def tab() -> Iterator[Browser]:
    """A browser for all tests of the dashboard."""
    with browser() as started:
        yield started


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """A provider of models that no test pays for."""
    with FakeProvider() as provider:
        yield provider
