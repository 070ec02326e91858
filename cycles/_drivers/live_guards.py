"""The guards of one client that no caller has ended, and the threads that end them."""

from __future__ import annotations

import _thread
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final
from weakref import WeakSet, ref

from cycles._core.lease.planner import Stop, StopReason
from cycles._core.settlement.lifecycle import Dropped
from cycles._drivers.reporting import logger
from cycles._errors import CyclesError
from cycles._flows.block_end import end_at_estimate, end_block, end_later
from cycles._flows.guard_state import GuardState
from cycles._flows.heartbeat import lose_lease
from cycles._flows.io import Io, run

MOST_ENDED: Final = 1_000
LOOK_AGAIN_S: Final = 0.02
EXITED: Final = "the interpreter exits and the guard was not committed or released"


class GuardEnds:
    """Calls that end guards for which no caller waits, in new threads.

    No lock: the garbage collector may add one while its thread holds any lock.
    """

    def __init__(self) -> None:
        self._calls: deque[Callable[[float], object]] = deque()
        self._running: deque[None] = deque()  # one item for each thread that ends a guard

    @property
    def running(self) -> bool:
        """Whether a thread ends a guard at this moment."""
        return bool(self._running)

    def add(self, end: Callable[[float], object]) -> None:
        """Call `end` in a new thread, or in the next `run`, of a flush, if none can be started.

        Its argument is when its requests end at the latest, in monotonic seconds.
        """
        self._calls.append(end)
        with contextlib.suppress(RuntimeError):  # no thread can be started, or the interpreter ends
            _thread.start_new_thread(self.run, ())

    def run(self, ends_at_s: float = math.inf) -> None:
        """Call in this thread what no thread has called."""
        while True:
            # Counted before the call is taken, so that `running` is not False between the two.
            self._running.append(None)
            try:
                end = self._calls.popleft()
            except IndexError:
                self._running.pop()
                return
            try:
                end(ends_at_s)
            except Exception:  # a bug, which must not keep the other guards from ending
                logger.exception(
                    "a guard was not ended in the background because of a bug in cycles; report this traceback"
                )
            finally:  # also if a signal handler raises: a flush would wait for this call in vain
                self._running.pop()

    def finish(self, timeout_s: float) -> None:
        """Call what no thread has called, and wait for the threads."""
        ends_at_s = time.monotonic() + timeout_s
        self.run(ends_at_s)
        while self._running and time.monotonic() < ends_at_s:
            time.sleep(LOOK_AGAIN_S)


class LiveGuards:
    """Knows the live guards of one client, and ends them when the interpreter exits. Needs no thread.

    Args:
        io: The operations of threads.
        until: Returns them for a thread that has only until a time, in monotonic seconds.
    """

    def __init__(self, io: Io, until: Callable[[float], Io]) -> None:
        self._io = io
        self._until = until
        self._guards: WeakSet[GuardState] = WeakSet()
        self.add: Final = self._guards.add
        """Add a guard that a caller is about to get."""
        # Written without a lock: the garbage collector may add to it. Guards that were not ended by a caller are few.
        self._ended: deque[tuple[str | None, str, ref[GuardState]]] = deque(maxlen=MOST_ENDED)

    def stop_heartbeats(self) -> None:
        """Report the leases of live guards as lost: the client is closed and renews them no longer."""
        for guard in self._unclaimed():
            heartbeat = guard.heartbeat
            if heartbeat is not None and not heartbeat.ended and not heartbeat.lost:
                lose_lease(self._io, heartbeat, Stop(StopReason.CLIENT_CLOSED, "the client was closed"))

    def end_background(self) -> None:
        """Commit the estimate of each live guard whose response a provider makes in the background."""
        for guard in self._unclaimed():
            # The provider continues and bills it, so the estimate is charged: the true cost will never be known here.
            if guard.is_background:
                with contextlib.suppress(CyclesError):  # a thread has ended it in the meantime
                    guard.claim("close")
                    self.dropped(guard)
                    end_at_estimate(self._io, guard)

    def end_all(self, of_pools: list[GuardState]) -> None:
        """End every live guard in the background, and those of pools: commit its known spend, or release it."""
        for guard in [*self._unclaimed(), *of_pools]:
            with contextlib.suppress(CyclesError):  # a thread has ended it in the meantime
                guard.claim("exit")
                self.dropped(guard)
                end_later(self._io, guard, Dropped(EXITED))

    def end_all_here(self, timeout_s: float) -> None:
        """End live guards of a closed client in this thread; those for which no time is left are noted."""
        ends_at_s = time.monotonic() + timeout_s
        for guard in self._unclaimed():
            if time.monotonic() < ends_at_s:
                self.end_here(guard, EXITED, ends_at_s)
            else:
                self.dropped(guard)

    def end_here(self, guard: GuardState, what: str, ends_at_s: float) -> None:
        """End a guard of a closed client in this thread, by requests until a time. `what` begins the report."""
        self.dropped(guard)
        run(end_block(self._until(ends_at_s), guard, Dropped(what)))

    def dropped(self, guard: GuardState) -> None:
        """Note a guard that no caller has ended and that the background ends. The garbage collector may call this."""
        # The name is made now: the guard may be freed before the report at the exit.
        named = f"{guard.name} ({guard.known or guard.estimate})"
        self._ended.append((guard.reservation_id, named, ref(guard)))

    def left(self, unfinished: set[str]) -> list[str]:
        """Return the names and amounts of those whose settlement or release is unfinished."""
        return [
            named
            for reservation_id, named, reference in list(self._ended)
            if reservation_id in unfinished
            or ((guard := reference()) is not None and (guard.state == "pending" or not guard.finalized))
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
