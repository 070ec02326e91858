"""Mapped memory of the journal's logs: a write is two copies, and a thread switch or a kill may come between them."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from random import Random
from typing import Any, Final

from tests.simulation.hub import Hub
from tests.simulation.swarm import Swarm

FEATURE: Final = "mapped steps"
SWITCHES: Final = 0.1  # how often another thread runs between two copies
MOST_COPIES: Final = 30  # before the one at which a process is killed


class MappedSteps:
    """The module `mmap` as the journal sees it.

    Args:
        hub: The machine.
        swarm: The features of the run.
        kill: Kills the process of the current thread.
    """

    def __init__(self, hub: Hub, swarm: Swarm, kill: Callable[[Any], None]) -> None:
        random = Random(f"mapped {hub.seed}")
        self._hub = hub
        self._swarm = swarm
        self._random = random
        self._kill = kill
        self._left = random.randrange(1, MOST_COPIES) if random.random() < 0.5 * swarm.weight(FEATURE) else -1
        self.calm = False
        steps = self

        class Map(mmap.mmap):
            """A map whose writes have a step in the middle."""

            def __setitem__(self, place: Any, value: Any) -> None:
                if FEATURE not in swarm or hub.current is None:
                    super().__setitem__(place, value)
                    return
                steps.step()
                if isinstance(place, slice) and len(value) > 1:
                    middle = random.randrange(1, len(value))
                    super().__setitem__(slice(place.start, place.start + middle), value[:middle])
                    steps.step()
                    super().__setitem__(slice(place.start + middle, place.stop), value[middle:])
                else:
                    super().__setitem__(place, value)
                steps.step()

        self.mmap = Map

    def step(self) -> None:
        """Let another thread run, or kill this process, as the seed decides."""
        hub, thread = self._hub, self._hub.current
        if thread is None or not thread.process.alive:
            return
        self._left -= 1
        if self._left == 0 and not self.calm:
            self._swarm.matters(FEATURE)
            process = thread.process
            hub.trace(f"{process.name} is at a write to mapped memory")
            hub.after(0, lambda: self._kill(process))
            hub.preempt_now()
        elif self._random.random() < SWITCHES:
            hub.preempt_now()
