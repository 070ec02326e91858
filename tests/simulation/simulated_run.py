"""One run: the machine, a server, programs and faults, and the checks of what must hold."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

from cycles._core.pool.chunk_record import log_name
from cycles._core.pool.sums import SECTOR, decode
from cycles._core.settlement.record import file_name
from cycles._journal.files import locked_file
from cycles._journal.stores.shared import key_of
from tests.simulation import disk as disks, faults, network, sizes
from tests.simulation.accounts import TENANTS, make_accounts
from tests.simulation.checks import Books, agent_of, amount_of, files
from tests.simulation.faults import DAY_S, Actions, SeededFaults
from tests.simulation.hub import START_WALL_S, Hub, Process
from tests.simulation.machines import Machine, Machines
from tests.simulation.mapped import MappedSteps
from tests.simulation.network import SimAsync, SimBlocking
from tests.simulation.patching import patched
from tests.simulation.server import COMMIT, EVENTS, RESERVED, SimServer, settlement_of
from tests.simulation.swarm import Swarm
from tests.simulation.threads import SimThread
from tests.simulation.uses_async import ASYNC
from tests.simulation.uses_background import with_background
from tests.simulation.uses_pool import POOL_KINDS, with_pools
from tests.simulation.uses_provider import PROVIDER, with_provider, with_provider_in_loop
from tests.simulation.uses_proxy import with_proxy
from tests.simulation.uses_requests import REQUEST, requests_of
from tests.simulation.uses_sdk import CALL as SDK_CALL, with_sdk, with_sdk_in_loop
from tests.simulation.uses_sync import HELD, SYNC
from tests.simulation.versions import OtherVersions
from tests.simulation.workload import FLUSH_S, MOMENT_S, Op, Program, client_of

QUIET_S: Final = 4 * 3600.0  # virtual time without faults in which everything must be settled
UNJOURNALED: Final = 0.08  # the share of runs with `journal=False`
PLAIN_USES: Final = 8  # of each thread at most, in a run without faults
STORE_FAILS: Final = ("store outage", "store stalls", "store loses responses")
MAY_KEEP: Final = {"disk fails", "disk hangs", *(set(disks.CALLS) - {"stat fails"})}
"""The features with which the file of a settled record may stay."""
MOVES_S: Final = 3.0  # in which a record moves from a disk into a store that responds again
LATER_S: Final = 8 * DAY_S  # after the server has deleted the keys of events


class SimulatedRun:
    """One run: the machine, a server, a few programs and the faults of its seed."""

    def __init__(self, seed: int, folder: Path, *, swarms: bool = True) -> None:
        self.hub = Hub(seed)
        self.swarm = Swarm(seed, drawn=swarms)
        # Drawn from another generator, so that the runs of all other seeds stay as they are.
        self._swarms = swarms
        self._journaled = Random(f"journal {seed}").random() >= UNJOURNALED * self.swarm.weight("no journal")
        if not self._journaled:
            self.swarm.matters("no journal")
        self.problems = self.hub.problems
        self.rejected = self.exempt = self.lost = 0
        self.ops: list[Op] = []
        self.server: SimServer
        self._journal = folder / "journal"
        self._machines: Machines
        self._programs: list[Program] = []
        self._disk = disks.SimOs(self.hub, self.swarm, self._kill_process)
        self._accounts = make_accounts(self.hub.random)
        self._unused = {tenant: iter(accounts) for tenant, accounts in self._accounts.items()}
        self._connections: list[SimBlocking | SimAsync] = []
        self._sent: set[str] = set()  # reservations whose commit was sent
        self._senders: defaultdict[str, set[Process]] = defaultdict(set)  # by settlement
        self._closed_s: dict[Process, float] = {}  # when a client was closed with nothing pending
        self._events: dict[str, str] = {}  # agents, by the id of the record of an event
        self._restarts = 0  # programs that start again soon
        self._has_ended = False  # none starts any more before the journal is opened again
        self._cannot_put: list[Program] = []  # lived without threads when the store lost its records
        self._durable = False
        self._is_fast = True
        self._faults: SeededFaults

    def run(self) -> None:
        """Run the programs with faults, then without, and check the ledger."""
        random, hub = self.hub.random, self.hub
        self._mapped = MappedSteps(hub, self.swarm, self._kill_process)
        patches = [*network.patches(self), *disks.patches(self._disk), (locked_file, "mmap", self._mapped)]
        patches += sizes.patches(hub.seed, self.swarm)
        patches.append((SimThread, "refuse_to_start", staticmethod(self._has_no_threads)))
        with patched(patches):
            self._machines = Machines(hub, self.swarm, self._journal)
            self._versions = OtherVersions(hub, self.swarm, self._journal)
            self.server = SimServer(hub, self.swarm, self._accounts, self._check_charge, self._kill_process)
            actions = Actions(self._kill_one, self._fork_one, self._lose_power)
            self._faults = SeededFaults(hub, self.swarm, self.server, self._disk, actions)
            self._durable = self._happens("durability disk", 0.15)
            if self._happens("foreign files", 0.1):
                faults.leave_foreign_files(self._folder_of("acme", self._machines.all[0]))
            later = self._happens("eight days", 0.06)
            self._faults.begin(durable=self._durable, lossy=later)
            self._faults.has_faults |= self._machines.plan(self._faults.at, self._lose_machine, self._note_emptied)
            self._plan_freezes()
            self._is_fast = self.server.faults.delay_s < MOMENT_S  # else a lease may end before its extension arrives
            if self._machines.store is not None:
                self._watch_disks()
            for _ in range(random.choice((1, 1, 2, 3))):
                self._start_program()
            hub.run(self._programs_ended, deadline_s=hub.now_s + 900)
            if later:
                self._open_again_later()
            self._faults.end()
            self._machines.end_faults()
            self._mapped.calm = True
            self._disk.until_kill = self.server.until_kill = 0
            self._check_close(later=later)
            self._exit_all()
            self._let_other_versions_write()
            # Nobody extends a lease from now on, and a second later nothing is in the network.
            self.hub.at(self.hub.now_s + 1.0, self.server.watch_holds)
            for tenant in TENANTS:
                if any(op.account.tenant == tenant for op in self.ops):
                    for machine in self._machines.all:
                        self._sweep(tenant, machine)
            self._check_books()

    def _watch_disks(self) -> None:
        """Check now and then that what a living client has saved on its disk is in the store, which responds again."""
        store = self._machines.store
        assert store is not None
        is_late = self.hub.now_s - store.faults.failed_s > MOVES_S and store.faults.has_failed
        if is_late and not (self._faults.lacked_threads or self._faults.was_suspended or store.faults.emptied):
            in_store = self._agents_in_store()
            for program in self._running():
                if program.process in self._machines.paused or program.closed:
                    continue
                own = {op.agent for op in self.ops if op.process is program.process}
                folder = self._machines.of(program.process).folder
                saved = [record for path, record in files(folder, "v2-*.json") if self._is_saved(path)]
                on_disk = {agent_of(record) for record in saved if record.get("rejected") is None}  # which stays there
                for agent in sorted(own & on_disk - in_store):
                    self.problems.append(f"{agent}: its record stays on a disk, and the store has it not")
        if not self._mapped.calm:
            self.hub.at(self.hub.now_s + 1.0, self._watch_disks)

    # --- what happens to programs -----------------------------------------------------------------------------

    def _let_other_versions_write(self) -> None:
        store = self._machines.store
        in_use = {op.agent for op in self.ops if op.process.alive}
        rejected = {kept["record"]["reservation_id"] for kept in self._kept_records()}
        runtimes = [program.runtime for program in self._programs if program.process.alive]
        read = {name for runtime in runtimes if runtime is not None for name in [*runtime.background._schedule.items]}

        def has_another(known: str) -> bool:
            return known in rejected or file_name(known) in read or (store is not None and store.has(key_of(known)))

        self._versions.rewrite(in_use, has_another)

    def _start_program(self) -> None:
        random = self.hub.random
        tenant = "globex" if self._happens("second tenant", 0.15) else "acme"
        process = self.hub.process(f"program {len(self._programs)}")
        self._machines.add(process, machine := self._machines.choose())
        accounts, settings = self._unused[tenant], self._settings(tenant, machine)
        program = Program(self.hub, self.server, process, accounts, self.ops, settings, self)
        is_first = len(self._programs) < 4
        most = PLAIN_USES if self.swarm.plain else 4
        sync = [random.choices(list(SYNC), k=random.randrange(1, most)) for _ in range(random.randrange(3))]
        if self._swarms:
            sync = with_background(sync, Random(f"background {self.hub.seed} {len(self._programs)}"))
            sync = with_provider(sync, self.swarm, Random(f"provider {self.hub.seed} {len(self._programs)}"))
            sync = with_sdk(sync, self.swarm, Random(f"SDK {self.hub.seed} {len(self._programs)}"))
            sync = with_pools(sync, self.swarm, Random(f"pools {self.hub.seed} {len(self._programs)}"))
        tasks = random.choices(list(ASYNC), k=random.randrange(6))
        if self._swarms:
            apart = Random(f"provider in loop {self.hub.seed} {len(self._programs)}")
            tasks = with_provider_in_loop(tasks, self.swarm, apart)
            tasks = with_proxy(tasks, self.swarm, Random(f"proxy {self.hub.seed} {len(self._programs)}"))
            tasks = with_sdk_in_loop(tasks, self.swarm, Random(f"SDK in loop {self.hub.seed} {len(self._programs)}"))
        if self.swarm.quiet:
            sync, tasks = [], ["overspend", *tasks]
        requests = requests_of(self.hub.seed, len(self._programs))
        endings = ("close", "exit") if self._faults.disk_fails else ("close", "close", "close", "exit", "idle")
        ending = random.choice(
            (*endings, *["aclose"] * (5 if self.swarm.quiet else 1)) if tasks and not sync else endings
        )
        if tasks and (requests % 2 or ending == "aclose"):  # which closes the client when the tasks have ended
            tasks += [REQUEST] * requests
        elif requests:
            sync.append([REQUEST] * requests)
        self._programs.append(program)
        body = partial(program.main, sync if is_first else [], tasks if is_first else [], ending)
        self.hub.start(process, body, "main")

    def _settings(self, tenant: str, machine: Machine) -> dict[str, Any]:
        durability = "disk" if self._durable else "process"
        journal = {"journal": self._journaled, **self._machines.settings(machine)}
        settings = {"tenant": tenant, "durability": durability, **journal}
        commits, flush_s = self.hub.random.choice((1, 1_024)), self.hub.random.choice((1.0, FLUSH_S))
        return settings | {"most_queued": commits, "flush_timeout": flush_s}

    def _has_no_threads(self) -> bool:
        if self._faults.no_threads and "no threads" in self.swarm:  # else the chunks of the run are late
            self.swarm.matters("no threads")
        return self._faults.no_threads

    def _happens(self, feature: str, chance: float) -> bool:
        """Return whether a feature is a part of this run."""
        happens = self.hub.random.random() < chance * self.swarm.weight(feature)
        if happens:
            self.swarm.matters(feature)
        return happens

    def _programs_ended(self) -> bool:
        return not self._restarts and all(program.finished or not program.process.alive for program in self._programs)

    def _running(self) -> list[Program]:
        return [program for program in self._programs if program.process.alive and not program.finished]

    def _kill_one(self) -> None:
        if running := self._running():
            self.swarm.matters("kill")
            self._kill(self.hub.random.choice(running))
            self._restart_soon()

    def _kill_process(self, process: Process) -> None:
        program = next((each for each in self._running() if each.process is process), None)
        if program is not None:
            self._kill(program)
            self._restart_soon()

    def _restart_soon(self) -> None:
        def restart() -> None:
            self._restarts -= 1
            if self._has_ended:
                return
            self._let_other_versions_write()
            self._start_program()

        if self.hub.random.random() < 0.6:
            self._restarts += 1
            self.hub.at(self.hub.now_s + self.hub.random.random() * 10, restart)

    def _kill(self, program: Program, *, keeps_spend: bool = True) -> None:
        self._faults.has_faults = True
        program.killed = True
        program.process.kill()
        saved = self._agents_on_disk() | self._agents_in_store()
        may_fail = any(name in self.swarm for name in STORE_FAILS)
        only_in_store = self._agents_in_store() - self._agents_on_disk() if may_fail else set()
        has_log = self._journaled and self._disk.keeps_spend(program.process)
        keeps_spend = keeps_spend and has_log and program.process not in self._machines.paused
        keeps_spend = keeps_spend and not self._faults.lacked_threads  # a thread writes ahead what has grown
        for op in self.ops:
            if op.process is not program.process:
                continue
            # A call of a provider that was interrupted has its bound in the log of spend, and waits for a thread.
            in_memory = (op.dropped and not keeps_spend) or (op.interrupted and bool(op.exact) and not has_log)
            is_lost = in_memory and not self._is_recorded(op)
            is_kept = op.is_open or (op.kind == HELD and not op.ends_after_close)
            # The guard of a commit that was interrupted at its start is dropped: its amount goes in two parts, too.
            in_parts = op.interrupted and op.in_chunk is not None and self.hub.awake_s < op.steps[-1][0] + MOMENT_S
            if not op.ended or is_lost or in_parts or (is_kept and not (op.is_open and program.closed)):
                op.killed_s = self.hub.awake_s
                # A call of a provider that was interrupted has saved its bound, or what it knew of its cost.
                has_bound = op.kind in (PROVIDER, SDK_CALL) and program.process in self.hub.interrupted
                has_bound |= op.kind == SDK_CALL and len(op.reservations) > 1  # one of them is saved
                op.saved = op.agent in saved and not has_bound
                op.is_only_in_store = op.agent in only_in_store
                op.keeps_spend = op.keeps_spend and keeps_spend
                op.keeps_commits = not self._has_failed(op.agent)
        self._note_lost(program.process)
        self._disk.release_locks(program.process)

    def _agents_on_disk(self) -> set[str]:
        saved = files(self._journal, "v2-*.json")
        return {agent_of(record) for path, record in saved if self._is_saved(path)}

    def _agents_in_store(self) -> set[str]:
        store = self._machines.store
        return set() if store is None else {agent_of(record) for record in store.records()}

    def _note_lost(self, process: Process) -> None:
        """Note which amounts of a process that was killed may be lost: only its memory had them, or a lost disk."""
        store = self._machines.store
        if store is None:
            return
        machine, faults = self._machines.of(process), store.faults
        if machine.lost or faults.emptied or self._machines.keeps_in_memory:
            in_store = self._agents_in_store()
            for op in self.ops:
                # Of a pool the store may have a chunk, and the memory the part of a commit that did not fit into it.
                is_whole = op.agent in in_store and op.kind not in POOL_KINDS
                if op.process is process and (machine.lost or faults.emptied or not is_whole):
                    op.may_be_lost = True
                    unsafe = faults.emptied or faults.has_failed or process in self._machines.paused
                    unsafe |= self._faults.lacked_threads  # of which one puts the sums of chunks
                    op.checkpointed = op.kind == "pool" and not unsafe

    def _note_emptied(self) -> None:
        """Note that what only the store has is lost: rejected amounts, and records of dead processes."""
        assert self._machines.store is not None
        rejected = {agent_of(record) for record in self._machines.store.records("rejected")}
        lost = self._agents_in_store() - self._agents_on_disk()
        for op in self.ops:
            op.may_be_lost |= op.agent in rejected
            op.saved &= op.agent not in lost  # what its process had written ahead is charged, if a log has it
        for program in self._programs:
            if program.closed or not program.process.alive:
                self._note_lost(program.process)
            else:
                self._note_taken(program, lost)
                if self._faults.no_threads:
                    self._cannot_put.append(program)

    def _note_taken(self, program: Program, lost: set[str]) -> None:
        """Note that the store may have lost what another client has taken from a program, which may be closed now."""
        runtime = program.runtime
        left = (
            set() if runtime is None else lost - self._agents_in_memory(runtime)
        )  # it has noticed, and left the record
        for op in self.ops if runtime is not None else ():
            events = {name for name, agent in self._events.items() if agent == op.agent}
            is_taken = any(runtime.records.taken_by_another(name) for name in op.reservations | events)
            op.may_be_lost |= op.process is program.process and (is_taken or op.agent in left)

    def _agents_in_memory(self, runtime: Any) -> set[str]:
        bodies = [record.event_fallback_body or {} for record in runtime.records.in_memory()]
        return {body["subject"].get("agent") for body in bodies if "subject" in body}

    def _note_not_put(self, program: Program) -> None:
        """Note what a program without threads has not put again since the store lost it, and has not settled either."""
        runtime = program.runtime
        if runtime is not None and program.process.alive and not program.closed:
            agents = self._agents_in_memory(runtime)
            for op in self.ops:
                op.may_be_lost |= op.process is program.process and op.agent in agents

    def _lose_machine(self, machine: Machine) -> None:
        """Kill the programs of a machine. Its disk is lost, and another one takes its place."""
        machine.lost = True
        for program in self._programs:
            if program.process.alive and program.process in machine.processes:
                self._kill(program)
        for process in machine.processes:
            self._note_lost(process)
        self._faults.has_faults = True
        self._machines.replace(machine)
        shutil.rmtree(machine.folder, ignore_errors=True)
        self._restart_soon()

    def _lose_power(self) -> None:
        """Kill every program, and lose what the disk had not written."""
        if not self._running():
            return
        self.hub.trace("the power is lost")
        self.swarm.matters("power loss")
        for program in self._programs:
            if program.process.alive:
                self._kill(program, keeps_spend=False)
        for op in self.ops:
            op.keeps_spend = False  # the log of spend of a process that was killed before is lost too
            # Without a thread, no later sync follows a commit in a chunk that was interrupted before its own.
            is_lost = op.dropped or (op.interrupted and self._faults.lacked_threads)
            if is_lost and op.killed_s is None and not self._is_recorded(op):
                op.killed_s = self.hub.awake_s  # its record was not written yet, and the log of spend is lost
        self._disk.lose_power(self._journal)
        self._restart_soon()

    def _is_recorded(self, op: Op) -> bool:
        """Return whether the journal or the ledger has the settlement of a use."""
        return op.agent in self._agents_on_disk() or self.server.settled(op.account.scope) > 0

    def _fork_one(self) -> None:
        running = [program for program in self._running() if hasattr(program, "client")]
        if running:
            self.swarm.matters("fork")
            parent = self.hub.random.choice(running)
            process = self.hub.process(f"{parent.process.name}, forked")
            self._machines.add(process, self._machines.of(parent.process))
            child = parent.fork(process)
            self._programs.append(child)
            kinds = self.hub.random.choices(list(SYNC), k=2)
            self.hub.start(process, partial(child.forked_main, kinds), "main")

    def _open_again_later(self) -> None:
        """End all programs, and let eight days pass before the journal is opened again."""
        self._has_ended = True
        for program in self._programs:
            if program.process.alive:
                self._kill(program)
        self.hub.run(lambda: False, deadline_s=self.hub.now_s + 60)  # nothing stays in the network for so long
        self.hub.suspend(LATER_S)
        self.hub.trace(f"{LATER_S / DAY_S:.0f} days pass")

    def _exit_all(self) -> None:
        """End the processes of all programs that are left; the system releases their file locks."""
        for program in self._cannot_put:
            self._note_not_put(program)
        for program in self._programs:
            # What these guards spent is in the log of spend only, and without a journal an open pool is in memory only.
            is_open = not program.closed and any(op.is_open for op in self.ops if op.process is program.process)
            # Without threads, an idle program did not try again what the outage of a store has left in its memory.
            is_open |= not program.closed and self._machines.keeps_in_memory and self._faults.lacked_threads
            if program.process.alive and (program.held or is_open or not (self._journaled or program.closed)):
                self._kill(program)
            program.process.end()
            self._disk.release_locks(program.process)

    def _plan_freezes(self) -> None:
        apart, closings = Random(f"limits {self.hub.seed}"), Random(f"closings {self.hub.seed}")
        for accounts in self._accounts.values():
            for account in accounts:
                if account.freezes_s is not None and "frozen budget" in self.swarm:
                    self.hub.at(self.hub.now_s + account.freezes_s, partial(self.server.freeze, account))
                if "closed budget" in self.swarm and closings.random() < 0.2:
                    self._faults.at(closings.random() * 30, partial(self.server.close_budget, account))
                if "changed limit" in self.swarm and apart.random() < 0.3:
                    self._faults.at(apart.random() * 30, partial(self.server.change_limit, account))

    def _sweep(self, tenant: str, machine: Machine) -> None:
        """Let a last program settle what the others left on a machine."""
        process = self.hub.process(f"sweeper of {tenant} on {machine.name}")
        self._machines.add(process, machine)
        done: list[bool] = []

        def main() -> None:
            client = client_of(self.server, self._settings(tenant, machine))
            quiet_from_s = self.hub.now_s + (
                600 if self.server.clock.moved_back or "no remaining ttl" in self.swarm else 200
            )
            end_s = self.hub.now_s + QUIET_S
            left_pending: list[int] = []
            client.on_event(lambda event: left_pending.append(getattr(event, "pending", 0)))
            is_closed = self.server.is_closed(tenant)
            while self.hub.now_s < end_s and (
                (client.flush(timeout=5.0).pending and not is_closed) or self.hub.now_s < quiet_from_s
            ):
                self.hub.sleep(60)
            left = client.pending()
            if left and not is_closed:
                self.problems.append(f"still pending after {QUIET_S / 3600:.0f} hours: {left}")
            pending = sorted(amount_of(record) for record in self._pending_on(tenant, machine))
            listed = sorted(each.amount.amount for each in left)
            if listed != pending and (sizes.FEATURE not in self.swarm or Counter(listed) - Counter(pending)):
                self.problems.append(f"pending() lists {left}, the journal has {pending}")
            listed = sorted(each.amount.amount for each in client.pending(rejected=True))
            kept = sorted(amount_of(each["record"]) for each in self._kept_on(tenant, machine))
            if listed != kept:
                self.problems.append(f"pending(rejected=True) lists {listed}, rejected/ has {kept}")
            client.close()
            if sum(left_pending) != len(left):
                self.problems.append(f"the sweeper of {tenant} leaves {left_pending} pending, and lists {left}")
            done.append(True)

        self.hub.start(process, main, "main")
        if not self.hub.run(lambda: bool(done), deadline_s=self.hub.now_s + QUIET_S + 600):
            self.problems.append(f"the sweeper of {tenant} does not end")

    # --- what must hold ---------------------------------------------------------------------------------------

    def before_sending(self, target: str, body: bytes, process: Process | None) -> None:
        """Check that a commit is saved before it is sent, and that an event has replaced its commit in the journal."""
        settlement = settlement_of(target, body)
        if settlement is not None and process is not None:
            self._check_not_again(settlement, process)
        if target.endswith(network.EXTEND) and network.key_in(body) in self.server.extended:
            self.problems.append(f"{target} has the key of an extend that has succeeded")
        early_s = self.server.deferred_s.get((process, settlement or ""), 0.0) - self.hub.now_s
        if early_s > MOMENT_S and process not in self.hub.interrupted:
            self.problems.append(f"{target} is sent {early_s:.1f} s before its Retry-After is over")
        if target == EVENTS:
            event = json.loads(body)
            if f"event:{event['idempotency_key']}" not in self._events:
                self._check_saved(event["idempotency_key"], event["subject"]["agent"])
            self._events[f"event:{event['idempotency_key']}"] = event["subject"]["agent"]
            if (
                self._machines.store is None
                and self._disk.has_failed()
                and event["idempotency_key"] in self._saved_commits()
            ):
                self.problems.append(f"the event of {event['subject']['agent']} is sent while the disk has its commit")
        match = COMMIT.fullmatch(target)
        if match is None or match[1] in self._sent or self._has_failed(match[1]):
            return
        self._sent.add(match[1])  # later another process may settle it and delete the record
        store = self._machines.store
        if store is not None and (store.has(key_of(match[1])) or store.faults.has_failed or store.faults.emptied):
            return  # it may have been there, and the store has lost it since
        if not any(self._is_saved(path) for path in self._journal.rglob(file_name(match[1]))):
            self.problems.append(f"{target} is sent before its record is saved")

    def _check_not_again(self, settlement: str, process: Process) -> None:
        """Check that what a client has settled and deleted is not found and sent again by a process that starts later.

        Another client that had the record at that time may have saved it once more.
        """
        settler, senders = self.server.settlers.get(settlement), self._senders[settlement]
        may_stay = self._machines.store is not None or self._disk.has_lost_power or settler in self.hub.interrupted
        may_stay |= not MAY_KEEP.isdisjoint(self.swarm.mattered)
        is_later = settler is not None and process.began_s > self._closed_s.get(settler, math.inf)
        if settler is not None and senders == {settler} and is_later and not may_stay:
            self.problems.append(f"{process.name} sends {settlement} again, which {settler.name} has settled")
        senders.add(process)

    def _check_saved(self, key: str, agent: str) -> None:
        """Check before the first request of an event that the journal has it, or the commit that it replaces."""
        store = self._machines.store
        if self._has_failed(key) or (store is not None and store.has_lost):
            return
        saved = [record for path, record in files(self._journal, "v2-*.json") if self._is_saved(path)]
        saved += [] if store is None else store.records()
        bodies = [record.get("event_fallback_body") or {} for record in saved if "reservation_id" in record]
        if key not in {body.get("idempotency_key", "").removesuffix(RESERVED) for body in bodies}:
            self.problems.append(f"an event of {agent} is sent before its record is saved")

    def _saved_commits(self) -> set[str]:
        """Return the keys of the commits in the journal, as their events have them."""
        saved = [record for _, record in files(self._journal, "v2-*.json") if record.get("mode") == "commit"]
        return {record["commit_body"]["idempotency_key"].removesuffix(RESERVED) for record in saved}

    def connected(self, connections: SimBlocking | SimAsync) -> None:
        """Note connections that a client has made."""
        self._connections.append(connections)

    def _is_saved(self, path: Path) -> bool:
        return self._disk.is_durable(path) if self._durable else path.exists()

    def _folder_of(self, tenant: str, machine: Machine) -> Path:
        return machine.folder / disks.partition("http://sim.invalid", tenant, "")

    def _kept_on(self, tenant: str, machine: Machine) -> Iterator[dict[str, Any]]:
        """Yield what a client on this machine lists as rejected: record and reason."""
        yield from (kept for _, kept in files(self._folder_of(tenant, machine), "rejected/*.json"))
        if self._machines.store is not None:
            owner = disks.partition("http://sim.invalid", tenant, "")
            for record in self._machines.store.records("rejected", owner):
                yield {"record": record, "reason": record["rejected"]}

    def _pending_on(self, tenant: str, machine: Machine) -> Iterator[dict[str, Any]]:
        """Yield the records that a client on this machine lists as pending."""
        yield from (record for _, record in files(self._folder_of(tenant, machine), "v2-*.json") if agent_of(record))
        if self._machines.store is not None:
            in_store = self._machines.store.records(None, disks.partition("http://sim.invalid", tenant, ""))
            yield from (record for record in in_store if record.get("settled") is None)

    def _pending_records(self) -> Iterator[dict[str, Any]]:
        """Yield what is pending because its tenant is closed."""
        for tenant in filter(self.server.is_closed, TENANTS):
            for machine in self._machines.all:
                yield from self._pending_on(tenant, machine)

    def _check_charge(self, agent: str) -> None:
        """Check after each commit and event that no more is charged than the caller has reported until now."""
        op = next(op for op in self.ops if op.agent == agent)
        charged = self.server.spent(op.account.scope)
        if charged > op.most:
            self.problems.append(f"{op.kind} {agent}: {charged} is charged, its caller reported {op.most} until now")

    def pooled(self, op: Op, reservation_id: str) -> None:
        """Check that the end of a pooled guard survives a loss of power, with durability ``disk``."""
        folder = self._folder_of(op.account.tenant, self._machines.of(op.process))
        log, record = folder / log_name(reservation_id), folder / file_name(reservation_id)
        if self._disk.was_read_only:  # the log could not be synced, which is reported
            return
        if not (self._durable and self._journaled):
            return
        is_on_disk = self._disk.is_synced(log) or self._disk.is_durable(record)
        if not is_on_disk and not self._is_in_store(reservation_id, decode(log.read_bytes()[SECTOR:]).spent):
            self.problems.append(f"{op.kind} {op.agent}: a commit has returned before its slot is on disk")

    def _is_in_store(self, reservation_id: str, amount: int) -> bool:
        """Return whether the store has the record of a settled chunk with at least this amount."""
        records = () if self._machines.store is None else self._machines.store.records()
        return any(each["reservation_id"] == reservation_id and amount_of(each) >= amount for each in records)

    def may_have_arrived(self, program: Program, record_id: str) -> bool:
        """Return whether a request of a record was sent, or may have been: another program has made the record.

        Programs of one folder read the records of each other, also of one that lives and retries. Such a record does
        not have what its maker knows: whether it was sent, and its age on a clock that is not set.
        """
        store, name = self._machines.store, file_name(record_id)
        saved = [record for _, record in files(self._journal, name)]
        elsewhere = [kept["record"] for kept in self._kept_records()]  # it may be there already
        elsewhere += [] if store is None else store.records()
        saved += [each for each in elsewhere if each["reservation_id"] == record_id]
        agents = {agent_of(record) for record in saved}
        own = [op for op in self.ops if record_id in op.reservations or op.agent in agents]
        # Of a record that the store has lost, and a client has claimed, nothing says who has made it.
        is_read = any(op.process is not program.process for op in own)
        is_read |= not own and store is not None and store.has_lost
        return is_read or bool({record_id, *(op.agent for op in own)} & self.server.on_their_way)

    def has_settled(self, program: Program) -> bool:
        """Return whether nothing has failed, and each amount of a program is in the ledger or rejected."""
        if self._faults.has_faults or program.held:
            return False
        left, program.left_pending = program.left_pending, 0  # which the books count down
        has_settled = not list(self._books().unsettled_by(program))
        program.left_pending = left
        return has_settled

    def closed(self, program: Program) -> None:
        """Check when a client is closed that it has settled each amount, or has reported how many are pending."""
        if not program.process.alive:
            return
        if not program.left_pending and not program.held:
            self._closed_s.setdefault(program.process, self.hub.now_s)
        if self._is_fast and not self._faults.has_faults and not program.held and program.left_pending == 0:
            for op in self.ops:
                if op.process is program.process and (unended := self.server.unended(op.agent) - program.lost):
                    self.problems.append(f"{op.kind} {op.agent}: nothing has released {sorted(unended)}")
        if self._machines.keeps_in_memory and program.left_pending:  # else it has settled each amount
            self._note_lost(program.process)
        if program.left_pending == 0:
            # Another client may have its records, if it could not renew its claims in time.
            store = self._machines.store
            is_late = program.process in self._machines.paused or self._faults.was_suspended
            is_late |= self._faults.lacked_threads  # of which one renews claims
            if store is None or not (is_late or store.faults.has_failed):
                self.problems += self._books().unsettled_by(program)
        elif not self._faults.has_faults and self.server.faults.delay_s < MOMENT_S:
            self.problems.append(
                f"{program.process.name} leaves {program.left_pending} pending, and nothing has failed"
            )

    def _check_close(self, *, later: bool) -> None:
        waiting = [program.process.name for program in self._running()]
        if waiting:
            self.problems.append(f"these programs never end: {waiting}")
        self.hub.run(lambda: False, deadline_s=self.hub.now_s + 30)
        if not self._faults.has_faults and not later:
            left = [program.left_pending for program in self._programs]
            self.problems += self._books().unsettled()
            for program, each in zip(self._programs, left, strict=True):
                program.left_pending = each  # which the books count down
        for program in self._programs:
            if program.closed and program.process.alive:
                self.problems += self._left_open(program)

    def _left_open(self, program: Program) -> Iterator[str]:
        """Yield what a program that has closed its client still has open."""
        process = program.process
        if threads := [thread.name for thread in self.hub.live_threads(process)]:
            yield f"{process.name}: threads after close: {threads}"
        # Those of an event loop are closed by `aclose` in that loop only.
        kinds = SimBlocking | SimAsync if program.closed_in_loop else SimBlocking
        if any(each.process is process and isinstance(each, kinds) and not each.closed for each in self._connections):
            yield f"{process.name}: connections after close"
        if (
            not program.held
            and process not in self.hub.interrupted  # between two byte codes a file may be open that nobody closes
            and not self._disk.has_failed()
            and not self._machines.keeps_in_memory
            and (names := [name for name in self._disk.opened_by(process) if not self._is_kept_open(program, name)])
        ):
            yield f"{process.name}: files after close: {names}"

    def _is_kept_open(self, program: Program, name: str) -> bool:
        """Return whether a file is the log of a chunk that its client left pending: the store took no record."""
        store = self._machines.store
        return store is not None and store.faults.has_failed and program.left_pending > 0 and "/pool-" in name

    def _books(self) -> Books:
        forgets_keys = self.server.restores > 0 or self.hub.wall_s() - START_WALL_S > DAY_S
        # A file that stayed after an outage, or because it could not be removed, may be an earlier state.
        forgets_keys |= self._machines.store is not None or self._disk.has_failed()
        known = self._has_failed, self._events, forgets_keys
        return Books(self.server, self._kept_records, self._pending_records, self._programs, self.ops, *known)

    def _left_files(self) -> Iterator[str]:
        """Yield the logs and incomplete files that no start has removed: each process of before has ended."""
        if self._disk.has_failed() or self._disk.was_read_only:
            return
        for machine in self._machines.all:
            for path in sorted(machine.folder.rglob("*")):
                is_left = path.name.startswith(("spend-", "pool-")) or path.suffix in (".new", ".spare")
                # A complete log that lost a part with the power has the size of no version, and stays.
                is_torn = path.suffix == ".log" and self._disk.has_lost_power
                if is_left and not is_torn and path.name not in faults.FOREIGN:
                    yield f"{machine.name}: no start has removed {path.name}, {path.stat().st_size} bytes"

    def _kept_records(self) -> Iterator[dict[str, Any]]:
        """Yield what was rejected: record and reason."""
        for machine in (*self._machines.all, *self._machines.lost):
            yield from (kept for _, kept in files(machine.folder, "rejected/*.json"))
        if self._machines.store is not None:
            for record in self._machines.store.records("rejected"):
                yield {"record": record, "reason": record["rejected"]}

    def _has_failed(self, text: str) -> bool:
        """Return whether the journal may not have what contains a text: the disk did not take it, or there is none."""
        return not self._journaled or self._disk.has_failed(text)

    def _check_books(self) -> None:
        for thread, error in self.hub.failures:
            if thread.process.alive or not isinstance(error, Exception):
                self.problems.append(f"{thread.process.name}, thread {thread.name}: {error!r}")
        books = self._books()
        self.problems += books.problems()
        self.problems += self._versions.changed(self._kept_records())
        self.problems += self._left_files()
        self.rejected, self.exempt, self.lost = books.rejected, books.exempt, books.lost
        folder = self._folder_of("acme", self._machines.all[0])
        if (folder / "README.txt").exists():
            self.problems += [f"the file {name} was deleted" for name in faults.missing_foreign_files(folder)]
