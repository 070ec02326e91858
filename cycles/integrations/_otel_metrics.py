"""The metrics of `cycles.integrations.opentelemetry`. No subject, action name or id is an attribute (cardinality)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import Histogram, Meter

import cycles

if TYPE_CHECKING:
    from cycles import Amount, TracedGuard
    from cycles.events import Settled

_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_MOST_PENDING: Final = 10_000  # settlements whose kind is kept until they are confirmed


class GuardMetrics:
    """The instruments of one client."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._reservations = meter.create_counter("cycles.reservations", "{reservation}", "Reserve requests")
        self._settlements = meter.create_counter("cycles.settlements", "{settlement}", "Guards that have ended")
        self._active = meter.create_up_down_counter("cycles.guards.active", "{guard}", "Guards that have not ended")
        self._lost = meter.create_counter("cycles.leases.lost", "{lease}", "Leases whose heartbeat stopped")
        self._operations = _histogram(meter, "cycles.operation.duration", "Duration of one attempt of a request")
        self._guards = _histogram(meter, "cycles.guard.duration", "Time from the reserve to the settlement")
        self._amounts: dict[tuple[str, str], Any] = {}
        self._pending: dict[str, str] = {}

    def opened(self, guard: TracedGuard, *, has_reserved: bool) -> None:
        """Count a guard, and if it `has_reserved` its reservation and what that holds."""
        kind = {"cycles.action.kind": guard.request.action.kind}
        self._active.add(1, kind)
        if has_reserved:
            self._reservations.add(1, {**kind, "cycles.decision": guard.decision or "ERROR"})
        if has_reserved and guard.reservation_id is not None:
            self._add("reserved", guard.request.estimate, kind)

    def refused(self, kind: str, error: BaseException, error_type: str) -> None:
        """Count a reserve without a guard."""
        decision = "DENY" if isinstance(error, cycles.ReservationDeniedError) else "ERROR"
        attributes = {"cycles.action.kind": kind, "cycles.decision": decision, "error.type": error_type}
        self._reservations.add(1, attributes)

    def ended(self, guard: TracedGuard, state: str, seconds: float) -> None:
        """Count a settlement, and what was charged."""
        kind = guard.request.action.kind
        attributes = {"cycles.action.kind": kind, "cycles.state": state}
        self._active.add(-1, {"cycles.action.kind": kind})
        self._settlements.add(1, attributes)
        self._guards.record(seconds, attributes)
        charged = guard.charged
        if charged is not None:
            self._add("charged", charged, {"cycles.action.kind": kind})
        elif state == "pending" and guard.reservation_id is not None and len(self._pending) < _MOST_PENDING:
            self._pending[guard.reservation_id] = kind

    def confirmed(self, event: Settled) -> None:
        """Count what a pending settlement of this process was charged."""
        kind = self._pending.pop(event.reservation_id or "", None)
        if kind is not None and event.charged is not None:
            self._add("charged", event.charged, {"cycles.action.kind": kind})

    def operation(self, name: str, error_type: str | None, seconds: float) -> None:
        """Record the duration of one attempt."""
        attributes = {"cycles.operation": name}
        self._operations.record(seconds, attributes if error_type is None else {**attributes, "error.type": error_type})

    def lost(self) -> None:
        """Count a lost lease."""
        self._lost.add(1)

    def _add(self, what: str, amount: Amount, attributes: dict[str, str]) -> None:
        unit = str(amount.unit).lower()
        counter = self._amounts.get((what, unit))
        if counter is None:  # one for each unit, so that sums mean something
            counter = self._meter.create_counter(f"cycles.{what}.{unit}", f"{{{unit.removesuffix('s')}}}")
            self._amounts[what, unit] = counter
        counter.add(amount.amount, attributes)


def _histogram(meter: Meter, name: str, description: str) -> Histogram:
    try:
        return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=_BUCKETS)
    except TypeError:  # an older version of the API
        return meter.create_histogram(name, "s", description)
