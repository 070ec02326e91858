"""The records of a client in a shared store, and the steps with them: put, settle, renew, move. See `docs/fleets.md`.

`StoreJournal` in `store_journal.py` is made of these steps. They raise `StoreError`, but for those that say otherwise.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, Literal

from attrs import define

from cycles._config import JournalOutage
from cycles._core.records import Record, decode, file_name
from cycles._errors import StoreError
from cycles._journal.journal import Journal, JournalIssue
from cycles._journal.store import JournalStore, Put
from cycles._journal.stores.batch import Combiner
from cycles._journal.stores.health import StoreHealth

RENEW_BATCH: Final = 500
SETTLE_BATCH: Final = 500
SETTLE_DELAY_S: Final = 0.05  # finished records are deleted together, at most this long afterwards


@define
class Held:
    """A record that belongs to this client.

    Attributes:
        record: Its latest form.
        fence: The fence in the store; None until the store has it.
        place: Where that form is.
        stored: The earlier form that the store may have, if the latest one is elsewhere; None if it has none.
    """

    record: bytes
    fence: int | None
    place: Literal["store", "disk", "memory"]
    stored: bytes | None = None


class StoreRecords:
    """What one client holds of the records of one server and principal. Threads may share it.

    Args:
        store: The store of this partition.
        local: The files that are used while the store does not respond.
        claim_ms: How long a record belongs to this client without a renewal.
        timeout_s: Bounds the wait for one operation of the store.
        outage: What happens while the store does not respond.
        report: Called with each problem.
        name: What messages call the store.
        owns_store: Whether to close the store at the end.
        clock: Returns monotonic seconds.
        wall_ms: Returns milliseconds since the epoch.
    """

    def __init__(
        self,
        store: JournalStore,
        local: Journal,
        *,
        claim_ms: int,
        timeout_s: float,
        outage: JournalOutage,
        report: Callable[[JournalIssue], None],
        name: str = "a store",
        owns_store: bool = False,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._store = store
        self._local = local
        self.claim_ms = claim_ms
        self._outage = outage
        self._report = report
        self._owns_store = owns_store
        self.name = name
        self._wall_ms = wall_ms
        self._combiner = Combiner(store, timeout_s)
        self._lock = threading.Lock()
        self._health = StoreHealth(claim_ms=claim_ms, outage=outage, report=report, clock=clock)
        self._held: dict[str, Held] = {}
        self._taken: dict[str, bytes] = {}  # what the store had when this client lost a record to another one
        self._open: set[str] = set()  # records of chunks that are open in this process
        self._finished: list[str] = []
        self._quarantined = 0
        self.has_more = False  # whether the last claim left due records in the store
        self.later: Callable[[float, Callable[[], object]], object] | None = None
        """Calls a function after some seconds, in another thread."""

    def _save_in_store(self, key: str, raw: bytes, fence: int | None, due_ms: int) -> bool:
        with self._lock:
            is_unsure = fence is None and key in self._held  # an earlier put may have arrived without a response
        saved = self._combiner.put([Put(key, raw, 0 if is_unsure else fence, due_ms)])[0]
        (stored,) = self._store.get([key]) if not saved else (None,)
        if not saved and stored is None:  # it never arrived, or a failover lost it
            saved, fence = self._combiner.put([Put(key, raw, None, due_ms)])[0], None
        self._health.succeeded()
        with self._lock:
            before = self._held.get(key)
            if saved:
                self._held[key] = Held(raw, fence or 0, "store")
            else:
                self._held.pop(key, None)
                self._taken[key] = stored.record if stored is not None else raw
        if before is not None and before.place == "disk":  # the store has it now, ours or that of another client
            self._local.delete(decode(raw))
        return saved

    def _save_elsewhere(self, key: str, raw: bytes, fence: int | None, record: Record, put: bytes | None) -> bool:
        """Save a record that the store did not take. `put` is what a put without a response may have stored."""
        saved = self._outage != "memory" and self._local.save(record)
        with self._lock:
            before = self._held.get(key)
            stored = None if before is None else before.record if before.place == "store" else before.stored
            self._held[key] = Held(raw, fence, "disk" if saved else "memory", stored or put)
        return saved

    def _settle_later(self, key: str) -> None:
        with self._lock:
            self._finished.append(key)
            is_first = len(self._finished) == 1
        if is_first and self.later is not None:
            self.later(SETTLE_DELAY_S, self.settle_finished)

    def settle_finished(self) -> None:
        """Delete what is finished from the store; what fails is tried again at the next tick."""
        if self._health.is_open:
            return
        try:
            self._settle_now()
        except StoreError as error:
            self._health.failed(error)

    def _settle_now(self) -> None:
        while True:
            with self._lock:
                keys, self._finished = self._finished[:SETTLE_BATCH], self._finished[SETTLE_BATCH:]
            if not keys:
                return
            try:
                self._store.settle(keys)
            except BaseException:
                with self._lock:
                    self._finished = keys + self._finished
                raise
            self._health.succeeded()

    def _renew(self) -> None:
        with self._lock:
            held = [key for key, each in self._held.items() if each.place == "store"]
        for start in range(0, len(held), RENEW_BATCH):
            missing = self._store.renew(held[start : start + RENEW_BATCH], self.claim_ms)
            self._health.succeeded()
            for key in missing:
                with self._lock:
                    lost = self._held.get(key)
                if lost is not None:  # otherwise it was settled in the meantime
                    self._save_in_store(key, lost.record, None, self.claim_ms)

    def _move_own(self) -> bool:
        """Put what this client saved elsewhere during an outage. False: the store has failed again."""
        with self._lock:
            elsewhere = [key for key, each in self._held.items() if each.place != "store"]
        try:
            for key in elsewhere:
                held = self._held.get(key)  # its latest form: it may have been settled or changed in the meantime
                if held is not None and held.place != "store":
                    self._save_in_store(key, held.record, held.fence, self.claim_ms)
        except StoreError as error:
            self._health.failed(error)
            return False
        return True


def key_of(reservation_id: str) -> str:
    """Return the key of a record: the 64 hex digits of its file name."""
    return file_name(reservation_id)[3:-5]
