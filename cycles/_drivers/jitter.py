"""Random numbers for the jitter of pauses, from a generator of the package.

The module's own functions (`random.random`) would use up numbers of the generator that a program has seeded, from a
background thread at any time, so that its results could not be repeated.
"""

from __future__ import annotations

import os
import random
from typing import Final

_GENERATOR: Final = random.Random()  # noqa: S311 - jitter keeps no secret

if hasattr(os, "register_at_fork"):  # else children that were forked at the same time would retry at the same time
    os.register_at_fork(after_in_child=_GENERATOR.seed)


def jitter() -> float:
    """Return a number from 0 to 1."""
    return _GENERATOR.random()
