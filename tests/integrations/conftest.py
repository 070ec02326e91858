"""Fixtures of the integration tests: an embedded server whose ledger the tests read."""

from __future__ import annotations

import asyncio
import importlib
import socket
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles

HTTP_LIBRARIES = ("httpx", "httpx2")
BUDGETS = [cycles.usd(100), cycles.tokens(1_000_000)]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def made_loops() -> Iterator[weakref.WeakSet[asyncio.BaseEventLoop]]:
    """Each event loop that a test makes, or a library for it, while something refers to it."""
    made: weakref.WeakSet[asyncio.BaseEventLoop] = weakref.WeakSet()
    original = asyncio.BaseEventLoop.__init__

    def remembered(loop: asyncio.BaseEventLoop) -> None:
        original(loop)
        made.add(loop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio.BaseEventLoop, "__init__", remembered)
        yield made


@pytest.fixture(autouse=True)
def every_event_loop_is_closed(made_loops: weakref.WeakSet[asyncio.BaseEventLoop]) -> Iterator[None]:
    """Fail the test that leaves an event loop open; the warning of the loop would appear in some later test."""
    before = open_of(made_loops)
    yield
    assert [loop for loop in open_of(made_loops) if loop not in before] == []


@pytest.fixture(autouse=True)
def every_socket_is_closed() -> Iterator[None]:
    """Fail the test that leaves a socket open; the warning of the socket would appear in some later test."""
    made: list[weakref.ref[socket.socket]] = []
    original = socket.socket.__init__

    def remembered(self: socket.socket, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        if len(args) < 4 and options.get("fileno") is None:  # not one of accept(), which its own thread closes
            made.append(weakref.ref(self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "__init__", remembered)
        yield
    assert [each for ref in made if (each := ref()) is not None and each.fileno() != -1] == []


def open_of(loops: weakref.WeakSet[asyncio.BaseEventLoop]) -> list[asyncio.BaseEventLoop]:
    return [loop for loop in loops if not loop.is_closed()]


@pytest.fixture
async def closed_http_clients(anyio_backend: str) -> AsyncIterator[None]:
    """Close the HTTP clients that frameworks make in the test and keep, before their event loop is closed.

    A client that is collected later closes itself in the event loop that runs then, which is that of another test.
    """
    kinds = [kind for name in HTTP_LIBRARIES if (library := imported(name)) for kind in clients_of(library)]
    made: list[Any] = []

    def remembered(original: Callable[..., None]) -> Callable[..., None]:
        def init(self: Any, *args: Any, **options: Any) -> None:
            original(self, *args, **options)
            made.append(self)

        return init

    with pytest.MonkeyPatch.context() as patch:
        for kind in kinds:
            patch.setattr(kind, "__init__", remembered(kind.__init__))
        yield
    for each in made:
        await each.aclose() if hasattr(each, "aclose") else each.close()
    if (litellm := sys.modules.get("litellm")) is not None:
        litellm.in_memory_llm_clients_cache.flush_cache()
    forget_clients_of_langchain()


def imported(library: str) -> Any:
    """Return the library, or None if it is not installed."""
    try:
        return importlib.import_module(library)
    except ImportError:
        return None


def clients_of(library: Any) -> tuple[Any, Any]:
    return library.Client, library.AsyncClient


def forget_clients_of_langchain() -> None:
    """Delete the HTTP clients that LangChain keeps by their URL: a later server may have the same port.

    Also those of classes that a test has defined and guarded: the subclasses that guard them are kept.
    """
    modules = ("langchain_openai.chat_models._client_utils", "langchain_anthropic._client_utils")
    for name in (*modules, "cycles.integrations._langchain_guard"):
        for each in vars(sys.modules[name]).values() if name in sys.modules else ():
            if hasattr(each, "cache_clear"):
                each.cache_clear()


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


def fund_at_second_denial(client: cycles.Cycles, server: cycles.EmbeddedServer) -> list[Any]:
    """Fund the poor agent when it is denied for the second time. Returns the list of the denials."""
    denials: list[Any] = []

    def fund(event: Any) -> None:
        if type(event).__name__ == "Denied":
            denials.append(event)
            if len(denials) == 2:
                server.ledger.fund("tenant:acme/agent:poor", cycles.tokens(100))

    client.on_event(fund)
    return denials


async def settled(client: cycles.Cycles) -> None:
    """Return when the frameworks have closed what they left, and no reservation is active."""
    async with asyncio.timeout(60):
        while list(client.reservations(status="ACTIVE")):
            await asyncio.sleep(0)


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
