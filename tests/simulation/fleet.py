"""Simulate a fleet that shares a journal store: one seed decides every order, outage, crash and loss.

The journal of each worker, its combiner, breaker and records are the real ones, over the store in memory. Simulated
are the clock, the disks, the processes and the ledger. `run(seed)` returns what broke, or None.

Invariants:

1. The ledger charges each key once, with one amount.
2. An amount whose record was saved is charged in the end, unless the store lost it after its owner and disk were lost.
3. A record of a worker that renews on time is never claimed by another one, also after an outage of the store, if
   neither was ever paused: a worker that has just started, or resumes, knows of no outage. Its claim is harmless.
4. A stale worker changes nothing: the amount and mode of a record never go back.
5. A worker sends nothing for a record that another one has taken over, and no event while the store has its commit.
6. At the end the store is empty, and nothing was quarantined.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from attrs import define

from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record, decode, file_name
from cycles._journal.journal import Entry
from cycles._journal.stores.shared import StoreJournal, key_of
from tests.simulation.fleet_parts import Broken as Broken, Clock, Disk as Disk, Ledger, Store

CLAIM_MS: Final = 3_000
TICK_MS: Final = CLAIM_MS // 3
STEPS: Final = 60
WORKERS: Final = 3
URL: Final = "http://fleet.test"


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
        self.started_ms = fleet.clock.ms
        self.take_over(self.journal.pending())

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
            saved = self.journal.put(record)
            self.fleet.note_saved(self, record, saved)
            yield
        while not self.journal.is_taken(record):
            if record.mode == "event" and self.journal.keeps_commit(record):
                self.fleet.note_update(self, record, self.journal.put(record))
                yield
                continue
            self.fleet.note_sent(self, record)
            try:
                response = self.fleet.ledger.send(record)
            except ConnectionError:
                yield
                record = self.journal.load(Entry(file_name(record.reservation_id))) or record
                self.fleet.note_update(self, record, self.journal.put(record))  # the attempt ended
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
            self.fleet.note_update(self, record, self.journal.put(record))
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

    def note_saved(self, worker: Worker, record: Record, saved: PutResult) -> None:
        key = key_of(record.reservation_id)
        if saved is PutResult.SAVED and key not in self.in_store() and f"v2-{key}.json" not in worker.disk.records:
            raise Broken(f"{record.reservation_id} counts as saved, and neither the store nor the disk has it")
        self.saved[key_of(record.reservation_id)] = record
        self.owner_of[key_of(record.reservation_id)] = worker

    def note_update(self, worker: Worker, record: Record, saved: PutResult) -> None:
        key = key_of(record.reservation_id)
        owner, held = self.owner_of.get(key), worker.journal._held.get(key)
        in_store = saved is PutResult.SAVED and held is not None and held.place == "store" and not self.lost_ms
        if in_store and held is not None and held.is_shared:  # unsure of its put, it got the record back by `get`
            self.owner_of[key] = worker
        elif in_store and owner is not None and owner is not worker and key in owner.journal._held:
            raise Broken(f"worker {worker.number} changed {key[:8]}, which worker {owner.number} has claimed")

    def note_claim(self, worker: Worker, key: str) -> None:
        owner = self.owner_of.get(key)
        knows_of_outages = self.clock.ms - worker.started_ms > CLAIM_MS and not worker.is_late
        renews = owner is not None and owner.alive and not owner.is_late and key in owner.tasks
        if owner is not None and owner is not worker and knows_of_outages and renews:
            raise Broken(f"worker {worker.number} claimed {key[:8]} of worker {owner.number}, which renews on time")
        self.owner_of[key] = worker

    def note_sent(self, worker: Worker, record: Record) -> None:
        mode = self.ledger.bodies.get(record.body["idempotency_key"], ("commit", 0))[0]
        if mode == "event" and record.mode == "commit":
            self.trace.append("stale commit")  # harmless: the ledger has the key
        row = self.store._tables.rows.get(("default", key_of(record.reservation_id)))
        is_owner = self.owner_of.get(key_of(record.reservation_id)) is worker and not self.lost_ms
        if row is not None and is_owner and record.mode == "event" and decode(row.record).mode == "commit":
            raise Broken(f"worker {worker.number} sends the event of {record.reservation_id}, and the store its commit")

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
        """Move the clock. Each worker that is alive and not paused ticks when it is due."""
        end = self.clock.ms + ms
        while True:
            running = [worker for worker in self.workers if worker.alive and not worker.paused]
            following = min(running, key=lambda worker: worker.renewed_ms, default=None)
            if following is None or following.renewed_ms + TICK_MS > end:
                break
            self.clock.ms = max(self.clock.ms, following.renewed_ms + TICK_MS)
            following.tick()
        self.clock.ms = end

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

    def in_store(self) -> set[str]:
        """Return the keys of the records that are not settled; the marks of settled ones stay for seven days."""
        return {key for (_, key), row in self.store._tables.rows.items() if decode(row.record).settled is None}

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
            kept = [row.kept for row in self.store._tables.rows.values() if row.kept is not None]
            raise Broken(f"the store has {len(left)} records at the end, {len(kept)} of them kept aside")
        for worker in self.workers:
            if worker.disk.records:
                raise Broken(f"worker {worker.number} has files at the end")


def main(arguments: list[str]) -> int:
    """Simulate as many seeds as the first argument says, and print those that break. Return 1 if one does."""
    seeds = int(arguments[0]) if arguments else 1_000
    broken = {seed: problem for seed in range(seeds) if (problem := run(seed)) is not None}
    for seed, problem in broken.items():
        print(f"seed {seed}: {problem}")
    print(f"{seeds} fleets, {len(broken)} broken")
    return 1 if broken else 0


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
