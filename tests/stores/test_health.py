"""Pauses between attempts at a store that is down."""

from __future__ import annotations

from cycles._errors import StoreError
from cycles._journal.journal import JournalIssue
from cycles._journal.stores.health import StoreHealth


class Store:
    """The health of a store, its time, and what was reported."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.reports: list[JournalIssue] = []
        self.health = StoreHealth(claim_ms=1_000, outage="disk", report=self.reports.append, clock=lambda: self.now_s)

    def pauses_s(self, failures: int) -> list[float]:
        """Return the pauses after failures of which each follows the pause before it."""
        found = []
        for _ in range(failures):
            self.health.failed(StoreError("it is down"))
            began_s = self.now_s
            while self.health.is_open:
                self.now_s += 0.5
            found.append(self.now_s - began_s)
        return found


def test_the_pause_doubles_up_to_half_a_minute_and_a_success_ends_it() -> None:
    store = Store()
    assert not store.health.is_open
    assert store.pauses_s(7) == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert len(store.reports) == 1
    store.health.succeeded()
    assert not store.health.is_open
    assert store.pauses_s(2) == [1.0, 2.0]
    assert len(store.reports) == 2


def test_attempts_that_were_on_their_way_do_not_make_the_pause_longer() -> None:
    store = Store()
    for _ in range(10):
        store.health.failed(StoreError("it is down"))
    store.now_s = 100.5
    assert store.health.is_open
    store.now_s = 101.0
    assert not store.health.is_open


def test_nothing_is_claimed_for_one_claim_after_the_first_success() -> None:
    """The owners of what became due renew it first. The last failure may be half a minute ago."""
    store = Store()
    assert store.health.may_claim
    store.pauses_s(7)
    assert store.health.may_claim
    store.health.succeeded()
    assert not store.health.may_claim
    store.now_s += 1.0
    assert store.health.may_claim
