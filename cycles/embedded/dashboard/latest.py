"""Collections that keep the latest entries only."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Latest(Generic[K, V]):
    """The values that were put last, by key, in the order of their last `put`. Not thread-safe.

    Args:
        most: Maximum number of values; None for any number.

    Attributes:
        has_dropped: Whether a value was dropped because there were more than `most`.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._values: dict[K, V] = {}
        self.has_dropped: bool = False

    def put(self, key: K, value: V) -> None:
        """Add or replace a value and make it the last one."""
        self._values.pop(key, None)
        self._values[key] = value
        if self._most is not None and len(self._values) > self._most:
            del self._values[next(iter(self._values))]
            self.has_dropped = True

    def discard(self, key: K) -> None:
        """Remove a value if there is one."""
        self._values.pop(key, None)

    def values(self) -> list[V]:
        """Return the values, the last one at the end."""
        return list(self._values.values())

    def __len__(self) -> int:
        return len(self._values)


def drained(entries: deque[V]) -> Iterator[V]:
    """Remove and yield every entry. Other threads may append during that."""
    while entries:
        yield entries.popleft()
