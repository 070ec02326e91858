"""A fork while another thread makes the first call of a client never hangs the child."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

import cycles
from cycles._drivers.jitter import jitter
from tests.http.conftest import ANSWERS
from tests.support.short import some
from tests.support.stub import Stub, ok
from tests.support.waiting import PATIENCE_S

from .conftest import Shop

PROGRAM = """
import os, sys, threading
import cycles

def decide():
    return client.decide(cycles.tokens(1), action=("a", "b")).allowed

def traced(on_call):
    sys.settrace(lambda frame, event, argument: on_call())
    decide()
    sys.settrace(None)

def calls_of_the_first_use():
    # A child makes the first call and counts the function calls in it.
    source, sink = os.pipe()
    if os.fork() == 0:
        calls = []
        traced(lambda: calls.append(1))
        os.write(sink, str(len(calls)).encode())
        os._exit(0)
    return int(os.read(source, 100))

client = cycles.Cycles(base_url=sys.argv[1], api_key="k", tenant="acme", journal=False)
left = int(calls_of_the_first_use() * int(sys.argv[2]) / 100)
reached, forking = threading.Event(), threading.Event()
os.register_at_fork(before=forking.set)  # it runs before the functions that were registered earlier

def wait_at_the_point():
    global left
    left -= 1
    if left == 0:
        reached.set()
        forking.wait(60)

caller = threading.Thread(target=traced, args=(wait_at_the_point,))
caller.start()
assert reached.wait(60)
pid = os.fork()
if pid == 0:
    os._exit(0 if decide() else 1)
caller.join()
assert os.waitpid(pid, 0)[1] == 0
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("percent", some([1, 15, 30, 45, 60, 75, 90, 99], 2))
def test_a_fork_while_another_thread_makes_the_first_call_hangs_no_child(percent: int) -> None:
    with Stub(ok(ANSWERS["decide"])) as stub:
        ran = subprocess.run(
            # From Python 3.12, `os.fork` warns in a process with threads; that is what this test is about.
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, stub.url, str(percent)],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", "")


USES = {
    "commit": lambda guard: guard.commit(cycles.tokens(1)),
    "release": lambda guard: guard.release(),
    "enter": lambda guard: guard.__enter__(),
    "spend": lambda guard: guard.spend(cycles.tokens(1)),
    "extend": lambda guard: guard.extend(),
    "detach": lambda guard: guard.detach(),
    "wrap": lambda guard: guard.wrap([]),
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of threads that other tests have left
@pytest.mark.parametrize("use", USES)
def test_a_child_cannot_use_a_guard_of_its_parent(client: cycles.Cycles, use: str) -> None:
    guard = client.reserve(cycles.tokens(1), action=("a", "b")).acquire()
    child = os.fork()
    if child == 0:
        try:
            USES[use](guard)
        except cycles.InvalidRequestError as error:
            os._exit(0 if "belongs to the parent process" in str(error) else 2)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert guard.commit(cycles.tokens(1)).charged == cycles.tokens(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of threads that other tests have left
def test_a_child_that_exits_ends_no_guard_of_its_parent(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    at_exit: list[Callable[[], object]] = []
    monkeypatch.setattr("atexit.register", at_exit.append)
    guard = shop.client().reserve(cycles.tokens(1), action=("a", "b")).acquire()
    guard.spend(cycles.tokens(1))
    assert len(at_exit) == 1
    child = os.fork()
    if child == 0:
        try:
            at_exit[0]()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert shop.operations == ["reserve"]
    assert guard.commit().charged == cycles.tokens(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of threads that other tests have left
def test_another_thread_of_a_child_makes_the_first_call_of_a_client(shop: Shop) -> None:
    client, allowed = shop.client(), list[bool]()
    child = os.fork()
    if child == 0:
        calling = threading.Thread(
            target=lambda: allowed.append(client.decide(cycles.tokens(1), action=("a", "b")).allowed), daemon=True
        )
        calling.start()
        calling.join(PATIENCE_S)
        os._exit(0 if allowed == [True] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of threads that other tests have left
def test_children_that_are_forked_at_the_same_time_do_not_retry_at_the_same_time() -> None:
    source, sink = os.pipe()
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os.write(sink, f"{jitter()} ".encode())
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    os.close(sink)
    with os.fdopen(source) as file:
        pauses = file.read().split()
    assert len(set(pauses)) == 2
