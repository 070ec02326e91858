"""What operators do with the records of a shared store: look at them, send one again, discard one, move all.

A store shows the records of one server and principal. Looking claims nothing.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from attrs import evolve, frozen

from cycles._config import without_password
from cycles._core.records import Record, RecordError, decode, encode
from cycles._journal.file_store import FileStore
from cycles._journal.inspection import InspectedRecord, State, entry_of, inspect
from cycles._journal.open_journal import open_store
from cycles._journal.store import (
    SETTLED_KEPT_MS,
    BindableStore,
    JournalStore,
    Kept,
    OperatedStore,
    Put,
    SettledStore,
)
from cycles._journal.stores.shared import key_of

MOST: Final = 100_000
_BATCH: Final = 500
_NOT_CLAIMED_MS: Final = 600_000


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
            found.append(evolve(entry, state=kept.state, reason=kept.reason, settled_at_ms=kept.settled_at_ms))
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

    def mark_settled(self, entry: InspectedRecord, now_ms: int) -> None:
        """Keep a rejected record that was put back and is settled; delete what was settled more than 30 days ago.

        Raises:
            StoreError: the store does not respond.
        """
        if isinstance(self.store, SettledStore):
            self.store.keep_settled(_kept(entry, now_ms))
            self.store.remove_settled(now_ms - SETTLED_KEPT_MS)

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


def is_same_store(first: str, second: str, timeout_s: float) -> bool:
    """Return whether two URLs name one store: what is put into the second one is then found in the first.

    Raises:
        StoreError: a store does not respond.
    """
    owner, key = f"move-{secrets.token_hex(16)}", secrets.token_hex(32)  # a partition that no client has
    with (
        contextlib.closing(view_of(first, owner, timeout_s)) as one,
        contextlib.closing(view_of(second, owner, timeout_s)) as other,
    ):
        other.store.put([Put(key, b"{}", None, _NOT_CLAIMED_MS)])
        try:
            return any(each.key == key for each in one.store.list(1))
        finally:
            other.store.settle([key])


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
    with contextlib.closing(view_of(url, "moved", timeout_s)) as view:
        view.store.list(1)  # raises before anything is read if the store does not respond
    by_owner: dict[str, list[InspectedRecord]] = {}
    for entry in inspect(source):
        folder = Path(entry.path).parent
        owner = (folder.parent if entry.state == "rejected" else folder).name
        by_owner.setdefault(owner, []).append(entry)
    for owner, entries in by_owner.items():
        with contextlib.closing(view_of(url, owner, timeout_s)) as view:
            target = _Target(view.store)
            for entry in entries:
                done = _into_store(target, entry)
                moved, left = moved + done, left + (not done)
    return Moved(moved, left)


class _Target:
    """A store into which records are moved. A record stays where it was if the target has another one under its key."""

    def __init__(self, store: JournalStore) -> None:
        self.store = store
        self._known = {each.key: each.record for each in store.list(MOST)}
        if isinstance(store, OperatedStore):
            self._known.update((each.key, each.record) for each in store.kept(MOST))

    def lacks(self, key: str, record: bytes) -> bool:
        """Return whether the record may be put there: the target has none under its key, or the same bytes."""
        return self._known.get(key, record) == record

    def put(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        """Put records that are settled next."""
        self.store.put([Put(key, record) for key, record in pairs if key not in self._known])

    def keep(self, kept: Kept) -> bool:
        """Put a record that is never claimed. False: it cannot be kept there."""
        if kept.key in self._known:
            return True
        if kept.settled_at_ms is not None and isinstance(self.store, SettledStore):
            return self.store.keep_settled(kept)
        if kept.state == "quarantined" and isinstance(self.store, FileStore) and not _is_record(kept.record):
            return False
        self.store.put([Put(kept.key, kept.record, None, _NOT_CLAIMED_MS)])  # until it is marked, one line below
        (self.store.reject if kept.state == "rejected" else self.store.quarantine)(kept.key, kept.reason)
        return True


def _into_store(target: _Target, entry: InspectedRecord) -> bool:
    if entry.state not in ("pending", "deferred", "rejected") or entry.record is None:
        return False
    path = Path(entry.path)
    if entry.state == "rejected":
        kept = _kept(entry, entry.settled_at_ms)
        if not target.lacks(kept.key, kept.record) or not target.keep(kept):
            return False
    else:
        record = path.read_bytes()
        if not target.lacks(entry.id, record):
            return False
        target.put([(entry.id, record)])
    path.unlink(missing_ok=True)
    return True


def move_store_into(view: StoreView, store: JournalStore) -> Moved:
    """Move the records of a store into another store, or into the files of one partition.

    Raises:
        StoreError: a store does not respond. What was moved until then stays moved.
    """
    target = _Target(store)
    stored = view.store.list(MOST)
    movable = [each for each in stored if target.lacks(each.key, each.record)]
    for start in range(0, len(movable), _BATCH):
        batch = movable[start : start + _BATCH]
        target.put([(each.key, each.record) for each in batch])
        view.store.settle([each.key for each in batch])
    moved, left = len(movable), len(stored) - len(movable)
    for each in view._kept():
        done = target.lacks(each.key, each.record) and target.keep(each)
        moved, left = moved + done, left + (not done)
        if done and isinstance(view.store, OperatedStore):
            view.store.discard(each.key)
    return Moved(moved, left)


def files_of(folder: Path, owner: str) -> FileStore:
    """Return the files of one partition below a directory."""
    return FileStore(folder, lambda: owner, sync=True)


def is_url(place: str) -> bool:
    """Return whether a place of records is a store, not a directory."""
    return "://" in place and not place.startswith("file://")


def directory(place: str) -> Path:
    """Return the path of a directory, also if it is given as a ``file:`` URL."""
    return Path(unquote(urlsplit(place).path) if place.startswith("file://") else place).expanduser()


def _is_record(content: bytes) -> bool:
    try:
        decode(content)
    except RecordError:
        return False
    return True


def _kept(entry: InspectedRecord, settled_at_ms: int | None) -> Kept:
    return Kept(entry.id, _encoded(entry.record or {}), entry.reason or "rejected", "rejected", 0, settled_at_ms)


def _encoded(members: dict[str, Any]) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode("ascii")
