"""What a chunk counts, as immutable values: each change of a chunk is one store of a new value."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

_new: Final = tuple.__new__  # half of the time of a call of the class: these are on the way of every pooled guard


class Totals(NamedTuple):
    """Sums over the guards that ended with an amount: what the cell of the chunk keeps, and its commit sends."""

    spent: int = 0
    tokens_input: int = 0
    tokens_output: int = 0
    latency_ms: int = 0
    calls: int = 0
    errors: int = 0


class End(NamedTuple):
    """The end of one guard with an amount, as it is counted in a chunk.

    Attributes:
        guard: The guard.
        settlement: What it gets.
        action: The name of its action.
        of_action: Calls and amount of that action in this chunk, with this end.
        model: The model that it used, or None.
        ended_ms: Milliseconds since the epoch.
    """

    guard: Any
    settlement: Any
    action: str
    of_action: tuple[int, int]
    model: str | None
    ended_ms: int


class Sums(NamedTuple):
    """The state of one chunk: `totals.spent` + `live` + `free` is its amount until it is sealed.

    Attributes:
        free: What it can still admit.
        live: The estimates of its live guards.
        guards: How many of them there are.
        totals: What ended guards have spent.
        last: The latest end with an amount.
    """

    free: int
    live: int = 0
    guards: int = 0
    totals: Totals = Totals()
    last: End | None = None

    def admitted(self, estimate: int) -> Sums:
        """Admit a guard."""
        free, live, guards, totals, last = self
        return _new(Sums, (free - estimate, live + estimate, guards + 1, totals, last))

    def released(self, estimate: int, *, is_sealed: bool = False) -> Sums:
        """End a guard without an amount here. What a sealed chunk held for it is not free any more."""
        free = self.free if is_sealed else self.free + estimate
        return Sums(free, self.live - estimate, self.guards - 1, self.totals, self.last)

    def ended(self, estimate: int, totals: Totals, end: End) -> Sums:
        """End a guard with an amount, which is in `totals`."""
        free, live, guards, before, _ = self
        return _new(Sums, (free + estimate - totals[0] + before[0], live - estimate, guards - 1, totals, end))
