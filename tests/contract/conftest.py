"""The places where the contract is tested: in this process, over a socket, with SQLite, and on a live server.

The embedded server is also tested as a live server is, with tenants and budgets made over its admin operations.

CYCLES_CONTRACT_URL, CYCLES_CONTRACT_KEY and CYCLES_CONTRACT_TENANT name a live server; the tenant needs a TOKENS budget
with 100,000 or more left. With CYCLES_CONTRACT_ADMIN_URL and CYCLES_CONTRACT_ADMIN_KEY too, the suite makes the tenants
and budgets that further tests need; with CYCLES_CONTRACT_REDIS, it writes there what the admin API cannot set. What a
live server does not offer (its clock) skips a test, with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest

from cycles._core.amounts import tokens
from cycles.embedded import EmbeddedServer, ManualClock
from cycles.embedded.faults import Fault
from cycles.embedded.http import Request, Response
from cycles.embedded.serve import Listener
from tests.support.short import IS_SHORT

from .kit import Api, Target
from .live import LiveTargets, Servers

ADMIN_KEY = "operator-key"
# Read when the suite is collected: while tests run, the environment has no settings of a developer.
NAMES = ("URL", "KEY", "TENANT", "ADMIN_URL", "ADMIN_KEY", "REDIS")
LIVE = {name: os.environ.get(f"CYCLES_CONTRACT_{name}") for name in NAMES}
OVER_ADMIN_API = "over its admin API"
# In the short form, one place has both the socket and the file: most other tests are in process, and `tests/admin` has
# the admin operations.
LOCAL_PLACES = (
    ["over a socket with SQLite"] if IS_SHORT else ["in process", "over a socket", "with SQLite", OVER_ADMIN_API]
)
PLACES = (
    ["live"] if os.environ.get("CYCLES_CONTRACT_ONLY_LIVE") else [*LOCAL_PLACES, *(["live"] if LIVE["URL"] else [])]
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", "new_tenants: the test reads lists, so a live server needs tenants without rows")
    config.addinivalue_line("markers", "embedded_only(reason): the test checks what only the embedded server does")


class _Switch:
    """One socket for all tests. It serves the server of the running test."""

    server: EmbeddedServer

    def handle(self, request: Request) -> tuple[Response | None, Fault | None]:
        return self.server.handle(request)


@pytest.fixture(scope="session")
def _socket() -> Iterator[tuple[_Switch, str, httpx.HTTPTransport]]:
    switch = _Switch()
    with Listener(switch, "127.0.0.1", 0) as url, httpx.HTTPTransport() as transport:
        yield switch, url, transport


class _Shared(httpx.BaseTransport):
    """A transport that stays open when a client is closed, so that connections are reused."""

    def __init__(self, transport: httpx.BaseTransport) -> None:
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._transport.handle_request(request)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> str:
    """Return where the test runs."""
    marker = request.node.get_closest_marker("embedded_only")
    if request.param in ("live", OVER_ADMIN_API) and marker is not None:
        pytest.skip(f"only the embedded server does this: {marker.args[0]}")
    return str(request.param)


@pytest.fixture(scope="session")
def _live_targets() -> Iterator[LiveTargets]:
    if not LIVE["ADMIN_URL"] or not LIVE["ADMIN_KEY"]:
        pytest.skip("needs budgets: set CYCLES_CONTRACT_ADMIN_URL and CYCLES_CONTRACT_ADMIN_KEY")
    targets = LiveTargets(Servers(LIVE["URL"] or "", LIVE["ADMIN_URL"], LIVE["ADMIN_KEY"], LIVE["REDIS"]))
    yield targets
    targets.close()


@pytest.fixture(scope="session")
def _embedded_live_targets() -> Iterator[LiveTargets]:
    with EmbeddedServer(admin_api_key=ADMIN_KEY) as server, server.listen() as url:
        targets = LiveTargets(Servers(url, url, ADMIN_KEY, None))
        yield targets
        targets.close()


@pytest.fixture
def target(place: str, request: pytest.FixtureRequest) -> Iterator[Target]:
    """A server with budgets for two tenants, and direct access to its ledger."""
    if place not in ("live", OVER_ADMIN_API):
        yield from _embedded_world(place, request)
        return
    targets: LiveTargets = request.getfixturevalue("_live_targets" if place == "live" else "_embedded_live_targets")
    target = targets.open(new_tenants=request.node.get_closest_marker("new_tenants") is not None)
    yield target
    targets.end(target)


def _embedded_world(place: str, request: pytest.FixtureRequest) -> Iterator[Target]:
    clock = ManualClock()
    # Only these tests need a folder: making one takes longer than making a server.
    path = request.getfixturevalue("tmp_path") / "ledger.db" if "SQLite" in place else None
    server = EmbeddedServer({"tenant:tenant-b": tokens(500_000)}, clock=clock, admin_api_key=ADMIN_KEY, path=path)
    server.ledger.set_budget("tenant:tenant-a", tokens(1_000_000), overdraft_limit=100_000)
    url, transport = "http://embedded.invalid", server.transport()
    if "socket" in place:
        switch, url, transport = request.getfixturevalue("_socket")
        switch.server = server

    def api(tenant: str, **headers: str) -> Api:
        return Api(httpx.Client(base_url=url, headers=headers, transport=_Shared(transport)), tenant)

    with server:
        yield Target(
            api=api("tenant-a", **{"X-Cycles-API-Key": server.api_key_for("tenant-a")}),
            other=api("tenant-b", **{"X-Cycles-API-Key": server.api_key_for("tenant-b")}),
            anonymous=api("tenant-a"),
            admin=api("tenant-a", **{"X-Admin-API-Key": ADMIN_KEY}),
            ledger=server.ledger,
            clock=clock,
        )


@pytest.fixture
def api(place: str, request: pytest.FixtureRequest) -> Iterator[Api]:
    """A caller with a key and a TOKENS budget, for tests that need nothing else."""
    if place != "live":
        target: Target = request.getfixturevalue("target")
        yield target.api
        return
    if not LIVE["URL"] or not LIVE["KEY"] or not LIVE["TENANT"]:
        pytest.fail("set CYCLES_CONTRACT_URL, CYCLES_CONTRACT_KEY and CYCLES_CONTRACT_TENANT together")
    with httpx.Client(base_url=LIVE["URL"], timeout=60.0, headers={"X-Cycles-API-Key": LIVE["KEY"]}) as http:
        yield Api(http, LIVE["TENANT"], is_live=True)
