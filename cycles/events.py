"""Events: one frozen class for each thing that can happen, passed to observers and written to the logger `cycles`.

`level` is the logging level of an event, and `text()` is its log message: one line that begins with the reservation.
The ids are members of the event and `extra` of the log record. No event contains a secret.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import frozen

from cycles._core.amounts import Amount
from cycles._core.protocol import is_allowed
from cycles._version import readable

if TYPE_CHECKING:  # for annotations only: they are no names of this module
    from cycles._core.amounts import SignedAmount
    from cycles._core.subjects import Action, Subject
    from cycles._core.values.usage import Metrics


@frozen(kw_only=True)
class Event:
    """Base class of all events.

    Attributes:
        reservation_id: Id of the reservation, or None if there is none.
        request_id: The server's id of the request that caused the event, or None if no single request did.
        trace_id: Trace id of the guard (32 hex digits), or None.
        detail: The cause, on events that have one.
    """

    reservation_id: str | None = None
    request_id: str | None = None
    trace_id: str | None = None

    level: ClassVar[int] = logging.INFO

    def text(self) -> str:
        """Return the log message: one line. Of an event without its own, the name of its class."""
        return type(self).__name__

    @property
    def _id(self) -> str:
        return f"reservation {self.reservation_id}"


@frozen(kw_only=True)
class Reserved(Event):
    """Budget is held for an action."""

    estimate: Amount
    decision: str
    action: str

    level = logging.DEBUG

    def text(self) -> str:
        return f"{self._id}: {self.estimate} reserved for {self.action} ({self.decision})"


@frozen(kw_only=True)
class Denied(Event):
    """The server denied a reservation; the action did not run."""

    estimate: Amount
    action: str
    reason: str

    def text(self) -> str:
        return f"reservation of {self.estimate} for {self.action} denied: {self.reason}"


@frozen(kw_only=True)
class Unreserved(Event):
    """No server could be reached, and the block runs without a reservation (`on_unavailable="allow"`)."""

    estimate: Amount
    action: str
    detail: str

    level = logging.WARNING

    def text(self) -> str:
        return (
            f"reservation of {self.estimate} for {self.action}: no server reached ({self.detail}); "
            "the block runs without a reservation, and its cost is recorded as an event later"
        )


@frozen(kw_only=True)
class LeaseExtended(Event):
    """A heartbeat extended the lease. `expires_at_ms` is server time (milliseconds)."""

    expires_at_ms: int | None

    level = logging.DEBUG

    def text(self) -> str:
        return f"{self._id}: lease extended"


@frozen(kw_only=True)
class LeaseRetrying(Event):
    """An extension of the lease failed and is retried with the same key."""

    detail: str
    retry_in_ms: int

    level = logging.WARNING

    @property
    def disposition(self) -> str:
        """What the heartbeat does next."""
        return f"retrying in {self.retry_in_ms / 1000:.1f} s"

    def text(self) -> str:
        return f"{self._id}: extending the lease failed ({self.detail}); {self.disposition}"


@frozen(kw_only=True)
class LeaseLost(Event):
    """The heartbeat stopped permanently. Under the lease policy ``warn`` the block continues."""

    detail: str
    lasts_ms: int

    level = logging.WARNING

    @property
    def disposition(self) -> str:
        """What the heartbeat does next."""
        return f"stopped: {self.detail}"

    def text(self) -> str:
        left = f"; the lease ends in about {self.lasts_ms / 1000:.0f} s" if self.lasts_ms > 0 else "; the lease is over"
        return f"{self._id}: heartbeat {self.disposition}{left}"


@frozen(kw_only=True)
class LeaseNotice(Event):
    """Something that may shorten the lease: a short lease, or an older server. `kind` names it."""

    kind: str
    detail: str

    level = logging.WARNING

    def text(self) -> str:
        return f"{self._id}: {self.detail}"


@frozen(kw_only=True)
class HeartbeatDelayed(Event):
    """A heartbeat ran late because the event loop or the machine was busy."""

    late_ms: int
    blocked_loop: bool

    level = logging.WARNING

    def text(self) -> str:
        cause = "the machine or the process was busy"
        if self.blocked_loop:
            cause = "the event loop was blocked; run blocking code with asyncio.to_thread"
        return f"{self._id}: heartbeat {self.late_ms / 1000:.1f} s late: {cause}"


@frozen(kw_only=True)
class Settled(Event):
    """The server confirmed the actual amount. `recovered` is True if the guard's own attempt did not suffice."""

    status: str
    actual: Amount
    charged: Amount | None
    recovered: bool = False

    def text(self) -> str:
        how = "recorded as an event" if self.status == "recorded_as_event" else "committed"
        after = " after a retry in the background" if self.recovered else ""
        return f"{self._id}: {how}, {self.charged or self.actual} charged{after}"


@frozen(kw_only=True)
class Undercharged(Event):
    """Less was charged than was spent, because the remaining budget was smaller."""

    actual: Amount
    charged: Amount

    level = logging.WARNING

    def text(self) -> str:
        return f"{self._id}: only {self.charged} of {self.actual} charged; the remaining budget was smaller, fund it"


@frozen(kw_only=True)
class FarAboveEstimate(Event):
    """More than 100 times the estimate was committed: the unit or the price is probably wrong."""

    estimate: Amount
    actual: Amount

    level = logging.WARNING

    def text(self) -> str:
        times = self.actual.amount // self.estimate.amount
        return (
            f"{self._id}: {self.actual} was committed, {times:,} times its estimate of {self.estimate}; check the unit "
            "and the price"
        )


@frozen(kw_only=True)
class SettlementPending(Event):
    """An amount is known and not yet confirmed by the server. The client retries with the same key."""

    actual: Amount
    detail: str
    journaled: bool

    level = logging.WARNING

    def text(self) -> str:
        saved = "saved in the journal" if self.journaled else "kept in memory only"
        return f"{self._id}: commit of {self.actual} is pending ({self.detail}); {saved}, retrying in the background"


@frozen(kw_only=True)
class SettlementRejected(Event):
    """The server rejected an amount permanently. The amount is in no ledger.

    `guards` is the number of guards whose sum it is, if it is the commit of a pool's chunk; otherwise None. `hint` says
    where the amount is kept, or how to record it by hand if the client has no journal.
    """

    actual: Amount
    detail: str
    guards: int | None = None
    hint: str = "client.pending(rejected=True) lists it"

    level = logging.ERROR

    def text(self) -> str:
        whose = "" if self.guards is None else f" of {self.guards} guard{'s' * (self.guards != 1)} of a pool"
        problem = f"commit of {self.actual}{whose} was rejected, so the amount is in no ledger ({self.detail})"
        return f"{self._id}: {problem}; {self.hint}"


@frozen(kw_only=True)
class Released(Event):
    """The reserved budget was released."""

    reason: str | None

    def text(self) -> str:
        return f"{self._id}: released ({self.reason or 'no reason given'})"


@frozen(kw_only=True)
class ReleaseFailed(Event):
    """A release failed. If it is not retried, the server releases the budget when the lease ends."""

    detail: str
    retrying: bool

    level = logging.WARNING

    def text(self) -> str:
        then = "retrying in the background" if self.retrying else "the server releases the budget when the lease ends"
        return f"{self._id}: release failed ({self.detail}); {then}"


@frozen(kw_only=True)
class GuardNotCommitted(Event):
    """A block ended, or a guard was garbage-collected, and no cost was reported."""

    detail: str

    level = logging.WARNING

    def text(self) -> str:
        return f"{self._id}: {self.detail}"


@frozen(kw_only=True)
class ValuesOmitted(Event):
    """Parts of metrics or metadata were omitted. The amount is settled without them."""

    names: tuple[str, ...]

    level = logging.WARNING

    def text(self) -> str:
        return f"{self._id}: {', '.join(self.names)} omitted, because the protocol does not allow the value"


@frozen(kw_only=True)
class ActualFailed(Event):
    """The caller's `actual` callable failed. The estimate is committed instead."""

    estimate: Amount
    detail: str

    level = logging.WARNING

    def text(self) -> str:
        return f"{self._id}: the actual= callable failed ({self.detail}); committing the estimate {self.estimate}"


@frozen(kw_only=True)
class JournalProblem(Event):
    """The journal could not do something, or it quarantined a record. Settlements continue."""

    detail: str
    quarantined: bool = False

    level = logging.WARNING

    def text(self) -> str:
        return f"journal: {self.detail}"


@frozen(kw_only=True)
class SettlementsLeftPending(Event):
    """The client was closed with settlements pending. `directory` is their journal, None if they are in memory only.

    `total` is their sum, one amount for each unit. `settled` is that of the `FlushReport` of the close.
    """

    settled: int
    pending: int
    directory: str | None
    total: str | None = None

    level = logging.WARNING

    def text(self) -> str:
        count = "1 settlement" if self.pending == 1 else f"{self.pending} settlements"
        total = "" if self.total is None else f" of {self.total}" + ("" if self.pending == 1 else " in total")
        if self.directory is None:
            rest = "the journal is off, so they are lost when the process ends"
        else:
            rest = f"saved in {self.directory}; the next client settles them"
        return f"client closed with {count}{total} pending: {rest}"


@frozen(kw_only=True)
class SettlementsLost(Event):
    """The client was closed with settlements pending and no journal. `amounts` has each with its reservation id."""

    amounts: tuple[tuple[str, Amount], ...]

    level = logging.ERROR

    def text(self) -> str:
        listed = ", ".join(f"{reservation_id}: {amount}" for reservation_id, amount in self.amounts)
        return f"client closed with its journal off: these amounts are in no ledger: {listed}; record them by hand"


@frozen(kw_only=True)
class ShadowDecided(Event):
    """Shadow mode: what the server would have decided. `decision` is None if no server could be reached."""

    estimate: Amount
    action: str
    decision: str | None
    reason_code: str | None = None
    detail: str | None = None

    level = logging.DEBUG

    @property
    def would_deny(self) -> bool:
        """True if a live reservation would have been denied."""
        return self.decision is not None and not is_allowed(self.decision)

    def text(self) -> str:
        if self.decision is None:
            return f"shadow: {self.estimate} for {self.action}: no decision ({self.detail})"
        reason = f" ({self.reason_code})" if self.reason_code else ""
        return f"shadow: {self.estimate} for {self.action}: the server decided {self.decision}{reason}"


@frozen(kw_only=True)
class ShadowSettled(Event):
    """Shadow mode: what the block cost, and its estimate.

    `actual` is None if the block reported no amount, and `would_deny` is None if no server could be reached.
    """

    estimate: Amount
    actual: Amount | None
    action: str
    would_deny: bool | None

    def text(self) -> str:
        cost = "an unknown amount" if self.actual is None else str(self.actual)
        decision = {True: "would have been denied", False: "would have been allowed", None: "no decision is known"}
        return f"shadow: {self.action} cost {cost}, estimated {self.estimate}; {decision[self.would_deny]}"


@frozen(kw_only=True)
class Observed(Event):
    """The server only observed a reservation, and its block has ended. Nothing was held, and nothing is charged.

    `actual` is None if the block reported no amount.
    """

    estimate: Amount
    actual: Amount | None
    action: str
    decision: str
    reason_code: str | None = None

    @property
    def would_deny(self) -> bool:
        """True if the reservation would have been denied without observe mode."""
        return not is_allowed(self.decision)

    def text(self) -> str:
        cost = "an unknown amount" if self.actual is None else str(self.actual)
        reason = f" ({self.reason_code})" if self.reason_code else ""
        return (
            f"observed: {self.action} cost {cost}, estimated {self.estimate}; "
            f"the server decided {self.decision}{reason} and holds nothing"
        )


@frozen(kw_only=True)
class ActionKindDeprecated(Event):
    """The server names a replacement for an action kind. Reported once per kind and client."""

    kind: str
    replacement: str

    level = logging.WARNING

    def text(self) -> str:
        return f"action kind {self.kind} is deprecated: use {self.replacement}"


@frozen(kw_only=True)
class PooledSettled(Event):
    """A guard of a pool ended with an amount. Only this event has its own actual, action, metrics and metadata.

    `reservation_id` is that of its chunk, which many guards share.
    """

    actual: Amount
    estimate: Amount
    action: Action
    subject: Subject
    metrics: Metrics | None
    metadata: Mapping[str, Any]
    latency_ms: int

    level = logging.DEBUG

    def text(self) -> str:
        return f"{self._id}: {self.actual} of {self.estimate} spent by {self.action.name} in the pool"


@frozen(kw_only=True)
class ChunkOpened(Event):
    """A pool reserved a chunk. `held` is what the pool holds for this scope set now."""

    pool: str
    amount: Amount
    held: Amount

    level = logging.DEBUG

    def text(self) -> str:
        return f"{self._id}: chunk of {self.amount} reserved for pool {self.pool}, which holds {self.held}"


@frozen(kw_only=True)
class ChunkSettled(Event):
    """The commit of a chunk is confirmed. `guards` is the number of guards whose amounts it has."""

    pool: str
    reserved: Amount
    spent: Amount
    guards: int
    status: str

    def text(self) -> str:
        how = "committed" if self.status == "committed" else "recorded as an event"
        return f"{self._id}: chunk of pool {self.pool} {how}: {self.spent} of {self.reserved}, {self.guards} guards"


@frozen(kw_only=True)
class PoolDenied(Event):
    """The server denied a chunk, or the limit of the pool is reached."""

    pool: str
    estimate: Amount
    reason: str

    def text(self) -> str:
        return f"pool {self.pool}: {self.estimate} denied: {self.reason}"


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


readable(*(each for each in tuple(globals().values()) if isinstance(each, type) and issubclass(each, Event)))
