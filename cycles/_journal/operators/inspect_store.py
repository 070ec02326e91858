"""What operators do with a shared store: look at its records, send one again, discard one; and move all records.

A store shows the records of one server and principal. Looking claims nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal

from attrs import evolve, frozen

from cycles._config import without_password
from cycles._core.settlement.record import Record, decode, encode
from cycles._errors import ConfigurationError, StoreError
from cycles._journal.files.chunk_cells import recover_chunks
from cycles._journal.files.record_files import SETTLED_KEPT_MS, key_in
from cycles._journal.files.spend import SUFFIX, recover_spend
from cycles._journal.open import bound, open_store
from cycles._journal.operators.inspect import InspectedRecord, entry_of, inspect
from cycles._journal.stores.files import FileStore
from cycles._journal.stores.shared import key_of
from cycles._journal.stores.store import (
    KEPT,
    POISON_TAKES,
    JournalStore,
    KeptState,
    Put,
    Stored,
    pages,
    settled_by_hand,
    with_reason,
)

_BATCH: Final = 500
_PARTITION: Final = re.compile(r"[0-9a-f]{16}")


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
        stored = (each for kept in KEPT.values() for each in pages(self.store, kept))
        found = [shown for each in stored if (shown := self.shown(each, now_ms)) is not None]
        return sorted(found, key=lambda entry: (entry.recorded_at_ms or 0, entry.path))

    def discard(self, entry: InspectedRecord) -> str:
        """Keep a record that is not settled from being settled, or delete one that is kept. Return what happened.

        Raises:
            StoreError: the store does not respond, or another client has changed the record.
        """
        stored = self._found(entry.id, "any" if entry.settled_at_ms is not None else KEPT.get(entry.state) or "any")
        if entry.state in ("rejected", "quarantined"):
            self.store.delete([(stored.key, stored.fence)])
            return f"deleted from {self.name}"
        self._replace(stored, stored.record, "quarantined")
        return f"quarantined in {self.name}"

    def requeue(self, entry: InspectedRecord) -> None:
        """Let a quarantined record be taken again, with no takes counted.

        Raises:
            StoreError: the store does not respond, or another client has changed the record.
        """
        stored = self._found(entry.id, "quarantined")
        self._replace(stored, stored.record, None)

    def put_rejected_back(self, record: Record) -> None:
        """Replace a rejected record by one that is settled next.

        Raises:
            StoreError: the store does not respond, or another client has changed the record.
        """
        self._replace(self._found(key_of(record.reservation_id), "rejected"), encode(record), None)

    def mark_settled(self, entry: InspectedRecord) -> None:
        """Keep a rejected record for 30 days that was put back and is settled.

        Raises:
            StoreError: the store does not respond.
        """
        self.store.put([settled_by_hand(entry.id, _rejected(entry), 0)])

    def close(self) -> None:
        """Close the connections of the store."""
        self.store.close()

    def _found(self, key: str, kept: KeptState | Literal["any"] = "any") -> Stored:
        (stored,) = self.store.get([key])
        if stored is None or kept not in ("any", stored.kept):
            raise StoreError(f"record {key[:12]} is settled, deleted or pending; list the journal again")
        return stored

    def _replace(self, stored: Stored, record: bytes, kept: KeptState | None) -> None:
        if self.store.put([Put(stored.key, record, stored.fence, 0, kept)]) == [None]:
            raise StoreError(f"record {stored.key[:12]} was changed by a client at this moment; try again")

    def shown(self, stored: Stored, now_ms: int) -> InspectedRecord | None:
        """Return what a record is for an operator; None for the mark of what is settled."""
        entry = entry_of(stored.key, "pending", f"{self.name}#{stored.key}", stored.record, now_ms)
        members = entry.record or {}
        reason = members.get("rejected")
        if stored.kept is None and "settled" in members:
            at_ms = stored.due_ms - SETTLED_KEPT_MS
            return None if reason is None else evolve(entry, state="rejected", reason=reason, settled_at_ms=at_ms)
        if stored.kept == "rejected":
            return evolve(entry, state="rejected", reason=reason or "rejected")
        return entry if stored.kept is None else evolve(entry, state="quarantined", reason=entry.reason or _ASIDE)


_ASIDE: Final = f"poison: taken {POISON_TAKES} times, and no attempt ended; or discarded by hand"


def view_of(url: str, owner: str, timeout_s: float) -> StoreView:
    """Return the view of a store.

    Args:
        url: The URL of the store.
        owner: The partition: server and principal.
        timeout_s: Bounds each operation, in seconds.

    Raises:
        ConfigurationError: the URL is wrong, or a package is missing.
    """
    return StoreView(bound(open_store(url), owner, "process", timeout_s), without_password(url))


def same_place(name: str) -> ConfigurationError:
    """Return the error of a move whose records would be put where they are, and then deleted there."""
    return ConfigurationError(
        f"both places are the same: {without_password(name)}; pass another one, nothing was moved"
    )


def move_files_into(open_target: Callable[[str], JournalStore], source: Path) -> tuple[int, int]:
    """Move the records of all journals below a directory into stores, with what dead processes wrote ahead.

    Returns how many were moved, and how many stay: files that are being written, and records of which the target has
    another one.

    Args:
        open_target: Returns the store of a partition.
        source: The directory.

    Raises:
        StoreError: a store does not respond. What was moved until then stays moved.
        OSError: the directory cannot be read.
    """
    moved = left = 0
    with contextlib.closing(open_target("moved")) as store:
        store.list("", 1)  # raises before anything is changed if the store does not respond
    for path in (source, *source.iterdir()):
        if _PARTITION.fullmatch(path.name):
            save_logs(files_of(path.parent, path.name))
    by_owner: dict[str, list[InspectedRecord]] = {}
    for entry in inspect(source):
        folder = Path(entry.path).parent
        owner = (folder.parent if entry.state == "rejected" else folder).name
        by_owner.setdefault(owner, []).append(entry)
    for owner, entries in by_owner.items():
        with contextlib.closing(open_target(owner)) as store:
            there = store.locate() if isinstance(store, FileStore) else ""
            for entry in entries:
                is_same = there and os.path.realpath(there) == os.path.realpath(Path(entry.path).parent)  # by a link
                done = not is_same and _into_store(store, entry)
                moved, left = moved + done, left + (not done)
    return moved, left


def save_logs(store: FileStore) -> None:
    """Save what dead processes wrote ahead as records, as a start of a client does."""

    def found(reservation_id: str) -> list[Stored]:
        return [stored for stored in store.get([key_of(reservation_id)]) if stored is not None]

    def save(record: Record) -> bool:
        fence = next((stored.fence for stored in found(record.reservation_id)), None)
        return store.put([Put(key_of(record.reservation_id), encode(record), fence)]) != [None]

    recover_chunks(store.locate(), lambda id_: next((decode(stored.record) for stored in found(id_)), None), save)
    list(recover_spend(store.locate(), lambda id_: bool(found(id_)), save))


def _into_store(store: JournalStore, entry: InspectedRecord) -> bool:
    path, record = Path(entry.path), entry.decoded()
    if entry.state == "unfinished" or path.suffix == SUFFIX:  # of a live process
        return False
    try:
        content = path.read_bytes()
    except FileNotFoundError:  # a client has settled it
        return False
    put = Put(entry.id if record is None else key_of(record.reservation_id), content)
    if entry.state == "rejected":
        put = evolve(put, record=_rejected(entry), kept="rejected")
    elif entry.state == "quarantined":
        put = evolve(put, kept="quarantined")
    if entry.settled_at_ms is not None:
        put = settled_by_hand(put.key, put.record, entry.settled_at_ms - time.time_ns() // 1_000_000)
    is_text = content.isascii() and b"\0" not in content  # a database may keep nothing else
    is_kept = key_in(f"v2-{put.key}.json") is not None and (is_text or isinstance(store, FileStore))
    if not is_kept or not _put_new(store, [put])[0]:
        return False
    path.unlink(missing_ok=True)
    return True


def _put_new(store: JournalStore, puts: Sequence[Put], *, source: str = "", sources: Sequence[str] = ()) -> list[bool]:
    """Put records that the store does not have; False for each one of which it has other bytes.

    Args:
        store: The store.
        puts: The records.
        source: Where they come from, if that is a store.
        sources: The fences that they have there. A fence is never used twice: one of them here means the same store.

    Raises:
        ConfigurationError: the store is the one that they come from.
    """
    fences = store.put(puts)
    there = store.get([put.key for put, fence in zip(puts, fences, strict=True) if fence is None])
    found = [each for each in there if each is not None]
    if any(each.fence in sources for each in found):
        raise same_place(source)
    same = {each.key: each.record for each in found}
    return [fence is not None or same.get(put.key) == put.record for put, fence in zip(puts, fences, strict=True)]


def move_store_into(view: StoreView, store: JournalStore) -> tuple[int, int]:
    """Move the records of a store into another store, or into the files of one partition.

    Returns how many were moved, and how many stay.

    Raises:
        StoreError: a store does not respond. What was moved until then stays moved.
        ConfigurationError: both are the same store.
    """
    moved = left = 0
    now_ms = time.time_ns() // 1_000_000
    for kept in KEPT.values():
        after = ""
        while page := view.store.list(after, _BATCH, kept):
            after = page[-1].key
            # Files have no use for the mark of a chunk that is settled.
            found = [each for each in page if not isinstance(store, FileStore) or view.shown(each, now_ms) is not None]
            puts, fences = [_copy(each, now_ms) for each in found], [each.fence for each in found]
            done = _put_new(store, puts, source=view.name, sources=fences)
            view.store.delete([(each.key, each.fence) for each, is_done in zip(found, done, strict=True) if is_done])
            moved, left = moved + sum(done), left + len(found) - sum(done)
    return moved, left


def _copy(stored: Stored, now_ms: int) -> Put:
    """Return the put of a record, due immediately, or when the mark of a settled one ends."""
    due_ms = max(0, stored.due_ms - now_ms) if b'"settled":' in stored.record else 0
    return Put(stored.key, stored.record, None, due_ms, stored.kept)


def files_of(folder: Path, owner: str) -> FileStore:
    """Return the files of one partition below a directory."""
    return FileStore(folder, lambda: owner, sync=True)


def is_url(place: str) -> bool:
    """Return whether a place of records is a store, not a directory."""
    return "://" in place and not place.startswith("file://")


def _rejected(entry: InspectedRecord) -> bytes:
    """Return the bytes of a rejected record in a store, where the record has the reason."""
    return with_reason(json.dumps(entry.record, separators=(",", ":")).encode("ascii"), entry.reason or "rejected")
