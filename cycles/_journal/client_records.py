"""The records of one client in one process: those in its journal, and which of them are in progress here."""

from __future__ import annotations

from cycles._core.records import Record, file_name
from cycles._journal.files.locked_file import is_supported
from cycles._journal.journal import Entry, Journal
from cycles._journal.pool_log import ChunkLogs
from cycles._journal.spend_log import SpendLog
from cycles._journal.stores.shared import StoreJournal


class Records:
    """Saves, loads and deletes records, and knows which are in progress. Everything blocks on the journal."""

    def __init__(self, journal: Journal | StoreJournal | None) -> None:
        self._journal = journal
        self._shared = journal if isinstance(journal, StoreJournal) else None
        self._in_progress: dict[str, Record | None] = {}  # None: the record is in the journal only

    @property
    def journaled(self) -> bool:
        """Whether records are saved at all."""
        return self._journal is not None

    @property
    def shared(self) -> StoreJournal | None:
        """The journal, if its store is shared by a fleet."""
        return self._shared

    @property
    def directory(self) -> str | None:
        """Where the records are, a folder or a store; None without a journal."""
        if self._shared is not None:
            return self._shared.name
        return None if self._journal is None else self._journal.directory

    @property
    def quarantined(self) -> int:
        """How many records were quarantined so far."""
        return 0 if self._journal is None else self._journal.quarantined

    def save(self, record: Record) -> bool:
        """Save a record, which is in progress from now on; False if it cannot be saved. Blocks on the file system."""
        self._in_progress[record.reservation_id] = record
        return self._journal is not None and self._journal.save(record)

    def save_many(self, records: list[Record]) -> list[bool]:
        """Save records of a shared store in one round trip; False for each one that cannot be saved."""
        self._in_progress.update({record.reservation_id: record for record in records})
        return [self.save(record) for record in records] if self._shared is None else self._shared.save_many(records)

    def delete(self, record: Record) -> None:
        """Delete a finished record. Blocks on the file system."""
        if self._journal is not None:
            self._journal.delete(record)
        self._in_progress.pop(record.reservation_id, None)

    def reject(self, record: Record, reason: str) -> None:
        """Keep a rejected record in `rejected/`. Blocks on the file system."""
        self._in_progress.setdefault(record.reservation_id)  # else a start that reads the journal now would send it
        if self._journal is not None:
            self._journal.reject(record, reason)
        self._in_progress.pop(record.reservation_id, None)

    def is_taken(self, record: Record) -> bool:
        """Return whether another client has claimed the record: this one sends nothing more for it."""
        return self._shared is not None and self._shared.is_taken(record)

    def keeps_commit(self, record: Record) -> bool:
        """Return whether the journal may still have the commit of this event: it did not take the event."""
        return self._journal is not None and self._journal.keeps_commit(record)

    def taken_by_another(self, reservation_id: str) -> Record | None:
        """Return the record of this reservation that another client has, as it was when this client lost it."""
        return None if self._shared is None else self._shared.taken_by_another(reservation_id)

    def attempt_ended(self, record: Record) -> None:
        """Note that an attempt at a record of the journal ended without a result.

        The record is not kept in memory, and its claims in a shared store are counted from 0 again.
        """
        self._in_progress[record.reservation_id] = None
        if self._shared is not None:
            self._shared.save(record)

    def latest(self, record: Record) -> Record:
        """Return the form of this record that was saved last: an interrupted settlement continues with that.

        It may be an event that was sent already, which its commit form does not record.
        """
        return self._in_progress.get(record.reservation_id) or record

    def in_memory(self) -> list[Record]:
        """Return the records in progress here that are kept in memory."""
        found = [record for record in list(self._in_progress.values()) if record is not None]
        return [record for record in found if not self.is_taken(record)]

    def drop(self, record: Record) -> None:
        """Leave a record to the client that has claimed it."""
        self._in_progress.pop(record.reservation_id, None)

    def load(self, entry: Entry) -> Record | None:
        """Return the record of an entry; None if it was deleted, or cannot be settled by this client."""
        return None if self._journal is None else self._journal.load(entry)

    def rejected(self) -> list[tuple[Record, str]]:
        """Return the rejected records, with the reason of each."""
        return [] if self._journal is None else self._journal.rejected()

    def spend_log(self) -> SpendLog | None:
        """Return the slots for spend that is written ahead; None without a journal or without file locks."""
        return self._journal.spend_log() if self._journal is not None and is_supported() else None

    def chunk_logs(self) -> ChunkLogs | None:
        """Return the slot logs of pools; None without a journal."""
        return None if self._journal is None else self._journal.chunk_logs()

    def close(self) -> None:
        """Release what the files of the journal keep open; a shared journal is closed by its owner."""
        if isinstance(self._journal, Journal):
            self._journal.close()

    def left_by_others(self, now_ms: int) -> list[Entry]:
        """Return the entries of the journal but for those that guards of this process are settling."""
        if self._journal is None:
            return []
        self._journal.remove_settled(now_ms)
        self._journal.recover_spend()
        found = self._journal.pending()
        in_progress = self.in_progress()
        return [entry for entry in found if entry not in in_progress]

    def in_progress(self) -> set[str]:
        """Return the file names of the records that are being settled, or are pending, in this process."""
        return {file_name(reservation_id) for reservation_id in list(self._in_progress)}
