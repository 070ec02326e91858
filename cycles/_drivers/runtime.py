"""Build the parts of one client in one process, and close them in the opposite order.

A forked child gets a new runtime: it touches no lock, socket or thread of its parent.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from attrs import evolve

from cycles._config import Config
from cycles._core.settlement.settlement import FlushReport
from cycles._drivers.channel import Channel
from cycles._drivers.io.threads import BlockingIo
from cycles._drivers.live_guards import LiveGuards
from cycles._drivers.reporting import Reporter, logger
from cycles._drivers.work.queue import WorkQueue
from cycles._drivers.work.scheduler import Handle, Scheduler
from cycles._drivers.write_ahead import WriteAhead
from cycles._flows.block_end import DROPPED, end_later
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Settle
from cycles._http.first_use import first_use, loading
from cycles._http.running_loop import in_event_loop, running_loop
from cycles._journal.open import open_journal
from cycles._journal.records import Records

if TYPE_CHECKING:
    import asyncio

    import httpx

    from cycles._drivers.io.tasks import TaskIo
    from cycles._drivers.journal.writer import JournalWriter
    from cycles._drivers.pools import Pools

T = TypeVar("T")

TIMER_WORKERS: Final = 4
HEARTBEAT_WORKERS: Final = 32  # extends in flight at the same time: one slow response delays no other lease
UNREAD: Final = (
    "the client was closed before its journal was read to the end, so an earlier process may have left more "
    "settlements than were reported; the next client settles them"
)
THREADS_END_S: Final = 1.0  # how long `close` waits for jobs that still run


class Runtime:
    """The parts of one client: channel, records, scheduler, background, and the `Io` of threads and of each loop."""

    def __init__(
        self,
        config: Config,
        reporter: Reporter,
        http_client: httpx.Client | None,
        async_http_client: httpx.AsyncClient | None,
    ) -> None:
        self.pid: int = os.getpid()
        self.closed: bool = False
        self._config = config
        self._reporter = reporter
        self._loops: dict[asyncio.AbstractEventLoop, TaskIo] = {}
        self.scheduler: Scheduler = Scheduler(urlsplit(config.endpoint()[0]).netloc)
        heartbeats = self.scheduler.worker_pool("heartbeats", HEARTBEAT_WORKERS)
        claims = self.scheduler.worker_pool("journal", 1)
        # Opened before the queue, which reads at its start what an earlier process left.
        self.records: Records = Records(open_journal(config, reporter.journal_issue, claims.later))
        self.background: WorkQueue = WorkQueue(claims, self.records, config, self._pools_settle)
        responded = self.background.server_responded
        self.channel: Channel = Channel(config, responded, reporter, http_client, async_http_client)
        self.blocking: BlockingIo = BlockingIo(heartbeats, self.channel, self.records, reporter, self.background)
        self._timers = self.scheduler.worker_pool("timers", TIMER_WORKERS)
        self.guards: LiveGuards = LiveGuards(self.blocking, self.blocking.until)
        self.ahead: WriteAhead = WriteAhead(self.records, self.blocking, heartbeats, reporter.journal_problem)
        # By a weak reference: a client that no code uses any more must not live until the interpreter exits.
        self._at_exit = atexit.register(partial(_close_at_exit, weakref.ref(self)))

    def start(self) -> None:
        """Start to settle what an earlier process left, with all parts."""
        self.background.start(self.blocking, self.blocking.until)

    def watch(self, guard: GuardState) -> None:
        """Know a guard that a caller is about to get, and write what its usage costs ahead."""
        self.guards.add(guard)
        if guard.known is not None:  # a token had it
            self.ahead.spent(guard)
        if self.records.journaled and callable(guard.request.actual) and not guard.sends_nothing:
            guard.usage.watch(partial(_counted, self.ahead, weakref.ref(guard)))

    def tasks(self) -> TaskIo:
        """Return the operations for tasks of the running loop."""
        import asyncio  # late, everywhere here: scripts without an event loop start a tenth faster without it

        try:
            return self._loops[asyncio.get_running_loop()]
        except (KeyError, RuntimeError):  # a new loop, or none, for which this raises
            return self._add_loop(running_loop())

    def drop_after_close(self, guard: GuardState) -> None:
        """Settle a guard that was garbage-collected after the close, in another thread and without the background."""
        self.background.ends.add(partial(self.guards.end_here, guard, DROPPED))

    def end_later(self, guard: GuardState, raised: BaseException | None) -> None:
        """Settle a claimed guard in another thread: this may be the garbage collector, with any lock held."""
        self.guards.dropped(guard)
        self.background.ends.add(lambda _: end_later(self.blocking, guard, raised))

    def after(self, seconds: float, job: Callable[[], object]) -> Handle:
        """Call `job` in a thread when time has passed, unless it is cancelled or the client is closed before."""
        return self.scheduler.at(time.monotonic() + seconds, job, self._timers)

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run a blocking call, without blocking the event loop."""
        from cycles._drivers.in_thread import call_in_thread

        return await call_in_thread(call)

    def close(self, flush_timeout_s: float | None = None) -> FlushReport:
        """Flush with a bounded wait, report what is left, end the threads. Idempotent.

        A settlement in progress in another thread is part of the flush, but not in a thread whose event loop waits.
        """
        if self.closed:
            return FlushReport()
        self.closed = True
        self.guards.end_background()
        # Guards that are in use after the close are still settled when the interpreter exits.
        # The hook stays for guards that outlive the client: their amounts are settled at the exit, without threads.
        if not self.guards.in_use:
            atexit.unregister(self._at_exit)
        # Reported as lost now, and not when a request fails: no thread renews these leases any more.
        self.guards.stop_heartbeats()
        if "pools" in self.__dict__:
            self.pools.close(lambda record, lease: self.background.keep(Settle(record, lease)))
        # From here on a caller with `wait=False` sends its amount itself: no worker may be left to do it.
        self.background.decline()
        timeout_s = self._config.flush_timeout if flush_timeout_s is None else flush_timeout_s
        # In an event loop a caller of the same thread cannot continue while this waits for it.
        report = self.background.flush(timeout_s, await_callers=not in_event_loop())
        if "pools" in self.__dict__:
            self.pools.closed()
        left = self.background.pending(0.0) if report.pending else []
        in_progress = self.background.in_other_threads(left)
        report = evolve(report, pending=report.pending + len(in_progress))
        if report.pending:
            self._reporter.left_pending(report, [*left, *in_progress], self.records.directory)
        if not report.scan_finished:
            self._reporter.journal_problem(UNREAD)
        # In this order each part can still use those that are closed after it.
        self.background.close()
        self.scheduler.close(THREADS_END_S)
        if self.records.shared is not None:
            self.records.shared.close()
        if "_journal_writer" in self.__dict__:
            self._journal_writer.close(THREADS_END_S)
        self.ahead.close()
        self.records.close()
        self.channel.close()
        return report

    def close_at_exit(self) -> None:
        """End every guard that is still in use, then close. Needs no thread."""
        if self.closed:  # those that were in use at the close
            self.background.ends.finish(self._config.flush_timeout)
            self.guards.end_all_here(self._config.flush_timeout)
            self._name_left()
            return
        self.guards.end_background()
        # Before the close, whose flush settles what they have spent.
        self.guards.end_all(self.pools.guards() if "pools" in self.__dict__ else [])
        self.close()
        self._name_left()

    def _name_left(self) -> None:
        left = self.guards.left(self.background.unfinished())
        if left:
            logger.warning("the interpreter exits before %d guards could be ended: %s", len(left), ", ".join(left))

    async def aclose(self) -> FlushReport:
        """Close from an event loop, without blocking it."""
        ends_at_s = time.monotonic() + self._config.flush_timeout
        # Tasks of this loop first: a thread cannot finish what they have begun, while this loop runs.
        await self.tasks().drain(self._config.flush_timeout)
        report = await self.in_thread(lambda: self.close(max(0.0, ends_at_s - time.monotonic())))
        await self.channel.aclose(running_loop())
        return report

    def _pools_settle(self) -> bool:
        return "pools" in self.__dict__ and self.pools.are_settling()

    @cached_property
    def pools(self) -> Pools:
        """The pools of this client; made on first use."""
        from cycles._drivers.pools import Pools

        checkpoint_ms, write_ahead = self._config.journal_checkpoint_ms, self.ahead.spent
        own = Pools(self.scheduler, self.blocking, self.records, self._reporter, checkpoint_ms, write_ahead)
        pools: Pools = self.__dict__.setdefault("pools", own)  # a signal handler may have made them in the meantime
        return pools

    @cached_property
    def _journal_writer(self) -> JournalWriter:
        from cycles._drivers.journal.writer import JournalWriter

        put_many = None if self.records.shared is None else self.records.put_many
        return JournalWriter(self.records.put, self.records.finish, put_many)

    def _add_loop(self, loop: asyncio.AbstractEventLoop) -> TaskIo:
        """Make the operations of a loop, and delete those of loops that are closed."""
        with first_use, loading:
            from cycles._drivers.io.tasks import TaskIo
            from cycles._drivers.journal.loop_writer import LoopWriter

            self._loops = {known: its for known, its in self._loops.items() if not known.is_closed()}
            if loop not in self._loops:
                # Without a journal nothing blocks, so the tasks do it themselves.
                writer = LoopWriter(self._journal_writer, loop) if self.records.journaled else self.blocking
                self._loops[loop] = TaskIo(self.blocking, writer, loop)
            return self._loops[loop]


def _counted(ahead: WriteAhead, reference: weakref.ref[GuardState]) -> None:
    guard = reference()
    if guard is not None:
        ahead.counted(guard)


def _close_at_exit(reference: weakref.ref[Runtime]) -> None:
    """Close a runtime that is still open when the interpreter exits, without keeping it alive until then."""
    runtime = reference()
    if runtime is not None and runtime.pid == os.getpid():
        runtime.close_at_exit()
