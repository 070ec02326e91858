"""Sync and async code behind the same methods: a test body is written once and runs in both."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import cycles

ACTION = ("llm.completion", "small-model")


class World:
    """A client, and one of the two ways to use it: sync or async. Every method is awaited, also if nothing waits."""

    def __init__(self, kind: str, client: cycles.Cycles) -> None:
        self.is_async = kind == "async"
        self.client = client

    @property
    def operations(self) -> Any:
        return self.client.aio if self.is_async else self.client

    def reserve(self, amount: cycles.Amount | None = None, **options: Any) -> cycles.Reservation:
        """Describe a reservation, by default of 100 tokens."""
        return self.client.reserve(amount or cycles.tokens(100), action=ACTION, **options)

    @contextlib.asynccontextmanager
    async def enter(self, reservation: Any) -> AsyncIterator[Any]:
        """Run a block of a reservation or a guard."""
        if self.is_async:
            async with reservation as guard:
                yield guard
        else:
            with reservation as guard:
                yield guard

    async def acquire(self, reservation: Any) -> Any:
        """Return the guard of a reservation, without a block."""
        return await reservation if self.is_async else reservation.acquire()

    async def get(self, value: Any) -> Any:
        """Return a result, after awaiting it if necessary."""
        return await value if inspect.isawaitable(value) else value

    async def all(self, items: Any) -> list[Any]:
        """Return all items of an iterator or async iterator."""
        return [item async for item in items] if hasattr(items, "__aiter__") else list(items)

    async def next(self, items: Any) -> Any:
        """Return the next item of an iterator or async iterator."""
        return await anext(items) if hasattr(items, "__anext__") else next(items)

    async def close(self, items: Any) -> None:
        """Close a generator or async generator."""
        await items.aclose() if hasattr(items, "aclose") else items.close()

    def function(self, body: Callable[..., Any]) -> Any:
        """Return `body` as a function or coroutine function with the same signature."""
        if not self.is_async:
            return body

        async def later(*args: Any, **kwargs: Any) -> Any:
            return body(*args, **kwargs)

        later.__signature__ = inspect.signature(body)  # type: ignore[attr-defined]
        return later

    def generator(self, body: Callable[..., Iterable[Any]]) -> Any:
        """Return `body`, a generator function, as a generator function or async generator function."""
        if not self.is_async:
            return body

        async def later(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            for item in body(*args, **kwargs):
                yield item

        later.__signature__ = inspect.signature(body)  # type: ignore[attr-defined]
        return later
