"""Files that one process has locked as long as it lives: record files, the spend log, and the cells of chunks.

A file moves through three states. While it is *made* it has a temporary name. Then it is *owned*: it has its name,
and its process has an exclusive lock on it. When that process ends in any way, the system releases the lock, and the
file is *left*: the start of another client locks it, saves what is in it as a record, and removes it. Only the lock
says whether the owner lives. Process ids repeat (each container has a 1), and times say nothing about a process that
was stopped.

The start of another process may look at a file at any moment. The order of the steps makes each moment safe:

- The file is locked before it is written and renamed. Between `open` and the lock another start may lock the empty file
  and remove it; the owner then gets `BlockingIOError` or `FileNotFoundError`, and makes the file again.
- A start that has locked a file compares its inode with that of the name. If they differ, another start has removed the
  file in the meantime, or its owner has renamed it.
- A file whose name ends with ``.new`` was not complete when its process died, so nothing counts on it. It is removed.

A lock belongs to the open file, not to the process. A forked child has a copy of the descriptor, and with it the lock:
as long as the child lives, the files of its dead parent would look owned. So the child closes every file of its parent,
before anything else runs in it. It can close only what it knows of. A file that another thread was just making is not
known yet, so the parent makes such a file once more, under a new descriptor. The map of a file keeps the lock as well,
because it has a separate descriptor; both are closed together.

A disk that hangs must stop neither a caller nor a start. Each step that may block runs in a thread with a deadline
(`bounded.py`). If the deadline has passed, that thread closes the file when its call returns, so no lock is left.
Writing to the map blocks only if the system has to write the page first; see `docs/recovery.md`.

Without file locks (Windows) there are none of these files: `is_supported` returns False.
"""

# Strings, not Paths, as in the other files of this package.
# ruff: noqa: PTH105, PTH108, PTH116

from __future__ import annotations

import contextlib
import errno
import importlib
import mmap
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final
from weakref import WeakMethod, WeakSet

from cycles._journal.files.bounded import CALLS
from cycles._journal.files.file_calls import discard, fill, make_private_folder, names_in, sync_folder

fcntl: Any
try:
    fcntl = importlib.import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

NEW: Final = ".new"
_ATTEMPTS: Final = 5  # to make a file while this process does not fork
_MODE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL


def is_supported() -> bool:
    """Return whether this system has file locks."""
    return fcntl is not None


class LockedFile:
    """A file that this process has locked. `close` releases the lock, and so does the end of the process."""

    __slots__ = ("__weakref__", "descriptor", "memory", "path")

    def __init__(self, path: str, descriptor: int) -> None:
        self.path: Final = path
        self.descriptor: int = descriptor
        self.memory: mmap.mmap | None = None
        open_files.add(self)

    def map(self) -> mmap.mmap:
        """Return the content as memory. A write to it survives the end of the process; `sync` is for a power loss."""
        if self.memory is None:
            self.memory = mmap.mmap(self.descriptor, 0)
        return self.memory

    def sync(self) -> None:
        """Return when the content is on disk. A file that was closed in the meantime has nothing to sync."""
        try:
            if self.memory is not None:
                self.memory.flush()
            os.fdatasync(self.descriptor)
        except (OSError, ValueError):
            if self.descriptor >= 0:
                raise

    def remove(self) -> None:
        """Remove the file and close it. If it cannot be removed, the next start takes it for one that was left."""
        if self.descriptor >= 0:
            with contextlib.suppress(OSError):
                CALLS.call(self.path, os.unlink)
        self.close()

    def close(self) -> None:
        """Release the lock. The file keeps its name. A second call does nothing."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor < 0:
            return
        open_files.discard(self)  # before another file gets this descriptor, which a forked child must not close
        if self.memory is not None:
            self.memory.close()
        with contextlib.suppress(OSError):
            os.close(descriptor)


open_files: Final[WeakSet[LockedFile]] = WeakSet()


class _Forks:
    """The forks so far. Every change is one atomic step: threads can fork at the same time."""

    def __init__(self) -> None:
        self.latest = object()
        self.forking: Final[set[int]] = set()  # threads
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=lambda: self.forking.add(threading.get_ident()),
                after_in_parent=self._end,
                after_in_child=self._end_in_child,
            )

    def _end(self) -> None:
        self.latest = object()
        self.forking.discard(threading.get_ident())

    def _end_in_child(self) -> None:
        self.forking.clear()
        for file in list(open_files):
            file.close()


_forks: Final = _Forks()


def after_fork(method: Callable[[], object]) -> None:
    """Call a bound method in each forked child, whose files are closed, as long as its object lives."""
    reference = WeakMethod(method)

    def call() -> None:
        alive = reference()
        if alive is not None:
            alive()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


def make_in(folder: str, name: str, content: bytes, *, sync: bool) -> LockedFile:
    """Make a file in the partition of a journal, as `make`, but with a deadline; make the folder if it is missing."""

    def make_there(folder: str) -> LockedFile:
        make_private_folder(folder, sync=sync)
        path = folder + name
        file = make(path, content, temporary=f"{path}.{secrets.token_hex(4)}{NEW}", sync=sync)
        if sync:
            sync_folder(folder)
        return file

    return CALLS.call(folder, make_there, discard=LockedFile.remove)


def make(path: str, content: bytes, *, temporary: str, sync: bool) -> LockedFile:
    """Make a file and lock it.

    Args:
        path: Its name; a file that has the name already is replaced.
        content: What is in it. Zeros are written too: a later write to the map must not fail because the disk is full.
        temporary: Its name until it is complete; no other writer may use it.
        sync: Whether the content survives a power loss.

    Raises:
        OSError: It cannot be made. A file that had the name before is unchanged.
    """
    for _ in range(_ATTEMPTS - 1):
        latest = _forks.latest
        with contextlib.suppress(BlockingIOError, FileNotFoundError):  # a start has found it before it was locked
            file = _make(path, temporary, content, sync=sync)
            if not _forks.forking and _forks.latest is latest:
                return file
            file.close()  # a child may have its descriptor; the next attempt replaces the file
    return _make(path, temporary, content, sync=sync)


def _make(path: str, new: str, content: bytes, *, sync: bool) -> LockedFile:
    file = LockedFile(path, os.open(new, _MODE, 0o600))
    try:
        fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fill(file.descriptor, content, sync=sync)
        os.replace(new, path)  # last: a start that finds the name finds a complete file with its lock
    except BaseException:
        discard(new)
        file.close()
        raise
    return file


def left(folder: str, prefix: str) -> Iterator[LockedFile]:
    """Yield the mapped files of dead processes whose names begin with `prefix`, locked; the caller closes them.

    Removes those that were not complete. Files of live processes are skipped, and files that hang.
    """
    if not is_supported():
        return
    try:
        names = [name for name in CALLS.call(folder, names_in) if name.startswith(prefix)]
    except OSError:
        return
    for name in names:
        # ValueError: an empty file cannot be mapped; its process died before the write.
        with contextlib.suppress(OSError, ValueError):
            yield CALLS.call(folder + name, _take, discard=LockedFile.close)


def _take(path: str) -> LockedFile:
    file = lock(path)
    try:
        if path.endswith(NEW):
            os.unlink(path)
            raise FileNotFoundError(errno.ENOENT, "it was not complete, and is removed", path)
        file.map()
    except BaseException:
        file.close()
        raise
    return file


def lock(path: str) -> LockedFile:
    """Lock the file of a dead process.

    Raises:
        OSError: Its process lives, or it was removed or renamed in the meantime.
    """
    file = LockedFile(path, os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0)))
    try:
        fcntl.flock(file.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino != os.fstat(file.descriptor).st_ino:
            raise OSError(errno.ENOENT, "another process has removed it", path)
    except BaseException:
        file.close()
        raise
    return file
