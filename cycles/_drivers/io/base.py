"""The operations of `Io` that need neither a thread nor a task: both drivers inherit them."""

from __future__ import annotations

import time
from functools import partial
from typing import Final, TypeVar

from cycles._core.settlement.record import Record
from cycles._core.settlement.settlement import SettlementOutcome
from cycles._drivers.channel import Channel
from cycles._drivers.jitter import jitter
from cycles._drivers.reporting import Reporter
from cycles._drivers.work.queue import WorkQueue
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.io import BackgroundWork, Clock, Settings
from cycles._journal.records import Records

T = TypeVar("T")


_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", None)  # Linux


def _now_ms() -> float:
    return time.monotonic() * 1000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _boot_ms() -> float | None:
    return None if _BOOTTIME is None else time.clock_gettime(_BOOTTIME) * 1000


CLOCK: Final = Clock(_now_ms, _wall_ms, _boot_ms, jitter)


class BaseIo:
    """The part of `Io` that is the same for threads and for event loops.

    Args:
        channel: Sends calls.
        records: Saves and deletes records; blocks on the file system.
        reporter: Gets the events.
        queue: Continues work without its caller.
    """

    clock = CLOCK

    def __init__(self, channel: Channel, records: Records, reporter: Reporter, queue: WorkQueue) -> None:
        self.parts: Final = (channel, records, reporter, queue)  # of the client, for the operations of each loop
        self._channel = channel
        self._records = records
        self._reporter = reporter
        self._queue = queue
        self.settings: Final = Settings(channel.base_url, channel.timeout_s, channel.max_retries, records.rejected_hint)
        self.is_enabled_for: Final = reporter.is_enabled_for
        self.report: Final = reporter.report
        self.check: Final = channel.wire.check
        self.begin_trace: Final = reporter.begin_trace
        self.unsettled: Final = queue.unsettled

    def stop(self, heartbeat: Heartbeat) -> None:
        """Send no more extends."""
        heartbeat.end()

    def finish_later(self, record: Record, result: SettlementOutcome | None) -> None:
        """End a record in a thread of the client; its caller was interrupted while it was ended."""
        self._queue.end_guard(partial(self._records.finish, record, result))

    def hand_over(self, work: BackgroundWork, *, now: bool) -> bool:
        """Continue some work in a thread of the client."""
        return self._queue.hand_over(work, now=now)
