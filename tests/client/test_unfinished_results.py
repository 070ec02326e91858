"""A decorated function whose result still has work to do is guarded until that work ends, not until it is returned."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

import cycles
from tests.client.conftest import ACTION, held, spent

pytestmark = pytest.mark.anyio


@pytest.fixture
def guarded(client: cycles.Cycles) -> Callable[[Any], Any]:
    return client.guarded(cycles.tokens(100), action=ACTION)


def numbers() -> Iterator[int]:
    guard = cycles.current_guard()
    assert guard is not None, "the body of the generator has the guard"
    guard.spend(cycles.tokens(3))
    yield 1
    guard.spend(cycles.tokens(4))
    yield 2


async def async_numbers() -> AsyncIterator[int]:
    for number in numbers():
        yield number


def between(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator between @guarded and the function, as libraries have them."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def test_a_generator_that_a_function_returns_is_guarded_until_it_is_exhausted(
    guarded: Callable[[Any], Any], server: cycles.EmbeddedServer
) -> None:
    @guarded
    def work() -> Iterator[int]:
        return numbers()

    items = work()
    assert cycles.current_guard() is None, "what the caller does between is not guarded"
    assert next(items) == 1
    assert cycles.current_guard() is None
    assert (spent(server), held(server)) == (0, 100)
    assert list(items) == [2]
    assert (spent(server), held(server)) == (7, 0)
    assert cycles.current_guard() is None


def test_a_decorator_between_guarded_and_a_generator_function_changes_nothing(
    guarded: Callable[[Any], Any], server: cycles.EmbeddedServer
) -> None:
    items = guarded(between(numbers))()
    assert next(items) == 1
    assert (spent(server), held(server)) == (0, 100)
    items.close()
    assert (spent(server), held(server)) == (3, 0)


def test_a_generator_that_is_returned_and_raises_commits_its_known_spend(
    guarded: Callable[[Any], Any], server: cycles.EmbeddedServer
) -> None:
    items = guarded(between(numbers))()
    next(items)
    with pytest.raises(KeyError):
        items.throw(KeyError("stop"))
    assert (spent(server), held(server)) == (3, 0)


def test_the_actual_of_a_generator_that_is_returned_takes_the_usage(
    client: cycles.Cycles, server: cycles.EmbeddedServer
) -> None:
    def count() -> Iterator[int]:
        guard = cycles.current_guard()
        assert guard is not None
        guard.usage.add(tokens_output=9)
        yield 1

    actual = lambda usage: cycles.tokens(usage.tokens_output)  # noqa: E731
    work = client.guarded(cycles.tokens(100), action=ACTION, actual=actual)(between(count))
    assert list(work()) == [1]
    assert spent(server) == 9


def test_a_context_manager_is_guarded_until_its_block_ends(
    guarded: Callable[[Any], Any], server: cycles.EmbeddedServer
) -> None:
    @guarded
    @contextmanager
    def session() -> Iterator[str]:
        yield "session"

    manager = session()
    assert (spent(server), held(server)) == (0, 100)
    with manager as value:
        assert value == "session"
        guard = cycles.current_guard()
        assert guard is not None
        guard.spend(cycles.tokens(5))
        assert (spent(server), held(server)) == (0, 100)
    assert (spent(server), held(server)) == (5, 0)
    with pytest.raises(ZeroDivisionError), session():
        raise ZeroDivisionError
    assert (spent(server), held(server)) == (5, 0)


async def test_an_async_context_manager_is_guarded_until_its_block_ends(
    guarded: Callable[[Any], Any], server: cycles.EmbeddedServer
) -> None:
    @guarded
    @asynccontextmanager
    async def session() -> AsyncIterator[str]:
        yield "session"

    async with session() as value:
        assert value == "session"
        assert (spent(server), held(server)) == (0, 100)
    assert (spent(server), held(server)) == (100, 0), "no amount was reported: the estimate"


async def test_a_coroutine_that_a_function_returns_is_guarded_until_it_is_awaited(
    client: cycles.Cycles, server: cycles.EmbeddedServer
) -> None:
    async def later() -> int:
        assert cycles.current_guard() is not None
        return 11

    work: Any = client.guarded(cycles.tokens(100), action=ACTION, actual=cycles.tokens)(lambda: later())
    result = work()
    assert (spent(server), held(server)) == (0, 100)
    assert await result == 11
    assert (spent(server), held(server)) == (11, 0)


async def test_a_coroutine_that_is_returned_and_raises_releases(
    guarded: Callable[[Any], Any], server: cycles.EmbeddedServer
) -> None:
    async def later() -> None:
        raise KeyError("stop")

    with pytest.raises(KeyError):
        await guarded(lambda: later())()
    assert (spent(server), held(server)) == (0, 0)


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_task_stays_itself_and_is_guarded_until_it_is_done(
    client: cycles.Cycles, server: cycles.EmbeddedServer, is_async: bool
) -> None:
    go = asyncio.Event()

    async def later() -> int:
        await go.wait()
        return 12

    def start() -> asyncio.Task[int]:
        return asyncio.ensure_future(later())

    async def start_async() -> asyncio.Task[int]:
        return start()

    guarded = client.guarded(cycles.tokens(100), action=ACTION, actual=cycles.tokens)
    task = await guarded(start_async)() if is_async else guarded(start)()
    assert isinstance(task, asyncio.Task)
    assert (spent(server), held(server)) == (0, 100)
    go.set()
    assert await task == 12
    await client.aio.flush()
    assert (spent(server), held(server)) == (12, 0)


@pytest.mark.parametrize("end", ["commit", "release"])
async def test_a_task_that_ends_its_guard_itself_settles_it_once(
    client: cycles.Cycles, server: cycles.EmbeddedServer, end: str
) -> None:
    def start() -> asyncio.Task[None]:
        guard: Any = cycles.current_guard()

        async def later() -> None:
            guard.commit(cycles.tokens(7)) if end == "commit" else guard.release()

        return asyncio.ensure_future(later())

    await client.guarded(cycles.tokens(100), action=ACTION)(start)()
    await client.aio.flush()
    assert [request.operation for request in server.requests] == ["reserve", end]
    assert (spent(server), held(server)) == (7 if end == "commit" else 0, 0)


async def test_a_task_that_is_cancelled_releases(
    guarded: Callable[[Any], Any], client: cycles.Cycles, server: Any
) -> None:
    task = guarded(lambda: asyncio.ensure_future(asyncio.Event().wait()))()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    await client.aio.flush()
    assert (spent(server), held(server)) == (0, 0)


def test_a_future_of_a_thread_pool_is_guarded_until_it_is_done(
    client: cycles.Cycles, server: cycles.EmbeddedServer
) -> None:
    with ThreadPoolExecutor(1) as pool:
        guarded = client.guarded(cycles.tokens(100), action=ACTION, actual=cycles.tokens)
        assert guarded(lambda: pool.submit(lambda: 13))().result() == 13
    client.flush()
    assert (spent(server), held(server)) == (13, 0)


@pytest.mark.parametrize("is_task", [False, True])
async def test_a_task_or_future_without_actual_commits_its_estimate_and_says_so(
    client: cycles.Cycles, server: cycles.EmbeddedServer, is_task: bool
) -> None:
    async def later() -> None:
        return None

    guarded = client.guarded(cycles.tokens(100), action=ACTION)
    if is_task:
        await guarded(lambda: asyncio.ensure_future(later()))()
    else:
        with ThreadPoolExecutor(1) as pool:
            guarded(lambda: pool.submit(int))()
    await client.aio.flush()
    assert (spent(server), held(server)) == (100, 0)
    (commit,) = server.requests.of("commit")
    assert commit.json["metadata"] == {"actual_source": "estimate"}


class Stream:
    """An async iterator as the libraries of providers return them: no generator."""

    def __init__(self) -> None:
        self.left = [2, 1]
        self.closed = False

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> int:
        if not self.left:
            raise StopAsyncIteration
        guard = cycles.current_guard()
        assert guard is not None
        guard.spend(cycles.tokens(5))
        return self.left.pop()

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("make", [async_numbers, Stream])
async def test_an_async_iterator_that_a_coroutine_function_returns_is_guarded_until_it_ends(
    guarded: Callable[[Any], Any], server: cycles.EmbeddedServer, make: Callable[[], Any]
) -> None:
    @guarded
    async def work() -> Any:
        return make()

    items = await work()
    assert cycles.current_guard() is None, "what the caller does between is not guarded"
    assert await anext(items) == 1
    assert cycles.current_guard() is None
    assert (spent(server), held(server)) == (0, 100)
    assert [item async for item in items] == [2]
    assert (spent(server), held(server)) == (7 if make is async_numbers else 10, 0)


async def test_an_async_iterator_that_is_closed_early_is_closed_and_settled(
    guarded: Callable[[Any], Any], server: cycles.EmbeddedServer
) -> None:
    stream = Stream()

    @guarded
    async def work() -> Any:
        return stream

    items = await work()
    assert await anext(items) == 1
    await items.aclose()
    assert stream.closed
    assert (spent(server), held(server)) == (5, 0)


async def test_an_async_generator_that_a_function_returns_is_guarded_until_it_ends(
    guarded: Callable[[Any], Any], server: cycles.EmbeddedServer
) -> None:
    items = guarded(between(async_numbers))()
    assert await anext(items) == 1
    assert (spent(server), held(server)) == (0, 100)
    assert [item async for item in items] == [2]
    assert (spent(server), held(server)) == (7, 0)


async def test_a_generator_that_a_coroutine_function_returns_is_guarded_until_it_ends(
    guarded: Callable[[Any], Any], server: cycles.EmbeddedServer
) -> None:
    @guarded
    async def work() -> Iterator[int]:
        return numbers()

    items = await work()
    assert list(items) == [1, 2]
    assert (spent(server), held(server)) == (7, 0)


class Iterable:
    """What `async for` accepts and `anext` does not: each loop makes its own iterator."""

    def __aiter__(self) -> Stream:
        return Stream()


class Half:
    """What `anext` accepts and `async for` does not."""

    async def __anext__(self) -> int:
        return 1


@pytest.mark.parametrize("value", [5, "text", [1, 2], None, open, iter([1]), Iterable(), Half()])
def test_a_value_is_returned_unchanged_and_settled_immediately(
    guarded: Callable[[Any], Any], server: cycles.EmbeddedServer, value: object
) -> None:
    assert guarded(lambda: value)() is value
    assert (spent(server), held(server)) == (100, 0)


def test_a_file_is_a_value_although_it_is_a_context_manager(
    guarded: Callable[[Any], Any], server: cycles.EmbeddedServer, tmp_path: Any
) -> None:
    with (tmp_path / "file").open("w") as file:
        assert guarded(lambda: file)() is file
        assert held(server) == 0


async def test_an_iterator_that_takes_no_exception_is_closed_if_one_is_thrown(
    guarded: Callable[[Any], Any], server: cycles.EmbeddedServer
) -> None:
    class Items:
        closed = False

        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            return 1

        async def aclose(self) -> None:
            self.closed = True

    items = Items()

    @guarded
    async def work() -> AsyncIterator[int]:
        return items

    stream = await work()
    assert await anext(stream) == 1
    with pytest.raises(KeyError):
        await stream.athrow(KeyError("x"))
    assert items.closed
    assert held(server) == 0
