"""Async code where no event loop of asyncio runs: under trio, or driven by hand. One error says what to do."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import cycles

from .conftest import ACTION, held, spent

TEN = cycles.tokens(10)


async def enter(client: cycles.Cycles) -> None:
    async with client.reserve(TEN, action=ACTION):
        pass


async def acquire(client: cycles.Cycles) -> None:
    await client.reserve(TEN, action=ACTION)


async def from_a_pool(client: cycles.Cycles) -> None:
    async with client.pool(cycles.tokens(100), action=ACTION).reserve(TEN):
        pass


async def from_a_series(client: cycles.Cycles) -> None:
    async with client.lease_series(TEN, action=ACTION) as series:
        await series.next()


async def guarded(client: cycles.Cycles) -> None:
    @client.guarded(TEN, action=ACTION)
    async def work() -> None:
        raise AssertionError("it ran")

    await work()


async def guarded_generator(client: cycles.Cycles) -> None:
    @client.guarded(TEN, action=ACTION)
    async def work() -> Any:
        yield 1

    async for _ in work():
        raise AssertionError("it ran")


async def balances(client: cycles.Cycles) -> None:
    async for _ in client.aio.balances():
        raise AssertionError("it was sent")


USES: dict[str, Callable[[cycles.Cycles], Coroutine[Any, Any, object]]] = {
    "enter": enter,
    "acquire": acquire,
    "pool": from_a_pool,
    "series": from_a_series,
    "guarded": guarded,
    "generator": guarded_generator,
    "balances": balances,
    "decide": lambda client: client.aio.decide(TEN, action=ACTION),
    "record": lambda client: client.aio.record(TEN, action=ACTION),
    "raw": lambda client: client.aio.raw("getReservation", reservation_id="r"),
    "flush": lambda client: client.aio.flush(1.0),
    "pending": lambda client: client.aio.pending(),
    "aclose": lambda client: client.aclose(),
}


def drive(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine without an event loop, as another library of async code would."""
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


@pytest.mark.parametrize("use", USES)
def test_one_error_says_what_to_do(client: cycles.Cycles, server: cycles.EmbeddedServer, use: str) -> None:
    with pytest.raises(cycles.CyclesError, match=r"no event loop of asyncio.*asyncio\.run.*threads") as raised:
        drive(USES[use](client))
    assert isinstance(raised.value, RuntimeError)
    assert str(copy.copy(raised.value)) == str(raised.value)
    assert len(server.requests) == 0
    assert client.reserve(TEN, action=ACTION).acquire().commit(TEN).status == "committed"


def test_a_reservation_can_be_used_afterwards(client: cycles.Cycles, server: cycles.EmbeddedServer) -> None:
    reservation = client.reserve(TEN, action=ACTION, actual=TEN)

    async def use() -> None:
        async with reservation:
            pass

    with pytest.raises(cycles.CyclesError, match="asyncio"):
        drive(use())
    asyncio.run(use())
    assert (spent(server), held(server)) == (10, 0)


@pytest.mark.parametrize("method", ["commit", "release", "extend", "end"])
def test_an_async_guard_outside_of_its_loop(client: cycles.Cycles, method: str) -> None:
    async def acquire() -> Any:
        return await client.reserve(TEN, action=ACTION)

    guard = asyncio.run(acquire())
    with pytest.raises(cycles.CyclesError, match="asyncio"):
        drive(getattr(guard, method)(*([TEN] if method == "commit" else [])))
    assert guard.state == "active"
    asyncio.run(guard.release())
    assert guard.state == "released"


def test_the_client_of_the_admin_plane(server: cycles.EmbeddedServer) -> None:
    admin = cycles.Admin(base_url="http://127.0.0.1:9", api_key="k")
    with pytest.raises(cycles.CyclesError, match="asyncio"):
        drive(admin.aio.tenant("acme"))
    with pytest.raises(cycles.CyclesError, match="asyncio"):
        drive(admin.aclose())
    admin.close()
