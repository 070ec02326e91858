"""Guarded generators hold their reservation from the first step to the last, and settle however they end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

import cycles
from tests.support.waiting import PATIENCE_S

from .conftest import ACTION, World, held, spent

pytestmark = pytest.mark.anyio


def words(n: int = 3) -> Iterator[str]:
    for i in range(n):
        guard = cycles.current_guard()
        assert guard is not None
        guard.usage.add(tokens_output=1)
        yield f"word {i}"


def counted(usage: cycles.Usage) -> cycles.Amount:
    return cycles.tokens(usage.tokens_output)


async def test_a_generator_holds_its_reservation_until_it_is_exhausted(world: World, server: Any) -> None:
    guarded = world.client.guarded(cycles.tokens(50), action=ACTION, actual=counted)(world.generator(words))
    stream = guarded(n=2)
    assert held(server) == 0
    assert await world.next(stream) == "word 0"
    assert held(server) == 50
    assert cycles.current_guard() is None
    assert await world.all(stream) == ["word 1"]
    assert (spent(server), held(server)) == (2, 0)


async def test_between_its_steps_the_guard_of_the_block_around_a_generator_is_the_current_one(world: World) -> None:
    guarded = world.client.guarded(cycles.tokens(50), action=ACTION, actual=counted)(world.generator(words))
    async with world.enter(world.reserve(actual=cycles.tokens(1))) as outer:
        exhausted, closed = guarded(n=2), guarded()
        for stream in (exhausted, closed):
            await world.next(stream)
            assert cycles.current_guard() is outer
        await world.all(exhausted)
        assert cycles.current_guard() is outer
        await world.close(closed)
        assert cycles.current_guard() is outer


async def test_a_generator_without_actual_commits_its_estimate(world: World, server: Any) -> None:
    guarded = world.client.guarded(cycles.tokens(50), action=ACTION)(world.generator(words))
    await world.all(guarded())
    assert spent(server) == 50


@pytest.mark.parametrize(("actual", "charged", "mark"), [(counted, 2, {"outcome": "closed"}), (None, 0, None)])
async def test_a_generator_that_is_closed_early_settles_what_is_known(
    world: World, server: Any, actual: Any, charged: int, mark: Any
) -> None:
    stream = world.client.guarded(cycles.tokens(50), action=ACTION, actual=actual)(world.generator(words))()
    await world.next(stream)
    await world.next(stream)
    await world.close(stream)
    assert (spent(server), held(server)) == (charged, 0)
    [row] = await world.all(world.operations.reservations())
    assert (await world.get(world.operations.reservation(row.reservation_id))).committed_metadata == mark


async def test_a_generators_cleanup_still_sees_its_guard(world: World, server: Any) -> None:
    def tidy() -> Iterator[int]:
        try:
            yield 1
        finally:
            cycles.current_guard().spend(cycles.tokens(6))  # type: ignore[union-attr]

    stream = world.client.guarded(cycles.tokens(50), action=ACTION)(tidy if not world.is_async else atidy)()
    await world.next(stream)
    await world.close(stream)
    assert (spent(server), held(server)) == (6, 0)


async def atidy() -> AsyncIterator[int]:
    try:
        yield 1
    finally:
        cycles.current_guard().spend(cycles.tokens(6))  # type: ignore[union-attr]


async def test_a_generator_that_fails_settles_what_is_known(world: World, server: Any) -> None:
    def fail() -> Iterator[int]:
        cycles.current_guard().spend(cycles.tokens(4))  # type: ignore[union-attr]
        yield 1
        raise KeyError("mine")

    stream = world.client.guarded(cycles.tokens(50), action=ACTION)(world.generator(fail))()
    await world.next(stream)
    with pytest.raises(KeyError, match="mine"):
        await world.next(stream)
    assert (spent(server), held(server)) == (4, 0)


def test_send_throw_and_return_pass_through(client: cycles.Cycles, server: Any) -> None:
    @client.guarded(cycles.tokens(50), action=ACTION, actual=cycles.tokens(1))
    def talk() -> Any:
        said = yield "hello"
        try:
            yield said
        except KeyError as error:
            yield f"caught {error}"
        return "bye"

    stream = talk()
    assert next(stream) == "hello"
    assert stream.send("hi") == "hi"
    assert stream.throw(KeyError("x")) == "caught 'x'"
    with pytest.raises(StopIteration) as end:
        next(stream)
    assert end.value.value == "bye"
    assert spent(server) == 1


async def test_asend_athrow_and_aclose_pass_through(client: cycles.Cycles, server: Any) -> None:
    closed: list[str] = []

    @client.guarded(cycles.tokens(50), action=ACTION, actual=cycles.tokens(1))
    async def talk() -> Any:
        try:
            said = yield "hello"
            try:
                yield said
            except KeyError as error:
                yield f"caught {error}"
        finally:
            closed.append("closed")

    stream = talk()
    assert await anext(stream) == "hello"
    assert await stream.asend("hi") == "hi"
    assert await stream.athrow(KeyError("x")) == "caught 'x'"
    await stream.aclose()
    assert closed == ["closed"]
    assert (spent(server), held(server)) == (0, 0)


async def test_all_that_is_thrown_into_a_generator_ends_its_body_before_its_guard(world: World, server: Any) -> None:
    class Left(BaseException):
        pass

    def talk() -> Iterator[str]:
        try:
            yield "hello"
        finally:
            cycles.current_guard().spend(cycles.tokens(6))  # type: ignore[union-attr]

    async def talk_async() -> AsyncIterator[str]:
        try:
            yield "hello"
        finally:
            cycles.current_guard().spend(cycles.tokens(6))  # type: ignore[union-attr]

    guarded: Any = world.client.guarded(cycles.tokens(50), action=ACTION)
    stream = guarded(talk_async if world.is_async else talk)()
    await world.next(stream)
    with pytest.raises(Left):
        await world.get(stream.athrow(Left) if world.is_async else stream.throw(Left))
    assert (spent(server), held(server)) == (6, 0)


async def test_interleaved_generators_have_separate_guards(world: World) -> None:
    def mine() -> Iterator[Any]:
        for _ in range(2):
            yield cycles.current_guard()

    guarded = world.client.guarded(cycles.tokens(5), action=ACTION)(world.generator(mine))
    first, second = guarded(), guarded()
    seen = [await world.next(stream) for stream in (first, second, first, second)]
    assert seen[0] is seen[2] is not seen[1] is seen[3]
    await world.close(first)
    await world.close(second)


def test_a_generator_that_is_dropped_settles(client: cycles.Cycles, server: Any) -> None:
    guarded = client.guarded(cycles.tokens(50), action=ACTION, actual=counted)(words)
    for _ in guarded():
        break
    gc.collect()
    client.flush()  # the garbage collector waits for no request
    assert (spent(server), held(server)) == (1, 0)


async def test_a_generator_whose_reader_is_cancelled_settles(client: cycles.Cycles, server: Any) -> None:
    started = asyncio.Event()

    @client.guarded(cycles.tokens(50), action=ACTION, actual=counted)
    async def slow() -> AsyncIterator[int]:
        cycles.current_guard().usage.add(tokens_output=3)  # type: ignore[union-attr]
        yield 1
        started.set()
        await asyncio.Event().wait()

    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def stop() -> None:
                await started.wait()
                scope.cancel()

            group.start_soon(stop)
            async for _ in slow():
                pass
    assert scope.cancelled_caught
    await client.aio.flush(PATIENCE_S)
    assert (spent(server), held(server)) == (3, 0)


def test_a_denied_generator_does_not_run(client: cycles.Cycles) -> None:
    with pytest.raises(cycles.BudgetExceededError):
        next(client.guarded(cycles.tokens(10**9), action=ACTION)(words)())


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("ends", ["close", "throw"])
def test_a_block_in_nested_generators_is_settled_before_their_close_returns(
    client: cycles.Cycles, server: Any, levels: int, ends: str
) -> None:
    """The close of the outermost generator closes those inside: no other thread has to settle the guard."""
    guards: list[cycles.Guard] = []

    def steps(level: int) -> Iterator[int]:
        if level > 1:
            yield from steps(level - 1)
            return
        with client.reserve(cycles.tokens(50), action=ACTION) as guard:
            guards.append(guard)
            guard.spend(cycles.tokens(7))
            yield 1

    outermost: Any = steps(levels)
    assert next(outermost) == 1
    if ends == "close":
        outermost.close()
    else:
        with pytest.raises(GeneratorExit):
            outermost.throw(GeneratorExit)
    [guard] = guards
    assert (guard.state, spent(server), held(server)) == ("committed", 7, 0)
