"""When a call is reserved, lowered, made to wait or denied: each step of the admission, in threads and in tasks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._core.lease.values import Stop, StopReason
from cycles._flows.heartbeat import lose_lease
from cycles.providers._admission import Need, highest_limit, units_of_budgets
from cycles.providers._queue import Admissions
from cycles.providers._settle import TASK, end_call, open_call
from tests.providers.admissions import PATIENCE_S, TOKEN, Line, dollars
from tests.support.inside import runtime_of, state_of
from tests.support.short import fewer
from tests.support.waiting import until

Make = Callable[..., Line]
SLOWER = {"error": "LIMIT_EXCEEDED", "message": "slower", "request_id": "r"}


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Make the world of a test: a budget in tokens."""
    made: list[Line] = []

    def line(budget: int, **settings: Any) -> Line:
        made.append(Line(request.param, monkeypatch, budget, **settings))
        return made[-1]

    yield line
    for each in made:
        each.close()


# --- 1: it fits, or a call that needs as much waits already


def test_a_call_that_fits_sends_one_reserve_and_one_commit(make: Make) -> None:
    line = make(100)
    line.end(line.open(10), 7)
    assert [request.operation for request in line.server.requests] == ["reserve", "commit"]
    assert (line.reserves(), line.reserves(dry=True)) == ([10], [])


def test_a_call_that_needs_as_much_as_a_waiting_one_sends_nothing_before_its_turn(make: Make) -> None:
    line = make(10)
    running = line.open(10)
    line.waiting(10)
    sent = len(line.server.requests)
    later = [line.waiting(limit, waits=waits) for limit, waits in ((10, 2), (15, 3))]
    assert len(line.server.requests) == sent
    assert not any(call.opened.done() for call in later)
    line.end(running, 1)


def test_a_smaller_call_passes_those_that_wait(make: Make) -> None:
    line = make(10)
    running = line.open(6)
    large = line.waiting(8, min_output_tokens=None)
    assert line.open(4).tokens == 4
    assert not large.opened.done()
    line.end(running, 1)


# --- 2: which denials it waits for


def test_other_denials_are_final(make: Make) -> None:
    line = make(10)
    line.server.ledger.set_status("tenant:acme", "FROZEN")
    error = line.start(line.call(5)).error()
    assert isinstance(error, cycles.BudgetFrozenError)
    assert (line.reserves(), line.reserves(dry=True)) == ([5], [])
    assert len(line.events_of("Denied")) == 1


def test_a_budget_that_is_frozen_while_a_call_waits_denies_it(make: Make) -> None:
    line = make(10)
    running = line.open(10)
    waiting = line.waiting(10)
    line.server.ledger.set_status("tenant:acme", "FROZEN")
    line.end(running, 1)
    assert isinstance(waiting.error(), cycles.BudgetFrozenError)
    assert len(line.events_of("Denied")) == 1


# --- 3: what it reads


def test_the_first_of_the_queue_reads_its_budgets_with_a_dry_run_of_0(make: Make) -> None:
    line = make(10)
    running = line.open(10)
    line.waiting(10)
    line.waiting(10, waits=2)
    assert line.reserves(dry=True) == [0]
    body = next(r.json for r in line.server.requests.of("reserve") if r.json.get("dry_run"))
    assert body["subject"] == {"tenant": "acme"}
    assert [type(event).__name__ for event in line.events] == ["Reserved"]
    line.end(running, 1)


def test_if_the_limit_of_the_run_alone_denies_nothing_is_sent(make: Make) -> None:
    line = make(100)
    with cycles.limit(dollars(4)):
        error = line.start(line.call(9, min_output_tokens=5)).error()
    assert (error.code, len(line.server.requests)) == ("RUN_LIMIT", 0)
    assert "it needs at least $0.00005, at an output limit of 5 tokens, and $0.00004 is left" in str(error)
    assert [type(event).__name__ for event in line.events] == ["Denied"]


def test_a_budget_that_can_never_pay_denies_also_if_the_highest_limit_exceeds_that_of_the_run(make: Make) -> None:
    line = make(4)
    with cycles.limit(dollars(8)) as limit:
        error = line.start(line.call(9, min_output_tokens=5)).error()
        assert (error.code, limit.held) == ("BUDGET_EXCEEDED", dollars(0))
    assert line.reserves() == [5]
    assert [type(event).__name__ for event in line.events] == ["Denied"]


def test_a_call_waits_for_the_limit_of_its_run(make: Make) -> None:
    line = make(100)
    with cycles.limit(dollars(10)) as limit:
        running = line.open(8)
        waiting = line.waiting(8)
        line.end(running, 2)
        assert waiting.tokens == 8
        line.end(waiting, 8)
        assert limit.spent == dollars(10)


def test_of_several_budgets_the_one_with_the_least_decides(make: Make) -> None:
    line = make(100)
    line.server.ledger.set_budget("tenant:acme/agent:bot", dollars(10))
    subject = {"agent": "bot"}
    with cycles.limit(dollars(9)):
        first = line.open(20, subject=subject)
    assert first.tokens == 9
    line.end(first, 7)
    assert line.open(20, subject=subject).tokens == 3
    assert line.open(20).tokens == 20


def test_a_call_does_not_wait_for_one_of_another_limit(make: Make) -> None:
    line = make(100)
    with cycles.limit(dollars(10)):
        running = line.open(8)
        waiting = line.waiting(8)
    later = line.start(line.call(9))
    line.time.wait_for_pauses(2, later.opened)
    assert (later.is_open, waiting.opened.done()) == (True, False)
    line.end(running, 1)


def test_calls_of_other_budgets_do_not_wait_for_a_queue(make: Make) -> None:
    line = make(100)
    for name in ("a", "b"):
        line.server.ledger.set_budget(f"tenant:acme/agent:{name}", dollars(10))
    running = line.open(10, subject={"agent": "a"})
    line.waiting(10, subject={"agent": "a"})
    assert line.open(10, subject={"agent": "b"}).tokens == 10
    line.end(running, 1)


# --- 4: what can never fit


def test_a_call_that_can_never_fit_is_denied_also_while_others_run(make: Make) -> None:
    line = make(10)
    line.end(line.open(6), 6)
    running = line.open(3)
    error = line.start(line.call(9, min_output_tokens=5)).error()
    assert isinstance(error, cycles.BudgetExceededError)
    assert "it needs at least $0.00005, at an output limit of 5 tokens" in str(error)
    assert "and $0.00001 is left in tenant:acme; an output limit of at most 1 tokens or cycles fund " in str(error)
    assert "cycles fund tenant:acme 0.0001USD lets it pass" in str(error)
    assert "requested" not in str(error)
    assert [event.estimate for event in line.events_of("Denied")] == [dollars(9)]
    line.end(running, 1)


def test_a_denial_names_the_highest_output_limit_that_fits(make: Make) -> None:
    line = make(10)
    line.end(line.open(6), 6)
    error = line.start(line.call(9, min_output_tokens=5)).error()
    assert "an output limit of at most 4 tokens or cycles fund " in str(error)


def test_a_call_that_can_never_fit_is_denied_also_behind_a_queue(make: Make) -> None:
    line = make(10)
    line.end(line.open(1), 1)
    running = line.open(9)
    waiting = line.waiting(9)
    error = line.start(line.call(20, min_output_tokens=10)).error()
    assert isinstance(error, cycles.BudgetExceededError)
    assert not waiting.opened.done()
    line.end(running, 1)


def test_a_waiting_call_is_denied_when_the_others_have_spent_what_it_needs(make: Make) -> None:
    line = make(20)
    one, two = line.open(10), line.open(10)
    first = line.waiting(20, min_output_tokens=2)
    second = line.waiting(20, waits=2, min_output_tokens=15)
    line.end(one, 9)
    assert isinstance(second.error(), cycles.BudgetExceededError)
    assert not first.opened.done()
    line.end(two, 1)
    assert first.tokens == 10


def test_a_budget_that_was_lowered_below_what_is_spent_denies_immediately(make: Make) -> None:
    line = make(10)
    line.end(line.open(8), 8)
    line.server.ledger.set_budget("tenant:acme", dollars(5), spent=8 * TOKEN)
    error = line.start(line.call(5)).error()
    assert isinstance(error, cycles.BudgetExceededError)
    assert "$0.00 is left in tenant:acme" in str(error)


# --- 5: which limit it gets


def test_a_limit_is_lowered_only_to_what_fits_without_other_calls(make: Make) -> None:
    line = make(10)
    running = line.open(6)
    waiting = line.waiting(30)
    assert not waiting.opened.done()
    line.end(running, 2)
    assert (waiting.tokens, waiting.call.output_limit) == (8, 8)
    assert waiting.call.limits(None) == {"max_tokens": 8}


def test_a_limit_that_fits_after_a_wait_is_not_lowered(make: Make) -> None:
    line = make(10)
    running = line.open(6)
    waiting = line.waiting(9)
    line.end(running, 1)
    assert (waiting.tokens, waiting.call.output_limit, waiting.call.limits(None)) == (9, None, {})


def test_a_race_with_another_client_is_no_denial(make: Make) -> None:
    line = make(10)
    running = line.open(10)
    waiting = line.waiting(5)
    handle = line.server.handle
    other = line.server.client(tenant="acme", journal=False)
    faster: list[Any] = []

    def after_the_dry_run(request: Any) -> Any:
        response = handle(request)
        if b'"dry_run":true' in request.body.replace(b" ", b"") and not faster:
            faster.append(None)
            faster[0] = other.reserve(dollars(8), action=("a", "b")).acquire()
        return response

    line.server.handle = after_the_dry_run  # type: ignore[method-assign]
    line.end(running, 1)
    line.time.wait_for(1)
    assert (line.reserves()[-1], waiting.opened.done()) == (5, False)
    faster[0].release()
    line.time.advance(2)
    assert waiting.tokens == 5
    other.close()


def test_a_call_whose_wait_is_over_is_denied_after_three_lost_races(make: Make) -> None:
    line = make(10)
    handle, ledger = line.server.handle, line.server.ledger

    def while_another_client_holds_it(request: Any) -> Any:
        taken = request.path == "/v1/reservations" and b'"dry_run":true' not in request.body.replace(b" ", b"")
        ledger.set_allocated("tenant:acme", dollars(1 if taken else 10))
        return handle(request)

    line.server.handle = while_another_client_holds_it  # type: ignore[method-assign]
    error = line.start(line.call(5, wait=0.0)).error()
    assert isinstance(error, cycles.BudgetExceededError)
    assert line.reserves() == [5, 5, 5, 5]  # the first one before the wait


# --- 6: what wakes it


def test_the_end_of_a_call_wakes_one_that_waits_without_time_passing(make: Make) -> None:
    line = make(10)
    running = line.open(10)
    waiting = [line.waiting(10, waits=1), line.waiting(10, waits=2), line.waiting(10, waits=3)]
    for number, call in enumerate(waiting):
        line.end(running, 1)
        running = call
        assert call.tokens == 9 - number
    assert line.time.now_s == 1_000.0


def test_a_settlement_in_the_background_wakes_them_when_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    with contextlib.closing(Line("sync", monkeypatch, 10)) as line:
        handle = line.server.handle

        def hold(request: Any) -> Any:
            if request.path.endswith("/commit"):
                assert go_on.wait(PATIENCE_S)
            return handle(request)

        monkeypatch.setattr(line.server, "handle", hold)
        running = line.open(10, settle="background")
        waiting = line.waiting(9)
        line.end(running, 1)
        line.time.wait_for(1)  # if it was woken too early, it waits again now
        go_on.set()
        assert waiting.tokens == 9
        assert line.time.now_s == 1_000.0


def test_calls_wait_oldest_first(make: Make) -> None:
    line = make(10)
    running = line.open(10)
    first, second = line.waiting(6), line.waiting(6, waits=2)
    line.end(running, 1)
    assert first.tokens == 6
    assert not second.opened.done()


def test_the_end_of_a_call_of_another_client_of_this_process_wakes_it_too(make: Make) -> None:
    line = make(10)
    with line.server.client(tenant="acme", journal=False) as other:
        running = line.open(10, client=other)
        waiting = line.waiting(9)
        line.end(running, 1)
        assert waiting.tokens == 9


def test_other_processes_are_looked_after_more_and_more_seldom(make: Make) -> None:
    line = make(10)
    elsewhere = line.client.reserve(dollars(10), action=("a", "b")).acquire()
    waiting = line.waiting(9)
    reads = []
    for _ in range(40):
        line.time.advance(0.1)
        threading.Event().wait(0.01)
        line.time.wait_for(1)
        reads.append(len(line.reserves(dry=True)))
    assert reads[0] == 2
    assert 5 <= reads[-1] <= 9
    elsewhere.commit(dollars(1))
    line.time.advance(1.3)
    assert waiting.tokens == 9


# --- 7: when nothing changes


def test_after_the_wait_it_takes_what_is_left(make: Make) -> None:
    line = make(10)
    line.open(6)
    waiting = line.waiting(9)
    line.time.pass_until(waiting.opened.done)
    assert (waiting.tokens, waiting.call.output_limit) == (4, 4)
    assert 240 <= line.time.now_s - 1_000 < 245


def test_after_the_wait_it_is_denied_if_too_little_is_left(make: Make) -> None:
    line = make(10)
    line.open(6)
    waiting = line.waiting(9, min_output_tokens=5, wait=30.0)
    line.time.pass_until(waiting.opened.done)
    error = waiting.error()
    assert isinstance(error, cycles.BudgetExceededError)
    assert "$0.00004 is left in tenant:acme" in str(error)
    assert 30 <= line.time.now_s - 1_000 < 33
    assert len(line.events_of("Denied")) == 1


def test_the_clock_starts_again_when_a_call_ends(make: Make) -> None:
    line = make(20)
    line.open(10)
    other = line.open(4)
    waiting = line.waiting(20)
    line.time.advance(200)
    line.time.wait_for(1)
    line.end(other, 1)
    line.time.wait_for(1)
    line.time.advance(200)
    line.time.wait_for(1)
    assert not waiting.opened.done()
    line.time.pass_until(waiting.opened.done)
    assert 440 <= line.time.now_s - 1_000 < 445


def test_without_a_wait_it_takes_what_is_left_now_or_is_denied(make: Make) -> None:
    line = make(10)
    line.open(6)
    assert line.open(9, wait=0).tokens == 4
    assert isinstance(line.start(line.call(9, wait=0)).error(), cycles.BudgetExceededError)
    assert line.time.now_s == 1_000.0


def test_a_task_or_thread_does_not_wait_for_what_it_has_open_itself(make: Make) -> None:
    line = make(10)
    calls = [line.call(6), line.call(9), line.call(9, min_output_tokens=2)]

    def in_one_thread() -> Iterator[int]:
        for call in calls:
            open_call(call)
            yield call.reserved.amount // TOKEN

    async def in_one_task() -> list[int]:
        for call in calls[:2]:
            await TASK.open(call)
        return [call.reserved.amount // TOKEN for call in calls[:2]]

    if line.is_async:
        assert line.run_async(in_one_task()) == [6, 4]
        return
    opening = in_one_thread()
    assert [next(opening), next(opening)] == [6, 4]
    with pytest.raises(cycles.BudgetExceededError):
        next(opening)
    end_call(calls[0])
    end_call(calls[1])


@pytest.mark.parametrize(("budget", "limit", "state"), [(10, 100, "active"), (100, 10, "active"), (10, 100, "lost")])
def test_the_guard_around_a_call_cannot_end_before_it(make: Make, budget: int, limit: int, state: str) -> None:
    line = make(budget)

    def see(guard: Any) -> None:
        if state == "lost":  # its heartbeat has stopped, but the server still holds it
            lose_lease(runtime_of(line.client).blocking, state_of(guard).heartbeat, Stop(StopReason.EXPIRED, "lost"))
        assert guard.state == state

    async def within() -> int:
        call = line.call(9)
        with cycles.limit(dollars(limit)):
            async with line.client.reserve(dollars(6), action=("a", "b")) as guard:
                see(guard)
                await TASK.open(call)
                await guard.commit(dollars(1))
        return call.reserved.amount // TOKEN

    if line.is_async:
        assert line.run_async(within()) == 4
        return
    call = line.call(9)
    with cycles.limit(dollars(limit)), line.client.reserve(dollars(6), action=("a", "b")) as guard:
        see(guard)
        open_call(call)
        guard.commit(dollars(1))
    assert call.reserved == dollars(4)
    end_call(call)


@pytest.mark.parametrize("kind", ["of another client", "committed", "observed"])
def test_a_guard_around_a_call_that_does_not_hold_for_it_is_waited_for(make: Make, kind: str) -> None:
    line = make(10)
    other = line.server.client(tenant="acme", journal=False) if kind == "of another client" else line.client
    reservation = other.reserve(dollars(6), action=("a", "b"), shadow=kind == "observed")
    holding = None if kind == "of another client" else line.server.client(tenant="acme", journal=False)
    with reservation as guard:
        if holding is not None:
            guard.commit(dollars(0))
            held = holding.reserve(dollars(6), action=("a", "b")).acquire()
        started = line.waiting(9)
        if holding is None:
            guard.commit(dollars(0))
        else:
            held.commit(dollars(0))
    line.time.pass_until(started.opened.done)
    assert started.tokens == 9
    line.end(started, 1)
    for client in {other, holding} - {None, line.client}:
        client.close()  # type: ignore[union-attr]


# --- 8: holds that do not end


def test_a_call_that_does_not_wait_makes_nothing_count_as_spent(make: Make) -> None:
    line = make(10)
    running = line.open(6)
    assert line.start(line.call(9, wait=0.0, min_output_tokens=9)).error() is not None
    line.time.advance(300)
    later = line.start(line.call(9, min_output_tokens=9))
    line.time.wait_for_pauses(1, later.opened)
    line.end(running, 1)
    assert later.tokens == 9


def test_what_was_held_for_a_whole_wait_counts_as_spent(make: Make) -> None:
    line = make(10)
    hours = line.open(6)
    waiting = line.waiting(9, min_output_tokens=5)
    line.time.pass_until(waiting.opened.done)
    assert waiting.error() is not None
    moment = line.time.now_s
    assert isinstance(line.start(line.call(9, min_output_tokens=5)).error(), cycles.BudgetExceededError)
    assert line.open(9).tokens == 4
    assert line.time.now_s == moment
    line.end(hours, 1)
    assert line.open(5).tokens == 5


def test_a_call_waits_again_once_less_is_held(make: Make) -> None:
    line = make(10)
    hours = line.open(6)
    stuck = line.waiting(9, min_output_tokens=5)
    line.time.pass_until(stuck.opened.done)
    line.end(hours, 1)
    running = line.open(9)
    waiting = line.waiting(9, min_output_tokens=5)
    assert not waiting.opened.done()
    line.end(running, 1)
    assert waiting.tokens == 8


def test_a_call_that_does_not_wait_declares_no_hold_as_spent(make: Make) -> None:
    line = make(10)
    running = line.open(10)
    assert line.start(line.call(9, wait=0)).error() is not None
    waiting = line.waiting(9)
    line.end(running, 1)
    assert waiting.tokens == 9


# --- leaving the queue


def test_a_call_that_is_cancelled_holds_nothing_and_wakes_the_next(make: Make) -> None:
    line = make(10)
    running = line.open(10)
    first, second = line.waiting(10), line.waiting(10, waits=2)
    if not line.is_async:
        pytest.skip("threads are interrupted, see the next test")
    sent = len(line.server.requests)
    assert first.task is not None
    line.run_async(_cancelled(first.task))
    line.time.wait_for(1)
    assert isinstance(first.error(), asyncio.CancelledError)
    assert line.reserves() == [10, 10]
    assert len(line.server.requests) == sent + 1  # the second one has read its budgets
    assert line.held == 10
    line.end(running, 1)
    assert second.tokens == 9


async def _cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_an_interrupted_thread_leaves_the_queue(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    line = make(10)
    if line.is_async:
        pytest.skip("tasks are cancelled, see the test above")
    running = line.open(10)
    interrupts = [KeyboardInterrupt()]

    async def interrupted(signal: Any, timeout_s: float | None = None) -> bool:
        if interrupts:
            raise interrupts.pop()
        return await line.time.wait(signal, timeout_s)

    monkeypatch.setattr("cycles._drivers.io.threads.BlockingIo.wait", lambda io, *given: interrupted(*given))
    assert isinstance(line.start(line.call(10)).error(), KeyboardInterrupt)
    second = line.waiting(10)
    line.end(running, 1)
    assert second.tokens == 9
    assert line.reserves() == [10, 10, 10, 9]


def test_a_thread_that_is_interrupted_as_it_joins_leaves_the_queue(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    line = make(10)
    if line.is_async:
        pytest.skip("a task is not cancelled there")
    running = line.open(10)

    def join_and_interrupt(admissions: Admissions, *given: Any) -> None:
        with monkeypatch.context() as before:
            before.setattr(Admissions, "join", join)
            admissions.join(*given)
        raise KeyboardInterrupt

    join = Admissions.join
    with monkeypatch.context() as during:
        during.setattr(Admissions, "join", join_and_interrupt)
        assert isinstance(line.start(line.call(10)).error(), KeyboardInterrupt)
    second = line.waiting(10)
    line.end(running, 1)
    assert second.tokens == 9


def test_a_call_whose_event_loop_has_stopped_holds_up_nothing(make: Make) -> None:
    line = make(10)
    running = line.open(10)
    call = line.call(10)
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        task = asyncio.get_running_loop().create_task(TASK.open(call))
        while not call.waited:
            await asyncio.sleep(0)
        assert not task.done()

    loop.run_until_complete(begin())
    second = line.start(line.call(10))
    line.time.wait_for(2)
    line.end(running, 1)
    assert second.tokens == 9
    loop.run_until_complete(_cancel_rest())
    loop.close()


async def _cancel_rest() -> None:
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def test_the_close_of_the_client_ends_the_wait(make: Make) -> None:
    line = make(10)
    line.open(10)
    waiting = line.waiting(10)
    line.client.close()
    line.time.pass_until(waiting.opened.done)
    assert "the client was closed while a call waited for budget" in str(waiting.error())


def test_stopping_the_admissions_ends_every_wait_immediately(make: Make) -> None:
    line = make(10)
    line.open(10)
    waiting = [line.waiting(10), line.waiting(10, waits=2)]
    line.admissions.stop()
    for call in waiting:
        assert "nothing was sent" in str(call.error())


# --- what does not change


def test_the_wait_asks_for_approval_once_with_the_unlowered_estimate(make: Make) -> None:
    asked: list[Any] = []

    def approve(request: Any) -> bool:
        asked.append(request.estimate)
        return True

    line = make(10, approve=approve, approve_above=0.1)
    running = line.open(6)
    waiting = line.waiting(30)
    line.end(running, 2)
    assert waiting.tokens == 8
    assert asked == [dollars(30)]


def test_a_waiting_call_has_one_idempotency_key(make: Make) -> None:
    line = make(10)
    running = line.open(6)
    waiting = line.waiting(9)
    line.end(running, 2)
    assert waiting.tokens == 8
    keys = [r.json["idempotency_key"] for r in line.server.requests.of("reserve") if not r.json.get("dry_run")][1:]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_a_call_has_a_new_key_after_a_decision_that_denied_it(make: Make) -> None:
    """A server stores a decision under its key, and would return it for ever; an error response stores nothing."""
    line = make(10)
    running = line.open(6)
    waiting = line.waiting(9)
    handle = line.server.handle
    decisions = [{"decision": "DENY", "reason_code": "BUDGET_EXCEEDED", "affected_scopes": []}]

    def after_the_dry_run(request: Any) -> Any:
        response = handle(request)
        if b'"dry_run":true' in request.body.replace(b" ", b"") and decisions:
            line.server.faults.status("reserve", 200, body=decisions.pop())
        return response

    line.server.handle = after_the_dry_run  # type: ignore[method-assign]
    line.end(running, 2)
    line.time.pass_until(waiting.opened.done)
    assert waiting.tokens == 8
    keys = [r.json["idempotency_key"] for r in line.server.requests.of("reserve") if not r.json.get("dry_run")][1:]
    assert [keys.index(key) for key in keys] == [0, 0, 2]


def test_shadow_and_observe_neither_wait_nor_lower(make: Make) -> None:
    line = make(10)
    line.open(10)
    assert line.open(50, shadow=True).tokens == 50


def test_an_unreachable_server_does_not_make_a_call_wait(make: Make) -> None:
    line = make(10)
    line.open(10)
    line.server.faults.refuse("reserve", times=None)
    assert line.open(9, on_unavailable="allow").tokens == 9


def test_a_call_whose_limit_must_not_be_lowered_waits(make: Make) -> None:
    line = make(10)
    running = line.open(6)
    waiting = line.waiting(8, min_output_tokens=None)
    line.end(running, 2)
    assert waiting.tokens == 8
    line.end(waiting, 1)
    assert isinstance(line.start(line.call(20, min_output_tokens=None)).error(), cycles.BudgetExceededError)


def test_an_estimate_waits_and_is_not_lowered(make: Make) -> None:
    line = make(10)
    running = line.open(6)
    waiting = line.waiting(3, estimate=dollars(7))
    line.end(running, 2)
    assert (waiting.tokens, waiting.call.output_limit) == (7, None)


def test_a_server_that_returns_no_balances_makes_a_call_wait_without_lowering(make: Make) -> None:
    line = make(10)
    handle = line.server.handle

    def without_balances(request: Any) -> Any:
        response, fault = handle(request)
        assert response is not None
        body = json.loads(response.body)
        body.pop("balances", None)
        return evolve(response, body=json.dumps(body).encode()), fault

    line.server.handle = without_balances  # type: ignore[method-assign]
    running = line.open(6)
    waiting = line.waiting(8)
    assert line.reserves() == [6, 8, 8]
    line.end(running, 2)
    assert (waiting.tokens, waiting.call.output_limit) == (8, None)


def test_a_429_is_waited_for_as_the_server_says(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cycles")
    line = make(10)
    line.server.faults.status("reserve", 429, body=SLOWER, headers={"Retry-After": "7"}, times=1)
    waiting = line.waiting(5)
    line.time.advance(6.9)
    assert not waiting.opened.done()
    assert "a call that may cost $0.00005 waits for its budget" in caplog.text
    line.time.advance(0.2)
    assert waiting.tokens == 5


def test_a_429_that_is_longer_than_the_wait_is_raised(make: Make) -> None:
    line = make(10)
    line.server.faults.status("reserve", 429, body=SLOWER, headers={"Retry-After": "7"}, times=None)
    error = line.start(line.call(5, wait=5.0)).error()
    assert isinstance(error, cycles.RateLimitedError)
    assert (len(line.server.requests.of("reserve")), len(line.events_of("Denied"))) == (1, 1)


def test_each_429_of_a_waiting_call_has_the_whole_wait(make: Make) -> None:
    line = make(20)
    longest, other = line.open(10), line.open(4)
    waiting = line.waiting(20)

    def limit_rate_after(seconds: float) -> None:
        line.time.advance(seconds)
        line.time.wait_for(1)
        line.server.faults.status("reserve", 429, body=SLOWER, headers={"Retry-After": "100"}, times=1)
        line.time.advance(10)
        line.time.wait_for(1)
        line.time.advance(101)
        line.time.wait_for(1)

    limit_rate_after(0)
    line.end(other, 1)  # what the call waits for starts again
    line.time.wait_for(1)
    limit_rate_after(80)
    assert not waiting.opened.done()
    line.end(longest, 1)
    assert waiting.tokens == 18


def test_the_first_wait_and_the_first_lowered_limit_are_logged_once(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cycles")
    line = make(10)
    running = line.open(6)
    call = line.call(30)
    waiting = line.start(call)
    line.time.wait_for(1)
    line.end(running, 2)
    assert waiting.tokens == 8
    found = {record.levelname: record.getMessage() for record in caplog.records if "guarded" in record.getMessage()}
    assert "a call that may cost $0.0003 waits for its budget" in found["INFO"]
    assert "was lowered from 30 to 8 tokens" in found["WARNING"]


def test_many_tasks_wait_and_each_is_admitted(make: Make) -> None:
    line = make(10_000)
    running = line.open(10_000)
    count = fewer(200)
    calls = [line.waiting(8_000), *(line.start(line.call(8_000)) for _ in range(count - 1))]
    line.time.wait_for(count)
    assert line.reserves() == [10_000, 8_000]
    while calls:
        line.end(running)
        until(lambda: any(call.opened.done() for call in calls))
        running = next(call for call in calls if call.opened.done())
        calls.remove(running)
        assert running.tokens == 8_000
    line.end(running)
    assert (line.held, line.time.now_s) == (0, 1_000.0)


# --- what it needs, and what it can get


@pytest.mark.parametrize("step", [1, 3])
def test_the_highest_limit_that_an_amount_can_pay(step: int) -> None:
    def bound(limit: int) -> int:
        return 10 + step * limit

    cases = [
        (low, high, amount)
        for low in range(4)
        for high in range(low, 9)
        for amount in range(bound(low), bound(high) + 3)
    ]
    found = [highest_limit(bound, *case) for case in cases]
    assert found == [max(n for n in range(low, high + 1) if bound(n) <= amount) for low, high, amount in cases]
    assert highest_limit(bound, 2, 7, float("inf")) == 7


def test_what_a_call_needs_by_its_limit() -> None:
    def bound(limit: int) -> int:
        return 10 + 2 * limit

    lowered = Need(99, 5, 2, bound)
    assert (lowered.most, lowered.least) == (20, 14)
    assert [lowered.fits(amount) for amount in (14, 15, 16, 20, 500)] == [(14, 2), (14, 2), (16, 3), (20, 5), (20, 5)]
    fixed = Need(99)
    assert (fixed.most, fixed.least, fixed.fits(5)) == (99, 99, (99, None))


@pytest.mark.parametrize(
    ("details", "units"),
    [
        ({"expected_units": ["TOKENS"]}, "TOKENS"),
        ({"expected_units": ["TOKENS", "CREDITS"]}, "TOKENS, CREDITS"),
        ({"expected_units": []}, None),
        ({"expected_units": "TOKENS"}, None),
        ({}, None),
    ],
)
def test_the_units_of_the_budgets(details: dict[str, Any], units: str | None) -> None:
    assert units_of_budgets(cycles.UnitMismatchError("x", details=details)) == units


@pytest.mark.parametrize(
    ("details", "hint"),
    [
        (
            {"expected_units": ["CREDITS", "TOKENS"]},
            "its budgets are in CREDITS, TOKENS: pass unit='CREDITS' to guard()",
        ),
        ({}, None),
    ],
)
def test_budgets_in_other_units_are_named_with_the_option(make: Make, details: Any, hint: str | None) -> None:
    line = make(10)
    body = {"error": "UNIT_MISMATCH", "message": "other units", "request_id": "r", "details": details}
    line.server.faults.status("reserve", 400, body=body)
    error = line.start(line.call(5)).error()
    assert isinstance(error, cycles.UnitMismatchError)
    assert error.hint == hint
    assert len(line.server.requests) == 1


# --- what the denial says


NEEDS = "it needs at least $0.00095, at an output limit of 95 tokens, and "


@pytest.mark.parametrize(
    ("allocated", "spent", "hint"),
    [
        (
            100,
            60,
            f"{NEEDS}$0.0004 is left in tenant:acme; an output limit of at most 40 tokens or cycles fund tenant:acme "
            "0.0006USD lets it pass",
        ),
        (
            61,
            60,
            f"{NEEDS}$0.00001 is left in tenant:acme; an output limit of at most 1 tokens or cycles fund tenant:acme "
            "0.001USD lets it pass",
        ),
        (60, 60, f"{NEEDS}$0.00 is left in tenant:acme; cycles fund tenant:acme 0.001USD lets it pass"),
        (50, 80, f"{NEEDS}$0.00 is left in tenant:acme; cycles fund tenant:acme 0.0013USD lets it pass"),
    ],
)
@pytest.mark.parametrize("wait", [0.0, 30.0])
def test_a_denial_says_what_lets_the_call_pass(make: Make, allocated: int, spent: int, hint: str, wait: float) -> None:
    line = make(100)
    line.server.ledger.set_budget("tenant:acme", dollars(allocated), spent=spent * TOKEN)
    error = line.start(line.call(99, min_output_tokens=95, wait=wait)).error()
    assert error.hint == hint
    assert (line.time.now_s, line.held) == (1_000.0, 0)


def test_a_denial_reads_past_balances_in_other_units(make: Make) -> None:
    line = make(10)
    line.open(6)
    handle = line.server.handle

    def with_tokens(request: Any) -> Any:
        response, fault = handle(request)
        assert response is not None
        body = json.loads(response.body)
        if balances := body.get("balances"):
            amounts = {name: {"unit": "TOKENS", "amount": 1} for name in ("remaining", "reserved")}
            body["balances"] = [{**balances[0], **amounts}, *balances]
        return evolve(response, body=json.dumps(body).encode()), fault

    line.server.handle = with_tokens  # type: ignore[method-assign]
    error = line.start(line.call(9, min_output_tokens=5, wait=0.0)).error()
    assert "and $0.00004 is left in tenant:acme; an output limit of at most 4 tokens" in error.hint


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"min_output_tokens": 5}, "it needs at least $0.00005, at an output limit of 5 tokens"),
        ({"min_output_tokens": None}, "it needs at least $0.00009"),
    ],
)
def test_a_denial_without_balances_says_what_the_call_needs(make: Make, options: Any, hint: str) -> None:
    line = make(10)
    line.open(6)
    handle = line.server.handle

    def without_balances(request: Any) -> Any:
        response, fault = handle(request)
        assert response is not None
        body = json.loads(response.body)
        body.pop("balances", None)
        return evolve(response, body=json.dumps(body).encode()), fault

    line.server.handle = without_balances  # type: ignore[method-assign]
    error = line.start(line.call(9, wait=0.0, **options)).error()
    assert error.hint == hint


def test_a_denial_after_lost_races_says_what_was_left(make: Make) -> None:
    line = make(10)
    handle, ledger = line.server.handle, line.server.ledger

    def while_another_client_holds_it(request: Any) -> Any:
        taken = request.path == "/v1/reservations" and b'"dry_run":true' not in request.body.replace(b" ", b"")
        ledger.set_allocated("tenant:acme", dollars(1 if taken else 10))
        return handle(request)

    line.server.handle = while_another_client_holds_it  # type: ignore[method-assign]
    error = line.start(line.call(5, wait=0.0)).error()
    assert error.hint == (
        "it needs at least $0.00001, at an output limit of 1 tokens, and $0.0001 is left in tenant:acme"
    )


def test_a_denial_of_the_run_keeps_its_own_hint(make: Make) -> None:
    line = make(100)
    with cycles.limit(dollars(4)):
        error = line.start(line.call(9, min_output_tokens=5)).error()
    assert error.hint == (
        "it needs at least $0.00005, at an output limit of 5 tokens, and $0.00004 is left; raise the amount of "
        "cycles.limit(...), or finish the guards that are open inside it"
    )


# --- how long each pause is


def pauses(line: Line, started: Any, most: int = 40) -> list[float | None]:
    """Let a call wait until it ends, exactly as long as it asks each time, and return its pauses."""
    for number in range(1, most):
        line.time.wait_for_pauses(number, started.opened)
        if started.opened.done():
            break
        line.time.advance(line.time.pauses[-1] or 0.0)
    return line.time.pauses


def test_the_pauses_of_the_first_call_double_up_to_a_second_and_end_with_its_wait(make: Make) -> None:
    line = make(10)
    elsewhere = line.client.reserve(dollars(10), action=("a", "b")).acquire()
    waiting = line.start(line.call(9, wait=3.0))
    found = pauses(line, waiting)
    assert found == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 0.5])
    assert isinstance(waiting.error(), cycles.BudgetExceededError)
    assert line.time.now_s == pytest.approx(1_003.0)
    elsewhere.release()


@pytest.mark.parametrize("wait", [0.9, 1.0])
def test_a_429_without_a_time_is_waited_for_a_second(make: Make, wait: float) -> None:
    line = make(10)
    line.server.faults.status("reserve", 429, body=SLOWER, times=1)
    waiting = line.start(line.call(5, wait=wait))
    if wait < 1:
        assert isinstance(waiting.error(), cycles.RateLimitedError)
        return
    line.time.wait_for(1)
    assert line.time.pauses == [1.0]
    line.time.advance(1.0)
    assert waiting.tokens == 5


@pytest.mark.parametrize(("seconds", "wait", "waits"), [(5, 5.0, True), (6, 5.0, False), (5, 4.999, False)])
def test_a_429_may_last_as_long_as_the_wait(make: Make, seconds: int, wait: float, waits: bool) -> None:
    line = make(10)
    line.server.faults.status("reserve", 429, body=SLOWER, headers={"Retry-After": str(seconds)}, times=1)
    started = line.start(line.call(5, wait=wait))
    if not waits:
        assert isinstance(started.error(), cycles.RateLimitedError)
        return
    line.time.wait_for(1)
    line.time.advance(seconds)
    assert started.tokens == 5


def test_two_429s_in_succession_share_the_wait(make: Make) -> None:
    line = make(10)
    line.server.faults.status("reserve", 429, body=SLOWER, headers={"Retry-After": "3"}, times=2)
    started = line.start(line.call(5, wait=5.0))
    line.time.wait_for(1)
    line.time.advance(3)
    assert isinstance(started.error(), cycles.RateLimitedError)
    assert (line.time.now_s, len(line.server.requests)) == (1_003.0, 2)


def test_a_429_of_the_dry_run_after_a_denial_has_the_whole_wait(make: Make) -> None:
    line = make(10)
    running = line.open(6)
    handle, slower = line.server.handle, [False, True]

    def limited(request: Any) -> Any:
        is_dry = b'"dry_run":true' in request.body.replace(b" ", b"")
        if slower[:1] == [is_dry]:
            slower.pop(0)
            line.server.faults.status("reserve", 429, body=SLOWER, headers={"Retry-After": "3"}, times=1)
        return handle(request)

    line.server.handle = limited  # type: ignore[method-assign]
    started = line.waiting(9, wait=5.0)
    line.time.advance(3)
    line.time.wait_for_pauses(2, started.opened)
    assert (line.reserves(), line.reserves(dry=True), slower) == ([6, 9, 9], [0], [])
    line.end(running, 1)
    line.time.advance(3)
    assert started.tokens == 9


def test_a_client_that_is_closed_does_not_wait_for_a_429(make: Make) -> None:
    line = make(10)
    line.server.faults.status("reserve", 429, body=SLOWER, headers={"Retry-After": "3"}, times=1)
    line.admissions.stop()
    assert isinstance(line.start(line.call(5)).error(), cycles.RateLimitedError)
    assert line.time.pauses == []


# --- what it reads


def test_the_dry_run_has_no_metadata_and_a_new_key_each_time(make: Make) -> None:
    line = make(10)
    running = line.open(10)
    waiting = line.waiting(9, metadata={"k": "v"})
    line.time.advance(0.1)
    line.time.wait_for(1)
    dry = [request.json for request in line.server.requests.of("reserve") if request.json.get("dry_run")]
    assert [("metadata" in body, body["estimate"]["amount"]) for body in dry] == [(False, 0)] * len(dry)
    assert len({body["idempotency_key"] for body in dry}) == len(dry) == 2
    line.end(running, 1)
    assert waiting.tokens == 9
    assert line.server.requests.of("reserve")[-1].json["metadata"]["k"] == "v"


def test_a_budget_in_another_unit_does_not_count(make: Make) -> None:
    line = make(10)
    line.server.ledger.set_budget("tenant:acme", cycles.tokens(3))
    running = line.open(6)
    waiting = line.waiting(9)
    line.end(running, 1)
    assert (waiting.tokens, waiting.call.output_limit) == (9, None)


def test_a_429_of_the_dry_run_is_waited_for(make: Make) -> None:
    line = make(10)
    running = line.open(6)
    waiting = line.waiting(9)
    line.server.faults.status("reserve", 429, body=SLOWER, headers={"Retry-After": "7"}, times=1)
    line.end(running, 1)
    line.time.wait_for(1)
    assert line.time.pauses[-1] == 7.0
    line.time.advance(7)
    assert waiting.tokens == 9


@pytest.mark.parametrize("status", [500, 403])
def test_a_dry_run_that_fails_makes_a_call_wait_without_lowering(make: Make, status: int) -> None:
    line = make(10, max_retries=0)
    line.open(6)
    handle = line.server.handle
    body = {"error": "FORBIDDEN", "message": "no", "request_id": "r"}

    def fails(request: Any) -> Any:
        if b'"dry_run":true' in request.body.replace(b" ", b""):
            line.server.faults.status("reserve", status, body=body, times=1)
        return handle(request)

    line.server.handle = fails  # type: ignore[method-assign]
    waiting = line.waiting(9, wait=1.0)
    assert not waiting.opened.done()
    assert line.reserves() == [6, 9, 9]
    line.time.pass_until(waiting.opened.done)
    assert isinstance(waiting.error(), cycles.BudgetExceededError)


def test_what_an_overdrawn_budget_lacks_is_read_from_the_balances(make: Make) -> None:
    line = make(10)
    line.server.ledger.set_budget("tenant:acme/agent:other", dollars(1), spent=50 * TOKEN)
    line.server.ledger.set_budget("tenant:acme/agent:bot", dollars(5), spent=25 * TOKEN)
    error = line.start(line.call(10, min_output_tokens=None, subject={"agent": "bot"}, wait=0.0)).error()
    assert error.hint.endswith("cycles fund tenant:acme/agent:bot 0.0003USD lets it pass")
    assert [request.operation for request in line.server.requests] == ["reserve", "reserve", "balances"]


# --- approval


@pytest.mark.parametrize("limit", [None, 4])
def test_a_call_is_approved_once_whatever_the_run_leaves(make: Make, limit: int | None) -> None:
    asked: list[Any] = []

    def approve(request: Any) -> bool:
        asked.append(request.estimate)
        return True

    line = make(100, approve=approve, approve_above=0.01)
    line.end(line.open(1), 1)
    with cycles.limit(dollars(4 if limit else 100)):
        started = line.open(9)
    assert started.tokens == (4 if limit else 9)
    assert asked == [dollars(9)]


def test_a_call_that_is_not_approved_is_not_sent(make: Make) -> None:
    line = make(100, approve=lambda request: False, approve_above=0.01)
    line.end(line.open(1), 1)
    with cycles.limit(dollars(4)):
        error = line.start(line.call(9)).error()
    assert isinstance(error, cycles.ReservationDeniedError)
    assert line.reserves() == [1]


def test_lost_races_are_no_denial_before_the_wait_is_over(make: Make) -> None:
    line = make(10)
    handle, ledger = line.server.handle, line.server.ledger

    def while_another_client_holds_it(request: Any) -> Any:
        taken = request.path == "/v1/reservations" and b'"dry_run":true' not in request.body.replace(b" ", b"")
        ledger.set_allocated("tenant:acme", dollars(1 if taken else 10))
        return handle(request)

    line.server.handle = while_another_client_holds_it  # type: ignore[method-assign]
    started = line.start(line.call(5, wait=1.0))
    assert pauses(line, started) == pytest.approx([0.1, 0.2, 0.4, 0.3])
    assert isinstance(started.error(), cycles.BudgetExceededError)
    assert line.time.now_s == pytest.approx(1_001.0)
    assert line.reserves() == [5] * 6


def test_a_race_is_lost_again_only_if_nothing_has_changed(make: Make) -> None:
    line = make(10)
    handle, ledger, allocated = line.server.handle, line.server.ledger, [10, 11, 11, 11]

    def while_another_client_holds_it(request: Any) -> Any:
        reads = b'"dry_run":true' in request.body.replace(b" ", b"")
        ledger.set_allocated("tenant:acme", dollars(allocated.pop(0) if reads else 1))
        return handle(request)

    line.server.handle = while_another_client_holds_it  # type: ignore[method-assign]
    assert isinstance(line.start(line.call(5, wait=0.0)).error(), cycles.BudgetExceededError)
    assert (line.reserves(), allocated) == ([5] * 5, [])


def test_what_is_left_may_be_exactly_what_it_needs(make: Make) -> None:
    line = make(10)
    line.open(6)
    assert line.open(9, min_output_tokens=4, wait=0).tokens == 4
    assert line.held == 10


def test_a_denial_of_a_budget_is_explained_also_if_the_run_has_denied_the_highest_limit(make: Make) -> None:
    line = make(4)
    with cycles.limit(dollars(8)):
        error = line.start(line.call(9, min_output_tokens=5)).error()
    assert error.hint == ("an output limit of at most 4 tokens or cycles fund tenant:acme 0.0001USD lets it pass")


def test_a_call_that_the_run_denies_asks_for_no_approval(make: Make) -> None:
    asked: list[Any] = []

    def approve(request: Any) -> bool:
        asked.append(request)
        return True

    line = make(100, approve=approve, approve_above=0.01)
    line.end(line.open(1), 1)
    with cycles.limit(dollars(4)):
        error = line.start(line.call(9, min_output_tokens=5)).error()
    assert (error.code, asked) == ("RUN_LIMIT", [])


@pytest.mark.parametrize("options", [{"shadow": True}, {"observe": True}])
def test_a_call_that_is_only_observed_is_sent_past_those_that_wait(make: Make, options: Any) -> None:
    line = make(10)
    running = line.open(10)
    waiting = line.waiting(8, min_output_tokens=None)
    before = len(line.server.requests)
    observed = line.start(line.call(20, **options))
    assert (observed.error() is None) is ("shadow" in options)  # the embedded server has no `observe_mode`
    assert len(line.server.requests) == before + 1
    line.end(running, 1)
    assert waiting.tokens == 8


def test_a_call_that_does_not_wait_is_sent_past_those_that_wait(make: Make) -> None:
    line = make(10)
    running = line.open(10)
    waiting = line.waiting(8, min_output_tokens=None)
    before = len(line.reserves())
    assert isinstance(line.start(line.call(9, wait=0)).error(), cycles.BudgetExceededError)
    assert line.reserves()[before:] == [9]
    assert not waiting.opened.done()
    line.end(running, 1)
    assert waiting.tokens == 8
