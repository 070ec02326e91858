"""Put the records of several threads in one round trip.

A thread that is alone puts its record itself. Records that arrive in the meantime wait, and the next thread puts all of
them together.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final

from attrs import define, field

from cycles._errors import StoreError
from cycles._journal.stores.store import JournalStore, Put

LARGEST_BATCH: Final = 64


@define(eq=False)
class _Waiter:
    items: Sequence[Put]
    woken: threading.Event = field(factory=threading.Event)
    leads: bool = False  # woken to put the next batch, its own items included
    results: list[str | None] | None = None
    error: StoreError | None = None


class Combiner:
    """Puts for threads of one client.

    Args:
        store: The store. It bounds each operation itself.
        timeout_s: How long a thread waits for the one that puts its record.
    """

    def __init__(self, store: JournalStore, timeout_s: float) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._busy = False
        self._waiting: list[_Waiter] = []

    def put(self, items: Sequence[Put]) -> list[str | None]:
        """Put items, alone or together with those of other threads.

        Raises:
            StoreError: the store failed, or the outcome is unknown.
        """
        with self._lock:
            waiter = None if not self._busy else _Waiter(items)
            if waiter is None:
                self._busy = True
            else:
                self._waiting.append(waiter)
        if waiter is None:
            try:
                return self._store.put(items)
            finally:
                self._hand_over()
        return self._wait(waiter)

    def _wait(self, waiter: _Waiter) -> list[str | None]:
        if not waiter.woken.wait(self._timeout_s):
            with self._lock:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                elif waiter.leads:
                    self._wake_next()
            raise StoreError("the journal's store is busy: another thread waits for it; check the store")
        if waiter.leads:
            self._lead(waiter)
        if waiter.error is not None:
            raise StoreError(str(waiter.error)) from waiter.error
        assert waiter.results is not None
        return waiter.results

    def _lead(self, leader: _Waiter) -> None:
        """Put the leader's items with those that wait, and notify their threads."""
        batch = [leader]
        with self._lock:
            size = len(leader.items)
            while self._waiting and size + len(self._waiting[0].items) <= LARGEST_BATCH:
                batch.append(self._waiting.pop(0))
                size += len(batch[-1].items)
        error: StoreError | None = StoreError("the put was interrupted; its outcome is unknown")
        results: list[str | None] = []
        try:
            results = self._store.put([item for waiter in batch for item in waiter.items])
            error = None
        except StoreError as failed:
            error = failed
        finally:
            position = 0
            for waiter in batch:
                waiter.results = results[position : position + len(waiter.items)]
                position += len(waiter.items)
                waiter.error = error
                if waiter is not leader:
                    waiter.woken.set()
            self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            self._wake_next()

    def _wake_next(self) -> None:
        """Let the thread that waits longest put the next batch. The lock is held."""
        if self._waiting:
            following = self._waiting.pop(0)
            following.leads = True
            following.woken.set()
        else:
            self._busy = False
