"""A scripted HTTP server on a real socket: it sends raw bytes, drips, stalls, resets and hangs up on cue.

    with Stub(ok({"a": 1}), drip(b"HTTP/1.1 200 OK..."), reset()) as stub:
        client = make_client(stub.url)
        ...
        assert [request.target for request in stub.requests] == [...]

Each request gets the next response of the script; the last one is repeated. A response is a function of the
connection's socket and the stub's `ended` event, and says whether the connection stays open.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import NamedTuple, Self

Answer = Callable[[socket.socket, threading.Event], bool]


class StubRequest(NamedTuple):
    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    connection: int
    """1 for the first connection the server saw, and so on."""
    size: int
    """Bytes on the wire, head and body."""

    def json(self) -> object:
        return json.loads(self.body)


def reply(
    body: object = b"", status: int = 200, headers: Iterable[tuple[str, str]] = (), *, reason: str = "Whatever"
) -> bytes:
    """The bytes of a whole response; anything but bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(content)}", *(f"{k}: {v}" for k, v in headers)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def raw(data: bytes, *, keep: bool = False) -> Answer:
    """These bytes, then the connection ends (unless `keep`)."""

    def answer(sock: socket.socket, ended: threading.Event) -> bool:
        sock.sendall(data)
        return keep

    return answer


def ok(body: object = b"{}", status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """A well-formed response; the connection stays open."""
    return raw(reply(body, status, headers), keep=True)


def ok_then_hang_up(body: object = b"{}", status: int = 200) -> Answer:
    """A well-formed response that promises to keep the connection, which the server then closes."""
    return raw(reply(body, status))


def drip(data: bytes, every_s: float = 0.02) -> Answer:
    """One byte at a time."""

    def answer(sock: socket.socket, ended: threading.Event) -> bool:
        for position in range(len(data)):
            sock.sendall(data[position : position + 1])
            if ended.wait(every_s):
                return False
        return True

    return answer


def stall(first: bytes = b"") -> Answer:
    """These bytes, then nothing, with the connection open until the stub ends."""

    def answer(sock: socket.socket, ended: threading.Event) -> bool:
        sock.sendall(first)
        ended.wait()
        return False

    return answer


def hang_up() -> Answer:
    """Close the connection instead of sending a response."""
    return raw(b"")


def reset(first: bytes = b"") -> Answer:
    """These bytes, then a TCP reset."""

    def answer(sock: socket.socket, ended: threading.Event) -> bool:
        sock.sendall(first)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    return answer


def after(gate: threading.Event, then: Answer) -> Answer:
    """Waits until the test opens the gate."""

    def answer(sock: socket.socket, ended: threading.Event) -> bool:
        while not gate.wait(0.02):
            if ended.is_set():
                return False
        return then(sock, ended)

    return answer


class Stub:
    """The server. `requests` are those read so far, `connections` how many were made."""

    def __init__(self, *script: Answer, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._script = list(script) or [ok()]
        self._tls = tls
        self._host = host
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.requests: list[StubRequest] = []
        self.connections = 0
        self.open = 0

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._listener = socket.create_server((self._host, 0), family=family, backlog=128)
        self.port: int = self._listener.getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"{'https' if self._tls else 'http'}://{host}:{self.port}"
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):  # wakes accept()
            socket.create_connection((self._host, self.port), timeout=60).close()
        with self._lock:
            for sock in self._sockets:
                _hush(sock)
        for thread in self._threads:
            thread.join(60)
        self._listener.close()

    def then(self, *answers: Answer) -> None:
        """Replaces what is left of the script."""
        with self._lock:
            self._script = list(answers)

    def wait_for(self, condition: Callable[[Stub], bool], timeout_s: float = 60.0) -> None:
        """Returns once `condition(stub)` holds."""
        with self._news:
            if not self._news.wait_for(lambda: condition(self), timeout_s):
                raise AssertionError("the stub waited in vain")

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if self._ended.is_set():
                sock.close()
                return
            with self._news:
                self.connections += 1
                self.open += 1
                number = self.connections
                self._sockets.append(sock)
                self._news.notify_all()
            self._start(lambda sock=sock, number=number: self._serve(sock, number))  # type: ignore[misc]

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
                with self._lock:
                    self._sockets.append(sock)
            with sock.makefile("rb") as stream:
                while (request := _read_request(stream, number)) is not None:
                    if not self._take(request)(sock, self._ended):
                        return
        except (OSError, ValueError):  # the peer left, or speaks no HTTP
            pass
        finally:
            sock.close()
            with self._news:
                self.open -= 1
                self._news.notify_all()

    def _take(self, request: StubRequest) -> Answer:
        with self._news:
            self.requests.append(request)
            self._news.notify_all()
            return self._script.pop(0) if len(self._script) > 1 else self._script[0]


def _hush(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _read_request(stream: Iterable[bytes], number: int) -> StubRequest | None:
    lines = iter(stream)
    first = next(lines, b"")
    if not first:
        return None
    method, target, _ = first.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    size = len(first)
    for line in lines:
        size += len(line)
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            break
        headers[name.strip().lower()] = value.strip()
    body: bytes = stream.read(int(headers.get("content-length", "0")))  # type: ignore[attr-defined]
    if headers.get("transfer-encoding") == "chunked":
        while count := int(next(lines), 16):
            body += stream.read(count)  # type: ignore[attr-defined]
            next(lines)
        next(lines)
    return StubRequest(method, target, headers, body, number, size + len(body))
