"""Exchanges over an httpx client: the user's, or one that knows the proxies of the environment.

A request is built here, not by the client: its `base_url`, `params` and cookies are not used. Its own headers and its
`auth` are (a gateway may need them); redirects are never followed, so the API key is sent to no other server.

One deadline limits an attempt, from the moment when it has a connection to the last byte of the body. httpx limits
each read instead, and no look-up of a name, auth flow or event hook. So a blocking attempt runs in a separate thread
(`attempt_threads.py`), which its caller leaves at the deadline, and an async one in `asyncio.timeout`. The documented
extension `trace` reports when the connection is there, and when the request is sent.

httpx and httpx2 have clients of the same names; each is used with the classes of its library.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

import httpx

from cycles._core.messages.outcome import Reply
from cycles._core.messages.requests import Prepared
from cycles._http.attempt_threads import AttemptThreads
from cycles._http.exchange import (
    MAX_BODY,
    Endpoint,
    ExchangeError,
    FailureKind,
    Limits,
    broken,
    closed,
    decoded,
    no_free_connection,
    not_connected,
    timed_out,
    too_large,
)

C = TypeVar("C", bound=httpx.Client | httpx.AsyncClient)

_SENT: Final = ("http11.send_request_headers.started", "http2.send_request_headers.started")
_IMPLIED: Final = ((b"accept", b"*/*"), (b"connection", b"keep-alive"))  # httpx adds them; HTTP/1.1 means them anyway
_MOST_URLS: Final = 16


def _library_of(client: object) -> Any:
    """Return the module of a client: httpx, or httpx2."""
    for kind in type(client).__mro__:
        module = sys.modules.get(kind.__module__.partition(".")[0])
        if kind.__name__ in ("Client", "AsyncClient") and hasattr(module, "HTTPError"):
            return module
    return httpx


class _Attempt:
    """The deadline of one attempt, and what is known of how far it came. Times are monotonic seconds.

    Args:
        over: What sends it.
        limits: Its times. Those of the exchange begin when it has a connection to use or to open.
    """

    def __init__(self, over: _OverHttpx[Any], limits: Limits) -> None:
        self._over = over
        self._limits = limits
        self.started = time.monotonic()
        # A transport without a trace never reports the moment, so the wait may have lasted until its end.
        self.deadline = min(self.started + limits.queue_timeout_s + limits.timeout_s, limits.ends_at_s)
        self.sent: float | None = None
        self._is_traced = False
        self._extensions: dict[str, Any] = {}
        self._chunks: list[bytes] = []
        self._size = 0
        if limits.ends_at_s <= self.started:
            raise timed_out("before the request was sent", request_sent=False)

    def request(self, prepared: Prepared, trace: Any) -> Any:
        """Return the request of this attempt, with its limits and the trace."""
        over, left_s = self._over, self._limits.ends_at_s - self.started
        wait_s = min(self._limits.timeout_s, left_s)
        waits = {"connect": min(wait_s, over.connect_timeout_s), "write": wait_s, "read": wait_s}
        waits["pool"] = min(self._limits.queue_timeout_s, left_s)
        url, headers = over.url(prepared.target), over.headers(prepared.headers)
        given = {"headers": headers, "content": prepared.content or None}
        request = over.library.Request(prepared.method, url, **given, extensions={"timeout": waits, "trace": trace})
        self._extensions = request.extensions
        return request

    def note(self, event: str) -> bool:
        """Note an event of the trace. True if it is the first one, which sets the deadline."""
        is_first = not self._is_traced
        if is_first:
            self._is_traced = True
            self.deadline = min(time.monotonic() + self._limits.timeout_s, self._limits.ends_at_s)
        # From here on the server may have received the request, so a failure has an unknown outcome.
        if event in _SENT:
            self.sent = time.monotonic()
            if self._over.client.auth is None:  # which may send several requests
                self.stop_trace()  # each event costs
        return is_first

    def stop_trace(self) -> None:
        """Remove the trace from the request, which may outlive the attempt."""
        self._extensions.pop("trace", None)

    def wait_s(self) -> float:
        """Return for how many seconds the attempt may continue: its deadline moves when it has its connection."""
        now = time.monotonic()
        return (self.deadline if self._is_traced else min(self.deadline, now + self._limits.timeout_s)) - now

    def add(self, chunk: bytes) -> None:
        """Keep one more piece of the body."""
        self._size += len(chunk)
        if self._size > MAX_BODY:
            raise too_large(MAX_BODY)
        if time.monotonic() > self.deadline:
            raise timed_out("reading the response", request_sent=True)
        self._chunks.append(chunk)

    def reply(self, response: Any, content: bytes | None = None) -> Reply:
        """Return the reply. `content`: the decoded body of a response that the user's hook has read already."""
        received = time.monotonic()
        body = b"".join(self._chunks) if content is None else content
        if len(body) > MAX_BODY:
            raise too_large(MAX_BODY)
        if content is None:
            body = decoded(body, response.headers.get("content-encoding"), MAX_BODY)
        headers = tuple([(name.lower(), value) for name, value in response.headers.raw])
        return Reply(response.status_code, headers, body, self.sent or self.started, received)

    def failed(self, error: Any) -> ExchangeError:
        """Return the exchange's failure for an exception of the library, or of the user's hooks and transport."""
        library, endpoint = self._over.library, self._over.endpoint
        if isinstance(error, ExchangeError):
            return error
        if isinstance(error, library.HTTPError):  # it is the cause of a public error, and its request has the API key
            error.request = library.Request("POST", endpoint.name)
            if (response := getattr(error, "response", None)) is not None:
                response.request = error.request
        request_sent = self.sent is not None or not self._is_traced  # without a trace it may have been sent
        if isinstance(
            error, (UnicodeError, library.InvalidURL, library.UnsupportedProtocol, library.LocalProtocolError)
        ):
            message = f"the request can't be sent as HTTP: {error}"
            return ExchangeError(FailureKind.INVALID, message, request_sent=False)
        if self._over.client.is_closed and isinstance(error, RuntimeError):
            return closed()
        if isinstance(error, library.PoolTimeout):
            return no_free_connection(self._limits.queue_timeout_s)
        # Some transports raise ConnectTimeout for a connection that broke later.
        kinds = library.ConnectError, library.ProxyError, *((library.ConnectTimeout,) if self._is_traced else ())
        if self.sent is None and isinstance(error, kinds):
            return not_connected(endpoint, error)
        if isinstance(error, (library.TimeoutException, TimeoutError)):
            return timed_out("waiting for the response", request_sent=request_sent)
        return broken(error, request_sent=request_sent)


class _OverHttpx(Generic[C]):
    """What blocking and async exchanges know of the client they send through: the user's, or else a new one."""

    kind: type[C]

    def __init__(self, endpoint: Endpoint, client: C | None, *, connect_timeout_s: float, max_connections: int) -> None:
        self._is_ours = client is None
        if client is None:
            limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
            client = self.kind(limits=limits, verify=endpoint.tls or True)
        self.endpoint = endpoint
        self.client: C = client
        self.library: Any = _library_of(client)
        # Parsing a URL costs a tenth of a post, and those of reserve, decide and record are always the same.
        self.url = lru_cache(_MOST_URLS)(lambda target: self.library.URL(endpoint.url(target)))
        self.connect_timeout_s = connect_timeout_s

    def headers(self, ours: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return the client's own headers, as they are now, that ours do not replace, and ours."""
        pairs = [(b"Accept-Encoding", b"identity"), *ours]  # the size limit counts what is read
        replaced = {name.lower() for name, _ in pairs} | {b"content-length"}
        return [
            pair
            for pair in self.client.headers.raw
            if (name := pair[0].lower()) not in replaced and (name, pair[1]) not in _IMPLIED
        ] + pairs


class BlockingClient(_OverHttpx[httpx.Client]):
    """Exchanges over an httpx `Client`."""

    kind = httpx.Client

    def __init__(self, endpoint: Endpoint, client: httpx.Client | None, **limits: Any) -> None:
        super().__init__(endpoint, client, **limits)
        self._threads = AttemptThreads()

    def send(self, request: Prepared, limits: Limits) -> Reply:
        """As `BlockingConnections.send`."""
        attempt = _Attempt(self, limits)

        def trace(event: str, _: Mapping[str, object]) -> None:
            attempt.note(event)

        def exchange() -> Reply:
            response = self.client.send(attempt.request(request, trace), stream=True, follow_redirects=False)
            try:
                if response.is_stream_consumed:  # by an event hook, or a transport that has it in memory
                    return attempt.reply(response, response.content)
                for chunk in response.iter_raw():
                    attempt.add(chunk)
                return attempt.reply(response)
            finally:
                response.close()

        try:
            return self._threads.run(exchange, attempt.wait_s)
        except Exception as error:
            raise attempt.failed(error) from error
        finally:
            attempt.stop_trace()

    def close(self) -> None:
        """Close the client if it was made here; a user's own stays open."""
        self._threads.close()
        if self._is_ours:
            self.client.close()


class AsyncClient(_OverHttpx[httpx.AsyncClient]):
    """Exchanges over an httpx `AsyncClient`, whose transport may be any (aiohttp's, for example)."""

    kind = httpx.AsyncClient

    async def send(self, request: Prepared, limits: Limits) -> Reply:
        """As `AsyncConnections.send`."""
        attempt = _Attempt(self, limits)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(attempt.deadline - attempt.started) as timer:

                async def trace(event: str, _: Mapping[str, object]) -> None:
                    if attempt.note(event):
                        timer.reschedule(loop.time() + attempt.wait_s())

                made = attempt.request(request, trace)
                response: Any = await self.client.send(made, stream=True, follow_redirects=False)
                try:
                    if response.is_stream_consumed:
                        return attempt.reply(response, response.content)
                    async with aclosing(response.aiter_raw()) as chunks:
                        async for chunk in chunks:
                            attempt.add(chunk)
                    return attempt.reply(response)
                finally:
                    await response.aclose()
        except Exception as error:
            raise attempt.failed(error) from error
        finally:
            attempt.stop_trace()

    async def aclose(self) -> None:
        """Close the client if it was made here; a user's own stays open."""
        if self._is_ours:
            await self.client.aclose()
