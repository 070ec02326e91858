"""What goes wrong in a run: the network, the disk, the clock, the server, the processes and the power."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from attrs import define

from tests.simulation.disk import CALLS, GIVEN_UP_S, HANGS, DiskFaults, SimOs
from tests.simulation.hub import Hub
from tests.simulation.network import NETWORK, Faults
from tests.simulation.server import SimServer
from tests.simulation.swarm import Swarm

DAY_S: Final = 86_400.0
SERVER_MOVES_S: Final = (-20.0, -2.0, 2.0, 45.0, 3600.0)
HUNG_CALLS: Final = (
    6  # so many calls of a hanging disk, each of which the journal gives up, may delay one call of a guard
)
MOST: Final = 0.8  # the largest chance of a fault, so that some attempts succeed
BACKUP_AGES_S: Final = (1.0, 5.0, 15.0)  # of a copy of the ledger when its server stops
FOREIGN: Final = {
    "README.txt": b"not a record",
    "v2-" + "0" * 64 + ".json": b"{}",
    "v2-" + "1" * 64 + ".json": b"\x00\xff torn",
    "spend-foreign.log": b"short",
    "v1-old.json": b'{"version": 1}',
}
"""Files that other programs, or other versions, left in the folder of a journal."""


@define
class Actions:
    """What a fault may do with the programs of a run."""

    kill_one: Callable[[], None]
    fork_one: Callable[[], None]
    lose_power: Callable[[], None]


class SeededFaults:
    """The faults of one seed.

    Args:
        hub: The machine.
        swarm: The features of the run.
        server: The server and its network.
        disk: The disk of the journals.
        actions: What happens to programs.
    """

    def __init__(self, hub: Hub, swarm: Swarm, server: SimServer, disk: SimOs, actions: Actions) -> None:
        self._hub = hub
        self._swarm = swarm
        self._server = server
        self._disk = disk
        self._actions = actions
        self._ages = Random(f"backup {hub.seed}")  # drawn apart, so that the runs of all other seeds stay as they are
        self.calm = False  # planned faults do not happen any more
        self.has_faults = False
        self.was_suspended = False
        self.disk_fails = False
        self.no_threads = False  # of the SDK can be started
        self.lacked_threads = False

    def begin(self, *, durable: bool, lossy: bool) -> None:
        """Choose the faults of the network and the disk, and plan the others.

        Args:
            durable: Whether clients write so that a loss of power loses no record.
            lossy: Whether many responses are lost, so that much is pending at the end.
        """
        self._choose_network(self._hub.random)
        if lossy:
            self._server.faults.lost_response = 0.6
            self.has_faults = True
        self._choose_disk(self._hub.random)
        self._choose_server()
        self._choose_later()
        self._plan(self._hub.random, durable=durable)

    def end(self) -> None:
        """End all faults."""
        self.calm = True
        self.no_threads = False
        self._server.faults = Faults()
        self._disk.faults = DiskFaults()
        self._server.revoked_until_s = 0.0
        self._start_server()
        self._hub.trace("all faults end")

    def _choose_network(self, random: Random) -> None:
        level = random.choice((0.0, 0.03, 0.15, 0.4))
        drawn = random.sample(NETWORK, random.randrange(len(NETWORK) + 1))
        chosen = [name for name in drawn if name in self._swarm]
        chances: dict[str, Any] = {name: min(level * self._swarm.weight(name), MOST) for name in chosen}
        self._server.faults = Faults(delay_s=random.choice((0.001, 0.02, 0.4)), **chances)
        self.has_faults = bool(chosen) and level > 0
        self._hub.trace(f"network: {', '.join(chosen) or 'no faults'} at {level}")

    def _choose_server(self) -> None:
        """Choose what proxies in between, an operator and the server's machine do."""
        apart, swarm, faults = Random(f"server faults {self._hub.seed}"), self._swarm, self._server.faults
        faults.no_remaining_ttl = "no remaining ttl" in swarm
        faults.pages = min(MOST, apart.choice((0.0, 0.1, 0.3)) * swarm.weight("pages"))
        self.has_faults |= faults.pages > 0
        begin_s, length_s = apart.random() * 20, apart.choice((0.5, 10.0))
        if "revoked key" in swarm:
            self.has_faults = True
            self.at(begin_s, lambda: setattr(self._server, "revoked_until_s", self._hub.now_s + length_s))
        if "server clock" in swarm:
            for _ in range(apart.choice((1, 2))):
                self.has_faults = True
                moves_s = apart.choice(SERVER_MOVES_S)
                self.at(apart.random() * 30, partial(self._server.move_clock, moves_s))

    def _choose_later(self) -> None:
        """Choose when no thread can be started, and when the clock is set while amounts are pending."""
        apart = Random(f"later faults {self._hub.seed}")
        if "no threads" in self._swarm:
            self.has_faults = True
            begin_s, length_s = apart.choice((0.0, apart.random() * 10)), apart.choice((1.0, 20.0, 60.0))
            self.at(begin_s, lambda: self._set_no_threads(on=True))
            self._hub.at(self._hub.now_s + begin_s + length_s, lambda: self._set_no_threads(on=False))
        if "clock set in an outage" in self._swarm:
            begin_s = apart.random() * 15
            self.at(begin_s, self._stop_server)
            self.at(begin_s + apart.random() * 20, self._set_clock)
            self._hub.at(self._hub.now_s + begin_s + 30.0, self._start_server)

        if self._swarm.late_chunks:
            self.has_faults = True
            self._set_no_threads(on=True)
            self._hub.at(self._hub.now_s + 60.0, lambda: self._set_no_threads(on=False))
        if "closed tenant" in self._swarm:
            self.has_faults = True
            self.at(Random(f"closed tenant {self._hub.seed}").random() * 30, self._server.close_tenant)

    def _set_no_threads(self, *, on: bool) -> None:
        self.no_threads = on
        self.lacked_threads |= on
        self._hub.trace(f"{'no' if on else 'each'} thread of the SDK can be started")

    def _set_clock(self) -> None:
        self._swarm.matters("clock set in an outage")
        self._hub.wall_offset_s += 8 * DAY_S
        self._hub.trace("the wall clock is set by 8 days")

    def _choose_disk(self, random: Random) -> None:
        if random.random() < 0.2 * self._swarm.weight("disk fails"):
            kind = random.choice(("full", "torn", "read_only"))
            self.disk_fails = self.has_faults = True
            setattr(self._disk.faults, kind, True if kind == "read_only" else random.choice((0.1, 1.0)))
            self._hub.trace(f"disk: {kind}")
        apart = Random(f"calls of the disk {self._hub.seed}")
        for name in (*CALLS, "short writes", HANGS):
            chance = min(MOST, apart.choice((0.0, 0.02, 0.2)) * self._swarm.weight(name))
            if chance:
                self._hub.trace(f"disk: {name} at {chance}")
                if name == "short writes":
                    self._disk.faults.short = chance
                    continue
                self.disk_fails = self.has_faults = True
                if name == HANGS:
                    self._disk.faults.hangs = chance / 10
                    self._hub.slow_s = HUNG_CALLS * GIVEN_UP_S
                else:
                    self._disk.faults.calls[name] = chance

    def _plan(self, random: Random, *, durable: bool) -> None:
        stops = random.choice((0, 0, 1, 2))
        for _ in range(stops if "server stops" in self._swarm else 0):
            at, restore = random.random() * 40, random.random() < 0.3 * self._swarm.weight("backup restored")
            if restore:
                at /= 4  # most reservations begin early, and what they hold is lost only if they are in use
                self.at(at - self._ages.choice(BACKUP_AGES_S), self._server.backup)
            self.at(at, self._stop_server)
            start = self._restore_server if restore else self._start_server
            self._hub.at(self._hub.now_s + at + random.choice((0.1, 3.0, 60.0)), start)
        if random.random() < 0.4 * self._swarm.weight("kill"):
            for _ in range(random.choice((1, 2))):
                self.at(random.random() * 40, self._actions.kill_one)
        weight = self._swarm.weight
        if random.random() < 0.2 * weight("kill between steps"):  # for example between two file calls of a thread
            is_power = durable and random.random() < 0.3 * weight("power loss")
            self._hub.after(random.randrange(1, 800), self._unless_calm(partial(self._between_steps, is_power)))
        if random.random() < 0.2 * weight("clock jump"):
            self.at(random.random() * 30, self._jump_clock)
        if random.random() < 0.1 * weight("suspension"):
            self.at(random.random() * 30, self._suspend)
        if random.random() < 0.15 * weight("fork"):
            self.at(random.random() * 20, self._actions.fork_one)
        if durable and random.random() < 0.5 * weight("power loss"):
            self.at(random.random() * 30, self._actions.lose_power)

    def at(self, after_s: float, action: Callable[[], None]) -> None:
        """Plan a fault; it does not happen once faults have ended."""
        self._hub.at(self._hub.now_s + after_s, self._unless_calm(action))

    def _unless_calm(self, action: Callable[[], None]) -> Callable[[], None]:
        def act() -> None:
            if not self.calm:
                action()

        return act

    def _between_steps(self, is_power: bool) -> None:
        self._swarm.matters("kill between steps")
        (self._actions.lose_power if is_power else self._actions.kill_one)()

    def _stop_server(self) -> None:
        if self._server.up:
            self._swarm.matters("server stops")
            self.has_faults = True
            self._hub.trace("the server stops")
            self._server.stop()

    def _start_server(self) -> None:
        if not self._server.up:
            self._server.start(restore=False)

    def _restore_server(self) -> None:
        if not self._server.up:
            self._server.start(restore=True)

    def _jump_clock(self) -> None:
        jump = self._hub.random.choice((-3600.0, -1.0, 1.0, 3600.0, 8 * DAY_S))
        self._hub.wall_offset_s += jump
        self._swarm.matters("clock jump")
        self._hub.trace(f"the wall clock jumps by {jump} s")

    def _suspend(self) -> None:
        self.has_faults = self.was_suspended = True
        self._hub.suspend(90.0)
        self._swarm.matters("suspension")
        self._hub.trace("the machine is suspended for 90 s")


def leave_foreign_files(folder: Path) -> None:
    """Put files that are no records into the folder of a journal."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FOREIGN.items():
        (folder / name).write_bytes(content)


def missing_foreign_files(folder: Path) -> list[str]:
    """Return the names of those that are there no longer, under their names or as quarantined files."""
    found = [path for path in folder.iterdir() if path.is_file()]
    return [
        name
        for name, content in FOREIGN.items()
        if not any(path.name.startswith(name) and path.read_bytes() == content for path in found)
    ]
