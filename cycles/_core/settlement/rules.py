"""What follows from a response to a settlement: which request is sent next, or how the record ends.

Every function is pure. `cycles._flows.settle.attempt` carries the steps out. See `docs/protocol/settlement.md`.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from attrs import evolve, frozen

from cycles._core.messages.outcome import Outcome, RejectedResponse, Success
from cycles._core.protocol import (
    ALLOW_IF_AVAILABLE,
    BUDGET_EXCEEDED,
    FORGIVING_POLICIES,
    IDEMPOTENCY_MISMATCH,
    INVALID_REQUEST,
    NOT_FOUND,
    OVERDRAFT_LIMIT_EXCEEDED,
    RESERVATION_FINALIZED,
)
from cycles._core.results import ReservationDetail
from cycles._core.settlement.late import guards_of, late
from cycles._core.settlement.lifecycle import ACTUAL_AMOUNT, LOST_REASON, RECOVERED_ID, RECOVERY_REASON
from cycles._core.settlement.record import Record
from cycles._core.settlement.settlement import Rejected, Settled, Settlement, Unresolved, settled_by

MAY_BE_CHARGED: Final = "may_be_charged"
"""Why a record is kept in `rejected/` although no response rejected it: the ledger may have the amount already."""

_DAY_MS: Final = 86_400_000
LOST_RESERVATION_MS: Final = _DAY_MS  # a server keeps ended reservations for 30 days, so a 404 before means it lost one
EVENT_KEY_MS: Final = 6 * _DAY_MS  # a server keeps the keys of events for 7 days
COMMIT_KEY_MS: Final = 29 * _DAY_MS  # a server keeps ended reservations for 30 days

ALL_SENT: Final[dict[str, Any]] = {}
"""The earlier body of a record whose earlier forms were sent again: the forms must not alternate for ever."""

_OPTIONAL: Final = ("metrics", "metadata")
_OURS: Final = {"latency_ms", RECOVERED_ID, RECOVERY_REASON}  # added by this SDK: never why a request is invalid
_TOO_LARGE_OR_INVALID: Final = frozenset({400, 413, 422})
_NO_BUDGET: Final = frozenset({BUDGET_EXCEEDED, OVERDRAFT_LIMIT_EXCEEDED})
_ANOTHER_REQUEST: Final = frozenset({IDEMPOTENCY_MISMATCH, RESERVATION_FINALIZED})
_RESERVED_SUFFIX: Final = ":reserved"
_EXCESS_SUFFIX: Final = ":excess"


@frozen
class Resend:
    """Save the changed record, then send it. `omitted` are the parts that it leaves out."""

    record: Record
    omitted: tuple[str, ...] = ()


@frozen
class Lookup:
    """Read the reservation: an earlier attempt may have committed it, of this client (`sent_before`) or of another."""

    response: RejectedResponse
    sent_before: bool = True


NextStep: TypeAlias = Settled | Rejected | Unresolved | Resend | Lookup


def before_sending(record: Record, now_ms: int, boot_ms: float | None = None) -> Rejected | None:
    """Return how a record ends that must not be sent; None for all others.

    Args:
        record: The record.
        now_ms: Milliseconds since the epoch.
        boot_ms: Milliseconds of a clock that also counts while the machine is suspended; None without one.
    """
    if record.rejected is not None:
        return reject_here(record.rejected)
    # No request can have carried it, so no key can have ended. A record without a time has an unknown age; its key
    # protects it.
    if not record.may_have_arrived or not (record.recorded_at_ms or record.event_since_ms):
        return None
    age_ms = record.age_ms(now_ms, boot_ms)
    if age_ms > (EVENT_KEY_MS if record.mode == "event" else COMMIT_KEY_MS):
        return Rejected(_local_response(f"the record is {int(age_ms) // _DAY_MS} days old"), MAY_BE_CHARGED)
    return None


def classify_settlement(
    record: Record, outcome: Outcome, now_ms: int, boot_ms: float | None = None, *, found: bool = False
) -> NextStep:
    """Return what a response to the request of a record means.

    Args:
        record: The record whose request was sent.
        outcome: The response to it.
        now_ms: As for `before_sending`.
        boot_ms: See there.
        found: Whether another process may have sent the record before.
    """
    if isinstance(outcome, Success):
        return _without_excess(record, settled_by(record, outcome))
    # No response, or one that is none of the protocol: the amount may be charged, so nothing is given up.
    if not isinstance(outcome, RejectedResponse):
        return Unresolved(outcome)
    if record.mode == "commit" and (changed := _after_commit(record, outcome, now_ms, boot_ms)) is not None:
        return changed
    if record.mode == "event" and (changed := _after_event(record, outcome)) is not None:
        return changed
    # The key is known to the server: an earlier attempt may have been received, and only its response was lost.
    if outcome.understood and outcome.code in _ANOTHER_REQUEST and _sent_before(record, found):
        return _earlier_attempt(record, outcome)
    # Another process that has found the record may have committed its estimate, under another key.
    may_be_reduced = record.mode == "commit" and record.estimate is not None and record.excess is None
    if outcome.understood and outcome.code == RESERVATION_FINALIZED and may_be_reduced:
        return Lookup(outcome, sent_before=False)
    # Labels are given up before the amount is.
    if (reduced := _without_optional(record, outcome)) is not None:
        return reduced
    # Final by the table of error codes. Everything else is tried again, however long it takes.
    if outcome.understood:
        return _rejected(outcome)
    return Unresolved(outcome, outcome.retry_after_ms if outcome.status == 429 else None)


def _rejected(response: RejectedResponse) -> Rejected:
    return Rejected(response, response.code or str(response.status))


def _after_commit(record: Record, response: RejectedResponse, now_ms: int, boot_ms: float | None) -> NextStep | None:
    # A 410 that something between may have written says nothing about an earlier attempt that may have been charged.
    if response.expired and (response.conformant or not record.attempt_unknown):
        # A record of another SDK may have no event body: the amount stays in the journal for the operator.
        has_event = record.event_fallback_body is not None
        return Resend(_as_event(record, now_ms, boot_ms)) if has_event else Unresolved(response)
    if response.understood and response.code == NOT_FOUND:
        return _lost_reservation(record, response, now_ms, boot_ms)
    if response.understood and response.code in _NO_BUDGET and record.estimate is not None:
        return Resend(_estimate_only(record, response))
    return None


def _lost_reservation(record: Record, response: RejectedResponse, now_ms: int, boot_ms: float | None) -> NextStep:
    """Record the amount as an event if the server cannot have charged it, otherwise keep the record."""
    is_recent = not record.may_have_arrived or record.age_ms(now_ms, boot_ms) < LOST_RESERVATION_MS
    # The server may have charged the commit before it lost the reservation; an event could charge it twice.
    if record.event_fallback_body is None or record.attempt_unknown or not is_recent:
        return Rejected(response, MAY_BE_CHARGED)
    changed = _as_event(record, now_ms, boot_ms)
    metadata = {**(changed.body.get("metadata") or {}), RECOVERY_REASON: LOST_REASON}
    return Resend(changed.with_body({**changed.body, "metadata": metadata}))


def _estimate_only(record: Record, response: RejectedResponse) -> Record:
    """Return the record that commits the estimate, because the server rejected the amount above it."""
    actual, estimate = record.actual, record.estimate or 0
    # Another payload needs another key; this one can be computed by each process that has the record.
    key = record.body["idempotency_key"] + _RESERVED_SUFFIX

    def reduced(body: dict[str, Any]) -> dict[str, Any]:
        metadata = {**(body.get("metadata") or {}), ACTUAL_AMOUNT: actual.amount}
        amount = {"unit": actual.unit, "amount": estimate}
        return {**body, "idempotency_key": key, "actual": amount, "metadata": metadata}

    event = record.event_fallback_body
    return evolve(
        record,
        commit_body=reduced(record.body),
        event_fallback_body=None if event is None else reduced(event),
        estimate=None,
        excess={
            "amount": actual.amount - estimate,
            "code": response.code,
            "message": response.message,
            "request_id": response.request_id,
            "trace_id": response.trace_id,
        },
    )


def _as_event(record: Record, now_ms: int, boot_ms: float | None) -> Record:
    """Return the record that is sent as an event: its whole amount, under the key that it had first.

    Two processes may settle one record, and only one of them knows that the server rejected the excess. If their events
    had different keys, both would be charged.
    """
    if record.whole == record.actual:
        return record.to_event_mode(now_ms, boot_ms)
    amount = {"unit": record.whole.unit, "amount": record.whole.amount}

    def whole(body: dict[str, Any] | None) -> dict[str, Any] | None:
        if body is None:
            return None
        key = body["idempotency_key"].removesuffix(_RESERVED_SUFFIX)
        metadata = {name: value for name, value in (body.get("metadata") or {}).items() if name != ACTUAL_AMOUNT}
        restored = {**body, "idempotency_key": key, "actual": amount, "metadata": metadata}
        return restored if metadata else {name: value for name, value in restored.items() if name != "metadata"}

    commit, event = whole(record.commit_body), whole(record.event_fallback_body)
    return evolve(record, commit_body=commit, event_fallback_body=event, excess=None).to_event_mode(now_ms, boot_ms)


def _after_event(record: Record, response: RejectedResponse) -> NextStep | None:
    """Charge as much as the budget has, if it is too small for the event: the money is spent already."""
    body = record.body
    if not response.understood or response.code not in _NO_BUDGET or body.get("overage_policy") == ALLOW_IF_AVAILABLE:
        return None
    changed = record.with_body({**body, "overage_policy": ALLOW_IF_AVAILABLE})
    return Resend(_remembering(record, changed))


def _remembering(record: Record, changed: Record) -> Record:
    """Keep the earlier body: the server may have received it, even if its response was an error."""
    if record.previous_body == ALL_SENT or (record.previous_body is not None and not record.attempt_unknown):
        return changed
    return evolve(changed, previous_body=record.body)


def _sent_before(record: Record, found: bool) -> bool:
    """Return whether the server may know the record. That of a chunk may be in a store from which others commit it."""
    is_commit_of_chunk = record.mode == "commit" and guards_of(record) is not None
    is_known = record.sent or record.attempt_unknown or record.previous_body is not None
    return found or is_known or is_commit_of_chunk


def _earlier_attempt(record: Record, response: RejectedResponse) -> NextStep:
    if record.mode == "commit":
        return Lookup(response)
    # The server knows another body: each that it may have is sent once more, and then no other.
    if forms := _earlier_forms(record):
        return Resend(evolve(record.with_body(forms[0]), previous_body=forms[1] if forms[1:] else ALL_SENT))
    if record.sent:  # its process has recorded what the request cost, under the same key
        return Settled(Settlement(status="recorded_as_event", actual=record.actual, request_id=response.request_id))
    return Rejected(response, MAY_BE_CHARGED)


def _earlier_forms(record: Record) -> list[dict[str, Any]]:
    """Return the bodies of an event that the server may have: this process has sent one, or another process has."""
    if record.previous_body is not None or record.sent:
        return [record.previous_body] if record.previous_body else []
    forms = _bare(record.body), {**record.body, "overage_policy": ALLOW_IF_AVAILABLE}
    return [form for form in forms if form != record.body]


def _bare(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body without metrics and metadata."""
    return {name: value for name, value in body.items() if name not in _OPTIONAL}


def _without_optional(record: Record, response: RejectedResponse) -> Resend | None:
    """Return the record without metrics and metadata, if those may be why the server rejected the request.

    An error response stores nothing under its key, so the payload may change here
    (`docs/protocol/idempotency.md#failures-store-nothing`).
    """
    body = record.body
    of_the_caller = {*(body.get("metadata") or ()), *(body.get("metrics") or ())} - _OURS
    is_final_otherwise = response.understood and response.code != INVALID_REQUEST
    if response.status not in _TOO_LARGE_OR_INVALID or is_final_otherwise or not of_the_caller:
        return None
    omitted = tuple(name for name in _OPTIONAL if name in body)
    return Resend(_remembering(record, record.with_body(_bare(body))), omitted)


def after_lookup(
    record: Record, response: RejectedResponse, outcome: Outcome, *, now_ms: int = 0, sent_before: bool = True
) -> Settled | Rejected | Unresolved | Resend:
    """Return what the state of the reservation means for a commit that may have been received before.

    Args:
        record: The record whose commit was rejected.
        response: The error response to it.
        outcome: The response to the request for the reservation.
        now_ms: Milliseconds since the epoch.
        sent_before: Whether the record may have been sent before; else only its estimate may be committed.
    """
    if not isinstance(outcome, Success):
        return Unresolved(outcome)
    found = ReservationDetail.read(outcome.body, **outcome.ids)
    actual, charged = record.actual, found.committed
    # Nothing was committed: no earlier attempt was received, and the error response holds.
    if found.status != "COMMITTED" or charged is None or charged.unit != actual.unit:
        return _rejected(response)
    if guards_of(record) is not None:  # another process has committed an earlier sum of the chunk, or all of it
        rest = late(record, charged.amount, now_ms)
        settlement = Settlement(status="committed", actual=actual, charged=charged, **outcome.ids)
        return Settled(settlement) if rest is None else Resend(rest)
    if record.sent:  # its process has committed what the request cost
        return Settled(Settlement(status="committed", actual=charged, charged=charged, **outcome.ids))
    may_cap = (record.event_fallback_body or {}).get("overage_policy") in FORGIVING_POLICIES
    if charged.amount == record.estimate and not may_cap:  # another process has charged the estimate for this record
        record = _estimate_only(record, evolve(response, code=BUDGET_EXCEEDED))
        actual = record.actual
    elif not sent_before:
        return _rejected(response)
    # The same key with a larger amount: the record is an earlier state of what was committed, from the log of spend.
    is_earlier = response.code == IDEMPOTENCY_MISMATCH and record.excess is None and charged.amount > actual.amount
    if charged.amount == actual.amount or is_earlier or (may_cap and charged.amount < actual.amount):
        settlement = Settlement(status="committed", actual=actual, charged=charged, **outcome.ids)
        return _without_excess(record, settlement)
    return _rejected(response)


def _without_excess(record: Record, settlement: Settlement) -> Settled | Rejected:
    """Return how a record ends whose amount is charged: if it is the estimate only, the excess is rejected."""
    response = rejected_excess(record)
    if response is None:
        return Settled(settlement)
    reason = response.code or BUDGET_EXCEEDED
    return Rejected(response, reason, kept=_excess_record(record, reason), charged=settlement)


def rejected_excess(record: Record) -> RejectedResponse | None:
    """Return the error response to the actual of a record whose estimate is committed in its place; None for others."""
    excess = record.excess
    if excess is None:
        return None
    code, request_id, trace_id = (
        value if isinstance(value := excess.get(name), str) else None for name in ("code", "request_id", "trace_id")
    )
    return RejectedResponse(409, code, str(excess.get("message") or code), request_id, trace_id)


def excess_left(record: Record) -> Record | None:
    """Return the record of the rejected excess, to be kept beside a record whose estimate was not charged either."""
    response = rejected_excess(record)
    return None if response is None else _excess_record(record, response.code or BUDGET_EXCEEDED)


def _excess_record(record: Record, reason: str) -> Record:
    """Return the record of the amount that no ledger has; it is kept and never sent."""
    event = dict(record.event_fallback_body or record.body)
    event["idempotency_key"] = event["idempotency_key"].removesuffix(_RESERVED_SUFFIX) + _EXCESS_SUFFIX
    event["actual"] = {"unit": record.whole.unit, "amount": record.whole.amount - record.actual.amount}
    return Record(
        reservation_id=record.reservation_id + _EXCESS_SUFFIX,
        base_url=record.base_url,
        mode="event",
        event_fallback_body=event,
        recorded_at_ms=record.recorded_at_ms,
        rejected=reason,
    )


def reject_here(reason: str) -> Rejected:
    """Return how a record ends that this client keeps in `rejected/` without a response to it."""
    return Rejected(_local_response(reason), reason)


def _local_response(message: str) -> RejectedResponse:
    return RejectedResponse(0, None, message)
