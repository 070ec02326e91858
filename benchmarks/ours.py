"""This SDK, used as its documentation shows."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import cycles
from benchmarks.floors import KEY

ACTION = ("llm.completion", "gpt-4o")


def client(port: int, journal: str | None, **settings: Any) -> cycles.Cycles:
    """Return a client with the journal in the folder `journal`, or without one."""
    return cycles.Cycles(
        base_url=f"http://127.0.0.1:{port}",
        api_key=KEY,
        tenant="acme",
        agent="bot",
        journal=journal is not None,
        journal_dir=journal,
        **settings,
    )


@contextlib.contextmanager
def guard(port: int, journal: str | None, **settings: Any) -> Iterator[Callable[[], object]]:
    """Make one guarded call with a `with` block that commits."""
    estimate, actual = cycles.usd("0.05"), cycles.usd("0.032")
    with client(port, journal, **settings) as ours:

        def call() -> None:
            with ours.reserve(estimate, action=ACTION) as held:
                held.commit(actual)

        yield call


@contextlib.contextmanager
def pooled(port: int, journal: str | None) -> Iterator[Callable[[], object]]:
    """Make one guarded call in a pool."""
    estimate, actual = cycles.usd("0.05"), cycles.usd("0.032")
    with client(port, journal) as ours, ours.pool(cycles.usd(400), action=ACTION) as pool:

        def call() -> None:
            with pool.reserve(estimate) as held:
                held.commit(actual)

        yield call


@contextlib.asynccontextmanager
async def async_pooled(port: int, journal: str | None) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Make one guarded call in a pool, in a task."""
    estimate, actual = cycles.usd("0.05"), cycles.usd("0.032")
    async with client(port, journal) as ours, ours.pool(cycles.usd(400), action=ACTION) as pool:

        async def call() -> None:
            async with pool.reserve(estimate) as held:
                await held.commit(actual)

        yield call


@contextlib.contextmanager
def decorator(port: int, journal: str | None) -> Iterator[Callable[[], object]]:
    """Make one guarded call of a decorated function."""
    estimate, actual = cycles.usd("0.05"), cycles.usd("0.032")
    with client(port, journal) as ours:

        @ours.guarded(estimate=estimate, action=ACTION, actual=lambda _: actual)
        def call() -> None:
            return None

        yield call


@contextlib.asynccontextmanager
async def async_guard(
    port: int, journal: str | None, **settings: Any
) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Make one guarded call with an `async with` block that commits."""
    estimate, actual = cycles.usd("0.05"), cycles.usd("0.032")
    async with client(port, journal, **settings) as ours:

        async def call() -> None:
            async with ours.reserve(estimate, action=ACTION) as held:
                await held.commit(actual)

        yield call
