"""What was charged, reserved and denied over time, as sums in steps, in bounded memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Final

from attrs import Factory, define, frozen

PERIODS: Final = {"5m": (5_000, 60), "1h": (60_000, 60), "24h": (1_200_000, 72), "all": (60_000, 90)}
"""Length of a step in milliseconds, and number of steps. The steps of `all` become longer."""
MAX_SUMS: Final = 50_000
"""Sums that a period keeps: beyond, its oldest steps are dropped, and it begins later."""

Name = tuple[str, str, str]
"""A scope, a unit, and an action or the reason of a denial."""


@frozen
class Charge:
    """One change: what was charged, and by how much the reserved amount changed."""

    at_ms: int
    name: Name
    charged: int
    reserved: int = 0


@define
class Steps:
    """The sums of one period: per step and name, what was charged and how much the reserved amount changed.

    Attributes:
        since_ms: When the period begins if earlier steps were dropped.
        steps: The sums by the begin of their step.
        size: The number of sums.
    """

    step_ms: int
    most: int
    joins: bool
    since_ms: int | None = None
    steps: dict[int, dict[Name, tuple[int, int]]] = Factory(dict)
    size: int = 0

    def add(self, one: Charge) -> None:
        """Add a change. One that is older than the period is left out."""
        start = one.at_ms - one.at_ms % self.step_ms
        if start not in self.steps:
            self.steps[start] = {}
            self._limit()
            start = one.at_ms - one.at_ms % self.step_ms  # steps may be longer now
        step = self.steps.get(start)
        if step is None:
            return
        self._put(step, one.name, one.charged, one.reserved)
        while self.size > MAX_SUMS and len(self.steps) > 1:
            self._drop(min(self.steps))

    def _put(self, step: dict[Name, tuple[int, int]], name: Name, charged: int, reserved: int) -> None:
        if name not in step and len(step) >= MAX_SUMS:
            name = (name[0].partition("/")[0], name[1], "")
        if name not in step:
            self.size += 1
        before = step.get(name, (0, 0))
        step[name] = (before[0] + charged, before[1] + reserved)

    def _limit(self) -> None:
        first, last = min(self.steps), max(self.steps)
        if not self.joins:
            for start in [each for each in self.steps if each <= last - self.most * self.step_ms]:
                self.size -= len(self.steps.pop(start))
            return
        while last - first >= self.most * self.step_ms:
            self.step_ms *= 2
            joining, self.steps, self.size = self.steps, {}, 0
            for start, sums in joining.items():
                joined = self.steps.setdefault(start - start % self.step_ms, {})
                for name, (charged, reserved) in sums.items():
                    self._put(joined, name, charged, reserved)
            first, last = min(self.steps), max(self.steps)

    def _drop(self, start: int) -> None:
        self.size -= len(self.steps.pop(start))
        self.since_ms = start + self.step_ms

    def window(self, now_ms: int) -> tuple[int, int]:
        """Return where the period begins and how many steps it has until now."""
        end = now_ms - now_ms % self.step_ms + self.step_ms
        first = min(self.steps, default=end - self.step_ms) if self.joins else end - self.most * self.step_ms
        first = max(first, self.since_ms or first)
        return first, max(1, (end - first) // self.step_ms)


@frozen
class Sums:
    """The sums of a period until now: where it begins, how long and how many its steps are, and what each step has."""

    first_ms: int
    step_ms: int
    count: int
    steps: list[tuple[int, list[tuple[Name, tuple[int, int]]]]]

    def within(self, scope: str, unit: str) -> Iterator[tuple[int, Name, int, int]]:
        """Yield step number, name, charged amount and change of the reserved amount of a scope and what is below it."""
        for start, sums in self.steps:
            place = (start - self.first_ms) // self.step_ms
            if 0 <= place < self.count:
                for name, (charged, reserved) in sums:
                    if name[1] == unit and is_within(name[0], scope):
                        yield place, name, charged, reserved


class History:
    """Sums of each period. Any thread may use it; it is locked only while references are copied.

    Attributes:
        periods: The sums by the name of their period.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.periods: dict[str, Steps] = {
            name: Steps(step_ms, most, joins=name == "all") for name, (step_ms, most) in PERIODS.items()
        }

    def add(self, one: Charge) -> None:
        """Add a change to every period."""
        with self._lock:
            for steps in self.periods.values():
                steps.add(one)

    def sums(self, period: str, now_ms: int) -> Sums:
        """Return the sums of a period as they are now."""
        with self._lock:
            steps = self.periods[period]
            first_ms, count = steps.window(now_ms)
            copied = [(start, list(sums.items())) for start, sums in steps.steps.items()]
            return Sums(first_ms, steps.step_ms, count, copied)

    def units(self, scope: str, now_ms: int) -> set[str]:
        """Return the units in which a scope has changes."""
        steps = self.sums("all", now_ms).steps
        return {unit for _, sums in steps for (path, unit, _), _ in sums if is_within(path, scope)}

    def counts(self, period: str, scope: str, now_ms: int) -> Counter[tuple[str, str]]:
        """Return how often each scope was denied for each reason in a period."""
        found: Counter[tuple[str, str]] = Counter()
        for _, (path, _, reason), count, _ in self.sums(period, now_ms).within(scope, ""):
            found[path, reason] += count
        return found


def is_within(path: str | None, scope: str) -> bool:
    """Return whether a scope is `scope` or below it; every one is within an empty scope."""
    return not scope or (path is not None and (path == scope or path.startswith(f"{scope}/")))
