"""How a block ends: settle what is known, give back what is not, and never hide the block's own exception."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Final

from cycles._core.amounts import Amount
from cycles._core.lifecycle import Ask, Commit, Dropped, GiveBack, ending
from cycles._errors import CyclesError, GuardFinalizedError, LeaseLostError, UncommittedGuardWarning, add_note
from cycles._flows.commit import commit, record_of
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io
from cycles._flows.release import release_guard, release_in_background
from cycles._flows.settle import settle_later

_HERE: Final = str(Path(__file__).parent.parent)


async def end_block(io: Io, guard: GuardState, raised: BaseException | None) -> None:
    """Settle a guard whose block has ended, by the table of api.md, then apply its lease policy.

    Raises:
        ProtocolError: where the settlement was refused and the block itself did not raise.
        LeaseLostError: under ``fail_on_finalize`` and ``cancel``, after settlement was attempted (decisions 3).
    """
    forgotten = False
    if not guard.finalized:
        try:
            forgotten = await _settle(io, guard, raised)
        except GuardFinalizedError:
            pass  # another thread was faster, and that is as good
        except CyclesError as error:
            if raised is None:
                raise
            add_note(raised, f"cycles: the guard could not be settled: {error}")
    _apply_policy(guard, raised)
    if forgotten:
        _warn(guard)


async def _settle(io: Io, guard: GuardState, raised: BaseException | None) -> bool:
    """Do what the ending asks for; True where nobody said what the block cost."""
    request, known = guard.request, guard.known
    owed = ending(raised, known, request.actual, guard.usage.is_filled, guard.is_stream)
    if isinstance(owed, GiveBack):
        freed, _ = await release_guard(io, guard, owed.reason, quiet=True, known=None)
        if not freed:
            return await _settle(io, guard, raised)  # a thread of the block has spent while the block ended
        if owed.forgotten and not request.shadow and io.is_enabled_for(logging.WARNING):
            from cycles.events import GuardNotCommitted

            detail = "the block ended without commit, spend or actual=; its budget is released"
            io.report(GuardNotCommitted(reservation_id=guard.reservation_id, trace_id=guard.trace_id, detail=detail))
        return owed.forgotten and not request.shadow
    amount, settlement_metadata = _amount(io, guard, owed)
    # What threads of the block spend until the guard is claimed counts too.
    await commit(io, guard, amount if known is None else None, settlement_metadata=settlement_metadata)
    return False


def drop(io: Io, guard: GuardState) -> None:
    """Nobody holds this guard any more, and it is claimed: settle it as if its block had raised."""
    if io.is_enabled_for(logging.WARNING):
        from cycles.events import GuardNotCommitted

        owed = ending(Dropped(), guard.known, guard.request.actual, guard.usage.is_filled, guard.is_stream)
        then = "its budget is released" if isinstance(owed, GiveBack) else "its known spend is committed"
        detail = f"the guard was dropped without commit or release; {then}"
        io.report(GuardNotCommitted(reservation_id=guard.reservation_id, trace_id=guard.trace_id, detail=detail))
    end_later(io, guard, Dropped())


def end_later(io: Io, guard: GuardState, raised: BaseException | None) -> None:
    """Settle a guard that is claimed where nobody can wait for it: in the background."""
    owed = ending(raised, guard.known, guard.request.actual, guard.usage.is_filled, guard.is_stream)
    if isinstance(owed, GiveBack) or guard.request.shadow:
        release_in_background(io, guard, owed.reason if isinstance(owed, GiveBack) else None)
    else:
        amount, settlement_metadata = _amount(io, guard, owed)
        settle_later(
            io, guard, record_of(io, guard, amount, None, {**guard.request.settlement_metadata, **settlement_metadata})
        )


def _amount(io: Io, guard: GuardState, owed: Commit | Ask) -> tuple[Amount, dict[str, str]]:
    """What to commit, and how to mark it."""
    settlement_metadata = {} if owed.outcome is None else {"outcome": owed.outcome}
    if isinstance(owed, Commit):
        return owed.amount, settlement_metadata
    amount = _asked(io, guard, owed)
    return (
        (guard.request.estimate, {**settlement_metadata, "actual_source": "estimate"})
        if amount is None
        else (amount, settlement_metadata)
    )


def _asked(io: Io, guard: GuardState, ask: Ask) -> Amount | None:
    """What the caller's `actual` says, or None if it fails: then the estimate is as much as anybody knows."""
    try:
        amount = ask.actual(guard.usage)
        guard.check_unit(amount)
    except Exception as error:  # the caller's own code; its failure must not lose the spend (decisions 12)
        if io.is_enabled_for(logging.WARNING):
            from cycles.events import ActualFailed

            io.report(
                ActualFailed(
                    reservation_id=guard.reservation_id,
                    trace_id=guard.trace_id,
                    estimate=guard.request.estimate,
                    detail=f"{type(error).__name__}: {error}",
                )
            )
        return None
    return amount


def _apply_policy(guard: GuardState, raised: BaseException | None) -> None:
    heartbeat = guard.heartbeat
    if heartbeat is None or not heartbeat.lost:
        return
    loss = heartbeat.lost_error()
    if raised is not None:
        if not isinstance(raised, LeaseLostError):
            add_note(raised, f"cycles: {loss}")
        return
    if guard.request.lease_policy != "warn":
        raise loss


def _warn(guard: GuardState) -> None:
    message = (
        f"{guard.name} ended and no cost was reported: its {guard.request.estimate} were released; "
        "call guard.commit(amount) or guard.spend(amount), or pass actual= to reserve()"
    )
    warnings.warn(message, UncommittedGuardWarning, stacklevel=_user_frame())


def _user_frame() -> int:
    """How far up the first frame outside this package is, as `stacklevel` counts."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    return level
