"""Every store passes `check_store`, and a store that breaks a rule fails it."""

from __future__ import annotations

import builtins
import hashlib
import os
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from cycles._journal.stores.check import check_store
from cycles._journal.stores.files import FileStore
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.store import JournalStore, Put, Stored
from tests.stores.servers import PGBOUNCER, POSTGRES, REDIS


def made(url: str, durability: Any = "process") -> Callable[[], JournalStore]:
    """Return a factory of stores of one new partition."""
    partition = secrets.token_hex(8)
    if url.startswith("redis"):
        from cycles._journal.stores.redis import RedisStore

        return lambda: RedisStore(url, partition=partition, durability=durability, timeout_s=5.0)
    from cycles._journal.stores.postgres import PostgresStore

    return lambda: PostgresStore(url, partition=partition, durability=durability, timeout_s=5.0)


def test_the_memory_store_passes() -> None:
    shared = MemoryStore()
    assert len(check_store(lambda: shared.bind("p"))) == 13


def test_the_file_store_passes(tmp_path: Path) -> None:
    assert len(check_store(lambda: FileStore(tmp_path, lambda: "p", sync=False), exclusive_claims=False)) == 9


@pytest.mark.parametrize("durability", ["process", "disk"])
@pytest.mark.parametrize("variable", [REDIS, POSTGRES, PGBOUNCER])
def test_the_stores_of_a_fleet_pass(variable: str, durability: str) -> None:
    url = os.environ.get(variable)
    if not url:
        pytest.skip(f"{variable} is not set: make test-stores starts the server")
    assert len(check_store(made(url, durability))) == 13


class _Broken(MemoryStore):
    """A store over the records of another one, which breaks one rule."""

    def __init__(self, shared: MemoryStore) -> None:
        super().__init__()
        self._tables = shared._tables


class _Reencodes(_Broken):
    def put(self, items: Sequence[Put]) -> list[str | None]:
        return super().put([evolve(item, record=item.record.strip()) for item in items])


class _IgnoresFences(_Broken):
    def put(self, items: Sequence[Put]) -> list[str | None]:
        found = self.get([item.key for item in items])
        fences = [None if stored is None else stored.fence for stored in found]
        return super().put([evolve(item, fence=fence) for item, fence in zip(items, fences, strict=True)])


class _ReplacesWithoutFence(_IgnoresFences):
    def put(self, items: Sequence[Put]) -> list[str | None]:
        return [*map(self._one, items)]

    def _one(self, item: Put) -> str | None:
        (result,) = super().put([item]) if item.fence is None else MemoryStore.put(self, [item])
        return result


class _SavesTheLastOfOneKey(_Broken):
    def put(self, items: Sequence[Put]) -> list[str | None]:
        results = super().put(items)
        for item in items:
            row = self._tables.rows.get((self._partition, item.key))
            if row is not None and len(items) == 2 and items[0].key == items[1].key:
                row.record = item.record
        return results


class _UsesFencesAgain(_Broken):
    """Its fences are digests of the bytes."""

    def put(self, items: Sequence[Put]) -> list[str | None]:
        results = super().put(items)
        for item, fence in zip(items, results, strict=True):
            if fence is not None:
                self._tables.rows[self._partition, item.key].fence = hashlib.sha256(item.record).hexdigest()
        stored = self.get([item.key for item in items])
        return [each.fence if fence and each else None for fence, each in zip(results, stored, strict=True)]


class _DeletesWithoutFence(_Broken):
    def delete(self, items: Sequence[tuple[str, str]]) -> None:
        found = self.get([key for key, _ in items])
        super().delete([(each.key, each.fence) for each in found if each is not None])


class _DeletesOne(_Broken):
    def delete(self, items: Sequence[tuple[str, str]]) -> None:
        super().delete(items[1:])


class _RenewsNothing(_Broken):
    def renew(self, items: Sequence[tuple[str, str]], claim_ms: int) -> list[str]:
        return []


class _GetsAPage(_Broken):
    def get(self, keys: Sequence[str]) -> list[Stored | None]:
        return [*super().get(keys[:20]), *[None for _ in keys[20:]]]


class _ListsEverything(_Broken):
    def list(self, after: str = "", limit: int = 1_000, kept: Any = None) -> builtins.list[Stored]:
        return super().list(after, 10_000, kept)


class _ListsKeptRecords(_Broken):
    def list(self, after: str = "", limit: int = 1_000, kept: Any = None) -> builtins.list[Stored]:
        found = super().list(after, limit, kept)
        return found if kept else sorted([*found, *super().list(after, limit, "rejected")], key=lambda each: each.key)


class _TakesTwice(_Broken):
    def take(self, limit: int, claim_ms: int) -> builtins.list[Stored]:
        return super().take(limit, 0)


class _TakesTooEarly(_Broken):
    def put(self, items: Sequence[Put]) -> builtins.list[str | None]:
        return super().put([evolve(item, due_ms=0) for item in items])


class _TakesKeptRecords(_Broken):
    def put(self, items: Sequence[Put]) -> builtins.list[str | None]:
        return super().put([evolve(item, kept=None) for item in items])


class _KeepsTheFence(_Broken):
    def take(self, limit: int, claim_ms: int) -> builtins.list[Stored]:
        before = {key: row.fence for (_, key), row in self._tables.rows.items()}
        taken = super().take(limit, claim_ms)
        for each in taken:
            self._tables.rows[self._partition, each.key].fence = before[each.key]
        return [evolve(each, fence=before[each.key]) for each in taken]


class _TakesTwiceInThreads(_Broken):
    def take(self, limit: int, claim_ms: int) -> builtins.list[Stored]:
        return super().take(limit, claim_ms if threading.current_thread() is threading.main_thread() else 0)


class _TakesAnotherOneInThreads(_Broken):
    def take(self, limit: int, claim_ms: int) -> builtins.list[Stored]:
        taken = super().take(limit, claim_ms)
        if threading.current_thread() is threading.main_thread():
            return taken
        return [evolve(each, key=each.key[::-1]) for each in taken]


class _NeverQuarantines(_Broken):
    def take(self, limit: int, claim_ms: int) -> builtins.list[Stored]:
        for row in self._tables.rows.values():
            row.takes = 0
        return super().take(limit, claim_ms)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (_Reencodes, "bytes of a record unchanged"),
        (_IgnoresFences, "put returns None"),
        (_ReplacesWithoutFence, "put returns None if the store has a record"),
        (_SavesTheLastOfOneKey, "first item of a put with one key twice"),
        (_UsesFencesAgain, "fence is not used again|over the fence of a deleted record|old fence|new fence"),
        (_DeletesWithoutFence, "delete with another fence deletes nothing"),
        (_DeletesOne, "delete with the fence of a record deletes it|deleted record"),
        (_RenewsNothing, "renew returns the keys"),
        (_GetsAPage, "get returns records in the order"),
        (_ListsEverything, "no more than its limit"),
        (_ListsKeptRecords, "list returns no kept record unless asked"),
        (_TakesTwice, "not taken again"),
        (_TakesTooEarly, "not due"),
        (_TakesTwiceInThreads, "no record is taken twice"),
        (_TakesAnotherOneInThreads, "every due record is taken"),
        (_TakesKeptRecords, "take returns no kept record"),
        (_KeepsTheFence, "a new fence"),
        (_NeverQuarantines, "poison record"),
    ],
)
def test_a_broken_store_fails(broken: type[_Broken], rule: str) -> None:
    shared = MemoryStore()
    with pytest.raises(AssertionError, match=rule):
        check_store(lambda: broken(shared))


Lie = Callable[[Any, Sequence[Any], list[Any]], list[Any]]
# What a store may say in place of the truth, for each operation: from the store, the arguments and the true result.
LIES: dict[str, list[Lie]] = {
    "put": [
        lambda store, asked, fences: [None if fence else "0" for fence in fences],
        lambda store, asked, fences: [each.fence for each in asked[0]],
    ],
    "get": [
        lambda store, asked, found: [None for _ in found],
        lambda store, asked, found: [each and evolve(each, record=b"{}") for each in found],
        lambda store, asked, found: [each and evolve(each, fence="0") for each in found],
        lambda store, asked, found: [each and evolve(each, kept=None if each.kept else "rejected") for each in found],
    ],
    "renew": [lambda store, asked, lost: [] if lost else ["0"]],
    "take": [
        lambda store, asked, taken: [],
        lambda store, asked, taken: [evolve(each, record=b"{}") for each in taken],
        lambda store, asked, taken: MemoryStore.list(store) + MemoryStore.list(store, kept="quarantined"),
    ],
    "list": [lambda store, asked, page: page[:-1], lambda store, asked, page: page[::-1]],
}


class _Lie:
    """A wrong result of one operation of a run: its number, counted from 1, and which of the lies of its operation."""

    def __init__(self, number: int, which: int) -> None:
        self._left, self._which = number, which
        self.told: str | None = None

    def about(self, store: _Liar, operation: str, asked: Sequence[Any], result: list[Any]) -> list[Any]:
        if threading.current_thread() is not threading.main_thread():  # the order of threads is not fixed
            return result
        self._left -= 1
        if self._left != 0 or self._which >= len(LIES[operation]):
            return result
        self.told = operation
        return LIES[operation][self._which](store, asked, result)


class _Liar(_Broken):
    """A store of which one result is wrong."""

    def __init__(self, shared: MemoryStore, lie: _Lie) -> None:
        super().__init__(shared)
        for operation in LIES:
            setattr(self, operation, partial(self._say, lie, operation, getattr(self, operation)))

    def _say(self, lie: _Lie, operation: str, ask: Callable[..., list[Any]], *asked: Any) -> list[Any]:
        return lie.about(self, operation, asked, ask(*asked))


def test_a_store_that_is_wrong_once_fails() -> None:
    """Not found are lies that matter to no check: those in a clean-up, and of records of other checks."""
    found, messages = Counter[str | None](), set[str]()
    for which in range(max(map(len, LIES.values()))):
        for number in range(1, 110):
            lie, shared = _Lie(number, which), MemoryStore()
            try:
                check_store(partial(_Liar, shared, lie))
            except AssertionError as error:
                found[lie.told] += 1
                messages.add(str(error).partition(":")[0])
    assert found == {"put": 65, "get": 28, "renew": 4, "take": 11, "list": 7}
    assert messages == {"the store breaks a rule"}
