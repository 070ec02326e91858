"""The short form of tests that try every point of a call, or many seeds: `make test` tries a part, `make check` all."""

from __future__ import annotations

import os
from typing import Final

IS_SHORT: Final = "SHORT_TESTS" in os.environ


def fewer(count: int, share: int = 3) -> int:
    """Return how many of `count` seeds or examples a test tries: in the short form one of `share`."""
    return count // share if IS_SHORT else count
