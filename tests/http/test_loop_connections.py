"""The waits of an exchange on an event loop whose time passes when it waits."""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cycles._core.messages.requests import Prepared
from cycles._http import loop as module, resolver
from cycles._http.connection_pool import KEEPALIVE_S
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind, Limits
from cycles._http.loop import AsyncConnections

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BEGAN_S = 100.0
EPOCH_S = 5_000.0  # the clock of a loop need not be that of `time.monotonic`
HANGS = float("inf")


class Selector(selectors.DefaultSelector):
    """Takes no time: the clock of the loop jumps to the next timer."""

    loop: Loop

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events:
            assert timeout is not None, "the loop waits for ever"
            self.loop.now_s += timeout
        return events


class Loop(asyncio.SelectorEventLoop):
    """An event loop without a network: what each connection does is a script."""

    def __init__(self) -> None:
        self.now_s = BEGAN_S
        selector = Selector()
        selector.loop = self
        super().__init__(selector)
        self.connects: list[Any] = []  # seconds that it takes, or what it raises
        self.responses: list[list[tuple[float, bytes | None]]] = []  # when the parts come; None: the connection ends
        self.transports: list[Transport] = []
        self.addresses: list[str] = []
        self.is_readable = False
        self.unsent = 0

    def time(self) -> float:
        return self.now_s + EPOCH_S

    async def pass_time(self, seconds: float) -> None:
        passed = self.create_future()
        if seconds != HANGS:
            self.call_later(seconds, passed.set_result, None)
        await passed

    async def create_connection(self, factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:  # type: ignore[override]
        self.addresses.append(host)
        assert options == {"family": socket.AF_INET, "ssl": None, "server_hostname": None}
        step = self.connects.pop(0) if self.connects else 0.0
        if isinstance(step, Exception):
            raise step
        await self.pass_time(step)
        protocol = factory()
        transport = Transport(self, protocol)
        protocol.connection_made(transport)
        return transport, protocol


class Transport:
    def __init__(self, loop: Loop, protocol: Any) -> None:
        self.loop = loop
        self.protocol = protocol
        self.sent: list[bytes] = []
        self.aborted = 0
        self.is_lost = False
        loop.transports.append(self)

    def get_extra_info(self, name: str) -> Any:
        return SimpleNamespace(fileno=lambda: 7)

    def get_write_buffer_size(self) -> int:
        return self.loop.unsent

    def write(self, data: bytes) -> None:
        self.sent.append(data)
        for delay_s, part in self.loop.responses.pop(0) if self.loop.responses else [(0.0, RESPONSE)]:
            if part is None:
                self.loop.call_later(delay_s, self.lose, OSError("reset"))
            elif part == b"":
                self.loop.call_later(delay_s, self.protocol.eof_received)
            else:
                self.loop.call_later(delay_s, self.protocol.data_received, part)

    def abort(self) -> None:
        self.aborted += 1
        self.loop.call_soon(self.lose, None)

    def lose(self, error: OSError | None) -> None:
        if not self.is_lost:
            self.is_lost = True
            self.protocol.connection_lost(error)


class Client:
    """Connections on the loop."""

    def __init__(self, loop: Loop, connect_timeout_s: float = 9.0, max_connections: int = 1) -> None:
        self.connections = AsyncConnections(
            Endpoint("http://10.0.0.1"), connect_timeout_s=connect_timeout_s, max_connections=max_connections
        )
        self.loop = loop

    async def post(self, limits: Limits) -> Any:
        """Return the times of the reply, or the kind, the text and `request_sent` of the failure."""
        try:
            reply = await self.connections.send(Prepared("POST", "/v1/x", [], b"{}"), limits)
        except ExchangeError as error:
            return error.kind, str(error), error.request_sent
        return reply.body, reply.sent, reply.received


Run = Callable[[Any], Any]


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loop]:
    loop = Loop()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: loop.now_s))
    monkeypatch.setattr(module, "readable", lambda descriptor: lambda: loop.is_readable)
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def addresses(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.0.0.{n}", 80)) for n in range(number)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


WAITING = (FailureKind.TIMEOUT, "timed out waiting for the response", True)
BROKE = (FailureKind.BROKEN, "the connection broke before the response (reset)", True)


@pytest.mark.parametrize(
    ("connects", "response", "limits", "expected", "at_s"),
    [
        ([], [(7.5, RESPONSE)], Limits(8.0), (b"{}", 100.0, 107.5), 107.5),
        ([], [(8.5, RESPONSE)], Limits(8.0), WAITING, 108.0),
        ([2.0], [(5.5, RESPONSE)], Limits(8.0), (b"{}", 102.0, 107.5), 107.5),
        ([2.0], [(6.5, RESPONSE)], Limits(8.0), WAITING, 108.0),
        ([], [(1.0, RESPONSE[:20]), (8.5, RESPONSE[20:])], Limits(8.0), WAITING, 108.0),
        ([], [(5.0, RESPONSE)], Limits(8.0, 30.0, BEGAN_S + 4.0), WAITING, 104.0),
        ([], [(1.0, None)], Limits(8.0), BROKE, 101.0),
        ([], [(1.0, b"")], Limits(8.0),
         (FailureKind.BROKEN, "the server closed the connection without a response", True), 101.0),
    ],
)  # fmt: skip
def test_an_exchange_ends_at_its_deadline(
    loop: Loop, connects: list[Any], response: Any, limits: Limits, expected: Any, at_s: float
) -> None:
    loop.connects, loop.responses = connects, [response]
    client = Client(loop)
    assert loop.run_until_complete(client.post(limits)) == expected
    assert loop.now_s == at_s
    [transport] = loop.transports
    assert transport.sent[0].startswith(b"POST /v1/x HTTP/1.1\r\nHost: 10.0.0.1\r\n")
    assert transport.aborted == (expected[0] != b"{}")
    assert loop.run_until_complete(client.post(Limits(8.0)))[0] == b"{}"  # its slot is free


@pytest.mark.parametrize(
    ("limits", "connect_timeout_s", "ends_at_s"),
    [(Limits(60.0), 9.0, 109.0), (Limits(6.0), 9.0, 106.0), (Limits(60.0, 30.0, BEGAN_S + 3.0), 9.0, 103.0)],
)
def test_addresses_that_do_not_respond_share_the_time(
    monkeypatch: pytest.MonkeyPatch, loop: Loop, limits: Limits, connect_timeout_s: float, ends_at_s: float
) -> None:
    addresses(monkeypatch, 3)
    loop.connects = [HANGS] * 3
    kind, _, request_sent = loop.run_until_complete(Client(loop, connect_timeout_s).post(limits))
    assert (kind, request_sent) == (FailureKind.CONNECT, False)
    assert loop.now_s == pytest.approx(ends_at_s)
    assert loop.addresses == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize("error", [OSError("refused"), ValueError("a null byte")])
def test_what_an_address_leaves_of_its_share_is_that_of_the_others(
    monkeypatch: pytest.MonkeyPatch, loop: Loop, error: Exception
) -> None:
    addresses(monkeypatch, 3)
    loop.connects = [error, HANGS, 1.0]
    assert loop.run_until_complete(Client(loop).post(Limits(60.0))) == (b"{}", 105.5, 105.5)
    loop.connects = [error] * 3
    other = Client(loop)
    said = f"can't connect to http://10.0.0.1 ({error})"
    assert loop.run_until_complete(other.post(Limits(60.0))) == (FailureKind.CONNECT, said, False)


@pytest.mark.parametrize(
    ("idle_s", "is_readable", "is_used"),
    [(0.0, False, True), (KEEPALIVE_S - 1.0, False, True), (KEEPALIVE_S, False, False), (0.0, True, False)],
)
def test_an_idle_connection_is_used_again_while_it_lives(
    loop: Loop, idle_s: float, is_readable: bool, is_used: bool
) -> None:
    client = Client(loop)
    assert loop.run_until_complete(client.post(Limits(8.0)))[0] == b"{}"
    loop.now_s += idle_s
    loop.is_readable = is_readable
    assert loop.run_until_complete(client.post(Limits(8.0)))[0] == b"{}"
    assert [transport.aborted for transport in loop.transports] == ([0] if is_used else [1, 0])
    loop.run_until_complete(client.connections.aclose())
    assert [transport.aborted for transport in loop.transports] == ([1] if is_used else [1, 1])
    loop.run_until_complete(client.post(Limits(8.0)))  # a late one
    loop.run_until_complete(asyncio.sleep(0))
    assert {transport.aborted for transport in loop.transports} == {1}


@pytest.mark.parametrize("end", ["eof", "lost", "data", "unsent"])
def test_a_connection_that_its_server_ends_is_not_used_again(loop: Loop, end: str) -> None:
    client = Client(loop)
    loop.unsent = 3 if end == "unsent" else 0  # the server has not read all of the request
    loop.run_until_complete(client.post(Limits(8.0)))
    loop.unsent = 0
    [first] = loop.transports
    if end == "eof":
        first.protocol.eof_received()
    elif end == "lost":
        first.lose(None)
    elif end == "data":
        first.protocol.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert loop.run_until_complete(client.post(Limits(8.0)))[0] == b"{}"
    assert [len(transport.sent) for transport in loop.transports] == [1, 1]


@pytest.mark.parametrize(
    ("limits", "expected", "at_s"),
    [
        (Limits(8.0, 3.0), (FailureKind.QUEUE, "no connection was free within 3 s, so nothing was sent; raise "
                            "max_connections, or start fewer calls at the same time", False), 103.0),
        (Limits(8.0, 30.0, BEGAN_S + 2.0), (FailureKind.QUEUE, "no connection was free within 30 s, so nothing was "
                                            "sent; raise max_connections, or start fewer calls at the same time",
                                            False), 102.0),
        (Limits(8.0, 30.0), (b"{}", 107.0, 107.0), 107.0),
    ],
)  # fmt: skip
def test_a_task_waits_for_a_slot_as_long_as_it_may(loop: Loop, limits: Limits, expected: Any, at_s: float) -> None:
    client = Client(loop)
    loop.responses = [[(7.0, RESPONSE)]]
    times: list[float] = []

    async def main() -> Any:
        first = asyncio.ensure_future(client.post(Limits(60.0)))
        await asyncio.sleep(0)
        found = await client.post(limits)
        times.append(loop.now_s)
        assert (await first)[0] == b"{}"
        return found

    assert loop.run_until_complete(main()) == expected
    assert times == [at_s]


def test_a_close_wakes_the_tasks_that_wait_and_lets_the_exchange_end(loop: Loop) -> None:
    client = Client(loop)
    loop.responses = [[(7.0, RESPONSE)]]

    async def main() -> list[Any]:
        exchanges = [asyncio.ensure_future(client.post(Limits(60.0))) for _ in range(3)]
        await loop.pass_time(1.0)
        await client.connections.aclose()
        await client.connections.aclose()
        return list(await asyncio.gather(*exchanges))

    first, *others = loop.run_until_complete(main())
    assert first == (b"{}", 100.0, 107.0)
    assert others == [(FailureKind.CLOSED, "this client is closed: make a new one", False)] * 2
    assert [transport.aborted for transport in loop.transports] == [1]


def test_a_close_that_is_cancelled_leaves_no_error(loop: Loop) -> None:
    errors = list[Any]()

    async def main() -> None:
        client = Client(loop)
        await client.post(Limits(8.0))
        closing = asyncio.ensure_future(client.connections.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])

    loop.set_exception_handler(lambda _, context: errors.append(context))
    loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0))  # the transport reports its end
    assert errors == []


def test_the_end_of_the_loop_closes_its_connections(loop: Loop) -> None:
    client = Client(loop)
    loop.run_until_complete(client.post(Limits(8.0)))
    assert [transport.aborted for transport in loop.transports] == [0]
    loop.run_until_complete(loop.shutdown_asyncgens())
    assert [transport.aborted for transport in loop.transports] == [1]


@pytest.mark.parametrize("known", [False, True])
def test_a_name_service_that_hangs_is_waited_for_as_long_as_a_connection(
    monkeypatch: pytest.MonkeyPatch, loop: Loop, known: bool
) -> None:
    found: list[Any] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 80))]
    lookups: list[Lookup] = []

    class Lookup(resolver.Lookup):
        def start(self) -> None:
            lookups.append(self)
            if known and len(lookups) == 1:
                self.found, self.done = found, True

    monkeypatch.setattr(resolver, "Lookup", Lookup)
    monkeypatch.setattr(module, "Lookup", Lookup)
    client = Client(loop)
    client.connections = AsyncConnections(Endpoint("http://a.test"), connect_timeout_s=8.0, max_connections=1)
    if known:
        loop.responses = [[(0.0, RESPONSE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))]]
        assert loop.run_until_complete(client.post(Limits(60.0)))[0] == b"{}"
    answer = loop.run_until_complete(client.post(Limits(60.0)))
    timeout = "can't connect to http://a.test (the name service has not resolved a.test in time)"
    assert answer == ((b"{}", 102.0, 102.0) if known else (FailureKind.CONNECT, timeout, False))
    assert loop.now_s == (102.0 if known else 108.0)


@pytest.mark.parametrize("error", [None, OSError("reset")])
def test_a_connection_that_was_lost_while_it_was_idle_can_be_closed(loop: Loop, error: OSError | None) -> None:
    client = Client(loop)
    loop.run_until_complete(client.post(Limits(8.0)))
    loop.transports[0].lose(error)
    loop.run_until_complete(client.connections.aclose())
    assert loop.transports[0].is_lost


def test_connections_that_were_never_used_can_be_closed(loop: Loop) -> None:
    client = Client(loop)
    for _ in range(2):
        loop.run_until_complete(client.connections.aclose())
    assert loop.transports == []
