"""HTTP clients of the proxy, without what it does not need: a proxy keeps no cookies of its callers."""

from __future__ import annotations

from typing import Any

import httpx


class _NoCookies(httpx.Cookies):
    """Keeps nothing. Reading cookies would take a tenth of the CPU of a call."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Ignore the cookies of a response."""


class UpstreamClient(httpx.AsyncClient):
    """Sends requests unchanged, and keeps no cookies."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._cookies = _NoCookies()


class LedgerClient(httpx.AsyncClient):
    """Passes requests to a server in this process: no authentication, redirects, cookies or hooks."""

    async def send(self, request: httpx.Request, **_: Any) -> httpx.Response:
        """Return the response of the transport, whose body is in memory."""
        response = await self._transport.handle_async_request(request)
        response.request = request
        await response.aread()
        return response
