"""Pools over an embedded server in this process, with a journal; each test body runs sync and async."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._flows.pool.chunks import carry_out
from tests.support.fixtures import events as events, world as world
from tests.support.waiting import until
from tests.support.worlds import ACTION as ACTION, World as World

TENANT = "acme"
T = cycles.tokens


class Shop:
    """A server, its clients, and what it has seen."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        self.server = stack.enter_context(cycles.EmbeddedServer(budgets={f"tenant:{TENANT}": T(1_000_000)}))
        self.faults = self.server.faults
        self.ledger = self.server.ledger
        self._stack = stack

    def client(self, **options: Any) -> cycles.Cycles:
        options = {"journal_dir": self.folder, "retry_initial_delay": 0.01, **options}
        client = self.server.client(tenant=TENANT, **options)
        self._stack.callback(client.close)
        return client

    def bodies(self, operation: str) -> list[Any]:
        return [request.json for request in self.server.requests.of(operation)]

    def count(self, operation: str) -> int:
        return len(self.server.requests.of(operation))

    def money(self) -> tuple[int, int]:
        """What is spent, and what is held."""
        balance = self.ledger.balance(f"tenant:{TENANT}", unit="TOKENS")
        assert balance.spent is not None
        assert balance.reserved is not None
        return balance.spent.amount, balance.reserved.amount

    def until(self, condition: Callable[[], object]) -> None:
        """Return once the condition holds: threads of the client need a moment."""
        until(condition, step_s=0.002, what=lambda: f"so far {self.money()}")

    def logs(self) -> list[Path]:
        return sorted(self.folder.rglob("pool-*"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with contextlib.ExitStack() as stack:
        yield Shop(tmp_path, stack)


@pytest.fixture
def client(shop: Shop) -> cycles.Cycles:
    return shop.client()


def named(events: list[Any], name: str) -> list[Any]:
    return [event for event in events if type(event).__name__ == name]


async def close(world: World, pool: Any) -> None:
    """Close a pool."""
    if world.is_async:
        await pool.aclose()
    else:
        pool.close()


def chunk_of(guard: Any) -> Any:
    """Return the chunk of a guard, to move its time."""
    return guard._place.chunk


def state_of(guard: Any) -> Any:
    """Return the state of the pool of a guard."""
    return guard._place.pool


def seal(guard: Any) -> None:
    """Seal the chunk of a guard, as the loss of its lease does."""
    pool = state_of(guard)
    with pool.lock:
        pool.seal(chunk_of(guard))
    carry_out(pool)
