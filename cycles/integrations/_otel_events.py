"""The spans of live guards, and the events that are noted on them."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from cycles import TracedGuard
    from cycles.events import Event

_OF_A_LEASE: Final = ("LeaseLost", "LeaseRetrying", "HeartbeatDelayed", "Undercharged")
_MOST_EARLY: Final = 64  # events of leases that are lost before their guard is known
_OF_A_GUARD: Final = ("GuardNotCommitted", "ActualFailed")


class LiveSpans:
    """The spans of guards that have not ended, by the id of their reservation. Guards of a pool share one."""

    def __init__(self) -> None:
        self._spans: dict[str, list[tuple[TracedGuard, Span]]] = {}
        self._early: deque[Event] = deque(maxlen=_MOST_EARLY)
        self._lock = threading.Lock()

    def add(self, reservation_id: str, guard: TracedGuard, span: Span) -> None:
        """Note events of the guard on its span from now on."""
        with self._lock:
            self._spans.setdefault(reservation_id, []).append((guard, span))
            early = [event for event in self._early if event.trace_id is guard.trace_id]
        for event in early:
            _add(event, span)

    def remove(self, reservation_id: str, guard: TracedGuard) -> None:
        """Note no more events of the guard."""
        with self._lock:
            left = [known for known in self._spans.pop(reservation_id, ()) if known[0] is not guard]
            if left:
                self._spans[reservation_id] = left

    def note(self, event: Event) -> None:
        """Note an event: one of a lease on each span of its reservation, any other on the span of its guard."""
        name = type(event).__name__
        if name not in _OF_A_LEASE + _OF_A_GUARD:
            return
        with self._lock:
            known = self._spans.get(event.reservation_id or "", ())
            spans = [span for guard, span in known if name in _OF_A_LEASE or guard.trace_id is event.trace_id]
            if not known:
                self._early.append(event)
        for span in spans:
            _add(event, span)


def _add(event: Event, span: Span) -> None:
    detail = str(getattr(event, "detail", None) or event.text())
    span.add_event(type(event).__name__, {"cycles.detail": detail})
