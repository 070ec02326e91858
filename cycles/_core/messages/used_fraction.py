"""How much of each budget is used, from the balances in responses. See `docs/soft-limits.md`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen

from cycles._core.protocol import COMMIT_RESERVATION, CREATE_RESERVATION, RELEASE_RESERVATION
from cycles._core.subjects import Subject

WITH_BALANCES = frozenset({CREATE_RESERVATION, COMMIT_RESERVATION, RELEASE_RESERVATION})
"""Operations whose responses are read."""
HYSTERESIS = 0.05
"""How far below a threshold the fraction must fall before the threshold is reported again."""


@frozen
class Used:
    """A budget with an allocated amount.

    Attributes:
        scope: The full scope path.
        unit: The unit of the budget.
        allocated: More than zero.
        remaining: May be below zero.
    """

    scope: str
    unit: str
    allocated: int
    remaining: int

    @property
    def fraction(self) -> float:
        """The used fraction."""
        return (self.allocated - self.remaining) / self.allocated

    def pays_for(self, subject: Mapping[str, Any]) -> bool:
        """Return whether this budget is one of those of a subject, whose values are in lower case."""
        levels = (segment.partition(":") for segment in self.scope.split("/"))
        return all(subject.get(level) == value.lower() for level, _, value in levels)


@frozen(eq=False)
class ThresholdWatcher:
    """One call of `client.on_threshold`, whose callback gets a `cycles.events.BudgetThreshold`."""

    thresholds: tuple[float, ...]
    callback: Callable[[Any], object]
    scopes: frozenset[str] | None


def used_of(balances: Any) -> Iterator[Used]:
    """Yield the budgets of a response that have a fraction: those with an allocated amount."""
    for each in balances if isinstance(balances, list) else ():
        allocated, remaining = each.get("allocated"), each.get("remaining")
        if isinstance(allocated, Mapping) and allocated.get("amount", 0) > 0:
            yield Used(each["scope_path"], remaining["unit"], allocated["amount"], remaining["amount"])


def levels_of(subject: Subject) -> dict[str, str]:
    """Return the levels of a subject with their values in lower case, as scopes have them."""
    return {level: value.lower() for level, value in subject.to_dict().items() if isinstance(value, str)}
