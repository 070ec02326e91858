"""Guards over real HTTP, sync and async: each test body is written once, against the adapter `World`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles.embedded.http import Request
from cycles.embedded.request_log import ReceivedRequest
from cycles.embedded.routes import find
from tests.support.doors import Door, door as door
from tests.support.fixtures import events as events, world as world
from tests.support.waiting import Arrivals, hold_responses, until
from tests.support.worlds import ACTION as ACTION, World as World

TENANT = "acme"
BUDGETS = [cycles.usd(100), cycles.tokens(1_000_000)]


class Shop:
    """One server behind the door, what it has seen, and clients of it."""

    def __init__(self, door: Door, server: cycles.EmbeddedServer, folder: Path, stack: contextlib.ExitStack) -> None:
        self.url = door.url
        self.on_arrival: dict[str, Callable[[], object]] = {}
        self.server = server
        self.ledger = server.ledger
        self.faults = server.faults
        self.arrivals = Arrivals(server)
        self._folder = folder
        self._stack = stack

    def handle(self, request: Request) -> Any:
        """What the door calls for a request: with the hook for its operation, once."""
        if self.on_arrival and (hook := self.on_arrival.pop(str(find(request.method, request.path).operation), None)):
            hook()
        return self.server.handle(request)

    def settings(self, **changes: Any) -> dict[str, Any]:
        key = self.server.api_key_for(TENANT)
        base = {"base_url": self.url, "api_key": key, "tenant": TENANT, "journal_dir": self._folder}
        return {**base, "retry_initial_delay": 0.01, **changes}

    def hold(self, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
        """Let each response that a fault delays wait for the returned event, and not for a time."""
        return hold_responses(monkeypatch)

    def client(self, **changes: Any) -> cycles.Cycles:
        client = cycles.Cycles(**self.settings(**changes))
        self._stack.callback(client.close)
        client.pending()  # waits until it has read the journal: later it would send what other clients of the test save
        return client

    def sent(self, operation: str) -> list[ReceivedRequest]:
        return self.server.requests.of(operation)

    def bodies(self, operation: str) -> list[Any]:
        return [request.json for request in self.sent(operation)]

    @property
    def operations(self) -> list[str | None]:
        return [request.operation for request in self.server.requests]

    def until(self, condition: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Returns once the condition holds: work in the background needs a moment."""
        until(condition, timeout_s, step_s=0.002, what=lambda: f"so far {self.operations}, {self.money()}")

    def money(self, unit: str = "TOKENS") -> tuple[int, int]:
        """What is spent, and what is held."""
        balance = self.ledger.balance(f"tenant:{TENANT}", unit=unit)
        assert balance.spent is not None
        assert balance.reserved is not None
        return balance.spent.amount, balance.reserved.amount


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def shop(door: Door, tmp_path: Path) -> Iterator[Shop]:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(cycles.EmbeddedServer(budgets={f"tenant:{TENANT}": BUDGETS}))
        shop = Shop(door, server, tmp_path, stack)
        stack.enter_context(door.serves(shop, server.api_key_for(TENANT)))
        yield shop


@pytest.fixture
def client(shop: Shop) -> cycles.Cycles:
    return shop.client()
