"""The logs of a pool: what the guards of each chunk spent, in memory-mapped files that survive `kill -9`.

One `LockedFile` for each chunk, `pool-<sha256 of the reservation id>.log` in the partition of the journal. A later
process that gets the lock settles the sum. `_core/pool/chunk_record.py` and `_core/pool/sums.py` have the format.
Without file locks (Windows) there are no logs.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable
from typing import Final

from cycles._core.pool.chunk_record import ChunkHeader, recovered_record
from cycles._core.pool.sums import HALF, SECTOR, Totals, encode
from cycles._core.settlement.record import Record, RecordError
from cycles._journal.files.bounded import CALLS
from cycles._journal.files.locked_file import LockedFile, left, make_in

PREFIX: Final = "pool-"
SUFFIX: Final = ".log"


def log_name(reservation_id: str) -> str:
    """Return the only file name of the log of this chunk."""
    return f"{PREFIX}{hashlib.sha256(reservation_id.encode('utf-8', 'surrogatepass')).hexdigest()}{SUFFIX}"


class ChunkLog:
    """The log of one chunk. The lock of its pool is held for each write."""

    __slots__ = ("_changes", "_durable", "_file", "_half", "_map", "_start", "_synced", "_syncing", "_writes")

    def __init__(self, file: LockedFile, start: int, *, durable: bool = False) -> None:
        self._durable = durable
        self._file = file
        self._map = file.map()
        self._start = start
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
        if self._durable:  # a loss of power may bring the file back: then its sum must be the one that was committed
            with contextlib.suppress(OSError):
                CALLS.call(self._file.path, lambda _: self.sync())
        self._file.remove()

    def close(self) -> None:
        """Close the file, which the next start takes for one of a dead process."""
        self._file.close()


def make_log(folder: str, header: ChunkHeader, *, sync: bool = False) -> ChunkLog:
    """Make and lock the log of a chunk.

    Args:
        folder: The partition of the journal, with a separator at its end.
        header: What is known of the chunk.
        sync: Whether the log survives a power loss (durability ``disk``).

    Raises:
        OSError: it cannot be made.
    """
    header_line = header.encode()
    file = make_in(folder, log_name(header.reservation_id), header_line + bytes(SECTOR), sync=sync)
    return ChunkLog(file, len(header_line), durable=sync)


def recover_chunks(folder: str, has: Callable[[str], bool], save: Callable[[Record], bool]) -> None:
    """Save the record of each chunk whose process has died, unless the journal has it; then remove the log.

    Args:
        folder: The partition of the journal, with a separator at its end.
        has: Returns whether the journal has a record of this reservation.
        save: Saves a record, and returns whether that was possible. If not, the log stays.

    Raises:
        OSError: a file cannot be read.
    """
    for log in left(folder, PREFIX):
        with contextlib.closing(log), contextlib.suppress(RecordError):  # written by a later version in another form
            if log.path.endswith(SUFFIX):
                header, record = recovered_record(log.map()[:], time.time_ns() // 1_000_000)
                if record is None or has(header.reservation_id) or save(record):
                    log.remove()
