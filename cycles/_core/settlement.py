"""What a settlement is, and what an answer means for it (recovery.md, decisions 9 to 11).

A settlement is a journal `Record` and a verdict on each answer to it: settled, expired (the event is owed now),
rejected for good, or still owed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from attrs import frozen

from cycles._core.amounts import Amount
from cycles._core.outcome import NoSuccess, Outcome, RejectedResponse, Success
from cycles._core.records import Record
from cycles._core.requests import Call, commit_call, event_call
from cycles._core.results import Balance, CommitResponse, EventCreateResponse, EvidenceRef
from cycles._version import public

SettlementStatus: TypeAlias = Literal["committed", "recorded_as_event", "pending", "shadow"]

RECOVERED: Final = "recovered_reservation_id"
RECOVERY_REASON: Final = "commit_after_reservation_expired"


@frozen(kw_only=True)
class Settlement:
    """How a guard was settled.

    Attributes:
        status: ``"committed"``; ``"recorded_as_event"`` where the lease was over, or there was none; ``"pending"``
            where the amount is known to the client and not yet to the server, and the client goes on settling it;
            ``"shadow"`` where nothing was held and nothing was sent.
        actual: The amount that was to be settled.
        charged: What the server charged; None while pending.
        released: What went back to the budget, or None if nothing did.
        balances: The budgets afterwards, or None if the server did not say.
        evidence: Reference to the signed evidence of the commit, or None.
        event_id: The server's id of the event, where the spend was recorded as one.
        response: The answer itself, or None while pending.
        request_id: The server's id of the request that settled it, or of the last attempt.
        trace_id: Trace id of that request (32 hex digits).
    """

    status: SettlementStatus
    actual: Amount
    charged: Amount | None = None
    released: Amount | None = None
    balances: list[Balance] | None = None
    evidence: EvidenceRef | None = None
    event_id: str | None = None
    response: CommitResponse | EventCreateResponse | None = None
    request_id: str | None = None
    trace_id: str | None = None

    @property
    def undercharged(self) -> bool:
        """True where less was charged than was spent: the budget had no more (ALLOW_IF_AVAILABLE)."""
        charged = self.charged
        return charged is not None and charged.unit == self.actual.unit and charged.amount < self.actual.amount

    if not TYPE_CHECKING:

        @property
        def capped(self) -> bool:
            """The old name of `undercharged`."""
            warnings.warn(
                "Settlement.capped is deprecated: write settlement.undercharged", DeprecationWarning, stacklevel=2
            )
            return self.undercharged


@frozen
class Settled:
    """The server has it."""

    settlement: Settlement


@frozen
class Expired:
    """The lease was over: the spend is owed as an event now."""


@frozen
class Rejected:
    """A verdict of the server that no retry will change; the record ends."""

    refusal: RejectedResponse


@frozen
class Unresolved:
    """Nothing is proven: the record stays. `retry_after_ms` is the 429 floor, if the answer was one."""

    outcome: NoSuccess
    retry_after_ms: int | None = None


SettlementOutcome: TypeAlias = Settled | Expired | Rejected | Unresolved


def call_of(record: Record, trace_id: str | None = None) -> Call:
    """The request a record owes next."""
    if record.mode == "commit":
        return commit_call(record.reservation_id, record.commit_body or {}, trace_id)
    return event_call(record.event_fallback_body or {}, trace_id)


def actual_of(record: Record) -> Amount:
    """The amount a record settles; zero tokens where a foreign record spells it in a way that is not ours."""
    body: Mapping[str, Any] = record.commit_body or record.event_fallback_body or {}
    try:
        return Amount(body["actual"]["unit"], body["actual"]["amount"])
    except (KeyError, TypeError, ValueError):
        return Amount("TOKENS", 0)


def classify_settlement(record: Record, outcome: Outcome) -> SettlementOutcome:
    """What an answer to `call_of(record)` means for the settlement."""
    if isinstance(outcome, Success):
        return Settled(_settlement(record, outcome))
    if isinstance(outcome, RejectedResponse):
        if outcome.expired and record.mode == "commit":
            # A foreign record may come without its event: all we can do is keep the amount where somebody finds it.
            return Expired() if record.event_fallback_body is not None else Unresolved(outcome)
        if outcome.understood:
            return Rejected(outcome)
        if outcome.status == 429:
            return Unresolved(outcome, outcome.retry_after_ms)
    return Unresolved(outcome)


def _settlement(record: Record, success: Success) -> Settlement:
    actual = actual_of(record)
    request_id, trace_id = success.request_id, success.trace_id
    if record.mode == "commit":
        commit = CommitResponse.read(success.body, request_id=request_id, trace_id=trace_id)
        return Settlement(
            status="committed",
            actual=actual,
            charged=commit.charged,
            released=commit.released,
            balances=commit.balances,
            evidence=commit.cycles_evidence,
            response=commit,
            request_id=request_id,
            trace_id=trace_id,
        )
    event = EventCreateResponse.read(success.body, request_id=request_id, trace_id=trace_id)
    return Settlement(
        status="recorded_as_event",
        actual=actual,
        charged=event.charged if event.charged is not None else actual,
        balances=event.balances,
        event_id=event.event_id,
        response=event,
        request_id=request_id,
        trace_id=trace_id,
    )


@frozen
class FlushReport:
    """What one flush did: how many settlements it settled, how many are left, how many records it had to set aside."""

    settled: int = 0
    pending: int = 0
    quarantined: int = 0


@frozen
class PendingSettlement:
    """One settlement the client is still working on (decisions 15).

    Attributes:
        reservation_id: The reservation, or ``event:<idempotency key>`` where there is none.
        mode: Which request is owed: ``"commit"`` or ``"event"``.
        amount: The actual that is to be settled.
        age_ms: Milliseconds since it was first written down.
        last_outcome: What became of the last attempt, in words; None before the first.
    """

    reservation_id: str
    mode: str
    amount: Amount
    age_ms: int
    last_outcome: str | None


public(FlushReport, PendingSettlement, Settlement)
