"""Who may use which connection: a fixed number of seats, most recently used first, and a fair queue for them.

No lock, no thread, no socket. Fewer, busier connections are what keeps a client cheap under load, so an idle
connection is always preferred to a new one, and the one used last to all others.
"""

from __future__ import annotations

import select
from collections import deque
from typing import Final, Generic, Protocol, TypeVar

KEEPALIVE_S: Final = 30.0
"""Seconds that an idle connection is kept: less than the 60 s after which common load balancers drop one silently."""


class Idle(Protocol):
    idle_since: float


L = TypeVar("L", bound=Idle)


class Slot(Generic[L]):
    """The right to have one connection; `line` is None until it is opened, and after it was lost."""

    __slots__ = ("line",)

    def __init__(self) -> None:
        self.line: L | None = None


class Waiter(Protocol[L]):
    """Someone in the queue."""

    def give(self, seat: Slot[L] | None) -> bool:
        """Hands over a seat (None: there will be none, the stack is closed); False if nobody waits any more."""
        ...


class ConnectionPool(Generic[L]):
    def __init__(self, seats: int) -> None:
        self._unused = seats
        self._idle: deque[Slot[L]] = deque()
        self._queue: deque[Waiter[L]] = deque()
        self.closed = False

    def take(self) -> Slot[L] | None:
        """A seat, if one is free; whoever gets none joins the queue."""
        if self._idle:
            return self._idle.pop()
        if self._unused == 0:
            return None
        self._unused -= 1
        return Slot()

    def join(self, turn: Waiter[L]) -> None:
        self._queue.append(turn)

    def leave(self, turn: Waiter[L]) -> None:
        """Out of the queue; no harm if the turn has come meanwhile."""
        if turn in self._queue:
            self._queue.remove(turn)

    def put(self, seat: Slot[L]) -> None:
        """Gives a seat back: to whoever waits longest, else to the stack."""
        while self._queue:
            if self._queue.popleft().give(seat):
                return
        if seat.line is None:
            self._unused += 1
        else:
            self._idle.append(seat)

    def expired(self, before: float) -> list[L]:
        """Takes out the lines that nobody has used since `before`, for their owner to close."""
        lines: list[L] = []
        while self._idle:
            line = self._idle[0].line
            assert line is not None
            if line.idle_since >= before:
                break
            lines.append(line)
            self._idle.popleft()
            self._unused += 1
        return lines

    def close(self) -> list[L]:
        """Sends the queue home and hands out every idle line, for their owner to close."""
        self.closed = True
        while self._queue:
            self._queue.popleft().give(None)
        return self.expired(float("inf"))


def is_readable(descriptor: int) -> bool:
    """Return whether an idle connection has data. A server sends nothing unasked, so it has closed the connection."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
