"""What one client owns in one process: its connections, its journal, its keeper, its loops. All of it made when needed.

A forked child gets a runtime of its own: no lock, socket or thread of the parent is touched there.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from functools import cached_property
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cycles._config import Config
from cycles._core.records import Record, file_name
from cycles._core.settlement import FlushReport
from cycles._drivers.background import WORKERS, Background
from cycles._drivers.blocking import BlockingIo
from cycles._drivers.reporting import Reporter
from cycles._drivers.scheduler import Scheduler
from cycles._flows.heartbeat_state import Heartbeat
from cycles._http.exchange import Endpoint
from cycles._http.factory import Async, Blocking, asynchronous, blocking
from cycles._journal.journal import Journal, JournalIssue, default_root
from cycles._wire.wire import Wire

if TYPE_CHECKING:
    import asyncio

    import httpx

    from cycles._drivers.journal_writer import JournalWriter
    from cycles._drivers.tasks import TaskIo

HEARTBEAT_WORKERS: Final = 32  # extends in flight at once: one slow server answer delays no other lease
HEARTBEAT_CONNECTIONS: Final = 32
LATE_MS: Final = 250.0  # later than any healthy scheduler; far below what a lease has in reserve
LATE_AGAIN_S: Final = 60.0  # one warning says it; ten thousand guards need not


class Runtime:
    """See the module."""

    def __init__(
        self,
        config: Config,
        reporter: Reporter,
        http_client: httpx.Client | None,
        async_http_client: httpx.AsyncClient | None,
    ) -> None:
        self.base_url, api_key = config.endpoint()
        self.config = config
        self.reporter = reporter
        self.pid = os.getpid()
        self.wire = Wire(api_key)
        self.endpoint = Endpoint(self.base_url)
        self.scheduler = Scheduler(urlsplit(self.base_url).netloc)
        self.beats = self.scheduler.worker_pool("beats", HEARTBEAT_WORKERS)
        self.background = self.scheduler.worker_pool("background", WORKERS)
        self.journal = self._open_journal(api_key) if config.journal else None
        self.closed = False
        self._http_client = http_client
        self._async_http_client = async_http_client
        self._lock = threading.Lock()
        self._blocking: dict[bool, Blocking] = {}
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}
        self._in_hand: set[str] = set()
        self._late_told = -LATE_AGAIN_S
        self.recovery = Background(self)
        self.recovery.start()
        self._at_exit = _flush_when_the_interpreter_ends(self)

    @cached_property
    def blocking(self) -> BlockingIo:
        """The verbs for threads."""
        return BlockingIo(self)

    @cached_property
    def journal_writer(self) -> JournalWriter:
        """The thread on which event loops have their file work done."""
        from cycles._drivers.journal_writer import JournalWriter

        return JournalWriter(self.save, self.delete)

    def tasks(self) -> TaskIo:
        """The verbs for tasks of the running loop."""
        import asyncio  # late, everywhere here: scripts without an event loop start a tenth faster without it

        return self._loop(asyncio.get_running_loop()).io

    def connections(self, *, beats: bool) -> Blocking:
        """What threads send through; heartbeats have their own, so that no call makes them wait."""
        beats = beats and self._http_client is None
        try:
            return self._blocking[beats]
        except KeyError:
            with self._lock:
                if beats not in self._blocking:
                    self._blocking[beats] = blocking(
                        self.endpoint,
                        connect_timeout_s=self.config.usable_connect_timeout,
                        max_connections=HEARTBEAT_CONNECTIONS if beats else self.config.max_connections,
                        client=self._http_client,
                    )
                return self._blocking[beats]

    def async_connections(self, loop: asyncio.AbstractEventLoop, *, beats: bool) -> Async:
        """The same for the tasks of one loop."""
        connections = self._loop(loop).connections
        beats = beats and self._async_http_client is None
        if beats not in connections:
            connections[beats] = asynchronous(
                self.endpoint,
                connect_timeout_s=self.config.usable_connect_timeout,
                max_connections=HEARTBEAT_CONNECTIONS if beats else self.config.max_connections,
                client=self._async_http_client,
            )
        return connections[beats]

    def save(self, record: Record) -> bool:
        """Write a record down; blocks on the file system."""
        self._in_hand.add(record.reservation_id)
        return self.journal is not None and self.journal.save(record)

    def delete(self, record: Record) -> None:
        """Remove a record; blocks on the file system."""
        if self.journal is not None:
            self.journal.delete(record)
        self._in_hand.discard(record.reservation_id)

    def files_in_hand(self) -> set[str]:
        """The names of the records that this process is settling right now."""
        return {file_name(reservation_id) for reservation_id in list(self._in_hand)}

    def adopt(self, heartbeat: Heartbeat) -> None:
        """The keeper keeps this lease from now on: its guard has ended, its settlement has not."""
        if not heartbeat.ended and not heartbeat.lost:
            heartbeat.adopted = True
            self.blocking.schedule_heartbeat(heartbeat)

    def wall_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def note_delayed_heartbeat(self, heartbeat: Heartbeat, late_ms: float, *, blocked_loop: bool) -> None:
        """Warn, now and then, where beats run late."""
        now = time.monotonic()
        if late_ms < LATE_MS or now - self._late_told < LATE_AGAIN_S:
            return
        self._late_told = now
        if self.reporter.is_enabled_for(logging.WARNING):
            from cycles.events import HeartbeatDelayed

            self.reporter.report(
                HeartbeatDelayed(
                    reservation_id=heartbeat.reservation_id,
                    trace_id=heartbeat.trace_id,
                    late_ms=round(late_ms),
                    blocked_loop=blocked_loop,
                )
            )

    def close(self) -> FlushReport:
        """Flush with a bounded wait, say what is left, end the threads. Idempotent."""
        if self.closed:
            return FlushReport()
        self.closed = True
        atexit.unregister(self._at_exit)
        report = self.recovery.flush(self.config.flush_timeout, until_deadline=False)
        self._tell_leftovers(report)
        self.recovery.close()
        self.scheduler.close(1.0)
        if "scribe" in self.__dict__:
            self.journal_writer.close()
        for connections in self._blocking.values():
            connections.close()
        return report

    async def aclose(self) -> FlushReport:
        """The same from an event loop, which goes on meanwhile."""
        import asyncio

        here = self._loop(asyncio.get_running_loop())
        await here.io.drain(self.config.flush_timeout)
        report = await asyncio.to_thread(self.close)
        for connections in here.connections.values():
            await connections.aclose()
        return report

    def _loop(self, loop: asyncio.AbstractEventLoop) -> _Loop:
        try:
            return self._loops[loop]
        except KeyError:
            with self._lock:
                self._loops = {other: its for other, its in self._loops.items() if not other.is_closed()}
                return self._loops.setdefault(loop, _Loop(self, loop))

    def _open_journal(self, api_key: str) -> Journal:
        config = self.config
        return Journal(
            config.journal_dir or default_root(),
            base_url=self.base_url,
            tenant=config.tenant,
            api_key=api_key,
            durability=config.durability,
            report=self._journal_trouble,
        )

    def _journal_trouble(self, problem: JournalIssue) -> None:
        quarantined = problem.kind == "quarantined"
        self.recovery.quarantined += quarantined
        if self.reporter.is_enabled_for(logging.WARNING):
            from cycles.events import JournalProblem

            self.reporter.report(JournalProblem(detail=problem.message, quarantined=quarantined))

    def _tell_leftovers(self, report: FlushReport) -> None:
        if report.pending and self.reporter.is_enabled_for(logging.WARNING):
            from cycles.events import SettlementsLeftPending

            directory = self.journal.directory if self.journal is not None else None
            self.reporter.report(
                SettlementsLeftPending(settled=report.settled, pending=report.pending, directory=directory)
            )


class _Loop:
    """What belongs to one event loop; let go of once the loop is closed and another comes."""

    def __init__(self, runtime: Runtime, loop: asyncio.AbstractEventLoop) -> None:
        from cycles._drivers.tasks import TaskIo

        self.io = TaskIo(runtime, loop)
        self.connections: dict[bool, Async] = {}


def _flush_when_the_interpreter_ends(runtime: Runtime) -> _AtExit:
    at_exit = _AtExit(runtime)
    atexit.register(at_exit)
    return at_exit


class _AtExit:
    """Closes a runtime that nobody closed, without keeping it alive until then."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = weakref.ref(runtime)

    def __call__(self) -> None:
        runtime = self._runtime()
        if runtime is not None and runtime.pid == os.getpid():
            runtime.close()
