"""Giving back what is reserved: one try in the caller's sight, the rest in the background (decisions 13)."""

from __future__ import annotations

import logging
from typing import Final, Literal

from cycles._core.amounts import Amount
from cycles._core.error_mapping import error_of
from cycles._core.outcome import Outcome, Refusal, Success
from cycles._core.requests import Call, new_key, release_call
from cycles._core.results import ReleaseResponse
from cycles._errors import CyclesError
from cycles._flows.guard_state import AS_IT_IS, Hold, Release
from cycles._flows.io import Io
from cycles._flows.retry import describe
from cycles._flows.settle import hand_on, settle_shadow, stop_for_release

RELEASE: Final = "releaseReservation"


async def give_back(io: Io, owed: Release, *, quiet: bool) -> ReleaseResponse | None:
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
    report_release_failed(io, owed, why(outcome), retrying=not final)
    if not final:
        io.keep_releasing(owed)
    elif not quiet:
        raise error_of(outcome, RELEASE)
    return None


def release_call_of(owed: Release) -> Call:
    """The request of a release that is owed."""
    return release_call(owed.reservation_id, owed.key, owed.reason, owed.trace_id)


def is_final(outcome: Outcome) -> bool:
    """True where no repetition would change the answer to a release."""
    return isinstance(outcome, Success) or (isinstance(outcome, Refusal) and (outcome.understood or outcome.expired))


def report_released(io: Io, owed: Release) -> None:
    """Tell that budget went back."""
    if io.listens(logging.INFO):
        from cycles.events import Released

        io.report(Released(reservation_id=owed.reservation_id, trace_id=owed.trace_id, reason=owed.reason))


def report_release_failed(io: Io, owed: Release, why: str, *, retrying: bool) -> None:
    """Tell that budget did not go back, and what happens next."""
    if io.listens(logging.WARNING):
        from cycles.events import ReleaseFailed

        event = ReleaseFailed(reservation_id=owed.reservation_id, trace_id=owed.trace_id, why=why, retrying=retrying)
        io.report(event)


async def release(io: Io, hold: Hold, reason: str | None) -> ReleaseResponse | None:
    """End a guard and give its budget back. None where nothing was held, or where the background goes on trying.

    Raises:
        GuardFinalizedError: if the guard has ended; nothing is sent.
        ProtocolError: for an understood refusal.
    """
    _, response = await free(io, hold, reason, quiet=False)
    hold.raise_loss_outside_a_block()
    return response


async def free(
    io: Io, hold: Hold, reason: str | None, *, quiet: bool, known: Amount | Literal["as it is"] | None = AS_IT_IS
) -> tuple[bool, ReleaseResponse | None]:
    """The same, and whether it was done: not, if another thread has spent meanwhile.

    Raises:
        GuardFinalizedError: if the guard has ended; nothing is sent.
        ProtocolError: for an understood refusal, unless `quiet`.
    """
    owed = _release_of(hold, reason)
    try:
        if not hold.claim("release", known, owed):
            return False, None
        if hold.plan.shadow:
            settle_shadow(io, hold, None)
            return True, None
        stop_for_release(io, hold)
        hold.owed = None  # from here on `give_back` sees to it
        return True, None if owed is None else await give_back(io, owed, quiet=quiet)
    except CyclesError:
        raise
    except BaseException:  # interrupted or cancelled
        hand_on(io, hold)
        raise


def free_later(io: Io, hold: Hold, reason: str | None) -> None:
    """Give the budget of a guard back that is claimed, without anybody waiting for it."""
    hold.owed = _release_of(hold, reason)
    stop_for_release(io, hold)
    hand_on(io, hold)


def _release_of(hold: Hold, reason: str | None) -> Release | None:
    if hold.reservation_id is None:
        return None
    return Release(hold.reservation_id, new_key(), reason, hold.trace_id)
