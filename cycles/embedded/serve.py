"""The server over real HTTP: an ASGI application under uvicorn, in a thread of its own.

Small on purpose: it reads a bounded body, hands the request to the same function the transports call, and sends the
answer, the way a fault wants it if there is one.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any, Final, TypeAlias

from attrs import evolve

from cycles._errors import ConfigurationError
from cycles.embedded.faults import Fault
from cycles.embedded.http import MAX_HEADER_BYTES, Request, Response
from cycles.embedded.transports import Handler
from cycles.embedded.validation import MAX_BODY_BYTES

try:
    import uvicorn
except ImportError as missing:
    raise ConfigurationError(
        "serving over HTTP needs uvicorn, which is not installed: pip install 'cycles-sdk[embedded]'. "
        "In one process, server.client() and server.transport() need nothing more."
    ) from missing

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

# What is read and thrown away of a body that is too big, so that its sender gets to read the error.
MAX_DRAINED_BYTES: Final = 8 * MAX_BODY_BYTES
# As the reference server's container: longer answers are worth compressing.
MIN_GZIP_BYTES: Final = 1024
# Longer than the pools of HTTP clients keep idle connections, so that it is the client who closes them.
KEEP_ALIVE_S: Final = 75
# How long a listener waits for answers under way when it stops, and for the socket to come up when it starts.
STOP_S: Final = 5.0
START_S: Final = 10.0
BACKLOG: Final = 2048


class App:
    """The ASGI application. `abort` breaks the connection of a client address, for the faults that want it."""

    def __init__(self, server: Handler, abort: Callable[[Any], None]) -> None:
        self._server = server
        self._abort = abort

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        body = await _body(receive)
        if body is None:
            return
        request = _request(scope, body)
        response, fault = self._server.handle(request)
        fault = fault or Fault()
        if response is None or fault.lost:
            self._abort(scope["client"])
            await receive()  # returns once the connection is known to be gone
            return
        if fault.delay_s and await _disconnects_within(fault.delay_s, receive):
            return
        if len(response.body) >= MIN_GZIP_BYTES and "gzip" in request.headers.get("accept-encoding", "").lower():
            response = _packed(response)
        if len(body) > MAX_BODY_BYTES:
            response = evolve(response, headers=response.headers | {"Connection": "close"})
        await _send(response, fault.drip_s, receive, send)


async def _body(receive: Receive) -> bytes | None:
    """The body, cut off soon after it is too big; None if the client went away."""
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


def _packed(response: Response) -> Response:
    headers = response.headers | {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return Response(response.status, headers, gzip.compress(response.body, 1))


async def _disconnects_within(seconds: float, receive: Receive) -> bool:
    """Wait, but not for a client that has hung up; True if it has."""
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
    """The server on a socket: a context manager that gives its URL. Leaving closes the socket, not the ledger."""

    def __init__(self, server: Handler, host: str, port: int) -> None:
        self._server = server
        self._host = host
        self._port = port
        self._uvicorn: _Uvicorn | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> str:
        """Open the socket and serve it from a thread; returns the URL.

        Raises:
            ConfigurationError: if the address cannot be had.
        """
        sock = _bound(self._host, self._port)
        host, port = sock.getsockname()[:2]
        config = uvicorn.Config(
            App(self._server, self._abort),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            date_header=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(STOP_S),
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        )
        self._uvicorn = _Uvicorn(config)
        self._thread = threading.Thread(
            target=self._uvicorn.run, args=([sock],), name="cycles-embedded-server", daemon=True
        )
        self._thread.start()
        if not self._uvicorn.up.wait(START_S):
            self.stop()
            raise ConfigurationError(f"the embedded server did not come up at {host}:{port}")
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def stop(self) -> None:
        """Take no more connections, let answers under way finish, and close the socket."""
        if self._uvicorn is not None and self._thread is not None:
            self._uvicorn.should_exit = True
            self._thread.join(STOP_S * 2)
            self._uvicorn = self._thread = None

    def _abort(self, client: Any) -> None:
        for connection in list(self._uvicorn.server_state.connections) if self._uvicorn is not None else ():
            if getattr(connection, "client", None) == client:
                connection.transport.abort()

    def __enter__(self) -> str:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named in full: asyncio turns Nagle's delay off only for sockets that say they are TCP.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as wrong:
        sock.close()
        raise ConfigurationError(f"cannot listen on {host}:{port}: {wrong.strerror or wrong}") from wrong
    sock.listen(BACKLOG)
    return sock


class _Uvicorn(uvicorn.Server):
    """Says when it is up, so that nobody has to ask again and again."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()
