"""When a client renews and claims the records of a shared store, and how many it claims."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cycles._drivers.work.claims import CLAIM_AGAIN_BELOW, MOST_WAITING, ClaimTimer
from cycles._journal.journal import Entry

CLAIM_MS = 30_000


class Timer:
    """A claim timer over a store and a pool without threads: the test runs what is due."""

    def __init__(self, *, has_store: bool = True) -> None:
        self.ticks: list[tuple[float, Callable[[], object]]] = []
        self.hurried: list[Callable[[], object]] = []
        self.asked: list[tuple[str, int]] = []
        self.taken: list[list[Entry]] = []
        self.failure: Exception | None = None
        self.during: Callable[[], object] = lambda: None
        self.store: Any = SimpleNamespace(
            claim_ms=CLAIM_MS, has_more=True, tick=self.answer("tick"), claim=self.answer("claim")
        )
        pool: Any = SimpleNamespace(later=self.later, scheduler=SimpleNamespace(soon=self.soon))
        records: Any = SimpleNamespace(shared=self.store if has_store else None)
        self.timer = ClaimTimer(pool, records, self.taken.append)

    def answer(self, name: str) -> Callable[[int], list[Entry]]:
        def ask(most: int) -> list[Entry]:
            self.asked.append((name, most))
            self.during()
            if self.failure is not None:
                raise self.failure
            return [Entry(name)]

        return ask

    def later(self, delay_s: float, job: Callable[[], object]) -> Any:
        self.ticks.append((delay_s, job))
        return SimpleNamespace(cancel=lambda: None)

    def soon(self, job: Callable[[], object], _: object) -> bool:
        self.hurried.append(job)
        return True

    def run_tick(self) -> None:
        self.ticks.pop()[1]()

    def run_claim(self) -> None:
        self.hurried.pop()()


@pytest.mark.parametrize(("waiting", "most"), [(0, MOST_WAITING), (MOST_WAITING - 1, 1), (MOST_WAITING + 9, 0)])
def test_a_tick_claims_as_many_as_may_wait_here(waiting: int, most: int) -> None:
    tried = Timer()
    tried.timer.start()
    tried.timer.waiting = waiting
    tried.run_tick()
    assert tried.asked == [("tick", most)]
    assert tried.taken == [["tick"]]


def test_two_ticks_may_fail_before_a_claim_ends(caplog: pytest.LogCaptureFixture) -> None:
    tried = Timer()
    tried.timer.start()
    tried.failure = ValueError("the store is odd")
    delays_s = []
    for _ in range(20):
        delays_s.append(tried.ticks[-1][0])
        tried.run_tick()
    assert len(tried.asked) == len(caplog.records) == 20
    assert 3 * max(delays_s) <= 1.1 * CLAIM_MS / 1000
    assert min(delays_s) >= 0.8 * CLAIM_MS / 1000 / 3


def test_more_are_claimed_once_few_wait() -> None:
    tried = Timer()
    tried.timer.note_waiting(CLAIM_AGAIN_BELOW)
    assert tried.hurried == []
    for _ in range(2):
        tried.timer.note_waiting(CLAIM_AGAIN_BELOW - 1)
    assert len(tried.hurried) == 1
    tried.run_claim()
    assert tried.asked == [("claim", MOST_WAITING - CLAIM_AGAIN_BELOW + 1)]
    assert tried.taken == [["claim"]]


def test_more_are_asked_for_while_a_claim_runs_and_after_one_that_failed() -> None:
    tried = Timer()
    tried.timer.note_waiting(0)
    tried.during = lambda: tried.timer.note_waiting(0)
    tried.run_claim()
    assert len(tried.hurried) == 1
    tried.during, tried.failure = lambda: None, ValueError("the store is odd")
    with pytest.raises(ValueError, match="odd"):
        tried.run_claim()
    tried.timer.note_waiting(0)
    assert len(tried.hurried) == 1


def test_nothing_is_claimed_if_the_store_has_no_more() -> None:
    tried = Timer()
    tried.store.has_more = False
    tried.timer.note_waiting(0)
    assert tried.hurried == []


def test_nothing_is_claimed_after_the_end() -> None:
    """Another thread may have taken the tick or the claim before."""
    tried = Timer()
    tried.timer.start()
    tried.timer.note_waiting(0)
    tried.timer.stop()
    tried.run_tick()
    tried.run_claim()
    tried.timer.note_waiting(0)
    tried.timer.start()
    assert (tried.asked, tried.taken, tried.ticks, tried.hurried) == ([], [], [], [])


def test_a_client_with_files_only_has_no_timer() -> None:
    tried = Timer(has_store=False)
    tried.timer.start()
    tried.timer.note_waiting(0)
    assert (tried.ticks, tried.hurried) == ([], [])
