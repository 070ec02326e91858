"""From a plan to a lease, and keeping it alive (semantics 10)."""

from __future__ import annotations

import logging
import uuid
from typing import Final

from cycles._core.error_mapping import CREATE, denial, error_of
from cycles._core.lease.planner import Beat, Failure, FailureKind, Grant, Lease, Notice, Stop
from cycles._core.lifecycle import CALLER_GONE
from cycles._core.outcome import Ambiguous, NoSuccess, Outcome, Refusal, Success
from cycles._core.requests import Call, extend_call, is_id, new_key
from cycles._core.results import EvidenceRef, ReservationCreateResponse, ReservationExtendResponse
from cycles._errors import (
    BudgetClosedError,
    CyclesError,
    GuardFinalizedError,
    InvalidRequestError,
    RateLimitedError,
    ReservationDeniedError,
    ReservationNotActiveError,
    TenantClosedError,
)
from cycles._flows.asking import send_twice, uncertain, why
from cycles._flows.releasing import give_back
from cycles._hold import Heartbeat, Hold, Plan, Release
from cycles._io import Io

EXTEND: Final = "extendReservation"
UNKNOWN_DECISION: Final = "unknown_decision"

_HOPELESS: Final = (BudgetClosedError, TenantClosedError)  # waiting for budget does not help against these
_FIRST_WAIT_MS: Final = 250.0  # between tries for budget; doubled, jittered, and never above the next
_LONGEST_WAIT_MS: Final = 5_000.0


def new_trace_id() -> str:
    """A W3C trace id: 32 hex digits, never all zero (the version bits see to that)."""
    return uuid.uuid4().hex


def create_call(plan: Plan, key: str, trace_id: str | None = None) -> Call:
    """The create request of a plan."""
    return Call(CREATE, body=plan.body(key), trace_id=trace_id)


async def open_hold(io: Io, plan: Plan) -> Hold:
    """Reserve, and begin to keep the lease.

    Raises:
        ReservationDeniedError: where the answer is no; also for a decision this SDK does not know.
        ReservationNotActiveError: where the caller's key replays a reservation that is over.
        CyclesError: for everything else that is no reservation.
    """
    if plan.shadow:
        return await _open_shadow(io, plan)
    key, trace_id = plan.idempotency_key or new_key(), new_trace_id()
    call = create_call(plan, key, trace_id)
    until, pause = io.now_ms() + (plan.wait or 0.0) * 1000, _FIRST_WAIT_MS
    while True:
        try:
            return await _opened(io, plan, key, trace_id, await _create(io, call))
        except (ReservationDeniedError, RateLimitedError) as error:
            left = until - io.now_ms()
            delay = min(pause * (0.5 + io.random()), left) if error.retry_after_ms is None else error.retry_after_ms
            if plan.wait is None or isinstance(error, _HOPELESS) or left <= 0 or delay > left:
                _report_denied(io, plan, error)
                raise
        except CyclesError:
            raise
        except BaseException:  # the caller is interrupted or cancelled, and a reservation may come to be all the same
            io.give_up_create(call)
            raise
        await io.pause(delay / 1000)
        pause = min(pause * 2, _LONGEST_WAIT_MS)


async def _create(io: Io, call: Call) -> Outcome:
    outcome = _with_id(await io.send(call))
    return _with_id(await io.send(call)) if uncertain(outcome) else outcome


def _with_id(outcome: Outcome) -> Outcome:
    """An ALLOW without an id, or with one that no path can carry, proves nothing (decisions 5)."""
    if (
        isinstance(outcome, Success)
        and _allows(outcome.body["decision"])
        and not is_id(outcome.body.get("reservation_id"))
    ):
        message = "the server allowed the reservation without naming it"
        return Ambiguous(200, message, outcome.request_id, outcome.trace_id)
    return outcome


def _allows(decision: str) -> bool:
    return decision in ("ALLOW", "ALLOW_WITH_CAPS")


async def clean_up_create(io: Io, call: Call) -> Outcome:
    """Ask a create that nobody waits for once more, with its own key, and release what it reserved."""
    outcome = await send_twice(io, call)
    if isinstance(outcome, Success) and is_id(reservation_id := outcome.body.get("reservation_id")):
        await give_back(io, Release(reservation_id, new_key(), CALLER_GONE, call.trace_id), quiet=True)
    return outcome


async def _opened(io: Io, plan: Plan, key: str, trace_id: str, outcome: Outcome) -> Hold:
    if not isinstance(outcome, Success):
        if plan.on_unavailable == "allow" and uncertain(outcome):
            return _open_unreserved(io, plan, key, trace_id, outcome)
        raise error_of(outcome, CREATE) from getattr(outcome, "cause", None)
    body = outcome.body
    if not _allows(body["decision"]):
        await _refuse(io, outcome, trace_id)
    reservation_id = body["reservation_id"]
    if plan.idempotency_key is not None and body.get("remaining_ttl_ms") == 0:
        raise ReservationNotActiveError(
            f"idempotency key {key!r} replays reservation {reservation_id}, which is over; "
            "the block does not run again. Use a new key for new work",
            reservation_id=reservation_id,
        )
    hold = Hold(plan, key, trace_id, io.now_ms(), outcome)
    begin_heartbeat(io, hold, reservation_id, outcome)
    if io.listens(logging.DEBUG):
        from cycles._events import Reserved

        io.report(
            Reserved(
                reservation_id=reservation_id,
                request_id=outcome.request_id,
                trace_id=trace_id,
                estimate=plan.estimate,
                decision=body["decision"],
                action=plan.action.name,
            )
        )
    return hold


async def _refuse(io: Io, success: Success, trace_id: str) -> None:
    """Fail closed on DENY and on decisions newer than this SDK; a reservation that came with one is released."""
    created = ReservationCreateResponse.read(
        success.body, request_id=success.request_id, trace_id=success.trace_id or trace_id
    )
    if created.reservation_id is not None and is_id(created.reservation_id):
        await give_back(io, Release(created.reservation_id, new_key(), UNKNOWN_DECISION, trace_id), quiet=True)
    evidence: EvidenceRef | None = created.cycles_evidence
    raise denial(
        created.decision,
        created.reason_code,
        request_id=created.request_id,
        trace_id=created.trace_id,
        retry_after_ms=created.retry_after_ms,
        evidence=evidence,
    )


def begin_heartbeat(io: Io, hold: Hold, reservation_id: str, success: Success) -> None:
    """Keep the lease that an answer granted, from that answer alone."""
    plan = hold.plan
    lease, step = Lease.opened(ttl_ms=plan.ttl_ms, timeout_ms=io.timeout_s * 1000, grant=_grant(success))
    hold.heartbeat = Heartbeat(reservation_id, plan.ttl_ms, lease, step, hold.trace_id)
    _follow(io, hold.heartbeat, lease.notices)


def _grant(success: Success) -> Grant:
    body = success.body
    return Grant(
        remaining_ttl_ms=body.get("remaining_ttl_ms"),
        expires_at_ms=body.get("expires_at_ms"),
        sent_ms=None if success.sent is None else success.sent * 1000,
        received_ms=success.received * 1000,
    )


def _report_denied(io: Io, plan: Plan, error: CyclesError) -> None:
    if io.listens(logging.INFO):
        from cycles._events import Denied

        io.report(
            Denied(
                request_id=getattr(error, "request_id", None),
                trace_id=getattr(error, "trace_id", None),
                estimate=plan.estimate,
                action=plan.action.name,
                reason=str(error),
            )
        )


def _open_unreserved(io: Io, plan: Plan, key: str, trace_id: str, outcome: NoSuccess) -> Hold:
    if io.listens(logging.WARNING):
        from cycles._events import Unreserved

        io.report(Unreserved(trace_id=trace_id, estimate=plan.estimate, action=plan.action.name, why=why(outcome)))
    return Hold(plan, key, trace_id, io.now_ms(), None)


async def _open_shadow(io: Io, plan: Plan) -> Hold:
    """Ask what would have been decided; the block runs whatever the answer, and whether or not one comes."""
    key, trace_id = plan.idempotency_key or new_key(), new_trace_id()
    outcome = await send_twice(io, create_call(plan, key, trace_id))
    if isinstance(outcome, Success):
        hold = Hold(plan, key, trace_id, io.now_ms(), outcome)
    else:
        hold = Hold(plan, key, trace_id, io.now_ms(), None)
        hold.shadow_why = why(outcome)
    created = hold.created
    if io.listens(logging.DEBUG):
        from cycles._events import ShadowDecided

        io.report(
            ShadowDecided(
                trace_id=trace_id,
                estimate=plan.estimate,
                action=plan.action.name,
                decision=created.decision if created is not None else None,
                reason_code=created.reason_code if created is not None else None,
                why=hold.shadow_why,
            )
        )
    return hold


async def beat(io: Io, heartbeat: Heartbeat) -> None:
    """One attempt to extend the lease, and what follows from it."""
    step = heartbeat.begin()
    if step is None:
        return
    call = extend_call(
        heartbeat.reservation_id, heartbeat.key, heartbeat.extend_by_ms, step.cut_ms / 1000, heartbeat.trace_id
    )
    try:
        outcome = await io.send(call)
    except BaseException:  # the event loop ends
        heartbeat.interrupted()
        raise
    if heartbeat.ended:
        return
    if isinstance(outcome, Success):
        _extended(io, heartbeat, outcome)
        return
    now_ms = io.now_ms()
    lease, following = heartbeat.lease.failed(_failure(outcome), now_ms)
    heartbeat.error = error_of(outcome, EXTEND)
    heartbeat.advance(lease, following)
    if isinstance(following, Beat) and io.listens(logging.WARNING):
        from cycles._events import LeaseRetrying

        wait_ms = max(0, round(following.due_ms - now_ms))
        io.report(
            LeaseRetrying(
                reservation_id=heartbeat.reservation_id,
                trace_id=heartbeat.trace_id,
                why=why(outcome),
                retry_in_ms=wait_ms,
            )
        )
    _follow(io, heartbeat, lease.notices)


def _failure(outcome: NoSuccess) -> Failure:
    if isinstance(outcome, Refusal):
        kind = FailureKind.REJECTED
        if outcome.transient:
            kind = FailureKind.RATE_LIMITED if outcome.status == 429 else FailureKind.SERVER
        code = "RESERVATION_EXPIRED" if outcome.expired else outcome.code
        return Failure(kind, why(outcome), code, outcome.retry_after_ms)
    kind = FailureKind.AMBIGUOUS if isinstance(outcome, Ambiguous) else FailureKind.TRANSPORT
    return Failure(kind, why(outcome))


def _extended(io: Io, heartbeat: Heartbeat, success: Success) -> None:
    lease, step = heartbeat.lease.granted(_grant(success))
    heartbeat.error = None
    heartbeat.advance(lease, step)
    if io.listens(logging.DEBUG):
        from cycles._events import LeaseExtended

        io.report(
            LeaseExtended(
                reservation_id=heartbeat.reservation_id,
                trace_id=heartbeat.trace_id,
                expires_at_ms=heartbeat.expires_at_ms,
            )
        )
    _follow(io, heartbeat, lease.notices)


def _follow(io: Io, heartbeat: Heartbeat, notices: tuple[Notice, ...]) -> None:
    """Schedule the next beat, or say that the heartbeat has stopped."""
    if notices and io.listens(logging.WARNING):
        from cycles._events import LeaseNotice

        for notice in notices:
            io.report(
                LeaseNotice(
                    reservation_id=heartbeat.reservation_id,
                    trace_id=heartbeat.trace_id,
                    kind=str(notice.kind),
                    why=notice.detail,
                )
            )
    if isinstance(heartbeat.step, Stop):
        _lost(io, heartbeat, heartbeat.step)
    else:
        io.beat(heartbeat)


def _lost(io: Io, heartbeat: Heartbeat, stop: Stop) -> None:
    if io.listens(logging.WARNING):
        from cycles._events import LeaseLost

        lasts_ms = max(0, int(heartbeat.lease.lasts_until_ms() - io.now_ms()))
        io.report(
            LeaseLost(
                reservation_id=heartbeat.reservation_id,
                trace_id=heartbeat.trace_id,
                why=stop.detail,
                lasts_ms=lasts_ms,
            )
        )
    on_lost = heartbeat.on_lost
    if on_lost is not None:
        on_lost()


async def extend(io: Io, hold: Hold, extend_by_ms: int | None) -> ReservationExtendResponse | None:
    """Extend by hand; the heartbeat goes on from the new end. None for a guard that holds nothing.

    Raises:
        GuardFinalizedError: once the guard has ended.
        CyclesError: the typed error of an answer that extends nothing.
    """
    if hold.finalized:
        raise GuardFinalizedError(f"cannot extend: {hold.name} has already ended; nothing was sent")
    heartbeat = hold.heartbeat
    if heartbeat is None:
        return None
    by_ms = hold.plan.ttl_ms if extend_by_ms is None else extend_by_ms
    if isinstance(by_ms, bool) or not isinstance(by_ms, int):
        raise InvalidRequestError(f"extend_by_ms: must be a whole number of milliseconds, got {by_ms!r}")
    call = extend_call(heartbeat.reservation_id, new_key(), by_ms, None, heartbeat.trace_id)
    io.check(call)
    outcome = await send_twice(io, call)
    if not isinstance(outcome, Success):
        raise error_of(outcome, EXTEND) from getattr(outcome, "cause", None)
    heartbeat.stop = None
    _extended(io, heartbeat, outcome)
    return ReservationExtendResponse.read(outcome.body, request_id=outcome.request_id, trace_id=outcome.trace_id)
