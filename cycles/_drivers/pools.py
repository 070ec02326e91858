"""The pools of one client in one process: their threads, timers and logs, and what happens to them at the end.

The log of a chunk is on the local disk. With a shared store, `Checkpoints` also puts the record that the chunk would be
sealed to into the store, at most once in each interval and only if its sum has changed, so that a lost disk costs the
last moments only. A client that claims it commits that sum; see `late_record`.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, cast
from weakref import WeakSet

from cycles._core.pool.chunk_record import ChunkHeader
from cycles._core.settlement.record import Record
from cycles._drivers.io.threads import BlockingIo
from cycles._drivers.reporting import Reporter, logger
from cycles._drivers.work.scheduler import Handle, Scheduler
from cycles._flows.guard_state import GuardState
from cycles._flows.io import run
from cycles._flows.pool.chunks import live_guards, settle_now
from cycles._flows.pool.parts import Log, PoolChunk, PoolIo, PoolOptions
from cycles._flows.pool.pool import PoolState
from cycles._flows.settle import conclude, saved
from cycles._http.first_use import first_use
from cycles._journal.files.locked_file import is_supported
from cycles._journal.records import Records
from cycles._journal.stores.shared import StoreJournal

WORKERS: Final = 8  # chunks that are opened and settled at the same time
IDLE_TICKS: Final = 25  # then the timer of checkpoints ends; the next chunk starts it again
NO_LOCKS: Final = "this system has no file locks: the guards of pools are reserved directly, with two requests each"


class Pools:
    """Makes the pools of one client, and ends them with it.

    Args:
        scheduler: Runs the chunks' requests and timers.
        io: The operations of threads.
        records: Has the folder of the logs.
        reporter: Gets the problems.
        checkpoint_ms: How often the sum of an open chunk is put into a shared store.
        write_ahead: Writes the known spend of a guard ahead.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        io: BlockingIo,
        records: Records,
        reporter: Reporter,
        checkpoint_ms: int,
        write_ahead: Callable[[GuardState], None],
    ) -> None:
        self._scheduler = scheduler
        self._write_ahead = write_ahead
        self._workers = scheduler.worker_pool("pools", WORKERS)
        self._reporter = reporter
        self._files = records.files
        self._reported: set[str] = set()
        self._pools: WeakSet[PoolState] = WeakSet()
        shared = records.shared
        self._checkpoints = None if shared is None else Checkpoints(scheduler, shared, checkpoint_ms, self._pools)
        self._left: list[GuardState] = []  # the leases that were settled when the client closed
        self.io = io

    def make(self, options: PoolOptions) -> PoolState:
        """Return a new pool."""
        open_log = None if self._files is None else self.open_log
        of_pool = self.soon, self.at, open_log, self.report_problem, self._write_ahead, cast(Any, first_use)._is_owned
        pool = PoolState(options, PoolIo(self.io, lambda: self._reporter.trace is not None, *of_pool))
        self._pools.add(pool)
        return pool

    def soon(self, flow: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Run a flow in a thread, outside of the context of any caller: `cycles.limit` does not apply to chunks."""
        return self._scheduler.soon(lambda: contextvars.Context().run(lambda: run(flow())), self._workers)

    def at(self, when_ms: float, job: Callable[[], object]) -> Handle:
        """Call `job` in a thread at this monotonic time."""
        return self._scheduler.at(when_ms / 1000, job, self._workers)

    def open_log(self, header: ChunkHeader) -> Log:
        """Make the log of a chunk.

        Raises:
            OSError: it cannot be made.
        """
        assert self._files is not None
        if self._checkpoints is not None:
            self._checkpoints.start()
        return self._files.chunk_log(header)

    @property
    def has_logs(self) -> bool:
        """Whether chunks can have logs, or need none. Reports once if they cannot."""
        if self._files is not None and not is_supported():
            self.report_problem(NO_LOCKS)
            return False
        return True

    def report_problem(self, detail: str) -> None:
        """Report a problem of the logs once."""
        # Each further chunk would report it again, for as long as the pool is used.
        if detail not in self._reported:
            self._reported.add(detail)
            self._reporter.journal_problem(detail)

    def guards(self) -> list[GuardState]:
        """Return the live guards of all chunks."""
        return [guard for pool in list(self._pools) for guard in live_guards(pool)]

    def close(self, settle: Callable[[Record, GuardState], object]) -> None:
        """Seal every chunk, save its record and pass it to `settle`. Needs no thread."""
        for pool in list(self._pools):
            for sealed, lease in settle_now(pool):
                # Saved here, by the thread that closes: no worker is certain to run again.
                record = run(saved(self.io, sealed, lease))
                self._left.append(lease)
                if isinstance(record, Record):
                    settle(record, lease)
                else:  # another client has all of it, so its log must not stay
                    conclude(self.io, sealed, record, lease)

    def are_settling(self) -> bool:
        """Return whether a thread settles a chunk."""
        return any(pool.settling for pool in list(self._pools))

    def closed(self) -> None:
        """End the traces of the chunks that were settled when the client closed."""
        for lease in self._left:
            lease.end_trace()


class Checkpoints:
    """The checkpoints of the pools of one client.

    Args:
        scheduler: Runs them, in a worker pool of one thread.
        shared: The journal over the store.
        interval_ms: Milliseconds between two puts of a chunk.
        pools: The pools, also those that are made later.
    """

    def __init__(self, scheduler: Scheduler, shared: StoreJournal, interval_ms: int, pools: WeakSet[PoolState]) -> None:
        self._scheduler = scheduler
        self._pool = scheduler.worker_pool("checkpoints", 1)
        self._shared = shared
        self._interval_s = interval_ms / 1000
        self._pools = pools
        self._timer: Handle | None = None
        self._idle = 0
        self._lock = threading.RLock()  # of the two above; a signal handler may open a chunk, too

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
                record = None if chunk.begun or spent == chunk.checkpoint else chunk.record(time.time_ns() // 1_000_000)
            if record is not None and self._shared.checkpoint(record):
                chunk.checkpoint = spent


def _open_chunks(pool: PoolState) -> list[PoolChunk]:
    with pool.lock:
        return [chunk for chunk in pool.book.chunks if chunk.header is not None and not chunk.begun]
