"""Collect what the dashboard shows: changed records, handled requests, faults; merge changes into numbered events.

The ledger's lock is held to copy references only. `changed` and `finished` run in the threads that handle requests, so
they parse nothing; `publish` and `state` do that, outside of the lock.
"""

from __future__ import annotations

import heapq
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
from cycles.embedded.dashboard.history import Charge, History, is_within
from cycles.embedded.dashboard.latest import Latest, drained
from cycles.embedded.dashboard.summary import View, changes_of, denials, ended_ms, event_of, summary
from cycles.embedded.faults import Fault, Faults
from cycles.embedded.forecast import Pace
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
# Requests that change something and are kept, so that a narrowed page has some too. A read has a large response.
KEPT_REQUESTS: Final = 10_000
KEPT_READS: Final = 200
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
        self._requests: deque[Handled] = deque(maxlen=KEPT_REQUESTS)
        self._reads: deque[Handled] = deque(maxlen=KEPT_READS)
        self._new_decisions: deque[Handled] = deque(maxlen=MAX_ROWS)
        self._new_requests: deque[Handled] = deque(maxlen=MAX_ROWS)
        self._thread = threading.local()
        self._publishing = threading.Lock()
        self._next_s = 0.0
        self._log = EventLog(time.time_ns() // 1_000_000, encode)  # higher than the ids of every earlier server
        self.is_closed: bool = False
        self._began_ms = clock.now_ms()
        self._history, self._denials, self._pace = History(), History(), Pace(self._began_ms)
        self._start_observing()
        self._published: Body = {"faults": rows.fault_rows(faults), "budget_count": len(self._budgets)}
        self._at_ms = clock.now_ms()

    def _start_observing(self) -> None:
        self._changes = _Changes()
        self._budgets: dict[Key, Budget] = {}
        self._active: dict[Key, Reservation] = {}
        with self._operator.locked():
            budgets, reservations, responses = self._operator.records()
            self._budgets.update((budget.key, budget) for budget in budgets)
            for row in reservations:
                self._count(None, row)
            for stored in responses:
                self._add(event_of(stored))
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
                self._add(event_of(after))
            elif isinstance(after, Budget):
                self._budgets[after.key] = after
                self._changes.budgets.put(after.key, after)
            elif isinstance(after, Reservation):
                self._count(before if isinstance(before, Reservation) else None, after)
                self._changes.reservations.put(after.key, after)
            elif after is None and isinstance(before, Budget):
                self._budgets.pop(before.key, None)
                self._changes.budgets.discard(before.key)
                self._changes.needs_reset = True

    def _count(self, before: Reservation | None, row: Reservation) -> None:
        if row.status == "ACTIVE":
            self._active[row.key] = row
        else:
            self._active.pop(row.key, None)
        self._add(changes_of(before, row))
        if row.charged is not None and (before is None or before.charged is None):
            self._pace.now_ms = self._clock.now_ms()
            self._pace.add(row.budgeted, row.unit, row.finalized_at_ms, row.charged)

    def _add(self, changes: Sequence[Charge]) -> None:
        for one in changes:
            self._history.add(one)

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
        if handled.is_denial:
            if handled.wanted is not None:
                handled.budgets = self._operator.budgets_of(handled.scopes, handled.wanted[0])
            self._denials.add(Charge(handled.at_ms, (rows.scope_path(handled) or "", "", handled.reason), 1))
        for kept in (self._requests if operation in _STORING else self._reads, self._new_requests):
            kept.append(handled)
        if handled.is_decision:
            self._new_decisions.append(handled)

    # --- events -----------------------------------------------------------------------------------------------------

    @property
    def last_event_id(self) -> int:
        """Return the id of the last event."""
        return self._log.last_id

    def after(self, event_id: int) -> tuple[list[bytes], int]:
        """Return the events after `event_id`, or a `reset` (see `EventLog.since`), and the id of the last event."""
        with self._publishing:  # streams of another listener have another thread
            return self._log.since(event_id), self._log.last_id

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
        is_advanced = isinstance(self._clock, ManualClock) and now_ms != self._at_ms
        self._at_ms = now_ms
        data: Body = {"at_ms": now_ms} if is_advanced else {}
        lists: dict[str, list[Body]] = {
            "budgets": self._budget_rows(now_ms, changes.budgets.values()[::-1]),
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

    def _budget_rows(self, now_ms: int, budgets: Sequence[Budget]) -> list[Body]:
        """Return the rows of budgets, with when those are used up that have a pace."""
        self._pace.now_ms = now_ms
        found = []
        for budget in budgets:
            row, place = rows.budget_row(budget), (budget.scope, budget.unit)
            forecast, window = self._pace.of(*place, budget.remaining, budget.spent), self._operator.window(*place)
            if window is not None:
                row["period"] = window.period
            if forecast is not None and (window is None or forecast.exhausted_at_ms < window.ends_ms):
                row["exhausted_at_ms"] = forecast.exhausted_at_ms
            found.append(row)
        return found

    # --- the state ------------------------------------------------------------------------------------------------

    def state(self, scope: str = "", search: str = "", sort: str = "share") -> Body:
        """Return the lists of a page, narrowed to a scope and to budgets whose scope contains `search`.

        Args:
            sort: A key of `rows.SORTS`.
        """
        last_event_id = self.last_event_id  # first: the state may be newer than this event, never older
        with self._operator.locked() as now_ms:
            budgets, reservations = list(self._budgets.values()), self._operator.reservations()
        found = [row for row in budgets if is_within(row.scope, scope) and search in row.scope]
        requests = [each for each in self._kept() if is_within(rows.scope_path(each), scope)]
        decisions = list(itertools.islice((each for each in requests if each.is_decision), MAX_ROWS))
        first = heapq.nsmallest(MAX_BUDGETS, found, key=rows.SORTS[sort])
        return {
            "last_event_id": last_event_id,
            "at_ms": now_ms,
            "kept_since_ms": self._kept_since_ms(),
            "budget_count": len(found),
            "budgets": self._budget_rows(now_ms, first),
            "reservations": _reservation_rows([row for row in reservations if is_within(row.scope_path, scope)]),
            "decisions": [rows.decision_row(handled) for handled in decisions],
            "requests": [rows.request_row(handled) for handled in requests[:MAX_ROWS]],
            "faults": rows.fault_rows(self._faults),
        }

    def _kept(self) -> list[Handled]:
        """Return the kept requests, the latest first."""
        return sorted([*list(self._requests), *list(self._reads)], key=lambda handled: -handled.number)

    def _kept_since_ms(self) -> int:
        kept = list(self._requests)
        return kept[0].at_ms if len(kept) == KEPT_REQUESTS else self._began_ms

    def summary(self, view: View) -> Body:
        """Return the figures, the chart and the denials of a scope in a period."""
        with self._operator.locked() as now_ms:
            budgets, active = list(self._budgets.values()), list(self._active.values())
        shown = summary(view, now_ms, self._history, budgets, active)
        return shown | {"denied": denials(view, now_ms, self._denials, self._began_ms)}

    def denied(self) -> Body:
        """Return how often each scope was denied since the dashboard was opened."""
        counts: dict[str, int] = {}
        for (scope, _), count in self._denials.counts("all", "", self.now_ms()).items():
            counts[scope] = counts.get(scope, 0) + count
        return {"since_ms": self._began_ms, "denied": counts}

    def request(self, number: int) -> Body | None:
        """Return the bodies of a request and its response, or None if it is not kept any more."""
        for handled in self._kept():
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


def _reservation_rows(found: Sequence[Reservation]) -> list[Body]:
    """Return the active reservations, then the ended ones, of each the latest first."""
    alive = [row for row in found if row.status == "ACTIVE"]
    ended = heapq.nlargest(MAX_ROWS, (row for row in found if row.status != "ACTIVE"), key=ended_ms)
    alive = alive[-(MAX_ROWS - min(MIN_SETTLED, len(ended))) :]
    return [rows.reservation_row(row) for row in (*reversed(alive), *ended[: MAX_ROWS - len(alive)])]
