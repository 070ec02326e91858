"""Warnings of the SDK as lines on stderr. Those of a run are gathered, so that a burst is one line with a count.

A run may have thousands of calls, and each may warn of the same. So the first warning of a kind waits for a second,
and later ones for longer. Warnings that differ only in numbers are of one kind. Ids of reservations are left out.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from attrs import define

from cycles.cli._output import say

FIRST_S: Final = 1.0
LONGEST_S: Final = 60.0
"""How long warnings of one kind are gathered at first, and at most."""
MOST_KINDS: Final = 100
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")


@define
class _Kind:
    """Warnings of one kind that are not printed yet, and for how long the next ones are gathered."""

    line: str
    count: int
    seconds: float = FIRST_S


class Lines(logging.Handler):
    """Prints records as lines, with control characters escaped."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._gathers = False
        self._kinds: dict[str, _Kind] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, or keep it; `handle` has the lock."""
        line = f"{record.levelname.lower()}: {record.getMessage()}"
        if not self._gathers:
            say(line)
            return
        identifier = getattr(record, "reservation_id", None)
        if identifier:
            line = line.replace(f"reservation {identifier}", "a reservation").replace(identifier, "...")
        key = _NUMBER.sub("0", line)
        kind = self._kinds.get(key)
        if kind is None and len(self._kinds) >= MOST_KINDS:
            say(line)
            return
        if kind is None:
            kind = self._kinds[key] = _Kind(line, 0)
        if not kind.count:
            kind.line = line
            self._print_later(kind)
        kind.count += 1

    def _print_later(self, kind: _Kind) -> None:
        timer = threading.Timer(kind.seconds, self._print, (kind,))
        timer.daemon = True
        timer.start()
        kind.seconds = min(LONGEST_S, 4 * kind.seconds)

    def _print(self, kind: _Kind) -> None:
        self.acquire()
        try:
            if kind.count:
                say(kind.line if kind.count == 1 else f"{kind.line} (and {kind.count - 1} more like this)")
            kind.count = 0
        finally:
            self.release()

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Gather warnings while the block runs, and print at its end what is left."""
        self._gathers = True
        try:
            yield
        finally:
            self._gathers = False
            for kind in self._kinds.values():
                self._print(kind)
            self._kinds = {}


@contextmanager
def gathered_warnings(*, verbose: bool) -> Iterator[None]:
    """Gather the warnings of the block; with `verbose` each is printed by itself, with the id of its reservation."""
    handler = next((each for each in logging.getLogger("cycles").handlers if isinstance(each, Lines)), None)
    if verbose or handler is None:
        yield
        return
    with handler.gathering():
        yield
