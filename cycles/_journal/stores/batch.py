"""Put the records of several threads in one round trip.

A thread that is alone puts its record itself. Records that arrive in the meantime wait, and the next thread puts all of
them together.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from attrs import define, field

from cycles._errors import StoreError
from cycles._journal.stores.store import JournalStore, Put

LARGEST_BATCH: Final = 64


@define(eq=False)
class _Waiter:
    """The items of one thread, and their outcome."""

    items: Sequence[Put]
    results: list[str | None] = field(factory=list)
    error: StoreError | None = None
    is_done: bool = False


class Combiner:
    """Puts for threads of one client.

    Args:
        store: The store. It bounds each operation itself.
        timeout_s: How long a thread waits for the one that puts its record.
    """

    def __init__(self, store: JournalStore, timeout_s: float) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._waiting: deque[_Waiter] = deque()
        self._batch: list[_Waiter] = []  # what a thread puts now, its own items first; it wakes the others at its end
        self._changed = threading.Condition()  # of both

    def put(self, items: Sequence[Put]) -> list[str | None]:
        """Put items, alone or together with those of other threads.

        Raises:
            StoreError: the store failed, or the outcome is unknown.
        """
        waiter, batch = _Waiter(items), list[_Waiter]()
        try:
            with self._changed:
                self._waiting.append(waiter)
                in_time = self._changed.wait_for(lambda: waiter.is_done or not self._batch, self._timeout_s)
                # Another thread may have put these items just when this one could have begun.
                if in_time and not waiter.is_done:
                    batch = self._batch = self._next_batch(waiter)
            if batch:
                self._put(batch)
            elif not waiter.is_done:
                raise StoreError("the journal's store is busy: another thread waits for it; check the store")
        finally:  # a thread that gives up, or is interrupted, has its items put by no other one
            try:
                self._leave(waiter)
            finally:  # the interrupt may have come inside of the first call
                self._leave(waiter)
        if waiter.error is not None:
            raise StoreError(str(waiter.error)) from waiter.error  # one object for each thread: each adds its traceback
        return waiter.results

    def _next_batch(self, first: _Waiter) -> list[_Waiter]:
        """Return what this thread puts: its own items, and those of threads that wait."""
        self._waiting.remove(first)
        batch, size = [first], len(first.items)
        # Bounded: the timeout of one operation must suffice for a batch.
        while self._waiting and size + len(self._waiting[0].items) <= LARGEST_BATCH:
            batch.append(self._waiting.popleft())
            size += len(batch[-1].items)
        return batch

    def _put(self, batch: list[_Waiter]) -> None:
        error: StoreError | None = None
        results: list[str | None] = []
        try:
            results = self._store.put([item for waiter in batch for item in waiter.items])
        except StoreError as failed:
            error = failed
        for waiter in batch:
            count = len(waiter.items)
            waiter.results, results = results[:count], results[count:]
            waiter.error, waiter.is_done = error, True

    def _leave(self, waiter: _Waiter) -> None:
        """End the batch of this thread, if it has one, and let another one begin. May be called twice."""
        with self._changed:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            if self._batch and self._batch[0] is waiter:
                for each in self._batch:
                    if not each.is_done:
                        each.error = StoreError("the put was interrupted; its outcome is unknown")
                        each.is_done = True
                self._batch = []
            self._changed.notify_all()
