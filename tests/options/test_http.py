"""Times, limits and certificates of each way to send an exchange over httpx, sync and async."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cycles._core.messages.outcome import Reply
from cycles._core.messages.requests import Prepared
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind, Limits
from cycles._http.factory import asynchronous, blocking
from cycles._http.httpx_client import AsyncClient, BlockingClient
from tests.support.stub import Stub, drip, reply
from tests.support.waiting import PATIENCE_S

BOTH = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
REQUEST = Prepared("POST", "/v1/x", [(b"X-Cycles-API-Key", b"k")], b"{}")


def exchange(
    is_async: bool, transport: Any, limits: Limits, *, connect_timeout_s: float = 60.0, url: str = "http://in.memory"
) -> Reply:
    """Send one exchange over a client of the user with this transport."""
    endpoint = Endpoint(url)
    if not is_async:
        with httpx.Client(transport=transport) as client:
            threads = BlockingClient(endpoint, client, connect_timeout_s=connect_timeout_s, max_connections=4)
            try:
                return threads.send(REQUEST, limits)
            finally:
                threads.close()

    async def main() -> Reply:
        async with httpx.AsyncClient(transport=transport) as client:
            tasks = AsyncClient(endpoint, client, connect_timeout_s=connect_timeout_s, max_connections=4)
            return await tasks.send(REQUEST, limits)

    return asyncio.run(main())


@BOTH
def test_each_phase_has_its_time_and_none_lasts_beyond_the_end_of_the_attempt(is_async: bool) -> None:
    seen: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"])
        return httpx.Response(200, json={})

    transport = httpx.MockTransport(handler)
    exchange(is_async, transport, Limits(60.0, 50.0), connect_timeout_s=40.0)
    assert seen.pop() == {"connect": 40.0, "read": 60.0, "write": 60.0, "pool": 50.0}
    exchange(is_async, transport, Limits(60.0, 70.0), connect_timeout_s=80.0)
    assert seen.pop() == {"connect": 60.0, "read": 60.0, "write": 60.0, "pool": 70.0}
    exchange(is_async, transport, Limits(60.0, 50.0, time.monotonic() + 30.0), connect_timeout_s=40.0)
    times = seen.pop()
    assert times.keys() == {"connect", "read", "write", "pool"}
    assert min(times.values()) > 0.0
    assert max(times.values()) <= 30.0


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


class Transport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport that reports that it has a connection, if `is_traced`, and then fails or hangs."""

    def __init__(self, released: threading.Event | None, *, is_traced: bool) -> None:
        self._released = released
        self._is_traced = is_traced

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self._is_traced:
            request.extensions["trace"]("connection.connect_tcp.started", {})
        if self._released is not None:
            self._released.wait(PATIENCE_S)
        raise httpx.ConnectTimeout("slow")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._is_traced:
            await request.extensions["trace"]("connection.connect_tcp.started", {})
        if self._released is not None:
            await asyncio.get_running_loop().create_future()
        raise httpx.ConnectTimeout("slow")


@BOTH
@pytest.mark.parametrize("is_traced", [False, True])
@pytest.mark.parametrize("limit", ["end", "timeout"])
def test_a_transport_that_hangs_is_left_at_the_first_of_its_ends(
    is_async: bool, limit: str, is_traced: bool, released: threading.Event
) -> None:
    """The time begins with the connection, although the wait for one could last longer."""
    began = time.monotonic()
    limits = Limits(PATIENCE_S, PATIENCE_S, began + 0.03)
    if limit == "timeout":
        limits = Limits(0.02, PATIENCE_S if is_traced else 0.01)
    with pytest.raises(ExchangeError, match="timed out"):
        exchange(is_async, Transport(released, is_traced=is_traced), limits)
    assert time.monotonic() - began < PATIENCE_S / 2


@BOTH
@pytest.mark.parametrize("limit", ["end", "timeout"])
def test_a_response_that_drips_is_left_at_the_first_of_its_ends(is_async: bool, limit: str) -> None:
    """httpx limits each read only."""
    began = time.monotonic()
    limits = Limits(PATIENCE_S, PATIENCE_S, began + 0.1) if limit == "end" else Limits(0.05, PATIENCE_S)
    answer = drip(reply(b"x" * 9_000))
    with Stub(answer) as stub, pytest.raises(ExchangeError):  # on a busy machine it may not even be connected
        exchange(is_async, None, limits, url=stub.url)
    assert time.monotonic() - began < PATIENCE_S / 2


@BOTH
def test_a_connection_that_takes_too_long_was_never_had(is_async: bool) -> None:
    with pytest.raises(ExchangeError) as caught:
        exchange(is_async, Transport(None, is_traced=True), Limits(60.0))
    assert (caught.value.kind, caught.value.request_sent) == (FailureKind.CONNECT, False)


@BOTH
def test_nothing_is_sent_after_the_end_of_an_attempt(is_async: bool) -> None:
    sent: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={})

    transport = httpx.MockTransport(handler)
    with pytest.raises(ExchangeError) as caught:
        exchange(is_async, transport, Limits(60.0, 60.0, time.monotonic()))
    assert (caught.value.kind, caught.value.request_sent, sent) == (FailureKind.TIMEOUT, False, [])


@BOTH
@pytest.mark.parametrize("url", ["http://server.test", "https://server.test"])
def test_a_client_that_is_made_for_a_proxy_has_the_limits_and_the_certificates(
    is_async: bool, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    over: Any = AsyncClient if is_async else BlockingClient
    real = over.kind

    def note(**given: Any) -> Any:
        made.append(given)
        return real(**given)

    monkeypatch.setattr(over, "kind", staticmethod(note))
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    endpoint = Endpoint(url)
    choose: Any = asynchronous if is_async else blocking
    connections = choose(endpoint, connect_timeout_s=1.5, max_connections=3)
    (given,) = made
    assert given["limits"] == httpx.Limits(max_connections=3, max_keepalive_connections=3)
    assert given["verify"] is (endpoint.tls if endpoint.secure else True)
    assert connections.connect_timeout_s == 1.5
    if is_async:
        asyncio.run(connections.aclose())
    else:
        connections.close()
    assert connections.client.is_closed
