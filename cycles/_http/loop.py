"""HTTP exchanges on an asyncio event loop. One deadline bounds a whole attempt, and times are taken when the
bytes are read, so a busy loop does not count as a slow server.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator
from functools import partial
from queue import Empty
from typing import Any, cast

from cycles._core.messages.outcome import Reply
from cycles._core.messages.requests import Prepared
from cycles._http.connection_pool import KEEPALIVE_S, Connections, Held, Slot, readable
from cycles._http.deadlines import Deadlines
from cycles._http.exchange import (
    Endpoint,
    ExchangeError,
    Limits,
    broken,
    closed,
    no_free_connection,
    not_connected,
    timed_out,
)
from cycles._http.http11 import Http11
from cycles._http.resolver import Address, Lookup
from cycles._http.running_loop import set_once, wake


class _Connection(asyncio.Protocol):
    """One connection; the loop reports when its peer closes it."""

    def __init__(self, http: Http11) -> None:
        self.http = http
        self.idle_since = 0.0
        self.is_open = False
        self._response: asyncio.Future[Reply] | None = None
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._is_readable = readable(transport.get_extra_info("socket").fileno())
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_open = True

    def request(self, request: bytes) -> asyncio.Future[Reply]:
        """Write a request; the future is its reply, or the ExchangeError it ended with."""
        self._response = asyncio.get_running_loop().create_future()
        self._sent = time.monotonic()
        self._transport.write(request)
        return self._response

    def data_received(self, data: bytes) -> None:
        if self._response is None:  # a response without a request: no caller may get it
            self.close()
            return
        try:
            if self.http.feed(data):
                self._settle(self.http.reply(self._sent, time.monotonic()))
        except ExchangeError as error:
            self._settle(error)

    def eof_received(self) -> None:
        self.is_open = False
        if self._response is not None:
            self.data_received(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._settle(broken(exc, request_sent=True))
        self._lost.set_result(None)

    def expire(self) -> None:
        """End the exchange: its deadline has passed."""
        self._settle(timed_out("waiting for the response", request_sent=True))

    def _settle(self, outcome: Reply | ExchangeError) -> None:
        response, self._response = self._response, None
        if response is None or response.done():
            return
        if isinstance(outcome, ExchangeError):
            response.set_exception(outcome)
        else:
            response.set_result(outcome)

    def is_alive(self, now: float) -> bool:
        if not self.is_open or now - self.idle_since >= KEEPALIVE_S:
            return False
        # The loop may have been blocked, and the end of the connection not have been noticed yet.
        return not self._is_readable()

    def next_exchange(self) -> bool:
        return self.is_open and not self._transport.get_write_buffer_size() and self.http.next_exchange()

    def close(self) -> None:
        self.is_open = False
        with contextlib.suppress(RuntimeError):  # its loop is closed already, without having been shut down
            self._transport.abort()

    async def closed(self) -> None:
        """Return when the socket is closed."""
        await asyncio.shield(self._lost)


class _Waiter:
    """A task in the queue for a slot."""

    __slots__ = ("_slots", "arrived")

    def __init__(self) -> None:
        self._slots: deque[Slot[_Connection] | None] = deque()
        self.arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, slot: Slot[_Connection] | None) -> None:
        self._slots.append(slot)
        set_once(self.arrived)

    def expire(self) -> None:
        """Wake the task without a slot: it has waited long enough."""
        set_once(self.arrived)

    def get_nowait(self) -> Slot[_Connection] | None:
        if not self._slots:
            raise Empty
        return self._slots.popleft()

    def empty(self) -> bool:
        return not self._slots


class AsyncConnections(Connections[_Connection]):
    """Sends exchanges on the event loop that first uses it. It closes itself when that loop is shut down.

    A forked child never uses the inherited one: its sockets belong to the parent's loop.
    """

    def __init__(self, endpoint: Endpoint, **limits: Any) -> None:
        super().__init__(endpoint, **limits)
        self._loop_end: AsyncGenerator[None, None] | None = None
        self._exchange_ends = Deadlines()
        self._queue_ends = Deadlines()

    async def send(self, request: Prepared, limits: Limits) -> Reply:
        """As `BlockingConnections.send`."""
        loop = asyncio.get_running_loop()
        held = Held(self._pool)
        try:
            if not self._pool.take(held):
                await self._wait_for_slot(held, loop, limits)
            now = time.monotonic()
            deadline = loop.time() + min(limits.timeout_s, limits.ends_at_s - now)
            connection = held[0].connection
            if connection is None or not connection.is_alive(now):
                connection = await self._open(held[0], deadline)
            sent = connection.http.request(request)
            over = self._exchange_ends.add(loop, deadline, connection.expire)
            try:
                reply = await connection.request(sent)
            finally:
                over.cancel()
            # A connection is kept only if all of the request was taken and nothing follows the response.
            if not connection.next_exchange():
                held[0].drop()
            self._return(held, reply.received)
        except BaseException:
            held.abandon()
            if self._pool.closed:
                self._close_idle()
            raise
        return reply

    async def aclose(self) -> None:
        """Close the idle connections; exchanges in progress end as they would have."""
        if self._loop_end is not None and not self._pool.closed:
            await self._loop_end.aclose()
        else:
            await self._close()

    async def _close(self) -> None:
        for connection in self._close_idle():
            await connection.closed()

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        """Close with the loop: one that is shut down closes the generators it has seen, its only notice of its end."""
        try:
            yield
        finally:
            await self._close()

    async def _wait_for_slot(self, held: Held, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        pool = self._pool
        if pool.closed:
            raise closed()
        # Whatever ends the wait, `leave` passes a slot on that arrived and was not taken.
        waiter = _Waiter()
        try:
            pool.join(waiter)
            ends_at = loop.time() + min(limits.queue_timeout_s, limits.ends_at_s - time.monotonic())
            over = self._queue_ends.add(loop, ends_at, waiter.expire)
            try:
                await waiter.arrived
            finally:
                over.cancel()
            slot = waiter.get_nowait()
            if slot is None:
                raise closed()
            held.append(slot)
        except Empty:
            raise no_free_connection(limits.queue_timeout_s) from None
        finally:
            pool.leave(waiter)

    async def _open(self, slot: Slot[_Connection], deadline: float) -> _Connection:
        """Connect: the addresses of the host in turn, each with its share of the time.

        Raises:
            ConfigurationError: The TLS settings of the environment cannot be used.
        """
        slot.drop()
        if self._loop_end is None:
            self._loop_end = self._until_the_loop_ends()
            await anext(self._loop_end)
        endpoint, loop = self._endpoint, asyncio.get_running_loop()
        _ = endpoint.tls  # made here, so that its errors are not those of a connection
        deadline = min(deadline, loop.time() + self._connect_timeout_s)
        failure: Exception = OSError("the name has no address")
        try:
            addresses = await self._addresses(deadline - loop.time())
        except OSError as error:
            raise not_connected(endpoint, error) from error
        # One after the other, each with its share: an address that does not respond leaves time for the next.
        for position, address in enumerate(addresses):
            now = loop.time()
            try:
                async with asyncio.timeout_at(now + (deadline - now) / (len(addresses) - position)):
                    slot.connection = await self._connect(address)
                return slot.connection
            except (OSError, ValueError) as error:
                failure = error
        raise not_connected(endpoint, failure) from failure

    async def _connect(self, address: Address) -> _Connection:
        endpoint, tls = self._endpoint, self._endpoint.tls
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(Http11(endpoint, self._max_body)),
            address[4][0],
            address[4][1],
            family=address[0],
            ssl=tls,
            server_hostname=endpoint.host if tls else None,
        )
        return connection

    async def _addresses(self, seconds: float) -> list[Address]:
        """As `Resolver.addresses`; it does not wait for the loop's executor, which the application may keep busy."""
        lookup = self._resolver.start()
        if not isinstance(lookup, Lookup):
            return lookup
        loop = asyncio.get_running_loop()
        found: asyncio.Future[None] = loop.create_future()
        lookup.when_done(partial(wake, loop, found))
        await asyncio.wait([found], timeout=self._resolver.longest_wait(seconds))
        return self._resolver.result(lookup)
