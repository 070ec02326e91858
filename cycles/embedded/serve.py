"""Serve HTTP: an ASGI application that uvicorn runs in a separate thread.

It reads a bounded body, calls the same function as the transports, and sends the response as its fault demands.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from attrs import evolve

from cycles._errors import ConfigurationError
from cycles._version import install_extra
from cycles.embedded.dashboard.app import DashboardApp
from cycles.embedded.dashboard.routes import PATH as DASHBOARD_PATH, Stream
from cycles.embedded.faults import Fault
from cycles.embedded.framework import MAX_HEAD_BYTES
from cycles.embedded.http import JSON, Request, Response
from cycles.embedded.transports import Handler
from cycles.embedded.validation import MAX_BODY_BYTES

try:
    import uvicorn
except ImportError as _missing:
    raise ConfigurationError(
        f"uvicorn is not installed, and serving over HTTP needs it: {install_extra('embedded')}; "
        "in one process, server.client() and server.transport() work without it"
    ) from _missing

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

# Read and discarded of a body that is too big, so that its sender can read the error response.
MAX_DRAINED_BYTES: Final = 2 * MAX_BODY_BYTES
# More than the application accepts, so that its own response to large headers is sent.
MAX_PARSED_HEAD_BYTES: Final = 8 * MAX_HEAD_BYTES
# Longer than HTTP clients keep idle connections, so that the client closes them first.
KEEP_ALIVE_S: Final = 75
# Longest waits of a listener: for responses in progress when it stops, for the socket when it starts.
STOP_S: Final = 5.0
START_S: Final = 10.0
BACKLOG: Final = 2048


class App:
    """The ASGI application. `abort` breaks the connection of a client address, for faults."""

    def __init__(self, server: Handler, abort: Callable[[Any], None], dashboard: DashboardApp | None) -> None:
        self._server = server
        self._abort = abort
        self._dashboard = dashboard

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one HTTP request."""
        body = await _body(receive)
        if body is None:
            return
        request = _request(scope, body)
        response: Response | Stream | None
        if self._dashboard is not None and self._dashboard.serves(request.path):
            response, fault = self._dashboard.handle(request, scope["server"][0]), None
            if isinstance(response, Stream):
                await self._dashboard.stream(response, receive, send)
                return
        else:
            response, fault = self._server.handle(request)
        fault = fault or Fault()
        if response is None or fault.lost:
            self._abort(scope["client"])
            await receive()  # returns when the connection is closed
            return
        if fault.delay_s and await _disconnects_within(fault.delay_s, receive):
            return
        if response.headers.get("Content-Type") == JSON:
            response = _compressed(response, request)
        if len(body) > MAX_BODY_BYTES:
            response = evolve(response, headers=response.headers | {"Connection": "close"})
        await _send(response, fault.drip_s, receive, send)


async def _body(receive: Receive) -> bytes | None:
    """Return the body, truncated soon after it is too big, or None if the client disconnected."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk = message.get("body", b"")
        if size <= MAX_BODY_BYTES:
            chunks.append(chunk)
        size += len(chunk)
        if not message.get("more_body") or size > MAX_DRAINED_BYTES:
            return b"".join(chunks)


def _request(scope: Message, body: bytes) -> Request:
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    query = scope["query_string"].decode("latin-1")
    return Request(
        method=scope["method"],
        target=scope["raw_path"].decode("latin-1") + (f"?{query}" if query else ""),
        headers=headers,
        body=body,
        address=scope["client"][0],
    )


def _compressed(response: Response, request: Request) -> Response:
    """Return the response, compressed if the client accepts gzip: small ones too, like the reference server."""
    if not response.body or "gzip" not in request.headers.get("accept-encoding", "").lower():
        return response
    headers = response.headers | {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return Response(response.status, headers, gzip.compress(response.body, 1))


async def _disconnects_within(seconds: float, receive: Receive) -> bool:
    """Wait, and return early with True if the client disconnects."""
    try:
        async with asyncio.timeout(seconds):
            await receive()
    except TimeoutError:
        return False
    return True


async def _send(response: Response, drip_s: float | None, receive: Receive, send: Send) -> None:
    headers = {"Content-Length": str(len(response.body))} | response.headers
    lines = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": lines})
    if drip_s is None:
        await send({"type": "http.response.body", "body": response.body})
        return
    for byte in response.body:
        if await _disconnects_within(drip_s, receive):
            return
        await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
    await send({"type": "http.response.body"})


class Listener:
    """The server on a socket: a context manager that returns its URL. Leaving closes the socket, not the ledger."""

    def __init__(
        self,
        server: Handler,
        host: str,
        port: int,
        dashboard: DashboardApp | None = None,
        announce: Callable[[str | None], None] = lambda page: None,
    ) -> None:
        self._server = server
        self._host = host
        self._port = port
        self._dashboard = dashboard
        self._announce = announce
        self._uvicorn: _Uvicorn | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Open the socket, serve it from a thread, and return the URL.

        Raises:
            ConfigurationError: if the address is not available.
        """
        sock = bound(self._host, self._port, "pass another port, or 0 for any free one")
        host, port = sock.getsockname()[:2]
        config = uvicorn.Config(
            App(self._server, self._abort, self._dashboard),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            date_header=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(2 * STOP_S),
            h11_max_incomplete_event_size=MAX_PARSED_HEAD_BYTES,
        )
        self._uvicorn = _Uvicorn(config)
        self._thread = threading.Thread(
            target=self._uvicorn.run, args=([sock],), name="cycles-embedded-server", daemon=True
        )
        self._thread.start()
        if not self._uvicorn.has_started.wait(START_S):
            self.stop()
            raise ConfigurationError(
                f"the embedded server did not start within {START_S:g} s: {host}:{port}; try again or pass port=0"
            )
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if self._dashboard is not None:
            self._dashboard.open()
            self._announce(f"{url}{DASHBOARD_PATH}")
        return url

    def stop(self, within_s: float = STOP_S) -> None:
        """Accept no more connections, finish the responses in progress, and close the socket.

        Args:
            within_s: Longest wait for responses that a fault delays, in seconds. They are broken off afterwards.
        """
        if self._uvicorn is not None and self._thread is not None:
            if self._dashboard is not None:
                self._dashboard.close()
                self._announce(None)
            self._uvicorn.should_exit = True
            self._thread.join(within_s)
            if self._thread.is_alive():
                self._uvicorn.break_connections()
            self._thread.join(STOP_S * 2)
            self._uvicorn = self._thread = None

    def _abort(self, client: Any) -> None:
        for connection in list(self._uvicorn.server_state.connections) if self._uvicorn is not None else ():
            if getattr(connection, "client", None) == client:
                connection.transport.abort()

    def __enter__(self) -> str:
        return self.start()

    def __exit__(self, kind: object, raised: BaseException | None, tb: object) -> None:
        self.stop()


def bound(host: str, port: int, advice: str) -> socket.socket:
    """Return a socket that listens on an address.

    Raises:
        ConfigurationError: the address cannot be used; the message ends with `advice`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With IPPROTO_TCP, because asyncio sets TCP_NODELAY only on sockets that name it.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as wrong:
        sock.close()
        raise ConfigurationError(f"cannot listen on {host}:{port} ({wrong.strerror or wrong}); {advice}") from wrong
    sock.listen(BACKLOG)
    return sock


class _Uvicorn(uvicorn.Server):
    """Sets an event when the server has started, so that the listener need not poll."""

    _loop: asyncio.AbstractEventLoop

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.has_started.set()

    def break_connections(self) -> None:
        """Break all connections, which ends the responses in progress. Any thread may call it."""
        for connection in list(self.server_state.connections):
            transport: asyncio.Transport | None = getattr(connection, "transport", None)
            if transport is not None:
                self._loop.call_soon_threadsafe(transport.abort)
