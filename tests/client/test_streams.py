"""`guard.wrap(stream)`: chunks pass through, usage is read, and the guard settles however the stream ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from tests.support.waiting import set_by

from .conftest import ACTION, World, held, spent

pytestmark = pytest.mark.anyio


class Source:
    """A stream as SDKs have them: chunks with usage at the end, closable, with attributes of its own."""

    status = 200

    def __init__(self, world: World, *, fail: bool = False) -> None:
        self.closed = False
        self.fail = fail
        self.world = world

    def chunks(self) -> Iterator[Any]:
        for written in (1, 2, 3):
            yield {"id": "a", "model": "small-model", "usage": {"prompt_tokens": 10, "completion_tokens": written}}
            if self.fail and written == 2:
                raise ConnectionError("broken off")

    def __call__(self) -> Any:
        source = self

        class Blocking:
            status = Source.status

            def __init__(self) -> None:
                self.items = source.chunks()

            def __iter__(self) -> Any:
                return self

            def __next__(self) -> Any:
                return next(self.items)

            def close(self) -> None:
                source.closed = True

        class Later(Blocking):
            def __aiter__(self) -> Any:
                return self

            async def __anext__(self) -> Any:
                await asyncio.sleep(0)
                try:
                    return next(self.items)
                except StopIteration:
                    raise StopAsyncIteration from None

            async def aclose(self) -> None:
                source.closed = True

        return Later() if self.world.is_async else Blocking()


def total(usage: cycles.Usage) -> cycles.Amount:
    return cycles.tokens(usage.tokens_input + usage.tokens_output)


def reserve(world: World, **options: Any) -> Any:
    return world.client.reserve(cycles.tokens(100), action=ACTION, **{"actual": total, **options})


async def test_an_exhausted_stream_settles_its_guard(world: World, server: Any) -> None:
    async with world.enter(reserve(world)) as guard:
        stream = guard.wrap(Source(world)(), usage=cycles.usage.openai)
        assert stream.status == 200
        assert len(await world.all(stream)) == 3
        assert guard.state == "committed"
    assert guard.settlement.charged == cycles.tokens(13)
    assert (spent(server), held(server)) == (13, 0)
    detail = await world.get(world.operations.reservation(guard.reservation_id))
    assert detail.status == "COMMITTED"


async def test_counts_that_grow_with_each_chunk_without_an_id_are_charged_once(world: World, server: Any) -> None:
    deltas = [{"type": "message_delta", "usage": {"input_tokens": 10, "output_tokens": written}} for written in (1, 3)]
    guard = await world.acquire(reserve(world))
    await world.all(guard.wrap(world.generator(lambda: iter(deltas))(), usage=cycles.usage.anthropic))
    assert spent(server) == 13


async def test_a_stream_needs_no_block(world: World, server: Any) -> None:
    guard = await world.acquire(reserve(world))
    await world.all(guard.wrap(Source(world)(), usage=cycles.usage.openai))
    assert spent(server) == 13


def test_a_built_in_function_may_read_the_usage(client: cycles.Cycles) -> None:
    """Python does not know the parameters of `dict`."""
    guard = client.reserve(cycles.tokens(100), action=ACTION, actual=total).acquire()
    for _ in guard.wrap(iter([{"tokens_output": 3}, {"tokens_output": 4}]), usage=dict):
        pass
    assert guard.usage.tokens_output == 7
    assert guard.state == "committed"


@pytest.mark.parametrize("taken", [0, 2])
async def test_a_stream_closed_early_settles_what_is_known(world: World, server: Any, taken: int) -> None:
    source = Source(world)
    guard = await world.acquire(reserve(world))
    stream = guard.wrap(source(), usage=cycles.usage.openai)
    for _ in range(taken):
        await world.next(stream)
    await world.close(stream)
    await world.close(stream)
    assert source.closed
    assert (spent(server), held(server)) == ((12, 0) if taken else (0, 0))
    assert guard.state == ("committed" if taken else "released")


async def test_a_stream_closes_at_the_end_of_its_block_and_settles_what_is_known(world: World, server: Any) -> None:
    source = Source(world)
    guard = await world.acquire(reserve(world))
    async with world.enter(guard.wrap(source(), usage=cycles.usage.openai)) as stream:
        await world.next(stream)
    assert source.closed
    assert guard.state == "committed"
    assert (spent(server), held(server)) == (11, 0)


async def test_a_stream_that_breaks_off_settles_and_its_error_propagates(world: World, server: Any) -> None:
    guard = await world.acquire(reserve(world))
    with pytest.raises(ConnectionError, match="broken off"):
        await world.all(guard.wrap(Source(world, fail=True)(), usage=cycles.usage.openai))
    assert (spent(server), held(server)) == (12, 0)


def test_a_stream_that_is_dropped_settles(client: cycles.Cycles, server: Any) -> None:
    world = World("sync", client)
    guard = reserve(world).acquire()
    for _ in guard.wrap(Source(world)(), usage=cycles.usage.openai):
        break
    gc.collect()
    client.flush()  # the garbage collector waits for no request
    assert (spent(server), held(server)) == (11, 0)


async def test_an_async_stream_that_is_dropped_settles(client: cycles.Cycles, server: Any) -> None:
    world = World("async", client)
    guard = await reserve(world)
    async for _ in guard.wrap(Source(world)(), usage=cycles.usage.openai):
        break
    gc.collect()
    async with asyncio.timeout(60):
        while guard.state == "active":
            await asyncio.sleep(0)
        while not spent(server):
            await asyncio.sleep(0)
    assert (spent(server), held(server)) == (11, 0)


async def test_a_cancelled_reader_settles_what_is_known(client: cycles.Cycles, server: Any) -> None:
    started = asyncio.Event()

    async def slow() -> Any:
        yield {"usage": {"prompt_tokens": 10, "completion_tokens": 2}}
        started.set()
        await asyncio.Event().wait()

    guard = await reserve(World("async", client))

    async def read() -> None:
        async for _ in guard.wrap(slow(), usage=cycles.usage.openai):
            pass

    task = asyncio.create_task(read())
    await set_by(task, started)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (spent(server), held(server)) == (12, 0)


async def test_a_reader_that_is_cancelled_again_while_its_stream_closes_settles(
    client: cycles.Cycles, server: Any
) -> None:
    reading, closing = asyncio.Event(), asyncio.Event()

    class Slow:
        async def __aiter__(self) -> Any:
            yield {"usage": {"prompt_tokens": 10, "completion_tokens": 2}}
            reading.set()
            await asyncio.Event().wait()

        async def aclose(self) -> None:
            closing.set()
            await asyncio.Event().wait()

    guard = await reserve(World("async", client))

    async def read() -> None:
        async for _ in guard.wrap(Slow(), usage=cycles.usage.openai):
            pass

    task = asyncio.create_task(read())
    for moment in (reading, closing):
        await set_by(task, moment)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (spent(server), held(server)) == (12, 0)


@pytest.mark.parametrize(
    "reader",
    [
        lambda chunk, usage: usage.add(tokens_output=1),
        lambda chunk: {"tokens_output": 1},
        lambda chunk, usage=None: usage.add(tokens_output=1),
    ],
)
async def test_a_reader_of_ones_own(world: World, server: Any, reader: Any) -> None:
    guard = await world.acquire(reserve(world))
    await world.all(guard.wrap(Source(world)(), usage=reader))
    assert spent(server) == 3


async def test_several_streams_under_one_guard_add_up(world: World, server: Any) -> None:
    async with world.enter(reserve(world)) as guard:
        first = guard.wrap(Source(world)(), usage=lambda chunk: {"tokens_output": 1}, settle=False)
        assert len(await world.all(first)) == 3
        assert guard.state == "active"
        await world.all(guard.wrap(Source(world)(), usage=lambda chunk: {"tokens_output": 1}))
    assert spent(server) == 6


async def test_responses_without_ids_are_distinguished_by_their_streams(world: World, server: Any) -> None:
    def answer() -> Iterator[Any]:
        yield {"usage": {"completion_tokens": 4}}

    async with world.enter(reserve(world)) as guard:
        for _ in range(2):
            chunks = world.generator(answer)()
            await world.all(guard.wrap(chunks, usage=cycles.usage.openai, settle=False))
    assert spent(server) == 8


async def test_spend_in_the_loop_wins(world: World, server: Any) -> None:
    guard = await world.acquire(reserve(world))
    stream = guard.wrap(Source(world)())
    await world.next(stream)
    guard.spend(cycles.tokens(5))
    await world.all(stream)
    assert spent(server) == 5


async def test_a_guard_settled_in_the_loop_is_left_alone(world: World, server: Any) -> None:
    guard = await world.acquire(reserve(world))
    stream = guard.wrap(Source(world)(), usage=cycles.usage.openai)
    await world.next(stream)
    await world.get(guard.commit(cycles.tokens(8)))
    await world.all(stream)
    assert spent(server) == 8


async def test_sync_streams_on_async_guards_and_the_reverse_are_rejected(world: World) -> None:
    async def later() -> Any:
        yield 1

    guard = await world.acquire(reserve(world))
    with pytest.raises(cycles.InvalidRequestError, match=r"with client\.reserve"):
        guard.wrap(iter([1]) if world.is_async else later())
    with pytest.raises(cycles.InvalidRequestError, match="usage"):
        guard.wrap(Source(world)(), usage=5)
    await world.get(guard.release())


async def test_a_price_book_settles_a_stream(world: World, server: Any) -> None:
    prices = cycles.PriceBook({"small-model": cycles.Price(input="1", output="2")})
    reservation = world.client.reserve(cycles.usd("0.01"), action=ACTION, actual=prices)
    async with world.enter(reservation) as guard:
        await world.all(guard.wrap(Source(world)(), usage=cycles.usage.openai))
    assert guard.settlement.charged == cycles.usd("0.000016")


async def test_a_stream_that_cannot_be_closed_hides_nothing(world: World, server: Any) -> None:
    source = Source(world, fail=True)()

    def close() -> None:
        raise OSError("socket trouble")

    source.close = source.aclose = close
    guard = await world.acquire(reserve(world))
    with pytest.raises(ConnectionError, match="broken off") as caught:
        await world.all(guard.wrap(source, usage=cycles.usage.openai))
    assert "socket trouble" in caught.value.__notes__[0]
    assert (spent(server), held(server)) == (12, 0)


async def test_a_stream_whose_close_is_interrupted_settles(world: World, server: Any) -> None:
    class Left(BaseException):
        pass

    source = Source(world)()

    def close() -> None:
        raise Left

    setattr(source, "aclose" if world.is_async else "close", close)
    guard = await world.acquire(reserve(world))
    stream = guard.wrap(source)
    await world.next(stream)
    guard.spend(cycles.tokens(12))
    with pytest.raises(Left):
        await world.close(stream)
    assert (spent(server), held(server)) == (12, 0)


@pytest.mark.parametrize(
    "reader",
    [lambda chunk, usage: usage.add(tokens_output=-1), lambda chunk: {"tokens_output": 2.5}],
    ids=["below zero", "a fraction"],
)
async def test_a_reader_that_fails_breaks_the_stream_off(world: World, server: Any, reader: Any) -> None:
    guard = await world.acquire(reserve(world))
    stream = guard.wrap(Source(world)(), usage=reader)
    with pytest.raises(cycles.InvalidRequestError, match="tokens_output"):
        await world.next(stream)
    assert guard.state == "released"
    assert held(server) == 0


def test_objects_are_read_like_mappings() -> None:
    usage = cycles.usage.openai(SimpleNamespace(usage=SimpleNamespace(prompt_tokens=1, completion_tokens=2)))
    assert (usage.tokens_input, usage.tokens_output) == (1, 2)
