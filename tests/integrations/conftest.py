"""Fixtures of the integration tests: an embedded server whose ledger the tests read."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

import cycles

BUDGETS = [cycles.usd(100), cycles.tokens(1_000_000)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def every_event_loop_is_closed() -> Iterator[None]:
    """Fail the test that leaves an event loop open; the warning of the loop would appear in some later test."""
    before = open_loops()
    yield
    assert [loop for loop in open_loops() if loop not in before] == []


def open_loops() -> list[asyncio.BaseEventLoop]:
    return [each for each in gc.get_objects() if isinstance(each, asyncio.BaseEventLoop) and not each.is_closed()]


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    server = cycles.EmbeddedServer(budgets={"tenant:acme": BUDGETS, "tenant:acme/agent:poor": [cycles.tokens(5)]})
    yield server
    server.close()


@pytest.fixture
def client(server: cycles.EmbeddedServer, tmp_path: Path) -> Iterator[cycles.Cycles]:
    with server.client(tenant="acme", journal_dir=tmp_path) as client:
        yield client


@pytest.fixture
def ledger(server: cycles.EmbeddedServer, client: cycles.Cycles) -> Ledger:
    return Ledger(server, client)


class Ledger:
    """What the server has charged and holds."""

    def __init__(self, server: cycles.EmbeddedServer, client: cycles.Cycles) -> None:
        self.server = server
        self.client = client

    def spent(self, unit: str = "TOKENS", scope: str = "tenant:acme") -> int:
        """Return what was charged; fail if a reservation is still active."""
        assert [row.reservation_id for row in self.client.reservations(status="ACTIVE")] == []
        spent = self.server.ledger.balance(scope, unit=unit).spent
        return 0 if spent is None else spent.amount

    def rows(self) -> list[cycles.ReservationSummary]:
        """Return all reservations, oldest first, with the metadata of their commits."""
        rows = list(self.client.reservations(include=("metadata", "committed_metadata")))
        return sorted(rows, key=lambda row: row.created_at_ms)

    def metadata(self) -> list[dict[str, object]]:
        """Return the metadata of each commit, oldest first."""
        return [dict(row.committed_metadata or {}) for row in self.rows() if row.status == "COMMITTED"]
