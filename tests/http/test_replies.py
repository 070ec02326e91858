"""The result of any bytes that a server sends: a reply with raw bytes, or an ExchangeError that says what happened."""

from __future__ import annotations

import contextlib
import gzip
import socket
import time
import zlib
from collections.abc import Callable

import pytest

from cycles._http.exchange import MAX_BODY, ExchangeError, FailureKind
from tests.http.connections import Open
from tests.support.stub import Stub, drip, hang_up, ok, ok_then_hang_up, raw, reply, reset, stall

SHORT_S = 0.4
LATE_S = 60.0  # far more than a deadline of SHORT_S; without one it would be 90 s, or for ever


def failure(connect: Open, stub: Stub, **how: object) -> ExchangeError:
    with pytest.raises(ExchangeError) as caught:
        connect(stub.url)(**how)  # type: ignore[arg-type]
    return caught.value


def test_a_request_arrives_unchanged_and_its_response_is_returned(connect: Open) -> None:
    with Stub(ok({"a": 1}, headers=[("X-Request-Id", "r1"), ("X-Request-Id", "r2")])) as stub:
        before = time.monotonic()
        answer = connect(stub.url)("POST", "/v1/reservations/a%2Fb/commit?x=1", b'{"n":1}')
        after = time.monotonic()
    (request,) = stub.requests
    assert (request.method, request.target) == ("POST", "/v1/reservations/a%2Fb/commit?x=1")
    assert request.body == b'{"n":1}'
    assert request.headers["x-cycles-api-key"] == "cyc_live_secret"
    assert request.headers["content-length"] == "7"
    assert request.headers["host"] == f"127.0.0.1:{stub.port}"
    assert (answer.status, answer.body) == (200, b'{"a": 1}')
    assert (answer.header("x-REQUEST-id"), answer.header("absent")) == ("r1", None)
    assert before <= answer.sent <= answer.received <= after


def test_a_get_has_no_body(connect: Open) -> None:
    with Stub() as stub:
        connect(stub.url)("GET", "/v1/balances?tenant=acme", b"")
    assert stub.requests[0].method == "GET"
    assert "content-length" not in stub.requests[0].headers


def test_the_path_of_the_base_url_comes_before_the_target(connect: Open) -> None:
    with Stub() as stub:
        connect(stub.url + "/gateway/cycles/")("GET", "/v1/balances", b"")
    assert stub.requests[0].target == "/gateway/cycles/v1/balances"


def test_an_ipv6_address_is_an_address(connect: Open) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with Stub(host="::1") as stub:
        assert connect(stub.url)().status == 200
    assert stub.requests[0].headers["host"] == f"[::1]:{stub.port}"


@pytest.mark.parametrize("status", [200, 204, 304, 404, 429, 500, 520, 529, 599, 799])
def test_any_status_is_a_reply(connect: Open, status: int) -> None:
    with Stub(ok(b"" if status in (204, 304) else b"<html>", status)) as stub:
        assert connect(stub.url)().status == status


def test_informational_responses_come_before_the_response(connect: Open) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + b"HTTP/1.1 100 Continue\r\n\r\n"
    with Stub(raw(early + reply(b"last"))) as stub:
        assert connect(stub.url)().body == b"last"


def test_a_redirect_is_a_reply_and_nothing_goes_where_it_points(connect: Open) -> None:
    with Stub() as elsewhere, Stub(ok(b"", 307, [("Location", elsewhere.url)])) as stub:
        assert connect(stub.url)().status == 307
    assert elsewhere.connections == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ],
    ids=["chunked", "until the end", "http/1.0"],
)
def test_a_body_may_be_framed_in_any_way(connect: Open, answer: bytes) -> None:
    with Stub(raw(answer)) as stub:
        assert connect(stub.url)().body == b"hello"


@pytest.mark.parametrize(
    ("coding", "code"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_compressed_response_is_unpacked(connect: Open, coding: str, code: Callable[[bytes], bytes]) -> None:
    with Stub(ok(code(b"hello"), headers=[("Content-Encoding", coding)])) as stub:
        assert connect(stub.url)().body == b"hello"


@pytest.mark.parametrize("coded", [b"not gzip at all", gzip.compress(b"hello" * 100)[:-9]], ids=["damaged", "cut"])
def test_a_damaged_compression_is_a_broken_response(connect: Open, coded: bytes) -> None:
    with Stub(ok(coded, headers=[("Content-Encoding", "gzip")])) as stub:
        error = failure(connect, stub)
    assert (error.kind, error.request_sent) == (FailureKind.BROKEN, True)


def test_an_endless_body_is_given_up(connect: Open) -> None:
    with Stub(raw(b"HTTP/1.1 502 Bad\r\nContent-Length: 100000000\r\n\r\n" + b"<" * (MAX_BODY + 200_000))) as stub:
        error = failure(connect, stub)
    assert (error.kind, error.request_sent) == (FailureKind.TOO_LARGE, True)


def test_the_bodies_of_one_connection_are_limited_one_by_one(connect: Open) -> None:
    body = b"<" * (MAX_BODY // 2 + 1)
    with Stub(ok(body, status=502)) as stub:
        send = connect(stub.url)
        assert [len(send().body) for _ in range(3)] == [len(body)] * 3
        assert [request.connection for request in stub.requests] == [1, 1, 1]


def test_a_compression_bomb_is_given_up(connect: Open) -> None:
    bomb = gzip.compress(bytes(MAX_BODY + 1))
    with Stub(ok(bomb, headers=[("Content-Encoding", "gzip")])) as stub:
        assert failure(connect, stub).kind is FailureKind.TOO_LARGE


@pytest.mark.parametrize(
    "answer",
    [
        hang_up(),
        reset(),
        reset(b"HTTP/1.1 200 OK\r\nContent-Le"),
        raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
        raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        raw(b"HTTP/1.1 20\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000),
    ],
    ids=["hang up", "reset", "reset inside", "not http", "short", "bad chunk", "two lengths", "101", "20", "huge head"],
)
def test_what_is_no_http_response_is_broken(connect: Open, kind: str, answer: object) -> None:
    with Stub(answer) as stub:  # type: ignore[arg-type]
        error = failure(connect, stub)
    assert (error.kind, error.request_sent) == (FailureKind.BROKEN, True)
    assert len(stub.requests) == 1


def test_a_closed_port_is_a_connection_that_was_never_had(connect: Open) -> None:
    with Stub() as stub:
        pass
    error = failure(connect, stub)
    assert (error.kind, error.request_sent) == (FailureKind.CONNECT, False)
    assert stub.url in str(error)
    assert isinstance(error.__cause__, Exception)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 64 + ".example"])
def test_a_name_without_an_address_is_a_connection_that_was_never_had(connect: Open, host: str) -> None:
    with pytest.raises(ExchangeError) as caught:
        connect(f"http://{host}")()
    assert not caught.value.request_sent


@pytest.mark.parametrize("header", [(b"X-Key", b"a\r\nb: c"), (b"X Key", b"a"), (b"X-Key", b"a\x00")])
def test_a_request_that_is_not_http_is_rejected_before_it_is_sent(kind: str, connect: Open, header: object) -> None:
    with Stub() as stub:
        with pytest.raises(ExchangeError) as caught:
            connect(stub.url)(headers=[header])
        assert (caught.value.kind, caught.value.request_sent) == (FailureKind.INVALID, False)
    assert stub.requests == []


def test_a_target_that_is_not_ascii_is_rejected(connect: Open, kind: str) -> None:
    if kind.startswith("httpx"):
        pytest.skip("httpx quotes it")
    with Stub() as stub:
        assert failure(connect, stub, target="/v1/é").kind is FailureKind.INVALID


@pytest.mark.parametrize(
    "answer",
    [
        stall(),
        stall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal"),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + b"x" * 900, 0.1),
    ],
    ids=["nothing", "half", "drips"],
)
def test_one_deadline_bounds_the_whole_attempt(connect: Open, answer: object) -> None:
    with Stub(ok(), answer) as stub:  # type: ignore[arg-type]
        send = connect(stub.url)
        send()  # connects, which may take longer than the deadline on a busy machine
        started = time.monotonic()
        with pytest.raises(ExchangeError) as caught:
            send(timeout_s=SHORT_S)
        took = time.monotonic() - started
    assert (caught.value.kind, caught.value.request_sent) == (FailureKind.TIMEOUT, True)
    assert SHORT_S - 0.01 <= took < LATE_S


def test_headers_that_drip_are_bounded_too(connect: Open) -> None:
    with Stub(ok(), drip(b"HTTP/1.1 200 OK\r\nX-Drip: " + b"x" * 900, 0.1)) as stub:
        send = connect(stub.url)
        send()
        started = time.monotonic()
        with pytest.raises(ExchangeError) as caught:
            send(timeout_s=SHORT_S)
        assert caught.value.kind is FailureKind.TIMEOUT
        assert time.monotonic() - started < LATE_S


def test_a_connection_is_used_again(connect: Open) -> None:
    with Stub() as stub:
        send = connect(stub.url)
        for _ in range(3):
            send()
        assert [request.connection for request in stub.requests] == [1, 1, 1]


@pytest.mark.parametrize(
    "answer",
    [
        raw(reply(b"x", headers=[("Connection", "close")])),
        raw(b"HTTP/1.1 200 OK\r\n\r\nuntil the end"),
        stall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal"),
    ],
    ids=["says close", "until the end", "unfinished"],
)
def test_a_connection_that_is_spent_is_not_used_again(connect: Open, answer: object) -> None:
    with Stub(ok(), answer, ok(b"fresh")) as stub:  # type: ignore[arg-type]
        send = connect(stub.url)
        send()
        with contextlib.suppress(ExchangeError):
            send(timeout_s=SHORT_S)
        assert send().body == b"fresh"
        assert [request.connection for request in stub.requests] == [1, 1, 2]


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_bytes_without_a_request_are_no_response(connect: Open) -> None:
    with Stub(raw(reply(b"mine") + reply(b"stray"), keep=True), ok(b"also mine")) as stub:
        send = connect(stub.url)
        assert send().body == b"mine"
        assert send().body == b"also mine"
        assert [request.connection for request in stub.requests] == [1, 2]


def test_a_server_that_hung_up_while_idle_is_not_noticed_by_the_next_call(connect: Open) -> None:
    with Stub(ok_then_hang_up(b"one"), ok(b"two")) as stub:
        send = connect(stub.url)
        assert send().body == b"one"
        stub.wait_for(lambda stub: stub.open == 0)
        assert send().body == b"two"
        assert [request.body for request in stub.requests] == [b"{}", b"{}"]
