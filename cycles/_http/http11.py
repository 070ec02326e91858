"""HTTP/1.1 on one connection, without I/O: the bytes to write, and the reply in the bytes that were read.

h11, a dependency of httpx, has the state machine; the sockets are in the blocking and the asyncio connections.
"""

from __future__ import annotations

from collections.abc import Sequence

import h11

from cycles._core.secret import Secret
from cycles._http.exchange import Endpoint, ExchangeError, FailureKind, Reply, decoded, too_large

MAX_HEAD = 64 * 1024
"""Bytes of status line and headers, or of one chunk header, that are read at most."""


class Http11:
    """The protocol state of one connection: `request`, then `feed` until it returns True, then `reply`."""

    __slots__ = ("_body", "_connection", "_endpoint", "_head", "_limit", "_size")

    def __init__(self, endpoint: Endpoint, limit: int) -> None:
        self._endpoint = endpoint
        self._limit = limit
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._head: h11.Response | None = None
        self._body: list[bytes] = []
        self._size = 0

    def request(self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes:
        """Return the whole request as bytes; Host and Content-Length are added here."""
        lines = [(b"Host", self._endpoint.authority), *headers]
        if body or method == "POST":
            lines.append((b"Content-Length", b"%d" % len(body)))
        send = self._connection.send
        try:
            path = self._endpoint.prefix + target.encode("ascii")
            head = send(h11.Request(method=method, target=path, headers=lines)) or b""
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            message = f"the request can't be sent as HTTP: {error}"
            raise ExchangeError(FailureKind.INVALID, message, request_sent=False) from error
        # The framing is ours (length, then exactly that many bytes), so h11 accepts the rest.
        rest = send(h11.Data(data=body)) if body else None
        return Secret(head + (rest or b"") + (send(h11.EndOfMessage()) or b""))  # it contains the API key

    def feed(self, data: bytes) -> bool:
        """Take what was read (`b""` for the end of the stream); True when the response is complete."""
        connection = self._connection
        if not data and connection.their_state is h11.SEND_RESPONSE:
            message = "the server closed the connection without a response"
            raise ExchangeError(FailureKind.BROKEN, message, request_sent=True)
        try:
            connection.receive_data(data)
            return self._advance(connection)
        except h11.RemoteProtocolError as error:
            message = f"the response is not valid HTTP ({error})"
            raise ExchangeError(FailureKind.BROKEN, message, request_sent=True) from error

    def _advance(self, connection: h11.Connection) -> bool:
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
        connection = self._connection
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            return False
        if connection.trailing_data[0]:  # bytes after the response belong to no request
            return False
        connection.start_next_cycle()
        return True
