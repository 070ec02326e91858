"""HTTP/1.1 on one connection, without I/O: the bytes to write, and the reply in the bytes that were read.

The plain case is read without h11, which costs half of an exchange: strictly, by `read_head`. Such a quick response
has the status 200, 201 or 409, one Content-Length, no header that changes how it is read, and no byte after its body.
h11, a dependency of httpx, has the state machine for all others. It gets the same bytes, so both read every response
alike. It is loaded when it is first needed, because that takes longer than a call. The sockets are in the blocking and
the asyncio connections.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

from cycles._core.messages.outcome import Reply
from cycles._core.messages.requests import Prepared
from cycles._core.values.secret import Secret
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind, decoded, too_large
from cycles._http.first_use import first_use

if TYPE_CHECKING:
    import h11

MAX_HEAD: Final = 64 * 1024
"""Bytes of status line and headers, or of one chunk header, that are read at most."""

MAX_BODY: Final = 256 * 1024
"""Bytes of a body that is put together from its parts; h11 reads larger ones."""

_MAX_QUICK_HEAD: Final = 4 * 1024
_KNOWN_LINES: Final = 256
"""Most header lines that are kept. Most lines of a server are the same in all its responses."""

_STATUS: Final = re.compile(r"HTTP/1\.1 (200|201|409)(?: [\t \x21-\x7e]*)?")
_RECEIVED: Final = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x21-\x7e]+(?:[ \t]+[\x21-\x7e]+)*)?[ \t]*")
_SENT: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+: (?:[\x21-\x7e]+(?:[ \t]+[\x21-\x7e]+)*)?[ \t]*\r\n")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")
_LENGTH: Final = re.compile(rb"[0-9]{1,9}")
_OF_H11: Final = frozenset(
    (b"connection", b"transfer-encoding", b"content-encoding", b"trailer", b"upgrade", b"proxy-connection")
)


class Http11:
    """The protocol state of one connection: `request`, then `feed` until it returns True, then `reply`."""

    __slots__ = (
        "_body", "_common", "_common_lines", "_connection", "_endpoint", "_head", "_limit", "_quick", "_read",
        "_request", "_size",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, limit: int) -> None:
        self._endpoint = endpoint
        self._limit = limit
        self._connection: h11.Connection | None = None  # only while h11 reads the response
        self._quick: Head | None = None
        self._read = b""
        self._request: tuple[Prepared, bytes] | None = None  # and its whole path
        self._common: Sequence[tuple[bytes, bytes]] | None = None
        self._common_lines = b""
        self._head: h11.Response | None = None
        self._body: list[bytes] = []
        self._size = 0

    def request(self, request: Prepared) -> bytes:
        """Return the whole request as bytes; Host and Content-Length are added here."""
        try:
            path = self._endpoint.prefix + request.target.encode("ascii")
        except UnicodeEncodeError as error:
            raise _not_http(error) from error
        self._request, method, body = (request, path), request.method, request.content
        if not is_target(path) or (last := self._last_line(request.headers)) is None:
            return Secret(self._start_h11(request_sent=False))
        length = b"Content-Length: %d\r\n\r\n" % len(body) if body or method == "POST" else b"\r\n"
        parts = method.encode(), b" ", path, b" HTTP/1.1\r\n", self._common_lines, last, length, body
        return Secret(b"".join(parts))  # it contains the API key

    def _last_line(self, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
        """Return the last header as a line, with Host and the others in `_common_lines`; None if h11 checks them."""
        common = headers[:-1]  # most requests differ in the last header only, the one of the trace
        if common != self._common:
            lines = [header_line((b"Host", self._endpoint.authority)), *map(header_line, common)]
            if None in lines:
                return None
            self._common, self._common_lines = common, Secret(b"".join(filter(None, lines)))
        return header_line(headers[-1]) if headers else b""

    def _start_h11(self, *, request_sent: bool) -> bytes:
        """Let h11 make the request, and read the response from now on. Returns the bytes of the request."""
        assert self._request is not None
        try:
            h11 = _h11()
        except (ImportError, OSError, MemoryError) as error:  # the process has no free file descriptor, for example
            message = f"h11 cannot be loaded: {error}; a process needs it, memory and free file descriptors"
            raise ExchangeError(FailureKind.BROKEN, message, request_sent=request_sent) from error
        request, path = self._request
        method, body = request.method, request.content
        lines = [(b"Host", self._endpoint.authority), *request.headers]
        if body or method == "POST":
            lines.append((b"Content-Length", b"%d" % len(body)))
        self._connection = connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        try:
            head = Secret(connection.send(h11.Request(method=method, target=path, headers=lines)) or b"")
        except h11.LocalProtocolError as error:
            raise _not_http(error) from error
        # The framing is ours (length, then exactly that many bytes), so h11 accepts the rest.
        rest = connection.send(h11.Data(data=body)) if body else None
        return head + (rest or b"") + (connection.send(h11.EndOfMessage()) or b"")

    def feed(self, data: bytes) -> bool:
        """Take what was read (`b""` for the end of the stream); True when the response is complete."""
        if self._connection is not None:
            return self._feed_h11(self._connection, data)
        complete = self._feed_quickly(data) if data else None
        if complete is not None:
            return complete
        read, self._read, self._quick = self._read, b"", None
        self._start_h11(request_sent=True)
        connection = self._connection
        assert connection is not None
        if data:
            return self._feed_h11(connection, read)
        if read:
            self._feed_h11(connection, read)
        return self._feed_h11(connection, b"")

    def _feed_h11(self, connection: h11.Connection, data: bytes) -> bool:
        h11 = _h11()
        if not data and connection.their_state is h11.SEND_RESPONSE:
            message = "the server closed the connection without a response"
            raise ExchangeError(FailureKind.BROKEN, message, request_sent=True)
        try:
            connection.receive_data(data)
            return self._advance(connection)
        except h11.RemoteProtocolError as error:
            message = f"the response is not valid HTTP ({error})"
            raise ExchangeError(FailureKind.BROKEN, message, request_sent=True) from error

    def _feed_quickly(self, data: bytes) -> bool | None:
        """Take what was read; None if h11 has to read the response."""
        read = self._read = self._read + data if self._read else data
        quick = self._quick
        if quick is None:
            quick = self._quick = read_head(read, self._limit)
            if quick is None:
                if b"\n\r\n" in read or b"\n\n" in read:
                    return None
                return False if len(read) < MAX_HEAD and read.startswith(b"HTTP/1.1 "[: len(read)]) else None
        return None if len(read) > quick.end else len(read) == quick.end

    def _advance(self, connection: h11.Connection) -> bool:
        h11 = _h11()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                return False
            kind = type(event)
            if kind is h11.Data:
                self._add(bytes(event.data))  # type: ignore[union-attr]
            elif kind is h11.Response:
                self._head = event  # type: ignore[assignment]
            elif kind is h11.EndOfMessage:
                return True
            elif kind is not h11.InformationalResponse:
                raise ExchangeError(FailureKind.BROKEN, "the response is incomplete", request_sent=True)

    def _add(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            raise too_large(self._limit)
        self._body.append(data)

    def reply(self, sent: float, received: float) -> Reply:
        """Return the response, after `feed` returned True."""
        quick = self._quick
        if quick is not None:
            body = self._read[quick.start :]
            self._quick, self._read = None, b""
            return Reply(quick.status, quick.headers, body, sent, received, quick.found)
        assert self._head is not None
        head, body = self._head, b"".join(self._body)
        self._head, self._body, self._size = None, [], 0
        reply = Reply(head.status_code, tuple(head.headers), body, sent, received)
        encoding = reply.header("content-encoding")
        if encoding is None:
            return reply
        return Reply(reply.status, reply.headers, decoded(body, encoding, self._limit), sent, received)

    def next_exchange(self) -> bool:
        """Prepare for another request; False if this connection cannot carry one."""
        connection, self._connection, self._request = self._connection, None, None
        if connection is None:
            return True
        h11 = _h11()
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            return False
        return not connection.trailing_data[0]  # bytes after the response belong to no request


@cache
def _h11() -> Any:
    with first_use:  # a forked child would find the lock of an import held for ever
        import h11
    return h11


def _not_http(error: Exception) -> ExchangeError:
    return ExchangeError(FailureKind.INVALID, f"the request can't be sent as HTTP: {error}", request_sent=False)


class _NeedsH11Error(ValueError):
    """h11 has to read this response."""


class Head:
    """The head of a quick response: where the body begins and ends in the bytes that were read."""

    __slots__ = ("end", "found", "headers", "start", "status")

    def __init__(
        self, status: int, headers: tuple[tuple[bytes, bytes], ...], found: dict[bytes, bytes], start: int, end: int
    ) -> None:
        self.status = status
        self.headers = headers
        self.found = found  # the first value of each
        self.start = start
        self.end = end


def header_line(header: tuple[bytes, bytes]) -> bytes | None:
    """Return the line of a header; None if h11 has to check it."""
    name, value = header
    line = Secret(b"".join((name, b": ", value, b"\r\n")))
    return line if (_is_alphanumeric(name) and _is_alphanumeric(value)) or _SENT.fullmatch(line) else None


def is_target(target: bytes) -> bool:
    """Return whether this can be the target of a request; otherwise h11 has to check it."""
    return _is_alphanumeric(target.replace(b"/", b"")) or _TARGET.fullmatch(target) is not None


def _is_alphanumeric(text: bytes) -> bool:
    """Return whether this has only letters, digits and hyphens, which is found faster than what else is allowed."""
    return text.replace(b"-", b"").isalnum()


def read_head(data: bytes, limit: int) -> Head | None:
    """Return the head of a quick response, whose end was read; None if h11 has to read it."""
    end = data.find(b"\r\n\r\n")
    if not 0 <= end <= _MAX_QUICK_HEAD:
        return None
    try:
        first, *lines = data[:end].decode().split("\r\n")
        status, headers = _status(first), tuple(map(_header, lines))
    except ValueError:  # from one of the two functions, or not UTF-8
        return None
    found = dict(headers)
    if len(found) < len(headers):
        if sum(name == b"content-length" for name, _ in headers) > 1:
            return None
        found = dict(reversed(headers))
    length = int(found.get(b"content-length", -1))
    start = end + 4
    if length < 0 or length > min(limit, MAX_BODY) or len(data) > start + length:
        return None
    return Head(status, headers, found, start, start + length)


@lru_cache(16)
def _status(line: str) -> int:
    matched = _STATUS.fullmatch(line)
    if matched is None:
        raise _NeedsH11Error
    return int(matched[1])


@lru_cache(_KNOWN_LINES)
def _header(line: str) -> tuple[bytes, bytes]:
    """Return the name, in lower case, and the value of a header that changes nothing in how the response is read."""
    matched = _RECEIVED.fullmatch(line)
    if matched is None:
        raise _NeedsH11Error
    name, value = matched[1].lower().encode("ascii"), (matched[2] or "").encode("ascii")
    if name in _OF_H11 or (name == b"content-length" and not _LENGTH.fullmatch(value)):
        raise _NeedsH11Error
    return name, value
