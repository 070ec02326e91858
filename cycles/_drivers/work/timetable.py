"""When each entry is due: a heap that removes cancelled entries at little cost. It has no clock, lock or thread."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Final, Generic, Protocol, TypeVar

COMPACT_FROM: Final = 64  # below this many cancelled entries, rebuilding the heap costs more than it frees


class _Entry(Protocol):
    @property
    def cancelled(self) -> bool: ...


E = TypeVar("E", bound=_Entry)


class Timetable(Generic[E]):
    """Entries in the order of their time; those of one time in the order they were added."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, E]] = []
        self._number = itertools.count()
        self._cancelled = 0

    def __len__(self) -> int:
        """How many entries are still to come."""
        return len(self._heap) - self._cancelled

    @property
    def kept(self) -> int:
        """How many entries are in memory, cancelled ones included."""
        return len(self._heap)

    def add(self, when_s: float, entry: E) -> None:
        heapq.heappush(self._heap, (when_s, next(self._number), entry))

    def note_cancelled(self) -> None:
        """One entry was cancelled. It leaves with the next rebuild, which comes once most of the heap is cancelled."""
        self._cancelled += 1
        if self._cancelled >= COMPACT_FROM and 2 * self._cancelled > len(self._heap):
            self._heap = [item for item in self._heap if not item[2].cancelled]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next_s(self) -> float:
        """When the next entry is due; infinity for never."""
        while self._heap and self._heap[0][2].cancelled:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else math.inf

    def pop_due(self, now_s: float) -> E | None:
        """The earliest entry that is due, or None."""
        return heapq.heappop(self._heap)[2] if self.next_s() <= now_s else None

    def clear(self) -> list[E]:
        """Empty the table; what was still to come is returned."""
        entries = [item[2] for item in self._heap if not item[2].cancelled]
        self._heap, self._cancelled = [], 0
        return entries
