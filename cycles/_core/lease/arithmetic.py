"""The formulas of the primary heartbeat and of its recovery (semantics 10.2 and 10.3), as plain functions of numbers.

Everything is in milliseconds. Arithmetic saturates: what is too large becomes infinity, never NaN and never a wrapped
number. Budgets and margins round up, leads and delays round down: rounding only ever makes a beat earlier.
"""

from __future__ import annotations

import math
from typing import Final

LEAST_BUDGET_MS: Final = 1000.0  # semantics 10.2: no attempt is budgeted, and no margin kept, below one second
LEAST_DEADLINE_MS: Final = 1000.0  # decision "lease 1": a shorter deadline would fail answers that are merely slow
DEADLINE_PART: Final = 8  # decision "lease 1": two attempts and the margin stay well below the lead they live on
CUT_EARLY_MS: Final = 100.0  # decision "lease 1": the lateness of a timer must not eat the one safe retry
LONGEST_RETRY_MS: Final = 30_000.0  # semantics 10.3


def saturated(value: float) -> float:
    """`value` as a float, infinity where it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def rounded_down(value: float) -> float:
    return float(math.floor(value)) if math.isfinite(value) else value


def rounded_up(value: float) -> float:
    return float(math.ceil(value)) if math.isfinite(value) else value


def minus(value: float, taken: float) -> float:
    """`value - taken`; an infinite `taken` leaves nothing, even of infinity."""
    return -math.inf if taken == math.inf else value - taken


def rtt_ms(sent_ms: float | None, received_ms: float) -> float | None:
    """How long the attempt took, or None when that is not known (a clock that ran backwards included)."""
    if sent_ms is None or not 0 <= received_ms - sent_ms < math.inf:
        return None
    return received_ms - sent_ms


def lead_floor_ms(remaining_ttl_ms: int, rtt: float | None) -> float:
    """What the lease has left, at least, when the answer arrives. Unknown timing proves nothing: 0."""
    return 0.0 if rtt is None else max(0.0, rounded_down(saturated(remaining_ttl_ms) - rtt))


def deadline_ms(timeout_ms: float, lead_ms: float) -> float:
    """The enforced deadline of one whole extend attempt on a lease with this lead."""
    return rounded_up(min(timeout_ms, max(LEAST_DEADLINE_MS, lead_ms / DEADLINE_PART)))


def cut_ms(deadline: float) -> float:
    """How long an attempt may really take: a little less than its deadline, and at least half of it."""
    return max(deadline - CUT_EARLY_MS, deadline / 2)


def attempt_budget_ms(deadline: float, largest_rtt_ms: float) -> float:
    return rounded_up(max(deadline, LEAST_BUDGET_MS, 2 * largest_rtt_ms))


def safety_margin_ms(largest_rtt_ms: float) -> float:
    return rounded_up(max(LEAST_BUDGET_MS, 2 * largest_rtt_ms))


def retry_reserve_ms(deadline: float, largest_rtt_ms: float) -> float:
    """What is kept free at the end of a lease: two whole attempts and the margin."""
    return 2 * attempt_budget_ms(deadline, largest_rtt_ms) + safety_margin_ms(largest_rtt_ms)


def next_delay_ms(lead_ms: float, retry_reserve: float) -> float:
    """How long to wait with the next beat, counted from the receipt of the answer that gave the lead."""
    return max(0.0, rounded_down(minus(lead_ms, retry_reserve)))


def lead_now_ms(lead_ms: float, elapsed_ms: float) -> float:
    return max(0.0, rounded_down(minus(lead_ms, elapsed_ms)))


def retry_window_ms(lead_now: float, deadline: float, largest_rtt_ms: float) -> float:
    """How long a retry can wait and still be safe; below 0 there is no safe retry."""
    return minus(lead_now, attempt_budget_ms(deadline, largest_rtt_ms) + safety_margin_ms(largest_rtt_ms))


def retry_wait_ms(lead_now: float, retry_window: float) -> float:
    return rounded_down(min(LONGEST_RETRY_MS, lead_now / 4, retry_window))
