"""Serve a captured connection: TLS with a certificate of this run, and the requests in it as those of its route.

Reading is paused from the head of CONNECT until TLS reads, so only bytes that came in one piece with the head must be
passed to it. Requests may arrive before `start_tls` returns; the protocol keeps them until it has its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from cycles.proxy._authority import Authority
from cycles.proxy._connect import ESTABLISHED, Connect
from cycles.proxy._environment import with_key
from cycles.proxy._exchange import HOST_URL
from cycles.proxy._routes import route_of_host
from cycles.proxy._settings import ProxySettings
from cycles.proxy._totals import Totals
from cycles.proxy._tunnel import Near

HANDSHAKE_S: Final = 30.0
_TLS_PORT: Final = 443


class Capture:
    """Serves captured connections.

    Args:
        authority: Issues their certificates.
        settings: Those of the proxy.
        totals: Counts connections that do not trust the certificate, or need HTTP/2.
        knows: Returns whether a key is that of the proxy or of a share.
    """

    def __init__(
        self, authority: Authority, settings: ProxySettings, totals: Totals, knows: Callable[[str], bool]
    ) -> None:
        self._knows = knows
        self._authority = authority
        self._settings = settings
        self._totals = totals
        self._used: set[str] = set()

    def captures(self, host: str) -> bool:
        """Return whether connections to a host are captured."""
        hosts = self._settings.captured_hosts
        return (hosts is None or host in hosts) and route_of_host(host) is not None

    async def __call__(self, near: Near, target: Connect, early: bytes) -> None:
        """Serve one connection."""
        inner = _Captured(lambda: self._ended(target.host), **near.http_options)
        inner.app = self._application(inner.app, target)
        loop = asyncio.get_running_loop()
        context = self._authority.context(target.host)
        near.transport.write(ESTABLISHED)
        near.handed_over()
        start = loop.start_tls(near.transport, inner, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_S)
        upgrading = asyncio.ensure_future(start)
        if early:
            await asyncio.sleep(0)  # TLS has the connection now, and reads from it in a later step of the loop
            loop.call_soon(_feed, near.transport, early)
        try:
            transport = await upgrading
        except OSError:  # also ssl.SSLError
            self._totals.untrusted[target.host] += 1
            near.transport.close()
            return
        if transport is not None:
            inner.connection_made(transport)

    def _ended(self, host: str) -> None:
        """Count a connection if no request has arrived. Clients also open spare ones beside those that they use."""
        if host not in self._used:
            self._totals.untrusted[host] += 1

    def _application(self, app: Any, target: Connect) -> Any:
        """Return the application with the key and the route before each path."""
        route = route_of_host(target.host)
        assert route is not None
        key = target.key if target.key is not None and self._knows(target.key) else None
        prefix = f"{with_key('', key)}/{route.name}".encode()
        host = target.host if target.port == _TLS_PORT else f"{target.host}:{target.port}"
        url = None if route.name in self._settings.named else f"https://{host}"

        async def captured(scope: Any, receive: Any, send: Any) -> None:
            self._used.add(target.host)
            raw = scope.get("raw_path") or scope["path"].encode()
            extensions = {**(scope.get("extensions") or {}), HOST_URL: {"host": target.host, "url": url}}
            await app({**scope, "raw_path": prefix + raw, "extensions": extensions}, receive, send)

        return captured


def _feed(transport: asyncio.Transport, data: bytes) -> None:
    """Pass bytes to the protocol of a connection, as if they had arrived now."""
    protocol = transport.get_protocol()
    assert isinstance(protocol, asyncio.BufferedProtocol)
    while data and not transport.is_closing():
        buffer = memoryview(protocol.get_buffer(len(data)))
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        protocol.buffer_updated(count)
        data = data[count:]


class _Captured(H11Protocol):
    """HTTP that keeps what arrives before it has its connection."""

    def __init__(self, ended: Callable[[], None], **options: Any) -> None:
        super().__init__(**options)
        self._kept: list[bytes] = []
        self._ended = ended

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        kept, self._kept = self._kept, []
        for data in kept:
            super().data_received(data)

    def data_received(self, data: bytes) -> None:
        if self.transport is None:
            self._kept.append(data)
        else:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self._ended()
            super().connection_lost(exc)
