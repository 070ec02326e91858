"""One body, two worlds: what is written once here runs with blocking guards and with async ones."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import cycles
from tests.support import worlds

settings.register_profile("cycles", deadline=None)  # a busy machine is no failure
settings.load_profile("cycles")

ACTION = ("llm.completion", "small-model")
BUDGETS = [cycles.usd(100), cycles.tokens(1_000_000), cycles.credits(1_000)]


class World(worlds.World):
    """Adds functions, generators and streams of either world."""

    block = worlds.World.enter
    acquire = worlds.World.hold

    async def next(self, items: Any) -> Any:
        return await anext(items) if hasattr(items, "__anext__") else next(items)

    async def close(self, items: Any) -> None:
        await items.aclose() if hasattr(items, "aclose") else items.close()

    def function(self, body: Callable[..., Any]) -> Any:
        """`body` as a function of this world, its signature kept."""
        if not self.is_async:
            return body

        async def later(*args: Any, **kwargs: Any) -> Any:
            return body(*args, **kwargs)

        later.__signature__ = inspect.signature(body)  # type: ignore[attr-defined]
        return later

    def generator(self, body: Callable[..., Iterable[Any]]) -> Any:
        """`body`, a generator function, as one of this world."""
        if not self.is_async:
            return body

        async def later(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            for item in body(*args, **kwargs):
                yield item

        later.__signature__ = inspect.signature(body)  # type: ignore[attr-defined]
        return later


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    server = cycles.EmbeddedServer(budgets={"tenant:acme": BUDGETS})
    yield server
    server.close()


@pytest.fixture
def client(server: cycles.EmbeddedServer, tmp_path: Path) -> Iterator[cycles.Cycles]:
    with server.client(tenant="acme", journal_dir=tmp_path) as client:
        yield client


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest, client: cycles.Cycles) -> World:
    return World(request.param, client)


@pytest.fixture
def events(client: cycles.Cycles) -> list[Any]:
    seen: list[Any] = []
    client.on_event(seen.append)
    return seen


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="cycles")
    return caplog


def spent(server: cycles.EmbeddedServer, unit: str = "TOKENS") -> int:
    """What the ledger has charged."""
    balance = server.ledger.balance("tenant:acme", unit=unit)
    assert balance.spent is not None
    return balance.spent.amount


def held(server: cycles.EmbeddedServer, unit: str = "TOKENS") -> int:
    """What the ledger holds for live reservations."""
    balance = server.ledger.balance("tenant:acme", unit=unit)
    assert balance.reserved is not None
    return balance.reserved.amount


@pytest.fixture
async def aclient(client: cycles.Cycles) -> AsyncIterator[cycles.Cycles]:
    """The client, closed on the event loop that opened its connections."""
    async with client:
        yield client
