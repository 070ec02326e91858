"""The guards of one client that no caller has ended. Nothing in this file needs a thread."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import Final
from weakref import WeakSet, ref

from cycles._core.lease.planner import Stop, StopReason
from cycles._drivers.io.threads import BlockingIo
from cycles._errors import CyclesError
from cycles._flows.block_end import drop, end_dropped
from cycles._flows.guard_state import GuardState
from cycles._flows.heartbeat import lose_lease
from cycles._flows.io import run

MOST_ENDED: Final = 1_000
EXITED = "the interpreter exits and the guard was not committed or released"


class LiveGuards:
    """Knows the live guards of one client, and ends them when the interpreter exits.

    Args:
        io: The operations of threads.
    """

    def __init__(self, io: BlockingIo) -> None:
        self._io = io
        self._guards: WeakSet[GuardState] = WeakSet()
        # Written without a lock: the garbage collector may add to it. Guards that were not ended by a caller are few.
        self._ended: deque[tuple[str | None, str, ref[GuardState]]] = deque(maxlen=MOST_ENDED)

    def add(self, guard: GuardState) -> None:
        """Add a guard that a caller is about to get."""
        self._guards.add(guard)

    def stop_heartbeats(self) -> None:
        """Report the leases of live guards as lost: the client is closed and renews them no longer."""
        for guard in self._unclaimed():
            heartbeat = guard.heartbeat
            if heartbeat is not None and not heartbeat.ended and not heartbeat.lost:
                lose_lease(self._io, heartbeat, Stop(StopReason.CLIENT_CLOSED, "the client was closed"))

    def end_all(self) -> None:
        """End every live guard in the background: commit its known spend, or release it."""
        for guard in self._unclaimed():
            with contextlib.suppress(CyclesError):  # a thread has ended it in the meantime
                guard.claim("exit")
                self.dropped(guard)
                drop(self._io, guard, EXITED)

    def end_all_here(self, timeout_s: float) -> None:
        """End live guards of a closed client in this thread; those for which no time is left are noted."""
        ends_at_s = time.monotonic() + timeout_s
        for guard in self._unclaimed():
            if time.monotonic() < ends_at_s:
                self.end_here(guard, EXITED)
            else:
                self.dropped(guard)

    def end_here(self, guard: GuardState, what: str) -> None:
        """End a guard of a closed client in this thread. `what` begins the report."""
        self.dropped(guard)
        run(end_dropped(self._io, guard, what))

    def dropped(self, guard: GuardState) -> None:
        """Note a guard that no caller has ended and that the background ends. The garbage collector may call this."""
        named = f"{guard.name} ({guard.known or guard.estimate})"
        self._ended.append((guard.reservation_id, named, ref(guard)))

    def left(self, unfinished: set[str]) -> list[str]:
        """Return the names and amounts of those whose settlement or release is unfinished."""
        return [
            named
            for reservation_id, named, guard in list(self._ended)
            if reservation_id in unfinished or _is_left(guard())
        ]

    @property
    def in_use(self) -> bool:
        """Whether a caller may still end a guard."""
        return bool(self._unclaimed())

    def _unclaimed(self) -> list[GuardState]:
        for _ in range(10):
            with contextlib.suppress(RuntimeError):  # another thread made a guard during the iteration
                found = list(self._guards)
                return [guard for guard in found if not guard.finalized and not guard.sends_nothing]
        return []


def _is_left(guard: GuardState | None) -> bool:
    return guard is not None and (guard.state == "pending" or not guard.finalized)
