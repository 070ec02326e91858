"""Giving a guard away and going on with it elsewhere: another thread, task, process or machine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from cycles._config import LeasePolicy
from cycles._core.amounts import Amount
from cycles._core.error_mapping import error_of
from cycles._core.guard_token import facts_of, token_of
from cycles._core.lifecycle import Actual
from cycles._core.outcome import RejectedResponse, Success
from cycles._core.protocol import EXTEND_RESERVATION, MAX_EXTENSIONS_EXCEEDED
from cycles._core.requests import DEFAULT_TTL_MS, extend_call, new_key
from cycles._core.reserve_request import ReserveRequest
from cycles._core.results import ReservationCreateResponse, ReservationSummary
from cycles._core.subjects import Action, Subject
from cycles._core.usage import settlement_metrics
from cycles._errors import InvalidRequestError
from cycles._flows.guard_state import GuardState
from cycles._flows.heartbeat import begin_heartbeat
from cycles._flows.io import Io
from cycles._flows.reserve import new_trace_id
from cycles._flows.retry import describe, send_twice

_LATER: frozenset[str] = frozenset({"balances", "remaining_ttl_ms", "cycles_evidence"})  # not true any more elsewhere


@frozen
class SerializedGuard:
    """A guard on its way: what a token, or a row of the server's list, tells of it."""

    request: ReserveRequest
    key: str
    trace_id: str
    created: ReservationCreateResponse | None
    spent: Amount | None = None
    usage: Mapping[str, Any] | None = None


def serialize(guard: GuardState) -> str:
    """End a guard here, settling nothing, and answer the token it goes on from.

    Raises:
        GuardFinalizedError: if it has already ended.
    """
    guard.claim("detach")
    guard.state = "detached"
    request, created = guard.request, guard.created
    used, _ = settlement_metrics(None, guard.usage)
    return token_of(
        {
            "key": guard.key,
            "trace_id": guard.trace_id,
            "estimate": request.estimate.to_dict(),
            "subject": request.subject.to_dict(),
            "action": request.action.to_dict(),
            "ttl_ms": request.ttl_ms,
            "lease_policy": request.lease_policy,
            "shadow": request.shadow,
            "created": None if created is None else {n: v for n, v in created.raw.items() if n not in _LATER},
            "spent": None if guard.known is None else guard.known.to_dict(),
            "usage": used,
        }
    )


def deserialize(token: str, actual: Actual, lease_policy: LeasePolicy | None) -> SerializedGuard:
    """What a token tells.

    Raises:
        InvalidRequestError: if it is none of `park`.
    """
    facts = facts_of(token)
    try:
        request = ReserveRequest(
            estimate=_amount(facts["estimate"]),
            action=Action(**facts["action"]),
            subject=Subject(**facts["subject"]),
            ttl_ms=facts["ttl_ms"],
            actual=actual,
            lease_policy=lease_policy or facts["lease_policy"],
            shadow=facts["shadow"],
        )
        created = None if facts["created"] is None else ReservationCreateResponse.read(facts["created"])
        spent = None if facts["spent"] is None else _amount(facts["spent"])
        return SerializedGuard(request, facts["key"], facts["trace_id"], created, spent, facts["usage"])
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise InvalidRequestError(f"token: not one of guard.detach() ({problem!r}); pass it on unchanged") from None


def found(row: ReservationSummary, actual: Actual, lease_policy: LeasePolicy) -> SerializedGuard:
    """A reservation that `client.find` or `client.reservation` told of."""
    request = ReserveRequest(
        estimate=row.reserved,
        action=row.action,
        subject=row.subject,
        ttl_ms=DEFAULT_TTL_MS,
        actual=actual,
        lease_policy=lease_policy,
    )
    body = {
        "decision": "ALLOW",
        "reservation_id": row.reservation_id,
        "reserved": row.reserved.to_dict(),
        "expires_at_ms": row.expires_at_ms,
        "scope_path": row.scope_path,
        "affected_scopes": row.affected_scopes,
    }
    return SerializedGuard(
        request, row.idempotency_key or new_key(), new_trace_id(), ReservationCreateResponse.read(body)
    )


async def attach(io: Io, serialized: SerializedGuard) -> GuardState:
    """Go on with a guard. One extension proves that it is still alive, and times its lease anew.

    Raises:
        ReservationExpiredError, ReservationFinalizedError: if there is nothing left to go on with.
        CyclesError: for every other answer that proves nothing.
    """
    guard = GuardState(serialized.request, serialized.key, serialized.trace_id, io.now_ms(), serialized.created)
    guard.spent = serialized.spent
    _restore(guard, serialized.usage or {})
    if guard.reservation_id is None or serialized.request.shadow:
        return guard
    call = extend_call(guard.reservation_id, new_key(), serialized.request.ttl_ms, None, serialized.trace_id)
    outcome = await send_twice(io, call)
    if isinstance(outcome, Success):
        begin_heartbeat(io, guard, guard.reservation_id, outcome)
    elif isinstance(outcome, RejectedResponse) and outcome.code == MAX_EXTENSIONS_EXCEEDED:
        _without_heartbeat(io, guard, describe(outcome))
    else:
        raise error_of(outcome, EXTEND_RESERVATION) from getattr(outcome, "cause", None)
    return guard


def _without_heartbeat(io: Io, guard: GuardState, reason: str) -> None:
    """It lives until the end it already has; nothing can move that."""
    if io.is_enabled_for(logging.WARNING):
        from cycles.events import LeaseNotice

        io.report(
            LeaseNotice(
                reservation_id=guard.reservation_id,
                trace_id=guard.trace_id,
                kind="not_extendable",
                detail=f"attached, but its lease cannot be extended any more: {reason}",
            )
        )


def _restore(guard: GuardState, usage: Mapping[str, Any]) -> None:
    custom = dict(usage.get("custom") or {})
    counts = {name: custom.pop(name, 0) for name in ("tokens_cached_input", "tokens_cache_write")}
    guard.usage.add(
        tokens_input=usage.get("tokens_input", 0),
        tokens_output=usage.get("tokens_output", 0),
        model_version=usage.get("model_version"),
        custom=custom,
        **counts,
    )


def _amount(wire: Mapping[str, Any]) -> Amount:
    return Amount(wire["unit"], wire["amount"])
