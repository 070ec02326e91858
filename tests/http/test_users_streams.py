"""On the connections that an exchange over a user's client opens, its head and its body are one write."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import httpx2
import pytest

from cycles._http import httpx_client
from cycles._http.exchange import Endpoint, ExchangeError
from cycles._http.httpx_client import AsyncClient, BlockingClient
from cycles._http.httpx_streams import join_writes, this_thread
from tests.support.stub import Stub, ok

LIBRARIES = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
HEAD = b"POST /v1/x HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the streams of new connections are given to write, in order."""
    seen: list[bytes] = []

    def recorded(stream: Any, *, is_async: bool) -> None:
        write = stream.write

        def record(buffer: bytes, timeout: float | None) -> Any:
            seen.append(buffer)
            return write(buffer, timeout)

        stream.write = record
        join_writes(stream, is_async=is_async)

    monkeypatch.setattr(httpx_client, "join_writes", recorded)
    return seen


@LIBRARIES
def test_a_blocking_exchange_is_one_write_and_the_users_own_are_as_before(library: Any, written: list[bytes]) -> None:
    with Stub(*[ok(b"{}")] * 4) as stub, library.Client() as client:
        connections = BlockingClient(Endpoint(stub.url), client, connect_timeout_s=60)
        for _ in range(2):  # over a new connection, and over the same again
            connections.send("POST", "/v1/x", [], b"ours", 60.0)
        client.post(stub.url, content=b"theirs")
        connections.send("GET", "/v1/x", [], b"", 60.0)
        assert [request.body for request in stub.requests] == [b"ours", b"ours", b"theirs", b""]
        assert stub.connections == 1
    parts = [part for part in written if part]
    assert [part.partition(b"\r\n\r\n")[2] for part in parts] == [b"ours", b"ours", b"", b"", b""]
    assert parts[3] == b"theirs"


@LIBRARIES
def test_an_async_exchange_is_one_write(library: Any, written: list[bytes]) -> None:
    async def main(url: str) -> None:
        async with library.AsyncClient() as client:
            connections = AsyncClient(Endpoint(url), client, connect_timeout_s=60)
            for _ in range(2):
                await connections.send("POST", "/v1/x", [], b"ours", 60.0)
            await client.post(url, content=b"theirs")

    with Stub(*[ok(b"{}")] * 3) as stub:
        asyncio.run(main(stub.url))
        assert [request.body for request in stub.requests] == [b"ours", b"ours", b"theirs"]
    parts = [part for part in written if part]
    assert [part.partition(b"\r\n\r\n")[2] for part in parts] == [b"ours", b"ours", b"", b""]


class Stream:
    """A stream of httpcore that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[tuple[bytes, float | None]] = []

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.written.append((buffer, timeout))


@pytest.mark.parametrize("kept", [b"GET /v1/x HTTP/1.1\r\n\r\n", b"POST but not a head", b"\0\0\0\4POST\r\n\r\n"])
def test_nothing_but_the_head_of_a_post_waits_for_what_follows(kept: bytes) -> None:
    stream = Stream()
    join_writes(stream, is_async=False)
    this_thread.is_sending_head = True
    try:
        stream.write(kept, 1.0)
        assert stream.written == [(kept, 1.0)]
        stream.write(HEAD, 2.0)
        assert stream.written == [(kept, 1.0)]
        stream.write(b"body", 3.0)
        assert stream.written == [(kept, 1.0), (HEAD + b"body", 3.0)]
    finally:
        this_thread.is_sending_head = False
    stream.write(HEAD)  # of somebody else
    assert stream.written[2:] == [(HEAD, None)]


def test_no_head_is_expected_after_an_exchange() -> None:
    with Stub(ok(b"{}"), ok(b"{}")) as stub, httpx.Client(headers={"X-Odd": "a"}) as client:
        connections = BlockingClient(Endpoint(stub.url), client, connect_timeout_s=60)
        connections.send("POST", "/v1/x", [], b"{}", 60.0)
        assert not this_thread.is_sending_head
        with pytest.raises(ExchangeError):
            connections.send("POST", "/v1/x", [(b"Bad", b"a\r\nb")], b"{}", 60.0)
        assert not this_thread.is_sending_head
