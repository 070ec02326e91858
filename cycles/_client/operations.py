"""The operations beside the guard, each written once: `cycles._client.methods` makes the sync and the async method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias, Unpack

from attrs import frozen

from cycles._client.call_options import RequestOptions
from cycles._client.methods import OperationContext, Pages, ResultT
from cycles._client.options import AnyAction, AnySubject, checked_amount, checked_flag
from cycles._core.action_kinds import ActionKind
from cycles._core.amounts import Amount
from cycles._core.json_values import clean_object
from cycles._core.protocol import (
    COMMIT_RESERVATION,
    CREATE_RESERVATION,
    GET_ACTION_KIND,
    GET_BALANCES,
    GET_EVIDENCE,
    GET_EVIDENCE_KEYS,
    GET_RESERVATION,
    LIST_ACTION_KINDS,
    LIST_RESERVATIONS,
)
from cycles._core.records import Record
from cycles._core.requests import (
    Call,
    aware,
    check_id,
    check_key,
    extend_call,
    new_key,
    new_trace_id,
    release_call,
    without_none,
)
from cycles._core.results import (
    Balance,
    CommitResponse,
    DecisionResponse,
    EventCreateResponse,
    EvidenceEnvelope,
    EvidenceKey,
    EvidenceKeys,
    ReleaseResponse,
    ReservationCreateResponse,
    ReservationDetail,
    ReservationExtendResponse,
    ReservationSummary,
    Result,
)
from cycles._core.settlement import Settlement
from cycles._core.subjects import LEVELS, Subject, as_action, as_subject
from cycles._core.usage import Metrics, Usage
from cycles._flows.commit import record_event, settle_record
from cycles._flows.retry import read, send_read, send_write

AnyMetrics: TypeAlias = Metrics | Usage | Mapping[str, Any] | None

_AS_GIVEN: Final = {"from": "created_from", "to": "created_to"}  # wire name: name of the argument
_PENDING: Final = "PENDING"  # status of a result that the server has not returned yet


async def decide(
    context: OperationContext,
    estimate: Amount,
    *,
    action: AnyAction,
    subject: AnySubject = None,
    metadata: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    **request: Unpack[RequestOptions],
) -> DecisionResponse:
    """Return whether an action would be allowed now. Nothing is reserved, and a later reservation may be denied.

    Raises:
        InvalidRequestError: A value is wrong. The message names it and what is allowed; nothing was sent.
        CyclesError: The server returned no decision. A DENY is a decision.
    """
    body = _body(context, estimate, "estimate", action, subject, metadata, idempotency_key)
    return await _write(context, Call("decide", body=body, trace_id=new_trace_id()), DecisionResponse)


async def preview(
    context: OperationContext,
    estimate: Amount,
    *,
    action: AnyAction,
    subject: AnySubject = None,
    ttl_ms: int | None = None,
    grace_period_ms: int | None = None,
    overage_policy: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    **request: Unpack[RequestOptions],
) -> ReservationCreateResponse:
    """Evaluate a reservation without making it (a dry run), and return the whole response, also a DENY.

    Raises:
        InvalidRequestError: A value is wrong. The message names it and what is allowed; nothing was sent.
        CyclesError: The server returned no decision.
    """
    body = _body(context, estimate, "estimate", action, subject, metadata, idempotency_key)
    body |= without_none(
        ttl_ms=ttl_ms,
        grace_period_ms=grace_period_ms,
        overage_policy=overage_policy or context.options.overage_policy,
        dry_run=True,
    )
    return await _write(
        context, Call(CREATE_RESERVATION, body=body, trace_id=new_trace_id()), ReservationCreateResponse
    )


async def record(
    context: OperationContext,
    actual: Amount,
    *,
    action: AnyAction,
    subject: AnySubject = None,
    overage_policy: str | None = None,
    metrics: AnyMetrics = None,
    metadata: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    **request: Unpack[RequestOptions],
) -> EventCreateResponse:
    """Charge the cost of an action without a reservation. It is saved in the journal like a commit.

    If the server does not confirm it, the result has the status ``PENDING`` and no `event_id`. The client retries with
    the same key in the background, and `client.pending()` lists it. A second `record` would charge it twice.

    Raises:
        InvalidRequestError: A value is wrong. The message names it and what is allowed; nothing was sent.
        ProtocolError: The server rejected the amount.
    """
    body = _body(context, actual, "actual", action, subject, metadata, idempotency_key)
    used = Metrics.of(metrics)
    body |= without_none(
        overage_policy=overage_policy or context.options.overage_policy,
        metrics=used.to_dict() if used is not None else None,
    )
    settlement = await record_event(context.io, body, new_trace_id())
    if isinstance(settlement.response, EventCreateResponse):
        return settlement.response
    return EventCreateResponse(status=_PENDING, event_id="", **_ids(settlement))


async def reservation(
    context: OperationContext, reservation_id: str, **request: Unpack[RequestOptions]
) -> ReservationDetail:
    """Return one reservation.

    Raises:
        NotFoundError: There is no such reservation.
        ForbiddenError: It is a reservation of another tenant.
        ReservationExpiredError: It has expired.
    """
    call = Call(GET_RESERVATION, {"reservation_id": check_id("reservation_id", reservation_id)})
    return await _read(context, call, ReservationDetail)


async def find(
    context: OperationContext, *, idempotency_key: str, **request: Unpack[RequestOptions]
) -> ReservationSummary | None:
    """Return the reservation that was made with an idempotency key, or None. `client.attach` continues it.

    Raises:
        CyclesError: The server returned no list.
    """
    rows = reservations(context, idempotency_key=check_key(idempotency_key), include=("metadata", "committed_metadata"))
    items, _ = await rows.fetch(context.io, None)
    return items[0] if items else None


async def commit_reservation(
    context: OperationContext,
    reservation_id: str,
    actual: Amount,
    *,
    metrics: AnyMetrics = None,
    metadata: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    **request: Unpack[RequestOptions],
) -> CommitResponse:
    """Commit a reservation by its id, for code that has no guard. It is saved in the journal first.

    If the server does not confirm it, the result has the status ``PENDING`` and an amount of 0 as `charged`. The
    client retries with the same key in the background.

    Raises:
        InvalidRequestError: A value is wrong. The message names it and what is allowed; nothing was sent.
        ReservationExpiredError: The lease and its grace period are over; use `record`.
        ProtocolError: The server rejected the commit for another reason.
    """
    used = Metrics.of(metrics)
    body = without_none(
        idempotency_key=_key(idempotency_key),
        actual=checked_amount(actual, "actual").to_dict(),
        metrics=used.to_dict() if used is not None else None,
        metadata=clean_object(metadata, "metadata") if metadata is not None else None,
    )
    record = Record(
        reservation_id=check_id("reservation_id", reservation_id),
        base_url=context.io.base_url,
        commit_body=body,
        recorded_at_ms=context.io.wall_ms(),
    )
    settlement = await settle_record(context.io, record, new_trace_id(), COMMIT_RESERVATION)
    if isinstance(settlement.response, CommitResponse):
        return settlement.response
    return CommitResponse(status=_PENDING, charged=Amount(actual.unit, 0), **_ids(settlement))


async def release_reservation(
    context: OperationContext,
    reservation_id: str,
    reason: str | None = None,
    *,
    idempotency_key: str | None = None,
    **request: Unpack[RequestOptions],
) -> ReleaseResponse:
    """Release a reservation by its id. An inconclusive response is retried once with the same key.

    Raises:
        CyclesError: The server did not release it.
    """
    call = release_call(check_id("reservation_id", reservation_id), _key(idempotency_key), reason, new_trace_id())
    return await _write(context, call, ReleaseResponse)


async def extend_reservation(
    context: OperationContext,
    reservation_id: str,
    extend_by_ms: int,
    *,
    idempotency_key: str | None = None,
    **request: Unpack[RequestOptions],
) -> ReservationExtendResponse:
    """Extend the lease of a reservation by `extend_by_ms` milliseconds, by its id.

    Raises:
        CyclesError: The server did not extend it.
    """
    reservation_id = check_id("reservation_id", reservation_id)
    call = extend_call(reservation_id, _key(idempotency_key), extend_by_ms, None, new_trace_id())
    return await _write(context, call, ReservationExtendResponse)


async def evidence(context: OperationContext, evidence_id: str, **request: Unpack[RequestOptions]) -> EvidenceEnvelope:
    """Return the signed evidence of one response. It is public, so no key is sent; the id is 64 lower-case hex digits.

    Raises:
        NotFoundError: The server has no such evidence.
    """
    return await _read(context, Call(GET_EVIDENCE, {"evidence_id": evidence_id}), EvidenceEnvelope)


async def evidence_keys(context: OperationContext, **request: Unpack[RequestOptions]) -> EvidenceKeys:
    """Return the public keys that sign evidence, without keys of other types. No API key is sent.

    Raises:
        NotFoundError: The server signs no evidence.
    """
    outcome = await send_read(context.io, Call(GET_EVIDENCE_KEYS))
    key_set = read(outcome, GET_EVIDENCE_KEYS, _KeySet)
    check = context.wire.item_check(GET_EVIDENCE_KEYS)
    keys = [EvidenceKey.read(key) for key in key_set.keys if isinstance(key, dict) and check(key, "") is None]
    usable = [key for key in keys if key.kty == "OKP" and key.crv == "Ed25519" and key.alg in (None, "EdDSA")]
    return EvidenceKeys(keys=usable, raw=key_set.raw, **_ids(key_set))


@frozen(kw_only=True)
class _KeySet(Result):
    keys: list[Any]


def balances(
    context: OperationContext,
    *,
    subject: AnySubject = None,
    include_children: bool = False,
    **request: Unpack[RequestOptions],
) -> Pages[Balance]:
    """Iterate over the budgets of a subject, lazily. Levels that `subject` leaves out come from the configuration.

    Raises:
        InvalidRequestError: No level of the subject is set.
    """
    children = {"include_children": True} if checked_flag("include_children", include_children) else {}
    query = {**_levels(context.subject(subject)), **children}
    return _pages(context, Call(GET_BALANCES, query=query), "balances", Balance)


def reservations(
    context: OperationContext,
    *,
    status: str | None = None,
    subject: AnySubject = None,
    idempotency_key: str | None = None,
    created_from: datetime | None = None,
    created_to: datetime | None = None,
    expires_from: datetime | None = None,
    expires_to: datetime | None = None,
    finalized_from: datetime | None = None,
    finalized_to: datetime | None = None,
    sort_by: str | None = None,
    sort_dir: str | None = None,
    include: Iterable[str] = (),
    limit: int | None = None,
    **request: Unpack[RequestOptions],
) -> Pages[ReservationSummary]:
    """Iterate over the reservations of the tenant, lazily. A row matches all filters; times are inclusive.

    Args:
        status: ACTIVE, COMMITTED, RELEASED or EXPIRED.
        subject: Levels that the scope of the reservation must have. The configuration adds none.
        idempotency_key: The key of the reserve.
        created_from, created_to, expires_from, expires_to, finalized_from, finalized_to: Aware datetimes.
        sort_by: reservation_id, tenant, scope_path, status, reserved, created_at_ms or expires_at_ms.
        sort_dir: asc or desc.
        include: Members that the rows contain in addition: metadata, committed_metadata, evidence.
        limit: Rows of one page, 1 to 200. The iterator reads the next page when it needs it.

    Raises:
        InvalidRequestError: A filter is wrong, for example a naive datetime. The message names it.
    """
    times = {
        "from": created_from,
        "to": created_to,
        "expires_from": expires_from,
        "expires_to": expires_to,
        "finalized_from": finalized_from,
        "finalized_to": finalized_to,
    }
    query = {
        **_levels(as_subject(subject)),
        **without_none(idempotency_key=idempotency_key, status=status, sort_by=sort_by, sort_dir=sort_dir, limit=limit),
        **{name: aware(_AS_GIVEN.get(name, name), value) for name, value in times.items() if value is not None},
    }
    members = [include] if isinstance(include, str) else list(include)
    if members:
        query["include"] = members
    return _pages(context, Call(LIST_RESERVATIONS, query=query), "reservations", ReservationSummary)


def action_kinds(
    context: OperationContext,
    *,
    risk_class: str | None = None,
    include_deprecated: bool = False,
    **request: Unpack[RequestOptions],
) -> Pages[ActionKind]:
    """Iterate over the server's registry of action kinds, lazily. No API key is sent. Needs protocol 0.1.26.

    Args:
        risk_class: read_only, local_mutation, side_effect, external_side_effect or high_risk.
        include_deprecated: Whether to include deprecated kinds.

    Raises:
        InvalidRequestError: There is no such risk class.
    """
    deprecated = {"deprecated": True} if checked_flag("include_deprecated", include_deprecated) else {}
    query = {**without_none(risk_class=risk_class), **deprecated}
    return _pages(context, Call(LIST_ACTION_KINDS, query=query), "kinds", ActionKind)


async def action_kind(context: OperationContext, kind: str, **request: Unpack[RequestOptions]) -> ActionKind:
    """Return one action kind of the server's registry, by its exact name. No API key is sent. Needs protocol 0.1.26.

    Raises:
        NotFoundError: The registry has no such kind.
    """
    return await _read(context, Call(GET_ACTION_KIND, {"kind": check_id("kind", kind)}), ActionKind)


def _pages(context: OperationContext, call: Call, member: str, item: type[ResultT]) -> Pages[ResultT]:
    context.io.check(call)
    return Pages(call, member, item)


async def _write(context: OperationContext, call: Call, result: type[ResultT]) -> ResultT:
    context.io.check(call)
    return read(await send_write(context.io, call), call.operation, result)


async def _read(context: OperationContext, call: Call, result: type[ResultT]) -> ResultT:
    context.io.check(call)
    return read(await send_read(context.io, call), call.operation, result)


def _body(
    context: OperationContext,
    amount: Amount,
    name: str,
    action: AnyAction,
    subject: AnySubject,
    metadata: Mapping[str, Any] | None,
    idempotency_key: str | None,
) -> dict[str, Any]:
    body = {
        "idempotency_key": _key(idempotency_key),
        "subject": context.subject(subject).to_dict(),
        "action": as_action(action).to_dict(),
        name: checked_amount(amount, name).to_dict(),
    }
    return body if metadata is None else {**body, "metadata": clean_object(metadata, "metadata")}


def _key(given: str | None) -> str:
    return new_key() if given is None else check_key(given)


def _levels(subject: Subject) -> dict[str, str]:
    return {level: value for level in LEVELS if (value := getattr(subject, level)) is not None}


def _ids(found: Settlement | Result) -> dict[str, Any]:
    return {"request_id": found.request_id, "trace_id": found.trace_id, "http": found.http}
