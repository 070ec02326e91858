"""When each pending task is tried again. See `docs/protocol/settlement.md#one-attempt-then-the-background`.

Each item has its own growing delay. In addition there is one gate for the server: while requests fail, it opens for
one attempt at a time, with growing pauses, so that an outage costs few requests for any number of items. The first
success opens it for all items.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final, Generic, TypeVar

T = TypeVar("T")

RESPONSE_INTERVAL_S: Final = 1.0  # an item that fails for its own reason is not tried with every successful call


class Item(Generic[T]):
    """One pending task. `due` and `floor` are monotonic seconds; `floor` is the earliest time after a 429.

    `expedited` is set if the item was expedited while a worker was trying it: if that attempt fails, it is due again
    immediately.
    """

    __slots__ = ("attempts", "busy", "due", "expedited", "floor", "key", "outcome", "value")

    def __init__(self, key: str, value: T, due: float) -> None:
        self.key = key
        self.value = value
        self.due = due
        self.floor = 0.0
        self.attempts = 0
        self.busy = False
        self.expedited = False
        self.outcome: str | None = None


class RetrySchedule(Generic[T]):
    """The pending items, by key.

    Args:
        initial_delay: Seconds before a failed item is tried again; doubled with each failure.
        max_delay: Seconds that delay never exceeds.
        random: Returns numbers from 0 to 1, for jitter.
    """

    def __init__(self, initial_delay: float, max_delay: float, random: Callable[[], float]) -> None:
        self._initial = initial_delay
        self._max = max_delay
        self._random = random
        self._items: dict[str, Item[T]] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._serial = count()
        self._busy = 0
        self._outages = 0
        self._gate = 0.0
        self._next_response = 0.0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item[T]]:
        return iter(list(self._items.values()))

    def get(self, key: str) -> Item[T] | None:
        """Return the item of a key, or None."""
        return self._items.get(key)

    def add(self, key: str, value: T, due: float, *, floor: float = 0.0) -> bool:
        """Add an item. Return False if its key is pending already; its value is replaced then."""
        known = self._items.get(key)
        if known is not None:
            known.value = value
            return False
        item = self._items[key] = Item(key, value, max(due, floor))
        item.floor = floor
        self._push(item)
        return True

    def take(self, now: float) -> Item[T] | None:
        """Return the item to try now, marked busy; None if no item may be tried yet."""
        if self._outages and (self._busy or now < self._gate):
            return None
        item = self._first()
        if item is None or item.due > now:
            return None
        heapq.heappop(self._heap)
        item.busy = True
        self._busy += 1
        return item

    def next_due(self) -> float | None:
        """Return when to call `take` again; None if no item has a time."""
        if self._outages and self._busy:
            return None
        item = self._first()
        if item is None:
            return None
        return max(item.due, self._gate) if self._outages else item.due

    def drop(self, item: Item[T]) -> None:
        """Remove an item whose attempt says nothing about the server."""
        if self._items.pop(item.key, None) is not None and item.busy:
            self._busy -= 1

    def settled(self, item: Item[T], now: float) -> None:
        """Remove an item that got a final response: the server responds, so items that wait for it are due."""
        self.drop(item)
        self._succeeded(now)

    def server_responded(self, now: float) -> bool:
        """Note that another request succeeded. Return True if an item is due now, at most once per interval."""
        if not self._items or now < self._next_response:
            return False
        self._next_response = now + RESPONSE_INTERVAL_S
        return self._succeeded(now)

    def _succeeded(self, now: float) -> bool:
        if self._outages:
            self._outages = 0
            self.expedite(now)
            return True
        # There was no outage: one more item is tried, and after its success the next.
        first = self._first()
        if first is None or not first.due > now >= first.floor:
            return False
        first.due = now
        self._push(first)
        return True

    def failed(
        self,
        item: Item[T],
        now: float,
        outcome: str,
        *,
        outage: bool,
        floor: float = 0.0,
        longest: float | None = None,
    ) -> None:
        """Try the item again later, never before `floor`. `outage` means that all items would fail the same way.

        `longest` (seconds) replaces the longest delay for this item.
        """
        self._busy -= item.busy
        item.busy = False
        item.attempts += 1
        item.outcome = outcome
        item.floor = floor
        expedited, item.expedited = item.expedited, False
        item.due = max(now if expedited else now + self._delay(item.attempts, longest), floor)
        self._push(item)
        if outage:
            self._outages += 1
            # A 429 delays the other items too, but not longer than an outage would.
            pause = 0.0 if expedited else self._delay(self._outages)
            self._gate = max(now + pause, min(floor, now + self._max))

    def expedite(self, now: float) -> None:
        """Make every item due now, except those that wait for a 429."""
        self._gate = now
        for item in self._items.values():
            due = max(now, item.floor)
            item.expedited = item.busy
            if not item.busy and due < item.due:
                item.due = due
                self._push(item)

    def _first(self) -> Item[T] | None:
        """Return the item that is due first and that no worker is trying."""
        while self._heap:
            due, _, key = self._heap[0]
            item = self._items.get(key)
            if item is not None and not item.busy and item.due == due:
                return item
            heapq.heappop(self._heap)  # removed, taken or rescheduled since it was pushed
        return None

    def _delay(self, failures: int, longest: float | None = None) -> float:
        delay = min(self._max if longest is None else longest, self._initial * 2.0 ** min(failures - 1, 30))
        return delay * (0.5 + 0.5 * self._random())

    def _push(self, item: Item[T]) -> None:
        heapq.heappush(self._heap, (item.due, next(self._serial), item.key))
