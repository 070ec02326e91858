"""The four ways to send an exchange, behind one plain call, so that most tests here run for each of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

import httpx
import pytest

from cycles._core.messages.outcome import Reply
from cycles._core.messages.requests import Prepared
from cycles._http.exchange import Endpoint, Limits
from cycles._http.factory import Async, Blocking, asynchronous, blocking

HEADERS = [(b"X-Cycles-API-Key", b"cyc_live_secret"), (b"Content-Type", b"application/json")]

CONNECT_S = 30.0
"""More than any healthy attempt takes; a test of a connection that is never made has a shorter timeout of its own."""


class Send(Protocol):
    def __call__(
        self, method: str = ..., target: str = ..., body: bytes = ..., *, timeout_s: float = ..., headers: object = ...
    ) -> Reply: ...


Open = Callable[[str], Send]


@pytest.fixture(params=["threads", "tasks", "httpx", "httpx-async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connect(kind: str) -> Iterator[Open]:
    """Gives a `send` to the server at a URL; everything is closed, and must close quietly, at the end of the test."""
    with contextlib.ExitStack() as stack:
        yield lambda url: _open(kind, url, stack)


def _open(kind: str, url: str, stack: contextlib.ExitStack) -> Send:
    endpoint = Endpoint(url)
    if kind in ("threads", "httpx"):
        client = stack.enter_context(httpx.Client()) if kind == "httpx" else None
        sync = blocking(endpoint, connect_timeout_s=CONNECT_S, max_connections=4, client=client)
        stack.callback(sync.close)
        return _sender(sync)
    runner = stack.enter_context(asyncio.Runner())
    async_client = httpx.AsyncClient() if kind == "httpx-async" else None
    if async_client is not None:
        stack.callback(lambda: runner.run(async_client.aclose()))
    tasks = asynchronous(endpoint, connect_timeout_s=CONNECT_S, max_connections=4, client=async_client)
    stack.callback(lambda: runner.run(tasks.aclose()))
    return _async_sender(tasks, runner)


def _sender(connections: Blocking) -> Send:
    def send(
        method: str = "POST",
        target: str = "/v1/x",
        body: bytes = b"{}",
        *,
        timeout_s: float = 30.0,
        headers: object = HEADERS,
    ) -> Reply:
        return connections.send(Prepared(method, target, headers, body), Limits(timeout_s))  # type: ignore[arg-type]

    return send


def _async_sender(connections: Async, runner: asyncio.Runner) -> Send:
    def send(
        method: str = "POST",
        target: str = "/v1/x",
        body: bytes = b"{}",
        *,
        timeout_s: float = 30.0,
        headers: object = HEADERS,
    ) -> Reply:
        return runner.run(connections.send(Prepared(method, target, headers, body), Limits(timeout_s)))  # type: ignore[arg-type]

    return send
