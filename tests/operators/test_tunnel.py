"""Tunnels through the proxy: what is rejected, what passes unread, and how connections end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import socket
import threading
from typing import Any

import httpx
import pytest
import uvicorn
from uvicorn.server import ServerState

import cycles
from cycles.proxy._caller_proxy import caller_proxy
from cycles.proxy._connect import ESTABLISHED, Connect
from cycles.proxy._hosts import normalized_host
from cycles.proxy._routes import covers_provider, is_provider, route_of_host
from cycles.proxy._server import ProxyServer
from cycles.proxy._settings import ProxySettings
from cycles.proxy._totals import Totals
from cycles.proxy._tunnel import Far, FirstBytes, ForbiddenError, Near, Tunnels, UnreachableError
from cycles.testing import FakeProvider
from tests.operators.proxying import BOOK, EXACT, KEY, USED, Place, proxied, upstreams
from tests.operators.tunnels import PATIENCE_S, authorization, echo, listening, opened, read_head, rest_of, send_connect
from tests.support.waiting import until

REJECTED = "HTTP/1.1 403 Cycles rejected a connection to"


def _status(place: Place, target: str, headers: str | None = None) -> tuple[str, str]:
    with opened(place) as connection:
        line, body = send_connect(connection, target, headers)
        return line, (body + rest_of(connection)).decode()


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("api.openai.com:443", "api.openai.com"),
        ("API.OpenAI.com:443", "api.openai.com"),
        ("api.openai.com.:8443", "api.openai.com"),
        ("eu.api.openai.com:443", "eu.api.openai.com"),
        ("us-east5-aiplatform.googleapis.com:443", "us-east5-aiplatform.googleapis.com"),
        ("my.openai.azure.com:443", "my.openai.azure.com"),
    ],
)
def test_a_host_of_a_route_is_rejected_and_the_message_says_what_to_set(target: str, host: str) -> None:
    with proxied(tunnel=True) as place:
        line, body = _status(place, target)
        assert line == f"{REJECTED} {host}"
        variable = next(iter(route_of_host(host).variables))  # type: ignore[union-attr]
        assert body.strip() == (
            f"calls to {host} would not be charged; set {variable}, or pass --capture or --allow-host {host}"
        )
        assert place.proxy.app.totals.rejected_hosts == {host: 1}


@pytest.mark.parametrize(
    "host",
    ["api.cohere.com", "chatgpt.com", "bedrock-runtime.us-east-1.amazonaws.com", "dashscope-intl.aliyuncs.com"],
)
def test_a_provider_without_a_route_is_rejected(host: str) -> None:
    with proxied(tunnel=True) as place:
        line, body = _status(place, f"{host}:443")
        assert line == f"{REJECTED} {host}"
        assert body.strip() == f"calls to {host} would not be charged; pass --allow-host {host}"


@pytest.mark.parametrize("target", ["8.8.8.8:443", "[2001:4860:4860::8888]:443", "134744072:443", "0x08080808:443"])
def test_an_address_that_is_not_private_is_rejected(target: str) -> None:
    with proxied(tunnel=True) as place:
        line, body = _status(place, target)
        assert line.startswith(REJECTED)
        assert "use a host name, or pass --allow-host" in body


def test_other_hosts_of_the_same_companies_are_not_providers() -> None:
    for host in ("storage.googleapis.com", "github.com", "openai.com", "s3.us-east-1.amazonaws.com", "pypi.org"):
        assert not is_provider(host)


def test_a_rejected_host_beside_charged_calls_is_in_the_summary() -> None:
    with proxied(tunnel=True) as place:
        place.provider.reply(usage=USED)
        assert place.post().status_code == 200
        for _ in range(2):
            _status(place, "api.openai.com:443")
        totals = place.proxy.app.totals
        assert totals.spent == EXACT
        assert totals.document(1.0, 0)["rejected_hosts"] == {"api.openai.com": 2}
        assert totals.host_lines(captures=False) == [
            "rejected: 2 connections to api.openai.com, which would not be charged; pass --capture"
        ]


def test_how_a_run_was_sealed_is_in_the_summary() -> None:
    with proxied(tunnel=True) as place:
        totals = place.proxy.app.totals
        assert totals.sealed_lines() == []
        for mode, words in (("namespace", "with a network namespace"), ("landlock", "with Landlock")):
            totals.sealed = mode
            assert totals.sealed_lines() == [f"sealed: {words}"]


@pytest.mark.parametrize("headers", ["", "Proxy-Authorization: Basic !!!\r\n", authorization("wrong")])
def test_without_the_key_a_tunnel_is_407(headers: str) -> None:
    with proxied(tunnel=True) as place, listening(echo) as port:
        line, body = _status(place, f"127.0.0.1:{port}", headers)
        assert line == "HTTP/1.1 407 Proxy Authentication Required"
        assert "the password of HTTPS_PROXY" in body


@pytest.mark.parametrize(
    ("request_line", "headers"),
    [
        ("CONNECT example.com HTTP/1.1", ""),
        ("CONNECT example.com:0 HTTP/1.1", ""),
        ("CONNECT example.com:70000 HTTP/1.1", ""),
        ("CONNECT example.com:x HTTP/1.1", ""),
        ("CONNECT http://example.com:80 HTTP/1.1", ""),
        ("CONNECT :443 HTTP/1.1", ""),
        ("CONNECT exa%6dple.com:443 HTTP/1.1", ""),
        ("CONNECT example.com:443", ""),
        ("CONNECT example.com:443 HTTP/1.1", "Content-Length: 5\r\n"),
        ("CONNECT example.com:443 HTTP/1.1", "Transfer-Encoding: chunked\r\n"),
        ("CONNECT example.com:443 HTTP/1.1", "Transfer-Encoding: gzip, chunked\r\n"),
        ("CONNECT example.com:443 HTTP/1.1", "no header\r\n"),
        ("CONNECT example.com:443 HTTP/1.1", "X: y\r\n" * 17_000),
    ],
)
def test_a_malformed_connect_is_400_and_ends_that_connection_only(request_line: str, headers: str) -> None:
    with proxied(tunnel=True) as place:
        place.provider.reply(usage=USED)
        with opened(place) as connection:
            connection.sendall(f"{request_line}\r\n{authorization()}{headers}\r\nhello".encode())
            line, _ = read_head(connection)
            rest_of(connection)
        assert line == "HTTP/1.1 400 Bad Request"
        assert place.post().status_code == 200


def test_a_head_that_arrives_byte_by_byte_and_bytes_that_follow_it_immediately_are_kept() -> None:
    with proxied(tunnel=True) as place, listening(echo) as port, opened(place) as connection:
        head = f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n{authorization()}\r\n".encode()
        for index in range(len(head) - 1):
            connection.sendall(head[index : index + 1])
        connection.sendall(head[-1:] + b"early")
        line, rest = read_head(connection)
        assert line.startswith("HTTP/1.1 200")
        while len(rest) < 5:
            rest += connection.recv(100)
        assert rest == b"early"


def test_a_target_that_cannot_be_connected_is_502_with_its_reason() -> None:
    with proxied(tunnel=True) as place:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        line, body = _status(place, f"127.0.0.1:{port}")
        assert line == "HTTP/1.1 502 Bad Gateway"
        assert "refused" in body.lower()


def test_a_tunnel_of_100_mb_has_the_same_bytes() -> None:
    block = os.urandom(1 << 20)
    sent, received = hashlib.sha256(), hashlib.sha256()
    with proxied(tunnel=True) as place, listening(echo) as port, opened(place) as connection:
        send_connect(connection, f"127.0.0.1:{port}")

        def write() -> None:
            for _ in range(100):
                sent.update(block)
                connection.sendall(block)
            connection.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write)
        writer.start()
        count = 0
        while part := connection.recv(1 << 18):
            received.update(part)
            count += len(part)
        writer.join()
        sent.update(b"<end>")
        assert count == (100 << 20) + 5
        assert received.digest() == sent.digest()


class _Connection(asyncio.Transport):
    """A connection of a tunnel that nothing reads."""

    is_read = True
    may_end = False
    ends = 0
    written = b""
    protocol: Any = None

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def write(self, data: Any) -> None:
        self.written += data

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def can_write_eof(self) -> bool:
        return self.may_end

    def write_eof(self) -> None:
        self.ends += 1

    def close(self) -> None: ...

    def abort(self) -> None:
        self.is_read = False

    def is_closing(self) -> bool:
        return False


def test_each_side_of_a_tunnel_is_read_only_as_fast_as_the_other_side_reads() -> None:
    """Otherwise what a slow program has not read yet would fill the memory of the proxy."""

    async def main() -> None:
        program, target = _Connection(), _Connection()
        near = Near(Tunnels(Totals(), keys=None), set(), {})
        near.connection_made(program)
        far = Far(near, None)
        far.connection_made(target)
        near.pause_writing()
        assert (program.is_read, target.is_read) == (True, False)
        near.resume_writing()
        far.pause_writing()
        assert (program.is_read, target.is_read) == (False, True)
        far.resume_writing()
        assert (program.is_read, target.is_read) == (True, True)
        near.connection_lost(None)

    asyncio.run(main())


@pytest.mark.parametrize("is_slow", [True, False])
def test_a_tunnel_is_the_same_wherever_the_first_bytes_of_the_program_are_cut(
    monkeypatch: pytest.MonkeyPatch, is_slow: bool
) -> None:
    sent = b"CONNECT target.internal:5432 HTTP/1.1\r\n\r\nearly"
    targets: list[_Connection] = []

    async def connect(_: Any, protocol: Any, host: str, port: int, **how: Any) -> None:
        assert (host, port) == ("target.internal", 5432)
        targets.append(_Connection())
        protocol().connection_made(targets[-1])

    async def main() -> None:
        config = uvicorn.Config(lambda: None, log_config=None)
        config.load()
        for cut in range(1, len(sent)):
            program = _Connection()
            tunnels = Tunnels(Totals(), keys=None)
            program.protocol = FirstBytes(tunnels, config=config, server_state=ServerState(), app_state={})
            program.protocol.connection_made(program)
            program.protocol.data_received(sent[:cut])
            if is_slow:
                await _others()
            program.protocol.data_received(sent[cut:])
            await _others()
            assert (program.written, targets.pop().written) == (ESTABLISHED, b"early"), cut
            program.protocol.connection_lost(None)

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", connect)
    asyncio.run(main())


async def _others() -> None:
    """Let the tasks of the loop run until they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_tunnel_is_the_same_wherever_the_answer_of_the_proxy_of_the_caller_is_cut() -> None:
    received = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n220 ready"

    async def main() -> None:
        for cut in range(1, len(received)):
            program, proxy = _Connection(), _Connection()
            near = Near(Tunnels(Totals(), keys=None), set(), {})
            near.connection_made(program)
            far = Far(near, b"CONNECT target.internal:5432 HTTP/1.1\r\n\r\n")
            far.connection_made(proxy)
            far.data_received(received[:cut])
            far.data_received(received[cut:])
            assert (program.written, far.opened.done()) == (ESTABLISHED + b"220 ready", True), cut
            near.connection_lost(None)

    asyncio.run(main())


@pytest.mark.parametrize("may_end", [True, False])
@pytest.mark.parametrize("first", ["program", "target"])
def test_a_tunnel_is_open_until_both_directions_have_ended(first: str, may_end: bool) -> None:
    """A side that returns False from `eof_received` is closed by asyncio, and the other one with it."""

    async def main() -> None:
        connections = {"program": _Connection(), "target": _Connection()}
        for connection in connections.values():
            connection.may_end = may_end
        near = Near(Tunnels(Totals(), keys=None), set(), {})
        near.connection_made(connections["program"])
        far = Far(near, None)
        far.connection_made(connections["target"])
        sides: dict[str, Any] = {"program": near, "target": far}
        assert sides.pop(first).eof_received() is True
        assert connections.pop(first).ends == 0
        [(_, other)], [(_, ended)] = sides.items(), connections.items()
        assert ended.ends == may_end  # it is told of the end, if its kind of connection can be
        assert other.eof_received() is False
        near.connection_lost(None)

    asyncio.run(main())


def test_a_target_that_is_connected_after_the_error_response_is_disconnected() -> None:
    async def main() -> None:
        program, target = _Connection(), _Connection()
        near = Near(Tunnels(Totals(), keys=None), set(), {})
        near.connection_made(program)
        near.respond(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        Far(near, None).connection_made(target)
        assert (program.is_read, target.is_read) == (True, False)
        near.connection_lost(None)

    asyncio.run(main())


def test_a_server_that_stops_leaves_no_connection_of_a_tunnel() -> None:
    async def main() -> None:
        program, target = _Connection(), _Connection()
        near = Near(Tunnels(Totals(), keys=None), set(), {})
        near.connection_made(program)
        Far(near, None).connection_made(target)
        near.shutdown()
        assert (program.is_read, target.is_read) == (False, False)
        near.connection_lost(None)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("proxy", "target", "connected"),
    [
        ("http://proxy.example:3128", "api.example", ("proxy.example", 3128, False, None)),
        ("https://proxy.example", "api.example", ("proxy.example", 443, True, "proxy.example")),
        ("https://proxy.example:8443", "api.example", ("proxy.example", 8443, True, "proxy.example")),
        ("https://proxy.example", "localhost", ("localhost", 5432, None, None)),
        ("https://proxy.example", "127.0.0.1", ("127.0.0.1", 5432, None, None)),
        ("https://proxy.example", "::1", ("::1", 5432, None, None)),
        ("https://proxy.example", "other.example", ("other.example", 5432, None, None)),
    ],
)
def test_which_server_a_tunnel_connects_first(
    monkeypatch: pytest.MonkeyPatch, proxy: str, target: str, connected: tuple[Any, ...]
) -> None:
    """The certificate of a proxy with TLS names the proxy. Addresses of this machine are not those of the proxy."""
    found: list[tuple[Any, ...]] = []

    async def connect(_: Any, protocol: Any, host: str, port: int, **how: Any) -> None:
        context = how.get("ssl")
        found.append((host, port, None if "ssl" not in how else context is not None, how.get("server_hostname")))
        far = protocol()
        far.connection_made(_Connection())
        far.data_received(b"HTTP/1.1 200 OK\r\n\r\n")

    async def main() -> None:
        caller = caller_proxy({"HTTPS_PROXY": proxy, "NO_PROXY": "other.example"})
        tunnels = Tunnels(Totals(), keys=None, caller=caller)
        near = Near(tunnels, set(), {})
        near.connection_made(_Connection())
        await tunnels.connect(near, Connect(target, 5432, None))
        near.connection_lost(None)

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", connect)
    asyncio.run(main())
    assert found == [connected]


@pytest.mark.parametrize(
    ("head", "connects"),
    [
        (b"HTTP/1.1 200 Connection established\r\nVia: x", True),
        (b"HTTP/1.0 200", True),
        (b"HTTP/1.1 204 No Content", True),
        (b"HTTP/1.1 407 Proxy Authentication Required", False),
        (b"HTTP/1.1 302 Found", False),
        (b"HTTP/1.1 502 200", False),
        (b"HTTP/1.1", False),
        (b"garbage", False),
        (b"", False),
    ],
)
@pytest.mark.parametrize("waits", [True, False])
def test_a_proxy_of_the_caller_has_connected_a_target_if_its_status_says_so(
    head: bytes, connects: bool, waits: bool
) -> None:
    """Also if the program has left in the meantime, so that nothing waits for it any more."""

    async def main() -> None:
        program, target = _Connection(), _Connection()
        near = Near(Tunnels(Totals(), keys=None), set(), {})
        near.connection_made(program)
        far = Far(near, b"CONNECT")
        far.connection_made(target)
        if not waits:
            far.opened.cancel()
        far.data_received(head[:9])
        far.data_received(head[9:] + b"\r\n\r\n")
        assert target.is_read is connects
        if waits and connects:
            assert far.opened.result() is None
        elif waits:
            with pytest.raises(UnreachableError, match="the proxy of the caller did not connect it: "):
                far.opened.result()
        near.connection_lost(None)

    asyncio.run(main())


def test_a_target_that_does_not_respond_is_said_and_left_if_the_program_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[str] = []

    async def connect(_: Any, protocol: Any, host: str, port: int, **how: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.append(host)

    async def main() -> None:
        tunnels = Tunnels(Totals(), keys=None)
        near = Near(tunnels, set(), {})
        near.connection_made(_Connection())
        near.data_received(b"CONNECT a.example:1 HTTP/1.1\r\n\r\n")
        for _ in range(3):
            await asyncio.sleep(0)
        assert left == []
        near.connection_lost(None)
        for _ in range(3):
            await asyncio.sleep(0)
        assert left == ["a.example"]
        monkeypatch.setattr("cycles.proxy._tunnel.CONNECT_S", 0)
        with pytest.raises(UnreachableError, match=r"^b\.example:1 did not accept within 0 s$"):
            await tunnels.connect(near, Connect("b.example", 1, None))

    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", connect)
    asyncio.run(main())


def test_200_tunnels_at_the_same_time() -> None:
    with proxied(tunnel=True) as place, listening(echo) as port:
        connections = [opened(place) for _ in range(200)]
        for connection in connections:
            assert send_connect(connection, f"127.0.0.1:{port}")[0].startswith("HTTP/1.1 200")
        for number, connection in enumerate(connections):
            connection.sendall(b"%d" % number)
            connection.shutdown(socket.SHUT_WR)
        for number, connection in enumerate(connections):
            assert rest_of(connection) == b"%d<end>" % number
            connection.close()


def test_a_half_closed_tunnel_still_receives() -> None:
    received: list[bytes] = []

    def later(connection: socket.socket) -> None:
        received.append(rest_of(connection))
        connection.sendall(b"bye")

    with proxied(tunnel=True) as place, listening(later) as port, opened(place) as connection:
        send_connect(connection, f"127.0.0.1:{port}")
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        assert rest_of(connection) == b"bye"
        assert received == [b"hello"]


def test_a_target_that_ends_first_still_receives() -> None:
    received: list[bytes] = []

    def first(connection: socket.socket) -> None:
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        received.append(rest_of(connection))

    with proxied(tunnel=True) as place, listening(first) as port, opened(place) as connection:
        _, rest = send_connect(connection, f"127.0.0.1:{port}")
        assert rest + rest_of(connection) == b"bye"
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        until(lambda: received == [b"hello"])


def test_a_tunnel_that_is_open_does_not_keep_the_proxy_from_stopping() -> None:
    with proxied(tunnel=True) as place, listening(echo) as port, opened(place) as connection:
        send_connect(connection, f"127.0.0.1:{port}")
        place.proxy.stop(60)
        with contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""


def test_an_allowed_host_is_tunnelled_and_named_as_not_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def resolved(host: Any, *args: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host == "chatgpt.com" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    allowed = frozenset({"chatgpt.com"})
    with proxied(tunnel=True, allowed=allowed) as place, listening(echo) as port, opened(place) as connection:
        assert send_connect(connection, f"ChatGPT.com:{port}")[0].startswith("HTTP/1.1 200")
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
        totals = place.proxy.app.totals
        assert totals.allowed_hosts == {"chatgpt.com": 1}
        assert totals.host_lines(captures=False) == ["not charged: 1 connection to chatgpt.com (--allow-host)"]


def _caller(requests: list[str], status: str = "200 OK", first: str = "") -> Any:
    """Return a proxy of the caller that notes requests and connects an echo for any name, which sends `first`."""

    def serve(connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        requests.append(data.decode())
        connection.sendall(f"HTTP/1.1 {status}\r\n\r\n{first}".encode())
        if status.startswith("2"):
            echo(connection)

    return serve


@pytest.mark.parametrize("target", ["far.example:443", "[2001:db8::1]:443"])
def test_tunnels_go_through_the_proxy_of_the_caller(target: str) -> None:
    requests: list[str] = []
    with listening(_caller(requests, first="r")) as port:
        caller = caller_proxy({"HTTPS_PROXY": f"http://me:p%40ss@127.0.0.1:{port}", "NO_PROXY": "127.0.0.1"})
        with proxied(tunnel=True, caller=caller) as place, opened(place) as connection:
            line, first = send_connect(connection, target)
            assert line.startswith("HTTP/1.1 200")
            assert (first or connection.recv(1)) == b"r"
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
    assert requests[0].startswith(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n")
    assert "Proxy-Authorization: Basic bWU6cEBzcw==" in requests[0]


def test_a_proxy_of_the_caller_that_rejects_is_502_with_its_status() -> None:
    with listening(_caller([], "407 Who are you")) as port:
        caller = caller_proxy({"HTTPS_PROXY": f"127.0.0.1:{port}"})
        with proxied(tunnel=True, caller=caller) as place:
            line, body = _status(place, "far.example:443")
    assert line == "HTTP/1.1 502 Bad Gateway"
    assert "407 Who are you" in body


def test_a_proxy_of_the_caller_whose_head_does_not_end_or_that_leaves_is_502() -> None:
    def endless(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"x" * 65_536)

    for serve, reason in ((endless, "did not connect it"), (lambda connection: None, "closed the connection")):
        with listening(serve) as port:
            caller = caller_proxy({"HTTPS_PROXY": f"127.0.0.1:{port}"})
            with proxied(tunnel=True, caller=caller) as place:
                line, body = _status(place, "far.example:443")
        assert line == "HTTP/1.1 502 Bad Gateway"
        assert f"the proxy of the caller {reason}" in body


def test_hosts_that_the_caller_excludes_are_connected_directly() -> None:
    entries = "10.0.0.0/8, .internal.example *.corp.example Near.example:8080"
    caller = caller_proxy({"ALL_PROXY": "http://127.0.0.1:1", "NO_PROXY": entries})
    assert caller is not None
    excluded = ("db.internal.example", "10.1.2.3", "a.corp.example", "near.example")
    assert [caller.serves(host) for host in (*excluded, "far.example", "11.1.2.3")] == [False] * 4 + [True] * 2


def test_an_excluded_network_may_be_written_with_the_address_of_a_host() -> None:
    caller = caller_proxy({"ALL_PROXY": "http://127.0.0.1:1", "NO_PROXY": "10.1.2.3/8"})
    assert caller is not None
    assert [caller.serves(host) for host in ("10.9.9.9", "11.1.2.3")] == [False, True]


def test_lower_case_names_of_the_variables_win() -> None:
    caller = caller_proxy(
        {"HTTPS_PROXY": "one.example", "https_proxy": "two.example", "NO_PROXY": "a.example", "no_proxy": "b.example"}
    )
    assert caller is not None
    assert (caller.host, caller.bypassed) == ("two.example", ("b.example",))


@pytest.mark.parametrize(
    ("written", "credentials"),
    [("a%40b:c%3Ad", b"a@b:c:d"), ("%C3%BC", "ü:".encode()), (":c", b":c")],
)
def test_credentials_of_the_proxy_are_sent_decoded(written: str, credentials: bytes) -> None:
    caller = caller_proxy({"HTTPS_PROXY": f"http://{written}@proxy.example"})
    assert caller is not None
    assert caller.credentials is not None
    assert base64.b64decode(caller.credentials.removeprefix("Basic ")) == credentials


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy", "HTTP_PROXY"])
def test_a_socks_proxy_is_a_wrong_setting(name: str) -> None:
    with pytest.raises(cycles.ConfigurationError, match="which is not supported"):
        caller_proxy({name: "socks5://127.0.0.1:1080"})


@pytest.mark.parametrize(
    ("entry", "covers"),
    [
        ("*", True),
        (".openai.com", True),
        ("openai.com", True),
        ("api.openai.com:443", True),
        ("com", True),
        ("amazonaws.com", True),
        ("*.azure.com", True),
        (".OpenAI.com", True),
        ("API.Anthropic.COM.", True),
        ("googleapis.com", True),
        ("internal.example", False),
        ("10.0.0.0/8", False),
        ("192.168.1.1", False),
        ("storage.googleapis.com", False),
        ("", False),
    ],
)
def test_entries_of_no_proxy_that_cover_a_provider_are_known(entry: str, covers: bool) -> None:
    assert covers_provider(entry) is covers


def test_connections_of_a_sealed_program_do_not_reach_this_machine() -> None:
    with listening(echo) as port, listening(echo) as shared:
        settings: dict[str, Any] = {"sealed": True, "shared_ports": (shared,)}
        with proxied(tunnel=True, **settings) as place:
            for host in ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1", "169.254.1.1"):
                assert _status(place, f"{host}:{port}")[0].startswith(REJECTED), host
            assert _status(place, f"0.0.0.0:{shared}")[0].startswith(REJECTED)
            with opened(place) as connection:
                assert send_connect(connection, f"127.0.0.1:{shared}")[0].startswith("HTTP/1.1 200")


@pytest.mark.parametrize("own", [True, False])
def test_a_proxy_that_others_reach_is_no_way_to_the_servers_of_its_machine(own: bool) -> None:
    """Through one on loopback, only programs of this machine connect, which reach these servers anyway."""
    with (
        listening(echo) as port,
        FakeProvider() as provider,
        cycles.EmbeddedServer({"tenant:run": cycles.usd(1)}) as server,
    ):
        settings = ProxySettings(upstreams=upstreams(provider.url), prices=BOOK, key=KEY, tunnel=True)
        proxy = ProxyServer(settings, server.client(tenant="run"))
        try:
            url = proxy.start("127.0.0.1" if own else "0.0.0.0", 0)
            with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=PATIENCE_S) as connection:
                status = send_connect(connection, f"localhost:{port}")[0]
        finally:
            proxy.stop(0)
        assert status.startswith("HTTP/1.1 200" if own else REJECTED)


def test_of_the_addresses_of_a_name_those_of_this_machine_are_not_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server could add one of them to another address; that of this test has no host."""
    look_up = socket.getaddrinfo

    def both(host: Any, *args: Any, **how: Any) -> Any:
        addresses = ("127.0.0.1", "240.0.0.1") if host == "mixed.example" else (host,)
        return [found for address in addresses for found in look_up(address, *args, **how)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    monkeypatch.setattr("cycles.proxy._tunnel.CONNECT_S", 2.0)  # where packets to it are dropped
    with listening(echo) as port, proxied(tunnel=True, sealed=True) as place:
        assert _status(place, f"mixed.example:{port}")[0].startswith("HTTP/1.1 502")


def _resolved(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these names be this machine, and others of example domains unknown."""
    look_up = socket.getaddrinfo

    def found(host: Any, *args: Any, **how: Any) -> Any:
        if str(host).endswith(".example") and host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return look_up("127.0.0.1" if host in names else host, *args, **how)

    monkeypatch.setattr(socket, "getaddrinfo", found)


def test_of_the_host_of_the_ledger_a_sealed_program_reaches_only_its_port(monkeypatch: pytest.MonkeyPatch) -> None:
    _resolved(monkeypatch, "ledger.example")
    near: Any = None
    tunnels = Tunnels(Totals(), keys=None, local=set(), ledger=("ledger.example", 7878))
    with pytest.raises(ForbiddenError, match=r"ledger\.example:9 is this machine"):
        asyncio.run(tunnels.connect(near, Connect("ledger.example", 9, None)))


def test_a_name_that_only_the_proxy_of_the_caller_knows_is_connected_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _resolved(monkeypatch)
    requests: list[str] = []
    with listening(_caller(requests)) as port:
        caller = caller_proxy({"HTTPS_PROXY": f"127.0.0.1:{port}", "NO_PROXY": "near.example"})
        with proxied(tunnel=True, sealed=True, caller=caller) as place:
            with opened(place) as connection:
                assert send_connect(connection, "far.example:443")[0].startswith("HTTP/1.1 200")
            assert _status(place, "near.example:443")[0].startswith("HTTP/1.1 502")
    assert [request.split("\r\n")[0] for request in requests] == ["CONNECT far.example:443 HTTP/1.1"]


def test_the_addresses_of_a_name_are_tried_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first address may be that of a server that is down."""
    look_up = socket.getaddrinfo

    def both(host: Any, *args: Any, **how: Any) -> Any:
        addresses = ("127.0.0.2", "127.0.0.1") if host == "mixed.example" else (host,)
        return [found for address in addresses for found in look_up(address, *args, **how)]

    monkeypatch.setattr(socket, "getaddrinfo", both)
    monkeypatch.setattr("cycles.proxy._tunnel.is_own", lambda address: False)
    with listening(echo) as port, proxied(tunnel=True, sealed=True) as place:
        with opened(place) as connection:
            assert send_connect(connection, f"mixed.example:{port}")[0].startswith("HTTP/1.1 200")
        with listening(echo) as ended:
            pass
        assert _status(place, f"mixed.example:{ended}")[0].startswith("HTTP/1.1 502")


def test_of_the_host_of_the_ledger_only_its_port_is_not_charged() -> None:
    tunnels = Tunnels(Totals(), keys=None, ledger=("api.openai.com", 7878))
    assert [tunnels.decide(Connect("api.openai.com", port, None)) for port in (7878, 443)] == ["tunnel", "reject"]


def test_without_the_tunnel_connect_reaches_nothing() -> None:
    with proxied() as place, listening(echo) as port, opened(place) as connection:
        assert send_connect(connection, f"127.0.0.1:{port}")[0].split()[1] in ("400", "401")


def test_httpx_uses_the_tunnel_with_its_key_and_shows_the_reason() -> None:
    with proxied(tunnel=True) as place:
        proxy = place.url.replace("http://", f"http://cycles:{KEY}@")
        with httpx.Client(proxy=proxy, trust_env=False) as client, pytest.raises(httpx.ProxyError) as caught:
            client.get("https://api.groq.com/openai/v1/models")
        assert str(caught.value) == "403 Cycles rejected a connection to api.groq.com"


@pytest.mark.parametrize("text", ["", "https://x.com", "x.com:443", "x.com/a", "*.x.com", "a b", "x..com", "-x.com"])
def test_what_is_no_host_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a host name"):
        normalized_host(text)
