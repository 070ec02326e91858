"""When each pending task is tried again. See `docs/protocol/settlement.md#one-attempt-then-the-background`.

Each item has its own growing delay. In addition there is one gate for the server: while requests fail, it opens for
one attempt at a time, with growing pauses, so that an outage costs few requests for any number of items. The first
success opens it for all items.

An item belongs to the threads of the client (None), or to an event loop. Each of them has its own workers.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from copy import copy
from itertools import count
from typing import Any, Final, Generic, TypeVar

from attrs import define, field

T = TypeVar("T")

RESPONSE_INTERVAL_S: Final = 1.0  # an item that fails for its own reason is not tried with every successful call


@define(eq=False)
class Item(Generic[T]):
    """One pending task. `due` and `floor` are monotonic seconds; `floor` is the earliest time after a 429.

    `expedited` is set if the item was expedited while a worker was trying it: if that attempt fails, it is due again
    immediately. `since` and `is_reported` belong to the worker: the time of its last attempt that may have had an
    effect, at first that of `add`; and whether its long wait was reported.
    """

    key: str
    value: T
    due: float
    floor: float = 0.0
    loop: object = None
    since: float = field(init=False)
    attempts: int = 0
    busy: bool = False
    expedited: bool = False
    is_reported: bool = False
    outcome: str | None = None

    def __attrs_post_init__(self) -> None:
        self.since, self.due = self.due, max(self.due, self.floor)


class RetrySchedule(Generic[T]):
    """The pending items, by key: `items`, which only this class changes. Iterating over it takes a copy.

    Args:
        initial_delay: Seconds before a failed item is tried again; doubled with each failure.
        max_delay: Seconds that delay never exceeds.
        random: Returns numbers from 0 to 1, for jitter.
    """

    def __init__(self, initial_delay: float, max_delay: float, random: Callable[[], float]) -> None:
        self._initial = initial_delay
        self._max = max_delay
        self._random = random
        self.items: Final[dict[str, Item[T]]] = {}
        self._heaps: dict[object, list[tuple[float, int, str]]] = {}  # by loop
        self._serial = count()
        self._busy = 0
        self._outages = 0
        self._gate = 0.0
        self._next_response = 0.0

    def __iter__(self) -> Iterator[Item[T]]:
        return iter(list(self.items.values()))

    def add(self, key: str, value: T, due: float, *, floor: float = 0.0, loop: object = None) -> Item[T]:
        """Add an item and return it. If its key is pending already, only its value is replaced."""
        item = self.items.get(key)
        # The times stay: work that is handed over again must not be tried sooner for that.
        if item is not None:
            item.value = value
            return item
        item = self.items[key] = Item(key, value, due, floor, loop)
        self._push(item)
        return item

    def take(self, now: float, loop: object = None) -> Item[T] | None:
        """Return the item of a loop to try now, marked busy; None if no item may be tried yet."""
        # During an outage one attempt at a time tests the server for all items.
        if self._outages and (self._busy or now < self._gate):
            return None
        item = self._first(loop)
        if item is None or item.due > now:
            return None
        heapq.heappop(self._heaps[loop])
        item.busy = True
        self._busy += 1
        return item

    def next_due(self, loop: object = None) -> float | None:
        """Return when to call `take` for this loop again; None if no item has a time."""
        if self._outages and self._busy:
            return None
        item = self._first(loop)
        if item is None:
            return None
        return max(item.due, self._gate) if self._outages else item.due

    def move(self, loop: object, *, busy: bool) -> None:
        """Give the items of a loop to the threads; with `busy` also those that its workers will not finish."""
        for item in [each for each in self.items.values() if each.loop is loop and (busy or not each.busy)]:
            self._busy -= item.busy
            moved = self.items[item.key] = copy(item)  # a worker that continues finds another one
            moved.loop, moved.busy, moved.expedited = None, False, False
            self._push(moved)
        self._heaps.pop(loop, None)

    @property
    def is_outage(self) -> bool:
        """Whether the server fails: one item at a time is tried."""
        return self._outages > 0

    def loops(self) -> set[Any]:
        """Return the loops that have items."""
        return {item.loop for item in self.items.values()} - {None}

    def is_current(self, item: Item[T]) -> bool:
        """Return whether this item is pending: neither removed nor moved to the threads."""
        return self.items.get(item.key) is item

    def drop(self, item: Item[T]) -> None:
        """Remove an item whose attempt says nothing about the server."""
        if self.is_current(item):
            del self.items[item.key]
            self._busy -= item.busy

    def settled(self, item: Item[T], now: float) -> None:
        """Remove an item that got a final response: the server responds, so items that wait for it are due."""
        self.drop(item)
        if self._outages or self._heaps.get(None):
            self._succeeded(now)

    def server_responded(self, now: float) -> bool:
        """Note that another request succeeded. Return True if an item is due now, at most once per interval."""
        if not self.items or now < self._next_response:
            return False
        self._next_response = now + RESPONSE_INTERVAL_S
        return self._succeeded(now)

    def _succeeded(self, now: float) -> bool:
        if self._outages:
            self._outages = 0
            self.expedite(now)
            return True
        # There was no outage: one more item is tried, and after its success the next.
        first = self._first(None)
        if first is None or not first.due > now >= first.floor:
            return False
        first.due = now
        self._push(first)
        return True

    def failed(
        self, item: Item[T], now: float, outcome: str, *, outage: bool, floor: float = 0.0, longest: float | None = None
    ) -> None:
        """Try the item again later, never before `floor`. `outage` means that all items would fail the same way.

        `longest` (seconds) replaces the longest delay for this item. The threads of the client try it again.
        """
        if not self.is_current(item):
            return
        self._busy -= item.busy
        item.busy = False
        item.attempts += 1
        item.outcome = outcome
        # Its loop may end before the next attempt is due; the threads of the client stay.
        item.floor, item.loop = floor, None
        expedited, item.expedited = item.expedited, False
        item.due = max(now if expedited else now + self._delay(item.attempts, longest), floor)
        self._push(item)
        if outage:
            self._outages += 1
            # A 429 delays the other items too, but not longer than an outage would.
            pause = 0.0 if expedited else self._delay(self._outages)
            self._gate = max(now + pause, min(floor, now + self._max))

    def interrupted(self, item: Item[T], now: float) -> None:
        """Let the threads of the client try the item again now: its attempt did not end."""
        if self.is_current(item):
            self._busy -= item.busy
            item.busy, item.loop = False, None
            item.due = now  # its floor is over: it was taken
            self._push(item)

    def expedite(self, now: float) -> None:
        """Make every item due now, except those that wait for a 429."""
        self._gate = now
        for item in self.items.values():
            due = max(now, item.floor)
            item.expedited = item.busy
            if not item.busy and due < item.due:
                item.due = due
                self._push(item)

    def _first(self, loop: object) -> Item[T] | None:
        """Return the item of a loop that is due first and that no worker is trying."""
        heap = self._heaps.get(loop)
        while heap:
            due, _, key = heap[0]
            item = self.items.get(key)
            if item is not None and not item.busy and item.due == due and item.loop is loop:
                return item
            heapq.heappop(heap)  # removed, taken, rescheduled or moved since it was pushed
        return None

    def _delay(self, failures: int, longest: float | None = None) -> float:
        delay = min(self._max if longest is None else longest, self._initial * 2.0 ** min(failures - 1, 30))
        return delay * (0.5 + 0.5 * self._random())

    def _push(self, item: Item[T]) -> None:
        heapq.heappush(self._heaps.setdefault(item.loop, []), (item.due, next(self._serial), item.key))
