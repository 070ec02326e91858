"""Notes on exceptions."""

from __future__ import annotations

import contextlib


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception. One that accepts no notes, such as a frozen dataclass, stays unchanged."""
    with contextlib.suppress(Exception):
        error.add_note(note)
