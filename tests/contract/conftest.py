"""Where the contract is tested: in this process, over a socket, with SQLite, and on a live server if one is named.

CYCLES_CONTRACT_URL, CYCLES_CONTRACT_KEY and CYCLES_CONTRACT_TENANT name one; its tenant needs a TOKENS budget with
100,000 or more left. Tests that set budgets, tenants or the clock behind the counter are skipped there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cycles._core.amounts import tokens
from cycles.embedded import EmbeddedServer, ManualClock
from cycles.embedded.faults import Fault
from cycles.embedded.http import Request, Response
from cycles.embedded.serve import Listener

from .kit import Api, World

ADMIN_KEY = "operator-key"
# Read when the suite is collected: while tests run, none of a developer's settings are there.
LIVE_URL, LIVE_KEY, LIVE_TENANT = (os.environ.get(f"CYCLES_CONTRACT_{name}") for name in ("URL", "KEY", "TENANT"))
PLACES = ["in process", "over a socket", "with SQLite", *(["live"] if LIVE_URL else [])]


class _Switch:
    """One socket for all tests: it serves whichever server the running test has put behind it."""

    server: EmbeddedServer

    def handle(self, request: Request) -> tuple[Response | None, Fault | None]:
        return self.server.handle(request)


@pytest.fixture(scope="session")
def _socket() -> Iterator[tuple[_Switch, str, httpx.HTTPTransport]]:
    switch = _Switch()
    with Listener(switch, "127.0.0.1", 0) as url, httpx.HTTPTransport() as transport:
        yield switch, url, transport


class _Kept(httpx.BaseTransport):
    """A transport that outlives the clients of single tests, so that connections are kept alive."""

    def __init__(self, transport: httpx.BaseTransport) -> None:
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._transport.handle_request(request)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    """Where the test runs."""
    return str(request.param)


@pytest.fixture
def world(place: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A server with budgets for two tenants, and what can be done behind its counter."""
    if place == "live":
        pytest.skip("needs seeding behind the counter, which a live server does not offer")
    clock = ManualClock()
    server = EmbeddedServer(
        {"tenant:tenant-b": tokens(500_000)},
        clock=clock,
        admin_api_key=ADMIN_KEY,
        path=tmp_path / "ledger.db" if place == "with SQLite" else None,
    )
    server.ledger.set_budget("tenant:tenant-a", tokens(1_000_000), overdraft_limit=100_000)
    url, transport = "http://embedded.invalid", server.transport()
    if place == "over a socket":
        switch, url, transport = request.getfixturevalue("_socket")
        switch.server = server

    def api(tenant: str, **headers: str) -> Api:
        return Api(httpx.Client(base_url=url, headers=headers, transport=_Kept(transport)), tenant)

    with server:
        yield World(
            api=api("tenant-a", **{"X-Cycles-API-Key": server.api_key_for("tenant-a")}),
            other=api("tenant-b", **{"X-Cycles-API-Key": server.api_key_for("tenant-b")}),
            anonymous=api("tenant-a"),
            admin=api("tenant-a", **{"X-Admin-API-Key": ADMIN_KEY}),
            ledger=server.ledger,
            clock=clock,
        )


@pytest.fixture
def api(place: str, request: pytest.FixtureRequest) -> Iterator[Api]:
    """A caller with a key and a TOKENS budget: all that tests get which also run on a live server."""
    if place != "live":
        world: World = request.getfixturevalue("world")
        yield world.api
        return
    if not LIVE_URL or not LIVE_KEY or not LIVE_TENANT:
        pytest.fail("set CYCLES_CONTRACT_URL, CYCLES_CONTRACT_KEY and CYCLES_CONTRACT_TENANT together")
    with httpx.Client(base_url=LIVE_URL, timeout=30.0, headers={"X-Cycles-API-Key": LIVE_KEY}) as http:
        yield Api(http, LIVE_TENANT)
