"""`MemoryStore`: a store in this process, for tests of a fleet. Several clients may share it; nothing is saved."""

from __future__ import annotations

import builtins
import threading
import time
from collections.abc import Callable, Sequence

from attrs import define, evolve, field

from cycles._config import Durability
from cycles._errors import StoreError
from cycles._journal.store import POISON_CLAIMS, POISON_REASON, Claimed, Kept, Put, Stored


@define
class _Row:
    record: bytes
    due_ms: int
    fence: int = 0
    claims: int = 0
    kept: Kept | None = None


@define
class _Tables:
    """The rows of all partitions, and the lock of their store."""

    lock: threading.Lock = field(factory=threading.Lock)
    rows: dict[tuple[str, str], _Row] = field(factory=dict)
    fences: dict[tuple[str, str], int] = field(factory=dict)


class MemoryStore:
    """Records in memory, with the rules of the stores in a database.

    Args:
        now_ms: The clock of the store, in milliseconds since the epoch.
    """

    def __init__(self, now_ms: Callable[[], int] | None = None, *, partition: str = "default") -> None:
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self._partition = partition
        self._tables = _Tables()
        self.fails: str | None = None
        """While this is a message, every operation raises `StoreError` with it."""

    def bind(self, partition: str, *, durability: Durability = "process", timeout_s: float = 0.5) -> MemoryStore:
        """Return the store of one partition, over the same records."""
        bound = _Bound(self)
        bound._partition = partition
        return bound

    def put(self, items: Sequence[Put]) -> builtins.list[bool]:
        """Save records; False for each one whose fence another client has changed."""
        with self._use():
            return [self._save(item) for item in items]

    def settle(self, keys: Sequence[str]) -> None:
        """Delete finished records."""
        with self._use():
            for key in keys:
                row = self._row(key)
                if row is not None and row.kept is None:
                    self._delete(key)

    def claim(self, limit: int, claim_ms: int) -> builtins.list[Claimed]:
        """Return due records, which belong to this client from now on."""
        with self._use():
            now_ms = self._now_ms()
            due = [key for key in self._own_keys() if self._rows[self._place(key)].due_ms <= now_ms]
            due.sort(key=lambda key: self._rows[self._place(key)].due_ms)
            return [claimed for key in due[:limit] if (claimed := self._claim(key, now_ms + claim_ms)) is not None]

    def renew(self, keys: Sequence[str], claim_ms: int) -> builtins.list[str]:
        """Keep claims longer, and return the keys that no longer exist."""
        with self._use():
            missing = []
            for key in keys:
                row = self._row(key)
                if row is None:
                    missing.append(key)
                elif row.kept is None:
                    row.due_ms = self._now_ms() + claim_ms
            return missing

    def get(self, keys: Sequence[str]) -> builtins.list[Stored | None]:
        """Return the records of these keys."""
        with self._use():
            rows = [(key, self._row(key)) for key in keys]
            return [
                None if row is None or row.kept is not None else Stored(key, row.record, row.due_ms, row.fence)
                for key, row in rows
            ]

    def list(self, limit: int = 1000) -> builtins.list[Stored]:
        """Return records without claiming them."""
        with self._use():
            rows = [(key, self._rows[self._place(key)]) for key in self._own_keys()]
            return [Stored(key, row.record, row.due_ms, row.fence) for key, row in rows[:limit]]

    def quarantine(self, key: str, reason: str) -> None:
        """Keep a record that no client can read."""
        with self._use():
            self._keep(key, Kept(key, b"", reason, "quarantined"))

    def reject(self, key: str, reason: str) -> None:
        """Keep a record that the server rejected."""
        with self._use():
            self._keep(key, Kept(key, b"", reason, "rejected"))

    def kept(self, limit: int = 1000) -> builtins.list[Kept]:
        """Return records that are rejected or quarantined."""
        with self._use():
            found = [row.kept for (owner, _), row in self._rows.items() if owner == self._partition]
            return [kept for kept in found if kept is not None][:limit]

    def restore(self, key: str) -> bool:
        """Let a rejected or quarantined record be claimed again."""
        with self._use():
            row = self._row(key)
            if row is None or row.kept is None:
                return False
            row.kept, row.claims, row.due_ms = None, 0, self._now_ms()
            return True

    def discard(self, key: str) -> None:
        """Delete a record in any state."""
        with self._use():
            self._delete(key)

    def keep_settled(self, kept: Kept) -> bool:
        """Keep a rejected record that is settled."""
        with self._use():
            if self._row(kept.key) is not None:
                return False
            self._rows[self._place(kept.key)] = _Row(kept.record, 0, kept=kept)
            return True

    def remove_settled(self, before_ms: int) -> None:
        """Delete what was settled by hand before a time."""
        with self._use():
            for (owner, key), row in [*self._rows.items()]:
                settled_ms = None if row.kept is None else row.kept.settled_at_ms
                if owner == self._partition and settled_ms is not None and settled_ms < before_ms:
                    self._delete(key)

    def problems(self) -> builtins.list[str]:
        """Return nothing: this store is for tests."""
        return []

    def close(self) -> None:
        """Do nothing."""

    # --- with the lock held -----------------------------------------------------------------------------------------

    @property
    def _rows(self) -> dict[tuple[str, str], _Row]:
        return self._tables.rows

    def _use(self) -> threading.Lock:
        if self._root().fails is not None:
            raise StoreError(f"the store failed: {self._root().fails}; set fails to None to end that")
        return self._tables.lock

    def _root(self) -> MemoryStore:
        return self

    def _place(self, key: str) -> tuple[str, str]:
        return self._partition, key

    def _row(self, key: str) -> _Row | None:
        return self._rows.get(self._place(key))

    def _own_keys(self) -> builtins.list[str]:
        return [key for (owner, key), row in self._rows.items() if owner == self._partition and row.kept is None]

    def _save(self, item: Put) -> bool:
        row, due_ms = self._row(item.key), self._now_ms() + item.due_ms
        if item.fence is not None and (row is None or row.kept is not None or row.fence != item.fence):
            return False
        fence = self._tables.fences.get(self._place(item.key), 0)
        self._rows[self._place(item.key)] = _Row(item.record, due_ms, fence)
        return True

    def _claim(self, key: str, due_ms: int) -> Claimed | None:
        row = self._rows[self._place(key)]
        if row.claims >= POISON_CLAIMS:
            self._keep(key, Kept(key, b"", POISON_REASON, "quarantined"))
            return None
        row.fence += 1
        self._tables.fences[self._place(key)] = row.fence
        row.claims, row.due_ms = row.claims + 1, due_ms
        return Claimed(key, row.record, row.fence)

    def _keep(self, key: str, kept: Kept) -> None:
        row = self._row(key)
        if row is not None:
            row.kept = evolve(kept, record=row.record, at_ms=self._now_ms())

    def _delete(self, key: str) -> None:
        self._rows.pop(self._place(key), None)
        self._tables.fences.pop(self._place(key), None)


class _Bound(MemoryStore):
    """The store of one partition; it fails when its shared store fails."""

    def __init__(self, shared: MemoryStore) -> None:
        super().__init__(shared._now_ms)
        self._shared = shared
        self._tables = shared._tables

    def _root(self) -> MemoryStore:
        return self._shared._root()
