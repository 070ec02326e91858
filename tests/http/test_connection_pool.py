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
