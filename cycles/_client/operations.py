"""The operations beside the guard, described once: `cycles._client.methods` offers them to both worlds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, TypeAlias

from attrs import frozen

from cycles._client.methods import OperationContext, Pages, ResultT
from cycles._client.options import AnyAction, AnySubject
from cycles._core.amounts import Amount
from cycles._core.json_values import clean_object
from cycles._core.records import Record
from cycles._core.requests import Call, aware, check_id, check_key, extend_call, new_key, release_call, without_none
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
from cycles._errors import InvalidRequestError
from cycles._flows.commit import record_event, settle_record
from cycles._flows.reserve import new_trace_id
from cycles._flows.retry import read, send_read, send_twice

AnyMetrics: TypeAlias = Metrics | Usage | Mapping[str, Any] | None

_AS_GIVEN: Final = {"from": "created_from", "to": "created_to"}  # wire names that a caller would not recognise
_PENDING: Final = "PENDING"  # where an answer stands for one that has not come yet


async def decide(
    here: OperationContext,
    estimate: Amount,
    *,
    action: AnyAction,
    subject: AnySubject = None,
    metadata: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> DecisionResponse:
    """Ask whether an action would be allowed; nothing is reserved, and the answer is no promise for later.

    Raises:
        InvalidRequestError: naming the member and the bound it breaks; nothing was sent.
        CyclesError: for every answer that is no decision; a DENY is one.
    """
    call = Call(
        "decide", body=_question(here, estimate, action, subject, metadata, idempotency_key), trace_id=new_trace_id()
    )
    return await _ask(here, call, DecisionResponse)


async def preview(
    here: OperationContext,
    estimate: Amount,
    *,
    action: AnyAction,
    subject: AnySubject = None,
    ttl_ms: int | None = None,
    grace_period_ms: int | None = None,
    overage_policy: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> ReservationCreateResponse:
    """Evaluate a reservation without making it (a dry run): the whole answer, DENY included, and nothing is held.

    Raises:
        InvalidRequestError: naming the member and the bound it breaks; nothing was sent.
        CyclesError: for every answer that is no decision.
    """
    body = _question(here, estimate, action, subject, metadata, idempotency_key)
    body |= without_none(ttl_ms=ttl_ms, grace_period_ms=grace_period_ms, overage_policy=overage_policy, dry_run=True)
    return await _ask(here, Call("createReservation", body=body, trace_id=new_trace_id()), ReservationCreateResponse)


async def record(
    here: OperationContext,
    actual: Amount,
    *,
    action: AnyAction,
    subject: AnySubject = None,
    overage_policy: str | None = None,
    metrics: AnyMetrics = None,
    metadata: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> EventCreateResponse:
    """Debit what an action cost, without a reservation. Journaled like a commit.

    Where the server could not be asked, the answer has the status ``PENDING`` and no `event_id`; the client goes on
    with the same key, and `client.pending()` lists it. Recording it again would charge it twice.

    Raises:
        InvalidRequestError: naming the member and the bound it breaks; nothing was sent.
        ProtocolError: for an understood refusal.
    """
    body = _body(here, actual, "actual", action, subject, metadata, idempotency_key)
    used = Metrics.of(metrics)
    body |= without_none(overage_policy=overage_policy, metrics=used.to_dict() if used is not None else None)
    settlement = await record_event(here.io, body, new_trace_id())
    if isinstance(settlement.response, EventCreateResponse):
        return settlement.response
    return EventCreateResponse(status=_PENDING, event_id="", **_ids(settlement))


async def reservation(here: OperationContext, reservation_id: str) -> ReservationDetail:
    """Read one reservation.

    Raises:
        NotFoundError, ForbiddenError: where there is none, or it is somebody else's.
        ReservationExpiredError: where it has expired.
    """
    call = Call("getReservation", {"reservation_id": check_id("reservation_id", reservation_id)})
    return await _get(here, call, ReservationDetail)


async def find(here: OperationContext, *, idempotency_key: str) -> ReservationSummary | None:
    """Find the reservation that was made with a key of yours; None if there is none. `attach` goes on with it.

    Raises:
        CyclesError: where the server does not say.
    """
    rows = reservations(here, idempotency_key=check_key(idempotency_key), include=("metadata", "committed_metadata"))
    items, _ = await rows.fetch(here.io, None)
    return items[0] if items else None


async def commit_reservation(
    here: OperationContext,
    reservation_id: str,
    actual: Amount,
    *,
    metrics: AnyMetrics = None,
    metadata: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> CommitResponse:
    """Commit a reservation by its id, journaled; for code that has no guard in hand.

    Where the server could not be asked, the answer has the status ``PENDING`` and charges nothing yet; the client
    goes on with the same key.

    Raises:
        InvalidRequestError: naming the member and the bound it breaks; nothing was sent.
        ReservationExpiredError: once the lease and its grace period are over: use `record` then.
        ProtocolError: for any other understood refusal.
    """
    used = Metrics.of(metrics)
    body = without_none(
        idempotency_key=_key(idempotency_key),
        actual=_amount(actual, "actual"),
        metrics=used.to_dict() if used is not None else None,
        metadata=clean_object(metadata, "metadata") if metadata is not None else None,
    )
    record = Record(
        reservation_id=check_id("reservation_id", reservation_id),
        base_url=here.io.base_url,
        commit_body=body,
        recorded_at_ms=here.io.wall_ms(),
    )
    settlement = await settle_record(here.io, record, new_trace_id(), "commitReservation")
    if isinstance(settlement.response, CommitResponse):
        return settlement.response
    return CommitResponse(status=_PENDING, charged=Amount(actual.unit, 0), **_ids(settlement))


async def release_reservation(
    here: OperationContext, reservation_id: str, reason: str | None = None, *, idempotency_key: str | None = None
) -> ReleaseResponse:
    """Release a reservation by its id; repeated once, with the same key, where the first answer proves nothing.

    Raises:
        CyclesError: where the server does not release it.
    """
    call = release_call(check_id("reservation_id", reservation_id), _key(idempotency_key), reason, new_trace_id())
    return await _ask(here, call, ReleaseResponse)


async def extend_reservation(
    here: OperationContext, reservation_id: str, extend_by_ms: int, *, idempotency_key: str | None = None
) -> ReservationExtendResponse:
    """Move the end of a reservation `extend_by_ms` milliseconds further, by its id.

    Raises:
        CyclesError: where the server does not extend it.
    """
    reservation_id = check_id("reservation_id", reservation_id)
    call = extend_call(reservation_id, _key(idempotency_key), extend_by_ms, None, new_trace_id())
    return await _ask(here, call, ReservationExtendResponse)


async def evidence(here: OperationContext, evidence_id: str) -> EvidenceEnvelope:
    """Read the signed statement of one answer; public, so no key is sent. `evidence_id` is 64 lower-case hex digits.

    Raises:
        NotFoundError: where the server has no such evidence.
    """
    return await _get(here, Call("getEvidence", {"evidence_id": evidence_id}), EvidenceEnvelope)


async def evidence_keys(here: OperationContext) -> EvidenceKeys:
    """Read the public keys evidence is signed with; keys this SDK cannot read are left out. No key is sent.

    Raises:
        NotFoundError: where the server signs nothing.
    """
    answer = await send_read(here.io, Call("getEvidenceJwks"))
    read_ = read(answer, "getEvidenceJwks", _KeySet)
    check = here.wire.item_check("getEvidenceJwks")
    keys = [EvidenceKey.read(key) for key in read_.keys if isinstance(key, dict) and check(key, "") is None]
    usable = [key for key in keys if key.kty == "OKP" and key.crv == "Ed25519" and key.alg in (None, "EdDSA")]
    return EvidenceKeys(keys=usable, request_id=read_.request_id, trace_id=read_.trace_id, raw=read_.raw)


@frozen(kw_only=True)
class _KeySet(Result):
    keys: list[Any]


def balances(here: OperationContext, *, subject: AnySubject = None, include_children: bool = False) -> Pages[Balance]:
    """The budgets of a subject, page by page, lazily; what `subject` leaves out comes from the configuration.

    Raises:
        InvalidRequestError: where no level of the subject is known.
    """
    query = {**_levels(here.subject(subject)), **({"include_children": True} if include_children else {})}
    return _pages(here, Call("getBalances", query=query), "balances", Balance)


def reservations(
    here: OperationContext,
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
) -> Pages[ReservationSummary]:
    """The tenant's reservations, page by page, lazily. Filters are all of them met; times are inclusive.

    Args:
        status: ACTIVE, COMMITTED, RELEASED or EXPIRED.
        subject: Levels the reservation's scope must have; nothing is added from the configuration.
        idempotency_key: The key of the reserve.
        created_from, created_to, expires_from, expires_to, finalized_from, finalized_to: Aware datetimes.
        sort_by: reservation_id, tenant, scope_path, status, reserved, created_at_ms or expires_at_ms.
        sort_dir: asc or desc.
        include: Any of metadata, committed_metadata, evidence: what rows carry beside the usual.
        limit: Rows in one page, 1 to 200; the iterator goes on to the next page by itself.

    Raises:
        InvalidRequestError: naming the filter and what it may be; a naive datetime is refused.
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
    return _pages(here, Call("listReservations", query=query), "reservations", ReservationSummary)


def _pages(here: OperationContext, call: Call, member: str, item: type[ResultT]) -> Pages[ResultT]:
    here.io.check(call)
    return Pages(call, member, item)


async def _ask(here: OperationContext, call: Call, result: type[ResultT]) -> ResultT:
    here.io.check(call)
    return read(await send_twice(here.io, call), call.operation, result)


async def _get(here: OperationContext, call: Call, result: type[ResultT]) -> ResultT:
    here.io.check(call)
    return read(await send_read(here.io, call), call.operation, result)


def _question(
    here: OperationContext,
    estimate: Amount,
    action: AnyAction,
    subject: AnySubject,
    metadata: Mapping[str, Any] | None,
    idempotency_key: str | None,
) -> dict[str, Any]:
    return _body(here, estimate, "estimate", action, subject, metadata, idempotency_key)


def _body(
    here: OperationContext,
    amount: Amount,
    name: str,
    action: AnyAction,
    subject: AnySubject,
    metadata: Mapping[str, Any] | None,
    idempotency_key: str | None,
) -> dict[str, Any]:
    body = {
        "idempotency_key": _key(idempotency_key),
        "subject": here.subject(subject).to_dict(),
        "action": as_action(action).to_dict(),
        name: _amount(amount, name),
    }
    return body if metadata is None else {**body, "metadata": clean_object(metadata, "metadata")}


def _amount(amount: Amount, name: str) -> dict[str, Any]:
    if not isinstance(amount, Amount):
        raise InvalidRequestError(f"{name}: give an amount such as cycles.usd('0.05'), got {amount!r}")
    return amount.to_dict()


def _key(given: str | None) -> str:
    return new_key() if given is None else check_key(given)


def _levels(subject: Subject) -> dict[str, str]:
    return {level: value for level in LEVELS if (value := getattr(subject, level)) is not None}


def _ids(settlement: Settlement) -> dict[str, Any]:
    return {"request_id": settlement.request_id, "trace_id": settlement.trace_id}
