"""Choose what sends the HTTP exchanges to a server: the connections of this package, or an httpx client.

An httpx client sends if the user passed one, or if the environment (HTTP_PROXY and its siblings) names a proxy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from cycles._core.messages.outcome import Reply
from cycles._http.exchange import Endpoint

if TYPE_CHECKING:
    import httpx

Headers = Sequence[tuple[bytes, bytes]]


class Blocking(Protocol):
    """Sends exchanges from threads. Raises ExchangeError and nothing else."""

    def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes,
        timeout_s: float,
        queue_timeout_s: float = ...,
        ends_at_s: float = ...,
    ) -> Reply: ...

    def close(self) -> None: ...


class Async(Protocol):
    """Sends exchanges from the tasks of one event loop. Raises ExchangeError and nothing else."""

    async def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes,
        timeout_s: float,
        queue_timeout_s: float = ...,
        ends_at_s: float = ...,
    ) -> Reply: ...

    async def aclose(self) -> None: ...


class InProcess(Async):
    """Passes exchanges to a server in this process; it takes the place of an `httpx.AsyncClient`."""


def blocking(
    endpoint: Endpoint, *, connect_timeout_s: float, max_connections: int, client: httpx.Client | None = None
) -> Blocking:
    """Return what threads send through: the user's `client` if there is one."""
    if client is None and not goes_through_a_proxy(endpoint):
        # Imported late: a client loads one kind of connections, and most never load httpx.
        from cycles._http.blocking import BlockingConnections

        return BlockingConnections(endpoint, connect_timeout_s=connect_timeout_s, max_connections=max_connections)
    from cycles._http.httpx_client import BlockingClient

    ours = client is None
    if client is None:
        import httpx

        client = httpx.Client(limits=_limits(max_connections), verify=endpoint.tls or True)
    return BlockingClient(endpoint, client, connect_timeout_s=connect_timeout_s, is_ours=ours)


def asynchronous(
    endpoint: Endpoint, *, connect_timeout_s: float, max_connections: int, client: httpx.AsyncClient | None = None
) -> Async:
    """Return what the tasks of one event loop send through: the user's `client` if there is one."""
    if isinstance(client, InProcess):
        return client
    if client is None and not goes_through_a_proxy(endpoint):
        from cycles._http.loop import AsyncConnections

        return AsyncConnections(endpoint, connect_timeout_s=connect_timeout_s, max_connections=max_connections)
    from cycles._http.httpx_client import AsyncClient

    ours = client is None
    if client is None:
        import httpx

        client = httpx.AsyncClient(limits=_limits(max_connections), verify=endpoint.tls or True)
    return AsyncClient(endpoint, client, connect_timeout_s=connect_timeout_s, is_ours=ours)


def goes_through_a_proxy(endpoint: Endpoint) -> bool:
    """Return whether the environment names a proxy for this server (HTTPS_PROXY, ALL_PROXY, but for NO_PROXY)."""
    if sys.platform not in ("darwin", "win32") and not any(name.lower().endswith("_proxy") for name in os.environ):
        return False
    import urllib.request  # only if a proxy may be named: it is a slow import

    proxies = urllib.request.getproxies()
    named = endpoint.scheme in proxies or "all" in proxies
    return named and not urllib.request.proxy_bypass(f"{endpoint.host}:{endpoint.port}")


def _limits(max_connections: int) -> httpx.Limits:
    import httpx

    return httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
