"""Requests that are larger than the buffers of the kernel: they are written in parts, within one deadline."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from cycles._core.messages.requests import Prepared
from cycles._http.blocking import BlockingConnections
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind, Limits

BODY = b"x" * (16 * 1024 * 1024)
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class SlowReader:
    """Accepts one connection, and reads from it only after `begin` is set. It answers two requests.

    After these, it reads nothing until `end` is set.
    """

    def __init__(self) -> None:
        self.sizes = len(BODY), 2
        self.end = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.begin = threading.Event()
        self.read = 0
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(f"http://127.0.0.1:{self.listener.getsockname()[1]}")

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the client has left in the middle of a request
            self._respond(self.listener.accept()[0])

    def _respond(self, accepted: socket.socket) -> None:
        with accepted:
            self.begin.wait(60)
            accepted.settimeout(60)
            for size in self.sizes:
                received = b""
                while b"\r\n\r\n" not in received:
                    if not (part := accepted.recv(65536)):
                        return
                    received += part
                left = size - len(received.partition(b"\r\n\r\n")[2])
                while left > 0 and (part := accepted.recv(1024 * 1024)):
                    left -= len(part)
                self.read += size - left
                accepted.sendall(RESPONSE)
            self.end.wait(60)


@pytest.fixture
def server() -> Iterator[SlowReader]:
    server = SlowReader()
    yield server
    server.begin.set()
    server.end.set()
    with contextlib.suppress(OSError):
        socket.create_connection(server.listener.getsockname()).close()  # ends a wait for the first connection
    server.thread.join(60)
    server.listener.close()
    assert not server.thread.is_alive(), "a thread that reads on takes half of the processor from all later tests"


@pytest.fixture
def connections(server: SlowReader) -> Iterator[BlockingConnections]:
    made = BlockingConnections(server.endpoint, connect_timeout_s=60.0, max_connections=1)
    yield made
    made.close()


def test_a_request_is_written_as_the_server_reads_it(server: SlowReader, connections: BlockingConnections) -> None:
    server.begin.set()
    assert connections.send(Prepared("POST", "/", [], BODY), Limits(60.0)).body == b"{}"
    assert connections.send(Prepared("POST", "/", [], b"{}"), Limits(60.0)).body == b"{}", (
        "the connection is used again"
    )
    assert server.read == len(BODY) + 2


def test_a_server_that_does_not_read_ends_the_attempt_at_its_deadline(
    server: SlowReader, connections: BlockingConnections
) -> None:
    server.sizes = 2, 2
    server.begin.set()
    for _ in range(2):  # connects, which may take longer than the deadline on a busy machine
        connections.send(Prepared("POST", "/", [], b"{}"), Limits(60.0))
    with pytest.raises(ExchangeError, match="timed out sending the request") as raised:
        connections.send(Prepared("POST", "/", [], BODY), Limits(1.0))
    assert (raised.value.kind, raised.value.request_sent) == (FailureKind.TIMEOUT, True)


def test_nothing_is_sent_after_the_deadline(server: SlowReader, connections: BlockingConnections) -> None:
    with pytest.raises(ExchangeError) as raised:
        connections.send(Prepared("POST", "/", [], b"{}"), Limits(60.0, ends_at_s=0.0))
    assert raised.value.request_sent is False
