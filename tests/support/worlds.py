"""Blocking and async behind the same verbs: a test body is written once and runs in both."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator
from typing import Any

import cycles


class World:
    """A client, and the way of one world to use it. Whatever is asked here is awaited, also where nothing waits."""

    def __init__(self, kind: str, client: cycles.Cycles) -> None:
        self.is_async = kind == "async"
        self.client = client

    @property
    def operations(self) -> Any:
        return self.client.aio if self.is_async else self.client

    @contextlib.asynccontextmanager
    async def enter(self, reservation: Any) -> AsyncIterator[Any]:
        if self.is_async:
            async with reservation as guard:
                yield guard
        else:
            with reservation as guard:
                yield guard

    async def hold(self, reservation: Any) -> Any:
        return await reservation if self.is_async else reservation.acquire()

    async def get(self, value: Any) -> Any:
        return await value if inspect.isawaitable(value) else value

    async def all(self, items: Any) -> list[Any]:
        return [item async for item in items] if hasattr(items, "__aiter__") else list(items)
