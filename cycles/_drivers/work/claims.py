"""Renew and claim the records of a shared store, at times that differ from client to client.

A client with files only has no such timer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cycles._drivers.jitter import jitter
from cycles._drivers.reporting import logger
from cycles._drivers.work.scheduler import Handle, WorkerPool
from cycles._journal.journal import Entry
from cycles._journal.records import Records

MOST_WAITING: Final = 64  # claimed records that wait here; the others stay in the store for other workers
CLAIM_AGAIN_BELOW: Final = 16
TICKS_PER_CLAIM: Final = 3


class ClaimTimer:
    """Calls the store's journal three times in each claim period, and sooner while it has more due records.

    Args:
        pool: Runs the ticks, in its one thread.
        records: The records of the client.
        take_over: Gets the claimed records.
    """

    def __init__(self, pool: WorkerPool, records: Records, take_over: Callable[[list[Entry]], object]) -> None:
        self._pool = pool
        self._shared = records.shared
        self._take_over = take_over
        self._timer: Handle | None = None
        self._is_hurrying = False
        self._is_stopped = False
        self.waiting = 0

    def start(self) -> None:
        """Begin, after the first claim of a start."""
        if self._shared is not None and not self._is_stopped:
            self._schedule()

    def stop(self) -> None:
        """Tick no more."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def note_waiting(self, waiting: int) -> None:
        """Note how many tasks are pending. Claim more immediately if few are, and the store has more."""
        self.waiting = waiting
        if self._shared is None or not self._shared.has_more or self._is_hurrying or self._is_stopped:
            return
        if waiting < CLAIM_AGAIN_BELOW:
            self._is_hurrying = True
            self._pool.scheduler.soon(self._claim_more, self._pool)

    def _schedule(self) -> None:
        assert self._shared is not None
        # Three in each period, so that two may fail before a claim ends; jitter keeps a fleet from ticking together.
        period_s = self._shared.claim_ms / 1000 / TICKS_PER_CLAIM
        self._timer = self._pool.later(period_s * (0.8 + 0.3 * jitter()), self._tick)

    def _tick(self) -> None:
        assert self._shared is not None
        if self._is_stopped:
            return
        try:
            self._take_over(self._shared.tick(self._claimable()))
        except Exception:  # a bug, or a store that raises another error than StoreError: the next tick tries again
            logger.exception("the records in the journal's store were not renewed; trying again")
        finally:
            self._schedule()

    def _claim_more(self) -> None:
        assert self._shared is not None
        # Before the claim, so that a further one can be asked for while it runs.
        self._is_hurrying = False
        if not self._is_stopped:
            self._take_over(self._shared.claim(self._claimable()))

    def _claimable(self) -> int:
        return max(0, MOST_WAITING - self.waiting)
