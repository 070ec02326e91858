"""Faults that are planted in the journal of a fleet, to show that its simulation finds them.

Each one replaces a method of the real code. `python -m tests.simulation.fleet_planted` prints after how many seeds
each is found.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from unittest import mock

from attrs import evolve

from cycles._core.settlement.record import Record
from cycles._errors import StoreError
from cycles._journal.stores.health import StoreHealth
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.shared import StoreJournal
from cycles._journal.stores.store import Put
from tests.simulation import fleet

MOST_SEEDS: Final = 3_000


def claims_right_after_an_outage() -> Any:
    """Due records are claimed before their owners could renew them."""
    return mock.patch.object(StoreHealth, "may_claim", True)


def puts_nothing_again() -> Any:
    """A record that the store lost is not put again."""
    renew = StoreJournal._renew

    def without_missing(self: StoreJournal, claim_ms: int) -> None:
        put, self._put = self._put, lambda *args: True  # type: ignore[method-assign]
        try:
            renew(self, claim_ms)
        finally:
            self._put = put  # type: ignore[method-assign]

    return mock.patch.object(StoreJournal, "_renew", without_missing)


def ignores_fences() -> Any:
    """A stale owner overwrites the record of the worker that has claimed it."""
    put = MemoryStore.put

    def unfenced(self: MemoryStore, items: Sequence[Put]) -> list[str | None]:
        fences = [None if each is None else each.fence for each in self.get([item.key for item in items])]
        return put(self, [evolve(item, fence=fence) for item, fence in zip(items, fences, strict=True)])

    return mock.patch.object(MemoryStore, "put", unfenced)


def settles_before_the_response() -> Any:
    """The record is deleted when it was sent, not when the outcome is known."""
    send = fleet.Worker._settle

    def settle(self: fleet.Worker, record: Record, *, is_saved: bool) -> Iterator[None]:
        for number, _ in enumerate(send(self, record, is_saved=is_saved)):
            if number == 1:
                self.journal.delete(record)
                self.journal.settle_finished()
                return
            yield

    return mock.patch.object(fleet.Worker, "_settle", settle)


def leaves_files_behind() -> Any:
    """Files of an outage are not moved into the store, nor deleted when their amount is settled."""
    return mock.patch.object(fleet.Disk, "delete", return_value=None)


def claims_only_at_its_start() -> Any:
    """A worker takes over nothing, so that the records of dead ones stay in the store."""
    return mock.patch.object(StoreJournal, "claim", return_value=[])


def loses_records_in_an_outage() -> Any:
    """While the store does not respond, nothing is saved elsewhere."""

    def nowhere(self: StoreJournal, *_: Any) -> bool:
        return True

    return mock.patch.object(StoreJournal, "_put_elsewhere", nowhere)


def sends_events_while_the_store_has_their_commits() -> Any:
    """An event that the store did not take is sent."""
    return mock.patch.object(StoreJournal, "keeps_commit", return_value=False)


def counts_no_claims_back() -> Any:
    """The end of an attempt does not reset the count of claims: a healthy record is quarantined as poison."""
    put = MemoryStore._put

    def counting(self: MemoryStore, item: Put) -> str | None:
        row = self._row(item.key)
        takes = 9 if row is None or row.takes == 0 else row.takes
        fence = put(self, item)
        after = self._row(item.key)
        if fence is not None and after is not None:
            after.takes = takes
        return fence

    return mock.patch.object(MemoryStore, "_put", counting)


PLANTED: Final[tuple[Callable[[], Any], ...]] = (
    claims_right_after_an_outage,
    puts_nothing_again,
    ignores_fences,
    settles_before_the_response,
    leaves_files_behind,
    claims_only_at_its_start,
    loses_records_in_an_outage,
    sends_events_while_the_store_has_their_commits,
    counts_no_claims_back,
)


def seeds_until_found(plant: Callable[[], Any], most: int = MOST_SEEDS) -> int | None:
    """Return how many seeds it takes to find a planted fault, or None if none of `most` finds it."""
    with plant():
        for seed in range(most):
            try:
                if fleet.run(seed) is not None:
                    return seed + 1
            except (AssertionError, KeyError, StoreError):
                return seed + 1
    return None


def main() -> int:
    """Print after how many seeds each fault is found. Return 1 if one is not found."""
    missed = 0
    for plant in PLANTED:
        seeds = seeds_until_found(plant)
        missed += seeds is None
        print(f"{plant.__name__:40} {'not found' if seeds is None else f'found by seed {seeds - 1}'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
