"""How commands print: results to stdout, everything else to stderr.

On a terminal rich draws tables. Otherwise, or if NO_COLOR is set, nothing printed contains an escape sequence. Text
from a server, a record or a provider is never read as markup, and its control characters are escaped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO, TypeAlias

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from cycles.journal._terminal import TextTerminal, print_document, printable, say

__all__ = ["Cell", "Output", "console", "print_document", "printable", "say", "styled"]

Cell: TypeAlias = str | Text
LEAST_WIDTH: Final = 12
"""Columns that a folded cell of a table needs to be readable."""
_WIDE: Final = 100_000  # columns of output that is no terminal: its reader decides where lines end


def console(stream: TextIO) -> Console:
    """Return a console for a stream, without colours if the stream is no terminal or NO_COLOR is set."""
    terminal = stream.isatty()
    coloured = terminal and not os.environ.get("NO_COLOR")
    return Console(
        file=stream,
        force_terminal=terminal,
        color_system="auto" if coloured else None,
        width=None if terminal else _WIDE,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
    )


def styled(text: object, style: str = "") -> Text:
    """Return an escaped text with a style."""
    return Text(printable(text), style=style)


class Output:
    """Prints the results of one command.

    Attributes:
        json: Whether the command prints JSON documents.
        console: The console of stdout.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.console: Final = console(sys.stdout)

    @property
    def is_terminal(self) -> bool:
        """Whether stdout is a terminal."""
        return self.console.is_terminal

    def document(self, value: Any) -> None:
        """Print one JSON document in one line."""
        print_document(value)

    def result(self, document: Any, line: Cell) -> None:
        """Print what a command has done: a JSON document, or a line."""
        if self.json:
            self.document(document)
        else:
            self.line(line)

    def listing(
        self,
        document: Any,
        columns: Sequence[str],
        rows: Sequence[Sequence[Cell]],
        *,
        none: str,
        right: Sequence[str] = (),
    ) -> None:
        """Print a list: a JSON document, or a table; `none` is the line of an empty one."""
        if self.json or not rows:
            self.result(document, none)
        else:
            self.table(columns, rows, right=right)

    def line(self, text: Cell = "") -> None:
        """Print one line."""
        self.console.print(text if isinstance(text, Text) else styled(text), soft_wrap=True)

    def draw(self, renderable: RenderableType) -> None:
        """Print anything that rich can draw."""
        self.console.print(renderable)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, right: Sequence[str] = ()) -> None:
        """Print a table; `right` names the columns that are aligned to the right.

        On a terminal that is too narrow for it, each row is printed as names and values.
        """
        cells = [list(row) for row in rows]
        if not self.is_terminal:
            TextTerminal(json=False).table(columns, [[str(cell) for cell in row] for row in cells], right=right)
        elif self._fits(columns, cells, right):
            self.draw(self.as_table(columns, cells, right=right))
        else:
            for row in cells:
                self.pairs(zip(columns, row, strict=True))
                self.line()

    def _fits(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]], right: Sequence[str]) -> bool:
        widths = [max((cell_len(str(row[index])) for row in rows), default=0) for index in range(len(columns))]
        least = sum(
            width if name in right or not name else min(width, LEAST_WIDTH)
            for name, width in zip(columns, widths, strict=True)
        )
        return least + len(columns) <= self.console.width

    def as_table(
        self, columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, right: Sequence[str] = (), wrap: bool = True
    ) -> Table:
        """Return a table, for commands that draw several things together. Without `wrap` long cells are truncated."""
        table = Table(
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            show_edge=False,
            header_style="bold",
        )
        cells = [[cell if isinstance(cell, Text) else styled(cell) for cell in row] for row in rows]
        for index, column in enumerate(columns):
            whole = column in right or not column  # amounts and bars stay whole
            table.add_column(
                column,
                justify="right" if column in right else "left",
                no_wrap=whole or not wrap,
                min_width=max((row[index].cell_len for row in cells), default=0) if whole else None,
                overflow="fold" if wrap else "ellipsis",
            )
        for row in cells:
            table.add_row(*row)
        return table

    def pairs(self, rows: Iterable[tuple[str, Cell | None]]) -> None:
        """Print names and values below each other; None is left out."""
        known = [(name, value) for name, value in rows if value is not None]
        if not self.is_terminal:
            width = max((len(name) for name, _ in known), default=0)
            for name, value in known:
                self.line(f"{name:<{width}}  {value}")
            return
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in known:
            table.add_row(styled(name), value if isinstance(value, Text) else styled(value))
        self.draw(table)
