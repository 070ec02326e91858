"""Points of plain Python: between two byte codes of the SDK another thread runs, or a signal handler runs.

The first thread of each program is its main thread: only there Python calls signal handlers. `sys.settrace` counts the
byte codes of `cycles` that it runs. Locks, sleeps and calls of files are points without this feature, too.

A handler raises, or uses the pool whose code it interrupts. Pools have few byte codes that matter, so in seeds with
these features the count is that of the pool's functions only, at the points at which Python looks for signals.
"""

from __future__ import annotations

import contextlib
import dis
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, Final

import cycles
from cycles._http.first_use import first_use
from tests.simulation.hub import Hub
from tests.simulation.swarm import Swarm

FEATURE: Final = "byte codes"
POOL_RAISES: Final = "interrupts in pools"
POOL_USES: Final = "handlers use pools"
FEATURES: Final = (FEATURE, POOL_RAISES, POOL_USES)
"""With one of them the runs of a seed depend on what the process has cached, so each has its own process."""
RAISES: Final = 0.6  # how often a handler raises in a main thread
MOST_CODES: Final = 20_000  # before it does
MOST_POINTS: Final = 3_000  # of the functions of a pool
MOST_POINTS_INSIDE: Final = 150  # of one of them, over several calls
SWITCHES: Final = 0.002  # how often another thread runs before a byte code
_PACKAGE: Final = str(Path(cycles.__file__).parent)
_POOL: Final = ("_flows/pool/", "_core/pool/", "_client/pool.py", "_client/reservation.py", "_flows/block_end.py")
_INSIDE: Final = (None, "_admit", "commit_quickly", "_end_in", "carry_out", "free")
_LATE: Final = "fail_waiters"  # of a chunk whose lease is over when it arrives
_DEPTH: Final = 4
# Python looks for signals after calls, at the start of functions and at the end of loops; see tests/support/points.py.
_CHECKED: Final = ("CALL", "RESUME", "JUMP_BACKWARD", "SEND", "FOR_ITER")


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
        self._checked: FrameType | None = None  # Python looks for a signal before the next byte code of this frame
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
        self._left -= self._left > 0
        if self._left == 0 and self._thread.process.alive:
            if self._checked is frame:
                self._left = -1
                self._swarm.matters(FEATURE)
                raise _interrupted(hub, frame)
            self._checked = frame if _is_checked(frame) else None
        self._until_switch -= 1
        if self._until_switch <= 0:
            self._swarm.matters(FEATURE)
            self._until_switch = self._distance()
            if self._thread.process.alive and not _builds_parts():
                hub.preempt_now()
        return self._at


def _builds_parts() -> bool:
    """Return whether a thread builds what others wait for: that lock is Python's, and keeps no greenlet out."""
    return repr(first_use).startswith("<locked")  # RLock.locked is new in Python 3.14


class _PoolTracer:
    """Calls a handler at one or two points of the functions of pools.

    Args:
        hub: The machine.
        swarm: The features of the run.
        number: Tells the main threads of a run apart.
        handler: Uses the pool.
    """

    def __init__(self, hub: Hub, swarm: Swarm, number: int, handler: Callable[[], None]) -> None:
        random = Random(f"signals {hub.seed} {number}")
        self._hub = hub
        self._swarm = swarm
        self._thread = hub.current
        self._handler = handler
        raises, uses = (swarm.weight(name) for name in (POOL_RAISES, POOL_USES))
        acts = random.choices((POOL_RAISES, POOL_USES), (raises, uses), k=2)
        self._inside = random.choice(_INSIDE)
        if swarm.late_chunks and Random(f"late {hub.seed} {number}").random() < 0.7:
            self._inside = _LATE
        most = MOST_POINTS if self._inside is None else MOST_POINTS_INSIDE
        self._acts = sorted((int(most ** random.random()), act) for act in acts)
        self._points = 0
        self._checked: dict[FrameType, bool] = {}

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(_PACKAGE) or not any(part in name for part in _POOL):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._at

    def _at(self, frame: FrameType, event: str, _: Any) -> Any:
        hub, thread = self._hub, self._thread
        if event == "return":
            self._checked.pop(frame, None)
        if event != "opcode" or thread is None or hub.current is not thread or not thread.process.alive:
            return self._at
        is_point = self._checked.get(frame, True)
        self._checked[frame] = _is_checked(frame)
        is_point = is_point and self._counts(frame)
        self._points += is_point
        if is_point and self._acts and self._points >= self._acts[0][0]:
            _, act = self._acts.pop(0)
            self._swarm.matters(act)
            if act == POOL_RAISES:
                self._checked.clear()
                raise _interrupted(hub, frame)
            hub.trace(f"a signal handler of {thread.process.name} uses the pool at {_place(frame)}")
            began_s = hub.now_s
            self._handler()
            hub.slow_s += hub.now_s - began_s  # other threads wait for it if the interrupted frame has a lock
        return self._at

    def _counts(self, frame: FrameType) -> bool:
        """Return whether the point is in the function whose points are counted, or in one that it has called."""
        near: FrameType | None = frame
        for _ in range(_DEPTH):
            if near is None or near.f_code.co_name == self._inside:
                break
            near = near.f_back
        return self._inside is None or (near is not None and near.f_code.co_name == self._inside)


def _is_checked(frame: FrameType) -> bool:
    """Return whether Python looks for signals after this byte code."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]].startswith(_CHECKED)


def _interrupted(hub: Hub, frame: FrameType) -> Interrupted:
    """Note that a signal handler raises at this place of the current thread, and return what it raises."""
    assert hub.current is not None
    process = hub.current.process
    hub.trace(f"{process.name} is interrupted at {_place(frame)}")
    hub.interrupted.add(process)
    return Interrupted()


def _place(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}, {frame.f_code.co_name}"


@contextlib.contextmanager
def points(hub: Hub, swarm: Swarm, number: int, handler: Callable[[], None] | None = None) -> Iterator[None]:
    """Let byte codes of the current thread be points, if a feature is on.

    Args:
        hub: The machine.
        swarm: The features of the run.
        number: Tells the main threads of a run apart.
        handler: Uses the pool that this thread is about to use; None: it uses none.
    """
    if handler is not None and (POOL_RAISES in swarm or POOL_USES in swarm):
        tracer: Any = _PoolTracer(hub, swarm, number, handler)
    elif FEATURE in swarm:
        tracer = _Tracer(hub, swarm, number)
    else:
        yield
        return
    sys.settrace(tracer)
    try:
        yield
    finally:
        sys.settrace(None)
