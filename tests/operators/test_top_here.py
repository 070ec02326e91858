"""`cycles top` in this process, on a pseudo-terminal and with a clock that only its waiting moves."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from attrs import define, field

import cycles
from cycles.cli.top import ServerClock, Watched
from cycles.journal import inspect
from tests.operators.conftest import Cycles
from tests.operators.kit import Ran
from tests.operators.terminal_here import terminal_here
from tests.operators.test_commands import commit
from tests.operators.test_top import busy as busy

SETTLED_S = 20.0
"""A test fails after this time if another thread does not do what it should."""


@define
class Reads:
    """Counts the reads of a view; one of them may fail, or wait until it is let go."""

    count: int = 0
    held: int = 0
    failing: int = 0
    gate: threading.Event = field(factory=threading.Event)
    holding: threading.Event = field(factory=threading.Event)

    def __call__(self, directory: Any) -> Any:
        self.count += 1
        if self.count == self.held:
            self.holding.set()
            assert self.gate.wait(SETTLED_S)
        if self.count == self.failing:
            raise ZeroDivisionError("a fault in a read")
        return inspect(directory)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reads]:
    made = Reads()
    monkeypatch.setattr("cycles.cli.top.inspect", made)
    yield made
    made.gate.set()
    for thread in _readers():
        thread.join(SETTLED_S)


def _readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cycles-top"]


@define
class Time:
    """The clock of the command. It ends the command with an error when it has waited for all that it may."""

    waits: int
    now: float = 1_000.0
    slept: list[float] = field(factory=list)
    then: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) > self.waits:
            raise cycles.ConfigurationError("the test has seen enough")
        self.now += seconds
        for thread in _readers():
            thread.join(SETTLED_S)
        self.then()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each read be due at once, and look for its end again and again."""
    monkeypatch.setattr("cycles.cli.top.time", SimpleNamespace(monotonic=partial(next, itertools.count(step=10_000))))
    monkeypatch.setattr("cycles.cli.top.KEYS_S", 0.005)


@contextmanager
def top(run: Cycles, *arguments: str) -> Iterator[tuple[Any, Callable[[], Ran]]]:
    with terminal_here() as terminal:
        yield terminal, lambda: run("top", *arguments)


def test_budgets_are_read_again_and_an_error_of_the_server_is_shown_until_it_responds(
    run_here: Cycles, busy: cycles.EmbeddedServer, no_pause: None, soon: None
) -> None:
    with top(run_here, "--interval", "600") as (terminal, run):
        terminal.on("$0.04", action=lambda: commit(busy.client(tenant="acme", journal=False), "other", 3))
        terminal.on("$0.07", action=lambda: busy.faults.status("balances", 503, times=None))
        terminal.on("HTTP 503")
        terminal.on("rsv-pending", action=busy.faults.clear)  # the rest of the view stays
        terminal.on("q exits", "q")
        before = terminal.settings
        ran = run()
        assert terminal.settings == before
    assert ran.status == 0
    assert "\x1b[?1049l" in terminal.output, "the screen of before is shown again"


def test_keys_scroll_and_filter_between_two_reads(run_here: Cycles, busy: cycles.EmbeddedServer, reads: Reads) -> None:
    for number in range(60):
        scope = f"tenant:acme/agent:bot-{number:02}"
        busy.ledger.set_budget(scope, cycles.usd(1), spent=100_000_000 - number * 1_000_000)
    with top(run_here, "--interval", "600") as (terminal, run):
        terminal.on("rsv-pending", "\x1b[6~" * 4)
        terminal.on("40 above", "Gkkk")
        terminal.on("62 above", "/bot-33")  # of 63 budgets; one live, one settled and the record are below
        terminal.on("/bot-33_ (Enter: done)", "-q\r")
        terminal.on("nothing contains 'bot-33-q'", "\x1b/agent:bot-3\r")
        terminal.on("agent:bot-39", "G")
        terminal.on("9 above", "q")  # the end of the rows with the text
        ran = run()
    assert ran.status == 0
    assert reads.count == 1


def test_keys_work_while_a_read_takes_long_and_leaving_does_not_wait_for_it(
    run_here: Cycles, busy: cycles.EmbeddedServer, reads: Reads, soon: None
) -> None:
    reads.held = 2
    with top(run_here, "--interval", "600") as (terminal, run):
        terminal.on("q exits", action=lambda: reads.holding.wait(SETTLED_S))
        terminal.on("q exits", "/nowhere\r")
        terminal.on("nothing contains 'nowhere'", "q")
        ran = run()
    assert ran.status == 0
    assert reads.count == 2, "no other read begins before it has ended"
    assert not reads.gate.is_set()
    assert [thread.daemon for thread in _readers()] == [True]


def test_a_fault_in_a_read_ends_the_view_and_gives_the_terminal_back(
    run_here: Cycles, busy: cycles.EmbeddedServer, reads: Reads, soon: None
) -> None:
    reads.failing = 2
    with top(run_here, "--interval", "600") as (terminal, run):
        before = terminal.settings
        with pytest.raises(ZeroDivisionError, match="a fault in a read"):
            run()
        assert terminal.settings == before
    assert "\x1b[?1049l" in terminal.output


def test_a_closed_terminal_ends_the_view(run_here: Cycles, busy: cycles.EmbeddedServer) -> None:
    ours, theirs = os.openpty()
    with top(run_here, "--interval", "600") as (terminal, run), os.fdopen(theirs) as keys:
        terminal.on("rsv-pending", action=lambda: os.close(ours))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", keys)
            ran = run()
    assert ran.status == 0


def test_without_a_keyboard_the_view_is_read_again_after_each_interval(
    run_here: Cycles, busy: cycles.EmbeddedServer, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time(waits=4)
    monkeypatch.setattr("cycles.cli.top.time", time)
    with (
        top(run_here, "--interval", "600") as (_, run),
        Path(os.devnull).open() as nothing,
        monkeypatch.context() as own,
    ):
        own.setattr(sys, "stdin", nothing)  # undone before the terminal's
        ran = run()
    assert (ran.status, ran.err) == (2, "error: the test has seen enough\n")
    assert time.slept == pytest.approx([600, 0.05, 600, 0.05, 600])
    assert reads.count == 3


def test_on_windows_the_view_is_read_again_without_keys(
    run_here: Cycles, busy: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles.cli.top.time", Time(waits=2))
    with top(run_here) as (terminal, run):
        monkeypatch.setitem(sys.modules, "termios", None)
        ran = run()
    assert ran.err == "error: the test has seen enough\n"
    assert "rsv-pending" in terminal.text


def test_one_view_on_a_terminal_stays_there(run_here: Cycles, busy: cycles.EmbeddedServer) -> None:
    with top(run_here, "--once") as (terminal, run):
        terminal.on("rsv-pending", "q")
        ran = run()
    assert ran.status == 0
    assert "rsv-pending" in terminal.text
    assert "q exits" not in terminal.text
    assert "\x1b[?1049h" not in terminal.output


def test_a_pipe_gets_a_document_after_each_interval(
    run_here: Cycles, busy: cycles.EmbeddedServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time(waits=1, then=lambda: commit(busy.client(tenant="acme", journal=False), "other", 3))
    monkeypatch.setattr("cycles.cli.top.time", time)
    ran = run_here("top", "--json", "--interval", "7")
    first, second, error = ran.out.splitlines()
    assert (ran.status, time.slept) == (2, [7.0, 7.0])
    assert [line.count('"COMMITTED"') for line in (first, second)] == [1, 2]
    assert "the test has seen enough" in error


def test_the_tables_of_a_pipe_have_the_spend_rate_since_the_first(
    run_here: Cycles, busy: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Time(waits=1, then=lambda: commit(busy.client(tenant="acme", journal=False), "other", 3))
    monkeypatch.setattr("cycles.cli.top.time", time)
    monkeypatch.setattr("cycles.cli.top.now_ms", lambda: int(time.now * 1000))
    lines = [line.split() for line in run_here("top", "--interval", "30").out.splitlines()]
    usd = [line[1:3] for line in lines if line[:1] == ["tenant:acme"] and line[1].startswith("$")]
    assert usd == [["$0.04", "-"], ["$0.07", "$0.06"]]


def watched(*responses: httpx.Response | type[Exception]) -> tuple[Watched, list[str]]:
    left, paths = list(responses), list[str]()

    def respond(request: httpx.Request) -> httpx.Response:
        paths.append(str(request.url))
        response = left.pop(0)
        if isinstance(response, httpx.Response):
            return response
        raise response("no connection")

    client = cycles.Cycles(base_url="http://127.0.0.1:9", api_key="k", tenant="acme", journal=False)
    return Watched(client, ServerClock(), httpx.Client(transport=httpx.MockTransport(respond))), paths


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(404, json={"denied": {"tenant:acme": 1}}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"other": 1}),
        httpx.Response(200, json=["denied"]),
        httpx.Response(200, json={"denied": ["tenant:acme"]}),
    ],
    ids=["404", "page", "other", "list", "names"],
)
def test_another_server_is_asked_for_its_denials_only_once(response: httpx.Response) -> None:
    view, paths = watched(response)
    with view.client, view.http:
        assert [view.denied(["tenant:acme"]) for _ in range(2)] == [None, None]
    assert paths == ["http://127.0.0.1:9/dashboard/denials"]


def test_denials_are_asked_for_again_after_no_response() -> None:
    counts = {"tenant:acme/agent:bot": 2, "tenant:acme-2": 3, "tenant:acme": 1}
    view, _ = watched(httpx.ConnectError, httpx.ReadTimeout, httpx.Response(200, json={"denied": counts}))
    with view.client, view.http:
        found = [view.denied({"tenant:acme"}) for _ in range(3)]
    assert found == [None, None, {"tenant:acme/agent:bot": 2, "tenant:acme": 1}]


def test_the_time_of_the_server_is_that_of_its_last_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycles.cli.top.now_ms", lambda: 5)
    clock = ServerClock()
    for date, now_ms in (
        (None, 5),
        ("yesterday", 5),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 100_000),
        ("yesterday", 100_000),
        ("Thu, 01 Jan 1970 00:01:39 GMT", 99_000),
    ):
        clock.note(httpx.Response(200, headers={} if date is None else {"Date": date}))
        assert clock.now_ms() == now_ms, date
