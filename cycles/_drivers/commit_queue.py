"""Settlements whose callers do not wait for them: the queues of `commit(wait=False)` and the threads that send them.

Each queue belongs to the threads of the client or to one event loop. `Background.flush` takes over what is queued.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from attrs import frozen

from cycles._core.records import Record, file_name
from cycles._drivers.reporting import logger
from cycles._flows.guard_state import GuardState

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

SLOW_S: Final = 0.05  # when the oldest settlement has waited this long, one more worker helps
BUSY_S: Final = 0.2  # how often to look whether one has waited too long while others are sent
WORKERS: Final = 4  # of one queue: as many as the background has for retries
IDLE_S: Final = 15.0  # then a thread ends; the next settlement starts another


@frozen(eq=False)
class Queued:
    """One settlement in a queue.

    Attributes:
        record: The saved record.
        guard: Its guard, or None.
        since_s: The monotonic time at which it was queued.
        loop: The event loop whose tasks send it; None: threads do.
    """

    record: Record
    guard: GuardState | None
    since_s: float
    loop: AbstractEventLoop | None


class CommitQueues:
    """All queues of one client, with one limit and one lock.

    Args:
        limit: The most settlements that are queued or being sent.
    """

    def __init__(self, limit: int) -> None:
        self.lock: Final = threading.RLock()
        self.settled: int = 0
        self._limit = limit
        self._waiting: dict[object, deque[Queued]] = {}
        self._sending: dict[int, Queued] = {}
        self._count = 0
        self._closed = False

    def put(
        self, owner: object, record: Record, guard: GuardState | None, loop: AbstractEventLoop | None = None
    ) -> Queued | None:
        """Queue a settlement; return None if the queues are full or closed."""
        with self.lock:
            if self._closed or self._count >= self._limit:
                return None
            self._count += 1
            queued = Queued(record, guard, time.monotonic(), loop)
            self._waiting.setdefault(owner, deque()).append(queued)
            return queued

    def take_back(self, owner: object, queued: Queued) -> bool:
        """Remove a settlement that no worker can send; return False if it was taken in the meantime."""
        with self.lock:
            waiting = self._waiting.get(owner)
            if not waiting or queued not in waiting:
                return False
            waiting.remove(queued)
            self._count -= 1
            return True

    def take(self, owner: object) -> Queued | None:
        """Return the oldest settlement of a queue, to be sent now."""
        with self.lock:
            waiting = self._waiting.get(owner)
            if not waiting:
                return None
            queued = waiting.popleft()
            self._sending[id(queued)] = queued
            return queued

    def done(self, queued: Queued, *, settled: bool) -> None:
        """Note that a settlement was sent: it is settled, rejected, or pending in the background."""
        with self.lock:
            if self._sending.pop(id(queued), None) is not None:
                self._count -= 1
                self.settled += settled

    def take_all(self, owner: object | None = None) -> list[Queued]:
        """Remove and return what is queued, of one owner or of all; what is being sent is not part of it."""
        with self.lock:
            owners = list(self._waiting) if owner is None else [owner]
            taken = [queued for each in owners for queued in self._waiting.pop(each, ())]
            self._count -= len(taken)
            return taken

    def is_being_sent(self, queued: Queued) -> bool:
        """Return whether its worker has it: it is neither done nor taken over."""
        return id(queued) in self._sending

    def take_stopped(self) -> list[Queued]:
        """Remove and return what is being sent on event loops that do not run, and may never run again."""
        with self.lock:
            taken = [each for each in self._sending.values() if each.loop is not None and not each.loop.is_running()]
            for queued in taken:
                del self._sending[id(queued)]
            self._count -= len(taken)
            return taken

    def close(self) -> None:
        """Queue nothing more."""
        self._closed = True

    def workers_wanted(self, owner: object, workers: int) -> bool:
        """Return whether one more worker should send what is queued."""
        with self.lock:
            waiting = self._waiting.get(owner)
            if not waiting or workers >= WORKERS:
                return False
            return workers == 0 or time.monotonic() - waiting[0].since_s > SLOW_S

    def worker_possible(self, owner: object, workers: int) -> bool:
        """Return whether one more worker should send what is queued if it waits longer."""
        return bool(self._waiting.get(owner)) and workers < WORKERS

    def records(self) -> list[Record]:
        """Return the records that are queued or being sent."""
        with self.lock:
            queued = [each for waiting in self._waiting.values() for each in waiting]
            return [each.record for each in (*self._sending.values(), *queued)]

    def record(self, key: str) -> Record | None:
        """Return the record with this file name, or None."""
        return next((record for record in self.records() if file_name(record.reservation_id) == key), None)

    def is_sending(self) -> bool:
        """Return whether a request is in progress that the calling thread may wait for."""
        if not self._sending:
            return False
        asyncio = sys.modules.get("asyncio")
        in_loop = asyncio is not None and asyncio._get_running_loop() is not None
        with self.lock:
            return any(not (in_loop and queued.loop) for queued in self._sending.values())


class CommitThreads:
    """The threads that send the settlements of sync code, back to back.

    Args:
        queues: Holds them.
        settle: Sends one and concludes it; returns whether the amount is settled. Blocks.
        on_done: Called after each.
        later: Calls a function in another thread, some seconds later.
    """

    def __init__(
        self,
        queues: CommitQueues,
        settle: Callable[[Queued], bool],
        on_done: Callable[[], object],
        later: Callable[[float, Callable[[], object]], object],
    ) -> None:
        self._queues = queues
        self._settle = settle
        self._on_done = on_done
        self._later = later
        self._is_watched = False  # a call of `_check` is scheduled
        self._sent = self._sent_before = 0  # how many were sent, now and at the last `_check`
        self._more = threading.Condition(queues.lock)
        self._workers = 0
        self._idle = 0
        self._closed = False

    def add(self, record: Record, guard: GuardState | None) -> bool:
        """Queue a settlement; return False if the caller has to send it."""
        with self._more:
            queued = self._queues.put(self, record, guard)
            if queued is None:
                return False
            if self._idle:
                self._more.notify()
                return True
        if self._start_if_wanted() or self._workers:
            self._watch()
            return True
        return not self._queues.take_back(self, queued)  # no thread can be started

    def close(self) -> None:
        """End the threads after what they are sending."""
        with self._more:
            self._closed = True
            self._more.notify_all()

    def _start_if_wanted(self) -> bool:
        with self._more:
            if self._closed or self._idle or not self._queues.workers_wanted(self, self._workers):
                return False
            self._workers += 1
            name = f"cycles-commits-{self._workers}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:  # the interpreter ends, or the process is at its limit of threads
            with self._more:
                self._workers -= 1
            return False
        return True

    def _watch(self) -> None:
        """Look for the need of one more worker later: those that run may wait for one response.

        As long as they send, the look comes later, because it wakes two threads.
        """
        if self._is_watched or not self._queues.worker_possible(self, self._workers):
            return  # found without the lock: `_check` looks again
        with self._more:
            if self._is_watched or self._closed:
                return
            self._is_watched = True
        self._later(SLOW_S if self._sent == self._sent_before else BUSY_S, self._check)

    def _check(self) -> None:
        self._is_watched, self._sent_before = False, self._sent
        self._start_if_wanted()
        self._watch()

    def _work(self) -> None:
        while (queued := self._next()) is not None:
            self._start_if_wanted()
            self._watch()
            settled = False
            try:
                settled = self._settle(queued)
            except Exception:  # a bug: the record stays in the journal, and the next settlement is sent
                logger.exception(
                    "a queued settlement failed because of a bug; it stays in the journal; report this traceback"
                )
            finally:
                self._queues.done(queued, settled=settled)
            self._sent += 1
            self._on_done()
            del queued

    def _next(self) -> Queued | None:
        with self._more:
            while (queued := self._queues.take(self)) is None:
                self._idle += 1
                woken = not self._closed and self._more.wait(IDLE_S)
                self._idle -= 1
                if not woken:
                    queued = self._queues.take(self)
                    break
            if queued is None:
                self._workers -= 1
            return queued
