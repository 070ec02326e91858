"""Call the file system with a deadline: a file on a network or in a user's own file system may hang for ever."""

from __future__ import annotations

import _thread
import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

DEADLINE_S: Final = 2.0  # far above what a slow disk needs, and short enough for a `flush` with its default timeout
MOST_HANGING: Final = (
    8  # calls that hang at the same time; then the whole file system hangs, and others fail immediately
)
RECENT_S: Final = 0.1  # a directory that has responded since then is used without a separate thread


class BoundedCalls:
    """Runs blocking calls about files in threads that are abandoned when the deadline has passed.

    A path whose call hangs fails immediately from then on, until that call has returned.
    """

    def __init__(self) -> None:
        self._hanging: set[tuple[int, str]] = set()  # a forked child has none of these threads, so by process

    def call(self, path: str, function: Callable[[str], T], discard: Callable[[T], object] | None = None) -> T:
        """Return `function(path)`.

        Args:
            path: The file.
            function: What may hang.
            discard: Takes the result of a call that returned too late.

        Raises:
            OSError: what `function` raised, or ETIMEDOUT if it hangs.
        """
        key = os.getpid(), path
        if key in self._hanging or len(self._hanging) >= MOST_HANGING:
            raise _hangs(path)
        job = _Job(path, function, discard, lambda: self._hanging.discard(key))
        if sys.is_finalizing():  # no other thread runs any more
            return function(path)
        try:
            _thread.start_new_thread(job.run, ())
        except RuntimeError:  # no thread can be started
            return function(path)
        if not job.finished.acquire(timeout=DEADLINE_S) and job.abandon(lambda: self._hanging.add(key)):
            raise _hangs(path)
        return job.result()

    def hangs(self, path: str) -> bool:
        """Return whether a call about this path has not returned within its deadline, and may still end."""
        return (os.getpid(), path) in self._hanging


CALLS: Final = BoundedCalls()
"""For files that belong to no store: logs of spend and of pools."""


class Directory:
    """Runs what saves and deletes records in one directory, with the deadline of `calls` unless it has just responded.

    So a quick series of records costs no thread, and a directory that stops to respond stops few callers: those whose
    operation had begun within `RECENT_S` after the last success of another one.
    """

    def __init__(self, calls: BoundedCalls) -> None:
        self._calls = calls
        self._responded_s = 0.0  # on the monotonic clock

    def call(self, folder: str, function: Callable[..., T], *arguments: Any) -> T:
        """Return `function(*arguments)`.

        Raises:
            OSError: what `function` raised, or ETIMEDOUT if the directory hangs.
        """
        if time.monotonic() - self._responded_s < RECENT_S:
            return self._run(function, arguments)
        return self._calls.call(folder, lambda _: self._run(function, arguments))

    def _run(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        try:
            return function(*arguments)
        finally:
            self._responded_s = time.monotonic()


class _Job(Generic[T]):
    """One call. It is finished, or abandoned and then late, but never both."""

    def __init__(
        self,
        path: str,
        function: Callable[[str], T],
        discard: Callable[[T], object] | None,
        late: Callable[[], object],
    ) -> None:
        self._path = path
        self._function = function
        self._discard = discard
        self._late = late
        self._lock = threading.Lock()
        self._abandoned = False
        self._results: list[T] = []
        self._error: BaseException | None = None
        self.finished = threading.Lock()
        self.finished.acquire()

    def run(self) -> None:
        try:
            self._results.append(self._function(self._path))
        except BaseException as error:  # it is raised in the thread that waits
            self._error = error
        with self._lock:
            if not self._abandoned:
                self.finished.release()
                return
        self._late()
        if self._discard is not None and self._results:
            self._discard(self._results[0])

    def abandon(self, note: Callable[[], object]) -> bool:
        """Leave the call alone; False if it has finished in the meantime."""
        with self._lock:
            self._abandoned = self.finished.locked()
            if self._abandoned:
                note()
            return self._abandoned

    def result(self) -> T:
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
            return self._results[0]
        finally:
            del error  # its traceback has this frame, and the callers' with all that they hold


def _hangs(path: str) -> OSError:
    return OSError(errno.ETIMEDOUT, f"its file system has not responded for {DEADLINE_S:g} s", path)
