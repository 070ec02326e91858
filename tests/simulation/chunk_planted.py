"""Faults that are planted in the rules for chunks that several workers know, one for each rule of `stores/shared.py`.

Each one replaces a part of the real code. `python -m tests.simulation.chunk_planted` prints after how many seeds each
is found.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Final
from unittest import mock

from attrs import evolve

from cycles._core.settlement import late, rules
from cycles._core.settlement.record import Record
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.shared import StoreJournal
from cycles._journal.stores.store import Put, Stored
from tests.simulation import chunk_fleet

MOST_SEEDS: Final = 6_000


def believes_the_error_of_a_commit() -> Any:
    """Rule 1: a commit that is rejected as another request is not compared with the reservation."""
    return mock.patch.object(rules, "guards_of", return_value=None)


def puts_over_any_fence() -> Any:
    """Rule 2: a stale client replaces the record of the client that has taken it, and sends its own form."""
    put = MemoryStore.put

    def unfenced(self: MemoryStore, items: Sequence[Put]) -> list[str | None]:
        fences = [None if each is None else each.fence for each in self.get([item.key for item in items])]
        return put(self, [evolve(item, fence=fence) for item, fence in zip(items, fences, strict=True)])

    return mock.patch.object(MemoryStore, "put", unfenced)


def names_no_sum_in_the_key() -> Any:
    """Rule 3: what is late of a chunk has one key, also if it counts from different sums."""

    return mock.patch.object(late, "late_key", lambda key, committed: f"{key.partition(':')[0]}:late")


def deletes_what_is_settled() -> Any:
    """Rule 4: the record of a settled chunk is deleted, so that a late put brings an earlier sum back."""
    delete = StoreJournal.delete

    def deleting(self: StoreJournal, record: Record) -> None:
        for held in self._held.values():
            held.is_shared = False
        delete(self, record)

    return mock.patch.object(StoreJournal, "delete", deleting)


def settles_its_own_open_chunk() -> Any:
    """Rule 5: a client that takes the record of its open chunk settles it."""
    claim = StoreJournal._claim

    def claiming(self: StoreJournal, taken: Stored) -> bool:
        self._open.clear()
        return claim(self, taken)

    return mock.patch.object(StoreJournal, "_claim", claiming)


def looks_after_no_taken_record() -> Any:
    """Rule 6: a chunk that another client has taken, and that the store has lost, is not put again."""
    return mock.patch.object(StoreJournal, "_watch", return_value=None)


PLANTED: Final[tuple[Callable[[], Any], ...]] = (
    believes_the_error_of_a_commit,
    puts_over_any_fence,
    names_no_sum_in_the_key,
    deletes_what_is_settled,
    settles_its_own_open_chunk,
    looks_after_no_taken_record,
)


def seeds_until_found(plant: Callable[[], Any], most: int = MOST_SEEDS) -> int | None:
    """Return how many seeds it takes to find a planted fault, or None if none of `most` finds it."""
    with plant():
        return next((seed + 1 for seed in range(most) if chunk_fleet.run(seed) is not None), None)


def main() -> int:
    """Print after how many seeds each fault is found. Return 1 if one is not found."""
    missed = 0
    for plant in PLANTED:
        seeds = seeds_until_found(plant)
        missed += seeds is None
        print(f"{plant.__name__:40} {'not found' if seeds is None else f'found by seed {seeds - 1}'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
