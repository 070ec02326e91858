"""The ledgers that `cycles run --keep NAME` keeps: one SQLite file for each name, in the user's state directory."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from cycles._core.amounts import Amount
from cycles._errors import ConfigurationError
from cycles.embedded import EmbeddedServer
from cycles.embedded.records import Budget, Reservation

SCOPE: Final = "tenant:run"
"""The scope whose budget is that of the run."""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_SUFFIX: Final = ".db"
_BESIDE: Final = ("-wal", "-shm", "-journal")
"""What SQLite may leave beside a file."""


@frozen
class KeptRun:
    """One kept ledger in one unit.

    Attributes:
        name: Its name.
        path: Its file.
        budget: What all its runs may spend; None: another run has it open, or it has no budget.
        spent: What they have spent; None as for `budget`.
        last_use_ms: When its file was last written, in milliseconds since the epoch.
        in_use: Whether a run has it open.
    """

    name: str
    path: Path
    budget: Amount | None
    spent: Amount | None
    last_use_ms: int
    in_use: bool = False

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "name": self.name,
            "file": str(self.path),
            "budget": None if self.budget is None else self.budget.to_dict(),
            "spent": None if self.spent is None else self.spent.to_dict(),
            "last_use_ms": self.last_use_ms,
            "in_use": self.in_use,
        }


def directory() -> Path:
    """Return where the files are; it may not exist."""
    import platformdirs

    return platformdirs.user_state_path("cycles-sdk", appauthor=False) / "runs"


def kept_file(name: str) -> Path:
    """Return the file of ``--keep NAME``; its directory is made.

    Raises:
        ConfigurationError: if it is no name, or the directory cannot be made.
    """
    path = _path_of(name, "--keep")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--keep cannot make the directory {path.parent}: {error.strerror}") from error
    return path


def _path_of(name: str, what: str) -> Path:
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError(f"{what} must be a name of letters, digits, dots and dashes, got {name!r:.80}")
    return directory() / f"{name}{_SUFFIX}"


def kept_runs() -> list[KeptRun]:
    """Return all kept ledgers by name, a ledger with budgets in two units twice. Nothing is changed."""
    found = directory()
    paths = sorted(found.glob(f"*{_SUFFIX}")) if found.is_dir() else []
    return [run for path in paths for run in _read(path)]


def existing(name: str) -> list[KeptRun]:
    """Return the kept ledger of a name.

    Raises:
        ConfigurationError: if there is none.
    """
    path = _path_of(name, "NAME")
    if not path.is_file():
        names = ", ".join(dict.fromkeys(run.name for run in kept_runs()))
        known = f"; there are {names:.200}" if names else "; cycles run --keep NAME makes one"
        raise ConfigurationError(f"there is no kept run {name}{known}")
    return _read(path)


def reservations_of(name: str) -> list[Reservation]:
    """Return the reservations of a kept ledger. Nothing is changed.

    Raises:
        ConfigurationError: if there is none, or another run has it open.
    """
    path = _path_of(name, "--keep")
    if not path.is_file():
        raise ConfigurationError(f"there is no ledger {name}: cycles measure --keep {name} -- COMMAND makes one")
    try:
        with closing(_opened_to_read(path)) as file:
            rows = file.execute("SELECT value FROM records WHERE kind = ?", (Reservation.kind,)).fetchall()
        return [Reservation.from_json(json.loads(value)) for (value,) in rows]
    except (sqlite3.Error, ValueError, TypeError) as error:
        if "locked" in str(error):
            raise ConfigurationError(f"another run has {path} open: wait for its end") from None
        raise ConfigurationError(f"cannot read {path} ({error}): pass the --keep of another ledger") from error


def _opened_to_read(path: Path) -> sqlite3.Connection:
    # A file without a log is complete. Read as immutable, SQLite makes no files beside it.
    how = "mode=ro" if _log_of(path).exists() else "immutable=1"
    return sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=0)


def _read(path: Path) -> list[KeptRun]:
    used_ms = _last_use_ms(path)
    try:
        with closing(_opened_to_read(path)) as file:
            rows = file.execute("SELECT value FROM records WHERE kind = ?", (Budget.kind,)).fetchall()
        budgets: list[Any] = [Budget.from_json(json.loads(value)) for (value,) in rows]
    except (sqlite3.Error, ValueError, TypeError) as error:
        return [KeptRun(path.stem, path, None, None, used_ms, in_use="locked" in str(error))]
    found = [
        KeptRun(path.stem, path, Amount(each.unit, each.allocated), Amount(each.unit, each.spent + each.debt), used_ms)
        for each in sorted(budgets, key=lambda each: each.unit != "USD_MICROCENTS")
        if each.scope == SCOPE
    ]
    return found or [KeptRun(path.stem, path, None, None, used_ms)]


def _last_use_ms(path: Path) -> int:
    files = [path.stat(), *([_log_of(path).stat()] if _log_of(path).exists() else [])]
    written = [file for file in files if file.st_size] or files  # a full disk leaves an empty ledger
    return max(file.st_mtime_ns // 1_000_000 for file in written)


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


@contextmanager
def opened(path: Path) -> Iterator[EmbeddedServer]:
    """Open a ledger; no other run can open it then.

    Raises:
        ConfigurationError: if another run has it open, or if it is no ledger.
    """
    try:
        server = EmbeddedServer(path=path)
    except ConfigurationError as error:
        if "another server has" in str(error):
            raise ConfigurationError(f"another run has {path} open: wait for its end, or use another name") from None
        raise
    with server:
        yield server


def reset(name: str) -> None:
    """Set what the runs of a kept ledger have spent to 0. Their budget stays.

    Raises:
        ConfigurationError: if there is none of that name, or a run has it open.
    """
    existing(name)
    with opened(_path_of(name, "NAME")) as server:
        server.ledger.reset_spent()


def delete(name: str) -> None:
    """Delete the file of a kept ledger.

    Raises:
        ConfigurationError: if there is none of that name, or a run has it open.
    """
    existing(name)
    path = _path_of(name, "NAME")
    with opened(path):
        path.unlink()
    for suffix in _BESIDE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
