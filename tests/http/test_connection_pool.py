"""`ConnectionPool` while other threads change it."""

from __future__ import annotations

import gc
import math
import queue
from collections import deque
from typing import Any

import pytest

from cycles._http import connection_pool
from cycles._http.connection_pool import ConnectionPool, Held, Slot


class EmptiedByOthers(deque[Any]):
    """A queue whose last item another thread takes after it was seen: so does a build of Python without the GIL."""

    def __getitem__(self, position: Any) -> Any:
        raise IndexError(position)


@pytest.mark.parametrize("name", ["_idle", "_waiting"])
def test_another_thread_may_take_what_a_thread_has_just_seen(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pool: ConnectionPool[Any] = ConnectionPool(1)
    monkeypatch.setattr(pool, name, EmptiedByOthers([None]))
    assert pool.expired(math.inf) == []
    assert pool.close() == []
    assert pool.closed


class Waiting(deque[Any]):
    """A caller that waits for a slot."""

    put = deque.append

    def get_nowait(self) -> Any:
        if not self:
            raise queue.Empty
        return self.popleft()

    def empty(self) -> bool:
        return not self


def test_a_slot_that_comes_as_its_caller_leaves_is_returned_to_the_pool() -> None:
    class Leaving(Waiting):
        def put(self, slot: Any) -> None:
            pool.leave(self)  # its time was over, in another thread
            self.append(slot)

    pool: ConnectionPool[Any] = ConnectionPool(1)
    held = Held(pool)
    assert pool.take(held)
    pool.join(Leaving())
    pool.put(held)
    assert pool.take(Held(pool))


def test_a_slot_that_its_caller_takes_while_it_leaves_stays_with_it() -> None:
    class Taking(Waiting):
        def put(self, slot: Any) -> None:
            pool.leave(self)  # in its own thread, which has taken the slot already

    pool: ConnectionPool[Any] = ConnectionPool(1)
    held = Held(pool)
    assert pool.take(held)
    pool.join(Taking())
    pool.put(held)
    assert not pool.take(Held(pool))


def test_a_caller_that_joins_as_a_slot_is_returned_gets_it() -> None:
    class Returning(Held):
        def pop(self, *_: Any) -> Any:
            pool.join(waiting)  # in another thread: it finds no free slot
            return super().pop()

    pool: ConnectionPool[Any] = ConnectionPool(1)
    held, waiting = Returning(pool), Waiting()
    assert pool.take(held)
    pool.put(held)
    assert not waiting.empty()


class Kept:
    """A connection that does nothing."""

    idle_since = 0.0

    def close(self) -> None:
        pass


def test_a_slot_is_made_when_it_is_needed_and_dropped_without_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(Slot[Any]):
        """The slots of this test: clients of earlier tests may end in their threads now, and drop theirs."""

    def slots() -> int:
        gc.collect()
        return sum(type(each) is Mine for each in gc.get_objects())

    monkeypatch.setattr(connection_pool, "Slot", Mine)
    pool: ConnectionPool[Any] = ConnectionPool(10_000)
    assert slots() == 0
    first, second = Held(pool), Held(pool)
    assert pool.take(first)
    assert pool.take(second)
    assert slots() == 2
    first[0].connection = Kept()
    pool.put(first)
    pool.put(second)
    assert slots() == 1, "only the slot with a connection is kept"
    used = [Held(pool) for _ in range(10_000)]
    assert all(pool.take(each) for each in used)
    assert sum(each[0].connection is not None for each in used) == 1
    assert not pool.take(Held(pool))


class Open:
    """A connection that notes whether it was closed."""

    def __init__(self, idle_since: float = 0.0) -> None:
        self.idle_since = idle_since
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def taken(pool: ConnectionPool[Any], connection: Any = None) -> Held:
    """Return a slot of the pool, which has this connection."""
    held = Held(pool)
    assert pool.take(held)
    held[0].connection = connection
    return held


def test_the_connection_that_was_used_last_is_taken_first_and_a_new_one_last() -> None:
    pool: ConnectionPool[Any] = ConnectionPool(3)
    connections = [Open(), Open()]
    for held in [taken(pool, connection) for connection in connections]:
        pool.put(held)
        assert held == []
    order = [Held(pool) for _ in range(4)]
    assert [pool.take(held) for held in order] == [True, True, True, False]
    assert [held[0].connection for held in order[:3]] == [connections[1], connections[0], None]


def test_callers_that_wait_get_slots_in_their_order_and_before_those_that_come_later() -> None:
    pool: ConnectionPool[Any] = ConnectionPool(1)
    held, waiting = taken(pool, Open()), [Waiting() for _ in range(3)]
    for waiter in waiting:
        pool.join(waiter)
    assert pool.waiting == 3
    connection = held[0].connection
    pool.put(held)
    assert (held, [len(waiter) for waiter in waiting], pool.waiting) == ([], [1, 0, 0], 2)
    assert not pool.take(Held(pool))
    slot = waiting[0].popleft()
    assert slot.connection is connection
    pool.leave(waiting[1])
    pool.put(held_with(pool, slot))
    assert ([len(waiter) for waiter in waiting], pool.waiting) == ([0, 0, 1], 0)
    pool.leave(waiting[2])  # its time is over: what it has received and not taken is free again
    assert waiting[2] == deque()
    assert taken(pool, connection)[0] is slot


def held_with(pool: ConnectionPool[Any], slot: Any) -> Held:
    held = Held(pool)
    held.append(slot)
    return held


def test_a_caller_that_joins_gets_a_free_slot() -> None:
    pool: ConnectionPool[Any] = ConnectionPool(2)
    waiting = [Waiting() for _ in range(3)]
    for waiter in waiting:
        pool.join(waiter)
    assert ([len(waiter) for waiter in waiting], pool.waiting) == ([1, 1, 0], 1)


def test_an_exchange_that_fails_returns_its_slot_without_its_connection() -> None:
    pool: ConnectionPool[Any] = ConnectionPool(1)
    connection = Open()
    held = taken(pool, connection)
    held.abandon()
    held.abandon()  # it has none any more
    assert (connection.closed, held) == (1, [])
    assert taken(pool)[0].connection is None
    del held
    gc.collect()
    held_with(pool, None).abandon()  # the pool was closed while it waited


KEPT_S = connection_pool.KEEPALIVE_S


@pytest.mark.parametrize(("idle_s", "is_closed"), [(0.0, False), (KEPT_S, False), (KEPT_S + 0.5, True)])
def test_a_connection_that_is_not_needed_is_closed_after_its_time(idle_s: float, is_closed: bool) -> None:
    pool: ConnectionPool[Any] = ConnectionPool(4)
    connection, other = Open(), Open()
    old, used, unopened = taken(pool, connection), taken(pool, other), taken(pool)
    assert pool.put_used(old, 100.0) == []
    assert pool.put_used(unopened, 101.0) == []
    unused = pool.put_used(used, 100.0 + idle_s)
    assert unused == [connection] * is_closed
    assert (connection.closed, other.closed) == (0, 0)  # their owner closes them
    assert (connection.idle_since, other.idle_since) == (100.0, 100.0 + idle_s)
    assert pool.expired(100.0) == []
    order = [Held(pool) for _ in range(5)]
    assert [pool.take(held) for held in order] == [True] * 4 + [False]
    expected = [other, *[connection] * (not is_closed), None, None, None]
    assert [held[0].connection for held in order[:4]] == expected[:4]


def test_a_closed_pool_wakes_its_callers_and_keeps_no_connection() -> None:
    pool: ConnectionPool[Any] = ConnectionPool(2)
    first, second = taken(pool, Open()), taken(pool, Open())
    idle, busy = first[0].connection, second[0].connection
    waiting = [Waiting(), Waiting()]
    pool.put(first)
    assert not pool.closed
    assert pool.close() == [idle]
    assert pool.closed
    assert pool.close() == []
    pool.leave(waiting[0])
    assert pool.put_used(second, 100.0) == [busy]
    pool = ConnectionPool(1)
    held = taken(pool)
    for waiter in waiting:
        pool.join(waiter)
    assert pool.close() == []
    assert [list(waiter) for waiter in waiting] == [[None], [None]]
    pool.leave(waiting[0])
    assert (waiting[0], pool.waiting) == (deque(), 0)
    pool.put(held)
    assert pool.take(Held(pool))


def test_a_slot_that_a_caller_got_after_the_pool_was_closed_is_returned() -> None:
    """Another thread had chosen the caller before the pool was closed, and gives it the slot after that."""
    pool: ConnectionPool[Any] = ConnectionPool(1)
    held, waiter = Held(pool), Waiting()
    assert pool.take(held)
    pool.join(waiter)
    pool.close()
    waiter.put(held.pop())
    assert next(iter(waiter)) is None
    pool.leave(waiter)
    assert list(waiter) == []
    assert pool.take(Held(pool))
