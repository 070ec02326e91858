"""Known spend that is written ahead: records of live guards in memory-mapped slots, so that `kill -9` keeps them.

One file per client and process, `spend-<unique>.log` in the partition of the journal, locked as long as its process
lives. Writing a slot is a copy into mapped memory: no descriptor and no file call per guard. Records that are too large
for its slots have their own files, with larger slots. The next process that gets the lock moves the entries into the
journal. Without file locks (Windows) there is no log.
"""

# Strings, not Paths, as in the other files of this package.
# ruff: noqa: PTH108

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from cycles._core.records import Record, RecordError, decode
from cycles._core.settlement import actual_of
from cycles._journal.bounded import CALLS
from cycles._journal.file_calls import make_private_folder, names_in
from cycles._journal.file_locks import fcntl as _fcntl
from cycles._journal.forks import forked_since, latest_fork

PREFIX: Final = "spend-"
SUFFIX: Final = ".log"
_LENGTH_BYTES: Final = 2
_ATTEMPTS: Final = 5  # to make a file while this process does not fork
_EMPTY, _FIRST, _SECOND = 0, 1, 2  # the flag of a slot: which half is valid


class Layout(NamedTuple):
    """How a file is divided.

    Attributes:
        slots: The number of its slots; the next file is made when all are in use.
        half_bytes: The bytes of one record and its length.
    """

    slots: int
    half_bytes: int

    @property
    def file_bytes(self) -> int:
        """The size of a file, by which the next process recognizes its layout."""
        return self.slots + 2 * self.slots * self.half_bytes

    def holds(self, length: int) -> bool:
        """Return whether a record of this length fits into a slot."""
        return length <= self.half_bytes - _LENGTH_BYTES

    def start(self, index: int, half: int) -> int:
        """Return where a half of a slot begins."""
        return self.slots + (2 * index + half - 1) * self.half_bytes


SMALL: Final = Layout(256, 1_024)
LARGE: Final = Layout(32, 16_384)
_LAYOUTS: Final = (SMALL, LARGE)


class SpendLog:
    """The slots of one process. Every method may be called from any thread.

    A slot has two halves and a flag. A new state is copied into the half that is not valid, then the flag is changed:
    a process that dies during the copy leaves the earlier state.

    Args:
        folder: Returns the partition of the journal, with a separator at its end.
        sync: Whether the folder is fsynced when it is made.
    """

    def __init__(self, folder: Callable[[], str], *, sync: bool = False) -> None:
        self._folder = folder
        self._sync = sync
        self._files: list[_SlotFile] = []
        self._free: dict[Layout, list[tuple[_SlotFile, int]]] = {layout: [] for layout in _LAYOUTS}
        # A signal handler may close the client while its own thread makes a slot: then the slot has no file, and the
        # next write makes another one.
        self._lock = threading.RLock()
        self._closed = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=partial(_close_in_child, weakref.ref(self)))

    @staticmethod
    def is_supported() -> bool:
        """Return whether this system has file locks."""
        return _fcntl is not None

    def open_slot(self, length: int = 0) -> Slot | None:
        """Return an unused slot for records of this length and shorter ones; None if the length is too large.

        Raises:
            OSError: a new file is needed and cannot be made.
        """
        layout = next((layout for layout in _LAYOUTS if layout.holds(length)), None)
        if layout is None:
            return None
        with self._lock:
            unused = self._free[layout]
            try:
                file, index = unused.pop()
            except IndexError:
                file, index = self._make_file(layout), 0
                unused += [(file, other) for other in range(1, layout.slots)]
        return Slot(self, file, index)

    def _make_file(self, layout: Layout) -> _SlotFile:
        make = partial(_SlotFile.make, layout=layout, sync=self._sync)
        for _ in range(_ATTEMPTS - 1):
            fork = latest_fork()
            file = CALLS.call(self._folder(), make, discard=_SlotFile.remove)
            self._files.append(file)
            if not forked_since(fork):
                return file
            self._files.remove(file)
            file.remove()
        file = CALLS.call(self._folder(), make, discard=_SlotFile.remove)
        self._files.append(file)
        return file

    def close(self) -> None:
        """Remove the files that have no entry.

        The others stay open and locked until their last entry ends: a guard that is still in use may be committed.
        """
        with self._lock:
            self._closed = True
            empty = [file for file in self._files if file.is_empty()]
            self._files = [file for file in self._files if file not in empty]
            for unused in self._free.values():
                unused.clear()
        for file in empty:
            file.remove()

    def _put_back(self, file: _SlotFile, index: int) -> None:
        with self._lock:
            if file not in self._files:
                return
            if not (self._closed and file.is_empty()):
                self._free[file.layout].append((file, index))
                return
            self._files = [each for each in self._files if each is not file]
        file.remove()


class Slot:
    """The entry of one guard."""

    __slots__ = ("_file", "_index", "_lock", "_log", "ended")

    def __init__(self, log: SpendLog, file: _SlotFile, index: int) -> None:
        self._log = log
        self._file = file
        self._index = index
        self._lock = threading.Lock()
        self.ended: bool = False

    def write(self, record: bytes) -> bool:
        """Replace the entry; return False if the record does not fit or the entry has ended."""
        with self._lock:
            written = not self.ended and self._file.write(self._index, record)
        return written  # noqa: RET504 - a return out of `with` ends the block at another instruction

    def end(self) -> None:
        """Delete the entry. A later `write` changes nothing."""
        with self._lock:
            if self.ended:
                return
            self.ended = True
            self._file.clear(self._index)
        self._log._put_back(self._file, self._index)


class _SlotFile:
    """One mapped file. Its flags come first, then the slots."""

    def __init__(self, path: str, descriptor: int, layout: Layout) -> None:
        self.path = path
        self.layout = layout
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, layout.file_bytes)

    @classmethod
    def make(cls, folder: str, layout: Layout, *, sync: bool) -> _SlotFile:
        make_private_folder(folder, sync=sync)
        path = f"{folder}{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        temporary = path + ".new"
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
            # Zeros, not a hole: a later write into the map must not fail because the disk is full.
            if os.write(descriptor, bytes(layout.file_bytes)) < layout.file_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            os.rename(temporary, path)  # noqa: PTH104
            return cls(path, descriptor, layout)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def write(self, index: int, record: bytes) -> bool:
        if not self.layout.holds(len(record)) or self._map.closed:
            return False
        try:
            half = _SECOND if self._map[index] == _FIRST else _FIRST
            start = self.layout.start(index, half)
            self._map[start : start + _LENGTH_BYTES + len(record)] = len(record).to_bytes(_LENGTH_BYTES, "big") + record
            self._map[index] = half
        except ValueError:  # a signal handler has closed the client, and with it this file, which had no entry
            return False
        return True

    def clear(self, index: int) -> None:
        if not self._map.closed:
            self._map[index] = _EMPTY

    def entries(self) -> Iterator[bytes]:
        for index in range(self.layout.slots):
            half = self._map[index]
            if half in (_FIRST, _SECOND):
                start = self.layout.start(index, half) + _LENGTH_BYTES
                length = int.from_bytes(self._map[start - _LENGTH_BYTES : start], "big")
                yield self._map[start : start + min(length, self.layout.half_bytes - _LENGTH_BYTES)]

    def is_empty(self) -> bool:
        return not any(self._map[: self.layout.slots])

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            CALLS.call(self.path, os.unlink)
        self.release()

    def release(self) -> None:
        if self._map.closed:
            return
        self._map.close()
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def _close_in_child(reference: Callable[[], SpendLog | None]) -> None:
    """Close the parent's files in a forked child: the lock would outlive the parent there."""
    log = reference()
    if log is not None:
        log._lock = threading.RLock()  # another thread of the parent may have held it
        files, log._files, log._free = log._files, [], {layout: [] for layout in _LAYOUTS}
        for file in files:
            file.release()


@contextlib.contextmanager
def left_entries(folder: str) -> Iterator[list[bytes]]:
    """Yield the entries that dead processes left, then remove their files.

    The files stay if the block raises. Files of live processes are skipped.
    """
    if _fcntl is None:
        yield []
        return
    files = list(_lockable(folder))
    try:
        yield [entry for file in files for entry in file.entries()]
        for file in files:
            file.remove()
    finally:
        for file in files:
            file.release()


def latest_records(entries: list[bytes]) -> list[Record]:
    """Return the record of each reservation: the largest amount if a process died while it changed to another slot."""
    latest: dict[str, Record] = {}
    for entry in entries:
        with contextlib.suppress(RecordError):  # written by a later version in another form
            record = decode(entry)
            earlier = latest.get(record.reservation_id)
            if earlier is None or actual_of(record) > actual_of(earlier):
                latest[record.reservation_id] = record
    return list(latest.values())


def _lockable(folder: str) -> Iterator[_SlotFile]:
    try:
        names = [name for name in CALLS.call(folder, names_in) if name.startswith(PREFIX) and name.endswith(SUFFIX)]
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError, ValueError):  # a live process, a file that is no log, or one that hangs
            yield CALLS.call(folder + name, _lock, discard=_SlotFile.release)


def _lock(path: str) -> _SlotFile:
    """Lock and map the file of a dead process.

    Raises:
        OSError, ValueError: its process lives, or it is no log.
    """
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0))
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        status = os.fstat(descriptor)
        if os.stat(path).st_ino != status.st_ino:  # noqa: PTH116
            raise OSError(errno.ENOENT, "another process has removed it", path)
        layout = next((layout for layout in _LAYOUTS if layout.file_bytes == status.st_size), None)
        if layout is None:
            raise ValueError(f"{path} has no size of a log")
        return _SlotFile(path, descriptor, layout)
    except (OSError, ValueError):
        os.close(descriptor)
        raise
