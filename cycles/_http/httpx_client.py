"""The same exchanges over an httpx client: one that the user brought, or one that knows the environment's proxies.

A request is built here, not by the client: its `base_url`, `params` and cookies stay out of it. Its own headers and its
`auth` go along (a gateway may want them); redirects are never followed, so the API key goes nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import httpx

from cycles._http.exchange import (
    MAX_BODY,
    Endpoint,
    ExchangeError,
    FailureKind,
    Reply,
    broken,
    closed,
    decoded,
    not_connected,
    timed_out,
    too_large,
)

C = TypeVar("C", bound=httpx.Client | httpx.AsyncClient)

_FAILURES = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, ValueError, RuntimeError)
"""What httpx raises, and what transports that are not httpx's own are known to let through."""


class _Attempt:
    """One attempt: its request, its deadline, and what is known of how far it came."""

    def __init__(self, endpoint: Endpoint, limit: int, timeout_s: float, connect_timeout_s: float) -> None:
        self.endpoint = endpoint
        self.limit = limit
        self.started = time.monotonic()
        self.deadline = self.started + timeout_s
        self.waits = {"pool": timeout_s, "connect": min(timeout_s, connect_timeout_s)}
        self.waits |= {"write": timeout_s, "read": timeout_s}
        self.sent: float | None = None
        self.is_traced = False

    def request(
        self,
        client: httpx.Client | httpx.AsyncClient,
        method: str,
        target: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
    ) -> httpx.Request:
        merged = httpx.Headers(client.headers)
        merged["Accept-Encoding"] = "identity"  # the size limit counts what is read, not what it unpacks to
        merged.update(list(headers))
        trace = self.trace_async if isinstance(client, httpx.AsyncClient) else self.trace
        extensions = {"timeout": self.waits, "trace": trace}
        url, content = self.endpoint.url(target), body if body or method == "POST" else None
        return httpx.Request(method, url, headers=merged, content=content, extensions=extensions)

    def trace(self, event: str, info: Mapping[str, object]) -> None:
        """httpcore tells how far it is: the one way to know when a connection was in hand."""
        self.is_traced = True
        if event.endswith("send_request_headers.started"):
            self.sent = time.monotonic()

    async def trace_async(self, event: str, info: Mapping[str, object]) -> None:
        self.trace(event, info)

    def shorten(self) -> None:
        """Gives what is left of the time to the body, which httpcore reads under the limits it finds then."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise timed_out("waiting for the answer", request_sent=True)
        self.waits["read"] = left

    def add(self, chunks: list[bytes], size: int, chunk: bytes) -> int:
        """Keeps one more piece of the body; returns the new size."""
        size += len(chunk)
        if size > self.limit:
            raise too_large(self.limit)
        if time.monotonic() > self.deadline:
            raise timed_out("reading the answer", request_sent=True)
        chunks.append(chunk)
        return size

    def reply(self, response: httpx.Response, body: bytes, *, raw: bool) -> Reply:
        received = time.monotonic()
        if len(body) > self.limit:
            raise too_large(self.limit)
        if raw:
            body = decoded(body, response.headers.get("content-encoding"), self.limit)
        headers = tuple((name.lower(), value) for name, value in response.headers.raw)
        return Reply(response.status_code, headers, body, self.sent or self.started, received)

    def failed(self, error: Exception, *, is_closed: bool) -> ExchangeError:
        """The exchange's failure for one of `_FAILURES`."""
        if isinstance(error, httpx.RequestError):
            error._request = None  # its headers contain the API key, and the error is the cause of a public one
        # Without a trace it is unknown how much was sent.
        request_sent = self.sent is not None or not self.is_traced
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError | UnicodeError):
            message = f"the request can't be sent as HTTP: {error}"
            return ExchangeError(FailureKind.INVALID, message, request_sent=False)
        if is_closed and isinstance(error, RuntimeError):
            return closed()
        if isinstance(error, httpx.PoolTimeout):
            return timed_out("waiting for a free connection", request_sent=False)
        if self.sent is None and self._never_connected(error):
            return not_connected(self.endpoint, error)
        if isinstance(error, httpx.TimeoutException | TimeoutError):
            return timed_out("waiting for the answer", request_sent=request_sent)
        return broken(error, request_sent=request_sent)

    def _never_connected(self, error: Exception) -> bool:
        if isinstance(error, httpx.ConnectTimeout):  # some transports say so of a connection that broke later
            return self.is_traced
        return isinstance(error, httpx.ConnectError | httpx.ProxyError)


class _OverHttpx(Generic[C]):
    """What both worlds know of the client they send through."""

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
        self._connect_timeout_s = connect_timeout_s
        self._max_body = max_body
        self._is_ours = is_ours

    def _attempt(self, timeout_s: float) -> _Attempt:
        return _Attempt(self._endpoint, self._max_body, timeout_s, self._connect_timeout_s)


class BlockingClient(_OverHttpx[httpx.Client]):
    """Exchanges over an `httpx.Client`. The deadline binds the whole attempt but for one gap httpx leaves: an answer
    whose headers drip in byte by byte is bounded per read, not in all.
    """

    def send(
        self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes, timeout_s: float
    ) -> Reply:
        """As `BlockingConnections.send`."""
        attempt = self._attempt(timeout_s)
        try:
            request = attempt.request(self._client, method, target, headers, body)
            response = self._client.send(request, stream=True, follow_redirects=False)
            try:
                return self._read(attempt, response)
            finally:
                response.close()
        except _FAILURES as error:
            raise attempt.failed(error, is_closed=self._client.is_closed) from error

    @staticmethod
    def _read(attempt: _Attempt, response: httpx.Response) -> Reply:
        if response.is_stream_consumed:  # a transport that answers from memory
            return attempt.reply(response, response.content, raw=False)
        attempt.shorten()
        chunks: list[bytes] = []
        size = 0
        for chunk in response.iter_raw():
            size = attempt.add(chunks, size, chunk)
        return attempt.reply(response, b"".join(chunks), raw=True)

    def close(self) -> None:
        """Closes the client if it was made here; a user's own stays open."""
        if self._is_ours:
            self._client.close()


class AsyncClient(_OverHttpx[httpx.AsyncClient]):
    """Exchanges over an `httpx.AsyncClient`, whose transport may be any (aiohttp's, say)."""

    async def send(
        self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes, timeout_s: float
    ) -> Reply:
        """As `AsyncConnections.send`."""
        attempt = self._attempt(timeout_s)
        try:
            request = attempt.request(self._client, method, target, headers, body)
            async with asyncio.timeout(timeout_s):
                response = await self._client.send(request, stream=True, follow_redirects=False)
                try:
                    return await self._read(attempt, response)
                finally:
                    await response.aclose()
        except _FAILURES as error:
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
        """Closes the client if it was made here; a user's own stays open."""
        if self._is_ours:
            await self._client.aclose()
