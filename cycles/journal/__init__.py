"""The journal for operators: look at unsettled amounts, settle, move or discard them; and its stores.

`RedisStore` and `PostgresStore` keep the records of a fleet: pass one, or its URL, as `journal_store` of a client. See
`docs/fleets.md`. `check_store` tests your store.

`inspect` reads the files of all servers and principals on this machine without changing them. ``python -m
cycles.journal`` has the same commands as ``cycles journal`` and needs no extra. See `docs/command-line.md`.
"""

from __future__ import annotations

import os
from pathlib import Path

from cycles._errors import ConfigurationError, StoreError as StoreError
from cycles._journal.journal import default_root
from cycles._journal.operators import inspect as inspection
from cycles._journal.operators.inspect import InspectedRecord as InspectedRecord
from cycles._journal.stores.check import check_store as check_store
from cycles._journal.stores.files import FileStore as FileStore
from cycles._journal.stores.memory import MemoryStore as MemoryStore
from cycles._journal.stores.postgres import PostgresStore as PostgresStore
from cycles._journal.stores.redis import RedisStore as RedisStore
from cycles._journal.stores.store import (
    JournalStore as JournalStore,
    Put as Put,
    Stored as Stored,
)
from cycles._version import readable

__all__ = [
    "FileStore",
    "InspectedRecord",
    "JournalStore",
    "MemoryStore",
    "PostgresStore",
    "Put",
    "RedisStore",
    "StoreError",
    "Stored",
    "check_store",
    "directory_of",
    "inspect",
]

InspectedRecord.__module__ = __name__
readable(InspectedRecord, Put, Stored)


def directory_of(journal_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the directory that `inspect` reads.

    Raises:
        ConfigurationError: It would be in the home directory of a user who has none.
    """
    given = journal_dir or os.environ.get("CYCLES_JOURNAL_DIR", "").strip()
    try:
        return (Path(given) if given else default_root()).expanduser()
    except RuntimeError as error:
        advice = "write the whole path of the directory" if given else "set CYCLES_JOURNAL_DIR"
        raise ConfigurationError(f"no home directory is known for {given or '~'}; {advice}") from error


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
    except OSError as error:
        raise ConfigurationError(
            f"the journal cannot be read: {root} ({error}); make it readable or pass another directory"
        ) from error
