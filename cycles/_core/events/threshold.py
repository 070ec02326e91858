"""The event of `client.on_threshold`, and what it was called with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from attrs import frozen

from cycles._core.amounts import Amount, SignedAmount
from cycles._core.events.base import Event


@frozen(kw_only=True)
class BudgetThreshold(Event):
    """The used fraction of a budget has risen to a threshold of `client.on_threshold`.

    Attributes:
        scope: The full scope path, for example ``tenant:acme/agent:bot``.
        unit: The unit of the budget.
        threshold: The threshold that is reached.
        fraction: ``(allocated - remaining) / allocated``.
        remaining: What is left; may be below zero.
        allocated: What was allocated.
    """

    scope: str
    unit: str
    threshold: float
    fraction: float
    remaining: SignedAmount
    allocated: Amount

    level = logging.WARNING

    def text(self) -> str:
        return (
            f"budget of {self.scope} in {self.unit}: {self.fraction:.0%} used, the threshold is {self.threshold:.0%}; "
            f"{self.remaining} of {self.allocated} is left"
        )


ThresholdCallback: TypeAlias = Callable[[BudgetThreshold], object]


@frozen(eq=False)
class ThresholdWatcher:
    """One call of `client.on_threshold`."""

    thresholds: tuple[float, ...]
    callback: ThresholdCallback
    scopes: frozenset[str] | None
