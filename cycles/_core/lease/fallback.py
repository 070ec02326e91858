"""The heartbeat for servers that send no `remaining_ttl_ms`. See `docs/protocol/heartbeat.md#fallback-algorithm`.

Grants are differences of successive `expires_at_ms`, all in server time. They are never compared with the local clock.
All numbers are milliseconds.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from cycles._core.lease.arithmetic import rounded_down

NORMAL_GRANT: Final = 0.9  # of the requested ttl
CLAMPED_GRANT: Final = (0.75, 1.25)  # of the time since the last extension: the server only tops the lead up
CLOCK_NOISE_MS: Final = 20.0  # two responses close together differ by their travel time, which measures nothing
LONGEST_HOLD_MS: Final = 30_000.0
SHORTEST_DELAY_MS: Final = 1000.0
SKIP_LEAD: Final = 1.5  # of the last grant


class Pace(NamedTuple):
    """The delay between attempts, and whether the server seems to clamp the lead."""

    delay_ms: float
    clamped: bool


def hold_ms(ttl_ms: int) -> float:
    """Return the delay if no grant was measured."""
    return min(ttl_ms / 2, LONGEST_HOLD_MS)


def pace(grant_ms: float | None, elapsed_ms: float, ttl_ms: int) -> Pace:
    """Return the pace after an extension that granted `grant_ms` (None: not measured), `elapsed_ms` after the last."""
    if grant_ms is None:
        return Pace(hold_ms(ttl_ms), clamped=False)
    if grant_ms < NORMAL_GRANT * ttl_ms and _tops_up(grant_ms, elapsed_ms):
        return Pace(hold_ms(ttl_ms), clamped=True)
    return Pace(max(SHORTEST_DELAY_MS, rounded_down(grant_ms / 2)), clamped=False)


def _tops_up(grant_ms: float, elapsed_ms: float) -> bool:
    low, high = (part * elapsed_ms for part in CLAMPED_GRANT)
    return grant_ms <= 0 or min(low, elapsed_ms - CLOCK_NOISE_MS) <= grant_ms <= max(high, elapsed_ms + CLOCK_NOISE_MS)


def wait_ms(delay_ms: float, grant_ms: float | None, lead_min_ms: float) -> float:
    """Return the delay of the next attempt that is not skipped; at least `lead_min_ms` of the lease are left.

    An attempt is skipped if the lead at its time is 1.5 grants or more and lasts until the attempt after it.
    """
    if grant_ms is None or not math.isfinite(delay_ms):
        return delay_ms
    enough = max(SKIP_LEAD * grant_ms, delay_ms)
    spare = lead_min_ms - delay_ms - enough
    if spare < 0 or not math.isfinite(spare):
        return delay_ms
    return delay_ms * (2 + spare // delay_ms)
