"""Serve the proxy with uvicorn in its own thread, and stop it: running calls finish first."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx

import cycles
from cycles._core.amounts import Amount
from cycles._core.messages.used_fraction import Used
from cycles._errors import ConfigurationError
from cycles._flows.run_limit import RunLimit
from cycles._http.exchange import tls_context
from cycles.embedded.serve import bound
from cycles.providers._queue import admissions_of
from cycles.proxy._app import App
from cycles.proxy._clients import UpstreamClient
from cycles.proxy._descriptors import Listener, for_programs, for_providers, raise_limit
from cycles.proxy._hosts import normalized_host
from cycles.proxy._settings import ProxySettings
from cycles.proxy._shares import Share, Shares
from cycles.proxy._targets import is_loopback

if TYPE_CHECKING:
    from cycles.proxy._authority import Authority

START_S: Final = 10.0
KEEP_ALIVE_S: Final = 75
CONNECT_S: Final = 30.0
"""How long connecting to a provider may take; reading has no limit, because a model may think for long."""


class ProxyServer:
    """The proxy on a socket.

    Args:
        settings: How requests are treated.
        client: Where they are reserved.
        forwarding: In place of `client` for calls that another proxy of Cycles charges; None if there are none.
        limit: What all calls together may spend, beside the client's budgets; None: no such limit.
        on_denied: Called after each denial, in the event loop, with its message.
        on_no_decision: Called with a line for people if calls fail because the ledger decides none.
        left: Returns what is left of the run; None: what is left of `limit`.
        opened: Called with each new share.
        has_budget: Whether the ledger of the run has a budget for a subject.
        authority: Issues the certificates of captured hosts; None: nothing is captured.
    """

    def __init__(
        self,
        settings: ProxySettings,
        client: cycles.Cycles,
        *,
        forwarding: cycles.Cycles | None = None,
        limit: Amount | None = None,
        on_denied: Callable[[str], None] = lambda _: None,
        on_no_decision: Callable[[str], None] = lambda _: None,
        authority: Authority | None = None,
        left: Callable[[], Amount | None] | None = None,
        opened: Callable[[Share], None] = lambda _: None,
        has_budget: Callable[[Mapping[str, Any]], bool] = lambda _: False,
    ) -> None:
        self._most_files = raise_limit()
        self._upstream = _upstream_client(settings, for_providers(self._most_files, fake=settings.fake))
        callbacks: dict[str, Any] = {"on_denied": on_denied, "on_no_decision": on_no_decision}
        callbacks |= {"on_settled": self._see_limit, "has_budget": has_budget}
        self._shares = Shares(self._left if left is None else left, opened, settings.unit)
        self.app = App(settings, client, self._upstream, **callbacks, forwarding=forwarding, shares=self._shares)
        self._clients = [client] if forwarding is None else [client, forwarding]
        self._limit = None if limit is None else cycles.limit(limit)
        if self._limit is not None:
            for each in self._clients:
                each._runtime().channel.soft_limits.add(partial(_used, self._limit))
        self._settings = settings
        self._authority = authority
        self._tunnels: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._started = threading.Event()

    def _left(self) -> Amount | None:
        return None if self._limit is None else self._limit.remaining

    @property
    def shares(self) -> Shares:
        """The shares of the run."""
        return self._shares

    def _see_limit(self) -> None:
        for client in self._clients:
            client._runtime().channel.soft_limits.see_sources()

    def start(self, host: str, port: int) -> str:
        """Open the socket, serve it from a thread, and return ``http://HOST:PORT``.

        Raises:
            ConfigurationError: if the address is not available, or uvicorn is not installed.
        """
        import uvicorn
        from uvicorn.protocols.http.h11_impl import H11Protocol

        from cycles.proxy._tunnel import FirstBytes

        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs addresses with their query: a key may be there
        sock = bound(host, port, "pass another address with --listen")
        self._tunnels = self._new_tunnels(host)
        http: Any = partial(FirstBytes, self._tunnels) if self._settings.tunnel else H11Protocol
        config = uvicorn.Config(
            self.app,
            http=http,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.CRITICAL + 1,  # a broken connection is no error of the proxy
            access_log=False,
            date_header=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, args=(sock,), name="cycles-proxy", daemon=True)
        self._thread.start()
        if not self._started.wait(START_S):
            self.stop(0)
            raise ConfigurationError(f"the proxy did not start within {START_S:g} s on {host}:{port}; try again")
        found, number = sock.getsockname()[:2]
        return f"http://[{found}]:{number}" if ":" in found else f"http://{found}:{number}"

    def _new_tunnels(self, host: str) -> Any:
        from cycles.proxy._tunnel import Tunnels, key_matches

        settings = self._settings
        key = settings.key

        def knows(given: str) -> bool:
            return (key is not None and key_matches(given, key)) or self._shares.of_key(given) is not None

        capture: dict[str, Any] = {}
        if self._authority is not None:
            from cycles.proxy._capture import Capture

            serving = Capture(self._authority, settings, self.app.totals, knows)
            capture = {"capture": serving, "captures": serving.captures}
        ledger = _ledger_target(str(self._clients[0].config.base_url or ""))
        local = set(settings.shared_ports)
        if ledger is not None and is_loopback(ledger[0]):
            local.add(ledger[1])
        return Tunnels(
            self.app.totals,
            keys=None if key is None else knows,
            allowed=settings.allowed,
            caller=settings.caller,
            local=local if settings.sealed or not is_loopback(host) else None,
            ledger=ledger,
            **capture,
        )

    def serve_also(self, sock: socket.socket) -> None:
        """Serve the same application on another socket that listens."""
        self._add(sock, self._protocol)

    def _protocol(self) -> Any:
        config, state = self._server.config, self._server.server_state
        return config.http_protocol_class(config=config, server_state=state, app_state={})

    def relay(self, sock: socket.socket, host: str, port: int) -> None:
        """Copy the connections to a socket that listens to a host."""
        from cycles.proxy._connect import Connect
        from cycles.proxy._tunnel import Relayed

        target = Connect(host, port, None)
        self._add(sock, lambda: Relayed(self._tunnels, self._server.server_state.connections, target))

    def _add(self, sock: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        async def listen() -> None:
            self._listen(sock, protocol)

        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(listen(), self._loop).result()

    def _listen(self, sock: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        connections = self._server.server_state.connections
        self._server.servers.append(Listener(sock, protocol, connections, for_programs(self._most_files)))

    def _run(self, sock: socket.socket) -> None:
        if self._limit is None:
            asyncio.run(self._serve(sock))
            return
        with self._limit:  # each request of the loop runs in a copy of this context
            asyncio.run(self._serve(sock))

    async def _serve(self, sock: socket.socket) -> None:
        loop = self._loop = asyncio.get_running_loop()

        def begin() -> None:
            if not self._server.started:
                loop.call_soon(begin)
                return
            self._listen(sock, self._protocol)
            self._started.set()

        loop.call_soon(begin)
        try:
            await self._server.serve([])
        finally:
            await self._upstream.aclose()
            await self.app.settle_open()
            for client in self._clients:
                await client.aclose()

    def stop(self, seconds: int) -> None:
        """Accept no more connections, let running calls finish for at most `seconds`, and close the client.

        Calls that wait for their budget end immediately.
        """
        if self._thread is not None:
            for client in self._clients:
                admissions_of(client._runtime()).stop()
            self._server.config.timeout_graceful_shutdown = seconds
            self._server.should_exit = True
            self._thread.join()
            self._thread = None


def _upstream_client(settings: ProxySettings, most: int) -> UpstreamClient:
    """Return the client that sends the requests, over at most so many connections."""
    limits = httpx.Limits(max_connections=most, max_keepalive_connections=min(most, 64))
    context = tls_context()
    return UpstreamClient(
        verify=context,
        timeout=httpx.Timeout(None, connect=CONNECT_S),
        limits=limits,
        follow_redirects=False,
        mounts=_mounts(settings, context, limits),
    )


def _mounts(settings: ProxySettings, context: Any, limits: httpx.Limits) -> dict[str, httpx.AsyncHTTPTransport | None]:
    """Return how https requests are sent through the caller's proxy; httpx reads the environment for the others.

    A fake provider is in this process: requests to it go through no proxy.
    """
    if settings.fake:
        return {"all://127.0.0.1": None}
    if settings.caller is None:
        return {}
    return {"https://": httpx.AsyncHTTPTransport(verify=context, limits=limits, proxy=settings.caller.url)}


class _RunUsed(Used):
    """The limit of the run as a budget that pays for each call."""

    def pays_for(self, subject: Mapping[str, Any]) -> bool:
        return True


def _used(limit: RunLimit) -> Used:
    return _RunUsed("this run", limit.amount.unit, max(1, limit.amount.amount), limit.remaining.amount)


def _ledger_target(url: str) -> tuple[str, int] | None:
    """Return host and port of the configured server; None if there is none."""
    parts = urlsplit(url)
    try:
        return normalized_host(parts.hostname or ""), parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
