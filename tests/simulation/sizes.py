"""Small limits: in some seeds each limit of the engine is so low that a few guards reach it."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from cycles._drivers.work import claims, queue
from cycles._journal.files import record_files, spend
from cycles._journal.files.spend import Layout
from cycles._journal.stores import batch, shared, store
from tests.simulation.swarm import Swarm

FEATURE: Final = "small limits"
LIMITS: Final[tuple[tuple[Any, str, Any], ...]] = (
    (spend, "_LAYOUTS", (Layout(2, 1_024), Layout(1, 16_384))),  # slots of the logs of spend
    (record_files, "MOST_SPARES", 1),  # open files of records
    (queue, "CREATE_CLEANUPS", 2),
    (queue, "WORKERS", 1),
    (claims, "MOST_WAITING", 2),
    (claims, "CLAIM_AGAIN_BELOW", 1),
    (batch, "LARGEST_BATCH", 2),
    (shared, "TAKE_BATCH", 1),
    (shared, "BATCH", 2),
    (store, "PAGE", 2),
)
"""Module, name and value."""


def patches(seed: int, swarm: Swarm) -> list[tuple[Any, str, Any]]:
    """Return what sets some limits of a run."""
    if FEATURE not in swarm:
        return []
    swarm.matters(FEATURE)
    random = Random(f"sizes {seed}")
    return [limit for limit in LIMITS if random.random() < 0.6]
