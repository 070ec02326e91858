"""The times and the failures of one attempt over a user's client of httpx, on a clock that the transport moves."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from cycles._core.messages.requests import Prepared
from cycles._http.exchange import MAX_BODY, Endpoint, ExchangeError, FailureKind, Limits
from cycles._http.httpx_client import AsyncClient, BlockingClient

BEGAN_S = 1_000.0
CONNECT_S = 200.0
CONNECTED, SENT = "connection.connect_tcp.complete", "http11.send_request_headers.started"

Step = tuple[str | bytes, float]
"""An event of the trace, or a piece of the body, and the time at which it comes."""


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The pieces of a body, each at its time."""

    def __init__(self, clock: Clock, pieces: list[tuple[bytes, float]]) -> None:
        self.clock = clock
        self.pieces = pieces
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        for piece, at_s in self.pieces:
            self.clock.now_s = at_s
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.is_closed = True


class Clock:
    """The clock of the attempts. Its times are far apart, so that the machine is never too slow for them."""

    now_s = BEGAN_S

    def __init__(self, is_async: bool) -> None:
        self.is_async = is_async
        self.requests: list[httpx.Request] = []
        self.client: Any = None

    def monotonic(self) -> float:
        return self.now_s

    def exchange(
        self, steps: list[Step], limits: Limits, end: Callable[[Any], object] = lambda _: None, **options: Any
    ) -> Any:
        """Return the reply, or the kind, the text and `request_sent` of the failure."""
        events = [(text, at_s) for text, at_s in steps if isinstance(text, str)]
        body = Body(self, [(piece, at_s) for piece, at_s in steps if isinstance(piece, bytes)])

        def respond(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            for event, self.now_s in events:
                request.extensions["trace"](event, {})
            end(self.client)
            return httpx.Response(200, stream=body)

        async def respond_async(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            for event, self.now_s in events:
                await request.extensions["trace"](event, {})
            if inspect.isawaitable(ended := end(self.client)):
                await ended
            return httpx.Response(200, stream=body)

        try:
            if self.is_async:
                return asyncio.run(self._send(httpx.MockTransport(respond_async), limits, options))
            with httpx.Client(transport=httpx.MockTransport(respond), **options) as self.client:
                connections = BlockingClient(Endpoint("http://a.test"), self.client, **CONNECTIONS)
                try:
                    return connections.send(Prepared("POST", "/v1/x", [], b"{}"), limits)
                finally:
                    connections.close()
        except ExchangeError as error:
            return error.kind, str(error), error.request_sent

    async def _send(self, transport: httpx.MockTransport, limits: Limits, options: dict[str, Any]) -> Any:
        async with httpx.AsyncClient(transport=transport, **options) as self.client:
            connections = AsyncClient(Endpoint("http://a.test"), self.client, **CONNECTIONS)
            return await connections.send(Prepared("POST", "/v1/x", [], b"{}"), limits)


CONNECTIONS: dict[str, Any] = {"connect_timeout_s": CONNECT_S, "max_connections": 4}


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(request.param)
    monkeypatch.setattr("cycles._http.httpx_client.time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.mark.parametrize(
    ("limits", "waits"),
    [
        (Limits(500.0, 300.0), (CONNECT_S, 500.0, 300.0)),
        (Limits(150.0, 300.0), (150.0, 150.0, 300.0)),
        (Limits(500.0, 300.0, BEGAN_S + 250.0), (CONNECT_S, 250.0, 250.0)),
        (Limits(500.0, 300.0, BEGAN_S + 120.0), (120.0, 120.0, 120.0)),
    ],
)
def test_the_waits_of_the_client_end_with_the_attempt(
    clock: Clock, limits: Limits, waits: tuple[float, float, float]
) -> None:
    clock.exchange([], limits)
    connect_s, rest_s, pool_s = waits
    expected = {"connect": connect_s, "write": rest_s, "read": rest_s, "pool": pool_s}
    assert [request.extensions["timeout"] for request in clock.requests] == [expected]


LATE = (FailureKind.TIMEOUT, "timed out reading the response", True)


@pytest.mark.parametrize(
    ("steps", "limits", "is_late"),
    [
        # From the moment when it has a connection, it may take its timeout.
        ([(CONNECTED, 1_250.0), (b"{}", 1_750.0)], Limits(500.0, 300.0), False),
        ([(CONNECTED, 1_250.0), (b"{}", 1_751.0)], Limits(500.0, 300.0), True),
        # Only the first event is that moment.
        ([(CONNECTED, 1_250.0), (SENT, 1_300.0), (b"{}", 1_751.0)], Limits(500.0, 300.0), True),
        ([(SENT, 1_250.0), (b"{", 1_740.0), (b"}", 1_751.0)], Limits(500.0, 300.0), True),
        # A transport without a trace may have waited for a connection until now.
        ([(b"{}", 1_800.0)], Limits(500.0, 300.0), False),
        ([(b"{}", 1_801.0)], Limits(500.0, 300.0), True),
        # All of it ends at the end of the caller's time.
        ([(b"{}", 1_600.0)], Limits(500.0, 300.0, 1_600.0), False),
        ([(b"{}", 1_601.0)], Limits(500.0, 300.0, 1_600.0), True),
        ([(CONNECTED, 1_250.0), (b"{}", 1_600.0)], Limits(500.0, 300.0, 1_600.0), False),
        ([(CONNECTED, 1_250.0), (b"{}", 1_601.0)], Limits(500.0, 300.0, 1_600.0), True),
    ],
)
def test_a_body_is_read_until_the_deadline(clock: Clock, steps: list[Step], limits: Limits, is_late: bool) -> None:
    reply = clock.exchange(steps, limits)
    assert (reply if isinstance(reply, tuple) else reply.body) == (LATE if is_late else b"{}")


@pytest.mark.parametrize(
    ("steps", "sent_s"),
    [
        ([(CONNECTED, 1_010.0), (SENT, 1_020.0), (b"{}", 1_030.0)], 1_020.0),
        ([(CONNECTED, 1_010.0), ("http2.send_request_headers.started", 1_020.0), (b"{}", 1_030.0)], 1_020.0),
        ([(CONNECTED, 1_010.0), (b"{}", 1_030.0)], BEGAN_S),
        ([(b"{}", 1_030.0)], BEGAN_S),
    ],
)
def test_a_reply_has_the_times_of_its_request_and_of_its_last_byte(
    clock: Clock, steps: list[Step], sent_s: float
) -> None:
    reply = clock.exchange(steps, Limits(500.0, 300.0))
    assert (reply.sent, reply.received) == (sent_s, 1_030.0)


@pytest.mark.parametrize("size", [MAX_BODY, MAX_BODY + 1])
@pytest.mark.parametrize("is_read_by_a_hook", [False, True])
def test_a_body_may_have_its_largest_size(clock: Clock, size: int, is_read_by_a_hook: bool) -> None:
    async def read_async(response: httpx.Response) -> None:
        await response.aread()

    hooks = [read_async if clock.is_async else httpx.Response.read] if is_read_by_a_hook else []
    pieces: list[Step] = [(b"x" * (size - 1), 1_001.0), (b"x", 1_002.0)]
    reply = clock.exchange(pieces, Limits(500.0, 300.0), event_hooks={"response": hooks})
    too_large = FailureKind.TOO_LARGE, f"the response is larger than {MAX_BODY} bytes", True
    found = reply if isinstance(reply, tuple) else len(reply.body)
    assert found == (size if size <= MAX_BODY else too_large)


@pytest.mark.parametrize("ends_at_s", [BEGAN_S, BEGAN_S - 1.0])
def test_nothing_is_sent_after_the_callers_time(clock: Clock, ends_at_s: float) -> None:
    reply = clock.exchange([(b"{}", BEGAN_S)], Limits(500.0, 300.0, ends_at_s))
    assert reply == (FailureKind.TIMEOUT, "timed out before the request was sent", False)
    assert clock.requests == []


KIND = FailureKind
NEVER, MAYBE = False, True
RESPONSE = "timed out waiting for the response"
BROKE = "the connection broke before the response (why)"
NOT_HTTP = "the request can't be sent as HTTP: why"
NOT_CONNECTED = "can't connect to http://a.test (why)"
NO_SLOT = (
    "no connection was free within 300 s, so nothing was sent; raise max_connections, "
    "or start fewer calls at the same time"
)
EVENTS: dict[str, list[Step]] = {"untraced": [], "connected": [(CONNECTED, 1_010.0)], "sent": [(SENT, 1_010.0)]}


@pytest.mark.parametrize(
    ("error", "untraced", "connected", "sent"),
    [
        (httpx.ConnectError("why"), (KIND.CONNECT, NOT_CONNECTED, NEVER), (KIND.CONNECT, NOT_CONNECTED, NEVER),
         (KIND.BROKEN, BROKE, MAYBE)),
        (httpx.ProxyError("why"), (KIND.CONNECT, NOT_CONNECTED, NEVER), (KIND.CONNECT, NOT_CONNECTED, NEVER),
         (KIND.BROKEN, BROKE, MAYBE)),
        (httpx.ConnectTimeout("why"), (KIND.TIMEOUT, RESPONSE, MAYBE), (KIND.CONNECT, NOT_CONNECTED, NEVER),
         (KIND.TIMEOUT, RESPONSE, MAYBE)),
        (httpx.ReadTimeout("why"), (KIND.TIMEOUT, RESPONSE, MAYBE), (KIND.TIMEOUT, RESPONSE, NEVER),
         (KIND.TIMEOUT, RESPONSE, MAYBE)),
        (TimeoutError("why"), (KIND.TIMEOUT, RESPONSE, MAYBE), (KIND.TIMEOUT, RESPONSE, NEVER),
         (KIND.TIMEOUT, RESPONSE, MAYBE)),
        (httpx.ReadError("why"), (KIND.BROKEN, BROKE, MAYBE), (KIND.BROKEN, BROKE, NEVER),
         (KIND.BROKEN, BROKE, MAYBE)),
        (RuntimeError("why"), (KIND.BROKEN, BROKE, MAYBE), (KIND.BROKEN, BROKE, NEVER), (KIND.BROKEN, BROKE, MAYBE)),
        (httpx.PoolTimeout("why"), *[(KIND.QUEUE, NO_SLOT, NEVER)] * 3),
        (httpx.InvalidURL("why"), *[(KIND.INVALID, NOT_HTTP, NEVER)] * 3),
        (httpx.UnsupportedProtocol("why"), *[(KIND.INVALID, NOT_HTTP, NEVER)] * 3),
        (httpx.LocalProtocolError("why"), *[(KIND.INVALID, NOT_HTTP, NEVER)] * 3),
        (UnicodeError("why"), *[(KIND.INVALID, NOT_HTTP, NEVER)] * 3),
        (ExchangeError(KIND.CLOSED, "why", request_sent=MAYBE), *[(KIND.CLOSED, "why", MAYBE)] * 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)  # fmt: skip
def test_an_error_of_the_client_says_whether_the_server_may_have_the_request(
    clock: Clock, error: Exception, untraced: object, connected: object, sent: object
) -> None:
    def fail(_: Any) -> None:
        raise error

    found = {how: clock.exchange(steps, Limits(500.0, 300.0), fail) for how, steps in EVENTS.items()}
    assert found == {"untraced": untraced, "connected": connected, "sent": sent}


@pytest.mark.parametrize(
    ("error", "kind"),
    [(RuntimeError("why"), KIND.CLOSED), (ValueError("why"), KIND.BROKEN), (httpx.ReadError("why"), KIND.BROKEN)],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_only_the_runtime_error_of_a_closed_client_says_that_it_is_closed(
    clock: Clock, error: Exception, kind: FailureKind
) -> None:
    def fail(client: httpx.Client) -> None:
        client.close()
        raise error

    async def fail_async(client: httpx.AsyncClient) -> None:
        await client.aclose()
        raise error

    found = clock.exchange([], Limits(500.0, 300.0), fail_async if clock.is_async else fail)
    assert found[0] is kind
    assert found[2] is (kind is not KIND.CLOSED)


@pytest.mark.parametrize("kind", [AsyncClient, BlockingClient])
def test_a_client_that_is_made_here_keeps_as_many_connections_as_it_may_have(
    monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(kind, "kind", staticmethod(lambda **options: made.append(options)))
    kind(Endpoint("http://a.test"), None, connect_timeout_s=1.0, max_connections=7)
    assert made == [{"limits": httpx.Limits(max_connections=7, max_keepalive_connections=7), "verify": True}]
