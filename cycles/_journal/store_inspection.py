"""What operators do with the records of a shared store: look at them, send one again, discard one, move all.

A store shows the records of one server and principal. Looking claims nothing.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from attrs import evolve, frozen

from cycles._config import without_password
from cycles._core.records import Record, RecordError, decode, encode
from cycles._journal.file_store import FileStore
from cycles._journal.inspection import InspectedRecord, State, entry_of, inspect
from cycles._journal.open_journal import open_store
from cycles._journal.store import BindableStore, JournalStore, Kept, OperatedStore, Put
from cycles._journal.store_journal import key_of

MOST: Final = 100_000
_BATCH: Final = 500


@frozen
class StoreView:
    """The records of one server and principal in a store. `name` is the store's URL without its password."""

    store: JournalStore
    name: str

    def records(self) -> list[InspectedRecord]:
        """Return every record, oldest first.

        Raises:
            StoreError: the store does not respond.
        """
        now_ms = time.time_ns() // 1_000_000
        found = [self._entry(each.key, "pending", each.record, now_ms) for each in self.store.list(MOST)]
        for kept in self._kept():
            entry = self._entry(kept.key, "pending", kept.record, now_ms)
            found.append(evolve(entry, state=kept.state, reason=kept.reason))
        return sorted(found, key=lambda entry: (entry.recorded_at_ms or 0, entry.path))

    def has(self, entry: InspectedRecord) -> bool:
        """Return whether the entry is one of this store."""
        return entry.path.startswith(f"{self.name}#")

    def discard(self, entry: InspectedRecord) -> str:
        """Keep a record that is not settled from being settled, or delete one that is kept. Return what happened.

        Raises:
            StoreError: the store does not respond.
        """
        if entry.state in ("rejected", "quarantined") and isinstance(self.store, OperatedStore):
            self.store.discard(entry.id)
            return f"deleted from {self.name}"
        self.store.quarantine(entry.id, "discarded by hand")
        return f"quarantined in {self.name}"

    def requeue(self, entry: InspectedRecord) -> None:
        """Let a quarantined record be claimed again, with no claims counted.

        Raises:
            StoreError: the store does not respond.
        """
        if isinstance(self.store, OperatedStore):
            self.store.restore(entry.id)

    def put_rejected_back(self, record: Record) -> None:
        """Replace a rejected record by one that is settled next.

        Raises:
            StoreError: the store does not respond.
        """
        self.store.put([Put(key_of(record.reservation_id), encode(record))])

    def close(self) -> None:
        """Close the connections of the store."""
        self.store.close()

    def _kept(self) -> list[Kept]:
        return self.store.kept(MOST) if isinstance(self.store, OperatedStore) else []

    def _entry(self, key: str, state: State, record: bytes, now_ms: int) -> InspectedRecord:
        return entry_of(key, state, f"{self.name}#{key}", record, now_ms)


def view_of(url: str, owner: str, timeout_s: float) -> StoreView:
    """Return the view of a store.

    Args:
        url: The URL of the store.
        owner: The partition: server and principal.
        timeout_s: Bounds each operation, in seconds.

    Raises:
        ConfigurationError: the URL is wrong, or a package is missing.
    """
    return StoreView(_bound(open_store(url), owner, timeout_s), without_password(url))


def _bound(store: JournalStore, owner: str, timeout_s: float) -> JournalStore:
    if not isinstance(store, BindableStore):
        return store
    return store.bind(owner, durability="process", timeout_s=timeout_s)


class Moved(NamedTuple):
    """How many records were moved, and how many stay where they were."""

    moved: int
    left: int


def move_files_into(url: str, source: Path, timeout_s: float) -> Moved:
    """Move the records of all journals below a directory into a store, each into its own partition.

    Raises:
        StoreError: the store does not respond. What was moved until then stays moved.
        OSError: the directory cannot be read.
    """
    moved = left = 0
    by_owner: dict[str, list[InspectedRecord]] = {}
    for entry in inspect(source):
        folder = Path(entry.path).parent
        owner = (folder.parent if entry.state == "rejected" else folder).name
        by_owner.setdefault(owner, []).append(entry)
    for owner, entries in by_owner.items():
        with contextlib.closing(view_of(url, owner, timeout_s)) as view:
            for entry in entries:
                done = _into_store(view.store, entry)
                moved, left = moved + done, left + (not done)
    return Moved(moved, left)


def _into_store(store: JournalStore, entry: InspectedRecord) -> bool:
    if entry.state not in ("pending", "deferred", "rejected") or entry.record is None:
        return False
    path = Path(entry.path)
    record = path.read_bytes() if entry.state != "rejected" else _encoded(entry.record)
    store.put([Put(entry.id, record)])
    if entry.state == "rejected":
        store.reject(entry.id, entry.reason or "rejected")
    path.unlink(missing_ok=True)
    return True


def move_store_into(view: StoreView, target: JournalStore) -> Moved:
    """Move the records of a store into another store, or into the files of one partition.

    Raises:
        StoreError: a store does not respond. What was moved until then stays moved.
    """
    stored = view.store.list(MOST)
    for start in range(0, len(stored), _BATCH):
        batch = stored[start : start + _BATCH]
        target.put([Put(each.key, each.record) for each in batch])
        view.store.settle([each.key for each in batch])
    kept = view._kept()
    left = 0
    for each in kept:
        if each.state == "quarantined" and isinstance(target, FileStore) and not _is_record(each.record):
            left += 1
            continue
        target.put([Put(each.key, each.record)])
        (target.reject if each.state == "rejected" else target.quarantine)(each.key, each.reason)
        if isinstance(view.store, OperatedStore):
            view.store.discard(each.key)
    return Moved(len(stored) + len(kept) - left, left)


def files_of(folder: Path, owner: str) -> FileStore:
    """Return the files of one partition below a directory."""
    return FileStore(folder, lambda: owner, sync=True)


def is_url(place: str) -> bool:
    """Return whether a place of records is a store, not a directory."""
    return "://" in place and not place.startswith("file://")


def _is_record(content: bytes) -> bool:
    try:
        decode(content)
    except RecordError:
        return False
    return True


def _encoded(members: dict[str, Any]) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode("ascii")
