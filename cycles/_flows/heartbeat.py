"""Renew a lease: send its heartbeats, extend it by hand, report its loss. See `docs/protocol/heartbeat.md`."""

from __future__ import annotations

from cycles._core.lease.planner import ExtendAttempt, Failure, FailureKind, Grant, Lease, Notice, Stop, StopReason
from cycles._core.messages.errors import error_of
from cycles._core.messages.outcome import Ambiguous, NoSuccess, Outcome, RejectedResponse, Success, Unreachable
from cycles._core.messages.requests import extend_call, new_key
from cycles._core.protocol import EXTEND_RESERVATION, KEY_REJECTED, RESERVATION_EXPIRED
from cycles._core.results import ReservationExtendResponse
from cycles._errors import GuardFinalizedError
from cycles._flows.guard_state import GuardState
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.io import Io
from cycles._flows.retry import describe, send_write, success_of


def begin_heartbeat(io: Io, guard: GuardState, reservation_id: str, success: Success) -> None:
    """Start the heartbeat of the lease that a response granted. Only that response determines its timing."""
    request = guard.request
    lease, step = Lease.opened(ttl_ms=request.ttl_ms, timeout_ms=io.settings.timeout_s * 1000, grant=_grant(success))
    guard.own_heartbeat = heartbeat = Heartbeat(reservation_id, request.ttl_ms, lease, step, guard.call_options, guard)
    _follow(io, heartbeat, lease.notices)


def _grant(success: Success) -> Grant:
    body = success.body
    return Grant(
        remaining_ttl_ms=body.get("remaining_ttl_ms"),
        expires_at_ms=body.get("expires_at_ms"),
        sent_ms=None if success.sent is None else success.sent * 1000,
        received_ms=success.received * 1000,
    )


async def send_heartbeat(io: Io, heartbeat: Heartbeat) -> None:
    """Make one attempt to extend the lease, and schedule the next one or report the loss."""
    owner = heartbeat.owner
    # The chunk of a pool may have become idle or too old since the attempt was planned.
    if owner is not None and not owner.may_extend():
        return
    step = heartbeat.begin()
    if step is None:
        return
    call = extend_call(
        heartbeat.reservation_id, heartbeat.key, heartbeat.extend_by_ms, step.timeout_ms / 1000, heartbeat.options
    )
    # After any failure here, the next attempt or a report has to follow: else the lease would end unnoticed.
    outcome: Outcome
    try:
        outcome = await io.send(call)
    except Exception as error:  # a bug below: this attempt has failed, and the next one may not
        outcome = Unreachable(f"{type(error).__name__}: {error!s:.200}", error, trace_id=heartbeat.trace_id)
    except BaseException:  # the event loop is closing
        heartbeat.interrupted()
        raise
    # Its guard has ended while the request was on its way; the response changes nothing any more.
    if heartbeat.ended:
        return
    if isinstance(outcome, Success):
        _extended(io, heartbeat, outcome)
        return
    # The planner decides from the time after the response: the failed attempt has used up a part of the lease.
    now_ms = io.clock.now_ms()
    lease, following = heartbeat.lease.failed(_failure(outcome), now_ms)
    # Stored before the state changes: code that is notified of the loss reads its cause.
    heartbeat.error = error_of(outcome, EXTEND_RESERVATION)
    heartbeat.advance(lease, following)
    if isinstance(following, ExtendAttempt):
        wait_ms = max(0, round(following.due_ms - now_ms))
        io.report("LeaseRetrying", heartbeat, detail=describe(outcome), retry_in_ms=wait_ms)
    _follow(io, heartbeat, lease.notices)


def _failure(outcome: NoSuccess) -> Failure:
    if isinstance(outcome, RejectedResponse):
        if outcome.status in KEY_REJECTED:
            kind = FailureKind.KEY_REJECTED
        elif outcome.transient:
            kind = FailureKind.RATE_LIMITED if outcome.status == 429 else FailureKind.SERVER
        else:
            kind = FailureKind.AMBIGUOUS if outcome.is_page else FailureKind.REJECTED
        code = RESERVATION_EXPIRED if outcome.expired else outcome.code
        return Failure(kind, describe(outcome), code, outcome.retry_after_ms)
    kind = FailureKind.AMBIGUOUS if isinstance(outcome, Ambiguous) else FailureKind.TRANSPORT
    return Failure(kind, describe(outcome))


def _extended(io: Io, heartbeat: Heartbeat, success: Success) -> None:
    lease, step = heartbeat.lease.granted(_grant(success))
    heartbeat.error = None
    heartbeat.advance(lease, step)
    io.report("LeaseExtended", heartbeat, expires_at_ms=heartbeat.expires_at_ms)
    _follow(io, heartbeat, lease.notices)


def _follow(io: Io, heartbeat: Heartbeat, notices: tuple[Notice, ...]) -> None:
    """Report what the planner noticed, then schedule the next attempt or report the loss."""
    for notice in notices:
        io.report("LeaseNotice", heartbeat, kind=str(notice.kind), detail=notice.detail)
    if isinstance(heartbeat.step, Stop):
        _lost(io, heartbeat, heartbeat.step)
    else:
        io.schedule(heartbeat)


def adopt(io: Io, heartbeat: Heartbeat) -> None:
    """Renew a lease in the threads of the client from now on: its guard has ended, its settlement is pending.

    `io` are the operations of threads.
    """
    if not heartbeat.ended and not heartbeat.lost:
        heartbeat.adopted = True
        io.schedule(heartbeat)


def lose_lease(io: Io, heartbeat: Heartbeat, stop: Stop) -> None:
    """Stop a heartbeat for a reason of this process, and report the loss of its lease."""
    heartbeat.drop_timer()
    heartbeat.advance(heartbeat.lease, stop)
    _lost(io, heartbeat, stop)


def report_late(io: Io, heartbeat: Heartbeat) -> None:
    """Report that no thread can be started to send the next attempt. It is tried again with the next job or request."""
    lasts_s = max(0, round((_ends_ms(heartbeat.lease) - io.clock.now_ms()) / 1000))
    detail = f"no thread can be started to extend the lease, which ends in about {lasts_s} s; trying again"
    io.report("LeaseNotice", heartbeat, kind="no_thread", detail=detail)


def lose_if_over(io: Io, heartbeat: Heartbeat) -> None:
    """Report the loss of a lease that has ended without an attempt to extend it."""
    # `begin` marks the attempt: of two threads that find the end, one reports it.
    if not heartbeat.lost and io.clock.now_ms() >= _ends_ms(heartbeat.lease) and heartbeat.begin() is not None:
        lose_lease(io, heartbeat, Stop(StopReason.EXPIRED, "no thread could be started to extend it"))


def _ends_ms(lease: Lease) -> float:
    """Return until when (monotonic) the lease lasts; by what was requested if no response has said it."""
    lasts_ms = lease.lasts_until_ms()
    # Without `remaining_ttl_ms` the confirmed time is 0 at first, although the lease is not over.
    return lasts_ms if lease.by_remaining_ttl else max(lasts_ms, lease.response_ms + lease.ttl_ms)


def _lost(io: Io, heartbeat: Heartbeat, stop: Stop) -> None:
    lasts_ms = max(0, int(heartbeat.lease.lasts_until_ms() - io.clock.now_ms()))
    io.report("LeaseLost", heartbeat, detail=stop.detail, lasts_ms=lasts_ms)
    owner = heartbeat.owner
    if owner is not None:
        owner.lease_lost()


async def extend(io: Io, guard: GuardState, extend_by_ms: int | None) -> ReservationExtendResponse | None:
    """Extend the lease on the caller's request; the heartbeat continues from the new end.

    Returns:
        The response, or None for a guard without a reservation of its own.

    Raises:
        GuardFinalizedError: the guard has ended.
        InvalidRequestError: `extend_by_ms` is not an integer from 1 to 86,400,000; nothing was sent.
        CyclesError: any response that does not extend the lease.
    """
    if guard.finalized:
        raise GuardFinalizedError(f"cannot extend: {guard.name} has already ended; nothing was sent")
    heartbeat = guard.heartbeat
    if heartbeat is None or guard.settler is not None:  # the heartbeat of a chunk renews the lease of all its guards
        return None
    by_ms = guard.request.ttl_ms if extend_by_ms is None else extend_by_ms
    call = extend_call(heartbeat.reservation_id, new_key(), by_ms, None, heartbeat.options)
    io.check(call)
    success = success_of(await send_write(io, call), EXTEND_RESERVATION)
    # A manual extend revives a lost lease: the server has just confirmed that it is active.
    heartbeat.resume()
    _extended(io, heartbeat, success)
    return ReservationExtendResponse.read(success.body, **success.ids)
