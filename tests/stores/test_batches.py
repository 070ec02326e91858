"""Records that several threads put at the same time, in one round trip."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from cycles._errors import StoreError
from cycles._journal.stores import batch
from cycles._journal.stores.batch import Combiner
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.store import Put

PATIENCE_S = 240.0
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


class Turns:
    """One thread puts a record, and its store waits until all other threads wait for it. Then it ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *results: BaseException | None) -> None:
        self.results = list(results)
        self.sizes: list[int] = []
        self.begun, self.go = threading.Event(), threading.Event()
        self.count = 0
        self.waits = threading.Condition()
        turns = self

        class Noted(threading.Condition):
            def wait_for(self, predicate: Any, timeout: float | None = None) -> Any:
                with turns.waits:
                    turns.count += 1
                    turns.waits.notify_all()
                return super().wait_for(predicate, timeout)

        monkeypatch.setattr(batch, "threading", SimpleNamespace(Condition=Noted))
        self.combiner = Combiner(self, PATIENCE_S)  # type: ignore[arg-type] # it only puts

    def put(self, items: Sequence[Put]) -> list[str | None]:
        self.sizes.append(len(items))
        if not self.begun.is_set():
            self.begun.set()
            assert self.go.wait(PATIENCE_S)
        error = self.results.pop(0) if self.results else None
        if error is not None:
            raise error
        return [item.key for item in items]

    def run(self, *sizes: int) -> list[Any]:
        """Return the results or errors of threads that wait with so many items each."""
        puts = [[Put(f"{number}-{place}", b"r") for place in range(size)] for number, size in enumerate(sizes)]
        with ThreadPoolExecutor(len(sizes) + 1) as threads:
            first: Future[Any] = threads.submit(self.combiner.put, [Put("first", b"r")])
            assert self.begun.wait(PATIENCE_S)
            others = [threads.submit(self.combiner.put, each) for each in puts]
            with self.waits:
                assert self.waits.wait_for(lambda: self.count == len(sizes) + 1, PATIENCE_S)
            self.go.set()
            assert first.result(PATIENCE_S) == ["first"]
            return [each.exception(PATIENCE_S) or each.result() for each in others]


@pytest.mark.parametrize(
    ("sizes", "puts"),
    [
        ((32, 32), [64]),
        ((32, 33), [32, 33]),
        ((1, 2, 3), [6]),
        ((64, 64), [64, 64]),
        ((65,), [65]),
        ((32, 32, 32), [32, 64]),
    ],
)
def test_a_batch_has_at_most_64_records_of_waiting_threads(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], puts: list[int]
) -> None:
    turns = Turns(monkeypatch)
    assert turns.run(*sizes) == [[f"{n}-{place}" for place in range(size)] for n, size in enumerate(sizes)]
    assert turns.sizes[0] == 1
    assert sorted(turns.sizes[1:]) == puts


def test_a_batch_counts_the_records_of_each_thread_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which thread begins is not fixed, so neither are the batches."""
    turns = Turns(monkeypatch)
    turns.run(10, 50, 10)
    assert (max(turns.sizes) <= 64, sum(turns.sizes)) == (True, 71)


def test_each_thread_of_a_batch_that_fails_gets_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = StoreError("it is down")
    turns = Turns(monkeypatch, None, failed)
    one, two = turns.run(1, 1)
    assert turns.sizes == [1, 2]
    assert (str(one), str(two)) == ("it is down", "it is down")
    assert one is not two
    assert (one.__cause__, two.__cause__) == (failed, failed)
    assert turns.combiner.put([Put("later", b"r")]) == ["later"]


def test_an_interrupt_ends_the_put_of_its_thread_and_leaves_the_others_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(monkeypatch, None, KeyboardInterrupt())
    errors = turns.run(1, 1, 1)
    assert sorted(f"{type(each).__name__} {each}" for each in errors) == [
        "KeyboardInterrupt ",
        "StoreError the put was interrupted; its outcome is unknown",
        "StoreError the put was interrupted; its outcome is unknown",
    ]
    assert turns.combiner.put([Put("later", b"r")]) == ["later"]


def test_a_thread_that_has_waited_too_long_leaves_its_records_to_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns(monkeypatch)
    short = Combiner(turns, 0.0)  # type: ignore[arg-type] # it only puts
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(short.put, [Put("first", b"r")])
        assert turns.begun.wait(PATIENCE_S)
        with pytest.raises(StoreError) as caught:
            short.put([Put("second", b"r")])
        turns.go.set()
        assert first.result(PATIENCE_S) == ["first"]
    assert str(caught.value) == "the journal's store is busy: another thread waits for it; check the store"
    assert short.put([Put("third", b"r")]) == ["third"]
    assert turns.sizes == [1, 1]
