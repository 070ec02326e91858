"""What the tests of tunnels share: a server that echoes, a proxy of the caller, and CONNECT by hand."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tests.operators.proxying import KEY, Place

PATIENCE_S = 60


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on loopback, serve each connection in a thread, and yield the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=_served, args=(serve, connection), daemon=True).start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        accepting.join(PATIENCE_S)


def _served(serve: Callable[[socket.socket], None], connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        serve(connection)


def echo(connection: socket.socket) -> None:
    """Send back what arrives, until its end; then say so."""
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.sendall(b"<end>")


def authorization(key: str = KEY) -> str:
    return f"Proxy-Authorization: Basic {base64.b64encode(f'cycles:{key}'.encode()).decode()}\r\n"


def opened(place: Place) -> socket.socket:
    """Return a connection to the proxy."""
    host, _, port = place.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def send_connect(connection: Any, target: str, headers: str | None = None) -> tuple[str, bytes]:
    """Send CONNECT, and return the status line and the rest of what came with the head."""
    more = authorization() if headers is None else headers
    connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{more}\r\n".encode())
    return read_head(connection)


def read_head(connection: Any) -> tuple[str, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            break
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0].decode(), rest


def rest_of(connection: Any) -> bytes:
    """Return everything until the end of a connection."""
    data = b""
    while part := connection.recv(65536):
        data += part
    return data
