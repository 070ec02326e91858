"""Public names of version 0.1 that have a new name, deprecated for one minor version."""

from __future__ import annotations

import warnings
from typing import Final

RENAMED_EVENTS: Final = {
    "Capped": "Undercharged",
    "Flushed": "SettlementsLeftPending",
    "GuardForgotten": "GuardNotCommitted",
    "JournalTrouble": "JournalProblem",
    "LateBeat": "HeartbeatDelayed",
    "ValuesLeftOut": "ValuesOmitted",
}


def warn_renamed(old: str, new: str) -> None:
    """Warn the caller of the function that calls this one that a name is deprecated."""
    warnings.warn(f"{old} is deprecated: write {new}", DeprecationWarning, stacklevel=3)
