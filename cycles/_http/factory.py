"""Choose what sends the HTTP exchanges to a server: the connections of this package, or an httpx client.

An httpx client sends if the user passed one, or if the environment (HTTP_PROXY and its siblings) names a proxy.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Protocol

from cycles._core.messages.outcome import Reply
from cycles._core.messages.requests import Prepared
from cycles._http.exchange import Endpoint, Limits

if TYPE_CHECKING:
    import httpx


class Blocking(Protocol):
    """Sends exchanges from threads. Raises ExchangeError and nothing else."""

    def send(self, request: Prepared, limits: Limits) -> Reply: ...

    def close(self) -> None: ...


class Async(Protocol):
    """Sends exchanges from the tasks of one event loop. Raises ExchangeError and nothing else."""

    async def send(self, request: Prepared, limits: Limits) -> Reply: ...

    async def aclose(self) -> None: ...


class InProcess(Async):
    """Passes exchanges to a server in this process; it takes the place of an `httpx.AsyncClient`."""


def blocking(
    endpoint: Endpoint, client: httpx.Client | None = None, *, connect_timeout_s: float, max_connections: int
) -> Blocking:
    """Return what threads send through: the user's `client` if there is one."""
    if client is None and not goes_through_a_proxy(endpoint):
        # Imported late: a client loads one kind of connections, and most never load httpx.
        from cycles._http.blocking import BlockingConnections

        return BlockingConnections(endpoint, connect_timeout_s=connect_timeout_s, max_connections=max_connections)
    from cycles._http.httpx_client import BlockingClient

    return BlockingClient(endpoint, client, connect_timeout_s=connect_timeout_s, max_connections=max_connections)


def asynchronous(
    endpoint: Endpoint, client: httpx.AsyncClient | None = None, *, connect_timeout_s: float, max_connections: int
) -> Async:
    """Return what the tasks of one event loop send through: the user's `client` if there is one."""
    if isinstance(client, InProcess):
        return client
    if client is None and not goes_through_a_proxy(endpoint):
        from cycles._http.loop import AsyncConnections

        return AsyncConnections(endpoint, connect_timeout_s=connect_timeout_s, max_connections=max_connections)
    from cycles._http.httpx_client import AsyncClient

    return AsyncClient(endpoint, client, connect_timeout_s=connect_timeout_s, max_connections=max_connections)


def goes_through_a_proxy(endpoint: Endpoint) -> bool:
    """Return whether the environment names a proxy for this server (HTTPS_PROXY, ALL_PROXY, but for NO_PROXY)."""
    if sys.platform not in ("darwin", "win32") and not any(name.lower().endswith("_proxy") for name in os.environ):
        return False
    import urllib.request  # only if a proxy may be named: it is a slow import

    proxies = urllib.request.getproxies()
    named = endpoint.scheme in proxies or "all" in proxies
    return named and not urllib.request.proxy_bypass(f"{endpoint.host}:{endpoint.port}")
