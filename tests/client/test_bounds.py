"""The limits of values: the largest and the smallest one is accepted, the next one beyond it is rejected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import cycles
from cycles import Action, Subject, tokens
from cycles._config import Config

from .conftest import ACTION

LARGEST = 2**63 - 1
VALUES: list[tuple[Callable[[Any], Any], Any, Any]] = [
    (tokens, LARGEST, LARGEST + 1),
    (tokens, 0, -1),
    (lambda n: cycles.usd_microcents(n), LARGEST, LARGEST + 1),
    (lambda n: cycles.SignedAmount("TOKENS", n), LARGEST, LARGEST + 1),
    (lambda n: cycles.SignedAmount("TOKENS", n), -LARGEST - 1, -LARGEST - 2),
    (lambda n: cycles.PolicyKeys(host="h" * n), 253, 254),
    (lambda n: cycles.PolicyKeys(host="h" * n), 1, 0),
    (lambda n: cycles.PolicyKeys(recipient_domain="d" * n), 253, 254),
    (lambda n: cycles.PolicyKeys(resource_type="t" * n), 128, 129),
    (lambda n: cycles.PolicyKeys(path_prefix="/" * n), 512, 513),
]


@pytest.mark.parametrize(("make", "last", "beyond"), VALUES)
def test_a_value_at_its_limit_is_accepted_and_one_beyond_it_is_not(
    make: Callable[[Any], Any], last: Any, beyond: Any
) -> None:
    make(last)
    with pytest.raises(cycles.InvalidRequestError):
        make(beyond)


def subject(**members: Any) -> Subject:
    return Subject(tenant="acme", **members)


OPTIONS: list[tuple[str, Callable[[int], Any], int, int]] = [
    ("idempotency_key", lambda n: "k" * n, 256, 257),
    ("idempotency_key", lambda n: "k" * n, 1, 0),
    ("ttl_ms", lambda n: n, 1_000, 999),
    ("ttl_ms", lambda n: n, 86_400_000, 86_400_001),
    ("grace_period_ms", lambda n: n, 0, -1),
    ("grace_period_ms", lambda n: n, 60_000, 60_001),
    ("action", lambda n: Action("k" * n, "n"), 64, 65),
    ("action", lambda n: Action("k", "n" * n), 256, 257),
    ("action", lambda n: Action("k", "n", tags=[f"t{number}" for number in range(n)]), 10, 11),
    ("action", lambda n: Action("k", "n", tags=["t" * n]), 64, 65),
    ("subject", lambda n: subject(agent="a" * n), 128, 129),
    ("subject", lambda n: subject(dimensions={f"d{number}": "v" for number in range(n)}), 16, 17),
    ("subject", lambda n: subject(dimensions={"d": "v" * n}), 256, 257),
]


@pytest.mark.parametrize(("name", "make", "last", "beyond"), OPTIONS)
def test_an_option_at_its_limit_is_accepted_and_one_beyond_it_is_not(
    client: cycles.Cycles, name: str, make: Callable[[int], Any], last: int, beyond: int
) -> None:
    reserve: Any = client.reserve
    reserve(tokens(1), **{"action": ACTION, name: make(last)}).acquire().release()
    with pytest.raises(cycles.InvalidRequestError, match=name):
        reserve(tokens(1), **{"action": ACTION, name: make(beyond)}).acquire()


SETTINGS: list[tuple[str, float, float]] = [
    ("max_connections", 1, 0),
    ("max_connections", 10_000, 10_001),
    ("max_retries", 0, -1),
    ("max_retries", 10, 11),
    ("timeout", 86_400, 86_401),
    ("flush_timeout", 0, -1),
    ("flush_timeout", 86_400, 86_401),
    ("journal_claim_ms", 1_000, 999),
    ("journal_claim_ms", 600_000, 600_001),
    ("journal_checkpoint_ms", 1, 0),
    ("journal_checkpoint_ms", 600_000, 600_001),
    ("approve_above", 0, -0.01),
    ("approve_above", 1, 1.01),
]


@pytest.mark.parametrize(("name", "last", "beyond"), SETTINGS)
def test_a_setting_at_its_limit_is_accepted_and_one_beyond_it_is_not(name: str, last: Any, beyond: Any) -> None:
    assert getattr(Config(**{name: last}), name) == last
    with pytest.raises(cycles.ConfigurationError, match=name):
        Config(**{name: beyond})
