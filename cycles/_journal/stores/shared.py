"""The journal of a client whose records are in a store that a fleet shares. See `docs/fleets.md`.

Of a record in the store a client knows one of two things:

- **Own(fence)**: the last put or take of this client returned that fence. A put over it changes the record only if no
  other client has put or taken it since then.
- **Unsure**: a put had no response. It may have arrived, or still arrive. `get` comes before the next put, which then
  goes over the fence that the store has; the late one fails, because its fence is no longer there.

If an own fence is not there, either the store has lost the record, and it is put again, or another client has taken it
(TAKEN). That happens to a client that was paused for longer than a claim: its records became due. It resumes and may
send a request at the same moment as the other one. Both send the same key and body, so the ledger charges one of them.
Nothing is claimed for one claim after an outage, so that the owners renew first.

A chunk of a pool is the exception, because its sum grows: two clients may know different sums under one key. The ledger
and the stored record decide, never what an owner has stored of its puts.

1. A client whose commit of a chunk is rejected as another request reads the reservation, and sends an event
   ``<key>:late:<committed>`` with the difference (`_core/settlement/rules.py`).
2. A larger sum, an event and a late event are put over the own fence before their request. A stale client fails there.
3. A larger sum replaces the commit of an earlier one, also if another client has that: while none is charged, each one
   may still arrive. An event, or what is settled, is never replaced: it is TAKEN, and the difference to its sum
   is a separate record ``<key>:late:<that sum>`` (`_flows/settle.py`).
4. The record of a chunk that two clients may have is not deleted when it is settled: it is put with `settled`, what is
   charged of the sum, and is due in 7 days, as long as a server keeps the keys of events. Otherwise a late put would
   bring an earlier sum back, and its event would be charged again. So is an event in place of a commit: a client that
   was stopped puts the commit again.
5. A client that takes the record of its own open chunk, still a commit, owns it again and sends nothing.
6. After TAKEN this client looks at each tick until the record is settled. If the store has lost it, it is put again,
   unchanged.

One lock protects what this client knows. No operation of the store happens under it, so every step looks again after
its operation. Operations of several threads on one key are rare (a tick and a settlement) and end at the fence.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Final, Literal, TypeAlias

from attrs import define, evolve

from cycles._config import JournalOutage
from cycles._core.settlement.late import guards_of, late_record, sum_of
from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record, RecordError, decode, encode, file_name, is_sent
from cycles._core.settlement.rules import MAY_BE_CHARGED
from cycles._errors import JournalUnavailableError, StoreError
from cycles._journal.journal import Entry, Journal, JournalIssue
from cycles._journal.stores.batch import Combiner
from cycles._journal.stores.health import StoreHealth
from cycles._journal.stores.store import JournalStore, KeptState, Put, Stored, decoded, pages

TAKE_BATCH: Final = 16
BATCH: Final = 500  # records of one renewal, deletion or look
DELETE_DELAY_S: Final = 0.05  # finished records are deleted together, at most this long afterwards
SETTLED_MS: Final = 7 * 86_400_000  # as long as a server keeps the keys of events
_HAS_FILE: Final = ("disk", "stale file")
_PUT_TRIES: Final = 4  # of one put, each after another look: another client changes the record at the same time

Later: TypeAlias = Callable[[float, Callable[[], object]], object]
"""Calls a function after some seconds, in a thread that may block on the store."""


@define
class Held:
    """A record that belongs to this client.

    Attributes:
        record: Its latest form.
        fence: Its fence in the store, None if the store has it not; not known if `is_unsure`.
        place: Where the latest form is. `stale file`: in memory, and an earlier one in a local file.
        maybe: The forms that the store may have.
        is_unsure: A put had no response.
        is_shared: Another client may have it too, or a late put may come: rule 4.
    """

    record: bytes
    fence: str | None = None
    place: Literal["store", "disk", "memory", "stale file"] = "store"
    maybe: tuple[bytes, ...] = ()
    is_unsure: bool = False
    is_shared: bool = False


class StoreJournal:
    """The journal over a shared store: the interface of `Journal`, and claims. No method raises `StoreError`.

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
        later: Later | None = None,
    ) -> None:
        self._store = store
        self.local = local
        self.claim_ms = claim_ms
        self._outage = outage
        self.refuses: bool = outage == "refuse"
        """Whether no reservation may be made while the store does not respond."""
        self._report = report
        self._owns_store = owns_store
        self.name = name
        self._wall_ms = wall_ms
        self._later = later
        self._combiner = Combiner(store, timeout_s)
        # Re-entrant: a signal handler may settle another amount while its thread is in here. Each step concerns one
        # key, and what is looked through is a copy, so the handler may run between any two calls. One step of a dict
        # needs no lock: a key is in `_taken` before it leaves `_held`.
        self._lock = threading.RLock()
        self._health = StoreHealth(claim_ms=claim_ms, outage=outage, report=report, clock=clock)
        self._held: dict[str, Held] = {}
        self._taken: dict[str, bytes] = {}  # what the store had when this client lost a record to another one
        self._parted: dict[str, bytes] = {}  # earlier sums of open chunks that are settled here, as events
        self._watched: set[str] = set()  # those of chunks, until they are settled: rule 6
        self._open: set[str] = set()  # records of chunks that are open in this process: rule 5
        # To delete, to put with `settled`, or, unless settled, to let another task claim.
        self._finished: list[tuple[str, Held, bytes | None]] = []
        self._quarantined = 0
        self.has_more: bool = False  # whether the last take left due records in the store

    @property
    def quarantined(self) -> int:
        """How many records were quarantined so far."""
        return self._quarantined + self.local.quarantined

    # --- one record -------------------------------------------------------------------------------------------------

    def put(self, record: Record) -> PutResult:
        """Save the record in place of an earlier state of it, and return whether it may be sent."""
        key = key_of(record.reservation_id)
        with self._lock:
            self._open.discard(key)
            if self.is_taken(record) or self._has_larger_sum(key, record):
                return PutResult.TAKEN
        try:
            raw = encode(record)
        except RecordError:
            return self.local.put(record)  # reports why
        # Due when this client may have died: after a claim, or at the end of a 429 if that is later.
        saved = self._try_put(key, raw, max(self.claim_ms, record.wait_ms(self._wall_ms())))
        if saved is None:
            saved = self._put_elsewhere(key, raw, record)
        elif record.replaces_commit:
            self.local.delete_again(record)
        if self.is_taken(record):  # the put has found it, or a tick of another thread while the put was on its way
            return PutResult.TAKEN
        if record.replaces_commit and self.keeps_commit(record):
            return PutResult.HELD_BACK
        return PutResult.SAVED if saved else PutResult.FAILED

    def put_many(self, records: Sequence[Record]) -> list[PutResult]:
        """Save records, new ones in one round trip."""
        # Only records of which this client knows nothing: the others need a look at what it holds, one by one.
        fresh: dict[str, bytes] = {}
        with self._lock, contextlib.suppress(RecordError):
            for record in records:
                key = key_of(record.reservation_id)
                self._open.discard(key)  # as in `put`
                if key not in self._held and key not in self._taken and not record.not_before_ms:
                    fresh[key] = encode(record)
        saved: set[str] = set()
        if len(fresh) > 1 and not self._health.is_open:
            fences: list[str | None] = []
            with self._outages_noted():
                fences = self._combiner.put([Put(key, raw, None, self.claim_ms) for key, raw in fresh.items()])
                self._health.succeeded()
            for (key, raw), fence in zip_longest(fresh.items(), fences):
                if fence is not None:
                    self._own(key, raw, fence, is_shared=False)
                    saved.add(key)
                elif not fences:  # no response
                    self._be_unsure(key, raw)
        return [PutResult.SAVED if key_of(each.reservation_id) in saved else self.put(each) for each in records]

    def checkpoint(self, record: Record) -> bool:
        """Put the record of an open chunk. False: the store does not respond, or another client has it."""
        key = key_of(record.reservation_id)
        with self._lock:
            self._open.add(key)
            if self._health.is_open or self.is_taken(record):
                return False
        with contextlib.suppress(RecordError):
            return bool(self._try_put(key, encode(record), self.claim_ms))
        return False

    def _try_put(self, key: str, raw: bytes, due_ms: int, kept: KeptState | None = None) -> bool | None:
        """Put a form of a record as `_put`. None: the store does not respond."""
        if self._health.is_open:
            return None
        with self._outages_noted():
            saved = self._put(key, raw, due_ms, kept)
            self._health.succeeded()
            return saved
        return None

    def _put(self, key: str, raw: bytes, due_ms: int, kept: KeptState | None = None) -> bool:
        """Put a form of a record. False: another client has it, or another amount is under its key.

        Raises:
            StoreError: its outcome is unknown; it is held as unsure.
        """
        held = self._held.get(key)
        fence = None if held is None else held.fence
        # A fence that a response has confirmed. If the store has another one, another client has the record.
        is_own = held is not None and held.fence is not None and not held.is_unsure
        is_shared = held is not None and held.is_shared
        looks = held is not None and held.is_unsure
        for _ in range(_PUT_TRIES):
            if looks:
                (stored,) = self._store.get([key])
                # A tick of this client may have taken it in the meantime: then the fence in the store is its own.
                held = self._held.get(key)
                is_own = is_own and not (held is not None and stored is not None and held.fence == stored.fence)
                if stored is not None and (is_own or not _is_same(stored, raw)) and not _is_earlier(stored.record, raw):
                    return self._lose(key, stored, raw, held)
                is_shared = True
                fence = None if stored is None else stored.fence
                if stored is not None and kept is None and _is_event(stored.record) and not _is_event(raw):
                    raw = _with_extra(stored.record, raw)  # another client has found that the reservation is over
                elif stored is not None:
                    raw = _with_extra(raw, stored.record)
            try:
                (new,) = self._combiner.put([Put(key, raw, fence, due_ms, kept)])
            except StoreError:
                self._be_unsure(key, raw)
                raise
            if new is not None:
                self._own(key, raw, new, is_shared=is_shared)
                return True
            looks = True  # the store has another fence: find out whose
        raise StoreError("other clients change a record at the same time; it is tried again")

    def _own(self, key: str, raw: bytes, fence: str, *, is_shared: bool) -> None:
        with self._lock:
            before = self._held.get(key)
            self._held[key] = Held(raw, fence, "store", (raw,), is_shared=is_shared)
            self._taken.pop(key, None)
            self._watched.discard(key)
        # Only now: a client that dies before has the record in both places, and charges it once under its key.
        if before is not None and before.place in _HAS_FILE:
            self.local.delete(decode(raw))

    def _be_unsure(self, key: str, raw: bytes) -> None:
        with self._lock:
            # `maybe` keeps each form until a look says which one is there: an event waits while one is a commit.
            held = self._held.setdefault(key, Held(raw, place="memory"))
            held.is_unsure = held.is_shared = True
            held.record = raw  # the next look must not take a larger sum of this client for that of another one
            held.maybe = (*held.maybe, raw)

    def _lose(self, key: str, stored: Stored, raw: bytes, held: Held | None) -> bool:
        """Leave a record to the client that has it. A new record with another amount is sent without being saved."""
        record, theirs = decode(raw), decoded(stored.record)
        is_chunk = guards_of(record) is not None
        with self._lock:
            if held is None and not is_chunk:  # two settlements of one reservation, which the server decides
                return False
            self._taken[key] = stored.record
            self._held.pop(key, None)
            if is_chunk:
                self._watched.add(key)
        has_all = not is_chunk or (theirs is not None and sum_of(theirs) >= sum_of(record))
        if held is not None and held.place in _HAS_FILE and has_all:
            self.local.delete(record)
        return False

    def _put_elsewhere(self, key: str, raw: bytes, record: Record) -> bool:
        """Save a record that the store did not take in a local file, or keep it in memory."""
        # Also under "refuse": the money of a commit is spent already, so only new reservations are rejected.
        saved = self._outage != "memory" and self.local.save(record)
        with self._lock:
            held = self._held.setdefault(key, Held(raw))
            held.record = raw
            held.place = "disk" if saved else ("stale file" if held.place in _HAS_FILE else "memory")
        return saved

    def is_taken(self, record: Record) -> bool:
        """Return whether another client has claimed a record of this client: nothing more is sent for it."""
        key = key_of(record.reservation_id)
        with self._lock:
            taken, is_parted = self._taken.get(key), key in self._parted and record.mode == "commit"
        return is_parted or (taken is not None and not _is_earlier(taken, record))

    def taken_by_another(self, reservation_id: str) -> Record | None:
        """Return the record of this reservation that another client has, as it was when this client lost it."""
        key = key_of(reservation_id)
        raw = self._taken.get(key) or self._parted.get(key)
        return None if raw is None else decoded(raw)

    def keeps_commit(self, record: Record) -> bool:
        """Return whether the store, or a local file, may have the commit of this event: another client sends it."""
        held = self._held.get(key_of(record.reservation_id))
        if held is None:  # this client has put nothing under its key
            return False
        return not all(_is_event(form) for form in held.maybe) or self.local.keeps_commit(record)

    def _has_larger_sum(self, key: str, record: Record) -> bool:
        """Return whether this client has taken a larger sum of the chunk since this form of its record was loaded.

        The task that has this form ends then, and the larger sum is due for another one. The lock is held.
        """
        held = self._held.get(key)
        if held is None or guards_of(record) is None or sum_of(decode(held.record)) <= sum_of(record):
            return False
        self._taken[key] = held.record
        del self._held[key]
        self._finished.append((key, held, held.record))
        return True

    def leave(self, record: Record) -> None:
        """End the task of a record that another client had: if this one has taken it since, another task claims it."""
        key = key_of(record.reservation_id)
        with self._lock:
            held = None if self.is_taken(record) else self._held.pop(key, None)
            if held is not None:
                self._finished.append((key, held, held.record))
            self._parted.pop(key, None)
            if key not in self._watched:  # a chunk stays taken until its other client has settled it: rule 6
                self._taken.pop(key, None)
        if guards_of(record) is not None:  # what it has beyond the stored sum is saved now
            self.local.delete(record)

    def delete(self, record: Record) -> None:
        """Delete the record of a finished settlement, soon and together with others."""
        key = key_of(record.reservation_id)
        with self._lock:
            if self._has_larger_sum(key, record):
                return
            held = self._held.pop(key, None)
            if held is not None:
                self._taken.pop(key, None)
        if held is None or held.place in _HAS_FILE:
            self.local.delete(record)
        if held is None or (held.fence is None and not held.is_unsure):  # the store cannot have it
            return
        settled = None
        if held.is_shared and (guards_of(record) is not None or (record.mode == "event" and record.commit_body)):
            with contextlib.suppress(RecordError):
                settled = encode(evolve(record, settled=sum_of(record)))
        with self._lock:
            self._finished.append((key, held, settled))
            is_first = len(self._finished) == 1  # the later ones go with it, in one round trip
        if is_first and self._later is not None:
            self._later(DELETE_DELAY_S, self.settle_finished)

    def reject(self, record: Record, reason: str) -> None:
        """Keep the record of a rejected amount, with the reason: in the store, or in a local file."""
        key = key_of(record.reservation_id)
        saved = None
        held = self._held.get(key)
        with contextlib.suppress(RecordError):
            raw = encode(evolve(record, rejected=reason))
            if held is not None:
                raw = _with_extra(raw, held.record)
            saved = None if key in self._taken else self._try_put(key, raw, 0, "rejected")
        held = self._held.pop(key, None)
        if not saved:  # an outage, or the amount under this key in the store is another client's
            self.local.reject(record, reason)
            if held is not None and (held.fence is not None or held.is_unsure):
                with self._lock:
                    self._finished.append((key, held, None))

    def load(self, entry: Entry) -> Record | None:
        """Return the record of an entry. None: it is deleted or taken, or this client cannot settle it.

        The file of a chunk that another client has stays until what that does not charge is saved.
        """
        key = entry[3:-5]
        held = self._held.get(key)
        if held is None:
            return self.local.load(entry) if key in self._taken else self._load_file(entry)
        try:
            return decode(held.record)
        except RecordError as error:
            self._quarantine(key, held, error)
            return None

    def _load_file(self, entry: Entry) -> Record | None:
        """Return the record of a local file, which belongs to this client from now on."""
        record = self.local.load(entry)
        if record is not None:
            raw, commit = encode(record), encode(evolve(record, mode="commit"))
            maybe = Held(raw, None, "disk", (commit,), is_unsure=True, is_shared=True)  # a put may have had no response
            self._held.setdefault(key_of(record.reservation_id), maybe)
        return record

    def _quarantine(self, key: str, held: Held, error: RecordError) -> None:
        self._held.pop(key, None)
        message = (
            f"record {key[:12]} is quarantined in the journal's store and will not be settled: {error}; see "
            "`cycles journal list`, or record its amount by hand with client.record()"
        )
        with self._outages_noted():  # over its fence: a newer worker that can read it may have taken it since
            self._store.put([Put(key, held.record, held.fence, 0, "quarantined")])
            self._quarantined += 1
            self._report(JournalIssue("quarantined", message))

    # --- what an earlier process left -------------------------------------------------------------------------------

    def pending(self) -> list[Entry]:
        """Return what an earlier process left: local files, moved into the store, and due records, now claimed."""
        self._health.report_problems(self._store)
        # Files first: what is moved belongs to this client then, and is not claimed below as well.
        files = self.local.pending()
        return [*files, *self._move(files), *self.claim(TAKE_BATCH)]

    def _move(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Put the records of local files into the store, then remove the files. What cannot be moved stays a file.

        Yields:
            Each new record: what another client, which has the record of a chunk, does not charge of it.
        """
        with self._outages_noted():
            for entry in entries:
                record = self._load_file(entry)
                if record is None or self._put(key_of(record.reservation_id), encode(record), self.claim_ms):
                    continue
                theirs = self.taken_by_another(record.reservation_id)
                if guards_of(record) is not None:
                    rest = theirs and late_record(record, sum_of(theirs), self._wall_ms())
                    if rest is None or self.put(rest) is not PutResult.SAVED:
                        continue
                    # Saved here: this client may claim the other record next, and one task settles only that.
                    yield Entry(file_name(rest.reservation_id))
                elif theirs is None or theirs.actual.amount != record.actual.amount:
                    # What the other client settles, and what of it is charged, cannot be known.
                    self.local.reject(record, MAY_BE_CHARGED)
                self.local.delete(record)

    def sent(self, entries: list[Entry]) -> set[Entry]:
        """Return which records are of requests whose cost is unknown, because their process has ended."""
        with self._lock:
            held = {entry: self._held.get(entry[3:-5]) for entry in entries}
        of_store = {entry for entry, each in held.items() if each is not None and is_sent(each.record)}
        return of_store | self.local.sent([entry for entry, each in held.items() if each is None])

    def rejected(self) -> list[tuple[Record, str]]:
        """Return the rejected records, with the reason of each."""
        found = self.local.rejected()
        with self._outages_noted():
            for each in pages(self._store, "rejected"):
                with contextlib.suppress(RecordError):
                    record = decode(each.record)
                    found.append((record, record.rejected or "rejected"))
        return found

    def recover_spend(self) -> list[Record]:
        """Save and return the records of the spend that dead processes of this machine wrote ahead."""
        return self.local.recover_spend(self._store_has)

    def _store_has(self, reservation_id: str) -> bool:
        """Return whether the store has a record; False also if it does not respond."""
        with self._outages_noted():
            return self._store.get([key_of(reservation_id)]) != [None]
        return False  # then the spend is saved as a record, under the same key: the server charges it once

    # --- all records of this client ---------------------------------------------------------------------------------

    def tick(self, max_records: int) -> list[Entry]:
        """Renew what this client holds, move what an outage left elsewhere, and claim up to `max_records` more."""
        with self._outages_noted():
            self._delete_now()
            self._renew(self.claim_ms)
            self._watch()
            if not self._health.may_claim:  # an idle client would not see that the outage continues
                self._store.list("", 1)
            self._health.succeeded()
            self._move_own(self.claim_ms)
            return self.claim(max_records)
        return []

    def claim(self, max_records: int) -> list[Entry]:
        """Claim at most `max_records` due records; none soon after an outage: their owners renew them first."""
        entries: list[Entry] = []
        self.has_more = False
        if not self._health.may_claim:
            return entries
        with self._outages_noted():
            while max_records > 0:
                limit = min(TAKE_BATCH, max_records)
                taken = self._store.take(limit, self.claim_ms)
                self._health.succeeded()
                entries += [Entry(f"v2-{each.key}.json") for each in taken if self._claim(each)]
                max_records -= limit
                self.has_more = len(taken) == limit
                if not self.has_more:
                    break
            self._delete_now()
        return entries

    def _claim(self, taken: Stored) -> bool:
        """Hold a record that this client has taken. Return whether it is to be settled now."""
        key, raw = taken.key, taken.record
        record = decoded(raw)
        with self._lock:
            self._watched.discard(key)
            held = self._held.get(key)
            if held is not None and not _is_earlier(held.record, raw):  # its own record, whose renewal failed
                held.fence, held.is_unsure, held.is_shared = taken.fence, False, True
                return False
            new = Held(raw, taken.fence, "store", (raw,), is_shared=True)
            if record is not None and record.settled is not None:
                self._finished.append((key, new, None))
                return False
            self._held[key] = new
            self._taken.pop(key, None)
            if key in self._open and record is not None:
                if record.mode == "commit":  # its chunk continues here
                    return False
                self._parted[key] = raw  # an event cannot take a larger sum: the rest of the chunk is a separate record
            return True

    def settle_finished(self) -> None:
        """Delete what is finished from the store; what fails is tried again at the next tick."""
        if not self._health.is_open:
            with self._outages_noted():
                self._delete_now()

    def _delete_now(self) -> None:
        while True:
            with self._lock:
                batch, self._finished = self._finished[:BATCH], self._finished[BATCH:]
            if not batch:
                return
            try:
                unsure = {key: held.record for key, held, _ in batch if held.is_unsure}
                stored = [each for each in self._store.get(list(unsure)) if each is not None] if unsure else []
                # A larger sum of a chunk stays: what is settled here is not all of it.
                found = {each.key: each.fence for each in stored if not _is_earlier(unsure[each.key], each.record)}
                settled: list[Put] = []
                done: list[tuple[str, str]] = []
                for key, held, raw in batch:
                    fence = found.get(key) if held.is_unsure else held.fence
                    if raw is not None:
                        settled.append(Put(key, raw, fence, SETTLED_MS if _is_settled(raw) else 0))
                    elif fence is not None:
                        done.append((key, fence))
                if settled:
                    self._put_settled(settled)
                if done:
                    self._store.delete(done)
            except BaseException:
                with self._lock:
                    self._finished = [*batch, *self._finished]
                raise
            self._health.succeeded()

    def _put_settled(self, puts: list[Put]) -> None:
        """Put what is settled. One that fails is another client's, which finds it settled, unless the store lost it."""
        failed = [put for put, fence in zip(puts, self._store.put(puts), strict=True) if fence is None]
        found = self._store.get([put.key for put in failed]) if failed else []
        lost = [evolve(put, fence=None) for put, stored in zip(failed, found, strict=True) if stored is None]
        if lost:
            self._store.put(lost)

    def _renew(self, claim_ms: int) -> None:
        held = list(self._held.items())
        owned = [(key, each.fence) for key, each in held if each.place == "store" and not each.is_unsure and each.fence]
        for start in range(0, len(owned), BATCH):
            for key in self._store.renew(owned[start : start + BATCH], claim_ms):
                lost = self._held.get(key)
                if lost is not None:  # otherwise it was settled in the meantime
                    self._put(key, lost.record, claim_ms)  # finds whether it is missing, or another client's
            self._health.succeeded()

    def _save_held(self) -> None:
        """Save what this client holds in local files: the store does not say whether it has it, and may be empty.

        If it has it, too, the record is charged once under its key.
        """
        with self._lock:
            held = [each for each in self._held.values() if each.place != "disk"]
        for each in held:
            record = decoded(each.record)
            if record is not None and self.local.save(record):
                each.place = "disk"

    def _watch(self) -> None:
        """Look at the chunks that other clients have taken, and put those again that the store has lost."""
        with self._lock:
            watched = sorted(self._watched)
        for start in range(0, len(watched), BATCH):
            keys = watched[start : start + BATCH]
            for key, stored in zip(keys, self._store.get(keys), strict=True):
                theirs = self._taken.get(key)
                if stored is None and theirs is not None:
                    self._store.put([Put(key, theirs, None, 0)])
                elif stored is None or stored.kept is not None or _is_settled(stored.record):
                    with self._lock:
                        self._watched.discard(key)
                        if key not in self._open:
                            self._taken.pop(key, None)

    def _move_own(self, claim_ms: int) -> None:
        """Put what this client saved elsewhere during an outage, and what it is unsure of."""
        for key in list(self._held):
            held = self._held.get(key)  # its latest form: it may have been settled or changed in the meantime
            if held is not None and (held.place != "store" or held.is_unsure):
                self._put(key, held.record, claim_ms)

    def ensure_available(self) -> None:
        """Check that the store responds, under ``journal_outage="refuse"``.

        Raises:
            JournalUnavailableError: it does not.
        """
        if not self.refuses:
            return
        if not self._health.is_open:
            with self._outages_noted():
                self._store.list("", 1)
                self._health.succeeded()
                return
        raise JournalUnavailableError(
            'the journal\'s store does not respond, and journal_outage is "refuse": nothing was reserved; '
            "check journal_store (CYCLES_JOURNAL_URL)"
        )

    @contextlib.contextmanager
    def _outages_noted(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            self._health.failed(error)

    def close(self) -> None:
        """Delete what is finished, let other clients claim the rest immediately, and close the local files."""
        is_confirmed = False
        with self._outages_noted():
            self._delete_now()
            self._renew(0)
            self._move_own(0)
            is_confirmed = True
        if not is_confirmed and self._outage != "memory":
            self._save_held()
        if self._owns_store:
            self._store.close()
        self.local.close()


def key_of(reservation_id: str) -> str:
    """Return the key of a record: the 64 hex digits of its file name."""
    return file_name(reservation_id)[3:-5]


def _is_same(stored: Stored, raw: bytes) -> bool:
    """Return whether a stored record, of which this client has no fence, has the same amount as this form of it."""
    record, theirs = decode(raw), decoded(stored.record)
    if theirs is None or guards_of(record) is None:
        return theirs is not None and _whole(theirs) == _whole(record)
    if theirs.settled is not None or stored.kept is not None or sum_of(theirs) != sum_of(record):
        return False
    is_same_request = theirs.mode == record.mode and theirs.body["idempotency_key"] == record.body["idempotency_key"]
    return theirs.mode == "commit" or is_same_request


def _is_earlier(raw: bytes, own: bytes | Record) -> bool:
    """Return whether a record is the commit of an earlier sum of a chunk, which the larger one replaces: rule 3."""
    theirs, record = decoded(raw), own if isinstance(own, Record) else decoded(own)
    if theirs is None or record is None or guards_of(record) is None or sum_of(theirs) >= sum_of(record):
        return False
    return theirs.mode == "commit" and theirs.settled is None and theirs.rejected is None


def _with_extra(raw: bytes, other: bytes) -> bytes:
    """Return a form of a record with what a newer version has added to another one: an excess may be made twice."""
    theirs = decode(other)
    return encode(decode(raw).with_extra_of(theirs)) if theirs.extra else raw


def _whole(record: Record) -> tuple[str, int]:
    excess = (record.excess or {}).get("amount")
    return record.actual.unit, record.actual.amount + (excess if type(excess) is int else 0)


def _is_event(raw: bytes) -> bool:
    record = decoded(raw)
    return record is None or record.mode == "event"  # no client sends one that is unreadable


def _is_settled(raw: bytes) -> bool:
    record = decoded(raw)
    return record is not None and record.settled is not None
