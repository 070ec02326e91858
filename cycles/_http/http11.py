"""HTTP/1.1 on one connection, without I/O: the bytes to write, and the reply in the bytes that were read.

The plain case is read by `quick_http`. h11, a dependency of httpx, has the state machine for all others; it is loaded
when it is first needed, because that takes longer than a call. The sockets are in the blocking and the asyncio
connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from cycles._core.messages.outcome import Reply
from cycles._core.values.secret import Secret
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind, decoded, too_large
from cycles._http.first_use import first_use
from cycles._http.quick_http import MAX_HEAD, Head, header_line, is_target, read_head

if TYPE_CHECKING:
    import h11


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
        self._request: tuple[str, bytes, Sequence[tuple[bytes, bytes]], bytes] | None = None
        self._common: Sequence[tuple[bytes, bytes]] | None = None
        self._common_lines = b""
        self._head: h11.Response | None = None
        self._body: list[bytes] = []
        self._size = 0

    def request(self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes:
        """Return the whole request as bytes; Host and Content-Length are added here."""
        try:
            path = self._endpoint.prefix + target.encode("ascii")
        except UnicodeEncodeError as error:
            raise _not_http(error) from error
        self._request = method, path, headers, body
        if not is_target(path) or (last := self._last_line(headers)) is None:
            return Secret(self._start_h11(request_sent=False))
        length = b"Content-Length: %d\r\n\r\n" % len(body) if body or method == "POST" else b"\r\n"
        request = method.encode(), b" ", path, b" HTTP/1.1\r\n", self._common_lines, last, length, body
        return Secret(b"".join(request))  # it contains the API key

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
        method, path, headers, body = self._request
        lines = [(b"Host", self._endpoint.authority), *headers]
        if body or method == "POST":
            lines.append((b"Content-Length", b"%d" % len(body)))
        self._connection = connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        try:
            head = connection.send(h11.Request(method=method, target=path, headers=lines)) or b""
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
