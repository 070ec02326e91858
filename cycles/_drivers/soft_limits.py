"""Soft limits of one client in one process: what is known of its budgets, thresholds, and approval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cycles._config import Config
from cycles._core.amounts import Amount, SignedAmount
from cycles._core.messages.used_fraction import HYSTERESIS, WITH_BALANCES, ThresholdWatcher, Used, used_of

if TYPE_CHECKING:
    from cycles._drivers.reporting import Reporter
    from cycles._flows.approval import Approvals
    from cycles.events import BudgetThreshold


class SoftLimits:
    """Reads the balances of responses, if anything needs them.

    Args:
        config: Says whether reservations need approval.
        reporter: Has the watchers, and gets the events.
    """

    def __init__(self, config: Config, reporter: Reporter) -> None:
        self._reporter = reporter
        self._known: dict[tuple[str, str], Used] = {}
        self._reached: dict[tuple[ThresholdWatcher | None, str, str, float], object] = {}
        self._sources: tuple[Callable[[], Used], ...] = ()
        self.approvals: Approvals | None = None
        if config.approve is not None:
            from cycles._flows.approval import Approvals

            self.approvals = Approvals(config.approve, config.approve_above, lambda: list(self._known.values()))

    def add(self, source: Callable[[], Used]) -> None:
        """Treat what `source` returns as one more budget, for example the limit of a run."""
        self._sources = (*self._sources, source)

    def see(self, operation: str, body: Mapping[str, Any]) -> None:
        """Read the response to a request, and report the thresholds that it reaches.

        Needed only if a caller watches a threshold, or if reservations may need an approval.
        """
        if operation in WITH_BALANCES:
            self._note([*used_of(body.get("balances")), *(source() for source in self._sources)])

    def see_sources(self) -> None:
        """Read the sources again, and report the thresholds that they reach: a settlement changes them later."""
        self._note([source() for source in self._sources])

    def _note(self, budgets: list[Used]) -> None:
        reached: list[tuple[ThresholdWatcher | None, Used, float]] = []
        for used in budgets:
            # Kept also without a watcher for this scope: approvals look at it later.
            self._known[used.scope, used.unit] = used
            for watcher in self._reporter.watchers:
                reached += self._newly_reached(watcher, used)
        for target, used, threshold in reached:
            event = _event(used, threshold)
            if target is None:
                self._reporter.emit(event)
            else:
                self._reporter.call(target.callback, event)

    def _newly_reached(
        self, watcher: ThresholdWatcher, used: Used
    ) -> list[tuple[ThresholdWatcher | None, Used, float]]:
        """Return the thresholds that are reached now, also for observers (None)."""
        if watcher.scopes is not None and used.scope.lower() not in watcher.scopes:
            return []
        found: list[tuple[ThresholdWatcher | None, Used, float]] = []
        for threshold in watcher.thresholds:
            for target in (None, watcher):
                key = (target, used.scope, used.unit, threshold)
                if used.fraction < threshold - HYSTERESIS:
                    self._reached.pop(key, None)
                    continue
                # One call of C code and no lock: a signal handler may make a call, whose response is read here too.
                own = object()
                if used.fraction >= threshold and self._reached.setdefault(key, own) is own:
                    found.append((target, used, threshold))
        return found


def _event(used: Used, threshold: float) -> BudgetThreshold:
    from cycles.events import BudgetThreshold

    return BudgetThreshold(
        scope=used.scope,
        unit=used.unit,
        threshold=threshold,
        fraction=used.fraction,
        remaining=SignedAmount(used.unit, used.remaining),
        allocated=Amount(used.unit, used.allocated),
    )
