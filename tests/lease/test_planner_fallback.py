"""The fallback algorithm of the lease planner, as plain tables. Times are milliseconds."""

from __future__ import annotations

import pytest

from cycles._core.lease.planner import (
    ExtendAttempt,
    Failure,
    FailureKind,
    Lease,
    NoticeKind,
    Step,
    StopReason,
)
from tests.lease.planning import TRANSPORT, answer, attempt, opened, stop, throttled


def falling_back(*grants: tuple[float, int], ttl: int = 60_000) -> tuple[Lease, Step]:
    """A lease whose server sends expiries only: `grants` are (received, expires_at_ms) of the extends."""
    lease, step = opened(None, ttl=ttl, expires=1_000_000)
    for received, expires in grants:
        lease, step = lease.granted(answer(None, received, expires=expires))
    return lease, step


def test_fallback_extends_immediately_and_reports_best_effort() -> None:
    lease, step = falling_back()
    assert step == ExtendAttempt(0.0, fresh_key=True, timeout_ms=4_900)
    assert [notice.kind for notice in lease.notices] == [NoticeKind.FALLBACK]
    lease, _ = lease.granted(answer(None, 100.0, expires=1_060_000))
    assert lease.notices == ()


@pytest.mark.parametrize(
    ("ttl", "grant", "elapsed", "delay", "clamped"),
    [
        (60_000, 60_000, 50, 30_000, False),  # normal
        (60_000, 54_000, 50, 27_000, False),  # 0.9 of the ttl
        (60_000, 54_000, 54_000, 27_000, False),  # normal, although it looks like a clamp
        (60_000, 20_000, 50, 10_000, False),  # genuinely smaller
        (60_000, 1_500, 30_000, 1_000, False),  # not faster than once a second
        (60_000, 0, 50, 30_000, True),
        (60_000, -5, 50, 30_000, True),
        (60_000, 30_000, 30_000, 30_000, True),
        (60_000, 22_500, 30_000, 30_000, True),  # 0.75
        (60_000, 22_400, 30_000, 11_200, False),
        (60_000, 37_500, 30_000, 30_000, True),  # 1.25
        (60_000, 37_600, 30_000, 18_800, False),
        (60_000, 2, 5, 30_000, True),  # two responses 5 ms apart: noise, not a grant of 2 ms
        (10_000, 0, 50, 5_000, True),  # hold ttl / 2
    ],
)
def test_fallback_pace(ttl: int, grant: int, elapsed: float, delay: float, clamped: bool) -> None:
    lease, step = falling_back((elapsed, 1_000_000 + grant), ttl=ttl)
    assert attempt(step) == (elapsed + delay, True)
    assert [notice.kind for notice in lease.notices] == ([NoticeKind.EXTENSION_BUDGET] if clamped else [])


@pytest.mark.parametrize("remaining", [None, 60_000])
def test_the_slowest_response_counts_whichever_algorithm_it_had(remaining: int | None) -> None:
    lease, _ = opened(60_000)
    lease, _ = lease.granted(answer(remaining, 10_000.0, rtt=4_000.0, expires=1_060_000))
    lease, step = lease.granted(answer(60_000, 20_000.0))
    assert attempt(step) == (20_000.0 + 60_000 - 2 * 8_000 - 8_000, True)  # twice the largest rtt, three times


def test_fallback_warns_of_the_extension_budget_once() -> None:
    lease, step = falling_back((50, 1_000_050))
    assert lease.notices
    lease, step = lease.granted(answer(None, 30_050.0, expires=1_030_050))
    assert lease.notices == ()
    assert attempt(step) == (60_050, True)


def test_fallback_skips_attempts_while_the_lead_is_large() -> None:
    _, step = falling_back((0, 1_060_000), (0, 1_120_000))
    # lead_min 120,000 now; at 30,000 it is 90,000 >= 1.5 * 60,000: skipped; at 60,000 it is not
    assert attempt(step) == (60_000, True)
    _, step = falling_back((0, 1_060_000), (1, 1_120_000))
    assert attempt(step) == (30_001, True)  # a millisecond less than enough
    _, step = falling_back((0, 1_060_000), (0, 1_180_000))
    # a grant of 120,000: heartbeat at 60,000, where 120,000 < 1.5 * 120,000 are left
    assert attempt(step) == (60_000, True)


def test_fallback_never_skips_beyond_the_confirmed_lease() -> None:
    # 60 s granted, then a grant of nothing: a skipped beat must not outlive the proven lead
    _, step = falling_back((0, 1_060_000), (0, 1_060_000))
    assert attempt(step) == (60_000, True)
    _, step = falling_back((0, 1_050_000), (0, 1_050_000))
    assert attempt(step) == (30_000, True)


@pytest.mark.parametrize("kind", [FailureKind.TRANSPORT, FailureKind.AMBIGUOUS, FailureKind.SERVER])
def test_fallback_failure_waits_the_held_delay_with_the_same_key(kind: FailureKind) -> None:
    lease, _ = falling_back()
    assert attempt(lease.failed(Failure(kind, "x"), 100.0)[1]) == (30_100, False)
    lease, _ = falling_back((50, 1_020_000))
    assert attempt(lease.failed(Failure(kind, "x"), 10_050.0)[1]) == (20_050, False)


def test_fallback_stops_after_the_lease_must_have_ended() -> None:
    lease, _ = falling_back((0, 1_060_000))
    assert attempt(lease.failed(TRANSPORT, 180_000.0)[1]) == (210_000, False)
    assert stop(lease.failed(TRANSPORT, 180_001.0)[1]) is StopReason.NO_SAFE_RETRY


def test_fallback_never_retries_before_the_requested_time() -> None:
    lease, _ = falling_back((0, 1_060_000))
    assert attempt(lease.failed(throttled(5_000), 30_000.0)[1]) == (60_000, False)
    assert attempt(lease.failed(throttled(45_000), 30_000.0)[1]) == (75_000, False)
    assert attempt(lease.failed(throttled(None), 30_000.0)[1]) == (60_000, False)
    assert stop(lease.failed(throttled(91_000), 30_000.0)[1]) is StopReason.RATE_LIMITED


def test_fallback_without_any_expiry_at_create_holds() -> None:
    lease, step = opened(None)
    lease, step = lease.granted(answer(None, 10.0, expires=1_000_000))
    assert attempt(step) == (30_010, True)
    lease, step = lease.granted(answer(None, 30_010.0, expires=1_060_000))
    assert attempt(step) == (60_010, True)


# -- change of algorithm ---


def test_primary_takes_over_when_the_server_sends_remaining_ttl_ms() -> None:
    lease, _ = falling_back((50, 1_060_000))
    lease, step = lease.granted(answer(60_000, 30_050.0, expires=1_090_000))
    assert attempt(step) == (79_050, True)
    lease, step = lease.failed(TRANSPORT, 79_050.0)
    assert attempt(step) == (79_050 + 11_000 / 4, False)


def test_primary_after_fallback_has_its_own_zero_delay_allowance() -> None:
    lease, _ = falling_back()
    lease, step = lease.granted(answer(2_000, 10.0, expires=1_002_000))
    assert attempt(step) == (10, True)
    _, step = lease.granted(answer(2_000, 20.0, expires=1_002_000))
    assert stop(step) is StopReason.TOO_SHORT


def test_fallback_takes_over_when_the_server_omits_remaining_ttl_ms() -> None:
    lease, _ = opened(60_000, expires=1_000_000)
    lease, step = lease.granted(answer(None, 49_000.0, expires=1_060_000))  # added 60 s
    assert attempt(step) == (79_000, True)
    assert [notice.kind for notice in lease.notices] == [NoticeKind.FALLBACK]
    assert lease.lasts_until_ms() == 120_000
    lease, _ = opened(60_000, expires=1_000_000)
    lease, step = lease.granted(answer(None, 49_000.0, expires=1_049_000))  # only topped up
    assert attempt(step) == (79_000, True)
    assert [notice.kind for notice in lease.notices] == [NoticeKind.FALLBACK, NoticeKind.EXTENSION_BUDGET]
    assert attempt(lease.failed(TRANSPORT, 79_000.0)[1]) == (109_000, False)


def test_the_expiry_follows_the_responses() -> None:
    lease, _ = opened(60_000, expires=1_060_000)
    lease, _ = lease.granted(answer(60_000, 49_000.0, expires=1_109_000))
    assert (lease.expires_at_ms, lease.extensions) == (1_109_000, 1)


@pytest.mark.parametrize("remaining", [None, 60_000])
def test_a_response_without_an_expiry_keeps_the_one_before(remaining: int | None) -> None:
    lease, _ = falling_back((0, 1_060_000))
    lease, _ = lease.granted(answer(remaining, 10_000.0, expires=None))
    assert (lease.expires_at_ms, lease.granted_ms) == (1_060_000, 60_000)
    lease, _ = lease.granted(answer(None, 30_000.0, expires=1_090_000))
    assert (lease.expires_at_ms, lease.granted_ms) == (1_090_000, 90_000)


@pytest.mark.parametrize(("after_ms", "due_ms"), [(20_000, 140_000), (30_000, 140_000), (30_001, None)])
def test_a_requested_pause_up_to_the_usual_one_is_kept_at_the_end_of_a_lease(after_ms: int, due_ms: int | None) -> None:
    lease, _ = falling_back((0, 1_060_000))
    _, step = lease.failed(throttled(after_ms), 110_000.0)  # 10 s before the guessed end, with a delay of 30 s
    assert (None if not isinstance(step, ExtendAttempt) else step.due_ms) == due_ms
