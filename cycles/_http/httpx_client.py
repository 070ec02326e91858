"""The same exchanges over an httpx client: the user's, or one that knows the proxies of the environment.

A request is built here, not by the client: its `base_url`, `params` and cookies are not used. Its own headers and its
`auth` are (a gateway may need them); redirects are never followed, so the API key is sent to no other server.

httpx and httpx2 have clients of the same names; each is used with the classes of its library.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar, cast

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
from cycles._http.httpx_streams import bound_reads, join_writes, this_thread

C = TypeVar("C", bound=httpx.Client | httpx.AsyncClient)

_SENT: Final = ("http11.send_request_headers.started", "http2.send_request_headers.started")
_CONNECTED: Final = ("connect_tcp.complete", "connect_unix_socket.complete", "start_tls.complete")
_CONTENT_ENCODING: Final = b"content-encoding"


class _Library:
    """The module whose client it is: httpx, or httpx2."""

    def __init__(self, client: Any) -> None:
        module: Any = httpx
        for kind in type(client).__mro__:
            found = sys.modules.get(kind.__module__.partition(".")[0])
            if kind.__name__ in ("Client", "AsyncClient") and hasattr(found, "HTTPError"):
                module = found
                break
        self.Request, self.Headers = module.Request, module.Headers
        self.URL, self.ByteStream = module.URL, module.ByteStream
        self.unwritable = (module.InvalidURL, module.UnsupportedProtocol, module.LocalProtocolError, UnicodeError)
        self.PoolTimeout, self.ConnectTimeout = module.PoolTimeout, module.ConnectTimeout
        self.not_connected = (module.ConnectError, module.ProxyError)
        self.timed_out = (module.TimeoutException, TimeoutError)
        self.RequestError = module.RequestError
        own = (module.HTTPError, module.InvalidURL, module.StreamError)
        # What the library raises, and what transports that are not its own are known to raise.
        self.failures: tuple[type[Exception], ...] = (*own, OSError, ValueError, RuntimeError)


class _Attempt:
    """One attempt: its limits, and what is known of how far it came. Times are monotonic seconds.

    Args:
        over: Whose attempt it is.
        timeout_s: Limits the attempt from the moment when it has a connection to use or to open.
        queue_timeout_s: Limits the wait before that moment.
        ends_at_s: When the attempt ends at the latest.
    """

    def __init__(self, over: _OverHttpx[Any], timeout_s: float, queue_timeout_s: float, ends_at_s: float) -> None:
        self._over = over
        self._timeout_s = timeout_s
        self._queue_timeout_s = queue_timeout_s
        self._ends_at_s = ends_at_s
        self.started = now = time.monotonic()
        # Without a trace the moment when the connection is held is unknown.
        self.deadline = min(now + queue_timeout_s + timeout_s, ends_at_s)
        left = max(0.001, ends_at_s - now)
        wait = min(timeout_s, left)
        connect = min(wait, over.connect_timeout_s)
        self._waits: dict[str, float | None] = {
            "pool": min(queue_timeout_s, left),
            "connect": connect,
            "write": wait,
            "read": wait,
        }
        self._extensions: dict[str, Any] = {}
        self._has_auth = over.client.auth is not None
        self._has_body = False
        self._sent: float | None = None
        self._is_traced = False

    def request(self, method: str, target: str, headers: Headers, body: bytes, trace: Any) -> Any:
        """Return the request of this attempt, with its limits and the trace."""
        content = body if body or method == "POST" else None
        self._has_body = bool(body)
        self._extensions = extensions = {"timeout": self._waits, "trace": trace}
        return self._over.requests.make(method, target, headers, content, extensions)

    def trace(self, event: str, info: Mapping[str, object]) -> None:
        """Note how far httpcore is: the only way to know when a connection was ready."""
        now = time.monotonic()
        is_first = not self._is_traced
        if is_first:
            self._is_traced = True
            self.deadline = min(now + self._timeout_s, self._ends_at_s)
        this_thread.is_sending_head = self._has_body and event == _SENT[0]
        if event in _SENT:
            self._sent = now
            if is_first and not self._has_auth:
                self.stop_trace()  # a connection that was open already: all that follows is its one exchange

    def stop_trace(self) -> None:
        """Let httpcore trace no further: each event costs, and the trace refers to this attempt."""
        self._extensions.pop("trace", None)

    def trace_blocking(self, event: str, info: Mapping[str, object]) -> None:
        """As `trace`; bounds the reads of this thread on the connections that it opened."""
        self.trace(event, info)
        this_thread.deadline = self.deadline
        if event.endswith(_CONNECTED):
            bound_reads(info.get("return_value"))
            join_writes(info.get("return_value"), is_async=False)

    async def trace_async(self, event: str, info: Mapping[str, object]) -> None:
        """As `trace`; one timer limits all that follows, so httpcore needs none for each read and write."""
        if not self._is_traced:
            self._waits["read"] = self._waits["write"] = None
        self.trace(event, info)
        if event.endswith(_CONNECTED):
            join_writes(info.get("return_value"), is_async=True)

    @property
    def shortest_s(self) -> float:
        """The seconds that this attempt has at least, whenever it gets its connection."""
        return max(0.0, min(self._timeout_s, self._ends_at_s - self.started))

    def left(self) -> float:
        """Return the seconds until the deadline; ExchangeError after it."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise timed_out("waiting for the response", request_sent=True)
        return left

    def shorten(self) -> None:
        """Give the body what is left of the time: httpcore reads it under the limits that it finds then."""
        self._waits["read"] = self.left()

    def add(self, chunks: list[bytes], size: int, chunk: bytes) -> int:
        """Keep one more piece of the body. Returns the new size."""
        size += len(chunk)
        if size > self._over.max_body:
            raise too_large(self._over.max_body)
        if time.monotonic() > self.deadline:
            raise timed_out("reading the response", request_sent=True)
        chunks.append(chunk)
        return size

    def reply(self, response: Any, body: bytes, *, raw: bool) -> Reply:
        received = time.monotonic()
        limit = self._over.max_body
        if len(body) > limit:
            raise too_large(limit)
        headers = tuple([(name.lower(), value) for name, value in response.headers.raw])
        if raw and _CONTENT_ENCODING in [name for name, _ in headers]:
            body = decoded(body, response.headers["content-encoding"], limit)
        return Reply(response.status_code, headers, body, self._sent or self.started, received)

    def failed(self, error: Any) -> ExchangeError:
        """Return the exchange's failure for an exception of the library."""
        library = self._over.library
        if isinstance(error, library.RequestError):
            error._request = None  # its headers contain the API key, and the error is the cause of a public one
        sent, is_traced = self._sent, self._is_traced
        request_sent = sent is not None or not is_traced  # without a trace it may have been sent
        if isinstance(error, library.unwritable):
            message = f"the request can't be sent as HTTP: {error}"
            return ExchangeError(FailureKind.INVALID, message, request_sent=False)
        if self._over.client.is_closed and isinstance(error, RuntimeError):
            return closed()
        if isinstance(error, library.PoolTimeout):
            return no_free_connection(self._queue_timeout_s)
        # Some transports raise ConnectTimeout for a connection that broke later.
        never_connected = (
            is_traced if isinstance(error, library.ConnectTimeout) else isinstance(error, library.not_connected)
        )
        if sent is None and never_connected:
            return not_connected(self._over.endpoint, error)
        if isinstance(error, library.timed_out):
            return timed_out("waiting for the response", request_sent=request_sent)
        return broken(error, request_sent=request_sent)


class _Watch:
    """Ends an async attempt at its deadline.

    It is set once, for the earliest time that the deadline can be, and looks then when that really is: setting it again
    with each connection costs more.
    """

    def __init__(self, attempt: _Attempt, timer: asyncio.Timeout) -> None:
        self._attempt = attempt
        self._timer = timer
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_later(attempt.shortest_s, self._look)

    def _look(self) -> None:
        left = self._attempt.deadline - time.monotonic()
        if left > 0:
            self._handle = self._loop.call_later(left, self._look)
        else:
            self._timer.reschedule(self._loop.time())

    def cancel(self) -> None:
        self._handle.cancel()


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
        self.endpoint = endpoint
        self.client: C = client
        self.library = library = _Library(client)
        self.requests = Requests(endpoint, client, library)
        self.connect_timeout_s = connect_timeout_s
        self.max_body = max_body
        self._is_ours = is_ours


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
        attempt = _Attempt(self, timeout_s, queue_timeout_s, ends_at_s)
        try:
            request = attempt.request(method, target, headers, body, attempt.trace_blocking)
            response = self.client.send(request, stream=True, follow_redirects=False)
            try:
                return self._read(attempt, response)
            finally:
                response.close()
        except self.library.failures as error:
            raise attempt.failed(error) from error
        finally:
            attempt.stop_trace()
            this_thread.deadline = None

    @staticmethod
    def _read(attempt: _Attempt, response: httpx.Response) -> Reply:
        if response.is_stream_consumed:  # a transport that has the response in memory
            return attempt.reply(response, response.content, raw=False)
        attempt.shorten()
        chunks: list[bytes] = []
        size = 0
        # Read as `iter_raw` does, which adds nothing for a response that is open.
        stream = response.iter_raw() if response.is_closed else cast(httpx.SyncByteStream, response.stream)
        for chunk in stream:
            size = attempt.add(chunks, size, chunk)
        return attempt.reply(response, b"".join(chunks), raw=True)

    def close(self) -> None:
        """Close the client if it was made here; a user's own stays open."""
        if self._is_ours:
            self.client.close()


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
        attempt = _Attempt(self, timeout_s, queue_timeout_s, ends_at_s)
        attempt.left()
        try:
            async with asyncio.timeout(None) as timer:
                watch = _Watch(attempt, timer)
                try:
                    request = attempt.request(method, target, headers, body, attempt.trace_async)
                    response = await self.client.send(request, stream=True, follow_redirects=False)
                    try:
                        return await self._read(attempt, response)
                    finally:
                        await response.aclose()
                finally:
                    watch.cancel()
        except self.library.failures as error:
            raise attempt.failed(error) from error
        finally:
            attempt.stop_trace()

    @staticmethod
    async def _read(attempt: _Attempt, response: httpx.Response) -> Reply:
        if response.is_stream_consumed:
            return attempt.reply(response, response.content, raw=False)
        chunks: list[bytes] = []
        size = 0
        stream = response.aiter_raw() if response.is_closed else cast(httpx.AsyncByteStream, response.stream)
        async for chunk in stream:
            size = attempt.add(chunks, size, chunk)
        return attempt.reply(response, b"".join(chunks), raw=True)

    async def aclose(self) -> None:
        """Close the client if it was made here; a user's own stays open."""
        if self._is_ours:
            await self.client.aclose()
