"""Files that are reused for one record after the other: making and unlinking a file is what a journal costs.

A spare is a `LockedFile`. A record is written into it, then it is renamed into place. At the end it is renamed back,
and only then its first byte is overwritten: a reader of the record's name finds a whole record or no file. A start
takes the spares that it can lock, and puts a whole record in one of them into place.
"""

# Strings, not Paths, as in the other files of this package.
# ruff: noqa: PTH105, PTH116

from __future__ import annotations

import itertools
import os
import secrets
import threading
from collections import deque
from typing import Final

from cycles._journal.files import locked_file
from cycles._journal.files.locked_file import LockedFile, after_fork, discard

SUFFIX: Final = ".spare"
MOST: Final = 64  # open files: of records in place, and of spares


class _Spare:
    """One open file. `path` is its name while no record is in it."""

    __slots__ = ("file", "inode", "path", "size")

    def __init__(self, path: str, file: LockedFile, size: int) -> None:
        self.path = path
        self.file = file
        self.inode = os.fstat(file.descriptor).st_ino
        self.size = size


class SpareFiles:
    """The reused files of one store in one process. Any thread may call it.

    Args:
        sync: Whether records survive a power loss.
    """

    def __init__(self, *, sync: bool) -> None:
        self._sync = sync
        self._spares: deque[_Spare] = deque()
        self._placed: dict[str, _Spare] = {}  # by the path of the record
        self._serial = itertools.count()
        self._token = f"{secrets.token_hex(4)}-{os.getpid()}"
        self._closed = False
        self._lock = threading.RLock()  # a signal handler may come in between and use the journal too
        after_fork(self._forked)

    def owns(self, name: str) -> bool:
        """Return whether this is the name of a file of this store in this process."""
        return name.startswith(self._token)

    def write(self, folder: str, path: str, content: bytes) -> bool:
        """Write a record and put it into place; return False if the caller has to do so.

        Raises:
            OSError: it could not be done; what was at the path before is unchanged.
        """
        if self._closed or locked_file.fcntl is None:
            return False
        try:
            spare = self._spares.pop()
        except IndexError:
            temporary = f"{folder}{self._token}-{next(self._serial)}{SUFFIX}"
            file = locked_file.make(path, content, temporary=temporary, sync=self._sync)
            spare = _Spare(temporary, file, len(content))
        else:
            self._rewrite(spare, path, content)
        with self._lock:
            earlier = self._placed.pop(path, None)
            is_kept = len(self._placed) < MOST and not self._closed
            if is_kept:
                self._placed[path] = spare
        if not is_kept:
            spare.file.close()
        if earlier is not None:
            earlier.file.close()
        return True

    def _rewrite(self, spare: _Spare, path: str, content: bytes) -> None:
        descriptor = spare.file.descriptor
        try:
            if len(content) < spare.size:
                os.ftruncate(descriptor, len(content))
            os.lseek(descriptor, 0, os.SEEK_SET)
            spare.size, left = len(content), content
            while left:
                left = left[os.write(descriptor, left) :]
            if self._sync:
                os.fsync(descriptor)
            os.replace(spare.path, path)
        except BaseException:
            _discard(spare)
            raise

    def remove(self, path: str) -> bool:
        """Take a record out of place; return False if the caller has to remove it."""
        spare = self._placed.pop(path, None)
        if spare is None:
            return False
        try:
            os.replace(path, spare.path)
            if os.stat(spare.path).st_ino == spare.inode:
                os.lseek(spare.file.descriptor, 0, os.SEEK_SET)
                os.write(spare.file.descriptor, b"\0")
                if self._keep(spare):
                    return True
        except FileNotFoundError:  # another process has settled it
            spare.file.close()
            return True
        except OSError:
            spare.file.close()
            return False
        _discard(spare)
        return True

    def close(self) -> None:
        """Remove the spares, and close the files of records. Those stay in place for the next process."""
        with self._lock:
            self._closed = True
            spares, self._spares = self._spares, deque()
            placed, self._placed = self._placed, {}
        for spare in spares:
            _discard(spare)
        for spare in placed.values():
            spare.file.close()

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

    def _forked(self) -> None:
        """Start again in a forked child, in which the files of the parent are closed."""
        self._lock = threading.RLock()  # another thread of the parent may have held it
        self._spares.clear()
        self._placed.clear()


def _discard(spare: _Spare) -> None:
    discard(spare.path, spare.file.descriptor)
    spare.file.close()
