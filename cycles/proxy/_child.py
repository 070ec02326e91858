"""Run the command of ``cycles run``: pass signals to it once, and wait for its end.

The command is in the process group of this process if that group has the terminal; then the terminal signals both, and
only signals that were sent to this process alone are passed. Otherwise the command has its own group.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from cycles.proxy._prompts import has_terminal

NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126
STOP_S: Final = 10.0
"""How long a command that is stopped may take before it is killed."""
LOOK_S: Final = 1.0
"""How often to look whether the command has ended: a thread that blocks no signal may have taken SIGCHLD."""
_PASSED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_RESET: Final = (*_PASSED, signal.SIGPIPE, signal.SIGCHLD)
_FROM_KERNEL: Final = 0x80
"""The code of a signal that the terminal sends; others come from a process."""


class CommandError(Exception):
    """The command cannot be started; `status` is the exit status that a shell would return."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def not_started(name: str, error: OSError) -> CommandError:
    """Return the error of a command that could not be started."""
    if error.errno == errno.ENOENT or not name:
        return CommandError(f"command not found: {name or repr(name)}; check its spelling and PATH", NOT_FOUND)
    return CommandError(f"cannot run {name}: {error.strerror}; check that the file is a program", NOT_EXECUTABLE)


@contextmanager
def blocked_signals() -> Iterator[None]:
    """Block the signals that are passed, in this thread and in those that it starts from now on.

    A thread that was started before would take them: the end of the command would be missed. They stay blocked, unless
    the block raises.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_PASSED, signal.SIGCHLD))
    try:
        yield
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise


class Child:
    """The running command. Signals must be blocked (`blocked_signals`) before any thread starts.

    Args:
        command: The program and its arguments.
        environment: All its variables.

    Raises:
        CommandError: if it is not found or not executable.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        if not command[0]:
            raise CommandError("command not found: ''", NOT_FOUND)
        self._shares_terminal = has_terminal()
        self._lock = threading.Lock()
        self._ended = False
        groups: dict[str, Any] = {} if self._shares_terminal else {"setpgroup": 0}
        try:
            self._pid = os.posix_spawnp(
                command[0], list(command), dict(environment), setsigmask=(), setsigdef=_RESET, **groups
            )
        except OSError as error:
            raise not_started(command[0], error) from None

    def wait(self) -> int:
        """Pass signals until the command ends, and return its exit status: 128 + N after signal N."""
        while True:
            number, from_terminal = _next_signal()
            if number == signal.SIGCHLD:
                status = self._reap()
                if status is not None:
                    return status
            elif not (from_terminal and self._shares_terminal):
                self.send(number)

    def discard(self) -> None:
        """Wait for the end of a process that was not to be started."""
        with self._lock:
            if not self._ended:
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
                self._ended = True

    def _reap(self) -> int | None:
        with self._lock:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid == 0:
                return None
            self._ended = True
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def send(self, number: int) -> None:
        """Send a signal to the command, if it still runs."""
        with self._lock:
            if not self._ended:
                os.kill(self._pid, number)

    def stop(self) -> None:
        """End the command: SIGTERM now, SIGKILL after 10 seconds."""
        self.send(signal.SIGTERM)
        timer = threading.Timer(STOP_S, self.send, (signal.SIGKILL,))
        timer.daemon = True
        timer.start()


def _next_signal() -> tuple[int, bool]:
    """Wait for a signal, or until it is time to look; return its number, and whether the terminal sent it."""
    awaited = (*_PASSED, signal.SIGCHLD)
    if not hasattr(signal, "sigtimedwait"):  # macOS
        number = signal.sigwait(awaited)
        return number, number in (signal.SIGINT, signal.SIGQUIT)
    found = signal.sigtimedwait(awaited, LOOK_S)
    if found is None:
        return signal.SIGCHLD, False
    return found.si_signo, found.si_code == _FROM_KERNEL
