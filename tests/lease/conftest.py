"""Clients of a scripted server, and what they reported to their observer and the log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cycles
from tests.lease.server import LeaseServer
from tests.support.inside import runtime_of
from tests.support.still_time import StillTime

TTL_MS = 3_500  # a safe schedule, a short pause before each heartbeat, and time for the responses of a busy machine


class Events:
    """The events of one client, in order."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._news = threading.Condition()

    def __call__(self, event: Any) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def of(self, name: str) -> list[Any]:
        with self._news:
            return [event for event in self.events if type(event).__name__ == name]

    def wait_for(self, name: str, count: int = 1, timeout_s: float = 60.0) -> list[Any]:
        with self._news:
            found = self._news.wait_for(
                lambda: sum(type(event).__name__ == name for event in self.events) >= count, timeout_s
            )
            assert found, f"no {name} among {self.events}"
        return self.of(name)


@pytest.fixture
def server_responded() -> Events:
    return Events()


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> StillTime:
    """Time that stands still; the schedulers of clients made from now on follow it."""
    return StillTime(monkeypatch)


@pytest.fixture
def client_of(server_responded: Events, request: pytest.FixtureRequest) -> Iterator[Callable[..., cycles.Cycles]]:
    """Makes clients of a server; they are closed at the end."""
    clients: list[cycles.Cycles] = []

    def make(server: LeaseServer, **settings: Any) -> cycles.Cycles:
        client = cycles.Cycles(
            base_url=server.url, api_key="cyc_test", tenant="acme", journal=False, flush_timeout=0.0, **settings
        )
        client.on_event(server_responded)
        if "still" in request.fixturenames:
            request.getfixturevalue("still").drives(runtime_of(client).scheduler)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


def reserve(client: cycles.Cycles, **options: Any) -> Any:
    """One reservation of the usual kind."""
    return client.reserve(cycles.tokens(1), action=("test", "work"), **{"ttl_ms": TTL_MS, **options})
