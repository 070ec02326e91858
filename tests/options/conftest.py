"""One server for all tests of options, of the newest protocol; each test has its own clients, sync and async."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

import cycles
from tests.options.ways import Place


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="package")
def shared_server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({"tenant:acme": [cycles.tokens(10**12)]}, protocol="0.1.26") as server:
        yield server


@pytest.fixture(params=["sync", "async"])
def place(request: pytest.FixtureRequest, shared_server: cycles.EmbeddedServer) -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        yield Place(request.param, shared_server, stack)
        shared_server.faults.clear()
