"""Every store passes `check_store`, and a store that breaks a rule fails it."""

from __future__ import annotations

import builtins
import hashlib
import itertools
import os
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve

from cycles._errors import StoreError
from cycles._journal.stores import check
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
    names = check_store(lambda: shared.bind("p"))
    assert (len(names), names[0], names[-1]) == (
        13,
        "bytes_are_returned_unchanged",
        "a_record_that_is_taken_again_and_again_is_quarantined",
    )
    assert shared.bind("p").list() == [], "the checks delete their records"


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


class _GetsMore(_Broken):
    def get(self, keys: Sequence[str]) -> list[Stored | None]:
        return [*super().get(keys), None]


class _GetsNothing(_Broken):
    def get(self, keys: Sequence[str]) -> list[Stored | None]:
        return []


class _PutsMore(_Broken):
    def put(self, items: Sequence[Put]) -> list[str | None]:
        return [*super().put(items), None]


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


class _CountsTakesAfterAPut(_Broken):
    def put(self, items: Sequence[Put]) -> list[str | None]:
        before = {key: row.takes for (_, key), row in self._tables.rows.items()}
        results = super().put(items)
        for item in items:
            if (row := self._tables.rows.get((self._partition, item.key))) is not None:
                row.takes = before.get(item.key, 0)
        return results


class _DeletesTakenRecordsWithoutFence(_DeletesWithoutFence):
    def delete(self, items: Sequence[tuple[str, str]]) -> None:
        taken = {key for (_, key), row in self._tables.rows.items() if row.takes}
        super().delete([each for each in items if each[0] in taken])
        MemoryStore.delete(self, items)


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
        (_UsesFencesAgain, "a fence is not used again after a delete"),
        (_DeletesWithoutFence, "delete with another fence deletes nothing"),
        (_DeletesOne, "a put over the fence of a deleted record changes nothing"),
        (_DeletesTakenRecordsWithoutFence, "put returns a fence if it has saved the record"),
        (_RenewsNothing, "renew returns the keys"),
        (_GetsAPage, "get returns records in the order"),
        (_GetsMore, "one result for each item"),
        (_GetsNothing, "one result for each item"),
        (_PutsMore, "one result for each item"),
        (_ListsEverything, "no more than its limit"),
        (_ListsKeptRecords, "list returns no kept record unless asked"),
        (_TakesTwice, "not taken again"),
        (_TakesTooEarly, "not due"),
        (_TakesTwiceInThreads, "no record is taken twice"),
        (_TakesAnotherOneInThreads, "every due record is taken"),
        (_TakesKeptRecords, "take returns no kept record"),
        (_KeepsTheFence, "a new fence"),
        (_NeverQuarantines, "a poison record is not taken any more"),
        (_CountsTakesAfterAPut, "a record that is put again is not quarantined"),
    ],
)
def test_a_broken_store_fails(broken: type[_Broken], rule: str) -> None:
    shared = MemoryStore()
    with pytest.raises(AssertionError, match=rule):
        check_store(lambda: broken(shared))


class _FailsAtNothing(_Broken):
    """An operation with nothing to do fails: with no items, and a delete of what is not there."""

    fails_at = "delete"

    def delete(self, items: Sequence[tuple[str, str]]) -> None:
        if self.fails_at == "delete" and not items:
            raise StoreError("nothing to do")
        if self.fails_at == "second delete" and items and self.get([key for key, _ in items]) == [None]:
            raise StoreError("nothing to do")
        super().delete(items)


@pytest.mark.parametrize("fails_at", ["delete", "second delete"])
def test_a_store_that_fails_if_there_is_nothing_to_delete_fails(monkeypatch: pytest.MonkeyPatch, fails_at: str) -> None:
    monkeypatch.setattr(_FailsAtNothing, "fails_at", fails_at)
    shared = MemoryStore()
    with pytest.raises(StoreError, match="nothing to do"):
        check_store(lambda: _FailsAtNothing(shared))


class _LazyThread:
    """A thread that works only while it is waited for."""

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._work, self._is_started = partial(target, *args), False

    def start(self) -> None:
        self._is_started = True

    def join(self) -> None:
        assert self._is_started
        self._work()


def test_the_check_waits_ten_seconds_for_each_of_eight_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a store that has nothing for them: each of them takes once in a second, from both clients in turn."""
    seconds = itertools.count()
    takes = Counter[tuple[int, int, int]]()

    class Empty(_Broken):
        def take(self, limit: int, claim_ms: int) -> builtins.list[Stored]:
            if limit == 3:
                takes[id(self), limit, claim_ms] += 1
                return []
            return super().take(limit, claim_ms)

    monkeypatch.setattr(check, "threading", SimpleNamespace(Thread=_LazyThread))
    monkeypatch.setattr(check, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    shared = MemoryStore()
    with pytest.raises(AssertionError, match="every due record is taken"):
        check_store(lambda: Empty(shared))
    assert [(limit, claim_ms, count) for (_, limit, claim_ms), count in takes.items()] == [(3, 600_000, 36)] * 2


def test_the_check_ends_as_soon_as_each_record_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    takes: list[int] = []

    class Noted(_Broken):
        def take(self, limit: int, claim_ms: int) -> builtins.list[Stored]:
            found = super().take(limit, claim_ms)
            takes.extend([len(found)] * (limit == 3))
            return found

    monkeypatch.setattr(check, "threading", SimpleNamespace(Thread=_LazyThread))
    shared = MemoryStore()
    check_store(lambda: Noted(shared))
    assert takes == [3] * 13 + [1]


Lie = Callable[[Any, Sequence[Any], list[Any]], list[Any]]
# What a store may say in place of the truth, for each operation: from the store, the arguments and the true result.
LIES: dict[str, list[Lie]] = {
    "put": [
        lambda store, asked, fences: [None if fence else "0" for fence in fences],
        lambda store, asked, fences: [each.fence for each in asked[0]],
        lambda store, asked, fences: [*fences[:-1], *(None if fence else "0" for fence in fences[-1:])],
        lambda store, asked, fences: fences or ["0"],
    ],
    "get": [
        lambda store, asked, found: [None for _ in found],
        lambda store, asked, found: [each and evolve(each, record=b"{}") for each in found],
        lambda store, asked, found: [each and evolve(each, fence="0") for each in found],
        lambda store, asked, found: [each and evolve(each, kept=None if each.kept else "rejected") for each in found],
        lambda store, asked, found: [each or Stored("0", b"{}", "0", 0) for each in found],
        lambda store, asked, found: found[::-1],
        lambda store, asked, found: [None, *found[1:]],
        lambda store, asked, found: [each and evolve(each, key="0") for each in found],
    ],
    "renew": [
        lambda store, asked, lost: [] if lost else ["0"],
        lambda store, asked, lost: lost[1:],
        lambda store, asked, lost: [*lost, "0"],
    ],
    "take": [
        lambda store, asked, taken: [],
        lambda store, asked, taken: [evolve(each, record=b"{}") for each in taken],
        lambda store, asked, taken: MemoryStore.list(store) + MemoryStore.list(store, kept="quarantined"),
        lambda store, asked, taken: [*taken, *MemoryStore.list(store, kept="rejected")],
    ],
    "list": [
        lambda store, asked, page: page[:-1],
        lambda store, asked, page: page[::-1],
        lambda store, asked, page: [*page, *(evolve(each, key=each.key + "0") for each in page[:1])],
        lambda store, asked, page: [evolve(each, record=b"{}") for each in page],
        lambda store, asked, page: [evolve(each, fence="0") for each in page],
        lambda store, asked, page: [evolve(each, kept=None if each.kept else "rejected") for each in page],
        lambda store, asked, page: [
            *page,
            *MemoryStore.list(store, kept="rejected" if not asked[2:3] else "quarantined"),
        ],
        lambda store, asked, page: page[1:],
    ],
}
# What a store may do in place of what it is asked for: the arguments that it takes for the true ones.
DEEDS: dict[str, list[Callable[..., tuple[Any, ...]]]] = {
    "put": [
        lambda items: ([evolve(each, due_ms=0) for each in items],),
        lambda items: ([evolve(each, kept=None) for each in items],),
        lambda items: ([evolve(each, record=each.record.strip()) for each in items],),
        lambda items: ([evolve(each, fence=None) for each in items],),
        lambda items: ([evolve(each, record=b"{}") for each in items],),
    ],
    "take": [lambda limit, claim_ms: (limit, 0), lambda limit, claim_ms: (limit, 600_000)],
    "renew": [lambda items, claim_ms: (items, 0), lambda items, claim_ms: (items, 600_000)],
    "delete": [lambda items: (items[1:],)],
    "list": [
        lambda after="", limit=1_000, kept=None: (after, 1_000, kept),
        lambda after="", limit=1_000, kept=None: (after, limit),
    ],
}


class _Wrong:
    """One operation of a run that goes wrong: its number, counted from 1, and the lie or the deed."""

    def __init__(
        self, number: int, operation: str, lie: Lie | None, deed: Callable[..., tuple[Any, ...]] | None
    ) -> None:
        self._left, self._operation, self._lie, self._deed = number, operation, lie, deed

    @property
    def has_happened(self) -> bool:
        return self._left <= 0

    def result(self, store: _Liar, operation: str, ask: Callable[..., Any], asked: Sequence[Any]) -> Any:
        # Only in the main thread: the order of threads is not fixed.
        if operation == self._operation and threading.current_thread() is threading.main_thread():
            self._left -= 1
            if self._left == 0:
                result = ask(*(asked if self._deed is None else self._deed(*asked)))
                return result if self._lie is None else self._lie(store, asked, result)
        return ask(*asked)


class _NotFoundError(Exception):
    pass


class _Liar(_Broken):
    """A store of which one operation goes wrong."""

    def __init__(self, shared: MemoryStore, wrong: _Wrong) -> None:
        super().__init__(shared)
        for operation in ("put", "get", "take", "renew", "delete", "list"):
            setattr(self, operation, partial(self._say, wrong, operation, getattr(self, operation)))

    def _say(self, wrong: _Wrong, operation: str, ask: Callable[..., Any], *asked: Any) -> Any:
        return wrong.result(self, operation, ask, asked)


def rules_that_find(operation: str, lie: Lie | None, deed: Callable[..., tuple[Any, ...]] | None) -> Counter[str]:
    """Return the rules that stores break whose first, second and each further such operation goes wrong."""
    found = Counter[str]()
    for number in range(1, 200):
        wrong, shared = _Wrong(number, operation, lie, deed), MemoryStore()

        def make() -> _Liar:
            if wrong.has_happened:  # noqa: B023 - it is called in this run only
                raise _NotFoundError  # the checks that follow have other records
            return _Liar(shared, wrong)  # noqa: B023

        try:
            check_store(make)
        except _NotFoundError:
            pass
        except AssertionError as error:
            before, _, rest = str(error).partition(": ")
            rule, _, after = rest.rpartition("; ")
            assert (before, after) == ("the store breaks a rule", "see docs/fleets.md#your-own-store")
            found[rule] += 1
        if not wrong.has_happened:
            return found
    raise AssertionError("a check makes more than 200 such operations")


def test_a_store_that_is_wrong_once_breaks_the_rule_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not found is what matters to no check: a clean-up, and records of other checks."""
    numbers = itertools.count()  # what a page is without its last record depends on the order of keys
    monkeypatch.setattr(check, "secrets", SimpleNamespace(token_bytes=lambda size: next(numbers).to_bytes(size)))
    found = Counter[str]()
    for operation, lies in LIES.items():
        for lie in lies:
            found += rules_that_find(operation, lie, None)
    for operation, deeds in DEEDS.items():
        for deed in deeds:
            found += rules_that_find(operation, None, deed)
    assert found == {
        "put returns a fence if it has saved the record": 102,
        "get returns the bytes of a record unchanged": 5,
        "get returns the fence of the put": 2,
        "put returns None if the store has a record": 2,
        "a put that returns None changes nothing": 5,
        "the first item of a put with one key twice is saved": 8,
        "put of nothing returns nothing": 1,
        "each put returns a new fence": 1,
        "put returns None for another fence, and for a record that does not exist": 4,
        "a put that fails changes nothing": 5,
        "a put over the fence of a deleted record changes nothing": 6,
        "a put over an old fence changes no new record of the same bytes": 3,
        "a put of the same bytes returns a new fence": 1,
        "a late put changes nothing": 5,
        "get returns None for a key without a record": 2,
        "get returns records in the order of its keys": 2,
        "get returns the fences of the puts": 4,
        "get of nothing returns nothing": 1,
        "delete with another fence deletes nothing": 4,
        "delete with the fence of a record deletes it": 2,
        "renew returns the keys that this client has no longer": 3,
        "renew of nothing returns nothing": 2,
        "renew changes no fence": 3,
        "take returns no kept record": 4,
        "list returns no kept record unless asked": 1,
        "list returns the records that are kept": 10,
        "list returns one kind of them": 5,
        "get returns kept records": 14,
        "a kept record is put back over its fence": 3,
        "list returns no more than its limit": 6,
        "list returns records in the order of their keys": 5,
        "the pages of list have each record once": 4,
        "take returns a record that is due": 1,
        "take returns no record that is not due": 2,
        "take returns the record and a new fence": 3,
        "a record that is taken is not taken again before it is due": 2,
        "a put over the fence before the take changes nothing": 3,
        "renew returns what another client has taken": 3,
        "take returns the latest bytes": 3,
        "renew returns nothing for an own record": 2,
        "a renewed record is not due": 2,
        "a renewal for 0 ms makes a record due": 2,
        "a poison record is not taken any more": 2,
        "a poison record is quarantined": 14,
    }
