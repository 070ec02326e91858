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
    """Do what a call does in its queue: wait, look at its budgets, be woken, open, end and wake the others."""
    ticket, call = Ticket(5, 2), object()
    queue = admissions.join(REQUEST, (), ticket)
    queue.begin_turn(ticket)
    admissions.holds_up(REQUEST, (), 5)
    queue.is_first(ticket)
    queue.watch_s(ticket)
    queue.armed(ticket)
    queue.wake()  # only the first two of a queue
    queue.see(SOURCES)
    queue.note_stuck(SOURCES)
    queue.left_of(SOURCES, {}, 0.0)
    queue.note_idle(SOURCES)
    admissions.opened(call, REQUEST, ())
    admissions.ended(admissions.closed(call))
    signal = queue.armed(ticket)
    queue.wake_all()
    assert signal.is_set
    queue.leave(ticket)
    assert admissions.queue_of(ticket) is None


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


@pytest.mark.parametrize("queues", [0, 2])
def test_a_signal_handler_may_wait_and_end_at_any_point_of_a_queue(
    queues: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if queues:
        monkeypatch.setattr("cycles.providers._queue.MOST_QUEUES", 0)  # each call drops queues

    def at_every_point() -> None:
        number, more = 0, True
        while more:
            admissions = Admissions("http://here", lambda: 0.0, lambda: False)
            other = Ticket(9, 9)
            queue = admissions.join(REQUEST, (), other)
            more = run_at("/cycles/providers/_queue", number, *[partial(whole_call, admissions)] * 2)
            assert queue.is_first(other)
            assert queue.armed(other).is_set  # each end has woken it
            queue.leave(other)
            admissions.ended(None)
            number += 3
        assert number > 100

    in_thread(at_every_point)


def test_a_thread_that_stands_at_any_point_of_its_call_holds_up_no_end_of_another() -> None:
    number, more = 0, True
    while more:
        admissions = Admissions("http://here", lambda: 0.0, lambda: False)
        waiting, results = Ticket(9, 9), list[bool]()
        queue = admissions.join(REQUEST, (), waiting)
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
        assert queue.armed(waiting).is_set
        may_continue.set()
        thread.join(PATIENCE_S)
        queue.leave(waiting)
        admissions.ended(None)  # nothing waits any longer
        number, more = number + 5, results[0]
    assert number > 100
