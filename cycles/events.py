"""What happened, as frozen values: one class for each fact, handed to observers and written to the log.

`level` is the logging level of the fact, `text()` the one line that says it. Ids are members, and `extra` of the log
record. Nothing here holds a secret.
"""

from __future__ import annotations

import logging
from typing import Any, ClassVar

from attrs import frozen

from cycles._core.amounts import Amount


@frozen(kw_only=True)
class Event:
    """Base of all events.

    Attributes:
        reservation_id: The reservation it is about, or None where there is none.
        request_id: The server's id of the request that brought it about, or None where it is not one request's.
        trace_id: Trace id of the guard (32 hex digits), or None.
    """

    reservation_id: str | None = None
    request_id: str | None = None
    trace_id: str | None = None

    level: ClassVar[int] = logging.INFO

    def text(self) -> str:
        """The fact in one line."""
        raise NotImplementedError

    def _of(self) -> str:
        return f"reservation {self.reservation_id}"


@frozen(kw_only=True)
class Reserved(Event):
    """Budget is held for an action."""

    estimate: Amount
    decision: str
    action: str

    level = logging.DEBUG

    def text(self) -> str:
        return f"reserved {self.estimate} for {self.action}: {self._of()}, {self.decision}"


@frozen(kw_only=True)
class Denied(Event):
    """The server said no; the action did not run."""

    estimate: Amount
    action: str
    reason: str

    def text(self) -> str:
        return f"denied {self.estimate} for {self.action}: {self.reason}"


@frozen(kw_only=True)
class Unreserved(Event):
    """No server could be reached and the block runs without a reservation (`on_unavailable="allow"`)."""

    estimate: Amount
    action: str
    detail: str

    level = logging.WARNING

    def text(self) -> str:
        return (
            f"{self.action} runs unreserved ({self.estimate}); its actual is recorded as an event later: {self.detail}"
        )


@frozen(kw_only=True)
class ShadowDecided(Event):
    """Shadow mode: what the server would have decided. `decision` is None where it could not be asked."""

    estimate: Amount
    action: str
    decision: str | None
    reason_code: str | None = None
    detail: str | None = None

    level = logging.DEBUG

    @property
    def would_deny(self) -> bool:
        """True where a live reservation would not have been made."""
        return self.decision not in ("ALLOW", "ALLOW_WITH_CAPS", None)

    def text(self) -> str:
        said = self.detail if self.decision is None else f"{self.decision} {self.reason_code or ''}".rstrip()
        return f"shadow: {self.estimate} for {self.action}: {said}"


@frozen(kw_only=True)
class ShadowSettled(Event):
    """Shadow mode: what the block cost, beside what was estimated. `actual` is None where nobody said.

    `would_deny` is None where the server could not be asked.
    """

    estimate: Amount
    actual: Amount | None
    action: str
    would_deny: bool | None

    def text(self) -> str:
        cost = "an unknown amount" if self.actual is None else str(self.actual)
        decision = {
            True: "would have been denied",
            False: "would have been allowed",
            None: "the server did not say",
        }
        return f"shadow: {self.action} cost {cost}, estimated {self.estimate}; {decision[self.would_deny]}"


@frozen(kw_only=True)
class LeaseExtended(Event):
    """The heartbeat moved the end of the lease. `expires_at_ms` is server time."""

    expires_at_ms: int | None

    level = logging.DEBUG

    def text(self) -> str:
        return f"{self._of()}: lease extended"


@frozen(kw_only=True)
class LeaseRetrying(Event):
    """An extension failed and is tried again with the same key."""

    detail: str
    retry_in_ms: int

    level = logging.WARNING

    @property
    def disposition(self) -> str:
        """What the heartbeat does about it."""
        return f"retrying in {self.retry_in_ms / 1000:.1f} s"

    def text(self) -> str:
        return f"{self._of()}: extending the lease failed, {self.disposition}: {self.detail}"


@frozen(kw_only=True)
class LeaseLost(Event):
    """The heartbeat stopped for good. The work is not touched under the policy ``warn``."""

    detail: str
    lasts_ms: int

    level = logging.WARNING

    @property
    def disposition(self) -> str:
        """What the heartbeat does about it."""
        return f"stopped: {self.detail}"

    def text(self) -> str:
        left = f"; the lease holds for about {self.lasts_ms / 1000:.0f} s more" if self.lasts_ms > 0 else ""
        return f"{self._of()}: heartbeat {self.disposition}{left}"


@frozen(kw_only=True)
class LeaseNotice(Event):
    """Something the heartbeat noticed that may shorten the lease: a short lease, a server of the older kind."""

    kind: str
    detail: str

    level = logging.WARNING

    def text(self) -> str:
        return f"{self._of()}: {self.detail}"


@frozen(kw_only=True)
class HeartbeatDelayed(Event):
    """A heartbeat ran late: the event loop, or the machine, was busy with something else."""

    late_ms: int
    blocked_loop: bool

    level = logging.WARNING

    def text(self) -> str:
        cause = "the machine is overloaded?"
        if self.blocked_loop:
            cause = "the event loop was blocked: is there blocking code in an async block?"
        return f"{self._of()}: heartbeat {self.late_ms / 1000:.1f} s late; {cause}"


@frozen(kw_only=True)
class Settled(Event):
    """The server has the actual. `recovered` is True where it took more than the guard's own attempt."""

    status: str
    actual: Amount
    charged: Amount | None
    recovered: bool = False

    def text(self) -> str:
        how = "recorded as an event" if self.status == "recorded_as_event" else "committed"
        return (
            f"{self._of()}: {how}, {self.charged or self.actual} charged{' after a recovery' if self.recovered else ''}"
        )


@frozen(kw_only=True)
class Undercharged(Event):
    """Less was charged than was spent: the budget had no more."""

    actual: Amount
    charged: Amount

    level = logging.WARNING

    def text(self) -> str:
        return f"{self._of()}: only {self.charged} of {self.actual} could be charged; fund the budget"


@frozen(kw_only=True)
class SettlementPending(Event):
    """An amount is known and not yet on the server; the client goes on settling it with the same key."""

    actual: Amount
    detail: str
    journaled: bool

    level = logging.WARNING

    def text(self) -> str:
        where = "it is in the journal" if self.journaled else "it is only in memory"
        return f"{self._of()}: {self.actual} not settled yet, {where} and tried again in the background: {self.detail}"


@frozen(kw_only=True)
class SettlementRejected(Event):
    """The server refused an amount for good; it is in no ledger."""

    actual: Amount
    detail: str

    level = logging.ERROR

    def text(self) -> str:
        return f"{self._of()}: {self.actual} was refused for good and is in no ledger: {self.detail}"


@frozen(kw_only=True)
class Released(Event):
    """The reserved amount went back to the budget."""

    reason: str | None

    def text(self) -> str:
        return f"{self._of()}: released ({self.reason or 'no reason given'})"


@frozen(kw_only=True)
class ReleaseFailed(Event):
    """A release did not get through; where it is not tried again, the end of the lease gives the budget back."""

    detail: str
    retrying: bool

    level = logging.WARNING

    def text(self) -> str:
        then = "tried again in the background" if self.retrying else "the budget comes back when the lease ends"
        return f"{self._of()}: release failed, {then}: {self.detail}"


@frozen(kw_only=True)
class GuardNotCommitted(Event):
    """A block ended, or a guard was dropped, without anyone saying what it cost."""

    detail: str

    level = logging.WARNING

    def text(self) -> str:
        return f"{self._of()}: {self.detail}; its budget is released"


@frozen(kw_only=True)
class ValuesOmitted(Event):
    """Parts of metrics or metadata could not be sent; the amount is settled without them."""

    names: tuple[str, ...]

    level = logging.WARNING

    def text(self) -> str:
        return f"{self._of()}: settled without {', '.join(self.names)}, which are no JSON or were not taken"


@frozen(kw_only=True)
class ActualFailed(Event):
    """The caller's `actual` callable failed; the estimate is committed in its place."""

    estimate: Amount
    detail: str

    level = logging.WARNING

    def text(self) -> str:
        return (
            f"{self._of()}: the actual= callable failed ({self.detail}); the estimate of {self.estimate} is committed"
        )


@frozen(kw_only=True)
class JournalProblem(Event):
    """The journal could not do something, or set a record aside. Settlements go on all the same."""

    detail: str
    quarantined: bool = False

    level = logging.WARNING

    def text(self) -> str:
        return f"journal: {self.detail}"


@frozen(kw_only=True)
class SettlementsLeftPending(Event):
    """The client was left with settlements pending; they stay in the journal for the next start."""

    settled: int
    pending: int
    directory: str | None

    level = logging.WARNING

    def text(self) -> str:
        where = (
            f"in {self.directory}; the next client of this server settles them" if self.directory else "in memory only"
        )
        what = "1 settlement is" if self.pending == 1 else f"{self.pending} settlements are"
        return f"{what} still pending, kept {where}"


def log_extra(event: Event) -> dict[str, Any]:
    """The ids of an event, for `extra` of its log record."""
    ids = {"reservation_id": event.reservation_id, "request_id": event.request_id, "trace_id": event.trace_id}
    return {"cycles_event": type(event).__name__, **ids}
