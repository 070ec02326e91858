"""Threads for blocking attempts, so that a caller can leave at its deadline while the attempt waits for anything.

A thread runs one attempt at a time and is used again, the last one first. It belongs to the attempt until that returns:
one whose caller has left sends, reads and ends as it would have done, and its result is dropped.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

from cycles._http.exchange import ExchangeError, FailureKind

T = TypeVar("T")

_MOST_LEFT: Final = 64  # attempts that were left and have not returned; then the client itself hangs


class _Job(Generic[T]):
    """One attempt, in the context of its caller."""

    def __init__(self, attempt: Callable[[], T]) -> None:
        self._attempt = attempt
        self._context = contextvars.copy_context()  # event hooks may read the caller's trace
        self.finished = threading.Lock()
        self.finished.acquire()
        self._results: list[T] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the attempt; what it raises is raised in the caller."""
        try:
            self._results.append(self._context.run(self._attempt))
        except BaseException as error:
            self._error = error

    def result(self) -> T:
        """Return what the attempt returned, or raise what it raised."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._results[0]
        finally:
            del error  # its traceback has this frame


_Inbox = SimpleQueue["_Job[Any] | None"]


class AttemptThreads:
    """Runs attempts in threads that are used again, the last one first: as many as there are attempts at a time."""

    def __init__(self) -> None:
        self._idle: list[_Inbox] = []
        self._left: list[_Job[Any]] = []
        self._closed = False

    def run(self, attempt: Callable[[], T], wait_s: Callable[[], float]) -> T:
        """Return what `attempt` returns.

        Args:
            attempt: Runs in another thread, in a copy of the caller's context.
            wait_s: Returns for how many seconds the attempt may continue; it is called again after them.

        Raises:
            TimeoutError: `wait_s` returned no more time. The attempt continues without its caller.
        """
        if len(self._left) >= _MOST_LEFT:
            self._left = [job for job in self._left if job.finished.locked()]
            if len(self._left) >= _MOST_LEFT:
                message = (
                    f"{_MOST_LEFT} earlier requests still hang in the HTTP client, so nothing was sent"
                    "; look for what they wait for: its transport, event hooks or auth"
                )
                raise ExchangeError(FailureKind.QUEUE, message, request_sent=False)
        job: _Job[T] = _Job(attempt)
        if not self._start(job):
            job.run()
            return job.result()
        try:
            while not job.finished.acquire(timeout=max(0.0, left_s := wait_s())):
                if left_s <= 0:
                    raise TimeoutError("the deadline of the attempt has passed")
        except BaseException:  # also an interrupt of the caller
            self._left.append(job)
            raise
        return job.result()

    def _start(self, job: _Job[T]) -> bool:
        """Give the job to a thread; False if none can be started."""
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = SimpleQueue()
            if sys.is_finalizing():
                return False
            try:
                threading.Thread(target=self._work, args=(inbox,), name="cycles-http", daemon=True).start()
            except RuntimeError:
                return False
        inbox.put(job)
        return True

    def _work(self, inbox: _Inbox) -> None:
        while (job := inbox.get()) is not None:
            job.run()
            if not self._closed:
                self._idle.append(inbox)
            job.finished.release()
            del job  # it may be the last reference to the response
            if self._closed:
                return

    def close(self) -> None:
        """End the idle threads, and the others after their attempts."""
        self._closed = True
        while self._idle:
            self._idle.pop().put(None)
