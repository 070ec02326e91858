"""One run: the machine, a server, programs and faults, and the checks of what must hold."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cycles._core.records import file_name
from cycles._core.settlement_rules import MAY_BE_CHARGED
from tests.simulation import disk as disks, network
from tests.simulation.hub import Hub
from tests.simulation.network import Faults, SimServer, amount
from tests.simulation.uses import ASYNC, SYNC
from tests.simulation.workload import BUDGET, Op, Program, client_of

MAX_OPS: Final = 60
COMMIT: Final = re.compile(r"/v1/reservations/([^/]+)/commit")
QUIET_S: Final = 4 * 3600.0  # virtual time without faults in which everything must be settled


class SimulatedRun:
    """One run: the machine, a server, a few programs and the faults of its seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.hub = Hub(seed)
        self.folder = folder
        self.ops: list[Op] = []
        self.problems: list[str] = []
        self.programs: list[Program] = []
        self.disk = disks.SimOs(self.hub)
        self.exempt = 0
        self.disk_fails = False
        self.sent: set[str] = set()  # reservations whose commit was sent
        self.has_faults = False
        self.restarts = 0  # programs that start again soon
        self.calm = False  # planned faults do not happen any more
        self.server: SimServer

    def run(self) -> None:
        """Run the programs with faults, then without, and check the ledger."""
        budgets = {"tenant:acme": amount(10_000_000)}
        budgets |= {f"tenant:acme/agent:op{n}": amount(BUDGET) for n in range(MAX_OPS)}
        with _patched([*network.patches(self), *disks.patches(self.disk)]):
            self.server = SimServer(self.hub, budgets)
            self._set_faults()
            for _ in range(self.hub.random.choice((1, 1, 2, 3))):
                self._start_program()
            self._plan_faults()
            self.hub.run(self._programs_ended, deadline_s=self.hub.now_s + 900)
            self._end_faults()
            self._check_close()
            self._sweep()
            self._check_ledger()

    # --- the faults of a seed -------------------------------------------------------------------------------

    def _set_faults(self) -> None:
        random = self.hub.random
        level = random.choice((0.0, 0.03, 0.15, 0.4))
        names = ("lost_request", "lost_response", "duplicate", "hostile", "truncated", "refused", "slow")
        chosen = random.sample(names, random.randrange(len(names) + 1))
        chances = dict.fromkeys(chosen, level)
        self.server.faults = Faults(delay_s=random.choice((0.001, 0.02, 0.4)), **chances)
        self.has_faults = bool(chosen) and level > 0
        self.hub.trace(f"network: {', '.join(chosen) or 'no faults'} at {level}")
        if random.random() < 0.2:
            kind = random.choice(("full", "torn", "read_only"))
            self.disk_fails = self.has_faults = True
            setattr(self.disk.faults, kind, True if kind == "read_only" else random.choice((0.1, 1.0)))
            self.hub.trace(f"disk: {kind}")

    def _plan_faults(self) -> None:
        random, hub = self.hub.random, self.hub
        for _ in range(random.choice((0, 0, 1, 2))):
            at, restore = hub.now_s + random.random() * 40, random.random() < 0.3
            hub.at(at, self._stop_server)
            if restore:
                hub.at(at - 1.0, self.server.backup)
            start = self._restore_server if restore else self._start_server
            hub.at(at + random.choice((0.1, 3.0, 60.0)), start)
        if random.random() < 0.4:
            for _ in range(random.choice((1, 2))):
                hub.at(hub.now_s + random.random() * 40, self._kill_one)
        if random.random() < 0.2:
            hub.at(hub.now_s + random.random() * 30, self._jump_clock)
        if random.random() < 0.1:
            hub.at(hub.now_s + random.random() * 30, self._suspend)

    def _stop_server(self) -> None:
        if self.server.up and not self.calm:
            self.has_faults = True
            self.hub.trace("the server stops")
            self.server.stop()

    def _start_server(self) -> None:
        if not self.server.up:
            self.server.start(restore=False)

    def _restore_server(self) -> None:
        if not self.server.up:
            self.server.start(restore=True)

    def _kill_one(self) -> None:
        alive = [program for program in self.programs if program.process.alive and not program.finished]
        if alive and not self.calm:
            self.has_faults = True
            self._kill(self.hub.random.choice(alive))
            if self.hub.random.random() < 0.6:
                self.restarts += 1
                self.hub.at(self.hub.now_s + self.hub.random.random() * 10, self._restart_program)

    def _kill(self, program: Program) -> None:
        program.process.kill()
        saved = self._agents_of("v2-*.json")
        for op in self.ops:
            if op.process is program.process and not op.ended:
                op.killed = True
                op.saved = op.agent in saved

    def _restart_program(self) -> None:
        self.restarts -= 1
        self._start_program()

    def _jump_clock(self) -> None:
        jump = self.hub.random.choice((-3600.0, -1.0, 1.0, 3600.0))
        self.hub.wall_offset_s += jump
        self.hub.trace(f"the wall clock jumps by {jump} s")

    def _suspend(self) -> None:
        self.has_faults = True
        self.hub.now_s += 90.0
        self.hub.trace("the machine is suspended for 90 s")

    def _end_faults(self) -> None:
        self.calm = True
        self.server.faults = Faults()
        self.disk.faults = disks.DiskFaults()
        self._start_server()
        self.hub.trace("all faults end")

    # --- programs -------------------------------------------------------------------------------------------

    def _start_program(self) -> None:
        random = self.hub.random
        process = self.hub.process(f"program {len(self.programs)}")
        program = Program(self.hub, self.server, process, str(self.folder / "journal"), self.ops)
        is_first = len(self.programs) < 4
        sync = [random.choices(list(SYNC), k=random.randrange(1, 4)) for _ in range(random.randrange(3))]
        tasks = random.choices(list(ASYNC), k=random.randrange(6))
        self.programs.append(program)
        self.hub.start(process, lambda: program.main(sync if is_first else [], tasks if is_first else []), "main")

    def _programs_ended(self) -> bool:
        return not self.restarts and all(program.finished or not program.process.alive for program in self.programs)

    def before_sending(self, target: str) -> None:
        """Check that the record of a commit is saved before the commit is sent."""
        match = COMMIT.fullmatch(target)
        if match is None or self.disk_fails or match[1] in self.sent:
            return
        self.sent.add(match[1])  # later another process may settle it and delete the record
        if not any((self.folder / "journal").rglob(file_name(match[1]))):
            self.problems.append(f"{target} is sent before its record is saved")

    def _sweep(self) -> None:
        """Let a last program settle what the others left."""
        process = self.hub.process("sweeper")
        done: list[bool] = []

        def main() -> None:
            client = client_of(self.server, str(self.folder / "journal"))
            quiet_from_s = self.hub.now_s + 200
            end_s = self.hub.now_s + QUIET_S
            while self.hub.now_s < end_s and (client.flush(timeout=5.0).pending or self.hub.now_s < quiet_from_s):
                self.hub.sleep(60)
            left = client.pending()
            if left:
                self.problems.append(f"still pending after {QUIET_S / 3600:.0f} hours: {left}")
            client.close()
            done.append(True)

        self.hub.start(process, main, "main")
        if not self.hub.run(lambda: bool(done), deadline_s=self.hub.now_s + QUIET_S + 600):
            self.problems.append("the sweeper does not end")

    # --- what must hold ---------------------------------------------------------------------------------------

    def _check_close(self) -> None:
        waiting = [
            program.process.name for program in self.programs if not (program.finished or not program.process.alive)
        ]
        if waiting:
            self.problems.append(f"these programs never end: {waiting}")
        self.hub.run(lambda: False, deadline_s=self.hub.now_s + 30)
        if not self.has_faults:
            self._check_settled_by_own_process()
        for program in self.programs:
            if program.closed and program.process.alive:
                left = [thread.name for thread in self.hub.live_threads(program.process)]
                if left:
                    self.problems.append(f"{program.process.name}: threads after close: {left}")

    def _check_settled_by_own_process(self) -> None:
        for op in self.ops:
            charged = self.server.spent(f"tenant:acme/agent:{op.agent}")
            if charged not in _allowed(op):
                self.problems.append(f"{op.kind} {op.agent}: charged {charged} when its program ended")

    def _check_ledger(self) -> None:
        for thread, error in self.hub.failures:
            if thread.process.alive:
                self.problems.append(f"{thread.process.name}, thread {thread.name}: {error!r}")
        total, kept = 0, self._kept()
        for op in self.ops:
            scope = f"tenant:acme/agent:{op.agent}"
            charged = self.server.spent(scope)
            total += charged
            self.problems += [f"{op.kind} {op.agent}: {problem}" for problem in op.problems]
            allowed = _allowed(op)
            lost = self.server.lost_in_restore.get(scope, 0)
            if lost and charged not in allowed:
                allowed |= {amount - lost for amount in allowed}
                self.exempt += charged in allowed
            if charged not in allowed and (
                self._was_left_pending(op) or any(charged + amount in allowed for amount in kept.get(op.agent, ()))
            ):
                self.exempt += 1
                continue
            if charged not in allowed:
                self.problems.append(
                    f"{op.kind} {op.agent}: charged {charged}, expected one of {sorted(allowed)} ({_flags(op)})"
                )
            held = self.server.ledger.balance(scope).reserved.amount
            if held:
                self.problems.append(f"{op.kind} {op.agent}: {held} still held")
        tenant = self.server.spent("tenant:acme")
        if tenant != total:
            self.problems.append(f"the tenant spent {tenant}, its agents {total}")

    def _was_left_pending(self, op: Op) -> bool:
        """Return whether the disk failed, and the process was killed or reported at its close what is pending."""
        program = next(program for program in self.programs if program.process is op.process)
        if self.disk_fails and (program.left_pending > 0 or not program.process.alive):
            program.left_pending -= 1
            return True
        return False

    def _agents_of(self, pattern: str) -> set[str]:
        """Return the agents of the records that the journal has under these names."""
        return {_agent(record) for record in self._files(pattern)}

    def _kept(self) -> dict[str, set[int]]:
        """Return, by agent, the sums in `rejected/` that may be missing in the ledger.

        A record with the reason `may_be_charged` may be in the ledger or not, so both sums are possible.
        """
        sums: dict[str, set[int]] = {}
        for kept in self._files("rejected/*.json"):
            record = kept["record"]
            amount = (record["event_fallback_body"] or record["commit_body"])["actual"]["amount"]
            before = sums.get(_agent(record), {0})
            with_it = {each + amount for each in before}
            sums[_agent(record)] = before | with_it if kept["reason"] == MAY_BE_CHARGED else with_it
        return sums

    def _files(self, pattern: str) -> Iterator[dict[str, Any]]:
        for path in sorted((self.folder / "journal").rglob(pattern)):
            with contextlib.suppress(ValueError, OSError):
                yield json.loads(path.read_bytes())


def _agent(record: dict[str, Any]) -> str:
    agent: str = ((record.get("event_fallback_body") or {}).get("subject") or {}).get("agent", "")
    return agent


def _allowed(op: Op) -> set[int]:
    """Return the charges that are right for a use."""
    if not op.charges or op.releases or not op.ran:
        return {0}
    if op.rejected is not None:
        return {0, op.known}
    if op.killed:
        # What was saved is settled. Of what was not, any sum that the caller went through may be missing.
        return {op.known} if op.saved and op.committing else {0, op.known, *op.steps}
    return {op.known}


def _flags(op: Op) -> str:
    flags = [name for name in ("killed", "saved", "committing", "ended") if getattr(op, name)]
    return ", ".join([*flags, *([op.rejected] if op.rejected else [])])


@contextlib.contextmanager
def _patched(patches: list[tuple[Any, str, Any]]) -> Iterator[None]:
    saved = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in saved:
            setattr(owner, name, value)
