"""Report events to the user's observers and to the logger `cycles`; with `CYCLES_LOG` each request on stderr.

Event classes are loaded when an observer or a log handler wants them: a silent client never loads them.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cycles._core.amounts import Amount
from cycles._core.messages.outcome import Outcome
from cycles._core.messages.requests import CallOptions, new_trace_id
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.settlement.settlement import FlushReport, PendingSettlement
from cycles._errors import ConfigurationError
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.reports import LEVELS, event_of
from cycles._journal.journal import JournalIssue

if TYPE_CHECKING:
    from cycles._core.messages.used_fraction import ThresholdWatcher
    from cycles._drivers.tracing import SafeTrace
    from cycles.events import Event

Observer: TypeAlias = "Callable[[Event], object]"
RequestLog: TypeAlias = Callable[[str, str, float, Outcome], None]

DELAYED_MS: Final = 250.0  # later than any healthy scheduler, and far below the reserve of a lease
DELAYED_AGAIN_MS: Final = 60_000.0  # one warning a minute, also for ten thousand guards

logger = logging.getLogger("cycles")


ONCE_PER_CLIENT: Final = ("fallback",)
"""Kinds of `LeaseNotice` that are a property of the server, the same for each of its leases."""
LONGEST_MESSAGE: Final = 2_000
"""Characters of a log record that are kept: more is the page of a proxy, not a message."""


class Reporter:
    """The observers and the tracer of one client, and what its drivers report to them."""

    def __init__(self) -> None:
        self._observers: tuple[Observer, ...] = ()
        self.watchers: tuple[ThresholdWatcher, ...] = ()
        self.trace: SafeTrace | None = None  # the tracer, if there is one
        self._delay_reported_ms = -DELAYED_AGAIN_MS
        self._noticed: set[str] = set()

    def begin_trace(self, request: ReserveRequest, known: str | None = None) -> CallOptions:
        """Return the options of a guard's requests, with the trace of the guard.

        `known` is the id of the guard's earlier requests, or a new one: the tracer's own wins, else it is kept.
        """
        trace = None if self.trace is None else self.trace.begin(request)
        given = None if trace is None else trace.trace_id
        trace_id = given or known or new_trace_id()
        return CallOptions(trace_id, request.timeout, request.extra_headers or {}, request.max_retries, trace)

    def add(self, observer: Observer) -> Callable[[], None]:
        """Add an observer; the returned callable removes it."""
        self._observers = (*self._observers, observer)

        def remove() -> None:
            self._observers = tuple(other for other in self._observers if other is not observer)

        return remove

    def watch(self, watcher: ThresholdWatcher) -> Callable[[], None]:
        """Add a watcher of thresholds; the returned callable removes it."""
        self.watchers = (*self.watchers, watcher)

        def remove() -> None:
            self.watchers = tuple(other for other in self.watchers if other is not watcher)

        return remove

    def _is_repeated(self, event: Event) -> bool:
        kind = getattr(event, "kind", None)
        if hasattr(event, "replacement"):
            kind = f"action kind {kind}"
        elif kind not in ONCE_PER_CLIENT:
            return False
        is_known = kind in self._noticed
        self._noticed.add(kind)
        return is_known

    def is_enabled_for(self, level: int) -> bool:
        """Return whether an observer or a log handler wants events of this logging level."""
        return bool(self._observers) or logger.isEnabledFor(level)

    def report(self, name: str, ids: object = None, **members: Any) -> None:
        """Report the event `name`, if an observer or the log takes it. See `Io.report`."""
        if self._observers or logger.isEnabledFor(LEVELS[name]):
            event = event_of(name, ids, members)
            if event is not None:
                self.emit(event)

    def emit(self, event: Event) -> None:
        """Log the event and call each observer with it. What an observer raises is logged and goes no further."""
        # A property of the server or of a kind of action: one line is enough for a process.
        if self._is_repeated(event):
            return
        if logger.isEnabledFor(event.level):
            logger.log(event.level, "%s", log_message(event.text()), extra=_log_extra(event))
        for observer in self._observers:
            self.call(observer, event)
        if hasattr(event, "replacement"):
            warnings.warn(event.text(), DeprecationWarning, stacklevel=2)

    def call(self, observer: Callable[[Any], object], event: Event) -> None:
        """Call one observer. What it raises is logged and goes no further."""
        try:
            observer(event)
        except Exception:  # an observer must never break a guard
            logger.exception(
                "observer failed on %s, other observers are called; correct the observer", type(event).__name__
            )

    def left_pending(self, flushed: FlushReport, left: list[PendingSettlement], directory: str | None) -> None:
        """Report what a client leaves pending when it closes. Without a journal, an error lists each amount."""
        total = ", ".join(str(amount) for amount in _sums(left)) or None
        counts = {"settled": flushed.settled, "pending": flushed.pending}
        self.report("SettlementsLeftPending", **counts, directory=directory, total=total)
        if directory is None and left:
            amounts = tuple((each.reservation_id, each.amount) for each in left)
            self.report("SettlementsLost", amounts=amounts)

    def journal_issue(self, issue: JournalIssue) -> None:
        """Report a problem of the journal."""
        self.report("JournalProblem", detail=issue.message, quarantined=issue.kind == "quarantined")

    def journal_problem(self, detail: str) -> None:
        """Report something that the journal cannot do."""
        self.report("JournalProblem", detail=detail)

    def note_heartbeat_delay(self, heartbeat: Heartbeat, due_ms: float, now_ms: float, *, blocked_loop: bool) -> None:
        """Report a heartbeat that runs late, at most once a minute."""
        if now_ms - due_ms < DELAYED_MS or now_ms - self._delay_reported_ms < DELAYED_AGAIN_MS:
            return
        self._delay_reported_ms = now_ms
        self.report("HeartbeatDelayed", heartbeat, late_ms=round(now_ms - due_ms), blocked_loop=blocked_loop)


def _sums(pending: list[PendingSettlement]) -> list[Amount]:
    """Return the sum of the amounts, one for each unit."""
    sums: dict[str, Amount] = {}
    for each in pending:
        known = sums.get(each.amount.unit)
        sums[each.amount.unit] = each.amount if known is None else known + each.amount
    return list(sums.values())


def log_message(text: str) -> str:
    """Return `text` as one printable line of bounded length: it may contain a message of any proxy."""
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[:LONGEST_MESSAGE]}..."
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _log_extra(event: Event) -> dict[str, Any]:
    """Return the ids of an event as `extra` of its log record."""
    ids = {"reservation_id": event.reservation_id, "request_id": event.request_id, "trace_id": event.trace_id}
    return {"cycles_event": type(event).__name__, **ids}


def request_log() -> RequestLog | None:
    """Return what writes the line of one request, or None if `CYCLES_LOG` is not set.

    Raises:
        ConfigurationError: `CYCLES_LOG` is another word than ``info`` or ``debug``.
    """
    # For scripts. No line has a key, a query or a body.
    level = os.environ.get("CYCLES_LOG", "").strip().lower()
    if not level:
        return None
    if level not in ("info", "debug"):
        raise ConfigurationError(f"CYCLES_LOG must be info or debug, got {level!r:.60}: correct it or unset it")
    is_debug = level == "debug"

    def write(method: str, target: str, seconds: float, outcome: Outcome) -> None:
        status = getattr(outcome, "status", None) or "no response"
        request_id = getattr(outcome, "request_id", None) or "-"
        message = (
            f"cycles: {method} {target.partition('?')[0]} {status} {seconds * 1000:.0f} ms request {request_id:.128}"
        )
        if is_debug:
            message += f" {type(outcome).__name__}{_detail(outcome)}"
        print(message, file=sys.stderr)

    return write


def _detail(outcome: Outcome) -> str:
    code = getattr(outcome, "code", None)
    if code:
        return f" {code:.80}"
    cause = getattr(outcome, "cause", None)
    return f" {type(cause).__name__}" if cause is not None else ""
