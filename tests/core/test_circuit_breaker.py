"""Pauses between attempts at what is down."""

from __future__ import annotations

from cycles._core.settlement.circuit_breaker import CircuitBreaker


def pauses_s(breaker: CircuitBreaker, failures: int) -> list[float]:
    """Return the pauses after failures of which each follows the pause before it."""
    found, now_s = [], 100.0
    for _ in range(failures):
        breaker.failed(now_s)
        began_s = now_s
        while breaker.is_open(now_s):
            now_s += 0.5
        found.append(now_s - began_s)
    return found


def test_the_pause_doubles_up_to_half_a_minute_and_a_success_ends_it() -> None:
    breaker = CircuitBreaker()
    assert not breaker.is_open(100.0)
    assert pauses_s(breaker, 7) == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    breaker.succeeded()
    assert (breaker.has_failed, breaker.is_open(0.0)) == (False, False)
    assert pauses_s(breaker, 2) == [1.0, 2.0]


def test_attempts_that_were_on_their_way_do_not_make_the_pause_longer() -> None:
    breaker = CircuitBreaker()
    for _ in range(10):
        breaker.failed(100.0)
    assert breaker.is_open(100.5)
    assert not breaker.is_open(101.0)
