"""`check_store`: the tests that every journal store must pass, also yours."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from attrs import evolve

from cycles._journal.store import (
    POISON_CLAIMS,
    JournalStore,
    Kept,
    OperatedStore,
    Put,
    SettledStore,
    StoreFactory,
)

_LONG_MS: Final = 600_000
_CLAIMERS: Final = 8
_RECORDS: Final = 40
# What a store must return unchanged: a member order, escapes, quotes, a backslash, a blank at the end.
_RECORD: Final = rb'{"version":1,"b":"\u00e9 \"quoted\" C:\\temp {},","a":[1,2.50]} '


def check_store(make_store: StoreFactory, *, exclusive_claims: bool = True) -> list[str]:
    """Run every check on a store, and return their names.

    Args:
        make_store: Returns a client of one store, which is empty at first: all of them share its records.
        exclusive_claims: False if claims hold within one process only, as those of files: the checks of due times,
            fences of other clients and poison records do not apply then.

    Raises:
        AssertionError: the store breaks a rule. The message says which one.
    """
    passed = []
    for check, needs_claims in _CHECKS:
        if exclusive_claims or not needs_claims:
            with contextlib.closing(make_store()) as store, contextlib.closing(make_store()) as other:
                check(store, other)
            passed.append(check.__name__)
    return passed


def _keys(count: int) -> list[str]:
    """Return new keys: 64 hex digits each."""
    return [hashlib.sha256(secrets.token_bytes(16)).hexdigest() for _ in range(count)]


def _expect(holds: bool, rule: str) -> None:
    if not holds:
        raise AssertionError(f"the store breaks a rule: {rule}; see docs/fleets.md#your-own-store")


def _mine(store: JournalStore, *keys: str) -> dict[str, bytes]:
    return {stored.key: stored.record for stored in store.list(10_000) if stored.key in keys}


@contextlib.contextmanager
def _settled(store: JournalStore, *keys: str) -> Iterator[None]:
    """Delete the records of a check at its end."""
    yield
    store.settle(keys)
    if isinstance(store, OperatedStore):
        for key in keys:
            store.discard(key)


def bytes_are_returned_unchanged(store: JournalStore, other: JournalStore) -> None:
    """A record is the same bytes in `list` of another client."""
    (key,) = _keys(1)
    with _settled(store, key):
        _expect(store.put([Put(key, _RECORD, None, _LONG_MS)]) == [True], "put returns True for a new record")
        _expect(_mine(other, key) == {key: _RECORD}, "list returns the bytes of a record unchanged")


def a_put_replaces(store: JournalStore, other: JournalStore) -> None:
    """A put without a fence replaces the record, and a batch may have a key twice."""
    (key,) = _keys(1)
    with _settled(store, key):
        store.put([Put(key, b'{"n":1}', None, _LONG_MS), Put(key, b'{"n":2}', None, _LONG_MS)])
        _expect(_mine(store, key) == {key: b'{"n":2}'}, "the last put of a batch counts")
        _expect(
            store.put([Put(key, b'{"n":3}', 0, _LONG_MS)]) == [True], "a put with the fence 0 replaces a new record"
        )
        _expect(_mine(store, key) == {key: b'{"n":3}'}, "a put with the right fence replaces the record")


def a_wrong_fence_is_rejected(store: JournalStore, other: JournalStore) -> None:
    """A put with a fence needs a record with that fence."""
    known, unknown = _keys(2)
    with _settled(store, known):
        store.put([Put(known, _RECORD, None, _LONG_MS)])
        results = store.put([Put(known, b"{}", 7, _LONG_MS), Put(unknown, b"{}", 0, _LONG_MS)])
        _expect(results == [False, False], "put returns False for another fence and for a record that does not exist")
        _expect(_mine(store, known, unknown) == {known: _RECORD}, "a put that returns False changes nothing")


def settling_twice_is_harmless(store: JournalStore, other: JournalStore) -> None:
    """`settle` deletes, and ignores unknown keys."""
    first, second = _keys(2)
    store.put([Put(first, _RECORD, None, _LONG_MS), Put(second, _RECORD, None, _LONG_MS)])
    store.settle([first, second])
    other.settle([first, second])
    store.settle([])
    _expect(_mine(store, first, second) == {}, "settle deletes records")


def renewing_returns_what_is_missing(store: JournalStore, other: JournalStore) -> None:
    """`renew` returns the keys that no longer exist."""
    known, missing = _keys(2)
    with _settled(store, known):
        store.put([Put(known, _RECORD, None, _LONG_MS)])
        _expect(store.renew([known, missing], _LONG_MS) == [missing], "renew returns the keys that do not exist")
        _expect(store.renew([], _LONG_MS) == [], "renew of no key returns nothing")


def kept_records_are_not_claimed(store: JournalStore, other: JournalStore) -> None:
    """Quarantined and rejected records are in neither `claim` nor `list`."""
    bad, rejected, unknown = _keys(3)
    with _settled(store, bad, rejected):
        store.put([Put(bad, _RECORD), Put(rejected, _RECORD)])
        store.quarantine(bad, "no record of a known version")
        store.reject(rejected, "may_be_charged")
        store.quarantine(unknown, "it does not exist")
        claimed = {each.key for each in other.claim(1000, _LONG_MS)}
        _expect(not claimed & {bad, rejected}, "claim returns no quarantined and no rejected record")
        _expect(_mine(store, bad, rejected) == {}, "list returns no quarantined and no rejected record")
        store.settle([bad, rejected])
        if isinstance(store, OperatedStore):
            kept = {each.key: (each.state, each.reason, each.record) for each in store.kept()}
            _expect(kept.get(bad, ("",))[0] == "quarantined", "kept returns quarantined records")
            _expect(kept.get(rejected) == ("rejected", "may_be_charged", _RECORD), "kept returns rejected records")
            _expect(store.restore(rejected), "restore returns True for a kept record")
            _expect(not store.restore(unknown), "restore returns False for a record that is not kept")
            _expect(rejected in {each.key for each in other.claim(1000, _LONG_MS)}, "a restored record is claimed")


def settled_records_are_kept_for_a_time(store: JournalStore, other: JournalStore) -> None:
    """A rejected record that an operator has settled stays until `remove_settled` deletes it."""
    old, recent, pending = _keys(3)
    with _settled(store, old, recent, pending):
        if not isinstance(store, SettledStore) or not isinstance(other, SettledStore):
            return  # a store need not have this
        store.put([Put(pending, _RECORD, None, _LONG_MS)])
        given = [Kept(key, _RECORD, "BUDGET_FROZEN", "rejected", 0, at_ms) for key, at_ms in ((old, 5), (recent, 6))]
        _expect([store.keep_settled(each) for each in given] == [True, True], "keep_settled returns True")
        _expect(not store.keep_settled(evolve(given[0], key=pending)), "keep_settled leaves another record unchanged")
        _expect(not store.keep_settled(given[0]), "keep_settled returns False for a record that is kept already")
        _expect(set(_mine(other, old, recent, pending)) == {pending}, "list returns no settled record")
        claimed = {each.key for each in other.claim(1000, _LONG_MS)}
        _expect(not claimed & {old, recent}, "claim returns no settled record")
        other.remove_settled(6)
        if isinstance(store, OperatedStore):
            kept = [each for each in store.kept() if each.key in (old, recent)]
            _expect(kept == given[1:], "remove_settled deletes what was settled before a time, and nothing else")


def a_claim_returns_due_records_once(store: JournalStore, other: JournalStore) -> None:
    """Only due records are claimed, each by one client, with a growing fence."""
    due, later = _keys(2)
    with _settled(store, due, later):
        store.put([Put(due, _RECORD), Put(later, _RECORD, None, _LONG_MS)])
        claimed = {each.key: each for each in other.claim(1000, _LONG_MS)}
        _expect(due in claimed, "claim returns a record that is due")
        _expect(later not in claimed, "claim returns no record that is not due")
        _expect((claimed[due].record, claimed[due].fence) == (_RECORD, 1), "the first claim has the fence 1")
        _expect(due not in {each.key for each in store.claim(1000, _LONG_MS)}, "a claimed record is not claimed again")
        _expect(store.put([Put(due, b"{}", 0)]) == [False], "a claim makes the fence of the owner before it stale")
        _expect(other.put([Put(due, b'{"n":2}', 1)]) == [True], "the fence of the claim is valid")
        again = {each.key: each for each in store.claim(1000, _LONG_MS)}
        _expect(due in again and again[due].fence == 2, "the fence grows with each claim")
        _expect(again[due].record == b'{"n":2}', "a claim returns the latest bytes")


def a_renewed_record_is_not_claimed(store: JournalStore, other: JournalStore) -> None:
    """`renew` moves the due time."""
    (key,) = _keys(1)
    with _settled(store, key):
        store.put([Put(key, _RECORD)])
        _expect(store.renew([key], _LONG_MS) == [], "renew returns nothing for a record that exists")
        _expect(key not in {each.key for each in other.claim(1000, _LONG_MS)}, "a renewed record is not due")
        store.renew([key], 0)
        _expect(key in {each.key for each in other.claim(1000, _LONG_MS)}, "a renewal for 0 ms makes a record due")


def eight_claimers_get_each_record_once(store: JournalStore, other: JournalStore) -> None:
    """Claims of several threads over two clients never overlap."""
    keys = _keys(_RECORDS)
    with _settled(store, *keys):
        store.put([Put(key, _RECORD) for key in keys])
        claimed: list[str] = []

        def work(client: JournalStore) -> None:
            end = time.monotonic() + 10.0
            while len(claimed) < _RECORDS and time.monotonic() < end:
                claimed.extend(each.key for each in client.claim(3, _LONG_MS))

        threads = [threading.Thread(target=work, args=((store, other)[n % 2],)) for n in range(_CLAIMERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = [key for key in claimed if key in keys]
        _expect(len(found) == len(set(found)), "no record is claimed twice")
        _expect(set(found) == set(keys), "every due record is claimed")


def a_record_that_is_claimed_again_and_again_is_quarantined(store: JournalStore, other: JournalStore) -> None:
    """Claims without the end of an attempt are counted; a put with the fence resets the count."""
    poison, healthy = _keys(2)
    with _settled(store, poison, healthy):
        store.put([Put(poison, _RECORD), Put(healthy, _RECORD)])
        for number in range(1, POISON_CLAIMS + 3):
            for each in store.claim(1000, 0):
                _expect(each.key != poison or number <= POISON_CLAIMS, "a poison record is not claimed any more")
                if each.key == healthy:
                    _expect(store.put([Put(healthy, _RECORD, each.fence)]) == [True], "the claimer puts it again")
        _expect(healthy in _mine(store, healthy), "a record whose attempts end is not quarantined")
        _expect(poison not in _mine(store, poison), "a poison record is quarantined")


_CHECKS: Final[tuple[tuple[Callable[[JournalStore, JournalStore], None], bool], ...]] = (
    (bytes_are_returned_unchanged, False),
    (a_put_replaces, False),
    (a_wrong_fence_is_rejected, False),
    (settling_twice_is_harmless, False),
    (renewing_returns_what_is_missing, False),
    (kept_records_are_not_claimed, False),
    (settled_records_are_kept_for_a_time, False),
    (a_claim_returns_due_records_once, True),
    (a_renewed_record_is_not_claimed, True),
    (eight_claimers_get_each_record_once, True),
    (a_record_that_is_claimed_again_and_again_is_quarantined, True),
)
