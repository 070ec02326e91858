"""The operations beside the guard, each written once: `cycles._client.methods` makes the sync and the async method."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final, TypeAlias, Unpack

from attrs import evolve, frozen

from cycles._client.call_options import RequestOptions
from cycles._client.operation_context import OperationContext, ResultT
from cycles._client.options import AnyAction, AnySubject, checked_amount
from cycles._core.amounts import Amount
from cycles._core.messages.requests import Call, check_id, check_key, extend_call, new_key, release_call, without_none
from cycles._core.protocol import (
    COMMIT_RESERVATION,
    CREATE_EVENT,
    CREATE_RESERVATION,
    GET_ACTION_KIND,
    GET_EVIDENCE,
    GET_EVIDENCE_KEYS,
    GET_RESERVATION,
)
from cycles._core.results import (
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
    Result,
)
from cycles._core.settlement.record import Made, Record, event_record_id
from cycles._core.settlement.settlement import Settlement
from cycles._core.subjects import as_action
from cycles._core.values.action_kinds import ActionKind
from cycles._core.values.json_values import clean_object
from cycles._core.values.usage import Metrics, Usage
from cycles._flows.commit import settle_record
from cycles._flows.retry import read, send_read, send_write, success_of
from cycles._flows.settle import event_record, usable_values

AnyMetrics: TypeAlias = Metrics | Usage | Mapping[str, Any] | None

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
    return await _write(context, Call("decide", body=body), DecisionResponse)


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
    return await _write(context, Call(CREATE_RESERVATION, body=body), ReservationCreateResponse)


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
    body |= without_none(
        overage_policy=overage_policy or context.options.overage_policy,
        metrics=_metrics(context, event_record_id(body["idempotency_key"]), metrics),
    )
    settlement = await settle_record(context.io, event_record(context.io, body), context.traced(), CREATE_EVENT)
    # Without a response the amount is pending, not lost: an exception would make callers record it a second time.
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
    check_id("reservation_id", reservation_id)
    body = without_none(
        idempotency_key=_key(idempotency_key),
        actual=checked_amount(actual, "actual").to_dict(),
        metrics=_metrics(context, reservation_id, metrics),
        metadata=clean_object(metadata, "metadata") if metadata is not None else None,
    )
    record = Record(
        reservation_id=reservation_id,
        base_url=context.io.settings.base_url,
        commit_body=body,
        recorded_at_ms=context.io.clock.wall_ms(),
        made=Made(context.io.clock.boot_ms()),
    )
    settlement = await settle_record(context.io, record, context.traced(), COMMIT_RESERVATION)
    # As in `record`: pending is a result, so that no caller commits again with another key.
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
    call = release_call(check_id("reservation_id", reservation_id), _key(idempotency_key), reason)
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
    call = extend_call(reservation_id, _key(idempotency_key), extend_by_ms)
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
    outcome = await send_read(context.io, Call(GET_EVIDENCE_KEYS, options=context.options.of_call))
    key_set = read(outcome, GET_EVIDENCE_KEYS, _KeySet)
    # Item by item: a key set may have keys of types that this version does not know, and the others stay usable.
    check = context.wire.item_check(GET_EVIDENCE_KEYS)
    keys = [EvidenceKey.read(key) for key in key_set.keys if isinstance(key, dict) and check(key, "") is None]
    usable = [key for key in keys if key.kty == "OKP" and key.crv == "Ed25519" and key.alg in (None, "EdDSA")]
    return EvidenceKeys(keys=usable, raw=key_set.raw, **_ids(key_set))


@frozen(kw_only=True)
class _KeySet(Result):
    keys: list[Any]


async def action_kind(context: OperationContext, kind: str, **request: Unpack[RequestOptions]) -> ActionKind:
    """Return one action kind of the server's registry, by its exact name. No API key is sent. Needs protocol 0.1.26.

    Raises:
        NotFoundError: The registry has no such kind.
    """
    return await _read(context, Call(GET_ACTION_KIND, {"kind": check_id("kind", kind)}), ActionKind)


async def raw(
    context: OperationContext,
    operation: str | ModuleType,
    /,
    *,
    extra_headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    **arguments: Any,
) -> Any:
    """Call any operation of the protocol by its id, and return the generated model of its response.

    Reads, and writes with an idempotency key, are retried after an inconclusive response, like all operations.

    Args:
        operation: An operation id such as ``"getBalances"``, or its module in `cycles_client.api`.
        extra_headers: Headers to send in addition, for example an operator's ``X-Admin-API-Key``.
        timeout: Seconds that one attempt may take.
        arguments: The arguments of the generated function. `body` may also be a mapping.

    Returns:
        The generated model (a list or dict if the response is one); None if the response has no JSON body.

    Raises:
        InvalidRequestError: There is no such operation, or an argument is wrong; nothing was sent.
        CyclesError: The response is no success.
    """
    from cycles._wire import generated

    context = context.with_options(timeout=timeout)
    name = generated.find(operation)
    call = generated.call_of(name, arguments, extra_headers or {}, context.traced())
    context.io.check(call)
    # Only what is safe to repeat is repeated: a read, or a write whose key the server recognizes.
    if generated.is_read(name):
        outcome = await send_read(context.io, call)
    elif call.body is not None and "idempotency_key" in call.body:
        outcome = await send_write(context.io, call)
    else:
        outcome = await context.io.send(call)
    return generated.model_of(name, success_of(outcome, name).body)


async def _write(context: OperationContext, call: Call, result: type[ResultT]) -> ResultT:
    context.io.check(call)
    return read(await send_write(context.io, evolve(call, options=context.traced())), call.operation, result)


async def _read(context: OperationContext, call: Call, result: type[ResultT]) -> ResultT:
    context.io.check(call)
    return read(await send_read(context.io, evolve(call, options=context.options.of_call)), call.operation, result)


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


def _metrics(context: OperationContext, reservation_id: str, metrics: AnyMetrics) -> dict[str, Any] | None:
    """Return metrics as they are sent. A mapping is checked; of `Metrics` the usable members are sent."""
    used, _ = usable_values(context.io, reservation_id, Metrics.of(metrics), None)
    return None if used is None else used.to_dict()


def _key(given: str | None) -> str:
    return new_key() if given is None else check_key(given)


def _ids(found: Settlement | Result) -> dict[str, Any]:
    return {"request_id": found.request_id, "trace_id": found.trace_id, "http": found.http}
