"""End a block or a dropped guard: commit what is known, release the rest, never hide the block's own exception."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Final

from cycles._core.amounts import Amount
from cycles._core.settlement.lifecycle import (
    ESTIMATED,
    OUTCOME,
    BlockEnd,
    CallActual,
    Commit,
    Dropped,
    ReleaseBudget,
    block_end,
)
from cycles._core.values.notes import add_note
from cycles._errors import CyclesError, GuardFinalizedError, LeaseLostError, UncommittedGuardWarning
from cycles._flows.commit import commit, record_of
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io
from cycles._flows.release import release_guard, release_in_background
from cycles._flows.settle import settle_later

DROPPED: Final = "the guard was dropped without commit or release"
_PACKAGE: Final = str(Path(__file__).parent.parent)


async def end_block(io: Io, guard: GuardState, raised: BaseException | None) -> None:
    """Settle a guard whose block has ended (`docs/protocol/guards.md#how-a-block-ends`), then apply its lease policy.

    With `Dropped` as what was raised, also one that has no block, or whose block will not end.

    Raises:
        ProtocolError: a final error response to the settlement, if the block itself did not raise.
        LeaseLostError: under ``fail_on_finalize`` and ``cancel``, after the settlement was attempted.
    """
    uncommitted = False
    # The amount comes first, also if the block has raised or the lease was lost.
    if not guard.finalized:
        try:
            # Not if the block has committed: then only the policy of a lost lease is left.
            uncommitted = await _settle(io, guard, raised)
        except GuardFinalizedError:
            pass  # another thread has ended the guard in the meantime
        except CyclesError as error:
            if raised is None:
                raise
            # The caller's own exception is raised; this one must not hide it.
            add_note(raised, f"cycles: the guard could not be settled: {error}")
        finally:
            guard.end_trace()
    # After the settlement: money that is spent is charged also if the lease was lost.
    _apply_policy(guard, raised)
    if uncommitted:
        _warn(guard)


async def _settle(io: Io, guard: GuardState, raised: BaseException | None) -> bool:
    """End the guard by the table; return True if no amount was known although the block ended normally."""
    request, known = guard.request, guard.known
    end = _ending(io, guard, raised, known)
    if isinstance(end, ReleaseBudget):
        # Only while no spend is known: a thread that spends at this moment wins, and its amount is committed.
        released, _ = await release_guard(io, guard, end.reason, quiet=True, known=None)
        if not released:
            return await _settle(io, guard, raised)  # a thread of the block has spent while the block ended
        uncommitted = end.uncommitted and not guard.sends_nothing
        if uncommitted:
            detail = "the block ended without commit, spend or actual=; its budget is released"
            io.report("GuardNotCommitted", guard, detail=detail)
        return uncommitted
    amount, settlement_metadata = _amount(io, guard, end)
    # What threads of the block spend until the guard is claimed counts too.
    actual, wait = amount if known is None else None, request.settle is None
    await commit(io, guard, actual, settlement_metadata=settlement_metadata, wait=wait)
    return False


def _ending(io: Io, guard: GuardState, raised: BaseException | None, known: Amount | None) -> BlockEnd:
    """Return how a guard ends whose known spend is `known`. Report it if no caller ends the guard."""
    end = block_end(raised, known, guard.request.actual, guard.usage.is_filled, guard.is_stream)
    if isinstance(raised, Dropped):
        then = "its budget is released" if isinstance(end, ReleaseBudget) else "its known spend is committed"
        io.report("GuardNotCommitted", guard, detail=f"{raised}; {then}")
    return end


def end_later(io: Io, guard: GuardState, raised: BaseException | None) -> None:
    """As `end_block`, for a claimed guard, in the background: no caller can wait for it."""
    end = _ending(io, guard, raised, guard.known)
    # Without a wait, and without a request of this guard: its chunk counts the amount.
    if guard.settler is not None:
        amount, settlement_metadata = (None, {}) if isinstance(end, ReleaseBudget) else _amount(io, guard, end)
        guard.settler.end(io, guard, amount, settlement_metadata)
    elif isinstance(end, ReleaseBudget) or guard.sends_nothing:
        release_in_background(io, guard, end.reason if isinstance(end, ReleaseBudget) else None)
    else:
        amount, settlement_metadata = _amount(io, guard, end)
        settle_later(
            io, guard, record_of(io, guard, amount, None, {**guard.request.settlement_metadata, **settlement_metadata})
        )


def end_at_estimate(io: Io, guard: GuardState) -> None:
    """Commit the estimate of a claimed guard in the background: what its work costs will not be known."""
    metadata = {**guard.request.settlement_metadata, **ESTIMATED}
    settle_later(io, guard, record_of(io, guard, guard.estimate, None, metadata))


def _amount(io: Io, guard: GuardState, end: Commit | CallActual) -> tuple[Amount, dict[str, str]]:
    """Return the amount to commit, and the metadata that marks how the block ended."""
    settlement_metadata = {} if end.outcome is None else {OUTCOME: end.outcome}
    if isinstance(end, Commit):
        return end.amount, settlement_metadata
    amount = _actual_amount(io, guard, end)
    return (guard.estimate, {**settlement_metadata, **ESTIMATED}) if amount is None else (amount, settlement_metadata)


def _actual_amount(io: Io, guard: GuardState, end: CallActual) -> Amount | None:
    """Return what the caller's `actual` callable returns, or None if it fails: the estimate is committed then.

    See `docs/protocol/guards.md#failing-actual-callables`.
    """
    try:
        amount = end.actual(guard.usage)
        guard.check_unit(amount)
    except Exception as error:  # the caller's own code; its failure must not lose the spend
        detail = f"{type(error).__name__}: {error!s:.200}"
        io.report("ActualFailed", guard, estimate=guard.estimate, detail=detail)
        return None
    return amount


def _apply_policy(guard: GuardState, raised: BaseException | None) -> None:
    loss = guard.loss
    if loss is None:
        return
    # The exception of the block is what the caller has to see; the loss of the lease is a note on it.
    if raised is not None:
        if not isinstance(raised, LeaseLostError):
            add_note(raised, f"cycles: {loss}")
        return
    if guard.request.lease_policy != "warn":
        raise loss


def _warn(guard: GuardState) -> None:
    message = (
        f"{guard.name} ended and no cost was reported: its {guard.estimate} were released; "
        "call guard.commit(amount) or guard.spend(amount), or pass actual= to reserve()"
    )
    warnings.warn(message, UncommittedGuardWarning, stacklevel=_user_frame())


def _user_frame() -> int:
    """Return how far up the first frame outside this package is, as `stacklevel` counts."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level
