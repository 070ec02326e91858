"""Files that are reused for one record after the other: making and unlinking a file is what a journal costs.

A spare is open and locked as long as its process lives. A record is written into it, then it is renamed into place. At
the end it is renamed back, and only then its first byte is overwritten: a reader of the record's name finds a whole
record or no file. A start takes the spares that it can lock, and puts a whole record in one of them into place.
"""

# Strings, not Paths, as in the other files of this package.
# ruff: noqa: PTH105, PTH108, PTH116

from __future__ import annotations

import contextlib
import errno
import importlib
import itertools
import os
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from cycles._journal.bounded import BoundedCalls
from cycles._journal.forks import forked_since, latest_fork

_fcntl: Any
try:
    _fcntl = importlib.import_module("fcntl")
except ImportError:  # Windows
    _fcntl = None

SUFFIX: Final = ".spare"
MOST: Final = 64  # open files: of records in place, and of spares
_ATTEMPTS: Final = 5
_MODE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL


class _Spare:
    """One open file. `path` is its name while no record is in it."""

    __slots__ = ("descriptor", "inode", "path", "size")

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.inode = os.fstat(descriptor).st_ino
        self.size = 0


class SpareFiles:
    """The reused files of one store in one process. Any thread may call it.

    Args:
        sync: Whether records survive a power loss.
    """

    def __init__(self, *, sync: bool) -> None:
        self._sync = sync
        self._spares: deque[_Spare] = deque()
        self._placed: dict[str, _Spare] = {}  # by the path of the record
        self._open: set[_Spare] = set()  # all of them, also while one is being written
        self._serial = itertools.count()
        self._token = f"{secrets.token_hex(4)}-{os.getpid()}"
        self._closed = False
        self._lock = threading.RLock()  # a signal handler may come in between and use the journal too
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=partial(_close_in_child, weakref.ref(self)))

    def owns(self, name: str) -> bool:
        """Return whether this is the name of a file of this store in this process."""
        return name.startswith(self._token)

    def write(self, folder: str, path: str, content: bytes) -> bool:
        """Write a record and put it into place; return False if the caller has to do so.

        Raises:
            OSError: it could not be done; what was at the path before is unchanged.
        """
        if self._closed or _fcntl is None:
            return False
        try:
            spare = self._spares.pop()
        except IndexError:
            spare = self._make_locked(folder)
        try:
            if len(content) < spare.size:
                os.ftruncate(spare.descriptor, len(content))
            os.lseek(spare.descriptor, 0, os.SEEK_SET)
            spare.size, left = len(content), content
            while left:
                left = left[os.write(spare.descriptor, left) :]
            if self._sync:
                os.fsync(spare.descriptor)
            os.replace(spare.path, path)
        except BaseException:
            self._discard(spare)
            raise
        with self._lock:
            earlier = self._placed.pop(path, None)
            is_kept = len(self._placed) < MOST and not self._closed
            if is_kept:
                self._placed[path] = spare
        if not is_kept:
            self._close(spare)
        if earlier is not None:
            self._close(earlier)
        return True

    def remove(self, path: str) -> bool:
        """Take a record out of place; return False if the caller has to remove it."""
        spare = self._placed.pop(path, None)
        if spare is None:
            return False
        try:
            os.replace(path, spare.path)
            if os.stat(spare.path).st_ino == spare.inode:
                os.lseek(spare.descriptor, 0, os.SEEK_SET)
                os.write(spare.descriptor, b"\0")
                if self._keep(spare):
                    return True
        except FileNotFoundError:  # another process has settled it
            self._close(spare)
            return True
        except OSError:
            self._close(spare)
            return False
        self._discard(spare)
        return True

    def close(self) -> None:
        """Remove the spares, and close the files of records. Those stay in place for the next process."""
        with self._lock:
            self._closed = True
            spares, self._spares = self._spares, deque()
            placed, self._placed = self._placed, {}
        for spare in spares:
            self._discard(spare)
        for spare in placed.values():
            self._close(spare)

    def _keep(self, spare: _Spare) -> bool:
        with self._lock:
            if len(self._spares) >= MOST:
                return False
            self._spares.append(spare)
            if not self._closed:
                return True
            try:
                self._spares.remove(spare)
            except ValueError:  # `close` came in between and has removed it
                return True
            return False

    def _make_locked(self, folder: str) -> _Spare:
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(BlockingIOError):  # until it is locked, a start may take it for a left one
                fork = latest_fork()
                spare = self._make(folder)
                if not forked_since(fork):
                    return spare
                self._discard(spare)
        return self._make(folder)

    def _make(self, folder: str) -> _Spare:
        path = f"{folder}{self._token}-{next(self._serial)}{SUFFIX}"
        descriptor = os.open(path, _MODE, 0o600)
        try:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
            spare = _Spare(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._open.add(spare)
        return spare

    def _discard(self, spare: _Spare) -> None:
        try:
            os.unlink(spare.path)
        except FileNotFoundError:
            pass  # it has the name of a record
        except OSError:  # it stays: a start must not take what is in it for a record that was saved
            with contextlib.suppress(OSError):
                os.ftruncate(spare.descriptor, 0)
        with contextlib.suppress(OSError):
            self._close(spare)

    def _close(self, spare: _Spare) -> None:
        self._open.discard(spare)  # before another file gets its descriptor, which a forked child must not close
        os.close(spare.descriptor)

    def _release_all(self) -> None:
        for spare in list(self._open):
            with contextlib.suppress(OSError):
                self._close(spare)
        self._spares.clear()
        self._placed.clear()


def _close_in_child(reference: weakref.ref[SpareFiles]) -> None:
    """Close the parent's files in a forked child: their locks would outlive the parent there."""
    files = reference()
    if files is not None:
        files._lock = threading.RLock()  # another thread of the parent may have held it
        files._release_all()


@contextlib.contextmanager
def locked_spare(path: str, calls: BoundedCalls) -> Iterator[bool]:
    """Lock a spare that this process did not make.

    Yields False if its process lives, if it hangs, or if it was removed.
    """
    try:
        descriptor = calls.call(path, _lock, discard=os.close)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        os.close(descriptor)


def _lock(path: str) -> int:
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0))
    try:
        if _fcntl is not None:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        if os.stat(path).st_ino != os.fstat(descriptor).st_ino:
            raise OSError(errno.ENOENT, "another process has removed it", path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
