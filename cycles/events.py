"""Events: one frozen class for each thing that can happen, passed to observers and written to the logger `cycles`.

`level` is the logging level of an event, and `text()` is its log message: one line that begins with the reservation.
The ids are members of the event and `extra` of the log record. No event contains a secret.
"""

from __future__ import annotations

import logging

from attrs import frozen

from cycles._core.amounts import Amount
from cycles._core.events.base import Event as Event
from cycles._core.events.evaluation import (
    ActionKindDeprecated as ActionKindDeprecated,
    Observed as Observed,
    ShadowDecided as ShadowDecided,
    ShadowSettled as ShadowSettled,
)
from cycles._core.events.pooled import (
    ChunkOpened as ChunkOpened,
    ChunkSettled as ChunkSettled,
    PoolDenied as PoolDenied,
    PooledSettled as PooledSettled,
)
from cycles._core.events.threshold import BudgetThreshold as BudgetThreshold
from cycles._version import readable


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

    `total` is their sum, one amount for each unit.
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


readable(*(each for each in tuple(globals().values()) if isinstance(each, type) and issubclass(each, Event)))
