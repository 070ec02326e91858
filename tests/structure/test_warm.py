"""Programs that tests start as forks: they see and do what new processes do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support import warm

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SHOWS = """
import os, sys, threading, warnings
print(sys.argv[1:], os.environ.get("NAME"), os.environ.get("HOME"), os.getcwd(), sys.stdin.read())
print("wrong", file=sys.stderr)
import atexit
atexit.register(print, "at exit")
try:
    warnings.warn("old", DeprecationWarning)
except DeprecationWarning:
    print("is an error")
left = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 4
print(left, file=sys.stderr)  # the fourth is that of the folder
def late():
    threading.main_thread().join()
    print("a thread")
threading.Thread(target=late).start()
sys.exit(7)
"""


@pytest.fixture(params=["forks", "new interpreters"], autouse=True)
def _both(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm, "USES_FORKS", request.param == "forks")


def test_a_program_has_its_own_files_variables_folder_and_exit(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HOME"} | {"NAME": "a"}
    for _ in range(2):  # the second starts as the first
        ran = warm.run(
            None, "x", "y", code=SHOWS, environment=environment, folder=tmp_path, warnings=["error"], stdin="text"
        )
        first, *more = ran.stdout.splitlines()
        assert first == f"['x', 'y'] a None {tmp_path} text"
        assert more == ["is an error", "a thread", "at exit"]
        assert (ran.stderr, ran.returncode) == ("wrong\n4\n", 7)
    assert warm.run(code="import os; print('NAME' in os.environ)").stdout == "False\n"


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("", 0, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit('no')", 1, "no\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
        (
            "import logging.handlers as h; a = h.MemoryHandler(9, target=h.logging.StreamHandler());"
            " a.emit(h.logging.makeLogRecord({'msg': 'kept', 'levelno': 20}))",
            0,
            "kept\n",
        ),
        ("import os; os._exit(9)", 9, ""),
    ],
)
def test_each_exit_has_its_status(code: str, status: int, said: str) -> None:
    ran = warm.run(code=code)
    assert (ran.returncode, ran.stdout, ran.stderr) == (status, "", said)


def test_an_exception_is_printed() -> None:
    ran = warm.run(code="1 / 0")
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")


def test_an_interrupt_ends_a_program_as_the_signal() -> None:
    ran = warm.run(code="raise KeyboardInterrupt")
    assert (ran.returncode, ran.stderr.splitlines()[-1]) == (-signal.SIGINT, "KeyboardInterrupt")


def test_programs_run_at_the_same_time() -> None:
    asks = "print('ready', flush=True); print(input(), flush=True)"
    with warm.start(code=asks) as first, warm.start(code=asks) as second:
        assert first.stdout is not None
        assert second.stdout is not None
        assert [first.stdout.readline(), second.stdout.readline()] == ["ready\n", "ready\n"]
        assert second.communicate("b\n")[0] == "b\n"
        first.kill()
        assert (first.wait(), second.wait()) == (-signal.SIGKILL, 0)


def test_a_program_that_does_not_end_is_killed() -> None:
    with warm.start(code="import time; time.sleep(3600)") as program:
        if isinstance(program, warm.Program):
            program.communicate(timeout=0.05)
        else:
            program.kill()
    assert program.returncode == -signal.SIGKILL
