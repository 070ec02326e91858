"""Plain output for commands: no escape sequences, no extra."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Protocol


class Terminal(Protocol):
    """How a command prints."""

    @property
    def json(self) -> bool:
        """Whether it prints JSON documents."""
        ...

    def document(self, value: Any) -> None:
        """Print one JSON document in one line."""
        ...

    def line(self, text: str) -> None:
        """Print one line."""
        ...

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
        """Print a table; `right` names the columns that are aligned to the right."""
        ...


def printable(text: object) -> str:
    """Return a string with everything that a terminal might act on as escape sequences, line breaks included."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in str(text)
    )


def say(line: object) -> None:
    """Print one line to stderr. It is escaped."""
    sys.stderr.write(printable(line) + "\n")
    sys.stderr.flush()


def print_document(value: Any) -> None:
    """Print one JSON document in one line."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def confirm(question: str) -> bool:
    """Prompt on stderr and return whether the user confirms; anything but y and yes declines."""
    sys.stderr.write(f"{printable(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class TextTerminal:
    """Prints to stdout without an extra."""

    def __init__(self, *, json: bool) -> None:
        self.json = json

    def document(self, value: Any) -> None:
        """Print one JSON document in one line."""
        print_document(value)

    def line(self, text: str) -> None:
        """Print one line."""
        print(printable(text), flush=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()) -> None:
        """Print a table; `right` names the columns that are aligned to the right."""
        lines = [list(columns), *([printable(cell) for cell in row] for row in rows)]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        for line in lines:
            cells = (
                cell.rjust(width) if name in right else cell.ljust(width)
                for name, cell, width in zip(columns, line, widths, strict=True)
            )
            print("  ".join(cells).rstrip())
