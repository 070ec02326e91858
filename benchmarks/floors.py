"""References for a guarded call: the same two requests, already encoded, over a socket and over httpx."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx

KEY = "cyc_live_0123456789abcdef0123456789abcdef"
_SUBJECT = {"tenant": "acme", "agent": "bot"}
_ACTION = {"kind": "llm.completion", "name": "gpt-4o"}
CREATE = json.dumps(
    {
        "idempotency_key": "0123456789abcdef0123456789abcdef",
        "subject": _SUBJECT,
        "action": _ACTION,
        "estimate": {"unit": "USD_MICROCENTS", "amount": 5_000_000},
        "ttl_ms": 60_000,
    },
    separators=(",", ":"),
).encode()
COMMIT = json.dumps(
    {
        "idempotency_key": "fedcba9876543210fedcba9876543210",
        "actual": {"unit": "USD_MICROCENTS", "amount": 3_200_000},
        "metrics": {"tokens_input": 1200, "tokens_output": 800, "latency_ms": 12},
    },
    separators=(",", ":"),
).encode()
CREATE_PATH = "/v1/reservations"
COMMIT_PATH = "/v1/reservations/rsv-0123456789abcdef-00000000/commit"
HEADERS = {"X-Cycles-API-Key": KEY, "Content-Type": "application/json"}
Call = Callable[[], object]
AsyncCall = Callable[[], Awaitable[object]]


@contextlib.contextmanager
def raw_socket(port: int) -> Iterator[Call]:
    """Send encoded bytes over one socket, with one read per response: no client can be faster."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        messages = [_message(port, CREATE_PATH, CREATE), _message(port, COMMIT_PATH, COMMIT)]

        def call() -> None:
            for message in messages:
                sock.sendall(message)
                sock.recv(65536)

        yield call


def _message(port: int, path: str, body: bytes) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in HEADERS.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextlib.contextmanager
def raw_file(folder: str) -> Iterator[Call]:
    """Create, rename and remove one small private file: no journal with one file per settlement can be faster."""
    root = Path(folder)
    root.mkdir(parents=True)
    temporary, final, content = str(root / "temporary"), str(root / "final"), CREATE * 2

    def call() -> None:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(handle, content)
        os.close(handle)
        os.replace(temporary, final)  # noqa: PTH105 - as the journal does it
        os.unlink(final)  # noqa: PTH108

    yield call


@contextlib.contextmanager
def httpx_posts(port: int) -> Iterator[Call]:
    """Make two `httpx.Client.post(content=)` calls: the reference of the sync rows."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:

        def call() -> None:
            client.post(CREATE_PATH, content=CREATE, headers=HEADERS)
            client.post(COMMIT_PATH, content=COMMIT, headers=HEADERS)

        yield call


@contextlib.asynccontextmanager
async def async_httpx_posts(port: int, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[AsyncCall]:
    """Make two `httpx.AsyncClient.post(content=)` calls: the reference of the async rows."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", transport=transport) as client:

        async def call() -> None:
            await client.post(CREATE_PATH, content=CREATE, headers=HEADERS)
            await client.post(COMMIT_PATH, content=COMMIT, headers=HEADERS)

        yield call


class TransportPool(httpx.AsyncBaseTransport):
    """httpx transports of one connection each, most recently used first: httpx without the cost of its pool."""

    def __init__(self, size: int) -> None:
        one = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        self._idle = deque(httpx.AsyncHTTPTransport(limits=one) for _ in range(size))
        self._all = list(self._idle)
        self._queue: deque[asyncio.Future[httpx.AsyncHTTPTransport]] = deque()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._idle:
            transport = self._idle.pop()
        else:
            waiter: asyncio.Future[httpx.AsyncHTTPTransport] = asyncio.get_running_loop().create_future()
            self._queue.append(waiter)
            transport = await waiter
        try:
            response = await transport.handle_async_request(request)
            await response.aread()
            await response.aclose()
        finally:
            if self._queue:
                self._queue.popleft().set_result(transport)
            else:
                self._idle.append(transport)
        return httpx.Response(response.status_code, headers=response.headers, content=response.content)

    async def aclose(self) -> None:
        for transport in self._all:
            await transport.aclose()
