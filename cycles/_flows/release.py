"""Giving back what is reserved: one try in the caller's sight, the rest in the background (decisions 13)."""

from __future__ import annotations

import logging
from typing import Literal

from cycles._core.amounts import Amount
from cycles._core.error_mapping import error_of
from cycles._core.outcome import Outcome, RejectedResponse, Success
from cycles._core.protocol import RELEASE_RESERVATION
from cycles._core.requests import Call, new_key, release_call
from cycles._core.results import ReleaseResponse
from cycles._errors import CyclesError
from cycles._flows.guard_state import ANY_AMOUNT, GuardState, Release
from cycles._flows.io import Io
from cycles._flows.retry import describe
from cycles._flows.settle import finish_in_background, settle_shadow, stop_for_release


async def send_release(io: Io, owed: Release, *, quiet: bool) -> ReleaseResponse | None:
    """One try at a release; what is not understood as final goes on in the background.

    Raises:
        ProtocolError: for an understood refusal, unless `quiet`.
    """
    try:
        outcome = await io.send(release_call_of(owed))
    except BaseException:  # interrupted or cancelled: the budget must come back all the same
        io.finish_releasing(owed)
        raise
    if isinstance(outcome, Success):
        report_released(io, owed)
        return ReleaseResponse.read(outcome.body, request_id=outcome.request_id, trace_id=outcome.trace_id)
    final = is_final(outcome)
    report_release_failed(io, owed, describe(outcome), retrying=not final)
    if not final:
        io.keep_releasing(owed)
    elif not quiet:
        raise error_of(outcome, RELEASE_RESERVATION)
    return None


def release_call_of(owed: Release) -> Call:
    """The request of a release that is owed."""
    return release_call(owed.reservation_id, owed.key, owed.reason, owed.trace_id)


def is_final(outcome: Outcome) -> bool:
    """True where no repetition would change the answer to a release."""
    return isinstance(outcome, Success) or (
        isinstance(outcome, RejectedResponse) and (outcome.understood or outcome.expired)
    )


def report_released(io: Io, owed: Release) -> None:
    """Tell that budget went back."""
    if io.is_enabled_for(logging.INFO):
        from cycles.events import Released

        io.report(Released(reservation_id=owed.reservation_id, trace_id=owed.trace_id, reason=owed.reason))


def report_release_failed(io: Io, owed: Release, detail: str, *, retrying: bool) -> None:
    """Tell that budget did not go back, and what happens next."""
    if io.is_enabled_for(logging.WARNING):
        from cycles.events import ReleaseFailed

        event = ReleaseFailed(
            reservation_id=owed.reservation_id, trace_id=owed.trace_id, detail=detail, retrying=retrying
        )
        io.report(event)


async def release(io: Io, guard: GuardState, reason: str | None) -> ReleaseResponse | None:
    """End a guard and give its budget back. None where nothing was held, or where the background goes on trying.

    Raises:
        GuardFinalizedError: if the guard has ended; nothing is sent.
        ProtocolError: for an understood refusal.
    """
    _, response = await release_guard(io, guard, reason, quiet=False)
    guard.raise_loss_outside_a_block()
    return response


async def release_guard(
    io: Io,
    guard: GuardState,
    reason: str | None,
    *,
    quiet: bool,
    known: Amount | Literal["as it is"] | None = ANY_AMOUNT,
) -> tuple[bool, ReleaseResponse | None]:
    """The same, and whether it was done: not, if another thread has spent meanwhile.

    Raises:
        GuardFinalizedError: if the guard has ended; nothing is sent.
        ProtocolError: for an understood refusal, unless `quiet`.
    """
    owed = _release_of(guard, reason)
    try:
        if not guard.claim("release", known, owed):
            return False, None
        if guard.request.shadow:
            settle_shadow(io, guard, None)
            return True, None
        stop_for_release(io, guard)
        guard.owed = None  # from here on `send_release` sees to it
        return True, None if owed is None else await send_release(io, owed, quiet=quiet)
    except CyclesError:
        raise
    except BaseException:  # interrupted or cancelled
        finish_in_background(io, guard)
        raise


def release_in_background(io: Io, guard: GuardState, reason: str | None) -> None:
    """Give the budget of a guard back that is claimed, without anybody waiting for it."""
    guard.owed = _release_of(guard, reason)
    stop_for_release(io, guard)
    finish_in_background(io, guard)


def _release_of(guard: GuardState, reason: str | None) -> Release | None:
    if guard.reservation_id is None:
        return None
    return Release(guard.reservation_id, new_key(), reason, guard.trace_id)
