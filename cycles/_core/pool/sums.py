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

    def ended(
        self,
        held: int,
        amount: int,
        settlement: Any,
        *,
        guard: Any,
        used: Any,
        latency_ms: int,
        is_error: bool,
        action: str,
        of_action: tuple[int, int],
        ended_ms: int,
    ) -> Sums:
        """End a guard with an amount.

        Args:
            held: What is live for it.
            amount: What the chunk takes; it fits.
            settlement: What the guard gets.
            guard: The guard, for `End`, as the last three.
            used: Its metrics, or its usage, or None.
            latency_ms: How long it took.
            is_error: Whether its block raised an exception.
            action: See there.
            of_action: See there, without this end.
            ended_ms: See there.
        """
        free, live, guards, (spent, tokens_in, tokens_out, latency, calls, errors), _ = self
        model = None
        if used is not None:
            tokens_in, tokens_out = tokens_in + (used.tokens_input or 0), tokens_out + (used.tokens_output or 0)
            model = used.model_version
        totals = _new(
            Totals, (spent + amount, tokens_in, tokens_out, latency + latency_ms, calls + 1, errors + is_error)
        )
        of_action = of_action[0] + 1, of_action[1] + amount
        end = _new(End, (guard, settlement, action, of_action, model, ended_ms))
        return _new(Sums, (free + held - amount, live - held, guards - 1, totals, end))
