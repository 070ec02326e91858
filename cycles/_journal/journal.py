"""The journal: one private file per unfinished settlement, so that it outlives this process (recovery, durable).

Everything here blocks on the file system and belongs on a thread, never on an event loop. No method raises for what a
file system may do: it is reported, and the settlement goes on without its file.

No lock between processes is needed. A record is written under a temporary name of its own and renamed into place, so a
reader meets all of it or nothing. A start that finds a temporary file puts it into place if it is complete (its amount
was known, so it is owed) and removes it if not; a writer that was alive after all sees that and writes again.
"""

# Strings, not Paths: making a Path for every call would cost as much as the calls.
# ruff: noqa: PTH100, PTH105, PTH108, PTH111, PTH118, PTH120

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NewType

import attrs

from cycles._config import Durability
from cycles._core.records import Record, RecordError, decode, encode, file_name, partition
from cycles._journal.file_store import make_private_folder, move_to_free_name, read_whole, write_whole

Entry = NewType("Entry", str)
"""Name of a file that may hold a record: cheap to keep by the ten thousand; `Journal.load` makes a record of it."""

# A writer starts over when its folder or its temporary file was taken away. Once is rare, three times is a problem.
_WRITE_ATTEMPTS: Final = 3
_TEMPORARY: Final = re.compile(r"(v2-[0-9a-f]{64}\.json)\.([0-9a-f]+-\d+)-\d+\.tmp")
_NOTHING_THERE: Final = (FileNotFoundError, NotADirectoryError)
_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


@attrs.frozen
class JournalIssue:
    """Something the operator should know, told once.

    Attributes:
        kind: `unwritable` (a settlement goes out without its file), `unreadable` (a file or folder could not be read or
            removed, and stays), `quarantined` (not a record of a known version: renamed and kept), `foreign` (a record
            of another server: left alone).
        path: The file or folder it is about.
        message: What happened, what follows from it, what to do.
        cause: What the operating system or the decoder said.
    """

    kind: Literal["unwritable", "unreadable", "quarantined", "foreign"]
    path: str
    message: str
    cause: Exception | None = None


def default_root() -> Path:
    """Where journals are if nothing is configured: below the platform's directory for the state of programs."""
    # Imported late: clients that say where their journal is never need it.
    import platformdirs

    try:
        return Path(platformdirs.user_state_dir("cycles-sdk", appauthor=False)) / "journal"
    except RuntimeError:  # a user without a home; the journal says so when it is used
        return Path("~/cycles-sdk/journal")


class Journal:
    """The records of one server and principal. Threads, processes and forked children may share it.

    Args:
        root: Directory of all journals; `~` is expanded. This one is a subdirectory of it, named by its partition.
        base_url: The server, exactly as configured.
        tenant: The configured tenant. It is the principal; without one the API key is. Neither is ever stored.
        api_key: Used for the name of the partition only.
        durability: `process` survives the death of the process; `disk` a power loss too (file and folder are fsynced).
        report: Called with each problem, from the thread that met it.
    """

    def __init__(
        self,
        root: Path,
        *,
        base_url: str,
        tenant: str | None,
        api_key: str,
        durability: Durability = "process",
        report: Callable[[JournalIssue], None],
    ) -> None:
        self._root = root
        self._base_url = base_url
        self._partition: Callable[[], str] = lambda: partition(base_url, tenant, api_key)
        self._sync = durability == "disk"
        self._report = report
        self._folder: str | None = None  # its path with a separator, once it is known
        self._made = False  # the folder was there when last looked at
        self._told: set[tuple[str, str]] = set()
        self.quarantined = 0  # how many records this journal has quarantined
        # By process: a lock that some thread holds while the process forks stays locked in the child for ever.
        self._locks: dict[int, threading.Lock] = {}
        # Process ids repeat (every container has a 1), so temporary names begin with a token of their own.
        self._token = secrets.token_hex(4)
        self._serial = itertools.count()

    @property
    def directory(self) -> str:
        """Where these records are. The first use takes about 10 ms of CPU.

        Raises:
            OSError: It would be in the home directory of a user who has none.
        """
        return os.path.dirname(self._locate())

    def save(self, record: Record) -> bool:
        """Writes the record down, in place of an earlier state of it. False: not possible, and reported."""
        try:
            self._write(file_name(record.reservation_id), encode(record))
        except (OSError, RecordError) as error:
            self._tell_unwritable(error)
            return False
        self._told.discard(("unwritable", ""))
        return True

    def delete(self, record: Record) -> None:
        """Removes the file of a finished settlement; another process may have done so already."""
        try:
            os.unlink(self._locate() + file_name(record.reservation_id))
        except _NOTHING_THERE:
            return
        except OSError as error:
            self._tell(
                "unreadable",
                self._folder or str(self._root),
                f"The files of finished settlements cannot be removed from the journal ({error}). They are sent again"
                " at every start, which charges nothing twice; make the directory writable for this user.",
                error,
            )

    def reject(self, record: Record, reason: str) -> None:
        """Move the record of a rejected amount into the folder `rejected`, with the reason."""
        name = file_name(record.reservation_id)
        try:
            folder = self._locate() + "rejected" + os.sep
            make_private_folder(folder, sync=self._sync)
            kept = json.dumps({"reason": reason, "record": json.loads(encode(record))}).encode("ascii")
            write_whole(folder + name, f"{folder}{name}.{self._unique()}.tmp", kept, sync=self._sync)
        except (OSError, RecordError) as error:
            self._tell_unwritable(error)
            return
        self.delete(record)

    def pending(self) -> list[Entry]:
        """What the journal holds now, in no order. Opens nothing but temporary files, and makes no directory."""
        try:
            folder = self._locate()
            with os.scandir(folder) as found:
                names = [item.name for item in found]
        except _NOTHING_THERE:
            return []  # nothing was ever kept there; the first settlement will tell whether it can be
        except OSError as error:
            self._tell_unreadable(self._folder or str(self._root), error)
            return []
        entries = {name for name in names if name.endswith(".json")}
        for name in names:
            match = _TEMPORARY.fullmatch(name)
            if match and match[2] != self._writer():  # our own threads are alive
                entries |= self._finish_writing(folder + name, folder, match[1])
        return [Entry(name) for name in entries]

    def load(self, entry: Entry) -> Record | None:
        """The record of an entry. None: it is gone meanwhile, or cannot be settled by this client, and reported."""
        path: str = entry
        try:
            path = self._locate() + entry
            record = decode(read_whole(path))
        except _NOTHING_THERE:
            return None
        except OSError as error:
            self._tell_unreadable(path, error)
            return None
        except RecordError as error:
            self._quarantine(entry, error)
            return None
        if record.base_url.rstrip("/") not in ("", self._base_url.rstrip("/")):
            advice = "It is left alone: move it to the journal directory of a client of that server."
            self._tell("foreign", path, f"{path} is owed to {record.base_url}, not to {self._base_url}. {advice}")
            return None
        if entry == file_name(record.reservation_id):
            return record
        return self._migrate(entry, record)

    # Writing

    def _write(self, name: str, content: bytes) -> None:
        for _ in range(_WRITE_ATTEMPTS - 1):
            try:
                return self._write_once(name, content)
            except (FileNotFoundError, FileExistsError):
                self._made = False
        return self._write_once(name, content)

    def _write_once(self, name: str, content: bytes) -> None:
        folder = self._locate()
        if not self._made:
            make_private_folder(folder, sync=self._sync)
            self._made = True
        write_whole(folder + name, f"{folder}{name}.{self._unique()}.tmp", content, sync=self._sync)

    def _unique(self) -> str:
        return f"{self._writer()}-{next(self._serial)}"

    def _writer(self) -> str:
        return f"{self._token}-{os.getpid()}"

    def _locate(self) -> str:
        if self._folder is not None:
            return self._folder
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            if self._folder is None:
                self._folder = os.path.join(_absolute(self._root), self._partition(), "")
            return self._folder

    # Files that a start finds

    def _finish_writing(self, temporary: str, folder: str, name: str) -> set[str]:
        """Ends what a writer began that died before its rename; the names this adds to the journal."""
        with contextlib.suppress(OSError):  # its writer is alive and was faster
            try:
                if file_name(decode(read_whole(temporary)).reservation_id) == name:
                    move_to_free_name(temporary, folder + name)
                    return {name}
            except (RecordError, FileExistsError):
                pass
            os.unlink(temporary)
        return set()

    def _quarantine(self, entry: Entry, reason: Exception) -> None:
        folder = self._locate()
        kept = f"{entry}.{self._unique()}.quarantined"
        try:
            os.replace(folder + entry, folder + kept)
        except FileNotFoundError:
            return
        except OSError as error:
            self._tell_unreadable(folder + entry, error)
            return
        self._tell(
            "quarantined",
            folder + kept,
            f"{entry} is kept as {kept} and will not be settled: {reason}. Rename it back for a release that can read"
            " it, or record its amount by hand with client.record().",
            reason,
        )

    def _migrate(self, entry: Entry, record: Record) -> Record | None:
        """Gives a record found under another name its own name, and takes away no file that holds anything else."""
        folder, own_name = self._locate(), Entry(file_name(record.reservation_id))
        for _ in range(2):
            try:
                move_to_free_name(folder + entry, folder + own_name)
            except FileNotFoundError:
                return None
            except FileExistsError:
                if not self._make_way(entry, record, own_name):
                    return None
            except OSError as error:  # the folder cannot be written: settle it from where it is
                self._tell_unreadable(folder + entry, error)
                return record
            else:
                return record
        return None

    def _make_way(self, entry: Entry, record: Record, own_name: Entry) -> bool:
        """Looks at the file that has the name already. True if that name may be free now."""
        folder = self._locate()
        try:
            occupant = decode(read_whole(folder + own_name))
            if occupant.reservation_id != record.reservation_id:
                move_to_free_name(folder + own_name, folder + file_name(occupant.reservation_id))
                return True
            if _key(occupant) == _key(record):
                os.unlink(folder + entry)
            else:
                self._quarantine(entry, RecordError("another settlement of the same reservation is already there"))
        except FileNotFoundError:
            return True
        except RecordError as reason:
            self._quarantine(own_name, reason)
            return True
        except OSError as error:
            self._tell_unreadable(folder + entry, error)
        return False

    # Telling

    def _tell_unwritable(self, error: Exception) -> None:
        where = self._folder or str(self._root)
        advice = "Free some space there" if getattr(error, "errno", None) in _NO_SPACE else "Make it writable"
        self._tell(
            "unwritable",
            where,
            f"The settlement journal cannot be written in {where} ({error}). Settlements go out all the same, but one"
            f" that is unfinished when this process dies is lost. {advice}, or set journal_dir (CYCLES_JOURNAL_DIR).",
            error,
            once="",
        )

    def _tell_unreadable(self, path: str, error: OSError) -> None:
        message = f"The settlement journal cannot use {path} ({error}). It stays there; what it owes is not settled."
        self._tell("unreadable", path, message, error)

    def _tell(
        self,
        kind: Literal["unwritable", "unreadable", "quarantined", "foreign"],
        path: str,
        message: str,
        cause: Exception | None = None,
        once: str | None = None,
    ) -> None:
        told = (kind, path if once is None else once)
        if told not in self._told:
            self._told.add(told)
            self.quarantined += kind == "quarantined"
            self._report(JournalIssue(kind, path, message, cause))


def _absolute(root: Path) -> str:
    expanded = os.path.expanduser(root)
    if expanded.startswith("~"):
        raise NotADirectoryError(errno.ENOTDIR, "this user has no home directory", expanded)
    return os.path.abspath(expanded)


def _key(record: Record) -> object:
    return (record.commit_body or record.event_fallback_body or {}).get("idempotency_key")


class Records:
    """The records of one client in one process: those in its journal, and which of them are in progress here."""

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._in_progress: set[str] = set()

    @property
    def journaled(self) -> bool:
        """Whether records are saved at all."""
        return self._journal is not None

    @property
    def directory(self) -> str | None:
        """Where the records are; None without a journal."""
        return None if self._journal is None else self._journal.directory

    @property
    def quarantined(self) -> int:
        """How many records were quarantined so far."""
        return 0 if self._journal is None else self._journal.quarantined

    def save(self, record: Record) -> bool:
        """Save a record, which is in progress from now on; False if it cannot be saved. Blocks on the file system."""
        self._in_progress.add(record.reservation_id)
        return self._journal is not None and self._journal.save(record)

    def delete(self, record: Record) -> None:
        """Delete a finished record. Blocks on the file system."""
        if self._journal is not None:
            self._journal.delete(record)
        self._in_progress.discard(record.reservation_id)

    def reject(self, record: Record, reason: str) -> None:
        """Keep a rejected record in `rejected/`. Blocks on the file system."""
        if self._journal is not None:
            self._journal.reject(record, reason)
        self._in_progress.discard(record.reservation_id)

    def load(self, entry: Entry) -> Record | None:
        """Return the record of an entry; None if it is gone, or cannot be settled by this client."""
        return None if self._journal is None else self._journal.load(entry)

    def left_by_others(self) -> list[Entry]:
        """Return the entries of the journal but for those that guards of this process are settling."""
        if self._journal is None:
            return []
        found = self._journal.pending()
        in_progress = {file_name(reservation_id) for reservation_id in list(self._in_progress)}
        return [entry for entry in found if entry not in in_progress]
