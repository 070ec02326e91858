"""Whether the journal's store responds: a circuit breaker, and one report for each outage."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from cycles._config import JournalOutage
from cycles._core.settlement.circuit_breaker import CircuitBreaker
from cycles._errors import StoreError
from cycles._journal.journal import JournalIssue
from cycles._journal.stores.store import CheckedStore, JournalStore

_PLACES: Final = {"memory": "in memory", "disk": "in local files", "refuse": "in local files"}


class StoreHealth:
    """What the last operations of a store say about it. Threads may share it.

    Args:
        claim_ms: No record is claimed for this long after an outage: the owners of what became due renew it first.
        outage: What happens in an outage, for the report.
        report: Called once for each outage.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        *,
        claim_ms: int,
        outage: JournalOutage,
        report: Callable[[JournalIssue], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._claim_s = claim_ms / 1000
        self._outage = outage
        self._report = report
        self._clock = clock
        self._lock = threading.RLock()  # a signal handler may use the store, too
        self._breaker = CircuitBreaker()
        self._claim_from_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether no operation should be tried now, because the store has just failed."""
        return self._breaker.has_failed and self._breaker.is_open(self._clock())

    @property
    def may_claim(self) -> bool:
        """Whether due records may be claimed now."""
        return self._clock() >= self._claim_from_s

    def failed(self, error: StoreError) -> None:
        """Note that an operation failed."""
        now_s = self._clock()
        # Reported after the lock is released: what is called may use the client, and so this store.
        with self._lock:
            is_reported = self._breaker.has_failed  # one report for each outage
            self._breaker.failed(now_s)
            self._claim_from_s = now_s + self._claim_s
        if is_reported:
            return
        consequence = ", and nothing is reserved" if self._outage == "refuse" else ""
        message = (
            f"the journal's store does not respond ({error}); records are kept {_PLACES[self._outage]} until it "
            f"does{consequence}; check journal_store (CYCLES_JOURNAL_URL)"
        )
        self._report(JournalIssue("store", message))

    def succeeded(self) -> None:
        """Note that an operation succeeded."""
        if not self._breaker.has_failed:  # the common case costs no lock
            return
        with self._lock:
            self._breaker.succeeded()
            self._claim_from_s = self._clock() + self._claim_s

    def report_problems(self, store: JournalStore) -> None:
        """Report what in the configuration of the store can lose records."""
        if not isinstance(store, CheckedStore):
            return
        try:
            problems = store.problems()
        except StoreError as error:
            self.failed(error)
            return
        for problem in problems:
            self._report(JournalIssue("store", f"the journal's store may lose records: {problem}"))
