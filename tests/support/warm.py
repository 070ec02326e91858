"""Start Python programs. In the short form they are forks of a process that has loaded everything.

A new interpreter needs up to half a second. A fork has its own files, variables, folder and exit too. A test of what a
new interpreter loads, or of how it starts and ends, starts one with `subprocess`.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.short import IS_SHORT
from tests.support.warm_server import LENGTH

ROOT = Path(__file__).parents[2]
USES_FORKS = IS_SHORT and hasattr(os, "fork") and hasattr(socket, "send_fds")


class Program:
    """A started program, with the usual methods of `subprocess.Popen`."""

    def __init__(self, order: dict[str, Any]) -> None:
        (from_stdin, to_stdin), *ends = [os.pipe() for _ in range(4)]
        theirs = [from_stdin, *(write for _, write in ends)]
        try:
            _server().send(order, theirs)
        finally:
            for file in theirs:
                os.close(file)
        self.stdin = os.fdopen(to_stdin, "w")
        self.stdout, self.stderr, self._status = (os.fdopen(read) for read, _ in ends)
        self.pid = int(self._status.readline())
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, text: str = "", timeout: float = 60.0) -> tuple[str, str]:
        """Write a text that fits into a pipe, read what the program prints, wait for its end, and close all files."""
        kill = threading.Timer(timeout, self.kill)
        kill.daemon = True  # if what follows fails, the end of the tests does not wait for it
        kill.start()
        said: list[str] = []
        reading = threading.Thread(target=lambda: said.append(self.stderr.read()))
        reading.start()
        try:
            self.stdin.write(text)
            self.stdin.close()
        except BrokenPipeError:  # it has ended without reading
            pass
        printed = self.stdout.read()
        reading.join()
        self.wait()
        kill.cancel()
        self.stdout.close()
        self.stderr.close()
        return printed, said[0]

    def wait(self) -> int:
        if self.returncode is None:
            with self._status:
                self.returncode = int(self._status.read())
        return self.returncode

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        for file in (self.stdout, self.stderr, self.stdin):
            file.close()
        self.wait()


Started = Program | subprocess.Popen[str]


def start(
    module: str | None = None,
    *arguments: str,
    code: str = "",
    environment: Mapping[str, str] | None = None,
    folder: Path = ROOT,
    warnings: Sequence[str] = (),
    modules: Sequence[str] = (),
) -> Started:
    """Start a module, or code, as a program.

    Args:
        module: As in `python -m MODULE`.
        arguments: Those of the program.
        code: As in `python -c CODE`, if there is no module.
        environment: The variables; by default those of this process.
        folder: The working folder.
        warnings: As in `python -W`: an action, or an action, two colons and a built-in category.
        modules: What to load before the fork besides this package, such as a large SDK.
    """
    environment = dict(os.environ if environment is None else environment)
    if not USES_FORKS or _starts_differently(environment):
        program = ["-c", code] if module is None else ["-m", module]
        options = [part for each in warnings for part in ("-W", each)]
        command, pipe = [sys.executable, *options, *program, *arguments], subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=folder, env=environment)
    return Program(
        {
            "module": module,
            "code": code,
            "arguments": arguments,
            "environment": environment,
            "folder": str(folder),
            "warnings": list(warnings),
            "modules": list(modules),
        }
    )


def run(
    module: str | None = None, *arguments: str, stdin: str = "", timeout: float = 300.0, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as `start` starts it, and return its exit status and what it printed."""
    with start(module, *arguments, **options) as program:
        try:
            printed, said = program.communicate(stdin, timeout)
        except BaseException:
            program.kill()
            raise
        return subprocess.CompletedProcess([str(module), *arguments], program.wait(), printed, said)


def _starts_differently(environment: Mapping[str, str]) -> bool:
    """Return whether a variable that the interpreter reads when it starts is another than in this process."""
    return any(
        environment.get(name) != os.environ.get(name)
        for name in {*environment, *os.environ}
        if name.startswith(("PYTHON", "LC_", "LANG")) and name != "PYTHONPATH"
    )


class _Server:
    """The prepared process, one for all tests of this process."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "tests.support.warm_server", str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        self._lock = threading.Lock()

    def send(self, order: object, files: list[int]) -> None:
        content = json.dumps(order).encode()
        with self._lock:
            socket.send_fds(self._socket, [LENGTH.pack(len(content))], files)
            self._socket.sendall(content)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


_started: list[_Server] = []
_starting = threading.Lock()


def _server() -> _Server:
    with _starting:
        if not _started:
            _started.append(_Server())
            atexit.register(_started[0].close)
        return _started[0]
