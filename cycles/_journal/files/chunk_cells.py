"""The logs of a pool: what the guards of each chunk spent, in memory-mapped files that survive `kill -9`.

One `LockedFile` for each chunk, `pool-<sha256 of the reservation id>.log` in the partition of the journal. A later
process that gets the lock settles the sum. `_core/pool/chunk_record.py` and `_core/pool/sums.py` have the format.
Without file locks (Windows) there are no logs.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial

from cycles._core.pool.chunk_record import PREFIX, SUFFIX, ChunkHeader, chunk_of, log_name, recovered_record
from cycles._core.pool.sums import HALF, SECTOR, Totals, encode
from cycles._core.settlement.late import unsaved
from cycles._core.settlement.record import Record, RecordError
from cycles._journal.files import spend
from cycles._journal.files.bounded import CALLS
from cycles._journal.files.file_calls import names_in, read_whole
from cycles._journal.files.locked_file import left, make_in


class ChunkLog:
    """The log of one chunk. The lock of its pool is held for each write.

    Args:
        folder: The partition of the journal, with a separator at its end.
        header: What is known of the chunk.
        sync: Whether the log survives a power loss (durability ``disk``).

    Raises:
        OSError: it cannot be made.
    """

    __slots__ = ("_changes", "_durable", "_file", "_half", "_map", "_start", "_synced", "_syncing", "_writes")

    def __init__(self, folder: str, header: ChunkHeader, *, sync: bool) -> None:
        header_line = header.encode()
        name = log_name(header.reservation_id)
        self._durable = sync
        self._file = make_in(folder, name, header_line + bytes(SECTOR), sync=sync)
        self._map = self._file.map()
        self._start = len(header_line)
        self._changes = 0
        self._half = 0
        self._writes = 0
        self._synced = 0
        self._syncing = threading.RLock()  # a signal handler may commit a guard of the pool in the middle of `sync`

    def write(self, totals: Totals) -> None:
        """Replace the older state of the cell, or the latest one if the same totals are written again."""
        half = encode(totals)
        index = self._half if totals.changes == self._changes else 1 - self._half
        begin = self._start + HALF * index
        try:
            self._map[begin : begin + len(half)] = half
        except ValueError:  # a signal handler has closed the pool, and the journal has the record of the chunk
            return
        self._half = index
        self._changes = totals.changes
        self._writes += 1

    def sync(self) -> None:
        """Return when every earlier write is on disk: one call for all threads that wait."""
        wanted = self._writes
        with self._syncing:
            if self._synced < wanted:
                written = self._writes
                self._file.sync()
                self._synced = max(self._synced, written)

    def remove(self) -> None:
        """Remove the file: the journal has the record of the chunk, or nothing is to be settled."""
        self.sync_if_durable()  # a loss of power may bring the file back: its sum must be the one that was committed
        self._file.remove()

    def sync_if_durable(self) -> None:
        """As `sync`, with a deadline, if the log is to survive a loss of power."""
        if self._durable:
            with contextlib.suppress(OSError):
                CALLS.call(self._file.path, lambda _: self.sync())

    def close(self) -> None:
        """Close the file, which the next start takes for one of a dead process."""
        self._file.close()


def recover_chunks(folder: str, read: Callable[[str], Record | None], save: Callable[[Record], bool]) -> None:
    """Save what the journal does not have of each chunk whose process has died, then remove the log.

    A client that had claimed the record of a chunk may have saved an earlier sum.

    Args:
        folder: The partition of the journal, with a separator at its end.
        read: Returns the record that the journal has of a reservation.
        save: Saves a record, and returns whether that was possible. If not, the log stays.

    Raises:
        OSError: a file cannot be read.
    """
    for log in left(folder, PREFIX):
        with contextlib.closing(log), contextlib.suppress(RecordError):  # written by a later version in another form
            if log.path.endswith(SUFFIX):
                _, record = recovered_record(log.map()[:], time.time_ns() // 1_000_000, partial(_moved_from, folder))
                if record is not None and (found := read(record.reservation_id)) is not None:
                    record = unsaved(record, found)
                if record is None or save(record):
                    # A loss of power may bring the file back after the events that were subtracted are settled.
                    log.map()[-SECTOR:] = bytes(SECTOR)
                    with contextlib.suppress(OSError):
                        log.sync()
                    log.remove()


def _moved_from(folder: str, chunk_id: str) -> int:
    """Return what the entries of spend have of a chunk that is settled without it."""
    entries: list[bytes] = []
    for name in CALLS.call(folder, names_in):
        if name.startswith(spend.PREFIX):
            with contextlib.suppress(FileNotFoundError):  # its process has ended, and another chunk was in it
                entries += spend.read_entries(CALLS.call(folder + name, read_whole))
    return sum(each.actual.amount for each in spend.latest_records(entries) if chunk_of(each) == chunk_id)
