"""The records of one client in one process: those in its journal, and which of them are in progress here."""

from __future__ import annotations

from typing import Final, TypeAlias

from attrs import evolve

from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record, file_name
from cycles._core.settlement.rules import excess_left
from cycles._core.settlement.settlement import Rejected, Settled, SettlementOutcome, Taken
from cycles._journal.files.locked_file import is_supported
from cycles._journal.files.spend import SpendLog
from cycles._journal.journal import Entry, Journal
from cycles._journal.stores.shared import StoreJournal

_KEPT: Final = "client.pending(rejected=True) lists it"
_LOST: Final = "no journal keeps it; record it by hand with client.record()"


class NoJournal:
    """The journal of a client with ``journal=False``: the methods for own records, and nothing is kept."""

    quarantined = 0

    def put(self, record: Record) -> PutResult:
        """Save nothing: the record is sent anyway."""
        return PutResult.FAILED

    def delete(self, record: Record) -> None:
        """Do nothing: no record is kept."""

    def reject(self, record: Record, reason: str) -> None:
        """Do nothing: the error that the caller gets, and the log, have the amount."""

    def rejected(self) -> list[tuple[Record, str]]:
        """Return nothing."""
        return []

    def close(self) -> None:
        """Do nothing."""


AnyJournal: TypeAlias = Journal | StoreJournal | NoJournal


class Records:
    """Puts, loads and finishes records, and knows which are in progress. Everything blocks on the journal."""

    def __init__(self, journal: AnyJournal) -> None:
        self.journal: Final = journal
        self.shared: StoreJournal | None = journal if isinstance(journal, StoreJournal) else None
        """The journal, if its store is shared by a fleet."""
        local = journal if self.shared is None else self.shared.local
        self.files: Journal | None = local if isinstance(local, Journal) else None
        """What is on the disk of this machine; None without a journal."""
        self.journaled: bool = self.files is not None
        """Whether records are kept: what reports say of a pending amount."""
        self.rejected_hint: str = _KEPT if self.journaled else _LOST
        """What reports say of a rejected amount: where it is."""
        self._in_progress: dict[str, Record | None] = {}  # None: the record is in the journal only

    @property
    def directory(self) -> str | None:
        """Where the records are, a folder or a store; None without a journal."""
        if self.shared is not None:
            return self.shared.name
        return None if self.files is None else self.files.directory

    @property
    def unread(self) -> bool:
        """Whether the journal could not be read: what an earlier process left is unknown."""
        return self.files is not None and self.files.unread

    @property
    def left(self) -> Journal | StoreJournal:
        """The journal with what earlier processes left; a client without a journal never looks for that."""
        assert not isinstance(self.journal, NoJournal)
        return self.journal

    def put(self, record: Record) -> PutResult:
        """Save a record, which is in progress from now on. Blocks on the journal."""
        self._in_progress[record.reservation_id] = record
        return self.journal.put(record)

    def put_many(self, records: list[Record]) -> list[PutResult]:
        """Save several records in one round trip of a shared store."""
        assert self.shared is not None  # else each is saved separately
        self._in_progress.update({record.reservation_id: record for record in records})
        return self.shared.put_many(records)

    def finish(self, record: Record, result: SettlementOutcome | None) -> None:
        """End a record that needs no request any more. Blocks on the journal.

        Args:
            record: The record.
            result: How it ended: a settled record is deleted, what was rejected of it is kept in `rejected/`, and a
                taken one is left to the client that has it. None: nothing of it is to be settled, and it is deleted.
        """
        if isinstance(result, Rejected):
            self._reject(result.kept or record, result.reason)
            if result.kept is None and (excess := excess_left(record)) is not None:
                self._reject(excess, excess.rejected or result.reason)
        is_kept = isinstance(result, Rejected) and result.kept is not None  # beside the record, whose rest is settled
        charged = result.settlement.charged if isinstance(result, Settled) else None
        if charged is not None and charged.amount > record.actual.amount:
            record = evolve(record, settled=charged.amount)  # another client has committed a later sum of the chunk
        if result is None or isinstance(result, Settled) or is_kept:
            self.journal.delete(record)
            self._in_progress.pop(record.reservation_id, None)
        elif isinstance(result, Taken):
            if self.shared is not None:
                self.shared.leave(record)
            self._in_progress.pop(record.reservation_id, None)

    def _reject(self, record: Record, reason: str) -> None:
        self._in_progress.setdefault(record.reservation_id)  # else a start that reads the journal now would send it
        self.journal.reject(record, reason)
        self._in_progress.pop(record.reservation_id, None)

    def is_taken(self, record: Record) -> bool:
        """Return whether another client has claimed the record: this one sends nothing more for it."""
        return self.shared is not None and self.shared.is_taken(record)

    def taken_by_another(self, reservation_id: str) -> Record | None:
        """Return the record of this reservation that another client has, as it was when this client lost it."""
        return None if self.shared is None else self.shared.taken_by_another(reservation_id)

    def attempt_ended(self, record: Record) -> None:
        """Note that an attempt at a record of the journal ended without a result.

        The record is not kept in memory, and its claims in a shared store are counted from 0 again.
        """
        self._in_progress.pop(record.reservation_id, None)
        if self.shared is not None:
            self.shared.put(record)

    def latest(self, record: Record) -> Record:
        """Return the form of this record that was saved last: an interrupted settlement continues with that.

        It may be an event that was sent already, which its commit form does not record.
        """
        return self._in_progress.get(record.reservation_id) or record

    def in_memory(self) -> list[Record]:
        """Return the records in progress here that are kept in memory."""
        return [each for each in list(self._in_progress.values()) if each is not None and not self.is_taken(each)]

    def spend_log(self) -> SpendLog | None:
        """Return the slots for spend that is written ahead; None without a journal or without file locks."""
        return self.files.spend_log() if self.files is not None and is_supported() else None

    def close(self) -> None:
        """Release what the files of the journal keep open; a shared journal is closed by its owner."""
        if self.shared is None:
            self.journal.close()

    def recover_spend(self) -> set[Entry]:
        """Save what dead processes wrote ahead, and return the records of requests whose cost is unknown."""
        return {Entry(file_name(record.reservation_id)) for record in self.left.recover_spend() if record.sent}

    def left_by_others(self, now_ms: int) -> list[Entry]:
        """Return the entries of the journal but for those that guards of this process are settling."""
        if self.files is not None:
            self.files.remove_settled(now_ms)
        found = self.left.pending()
        in_progress = self.in_progress()  # now: a guard may have begun to settle one while the journal was read
        return [entry for entry in found if entry not in in_progress]

    def in_progress(self) -> set[str]:
        """Return the file names of the records that are being settled, or are pending, in this process."""
        return {file_name(reservation_id) for reservation_id in list(self._in_progress)}
