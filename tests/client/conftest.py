"""Fixtures of the client tests: each test body runs with sync and async guards."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import cycles
from tests.support.fixtures import events as events, world as world
from tests.support.worlds import ACTION as ACTION, World as World

BUDGETS = [cycles.usd(100), cycles.tokens(1_000_000), cycles.credits(1_000)]


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
