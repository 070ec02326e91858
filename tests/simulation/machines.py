"""The machines of a run: one, or a fleet that shares a journal store and in which each has its own disk and clock."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from attrs import define, field

from cycles._errors import StoreError
from cycles._journal.stores import store
from cycles._journal.stores.memory import MemoryStore, _Tables
from tests.simulation.hub import Hub, Process
from tests.simulation.swarm import Swarm

CLAIM_MS: Final = 3_000
STORE_TIMEOUT_S: Final = 0.5
OUTAGES: Final = ("disk", "disk", "memory")
FAULTS: Final = ("store outage", "store stalls", "store loses responses", "store is emptied", "machine lost", "pause")
STALLS: Final = 6  # so many operations of a store that stalls may delay one call of a guard
PAUSES_S: Final = (0.5, 5.0, 40.0)  # shorter and longer than a claim


@define
class StoreFaults:
    """What is wrong with the store, as chances from 0 to 1. `emptied` says whether it has ever lost its records."""

    outage: float = 0.0
    stalls: float = 0.0
    loses_responses: float = 0.0
    emptied: bool = False
    has_failed: bool = False
    failed_s: float = -math.inf  # when it failed last


class SimStore(MemoryStore):
    """The store in memory behind a network that fails: before an operation, after it, or long after it was given up."""

    def __init__(self, hub: Hub, swarm: Swarm, random: Random, partition: str = "default") -> None:
        super().__init__(lambda: int(hub.now_s * 1000), partition=partition)
        self.faults = StoreFaults()
        self._hub, self._swarm, self._random = hub, swarm, random

    def bind(self, partition: str, **_: Any) -> SimStore:
        """Return the store of one partition, over the same records and faults."""
        bound = SimStore(self._hub, self._swarm, self._random, partition)
        bound._tables, bound.faults = self._tables, self.faults
        return bound

    @property
    def tables(self) -> _Tables:
        """The rows of all partitions."""
        return self._tables

    def records(self, kept: str | None = None, partition: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the records of all partitions, or of one."""
        for (owner, _), row in sorted(self._tables.rows.items()):
            if row.kept == kept and partition in (None, owner):
                yield json.loads(row.record)

    @property
    def has_lost(self) -> bool:
        """Whether it may not have what a client has put: it has failed, or lost its records."""
        return self.faults.has_failed or self.faults.emptied

    def has(self, key: str) -> bool:
        """Return whether the store has a record."""
        return any(known == key for _, known in self._tables.rows)

    def put(self, items: Any) -> Any:
        return self._operate(lambda: super(SimStore, self).put(items))

    def _put(self, item: Any) -> Any:
        row = self._row(item.key)
        fence = super()._put(item)
        if fence is not None and item.fence != (None if row is None else row.fence):
            self._hub.problems.append(f"the store has saved a record over the fence of another client: {item.key}")
        return fence

    def get(self, keys: Any) -> Any:
        return self._operate(lambda: super(SimStore, self).get(keys))

    def take(self, limit: int, claim_ms: int) -> Any:
        return self._operate(lambda: super(SimStore, self).take(limit, claim_ms))

    def renew(self, items: Any, claim_ms: int) -> Any:
        return self._operate(lambda: super(SimStore, self).renew(items, claim_ms))

    def delete(self, items: Any) -> None:
        self._operate(lambda: super(SimStore, self).delete(items))

    def list(self, after: str = "", limit: int = 1_000, kept: Any = None) -> Any:
        if limit > (page := store.PAGE):
            self._hub.problems.append(f"{limit} records are read in one operation, more than a page of {page}")
        return self._operate(lambda: super(SimStore, self).list(after, limit, kept))

    def _operate(self, operation: Callable[[], Any]) -> Any:
        hub, chance = self._hub, self._random.random
        hub.preempt()
        if self._happens("store outage", self.faults.outage):
            raise StoreError("connection refused")
        if self._happens("store stalls", self.faults.stalls):
            if chance() < 0.5:  # it arrives after its caller has given up
                hub.at(hub.now_s + STORE_TIMEOUT_S + chance() * 10, lambda: self._arrives_late(operation))
            hub.sleep(STORE_TIMEOUT_S)
            raise StoreError("no response in time")
        result = operation()
        hub.preempt()
        if self._happens("store loses responses", self.faults.loses_responses):
            raise StoreError("the response was lost")
        return result

    def _arrives_late(self, operation: Callable[[], Any]) -> None:
        lock: Any = self._tables.lock
        if not lock.locked():
            operation()

    def _happens(self, feature: str, chance: float) -> bool:
        if chance and self._random.random() < chance:
            self._swarm.matters(feature)
            self.faults.has_failed, self.faults.failed_s = True, self._hub.now_s
            return True
        return False


@define(eq=False)
class Machine:
    """A machine: the folder of its journals, and its wall clock. `lost` says whether its disk was ever lost."""

    name: str
    folder: Path
    wall_offset_s: float = 0.0
    lost: bool = False
    processes: list[Process] = field(factory=list)


class Machines:
    """The machines of a run, and the store that a fleet shares.

    Args:
        hub: Where they run.
        swarm: The features of the run.
        root: The folder of all journals.
    """

    def __init__(self, hub: Hub, swarm: Swarm, root: Path) -> None:
        self._hub = hub
        self._swarm = swarm
        self._root = root
        self._random = Random(f"machines {hub.seed}")
        self.store = SimStore(hub, swarm, self._random) if "fleet" in swarm else None
        self.outage = self._random.choice(OUTAGES)
        count = self._random.choice((2, 3)) if self.store is not None else 1
        self.all = [self._made(f"machine {number}", number) for number in range(count)]
        self.lost: list[Machine] = []
        self.paused: set[Process] = set()  # at any time
        self._pauses: list[Process] = []  # one item for each pause that is not over

    def _made(self, name: str, number: int) -> Machine:
        folder = self._root if self.store is None else self._root / f"disk-{number}"
        offset_s = self._random.choice((0.0, -3.0, 2.0, 3600.0)) if "clocks differ" in self._swarm else 0.0
        if offset_s:
            self._swarm.matters("clocks differ")
        return Machine(name, folder, offset_s)

    @property
    def keeps_in_memory(self) -> bool:
        """Whether the store has failed, and what it did not take was in memory only: `journal_outage="memory"`."""
        return self.store is not None and self.outage == "memory" and self.store.faults.has_failed

    def choose(self) -> Machine:
        """Return the machine of the next program."""
        if self.store is not None:
            self._swarm.matters("fleet")
        return self._random.choice(self.all) if len(self.all) > 1 else self.all[0]

    def of(self, process: Process) -> Machine:
        """Return the machine of a process."""
        return next(each for each in (*self.all, *self.lost) if process in each.processes)

    def add(self, process: Process, machine: Machine) -> None:
        """Let a process run on a machine, with its clock."""
        machine.processes.append(process)
        process.wall_offset_s = machine.wall_offset_s

    def settings(self, machine: Machine) -> dict[str, Any]:
        """Return the settings of a client on a machine."""
        settings: dict[str, Any] = {"journal_dir": str(machine.folder)}
        if self.store is not None:
            settings |= {"journal_store": self.store, "journal_claim_ms": CLAIM_MS, "journal_outage": self.outage}
            settings |= {"journal_store_timeout": STORE_TIMEOUT_S}
        return settings

    def plan(
        self,
        at: Callable[[float, Callable[[], None]], None],
        lose: Callable[[Machine], None],
        emptied: Callable[[], None],
    ) -> bool:
        """Plan the faults of the store and the machines. Return whether there are any.

        Args:
            at: Plans an action after some seconds.
            lose: Kills the programs of a machine whose disk is lost.
            emptied: Called when the store is going to lose its records.
        """
        if self.store is None:
            return False
        random, faults = self._random, self.store.faults
        for name, member in (
            ("store outage", "outage"),
            ("store stalls", "stalls"),
            ("store loses responses", "loses_responses"),
        ):
            if name in self._swarm:
                chance = min(0.9, random.choice((0.1, 0.3, 1.0)) * self._swarm.weight(name))
                begin_s, length_s = random.random() * 20, random.choice((0.6, 4.0, 30.0))
                at(begin_s, lambda member=member, chance=chance: setattr(faults, member, chance))  # type: ignore[misc]
                at(begin_s + length_s, lambda member=member: setattr(faults, member, 0.0))  # type: ignore[misc]
        if "store stalls" in self._swarm:
            self._hub.slow_s += STALLS * STORE_TIMEOUT_S
        if "store is emptied" in self._swarm:
            at(random.random() * 30, lambda: self._empty(emptied))
        if "machine lost" in self._swarm:
            at(random.random() * 30, lambda: lose(random.choice(self.all)))
        if "pause" in self._swarm:
            for _ in range(random.choice((1, 2, 4))):
                at(random.random() * 30, self._pause_one)
        return any(name in self._swarm for name in FAULTS)

    def end_faults(self) -> None:
        """Let the store respond, and paused processes continue."""
        if self.store is not None:
            faults = self.store.faults
            faults.outage = faults.stalls = faults.loses_responses = 0.0
        for process in list(self._pauses):
            self._resume(process)

    def _empty(self, emptied: Callable[[], None]) -> None:
        assert self.store is not None
        lock: Any = self.store.tables.lock
        if self.store.tables.rows and not lock.locked():
            self._swarm.matters("store is emptied")
            self._hub.trace(f"the store loses {len(self.store.tables.rows)} records")
            self.store.faults.emptied = True
            emptied()
            self.store.tables.rows.clear()

    def _pause_one(self) -> None:
        running = [process for each in self.all for process in each.processes if process.alive]
        if running:
            process, length_s = self._random.choice(running), self._random.choice(PAUSES_S)
            self._swarm.matters("pause")
            self._hub.trace(f"{process.name} is paused for {length_s} s")
            self.paused.add(process)
            self._pauses.append(process)
            process.pause()
            self._hub.at(self._hub.now_s + length_s, lambda: self._resume(process))

    def _resume(self, process: Process) -> None:
        if process in self._pauses:
            self._pauses.remove(process)
            process.resume()

    def replace(self, machine: Machine) -> None:
        """Replace a machine whose disk is lost by another one."""
        self._swarm.matters("machine lost")
        self._hub.trace(f"{machine.name} and its disk are lost")
        machine.lost = True
        self.all.remove(machine)
        self.lost.append(machine)
        number = len(self.all) + len(self.lost)
        self.all.append(self._made(f"machine {number}", number))
