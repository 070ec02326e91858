"""The events of flows and drivers by their names: the level of each, and how it is made.

Who reports an event names it. Its class is loaded only if an observer or the log takes events of its level.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cycles.events import Event

_OF_LEVEL: Final = {
    logging.DEBUG: "ChunkOpened LeaseExtended PooledSettled Reserved ShadowDecided",
    logging.INFO: "ChunkSettled Denied Observed PoolDenied Released Settled ShadowSettled",
    logging.WARNING: (
        "ActionKindDeprecated ActualFailed BudgetThreshold FarAboveEstimate GuardNotCommitted HeartbeatDelayed "
        "JournalProblem LeaseLost LeaseNotice LeaseRetrying ReleaseFailed SettlementPending "
        "SettlementsLeftPending Undercharged Unreserved ValuesOmitted"
    ),
    logging.ERROR: "SettlementRejected SettlementsLost",
}
LEVELS: Final = {name: level for level, names in _OF_LEVEL.items() for name in names.split()}
"""Event class of `cycles.events`, and its level."""

logger = logging.getLogger("cycles")

_IDS: Final = ("reservation_id", "request_id", "trace_id")


def event_of(name: str, ids: object, members: dict[str, Any]) -> Event | None:
    """Return the event `name`. See `Io.report`. None: its class cannot be loaded, and the log has its members."""
    members = {**{each: getattr(ids, each, None) for each in _IDS}, **members}
    try:
        import cycles.events as events
    except OSError as error:  # no free file descriptor: what a guard does must not depend on a report
        given = ", ".join(f"{member}={str(value)[:200]!r}" for member, value in members.items() if value is not None)
        logger.log(LEVELS[name], "%s, and no event for observers (%s): %s", name, error, given)
        return None
    event: Event = getattr(events, name)(**members)
    return event
