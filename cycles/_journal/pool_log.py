"""The slot logs of a pool: what the guards of each chunk spent, in memory-mapped files that survive `kill -9`.

One file for each chunk, `pool-<sha256 of the reservation id>.log` in the partition of the journal, locked as long as
its process lives. A later process that gets the lock settles the sum. `_core/pool_log.py` has the format. Without file
locks (Windows) there are no logs.
"""

# Strings, not Paths, as in the other files of this package.
# ruff: noqa: PTH104, PTH108, PTH116

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from cycles._core.allotment import SLOTS
from cycles._core.pool_log import SLOT_BYTES, WRITTEN, ChunkHeader
from cycles._journal.bounded import CALLS
from cycles._journal.file_calls import make_private_folder, names_in, sync_folder
from cycles._journal.file_locks import fcntl as _fcntl
from cycles._journal.forks import forked_since, latest_fork

PREFIX: Final = "pool-"
SUFFIX: Final = ".log"
NEW: Final = ".new"
_ATTEMPTS: Final = 5


def log_name(reservation_id: str) -> str:
    """Return the only file name of the log of this chunk."""
    return f"{PREFIX}{hashlib.sha256(reservation_id.encode('utf-8', 'surrogatepass')).hexdigest()}{SUFFIX}"


class ChunkLog:
    """The log of one chunk. The lock of its pool is held for each write."""

    __slots__ = ("__weakref__", "_descriptor", "_durable", "_map", "_path", "_start", "_synced", "_syncing", "_writes")

    def __init__(self, path: str, descriptor: int, start: int, *, durable: bool = False) -> None:
        self._durable = durable
        self._path = path
        self._descriptor = descriptor
        self._start = start
        self._map = mmap.mmap(descriptor, 0)
        self._writes = 0
        self._synced = 0
        self._syncing = threading.Lock()

    def write(self, index: int, slot: bytes) -> None:
        """Write a slot. Its first byte comes last: without it, the slot counts as nothing."""
        position = self._start + index * SLOT_BYTES
        memory = self._map
        memory[position + 1 : position + 1 + len(slot)] = slot
        memory[position] = WRITTEN
        self._writes += 1

    def sync(self) -> None:
        """Return when every earlier write is on disk: one call for all threads that wait."""
        wanted = self._writes
        with self._syncing:
            if self._synced >= wanted or self._map.closed:
                return
            written = self._writes
            try:
                self._map.flush()
                os.fdatasync(self._descriptor)
            except (OSError, ValueError):
                if self._map.closed:  # in the meantime: the journal has the record of the chunk
                    return
                raise
            self._synced = written

    def remove(self) -> None:
        """Remove the file: the journal has the record of the chunk, or nothing is to be settled."""
        if not self._map.closed:
            with contextlib.suppress(OSError):
                CALLS.call(self._path, self._unlink)
        self.release()

    def _unlink(self, path: str) -> None:
        if self._durable:  # a loss of power may bring the file back: then its sum must be the one that was committed
            with contextlib.suppress(OSError):
                self.sync()
        os.unlink(path)

    def release(self) -> None:
        """Close the file. The map has its own descriptor, which would keep the lock."""
        if not self._map.closed:
            self._map.close()
            with contextlib.suppress(OSError):
                os.close(self._descriptor)


class ChunkLogs:
    """The logs of one process.

    Args:
        folder: Returns the partition of the journal, with a separator at its end.
        sync: Whether a slot survives a power loss (durability ``disk``).
    """

    def __init__(self, folder: Callable[[], str], *, sync: bool = False) -> None:
        self._folder = folder
        self._sync = sync
        self._logs: weakref.WeakSet[ChunkLog] = weakref.WeakSet()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=partial(_close_in_child, weakref.ref(self)))

    @staticmethod
    def is_supported() -> bool:
        """Return whether this system has file locks."""
        return _fcntl is not None

    def make(self, header: ChunkHeader) -> ChunkLog:
        """Make and lock the log of a chunk.

        Raises:
            OSError: it cannot be made.
        """
        for _ in range(_ATTEMPTS - 1):
            # Until it is locked, a start of another client may take the new file for that of a dead process.
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fork = latest_fork()
                log = self._made(header)
                if not forked_since(fork):
                    return log
                log.remove()
        return self._made(header)

    def _made(self, header: ChunkHeader) -> ChunkLog:
        log = CALLS.call(self._folder(), partial(self._make, header), discard=ChunkLog.remove)
        self._logs.add(log)
        return log

    def _make(self, header: ChunkHeader, folder: str) -> ChunkLog:
        make_private_folder(folder, sync=self._sync)
        path = folder + log_name(header.reservation_id)
        temporary = f"{path}.{secrets.token_hex(4)}{NEW}"
        header_line = header.encode()
        # Zeros, not a hole: a later write into the map must not fail because the disk is full.
        content = header_line + bytes(SLOTS * SLOT_BYTES)
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
            if os.write(descriptor, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            if self._sync:
                os.fsync(descriptor)
            log = ChunkLog(path, descriptor, len(header_line), durable=self._sync)
            os.rename(temporary, path)
            if self._sync:
                sync_folder(folder)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        return log

    def _release_all(self) -> None:
        for log in list(self._logs):
            log.release()


def _close_in_child(reference: Callable[[], ChunkLogs | None]) -> None:
    """Close the parent's files in a forked child: their locks would outlive the parent there."""
    logs = reference()
    if logs is not None:
        logs._release_all()


class LeftLog:
    """The log of a dead process, locked by this one."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def read(self) -> bytes:
        """Return the content."""
        size = os.fstat(self._descriptor).st_size
        return os.pread(self._descriptor, size, 0)

    def remove(self) -> None:
        """Remove the file."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)


@contextlib.contextmanager
def left_logs(folder: str) -> Iterator[list[LeftLog]]:
    """Yield the logs of dead processes, which stay locked in the block. Those of live processes are skipped."""
    found = [] if _fcntl is None else list(_lockable(folder))
    try:
        yield found
    finally:
        for log in found:
            os.close(log._descriptor)


def _lockable(folder: str) -> Iterator[LeftLog]:
    try:
        names = [name for name in CALLS.call(folder, names_in) if name.startswith(PREFIX)]
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):  # a live process, one that has removed it, or a file that hangs
            descriptor = CALLS.call(folder + name, _lock, discard=os.close)
            yield LeftLog(folder + name, descriptor)


def _lock(path: str) -> int:
    """Lock the log of a dead process, and return its descriptor.

    Raises:
        OSError: its process lives, or it is no complete log.
    """
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0))
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        if os.stat(path).st_ino != os.fstat(descriptor).st_ino:
            raise OSError(errno.ENOENT, "another process has removed it", path)
        if path.endswith(NEW):  # its process died before a guard could be admitted
            os.unlink(path)
            raise OSError(errno.ENOENT, "it was not complete", path)
        if not path.endswith(SUFFIX):
            raise OSError(errno.EINVAL, "not a log", path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
