"""`check_store`: the tests that every journal store must pass, also yours. Each line of the protocol has one."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

from cycles._journal.stores.store import POISON_TAKES, JournalStore, KeptState, Put, Stored, StoreFactory, pages

_LONG_MS: Final = 600_000
_TAKERS: Final = 8
_RECORDS: Final = 40
_PAGE: Final = 7
# What a store must return unchanged: a member order, escapes, quotes, a backslash, a blank at the end.
_RECORD: Final = rb'{"version":1,"b":"\u00e9 \"quoted\" C:\\temp {},","a":[1,2.50]} '
_OTHER: Final = b'{"n":2}'


def check_store(make_store: StoreFactory, *, exclusive_claims: bool = True) -> list[str]:
    """Run every check on a store, and return their names.

    Args:
        make_store: Returns a client of one store, which is empty at first: all of them share its records.
        exclusive_claims: False if claims hold within one process only, as those of files: the checks of due times and
            poison records do not apply then.

    Raises:
        AssertionError: the store breaks a rule. The message says which one.
    """
    passed = []
    for check, needs_claims in _CHECKS:
        if exclusive_claims or not needs_claims:
            keys = [hashlib.sha256(secrets.token_bytes(16)).hexdigest() for _ in range(_RECORDS)]
            with contextlib.closing(make_store()) as store, contextlib.closing(make_store()) as other:
                try:
                    check(store, other, keys)
                except (ValueError, IndexError) as error:
                    _expect(False, f"put and get return one result for each item, and raise StoreError only ({error})")
                store.delete([(found.key, found.fence) for found in store.get(keys) if found is not None])
            passed.append(check.__name__)
    return passed


def _expect(holds: bool, rule: str) -> None:
    if not holds:
        raise AssertionError(f"the store breaks a rule: {rule}; see docs/fleets.md#your-own-store")


def _put(store: JournalStore, key: str, record: bytes = _RECORD, fence: str | None = None, **more: object) -> str:
    """Put a record, and return its new fence."""
    (new,) = store.put([Put(key, record, fence, **{"due_ms": _LONG_MS, **more})])  # type: ignore[arg-type]
    _expect(new is not None, "put returns a fence if it has saved the record")
    return str(new)


def _get(store: JournalStore, key: str) -> Stored | None:
    (found,) = store.get([key])
    return found


def _record(store: JournalStore, key: str) -> bytes | None:
    found = _get(store, key)
    return None if found is None else found.record


def _taken(store: JournalStore, claim_ms: int = _LONG_MS) -> dict[str, Stored]:
    return {each.key: each for each in store.take(1_000, claim_ms)}


def bytes_are_returned_unchanged(store: JournalStore, other: JournalStore, keys: list[str]) -> None:
    """Another client gets the same bytes."""
    key = keys[0]
    fence = _put(store, key)
    found = _get(other, key)
    _expect(found is not None and found.record == _RECORD, "get returns the bytes of a record unchanged")
    _expect(found is not None and (found.fence, found.kept) == (fence, None), "get returns the fence of the put")


def a_put_without_a_fence_saves_new_records_only(store: JournalStore, other: JournalStore, keys: list[str]) -> None:
    """None is the fence of a key without a record; the items of one put are carried out in their order."""
    key, twice = keys[:2]
    _put(store, key)
    _expect(other.put([Put(key, _OTHER, None, _LONG_MS)]) == [None], "put returns None if the store has a record")
    _expect(_record(store, key) == _RECORD, "a put that returns None changes nothing")
    first, second = store.put([Put(twice, _RECORD, None, _LONG_MS), Put(twice, _OTHER, None, _LONG_MS)])
    _expect(first is not None and second is None, "the first item of a put with one key twice is saved")
    _expect(_record(store, twice) == _RECORD, "the first item of a put with one key twice is saved")
    _expect(store.put([]) == [], "put of nothing returns nothing")


def a_put_replaces_the_record_of_its_fence_only(store: JournalStore, other: JournalStore, keys: list[str]) -> None:
    """A put compares and sets: one over an earlier fence changes nothing."""
    known, unknown = keys[:2]
    first = _put(store, known)
    second = _put(store, known, _OTHER, first)
    _expect(second != first, "each put returns a new fence")
    results = other.put([Put(known, _RECORD, first, _LONG_MS), Put(unknown, _RECORD, first, _LONG_MS)])
    _expect(results == [None, None], "put returns None for another fence, and for a record that does not exist")
    _expect((_record(store, known), _record(store, unknown)) == (_OTHER, None), "a put that fails changes nothing")


def a_put_that_arrives_late_changes_nothing(store: JournalStore, other: JournalStore, keys: list[str]) -> None:
    """A fence is never used twice: not after a delete, and not if the same bytes are put again."""
    key = keys[0]
    late = Put(key, _OTHER, _put(store, key), _LONG_MS)
    store.delete([(key, str(late.fence))])
    _expect(other.put([late]) == [None], "a put over the fence of a deleted record changes nothing")
    _expect(_record(store, key) is None, "a put over the fence of a deleted record changes nothing")
    again = _put(store, key)
    _expect(again != late.fence, "a fence is not used again after a delete")
    _expect(other.put([late]) == [None], "a put over an old fence changes no new record of the same bytes")
    same = _put(store, key, _RECORD, again)
    _expect(same not in (again, late.fence), "a put of the same bytes returns a new fence")
    _expect(_record(store, key) == _RECORD, "a late put changes nothing")


def getting_returns_all_that_is_asked_for(store: JournalStore, other: JournalStore, keys: list[str]) -> None:
    """`get` returns one result for each key, in their order, however many records there are."""
    unknown, *keys = keys
    fences = store.put([Put(key, key.encode().join((b'{"k":"', b'"}')), None, _LONG_MS) for key in keys])
    found = other.get([unknown, *reversed(keys)])
    _expect(found[0] is None, "get returns None for a key without a record")
    _expect([each and each.key for each in found[1:]] == keys[::-1], "get returns records in the order of its keys")
    _expect([each and each.fence for each in found[1:]] == fences[::-1], "get returns the fences of the puts")
    _expect(store.get([]) == [], "get of nothing returns nothing")


def deleting_needs_the_fence(store: JournalStore, other: JournalStore, keys: list[str]) -> None:
    """`delete` of another fence, and of no record, does nothing."""
    key, unknown = keys[:2]
    first = _put(store, key)
    second = _put(store, key, _OTHER, first)
    other.delete([(key, first), (unknown, first)])
    _expect(_record(store, key) == _OTHER, "delete with another fence deletes nothing")
    other.delete([(key, second)])
    other.delete([(key, second)])
    other.delete([])
    _expect(_record(store, key) is None, "delete with the fence of a record deletes it")


def renewing_returns_what_is_lost(store: JournalStore, other: JournalStore, keys: list[str]) -> None:
    """`renew` returns the keys of which another client has changed the fence, and those without a record."""
    own, changed, missing = keys[:3]
    fence, first = _put(store, own), _put(store, changed)
    _put(other, changed, _OTHER, first)
    lost = store.renew([(own, fence), (changed, first), (missing, fence)], _LONG_MS)
    _expect(sorted(lost) == sorted([changed, missing]), "renew returns the keys that this client has no longer")
    _expect(store.renew([], _LONG_MS) == [], "renew of nothing returns nothing")
    found = _get(store, own)
    _expect(found is not None and found.fence == fence, "renew changes no fence")


def kept_records_are_listed_and_never_taken(store: JournalStore, other: JournalStore, keys: list[str]) -> None:
    """A rejected or quarantined record is in its own list, is found by its key, and can be put back."""
    rejected, bad = keys[:2]
    both: tuple[tuple[str, KeptState], ...] = ((rejected, "rejected"), (bad, "quarantined"))
    fences = {key: _put(store, key, _OTHER, None, due_ms=0, kept=kept) for key, kept in both}
    _expect(not _taken(other).keys() & fences.keys(), "take returns no kept record")
    _expect(not {each.key for each in pages(other)} & fences.keys(), "list returns no kept record unless asked")
    for key, kept in both:
        found = {each.key: each for each in pages(other, kept)}
        _expect(key in found and found[key].record == _OTHER, "list returns the records that are kept")
        _expect(found[key].kept == kept and found.keys() & fences.keys() == {key}, "list returns one kind of them")
        _expect(_get(other, key) == found[key], "get returns kept records")
        _put(other, key, _OTHER, found[key].fence, due_ms=0)
        _expect(key in {each.key for each in pages(store)}, "a kept record is put back over its fence")


def a_list_is_read_in_pages(store: JournalStore, other: JournalStore, keys: list[str]) -> None:
    """`list` returns the records in the order of their keys, at most `limit` of them, after a key."""
    keys = sorted(keys[: 3 * _PAGE + 2])
    store.put([Put(key, _OTHER, None, _LONG_MS) for key in keys])
    found: list[str] = []
    while page := other.list(found[-1] if found else "", _PAGE, None):
        _expect(len(page) <= _PAGE, "list returns no more than its limit")
        found += [each.key for each in page]
    _expect(found == sorted(found), "list returns records in the order of their keys")
    _expect([key for key in found if key in keys] == keys, "the pages of list have each record once")


def a_take_returns_due_records_with_a_new_fence(store: JournalStore, other: JournalStore, keys: list[str]) -> None:
    """Only due records are taken, and the owner before cannot change them any more."""
    due, later = keys[:2]
    first = _put(store, due, due_ms=0)
    _put(store, later)
    taken = _taken(other)
    _expect(due in taken, "take returns a record that is due")
    _expect(later not in taken, "take returns no record that is not due")
    _expect(taken[due].record == _RECORD and taken[due].fence != first, "take returns the record and a new fence")
    _expect(due not in _taken(store), "a record that is taken is not taken again before it is due")
    _expect(store.put([Put(due, _OTHER, first)]) == [None], "a put over the fence before the take changes nothing")
    _expect(store.renew([(due, first)], _LONG_MS) == [due], "renew returns what another client has taken")
    store.delete([(due, first)])
    _put(other, due, _OTHER, taken[due].fence, due_ms=0)
    again = _taken(store)
    _expect(due in again and again[due].record == _OTHER, "take returns the latest bytes")


def a_renewed_record_is_not_taken(store: JournalStore, other: JournalStore, keys: list[str]) -> None:
    """`renew` moves the due time."""
    key = keys[0]
    fence = _put(store, key, due_ms=0)
    _expect(store.renew([(key, fence)], _LONG_MS) == [], "renew returns nothing for an own record")
    _expect(key not in _taken(other), "a renewed record is not due")
    store.renew([(key, fence)], 0)
    _expect(key in _taken(other), "a renewal for 0 ms makes a record due")


def eight_takers_get_each_record_once(store: JournalStore, other: JournalStore, keys: list[str]) -> None:
    """Takes of several threads over two clients never overlap."""
    store.put([Put(key, _RECORD) for key in keys])
    taken: list[str] = []

    def work(client: JournalStore) -> None:
        end = time.monotonic() + 10.0
        while len(taken) < _RECORDS and time.monotonic() < end:
            taken.extend(each.key for each in client.take(3, _LONG_MS))

    threads = [threading.Thread(target=work, args=((store, other)[n % 2],)) for n in range(_TAKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [key for key in taken if key in keys]
    _expect(len(found) == len(set(found)), "no record is taken twice")
    _expect(set(found) == set(keys), "every due record is taken")


def a_record_that_is_taken_again_and_again_is_quarantined(
    store: JournalStore, other: JournalStore, keys: list[str]
) -> None:
    """Takes without a put are counted; a put counts from 0 again."""
    poison, healthy = keys[:2]
    _put(store, poison, due_ms=0)
    _put(store, healthy, due_ms=0)
    for number in range(1, POISON_TAKES + 3):
        for key, each in _taken(store, 0).items():
            _expect(key != poison or number <= POISON_TAKES, "a poison record is not taken any more")
            if key == healthy:
                _put(store, healthy, _RECORD, each.fence, due_ms=0)
    states = [found and found.kept for found in other.get([poison, healthy])]
    _expect(states[0] == "quarantined", "a poison record is quarantined")
    _expect(states[1] is None, "a record that is put again is not quarantined")


_CHECKS: Final[tuple[tuple[Callable[[JournalStore, JournalStore, list[str]], None], bool], ...]] = (
    (bytes_are_returned_unchanged, False),
    (a_put_without_a_fence_saves_new_records_only, False),
    (a_put_replaces_the_record_of_its_fence_only, False),
    (a_put_that_arrives_late_changes_nothing, False),
    (getting_returns_all_that_is_asked_for, False),
    (deleting_needs_the_fence, False),
    (renewing_returns_what_is_lost, False),
    (kept_records_are_listed_and_never_taken, False),
    (a_list_is_read_in_pages, False),
    (a_take_returns_due_records_with_a_new_fence, True),
    (a_renewed_record_is_not_taken, True),
    (eight_takers_get_each_record_once, True),
    (a_record_that_is_taken_again_and_again_is_quarantined, True),
)
