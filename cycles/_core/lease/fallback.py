"""The heartbeat for servers that send no `remaining_ttl_ms` (semantics 10.4): best effort, from expiries alone.

Grants are differences of successive `expires_at_ms`, all in the server's own frame; they are never compared with the
local clock. Plain functions of numbers, in milliseconds.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from cycles._core.lease.arithmetic import rounded_down

NORMAL_GRANT: Final = 0.9  # of the ttl that was asked for
CLAMPED_GRANT: Final = (0.75, 1.25)  # of the time since the last extension: the server only tops the lead up
CLOCK_NOISE_MS: Final = 20.0  # two answers within a moment differ by their own travel time; that measures nothing
LONGEST_HOLD_MS: Final = 30_000.0
SHORTEST_BEAT_MS: Final = 1000.0
SKIP_LEAD: Final = 1.5  # of the last grant


class Pace(NamedTuple):
    """How long to wait between beats, and whether the server looks like one that clamps the lead."""

    delay_ms: float
    clamped: bool


def hold_ms(ttl_ms: int) -> float:
    """The wait where no grant tells anything better."""
    return min(ttl_ms / 2, LONGEST_HOLD_MS)


def pace(grant_ms: float | None, elapsed_ms: float, ttl_ms: int) -> Pace:
    """The pace after an extension that granted `grant_ms`, `elapsed_ms` after the one before (None: not measured)."""
    if grant_ms is None:
        return Pace(hold_ms(ttl_ms), clamped=False)
    if grant_ms < NORMAL_GRANT * ttl_ms and _tops_up(grant_ms, elapsed_ms):
        return Pace(hold_ms(ttl_ms), clamped=True)
    return Pace(max(SHORTEST_BEAT_MS, rounded_down(grant_ms / 2)), clamped=False)


def _tops_up(grant_ms: float, elapsed_ms: float) -> bool:
    low, high = (part * elapsed_ms for part in CLAMPED_GRANT)
    return grant_ms <= 0 or min(low, elapsed_ms - CLOCK_NOISE_MS) <= grant_ms <= max(high, elapsed_ms + CLOCK_NOISE_MS)


def wait_ms(delay_ms: float, grant_ms: float | None, lead_min_ms: float) -> float:
    """The wait for the next beat that is not skipped, from now, when `lead_min_ms` are left at least.

    A beat is skipped while the lead at its time is 1.5 grants or more, and (a grant may be zero) outlasts the skip.
    """
    if grant_ms is None or not math.isfinite(delay_ms):
        return delay_ms
    enough = max(SKIP_LEAD * grant_ms, delay_ms)
    spare = lead_min_ms - delay_ms - enough
    if spare < 0 or not math.isfinite(spare):
        return delay_ms
    return delay_ms * (2 + spare // delay_ms)
