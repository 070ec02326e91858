"""When a budget is used up at the pace of its last commits. No clock: the caller passes the server's time."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from attrs import Factory, define, frozen

PACE_MS: Final = 15 * 60_000
"""The rate is that of so much time, or since the first commit."""
_LEAST_MS: Final = 60_000
_LEAST_COMMITS: Final = 3
_HOUR_MS: Final = 3_600_000
_AHEAD_MS: Final = 1_000  # a time from a header Date is rounded down to a second
_SLOT_MS: Final = 5_000  # commits of so much time are one entry: a pace is a few hundred numbers for each budget
_LATEST_MS: Final = 366 * 24 * _HOUR_MS  # later is no forecast

Place = tuple[str, str]
"""A scope and a unit."""


@frozen
class Forecast:
    """When a budget is used up.

    Attributes:
        scope: The scope of the budget.
        unit: Its unit.
        rate_per_hour: What is committed in an hour, in the unit.
        exhausted_at_ms: When nothing remains at this rate, milliseconds of server time since the epoch.
    """

    scope: str
    unit: str
    rate_per_hour: int
    exhausted_at_ms: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        names = ("scope", "unit", "rate_per_hour", "exhausted_at_ms")
        return {name: getattr(self, name) for name in names}


@define(eq=False)
class Pace:
    """The commits of the last 15 minutes, by scope and unit. Any thread may use it.

    Attributes:
        now_ms: The server's time; code that keeps a pace sets it before each use.
    """

    now_ms: int
    _commits: dict[Place, deque[tuple[int, int, int]]] = Factory(lambda: defaultdict(deque))
    _lock: threading.Lock = Factory(threading.Lock)

    @property
    def places(self) -> Collection[Place]:
        """Scopes and units that have commits."""
        return self._commits.keys()

    def add(self, scopes: Iterable[str], unit: str, at_ms: int | None, amount: int) -> None:
        """Add one commit of some scopes; an older one is left out."""
        if at_ms is None or not self.now_ms - PACE_MS <= at_ms <= self.now_ms + _AHEAD_MS:
            return
        with self._lock:
            for scope in scopes:
                commits = self._commits[scope, unit]
                if commits and 0 <= at_ms - commits[-1][0] < _SLOT_MS:
                    since_ms, total, count = commits[-1]
                    commits[-1] = (since_ms, total + amount, count + 1)
                else:
                    commits.append((at_ms, amount, 1))

    def of(self, scope: str, unit: str, remaining: int, spent: int, *, ends_ms: int | None = None) -> Forecast | None:
        """Return the forecast of a budget; None if there is none.

        Args:
            scope: The scope of the budget.
            unit: Its unit.
            remaining: What remains of it.
            spent: What was spent of it; more than the commits of 15 minutes means that there were earlier ones.
            ends_ms: When its window ends; a forecast after that is none.
        """
        commits = self._recent(scope, unit)
        total = sum(amount for _, amount, _ in commits)
        if sum(count for *_, count in commits) < _LEAST_COMMITS or total <= 0 or remaining <= 0:
            return None
        since_ms = self.now_ms - PACE_MS if spent > total else min(at_ms for at_ms, *_ in commits)
        took_ms = self.now_ms - since_ms
        if took_ms < _LEAST_MS:
            return None
        exhausted_at_ms = self.now_ms + remaining * took_ms // total
        if exhausted_at_ms >= (self.now_ms + _LATEST_MS if ends_ms is None else ends_ms):
            return None
        return Forecast(scope, unit, total * _HOUR_MS // took_ms, exhausted_at_ms)

    def _recent(self, scope: str, unit: str) -> list[tuple[int, int, int]]:
        with self._lock:
            commits = self._commits.get((scope, unit))
            if commits is None:
                return []
            while commits and commits[0][0] < self.now_ms - PACE_MS:
                commits.popleft()
            return list(commits)


def forecasts(pace: Pace, budgets: Iterable[Any], windows: Mapping[Any, Any] | None = None) -> list[Forecast]:
    """Return the forecasts of budget records, without those that have none."""
    found = []
    for budget in budgets:
        window = (windows or {}).get((budget.scope, budget.unit))
        ends_ms = None if window is None else window.ends_ms
        forecast = pace.of(budget.scope, budget.unit, budget.remaining, budget.spent, ends_ms=ends_ms)
        if forecast is not None:
            found.append(forecast)
    return found


def forecast_text(exhausted_at_ms: int, *, with_day: bool, zone: tzinfo = UTC) -> str:
    """Return a forecast for people, like ``used up at 14:20 at this pace``, and its day if it may be another one."""
    at = datetime.fromtimestamp(exhausted_at_ms / 1000, zone)
    return f"used up at {at:%H:%M}{f' on {at:%Y-%m-%d}' if with_day else ''} at this pace"
