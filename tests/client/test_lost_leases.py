"""What a lost lease does to streams and generators: they settle first, then the policy speaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import cycles
from tests.support.waiting import event_of

from .conftest import ACTION, World, held, spent

pytestmark = pytest.mark.anyio

# Too short for any retry: the heartbeat stops immediately and reports it (docs/protocol/heartbeat.md#short-leases).
SHORT_MS = 1_000


async def lose(world: World, guard: Any) -> None:
    """Wait until the lease of a guard is lost."""
    wait = event_of(world.client, "LeaseLost")
    if guard.lease_error is None:
        await asyncio.to_thread(wait)
    assert guard.lease_error is not None


def reserve(world: World, policy: Any, **options: Any) -> Any:
    return world.client.reserve(
        cycles.tokens(100), action=ACTION, ttl_ms=SHORT_MS, lease_policy=policy, actual=cycles.tokens(7), **options
    )


@pytest.mark.parametrize("policy", ["fail_on_finalize", "cancel"])
async def test_a_stream_settles_and_then_raises(world: World, server: Any, policy: str) -> None:
    guard = await world.acquire(reserve(world, policy))
    await lose(world, guard)
    stream = guard.wrap(world.generator(lambda: iter([1, 2]))())
    with pytest.raises(cycles.LeaseLostError):
        await world.all(stream)
    assert (spent(server), held(server)) == (7, 0)


@pytest.mark.parametrize("policy", ["warn", "fail_on_finalize"])
async def test_a_block_that_has_committed_by_itself_raises_too(world: World, server: Any, policy: str) -> None:
    with pytest.raises(cycles.LeaseLostError) if policy != "warn" else contextlib.nullcontext():
        async with world.enter(reserve(world, policy)) as guard:
            await lose(world, guard)
            await world.get(guard.commit(cycles.tokens(9)))
    assert (spent(server), held(server)) == (9, 0)


async def test_under_warn_a_stream_continues(world: World, server: Any) -> None:
    guard = await world.acquire(reserve(world, "warn"))
    await lose(world, guard)
    assert await world.all(guard.wrap(world.generator(lambda: iter([1, 2]))())) == [1, 2]
    assert guard.state == "committed"
    assert spent(server) == 7


@pytest.mark.parametrize("policy", ["fail_on_finalize", "cancel"])
async def test_a_generator_settles_and_then_raises(world: World, server: Any, policy: Any) -> None:
    def work() -> Iterator[Any]:
        yield cycles.current_guard()

    options = {"ttl_ms": SHORT_MS, "lease_policy": policy, "actual": cycles.tokens(7)}
    stream = world.client.guarded(cycles.tokens(100), action=ACTION, **options)(world.generator(work))()
    await lose(world, await world.next(stream))
    with pytest.raises(cycles.LeaseLostError):
        await world.all(stream)
    assert (spent(server), held(server)) == (7, 0)


async def test_cancel_stops_a_stream_in_its_block(client: cycles.Cycles, server: Any) -> None:
    async def endless() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    seen: list[int] = []
    with pytest.raises(cycles.LeaseLostError):
        async with reserve(World("async", client), "cancel") as guard:
            async for chunk in guard.wrap(endless(), usage=lambda chunk: {"tokens_output": 1}):
                seen.append(chunk)
    assert seen in ([], [1])
    assert held(server) == 0
    assert guard.state == "released"
