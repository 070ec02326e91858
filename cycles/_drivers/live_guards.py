"""The guards of one client that no caller has ended. Nothing in this file needs a thread."""

from __future__ import annotations

import contextlib
from weakref import WeakSet

from cycles._core.lease.planner import Stop, StopReason
from cycles._drivers.blocking import BlockingIo
from cycles._errors import CyclesError
from cycles._flows.block_end import drop
from cycles._flows.guard_state import GuardState
from cycles._flows.heartbeat import lose_lease

EXITED = "the interpreter exits and the guard was not committed or released"


class LiveGuards:
    """Knows the live guards of one client, and ends them when the interpreter exits.

    Args:
        io: The operations of threads.
    """

    def __init__(self, io: BlockingIo) -> None:
        self._io = io
        self._guards: WeakSet[GuardState] = WeakSet()

    def add(self, guard: GuardState) -> None:
        """Add a guard that a caller is about to get."""
        self._guards.add(guard)

    def stop_heartbeats(self) -> None:
        """Report the leases of live guards as lost: the client is closed and renews them no longer."""
        for guard in self._unclaimed():
            heartbeat = guard.heartbeat
            if heartbeat is not None and not heartbeat.ended and not heartbeat.lost:
                lose_lease(self._io, heartbeat, Stop(StopReason.CLIENT_CLOSED, "the client was closed"))

    def end_all(self) -> list[GuardState]:
        """End every live guard in the background: commit its known spend, or release it. Return those it ended."""
        ended = []
        for guard in self._unclaimed():
            with contextlib.suppress(CyclesError):  # a thread has ended it in the meantime
                guard.claim("exit")
                drop(self._io, guard, EXITED)
                ended.append(guard)
        return ended

    def _unclaimed(self) -> list[GuardState]:
        for _ in range(10):
            with contextlib.suppress(RuntimeError):  # another thread made a guard during the iteration
                found = list(self._guards)
                return [guard for guard in found if not guard.finalized and not guard.sends_nothing]
        return []
