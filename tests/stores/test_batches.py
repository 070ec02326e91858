"""Records that several threads put at the same time, in one round trip."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cycles._journal.stores.batch import Combiner
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.store import Put

PATIENCE_S = 60.0
THREADS = 8


class Gate(MemoryStore):
    """A store whose first put ends when all other threads are about to put."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.others = threading.Barrier(THREADS + 1)
        self.sizes: list[int] = []

    def put(self, items: Sequence[Put]) -> list[str | None]:
        self.sizes.append(len(items))
        if not self.begun.is_set():
            self.begun.set()
            self.others.wait(PATIENCE_S)
            sum(range(1_000_000))  # the others begin to wait
        return super().put(items)


def test_each_thread_gets_the_fences_of_its_own_records() -> None:
    store = Gate()
    combiner = Combiner(store, PATIENCE_S)

    def put(number: int) -> list[str | None]:
        if number:
            assert store.begun.wait(PATIENCE_S)
            store.others.wait(PATIENCE_S)
        return combiner.put([Put(key, b"r", None, 0) for key in keys_of(number)])

    with ThreadPoolExecutor(THREADS + 1) as threads:
        found = list(threads.map(put, range(THREADS + 1)))
    fences = [[stored and stored.fence for stored in store.get(keys_of(number))] for number in range(THREADS + 1)]
    assert found == fences
    assert sum(store.sizes) == sum(map(len, fences))


def keys_of(number: int) -> list[str]:
    """Return the keys of the records of a thread: the threads put one, two or three."""
    return [f"{number} {place}" for place in range(1 + number % 3)]
