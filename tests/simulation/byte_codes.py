"""Points of plain Python: between two byte codes of the SDK another thread runs, or a signal handler raises.

The first thread of each program is its main thread: only there Python calls signal handlers. `sys.settrace` counts the
byte codes of `cycles` that it runs. Locks, sleeps and calls of files are points without this feature, too.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, Final

import cycles
from tests.simulation.hub import Hub
from tests.simulation.swarm import Swarm

FEATURE: Final = "byte codes"
RAISES: Final = 0.6  # how often a handler raises in a main thread
MOST_CODES: Final = 20_000  # before it does
SWITCHES: Final = 0.002  # how often another thread runs before a byte code
_PACKAGE: Final = str(Path(cycles.__file__).parent)


class Interrupted(BaseException):
    """What a signal handler raises, as KeyboardInterrupt."""


class _Tracer:
    def __init__(self, hub: Hub, swarm: Swarm, number: int) -> None:
        random = Random(f"byte codes {hub.seed} {number}")
        self._hub = hub
        self._swarm = swarm
        self._random = random
        self._thread = hub.current
        self._left = int(MOST_CODES ** random.random()) if random.random() < RAISES else -1
        self._until_switch = self._distance()

    def _distance(self) -> int:
        return 1 + int(self._random.expovariate(SWITCHES * self._swarm.weight(FEATURE)))

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(_PACKAGE) or code.co_name == "<module>":
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._at

    def _at(self, frame: FrameType, event: str, _: Any) -> Any:
        hub = self._hub
        if event != "opcode" or hub.current is not self._thread or self._thread is None:
            return self._at
        self._left -= 1
        if self._left == 0 and self._thread.process.alive:
            self._swarm.matters(FEATURE)
            place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            hub.trace(f"{self._thread.process.name} is interrupted at {place}, {frame.f_code.co_name}")
            hub.interrupted.add(self._thread.process)
            raise Interrupted
        self._until_switch -= 1
        if self._until_switch <= 0:
            self._swarm.matters(FEATURE)
            self._until_switch = self._distance()
            if self._thread.process.alive:
                hub.preempt_now()
        return self._at


@contextlib.contextmanager
def points(hub: Hub, swarm: Swarm, number: int) -> Iterator[None]:
    """Let byte codes of the current thread be points, if the feature is on.

    Args:
        hub: The machine.
        swarm: The features of the run.
        number: Tells the main threads of a run apart.
    """
    if FEATURE not in swarm:
        yield
        return
    sys.settrace(_Tracer(hub, swarm, number))
    try:
        yield
    finally:
        sys.settrace(None)
