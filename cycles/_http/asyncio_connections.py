"""HTTP exchanges on an asyncio event loop. One timer bounds a whole attempt, and times are taken when the bytes
are read, so a busy loop does not count as a slow server.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from typing import cast

from cycles._http.connection_pool import KEEPALIVE_S, ConnectionPool, Slot, is_readable
from cycles._http.exchange import MAX_BODY, Endpoint, ExchangeError, Reply, broken, closed, not_connected, timed_out
from cycles._http.http11 import Http11


class _Connection(asyncio.Protocol):
    """One connection; it knows when its peer hangs up without being asked."""

    def __init__(self, http: Http11) -> None:
        self.http = http
        self.idle_since = 0.0
        self.is_open = False
        self._answer: asyncio.Future[Reply] | None = None
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._descriptor: int = transport.get_extra_info("socket").fileno()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_open = True

    def ask(self, request: bytes) -> asyncio.Future[Reply]:
        """Writes a request; the future is its reply, or the ExchangeError it ended with."""
        self._answer = asyncio.get_running_loop().create_future()
        self._sent = time.monotonic()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nothing was asked: not an answer anybody should get
            self.close()
            return
        try:
            if self.http.feed(data):
                self._settle(self.http.reply(self._sent, time.monotonic()))
        except ExchangeError as error:
            self._settle(error)

    def eof_received(self) -> None:
        self.is_open = False
        if self._answer is not None:
            self.data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._settle(broken(exc, request_sent=True))
        self._gone.set_result(None)

    def expire(self) -> None:
        """The deadline of the exchange has passed."""
        self._settle(timed_out("waiting for the answer", request_sent=True))

    def _settle(self, outcome: Reply | ExchangeError) -> None:
        answer, self._answer = self._answer, None
        if answer is None or answer.done():
            return
        if isinstance(outcome, ExchangeError):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)

    def is_alive(self, now: float) -> bool:
        if not self.is_open or now - self.idle_since >= KEEPALIVE_S:
            return False
        # The loop may have been held up, and the end of the connection not have been noticed yet.
        return not is_readable(self._descriptor)

    def next_exchange(self) -> bool:
        return self.is_open and not self._transport.get_write_buffer_size() and self.http.next_exchange()

    def close(self) -> None:
        self.is_open = False
        with contextlib.suppress(RuntimeError):  # its loop is closed already, without having been wound up
            self._transport.abort()

    async def gone(self) -> None:
        """Returns once the socket is closed."""
        await asyncio.shield(self._gone)


class _Waiter:
    """A task in the queue for a seat."""

    __slots__ = ("seat",)

    def __init__(self) -> None:
        self.seat: asyncio.Future[Slot[_Connection] | None] = asyncio.get_running_loop().create_future()

    def give(self, seat: Slot[_Connection] | None) -> bool:
        if self.seat.done():
            return False
        self.seat.set_result(seat)
        return True


class AsyncConnections:
    """Sends exchanges to one server over at most `max_connections` connections, on the event loop that first uses it.

    It closes itself when that loop is wound up (as `asyncio.run` does), so nobody has to be told that the loop ended.
    A forked child makes its own instance and lets the inherited one be: its sockets belong to the parent's loop.
    """

    def __init__(
        self, endpoint: Endpoint, *, connect_timeout_s: float, max_connections: int, max_body: int = MAX_BODY
    ) -> None:
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._max_body = max_body
        self._stack: ConnectionPool[_Connection] = ConnectionPool(max_connections)
        self._loop_end: AsyncGenerator[None, None] | None = None

    async def send(
        self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes, timeout_s: float
    ) -> Reply:
        """One exchange within `timeout_s` seconds, the wait for a connection included; else ExchangeError.

        `target` is the quoted path with its query; the path of `base_url` is put before it.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        seat = await self._take(deadline)
        try:
            line = seat.line
            if line is None or not line.is_alive(time.monotonic()):
                line = await self._open(seat, deadline)
            request = line.http.request(method, target, headers, body)
            timer = loop.call_at(deadline, line.expire)
            try:
                reply = await line.ask(request)
            finally:
                timer.cancel()
            if not line.next_exchange():
                self._drop(seat)
        except BaseException:
            self._drop(seat)
            raise
        finally:
            self._put(seat)
        return reply

    async def aclose(self) -> None:
        """Closes what is idle; exchanges under way end as they would have."""
        if self._loop_end is not None and not self._stack.closed:
            await self._loop_end.aclose()
        else:
            await self._close()

    async def _close(self) -> None:
        lines = self._stack.close()
        for line in lines:
            line.close()
        for line in lines:
            await line.gone()

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        """An event loop that is wound up closes the generators it has seen: the one notice of its end it gives."""
        try:
            yield
        finally:
            await self._close()

    async def _take(self, deadline: float) -> Slot[_Connection]:
        if self._stack.closed:
            raise closed()
        seat = self._stack.take()
        if seat is not None:
            return seat
        turn = _Waiter()
        self._stack.join(turn)
        try:
            async with asyncio.timeout_at(deadline):
                seat = await turn.seat
        except TimeoutError as error:
            self._withdraw(turn)
            raise timed_out("waiting for a free connection", request_sent=False) from error
        except BaseException:
            self._withdraw(turn)
            raise
        if seat is None:
            raise closed()
        return seat

    def _withdraw(self, turn: _Waiter) -> None:
        """Out of the queue; a seat that came in the last moment goes to the next in it."""
        self._stack.leave(turn)
        if not turn.seat.cancelled() and turn.seat.done():
            seat = turn.seat.result()
            if seat is not None:
                self._put(seat)

    def _put(self, seat: Slot[_Connection]) -> None:
        now = time.monotonic()
        if seat.line is not None:
            seat.line.idle_since = now
        self._stack.put(seat)
        for line in self._stack.close() if self._stack.closed else self._stack.expired(now - KEEPALIVE_S):
            line.close()

    @staticmethod
    def _drop(seat: Slot[_Connection]) -> None:
        if seat.line is not None:
            seat.line.close()
            seat.line = None

    async def _open(self, seat: Slot[_Connection], deadline: float) -> _Connection:
        self._drop(seat)
        if self._loop_end is None:
            self._loop_end = self._until_the_loop_ends()
            await anext(self._loop_end)
        endpoint, loop = self._endpoint, asyncio.get_running_loop()
        tls = endpoint.tls
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + self._connect_timeout_s)):
                _, seat.line = await loop.create_connection(
                    lambda: _Connection(Http11(endpoint, self._max_body)),
                    endpoint.host,
                    endpoint.port,
                    ssl=tls,
                    server_hostname=endpoint.host if tls else None,
                )
        except (OSError, ValueError) as error:
            raise not_connected(endpoint, error) from error
        return seat.line
