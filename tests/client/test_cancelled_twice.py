"""A task that is cancelled at any step, and again at one of the next: nothing is held, and what is known is charged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

import pytest

import cycles
from cycles.integrations._options import Common
from cycles.integrations._work import Work
from cycles.proxy._clients import LedgerClient
from tests.support.short import IS_SHORT
from tests.support.waiting import PATIENCE_S

from .conftest import ACTION, held, spent

T = cycles.tokens
Known = Callable[[int], None]
LATER = (1, 2) if IS_SHORT else range(1, 9)
"""How many steps after the first cancellation the second one comes."""


class Cancelled:
    """Runs a flow in its task, and cancels the task at some of the steps at which it waits."""

    def __init__(self, flow: Awaitable[Any], *steps: int) -> None:
        self._flow = flow
        self._steps = steps
        self.count = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        flow = self._flow.__await__()
        resume: Callable[[], Any] = lambda: next(flow)  # noqa: E731
        task = asyncio.current_task()
        assert task is not None
        while True:
            try:
                waits_for = resume()
            except StopIteration as end:
                return end.value
            if self.count in self._steps:
                task.cancel()
            self.count += 1
            resume = lambda: next(flow)  # noqa: E731
            try:
                yield waits_for
            except BaseException as error:
                resume = lambda error=error: flow.throw(error)  # type: ignore[misc]  # noqa: E731


class Waits(LedgerClient):
    """A server that takes a step of the event loop before and after it has a request."""

    async def send(self, request: Any, limits: Any) -> Any:
        await asyncio.sleep(0)
        response = await super().send(request, limits)
        await asyncio.sleep(0)
        return response


class Source:
    """A stream of three chunks, of 10 tokens each, that takes steps to read and to close."""

    def __init__(self) -> None:
        self.read = 0

    def __aiter__(self) -> AsyncIterator[dict[str, int]]:
        return self

    async def __anext__(self) -> dict[str, int]:
        await asyncio.sleep(0)
        if self.read == 3:
            raise StopAsyncIteration
        self.read += 1
        return {"tokens_output": 10}

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def _total(usage: cycles.Usage) -> cycles.Amount:
    return T(usage.tokens_output)


async def a_block(client: cycles.Cycles, known: Known) -> None:
    async with client.reserve(T(100), action=ACTION) as guard:
        for _ in range(2):
            guard.spend(T(10))
            known(10)
            await asyncio.sleep(0)


async def a_stream(client: cycles.Cycles, known: Known) -> None:
    guard = await client.reserve(T(100), action=ACTION, actual=_total)
    async with contextlib.aclosing(guard.wrap(Source(), usage=lambda chunk: chunk)) as stream:
        async for _ in stream:
            known(10)


async def a_guarded_function(client: cycles.Cycles, known: Known) -> None:
    @client.guarded(T(100), action=ACTION)
    async def work() -> None:
        guard = cycles.current_guard()
        assert guard is not None
        try:
            guard.spend(T(10))
            known(10)
            await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)

    await work()


async def a_guarded_generator(client: cycles.Cycles, known: Known) -> None:
    @client.guarded(T(100), action=ACTION)
    async def words() -> AsyncGenerator[str, None]:
        guard = cycles.current_guard()
        assert guard is not None
        try:
            for word in ("one", "two"):
                guard.spend(T(10))
                known(10)
                yield word
        finally:
            await asyncio.sleep(0)

    async with contextlib.aclosing(words()) as stream:
        async for _ in stream:
            await asyncio.sleep(0)


async def a_series(client: cycles.Cycles, known: Known) -> None:
    async with client.lease_series(T(10), action=ACTION) as series:
        for _ in range(2):
            (await series.next()).spend(T(10))
            known(10)


async def a_stream_of_an_integration(client: cycles.Cycles, known: Known) -> None:
    def read(chunk: Any, usage: cycles.Usage) -> bool:
        usage.add(**chunk)
        return True

    def denied(error: Exception) -> None:
        raise error

    work = Work(common=Common(client, None, None, {}), estimate=T(100), action=ACTION, denied=denied, read=read)
    async with contextlib.aclosing(work.astream(lambda _: Source())) as stream:
        async for _ in stream:
            known(10)


WORK = [a_block, a_stream, a_guarded_function, a_guarded_generator, a_series, a_stream_of_an_integration]


@pytest.fixture
def place() -> Iterator[tuple[cycles.EmbeddedServer, Callable[[], cycles.Cycles]]]:
    with cycles.EmbeddedServer({"tenant:acme": T(10**9)}) as server:
        yield server, lambda: server.client(async_http_client=Waits(server))


@pytest.mark.parametrize("work", WORK)
def test_a_task_that_is_cancelled_twice(place: Any, work: Callable[[cycles.Cycles, Known], Awaitable[None]]) -> None:
    server, client_of = place
    before, tried = 0, 0

    async def run(client: cycles.Cycles, *steps: int) -> bool:
        """Return whether it was cancelled."""
        nonlocal before, tried
        amounts: list[int] = []
        flow = Cancelled(work(client, amounts.append), *steps)
        task = asyncio.ensure_future(_awaited(flow))
        await asyncio.wait([task])
        report = await client.aio.flush(PATIENCE_S)
        charged, before = spent(server) - before, spent(server)
        assert (report.pending, held(server)) == (0, 0), f"cancelled at {steps}"
        assert sum(amounts) <= charged <= sum(amounts) + 10, f"cancelled at {steps}"
        with contextlib.suppress(asyncio.CancelledError):
            task.result()  # raises what is no cancellation
        tried += 1
        return flow.count > steps[0]

    async def main() -> None:
        async with client_of() as client:
            first = 0
            while await run(client, first):
                for later in LATER:
                    await run(client, first, first + later)
                first += 1

    asyncio.run(main())
    assert tried > 10


async def _awaited(flow: Cancelled) -> None:
    await flow
