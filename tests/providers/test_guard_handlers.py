"""A signal handler that makes a provider call in the middle of another one never waits for what that one holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest

import cycles
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.subjects import Action, Subject
from cycles.providers._queue import Admissions, Source, Ticket
from tests.support.points import run_at
from tests.support.waiting import PATIENCE_S

REQUEST = ReserveRequest(estimate=cycles.usd(1), action=Action("a", "b"), subject=Subject(tenant="acme"), ttl_ms=60_000)
SOURCES = (Source("tenant:acme", 3, 2), Source("tenant:acme/agent:bot", 1, 1))


def whole_call(admissions: Admissions) -> None:
    """Do what a call does in its lane: wait, look at its budgets, be woken, open, end and wake the others."""
    ticket, call = Ticket(5, 2), object()
    lane = admissions.join(REQUEST, (), ticket)
    lane.begin_turn(ticket)
    admissions.holds_up(REQUEST, (), 5)
    lane.is_first(ticket)
    lane.watch_s(ticket)
    lane.armed(ticket)
    lane.wake()  # only the first two of a lane
    lane.see(SOURCES)
    lane.note_stuck(SOURCES)
    lane.left_of(SOURCES, {}, 0.0)
    lane.note_idle(SOURCES)
    admissions.opened(call, REQUEST, ())
    admissions.ended(admissions.closed(call))
    signal = lane.armed(ticket)
    lane.wake_all()
    assert signal.is_set
    lane.leave(ticket)
    assert admissions.lane_of(ticket) is None


def in_thread(work: Callable[[], None]) -> None:
    errors: list[BaseException] = []

    def catch() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=catch, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]


@pytest.mark.parametrize("lanes", [0, 2])
def test_a_signal_handler_may_wait_and_end_at_any_point_of_a_lane(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if lanes:
        monkeypatch.setattr("cycles.providers._queue.MOST_LANES", 0)  # each call drops lanes

    def at_every_point() -> None:
        number, more = 0, True
        while more:
            admissions = Admissions("http://here", lambda: 0.0, lambda: False)
            other = Ticket(9, 9)
            lane = admissions.join(REQUEST, (), other)
            more = run_at("/cycles/providers/_queue", number, *[partial(whole_call, admissions)] * 2)
            assert lane.is_first(other)
            assert lane.armed(other).is_set  # each end has woken it
            lane.leave(other)
            admissions.ended(None)
            number += 3
        assert number > 100

    in_thread(at_every_point)


def test_a_thread_that_stands_at_any_point_of_its_call_holds_up_no_end_of_another() -> None:
    number, more = 0, True
    while more:
        admissions = Admissions("http://here", lambda: 0.0, lambda: False)
        waiting, results = Ticket(9, 9), list[bool]()
        lane = admissions.join(REQUEST, (), waiting)
        at_point, may_continue = threading.Event(), threading.Event()

        def stand(number: int, at_point: threading.Event, may_continue: threading.Event) -> bool:
            def pause() -> None:
                at_point.set()
                may_continue.wait(PATIENCE_S)

            try:
                return run_at("/cycles/providers/_queue", number, pause, partial(whole_call, admissions))  # noqa: B023
            finally:
                at_point.set()

        given = number, at_point, may_continue
        thread = threading.Thread(target=lambda: results.append(stand(*given)), daemon=True)  # noqa: B023
        thread.start()
        assert at_point.wait(PATIENCE_S)
        in_thread(lambda: admissions.ended(None))  # noqa: B023
        assert lane.armed(waiting).is_set
        may_continue.set()
        thread.join(PATIENCE_S)
        lane.leave(waiting)
        admissions.ended(None)  # nothing waits any longer
        number, more = number + 5, results[0]
    assert number > 100
