"""The schedule of what is owed, on virtual time: nobody is forgotten, an outage costs little, a 429 is waited out."""

from __future__ import annotations

import random

from hypothesis import given, strategies as st

from cycles._core.settlement.schedule import RetrySchedule

INITIAL, LONGEST = 0.5, 60.0


def make(seed: int = 1) -> RetrySchedule[str]:
    return RetrySchedule(INITIAL, LONGEST, random.Random(seed).random)


def advance(backlog: RetrySchedule[str], now: float) -> float:
    due = backlog.next_due()
    assert due is not None
    return max(now, due)


def test_an_outage_of_an_hour_costs_few_requests_and_one_success_opens_the_gate() -> None:
    backlog, now, requests = make(), 0.0, 0
    for n in range(2000):
        backlog.add(f"r{n}", "debt", now)
    while now < 3600:
        now = advance(backlog, now)
        item = backlog.take(now)
        if item is not None:
            requests += 1
            backlog.failed(item, now + 0.01, "down", outage=True)
    assert requests < 3600 / (LONGEST / 2) + 20  # a probe each 30 to 60 s, after the first quick ones
    back = now
    while len(backlog.items):
        now = advance(backlog, now)
        item = backlog.take(now)
        assert item is not None
        backlog.settled(item, now)
    assert now - back <= LONGEST  # one probe had to come round, then all of them were due


def test_one_attempt_at_a_time_while_the_server_fails() -> None:
    backlog = make()
    backlog.add("a", "debt", 0.0)
    backlog.add("b", "debt", 0.0)
    first = backlog.take(0.0)
    assert first is not None
    backlog.failed(first, 0.0, "down", outage=True)
    assert backlog.take(0.0) is None
    probe = backlog.take(100.0)
    assert probe is not None
    assert backlog.take(100.0) is None
    assert backlog.next_due() is None  # nothing to wait for but the probe itself
    backlog.settled(probe, 100.0)
    assert backlog.take(100.0) is not None


def test_what_a_loop_that_has_stopped_was_trying_is_no_attempt_of_an_outage() -> None:
    backlog, loop = make(), object()
    backlog.add("a", "debt", 0.0, loop=loop)
    assert backlog.take(0.0, loop) is not None
    backlog.move(loop, busy=True)
    again = backlog.take(0.0)
    assert again is not None
    backlog.failed(again, 0.0, "down", outage=True)
    assert backlog.next_due() is not None
    assert backlog.take(100.0) is again


def test_a_healthy_server_gets_several_attempts_at_a_time() -> None:
    backlog = make()
    for name in "abc":
        backlog.add(name, "debt", 0.0)
    assert all(backlog.take(0.0) is not None for _ in range(3))
    assert backlog.take(0.0) is None


def test_an_item_that_waits_for_a_429_is_not_expedited() -> None:
    backlog = make()
    backlog.add("a", "debt", 0.0)
    item = backlog.take(0.0)
    assert item is not None
    backlog.failed(item, 0.0, "throttled", outage=False, floor=30.0)
    backlog.expedite(1.0)
    assert backlog.take(29.9) is None
    assert backlog.take(30.0) is item


def test_an_item_that_gets_a_429_after_it_was_expedited_waits_for_it() -> None:
    backlog = make()
    backlog.add("a", "debt", 0.0)
    item = backlog.take(0.0)
    assert item is not None
    backlog.expedite(1.0)
    backlog.failed(item, 1.0, "slow down", outage=False, floor=31.0)
    assert (backlog.next_due(), backlog.take(30.9)) == (31.0, None)
    assert backlog.take(31.0) is item


def test_an_item_that_fails_after_it_was_expedited_is_due_immediately() -> None:
    backlog = make()
    backlog.add("a", "debt", 0.0)
    item = backlog.take(0.0)
    assert item is not None
    backlog.expedite(1.0)
    backlog.failed(item, 2.0, "down", outage=True)
    assert backlog.take(2.0) is item
    backlog.failed(item, 2.0, "down", outage=True)
    assert backlog.take(2.0) is None  # hurried once


def test_the_same_key_is_pending_once() -> None:
    backlog = make()
    assert backlog.add("a", "old", 0.0) is backlog.add("a", "new", 0.0)
    item = backlog.take(0.0)
    assert item is not None
    assert item.value == "new"
    backlog.settled(item, 0.0)
    assert len(backlog.items) == 0
    assert backlog.take(1e9) is None


@given(st.lists(st.tuples(st.sampled_from(["ok", "down", "busy", "gone"]), st.floats(0.0, 120.0)), max_size=60))
def test_every_item_is_tried_again_until_it_is_settled(script: list[tuple[str, float]]) -> None:
    backlog, now = make(), 0.0
    for n in range(5):
        backlog.add(f"r{n}", "debt", 0.0)
    for answer, floor in script:
        if not len(backlog.items):
            break
        now = advance(backlog, now)
        item = backlog.take(now)
        assert item is not None, "what is due can be taken"
        assert now >= item.floor
        if answer == "ok":
            backlog.settled(item, now)
        elif answer == "gone":
            backlog.drop(item)
        else:
            backlog.failed(item, now, answer, outage=answer == "down", floor=now + floor if answer == "busy" else 0.0)
            assert now < item.due <= now + max(LONGEST, floor) + 1e-9
    while len(backlog.items):  # the server recovers: everything gets through
        now = advance(backlog, now)
        item = backlog.take(now)
        assert item is not None
        backlog.settled(item, now)
    assert backlog.take(1e9) is None


def test_a_successful_call_opens_the_gate() -> None:
    backlog = make()
    for name in "abc":
        backlog.add(name, "debt", 0.0)
    item = backlog.take(0.0)
    assert item is not None
    backlog.failed(item, 0.0, "down", outage=True)
    assert backlog.take(0.0) is None
    assert backlog.server_responded(0.1)
    assert [backlog.take(0.1) is not None for _ in "abc"] == [True] * 3


def test_items_that_fail_separately_are_due_one_by_one_not_with_every_call() -> None:
    backlog = make()
    for name in "abc":
        backlog.add(name, "debt", 10.0)
    assert backlog.server_responded(1.0)
    woken = backlog.take(1.0)
    assert woken is not None
    assert backlog.take(1.0) is None
    backlog.drop(woken)
    assert not backlog.server_responded(1.9)
    assert backlog.take(1.9) is None
    assert backlog.server_responded(2.1)
    assert backlog.take(2.1) is not None


def test_each_success_makes_the_next_item_due_but_none_before_its_floor() -> None:
    backlog = make()
    for name in "abc":
        backlog.add(name, "debt", 10.0)
    backlog.add("throttled", "debt", 0.0, floor=20.0)
    assert backlog.server_responded(1.0)
    for _ in "abc":
        item = backlog.take(1.0)
        assert item is not None
        assert item.key != "throttled"
        backlog.settled(item, 1.0)
    assert backlog.take(1.0) is None


def test_a_success_without_items_makes_nothing_due() -> None:
    assert not make().server_responded(1.0)


def test_a_429_delays_the_other_items_at_most_as_long_as_an_outage() -> None:
    backlog = make()
    for name in "abc":
        backlog.add(name, "debt", 0.0)
    item = backlog.take(0.0)
    assert item is not None
    backlog.failed(item, 0.0, "throttled", outage=True, floor=5.0)
    assert backlog.next_due() == 5.0
    assert backlog.take(4.9) is None
    probe = backlog.take(5.0)
    assert probe is not None
    backlog.failed(probe, 5.0, "throttled", outage=True, floor=5_000.0)
    assert backlog.next_due() == 5.0 + LONGEST


def test_a_loop_has_its_own_workers() -> None:
    backlog, loop = make(), object()
    backlog.add("thread", "debt", 0.0)
    backlog.add("task", "debt", 0.0, loop=loop)
    item = backlog.take(0.0, loop)
    assert item is not None
    assert (item.key, backlog.take(0.0, loop), backlog.next_due(loop)) == ("task", None, None)
    other = backlog.take(0.0)
    assert other is not None
    assert other.key == "thread"
    assert backlog.loops() == {loop}


def test_the_threads_take_over_a_loop_but_for_what_its_workers_do() -> None:
    backlog, loop = make(), object()
    for name in ("first", "second"):
        backlog.add(name, "debt", 0.0, loop=loop)
    first = backlog.take(0.0, loop)
    backlog.move(loop, busy=False)
    assert backlog.take(0.0, loop) is None
    taken = backlog.take(0.0)
    assert taken is not None
    assert taken.key == "second"
    assert backlog.take(0.0) is None
    assert first is not None
    backlog.settled(first, 0.0)
    assert [item.key for item in backlog] == ["second"]


def test_the_result_of_a_worker_whose_item_was_taken_over_counts_no_longer() -> None:
    backlog, loop = make(), object()
    backlog.add("a", "debt", 0.0, loop=loop)
    stopped = backlog.take(0.0, loop)
    backlog.move(loop, busy=True)
    taken = backlog.take(0.0)
    assert stopped is not None
    assert taken is not None
    backlog.failed(stopped, 0.0, "late", outage=True)
    assert not backlog.is_outage
    backlog.drop(stopped)
    assert (len(backlog.items), backlog.is_current(taken)) == (1, True)
    backlog.settled(taken, 0.0)
    assert len(backlog.items) == 0


def test_what_a_worker_knew_of_an_item_stays_if_threads_take_it_over() -> None:
    backlog, loop = make(), object()
    backlog.add("a", "debt", 0.0, loop=loop)
    item = backlog.take(0.0, loop)
    assert item is not None
    item.attempts, item.since, item.outcome, item.is_reported = 3, 5.0, "down", True
    backlog.move(loop, busy=True)
    taken = backlog.take(7.0)
    assert taken is not None
    assert (taken.attempts, taken.since, taken.outcome, taken.is_reported) == (3, 5.0, "down", True)


def test_what_a_loop_has_tried_without_success_is_tried_by_threads() -> None:
    backlog, loop = make(), object()
    backlog.add("failed", "debt", 0.0, loop=loop)
    backlog.add("interrupted", "debt", 0.0, loop=loop)
    failed, interrupted = backlog.take(0.0, loop), backlog.take(0.0, loop)
    assert failed is not None
    assert interrupted is not None
    backlog.failed(failed, 0.0, "down", outage=False)
    backlog.interrupted(interrupted, 0.0)
    assert backlog.take(0.0, loop) is None
    assert backlog.take(0.0) is interrupted  # now, and the other after its pause
    assert backlog.take(INITIAL) is failed


def test_an_interrupted_attempt_is_not_waited_for_during_an_outage() -> None:
    backlog = make()
    backlog.add("a", "debt", 0.0)
    item = backlog.take(0.0)
    assert item is not None
    backlog.interrupted(item, 0.0)
    assert backlog.take(0.0) is item
    backlog.failed(item, 0.0, "down", outage=True)
    assert backlog.take(LONGEST) is item
