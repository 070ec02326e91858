"""Which features and faults a seed has, and with which weight.

A run in which everything may happen is short and always the same mixture. So a seed first draws which features are on:
rare combinations occur, long runs without a fault too, and a fault that hides another one is off in half of the runs.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import Any, Final

from tests.simulation.network import NETWORK

LATE_CHUNKS: Final = "late chunks"
FIRST_FEATURES: Final = (
    *NETWORK,
    "disk fails",
    "server stops",
    "backup restored",
    "kill",
    "kill between steps",
    "power loss",
    "clock jump",
    "suspension",
    "fork",
    "eight days",
    "foreign files",
    "no journal",
    "durability disk",
    "second tenant",
    "frozen budget",
    "cancellation",
)
"""The features of the runs without swarms; each has its own chance in `faults.py`."""
LATER_FEATURES: Final = (
    "fleet",
    "clocks differ",
    "store outage",
    "store stalls",
    "store loses responses",
    "store is emptied",
    "machine lost",
    "pause",
    "mapped steps",
    "short writes",
    "fsync fails",
    "rename fails",
    "unlink fails",
    "open fails",
    "read fails",
    "stat fails",
    "disk hangs",
    "pages",
    "no remaining ttl",
    "revoked key",
    "changed limit",
    "server clock",
    "byte codes",
    "small limits",
    "other versions",
    "run limit",
    "interrupts in pools",
    "handlers use pools",
    "limited pools",
    "no threads",
    "clock set in an outage",
    "closed budget",
    "provider calls",
    "closed tenant",
    "provider calls in loops",
    "proxy",
    "SDK calls",
    "SDK calls in loops",
    "SDK calls in guards",
    "kill at a new log",
    "kill after a charge",
    LATE_CHUNKS,
)
"""The features that only swarms have: they are on in some seeds and off in the others."""
FAILING_DISKS: Final = (
    "short writes",
    "fsync fails",
    "rename fails",
    "unlink fails",
    "open fails",
    "read fails",
    "stat fails",
    "disk hangs",
)
"""Features that are on only if the environment has SIMULATE_FAILING_DISKS: not each seed with them is explained."""
FEATURES: Final = (*FIRST_FEATURES, *LATER_FEATURES)
WEIGHTS: Final = (0.5, 1.0, 1.0, 3.0)  # of a feature that is on
CERTAIN: Final = 100.0
ALL: Final = 0.4  # the share of seeds in which all features of before are on, each with its weight of before
PLAIN: Final = 0.1  # and in which none is on, so that long programs run without a fault
ON: Final = 0.5  # how often a feature is on in the other seeds
QUIET: Final = 0.04  # and in which clients have no journal, and nothing else is on, so that their ends are measured
LATER: Final = 0.25  # how often a feature that only swarms have is on where all others are


class Swarm:
    """The features of one seed.

    Args:
        seed: The seed.
        drawn: False: all features of before are on, and no other; so a seed repeats its run from before swarms.
    """

    def __init__(self, seed: int, *, drawn: bool = True) -> None:
        random = Random(f"swarm {seed}")
        kind = random.random() if drawn else 0.0
        self.quiet = drawn and Random(f"quiet {seed}").random() < QUIET
        self.plain = kind >= 1.0 - PLAIN and not self.quiet
        self._weights: dict[str, float] = {}
        disks = "SIMULATE_FAILING_DISKS" in os.environ
        self._mattered: set[str] = set()
        for name in FEATURES:
            is_first, chance, weight = name in FIRST_FEATURES, random.random(), random.choice(WEIGHTS)
            if kind < ALL:
                on, weight = is_first or (drawn and chance < LATER), 1.0 if is_first else weight
            else:
                on = not self.plain and chance < ON
            self._weights[name] = weight if on and (name not in FAILING_DISKS or disks) else 0.0
        if self.quiet:
            self._weights = dict.fromkeys(FEATURES, 0.0) | {"no journal": CERTAIN}

    def __contains__(self, name: str) -> bool:
        """Return whether a feature is on."""
        return self._weights[name] > 0

    def weight(self, name: str) -> float:
        """Return by how much more often than by default a feature happens; 0 if it is off."""
        return self._weights[name]

    def matters(self, name: str) -> None:
        """Note that a feature has changed what happens in this run."""
        self._mattered.add(name)

    @property
    def late_chunks(self) -> bool:
        """Whether leases of a second are over when they arrive, while their callers open the chunks of their pools."""
        return LATE_CHUNKS in self and "handlers use pools" in self  # else no thread could start in too many seeds

    @property
    def on(self) -> list[str]:
        """The features that are on."""
        return [name for name in FEATURES if self._weights[name]]

    @property
    def mattered(self) -> list[str]:
        """The features that have changed what happens."""
        return [name for name in FEATURES if name in self._mattered]


def table(results: Iterable[Any]) -> str:
    """Return for each feature in how many seeds it was on, and in how many it mattered."""
    on, mattered, plain = Counter[str](), Counter[str](), 0
    for each in results:
        on.update(each.on)
        mattered.update(each.mattered)
        plain += not each.on
    rows = [f"{name:22} {on[name]:9} {mattered[name]:9}" for name in FEATURES]
    return "\n".join([f"{'feature':22} {'on':>9} {'mattered':>9}", *rows, f"{'none':22} {plain:9}"])
