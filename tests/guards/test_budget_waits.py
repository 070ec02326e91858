"""The pauses of a caller that waits for budget: they double, differ from those of others, and end in time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles._core.messages.outcome import Ambiguous, Outcome, RejectedResponse, Success, Unreachable
from cycles._flows.retry import BudgetWait, is_unlisted, may_have_taken_effect, uncertain


class Clock:
    """A clock that only a test moves."""

    def __init__(self, drawn: float) -> None:
        self.at_ms = 10_000.0
        self._drawn = drawn

    def now_ms(self) -> float:
        return self.at_ms

    def random(self) -> float:
        return self._drawn


def waiting(wait_s: float | None, drawn: float = 0.5) -> tuple[BudgetWait, Clock]:
    clock = Clock(drawn)
    io: Any = SimpleNamespace(clock=clock)
    return BudgetWait(io, wait_s), clock


def denied(retry_after_ms: int | None = None) -> cycles.RateLimitedError:
    return cycles.RateLimitedError("slow down", status=429, retry_after_ms=retry_after_ms)


@pytest.mark.parametrize(
    ("drawn", "pauses"),
    [
        (0.0, [0.125, 0.25, 0.5, 1.0, 2.0, 2.5, 2.5]),
        (0.5, [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]),
        (0.75, [0.3125, 0.625, 1.25, 2.5, 5.0, 6.25, 6.25]),
    ],
)
def test_pauses_double_up_to_five_seconds_and_half_of_them_more_or_less(drawn: float, pauses: list[float]) -> None:
    wait, _ = waiting(100.0, drawn)
    assert [wait.next_s(denied()) for _ in pauses] == pauses


@pytest.mark.parametrize(
    ("wait_s", "passed_ms", "retry_after_ms", "pause_s"),
    [
        (10.0, 0, None, 0.25),
        (10.0, 9_750, None, 0.25),
        (10.0, 9_999, None, 0.001),  # one more attempt at the end
        (10.0, 9_999.5, None, 0.0005),
        (10.0, 10_000, None, None),
        (10.0, 10_001, None, None),
        (10.0, 0, 10_000, 10.0),  # what the server says
        (10.0, 0, 10_001, None),
        (10.0, 0, 0, 0.25),  # without a pause, each denial would be followed by the next request
        (10.0, 0, -1, 0.25),
        (10.0, 9_900, 0, 0.1),
        (10.0, 10_000, 0, None),
        (None, 0, None, None),
        (None, 0, 0, None),
        (0.0, 0, None, None),
    ],
)
def test_a_pause_ends_before_the_time_of_the_caller(
    wait_s: float | None, passed_ms: float, retry_after_ms: int | None, pause_s: float | None
) -> None:
    wait, clock = waiting(wait_s)
    clock.at_ms += passed_ms
    assert wait.next_s(denied(retry_after_ms)) == pause_s


def rejected(status: int, code: str | None = None, message: str = "m") -> RejectedResponse:
    return RejectedResponse(status, code, message)


@pytest.mark.parametrize(
    ("outcome", "unknown", "may_have", "unlisted"),
    [
        (Success({}, None, None, 0.0, 0.0, b""), False, False, False),
        (Unreachable("m"), True, True, False),
        (Unreachable("m", sent=False), True, False, False),
        (Unreachable("m", sent=False, queued=True), False, False, False),
        (Ambiguous(200, "m"), True, True, False),
        (rejected(500, "INTERNAL_ERROR"), True, True, False),
        (rejected(503), True, True, False),
        (rejected(401, "UNAUTHORIZED", "INTERNAL_ERROR"), True, False, False),  # it cannot check keys
        (rejected(401, "UNAUTHORIZED"), False, False, False),
        (rejected(429, "LIMIT_EXCEEDED"), False, False, False),
        (rejected(409, "BUDGET_EXCEEDED"), False, False, False),
        (rejected(409, "SOMETHING_NEW"), False, False, True),
        (rejected(404, "BUDGET_EXCEEDED"), False, False, True),
    ],
)
def test_what_an_outcome_says_about_the_effect_of_its_request(
    outcome: Outcome, unknown: bool, may_have: bool, unlisted: bool
) -> None:
    assert (uncertain(outcome), may_have_taken_effect(outcome), is_unlisted(outcome)) == (unknown, may_have, unlisted)
