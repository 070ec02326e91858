"""Connection slots: a fixed number of them, the most recently used connection first, and a fair queue for callers.

Fewer, busier connections keep a client cheap under load. So an idle connection is preferred to a new one, and the one
used last to all others.

The pool has no lock: a signal handler may use it at any point, and so may a forked child or the garbage collector. A
slot is in exactly one container at a time (idle, held, or a waiter's), and one call of C code moves it from one to
another, so that an interrupt comes before or after the move. Of a slot without a connection only its class is kept, in
`_unused`: the same call makes the slot, or drops it.
"""

from __future__ import annotations

import contextlib
import math
import select
from collections import deque
from collections.abc import Callable
from itertools import repeat
from operator import call
from queue import Empty
from typing import Any, Final, Generic, Protocol, TypeVar

from cycles._http.exchange import MAX_BODY, Endpoint
from cycles._http.resolver import Resolver

KEEPALIVE_S: Final = 30.0
"""Seconds that an idle connection is kept: less than the 60 s after which common load balancers drop one silently."""


class Connection(Protocol):
    idle_since: float

    def close(self) -> None: ...


C = TypeVar("C", bound=Connection)
T = TypeVar("T")


class Slot(Generic[C]):
    """The right to have one connection; `connection` is None until it is opened, and after it was lost.

    It has no `__init__`, which an interrupt could leave between the removal of a slot and its insertion.
    """

    connection: C | None = None

    def drop(self) -> None:
        """Close the connection, if there is one."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


class Held(list[Slot[Any]]):
    """The slot that one exchange holds, or none. It returns to the pool even if the exchange is interrupted."""

    __slots__ = ("_pool",)

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = pool

    def abandon(self) -> None:
        """Return the slot without its connection, whose state is unknown."""
        if self and self[0] is not None:  # None: the pool was closed while the exchange waited
            self[0].drop()
            self._pool.put(self)

    __del__ = abandon


class Waiter(Protocol[C]):
    """A caller in the queue. A `SimpleQueue` is one for threads."""

    def put(self, slot: Slot[C] | None, /) -> object:
        """Receive a slot and wake the caller; None: the pool is closed. Never raises."""

    def get_nowait(self) -> Slot[C] | None:
        """Return a received slot; raises `queue.Empty`."""

    def empty(self) -> bool:
        """Return whether there is no received slot."""
        ...


class ConnectionPool(Generic[C]):
    def __init__(self, max_connections: int) -> None:
        self._unused: deque[type[Slot[C]]] = deque(repeat(Slot, max_connections))
        self._idle: deque[Slot[C]] = deque()
        self._waiting: deque[Waiter[C]] = deque()
        self._pop_idle = (self._idle.pop,)
        self._pop_unused = (self._unused.pop,)
        self.closed = False

    @property
    def waiting(self) -> int:
        """How many callers wait for a slot."""
        return len(self._waiting)

    def take(self, held: Held) -> bool:
        """Move a free slot into `held`; False if there is none, or if other callers wait for one."""
        return not self._waiting and self._take(held)

    def join(self, waiter: Waiter[C]) -> None:
        """Add a caller to the queue. It leaves the queue in any case, whether it gets a slot or not."""
        self._waiting.append(waiter)
        self._serve()  # a slot may have been returned since `take`

    def leave(self, waiter: Waiter[C]) -> None:
        """Remove a caller from the queue; what it has received and not taken goes to the next one."""
        with contextlib.suppress(ValueError):
            self._waiting.remove(waiter)
        while not waiter.empty() and self._reclaim(waiter):
            pass

    def put(self, held: Held) -> None:
        """Return a slot: to the caller that has waited longest, or to the pool."""
        if not self._waiting:
            # One call of C code moves the slot: an interrupt comes before it or after it, and never leaves it in two
            # places.
            if held[0].connection is None:
                self._unused.extend(map(type, map(call, (held.pop,))))
            else:
                self._idle.extend(map(call, (held.pop,)))
            if self._waiting:  # a caller has joined in the meantime
                self._serve()
            return
        waiter = _first(self._waiting)
        if waiter is None:  # another thread has served the last caller
            self.put(held)
            return
        # Taken out of `held` and put in one call, for the same reason; `any` runs the two maps.
        any(map(waiter.put, map(call, (held.pop,))))
        try:
            self._waiting.remove(waiter)
        except ValueError:  # another thread has served it, or it has left
            self._reclaim(waiter)

    def put_used(self, held: Held, now_s: float) -> list[C]:
        """Return the slot of an exchange that has ended well, and return the connections that its owner closes now."""
        connection = held[0].connection
        if connection is not None:
            connection.idle_since = now_s
        self.put(held)
        # The exchange was in progress when the client was closed: its connection is the last one to close.
        unused = self.close() if self.closed else []
        return unused + self.expired(now_s - KEEPALIVE_S)

    def expired(self, before: float) -> list[C]:
        """Remove the connections that were last used before that time, and return them for their owner to close."""
        connections: list[C] = []
        while (slot := _first(self._idle)) is not None:
            # The oldest are at the left: the stack is used from the right, so those that are not needed grow old there.
            oldest = slot.connection
            if oldest is None or oldest.idle_since >= before:
                break
            held = Held(self)
            try:
                held.extend(map(call, (self._idle.popleft,)))
            except IndexError:  # another thread was faster
                break
            # The slot stays in the pool without its connection: the number of slots never changes.
            connection, held[0].connection = held[0].connection, None
            if connection is not None:
                connections.append(connection)
            self.put(held)
        return connections

    def close(self) -> list[C]:
        """Wake all callers that wait, and return the idle connections for their owner to close."""
        # Set first: a caller that joins from now on is woken below, or sees it before it waits.
        self.closed = True
        while (waiter := _first(self._waiting)) is not None:
            self.leave(waiter)
            waiter.put(None)
        return self.expired(math.inf)

    def _take(self, held: Held) -> bool:
        try:
            # An open connection first, and the one that was used last: it is the least likely to be closed by its
            # server.
            if self._idle:
                held.extend(map(call, self._pop_idle))
                return True
        except IndexError:  # another thread was faster
            pass
        try:
            if self._unused:
                held.extend(map(object.__new__, map(call, self._pop_unused)))
                return True
        except IndexError:
            pass
        return False

    def _serve(self) -> None:
        """Give free slots to callers that wait."""
        while self._waiting and (self._idle or self._unused):
            held = Held(self)
            if not self._take(held):
                return
            self.put(held)

    def _reclaim(self, waiter: Waiter[C]) -> bool:
        """Take back a slot that was given to a caller that no longer wants it. Returns whether there was one."""
        held = Held(self)
        try:
            held.extend(map(call, (waiter.get_nowait,)))  # type: ignore[arg-type]  # None is removed below
        except Empty:
            return False
        if held[0] is None:
            held.clear()
        else:
            self.put(held)
        return True


class Connections(Generic[C]):
    """What the connections of threads and those of an event loop share: at most `max_connections` to one server.

    A forked child makes its own instance; deleting the inherited one changes nothing for the parent.
    """

    def __init__(
        self, endpoint: Endpoint, *, connect_timeout_s: float, max_connections: int, max_body: int = MAX_BODY
    ) -> None:
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._max_body = max_body
        self._pool: ConnectionPool[C] = ConnectionPool(max_connections)
        self._resolver = Resolver(endpoint.host, endpoint.port)

    def _close_idle(self) -> list[C]:
        connections = self._pool.close()
        for connection in connections:
            connection.close()
        return connections

    def _return(self, held: Held, now: float) -> None:
        for unused in self._pool.put_used(held, now):
            unused.close()


def _first(queue: deque[T]) -> T | None:
    """Return the first of a queue, or None if it is empty. Another thread may change it at any time."""
    try:
        return queue[0]
    except IndexError:
        return None


def readable(descriptor: int) -> Callable[[], bool]:
    """Return a function that returns whether an idle connection has data: its server has then closed it."""
    if not hasattr(select, "poll"):  # Windows
        return lambda: bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return lambda: bool(poll.poll(0))
