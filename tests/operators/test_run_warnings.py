"""What `cycles run` prints besides its summary: few lines, without ids and without advice for other programs."""

from __future__ import annotations

import logging
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import cycles
from cycles.cli._warnings import MOST_KINDS, Lines, gathered_warnings
from cycles.testing import FakeProvider
from tests.operators.conftest import Cycles
from tests.operators.kit import run_process
from tests.operators.proxying import proxied, upstreams as routes
from tests.operators.running import summary

AGENT = ("--", sys.executable, "examples/agent.py")
RUN = ("run", "--fake", "--budget", "1USD")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Log a warning through a handler that gathers; timers never end by themselves."""
    handler, logger = Lines(), logging.getLogger("cycles.test-lines")
    logger.propagate = False
    logger.addHandler(handler)

    class Timer:
        daemon = False

        def __init__(self, seconds: float, function: Any, arguments: tuple[Any, ...]) -> None:
            timers.append((seconds, lambda: function(*arguments)))

        def start(self) -> None: ...

    timers: list[Any] = []
    monkeypatch.setattr("threading.Timer", Timer)
    yield handler, logger, timers
    logger.removeHandler(handler)


def test_a_burst_of_the_same_warning_is_one_line_with_a_count(log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    handler, logger, timers = log
    with handler.gathering():
        for number in range(50):
            identifier = f"r-{number}"
            logger.warning(
                "reservation %s: commit of $0.%02d failed", identifier, number, extra={"reservation_id": identifier}
            )
        logger.warning("something else")
        assert capsys.readouterr().err == ""
        timers[0][1]()
        line = "warning: a reservation: commit of $0.00 failed (and 49 more like this)\n"
        assert capsys.readouterr().err == line
    assert capsys.readouterr().err == "warning: something else\n"


def test_warnings_that_continue_come_at_longer_intervals(log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    handler, logger, timers = log
    with handler.gathering():
        for _ in range(6):
            logger.warning("the server is slow")
            timers[-1][1]()
        assert [seconds for seconds, _ in timers] == [1, 4, 16, 60, 60, 60]
        assert capsys.readouterr().err == "warning: the server is slow\n" * 6


def test_a_timer_that_ends_after_the_run_prints_nothing_again(log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    handler, logger, timers = log
    with handler.gathering():
        logger.warning("once")
    timers[0][1]()
    assert capsys.readouterr().err == "warning: once\n"
    logger.warning("reservation r-1: later", extra={"reservation_id": "r-1"})
    assert capsys.readouterr().err == "warning: reservation r-1: later\n"


def test_the_warnings_of_another_run_begin_again(log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    handler, logger, timers = log
    for _ in range(2):
        with handler.gathering():
            for number in range(MOST_KINDS):
                logger.warning("kind %s", "x" * number)
            assert capsys.readouterr().err == "", "gathered, also if it is the kind of an earlier run"
        assert len(capsys.readouterr().err.splitlines()) == MOST_KINDS
    assert {seconds for seconds, _ in timers} == {1}


def test_a_gathered_line_is_that_of_its_group(log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    handler, logger, timers = log
    with handler.gathering():
        for cents in (3, 5):
            logger.warning("commit of $0.0%d failed", cents)
            timers[-1][1]()
        assert capsys.readouterr().err.splitlines() == [f"warning: commit of $0.0{cents} failed" for cents in (3, 5)]


def test_no_timer_of_a_warning_keeps_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Timer] = []
    monkeypatch.setattr(threading.Timer, "start", lambda timer: started.append(timer))
    handler = Lines()
    with handler.gathering():
        handler.handle(logging.makeLogRecord({"msg": "x", "levelno": logging.WARNING, "levelname": "WARNING"}))
        assert [timer.daemon for timer in started] == [True]


@pytest.mark.parametrize("verbose", [True, False])
@pytest.mark.parametrize("has_lines", [True, False])
def test_warnings_are_gathered_unless_each_is_wanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verbose: bool, has_lines: bool
) -> None:
    logger = logging.getLogger("cycles")
    monkeypatch.setattr(logger, "handlers", [Lines()] if has_lines else [])
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(threading.Timer, "start", lambda timer: None)
    with gathered_warnings(verbose=verbose):
        for handler in logger.handlers:
            handler.handle(logging.makeLogRecord({"msg": "x", "levelno": logging.WARNING, "levelname": "WARNING"}))
        shown = capsys.readouterr().err
    assert shown == ("warning: x\n" if verbose and has_lines else "")
    assert capsys.readouterr().err == ("warning: x\n" if not verbose and has_lines else "")


def test_the_kinds_of_warnings_are_bounded(log: Any, capsys: pytest.CaptureFixture[str]) -> None:
    handler, logger, timers = log
    with handler.gathering():
        for number in range(MOST_KINDS + 1):
            logger.warning("kind %s", "x" * number)
        assert capsys.readouterr().err == f"warning: kind {'x' * MOST_KINDS}\n"
        assert len(timers) == MOST_KINDS
        for _ in range(2):  # a kind that is known is gathered also when no other has a place
            logger.warning("kind %s", "x")
        assert capsys.readouterr().err == ""
        timers[1][1]()
        assert capsys.readouterr().err == "warning: kind x (and 2 more like this)\n"


def test_reservation_ids_appear_only_with_v(configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_FLUSH_TIMEOUT", "0.1")
    configured.faults.status("commit", 500, times=None)
    with ThreadPoolExecutor() as at_once:
        ran, verbose = at_once.map(lambda options: run_process("run", *options, "--fake", *AGENT), ((), ("-v",)))
    lines = [line for line in ran.err.splitlines() if line.startswith("warning: a reservation: commit of ")]
    more = [re.fullmatch(r".* \(and (\d) more like this\)", line) for line in lines]
    # On a slow machine they are printed in several groups; the handler's own tests have the time of one.
    assert len(lines) + sum(int(match[1]) for match in more if match) == 6
    assert len(lines) < 6
    ids = [row.reservation_id for row in configured.client(tenant="acme").reservations()]
    named = [line for line in verbose.err.splitlines() if re.match(r"warning: reservation \S+: ", line)]
    assert len(named) == 6
    assert not any(identifier in ran.err for identifier in ids)
    assert sum(identifier in verbose.err for identifier in ids) == 6


def test_a_model_without_a_price_costs_what_was_allowed_and_prints_no_advice(provider: FakeProvider) -> None:
    ran = run_process(
        "run", "--budget", "1USD", "--json", "--unknown-model", "allow=0.10USD",
        "--upstream", f"openai={provider.openai_url}", "--", sys.executable, "-c", _CALLS,
    )  # fmt: skip
    assert ran.status == 0, ran.err
    assert len(ran.err.splitlines()) == 1, ran.err
    found = summary(ran)
    assert (found["calls"], found["estimated"], found["spent"]["amount"]) == (3, 3, 3 * cycles.usd("0.10").amount)


_CALLS = """
import json, os, urllib.request
for _ in range(3):
    body = json.dumps({"model": "no-such-model", "messages": []}).encode()
    url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
    urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"})).read()
"""


@pytest.mark.parametrize("command", [("run",), ("proxy",)])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--budget", "1USD", "--budget", "2USD"), "it is there 2 times (1USD, 2USD); pass one"),
        (("--budget", "0USD"), "'0USD' is not above zero; write it like 5USD"),
        (("--budget", "0.00USD"), "'0.00USD' is not above zero; write it like 5USD"),
        (("--budget", "-1USD"), ""),
    ],
)
def test_a_repeated_budget_and_one_of_zero_are_wrong_usage(
    run: Cycles, command: tuple[str, ...], arguments: tuple[str, ...], says: str
) -> None:
    ran = run(*command, "--fake", *arguments, *(("--", "true") if command == ("run",) else ()))
    assert (ran.status, ran.out) == (2, "")
    assert "--budget" in ran.err
    assert says in ran.err


def test_a_502_names_host_and_cause() -> None:
    with proxied(upstreams=routes("http://user:secret@127.0.0.1:9")) as place:
        message = place.post().json()["error"]["message"]
        assert message == "the provider gave no response: 127.0.0.1:9 cannot be reached (Connection refused)"
    with proxied(upstreams=routes("http://no-such-host.invalid")) as place:
        message = place.post().json()["error"]["message"]
        assert message.startswith("the provider gave no response: no-such-host.invalid cannot be reached (")
        assert "Error" not in message
    with proxied() as place:
        host = place.provider.url.removeprefix("http://")
        place.provider.reply(drop_after=0)
        message = place.post().json()["error"]["message"]
        assert f"{host} gave no response (Server disconnected without sending a response.)" in message
        place.provider.reply(status=307, headers={"location": "/x"})
        message = place.post().json()["error"]["message"]
        assert message == f"the provider redirects, and the proxy does not follow: {host} (status 307)"
