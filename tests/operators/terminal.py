"""Run a command in a pseudo-terminal and read what it draws."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.operators.kit import ROOT, environment

WAIT_S = 120.0


class Terminal:
    """A process in a terminal of 80 columns and 24 lines."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self.descriptor = descriptor
        self.output = ""

    @property
    def text(self) -> str:
        """What was written so far, without escape sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.output)

    def read_until(self, wanted: str, *, since: int = 0) -> None:
        """Read until a text was written."""
        end = time.monotonic() + WAIT_S
        while wanted not in self.text[since:]:
            left = end - time.monotonic()
            ready = left > 0 and select.select([self.descriptor], [], [], left)[0]
            assert ready, f"{wanted!r} was not written: {self.text}"
            try:
                self.output += os.read(self.descriptor, 65_536).decode("utf-8", "replace")
            except OSError as closed:
                raise AssertionError(f"{wanted!r} was not written: {self.text}") from closed

    def type(self, keys: str) -> None:
        """Type keys."""
        os.write(self.descriptor, keys.encode())

    def wait(self) -> int:
        """Read what is left and return the exit status."""
        with contextlib.suppress(OSError):
            while data := os.read(self.descriptor, 65_536):
                self.output += data.decode("utf-8", "replace")
        return self.process.wait(WAIT_S)


def _take_terminal() -> None:
    """Make standard input the terminal of this session, so that its keys send signals."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def in_terminal(*arguments: str, command: Sequence[str] = (), **variables: str) -> Iterator[Terminal]:
    """Yield `cycles` with these arguments, or a command, in its own terminal; the process is killed at the end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    process = subprocess.Popen(
        command or [sys.executable, "-m", "cycles", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env=environment(TERM="xterm-256color", **variables),
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait(WAIT_S)
        os.close(ours)
