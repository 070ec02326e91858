"""Write known spend ahead: each guard's first spend before `spend` returns, later ones at most once a second.

The bounds of requests whose cost is unknown are written ahead too, each before its request is sent to the provider. If
the process is killed, the next one charges them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final

from cycles._core.amounts import Amount
from cycles._core.settlement.record import Record, RecordError, encode
from cycles._drivers.io.threads import BlockingIo
from cycles._drivers.work.scheduler import WorkerPool
from cycles._flows.commit import ahead_record
from cycles._flows.guard_state import GuardState
from cycles._journal.files.spend import LARGE, Slot, SpendLog
from cycles._journal.records import Records

INTERVAL_S: Final = 1.0  # `kill -9` loses at most this much


class Entry:
    """What is written ahead for one guard.

    Args:
        log: The slots. Its lock protects the change to another slot.
    """

    __slots__ = ("_commit", "_ended", "_log", "_slot", "_written_s")

    def __init__(self, log: SpendLog) -> None:
        self._log = log
        self._slot: Slot | None = None
        self._commit: bytes | None = None  # takes the place of each state of the spend
        self._ended = False
        self._written_s = 0.0

    @property
    def is_left(self) -> bool:
        """Whether a slot has what is written ahead."""
        return self._slot is not None and not self._ended

    def is_due(self, now_s: float) -> bool:
        """Return whether the entry may be written again."""
        return now_s - self._written_s >= INTERVAL_S

    def write(self, record: bytes, now_s: float) -> bool:
        """Replace what is written ahead; return False if the record is too large for every slot.

        Raises:
            OSError: a new file is needed and cannot be made.
        """
        # Before the write: if it fails or is slow, the next spend waits for its second, too.
        self._written_s = now_s
        with self._log.lock:
            is_written = self._commit is not None or self._write(record)
            if self._commit is not None:  # also if a signal handler has written it in the meantime
                self._write(self._commit)
        return is_written

    def replace(self, record: Record) -> None:
        """Write the record of the commit, which the journal does not take. What does not fit leaves the spend."""
        with contextlib.suppress(RecordError, OSError):
            self._commit = encode(record)  # first: a write that is in progress comes before it
            with self._log.lock:
                self._write(self._commit)

    def _write(self, record: bytes) -> bool:
        slot = self._slot
        if slot is not None and (slot.write(record) or slot.ended):
            return True
        larger = self._log.open_slot(len(record))
        if larger is None:
            return False
        larger.write(record)
        if self._slot is not slot:  # a signal handler has written a later record in the meantime
            larger.end()
            return True
        self._slot = larger
        if slot is not None:
            slot.end()
        if self._ended:  # in another thread, which has ended the earlier slot
            larger.end()
        return True

    def end(self) -> None:
        """Delete what is written ahead: the journal has the record, or nothing is left to settle."""
        self._ended = True
        if self._slot is not None:
            self._slot.end()


class WriteAhead:
    """Writes the known spend of the guards of one client.

    Args:
        records: Has the slots; none without a journal, or if this system has no file locks. Then nothing is written.
        io: Gives the time and the address of the server.
        pool: Runs the writes that were postponed.
        report: Called once with each problem.
    """

    def __init__(self, records: Records, io: BlockingIo, pool: WorkerPool, report: Callable[[str], None]) -> None:
        self._log = records.spend_log()
        self._io = io
        self._pool = pool
        self._report = report
        self._is_off = not records.journaled
        self._too_large = False
        self._waiting: dict[int, GuardState] = {}
        self._lock = threading.RLock()  # a signal handler may spend, too

    def spent(self, guard: GuardState) -> None:
        """Note that the known spend of a guard has grown."""
        entry, now_s = guard.ahead, time.monotonic()
        if isinstance(entry, Entry) and not entry.is_due(now_s):
            if id(guard) not in self._waiting:
                self._write_later(guard, now_s)
            return
        self._write(guard, now_s)

    def sent(self, guard: GuardState, bound: int) -> None:
        """Write the bound of a request ahead that is about to be sent."""
        with self._lock:
            guard.sent += bound
        self._write(guard, time.monotonic())

    def ended(self, guard: GuardState, bound: int) -> None:
        """Note that a request has ended whose bound was written ahead; the next write leaves the bound out."""
        with self._lock:
            guard.sent -= bound

    def counted(self, guard: GuardState) -> None:
        """Note that the usage of a guard has grown, whose callable `actual` says what it costs.

        The callable runs in this thread, which added the usage. If it raises, nothing is written ahead.
        """
        actual = guard.request.actual
        # What the caller has reported is more certain than what a callable computes.
        if guard.finalized or guard.known is not None or not callable(actual):
            return
        try:
            amount = actual(guard.usage)
            guard.check_unit(amount)
        except Exception:  # the caller's own code; the end of the block calls it again, and reports a failure
            return
        guard.counted = amount
        self.spent(guard)

    def close(self) -> None:
        """Close the log. Entries that have not ended stay for the next process."""
        if self._log is not None:
            self._log.close()

    def _write(self, guard: GuardState, now_s: float) -> None:
        known, sent = _spend_of(guard), guard.sent
        if (known is None and not sent and guard.ahead is None) or guard.sends_nothing or self._is_off:
            return
        if guard.settler is not None and guard.settler.spent(guard, sent + (0 if known is None else known.amount)):
            return
        if self._log is None:
            self._fail("this system has no file locks")
            return
        # Made outside of the lock; of two threads the first one wins, and both write to its entry.
        made = Entry(self._log)
        with self._lock:
            if guard.ahead is None:
                guard.ahead = made
        entry = guard.ahead
        # A kill must not lose what the background has not settled yet, if its chunk is settled first.
        if isinstance(entry, Entry) and (not guard.finalized or guard.is_ended_later):
            try:
                amount = Amount(guard.estimate.unit, sent + (0 if known is None else known.amount))
                record = encode(ahead_record(self._io, guard, amount, sent=sent > 0))
                if not entry.write(record, now_s):
                    self._note_too_large(guard, len(record))
            except RecordError:
                return  # the commit omits what JSON cannot express
            except OSError as error:
                self._fail(str(error))
        # An end at the same time ends the entry: it was in the guard before it was looked at whether that has ended.
        if not guard.finalized and _spend_of(guard) is not known:  # a signal handler has spent, too
            self.spent(guard)

    def _fail(self, why: str) -> None:
        self._is_off = True
        self._report(f"spend is not written ahead ({why}); `kill -9` loses what is not committed")

    def _note_too_large(self, guard: GuardState, length: int) -> None:
        if not self._too_large:
            self._too_large = True
            self._report(
                f"the spend of {guard.name} is not written ahead: its record has {length} bytes, more than "
                f"{LARGE.half_bytes}; `kill -9` loses it until it is committed"
            )

    def _write_later(self, guard: GuardState, now_s: float) -> None:
        with self._lock:
            is_first = not self._waiting
            self._waiting[id(guard)] = guard
        if is_first:
            self._pool.scheduler.at(now_s + INTERVAL_S, self._write_waiting, self._pool)
        if self._pool.scheduler.short_of_threads:
            self._write_waiting()  # it may be long until a thread does it

    def _write_waiting(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for guard in list(waiting.values()):
            if not guard.finalized:
                self._write(guard, time.monotonic())


def _spend_of(guard: GuardState) -> Amount | None:
    return guard.counted if (known := guard.known) is None else known  # a reported 0 is known
