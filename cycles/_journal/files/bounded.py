"""Call the file system with a deadline: a file on a network or in a user's own file system may hang for ever."""

from __future__ import annotations

import _thread
import errno
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeAlias, TypeVar

T = TypeVar("T")
_Outcome: TypeAlias = list[tuple[Any, BaseException | None]]  # one pair until the caller takes it: a value, or an error

DEADLINE_S: Final = 2.0  # far above what a slow disk needs, and short enough for a `flush` with its default timeout
# Calls that hang at the same time: then the whole file system hangs, and others fail immediately.
MOST_HANGING: Final = 8
RECENT_S: Final = 0.1  # a directory that has responded since then is used without a separate thread


class BoundedCalls:
    """Runs blocking calls about files in threads that are abandoned when the deadline has passed.

    A path whose call hangs fails immediately from then on, until that call has returned.
    """

    def __init__(self) -> None:
        self._hanging: set[tuple[int, str]] = set()  # a forked child has none of these threads, so by process
        self._responded_s = 0.0  # when `quick` had the last response, on the monotonic clock

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
        if sys.is_finalizing():  # no other thread runs any more
            return function(path)
        result: Future[_Outcome] = Future()
        try:
            _thread.start_new_thread(_run, (result, path, function, discard, lambda: self._hanging.discard(key)))
        except RuntimeError:  # no thread can be started
            return function(path)
        try:
            outcome = result.result(DEADLINE_S)
        except TimeoutError:
            self._hanging.add(key)  # before the call is abandoned: its thread removes it when it ends late
            if result.cancel():
                raise _hangs(path) from None
            self._hanging.discard(key)
            outcome = result.result()
        value, error = outcome.pop()
        try:
            if error is not None:
                raise error
            return value  # type: ignore[no-any-return]
        finally:
            del error  # its traceback has this frame, and the callers' with all that they hold

    def hangs(self, path: str) -> bool:
        """Return whether a call about this path has not returned within its deadline, and may still end."""
        return (os.getpid(), path) in self._hanging

    def quick(self, folder: str, function: Callable[..., T], *arguments: Any) -> T:
        """Return `function(*arguments)`, which saves or deletes a record in the folder of these calls.

        It has a deadline unless the folder has just responded. So a quick series of records costs no thread, and a
        folder that stops to respond stops few callers: those whose operation had begun within `RECENT_S` after the
        last success of another one.

        Raises:
            OSError: what `function` raised, or ETIMEDOUT if the folder hangs.
        """
        if time.monotonic() - self._responded_s < RECENT_S:
            return self._noted(function, arguments)
        return self.call(folder, lambda _: self._noted(function, arguments))

    def _noted(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        try:
            return function(*arguments)
        finally:
            self._responded_s = time.monotonic()


CALLS: Final = BoundedCalls()
"""For files that belong to no store: logs of spend and of pools."""


def _run(
    result: Future[_Outcome],
    path: str,
    function: Callable[[str], T],
    discard: Callable[[T], object] | None,
    late: Callable[[], object],
) -> None:
    """Carry out one call, in its own thread. It is finished, or abandoned and then late, but never both."""
    # The caller takes the outcome out of the list. An error in the future itself would keep the frames of the caller,
    # and a guard that it has dropped, for as long as this thread lives.
    outcome: _Outcome = []
    try:
        outcome.append((function(path), None))
    except BaseException as error:  # it is raised in the thread that waits
        outcome.append((None, error))
    # Only now does the future count as running: until this moment the caller may abandon it.
    if result.set_running_or_notify_cancel():
        result.set_result(outcome)
        return
    late()
    ((value, failure),) = outcome
    if discard is not None and failure is None:
        discard(value)


def _hangs(path: str) -> OSError:
    return OSError(errno.ETIMEDOUT, f"its file system has not responded for {DEADLINE_S:g} s", path)
