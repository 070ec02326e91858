"""`Deadlines` behaves as a timer of the loop for each deadline, and keeps one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given, strategies as st

from cycles._http.deadlines import Deadline, Deadlines


class Timer:
    def __init__(self, loop: Loop, at_s: float, run: Callable[[], object]) -> None:
        self.loop = loop
        self.at_s = at_s
        self.run = run

    def cancel(self) -> None:
        if self in self.loop.timers:
            self.loop.timers.remove(self)


class Loop:
    """An event loop whose time passes when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, at_s: float, function: Callable[..., object], *arguments: object) -> Timer:
        timer = Timer(self, at_s, lambda: function(*arguments))
        self.timers.append(timer)
        return timer

    def pass_time(self, until_s: float) -> None:
        while due := [timer for timer in self.timers if timer.at_s <= until_s]:
            first = min(due, key=lambda timer: timer.at_s)
            self.now_s = max(self.now_s, first.at_s)
            self.timers.remove(first)
            first.run()
        self.now_s = until_s


class Tried:
    """Deadlines on a loop of virtual time; `called` has the number of each function that was called, and when."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.deadlines = Deadlines()
        self.added: list[Deadline] = []
        self.called: list[tuple[int, float]] = []

    def add(self, in_s: float, and_then: Callable[[], object] = lambda: None) -> None:
        number = len(self.added)

        def function() -> None:
            self.called.append((number, self.loop.now_s))
            and_then()

        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.added.append(self.deadlines.add(loop, self.loop.now_s + in_s, function))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 9)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("pass"), st.integers(0, 5)),
    ),
    max_size=60,
)


@given(STEPS)
def test_each_function_is_called_at_its_deadline_unless_it_was_cancelled(steps: list[tuple[str, int]]) -> None:
    tried = Tried()
    due: dict[int, float] = {}  # what timers of the loop would call
    expected: list[tuple[int, float]] = []
    for step, number in [*steps, ("pass", 100)]:
        now_s = tried.loop.now_s
        if step == "add":
            due[len(tried.added)] = now_s + number
            tried.add(number)
        elif step == "cancel" and number < len(tried.added):
            due.pop(number, None)
            tried.added[number].cancel()
            tried.added[number].cancel()  # a second time changes nothing
        elif step == "pass":
            tried.loop.pass_time(now_s + number)
            over = {each: at_s for each, at_s in due.items() if at_s <= now_s + number}
            expected += over.items()
            due = {each: at_s for each, at_s in due.items() if each not in over}
        assert sorted(tried.called) == sorted(expected)
        assert bool(tried.loop.timers) == bool(due)


def test_many_deadlines_in_order_need_one_timer() -> None:
    tried = Tried()
    for _ in range(100):
        tried.add(5)
        tried.loop.now_s += 0.01
    assert len(tried.loop.timers) == 1


def test_cancelled_deadlines_are_removed_behind_one_that_is_not_over() -> None:
    tried = Tried()
    tried.add(30)
    for _ in range(10_000):
        tried.add(30)
        tried.added.pop().cancel()
    assert len(tried.deadlines._queue) < 200
    tried.added[0].cancel()
    assert tried.loop.timers == []


def test_the_timer_is_set_again_after_a_function_that_raises() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    tried = Tried()
    tried.add(1, fail)
    tried.add(2)
    try:
        tried.loop.pass_time(1)
    except ZeroDivisionError:
        tried.loop.pass_time(2)
    assert tried.called == [(0, 1), (1, 2)]


def test_a_function_may_add_and_cancel_deadlines() -> None:
    tried = Tried()

    def change() -> None:
        tried.added[1].cancel()
        tried.add(1)

    tried.add(1, change)
    tried.add(1)
    tried.loop.pass_time(10)
    assert tried.called == [(0, 1), (2, 2)]


def test_it_keeps_no_function_of_a_deadline_that_is_cancelled() -> None:
    tried = Tried()
    tried.add(30)
    cancelled: Any = tried.deadlines.add(cast(asyncio.AbstractEventLoop, tried.loop), 30, tried.loop.time)
    cancelled.cancel()
    assert cancelled.function is None


def test_a_function_that_raises_keeps_no_later_deadline_from_ending() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    tried = Tried()
    tried.add(1.0, fail)
    tried.add(2.0)
    with pytest.raises(ZeroDivisionError):
        tried.loop.pass_time(3.0)
    tried.loop.pass_time(3.0)
    assert tried.called == [(0, 1.0), (1, 2.0)]
    assert tried.loop.timers == []


def test_deadlines_that_are_cancelled_in_their_order_leave_no_timer() -> None:
    tried = Tried()
    for _ in range(5):
        tried.add(1.0)
    for position in (1, 3, 0, 2):  # each time those at the front that are cancelled leave
        tried.added[position].cancel()
        assert len(tried.loop.timers) == 1
    tried.added[4].cancel()
    assert tried.loop.timers == []
    tried.add(1.0)
    tried.loop.pass_time(2.0)
    assert tried.called == [(5, 1.0)]


def test_a_cancelled_deadline_that_is_over_counts_no_longer() -> None:
    """Else those that are cancelled later seem to be all, and a live one is removed with them."""
    tried = Tried()
    for at_s in (1.0, 2.0, 9.0):
        tried.add(at_s)
    tried.added[1].cancel()
    tried.loop.pass_time(3.0)
    tried.add(7.0)
    tried.added[3].cancel()
    tried.loop.pass_time(10.0)
    assert tried.called == [(0, 1.0), (2, 9.0)]


@pytest.mark.parametrize(
    "at_s", [(1, 9, 5), (1, 5, 9, 5, 9, 7), (5, 9, 1), (9, 5, 1), (1, 9, 5, 5, 3), (0, 2, 1)], ids=str
)
def test_deadlines_in_any_order_are_called_at_their_times(at_s: tuple[int, ...]) -> None:
    tried = Tried()
    for seconds in at_s:
        tried.add(float(seconds))
    tried.loop.pass_time(20.0)
    assert sorted(tried.called) == [(number, float(seconds)) for number, seconds in enumerate(at_s)]
    assert tried.loop.timers == []
