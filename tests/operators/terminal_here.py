"""A pseudo-terminal for a command that runs in this process, and a reader that reacts to what the command draws."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WAIT_S = 30.0
Step = tuple[str, Callable[[], object]]


class TerminalHere:
    """The terminal of this process: standard input and output.

    Attributes:
        steps: Texts that are waited for, one after the other, and what is done when one was written.
        missing: The text that was not written in time; the terminal is closed then.
    """

    def __init__(self, ours: int, theirs: int) -> None:
        self.ours = ours
        self.theirs = theirs
        self.steps: list[Step] = []
        self.missing: str | None = None
        self.output = ""
        self.thread = threading.Thread(target=self.read, daemon=True)

    @property
    def text(self) -> str:
        """What was written so far, without escape sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.output)

    @property
    def settings(self) -> list[Any]:
        """What `stty` would print."""
        return termios.tcgetattr(self.theirs)

    def on(self, wanted: str, keys: str = "", action: Callable[[], object] = lambda: None) -> None:
        """Carry out an action and type keys when a text is written, after the text of the step before."""

        def react() -> None:
            action()
            os.write(self.ours, keys.encode())

        self.steps.append((wanted, react))

    def read(self) -> None:
        """Read until the command closes the terminal."""
        seen, end = 0, time.monotonic() + WAIT_S
        while True:
            while self.steps and (place := self.text.find(self.steps[0][0], seen)) >= 0:
                seen = place + len(self.steps[0][0])
                self.steps.pop(0)[1]()
            left_s = end - time.monotonic()
            if left_s <= 0 or not select.select([self.ours], [], [], left_s)[0]:
                self.steps = self.steps or [("its end", lambda: None)]
                break
            try:
                self.output += os.read(self.ours, 65_536).decode("utf-8", "replace")
            except OSError:  # the command has ended
                break
        self.missing = self.steps[0][0] if self.steps else None
        os.close(self.ours)


@contextmanager
def terminal_here(columns: int = 100, lines: int = 40) -> Iterator[TerminalHere]:
    """Yield a terminal; the block ends when the command has returned."""
    ours, theirs = pty.openpty()
    terminal = TerminalHere(ours, theirs)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("TERM", "xterm-256color"), ("COLUMNS", str(columns)), ("LINES", str(lines))):
            patch.setenv(name, value)
        streams = [os.fdopen(os.dup(theirs), mode, encoding="utf-8") for mode in ("r", "w")]
        patch.setattr(sys, "stdin", streams[0])
        patch.setattr(sys, "stdout", streams[1])
        terminal.thread.start()
        try:
            yield terminal
        finally:
            for stream in streams:
                with contextlib.suppress(OSError):  # the reader has closed the terminal
                    stream.close()
            os.close(theirs)
            terminal.thread.join()
    assert terminal.missing is None, f"{terminal.missing!r} was not written: {terminal.text}"
