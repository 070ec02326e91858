"""The journal for operators: look at unsettled amounts, settle, move or discard them.

`inspect` reads the files of all servers and principals on this machine without changing them. ``python -m
cycles.journal`` has the same commands as ``cycles journal`` and needs no extra. See `docs/command-line.md`.
"""

from __future__ import annotations

import os
from pathlib import Path

from cycles._errors import ConfigurationError
from cycles._journal import inspection
from cycles._journal.inspection import InspectedRecord as InspectedRecord
from cycles._journal.journal import default_root

__all__ = ["InspectedRecord", "directory_of", "inspect"]

InspectedRecord.__module__ = __name__


def directory_of(journal_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the directory that `inspect` reads."""
    given = journal_dir or os.environ.get("CYCLES_JOURNAL_DIR", "").strip()
    return (Path(given) if given else default_root()).expanduser()


def inspect(journal_dir: str | os.PathLike[str] | None = None) -> list[InspectedRecord]:
    """Return the records of all servers and principals below a journal directory, oldest first.

    It needs no server and no settings. It never moves, locks, settles, creates or touches a file.

    Args:
        journal_dir: The directory, as `Config.journal_dir`; None is `CYCLES_JOURNAL_DIR`, or without it the platform's
            user state directory.

    Raises:
        ConfigurationError: The directory cannot be read.
    """
    root = directory_of(journal_dir)
    try:
        return inspection.inspect(root)
    except (OSError, RuntimeError) as error:
        raise ConfigurationError(
            f"the journal cannot be read: {root} ({error}); make it readable or pass another directory"
        ) from error
