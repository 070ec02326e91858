"""All records of a server, in memory, and in a store if there is one. Every change is applied whole or not at all."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from typing import Protocol, cast

from cycles.embedded.records import KINDS, ApiKey, Budget, Key, Record, Reservation, StoredResponse, Tenant


class Store(Protocol):
    """Where records outlive the process."""

    def load(self) -> Iterable[Record]:
        """Every record that was kept."""
        ...

    def write(self, kept: Iterable[Record], deleted: Iterable[Record]) -> None:
        """Keep and forget these, all of them or none."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Tables:
    """Tables of records by kind and key, in the order in which they first came.

    Not safe for threads by itself: the ledger holds its lock around each operation.
    """

    def __init__(self, store: Store | None = None) -> None:
        self._store = store
        self._by_kind: dict[str, dict[Key, Record]] = {kind: {} for kind in KINDS}
        self._due: list[tuple[int, int, Record]] = []
        self._order = itertools.count()
        self.budgets = cast(dict[Key, Budget], self._by_kind[Budget.kind])
        self.reservations = cast(dict[Key, Reservation], self._by_kind[Reservation.kind])
        self.responses = cast(dict[Key, StoredResponse], self._by_kind[StoredResponse.kind])
        self.tenants = cast(dict[Key, Tenant], self._by_kind[Tenant.kind])
        self.api_keys = cast(dict[Key, ApiKey], self._by_kind[ApiKey.kind])
        for record in store.load() if store is not None else ():
            self._keep(record)

    def apply(self, *kept: Record, deleted: Iterable[Record] = ()) -> None:
        """Keep the given records, in place of older ones with their keys, and forget the `gone` ones."""
        deleted = tuple(deleted)
        if self._store is not None:
            self._store.write(kept, deleted)  # first: if it fails, nothing has changed here either
        for record in kept:
            self._keep(record)
        for record in deleted:
            self._by_kind[record.kind].pop(record.key, None)

    def overdue(self, now_ms: int) -> Record | None:
        """The record whose time was over first, or None; it is due until the caller has changed or forgotten it."""
        while self._due and self._due[0][0] < now_ms:
            record = self._due[0][2]
            if self._by_kind[record.kind].get(record.key) is record:
                return record
            heapq.heappop(self._due)
        return None

    def close(self) -> None:
        """Close the store, if there is one."""
        if self._store is not None:
            self._store.close()

    def _keep(self, record: Record) -> None:
        self._by_kind[record.kind][record.key] = record
        due_ms = record.due_ms
        if due_ms is not None:
            heapq.heappush(self._due, (due_ms, next(self._order), record))
