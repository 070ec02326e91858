"""Whether the journal's store responds: a circuit breaker, and one report for each outage.

After a failure nothing is tried for a while, so that callers do not wait for a store that is down. The pause is one
second after the first failure. It doubles with each further failure, up to 30 seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from cycles._config import JournalOutage
from cycles._errors import StoreError
from cycles._journal.journal import JournalIssue
from cycles._journal.stores.store import CheckedStore, JournalStore

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
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
        self._pause_s = 0.0  # 0: the last operation succeeded
        self._until_s = 0.0
        self._claim_from_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether no operation should be tried now, because the store has just failed."""
        return self._pause_s > 0 and self._clock() < self._until_s

    @property
    def may_claim(self) -> bool:
        """Whether due records may be claimed now."""
        return self._clock() >= self._claim_from_s

    def failed(self, error: StoreError) -> None:
        """Note that an operation failed."""
        now_s = self._clock()
        # Reported after the lock is released: what is called may use the client, and so this store.
        with self._lock:
            is_reported = self._pause_s > 0  # one report for each outage
            # A failure in a pause says nothing new: its operation was on the way when the pause began.
            if now_s >= self._until_s:
                # Doubled up to the longest pause, so that a long outage costs few attempts.
                self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S) if is_reported else FIRST_PAUSE_S
                self._until_s = now_s + self._pause_s
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
        if not self._pause_s:  # the common case costs no lock
            return
        with self._lock:
            self._pause_s = self._until_s = 0.0
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
