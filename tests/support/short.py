"""The short form of tests that try every point of a call, or many seeds: `make test` tries a part, `make check` all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")

IS_SHORT: Final = "SHORT_TESTS" in os.environ


def fewer(count: int, share: int = 3) -> int:
    """Return how many of `count` seeds or examples a test tries: in the short form one of `share`."""
    return count // share if IS_SHORT else count


def some(cases: Sequence[T], share: int = 3) -> Sequence[T]:
    """Return which of similar cases a test tries: in the short form every third, or one of `share`."""
    return cases[::share] if IS_SHORT else cases
