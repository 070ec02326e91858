"""Simulate a fleet that shares a journal store: one seed decides every order, outage, crash and loss.

The journal of each worker, its combiner, breaker and records are the real ones, over the store in memory. Simulated
are the clock, the disks, the processes and the ledger. `run(seed)` returns what broke, or None.

Invariants:

1. The ledger charges each key once, with one amount.
2. An amount whose record was saved is charged in the end, unless the store lost it after its owner and disk were lost.
3. A record of a worker that renews on time is never claimed by another one, also after an outage of the store, if
   neither was ever paused: a worker that starts, or resumes, knows of no outage. Its claim is harmless.
4. A stale worker changes nothing: the amount and mode of a record never go back.
5. A worker sends nothing for a record that another one has taken over.
6. At the end the store is empty, and nothing was quarantined.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, Final

from attrs import define, field

from cycles._core.records import Record, decode, encode, file_name
from cycles._errors import StoreError
from cycles._journal.journal import Entry
from cycles._journal.memory_store import MemoryStore
from cycles._journal.store_journal import StoreJournal, key_of

CLAIM_MS: Final = 3_000
STEPS: Final = 60
WORKERS: Final = 3
URL: Final = "http://fleet.test"


class Broken(AssertionError):
    """An invariant does not hold."""


@define
class Clock:
    """The time of all machines; only the simulation moves it."""

    ms: int = 1_700_000_000_000

    def wall_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


@define
class Ledger:
    """A server: keys are charged once. A record's reservation may be over; then only an event settles it."""

    up: bool = True
    charged: dict[str, int] = field(factory=dict)
    expired: set[str] = field(factory=set)
    bodies: dict[str, tuple[str, int]] = field(factory=dict)

    def send(self, record: Record) -> str:
        """Return `ok` or `expired`, or raise ConnectionError."""
        if not self.up:
            raise ConnectionError
        key, amount = record.body["idempotency_key"], record.body["actual"]["amount"]
        if record.mode == "commit" and record.reservation_id in self.expired and key not in self.charged:
            return "expired"
        known = self.charged.setdefault(key, amount)
        if known != amount:
            raise Broken(f"{key} was charged with {known} and sent with {amount}")
        self.bodies[key] = (record.mode, amount)
        return "ok"


class Disk:
    """The files of a worker, as `StoreJournal` uses them."""

    def __init__(self) -> None:
        self.records: dict[Entry, bytes] = {}
        self.quarantined = 0
        self.directory = "disk"

    def save(self, record: Record) -> bool:
        self.records[Entry(file_name(record.reservation_id))] = encode(record)
        return True

    def delete(self, record: Record) -> None:
        self.records.pop(Entry(file_name(record.reservation_id)), None)

    def load(self, entry: Entry) -> Record | None:
        raw = self.records.get(entry)
        return None if raw is None else decode(raw)

    def pending(self) -> list[Entry]:
        return list(self.records)


class Store(MemoryStore):
    """A store in memory that fails when the simulation says so, also after it has done what was asked."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock.wall_ms)
        self.lose_responses = False

    def _answered(self, result: Any) -> Any:
        if self.lose_responses:
            raise StoreError("the response was lost")
        return result

    def put(self, items: Any) -> list[bool]:
        result: list[bool] = self._answered(super().put(items))
        return result

    def settle(self, keys: Any) -> None:
        self._answered(super().settle(keys))

    def claim(self, limit: int, claim_ms: int) -> Any:
        return self._answered(super().claim(limit, claim_ms))

    def renew(self, keys: Any, claim_ms: int) -> list[str]:
        result: list[str] = self._answered(super().renew(keys, claim_ms))
        return result


@define
class Task:
    """One settlement in progress in a worker: a generator that runs to its next step."""

    key: str
    steps: Iterator[None]


class Worker:
    """One process: its journal, and the settlements that it works on."""

    def __init__(self, fleet: Fleet, number: int, disk: Disk) -> None:
        self.number = number
        self.fleet = fleet
        self.disk = disk
        self.alive = True
        self.paused = False
        self.late = False  # its last renewal is older than a claim
        self.renewed_ms = fleet.clock.ms
        self.confirmed_ms = 0  # the last tick for which the store responded
        self.tasks: dict[str, Task] = {}
        self.journal = StoreJournal(
            fleet.store,
            disk,  # type: ignore[arg-type]
            claim_ms=CLAIM_MS,
            timeout_s=0.5,
            outage=fleet.outage,
            report=lambda issue: None,
            clock=fleet.clock.monotonic_s,
            wall_ms=fleet.clock.wall_ms,
        )
        self.is_started = False
        self.take_over(self.journal.pending())
        self.is_started = True

    @property
    def is_late(self) -> bool:
        """Whether its records may be due, because it was paused for longer than a claim."""
        return self.late or self.fleet.clock.ms - self.renewed_ms > CLAIM_MS

    def take_over(self, entries: list[Entry]) -> None:
        for entry in entries:
            key = entry[3:-5]
            self.fleet.note_claim(self, key)
            if key not in self.tasks:
                self.tasks[key] = Task(key, self._settle_entry(entry))

    def begin(self, record: Record) -> None:
        key = key_of(record.reservation_id)
        self.tasks[key] = Task(key, self._settle(record, is_saved=False))

    def step(self, rng: random.Random) -> None:
        if not self.tasks:
            return
        key = rng.choice(sorted(self.tasks))
        try:
            next(self.tasks[key].steps)
        except StopIteration:
            del self.tasks[key]

    def tick(self) -> None:
        self.renewed_ms = self.fleet.clock.ms
        self.take_over(self.journal.tick(64))
        if self.fleet.store.fails is None and not self.fleet.store.lose_responses:
            self.confirmed_ms = self.fleet.clock.ms

    def _settle_entry(self, entry: Entry) -> Iterator[None]:
        record = self.journal.load(entry)
        if record is not None:
            yield from self._settle(record, is_saved=True)

    def _settle(self, record: Record, *, is_saved: bool) -> Iterator[None]:
        """Save, send, and delete or keep a record, as the flows and the background do."""
        if not is_saved:
            saved = self.journal.save(record)
            self.fleet.note_saved(self, record, saved)
            yield
        while not self.journal.is_taken(record):
            self.fleet.note_sent(self, record)
            try:
                response = self.fleet.ledger.send(record)
            except ConnectionError:
                yield
                record = self.journal.load(Entry(file_name(record.reservation_id))) or record
                self.journal.save(record)  # the attempt ended: its claims are counted from 0
                yield
                continue
            lost = self.fleet.loses_response()
            yield
            if lost:
                continue
            if response == "ok":
                self.journal.delete(record)
                self.journal.settle_finished()
                return
            record = record.to_event_mode(self.fleet.clock.ms)
            self.journal.save(record)
            yield


class Fleet:
    """The whole system of one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = Clock()
        self.ledger = Ledger()
        self.store = Store(self.clock)
        self.outage: Any = self.rng.choice(["disk", "disk", "memory"])
        self.saved: dict[str, Record] = {}
        self.excused: set[str] = set()
        self.lost_ms = 0  # when the store last lost everything
        self.owner_of: dict[str, Worker] = {}
        self.workers: list[Worker] = []
        self.count = 0
        self.trace: list[str] = []
        self.workers = [Worker(self, number, Disk()) for number in range(WORKERS)]

    # --- what the workers report -------------------------------------------------------------------------------------

    def note_saved(self, worker: Worker, record: Record, saved: bool) -> None:
        self.saved[key_of(record.reservation_id)] = record
        self.owner_of[key_of(record.reservation_id)] = worker

    def note_claim(self, worker: Worker, key: str) -> None:
        owner = self.owner_of.get(key)
        knows_of_outages = worker.is_started and not worker.is_late
        renews = owner is not None and owner.alive and not owner.is_late and key in owner.tasks
        if owner is not None and owner is not worker and knows_of_outages and renews:
            raise Broken(f"worker {worker.number} claimed {key[:8]} of worker {owner.number}, which renews on time")
        self.owner_of[key] = worker

    def note_sent(self, worker: Worker, record: Record) -> None:
        mode = self.ledger.bodies.get(record.body["idempotency_key"], ("commit", 0))[0]
        if mode == "event" and record.mode == "commit":
            self.trace.append("stale commit")  # harmless: the ledger has the key
        row = self.store._rows.get(("default", key_of(record.reservation_id)))
        held = worker.journal._held.get(key_of(record.reservation_id))
        if row is not None and held is not None and held.fence is not None and row.fence < held.fence:
            raise Broken("the fence of a record went back")

    def loses_response(self) -> bool:
        return self.rng.random() < 0.15

    # --- events -----------------------------------------------------------------------------------------------------

    def new_record(self, worker: Worker) -> None:
        self.count += 1
        body = {"idempotency_key": f"k{self.count}", "actual": {"unit": "TOKENS", "amount": self.count}}
        record = Record(
            reservation_id=f"r{self.count}", base_url=URL, commit_body=body, event_fallback_body=body, recorded_at_ms=1
        )
        if self.rng.random() < 0.3:
            self.ledger.expired.add(record.reservation_id)
        worker.begin(record)

    def happen(self) -> None:
        rng = self.rng
        worker = rng.choice(self.workers)
        event = rng.choices(
            ("new", "step", "time", "tick", "server", "store", "lossy", "kill", "pause", "flush"),
            (12, 34, 14, 16, 4, 4, 3, 3, 3, 1),
        )[0]
        self.trace.append(f"{event} {worker.number}")
        if event == "server":
            self.ledger.up = not self.ledger.up
        elif event == "store":
            self.store.fails = None if self.store.fails else "down"
        elif event == "lossy":
            self.store.lose_responses = not self.store.lose_responses
        elif event == "flush":
            self.lose_everything()
        elif event == "time":
            self.pass_time(rng.randint(1, 900))
        elif event == "kill":
            self.kill(worker)
        elif event == "pause":
            worker.paused, worker.late = not worker.paused, True
        elif worker.alive and not worker.paused:
            if event == "new":
                self.new_record(worker)
            elif event == "step":
                worker.step(rng)
            else:
                worker.tick()

    def pass_time(self, ms: int) -> None:
        """Move the clock. Workers that are alive and not paused tick in time."""
        self.clock.ms += ms
        for worker in self.workers:
            if not worker.alive:
                continue
            if not worker.paused and self.clock.ms - worker.renewed_ms >= CLAIM_MS / 3:
                worker.tick()
            if self.clock.ms - worker.renewed_ms > CLAIM_MS:
                worker.late = True

    def kill(self, worker: Worker) -> None:
        """Kill a process. Its disk is lost or not; another process starts in its place."""
        worker.alive = False
        disk = worker.disk if self.rng.random() < 0.5 else Disk()
        held = worker.journal._held

        def lost(key: str) -> bool:
            if key in self.in_store() or f"v2-{key}.json" in disk.records:
                return False
            put_again = key in held and held[key].place == "store" and worker.confirmed_ms > self.lost_ms
            return not put_again

        self.excuse(lost, worker)
        place = self.workers.index(worker)
        self.workers[place] = Worker(self, worker.number + WORKERS, disk)

    def lose_everything(self) -> None:
        """Lose all records of the store: those of dead owners are lost, live ones put theirs again."""
        self.lost_ms = self.clock.ms
        self.excuse(lambda key: True, None)
        self.store._tables.rows.clear()
        self.store._tables.fences.clear()

    def in_store(self) -> set[str]:
        return {key for _, key in self.store._rows}

    def excuse(self, lost: Callable[[str], bool], dead: Worker | None) -> None:
        """Note which amounts may be lost now: nothing that is alive or on a disk has them any more."""
        for key in self.saved:
            held = any(each.alive and key in each.journal._held for each in self.workers if each is not dead)
            on_disk = any(f"v2-{key}.json" in each.disk.records for each in self.workers if each.alive)
            if lost(key) and not held and not on_disk:
                self.excused.add(key)

    # --- the end -----------------------------------------------------------------------------------------------------

    def settle_all(self) -> None:
        """Let everything work again, and give the fleet time to settle what is left."""
        self.ledger.up, self.store.fails, self.store.lose_responses = True, None, False
        for worker in self.workers:
            worker.paused = False
        for _ in range(60):
            self.pass_time(700)
            for worker in self.workers:
                for _ in range(8):
                    worker.step(self.rng)
            if not self.in_store() and not any(worker.tasks for worker in self.workers):
                break

    def check(self) -> None:
        for key, record in self.saved.items():
            if record.body["idempotency_key"] not in self.ledger.charged and key not in self.excused:
                raise Broken(f"the amount of {record.reservation_id} was saved and is not charged")
        left = self.in_store()
        if left:
            kept = [row.kept for row in self.store._rows.values() if row.kept is not None]
            raise Broken(f"the store has {len(left)} records at the end, {len(kept)} of them kept aside")
        for worker in self.workers:
            if worker.disk.records:
                raise Broken(f"worker {worker.number} has files at the end")


def run(seed: int) -> str | None:
    """Simulate one seed. Return what broke, or None."""
    fleet = Fleet(seed)
    try:
        for _ in range(STEPS):
            fleet.happen()
        fleet.settle_all()
        fleet.check()
    except Broken as broken:
        return str(broken)
    return None
