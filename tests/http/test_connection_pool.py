"""`ConnectionPool` while other threads change it."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import pytest

from cycles._http.connection_pool import ConnectionPool


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
