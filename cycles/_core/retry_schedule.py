"""What the recovery worker still owes, and when it may try (decisions 9, 10, 15). Pure: `now` in, the next step out.

Each item backs off by itself; on top of that there is one gate for the server as a whole. While nothing gets through,
the gate opens for one probe at a time, with growing pauses, so that an outage costs a request now and then however
many records there are. The first success opens it for all.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from itertools import count
from typing import Final, Generic, TypeVar

T = TypeVar("T")

HEARD_S: Final = 1.0  # what fails for a reason of its own must not be tried with every call that succeeds


class Item(Generic[T]):
    """One thing that is owed. `due` and `floor` are monotonic seconds; `floor` is what a 429 asked for.

    `hurried` marks one that was hurried while somebody was at it: if that fails, it is due again at once.
    """

    __slots__ = ("attempts", "busy", "due", "floor", "hurried", "key", "outcome", "value")

    def __init__(self, key: str, value: T, due: float) -> None:
        self.key = key
        self.value = value
        self.due = due
        self.floor = 0.0
        self.attempts = 0
        self.busy = False
        self.hurried = False
        self.outcome: str | None = None


class RetrySchedule(Generic[T]):
    """The items that are owed, by key.

    Args:
        initial_delay: Seconds before a failed item is tried again; doubled with each failure.
        max_delay: Seconds that delay never exceeds.
        random: Gives numbers from 0 to 1, for jitter.
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
        self._heard_again = 0.0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item[T]]:
        return iter(list(self._items.values()))

    def get(self, key: str) -> Item[T] | None:
        """The item of a key, or None."""
        return self._items.get(key)

    def add(self, key: str, value: T, due: float, *, floor: float = 0.0) -> bool:
        """Owe something; False where it is owed already (its value is brought up to date)."""
        known = self._items.get(key)
        if known is not None:
            known.value = value
            return False
        item = self._items[key] = Item(key, value, max(due, floor))
        item.floor = floor
        self._push(item)
        return True

    def take(self, now: float) -> Item[T] | None:
        """The item to try now, marked busy; None where nothing may be tried yet."""
        if self._outages and (self._busy or now < self._gate):
            return None
        item = self._first()
        if item is None or item.due > now:
            return None
        heapq.heappop(self._heap)
        item.busy = True
        self._busy += 1
        return item

    def next_due(self, now: float) -> float | None:
        """When `take` is worth another look; None while there is nothing to wait for."""
        if self._outages and self._busy:
            return None
        item = self._first()
        if item is None:
            return None
        return max(item.due, self._gate) if self._outages else item.due

    def drop(self, item: Item[T]) -> None:
        """No longer owed, and nothing learnt about the server."""
        if self._items.pop(item.key, None) is not None and item.busy:
            self._busy -= 1

    def settled(self, item: Item[T], now: float) -> None:
        """The server answered for good: it is there, so whatever waited only for it is due."""
        self.drop(item)
        self._succeeded(now)

    def server_responded(self, now: float) -> bool:
        """Something else got through to the server. True where that makes anything due, at most once per `HEARD_S`."""
        if not self._items or now < self._heard_again:
            return False
        self._heard_again = now + HEARD_S
        return self._succeeded(now)

    def _succeeded(self, now: float) -> bool:
        if self._outages:
            self._outages = 0
            self.expedite(now)
            return True
        # The server was there all the time: one more is tried, and if that succeeds, the next.
        first = self._first()
        if first is None or not first.due > now >= first.floor:
            return False
        first.due = now
        self._push(first)
        return True

    def failed(self, item: Item[T], now: float, outcome: str, *, outage: bool, floor: float = 0.0) -> None:
        """Nothing is proven: try again later, never before `floor`. `outage` means the server as a whole fails."""
        self._busy -= item.busy
        item.busy = False
        item.attempts += 1
        item.outcome = outcome
        item.floor = floor
        hurried, item.hurried = item.hurried, False
        item.due = max(now if hurried else now + self._delay(item.attempts), floor)
        self._push(item)
        if outage:
            self._outages += 1
            # A 429 slows the others down too, but not for longer than an outage would.
            pause = 0.0 if hurried else self._delay(self._outages)
            self._gate = max(now + pause, min(floor, now + self._max))

    def expedite(self, now: float) -> None:
        """Everything is due, but for what a 429 holds back."""
        self._gate = now
        for item in self._items.values():
            due = max(now, item.floor)
            item.hurried = item.busy
            if not item.busy and due < item.due:
                item.due = due
                self._push(item)

    def _first(self) -> Item[T] | None:
        """The item that is due first, of those that nobody is busy with."""
        while self._heap:
            due, _, key = self._heap[0]
            item = self._items.get(key)
            if item is not None and not item.busy and item.due == due:
                return item
            heapq.heappop(self._heap)  # settled, taken, or moved meanwhile
        return None

    def _delay(self, failures: int) -> float:
        delay = min(self._max, self._initial * 2.0 ** min(failures - 1, 30))
        return delay * (0.5 + 0.5 * self._random())

    def _push(self, item: Item[T]) -> None:
        heapq.heappush(self._heap, (item.due, next(self._serial), item.key))
