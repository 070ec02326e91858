"""Giving back what is reserved: one try in the caller's sight, the rest in the background (decisions 13)."""

from __future__ import annotations

import logging
from typing import Final

from cycles._core.error_mapping import error_of
from cycles._core.outcome import Outcome, Refusal, Success
from cycles._core.requests import Call, release_call
from cycles._core.results import ReleaseResponse
from cycles._flows.asking import why
from cycles._hold import Release
from cycles._io import Io

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
        from cycles._events import Released

        io.report(Released(reservation_id=owed.reservation_id, trace_id=owed.trace_id, reason=owed.reason))


def report_release_failed(io: Io, owed: Release, why: str, *, retrying: bool) -> None:
    """Tell that budget did not go back, and what happens next."""
    if io.listens(logging.WARNING):
        from cycles._events import ReleaseFailed

        event = ReleaseFailed(reservation_id=owed.reservation_id, trace_id=owed.trace_id, why=why, retrying=retrying)
        io.report(event)
