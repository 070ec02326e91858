"""The journal of a client with ``journal=False``: the methods of a journal, and nothing is kept."""

from __future__ import annotations

from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record
from cycles._journal.journal import Entry


class NoJournal:
    """Takes the place of a journal, so that its callers need not know whether there is one."""

    directory = None
    unread = False
    quarantined = 0
    rejected_hint = "no journal keeps it; record it by hand with client.record()"

    def put(self, record: Record) -> PutResult:
        """Save nothing: the record is sent anyway."""
        return PutResult.FAILED

    def delete(self, record: Record) -> None:
        """Do nothing: no record is kept."""

    def reject(self, record: Record, reason: str) -> None:
        """Do nothing: the error that the caller gets, and the log, have the amount."""

    def load(self, entry: Entry) -> Record | None:
        """Return None: there are no entries."""
        return None

    def rejected(self) -> list[tuple[Record, str]]:
        """Return nothing."""
        return []

    def remove_settled(self, now_ms: int) -> None:
        """Do nothing."""

    def recover_spend(self) -> None:
        """Do nothing: no process has written anything ahead."""

    def pending(self) -> list[Entry]:
        """Return nothing."""
        return []

    def spend_log(self) -> None:
        """Return None: nothing is written ahead."""

    def chunk_logs(self) -> None:
        """Return None: chunks have no logs."""

    def close(self) -> None:
        """Do nothing."""
