"""One socket for the servers of many tests, one after the other: opening and closing one takes longer than a test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from cycles.embedded.http import Request
from cycles.embedded.serve import Listener


class Server(Protocol):
    def handle(self, request: Request) -> Any: ...


class Door:
    """Passes requests to the server of the test that runs.

    A request of an earlier test may come late: of a guard that is collected now, of a child process, or one that the
    thread of the socket has begun to read. It must not take a fault of the test that runs. So its key is refused, and a
    request that was let in stays with the server of its own test.
    """

    def __init__(self, url: str = "") -> None:
        self.url = url
        self._server: Server | None = None
        self._keys: set[str | None] = set()
        self._former_keys: set[str | None] = set()

    def handle(self, request: Request) -> Any:
        server = self._server  # read once, and before the key: the next test may put its own here at any moment
        key = request.headers.get("x-cycles-api-key")
        if server is None or key in self._former_keys:
            return None, None
        self._keys.add(key)
        return server.handle(request)

    @contextlib.contextmanager
    def serves(self, server: Server, key: str) -> Iterator[None]:
        """Pass requests to this server; refuse those with its key, or another one that it was sent, from then on."""
        self._keys = {key}
        self._server = server
        try:
            yield
        finally:
            self._server = None
            self._former_keys |= self._keys - {None}


@pytest.fixture(scope="session")
def door() -> Iterator[Door]:
    door = Door()
    with Listener(door, "127.0.0.1", 0) as door.url:
        yield door
