"""The quick path of HTTP/1.1 reads every response as h11 does, and sends the same bytes."""

from __future__ import annotations

import random
import sys
from typing import Any

import h11
import pytest

from cycles._core.messages.requests import Prepared
from cycles._http import http11
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind
from cycles._http.http11 import MAX_BODY, Http11, _header, header_line, is_target, read_head
from tests.support.short import fewer

ENDPOINT = Endpoint("http://cycles.example.com:7878/base")
HEADERS = [(b"X-Cycles-API-Key", b"k"), (b"Content-Type", b"application/json"), (b"Idempotency-Key", b"a-b")]
PLAIN = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: 14\r\n"
    b"content-type: application/json\r\nX-Request-Id: abc\r\n\r\n" + b'{"a": [1, 2]}\n'
)
PIECES = (
    b"\r\n", b"\n", b" ", b"\t", b":", b"\0", b"\xff", b"0", b"9", b"HTTP/1.0", b"100 Continue", b"204", b"201", b"409",
    b"Transfer-Encoding: chunked\r\n", b"Content-Length: 14\r\n", b"Content-Length: 5\r\n", b"Connection: close\r\n",
    b"Content-Encoding: gzip\r\n", b"Upgrade: h2c\r\n", b"trailing", b"X: \xe4\r\n", b"X:\r\n", b" folded\r\n",
)  # fmt: skip


class Never(Http11):
    """The same connection without the quick path."""

    def _feed_quickly(self, data: bytes) -> bool | None:
        self._read += data
        return None


def outcome(kind: type[Http11], response: bytes, cuts: list[int]) -> Any:
    """Return what a connection makes of a response that arrives in parts and then ends."""
    http = kind(ENDPOINT, 1_000_000)
    http.request(Prepared("POST", "/v1/reservations", HEADERS, b"{}"))
    parts = [response[start:end] for start, end in zip([0, *cuts], [*cuts, len(response)], strict=True)]
    try:
        for number, part in enumerate([*filter(None, parts), b""]):
            if http.feed(part):
                reply = http.reply(0.0, 0.0)
                rest = number
                return reply.status, reply.headers, reply.body, http.next_exchange(), rest
    except ExchangeError as error:
        return error.kind, error.request_sent
    return "incomplete"


def mutated(dice: random.Random) -> bytes:
    response = bytearray(PLAIN)
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3))):
        at = dice.randrange(len(response) + 1)
        kind = dice.randrange(4)
        if kind == 0:
            response[at:at] = dice.choice(PIECES)
        elif kind == 1:
            del response[at : at + dice.choice((1, 1, 2, 5, 20))]
        elif kind == 2 and at < len(response):
            response[at] = dice.randrange(256)
        else:
            starts = [index + 2 for index in range(len(response) - 2) if response[index : index + 2] == b"\r\n"]
            at = dice.choice(starts or [0])
            response[at:at] = dice.choice(PIECES)
    return bytes(response)


def test_mutated_responses_are_read_as_h11_reads_them() -> None:
    dice, quick = random.Random(18), 0
    for _ in range(fewer(6_000)):
        response = mutated(dice)
        cuts = sorted(dice.sample(range(len(response)), k=dice.choice((0, 0, 1, 2)))) if len(response) > 2 else []
        mine, theirs = outcome(Http11, response, cuts), outcome(Never, response, cuts)
        assert mine == theirs, (response, cuts)
        quick += b"\r\n\r\n" in response and read_head(response, 1_000_000) is not None
    assert quick > fewer(1_000), "too few of them take the quick path"


def test_a_plain_exchange_makes_no_h11_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h11, "Connection", None)
    http = Http11(ENDPOINT, 1_000)
    for _ in range(3):
        http.request(Prepared("POST", "/v1/events", HEADERS, b"{}"))
        assert http.feed(PLAIN)
        assert http.reply(1.0, 2.0).body == b'{"a": [1, 2]}\n'
        assert http.next_exchange()


def test_without_h11_what_is_not_plain_fails_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http11, "_h11", http11._h11.__wrapped__)
    monkeypatch.setitem(sys.modules, "h11", None)  # importing it raises ImportError
    http = Http11(ENDPOINT, 1_000)
    with pytest.raises(ExchangeError, match="h11 cannot be loaded: import of h11 halted") as unsent:
        http.request(Prepared("POST", "/v1/events", [(b"X", b"\xe4"), *HEADERS], b"{}"))
    assert not unsent.value.request_sent
    http.request(Prepared("POST", "/v1/events", HEADERS, b"{}"))
    with pytest.raises(ExchangeError, match="h11 cannot be loaded") as unread:
        http.feed(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
    assert unread.value.request_sent


def test_the_bytes_of_a_request_are_those_of_h11() -> None:
    for method, body in (("POST", b'{"a": 1}'), ("POST", b""), ("GET", b"")):
        quick = Http11(ENDPOINT, 1_000)
        sent = quick.request(Prepared(method, "/v1/reservations?limit=1", HEADERS, body))
        assert sent == quick._start_h11(request_sent=False)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://cycles.example:443/p", b"cycles.example"),
        ("http://cycles.example", b"cycles.example"),
        ("http://cycles.example:443", b"cycles.example:443"),
        ("http://[::1]", b"[::1]"),
        ("https://[::1]:8443", b"[::1]:8443"),
    ],
)
def test_the_host_has_the_port_unless_it_is_that_of_the_scheme(url: str, host: bytes) -> None:
    sent = Http11(Endpoint(url), 1_000).request(Prepared("GET", "/v1/balances", HEADERS, b""))
    assert b"\r\nHost: %b\r\n" % host in sent


def test_one_connection_sends_each_request_with_its_own_headers() -> None:
    trace, other = (b"traceparent", b"00-1"), (b"traceparent", b"00-2")
    connection = Http11(ENDPOINT, 1_000)
    for headers in ([*HEADERS, trace], [*HEADERS, other], [trace], [], HEADERS[1:], [*HEADERS[:1], trace], [*HEADERS]):
        fresh = Http11(ENDPOINT, 1_000)
        fresh.request(Prepared("POST", "/v1/events", headers, b"{}"))
        assert connection.request(Prepared("POST", "/v1/events", headers, b"{}")) == fresh._start_h11(
            request_sent=False
        )
        assert connection.next_exchange()


def test_a_header_that_h11_checks_is_sent_with_each_request() -> None:
    checked, plain = [(b"X", b"caf\xe9"), *HEADERS], [*HEADERS, (b"traceparent", b"00-1")]
    assert header_line(checked[0]) is None
    connection = Http11(ENDPOINT, 1_000)
    for headers in (plain, checked, checked, plain, plain[::-1], checked[::-1], checked[::-1]):
        request = Prepared("POST", "/v1/events", headers, b"{}")
        assert connection.request(request) == Http11(ENDPOINT, 1_000).request(request)
        assert connection.feed(PLAIN)
        assert connection.reply(0.0, 0.0).status == 200
        assert connection.next_exchange()


def test_a_request_that_cannot_be_sent_changes_no_later_one() -> None:
    connection = Http11(ENDPOINT, 1_000)
    for headers in ([(b"X", b"a\r\nY: b"), *HEADERS], [*HEADERS, (b"X", b"a\r\nY: b")]):
        with pytest.raises(ExchangeError, match="can't be sent as HTTP"):
            connection.request(Prepared("GET", "/", headers, b""))
        connection.next_exchange()
        fresh = Http11(ENDPOINT, 1_000)
        assert connection.request(Prepared("GET", "/", HEADERS, b"")) == fresh.request(
            Prepared("GET", "/", HEADERS, b"")
        )


def test_the_header_lines_of_a_server_are_read_once() -> None:
    read_head(PLAIN, 1_000)
    before = _header.cache_info()
    for number in range(1_000):
        assert read_head(PLAIN.replace(b"abc", b"%d" % number), 1_000) is not None
    after = _header.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1_000, 4_000)


def test_h11_reads_a_head_that_is_large() -> None:
    long = PLAIN.replace(b"abc", b"a" * 5_000)
    assert read_head(long, 1_000) is None
    assert outcome(Http11, long, []) == outcome(Never, long, [])


@pytest.mark.parametrize(
    ("target", "headers"),
    [(b"/a b", HEADERS), (b"/a\r\nX: y", HEADERS), (b"/", [(b"X", b"a\r\nY: b")]), (b"/", [(b"X Y", b"a")])],
)
def test_h11_checks_a_request_that_is_not_plain(target: bytes, headers: Any) -> None:
    assert not is_target(target) or None in map(header_line, headers)
    with pytest.raises(ExchangeError, match="can't be sent as HTTP"):
        Http11(ENDPOINT, 1_000).request(Prepared("GET", target.decode(), headers, b""))


def test_h11_reads_a_body_that_is_large() -> None:
    body = b"x" * (MAX_BODY + 1)
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    assert read_head(response, 10**9) is None
    assert outcome(Http11, response, [100_000, 200_000])[2] == body


def response(*headers: bytes, body: bytes = b"", start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([start, *headers, b"", body])


LENGTH, CHUNKED = b"Content-Length: 2", b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("received", "status", "is_kept"),
    [
        (response(LENGTH, body=b"{}"), 200, True),
        (response(CHUNKED, body=b"2\r\n{}\r\n0\r\n\r\n"), 200, True),
        (response(CHUNKED, body=b"2\r\n{}\r\n0\r\n\r\nx"), 200, False),
        (response(LENGTH, b"Connection: close", body=b"{}"), 200, False),
        (response(LENGTH, start=b"HTTP/1.0 200 OK", body=b"{}"), 200, False),
        (response(LENGTH, start=b"HTTP/1.1 500 Oh", body=b"{}"), 500, True),
        (response(LENGTH, start=b"HTTP/1.1 500 Oh", body=b"{}x"), 500, False),
        (b"HTTP/1.1 103 Early\r\n\r\n" + response(CHUNKED, body=b"2\r\n{}\r\n0\r\n\r\n"), 200, True),
    ],
)
@pytest.mark.parametrize("is_split", [False, True])
def test_a_connection_is_kept_if_nothing_follows_its_response(
    received: bytes, status: int, is_kept: bool, is_split: bool
) -> None:
    http = Http11(ENDPOINT, 1_000)
    http.request(Prepared("POST", "/v1/events", HEADERS, b"{}"))
    parts = [received[:30], received[30:]] if is_split else [received]
    assert [http.feed(part) for part in parts] == [False, True][-len(parts) :]
    reply = http.reply(1.0, 2.0)
    assert (reply.status, reply.body, reply.sent, reply.received) == (status, b"{}", 1.0, 2.0)
    assert http.next_exchange() is is_kept


@pytest.mark.parametrize("frame", [b"length", b"chunked", b"until the end"])
@pytest.mark.parametrize(("size", "is_read"), [(9, True), (10, True), (11, False)])
def test_a_body_may_have_its_largest_size(frame: bytes, size: int, is_read: bool) -> None:
    body = b"x" * size
    received = {
        b"length": response(b"Content-Length: %d" % size, body=body),
        b"chunked": response(CHUNKED, body=b"1\r\nx\r\n%x\r\n%b\r\n0\r\n\r\n" % (size - 1, body[1:])),
        b"until the end": response(body=body),
    }[frame]
    http, found = Http11(ENDPOINT, 10), list[object]()
    for _ in range(2):  # the second one has the whole limit again
        http.request(Prepared("POST", "/v1/events", HEADERS, b"{}"))
        try:
            found.append(http.feed(received) or http.feed(b""))
            found.append(http.reply(1.0, 2.0).body)
            http.next_exchange()
        except ExchangeError as error:
            found += [(error.kind, error.request_sent), str(error)]
            http = Http11(ENDPOINT, 10)
    too_large = [(FailureKind.TOO_LARGE, True), "the response is larger than 10 bytes"]
    assert found == ([True, body] if is_read else too_large) * 2


@pytest.mark.parametrize(
    ("received", "says"),
    [
        (b"", "the server closed the connection without a response"),
        (response(LENGTH, body=b"{"), "the response is not valid HTTP (peer closed connection without sending complete "
         "message body (received 1 bytes, expected 2))"),
        (response(CHUNKED, body=b"2\r\n{"), "the response is not valid HTTP (peer closed connection without sending "
         "complete message body (incomplete chunked read))"),
        (response(body=b"")[:-2], "the server closed the connection without a response"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "the response is not valid HTTP (illegal status line"),
        (b"HTTP/1.1 103 Early\r\n\r\n", "the server closed the connection without a response"),
    ],
)  # fmt: skip
def test_a_response_that_is_none_is_broken_with_its_reason(received: bytes, says: str) -> None:
    http = Http11(ENDPOINT, 1_000)
    http.request(Prepared("POST", "/v1/events", HEADERS, b"{}"))
    with pytest.raises(ExchangeError) as raised:
        http.feed(received)
        http.feed(b"")
    assert (raised.value.kind, raised.value.request_sent) == (FailureKind.BROKEN, True)
    assert str(raised.value).startswith(says)


@pytest.mark.parametrize(
    ("size", "limit", "is_quick"),
    [
        (MAX_BODY, 2 * MAX_BODY, True),
        (MAX_BODY + 1, 2 * MAX_BODY, False),
        (5, 5, True),
        (6, 5, False),
        (0, 5, True),
    ],
)
def test_the_quick_path_reads_a_body_up_to_its_limits(size: int, limit: int, is_quick: bool) -> None:
    head = read_head(response(b"Content-Length: %d" % size), limit)
    assert (head is not None) is is_quick
    if head is not None:
        assert head.end - head.start == size


@pytest.mark.parametrize(
    ("more", "is_quick"),
    [
        ((), False),
        ((b"Content-Length: 2",), True),
        ((b"Content-Length: 2", b"content-length: 2"), False),
        ((b"Content-Length: 2", b"X: a", b"x: b"), True),
        ((b"Content-Length: +2",), False),
        ((b"Content-Length: 0000000002",), False),
        ((b"Content-Length: 000000002",), True),
        ((b"Content-Length: 2", b"Upgrade: x"), False),
        ((b"Content-Length: 2", b"TRAILER: x"), False),
        ((b"Content-Length: 2", b"Proxy-Connection: x"), False),
        ((b"Content-Length: 2", b"X:"), True),
        ((b"Content-Length: 2", b"X y: 1"), False),
    ],
)
def test_the_quick_path_reads_a_head_whose_headers_change_nothing(more: tuple[bytes, ...], is_quick: bool) -> None:
    head = read_head(response(*more, body=b"{}"), 1_000)
    assert (head is not None) is is_quick


def test_the_quick_path_finds_the_first_of_two_headers() -> None:
    head = read_head(response(b"Content-Length: 0", b"X-Request-Id: a", b"x-request-id: b"), 1_000)
    assert head is not None
    assert head.headers == ((b"content-length", b"0"), (b"x-request-id", b"a"), (b"x-request-id", b"b"))
    assert head.found[b"x-request-id"] == b"a"
