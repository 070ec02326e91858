"""Pauses between attempts at a store that is down."""

from __future__ import annotations

from typing import Any

import pytest

from cycles._errors import StoreError
from cycles._journal.journal import JournalIssue
from cycles._journal.stores.health import StoreHealth
from cycles._journal.stores.memory import MemoryStore


class Store:
    """The health of a store, its time, and what was reported."""

    def __init__(self, outage: Any = "disk") -> None:
        self.now_s = 100.0
        self.reports: list[JournalIssue] = []
        self.health = StoreHealth(claim_ms=1_000, outage=outage, report=self.reports.append, clock=lambda: self.now_s)

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


def test_nothing_is_claimed_for_one_claim_after_the_latest_failure() -> None:
    store = Store()
    store.health.failed(StoreError("it is down"))
    store.now_s = 100.5
    store.health.failed(StoreError("it is down"))
    for now_s, may_claim in ((101.4995, False), (101.5, True)):
        store.now_s = now_s
        assert store.health.may_claim is may_claim
    store.health.succeeded()
    for now_s, may_claim in ((102.4995, False), (102.5, True)):
        store.now_s = now_s
        assert store.health.may_claim is may_claim
    store.now_s = 103.0
    store.health.succeeded()
    assert store.health.may_claim, "a further success is no end of an outage"


def test_nothing_is_tried_until_the_pause_is_over() -> None:
    store = Store()
    store.health.failed(StoreError("it is down"))
    for now_s, is_open in ((100.999, True), (101.0, False)):
        store.now_s = now_s
        assert store.health.is_open is is_open


@pytest.mark.parametrize(
    ("outage", "says"),
    [
        ("disk", "records are kept in local files until it does; check"),
        ("memory", "records are kept in memory until it does; check"),
        ("refuse", "records are kept in local files until it does, and nothing is reserved; check"),
    ],
)
def test_the_report_of_an_outage_says_where_records_are(outage: Any, says: str) -> None:
    store = Store(outage)
    store.health.failed(StoreError("it is down"))
    message = f"the journal's store does not respond (it is down); {says} journal_store (CYCLES_JOURNAL_URL)"
    assert store.reports == [JournalIssue("store", message)]


def test_what_loses_records_is_reported_and_a_store_that_does_not_say_it_is_an_outage() -> None:
    class Checked(MemoryStore):
        def problems(self) -> list[str]:
            if self.fails is not None:
                raise StoreError(self.fails)
            return ["one", "two"]

    store, checked = Store(), Checked()
    unchecked: Any = object()
    store.health.report_problems(unchecked)
    assert store.reports == []
    store.health.report_problems(checked)
    assert store.reports == [
        JournalIssue("store", f"the journal's store may lose records: {n}") for n in ("one", "two")
    ]
    checked.fails = "it is down"
    store.health.report_problems(checked)
    assert len(store.reports) == 3
    assert store.health.is_open
