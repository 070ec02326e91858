"""No wait without a bound: name services that hang, addresses that drop packets, heads that arrive byte by byte."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest

import cycles
from cycles._core.messages.outcome import Reply
from cycles._core.messages.requests import Prepared
from cycles._http.blocking import BlockingConnections
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind, Limits
from cycles._http.httpx_client import AsyncClient, BlockingClient
from cycles._http.loop import AsyncConnections
from tests.support.stub import Stub, drip, ok

CONNECT_S = 1.0
SOON_S = 30.0  # far less than a hang, far more than any healthy attempt
HANG_S = 100.0


def exchange(
    kind: str, endpoint: Endpoint, times: int = 1, *, connect_s: float = CONNECT_S
) -> list[Reply | ExchangeError]:
    """Send some exchanges, each over a new connection."""
    if kind == "threads":
        blocking = BlockingConnections(endpoint, connect_timeout_s=connect_s, max_connections=1)
        try:
            return [
                _outcome(lambda: blocking.send(Prepared("POST", "/", [], b"{}"), Limits(SOON_S))) for _ in range(times)
            ]
        finally:
            blocking.close()

    async def main() -> list[Reply | ExchangeError]:
        connections = AsyncConnections(endpoint, connect_timeout_s=connect_s, max_connections=1)
        outcomes: list[Reply | ExchangeError] = []
        for _ in range(times):
            try:
                outcomes.append(await connections.send(Prepared("POST", "/", [], b"{}"), Limits(SOON_S)))
            except ExchangeError as error:
                outcomes.append(error)
        await connections.aclose()
        return outcomes

    return asyncio.run(main())


def _outcome(send: Callable[[], Reply]) -> Reply | ExchangeError:
    try:
        return send()
    except ExchangeError as error:
        return error


@pytest.fixture(params=["threads", "tasks"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class NameService:
    """`socket.getaddrinfo` for the name `server.test`."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.responds = threading.Event()
        self.responds.set()
        self.calls = 0
        self.failures = 0
        self._real = socket.getaddrinfo

    def __call__(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "server.test":
            return self._real(host, port, *args, **kwargs)
        self.calls += 1
        if self.calls <= self.failures:
            raise socket.gaierror(socket.EAI_NONAME, "name or service not known")
        self.responds.wait(HANG_S)
        return [found for address in self.addresses for found in self._real(address, port, type=socket.SOCK_STREAM)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameService]:
    service = NameService("127.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", service)
    yield service
    service.responds.set()


def test_a_name_service_that_hangs_is_bounded_by_the_connect_timeout(kind: str, names: NameService) -> None:
    names.responds.clear()
    before = set(threading.enumerate())
    began = time.monotonic()
    (outcome, again) = exchange(kind, Endpoint("http://server.test:80"), 2, connect_s=0.1)
    assert time.monotonic() - began < SOON_S
    assert isinstance(outcome, ExchangeError)
    assert (outcome.kind, outcome.request_sent) == (FailureKind.CONNECT, False)
    assert "has not resolved server.test in time" in str(again)
    assert names.calls == 1  # the second attempt waits for the same lookup
    asking = [each for each in set(threading.enumerate()) - before if each.name == "cycles-resolver"]
    assert [thread.daemon for thread in asking] == [True]  # so it does not keep the interpreter from exiting


def test_a_name_that_was_not_found_is_looked_up_again(kind: str, names: NameService) -> None:
    names.failures = 1
    with Stub() as stub:
        failed, found = exchange(
            kind, Endpoint(f"http://server.test:{stub.url.rpartition(':')[2]}"), 2, connect_s=SOON_S
        )
    assert isinstance(failed, ExchangeError)
    assert failed.kind is FailureKind.CONNECT
    assert isinstance(found, Reply)


def test_the_last_good_addresses_are_used_while_the_name_service_hangs(kind: str, names: NameService) -> None:
    def hang(sock: socket.socket, ended: threading.Event) -> bool:
        names.responds.clear()
        return ok(headers=[("Connection", "close")])(sock, ended)  # the next attempt needs a new connection

    with Stub(hang) as stub:
        outcomes = exchange(kind, Endpoint(stub.url.replace("127.0.0.1", "server.test")), 3, connect_s=2 * CONNECT_S)
        assert [getattr(outcome, "status", outcome) for outcome in outcomes] == [200] * 3


def test_async_code_resolves_names_although_the_loops_executor_is_busy(names: NameService) -> None:
    async def main(endpoint: Endpoint) -> int:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        release = threading.Event()
        busy = loop.run_in_executor(None, release.wait, HANG_S)
        connections = AsyncConnections(endpoint, connect_timeout_s=SOON_S, max_connections=1)
        try:
            return (await connections.send(Prepared("POST", "/", [], b"{}"), Limits(SOON_S))).status
        finally:
            await connections.aclose()
            release.set()
            await busy

    with Stub() as stub:
        assert asyncio.run(main(Endpoint(stub.url.replace("127.0.0.1", "server.test")))) == 200


@pytest.fixture
def silent_address() -> Iterator[str]:
    """An address that accepts no further connection and rejects none, as one that drops all packets."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        held = [socket.socket() for _ in range(4)]
        for sock in held:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.2", port))
        yield str(port)
        for sock in held:
            sock.close()


def test_the_second_address_of_a_host_is_reached_if_the_first_drops_all_packets(
    kind: str, names: NameService, silent_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = names._real
    with Stub() as stub:
        port = int(stub.url.rpartition(":")[2])

        def two(host: Any, _: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "server.test":
                return real(host, _, *args, **kwargs)
            first = real("127.0.0.2", int(silent_address), type=socket.SOCK_STREAM)
            return first + real("127.0.0.1", port, type=socket.SOCK_STREAM)

        monkeypatch.setattr(socket, "getaddrinfo", two)
        # The second address has half of the time. A busy machine may not run this process for a second.
        (outcome,) = exchange(kind, Endpoint(f"http://server.test:{port}"), connect_s=6 * CONNECT_S)
        assert isinstance(outcome, Reply)


def test_a_process_without_a_free_file_descriptor_gets_a_transport_error(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_free(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, "too many open files")

    with Stub() as stub, monkeypatch.context() as patch:
        if kind == "threads":
            patch.setattr("cycles._http.blocking.new_socket", none_free)
        else:
            patch.setattr(asyncio.BaseEventLoop, "create_connection", none_free)
        (outcome,) = exchange(kind, Endpoint(stub.url))
    assert isinstance(outcome, ExchangeError)
    assert outcome.kind is FailureKind.CONNECT
    assert "too many open files" in str(outcome)


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_head_that_arrives_byte_by_byte_over_httpx_is_bounded(library: Any, is_async: bool) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with Stub(ok(), drip(head, every_s=0.05)) as stub:
        endpoint = Endpoint(stub.url)
        began = time.monotonic()
        if is_async:
            outcome = asyncio.run(_drip_async(library, endpoint))
        else:
            with library.Client() as client:
                connections = BlockingClient(endpoint, client, connect_timeout_s=60, max_connections=4)
                connections.send(
                    Prepared("POST", "/", [], b"{}"), Limits(SOON_S)
                )  # the connection is in the pool from now on
                began = time.monotonic()
                outcome = _outcome(lambda: connections.send(Prepared("POST", "/", [], b"{}"), Limits(0.3)))
        assert time.monotonic() - began < SOON_S
    assert isinstance(outcome, ExchangeError)
    assert (outcome.kind, outcome.request_sent) == (FailureKind.TIMEOUT, True)


async def _drip_async(library: Any, endpoint: Endpoint) -> Reply | ExchangeError:
    async with library.AsyncClient() as client:
        connections = AsyncClient(endpoint, client, connect_timeout_s=60, max_connections=4)
        await connections.send(Prepared("POST", "/", [], b"{}"), Limits(SOON_S))
        try:
            return await connections.send(Prepared("POST", "/", [], b"{}"), Limits(0.3))
        except ExchangeError as error:
            return error


@pytest.mark.parametrize(
    "variables", [{}, {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}], ids=["direct", "proxy"]
)
@pytest.mark.parametrize("is_async", [False, True])
def test_a_certificate_file_that_cannot_be_read_is_a_configuration_error(
    is_async: bool, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    async def decide(client: cycles.Cycles) -> None:
        await client.aio.decide(cycles.tokens(1), action=("a", "b"))

    with (
        cycles.Cycles(base_url="https://127.0.0.1:9", api_key="k", tenant="acme", journal=False) as client,
        pytest.raises(cycles.ConfigurationError, match=r"SSL_CERT_FILE=.*missing\.pem"),
    ):
        if is_async:
            asyncio.run(decide(client))
        else:
            client.decide(cycles.tokens(1), action=("a", "b"))
