"""The life of a guard: its states, the events that change them, and how a block ends.

Every change of a guard's state is a row of TRANSITIONS, and `GuardState.apply` in `_flows` is the only writer.
Which caller may end a guard is decided before, in one locked step (`GuardState.claim`).
`docs/protocol/guards.md` prints the tables of this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

from attrs import frozen

from cycles._core.amounts import Amount
from cycles._core.messages.reserve_request import Actual
from cycles._errors import LeaseLostError

StateName: TypeAlias = Literal[
    "active", "committed", "pending", "released", "lost", "unreserved", "rejected", "detached", "pooled", "observed"
]
GuardEvent: TypeAlias = Literal[
    "lease_lost", "extended", "settled", "unresolved", "pooled", "rejected", "release_started", "detached"
]

_ENDINGS: Final[dict[GuardEvent, StateName]] = {
    "settled": "committed",
    "unresolved": "pending",
    "pooled": "pooled",
    "rejected": "rejected",
    "release_started": "released",
}
_OUTCOMES: Final[dict[GuardEvent, StateName]] = {"settled": "committed", "rejected": "rejected"}

TRANSITIONS: Final[dict[StateName, dict[GuardEvent, StateName]]] = {
    "active": {"lease_lost": "lost", **_ENDINGS, "detached": "detached"},
    "lost": {"extended": "active", **_ENDINGS, "detached": "detached"},
    "unreserved": _ENDINGS,
    "observed": {},
    "pending": _OUTCOMES,
    "pooled": _OUTCOMES,
    "committed": {},
    "released": {},
    "rejected": {},
    "detached": {},
}
"""State, event, next state. `settled` also means: recorded as an event (`settlement.status` says which)."""


def next_state(state: StateName, event: GuardEvent) -> StateName:
    """Return the state that follows.

    Raises:
        ValueError: the table has no such row, which is a bug of the calling flow.
    """
    following = TRANSITIONS[state].get(event)
    if following is None:
        raise ValueError(f"no transition: a guard that is {state!r:.40} cannot encounter {event!r:.40}")
    return following


# Release reasons, as the server stores them.
NOT_COMMITTED: Final = "guard_exited_without_commit"
DROPPED: Final = "guard_dropped"
LEASE_LOST: Final = "lease_lost"
CALLER_LEFT: Final = "caller_went_away"
UNKNOWN_DECISION: Final = "unknown_decision"
BLOCK_RAISED: Final = "block_raised"  # followed by a colon and the type of the exception

# Metadata that this SDK adds to a commit or event.
OUTCOME: Final = "outcome"
ACTUAL_SOURCE: Final = "actual_source"
ESTIMATED: Final = {ACTUAL_SOURCE: "estimate"}
RECOVERED_ID: Final = "recovered_reservation_id"
RECOVERY_REASON: Final = "recovery_reason"
EXPIRED_REASON: Final = "commit_after_reservation_expired"
PROCESS_ENDED: Final = "process_ended"
LOST_REASON: Final = "reservation_not_found"
ACTUAL_AMOUNT: Final = "actual_amount"  # of a commit whose excess the server rejected


class Dropped(Exception):
    """Ends a guard that no caller will end. Its message begins the report of that."""


@frozen
class Commit:
    """Commit this amount. `outcome` marks how the block ended, if it did not end normally."""

    amount: Amount
    outcome: str | None = None


@frozen
class CallActual:
    """Commit the amount that the caller's `actual` callable returns."""

    actual: Callable[..., Amount]
    outcome: str | None = None


@frozen
class ReleaseBudget:
    """Release the reservation. `uncommitted` is True if the block ended normally without a known amount."""

    reason: str
    uncommitted: bool = False


BlockEnd: TypeAlias = Commit | CallActual | ReleaseBudget
_Action: TypeAlias = Literal["commit_spend", "call_actual", "commit_actual", "release_uncommitted", "release_raised"]


class BlockEndRow(NamedTuple):
    """One row of the table of block endings.

    Attributes:
        raised: Whether the block raised an exception.
        spend: ``yes``, ``no``, or ``counted``: no spend is known, but usage was counted.
        actual: The kind of `actual=`: ``callable``, ``amount``, ``none``, or ``any``.
        action: What happens.
    """

    raised: bool
    spend: Literal["yes", "no", "counted"]
    actual: Literal["callable", "amount", "none", "any"]
    action: _Action


BLOCK_ENDINGS: Final = (
    BlockEndRow(False, "yes", "any", "commit_spend"),
    BlockEndRow(False, "no", "callable", "call_actual"),
    BlockEndRow(False, "no", "amount", "commit_actual"),
    BlockEndRow(False, "no", "none", "release_uncommitted"),
    BlockEndRow(True, "yes", "any", "commit_spend"),
    BlockEndRow(True, "counted", "callable", "call_actual"),
    BlockEndRow(True, "no", "any", "release_raised"),
)
"""How a block ends whose guard has not been committed or released. The first row that matches applies."""


def block_end(
    raised: BaseException | None, spent: Amount | None, actual: Actual, usage_filled: bool, is_stream: bool
) -> BlockEnd:
    """Return how to end the guard of a block or a stream, by the table."""
    kind = "callable" if callable(actual) else "none" if actual is None else "amount"
    action = next(
        row.action
        for row in BLOCK_ENDINGS
        if row.raised == (raised is not None)
        and (row.spend == "yes") == (spent is not None)
        and (row.spend != "counted" or usage_filled)
        and row.actual in ("any", kind)
    )
    outcome = _outcome(raised, is_stream)
    if action == "commit_spend" and spent is not None:
        return Commit(spent, outcome)
    if action == "call_actual" and callable(actual):
        return CallActual(actual, outcome)
    if action == "commit_actual" and isinstance(actual, Amount):
        return Commit(actual, outcome)
    return ReleaseBudget(NOT_COMMITTED, uncommitted=True) if raised is None else ReleaseBudget(_reason(raised))


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
    return f"{BLOCK_RAISED}:{type(raised).__name__}"
