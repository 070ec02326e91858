"""The queues of calls that wait for budget: who is first, who is woken, and what is left for a call."""

from __future__ import annotations

import asyncio
import math
import operator
import threading
from collections.abc import Callable
from typing import Any

import pytest

import cycles
from cycles._core.messages.reserve_request import ReserveRequest
from cycles.providers import _queue
from cycles.providers._queue import Admissions, BudgetQueue, Source, Ticket, admissions_of, pays
from tests.providers.conftest import collect
from tests.support.inside import runtime_of
from tests.support.waiting import PATIENCE_S

SERVER = "http://server"


class Clock:
    """Monotonic milliseconds that a test moves."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Loop:
    """An event loop, of which only this counts."""

    def __init__(self, *, runs: bool = True) -> None:
        self.runs = runs

    def is_running(self) -> bool:
        return self.runs


def ticket(need: int = 5, lowest: int = 1, loop: Any = None) -> Ticket:
    return Ticket(need, lowest, loop)


def request(agent: str = "a", amount: int = 5) -> ReserveRequest:
    subject = cycles.Subject(tenant="acme", agent=agent)
    return ReserveRequest(
        estimate=cycles.tokens(amount), action=cycles.Action("k", "n"), subject=subject, ttl_ms=60_000
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> BudgetQueue:
    return BudgetQueue(clock)


def woken(*tickets: Ticket) -> list[bool]:
    return [*map(operator.attrgetter("_woken"), tickets)]


def test_the_first_whose_event_loop_runs_has_its_turn(queue: BudgetQueue) -> None:
    stalled, first, second = ticket(loop=Loop(runs=False)), ticket(), ticket()
    for each in (stalled, first, second):
        queue.join(each)
    assert [queue.is_first(each) for each in (stalled, first, second)] == [False, True, False]
    assert (stalled.is_stalled, first.is_stalled, ticket(loop=Loop()).is_stalled) == (True, False, False)
    queue.leave(first)
    assert (queue.is_first(second), queue.has(first), queue.has(second)) == (True, False, True)
    stalled.loop.runs = True  # type: ignore[union-attr]
    assert [queue.is_first(each) for each in (stalled, second)] == [True, False]


@pytest.mark.parametrize(("need", "holds_up"), [(4, False), (5, True), (6, True)])
def test_a_call_that_needs_as_much_as_one_that_waits_is_held_up(queue: BudgetQueue, need: int, holds_up: bool) -> None:
    assert not queue.holds_up(need)
    queue.join(ticket(1, loop=Loop(runs=False)))  # it never takes its turn
    queue.join(ticket(5))
    assert queue.holds_up(need) is holds_up


def test_the_second_looks_after_a_first_one_of_another_event_loop(queue: BudgetQueue) -> None:
    one, other = Loop(), Loop()
    first, second, third = ticket(loop=one), ticket(loop=other), ticket(loop=other)
    for each in (first, second, third):
        queue.join(each)
    assert [queue.watch_s(each) for each in (first, second, third)] == [None, 1.0, None]
    queue.leave(first)
    assert [queue.watch_s(each) for each in (second, third)] == [None, None]  # of one loop
    alone = BudgetQueue(Clock())
    alone.join(ticket())
    alone.join(third)
    assert alone.watch_s(third) is None  # a thread needs no loop
    assert BudgetQueue(Clock()).watch_s(first) is None


def test_a_wake_is_for_the_first_two_and_is_not_lost(queue: BudgetQueue) -> None:
    tickets = [ticket() for _ in range(3)]
    for each in tickets:
        queue.join(each)
    queue.wake()
    assert woken(*tickets) == [True, True, False]
    assert queue.armed(tickets[0]).is_set  # it was woken before it waits
    assert woken(*tickets) == [False, True, False]
    signal = queue.armed(tickets[0])
    assert not signal.is_set
    queue.wake_all()
    assert (signal.is_set, woken(*tickets)) == (True, [True, True, True])
    queue.begin_turn(tickets[0])
    assert not queue.armed(tickets[0]).is_set
    queue.begin_turn(tickets[2])
    queue.leave(tickets[0])
    assert woken(*tickets[1:]) == [True, True]
    queue.leave(tickets[0])
    assert not queue.has(tickets[0])


def test_the_clock_of_a_queue_starts_again_with_each_change(queue: BudgetQueue, clock: Clock) -> None:
    clock.now = 2_000
    queue.join(ticket())
    assert queue.since_ms == 2_000
    steps: list[tuple[Callable[[], object], bool]] = [
        (lambda: queue.join(ticket()), False),
        (lambda: queue.see((Source("s", 5, 1),)), True),
        (lambda: queue.see((Source("s", 5, 1),)), False),
        (lambda: queue.see((Source("s", 4, 1),)), True),
        (lambda: queue.changed(None), True),
    ]
    for step, starts in steps:
        clock.now += 100
        before = queue.since_ms
        step()
        assert queue.since_ms == (clock.now if starts else before)


@pytest.mark.parametrize(
    ("sources", "own", "left"),
    [
        ((), {}, (math.inf, math.inf, None)),
        ((Source("a", 5, 3),), {}, (5, 8, "a")),
        ((Source("a", 5, None),), {}, (5, math.inf, "a")),
        ((Source("a", 5, 3), Source("b", 7, 0)), {}, (5, 7, "a")),
        ((Source("a", 5, 3), Source("b", 4, 9)), {}, (4, 8, "b")),
        ((Source("a", 5, 3), Source("b", 5, 0)), {}, (5, 5, "a")),
        ((Source("a", 5, 3),), {"a": 2}, (5, 6, "a")),
        ((Source("a", 5, 3),), {"a": 4}, (5, 5, "a")),  # it holds more than the server knows
        ((Source("a", 5, 3),), {"b": 2}, (5, 8, "a")),
    ],
)
def test_what_is_left_for_a_call(
    queue: BudgetQueue, sources: tuple[Source, ...], own: dict[Any, int], left: tuple[Any, ...]
) -> None:
    found = queue.left_of(sources, own, 10.0)
    assert (found.left, found.idle, found.name) == left


def test_what_is_held_for_a_whole_wait_counts_as_spent(queue: BudgetQueue, clock: Clock) -> None:
    sources = (Source("a", 5, 3), Source("b", 9, 0), Source("c", 9, None))
    waiting = ticket()
    queue.join(waiting)
    clock.now += 9_999
    queue.note_stuck(sources)
    assert queue.left_of(sources, {}, 10.0).idle == 8
    clock.now += 1
    assert queue.left_of(sources, {}, 10.0).idle == 5
    assert queue.left_of(sources, {"a": 1}, 10.0).idle == 5  # it is a part of that
    assert queue.left_of((Source("a", 5, 6),), {"a": 1}, 10.0).idle == 8  # also if more is held by now
    assert queue.left_of(sources, {}, 10.001).idle == 8
    queue.leave(waiting)
    assert (queue.is_needed, queue.has_waiting) == (True, False)
    queue.see((Source("a", 5, 3),))
    assert queue.is_needed
    queue.see((Source("a", 6, 2),))  # less is held
    assert not queue.is_needed


def test_the_end_of_a_call_of_before_frees_what_counted_as_spent(queue: BudgetQueue, clock: Clock) -> None:
    admissions = Admissions(SERVER, clock, lambda: False)
    admissions.opened("before", request(), ())
    clock.now += 1
    queue.note_stuck((Source("tenant:acme/agent:a", 5, 3), Source("tenant:acme/agent:b", 5, 3)))
    clock.now += 1
    admissions.opened("later", request(), ())
    for call in ("later", "unknown"):
        queue.changed(admissions.closed(call))
    assert queue.left_of((Source("tenant:acme/agent:a", 5, 3),), {}, 0.0).idle == 5
    queue.changed(admissions.closed("before"))
    assert queue.left_of((Source("tenant:acme/agent:a", 5, 3),), {}, 0.0).idle == 8
    assert queue.left_of((Source("tenant:acme/agent:b", 5, 3),), {}, 0.0).idle == 5


def test_the_end_of_a_call_frees_what_counted_as_spent_also_if_no_call_waits(clock: Clock) -> None:
    admissions, waiting = Admissions(SERVER, clock, lambda: False), ticket()
    admissions.opened("call", request(), ())
    queue = admissions.join(request(), (), waiting)
    queue.note_stuck((Source("tenant:acme/agent:a", 5, 3),))
    queue.leave(waiting)
    admissions.ended(admissions.closed("another"))
    assert queue.is_needed
    admissions.ended(admissions.closed("call"))
    assert not queue.is_needed


def test_calls_that_can_never_fit_are_woken(queue: BudgetQueue) -> None:
    small, exact, large = ticket(9, 1), ticket(9, 8), ticket(9, 9)
    for each in (small, exact, large):
        queue.join(each)
        queue.begin_turn(each)
    queue.note_idle((Source("a", 5, 3),))
    assert (queue.idle, woken(small, exact, large)) == (8, [False, False, True])


def test_calls_of_the_same_budgets_have_one_queue(clock: Clock) -> None:
    admissions, first, second = Admissions(SERVER, clock, lambda: False), ticket(), ticket()
    queue = admissions.join(request(), (), first)
    assert admissions.join(request("A", 99), (), second) is queue
    assert admissions.join(request("b"), (), ticket()) is not queue
    assert admissions.queue_of(second) is queue
    assert admissions.queue_of(ticket()) is None
    assert (admissions.holds_up(request(), (), 5), admissions.holds_up(request("c"), (), 5)) == (True, False)
    assert not admissions.holds_up(request(), (), 4)
    queue.leave(first)
    queue.leave(second)
    assert not admissions.holds_up(request(), (), 5)


def test_the_end_of_a_call_wakes_the_queues_of_its_server(clock: Clock) -> None:
    mine, beside = Admissions(SERVER, clock, lambda: False), Admissions(SERVER, clock, lambda: False)
    elsewhere = Admissions("http://other", clock, lambda: False)
    tickets = [ticket() for _ in range(4)]
    queues = [mine.join(request(), (), tickets[0]), mine.join(request("b"), (), tickets[1])]
    queues += [beside.join(request(), (), tickets[2]), elsewhere.join(request(), (), tickets[3])]
    clock.now += 5
    mine.ended(None)
    assert woken(*tickets) == [True, True, True, False]
    assert [queue.since_ms for queue in queues] == [1_005, 1_005, 1_005, 1_000]
    for queue, each in zip(queues, tickets, strict=True):
        queue.leave(each)
    mine.ended(None)
    beside.ended(None)
    elsewhere.ended(None)
    waiting: set[Admissions] = vars(_queue)["_waiting"]
    assert waiting.isdisjoint({mine, beside, elsewhere})


@pytest.mark.parametrize("held", [0, 3])
def test_queues_without_waiting_calls_are_dropped(clock: Clock, monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    monkeypatch.setattr(_queue, "MOST_QUEUES", 2)
    admissions, waiting = Admissions(SERVER, clock, lambda: False), ticket()
    kept = admissions.join(request("kept"), (), waiting)
    for number in range(5):
        each = ticket()
        queue = admissions.join(request(str(number)), (), each)
        queue.note_stuck((Source(f"tenant:acme/agent:{number}", 5, held),))
        queue.leave(each)
    assert admissions.queue_of(waiting) is kept
    queues: Callable[[], list[BudgetQueue]] = operator.attrgetter("_all")(admissions)
    assert len(queues()) <= 3


def test_queues_with_waiting_calls_are_kept_and_looked_at_seldom(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_queue, "MOST_QUEUES", 2)
    admissions, counts = Admissions(SERVER, clock, lambda: False), list[int]()
    queues: Callable[[], list[BudgetQueue]] = operator.attrgetter("_all")(admissions)
    for name in ("kept", "kept too", "a", "b", "c", "d"):
        each = ticket()
        queue = admissions.join(request(name), (), each)
        if not name.startswith("kept"):
            queue.leave(each)
        counts.append(len(queues()))
    assert counts == [1, 2, 3, 4, 3, 4]  # the third finds none to drop, so the next look is at 4


def test_a_queue_that_was_empty_begins_again(queue: BudgetQueue, clock: Clock) -> None:
    first, sources = ticket(), (Source("a", 5, 3),)
    queue.join(first)
    queue.see(sources)
    queue.note_idle(sources)
    assert queue.idle == 8
    queue.leave(first)
    clock.now += 5
    queue.join(first)
    assert [queue.idle, queue.since_ms] == [None, clock.now]
    clock.now += 5
    queue.see(sources)  # as if it was new
    assert queue.since_ms == clock.now
    queue.note_stuck(sources)
    queue.note_idle(sources)  # a hold that does not end may end for others
    queue.leave(first)
    clock.now += 5
    queue.join(first)
    assert [queue.idle, queue.since_ms] == [8, clock.now - 5]


@pytest.mark.parametrize(
    ("held", "left", "is_needed"), [(0, 3, False), (None, 3, False), (1, 1, True), (1, 2, True), (2, 1, False)]
)
def test_what_counts_as_spent_does_so_until_less_is_held(
    queue: BudgetQueue, held: int | None, left: int, is_needed: bool
) -> None:
    queue.note_stuck((Source("a", 5, held),))
    queue.see((Source("a", 5, None), Source("b", 5, 0), Source("a", 5, left)))
    assert queue.is_needed is is_needed


def test_a_call_of_the_moment_in_which_a_hold_was_noted_frees_it(queue: BudgetQueue, clock: Clock) -> None:
    admissions = Admissions(SERVER, clock, lambda: False)
    admissions.opened("now", request(), ())
    queue.note_stuck((Source("tenant:acme/agent:a", 5, 3),))
    assert queue.is_needed
    queue.changed(admissions.closed("now"))
    assert not queue.is_needed


def test_what_a_caller_holds_of_a_limit_of_its_run(clock: Clock) -> None:
    admissions = Admissions(SERVER, clock, lambda: False)
    limit, other = cycles.limit(cycles.tokens(20)), cycles.limit(cycles.tokens(20))
    limits = (limit,)
    sources = (Source(limit, 9, 9), Source(other, 9, 9))
    admissions.opened("a", request("a", 3), limits)
    admissions.opened("b", request("b", 4), limits)
    admissions.opened("c", request("c", 5), ())
    assert admissions.own_holds(sources, by_task=False) == {limit: 7}
    assert admissions.own_holds(sources, by_task=False, enclosing=request("d", 6)) == {limit: 7}
    assert admissions.own_holds(sources, by_task=True) == {}  # no task runs


def test_what_an_ended_thread_has_opened_is_of_no_caller(clock: Clock) -> None:
    admissions = Admissions(SERVER, clock, lambda: False)
    sources = (Source("tenant:acme", 9, 9),)
    thread = threading.Thread(target=admissions.opened, args=("a", request("a", 3), ()))
    thread.start()
    thread.join(PATIENCE_S)
    del thread
    collect()
    assert [admissions.own_holds(sources, by_task=by_task) for by_task in (False, True)] == [{}, {}]


def test_the_admissions_of_a_client_are_made_once() -> None:
    with cycles.EmbeddedServer({"tenant:acme": cycles.usd(1)}) as server, server.client(tenant="acme") as client:
        runtime = runtime_of(client)
        admissions = admissions_of(runtime)
        assert (admissions_of(runtime) is admissions, admissions.is_closed) == (True, False)
    assert admissions.is_closed


def test_a_stop_ends_all_waits(clock: Clock) -> None:
    closed: list[bool] = []
    admissions, waiting = Admissions(SERVER, clock, lambda: bool(closed)), ticket()
    admissions.join(request(), (), waiting)
    assert not admissions.is_closed
    closed.append(True)
    assert admissions.is_closed
    closed.clear()
    admissions.stop()
    assert (admissions.is_closed, woken(waiting)) == (True, [True])


def test_what_the_caller_has_open_itself(clock: Clock) -> None:
    admissions = Admissions(SERVER, clock, lambda: False)
    sources = (Source("tenant:acme", 9, 9), Source("tenant:acme/agent:a", 9, 9), Source("tenant:acme/agent:b", 9, 9))
    admissions.opened("thread", request("a", 3), ())

    async def use() -> None:
        admissions.opened("task", request("b", 4), ())
        own = {"tenant:acme": 4, "tenant:acme/agent:b": 4}
        assert admissions.own_holds(sources, by_task=True) == own
        enclosing = request("a", 10)
        more = {"tenant:acme": 14, "tenant:acme/agent:a": 10, "tenant:acme/agent:b": 4}
        assert admissions.own_holds(sources, by_task=True, enclosing=enclosing) == more

    asyncio.run(use())
    every = {"tenant:acme": 7, "tenant:acme/agent:a": 3, "tenant:acme/agent:b": 4}
    assert admissions.own_holds(sources, by_task=False) == every
    admissions.closed("thread")
    assert admissions.own_holds(sources, by_task=False) == {"tenant:acme": 4, "tenant:acme/agent:b": 4}
    assert admissions.own_holds((), by_task=False) == {}


@pytest.mark.parametrize(
    ("scope", "is_paid"),
    [("tenant:acme", True), ("tenant:acme/agent:a", True), ("tenant:acme/agent:b", False), ("tenant:x", False)],
)
def test_which_budgets_pay_for_a_reservation(scope: str, is_paid: bool) -> None:
    assert pays(scope, request("A")) is is_paid
