"""Detach a guard as a token, and attach it in another thread, task, process or machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakValueDictionary

from attrs import frozen

from cycles._config import LeasePolicy
from cycles._core.amounts import Amount, amount_of
from cycles._core.messages.guard_token import members_of, token_of
from cycles._core.messages.outcome import RejectedResponse
from cycles._core.messages.requests import DEFAULT_TTL_MS, CallOptions, extend_call, new_key, new_trace_id
from cycles._core.messages.reserve_request import Actual, ReserveRequest
from cycles._core.protocol import EXTEND_RESERVATION, MAX_EXTENSIONS_EXCEEDED
from cycles._core.results import ReservationCreateResponse, ReservationSummary
from cycles._core.subjects import Action, Subject
from cycles._core.values.usage import CUSTOM_COUNTS, settlement_metrics
from cycles._errors import GuardFinalizedError, InvalidRequestError
from cycles._flows.guard_state import GuardState
from cycles._flows.heartbeat import begin_heartbeat
from cycles._flows.io import Io
from cycles._flows.reserve import Take, traced
from cycles._flows.retry import describe, send_write, success_of

# Out of date when the token is attached.
_LATER: Final = frozenset({"balances", "remaining_ttl_ms", "cycles_evidence"})
_detached: Final[WeakValueDictionary[str, GuardState]] = WeakValueDictionary()
"""The guards that were detached in this process. A limit that counts one continues with the guard that replaces it."""


@frozen
class SerializedGuard:
    """A guard between detach and attach: the content of a token, or a row of the server's list."""

    request: ReserveRequest
    key: str
    trace_id: str
    created: ReservationCreateResponse | None
    spent: Amount | None = None
    usage: Mapping[str, Any] | None = None


def serialize(guard: GuardState) -> str:
    """End a guard without settling it, and return the token from which `attach` continues.

    Raises:
        GuardFinalizedError: the guard has already ended, or was only observed.
        InvalidRequestError: the guard is unreserved or of a pool, so there is nothing to transfer. It stays as it was.
    """
    if guard.settler is not None:
        raise InvalidRequestError(
            "a guard of a pool cannot be detached, because the server never sees it: use client.reserve(...) for it"
        )
    if guard.state == "observed":
        raise GuardFinalizedError(
            f"cannot detach: {guard.name} was only observed, so nothing is held; call commit or release"
        )
    if guard.state == "unreserved" and not guard.finalized:
        raise InvalidRequestError(
            f"cannot detach: {guard.name} is unreserved, so no client could continue it; call commit or release"
        )
    # From here on no caller can end it in this process, so the token is its only owner.
    guard.claim("detach")
    guard.apply("detached")
    if guard.reservation_id is not None:
        _detached[guard.reservation_id] = guard
    # The spend travels in the token. Left behind, it would be committed by the next process as well.
    guard.end_written_ahead()
    guard.end_trace()
    request, created = guard.request, guard.created
    # Counts go with the token too: the commit of the other process reports the whole work.
    used, _ = settlement_metrics(None, guard.usage)
    return token_of(
        {
            "key": guard.key,
            "trace_id": guard.trace_id,
            "estimate": request.estimate.to_dict(),
            "subject": request.subject.to_dict(),
            "action": request.action.to_dict(),
            "ttl_ms": request.ttl_ms,
            "overage_policy": request.overage_policy,
            "lease_policy": request.lease_policy,
            "shadow": request.shadow,
            "created": None if created is None else {n: v for n, v in created.raw.items() if n not in _LATER},
            "spent": None if guard.known is None else guard.known.to_dict(),
            "usage": used,
        }
    )


def deserialize(token: str, actual: Actual, lease_policy: LeasePolicy | None) -> SerializedGuard:
    """Return the guard of a token.

    Raises:
        InvalidRequestError: the string is not a token of `serialize`.
    """
    members = members_of(token)
    try:
        request = ReserveRequest(
            estimate=amount_of(members["estimate"]),
            action=Action(**members["action"]),
            subject=Subject(**members["subject"]),
            ttl_ms=members["ttl_ms"],
            overage_policy=members.get("overage_policy"),  # a token of an earlier version has none
            actual=actual,
            lease_policy=lease_policy or members["lease_policy"],
            shadow=members["shadow"],
        )
        created = None if members["created"] is None else ReservationCreateResponse.read(members["created"])
        spent = None if members["spent"] is None else amount_of(members["spent"])
        return SerializedGuard(request, members["key"], members["trace_id"], created, spent, members["usage"])
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise InvalidRequestError(
            f"not a token of guard.detach(): {problem!r:.80}; pass the returned string unchanged"
        ) from None


def found(row: ReservationSummary, actual: Actual, lease_policy: LeasePolicy) -> SerializedGuard:
    """Return the guard of a reservation that `client.find` or `client.reservation` returned."""
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


async def attach(io: Io, serialized: SerializedGuard, take: Take) -> GuardState:
    """Continue a guard. One extend confirms that its reservation is active, and its response sets the timing.

    `take` is called as in `open_lease`. An interrupt before it leaves the reservation to the token.

    Raises:
        ReservationExpiredError, ReservationFinalizedError: the reservation has ended.
        CyclesError: any other outcome that does not confirm the reservation.
    """
    options = io.begin_trace(serialized.request, serialized.trace_id)
    opening, trace = _attach(io, serialized, options, take), options.trace
    return await (opening if trace is None else traced(trace, opening))


async def _attach(io: Io, serialized: SerializedGuard, options: CallOptions, take: Take) -> GuardState:
    guard = GuardState(serialized.request, serialized.key, options, io.clock.now_ms(), serialized.created)
    # What was spent before the transfer is part of what the commit charges.
    guard.spent = serialized.spent
    _restore(guard, serialized.usage or {})
    # Nothing is held, so there is nothing to confirm.
    if guard.reservation_id is None or serialized.request.shadow:
        return guard
    call = extend_call(guard.reservation_id, new_key(), serialized.request.ttl_ms, None, options)
    outcome = await send_write(io, call)
    # The server has found the reservation active, although it extends it no longer.
    if isinstance(outcome, RejectedResponse) and outcome.code == MAX_EXTENSIONS_EXCEEDED:
        detail = f"attached, but its lease cannot be extended any longer: {describe(outcome)}"
        io.report("LeaseNotice", guard, kind="not_extendable", detail=detail)
    else:
        success = success_of(outcome, EXTEND_RESERVATION)
        take(guard)
        begin_heartbeat(io, guard, guard.reservation_id, success)
    # In the same process, limits follow from the guard that was detached to this one.
    detached = _detached.pop(guard.reservation_id, None)
    if detached is not None:
        detached.attached = guard
    return guard


def _restore(guard: GuardState, usage: Mapping[str, Any]) -> None:
    custom = dict(usage.get("custom") or {})
    counts = {name: custom.pop(name) for name in CUSTOM_COUNTS if type(custom.get(name)) is int}
    counts |= {name: usage.get(name, 0) for name in ("tokens_input", "tokens_output")}
    guard.usage.add(model_version=usage.get("model_version"), custom=custom, **counts)
