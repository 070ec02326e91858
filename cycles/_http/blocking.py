"""HTTP exchanges on blocking sockets, for threads. One deadline bounds a whole attempt, with no helper thread:
every wait on the socket gets what is left of it.
"""

from __future__ import annotations

import queue
import select
import socket
import time
from typing import Any

from cycles._core.messages.outcome import Reply
from cycles._core.messages.requests import Prepared
from cycles._http.connection_pool import KEEPALIVE_S, Connections, Held, Slot, readable
from cycles._http.exchange import Limits, broken, closed, no_free_connection, not_connected, timed_out
from cycles._http.http11 import Http11

READ_SIZE = 64 * 1024
new_socket = socket.socket


class _Connection:
    """One connection.

    A plain socket does not block, and `poll` waits for what it can be read from: the timeout of a socket costs three
    system calls more for each exchange. TLS, and systems without `poll`, use that timeout.
    """

    __slots__ = ("http", "idle_since", "poll", "socket")

    def __init__(self, sock: socket.socket, http: Http11) -> None:
        self.socket = sock
        self.http = http
        self.idle_since = 0.0
        self.poll: Any = None
        if type(sock) is socket.socket and hasattr(select, "poll"):
            sock.setblocking(False)
            self.poll = select.poll()
            self.poll.register(sock, select.POLLIN)

    def is_alive(self, now: float) -> bool:
        if now - self.idle_since >= KEEPALIVE_S:
            return False
        return not (readable(self.socket.fileno())() if self.poll is None else self.poll.poll(0))

    def read(self, deadline: float) -> bytes:
        """Wait for bytes and return them; TimeoutError after the deadline."""
        if self.poll is None:
            self.socket.settimeout(_left(deadline))
            return self.socket.recv(READ_SIZE)
        while True:
            if self.poll.poll(_left(deadline) * 1000):
                try:
                    return self.socket.recv(READ_SIZE)
                except BlockingIOError:  # readable, and then not: the kernel dropped the bytes
                    continue

    def write(self, request: bytes, deadline: float) -> None:
        """Write all of it. Only if the first write to a plain socket fails is it certain that nothing was sent."""
        request_sent = type(self.socket) is not socket.socket
        try:
            if self.poll is not None:
                _left(deadline)
                try:
                    request = request[self.socket.send(request) :]
                    request_sent = True
                except BlockingIOError:
                    pass  # its buffer is full
            while request:
                self.socket.settimeout(_left(deadline))
                request = request[self.socket.send(request) :]
                request_sent = True
                if self.poll is not None:
                    self.socket.setblocking(False)
        except TimeoutError as error:
            raise timed_out("sending the request", request_sent=request_sent) from error
        except OSError as error:
            raise broken(error, request_sent=request_sent) from error

    def close(self) -> None:
        # close() alone, never shutdown() or unwrap(): after a fork, the parent's side must not notice.
        self.socket.close()


class BlockingConnections(Connections[_Connection]):
    """Sends exchanges from threads. Safe for threads and signal handlers."""

    def send(self, request: Prepared, limits: Limits) -> Reply:
        """One exchange within its limits; else ExchangeError. The path of `base_url` is put before its target."""
        held = Held(self._pool)
        try:
            self._take(held, limits)
            now = time.monotonic()
            deadline = min(now + limits.timeout_s, limits.ends_at_s)
            connection = self._connected(held[0], now, deadline)
            reply = self._exchange(connection, connection.http.request(request), deadline)
            if not connection.http.next_exchange():
                held[0].drop()
            self._return(held, reply.received)
        except BaseException:
            held.abandon()
            if self._pool.closed:
                self._close_idle()
            raise
        return reply

    def close(self) -> None:
        """Close the idle connections; exchanges in progress end as they would have."""
        self._close_idle()

    def _take(self, held: Held, limits: Limits) -> None:
        pool = self._pool
        if pool.closed:
            raise closed()
        if pool.take(held):
            return
        waiter: queue.SimpleQueue[Slot[_Connection] | None] = queue.SimpleQueue()
        try:
            pool.join(waiter)
            seconds = min(limits.queue_timeout_s, limits.ends_at_s - time.monotonic())
            held.extend(map(waiter.get, (True,), (max(0.0, seconds),)))  # type: ignore[arg-type]
        except queue.Empty:
            raise closed() if pool.closed else no_free_connection(limits.queue_timeout_s) from None
        finally:
            pool.leave(waiter)
        if held[0] is None:
            held.clear()
            raise closed()

    def _connected(self, slot: Slot[_Connection], now: float, deadline: float) -> _Connection:
        if slot.connection is not None and not slot.connection.is_alive(now):
            slot.drop()
        if slot.connection is None:
            http = Http11(self._endpoint, self._max_body)
            slot.connection = _Connection(self._connect(deadline), http)
        return slot.connection

    def _exchange(self, connection: _Connection, request: bytes, deadline: float) -> Reply:
        http = connection.http
        sent = time.monotonic()
        connection.write(request, deadline)
        try:
            while True:
                if http.feed(connection.read(deadline)):
                    return http.reply(sent, time.monotonic())
        except TimeoutError as error:
            raise timed_out("waiting for the response", request_sent=True) from error
        except OSError as error:
            raise broken(error, request_sent=True) from error

    def _connect(self, deadline: float) -> socket.socket:
        """Return a connected socket, TLS included: the addresses of the host in turn, each with its share of the time.

        Raises:
            ConfigurationError: The TLS settings of the environment cannot be used.
        """
        endpoint = self._endpoint
        _ = endpoint.tls  # made here, so that its errors are not those of a connection
        deadline = min(deadline, time.monotonic() + self._connect_timeout_s)
        failure: Exception = OSError("the name has no address")
        try:
            addresses = self._resolver.addresses(deadline - time.monotonic())
        except OSError as error:
            raise not_connected(endpoint, error) from error
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            now = time.monotonic()
            until = now + (deadline - now) / (len(addresses) - position)
            sock: socket.socket | None = None
            try:
                sock = new_socket(family, kind, protocol)
                return self._established(sock, address, until)
            except (OSError, ValueError) as error:  # EMFILE too: the process has no free file descriptor
                if sock is not None:
                    sock.close()
                failure = error
            except BaseException:
                if sock is not None:
                    sock.close()
                raise
        raise not_connected(endpoint, failure) from failure

    def _established(self, sock: socket.socket, address: tuple[object, ...], until: float) -> socket.socket:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(_left(until))
        sock.connect(address)
        context = self._endpoint.tls
        if context is None:
            return sock
        sock.settimeout(_left(until))
        return context.wrap_socket(sock, server_hostname=self._endpoint.host)


def _left(deadline: float) -> float:
    """Return the seconds until `deadline`, to wait on a socket; TimeoutError after it (0 would mean: do not wait)."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline of the attempt has passed")
    return left
