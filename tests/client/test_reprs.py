"""`repr` and `str` of every public object work in every state: a traceback with local variables calls them."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cycles
from cycles._client.pool import Pool, PooledAsyncGuard, PooledGuard, PooledReservation
from cycles._flows.run_limit import RunLimit

from .conftest import ACTION, World

pytestmark = pytest.mark.anyio

MODULES = [cycles, cycles.admin, cycles.events, cycles.journal, cycles.prices, cycles.providers,
           cycles.testing, cycles.usage]  # fmt: skip


def public_classes() -> Iterator[type[Any]]:
    for module in MODULES:
        for name in getattr(module, "__all__", dir(module)):
            value = getattr(module, name)
            if inspect.isclass(value) and value.__module__.startswith("cycles") and not name.startswith("_"):
                yield value
    yield from (Pool, PooledGuard, PooledAsyncGuard, PooledReservation, RunLimit)


def shown(error: BaseException) -> str:
    """The traceback with the local variables of its frames, as a crash reporter writes it."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


@pytest.mark.parametrize("cls", sorted(set(public_classes()), key=str), ids=lambda cls: cls.__qualname__)
def test_an_object_that_was_not_initialized_can_be_shown(cls: type[Any]) -> None:
    if issubclass(cls, str | BaseException | type) and not issubclass(cls, cycles.CyclesError):
        pytest.skip("no class of the SDK defines how it is shown")
    make: Any = cls.__new__
    unfinished = make(cls)
    assert isinstance(repr(unfinished), str)
    assert isinstance(str(unfinished), str)


async def test_a_traceback_with_locals_shows_no_header_of_the_caller(world: World) -> None:
    """They may be credentials of a gateway."""
    reservation = world.reserve(cycles.tokens(10**12), extra_headers={"x-gateway": "hush-hush"})
    with pytest.raises(cycles.BudgetExceededError) as caught:
        await world.acquire(reservation)
    text = shown(caught.value)
    assert "hush-hush" not in text


async def test_a_traceback_of_a_failed_reserve_shows_its_locals(world: World) -> None:
    guard_name = "AsyncGuard" if world.is_async else "Guard"
    with pytest.raises(cycles.BudgetExceededError) as caught:
        await world.acquire(world.reserve(cycles.tokens(10**12)))
    text = shown(caught.value)
    assert f"guard = <{guard_name}, nothing reserved>" in text
    assert text.splitlines()[-1].startswith("cycles.BudgetExceededError: ")
    with pytest.raises(cycles.BudgetExceededError) as caught:
        async with world.enter(world.reserve(cycles.tokens(10**12))):
            pass
    assert f"guard = <{guard_name}, nothing reserved>" in shown(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: cycles.Subject(tenant="acme", dimensions=5),  # type: ignore[arg-type]
        lambda: cycles.Action("llm.completion", "m", tags="x"),
        lambda: cycles.Price("x", "y"),
        lambda: cycles.Config(timeout=-1),
        lambda: cycles.Cycles(base_url="nowhere"),
        lambda: cycles.journal.RedisStore("http://nowhere"),
        lambda: cycles.journal.PostgresStore("http://nowhere"),
        lambda: cycles.limit(5),  # type: ignore[arg-type]
    ],
)
def test_a_traceback_of_a_failed_constructor_shows_its_locals(wrong: Callable[[], Any]) -> None:
    with pytest.raises(cycles.CyclesError) as caught:
        wrong()
    assert type(caught.value).__name__ in shown(caught.value).splitlines()[-1]


@pytest.mark.parametrize("value", [None, 5, b"x", ["a"]])
def test_an_error_with_a_message_of_another_type_can_be_shown(value: Any) -> None:
    error = cycles.ProtocolError(value, status=500, request_id=value)
    assert str(value) in str(error)
    assert repr(error).startswith("ProtocolError(")


async def test_a_guard_can_be_shown_in_every_state(world: World, server: Any) -> None:
    client: Any = world.client

    def check(guard: Any, state: str) -> None:
        assert guard.state == state
        for text in (repr(guard), str(guard), f"{guard}"):
            assert text.startswith("<AsyncGuard " if world.is_async else "<Guard ")
            assert state in text

    ended: list[Any] = []
    ends: dict[str, Callable[[Any], Any]] = {
        "committed": lambda guard: guard.commit(cycles.tokens(1)),
        "released": lambda guard: guard.release(),
        "detached": lambda guard: guard.detach(),
    }
    for state, end in ends.items():
        guard = await world.acquire(world.reserve())
        check(guard, "active")
        await world.get(end(guard))
        check(guard, state)
        ended.append((guard, state))
    with pytest.raises(cycles.GuardFinalizedError) as caught:
        await world.get(ended[0][0].commit(cycles.tokens(1)))
    assert re.search(r"\b(guard|self) = <", shown(caught.value))
    server.faults.refuse("commit", times=None)
    pending = await world.acquire(world.reserve())
    await world.get(pending.commit(cycles.tokens(1)))
    check(pending, "pending")
    server.faults.clear()
    shadow = await world.acquire(world.reserve(cycles.tokens(10**12), shadow=True))
    check(shadow, "active")
    left = await world.acquire(world.reserve(actual=cycles.tokens(1)))
    await world.get(client.aclose() if world.is_async else client.close())
    check(left, "lost")
    for guard, state in ended:
        check(guard, state)
    assert "Cycles" in repr(world.client)
    await world.get(left.release())
    check(left, "released")


async def test_what_makes_many_guards_can_be_shown_in_every_state(world: World) -> None:
    pool: Any = world.client.pool(cycles.tokens(100), action=ACTION)
    series = world.client.lease_series(cycles.tokens(10), action=ACTION)
    with cycles.limit(cycles.tokens(50)) as limit:
        reservation = pool.reserve(cycles.tokens(10))
        for thing in (pool, series, limit, reservation, pool.stats()):
            assert "tokens" in repr(thing)
        async with world.enter(reservation) as guard:
            assert "active" in repr(guard)
            await world.get(guard.commit(cycles.tokens(60)))
    async with world.enter(series) as parts:
        part = await world.get(parts.next())
        await world.get(part.commit(cycles.tokens(1)))
        assert repr(parts)
    assert repr(parts)
    assert re.search(r"(committed|pooled) 60 tokens", repr(guard))
    assert repr(guard.chunk).startswith("ChunkView(")
    await world.get(pool.aclose() if world.is_async else pool.close())
    things: list[Any] = [pool, series, limit, reservation, pool.stats(), guard, world.client, world.client.aio]
    for thing in things:
        assert repr(thing)
        assert str(thing)


def test_an_event_without_a_text_of_its_own_is_logged_by_the_name_of_its_class() -> None:
    class Refilled(cycles.events.Event):
        """An event of a program that passes its own events to the observers of the SDK."""

    assert Refilled().text() == "Refilled"
