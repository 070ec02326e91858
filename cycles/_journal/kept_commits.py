"""Which events a journal did not take although it may have the commits that they replace. They must not be sent."""

from __future__ import annotations

import errno

from cycles._core.settlement.record import Record


class KeptCommits:
    """The ids of the reservations whose commit may still be stored although an event replaces it."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._unmoved: set[str] = set()  # stored under another name, which no event replaces
        self._unremoved: set[str] = set()  # stored although it should have been deleted

    def has(self, record: Record) -> bool:
        """Return whether the commit of this event may still be stored: a later process sends it, and another event."""
        known = record.reservation_id
        return known in self._ids or known in self._unmoved or known in self._unremoved

    def found(self, record: Record, *, is_commit: bool) -> None:
        """Note what is stored when a record is about to be saved: a commit, or something else."""
        if is_commit and record.mode == "event":
            self._ids.add(record.reservation_id)

    def saved(self, record: Record) -> None:
        """Note that a record is stored now, in place of what was there."""
        if record.mode == "event":
            self._ids.discard(record.reservation_id)
            self._unremoved.discard(record.reservation_id)

    def failed(self, record: Record, error: BaseException) -> None:
        """Note that a record could not be saved. A call that hangs may still end, and store it."""
        if record.mode == "commit" and isinstance(error, OSError) and error.errno == errno.ETIMEDOUT:
            self._ids.add(record.reservation_id)

    def unmoved(self, record: Record, *, is_unmoved: bool) -> None:
        """Note whether a record stays under another name than its own."""
        (self._unmoved.add if is_unmoved else self._unmoved.discard)(record.reservation_id)

    def removed(self, record: Record, *, is_removed: bool) -> None:
        """Note whether a record could be deleted."""
        (self._unremoved.discard if is_removed else self._unremoved.add)(record.reservation_id)

    def is_unremoved(self, record: Record) -> bool:
        """Return whether a record is still stored because it could not be deleted."""
        return record.reservation_id in self._unremoved

    def missing(self, record: Record) -> None:
        """Note that nothing is stored under the record's own name."""
        self._ids.discard(record.reservation_id)
