"""Put the sums of open chunks of pools into a shared store, so that a lost disk costs the last moments only.

The log of a chunk is on the local disk. With a store, the record that the chunk would be sealed to is put there too, at
most once in each interval and only if its sum has changed. A client that claims it commits that sum; see `late_record`.
"""

from __future__ import annotations

import threading
import time
from typing import Final
from weakref import WeakSet

from cycles._core.pool.chunk_record import chunk_record
from cycles._core.settlement.record import Record
from cycles._drivers.reporting import logger
from cycles._drivers.work.scheduler import Handle, Scheduler
from cycles._flows.pool.parts import PoolChunk
from cycles._flows.pool.pool import PoolState
from cycles._journal.stores.shared import StoreJournal

IDLE_TICKS: Final = 25  # then the timer ends; the next chunk starts it again


class Checkpoints:
    """The checkpoints of the pools of one client.

    Args:
        scheduler: Runs them, in a worker pool of one thread.
        shared: The journal over the store.
        interval_ms: Milliseconds between two puts of a chunk.
    """

    def __init__(self, scheduler: Scheduler, shared: StoreJournal, interval_ms: int) -> None:
        self._scheduler = scheduler
        self._pool = scheduler.worker_pool("checkpoints", 1)
        self._shared = shared
        self._interval_s = interval_ms / 1000
        self._pools: WeakSet[PoolState] = WeakSet()
        self._timer: Handle | None = None
        self._idle = 0
        self._lock = threading.Lock()  # of the two above

    def watch(self, pool: PoolState) -> None:
        """Put the sums of this pool's chunks into the store from now on."""
        self._pools.add(pool)

    def start(self) -> None:
        """Note that a chunk was opened."""
        with self._lock:
            self._idle = 0
            if self._timer is None:
                self._schedule()

    def _schedule(self) -> None:
        self._timer = self._scheduler.at(time.monotonic() + self._interval_s, self._tick, self._pool)

    def _tick(self) -> None:
        chunks = [(pool, chunk) for pool in list(self._pools) for chunk in _open_chunks(pool)]
        for pool, chunk in chunks:
            try:
                self._save_sum(pool, chunk)
            except Exception:  # a bug, which must not end the checkpoints of the other chunks
                logger.exception(
                    "the journal's store did not take a chunk of a pool, because of a bug; report this traceback"
                )
        with self._lock:
            self._idle = 0 if chunks else self._idle + 1
            if self._idle < IDLE_TICKS:
                self._schedule()
            else:
                self._timer = None

    def _save_sum(self, pool: PoolState, chunk: PoolChunk) -> None:
        with chunk.put_lock:  # one put of a chunk at a time, and none after that of its end
            with pool.lock:
                spent = chunk.spent
                record = None if chunk.begun or spent == chunk.checkpoint else _record(chunk, spent)
            if record is not None and self._shared.checkpoint(record):
                chunk.checkpoint = spent


def _open_chunks(pool: PoolState) -> list[PoolChunk]:
    with pool.lock:
        chunks = pool.book.chunks
        return [chunk for chunk in chunks if chunk.header is not None and chunk.sums.totals.calls and not chunk.begun]


def _record(chunk: PoolChunk, spent: int) -> Record:
    assert chunk.header is not None
    totals = chunk.sums.totals
    metrics = chunk.audit.metrics(totals)
    metadata = chunk.audit.metadata(totals.calls, chunk.header.metadata)
    return chunk_record(chunk.header, spent, metrics, metadata, time.time_ns() // 1_000_000)
