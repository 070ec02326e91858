"""Collect what the dashboard shows: changed records, handled requests, faults; merge changes into numbered events.

The ledger's lock is held to copy references only. `changed` and `finished` run in the threads that handle requests, so
they parse nothing; `publish` and `state` do that, outside of the lock.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from cycles.embedded.clock import Clock, ManualClock
from cycles.embedded.dashboard import rows
from cycles.embedded.dashboard.event_log import EventLog
from cycles.embedded.dashboard.handled import Handled
from cycles.embedded.dashboard.latest import Latest, drained
from cycles.embedded.faults import Fault, Faults
from cycles.embedded.forecast import Pace, forecasts
from cycles.embedded.http import Request, Response
from cycles.embedded.operator import Operator
from cycles.embedded.records import Body, Budget, Key, Record, Reservation, StoredResponse

MAX_BUDGETS: Final = 500
MAX_ROWS: Final = 200
# Settled reservations take at least this many of the rows, however many are active.
MIN_SETTLED: Final = 50
# At most ten events a second.
EVENT_PAUSE_S: Final = 0.1
# More changed records than this are not merged into one event: the page reads the state again.
MAX_MERGED: Final = 2_000
# Settled reservations that are kept, so that a narrowed page has some too.
KEPT_SETTLED: Final = 1_000
# Longest shown part of a body.
MAX_SHOWN_BYTES: Final = 100_000
_STORING: Final = ("decide", "reserve", "commit", "release", "extend", "event")


class _Changes:
    """What changed since the last event. The ledger's lock guards it."""

    def __init__(self) -> None:
        self.budgets: Latest[Key, Budget] = Latest(MAX_MERGED)
        self.reservations: Latest[Key, Reservation] = Latest(MAX_MERGED)
        self.needs_reset = False


class Feed:
    """The state of the dashboard of one server.

    Args:
        encode: Makes JSON without API keys.
        timer: Monotonic time in seconds, for the pauses between events.
    """

    def __init__(
        self,
        operator: Operator,
        faults: Faults,
        clock: Clock,
        encode: Callable[[Any], bytes],
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._operator = operator
        self._faults = faults
        self._clock = clock
        self._timer = timer
        self._numbers = itertools.count(1)
        self._decisions: deque[Handled] = deque(maxlen=MAX_ROWS)
        self._requests: deque[Handled] = deque(maxlen=MAX_ROWS)
        self._new_decisions: deque[Handled] = deque(maxlen=MAX_ROWS)
        self._new_requests: deque[Handled] = deque(maxlen=MAX_ROWS)
        self._thread = threading.local()
        self._publishing = threading.Lock()
        self._next_s = 0.0
        self._log = EventLog(time.time_ns() // 1_000_000, encode)  # higher than the ids of every earlier server
        self.is_closed: bool = False
        self._start_observing()
        self._published: Body = {"faults": rows.fault_rows(faults), "budget_count": len(self._budgets)}
        self._at_ms = clock.now_ms()

    def _start_observing(self) -> None:
        self._changes = _Changes()
        self._budgets: Latest[Key, Budget] = Latest()
        self._active: Latest[Key, Reservation] = Latest()
        self._settled: Latest[Key, Reservation] = Latest(KEPT_SETTLED)
        with self._operator.locked():
            budgets, reservations = self._operator.records()
            for budget in budgets:
                self._budgets.put(budget.key, budget)
            for row in sorted(reservations, key=lambda row: row.finalized_at_ms or row.created_at_ms):
                self._keep(row)
            self._operator.observe(self.changed)

    # --- called while requests are handled ------------------------------------------------------------------------

    def started(self) -> None:
        """Take note that this thread begins to handle a request."""
        self._thread.stored = False

    def changed(self, changes: Sequence[tuple[Record | None, Record | None]]) -> None:
        """Take note of changed records. The ledger calls it while it is locked."""
        for before, after in changes:
            if isinstance(after, StoredResponse):
                self._thread.stored = True
            elif isinstance(after, Budget):
                self._budgets.put(after.key, after)
                self._changes.budgets.put(after.key, after)
            elif isinstance(after, Reservation):
                self._keep(after)
                self._changes.reservations.put(after.key, after)
            elif after is None and isinstance(before, Budget):
                self._budgets.discard(before.key)
                self._changes.budgets.discard(before.key)
                self._changes.needs_reset = True

    def _keep(self, row: Reservation) -> None:
        if row.status == "ACTIVE":
            self._active.put(row.key, row)
        else:
            self._active.discard(row.key)
            self._settled.put(row.key, row)

    def finished(
        self,
        request: Request,
        operation: str | None,
        response: Response | None,
        fault: Fault | None,
        took_ms: float,
    ) -> None:
        """Take note of a handled request. Its response is None if a fault kept it from the ledger."""
        succeeded = response is not None and response.status < 300
        handled = Handled(
            number=next(self._numbers),
            at_ms=self._clock.now_ms(),
            operation=operation,
            request=request,
            response=response,
            fault=fault,
            took_ms=took_ms,
            is_replay=succeeded and operation in _STORING and not getattr(self._thread, "stored", False),
        )
        if handled.is_denial and handled.wanted is not None:
            handled.budgets = self._operator.budgets_of(handled.scopes, handled.wanted[0])
        for kept in (self._requests, self._new_requests):
            kept.append(handled)
        if handled.is_decision:
            self._decisions.append(handled)
            self._new_decisions.append(handled)

    # --- events -----------------------------------------------------------------------------------------------------

    @property
    def last_event_id(self) -> int:
        """Return the id of the last event."""
        return self._log.last_id

    def since(self, event_id: int) -> list[bytes]:
        """Return the events after `event_id`: a `reset` if they are not kept any more or the id is unknown."""
        return self._log.since(event_id)

    def now_ms(self) -> int:
        """Return the time of the server's clock in milliseconds since the epoch."""
        return self._clock.now_ms()

    def publish(self) -> float:
        """Number what changed since the last event, and return the seconds until there may be another one."""
        with self._publishing:
            now_s = self._timer()
            if now_s < self._next_s or self.is_closed:
                return max(self._next_s - now_s, EVENT_PAUSE_S / 10)
            needs_reset, data = self._changed_members()
            if needs_reset or data:
                self._log.add(None if needs_reset else {"at_ms": self._at_ms, **data})
                self._next_s = now_s + EVENT_PAUSE_S
            return EVENT_PAUSE_S

    def _changed_members(self) -> tuple[bool, Body]:
        with self._operator.locked() as now_ms:
            changes, self._changes = self._changes, _Changes()
            count = len(self._budgets)
            settled = self._settled.values()
        is_advanced = isinstance(self._clock, ManualClock) and now_ms != self._at_ms
        self._at_ms = now_ms
        data: Body = {"at_ms": now_ms} if is_advanced else {}
        lists: dict[str, list[Body]] = {
            "budgets": self._budget_rows(now_ms, changes.budgets.values()[::-1], settled),
            "reservations": [rows.reservation_row(row) for row in reversed(changes.reservations.values())],
            "decisions": [rows.decision_row(handled) for handled in reversed([*drained(self._new_decisions)])],
            "requests": [rows.request_row(handled) for handled in reversed([*drained(self._new_requests)])],
        }
        data |= {name: found for name, found in lists.items() if found}
        shown: Body = {"faults": rows.fault_rows(self._faults), "budget_count": count}
        data |= {name: value for name, value in shown.items() if value != self._published[name]}
        self._published = shown
        has_dropped = changes.budgets.has_dropped or changes.reservations.has_dropped
        return changes.needs_reset or has_dropped, data

    def _budget_rows(self, now_ms: int, budgets: Sequence[Budget], settled: Sequence[Reservation]) -> list[Body]:
        """Return the rows of budgets, with when those are used up that have a pace."""
        pace = Pace(now_ms)
        for row in settled:
            if row.charged is not None:
                pace.add(row.budgeted, row.unit, row.finalized_at_ms, row.charged)
        windows = {key: window for key in pace.places if (window := self._operator.window(*key)) is not None}
        used_up = {(each.scope, each.unit): each.exhausted_at_ms for each in forecasts(pace, budgets, windows)}
        found = []
        for budget in budgets:
            at_ms = used_up.get((budget.scope, budget.unit))
            found.append(rows.budget_row(budget) | ({} if at_ms is None else {"exhausted_at_ms": at_ms}))
        return found

    # --- the state ------------------------------------------------------------------------------------------------

    def state(self, scope: str = "", search: str = "") -> Body:
        """Return everything that a page shows, narrowed to a scope and to budgets whose scope contains `search`."""
        last_event_id = self.last_event_id  # first: the state may be newer than this event, never older
        with self._operator.locked() as now_ms:
            budgets, active, settled = self._budgets.values(), self._active.values(), self._settled.values()
        found = [row for row in budgets if is_within(row.scope, scope) and search in row.scope]
        decisions = [row for row in list(self._decisions) if is_within(rows.scope_path(row), scope)]
        requests = [row for row in list(self._requests) if is_within(rows.scope_path(row), scope)]
        return {
            "last_event_id": last_event_id,
            "at_ms": now_ms,
            "budget_count": len(found),
            "budgets": self._budget_rows(now_ms, found[-MAX_BUDGETS:][::-1], settled),
            "reservations": _reservation_rows(active, settled, scope),
            "decisions": [rows.decision_row(handled) for handled in reversed(decisions)],
            "requests": [rows.request_row(handled) for handled in reversed(requests)],
            "faults": rows.fault_rows(self._faults),
        }

    def request(self, number: int) -> Body | None:
        """Return the bodies of a request and its response, or None if it is not kept any more."""
        for handled in list(self._requests):
            if handled.number == number:
                response = b"" if handled.response is None else handled.response.body
                return {"id": number, "body": _text(handled.request.body), "response": _text(response)}
        return None

    def close(self) -> None:
        """Make no more events."""
        with self._publishing:
            self.is_closed = True


def _text(body: bytes) -> str:
    return body[:MAX_SHOWN_BYTES].decode("utf-8", "replace")


def is_within(path: str | None, scope: str) -> bool:
    """Return whether a scope is `scope` or below it; every one is within an empty scope."""
    return not scope or (path is not None and (path == scope or path.startswith(f"{scope}/")))


def _reservation_rows(active: Sequence[Reservation], settled: Sequence[Reservation], scope: str) -> list[Body]:
    """Return the active reservations, then the settled ones, of each the latest change first."""
    ended = [row for row in settled if is_within(row.scope_path, scope)]
    alive = [row for row in active if is_within(row.scope_path, scope)][-(MAX_ROWS - min(MIN_SETTLED, len(ended))) :]
    ended = ended[-(MAX_ROWS - len(alive)) :]
    return [rows.reservation_row(row) for row in (*reversed(alive), *reversed(ended))]
