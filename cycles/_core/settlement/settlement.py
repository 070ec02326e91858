"""A settlement: the bodies that are sent for it, and what each response to them means.

A settlement is a journal `Record`. Each attempt has one of three outcomes: settled, rejected or unresolved
(`settlement_rules.py`). See `docs/protocol/settlement.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from attrs import field, frozen

from cycles._core.amounts import Amount
from cycles._core.messages.outcome import NoSuccess, RejectedResponse, Success
from cycles._core.messages.requests import NO_OPTIONS, Call, CallOptions
from cycles._core.protocol import COMMIT_RESERVATION, CREATE_EVENT, FORGIVING_POLICIES
from cycles._core.results import Balance, CommitResponse, EventCreateResponse, EvidenceRef
from cycles._core.settlement.lifecycle import EXPIRED_REASON, PROCESS_ENDED, RECOVERED_ID, RECOVERY_REASON
from cycles._core.settlement.record import Record
from cycles._core.values.result_base import HttpResponse
from cycles._version import public

SettlementStatus: TypeAlias = Literal["committed", "recorded_as_event", "pending", "pooled", "shadow"]


@frozen(kw_only=True)
class Settlement:
    """How a guard was settled.

    Attributes:
        status: ``"committed"``; ``"recorded_as_event"`` if the lease was over, or there was no reservation;
            ``"pending"`` if the server has not confirmed the amount yet and the client continues to settle it;
            ``"pooled"`` if it is part of the commit of its pool's chunk, which the server has not confirmed yet;
            ``"shadow"`` if nothing was reserved and nothing was sent.
        actual: The amount to settle.
        charged: What the server charged; None while pending.
        released: What was returned to the budget, or None.
        balances: The budgets afterwards, or None if the server did not send them.
        evidence: Reference to the signed evidence of the commit, or None.
        event_id: The server's id of the event, if the spend was recorded as one.
        response: The response, or None while pending.
        request_id: The server's id of the request that settled it, or of the last attempt.
        trace_id: Trace id of that request (32 hex digits).
        http: Status, headers and elapsed time of the response that settled it, or None.
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
    http: HttpResponse | None = field(default=None, eq=False, repr=False)

    @property
    def undercharged(self) -> bool:
        """True if less was charged than was spent, because the budget had no more (ALLOW_IF_AVAILABLE)."""
        charged = self.charged
        return charged is not None and charged.unit == self.actual.unit and charged.amount < self.actual.amount


@frozen
class Settled:
    """The server has confirmed the amount."""

    settlement: Settlement


@frozen
class Rejected:
    """A final error response. The record ends, and the amount is kept in `rejected/`.

    Attributes:
        response: The error response.
        reason: Why the record is kept: the error code, or ``may_be_charged``.
        kept: The record of the rejected part, if the estimate was charged; None if the whole record was rejected.
        charged: How the estimate was settled then, or None.
    """

    response: RejectedResponse
    reason: str
    kept: Record | None = None
    charged: Settlement | None = None


@frozen
class Unresolved:
    """The outcome is open: the record stays.

    Attributes:
        outcome: The last response.
        retry_after_ms: The delay that a 429 requested, or None.
        is_saved: False if the record is held back: it has to be saved before it may be sent.
    """

    outcome: NoSuccess
    retry_after_ms: int | None = None
    is_saved: bool = True


@frozen
class Taken:
    """Another client has claimed the record, and settles it. This one sends nothing more for it."""


SettlementOutcome: TypeAlias = Settled | Rejected | Unresolved | Taken
"""How an attempt at a record ended."""


def commit_body(
    key: str, actual: Amount, metrics: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the body of a commit."""
    body: dict[str, Any] = {"idempotency_key": key, "actual": actual.to_dict()}
    if metrics:
        body["metrics"] = metrics
    if metadata:
        body["metadata"] = metadata
    return body


def event_body(
    commit: Mapping[str, Any],
    create: Mapping[str, Any],
    reservation_id: str | None,
    overage_policy: str | None = None,
    *,
    sent: bool = False,
) -> dict[str, Any]:
    """Return the body of the event that settles the amount of a commit without its reservation.

    The schema of events is closed, so each member is named here: a member that a later version adds to the commit does
    not reach the event.

    Args:
        commit: The body of the commit. The event has the same idempotency key.
        create: The body of the reserve: the event has its subject and its action.
        reservation_id: The reservation that has expired, or None if there was none.
        overage_policy: The policy of the reservation. The event has it only if it charges more than the budget has
            without an error: otherwise an overdraft would be charged short.
        sent: The event is for a request whose cost is unknown, because its process has ended.
    """
    body: dict[str, Any] = {"idempotency_key": commit["idempotency_key"], "actual": commit["actual"]}
    if "metrics" in commit:
        body["metrics"] = commit["metrics"]
    metadata = commit.get("metadata") or {}
    # An auditor who looks for the amount of this reservation finds it in the event.
    if reservation_id is not None:
        metadata = {**metadata, RECOVERED_ID: reservation_id, RECOVERY_REASON: EXPIRED_REASON}
    # Marks the amount as an upper bound, for a person who compares it with the provider's bill.
    if sent:
        metadata = {**metadata, RECOVERY_REASON: PROCESS_ENDED}
    if metadata:
        body["metadata"] = metadata
    body |= {"subject": create["subject"], "action": create["action"]}
    if overage_policy in FORGIVING_POLICIES:
        body["overage_policy"] = overage_policy
    return body


def call_of(record: Record, options: CallOptions = NO_OPTIONS) -> Call:
    """Return the request that a record sends next."""
    if record.mode == "commit":
        path = {"reservation_id": record.reservation_id}
        return Call(COMMIT_RESERVATION, path, body=record.commit_body or {}, options=options)
    return Call(CREATE_EVENT, body=record.event_fallback_body or {}, options=options)


def settled_by(record: Record, success: Success) -> Settlement:
    """Return the settlement that a success response brought."""
    actual, ids = record.actual, success.ids
    if record.mode == "commit":
        commit = CommitResponse.read(success.body, **ids)
        return Settlement(
            status="committed",
            actual=actual,
            charged=commit.charged,
            released=commit.released,
            balances=commit.balances,
            evidence=commit.cycles_evidence,
            response=commit,
            **ids,
        )
    event = EventCreateResponse.read(success.body, **ids)
    return Settlement(
        status="recorded_as_event",
        actual=actual,
        # A server names the charge of an event only if it is less.
        charged=event.charged if event.charged is not None else actual,
        balances=event.balances,
        event_id=event.event_id,
        response=event,
        **ids,
    )


@frozen
class FlushReport:
    """The counts of one flush.

    Attributes:
        settled: Settled by this or in the background, since the client's last flush or start. Of a pool: by this flush.
        pending: Still pending, of those that are known.
        quarantined: Records that were moved to quarantine since the client's last flush or start.
        scan_finished: False if the journal could not be read to the end in time: an earlier process may have left more.
    """

    settled: int = 0
    pending: int = 0
    quarantined: int = 0
    scan_finished: bool = True


@frozen
class PendingSettlement:
    """One settlement that the client is still working on (`docs/protocol/settlement.md#pending-settlements`).

    Attributes:
        reservation_id: The reservation, or ``event:<idempotency key>`` if there is none.
        mode: Which request is sent next: ``"commit"`` or ``"event"``.
        amount: The actual.
        age_ms: Milliseconds since the record was first saved.
        last_outcome: A short description of the last attempt; None before the first.
    """

    reservation_id: str
    mode: str
    amount: Amount
    age_ms: int
    last_outcome: str | None


public(FlushReport, PendingSettlement, Settlement)
