"""The same exchanges over an httpx client: the user's, or one that knows the proxies of the environment.

A request is built here, not by the client: its `base_url`, `params` and cookies are not used. Its own headers and its
`auth` are (a gateway may need them); redirects are never followed, so the API key is sent to no other server.

httpx and httpx2 have clients of the same names; each is used with the classes of its library.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Generic, TypeVar

import httpx

from cycles._http.exchange import (
    MAX_BODY,
    QUEUE_TIMEOUT_S,
    Endpoint,
    ExchangeError,
    FailureKind,
    Reply,
    broken,
    closed,
    decoded,
    no_free_connection,
    not_connected,
    timed_out,
    too_large,
)
from cycles._http.httpx_requests import Headers, Requests

C = TypeVar("C", bound=httpx.Client | httpx.AsyncClient)

_SENT: Final = ("http11.send_request_headers.started", "http2.send_request_headers.started")
_CONNECTED: Final = ("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")
_this_thread = threading.local()  # `deadline`: when the attempt of this thread ends


class _Library:
    """The module whose client it is: httpx, or httpx2."""

    def __init__(self, client: Any) -> None:
        module: Any = httpx
        for kind in type(client).__mro__:
            found = sys.modules.get(kind.__module__.partition(".")[0])
            if kind.__name__ in ("Client", "AsyncClient") and hasattr(found, "HTTPError"):
                module = found
                break
        self.Request, self.URL, self.ByteStream = module.Request, module.URL, module.ByteStream
        self.unwritable = (module.InvalidURL, module.UnsupportedProtocol, module.LocalProtocolError, UnicodeError)
        self.PoolTimeout, self.ConnectTimeout = module.PoolTimeout, module.ConnectTimeout
        self.not_connected = (module.ConnectError, module.ProxyError)
        self.timed_out = (module.TimeoutException, TimeoutError)
        self.RequestError = module.RequestError
        own = (module.HTTPError, module.InvalidURL, module.StreamError)
        # What the library raises, and what transports that are not its own are known to raise.
        self.failures: tuple[type[Exception], ...] = (*own, OSError, ValueError, RuntimeError)


class _Times:
    """The limits of one attempt, and when its connection was ready. Times are monotonic seconds."""

    def __init__(self, timeout_s: float, queue_timeout_s: float, ends_at_s: float, connect_timeout_s: float) -> None:
        self.started = time.monotonic()
        self.timeout_s = timeout_s
        self.queue_timeout_s = queue_timeout_s
        self._ends_at_s = ends_at_s
        # Without a trace the moment when the connection is held is unknown.
        self.deadline = min(self.started + queue_timeout_s + timeout_s, ends_at_s)
        left = max(0.001, ends_at_s - self.started)
        self.waits = {"pool": min(queue_timeout_s, left), "connect": min(timeout_s, connect_timeout_s, left)}
        self.waits |= {"write": min(timeout_s, left), "read": min(timeout_s, left)}
        self.sent: float | None = None
        self.is_traced = False

    def connection_held(self) -> None:
        """Start the timeout."""
        self.is_traced = True
        self.deadline = min(time.monotonic() + self.timeout_s, self._ends_at_s)

    def left(self) -> float:
        """Return the seconds until the deadline; ExchangeError after it."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise timed_out("waiting for the response", request_sent=True)
        return left


class _Attempt:
    """One attempt: its request, its limits, and what is known of how far it came."""

    def __init__(self, endpoint: Endpoint, library: _Library, limit: int, times: _Times) -> None:
        self.endpoint = endpoint
        self.library = library
        self.limit = limit
        self.times = times

    def trace(self, event: str, info: Mapping[str, object]) -> None:
        """Note how far httpcore is: the only way to know when a connection was ready."""
        if not self.times.is_traced:
            self.times.connection_held()
            _this_thread.deadline = self.times.deadline
        if event in _SENT:
            self.times.sent = time.monotonic()

    def trace_blocking(self, event: str, info: Mapping[str, object]) -> None:
        """As `trace`; bounds the reads of a new connection."""
        self.trace(event, info)
        if event.endswith(_CONNECTED):
            _bound_reads(info.get("return_value"))

    def shorten(self) -> None:
        """Give the body what is left of the time: httpcore reads it under the limits that it finds then."""
        self.times.waits["read"] = self.times.left()

    def add(self, chunks: list[bytes], size: int, chunk: bytes) -> int:
        """Keep one more piece of the body. Returns the new size."""
        size += len(chunk)
        if size > self.limit:
            raise too_large(self.limit)
        if time.monotonic() > self.times.deadline:
            raise timed_out("reading the response", request_sent=True)
        chunks.append(chunk)
        return size

    def reply(self, response: Any, body: bytes, *, raw: bool) -> Reply:
        received = time.monotonic()
        if len(body) > self.limit:
            raise too_large(self.limit)
        if raw:
            body = decoded(body, response.headers.get("content-encoding"), self.limit)
        headers = tuple((name.lower(), value) for name, value in response.headers.raw)
        return Reply(response.status_code, headers, body, self.times.sent or self.times.started, received)

    def failed(self, error: Any, *, is_closed: bool) -> ExchangeError:
        """Return the exchange's failure for an exception of the library."""
        library = self.library
        if isinstance(error, library.RequestError):
            error._request = None  # its headers contain the API key, and the error is the cause of a public one
        sent, is_traced = self.times.sent, self.times.is_traced
        request_sent = sent is not None or not is_traced  # without a trace it may have been sent
        if isinstance(error, library.unwritable):
            message = f"the request can't be sent as HTTP: {error}"
            return ExchangeError(FailureKind.INVALID, message, request_sent=False)
        if is_closed and isinstance(error, RuntimeError):
            return closed()
        if isinstance(error, library.PoolTimeout):
            return no_free_connection(self.times.queue_timeout_s)
        # Some transports raise ConnectTimeout for a connection that broke later.
        never_connected = (
            is_traced if isinstance(error, library.ConnectTimeout) else isinstance(error, library.not_connected)
        )
        if sent is None and never_connected:
            return not_connected(self.endpoint, error)
        if isinstance(error, library.timed_out):
            return timed_out("waiting for the response", request_sent=request_sent)
        return broken(error, request_sent=request_sent)


def _bound_reads(stream: Any) -> None:
    """Let every read on this connection end at the deadline of the attempt that reads.

    httpcore gives each read of a response head the whole read timeout, so a server that sends one byte at a time would
    never be timed out. A stream has the interface that httpcore documents: `read(max_bytes, timeout)`.
    """
    read = getattr(stream, "read", None)
    if read is None:
        return

    def bounded(max_bytes: int, timeout: float | None = None) -> Any:
        deadline = getattr(_this_thread, "deadline", None)
        if deadline is not None:
            left = max(0.001, deadline - time.monotonic())
            timeout = left if timeout is None else min(timeout, left)
        return read(max_bytes, timeout)

    with contextlib.suppress(AttributeError):  # a stream with slots keeps its timeout for each read
        stream.read = bounded


class _OverHttpx(Generic[C]):
    """What blocking and async exchanges know of the client they send through."""

    def __init__(
        self,
        endpoint: Endpoint,
        client: C,
        *,
        connect_timeout_s: float,
        max_body: int = MAX_BODY,
        is_ours: bool = False,
    ) -> None:
        self._endpoint = endpoint
        self._client: C = client
        self._library = library = _Library(client)
        self._requests = Requests(endpoint, client, library.Request, library.URL, library.ByteStream)
        self._connect_timeout_s = connect_timeout_s
        self._max_body = max_body
        self._is_ours = is_ours

    def _attempt(self, timeout_s: float, queue_timeout_s: float, ends_at_s: float) -> _Attempt:
        times = _Times(timeout_s, queue_timeout_s, ends_at_s, self._connect_timeout_s)
        return _Attempt(self._endpoint, self._library, self._max_body, times)


class BlockingClient(_OverHttpx[httpx.Client]):
    """Exchanges over an httpx `Client`. One deadline bounds a whole attempt on every connection that it opened."""

    def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes,
        timeout_s: float,
        queue_timeout_s: float = QUEUE_TIMEOUT_S,
        ends_at_s: float = math.inf,
    ) -> Reply:
        """As `BlockingConnections.send`."""
        attempt = self._attempt(timeout_s, queue_timeout_s, ends_at_s)
        try:
            extensions = {"timeout": attempt.times.waits, "trace": attempt.trace_blocking}
            request = self._requests.make(method, target, headers, _content(method, body), extensions)
            response = self._client.send(request, stream=True, follow_redirects=False)
            try:
                return self._read(attempt, response)
            finally:
                response.close()
        except self._library.failures as error:
            raise attempt.failed(error, is_closed=self._client.is_closed) from error
        finally:
            _this_thread.deadline = None

    @staticmethod
    def _read(attempt: _Attempt, response: httpx.Response) -> Reply:
        if response.is_stream_consumed:  # a transport that has the response in memory
            return attempt.reply(response, response.content, raw=False)
        attempt.shorten()
        chunks: list[bytes] = []
        size = 0
        for chunk in response.iter_raw():
            size = attempt.add(chunks, size, chunk)
        return attempt.reply(response, b"".join(chunks), raw=True)

    def close(self) -> None:
        """Close the client if it was made here; a user's own stays open."""
        if self._is_ours:
            self._client.close()


class AsyncClient(_OverHttpx[httpx.AsyncClient]):
    """Exchanges over an httpx `AsyncClient`, whose transport may be any (aiohttp's, for example)."""

    async def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes,
        timeout_s: float,
        queue_timeout_s: float = QUEUE_TIMEOUT_S,
        ends_at_s: float = math.inf,
    ) -> Reply:
        """As `AsyncConnections.send`."""
        attempt = self._attempt(timeout_s, queue_timeout_s, ends_at_s)
        try:
            async with asyncio.timeout(attempt.times.left()) as timer:
                extensions = {"timeout": attempt.times.waits, "trace": partial(_trace_async, attempt, timer)}
                request = self._requests.make(method, target, headers, _content(method, body), extensions)
                response = await self._client.send(request, stream=True, follow_redirects=False)
                try:
                    return await self._read(attempt, response)
                finally:
                    await response.aclose()
        except self._library.failures as error:
            raise attempt.failed(error, is_closed=self._client.is_closed) from error

    @staticmethod
    async def _read(attempt: _Attempt, response: httpx.Response) -> Reply:
        if response.is_stream_consumed:
            return attempt.reply(response, response.content, raw=False)
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_raw():
            size = attempt.add(chunks, size, chunk)
        return attempt.reply(response, b"".join(chunks), raw=True)

    async def aclose(self) -> None:
        """Close the client if it was made here; a user's own stays open."""
        if self._is_ours:
            await self._client.aclose()


def _content(method: str, body: bytes) -> bytes | None:
    return body if body or method == "POST" else None


async def _trace_async(attempt: _Attempt, timer: asyncio.Timeout, event: str, info: Mapping[str, object]) -> None:
    """As `_Attempt.trace`; the timer of the attempt starts again when its connection is held."""
    if not attempt.times.is_traced:
        attempt.times.connection_held()
        timer.reschedule(asyncio.get_running_loop().time() + attempt.times.left())
    attempt.trace(event, info)
