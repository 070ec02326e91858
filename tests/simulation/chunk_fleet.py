"""Simulate one chunk of a pool that several workers know: one seed decides every order, loss, pause and kill.

The journal of each worker, the rules of settlements and the flow that sends them are the real ones, over the store in
memory. The flow is suspended at each of its operations, so that the steps of workers interleave. Simulated are the
clock, the disks, the processes and the ledger. `run(seed)` returns what broke, or None.

The owner spends, puts the sum of its chunk, and ends it. In between responses of the store and of the server are lost,
puts arrive late, workers are paused for longer than a claim, killed and started again on the same disk or on another
one, the lease expires, and the store loses the record once. With `outages=True` all operations of the store may fail,
requests arrive after their sender has given up, and workers claim without a renewal before.

Invariants: the ledger has exactly what was spent; after a lost disk, at least what a put had acknowledged. It never has
more. An owner commits no open chunk. Nothing is rejected, and nothing is left in the end. After the store has lost the
record no amount is lost as long as no worker dies, but a part may be charged twice.
"""

from __future__ import annotations

import random
import sys
import types
from collections.abc import Coroutine, Generator
from typing import Any, Final

from attrs import define, field

from cycles._core.messages.outcome import Outcome, RejectedResponse, Success, Unreachable
from cycles._core.messages.requests import Call
from cycles._core.pool.chunk_record import ChunkHeader, chunk_record
from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record
from cycles._core.settlement.settlement import Rejected, Settled, SettlementOutcome, Taken, Unresolved
from cycles._core.subjects import Action, Subject
from cycles._errors import StoreError
from cycles._flows.io import Clock as IoClock
from cycles._flows.settle import attempt, rest_of
from cycles._journal.journal import Entry
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.shared import StoreJournal, key_of
from cycles._journal.stores.store import Put, pages
from tests.simulation.fleet_parts import Broken as Broken, Clock, Disk, Store

CLAIM_MS: Final = 3_000
STEPS: Final = 90
WORKERS: Final = 3
ROUNDS: Final = 80  # of the end, in which everything works again
WEIGHTS: Final = (10, 10, 30, 12, 14, 4, 5, 3, 2, 4, 1, 1, 2, 0, 0)  # of the events of `ChunkFleet.happen`
OUTAGE_WEIGHTS: Final = (8, 8, 40, 12, 14, 8, 3, 2, 2, 4, 1, 0, 6, 4, 3)
CHUNK: Final = "chunk"
DAYS_MS: Final = 8 * 86_400_000
HEADER: Final = ChunkHeader(
    CHUNK,
    "http://fleet.test",
    "TOKENS",
    1_000,
    "key",
    Subject(tenant="acme"),
    Action("a", "b"),
    None,
    {"pool_chunk": 1},
)
DETAIL: Final = {
    "reservation_id": CHUNK,
    "subject": {"tenant": "acme"},
    "action": {"kind": "a", "name": "b"},
    "reserved": {"unit": "TOKENS", "amount": 1_000},
    "created_at_ms": 1,
    "expires_at_ms": 2,
    "scope_path": "tenant:acme",
    "affected_scopes": ["tenant:acme"],
}


@define
class Ledger:
    """A server with one reservation. An event key and a commit are charged once."""

    up: bool = True
    expired: bool = False
    committed: tuple[str, int] | None = None
    events: dict[str, int] = field(factory=dict)

    @property
    def charged(self) -> int:
        return sum(self.events.values()) + (0 if self.committed is None else self.committed[1])

    def send(self, call: Call) -> Outcome:
        if not self.up:
            return Unreachable("the server is down", sent=False)
        if call.body is None:
            amount = None if self.committed is None else {"unit": "TOKENS", "amount": self.committed[1]}
            status = "COMMITTED" if amount else "ACTIVE"
            return _success({**DETAIL, "status": status, "committed": amount})
        key, amount = call.body["idempotency_key"], call.body["actual"]["amount"]
        if "subject" in call.body:
            if self.events.setdefault(key, amount) != amount:
                return _error(409, "IDEMPOTENCY_MISMATCH")
            return _success({"status": "APPLIED", "event_id": key}, 201)
        if self.committed is None and self.expired:
            return _error(410, "RESERVATION_EXPIRED")
        self.committed = self.committed or (key, amount)
        if self.committed != (key, amount):
            return _error(409, "IDEMPOTENCY_MISMATCH")
        return _success({"status": "COMMITTED", "charged": {"unit": "TOKENS", "amount": amount}})


def _success(body: dict[str, Any], status: int = 200) -> Success:
    return Success(body, "request", None, None, 0.0, b"{}", status)


def _error(status: int, code: str) -> RejectedResponse:
    return RejectedResponse(status, code, code)


class LateStore(Store):
    """A store whose puts may arrive without a response, not arrive, or arrive later."""

    def __init__(self, clock: Clock, rng: random.Random) -> None:
        super().__init__(clock)
        self._rng = rng
        self.lossy = 0.0
        self.outages = False
        self.late: list[tuple[Put, ...]] = []

    def put(self, items: Any) -> Any:
        if self._rng.random() >= self.lossy:
            return MemoryStore.put(self, items)
        fate = self._rng.choice(("no response", "lost", "late"))
        if fate == "no response":
            MemoryStore.put(self, items)
        elif fate == "late":
            self.late.append(tuple(items))
        raise StoreError(f"put: {fate}")

    def _answered(self, result: Any) -> Any:
        if self.outages and self._rng.random() < self.lossy:
            raise StoreError("no response")
        return result

    def arrive(self) -> None:
        """Carry out one of the late puts."""
        if self.late:
            items = self.late.pop(self._rng.randrange(len(self.late)))
            MemoryStore.put(self, items)

    def lose(self, key: str) -> bool:
        """Lose one record, as a failover does. Return whether the store had it."""
        return self._tables.rows.pop((self._partition, key), None) is not None


class ChunkDisk(Disk):
    """The files of a worker, with the log of its chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.log: int | None = None


@types.coroutine
def _suspend() -> Generator[None, None, None]:
    yield


class SteppedIo:
    """The operations of `attempt`, each of which is a step of the simulation."""

    rejected_hint = ""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        clock = worker.fleet.clock
        self.clock = IoClock(lambda: float(clock.ms), clock.wall_ms, lambda: float(clock.ms), worker.fleet.rng.random)

    async def send(self, call: Call) -> Outcome:
        await _suspend()
        if self._worker.owns and call.body is not None and "subject" not in call.body:
            raise Broken("the owner commits its chunk, which is open")
        fleet = self._worker.fleet
        if fleet.outages and fleet.loses_response():
            fleet.late_requests.append(call)
            await _suspend()
            return Unreachable("no response yet")
        outcome = fleet.ledger.send(call)
        await _suspend()
        if fleet.loses_response():
            return Unreachable("the response was lost")
        return outcome

    async def put(self, record: Record) -> PutResult:
        await _suspend()
        return self._worker.journal.put(record)

    async def finish(self, record: Record, result: SettlementOutcome | None) -> None:
        await _suspend()
        if isinstance(result, Rejected):
            self._worker.fleet.note_rejected(record, result)
        if isinstance(result, Taken):
            self._worker.journal.leave(record)
        if isinstance(result, Settled):
            self._worker.journal.delete(record)
            self._worker.journal.settle_finished()

    async def pending(self, reservation_id: str) -> Record | None:
        return self._worker.journal.taken_by_another(reservation_id)

    def report(self, name: str, ids: object = None, **members: Any) -> None:
        """Drop the event."""

    def is_enabled_for(self, level: int) -> bool:
        return False


class Worker:
    """One process: its journal, its chunk if it is the owner, and the settlements that it works on."""

    def __init__(self, fleet: ChunkFleet, disk: ChunkDisk, *, owns: bool = False) -> None:
        self.fleet = fleet
        self.disk = disk
        self.paused = False
        self.owns = owns  # the chunk, which is open
        self.spent = 0
        self.tasks: dict[str, Coroutine[Any, Any, None]] = {}
        self.journal = StoreJournal(
            fleet.store,
            disk,  # type: ignore[arg-type]
            claim_ms=CLAIM_MS,
            timeout_s=0.5,
            outage="disk",
            report=lambda issue: None,
            clock=fleet.clock.monotonic_s,
            wall_ms=fleet.clock.wall_ms,
        )
        if not owns and disk.log is not None:  # as a start recovers the log of a dead process
            disk.save(self._record(disk.log))
            disk.log = None
        self.take_over(self.journal.pending())

    def _record(self, spent: int) -> Record:
        return chunk_record(HEADER, spent, {}, {"pool_calls": 1}, self.fleet.clock.ms)

    def take_over(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry[3:-5] not in self.tasks:
                self.tasks[entry[3:-5]] = self._settle_entry(entry)

    def spend(self, amount: int) -> None:
        self.spent += amount
        self.disk.log = self.spent  # before the commit of the guard returns
        self.fleet.spent = self.spent

    def checkpoint(self) -> None:
        if self.spent and self.journal.checkpoint(self._record(self.spent)):
            self.fleet.acknowledged = self.spent

    def end_chunk(self) -> None:
        """Seal the chunk, as `pool_chunks.settle` does."""
        self.owns = False
        if self.spent:
            self.tasks[CHUNK] = self._end(self._record(self.spent))

    async def _end(self, record: Record) -> None:
        io: Any = SteppedIo(self)
        result = await io.put(record)
        if result is PutResult.TAKEN:
            rest = await rest_of(io, record)
            self.disk.log = None
            if rest is not None:
                await self._settle(rest)
            return
        if result is PutResult.SAVED:
            self.disk.log = None
        await self._settle(record)
        self.disk.log = None

    async def _settle_entry(self, entry: Entry) -> None:
        record = self.journal.load(entry)
        if record is not None and record.settled is not None:
            raise Broken("a settled record is sent")
        if record is not None:
            await self._settle(record, found=True)

    async def _settle(self, record: Record, *, found: bool = False) -> None:
        io: Any = SteppedIo(self)
        is_saved = not (found and record.replaces_commit)
        while True:
            if self.journal.is_taken(record):
                rest = await rest_of(io, record)
                if rest is None:
                    return
                record = rest
            latest, result = await attempt(io, record, None, found=found, is_saved=is_saved)
            if not isinstance(result, Unresolved):
                await io.finish(latest, result)
                return
            record, is_saved = latest, result.is_saved
            await _suspend()

    def step(self, rng: random.Random) -> None:
        if self.tasks:
            key = rng.choice(sorted(self.tasks))
            try:
                self.tasks[key].send(None)
            except StopIteration:
                del self.tasks[key]

    def tick(self) -> None:
        self.take_over(self.journal.tick(64))

    def stop(self) -> None:
        for task in self.tasks.values():
            task.close()


class ChunkFleet:
    """The whole system of one seed."""

    def __init__(self, seed: int, others: int = 0, *, outages: bool = False) -> None:
        self.rng = random.Random(seed)
        self.outages = outages
        self.late_requests: list[Call] = []
        self.clock = Clock()
        self.ledger = Ledger()
        self.store = LateStore(self.clock, self.rng)
        self.store.put([Put(f"{number:064x}", b"{}", None, 20 * DAYS_MS) for number in range(others)])
        self.store.outages = outages
        self.others = others
        self.loses = 0.0
        self.spent = 0
        self.acknowledged = 0
        self.lost_disk = False
        self.lost_record = False
        self.rejected = 0
        self.killed = False
        disks = [ChunkDisk() for _ in range(WORKERS)]
        self.workers = [Worker(self, disk, owns=number == 0) for number, disk in enumerate(disks)]

    def note_rejected(self, record: Record, result: Rejected) -> None:
        if not self.lost_record:
            raise Broken(f"{record.body} was rejected: {result.reason}")
        self.rejected += record.body["actual"]["amount"]

    def loses_response(self) -> bool:
        return self.rng.random() < self.loses

    def happen(self) -> None:
        rng = self.rng
        worker = rng.choice(self.workers)
        event = rng.choices(
            (
                "spend",
                "put",
                "step",
                "time",
                "tick",
                "lossy",
                "arrive",
                "server",
                "kill",
                "pause",
                "expire",
                "lose",
                "end",
                "claim",
                "deliver",
            ),
            OUTAGE_WEIGHTS if self.outages else WEIGHTS,
        )[0]
        owner = next((each for each in self.workers if each.owns and not each.paused), None)
        if event in ("spend", "put", "end"):
            if owner is not None and event == "spend":
                owner.spend(rng.randint(1, 9))
            elif owner is not None:
                owner.checkpoint() if event == "put" else owner.end_chunk()
        elif event == "time":
            self.clock.ms += rng.choice((300, 1_000, CLAIM_MS + 1))
        elif event == "lossy":
            self.store.lossy, self.loses = rng.choice((0.0, 0.5)), rng.choice((0.0, 0.3))
        elif event == "arrive":
            self.store.arrive()
        elif event == "server":
            self.ledger.up = not self.ledger.up
        elif event == "deliver":
            self.deliver()
        elif event == "kill":
            self.kill(worker)
        elif event == "pause":
            worker.paused = not worker.paused
        elif event == "expire":
            self.ledger.expired = True
        elif event == "lose":
            self.lost_record = self.store.lose(key_of(CHUNK)) or self.lost_record
        elif not worker.paused and event == "claim":
            worker.take_over(worker.journal.claim(16))
        elif not worker.paused:
            worker.step(rng) if event == "step" else worker.tick()

    def deliver(self) -> None:
        """Let the server receive a request whose sender has given up."""
        if self.late_requests:
            self.ledger.send(self.late_requests.pop(self.rng.randrange(len(self.late_requests))))

    def kill(self, worker: Worker) -> None:
        """Kill a process. Its disk is lost or not; another process starts in its place."""
        worker.stop()
        self.killed = True
        disk = worker.disk
        if self.rng.random() < 0.4:
            disk = ChunkDisk()
            self.lost_disk = True
        self.workers[self.workers.index(worker)] = Worker(self, disk)

    def settle_all(self) -> None:
        """Let everything work again, and give the fleet time to settle what is left."""
        self.store.lossy = self.loses = 0.0
        self.ledger.up = True
        for worker in self.workers:
            worker.paused = False
        for number in range(ROUNDS):
            self.clock.ms += 700
            if number == 10:
                for worker in self.workers:
                    if worker.owns:
                        worker.end_chunk()
            if number < 40:
                self.store.arrive()
                self.deliver()
            for worker in self.workers:
                worker.tick()
                for _ in range(8):
                    worker.step(self.rng)

    def check(self) -> None:
        charged = self.ledger.charged
        if self.lost_record:  # then two clients may charge one part, or a part is kept as rejected; none is lost
            if not self.killed and charged + self.rejected < self.spent:
                raise Broken(f"{charged} is charged of {self.spent}, and {self.rejected} is rejected")
            return
        if charged > self.spent:
            raise Broken(f"{charged} is charged of {self.spent}")
        least = self.acknowledged if self.lost_disk else self.spent
        if charged < least:
            raise Broken(f"{charged} is charged of {self.spent}, and {least} was saved")
        found = [stored for stored in pages(self.store) if stored.record != b"{}"]
        left = [stored for stored in found if b'"settled":' not in stored.record]
        if left or any(worker.tasks for worker in self.workers):
            raise Broken(f"{len(left)} records are left in the store, and something works on")
        self.clock.ms += DAYS_MS
        for _ in range(3):
            for worker in self.workers:
                worker.tick()
        ended = sum(1 for _ in pages(self.store)) - self.others
        if ended:
            raise Broken(f"{ended} records stay for ever")


def run(seed: int, others: int = 0, *, outages: bool = False) -> str | None:
    """Simulate one seed, with other records in the store. Return what broke, or None."""
    fleet = ChunkFleet(seed, others, outages=outages)
    try:
        for _ in range(STEPS):
            fleet.happen()
        fleet.settle_all()
        fleet.check()
    except Broken as broken:
        return str(broken)
    finally:
        for worker in fleet.workers:
            worker.stop()
    return None


def main(arguments: list[str]) -> int:
    """Simulate as many seeds as the first argument says, and print those that break. Return 1 if one does."""
    seeds = int(arguments[0]) if arguments else 2_000
    kinds = ((seed, outages) for seed in range(seeds) for outages in (False, True))
    broken = {kind: problem for kind in kinds if (problem := run(kind[0], outages=kind[1])) is not None}
    for (seed, outages), problem in broken.items():
        print(f"seed {seed}{' with outages' if outages else ''}: {problem}")
    print(f"{2 * seeds} chunks, {len(broken)} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
