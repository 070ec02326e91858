"""The rules of `docs/protocol/heartbeat.md` as tables, with their numbers. Times are milliseconds."""

from __future__ import annotations

import math

import pytest

from cycles._core.lease import arithmetic
from cycles._core.lease.planner import (
    ExtendAttempt,
    Failure,
    FailureKind,
    NoticeKind,
    Step,
    Stop,
    StopReason,
)
from cycles._core.lease.values import PERMANENT
from tests.lease.planning import DAY, TRANSPORT, answer, attempt, opened, stop, throttled


@pytest.mark.parametrize(
    ("lead", "timeout", "largest_rtt", "budget", "margin", "reserve", "delay"),
    [
        (60_000, 10_000, 1_500, 10_000, 3_000, 23_000, 37_000),  # the worked example
        (60_000, 30_000, 0, 30_000, 1_000, 61_000, 0),
        (60_000, 30_000, 1_500, 30_000, 3_000, 63_000, 0),
        (10_000, 250, 0, 1_000, 1_000, 3_000, 7_000),  # nothing is budgeted below a second
        (60_000, 1_000, 20_000, 40_000, 40_000, 120_000, 0),  # a slow response counts more than the timeout
        (60_000, math.inf, 0, math.inf, 1_000, math.inf, 0),
        (math.inf, math.inf, 0, math.inf, 1_000, math.inf, 0),
        (math.inf, 1_000, 0, 1_000, 1_000, 3_000, math.inf),
        (10_000.7, 1_250.2, 600.1, 1_251, 1_201, 3_703, 6_297),  # budgets and margins up, delays down
    ],
)
def test_formulas(
    lead: float, timeout: float, largest_rtt: float, budget: float, margin: float, reserve: float, delay: float
) -> None:
    assert arithmetic.attempt_budget_ms(timeout, largest_rtt) == budget
    assert arithmetic.safety_margin_ms(largest_rtt) == margin
    assert arithmetic.retry_reserve_ms(timeout, largest_rtt) == reserve
    assert arithmetic.next_delay_ms(lead, reserve) == delay


@pytest.mark.parametrize(
    ("remaining", "rtt", "lead"),
    [(60_000, 0.0, 60_000), (60_000, 1.2, 59_998), (100, 500.0, 0), (60_000, None, 0), (10**400, 1.0, math.inf)],
)
def test_lead_floor(remaining: int, rtt: float | None, lead: float) -> None:
    assert arithmetic.lead_floor_ms(remaining, rtt) == lead


@pytest.mark.parametrize(
    ("sent", "received", "rtt"), [(10.0, 12.5, 2.5), (None, 12.5, None), (13.0, 12.5, None), (-math.inf, 1.0, None)]
)
def test_rtt_is_unknown_without_a_sane_clock(sent: float | None, received: float, rtt: float | None) -> None:
    assert arithmetic.rtt_ms(sent, received) == rtt


@pytest.mark.parametrize(
    ("timeout", "lead", "deadline", "cut"),
    [
        (5_000, 60_000, 5_000, 4_900),
        (5_000, 10_000, 1_250, 1_150),
        (5_000, 1_000, 1_000, 900),
        (500, 60_000, 500, 400),
        (100, 60_000, 100, 50),  # cutting 100 ms early would leave nothing
        (math.inf, 80_000, 10_000, 9_900),
    ],
)
def test_deadline_of_an_attempt_comes_from_its_lease(timeout: float, lead: float, deadline: float, cut: float) -> None:
    assert arithmetic.deadline_ms(timeout, lead) == deadline
    assert arithmetic.attempt_timeout_ms(deadline) == cut


# -- the primary algorithm (10.2) ---


@pytest.mark.parametrize(
    ("ttl", "remaining", "rtt", "delay", "cut"),
    [
        (60_000, 60_000, 0.0, 49_000, 4_900),
        (60_000, 60_000, 10.0, 48_990, 4_900),
        (10_000, 10_000, 0.0, 6_500, 1_150),
        (10_000, 8_000, 0.0, 5_000, 900),  # the lease of the performance bar: clamped to 8 s
        (DAY, DAY, 0.0, DAY - 11_000, 4_900),
    ],
)
def test_the_first_attempt_follows_from_the_create_response(
    ttl: int, remaining: int, rtt: float, delay: float, cut: float
) -> None:
    lease, step = opened(remaining, ttl=ttl, rtt=rtt)
    assert step == ExtendAttempt(due_ms=delay, fresh_key=True, timeout_ms=cut)
    assert lease.notices == ()
    assert lease.lasts_until_ms() == remaining - rtt


def test_only_the_largest_rtt_is_taken_from_earlier_responses() -> None:
    lease, _ = opened(60_000, rtt=2_000.0)  # lead 58,000, budget 5,000, margin 4,000
    lease, step = lease.granted(answer(10_000, 44_000.0, rtt=0.0))
    # lead 10,000; budget max(1,250, 2 * 2,000), margin 4,000: reserve 12,000
    assert attempt(step) == (44_000, True)
    lease, step = lease.granted(answer(60_000, 45_000.0))
    assert attempt(step) == (45_000 + 60_000 - (2 * 5_000 + 4_000), True)


def test_a_response_delayed_in_this_process_does_not_shorten_later_delays() -> None:
    lease, _ = opened(10_000, ttl=10_000)
    lease, _ = lease.granted(answer(10_000, 10_000.0, rtt=3_500.0))  # its deadline was 1,250: the loop was blocked
    lease, step = lease.granted(answer(10_000, 12_000.0))
    assert attempt(step) == (12_000 + 10_000 - 3 * 2_500, True)


def test_a_slow_create_does() -> None:
    _, step = opened(60_000, rtt=3_000.0)
    assert attempt(step) == (57_000 - 3 * 6_000, True)


def test_an_infinite_lead_needs_no_attempt() -> None:
    _, step = opened(10**400)
    assert attempt(step) == (math.inf, True)


def test_zero_delay_allows_one_immediate_fresh_extension_then_stops() -> None:
    lease, step = opened(2_500, ttl=2_500)
    assert attempt(step) == (0.0, True)
    assert [notice.kind for notice in lease.notices] == [NoticeKind.SHORT_LEASE]
    lease, step = lease.granted(answer(2_500, 5.0, rtt=5.0))
    assert stop(step) is StopReason.TOO_SHORT
    assert isinstance(step, Stop)
    assert "retry-safety budget" in step.detail


def test_a_short_lease_continues_if_the_server_adds_to_it() -> None:
    lease, step = opened(2_000, ttl=2_000)
    lease, step = lease.granted(answer(4_000, 0.0))
    assert attempt(step) == (1_000, True)
    lease, step = lease.granted(answer(5_000, 1_000.0))
    assert attempt(step) == (3_000, True)
    assert lease.notices == ()


def test_the_zero_delay_guard_counts_successive_zeros_only() -> None:
    lease, step = opened(2_500)
    for now in (10_000.0, 20_000.0, 30_000.0):
        lease, step = lease.granted(answer(60_000, now))
        assert attempt(step) == (now + 49_000, True)
        lease, step = lease.granted(answer(2_500, now + 5_000))
        assert attempt(step) == (now + 5_000, True)
        assert lease.notices == ()  # said once, at the start


def test_two_extends_are_at_least_250_ms_apart() -> None:
    lease, step = opened(3_024)
    assert attempt(step) == (24, True)  # the create is no extend: by the formula
    lease, step = lease.granted(answer(3_006, 30, rtt=5))
    assert attempt(step) == (25 + 250, True)  # sent at 25; the formula alone would give 26
    lease, step = lease.granted(answer(3_300, 300, rtt=20))
    assert attempt(step) == (300 + 280, True)


def test_unknown_timing_is_no_lead() -> None:
    lease, step = opened(60_000, rtt=None)
    assert attempt(step) == (0.0, True)
    assert "timing" in lease.notices[0].detail
    assert stop(lease.failed(TRANSPORT, 1.0)[1]) is StopReason.NO_SAFE_RETRY
    _, step = lease.granted(answer(60_000, 3.0, rtt=None))
    assert stop(step) is StopReason.TOO_SHORT


# -- recovery (10.3) ---


@pytest.mark.parametrize("kind", [FailureKind.TRANSPORT, FailureKind.AMBIGUOUS, FailureKind.SERVER])
@pytest.mark.parametrize(
    ("failed_at", "due"),
    [
        (6_500, 6_500 + 3_500 / 4),  # window 1,250, a quarter of the lead is less
        (7_650, 7_650 + 100),  # a whole attempt timed out: window 100
        (7_650.4, 7_650.4 + 99),
        (7_750, 7_750),  # window 0: one immediate retry
    ],
)
def test_recovery_repeats_the_key_within_the_window(kind: FailureKind, failed_at: float, due: float) -> None:
    lease, _ = opened(10_000, ttl=10_000)
    lease, step = lease.failed(Failure(kind, "x"), failed_at)
    assert attempt(step) == (math.floor(due - failed_at) + failed_at, False)


def test_recovery_waits_thirty_seconds_at_most() -> None:
    lease, _ = opened(DAY, ttl=DAY)
    assert attempt(lease.failed(TRANSPORT, 1_000.0)[1]) == (31_000, False)


def test_no_window_no_retry() -> None:
    lease, _ = opened(10_000, ttl=10_000)
    _, step = lease.failed(TRANSPORT, 7_751.0)
    assert stop(step) is StopReason.NO_SAFE_RETRY
    assert isinstance(step, Stop)
    assert "timed out" in step.detail


def test_window_zero_allows_one_retry() -> None:
    lease, _ = opened(10_000, ttl=10_000)
    lease, step = lease.failed(TRANSPORT, 7_749.5)
    assert attempt(step) == (7_749.5, False)
    _, step = lease.failed(TRANSPORT, 7_749.75)
    assert stop(step) is StopReason.NO_SAFE_RETRY


def test_no_progress_stops() -> None:
    lease, _ = opened(60_000)
    lease, step = lease.failed(TRANSPORT, 50_000.0)
    assert attempt(step) == (52_500, False)
    assert attempt(lease.failed(TRANSPORT, 50_001.0)[1])
    assert stop(lease.failed(TRANSPORT, 50_000.0)[1]) is StopReason.NO_PROGRESS


def test_a_success_ends_the_recovery() -> None:
    lease, _ = opened(10_000, ttl=10_000)
    lease, _ = lease.failed(TRANSPORT, 7_750.0)
    lease, step = lease.granted(answer(10_000, 8_000.0))
    assert attempt(step) == (14_500, True)
    lease, step = lease.failed(TRANSPORT, 15_750.0)
    assert attempt(step) == (15_750, False)


@pytest.mark.parametrize("after", [0, 1_000, 4_000])
def test_a_429_waits_exactly_the_requested_time(after: int) -> None:
    lease, _ = opened(60_000)
    assert attempt(lease.failed(throttled(after), 50_000.0)[1]) == (50_000 + after, False)  # window 4,000


@pytest.mark.parametrize("after", [None, -1, 4_001, 10**400])
def test_a_429_without_a_usable_time_stops(after: int | None) -> None:
    lease, _ = opened(60_000)
    assert stop(lease.failed(throttled(after), 50_000.0)[1]) is StopReason.RATE_LIMITED


def test_retry_after_zero_is_no_busy_loop() -> None:
    lease, _ = opened(60_000)
    now, attempts = 49_000.0, 0
    step: Step = ExtendAttempt(now, fresh_key=True, timeout_ms=0)
    while isinstance(step, ExtendAttempt):
        now = max(now + 1, step.due_ms)
        lease, step = lease.failed(throttled(0), now)
        attempts += 1
    assert attempts < 20


@pytest.mark.parametrize(
    ("code", "reason", "permanent"),
    [
        ("RESERVATION_EXPIRED", StopReason.EXPIRED, True),
        ("RESERVATION_FINALIZED", StopReason.FINALIZED, True),
        ("MAX_EXTENSIONS_EXCEEDED", StopReason.MAX_EXTENSIONS, True),
        ("TENANT_CLOSED", StopReason.TENANT_CLOSED, True),
        ("NOT_FOUND", StopReason.NOT_FOUND, True),
        ("IDEMPOTENCY_MISMATCH", StopReason.REJECTED, False),
        ("DEBT_OUTSTANDING", StopReason.REJECTED, False),
        (None, StopReason.REJECTED, False),
    ],
)
@pytest.mark.parametrize("remaining", [60_000, None])
def test_any_other_4xx_stops(code: str | None, reason: StopReason, permanent: bool, remaining: int | None) -> None:
    lease, _ = opened(remaining)
    _, step = lease.failed(Failure(FailureKind.REJECTED, "HTTP 4xx", code), 50_000.0)
    assert isinstance(step, Stop)
    assert (step.reason, step.reason in PERMANENT.values()) == (reason, permanent)
    assert "HTTP 4xx" in step.detail


def test_a_code_without_its_status_is_not_permanent() -> None:
    lease, _ = opened(60_000)
    _, step = lease.failed(Failure(FailureKind.SERVER, "HTTP 503", "NOT_FOUND"), 49_100.0)
    assert attempt(step)[1] is False


def test_used_up_extensions_say_what_to_do() -> None:
    lease, _ = opened(60_000)
    lease, _ = lease.granted(answer(60_000, 49_000.0))
    _, step = lease.failed(Failure(FailureKind.REJECTED, "HTTP 409", "MAX_EXTENSIONS_EXCEEDED"), 98_000.0)
    assert isinstance(step, Stop)
    assert "no more extensions after 1;" in step.detail
    assert "lease_series" in step.detail
    assert lease.lasts_until_ms() == 109_000


def test_a_rejected_key_is_repeated_until_the_lease_ends() -> None:
    lease, _ = opened(60_000)
    lease, _ = lease.granted(answer(60_000, 49_000.0))
    rejected = Failure(FailureKind.KEY_REJECTED, "HTTP 401", "UNAUTHORIZED")
    lease, step = lease.failed(rejected, 50_000.0)
    due: list[tuple[float, bool]] = []
    while isinstance(step, ExtendAttempt):
        due.append(attempt(step))
        lease, step = lease.failed(rejected, step.due_ms)
    # Doubled pauses, then half of what is left of the lease, at least a second, and once at its end.
    seconds = [51, 53, 57, 65, 81, 95, 102, 105.5, 107.25, 108.25, 109]
    assert due == [(1_000.0 * each, False) for each in seconds]
    assert step == Stop(StopReason.REJECTED, "HTTP 401; the lease has ended")


def test_grants_with_a_remaining_ttl_count_for_the_fallback() -> None:
    lease, _ = opened(60_000, expires=60_000)
    for received in (49_000, 98_000, 147_000, 196_000):
        lease, _ = lease.granted(answer(60_000, received, expires=60_000 + received))
    lease, _ = lease.granted(answer(None, 245_000.0, expires=305_000))  # a server without remaining_ttl_ms
    _, step = lease.failed(TRANSPORT, 250_000.0)
    assert attempt(step) == (250_000.0 + lease.delay_ms, False)
    _, step = lease.failed(TRANSPORT, 365_001.0)
    assert stop(step) is StopReason.NO_SAFE_RETRY
    _, step = lease.failed(TRANSPORT, 364_999.0)
    assert isinstance(step, ExtendAttempt)
