"""The formulas of the primary heartbeat and of its recovery. See `docs/protocol/heartbeat.md#primary-algorithm`.

All numbers are milliseconds. Arithmetic saturates: a number that is too large becomes infinity, never NaN and never
a wrapped number. Budgets and margins round up, leads and delays round down, so rounding makes an attempt earlier only.
"""

from __future__ import annotations

import math
from typing import Final

LEAST_BUDGET_MS: Final = 1000.0  # no attempt budget and no safety margin is below one second
LEAST_DEADLINE_MS: Final = 1000.0  # a shorter deadline would fail responses that are only slow
DEADLINE_PART: Final = 8  # two attempts and the margin stay well below the lead
EARLY_MS: Final = 100.0  # a late timer must not use up the one safe retry
LEAST_DISTANCE_MS: Final = 250.0  # from one extend to the next: a server that grants 1 ms is not sent 1,000 a second
LONGEST_RETRY_MS: Final = 30_000.0
FIRST_KEY_RETRY_MS: Final = 1000.0  # doubled with each failure; more attempts would not help a key


def saturated(value: float) -> float:
    """Return `value` as a float, or infinity if it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def rounded_down(value: float) -> float:
    return float(math.floor(value)) if math.isfinite(value) else value


def rounded_up(value: float) -> float:
    return float(math.ceil(value)) if math.isfinite(value) else value


def minus(value: float, taken: float) -> float:
    """Return `value - taken`; an infinite `taken` gives minus infinity, also if `value` is infinite."""
    return -math.inf if taken == math.inf else value - taken


def rtt_ms(sent_ms: float | None, received_ms: float) -> float | None:
    """Return how long the attempt took, or None if that is unknown, also if the clock ran backwards."""
    if sent_ms is None or not 0 <= received_ms - sent_ms < math.inf:
        return None
    return received_ms - sent_ms


def lead_floor_ms(remaining_ttl_ms: int, rtt: float | None) -> float:
    """Return the confirmed rest of the lease when the response arrives; 0 if the timing is unknown."""
    return 0.0 if rtt is None else max(0.0, rounded_down(saturated(remaining_ttl_ms) - rtt))


def deadline_ms(timeout_ms: float, lead_ms: float) -> float:
    """Return the deadline of one whole extend attempt on a lease with this lead.

    See `docs/protocol/heartbeat.md#deadline-of-an-attempt`.
    """
    return rounded_up(min(timeout_ms, max(LEAST_DEADLINE_MS, lead_ms / DEADLINE_PART)))


def attempt_timeout_ms(deadline: float) -> float:
    """Return the timeout of an attempt: a little less than its deadline, and at least half of it."""
    return max(deadline - EARLY_MS, deadline / 2)


def attempt_budget_ms(deadline: float, largest_rtt_ms: float) -> float:
    return rounded_up(max(deadline, LEAST_BUDGET_MS, 2 * largest_rtt_ms))


def safety_margin_ms(largest_rtt_ms: float) -> float:
    return rounded_up(max(LEAST_BUDGET_MS, 2 * largest_rtt_ms))


def retry_reserve_ms(deadline: float, largest_rtt_ms: float) -> float:
    """Return the reserve at the end of a lease: two whole attempts and the margin."""
    return 2 * attempt_budget_ms(deadline, largest_rtt_ms) + safety_margin_ms(largest_rtt_ms)


def next_delay_ms(lead_ms: float, retry_reserve: float) -> float:
    """Return the delay of the next attempt, counted from the response that gave the lead."""
    return max(0.0, rounded_down(minus(lead_ms, retry_reserve)))


def lead_now_ms(lead_ms: float, elapsed_ms: float) -> float:
    return max(0.0, rounded_down(minus(lead_ms, elapsed_ms)))


def retry_window_ms(lead_now: float, deadline: float, largest_rtt_ms: float) -> float:
    """Return how long a retry can wait and still be safe; below 0 there is no safe retry."""
    return minus(lead_now, attempt_budget_ms(deadline, largest_rtt_ms) + safety_margin_ms(largest_rtt_ms))


def key_retry_wait_ms(lead_now: float, last_wait_ms: float) -> float:
    """Return the pause after a 401 or 403: growing, but never beyond the lease, with short ones before its end."""
    growing = min(max(FIRST_KEY_RETRY_MS, 2 * last_wait_ms), LONGEST_RETRY_MS)
    return min(growing, max(FIRST_KEY_RETRY_MS, rounded_down(lead_now / 2)), lead_now)


def retry_wait_ms(lead_now: float, retry_window: float) -> float:
    return rounded_down(min(LONGEST_RETRY_MS, lead_now / 4, retry_window))
