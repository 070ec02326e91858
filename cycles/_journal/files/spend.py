"""Known spend that is written ahead: records of live guards in memory-mapped slots, so that `kill -9` keeps them.

One `LockedFile` per client and process, `spend-<unique>.log` in the partition of the journal. Writing a slot is a copy
into mapped memory: no descriptor and no file call per guard. Records that are too large for its slots have their own
files, with larger slots. The next process that gets the lock moves the entries into the journal. Without file locks
(Windows) there is no log.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from cycles._core.pool.chunk_record import chunk_of, log_name
from cycles._core.settlement.record import Record, RecordError, decode
from cycles._journal.files.bounded import CALLS
from cycles._journal.files.locked_file import LockedFile, after_fork, left, make_in

PREFIX: Final = "spend-"
SUFFIX: Final = ".log"
_LENGTH_BYTES: Final = 2
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

    def entries(self, content: bytes | mmap.mmap) -> Iterator[bytes]:
        """Yield the records in the slots in use."""
        for index in range(self.slots):
            half = content[index]
            if half in (_FIRST, _SECOND):
                start = self.start(index, half) + _LENGTH_BYTES
                length = int.from_bytes(content[start - _LENGTH_BYTES : start], "big")
                yield content[start : start + min(length, self.half_bytes - _LENGTH_BYTES)]


SMALL: Final = Layout(256, 1_024)
LARGE: Final = Layout(32, 16_384)
_LAYOUTS: Final = (SMALL, LARGE)


class SpendLog:
    """The slots of one process. Every method may be called from any thread.

    A slot has two halves and a flag. A new state is copied into the half that is not valid, then the flag is changed:
    a process that dies during the copy leaves the earlier state.

    Args:
        folder: Returns the partition of the journal, with a separator at its end.
        sync: Whether a new file, and its folder, are fsynced when they are made.
    """

    def __init__(self, folder: Callable[[], str], *, sync: bool) -> None:
        self._folder = folder
        self._sync = sync
        self._files: list[LockedFile] = []
        self._free: dict[Layout, list[tuple[LockedFile, int]]] = {layout: [] for layout in _LAYOUTS}
        # A signal handler may close the client while its own thread makes a slot: then the slot has no file, and the
        # next write makes another one.
        self.lock: threading.RLock = threading.RLock()
        self._closed = False
        after_fork(self._forked)

    def open_slot(self, length: int = 0) -> Slot | None:
        """Return an unused slot for records of this length and shorter ones; None if the length is too large.

        Raises:
            OSError: a new file is needed and cannot be made.
        """
        layout = next((layout for layout in _LAYOUTS if layout.holds(length)), None)
        if layout is None:
            return None
        with self.lock:
            unused = self._free[layout]
            try:
                file, index = unused.pop()
            except IndexError:
                file, index = self._make_file(layout), 0
                unused += [(file, other) for other in range(1, layout.slots)]
        return Slot(self, file, layout, index)

    def _make_file(self, layout: Layout) -> LockedFile:
        name = f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        file = make_in(self._folder(), name, bytes(layout.file_bytes), sync=self._sync)
        self._files.append(file)
        return file

    def close(self) -> None:
        """Remove the files that have no entry.

        The others stay open and locked until their last entry ends: a guard that is still in use may be committed.
        """
        with self.lock:
            self._closed = True
            empty = [file for file in self._files if _is_empty(file)]
            self._files = [file for file in self._files if file not in empty]
            for unused in self._free.values():
                unused.clear()
        for file in empty:
            file.remove()

    def _put_back(self, file: LockedFile, layout: Layout, index: int) -> None:
        with self.lock:
            if file not in self._files:  # a forked child, or `close` has removed it
                return
            if not (self._closed and _is_empty(file)):
                self._free[layout].append((file, index))
                return
            self._files.remove(file)
        file.remove()

    def _forked(self) -> None:
        """Start again in a forked child, in which the files of the parent are closed."""
        self.lock = threading.RLock()  # another thread of the parent may have held it
        self._files, self._free = [], {layout: [] for layout in _LAYOUTS}


class Slot:
    """The entry of one guard."""

    __slots__ = ("_file", "_index", "_layout", "_lock", "_log", "_memory", "ended")

    def __init__(self, log: SpendLog, file: LockedFile, layout: Layout, index: int) -> None:
        self._log = log
        self._file = file
        self._layout = layout
        self._index = index
        self._memory = file.map()
        self._lock = threading.RLock()  # a signal handler may end the guard in the middle of `write`
        self.ended: bool = False

    def write(self, record: bytes) -> bool:
        """Replace the entry; return False if the record does not fit or the entry has ended."""
        memory, index, length = self._memory, self._index, _LENGTH_BYTES + len(record)
        if not self._layout.holds(len(record)):
            return False
        written, entry = False, len(record).to_bytes(_LENGTH_BYTES, "big") + record
        first, second = self._layout.start(index, _FIRST), self._layout.start(index, _SECOND)
        with self._lock, contextlib.suppress(ValueError):  # another thread closes the client, and with it the file
            # No call from here on, so a signal handler comes before or after all of it: if it ends this entry, another
            # guard may have the slot. The half that is not valid comes first, then the flag, which is one byte: a kill
            # in between keeps the earlier state.
            if not self.ended and not memory.closed:
                half, start = (_SECOND, second) if memory[index] == _FIRST else (_FIRST, first)
                memory[start : start + length] = entry
                memory[index] = half
                written = True
        return written

    def end(self) -> None:
        """Delete the entry. A later `write` changes nothing."""
        with self._lock:
            if self.ended:
                return
            self.ended = True
            if not self._memory.closed:
                self._memory[self._index] = _EMPTY
        self._log._put_back(self._file, self._layout, self._index)


@contextlib.contextmanager
def left_entries(folder: str) -> Iterator[list[bytes]]:
    """Yield the entries that dead processes left, then remove their files.

    The files stay if the block raises. Files of live processes are skipped, and files of another size.
    """
    with contextlib.ExitStack() as locked:
        files = []
        for file in left(folder, PREFIX):
            locked.callback(file.close)
            if _layout_of(file.map()) is not None:
                files.append(file)
        yield [entry for file in files for entry in read_entries(file.map())]
        for file in files:
            file.remove()


def recover_spend(folder: str, has: Callable[[str], bool], save: Callable[[Record], bool]) -> Iterator[Record]:
    """Save the records of what dead processes wrote ahead, yield each one, then remove the files.

    Args:
        folder: The partition of the journal, with a separator at its end.
        has: Returns whether there is a record of this reservation already.
        save: Saves a record, and returns whether that was possible.

    Raises:
        OSError: a record cannot be saved; the files stay.
    """
    with left_entries(folder) as entries:
        for record in latest_records(entries):
            if has(record.reservation_id):
                continue
            chunk_id = chunk_of(record)
            # Another process may be settling that chunk: it has to find this entry.
            if chunk_id is not None and CALLS.call(folder + log_name(chunk_id), os.path.lexists):
                raise OSError(errno.EBUSY, "the log of its chunk is there; the next start settles both")
            if not save(record):
                raise OSError(errno.EIO, "its entries cannot be saved as records")
            yield record


def _layout_of(content: bytes | mmap.mmap) -> Layout | None:
    return next((layout for layout in _LAYOUTS if layout.file_bytes == len(content)), None)


def _is_empty(file: LockedFile) -> bool:
    return not read_entries(file.map())


def read_entries(content: bytes | mmap.mmap) -> list[bytes]:
    """Return the entries in the content of a file; none if it has another layout."""
    layout = _layout_of(content)
    return [] if layout is None else [*layout.entries(content)]


def latest_records(entries: list[bytes]) -> list[Record]:
    """Return the record of each reservation: the largest amount if a process died while it changed to another slot."""
    latest: dict[str, Record] = {}
    for entry in entries:
        with contextlib.suppress(RecordError):  # written by a later version in another form
            record = decode(entry)
            earlier = latest.get(record.reservation_id)
            # A guard that needs a larger slot writes there before it ends the smaller one: both may be found.
            if earlier is None or record.actual > earlier.actual:
                latest[record.reservation_id] = record
    return list(latest.values())
