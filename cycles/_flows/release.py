"""End a guard without an amount: send its release. See `docs/protocol/settlement.md#release`."""

from __future__ import annotations

from cycles._core.messages.errors import error_of
from cycles._core.messages.outcome import Outcome, RejectedResponse, Success
from cycles._core.messages.requests import Call, new_key, release_call
from cycles._core.protocol import RELEASE_RESERVATION, RESERVATION_FINALIZED
from cycles._core.results import ReleaseResponse
from cycles._errors import CyclesError, InvalidRequestError
from cycles._flows.guard_state import ANY_AMOUNT, GuardState, KnownSpend, Release
from cycles._flows.io import Io
from cycles._flows.retry import describe
from cycles._flows.settle import finish_in_background, settle_shadow


async def send_release(io: Io, release: Release) -> None:
    """Send a release for which no caller waits once; after a temporary failure the background repeats it."""
    try:
        await _send_once(io, release, quiet=True)
    except CyclesError:
        raise
    except BaseException:  # interrupted or cancelled: the reservation is released anyway
        io.hand_over(release, now=True)
        raise


async def _send_once(io: Io, release: Release, *, quiet: bool) -> ReleaseResponse | None:
    """As `send_release`, without a background that continues after an interrupt. Return the response.

    Raises:
        ProtocolError: a final error response, unless `quiet`.
    """
    outcome = await io.send(release_call_of(release))
    if is_released(outcome):
        io.report("Released", release, trace_id=release.options.trace_id, reason=release.reason)
    if isinstance(outcome, Success):
        return ReleaseResponse.read(outcome.body, **outcome.ids)
    if is_released(outcome):
        return None
    # Not final: the reservation may still be held, so the background repeats it with the same key.
    final = is_final(outcome)
    io.report("ReleaseFailed", release, trace_id=release.options.trace_id, detail=describe(outcome), retrying=not final)
    if not final:
        io.hand_over(release, now=False)
    elif not quiet:
        raise error_of(outcome, RELEASE_RESERVATION)
    return None


def release_call_of(release: Release) -> Call:
    """Return the request of a release."""
    return release_call(release.reservation_id, release.key, release.reason, release.options)


def is_released(outcome: Outcome) -> bool:
    """Return whether the reservation is released: by this request, or by an earlier one whose response was lost."""
    if isinstance(outcome, RejectedResponse) and outcome.understood and outcome.code == RESERVATION_FINALIZED:
        # The code is the same after a commit, and only the message names which it was.
        return "released" in outcome.message.lower()
    return isinstance(outcome, Success)


def is_final(outcome: Outcome) -> bool:
    """Return whether repeating the release would change nothing."""
    return isinstance(outcome, Success) or (
        isinstance(outcome, RejectedResponse) and (outcome.understood or outcome.expired)
    )


async def release(io: Io, guard: GuardState, reason: str | None) -> ReleaseResponse | None:
    """Release the reservation and end the guard.

    Returns:
        The response. None if there is no reservation, or if the background repeats the release.

    Raises:
        InvalidRequestError: the reason is not a string; the guard stays active.
        GuardFinalizedError: the guard has ended; nothing is sent.
        ProtocolError: a final error response.
    """
    if reason is not None and not isinstance(reason, str):
        raise InvalidRequestError(f"reason must be a string: {reason!r:.80}; pass one such as 'cancelled by the user'")
    try:
        _, response = await release_guard(io, guard, reason, quiet=False)
    finally:
        guard.end_trace()
    guard.raise_loss_outside_a_block()
    return response


async def release_guard(
    io: Io, guard: GuardState, reason: str | None, *, quiet: bool, known: KnownSpend = ANY_AMOUNT
) -> tuple[bool, ReleaseResponse | None]:
    """Release the reservation, if the spend is still `known`.

    Returns:
        False if another thread has added to the spend, otherwise True; and the response.

    Raises:
        GuardFinalizedError: the guard has ended; nothing is sent.
        ProtocolError: a final error response, unless `quiet`.
    """
    if guard.settler is not None:
        return guard.settler.release(io, guard, known), None
    # Made before the claim: an interrupt after it finds in `unfinished` what releases the budget.
    release = release_of(guard, reason)
    try:
        # Another thread has spent since `known` was read: its amount must be committed, and not released.
        if not guard.claim("release", known, release):
            return False, None
        if guard.sends_nothing:
            settle_shadow(io, guard, None)
            return True, None
        # The heartbeat ends first: an extend after the release would be rejected, and reported as a lost lease.
        guard.start_release()
        response = None if release is None else await _send_once(io, release, quiet=quiet)
        guard.unfinished = None
        return True, response
    except CyclesError:
        raise
    except BaseException:  # interrupted or cancelled
        finish_in_background(io, guard)
        raise


def release_in_background(io: Io, guard: GuardState, reason: str | None) -> None:
    """Release a claimed guard in the background; no caller waits for it."""
    guard.unfinished = release_of(guard, reason)
    guard.start_release()
    finish_in_background(io, guard)
    guard.end_trace()


def release_of(guard: GuardState, reason: str | None) -> Release | None:
    """Return what releases a guard, with a new key; None if the server holds nothing for it."""
    if guard.reservation_id is None:
        return None
    return Release(guard.reservation_id, new_key(), reason, guard.call_options)
