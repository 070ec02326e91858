"""One guard has one use: entering it twice, copying it and using its reservation as the guard are rejected."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import gc
import logging
import pickle
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

import cycles
from cycles._client.context import current_subject
from cycles._client.generator_frames import generator_dropped
from tests.client.conftest import ACTION, World, held, spent
from tests.support.inside import state_of
from tests.support.points import run_at

pytestmark = pytest.mark.anyio


def described(world: World, **options: Any) -> Any:
    return world.client.reserve(cycles.tokens(100), action=ACTION, actual=cycles.tokens(7), **options)


async def test_entering_a_reservation_inside_its_own_block_is_rejected(world: World, server: Any) -> None:
    reservation = described(world)
    async with world.enter(reservation) as guard:
        before = len(server.requests)
        with pytest.raises(cycles.GuardFinalizedError, match="entered already"):
            async with world.enter(reservation):
                raise AssertionError("never runs")
        assert len(server.requests) == before
        assert guard.state == "active"
    assert guard.state == "committed"


def test_two_threads_enter_one_reservation_and_one_of_them_is_rejected(client: cycles.Cycles) -> None:
    reservation = client.reserve(cycles.tokens(100), action=ACTION, actual=cycles.tokens(7))
    inside, leave, errors = threading.Event(), threading.Event(), list[BaseException]()

    def first() -> None:
        with reservation:
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(30)
    try:
        with reservation:
            raise AssertionError("never runs")
    except cycles.GuardFinalizedError as error:
        errors.append(error)
    leave.set()
    thread.join(30)
    assert len(errors) == 1


async def test_two_tasks_enter_one_reservation_and_one_of_them_is_rejected(aclient: cycles.Cycles) -> None:
    reservation = aclient.reserve(cycles.tokens(100), action=ACTION, actual=cycles.tokens(7))
    guards = list[Any]()

    async def work() -> None:
        async with reservation as guard:
            guards.append(guard)
            await asyncio.sleep(0)

    done = await asyncio.gather(work(), work(), return_exceptions=True)
    assert sorted(type(result).__name__ for result in done) == ["GuardFinalizedError", "NoneType"]
    assert [guard.state for guard in guards] == ["committed"]


async def test_a_reservation_can_be_entered_again_after_its_block(world: World) -> None:
    reservation = described(world)
    async with world.enter(reservation) as first:
        pass
    async with world.enter(reservation) as second:
        pass
    assert first.reservation_id != second.reservation_id


def test_a_reservation_may_be_entered_at_any_point_of_the_end_of_its_block(client: cycles.Cycles) -> None:
    reservation = client.reserve(cycles.tokens(100), action=ACTION, actual=cycles.tokens(7))
    guards = list[cycles.Guard]()

    def enter() -> None:
        with contextlib.suppress(cycles.GuardFinalizedError):
            guards.append(reservation.__enter__())

    def leave() -> None:
        reservation.__exit__(None, None, None)

    number, more, times = 0, True, 0
    while more:
        guards.append(reservation.__enter__())
        more = run_at("/cycles/_client/reservation", number, enter, leave)
        if len(guards) == 2:
            times += 1
            leave()
        assert {guard.state for guard in guards} == {"committed"}, number
        guards.clear()
        number += 1
    assert times > 0


def test_a_commit_at_any_point_of_the_end_of_a_dropped_generator_is_the_only_one(
    client: cycles.Cycles, server: Any
) -> None:
    def work(guard: cycles.Guard) -> Iterator[None]:
        with guard:
            yield

    number, more, ends = 0, True, set[str]()
    while more:
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        steps = [work(guard)]
        next(steps[0])

        def commit(guard: cycles.Guard = guard) -> None:
            with contextlib.suppress(cycles.GuardFinalizedError):
                guard.commit(cycles.tokens(7))

        before, number = len(server.requests), number + 1
        more = run_at("/cycles/_client/guard.py", number - 1, commit, steps.clear)
        client.flush()
        (end,) = [request.operation for request in server.requests[before:]]
        assert guard.state == {"commit": "committed", "release": "released"}[end], number
        ends.add(end)
    assert ends == {"commit", "release"}


async def test_an_async_generator_that_ends_its_guard_by_hand_waits_for_the_settlement(
    aclient: cycles.Cycles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_background(guard: Any, raised: BaseException) -> None:
        raise AssertionError("it may await while it is closed")

    async def work() -> AsyncIterator[cycles.AsyncGuard]:
        guard = await aclient.reserve(cycles.tokens(100), action=ACTION)
        guard.spend(cycles.tokens(7))
        try:
            yield guard
        except GeneratorExit as closing:
            await guard.end(closing)
            raise

    monkeypatch.setattr("cycles._client.guard.GuardBase._end_in_background", in_background)
    steps = work()
    guard = await anext(steps)
    await steps.aclose()  # type: ignore[attr-defined]
    assert guard.state == "committed"


@pytest.mark.parametrize("key", [None, "job-1"])
async def test_a_block_that_cannot_begin_keeps_only_the_reservation_of_a_callers_key(
    world: World, server: Any, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    guards = list[Any]()

    def interrupted(guard: Any) -> None:
        guards.append(guard)
        raise KeyboardInterrupt

    reservation = described(world, idempotency_key=key)
    with monkeypatch.context() as patch:
        patch.setattr("cycles._client.guard.GuardBase._enter", interrupted)
        with pytest.raises(KeyboardInterrupt):
            async with world.enter(reservation):
                raise AssertionError("never runs")
    reservation_id = guards[0].reservation_id
    await world.get(world.operations.flush())
    assert state_of(guards.pop()).heartbeat.ended
    gc.collect()
    await world.get(world.operations.flush())
    assert held(server) == (0 if key is None else 100)
    async with world.enter(reservation) as again:
        assert (again.reservation_id == reservation_id) is (key is not None)
    assert (spent(server), held(server)) == (7, 0)


async def test_a_reservation_that_was_denied_can_be_entered_again(world: World, server: Any) -> None:
    reservation = world.client.reserve(cycles.tokens(9_000_000), action=ACTION, actual=cycles.tokens(7))
    for _ in range(2):
        with pytest.raises(cycles.BudgetExceededError):
            async with world.enter(reservation):
                raise AssertionError("never runs")


async def test_entering_a_settled_guard_is_rejected(world: World) -> None:
    guard = await world.acquire(described(world))
    await world.get(guard.commit(cycles.tokens(1)))
    with pytest.raises(cycles.GuardFinalizedError, match=r"cannot enter: .* has ended \(commit\); reserve again"):
        async with world.enter(guard):
            raise AssertionError("never runs")
    assert cycles.current_guard() is None


async def test_entering_a_guard_inside_its_own_block_is_rejected_and_does_not_end_it(world: World) -> None:
    async with world.enter(described(world)) as guard:
        with pytest.raises(cycles.GuardFinalizedError, match=r"a block of .* is running"):
            async with world.enter(guard):
                raise AssertionError("never runs")
        assert guard.state == "active"
    assert guard.state == "committed"


async def test_wrapping_a_stream_on_a_settled_guard_is_rejected(world: World) -> None:
    guard = await world.acquire(described(world))
    await world.get(guard.release())
    with pytest.raises(cycles.GuardFinalizedError, match=r"cannot wrap a stream: .* has ended"):
        guard.wrap(iter(()))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
async def test_guards_reject_copy_and_pickle_and_name_detach(world: World, copied: Callable[[object], object]) -> None:
    guard = await world.acquire(described(world))
    with pytest.raises(TypeError, match=r"cannot be copied or pickled: .* pass guard.detach\(\)"):
        copied(guard)
    gc.collect()
    assert guard.state == "active"
    await world.get(guard.release())


@pytest.mark.parametrize("name", ["commit", "release", "extend", "spend", "wrap", "reservation_id"])
def test_using_a_reservation_as_its_guard_says_what_to_write(client: cycles.Cycles, name: str) -> None:
    reservation: Any = client.reserve(cycles.tokens(100), action=ACTION)
    with pytest.raises(
        cycles.InvalidRequestError, match=rf"write `with client.reserve\(...\) as guard:`.* guard.{name}"
    ):
        getattr(reservation, name)
    assert not hasattr(reservation, name)
    with pytest.raises(AttributeError, match="'Reservation' object has no attribute 'comit'"):
        reservation.comit  # noqa: B018


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


def test_an_exception_that_accepts_no_notes_leaves_the_block_unchanged(client: cycles.Cycles, server: Any) -> None:
    server.faults.status("release", 400)
    with pytest.raises(Frozen) as caught, client.reserve(cycles.tokens(100), action=ACTION):
        raise Frozen(5)
    assert caught.value.code == 5


def test_a_stream_whose_close_fails_keeps_an_exception_that_accepts_no_notes(client: cycles.Cycles) -> None:
    class Stream:
        def __iter__(self) -> Iterator[int]:
            yield 1
            raise Frozen(6)

        def close(self) -> None:
            raise OSError("no")

    with client.reserve(cycles.tokens(100), action=ACTION) as guard, pytest.raises(Frozen):
        list(guard.wrap(Stream()))


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expires_at_ms", "expected"), [(10**17, datetime.max.replace(tzinfo=UTC)), (0, EPOCH), (-(10**17), EPOCH)]
)
def test_expires_at_works_for_an_absurd_expiry(
    client: cycles.Cycles, monkeypatch: pytest.MonkeyPatch, expires_at_ms: int, expected: datetime
) -> None:
    with client.reserve(cycles.tokens(100), action=ACTION, actual=cycles.tokens(1)) as guard:
        monkeypatch.setattr(type(state_of(guard).heartbeat), "expires_at_ms", expires_at_ms)
        assert guard.expires_at == expected


@pytest.mark.parametrize("spent", [None, 3])
def test_the_log_record_of_a_dropped_guard_is_true(
    client: cycles.Cycles, caplog: pytest.LogCaptureFixture, spent: int | None
) -> None:
    guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    if spent is not None:
        guard.spend(cycles.tokens(spent))
    then = "its budget is released" if spent is None else "its known spend of 3 tokens is committed"
    reported = threading.Event()
    client.on_event(lambda event: reported.set() if isinstance(event, cycles.events.GuardNotCommitted) else None)
    caplog.set_level(logging.WARNING, "cycles")
    with pytest.warns(ResourceWarning, match=then) as warned:
        guard = None  # type: ignore[assignment]
    assert [each.filename for each in warned] == [__file__]  # the line that drops it
    assert reported.wait(30)
    [record] = [message for message in caplog.messages if "dropped" in message]
    assert record.endswith("its budget is released" if spent is None else "its known spend is committed")


def test_a_subject_block_may_be_left_in_another_context_than_it_was_entered_in() -> None:
    stack = ExitStack()
    contextvars.copy_context().run(stack.enter_context, cycles.subject(agent="planner"))
    with cycles.subject(agent="writer") as own:
        stack.close()
        assert current_subject() == own
    assert current_subject() is None


async def hold(client: cycles.Cycles, seen: list[Any]) -> None:
    async with client.reserve(cycles.tokens(100), action=ACTION) as guard:
        seen.append(guard)
        await asyncio.get_running_loop().create_future()


async def test_closing_a_coroutine_in_a_running_event_loop_raises_and_logs_nothing(
    aclient: cycles.Cycles, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults.delay("release", 0.05)  # a response that the coroutine would have to wait for
    seen = list[Any]()
    coroutine = hold(aclient, seen)
    task = asyncio.ensure_future(drive(coroutine, seen))
    await task
    coroutine.close()
    await aclient.aio.flush()
    assert seen[0].state == "released"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def drive(coroutine: Any, seen: list[Any]) -> None:
    """Run a coroutine until it is in its block, as a task would, and leave it there."""
    while not seen:
        future = coroutine.send(None)
        if future is not None and not seen:
            future._asyncio_future_blocking = False
            await asyncio.wait([future])
        elif future is None:
            await asyncio.sleep(0)


@pytest.mark.parametrize("method", ["close", "throw"])
def test_a_generator_whose_caller_closes_it_often_is_never_taken_for_a_dropped_one(method: str) -> None:
    dropped: list[bool] = []

    def numbers() -> Iterator[int]:
        try:
            yield 1
        except GeneratorExit:
            dropped.append(generator_dropped(sys._getframe()))
            raise

    def use() -> None:
        items: Any = numbers()
        next(items)
        if method == "close":
            items.close()
        else:
            with contextlib.suppress(GeneratorExit):
                items.throw(GeneratorExit)

    for _ in range(100):  # Python 3.11 executes another instruction for a call that it has made often
        use()
    assert dropped == [False] * 100


async def test_closing_an_async_generator_settles_before_aclose_returns(aclient: cycles.Cycles) -> None:
    seen = list[Any]()

    async def numbers() -> AsyncIterator[int]:
        async with aclient.reserve(cycles.tokens(100), action=ACTION) as guard:
            seen.append(guard)
            yield 1
            yield 2

    items: Any = numbers()
    assert await anext(items) == 1
    await items.aclose()
    assert seen[0].state == "released"
