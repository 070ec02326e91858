"""How a block ends: settle what is known, give back what is not, and never hide the block's own exception."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Final

from cycles._core.amounts import Amount
from cycles._core.lifecycle import Ask, Commit, Dropped, GiveBack, ending
from cycles._errors import CyclesError, GuardFinalizedError, LeaseLostError, UncommittedGuardWarning
from cycles._flows.commit import commit, record_of
from cycles._flows.guard_state import Hold
from cycles._flows.io import Io
from cycles._flows.release import free, free_later
from cycles._flows.settle import settle_later

_HERE: Final = str(Path(__file__).parent.parent)


async def end_block(io: Io, hold: Hold, raised: BaseException | None) -> None:
    """Settle a guard whose block has ended, by the table of api.md, then apply its lease policy.

    Raises:
        ProtocolError: where the settlement was refused and the block itself did not raise.
        LeaseLostError: under ``fail_on_finalize`` and ``cancel``, after settlement was attempted (decisions 3).
    """
    forgotten = False
    if not hold.finalized:
        try:
            forgotten = await _settle(io, hold, raised)
        except GuardFinalizedError:
            pass  # another thread was faster, and that is as good
        except CyclesError as error:
            if raised is None:
                raise
            raised.add_note(f"cycles: the guard could not be settled either: {error}")
    _apply_policy(hold, raised)
    if forgotten:
        _warn(hold)


async def _settle(io: Io, hold: Hold, raised: BaseException | None) -> bool:
    """Do what the ending asks for; True where nobody said what the block cost."""
    plan, known = hold.plan, hold.known
    owed = ending(raised, known, plan.actual, hold.usage.is_filled, hold.is_stream)
    if isinstance(owed, GiveBack):
        freed, _ = await free(io, hold, owed.reason, quiet=True, known=None)
        if not freed:
            return await _settle(io, hold, raised)  # a thread of the block has spent while the block ended
        if owed.forgotten and not plan.shadow and io.listens(logging.WARNING):
            from cycles.events import GuardForgotten

            why = "the block ended without commit, spend or actual="
            io.report(GuardForgotten(reservation_id=hold.reservation_id, trace_id=hold.trace_id, why=why))
        return owed.forgotten and not plan.shadow
    amount, marks = _amount(io, hold, owed)
    # What threads of the block spend until the guard is claimed counts too.
    await commit(io, hold, amount if known is None else None, marks=marks)
    return False


def drop(io: Io, hold: Hold) -> None:
    """Nobody holds this guard any more, and it is claimed: settle it as if its block had raised."""
    if io.listens(logging.WARNING):
        from cycles.events import GuardForgotten

        why = "the guard was dropped without commit or release"
        io.report(GuardForgotten(reservation_id=hold.reservation_id, trace_id=hold.trace_id, why=why))
    end_later(io, hold, Dropped())


def end_later(io: Io, hold: Hold, raised: BaseException) -> None:
    """Settle a guard that is claimed where nobody can wait for it: in the background."""
    owed = ending(raised, hold.known, hold.plan.actual, hold.usage.is_filled, hold.is_stream)
    if isinstance(owed, GiveBack) or hold.plan.shadow:
        free_later(io, hold, owed.reason if isinstance(owed, GiveBack) else None)
    else:
        amount, marks = _amount(io, hold, owed)
        settle_later(io, hold, record_of(io, hold, amount, None, {**hold.plan.marks, **marks}))


def _amount(io: Io, hold: Hold, owed: Commit | Ask) -> tuple[Amount, dict[str, str]]:
    """What to commit, and how to mark it."""
    marks = {} if owed.outcome is None else {"outcome": owed.outcome}
    if isinstance(owed, Commit):
        return owed.amount, marks
    amount = _asked(io, hold, owed)
    return (hold.plan.estimate, {**marks, "actual_source": "estimate"}) if amount is None else (amount, marks)


def _asked(io: Io, hold: Hold, ask: Ask) -> Amount | None:
    """What the caller's `actual` says, or None if it fails: then the estimate is as much as anybody knows."""
    try:
        amount = ask.actual(hold.usage)
        hold.check_unit(amount)
    except Exception as error:  # the caller's own code; its failure must not lose the spend (decisions 12)
        if io.listens(logging.WARNING):
            from cycles.events import ActualFailed

            io.report(
                ActualFailed(
                    reservation_id=hold.reservation_id,
                    trace_id=hold.trace_id,
                    estimate=hold.plan.estimate,
                    why=f"{type(error).__name__}: {error}",
                )
            )
        return None
    return amount


def _apply_policy(hold: Hold, raised: BaseException | None) -> None:
    heartbeat = hold.heartbeat
    if heartbeat is None or not heartbeat.lost:
        return
    loss = heartbeat.lost_error()
    if raised is not None:
        if not isinstance(raised, LeaseLostError):
            raised.add_note(f"cycles: {loss}")
        return
    if hold.plan.lease_policy != "warn":
        raise loss


def _warn(hold: Hold) -> None:
    message = (
        f"{hold.name} ended without anyone saying what it cost, so its {hold.plan.estimate} were released; "
        "call guard.commit(amount) or guard.spend(amount), or give actual= to reserve()"
    )
    warnings.warn(message, UncommittedGuardWarning, stacklevel=_user_frame())


def _user_frame() -> int:
    """How far up the first frame outside this package is, as `stacklevel` counts."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    return level
