"""All records of a server, in memory and in a store if there is one. A change is applied completely or not at all."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from typing import Protocol, cast

from cycles.embedded.records import (
    KINDS,
    AdminInfo,
    ApiKey,
    Budget,
    BudgetWindow,
    Key,
    Policy,
    QuotaCounter,
    Record,
    Reservation,
    StoredResponse,
    Tenant,
)


class Store(Protocol):
    """Storage that keeps records after the process ends."""

    def load(self) -> Iterable[Record]:
        """Return every stored record."""
        ...

    def write(self, saved: Iterable[Record], deleted: Iterable[Record]) -> None:
        """Save `saved` and delete `deleted`, all of them or none."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class Tables:
    """Tables of records by kind and key, in the order in which they were first saved.

    Not thread-safe: the ledger holds its lock around each operation.
    """

    def __init__(self, store: Store | None = None) -> None:
        self._store = store
        self._by_kind: dict[str, dict[Key, Record]] = {kind: {} for kind in KINDS}
        # Called with the records before and after each change; the caller of `apply` holds the ledger's lock.
        self.observers: list[Callable[[list[tuple[Record | None, Record | None]]], None]] = []
        self._due: list[tuple[int, int, Record]] = []
        self._order = itertools.count()
        self.budgets: dict[Key, Budget] = cast(dict[Key, Budget], self._by_kind[Budget.kind])
        self.windows: dict[Key, BudgetWindow] = cast(dict[Key, BudgetWindow], self._by_kind[BudgetWindow.kind])
        self.reservations: dict[Key, Reservation] = cast(dict[Key, Reservation], self._by_kind[Reservation.kind])
        self.responses: dict[Key, StoredResponse] = cast(dict[Key, StoredResponse], self._by_kind[StoredResponse.kind])
        self.tenants: dict[Key, Tenant] = cast(dict[Key, Tenant], self._by_kind[Tenant.kind])
        self.api_keys: dict[Key, ApiKey] = cast(dict[Key, ApiKey], self._by_kind[ApiKey.kind])
        self.policies: dict[Key, Policy] = cast(dict[Key, Policy], self._by_kind[Policy.kind])
        self.counters: dict[Key, QuotaCounter] = cast(dict[Key, QuotaCounter], self._by_kind[QuotaCounter.kind])
        self.admin_info: dict[Key, AdminInfo] = cast(dict[Key, AdminInfo], self._by_kind[AdminInfo.kind])
        for record in store.load() if store is not None else ():
            self._index(record)

    def apply(self, *saved: Record, deleted: Iterable[Record] = ()) -> None:
        """Save the given records, replacing those with the same keys, and delete the `deleted` ones."""
        deleted = tuple(deleted)
        if self._store is not None:
            self._store.write(saved, deleted)  # first: if it fails, nothing has changed here either
        changes: list[tuple[Record | None, Record | None]] = [
            (self._by_kind[record.kind].get(record.key), record) for record in saved
        ]
        for record in saved:
            self._index(record)
        for record in deleted:
            self._by_kind[record.kind].pop(record.key, None)
            changes.append((record, None))
        for observer in self.observers:
            observer(changes)

    def overdue(self, now_ms: int) -> Record | None:
        """Return the record that became due first, or None. It stays due until the caller replaces or deletes it."""
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

    def _index(self, record: Record) -> None:
        self._by_kind[record.kind][record.key] = record
        due_ms = record.due_ms
        if due_ms is not None:
            heapq.heappush(self._due, (due_ms, next(self._order), record))
