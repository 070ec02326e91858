"""The waits of a blocking exchange on its sockets, on a clock that the sockets move."""

from __future__ import annotations

import select
import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from cycles._core.messages.requests import Prepared
from cycles._http import blocking as module, connection_pool
from cycles._http.blocking import BlockingConnections
from cycles._http.connection_pool import KEEPALIVE_S, readable
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind, Limits
from tests.support.stub import Stub

RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BEGAN_S = 100.0


class Network:
    """Sockets without a network: what each does when it connects, is written to, and is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, addresses: int = 1) -> None:
        self.now_s = BEGAN_S
        self.sockets: list[Socket] = []
        self.connects: list[Any] = []  # seconds that it takes, or what it raises
        self.handshakes: list[Any] = []  # of TLS
        self.writes: list[Any] = []  # how many bytes are taken, or what is raised
        self.reads: list[Any] = []
        self.is_readable = False
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.0.0.{n}", 80)) for n in range(addresses)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now_s))
        monkeypatch.setattr(module, "new_socket", lambda *kind: Socket(self))
        monkeypatch.setattr(module, "readable", lambda descriptor: lambda: self.is_readable)

    def connections(self, connect_timeout_s: float = 9.0) -> BlockingConnections:
        endpoint = Endpoint("http://10.0.0.1")
        return BlockingConnections(endpoint, connect_timeout_s=connect_timeout_s, max_connections=1)

    def post(self, connections: BlockingConnections, limits: Limits) -> Any:
        """Return the times of the reply, or the kind, the text and `request_sent` of the failure."""
        try:
            reply = connections.send(Prepared("POST", "/v1/x", [], b"{}"), limits)
        except ExchangeError as error:
            return error.kind, str(error), error.request_sent
        return reply.body, reply.sent, reply.received

    def step(self, script: list[Any], usual: Any, timeout_s: float) -> Any:
        step = script.pop(0) if script else usual
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, float):  # it takes so long
            self.now_s += min(step, timeout_s)
            if step >= timeout_s:
                raise TimeoutError("timed out")
            return usual
        return step


class Socket:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.timeouts: list[float] = []
        self.options: list[Any] = []
        self.address: Any = None
        self.sent = b""
        self.closed = 0
        network.sockets.append(self)

    def settimeout(self, timeout_s: float) -> None:
        self.timeouts.append(timeout_s)

    def setsockopt(self, *option: int) -> None:
        self.options.append(option)

    def connect(self, address: object) -> None:
        self.address = address
        self.network.step(self.network.connects, None, self.timeouts[-1])

    def send(self, data: bytes) -> int:
        taken = self.network.step(self.network.writes, len(data), self.timeouts[-1])
        self.sent += data[:taken]
        return int(taken)

    def recv(self, size: int) -> Any:
        return self.network.step(self.network.reads, RESPONSE, self.timeouts[-1])

    def fileno(self) -> int:
        return 7

    def close(self) -> None:
        self.closed += 1


def test_each_wait_has_what_is_left_of_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch)
    network.connects, network.writes = [1.0], [10, 2.0]
    network.reads = [RESPONSE[:20], RESPONSE[20:]]
    found = network.post(network.connections(), Limits(8.0))
    [sock] = network.sockets
    assert sock.timeouts == [8.0, 7.0, 7.0, 5.0, 5.0]
    assert sock.options == [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    assert sock.sent.startswith(b"POST /v1/x HTTP/1.1\r\nHost: 10.0.0.1\r\n")
    assert sock.sent.endswith(b"\r\n\r\n{}")
    assert found == (b"{}", 101.0, 103.0)


@pytest.mark.parametrize(
    ("limits", "connect_timeout_s", "shares"),
    [
        (Limits(60.0), 9.0, [3.0, 3.0, 3.0]),
        (Limits(6.0), 9.0, [2.0, 2.0, 2.0]),
        (Limits(60.0, 30.0, BEGAN_S + 3.0), 9.0, [1.0, 1.0, 1.0]),
    ],
)
def test_addresses_that_do_not_respond_have_equal_shares_of_the_time(
    monkeypatch: pytest.MonkeyPatch, limits: Limits, connect_timeout_s: float, shares: list[float]
) -> None:
    network = Network(monkeypatch, 3)
    network.connects = [99.0] * 3
    found = network.post(network.connections(connect_timeout_s), limits)
    assert found == (FailureKind.CONNECT, "can't connect to http://10.0.0.1 (timed out)", False)
    assert [sock.timeouts for sock in network.sockets] == [pytest.approx([share]) for share in shares]
    assert [sock.closed for sock in network.sockets] == [1] * 3
    assert [sock.address[0] for sock in network.sockets] == ["10.0.0.0", "10.0.0.1", "10.0.0.2"]


def test_a_tls_handshake_has_what_its_connect_has_left_of_the_share_of_the_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network(monkeypatch, 3)
    network.connects, network.handshakes = [1.0, 2.0, 0.5], [99.0, OSError("no TLS"), 0.5]
    endpoint = Endpoint("https://10.0.0.1")

    def wrap_socket(sock: Socket, server_hostname: str) -> Any:
        assert server_hostname == "10.0.0.1"
        return network.step(network.handshakes, sock, sock.timeouts[-1])

    monkeypatch.setattr(endpoint, "tls", SimpleNamespace(wrap_socket=wrap_socket))
    connections = BlockingConnections(endpoint, connect_timeout_s=9.0, max_connections=1)
    body, sent, _ = network.post(connections, Limits(60.0))
    assert (body, sent) == (b"{}", BEGAN_S + 3.0 + 2.0 + 1.0)
    assert [sock.timeouts[:2] for sock in network.sockets] == [[3.0, 2.0], [3.0, 1.0], [4.0, 3.5]]
    assert [sock.closed for sock in network.sockets] == [1, 1, 0]


@pytest.mark.parametrize("error", [OSError("refused"), ValueError("a null byte")])
def test_what_an_address_leaves_of_its_share_is_that_of_the_others(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    network = Network(monkeypatch, 3)
    network.connects = [error, 99.0, 1.0]
    assert network.post(network.connections(), Limits(60.0)) == (b"{}", 105.5, 105.5)
    assert [sock.timeouts[0] for sock in network.sockets] == [3.0, 4.5, 4.5]
    assert [sock.closed for sock in network.sockets] == [1, 1, 0]


@pytest.mark.parametrize("where", ["connects", "writes", "reads"])
def test_an_interrupt_closes_its_socket(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    network = Network(monkeypatch)
    setattr(network, where, [KeyboardInterrupt()])
    connections = network.connections()
    with pytest.raises(KeyboardInterrupt):
        network.post(connections, Limits(8.0))
    assert [sock.closed for sock in network.sockets] == [1]
    assert network.post(connections, Limits(8.0))[0] == b"{}"


BROKE = "the connection broke before the response (reset)"


@pytest.mark.parametrize(
    ("writes", "reads", "expected"),
    [
        ([9.0], [], (FailureKind.TIMEOUT, "timed out sending the request", True)),
        ([OSError("reset")], [], (FailureKind.BROKEN, BROKE, True)),  # TLS may have sent something
        ([5, OSError("reset")], [], (FailureKind.BROKEN, BROKE, True)),
        ([], [9.0], (FailureKind.TIMEOUT, "timed out waiting for the response", True)),
        ([], [OSError("reset")], (FailureKind.BROKEN, BROKE, True)),
        ([], [b""], (FailureKind.BROKEN, "the server closed the connection without a response", True)),
        ([], [RESPONSE[:20], 9.0], (FailureKind.TIMEOUT, "timed out waiting for the response", True)),
        ([7.9], [], (b"{}", 100.0, 107.9)),
        ([2.0], [5.9], (b"{}", 100.0, 107.9)),
        ([2.0], [6.0], (FailureKind.TIMEOUT, "timed out waiting for the response", True)),
    ],
)
def test_a_failed_exchange_says_where_it_failed(
    monkeypatch: pytest.MonkeyPatch, writes: list[Any], reads: list[Any], expected: tuple[Any, ...]
) -> None:
    network = Network(monkeypatch)
    network.writes, network.reads = writes, reads
    connections = network.connections()
    found = network.post(connections, Limits(8.0))
    assert found == (expected[0], *(pytest.approx(each) if isinstance(each, float) else each for each in expected[1:]))
    assert [sock.closed for sock in network.sockets] == [expected[0] != b"{}"]


@pytest.mark.parametrize(
    ("idle_s", "is_readable", "is_used"),
    [
        (0.0, False, True),
        (KEEPALIVE_S - 1.0, False, True),
        (KEEPALIVE_S, False, False),
        (0.0, True, False),  # the server has closed it
    ],
)
def test_an_idle_connection_is_used_again_while_it_lives(
    monkeypatch: pytest.MonkeyPatch, idle_s: float, is_readable: bool, is_used: bool
) -> None:
    network = Network(monkeypatch)
    connections = network.connections()
    assert network.post(connections, Limits(8.0))[0] == b"{}"
    network.now_s += idle_s
    network.is_readable = is_readable
    assert network.post(connections, Limits(8.0))[0] == b"{}"
    assert [sock.closed for sock in network.sockets] == ([0] if is_used else [1, 0])
    connections.close()
    assert [sock.closed for sock in network.sockets] == ([1] if is_used else [1, 1])
    assert network.post(connections, Limits(8.0)) == (
        FailureKind.CLOSED, "this client is closed: make a new one", False,
    )  # fmt: skip


@pytest.mark.parametrize("ends_at_s", [BEGAN_S, BEGAN_S - 1.0])
def test_nothing_is_connected_after_the_callers_time(monkeypatch: pytest.MonkeyPatch, ends_at_s: float) -> None:
    network = Network(monkeypatch)
    found = network.post(network.connections(), Limits(8.0, 30.0, ends_at_s))
    said = "can't connect to http://10.0.0.1 (the deadline of the attempt has passed)"
    assert found == (FailureKind.CONNECT, said, False)
    assert [sock.address for sock in network.sockets] == [None]


@pytest.mark.parametrize("has_data", [True, False])
@pytest.mark.parametrize("has_poll", [True, False])
def test_a_look_for_the_end_of_an_idle_connection_does_not_wait(
    monkeypatch: pytest.MonkeyPatch, has_data: bool, has_poll: bool
) -> None:
    looks: list[Any] = []

    class Poll:
        def register(self, descriptor: int, events: int) -> None:
            looks.append((descriptor, events))

        def poll(self, timeout_ms: float) -> list[int]:
            looks.append(timeout_ms)
            return [1] * has_data

    def select_now(*given: Any) -> Any:
        looks.append(given)
        return [7] * has_data, [], []

    fake = {"select": select_now, **({"poll": Poll, "POLLIN": select.POLLIN} if has_poll else {})}
    monkeypatch.setattr(connection_pool, "select", SimpleNamespace(**fake))
    is_readable = readable(7)
    assert is_readable() is has_data
    assert looks == ([(7, select.POLLIN), 0] if has_poll else [([7], [], [], 0)])


@pytest.mark.skipif(not hasattr(select, "poll"), reason="needs poll")
def test_a_plain_socket_that_was_readable_and_then_is_not_is_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may drop what it has reported, for example bytes with a wrong checksum."""
    polls, asked = [], threading.Event()
    made = select.poll

    class Poll:
        def __init__(self) -> None:
            self._poll = made()
            self.register = self._poll.register

        def poll(self, timeout_ms: float) -> Any:
            polls.append(timeout_ms)
            if len(polls) == 1:
                return [(0, select.POLLIN)]
            asked.set()
            return self._poll.poll(timeout_ms)

    def answer(sock: socket.socket, ended: threading.Event) -> bool:
        assert asked.wait(60)
        sock.sendall(RESPONSE)
        return False

    monkeypatch.setattr(select, "poll", Poll)
    with Stub(answer) as stub:
        connections = BlockingConnections(Endpoint(stub.url), connect_timeout_s=60, max_connections=1)
        try:
            assert connections.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(60.0)).body == b"{}"
        finally:
            connections.close()
    assert len(polls) >= 2
