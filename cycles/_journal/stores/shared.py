"""The journal of a client whose records are in a store that a fleet shares. See `docs/fleets.md`.

It holds the records that belong to this client: it renews them, puts them again if the store lost them, and takes over
those of dead owners. While the store does not respond, records are kept in local files, or in memory. No method
raises for a failure of the store.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

from attrs import evolve

from cycles._core.pool_log import guards_of, late_record, sum_of
from cycles._core.put import PutResult
from cycles._core.records import Record, RecordError, decode, encode, file_name
from cycles._errors import StoreError
from cycles._journal.journal import Entry, JournalIssue
from cycles._journal.pool_log import ChunkLogs
from cycles._journal.spend_log import SpendLog
from cycles._journal.store import SETTLED_KEPT_MS, OperatedStore, Put, SettledStore
from cycles._journal.stores.records import RENEW_BATCH, Held, StoreRecords, key_of as key_of

CLAIM_BATCH: Final = 16


class StoreJournal(StoreRecords):
    """The journal over a shared store: the interface of `Journal`, and claims. No method raises `StoreError`."""

    # --- as the journal of files ------------------------------------------------------------------------------------

    rejected_hint = "client.pending(rejected=True) lists it"

    @property
    def directory(self) -> str:
        """Where the local files are."""
        return self._local.directory

    @property
    def quarantined(self) -> int:
        """How many records were quarantined so far."""
        return self._quarantined + self._local.quarantined

    @property
    def refuses(self) -> bool:
        """Whether no reservation may be made while the store does not respond."""
        return self._outage == "refuse"

    def save(self, record: Record) -> bool:
        """Save the record, in place of an earlier state of it. False: not possible, or another client has it."""
        return self._save(record, None)

    def _save(self, record: Record, put: bytes | None) -> bool:
        """Save a record. `put` is what an earlier put without a response may have stored."""
        key = key_of(record.reservation_id)
        self._open.discard(key)
        try:
            raw = encode(record)
        except RecordError:
            return self._local.save(record)  # reports why
        due_ms = max(self.claim_ms, record.wait_ms(self._wall_ms()))
        with self._lock:
            if key in self._taken:
                return False
            held = self._held.get(key)
            fence = None if held is None else held.fence
        if not self._health.is_open:
            try:
                return self._save_in_store(key, raw, fence, due_ms)
            except StoreError as error:
                self._health.failed(error)
                put = raw
        return self._save_elsewhere(key, raw, fence, record, put)

    def keeps_commit(self, record: Record) -> bool:
        """Return whether the store, or a local file, may have the commit of this event: another client sends it."""
        with self._lock:
            held = self._held.get(key_of(record.reservation_id))
        if held is None:
            return False
        stored = held.record if held.place == "store" else held.stored
        with contextlib.suppress(RecordError):
            if stored is not None and decode(stored).mode == "commit":
                return True
        return self._local.keeps_commit(record)

    def save_many(self, records: Sequence[Record]) -> list[bool]:
        """Save records, new ones in one round trip. False for each one as `save` returns it."""
        fresh: dict[str, bytes] = {}
        with self._lock, contextlib.suppress(RecordError):
            for record in records:
                key = key_of(record.reservation_id)
                if key not in self._held and key not in self._taken and not record.not_before_ms:
                    fresh[key] = encode(record)
        if len(fresh) > 1 and not self._health.is_open:
            try:
                saved = self._combiner.put([Put(key, raw, None, self.claim_ms) for key, raw in fresh.items()])
            except StoreError as error:
                self._health.failed(error)
            else:
                self._health.succeeded()
                with self._lock:
                    put = [key for key, done in zip(fresh, saved, strict=True) if done]
                    self._held.update({key: Held(fresh[key], 0, "store") for key in put})
                return [key_of(each.reservation_id) in put or self.save(each) for each in records]
            return [self._save(record, fresh.get(key_of(record.reservation_id))) for record in records]
        return [self.save(record) for record in records]

    def put(self, record: Record) -> PutResult:
        """Save the record, and return whether it may be sent."""
        return self._result(record, saved=self.save(record))

    def put_many(self, records: Sequence[Record]) -> list[PutResult]:
        """Save records, new ones in one round trip."""
        return [self._result(each, saved=saved) for each, saved in zip(records, self.save_many(records), strict=True)]

    def _result(self, record: Record, *, saved: bool) -> PutResult:
        if self.is_taken(record):
            return PutResult.TAKEN
        if record.replaces_commit and self.keeps_commit(record):
            return PutResult.HELD_BACK
        return PutResult.SAVED if saved else PutResult.FAILED

    def checkpoint(self, record: Record) -> bool:
        """Put the record of an open chunk. False: the store does not respond, or another client has it."""
        key = key_of(record.reservation_id)
        held = self._held.get(key)
        self._open.add(key)
        if self._health.is_open or key in self._taken:
            return False
        try:
            raw = encode(record)
        except RecordError:
            return False
        try:
            return self._save_in_store(key, raw, None if held is None else held.fence, self.claim_ms)
        except StoreError as error:
            self._health.failed(error)
            with self._lock:
                self._held.setdefault(key, Held(raw, None, "memory", raw))  # the store may have it
            return False

    def is_taken(self, record: Record) -> bool:
        """Return whether another client has claimed a record of this client: nothing more is sent for it."""
        return key_of(record.reservation_id) in self._taken

    def taken_by_another(self, reservation_id: str) -> Record | None:
        """Return the record of this reservation that another client has, as it was when this client lost it."""
        raw = self._taken.get(key_of(reservation_id))
        with contextlib.suppress(RecordError):
            return None if raw is None else decode(raw)
        return None

    def delete(self, record: Record) -> None:
        """Delete the record of a finished settlement, soon and together with others."""
        key = key_of(record.reservation_id)
        with self._lock:
            held = self._held.pop(key, None)
            self._taken.pop(key, None)
        if held is None or held.place == "disk":
            self._local.delete(record)
        self._settle_later(key)

    def reject(self, record: Record, reason: str) -> None:
        """Keep the record of a rejected amount, with the reason: in the store, or in a local file."""
        key = key_of(record.reservation_id)
        with self._lock:
            held = self._held.pop(key, None)
        if held is not None and held.place == "disk":
            self._local.delete(record)
        try:
            self._store.put([Put(key, encode(record), None, self.claim_ms)])  # it may never have been saved
            self._store.reject(key, reason)
        except (StoreError, RecordError) as error:
            if isinstance(error, StoreError):
                self._health.failed(error)
            self._local.reject(record, reason)
            self._settle_later(key)

    def load(self, entry: Entry) -> Record | None:
        """Return the record of an entry. None: it is deleted, taken, or cannot be settled by this client."""
        key = entry[3:-5]
        with self._lock:
            held = self._held.get(key)
        if held is None:
            return None if key in self._taken else self._load_file(entry)
        try:
            return decode(held.record)
        except RecordError as error:
            self._quarantine(key, error)
            return None

    def _load_file(self, entry: Entry) -> Record | None:
        """Return the record of a local file, which belongs to this client from now on."""
        record = self._local.load(entry)
        if record is not None:
            commit = encode(evolve(record, mode="commit"))  # the store did not respond, and may have it nevertheless
            with self._lock:
                self._held.setdefault(key_of(record.reservation_id), Held(encode(record), None, "disk", commit))
        return record

    @property
    def unread(self) -> bool:
        """Whether the local files could not be read. A store that does not respond is reported as an outage."""
        return self._local.unread

    def pending(self) -> list[Entry]:
        """Return what an earlier process left: local files, moved into the store, and due records, now claimed."""
        self._health.report_problems(self._store)
        files = self._local.pending()
        late = self._move(files)
        return [*files, *late, *self.claim(CLAIM_BATCH)]

    def rejected(self) -> list[tuple[Record, str]]:
        """Return the rejected records, with the reason of each."""
        found = self._local.rejected()
        if isinstance(self._store, OperatedStore):
            try:
                kept = [each for each in self._store.kept() if each.state == "rejected"]
            except StoreError as error:
                self._health.failed(error)
                return found
            for each in kept:
                try:
                    found.append((decode(each.record), each.reason))
                except RecordError:
                    continue
        return found

    def remove_settled(self, now_ms: int) -> None:
        """Delete the rejected records that were settled by hand more than 30 days ago."""
        self._local.remove_settled(now_ms)
        if isinstance(self._store, SettledStore):
            try:
                self._store.remove_settled(now_ms - SETTLED_KEPT_MS)
            except StoreError as error:
                self._health.failed(error)

    def spend_log(self) -> SpendLog:
        """Return the slots in which this process writes known spend ahead, on the local disk."""
        return self._local.spend_log()

    def chunk_logs(self) -> ChunkLogs:
        """Return the slot logs of the chunks of this process, on the local disk."""
        return self._local.chunk_logs()

    def recover_spend(self) -> None:
        """Save the records of the spend that dead processes of this machine wrote ahead."""
        self._local.recover_spend(self._store_has)

    # --- claims -----------------------------------------------------------------------------------------------------

    def tick(self, max_records: int) -> list[Entry]:
        """Renew what this client holds, move what an outage left elsewhere, and claim up to `max_records` more."""
        try:
            self._settle_now()
            self._renew()
            if not self._health.may_claim:  # an idle client would not see that the outage continues
                self._store.list(1)
                self._health.succeeded()
        except StoreError as error:
            self._health.failed(error)
            return []
        if self._move_own():
            return self.claim(max_records)
        return []

    def claim(self, max_records: int) -> list[Entry]:
        """Claim at most `max_records` due records; none soon after an outage: their owners renew them first."""
        entries: list[Entry] = []
        self.has_more: bool = False
        if not self._health.may_claim:
            return entries
        try:
            while max_records > 0:
                limit = min(CLAIM_BATCH, max_records)
                claimed = self._store.claim(limit, self.claim_ms)
                self._health.succeeded()
                for each in claimed:
                    with self._lock:
                        held = self._held.get(each.key)
                        if held is not None:  # its own record, whose renewal failed
                            held.fence = each.fence
                            continue
                        self._taken.pop(each.key, None)
                        if each.key in self._open and _is_commit(each.record):  # its chunk continues
                            self._held[each.key] = Held(each.record, each.fence, "store")
                            continue
                        self._held[each.key] = Held(each.record, each.fence, "store")
                    entries.append(Entry(f"v2-{each.key}.json"))
                max_records -= limit
                self.has_more = len(claimed) == limit
                if not self.has_more:
                    break
        except StoreError as error:
            self._health.failed(error)
        return entries

    def ensure_available(self) -> None:
        """Check that the store responds, under ``journal_outage="refuse"``.

        Raises:
            JournalUnavailableError: it does not.
        """
        if not self.refuses:
            return
        if not self._health.is_open:
            try:
                self._store.list(1)
            except StoreError as error:
                self._health.failed(error)
            else:
                self._health.succeeded()
                return
        self._health.raise_unavailable()

    def close(self) -> None:
        """Delete what is finished, and let other clients claim the rest immediately."""
        try:
            self._settle_now()
            with self._lock:
                held = [key for key, each in self._held.items() if each.place == "store"]
            for start in range(0, len(held), RENEW_BATCH):
                self._store.renew(held[start : start + RENEW_BATCH], 0)
        except StoreError as error:
            self._health.failed(error)
        if self._owns_store:
            self._store.close()

    # --- files ------------------------------------------------------------------------------------------------------

    def _move(self, entries: list[Entry]) -> list[Entry]:
        """Put the records of local files into the store, then remove the files. What cannot be moved stays a file.

        Returns:
            The late events of chunks that other clients have claimed.
        """
        late: list[Entry] = []
        try:
            for entry in entries:
                record = self._load_file(entry)
                rest = None if record is None else self._put_file(record)
                if rest is not None:
                    late.append(Entry(file_name(rest.reservation_id)))
        except StoreError as error:
            self._health.failed(error)
        return late

    def _put_file(self, record: Record) -> Record | None:
        """Put the record of a file, unless another client has claimed the record that the store has.

        Returns:
            The event for what that client does not charge, if the record is that of a chunk. It is saved.
        """
        key, raw = key_of(record.reservation_id), encode(record)
        if self._combiner.put([Put(key, raw, 0, self.claim_ms)])[0] or self._store.renew([key], self.claim_ms):
            self._save_in_store(key, raw, None, self.claim_ms)
            return None
        (stored,) = self._store.get([key])
        with self._lock:
            self._held.pop(key, None)
            self._taken[key] = stored.record if stored is not None else raw
        theirs = self.taken_by_another(record.reservation_id)
        is_chunk = theirs is not None and guards_of(record) is not None
        rest = late_record(record, sum_of(theirs), self._wall_ms()) if is_chunk and theirs is not None else None
        if rest is not None:
            self.save(rest)
        self._local.delete(record)
        return rest

    def _store_has(self, reservation_id: str) -> bool:
        """Return whether the store has a record; False also if it does not respond."""
        try:
            return self._store.get([key_of(reservation_id)]) != [None]
        except StoreError as error:
            self._health.failed(error)
            return False

    def _quarantine(self, key: str, error: RecordError) -> None:
        with self._lock:
            self._held.pop(key, None)
        try:
            self._store.quarantine(key, str(error))
        except StoreError as failed:
            self._health.failed(failed)
            return
        self._quarantined += 1
        message = (
            f"record {key[:12]} is quarantined in the journal's store and will not be settled: {error}; see "
            "`cycles journal list`, or record its amount by hand with client.record()"
        )
        self._report(JournalIssue("quarantined", key, message, error))


def _is_commit(raw: bytes) -> bool:
    with contextlib.suppress(RecordError):
        return decode(raw).mode == "commit"
    return False
