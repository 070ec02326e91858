"""What the calls of a kept ledger have cost, and what a budget would have denied of them. No I/O."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from cycles._core.amounts import Amount
from cycles.embedded.records import Reservation
from cycles.embedded.windows import Window, end_of

MODEL_CALLS: Final = "llm."
IMPORTED: Final = "llm.imported"


@frozen
class Measured:
    """The calls of a kept ledger in one unit, in the order of their reservations."""

    unit: str
    calls: Sequence[Reservation]

    def document(self, budget: Amount | None = None, window: Window | None = None) -> dict[str, Any]:
        """Return the report as JSON.

        Args:
            budget: What would have been the budget; None: nothing is replayed.
            window: The window of the budget.
        """
        costs = [_cost(row) for row in self.calls]
        runs = list(self._sums(lambda row: _label(row, "run") or "").values())
        typical = runs if window is None else self._windows(window)
        return {
            "calls": len(costs),
            "spent": self._amount(sum(costs)),
            "models": {
                model: {
                    "calls": len(each),
                    "spent": self._amount(sum(each)),
                    "p50": self._amount(percentile(each, 50)),
                    "p95": self._amount(percentile(each, 95)),
                    "max": self._amount(max(each)),
                }
                for model, each in sorted(self._costs(lambda row: str(row.action.get("name"))).items())
            },
            "agents": {
                path: {"calls": len(each), "spent": self._amount(sum(each))}
                for path, each in sorted(self._costs(lambda row: _label(row, "agent_path")).items())
            },
            "runs": {
                "count": len(runs),
                "p50": self._amount(percentile(runs, 50)),
                "p95": self._amount(percentile(runs, 95)),
            },
            "unpriced": sum(_is_unpriced(row) for row in self.calls),
            "would_deny": None if budget is None else self._replayed(budget, window),
            "proposed": self._amount(rounded_up(percentile(typical, 95))) if typical else None,
        }

    def _amount(self, amount: int) -> dict[str, Any]:
        return {"unit": self.unit, "amount": amount}

    def _costs(self, key: Any) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for row in self.calls:
            if (name := key(row)) is not None:
                found[name].append(_cost(row))
        return found

    def _sums(self, key: Any) -> dict[Any, int]:
        return {name: sum(costs) for name, costs in self._costs(key).items()}

    def _windows(self, window: Window) -> list[int]:
        """Return what was spent in each window that has calls."""
        ends = self._sums(lambda row: end_of(window.period, window.timezone, _ended_ms(row)))
        return list(ends.values())

    def _replayed(self, budget: Amount, window: Window | None) -> dict[str, Any]:
        """Return what a budget would have denied. A denied call costs nothing, so later ones may fit again."""
        denied, first = 0, None
        replay = _Replay(budget.amount, window)
        for number, row in enumerate(self.calls, 1):
            if not replay.admits(row):
                denied += 1
                first = first or number
        return {"calls": denied, "first_call": first, "spent": self._amount(replay.total)}


class _Replay:
    """A budget that sees calls again, in the order of their reservations."""

    def __init__(self, budget: int, window: Window | None) -> None:
        self._budget = budget
        self._window = window
        self._ends_ms: int | None = None
        self._spent = self._held = 0
        self._running: list[tuple[int, int, int]] = []  # when a call ends, what it costs, what it holds
        self.total = 0

    def admits(self, row: Reservation) -> bool:
        """Return whether a call fits beside those that run when it begins, and let it run if so."""
        while self._running and self._running[0][0] <= row.created_at_ms:
            ended_ms, cost, held = heapq.heappop(self._running)
            self._pass_to(ended_ms)
            self._held -= held
            self._spent += cost
        self._pass_to(row.created_at_ms)
        if row.reserved > self._budget - self._spent - self._held:
            return False
        self._held += row.reserved
        self.total += _cost(row)
        heapq.heappush(self._running, (_ended_ms(row), _cost(row), row.reserved))
        return True

    def _pass_to(self, at_ms: int) -> None:
        if self._window is not None and (self._ends_ms is None or at_ms >= self._ends_ms):
            self._spent = 0
            self._ends_ms = end_of(self._window.period, self._window.timezone, at_ms)


def measured(records: Iterable[Reservation], unit: str | None = None, since_ms: int = 0) -> Measured:
    """Return the model calls among reservations that were committed.

    Args:
        records: The reservations.
        unit: The unit; None: US dollars, or tokens if no call was counted in dollars.
        since_ms: The time of the first reservation, in milliseconds since the epoch.
    """
    calls = [
        row
        for row in sorted(records, key=lambda row: row.number)
        if row.status == "COMMITTED"
        and str(row.action.get("kind")).startswith(MODEL_CALLS)
        and row.action.get("kind") != IMPORTED
        and row.created_at_ms >= since_ms
    ]
    if unit is None:
        units = {row.unit for row in calls}
        unit = "TOKENS" if units and "USD_MICROCENTS" not in units else "USD_MICROCENTS"
    return Measured(unit, [row for row in calls if row.unit == unit])


def percentile(values: Sequence[int], percent: int) -> int:
    """Return the smallest value that at least so many percent of the values do not exceed; 0 of no values."""
    if not values:
        return 0
    return sorted(values)[-(-len(values) * percent // 100) - 1]


def rounded_up(amount: int) -> int:
    """Return an amount rounded up to two digits: 1,234 to 1,300."""
    unit: int = 10 ** max(0, len(str(amount)) - 2)
    return unit * -(-amount // unit)


def _cost(row: Reservation) -> int:
    return row.charged or 0


def _ended_ms(row: Reservation) -> int:
    return row.created_at_ms if row.finalized_at_ms is None else row.finalized_at_ms


def _label(row: Reservation, name: str) -> str | None:
    metadata: Mapping[str, Any] = row.metadata or {}
    found = metadata.get(name)
    return found if isinstance(found, str) and found else None


def _is_unpriced(row: Reservation) -> bool:
    """Return whether a part of a call has no price, or its model is unknown and was allowed to cost nothing."""
    committed: Mapping[str, Any] = row.committed_metadata or {}
    is_free = not row.reserved and not row.charged and committed.get("actual_source") == "estimate"
    return bool(committed.get("unpriced")) or is_free
