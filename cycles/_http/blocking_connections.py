"""HTTP exchanges on blocking sockets, for threads. One deadline bounds a whole attempt, with no helper thread:
every wait on the socket gets what is left of it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence

from cycles._http.connection_pool import KEEPALIVE_S, ConnectionPool, Slot, is_readable
from cycles._http.exchange import MAX_BODY, Endpoint, Reply, broken, closed, not_connected, timed_out
from cycles._http.http11 import Http11

READ_SIZE = 64 * 1024


class _Connection:
    """One connection."""

    __slots__ = ("http", "idle_since", "socket")

    def __init__(self, sock: socket.socket, http: Http11) -> None:
        self.socket = sock
        self.http = http
        self.idle_since = 0.0

    def is_alive(self, now: float) -> bool:
        return now - self.idle_since < KEEPALIVE_S and not is_readable(self.socket.fileno())

    def close(self) -> None:
        # close() alone, never shutdown() or unwrap(): after a fork, the parent's side must not notice.
        self.socket.close()


class _Waiter:
    """A thread in the queue for a seat."""

    __slots__ = ("_bell", "seat")

    def __init__(self) -> None:
        self.seat: Slot[_Connection] | None = None
        self._bell = threading.Lock()
        self._bell.acquire()

    def give(self, seat: Slot[_Connection] | None) -> bool:
        self.seat = seat
        self._bell.release()
        return True

    def wait(self, seconds: float) -> None:
        self._bell.acquire(timeout=max(0.0, seconds))


class BlockingConnections:
    """Sends exchanges to one server over at most `max_connections` connections. Safe for many threads.

    A forked child makes its own instance; letting go of the inherited one disturbs nothing of the parent's.
    """

    def __init__(
        self, endpoint: Endpoint, *, connect_timeout_s: float, max_connections: int, max_body: int = MAX_BODY
    ) -> None:
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._max_body = max_body
        self._stack: ConnectionPool[_Connection] = ConnectionPool(max_connections)
        self._lock = threading.Lock()

    def send(
        self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes, timeout_s: float
    ) -> Reply:
        """One exchange within `timeout_s` seconds, the wait for a connection included; else ExchangeError.

        `target` is the quoted path with its query; the path of `base_url` is put before it.
        """
        deadline = time.monotonic() + timeout_s
        seat = self._take(deadline)
        try:
            line = self._line(seat, deadline)
            reply = self._exchange(line, line.http.request(method, target, headers, body), deadline)
            if not line.http.next_exchange():
                self._drop(seat)
        except BaseException:
            self._drop(seat)
            raise
        finally:
            self._put(seat)
        return reply

    def close(self) -> None:
        """Closes what is idle; exchanges under way end as they would have."""
        with self._lock:
            lines = self._stack.close()
        for line in lines:
            line.close()

    def _take(self, deadline: float) -> Slot[_Connection]:
        with self._lock:
            if self._stack.closed:
                raise closed()
            seat = self._stack.take()
            if seat is not None:
                return seat
            turn = _Waiter()
            self._stack.join(turn)
        try:
            turn.wait(deadline - time.monotonic())
        except BaseException:
            self._withdraw(turn)
            if turn.seat is not None:
                self._put(turn.seat)
            raise
        self._withdraw(turn)
        if turn.seat is not None:
            return turn.seat
        if self._stack.closed:
            raise closed()
        raise timed_out("waiting for a free connection", request_sent=False)

    def _withdraw(self, turn: _Waiter) -> None:
        with self._lock:
            self._stack.leave(turn)

    def _put(self, seat: Slot[_Connection]) -> None:
        now = time.monotonic()
        with self._lock:
            if seat.line is not None:
                seat.line.idle_since = now
            self._stack.put(seat)
            unused = self._stack.close() if self._stack.closed else self._stack.expired(now - KEEPALIVE_S)
        for line in unused:
            line.close()

    def _line(self, seat: Slot[_Connection], deadline: float) -> _Connection:
        if seat.line is not None and not seat.line.is_alive(time.monotonic()):
            self._drop(seat)
        if seat.line is None:
            sock = self._connect(deadline)
            seat.line = _Connection(sock, Http11(self._endpoint, self._max_body))
        return seat.line

    @staticmethod
    def _drop(seat: Slot[_Connection]) -> None:
        if seat.line is not None:
            seat.line.close()
            seat.line = None

    def _exchange(self, line: _Connection, request: bytes, deadline: float) -> Reply:
        sock, feed = line.socket, line.http.feed
        sent = time.monotonic()
        _write(sock, request, deadline)
        try:
            while True:
                sock.settimeout(_left(deadline))
                if feed(sock.recv(READ_SIZE)):
                    return line.http.reply(sent, time.monotonic())
        except TimeoutError as error:
            raise timed_out("waiting for the answer", request_sent=True) from error
        except OSError as error:
            raise broken(error, request_sent=True) from error

    def _connect(self, deadline: float) -> socket.socket:
        """A connected socket, TLS included: the addresses of the host in turn, each with its share of the time."""
        endpoint = self._endpoint
        deadline = min(deadline, time.monotonic() + self._connect_timeout_s)
        try:
            addresses = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise not_connected(endpoint, error) from error
        failure: Exception = OSError("the name has no address")
        for position, (family, kind, protocol, _, address) in enumerate(addresses):
            now = time.monotonic()
            until = now + (deadline - now) / (len(addresses) - position)
            sock = socket.socket(family, kind, protocol)
            try:
                return self._established(sock, address, until)
            except (OSError, ValueError) as error:
                sock.close()
                failure = error
            except BaseException:
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


def _write(sock: socket.socket, request: bytes, deadline: float) -> None:
    """Writes it all. Only if the first write to a plain socket fails is it certain that nothing left."""
    request_sent = type(sock) is not socket.socket
    try:
        while request:
            sock.settimeout(_left(deadline))
            request = request[sock.send(request) :]
            request_sent = True
    except TimeoutError as error:
        raise timed_out("sending the request", request_sent=request_sent) from error
    except OSError as error:
        raise broken(error, request_sent=request_sent) from error


def _left(deadline: float) -> float:
    """Seconds until `deadline`, to wait on a socket; TimeoutError when it has passed (0 would mean: do not wait)."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline of the attempt has passed")
    return left
