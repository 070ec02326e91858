"""The journal: one record per unfinished settlement, kept in files so that it outlives this process.

This module decides what happens to records: which ones this client may settle, and which are quarantined. `RecordFiles`
keeps the bytes. Everything here blocks on the disk and belongs on a thread, never on an event loop. No method raises
for a failure of the disk: it is reported, and the settlement continues without its record.
"""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Literal, NewType

import attrs

from cycles._config import Durability
from cycles._core.pool.chunk_record import PREFIX, SUFFIX, ChunkHeader
from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record, RecordError, decode, encode, file_name, is_sent, partition
from cycles._journal.files.chunk_cells import ChunkLog, recover_chunks
from cycles._journal.files.file_calls import NOTHING_THERE
from cycles._journal.files.record_files import REJECTED, SETTLED_KEPT_MS, RecordFiles
from cycles._journal.files.spend import SpendLog, recover_spend

IssueKind = Literal["unwritable", "unreadable", "quarantined", "foreign", "store"]
Entry = NewType("Entry", str)
"""Name of a file that may hold a record: cheap to keep by the ten thousand; `Journal.load` makes a record of it."""

_NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


@attrs.frozen
class JournalIssue:
    """A problem that the operator should know, reported once.

    Attributes:
        kind: `unwritable` (a settlement is sent without its record), `unreadable` (a file or folder could not be read
            or removed, and stays), `quarantined` (not a record of a known version: renamed and kept), `foreign` (a
            record of another server: unchanged), `store` (a shared store does not respond, or may lose records).
        message: What happened, what follows from it, what to do.
    """

    kind: IssueKind
    message: str


def default_root() -> Path:
    """Return where journals are if nothing is configured: below the platform's directory for the state of programs."""
    # Imported late: clients that configure their journal's directory never need it.
    import platformdirs

    try:
        return Path(platformdirs.user_state_dir("cycles-sdk", appauthor=False)) / "journal"
    except RuntimeError:  # a user without a home; the journal reports it when it is used
        return Path("~/cycles-sdk/journal")


class Journal:
    """The records of one server and principal. Threads, processes and forked children may share it.

    Args:
        root: Directory of all journals; `~` is expanded. This one is a subdirectory of it, named by its partition.
        base_url: The server, exactly as configured.
        tenant: The configured tenant. It is the principal; without one the API key is. Neither is ever stored.
        api_key: Used for the name of the partition only.
        durability: `process` survives the death of the process; `disk` a power loss too (file and folder are fsynced).
        report: Called with each problem, from the thread that found it.
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
        self._base_url = base_url
        self._files = RecordFiles(root, lambda: partition(base_url, tenant, api_key), sync=durability == "disk")
        self._sync = durability == "disk"
        self._report = report
        self._reported: set[tuple[str, str]] = set()
        self._seen: set[str] = set()  # ids of records that this process has saved or read, and not deleted
        # Ids of reservations whose commit may still be stored although an event replaces it.
        self._kept_commits: set[str] = set()
        self._unmoved: set[str] = set()  # of records under another name, which no event replaces
        self._unremoved: set[str] = set()  # of records that should have been deleted
        self.unread: bool = False  # what an earlier process left could not be listed
        self.quarantined: int = 0  # how many records this journal has quarantined

    @property
    def directory(self) -> str:
        """Where the files are. The first use takes about 10 ms of CPU.

        Raises:
            OSError: It would be in the home directory of a user who has none.
        """
        return self._files.locate().rstrip("/\\")

    def save(self, record: Record) -> bool:
        """Save the record, in place of an earlier state of it. False: not possible, and reported."""
        try:
            current: Record | None = record
            if record.attempt_unknown or record.not_before_ms or record.mode == "event":  # not its first state
                current = self._not_earlier(record)
            if current is None:
                return True  # settled
            self._files.write(file_name(record.reservation_id), encode(current))
        except (OSError, RecordError) as error:
            self._report_unwritable(error)
            if record.mode == "commit" and isinstance(error, OSError) and error.errno == errno.ETIMEDOUT:
                self._kept_commits.add(record.reservation_id)  # a call that hangs may still end, and store it
            return False
        self._reported.discard(("unwritable", ""))
        self._seen.add(record.reservation_id)
        if record.mode == "event":  # a commit, the common case, replaces nothing: no call for it
            self._note_event(record)
        return True

    def keeps_commit(self, record: Record) -> bool:
        """Return whether the commit of this event may still be stored: a later process sends it, and another event."""
        return any(record.reservation_id in ids for ids in (self._kept_commits, self._unmoved, self._unremoved))

    def _note_event(self, record: Record) -> None:
        """Note that the event of a record is stored in place of its commit."""
        self._kept_commits.discard(record.reservation_id)
        self._unremoved.discard(record.reservation_id)

    def put(self, record: Record) -> PutResult:
        """Save the record, and return whether it may be sent."""
        saved = self.save(record)
        if saved and record.mode == "commit":  # the common case; only an event can replace a commit
            return PutResult.SAVED
        if record.replaces_commit and self.keeps_commit(record):
            return PutResult.HELD_BACK
        return PutResult.SAVED if saved else PutResult.FAILED

    def _not_earlier(self, record: Record) -> Record | None:
        """Return the record, or what another worker has made of it: the event that is stored, or None if it is settled.

        Both may settle a record at the same time. An event must not become a commit again, and a settled record must
        not be stored again: it could be sent after the server has deleted its key.
        """
        try:
            stored = decode(self._files.read(file_name(record.reservation_id)))
        except NOTHING_THERE as error:
            if not self._files.hangs:
                self._kept_commits.discard(record.reservation_id)
            known = record.reservation_id in self._seen and isinstance(error, FileNotFoundError)
            return None if known and self._files.has("") else record  # else the folder is gone, not the record only
        except (OSError, RecordError):
            self._note_commit(record, is_stored=record.reservation_id in self._seen)
            return record
        if stored.mode != "event" or _idempotency_key(stored) != _idempotency_key(record):
            self._note_commit(record, is_stored=stored.mode == "commit")
            return record
        if not self._sync:  # else a loss of power may bring the commit back, until a save has succeeded
            self._note_event(record)
        if record.mode == "commit":
            return stored
        times = [each for each in (stored.event_since_ms, record.event_since_ms) if each is not None]
        return attrs.evolve(record, event_since_ms=min(times, default=None))

    def _note_commit(self, record: Record, *, is_stored: bool) -> None:
        if is_stored and record.mode == "event":
            self._kept_commits.add(record.reservation_id)

    def delete(self, record: Record) -> None:
        """Delete the record of a finished settlement; another process may have done so already."""
        self._clear_state(record)
        name = file_name(record.reservation_id)
        try:
            self._files.remove(name)
            self._unremoved.discard(record.reservation_id)
        except OSError as error:
            self._unremoved.add(record.reservation_id)
            self._report_once(
                "unreadable",
                self._files.known_folder,
                f"the records of finished settlements cannot be removed from the journal ({error}); they are sent again"
                " at every start, which charges nothing twice; make the directory writable for this user",
            )

    def delete_again(self, record: Record) -> None:
        """Delete a commit that could not be deleted, before the event that replaces it is sent."""
        if record.reservation_id in self._unremoved:
            self.delete(record)

    def reject(self, record: Record, reason: str) -> None:
        """Keep the record of a rejected amount in the folder `rejected`, with the reason."""
        name = file_name(record.reservation_id)
        self._clear_state(record)
        try:
            content = encode(self._with_extra(name, record))
            # The order keeps the amount at each moment: as a record, in both places, in `rejected` only.
            self._files.write(name, content)  # it may never have been saved
            self._files.keep_rejected(name, {"reason": reason, "record": json.loads(content)})
            self._files.remove(name)
        except (OSError, RecordError) as error:
            self._report_unwritable(error)

    def _with_extra(self, name: str, record: Record) -> Record:
        """Return the record with what a newer version has added to it: a rejected excess may be made twice."""
        with contextlib.suppress(OSError, RecordError):
            record = record.with_extra_of(decode(self._files.read(name)))
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            record = record.with_extra_of(_rejected_in(self._files.read(f"{REJECTED}/{name}"))[0])
        return record

    def _clear_state(self, record: Record) -> None:
        self._seen.discard(record.reservation_id)
        self._kept_commits.discard(record.reservation_id)

    def close(self) -> None:
        """Remove the files that are kept for reuse. Records can be saved afterwards."""
        self._files.close()

    def spend_log(self) -> SpendLog:
        """Return the slots in which this process writes known spend ahead."""
        return SpendLog(self._files.locate, sync=self._sync)

    def chunk_log(self, header: ChunkHeader) -> ChunkLog:
        """Make the log of a chunk of this process.

        Raises:
            OSError: it cannot be made.
        """
        return ChunkLog(self._files.locate(), header, sync=self._sync)

    def recover_spend(self, is_known: Callable[[str], bool] = lambda reservation_id: False) -> list[Record]:
        """Save the records of what dead processes left in logs, unless the journal has their settlement.

        Returns the records that were saved.

        Args:
            is_known: Returns whether another place has the record of a reservation.
        """
        with self._unreadable_reported(unread=True):
            recover_chunks(self._files.locate(), self._read, self.save)
        saved: list[Record] = []
        with self._unreadable_reported(unread=True):
            has = self._files.has
            saved += recover_spend(self._files.locate(), lambda id_: has(file_name(id_)) or is_known(id_), self.save)
        return saved

    def _read(self, reservation_id: str) -> Record | None:
        with contextlib.suppress(*NOTHING_THERE):
            return decode(self._files.read(file_name(reservation_id)))
        return None

    def pending(self) -> list[Entry]:
        """Return what the journal holds now, in no order. Opens only temporary files, and makes no directory."""
        with self._unreadable_reported(unread=True):
            return [Entry(name) for name in self._files.names()]
        return []

    def sent(self, entries: list[Entry]) -> set[Entry]:
        """Return which records are of requests whose cost is unknown, because their process has ended."""
        found = set()
        for entry in entries:
            with contextlib.suppress(OSError):  # `load` reports it
                if is_sent(self._files.read(entry)):
                    found.add(entry)
        return found

    def rejected(self) -> list[tuple[Record, str]]:
        """Return the rejected records of this server, with the reason of each. Changes nothing."""
        found: list[tuple[Record, str]] = []
        with self._unreadable_reported():
            for content in self._files.rejected():
                with contextlib.suppress(ValueError, TypeError, KeyError):  # a file of another program
                    record, reason = _rejected_in(content)
                    if self._is_ours(record):
                        found.append((record, reason))
        return found

    def remove_settled(self, now_ms: int) -> None:
        """Delete the rejected records that were settled by hand more than 30 days ago."""
        with self._unreadable_reported():
            self._files.remove_settled(now_ms - SETTLED_KEPT_MS)

    def load(self, entry: Entry) -> Record | None:
        """Return the record of an entry. None: it is deleted, or cannot be settled by this client, and reported."""
        path: str = entry
        try:
            path = self._files.path(entry)
            record = decode(self._files.read(entry))
        except NOTHING_THERE:
            return None
        except OSError as error:
            self._report_unreadable(path, error)
            return None
        except RecordError as error:
            self._quarantine(entry, error)
            return None
        if not self._is_ours(record):
            advice = "it is unchanged; move it to the journal directory of a client of that server"
            message = f"{path} belongs to {record.base_url}, not to {self._base_url}; {advice}"
            self._report_once("foreign", path, message)
            return None
        if entry == file_name(record.reservation_id):
            self._seen.add(record.reservation_id)
            return record
        return self._migrate(entry, record)

    def _is_ours(self, record: Record) -> bool:
        return record.base_url.rstrip("/") in ("", self._base_url.rstrip("/"))

    # Files that a start finds

    def _quarantine(self, entry: Entry, reason: Exception) -> None:
        with self._unreadable_reported(self._files.path(entry)):
            log = f"{PREFIX}{entry[3:-5]}{SUFFIX}"  # of a chunk whose process was killed: it stays for the next start
            rest = f"only what the next start does not charge from {log} (compare the ledger)"
            amount = rest if self._files.has(log) else "its amount"
            kept = self._files.set_aside(entry)
            message = (
                f"{entry} is kept as {kept} and will not be settled: {reason}; rename it back for a release that can"
                f" read it, or record {amount} by hand with client.record()"
            )
            self._report_once("quarantined", kept, message)

    def _migrate(self, entry: Entry, record: Record) -> Record | None:
        """Rename a record that was found under another name, and remove no file that holds anything else."""
        own_name = Entry(file_name(record.reservation_id))
        for _ in range(2):
            try:
                self._files.rename(entry, own_name)
            except FileNotFoundError:
                return None
            except FileExistsError:
                if not self._make_way(entry, record, own_name):
                    return None
            except OSError as error:  # the folder cannot be written: settle it under the name it has
                self._report_unreadable(self._files.path(entry), error)
                self._unmoved.add(record.reservation_id)
                return record
            else:
                self._unmoved.discard(record.reservation_id)
                return record
        return None

    def _make_way(self, entry: Entry, record: Record, own_name: Entry) -> bool:
        """Look at the file that has the name already. Returns whether that name may be free now."""
        try:
            occupant = decode(self._files.read(own_name))
            if occupant.reservation_id != record.reservation_id:
                self._files.rename(own_name, file_name(occupant.reservation_id))
                return True
            if _idempotency_key(occupant) == _idempotency_key(record):
                self._files.remove(entry)
            else:
                self._quarantine(entry, RecordError("another settlement of the same reservation is already there"))
        except FileNotFoundError:
            return True
        except RecordError as reason:
            self._quarantine(own_name, reason)
            return True
        except OSError as error:
            self._report_unreadable(self._files.path(entry), error)
        return False

    def _report_unwritable(self, error: OSError | RecordError) -> None:
        folder = self._files.known_folder
        advice = "free some space there" if getattr(error, "errno", None) in _NO_SPACE else "make it writable"
        self._report_once(
            "unwritable",
            "",  # once for all records: a full disk would report each commit
            f"the settlement journal cannot be written in {folder} ({error}); settlements are sent anyway, but one"
            f" that is unfinished when this process dies is lost; {advice}, or set journal_dir (CYCLES_JOURNAL_DIR)",
        )

    @contextlib.contextmanager
    def _unreadable_reported(self, path: str | None = None, *, unread: bool = False) -> Iterator[None]:
        """Report an error of the disk about a file or the folder; one that does not exist has nothing to read."""
        try:
            yield
        except NOTHING_THERE:
            pass
        except OSError as error:
            self.unread = self.unread or unread
            self._report_unreadable(path or self._files.known_folder, error)

    def _report_unreadable(self, path: str, error: BaseException) -> None:
        message = f"the settlement journal cannot use {path} ({error}); it stays there and is not settled"
        self._report_once("unreadable", path, message)

    def _report_once(self, kind: IssueKind, about: str, message: str) -> None:
        if (kind, about) not in self._reported:
            self._reported.add((kind, about))
            self.quarantined += kind == "quarantined"
            self._report(JournalIssue(kind, message))


def _rejected_in(content: bytes) -> tuple[Record, str]:
    """Return the record in a file of the folder `rejected`, and the reason.

    Raises:
        ValueError, TypeError, KeyError: another program has made it.
    """
    kept = json.loads(content)
    return decode(json.dumps(kept["record"]).encode("ascii")), str(kept["reason"])


def _idempotency_key(record: Record) -> object:
    return (record.commit_body or record.event_fallback_body or {}).get("idempotency_key")
