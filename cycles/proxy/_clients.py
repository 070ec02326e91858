"""HTTP clients of the proxy, without what it does not need: a proxy keeps no cookies of its callers."""

from __future__ import annotations

import time
from typing import Any

import httpx

from cycles._core.messages.outcome import Reply
from cycles._core.messages.requests import Prepared
from cycles._http.exchange import ExchangeError, FailureKind, Limits
from cycles._http.factory import InProcess
from cycles.embedded import EmbeddedServer
from cycles.embedded.http import Request


class _NoCookies(httpx.Cookies):
    """Keeps nothing. Reading cookies would take a tenth of the CPU of a call."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Ignore the cookies of a response."""


class UpstreamClient(httpx.AsyncClient):
    """Sends requests unchanged, and keeps no cookies."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._cookies = _NoCookies()


class LedgerClient(InProcess):
    """Passes requests to a server in this process without httpx, whose requests cost more than the server itself.

    Args:
        server: The server. It has no faults: it is the run's own.
    """

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server

    async def send(self, request: Prepared, limits: Limits) -> Reply:
        """Return the server's response. Nothing suspends, so no limit can pass."""
        sent = time.monotonic()
        named = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers}
        response, _ = self._server.handle(
            Request(method=request.method, target=request.target, headers=named, body=request.content)
        )
        if response is None:
            message = "the ledger of the run is closed, and nothing was sent"
            raise ExchangeError(FailureKind.CONNECT, message, request_sent=False)
        pairs = tuple([(name.lower().encode(), value.encode("latin-1")) for name, value in response.headers.items()])
        return Reply(response.status, pairs, response.body, sent, time.monotonic())

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""
