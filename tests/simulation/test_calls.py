"""Simulated calls that wait keep every invariant."""

from __future__ import annotations

from collections import Counter

from tests.simulation import calls
from tests.support.short import fewer

WORLDS = fewer(500, 20)


def test_worlds_of_calls_keep_every_invariant() -> None:
    broken = {seed: problem for seed in range(WORLDS) if (problem := calls.run(seed)) is not None}
    assert broken == {}


def test_calls_end_in_every_way() -> None:
    found = Counter(outcome for seed in range(60) for outcome in calls.outcomes(seed))
    assert set(found) >= {"done", "denied", "cancelled", "killed", "rejected"}
    assert found["done"] > found["denied"]


def test_a_seed_decides_everything() -> None:
    assert list(calls.outcomes(7)) == list(calls.outcomes(7))
    assert list(calls.outcomes(7)) != list(calls.outcomes(8))
