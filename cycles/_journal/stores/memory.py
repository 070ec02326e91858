"""`MemoryStore`: a store in this process, for tests of a fleet. Several clients may share it; nothing is saved."""

from __future__ import annotations

import builtins
import heapq
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from attrs import define, field

from cycles._config import Durability
from cycles._errors import StoreError
from cycles._journal.stores.store import PAGE, POISON_TAKES, KeptState, Owned, Put, Stored, new_fence


@define
class _Row:
    record: bytes
    fence: str
    due_ms: int
    kept: KeptState | None = None
    takes: int = 0


@define
class _Tables:
    """The rows of all partitions, and the lock of their store."""

    lock: AbstractContextManager[bool] = field(factory=lambda: threading.RLock())  # a signal handler may use it
    rows: dict[tuple[str, str], _Row] = field(factory=dict)
    fails: str | None = None


class MemoryStore:
    """Records in memory, with the rules of the stores in a database.

    Args:
        now_ms: The clock of the store, in milliseconds since the epoch.
    """

    def __init__(self, now_ms: Callable[[], int] | None = None, *, partition: str = "default") -> None:
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self._partition = partition
        self._tables = _Tables()

    @property
    def fails(self) -> str | None:
        """While this is a message, every operation raises `StoreError` with it."""
        return self._tables.fails

    @fails.setter
    def fails(self, message: str | None) -> None:
        self._tables.fails = message

    def bind(self, partition: str, *, durability: Durability = "process", timeout_s: float = 0.5) -> MemoryStore:
        """Return the store of one partition, over the same records."""
        bound = MemoryStore(self._now_ms, partition=partition)
        bound._tables = self._tables
        return bound

    def put(self, items: Sequence[Put]) -> builtins.list[str | None]:
        """Save records; None for each one of which the store has another fence."""
        with self._use():
            return [self._put(item) for item in items]

    def get(self, keys: Sequence[str]) -> builtins.list[Stored | None]:
        """Return the records of these keys."""
        with self._use():
            return [None if (row := self._row(key)) is None else _stored(key, row) for key in keys]

    def take(self, limit: int, claim_ms: int) -> builtins.list[Stored]:
        """Return due records, which belong to this client from now on."""
        with self._use():
            now_ms = self._now_ms()
            due = [(row.due_ms, key) for key, row in self._own(None) if row.due_ms <= now_ms]
            return [taken for _, key in heapq.nsmallest(limit, due) if (taken := self._take(key, now_ms + claim_ms))]

    def renew(self, items: Sequence[Owned], claim_ms: int) -> builtins.list[str]:
        """Keep records longer, and return the keys that this client does not have any longer."""
        with self._use():
            lost = []
            for key, fence in items:
                row = self._row(key)
                if row is None or row.fence != fence:
                    lost.append(key)
                elif row.kept is None:
                    row.due_ms = self._now_ms() + claim_ms
            return lost

    def delete(self, items: Sequence[Owned]) -> None:
        """Delete records that have these fences."""
        with self._use():
            for key, fence in items:
                row = self._row(key)
                if row is not None and row.fence == fence:
                    del self._tables.rows[self._partition, key]

    def list(self, after: str = "", limit: int = PAGE, kept: KeptState | None = None) -> builtins.list[Stored]:
        """Return one page of records."""
        with self._use():
            following = ((key, row) for key, row in self._own(kept) if key > after)
            return [_stored(key, row) for key, row in heapq.nsmallest(limit, following, key=lambda each: each[0])]

    def problems(self) -> builtins.list[str]:
        """Return nothing: this store is for tests."""
        return []

    def close(self) -> None:
        """Do nothing."""

    # --- with the lock held -----------------------------------------------------------------------------------------

    def _use(self) -> AbstractContextManager[bool]:
        if self.fails is not None:
            raise StoreError(f"the store failed: {self.fails}; set fails to None to end that")
        return self._tables.lock

    def _row(self, key: str) -> _Row | None:
        return self._tables.rows.get((self._partition, key))

    def _own(self, kept: KeptState | None) -> builtins.list[tuple[str, _Row]]:
        rows = list(self._tables.rows.items())
        return [(key, row) for (owner, key), row in rows if owner == self._partition and row.kept == kept]

    def _put(self, item: Put) -> str | None:
        row = self._row(item.key)
        # None is the fence of a key without a record.
        if (None if row is None else row.fence) != item.fence:
            return None
        fence = new_fence()
        due_ms = self._now_ms() + item.due_ms
        self._tables.rows[self._partition, item.key] = _Row(item.record, fence, due_ms, item.kept)
        return fence

    def _take(self, key: str, due_ms: int) -> Stored | None:
        fence, now_ms, row = new_fence(), self._now_ms(), self._tables.rows[self._partition, key]
        if row.due_ms > now_ms:  # a signal handler has taken it in the meantime; from here on no call lets one come
            return None
        # A new fence also if it is quarantined: the client that took it before, and hangs, must not bring it back.
        row.fence, row.due_ms, row.takes = fence, due_ms, row.takes + 1
        if row.takes > POISON_TAKES:
            row.kept = "quarantined"
            return None
        return _stored(key, row)


def _stored(key: str, row: _Row) -> Stored:
    return Stored(key, row.record, row.fence, row.due_ms, row.kept)
