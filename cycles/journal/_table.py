"""The table of records that the commands on the journal print."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cycles._journal.operators.inspect import InspectedRecord
from cycles.journal._terminal import Terminal

ID_DIGITS: Final = 12


def print_records(terminal: Terminal, records: Sequence[InspectedRecord]) -> None:
    """Print a table of records."""
    columns = ["id", "state", "amount", "age", "reservation"]
    rows = [_row(entry) for entry in records]
    if any(entry.state == "rejected" for entry in records):
        columns.append("reason")
        rows = [(*row, _reason(entry)) for row, entry in zip(rows, records, strict=True)]
    terminal.table(columns, rows, right=("amount", "age"))


def _row(entry: InspectedRecord) -> tuple[str, ...]:
    age = "-" if not entry.recorded_at_ms else _age(time.time_ns() // 1_000_000 - entry.recorded_at_ms)
    amount = "-" if entry.amount is None else str(entry.amount)
    return entry.id[:ID_DIGITS], entry.state, amount, age, entry.reservation_id or Path(entry.path).name


def _reason(entry: InspectedRecord) -> str:
    settled = " (settled by hand)" if entry.settled_at_ms is not None else ""
    return f"{entry.reason or ''}{settled}"


def _age(ms: int) -> str:
    seconds = max(0, ms // 1000)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
