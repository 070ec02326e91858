"""The ledger in an SQLite file: one row per record, and one transaction per operation.

The transaction ends before the response is sent. So a killed process loses no operation that had a response, and no
operation is half written. A power failure may lose the last moments.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cycles._errors import ConfigurationError
from cycles.embedded.errors import ApiError
from cycles.embedded.records import KINDS, Record

# "CYCL" in the header of the file identifies a ledger. The version identifies the layout of its rows.
APPLICATION_ID: Final = 0x4359434C
VERSION: Final = 1
# How long a start waits for another process that is closing the file.
LOCK_WAIT_S: Final = 2.0

_SCHEMA: Final = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
CREATE TABLE IF NOT EXISTS records (
    place INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
    UNIQUE (kind, key)
);
"""
_SAVE: Final = """
INSERT INTO records (kind, key, value) VALUES (?, ?, ?) ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value
"""
_DELETE: Final = "DELETE FROM records WHERE kind = ? AND key = ?"


class SqliteStore:
    """Stores records in an SQLite file, which one server at a time may have open.

    Raises:
        ConfigurationError: if the file cannot be opened, is not a ledger, or another server has it open.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        try:
            self._file = self._open()
        except sqlite3.DatabaseError as wrong:
            raise ConfigurationError(self._explain(wrong)) from wrong

    def _open(self) -> sqlite3.Connection:
        # The ledger holds its lock around every call, so only one thread uses the connection at a time.
        file = sqlite3.connect(self._path, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            file.execute("PRAGMA locking_mode = EXCLUSIVE")  # two ledgers on one file would overwrite each other
            file.execute("BEGIN EXCLUSIVE")
            self._require_ledger(file)  # before any change: the file may belong to another program
            file.execute("COMMIT")
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("PRAGMA synchronous = NORMAL")
            file.executescript(_SCHEMA)
            self._path.chmod(0o600)  # API keys are in it
        except BaseException:
            file.close()
            raise
        return file

    def _require_ledger(self, file: sqlite3.Connection) -> None:
        ((tables,),) = file.execute("SELECT count(*) FROM sqlite_master").fetchall()
        ((application,),) = file.execute("PRAGMA application_id").fetchall()
        ((version,),) = file.execute("PRAGMA user_version").fetchall()
        if tables and application != APPLICATION_ID:
            raise ConfigurationError(
                f"{self._path} is a database, but not a ledger of the embedded server; pass another file"
            )
        if tables and version != VERSION:
            raise ConfigurationError(
                f"{self._path} has layout {version} of another version of this server; pass another file"
            )

    def _explain(self, wrong: sqlite3.DatabaseError) -> str:
        if "locked" in str(wrong):
            return f"another server has {self._path} open; stop it or pass another file"
        return f"cannot open the ledger {self._path} ({wrong}); pass another file"

    def load(self) -> Iterable[Record]:
        """Return every record, in the order in which they were first saved."""
        rows = self._file.execute("SELECT kind, value FROM records ORDER BY place").fetchall()
        return [KINDS[kind].from_json(json.loads(value)) for kind, value in rows]

    def write(self, saved: Iterable[Record], deleted: Iterable[Record]) -> None:
        """Save `saved` and delete `deleted`, all of them or none.

        Raises:
            ApiError: INTERNAL_ERROR if the file cannot be written; then nothing is changed.
        """
        rows = [(record.kind, _key(record), json.dumps(record.to_json())) for record in saved]
        try:
            self._file.execute("BEGIN")
            self._file.executemany(_SAVE, rows)
            self._file.executemany(_DELETE, [(record.kind, _key(record)) for record in deleted])
            self._file.execute("COMMIT")
        except sqlite3.Error as wrong:
            if self._file.in_transaction:
                self._file.execute("ROLLBACK")
            raise ApiError(
                "INTERNAL_ERROR", f"cannot write the ledger's file ({wrong}); nothing was changed"
            ) from wrong

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _key(record: Record) -> str:
    return json.dumps(record.key)
