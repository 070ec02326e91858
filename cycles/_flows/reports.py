"""Report events to observers and the log. Every event of the flows and the drivers goes through `report`.

The level is looked up here, before the class is loaded: a client without observers and log loads no event class.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from cycles.events import Event

LEVELS: Final = {
    "ActionKindDeprecated": logging.WARNING,
    "ActualFailed": logging.WARNING,
    "BudgetThreshold": logging.WARNING,
    "ChunkOpened": logging.DEBUG,
    "ChunkSettled": logging.INFO,
    "Denied": logging.INFO,
    "GuardNotCommitted": logging.WARNING,
    "HeartbeatDelayed": logging.WARNING,
    "JournalProblem": logging.WARNING,
    "LeaseExtended": logging.DEBUG,
    "LeaseLost": logging.WARNING,
    "LeaseNotice": logging.WARNING,
    "LeaseRetrying": logging.WARNING,
    "Observed": logging.INFO,
    "PoolDenied": logging.INFO,
    "PooledSettled": logging.DEBUG,
    "ReleaseFailed": logging.WARNING,
    "Released": logging.INFO,
    "Reserved": logging.DEBUG,
    "Settled": logging.INFO,
    "SettlementPending": logging.WARNING,
    "SettlementRejected": logging.ERROR,
    "SettlementsLeftPending": logging.WARNING,
    "SettlementsLost": logging.ERROR,
    "ShadowDecided": logging.DEBUG,
    "ShadowSettled": logging.INFO,
    "Undercharged": logging.WARNING,
    "Unreserved": logging.WARNING,
    "ValuesOmitted": logging.WARNING,
}
"""Event class of `cycles.events`, and its level."""

logger = logging.getLogger("cycles")

_IDS: Final = ("reservation_id", "request_id", "trace_id")


class Reporting(Protocol):
    """What `report` needs: an `Io`, or the reporter of a client."""

    def is_enabled_for(self, level: int) -> bool:
        """Return whether an observer or the log takes events of this level."""
        ...

    def report(self, event: Event) -> None:
        """Pass the event to the observers and the log."""
        ...


def report(to: Reporting, name: str, ids: object = None, **members: Any) -> None:
    """Report the event `name`, if an observer or the log takes it.

    Args:
        to: Where to report.
        name: Name of the event class in `cycles.events`.
        ids: Any object with some of `reservation_id`, `request_id` and `trace_id`: a guard, a heartbeat, a record.
        members: The other members of the event; an id given here replaces the one of `ids`.
    """
    if not to.is_enabled_for(LEVELS[name]):
        return
    members = {**{each: getattr(ids, each, None) for each in _IDS}, **members}
    try:
        import cycles.events as events
    except OSError as error:  # no free file descriptor: what a guard does must not depend on a report
        logger.log(LEVELS[name], "%s, and no event for observers (%s): %s", name, error, _given(members))
        return
    to.report(getattr(events, name)(**members))


def _given(members: dict[str, Any]) -> str:
    return ", ".join(f"{name}={str(value)[:200]!r}" for name, value in members.items() if value is not None)
