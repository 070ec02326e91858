"""How a block ends (the table of api.md): from what is known to what is owed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from attrs import frozen

from cycles._core.amounts import Amount
from cycles._errors import LeaseLostError

Actual: TypeAlias = Amount | Callable[..., Amount] | None

NOT_COMMITTED: Final = "guard_exited_without_commit"
DROPPED: Final = "guard_dropped"
LEASE_LOST: Final = "lease_lost"
CALLER_GONE: Final = "caller_went_away"


class Dropped(Exception):
    """Stands for what ended a guard that nobody holds any more."""


@frozen
class Commit:
    """Settle this amount; `outcome` marks how the block ended, if not normally."""

    amount: Amount
    outcome: str | None = None


@frozen
class Ask:
    """Settle what the caller's own `actual` callable says."""

    actual: Callable[..., Amount]
    outcome: str | None = None


@frozen
class GiveBack:
    """Release; `forgotten` means that nobody said what the block cost, which deserves a warning."""

    reason: str
    forgotten: bool = False


Ending: TypeAlias = Commit | Ask | GiveBack


def ending(
    raised: BaseException | None, spent: Amount | None, actual: Actual, usage_filled: bool, is_stream: bool
) -> Ending:
    """What is owed when a block, or a stream, ends and nothing has been settled yet."""
    outcome = _outcome(raised, is_stream)
    if spent is not None:
        return Commit(spent, outcome)
    if raised is not None:
        return Ask(actual, outcome) if usage_filled and callable(actual) else GiveBack(_reason(raised))
    if callable(actual):
        return Ask(actual)
    return Commit(actual) if actual is not None else GiveBack(NOT_COMMITTED, forgotten=True)


def _outcome(raised: BaseException | None, is_stream: bool) -> str | None:
    if raised is None:
        return None
    if isinstance(raised, Dropped):
        return "dropped"
    return "closed" if is_stream and isinstance(raised, GeneratorExit) else "error"


def _reason(raised: BaseException) -> str:
    if isinstance(raised, LeaseLostError):
        return LEASE_LOST
    if isinstance(raised, Dropped):
        return DROPPED
    return f"block_raised:{type(raised).__name__}"


StateName: TypeAlias = Literal[
    "active", "committed", "pending", "released", "lost", "unreserved", "rejected", "detached"
]
