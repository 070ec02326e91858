"""A signal handler that makes a call, and a forked child, wait for no lock of interrupted code or of a thread."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._drivers.io.threads import BlockingIo
from cycles._flows.io import run
from cycles._flows.signal import Signal
from tests.support.inside import runtime_of
from tests.support.points import run_at
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]


def ends(work: Callable[[], object]) -> None:
    """Run some work in a thread; fail if it hangs."""
    errors: list[BaseException] = []

    def catch() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=catch, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]


def at_each_point(folder: str, make: Callable[[], tuple[Callable[[], object], Callable[[], object]]]) -> int:
    """Run a call once for each of its points, with a signal handler there; return how many points it has."""
    number, more = 0, True
    while more:
        act, call = make()
        more = run_at(folder, number, act, call)
        number += 1
    return number


def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupted_set_wakes_every_caller_that_waits() -> None:
    number, more = 1, True  # point 0 is before the first statement, where nothing is set
    while more:
        signal, woken = Signal(), set[int]()
        for each in range(3):
            signal.on_set(partial(woken.add, each))
        with contextlib.suppress(KeyboardInterrupt):
            more = run_at("/cycles/_flows/signal", number, interrupt, signal.set)
        assert (signal.is_set, woken) == (True, {0, 1, 2}), number
        number += 1
    assert number > 10


def test_a_signal_handler_may_set_a_signal_in_the_middle_of_each_method() -> None:
    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        signal, woken = Signal(), list[str]()

        def use() -> None:
            signal.on_set(lambda: woken.append("first"))
            signal.drop(print)
            signal.set()
            signal.on_set(lambda: woken.append("late"))
            assert woken == ["first", "late"]

        return signal.set, use

    ends(lambda: at_each_point("/cycles/_flows/signal", make))


def test_two_threads_that_set_a_signal_call_each_callback_once() -> None:
    for number in range(20):
        signal, called = Signal(), list[int]()
        threads = [threading.Thread(target=signal.set) for _ in range(4)]
        for each in range(50):
            signal.on_set(partial(called.append, each))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(called) == list(range(50)), number


def test_a_signal_handler_may_wake_the_wait_that_it_interrupts(client: cycles.Cycles) -> None:
    io: BlockingIo = runtime_of(client).blocking

    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        signal = Signal()
        return signal.set, lambda: run(io.wait(signal, 0.0))

    # Every point, also in the standard library, whose `threading.Event` has a lock.
    ends(lambda: at_each_point("", make))


def test_a_price_book_reports_each_model_once_and_a_signal_handler_may_use_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        caplog.clear()
        book = cycles.PriceBook({"m": cycles.Price("0", "10")}, default_model="m")

        def price() -> None:
            usage = cycles.Usage()
            usage.see_response("r", {"tokens_output": 1}, model="m")
            usage.see_response("s", {"web_searches": 1}, model="m")
            book.priced(usage)

        def price_once() -> None:
            price()
            assert len(caplog.records) == 1

        return price, price_once

    ends(lambda: at_each_point("/cycles/prices", make))


def test_a_key_function_that_is_interrupted_may_be_called_again() -> None:
    server, handled = cycles.EmbeddedServer(budgets={"tenant:acme": cycles.usd(1)}), list[bool]()

    def key() -> str:
        if not handled:
            handled.append(True)
            client.decide(cycles.usd(1), action=("a", "b"))  # as a signal handler does
        return server.api_key_for("acme")

    with server.listen() as url, cycles.Cycles(base_url=url, api_key=key, tenant="acme", journal=False) as client:
        ends(lambda: client.decide(cycles.usd(1), action=("a", "b")))
    assert len(server.requests.of("decide")) == 2


def test_a_signal_handler_may_cross_a_threshold_in_the_middle_of_another(client: cycles.Cycles) -> None:
    def make() -> tuple[Callable[[], object], Callable[[], object]]:
        seen: list[Any] = []
        stop = client.on_threshold(1e-9, seen.append)

        def release_one() -> None:
            client.reserve(cycles.usd(1), action=("a", "b")).acquire().release()

        def reserve() -> None:
            release_one()
            stop()
            assert seen
            assert len(seen) == len({event.scope for event in seen})  # each once

        return release_one, reserve

    ends(lambda: at_each_point("/cycles/_drivers/soft_limits", make))


FORK = """
import os, signal, sys, threading
import cycles
from cycles._flows.run_limit import RunLimit
from tests.support.points import run_at

def hold(limit):
    key = object()
    limit.add(key, cycles.usd(1))
    limit.opened(key, None)

number, more = 0, True
while more:
    limit, at_point, forked, results = RunLimit(cycles.usd(9)), threading.Event(), threading.Event(), []

    def pause():
        at_point.set()
        forked.wait(60)

    def use():
        results.append(run_at("/cycles/_flows/run_limit", number, pause, lambda: hold(limit)))
        at_point.set()

    thread = threading.Thread(target=use)
    thread.start()
    assert at_point.wait(60)
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)  # a child that hangs is killed
        hold(limit)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, f"the child that was forked at point {number} hung"
    forked.set()
    thread.join()
    number, more = number + 1, results[0]
assert number > 20
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_is_forked_while_a_thread_changes_a_limit_does_not_hang() -> None:
    # From Python 3.12, `os.fork` warns in a process with threads; that is what this test is about.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr[-2000:]
