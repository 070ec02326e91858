"""The server as an httpx transport: the same requests and responses as over HTTP, without a socket.

One class serves `httpx.Client` and `httpx.AsyncClient`. Faults become the exceptions that httpx raises for them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import httpx

from cycles.embedded.faults import Fault
from cycles.embedded.http import Request, Response


class Handler(Protocol):
    """A server: returns a response and the fault that affects its delivery."""

    def handle(self, request: Request) -> tuple[Response | None, Fault | None]:
        """Handle a request. The response is None if a fault kept the request from the ledger."""
        ...


class EmbeddedTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Carries requests to a server in this process."""

    def __init__(self, server: Handler) -> None:
        self._server = server

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Handle a request of a blocking client."""
        request.read()
        response, fault = self._handle(request)
        if fault is not None and fault.delay_s:
            pause, in_time = _wait_before_timeout(request, fault.delay_s)
            threading.Event().wait(pause)
            _require(in_time, request)
        return _delivered(request, response, fault)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Handle a request of an asyncio client."""
        await request.aread()
        response, fault = self._handle(request)
        if fault is not None and fault.delay_s:
            pause, in_time = _wait_before_timeout(request, fault.delay_s)
            await asyncio.sleep(pause)
            _require(in_time, request)
        return _delivered(request, response, fault)

    def _handle(self, request: httpx.Request) -> tuple[Response | None, Fault | None]:
        headers: dict[str, str] = {}
        for name, value in request.headers.raw:
            headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        return self._server.handle(
            Request(
                method=request.method,
                target=request.url.raw_path.decode("ascii"),
                headers=headers,
                body=request.content,
            )
        )


def _wait_before_timeout(request: httpx.Request, delay_s: float) -> tuple[float, bool]:
    """Return how long the client waits for a response after `delay_s`, and whether the response is in time."""
    read_timeout = request.extensions.get("timeout", {}).get("read")
    if read_timeout is None or delay_s < read_timeout:
        return delay_s, True
    return read_timeout, False


def _require(in_time: bool, request: httpx.Request) -> None:
    if not in_time:
        raise httpx.ReadTimeout("the server did not respond in time", request=request)


def _delivered(request: httpx.Request, response: Response | None, fault: Fault | None) -> httpx.Response:
    if fault is not None and fault.lost:
        if fault.reaches_ledger:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
        raise httpx.ConnectError("Connection refused", request=request)
    if response is None:
        raise httpx.ConnectError("the embedded server is closed", request=request)
    if fault is not None and fault.drip_s is not None:
        headers = response.headers | {"Content-Length": str(len(response.body))}
        return httpx.Response(response.status, headers=headers, stream=_Drip(response.body, fault.drip_s))
    return httpx.Response(response.status, headers=response.headers, content=response.body)


class _Drip(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, body: bytes, interval_s: float) -> None:
        self._body = body
        self._interval_s = interval_s

    def __iter__(self) -> Iterator[bytes]:
        for byte in self._body:
            threading.Event().wait(self._interval_s)
            yield bytes([byte])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for byte in self._body:
            await asyncio.sleep(self._interval_s)
            yield bytes([byte])
