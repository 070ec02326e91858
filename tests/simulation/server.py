"""The real embedded server in a simulated process: killed, started again, restored from a backup, frozen budgets."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import Any, Final, Protocol

from attrs import frozen

from cycles.embedded import server as embedded
from cycles.embedded.http import Request, Response
from cycles.embedded.records import KINDS, Budget, Record, Reservation, StoredResponse
from tests.simulation.accounts import ESTIMATE, LARGE, TENANTS, Account, records
from tests.simulation.hub import START_WALL_S, Hub, Process
from tests.simulation.network import Faults, key_in
from tests.simulation.swarm import Swarm

COMMIT: Final = re.compile(r"/v1/reservations/([^/]+)/commit")
EVENTS: Final = "/v1/events"
RESERVATIONS: Final = "/v1/reservations"
CHARGING: Final = ("commit", "event")
LONGEST_LEASE_MS: Final = 2 * 60_000  # the longest ttl, extended once before its end
SOON_S: Final = 0.01
JSON: Final = {"Content-Type": "application/json"}
REVOKED: Final = b'{"error": "UNAUTHORIZED", "message": "Invalid API key", "request_id": "r"}'
KILL: Final = "kill after a charge"
MOST_CHARGES: Final = 8  # before the one after which its process is killed
RESERVED: Final = ":reserved"  # ends the key of a commit of the estimate, after the server rejected the whole amount


class Exchanged(Protocol):
    """An attempt of a client, as the server needs it."""

    @property
    def request(self) -> Request: ...

    def handled(self, response: Response) -> None:
        """Take the response."""
        ...


@frozen
class Charge:
    """What the ledger charged under one key.

    Attributes:
        scope: The path of the budget.
        requested: The amount in the request.
        charged: What the budget was charged: less, if it had no more.
        owner: The reservation, or the tenant of an event.
    """

    scope: str
    requested: int
    charged: int
    owner: str


def settlement_of(target: str, body: bytes | None) -> str | None:
    """Return what a request settles: the address of a commit or the key of an event; None if it is another request."""
    if target == EVENTS:
        key: str = json.loads(body or b"{}")["idempotency_key"]
        return key
    return target if COMMIT.fullmatch(target) else None


class MemoryStore:
    """The disk of the server: what it wrote, with a copy that a restore can go back to.

    Attributes:
        charges: What the ledger has charged, by idempotency key.
        lost: What it had charged before a restore, and has not charged again.
        problems: Charges that no rule allows.
    """

    def __init__(self, written: Iterable[Record]) -> None:
        self.records: dict[tuple[str, Any], Record] = {(record.kind, record.key): record for record in written}
        self.charges: dict[str, Charge] = {}
        self.lost: dict[str, Charge] = {}
        self.requested: dict[str, int] = {}  # the amounts of the requests, by key
        self.problems: list[str] = []
        self._backup: tuple[dict[tuple[str, Any], Record], dict[str, Charge]] | None = None

    def backup(self) -> None:
        """Copy the ledger; `restore` goes back to this copy."""
        self._backup = dict(self.records), dict(self.charges)

    def restore(self) -> bool:
        """Go back to the last copy. Return whether there is one."""
        if self._backup is None:
            return False
        before = self.charges
        self.records, self.charges = dict(self._backup[0]), dict(self._backup[1])
        self.lost |= {key: charge for key, charge in before.items() if key not in self.charges}
        return True

    def load(self) -> Iterable[Record]:
        order = {kind: i for i, kind in enumerate(KINDS)}
        return sorted(self.records.values(), key=lambda record: order[record.kind])

    def write(self, saved: Iterable[Record], deleted: Iterable[Record]) -> None:
        saved = list(saved)
        budgets = [each for each in saved if isinstance(each, Budget)]
        self._check_scopes(budgets)
        for record in saved:
            if isinstance(record, StoredResponse) and record.operation in CHARGING:
                self._note_charge(record, budgets)
        for record in saved:
            self.records[record.kind, record.key] = record
        for record in deleted:
            self.records.pop((record.kind, record.key), None)

    def close(self) -> None:
        """Nothing is open."""

    def _check_scopes(self, budgets: list[Budget]) -> None:
        """Check that one change of the ledger moves the same amounts at each scope."""
        moved = set()
        for budget in budgets:
            before: Any = self.records[budget.kind, budget.key]
            charged = budget.spent + budget.debt - before.spent - before.debt
            moved.add((charged, budget.reserved - before.reserved))
        if len(moved) > 1:
            self.problems.append(f"a change moves different amounts at {[budget.scope for budget in budgets]}")

    def _note_charge(self, stored: StoredResponse, budgets: list[Budget]) -> None:
        """Note a charge, and check that it is smaller than requested only if a budget has nothing left."""
        key = stored.idempotency_key
        deepest = max(budgets, key=lambda budget: len(budget.scope))
        before: Any = self.records[deepest.kind, deepest.key]
        charged: int = deepest.spent + deepest.debt - before.spent - before.debt
        charge = Charge(deepest.scope, self.requested.get(key, charged), charged, stored.owner)
        other = key.removesuffix(RESERVED) if key.endswith(RESERVED) else f"{key}{RESERVED}"
        if {key, other} & self.charges.keys():
            self.problems.append(f"{key} is charged twice at {deepest.scope}")
        if charged > charge.requested or (charged < charge.requested and not any(map(_is_used_up, budgets))):
            self.problems.append(f"{charged} is charged at {deepest.scope} for {charge.requested}")
        self.charges[key] = charge
        self.lost.pop(key, None)


def _is_used_up(budget: Budget) -> bool:
    return budget.spent + budget.reserved + budget.debt >= budget.allocated


class ServerClock:
    """The clock of the server's machine."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.offset_s = 0.0
        self.moved_back = False  # then a lease may last longer

    def now_ms(self) -> int:
        """Return the time in milliseconds since the epoch."""
        return int((START_WALL_S + self._hub.now_s + self.offset_s) * 1000)


class SimServer:
    """The real embedded server in a simulated process.

    Args:
        hub: The machine.
        swarm: The features of the run.
        accounts: Its budgets.
        on_charge: Called with the agent after each commit and event that it accepted.
        kill: Kills a process that has sent one of them.
    """

    def __init__(
        self,
        hub: Hub,
        swarm: Swarm,
        accounts: dict[str, list[Account]],
        on_charge: Callable[[str], None],
        kill: Callable[[Process], None],
    ) -> None:
        self.hub = hub
        self._kill = kill
        kills = Random(f"charges {hub.seed}")
        self.until_kill = kills.randrange(1, MOST_CHARGES) if KILL in swarm and kills.random() < 0.7 else 0
        self._without_route: set[str] = set()  # settlements whose next request gets a page
        self.settlers: dict[str, Process] = {}  # the processes that have read the success of a settlement
        self.swarm = swarm
        self.apart = Random(f"server {hub.seed}")  # of later features; other seeds keep their runs
        self.revoked_until_s = 0.0
        self.store = MemoryStore(records(accounts))
        self.faults = Faults()
        self.up = True
        self.restores = 0
        self.has_closed_tenant = False  # at any time
        self.answers: Counter[str] = Counter()  # see `note_answer`
        self.on_their_way: set[str] = set()  # reservations whose commit may arrive; agents and ids of events
        self.confirmed: set[str] = set()  # keys and reservations whose charge a client has seen
        self.extended: set[str] = set()  # keys of extends whose success a client has read
        self.decisions: Counter[str] = Counter()  # responses to reserves, by agent
        self.of_events: defaultdict[str, list[int]] = defaultdict(list)  # the statuses that clients received, by key
        self._granted: defaultdict[str, set[str]] = defaultdict(set)
        self.refused: set[str] = set()  # reservations whose next commit finds no connection
        self.deferred_s: dict[tuple[Process | None, str], float] = {}  # by sender and settlement: not to be sent before
        self._on_charge = on_charge
        self.clock = ServerClock(hub)
        self._process = hub.process("server")
        self._server = self._started()
        self.api_keys = {tenant: self._server.ledger.api_key_for(tenant) for tenant in TENANTS}

    def _started(self) -> embedded.EmbeddedServer:
        return embedded.EmbeddedServer(path=self.store, clock=self.clock)  # type: ignore[arg-type]

    @property
    def ledger(self) -> Any:
        """The operator's view of the ledger."""
        return self._server.ledger

    @property
    def _tables(self) -> Any:
        return self._server._ledger.tables

    def spent(self, scope: str) -> int:
        """Return what a scope has spent, in its smallest unit."""
        budget: Budget = self._tables.budgets[scope, "TOKENS"]
        return budget.spent + budget.debt

    def settled(self, scope: str) -> int:
        """Return the sum of the amounts that the ledger has settled at a scope, in full or as far as it had budget."""
        return sum(charge.requested for charge in self.store.charges.values() if charge.scope == scope)

    def charged(self, scope: str) -> int:
        """Return the sum of the charges at a scope."""
        return sum(charge.charged for charge in self.store.charges.values() if charge.scope == scope)

    def lost(self, scope: str) -> int:
        """Return the sum of the amounts that a client saw confirmed before a restore of the ledger lost them."""
        lost = {key: charge for key, charge in self.store.lost.items() if charge.scope == scope}
        return sum(charge.requested for key, charge in lost.items() if {key, charge.owner} & self.confirmed)

    def note_sent(self, request: Request) -> None:
        """Note that a commit of a reservation, or an event for an agent, is on its way, so it may arrive."""
        if request.target == EVENTS:
            event = json.loads(request.body)
            self.on_their_way |= {event["subject"].get("agent", ""), f"event:{event['idempotency_key']}"}
        elif (match := COMMIT.fullmatch(request.target)) is not None:
            self.on_their_way.add(match[1])

    def note_answer(self, request: Request, status: int) -> None:
        """Count, by agent or reservation, the responses after which a client sends another request at once."""
        if request.target == EVENTS:
            self.of_events[json.loads(request.body)["idempotency_key"]].append(status)
        if request.method == "GET":
            self.answers[request.target.rpartition("/")[2]] += 1
        elif request.target in (EVENTS, RESERVATIONS):
            self.decisions[json.loads(request.body or b"{}")["subject"].get("agent", "")] += (
                request.target == RESERVATIONS and status in (200, 409)
            )
            if (status < 300) == (request.target == RESERVATIONS):
                self.answers[json.loads(request.body or b"{}")["subject"].get("agent", "")] += 1
        elif status >= 300 and (match := COMMIT.fullmatch(request.target)):
            self.answers[match[1]] += 1

    def defer(self, request: Request, process: Process | None, wait_s: float) -> None:
        """Note that a client has read that a settlement is not to be sent again for some seconds."""
        if (settlement := settlement_of(request.target, request.body)) is not None:
            self.deferred_s[process, settlement] = self.hub.now_s + wait_s

    def refuse_commit(self, account: Account, reservation_id: str | None) -> None:
        """Refuse the connection of the first commit of a reservation, for some accounts, if the network has faults."""
        if reservation_id is not None and self.faults.refused and int(account.agent.removeprefix("op")) % 2 == 0:
            self.refused.add(reservation_id)

    def kills(self, request: Request, process: Process) -> bool:
        """Return whether a process is killed before it reads that it has charged something, as the seed chooses.

        The next request of that settlement gets a page: who sends it does not know that it is charged.
        """
        settlement = settlement_of(request.target, request.body)
        if settlement is None or not self.until_kill:
            return False
        self.until_kill -= 1
        if self.until_kill:
            return False
        self.swarm.matters(KILL)
        self._without_route.add(settlement)
        self.hub.after(0, partial(self._kill, process))
        return True

    def is_without_route(self, request: Request) -> bool:
        """Return whether a request gets a page instead of a response, and only once."""
        settlement = settlement_of(request.target, request.body) if self._without_route else None
        if settlement is None or settlement not in self._without_route:
            return False
        self._without_route.discard(settlement)
        return True

    def confirm(self, request: Request, process: Process | None) -> None:
        """Note that an undamaged success response to a request has reached its client."""
        settlement = settlement_of(request.target, request.body)
        if settlement is not None and process is not None:
            self.settlers[settlement] = process
        if request.method == "POST":
            self.confirmed.add(key_in(request.body))
        else:
            self.confirmed.add(request.target.rpartition("/")[2])

    def reservations_of(self, agent: str) -> set[str]:
        """Return the reservations that an agent was ever granted, also those that a restore of the ledger lost."""
        return self._granted[agent]

    def unended(self, agent: str) -> set[str]:
        """Return the reservations of an agent that are neither committed nor released."""
        rows = self._tables.reservations.values()
        ended = ("COMMITTED", "RELEASED")
        return {row.reservation_id for row in rows if row.subject.get("agent") == agent and row.status not in ended}

    def watch_holds(self) -> None:
        """Check of each lease that its hold is released when its grace period is over. Nobody extends it any more."""
        for row in self._active():
            may_last = self.clock.moved_back or "no remaining ttl" in self.swarm  # the client cannot know how long
            if row.expires_at_ms - self.clock.now_ms() > LONGEST_LEASE_MS and not may_last:
                self.store.problems.append(f"the lease of {row.reservation_id} ends at {row.expires_at_ms}: too late")
            self.hub.at(row.grace_ends_ms / 1000 - START_WALL_S - self.clock.offset_s + SOON_S, self._check_soon)

    def _check_soon(self) -> None:
        if self.up:
            self.hub.start(self._process, self._check_holds, "check of holds")

    def _active(self) -> list[Reservation]:
        rows = self._tables.reservations.values()
        return [row for row in rows if row.status == "ACTIVE"]

    def _check_holds(self) -> None:
        """Check that exactly the leases are held whose grace period is not over."""
        ledger = self._server._ledger
        with ledger.locked() as now_ms:
            for tenant in TENANTS:
                held = ledger.tables.budgets[f"tenant:{tenant}", "TOKENS"].reserved
                live = [row for row in self._active() if row.tenant == tenant and row.grace_ends_ms >= now_ms]
                if held != (right := sum(row.reserved for row in live)):
                    self.store.problems.append(f"{tenant} holds {held}, and the leases of {right} are not over")

    @property
    def _may_change(self) -> bool:
        """Whether an operator may change a budget now: the server runs, and no thread of it changes the ledger."""
        return self.up and not self._server._ledger._lock._count  # type: ignore[attr-defined]

    def freeze(self, account: Account) -> None:
        """Freeze the budget of an account, as an operator does. Only outside of simulated threads."""
        if self._may_change:
            balance = self.ledger.balance(account.scope)
            numbers = {"spent": balance.spent.amount, "reserved": balance.reserved.amount, "debt": balance.debt.amount}
            self.ledger.set_budget(account.scope, balance.allocated, status="FROZEN", caps=account.caps, **numbers)
            self.hub.trace(f"the budget of {account.agent} is frozen")
            if balance.reserved.amount or balance.spent.amount:
                self.swarm.matters("frozen budget")

    def close_budget(self, account: Account) -> None:
        """Close the budget of an account for ever, as an operator does. Only outside of simulated threads."""
        if self._may_change:
            balance = self.ledger.balance(account.scope)
            self.ledger.set_status(account.scope, "CLOSED")
            self.hub.trace(f"the budget of {account.agent} is closed")
            account.closes = True
            if balance.reserved.amount or balance.spent.amount:
                self.swarm.matters("closed budget")

    def close_tenant(self) -> None:
        """Close the first tenant, as an operator does: its keys get 401. Only outside of simulated threads."""
        if self._may_change:
            self.ledger.set_tenant(TENANTS[0], status="CLOSED")
            self.has_closed_tenant = True
            self.hub.trace(f"the tenant {TENANTS[0]} is closed")
            self.swarm.matters("closed tenant")

    def is_closed(self, tenant: str) -> bool:
        """Return whether a tenant is closed. A restore of the ledger may have opened it again."""
        record = self._tables.tenants.get((tenant,))
        return record is not None and record.status == "CLOSED"

    def change_limit(self, account: Account) -> None:
        """Set another limit of a budget, as an operator does. Only outside of simulated threads."""
        if self._may_change:
            limit = self.apart.choice((ESTIMATE // 2, ESTIMATE + 20, 2 * LARGE))
            if account.closes:
                return  # for ever: a late copy of a rejected request would be charged
            balance = self.ledger.balance(account.scope)
            numbers = {"spent": balance.spent.amount, "reserved": balance.reserved.amount, "debt": balance.debt.amount}
            allocated = type(balance.allocated)(balance.allocated.unit, limit)
            self.ledger.set_budget(account.scope, allocated, caps=account.caps, **numbers)
            self.hub.trace(f"the limit of {account.agent} is {limit} now")
            account.has_changed = True
            if balance.reserved.amount or balance.spent.amount:
                self.swarm.matters("changed limit")

    def move_clock(self, seconds: float) -> None:
        """Set the clock of the server's machine."""
        self.clock.offset_s += seconds
        self.clock.moved_back |= seconds < 0
        self.swarm.matters("server clock")
        self.hub.trace(f"the clock of the server moves by {seconds:g} s")

    def backup(self) -> None:
        """Copy the ledger; a restore goes back to this copy."""
        self.store.backup()

    def stop(self) -> None:
        """Kill the server; connections are refused until `start`."""
        self.up = False
        self._process.kill()

    def start(self, *, restore: bool = False) -> None:
        """Start the server again: with its whole ledger, or with the copy of the last `backup`."""
        if restore and self.store.restore():
            self.restores += 1
            self.swarm.matters("backup restored")
        self._server = self._started()
        self._process = self.hub.process("server")
        self.up = True
        self.hub.trace(f"the server starts {'from a backup' if restore else 'with its whole ledger'}")

    def deliver(self, exchange: Exchanged) -> None:
        """Handle a request that reached the server, in a thread of the server."""
        if not self.up:
            return
        server = self._server
        self._note_requested(exchange.request)

        def handle() -> None:
            if self.hub.now_s < self.revoked_until_s:
                self.swarm.matters("revoked key")
                exchange.handled(Response(status=401, headers=dict(JSON), body=REVOKED))
                return
            response, _ = server.handle(exchange.request)
            if response is not None:
                if response.status < 300 and (agent := self._charged(server, exchange.request)):
                    self._on_charge(agent)
                if response.status < 300 and exchange.request.target == RESERVATIONS:
                    self._note_granted(exchange.request, response)
                exchange.handled(response)

        self.hub.start(self._process, handle, "request")

    def _note_granted(self, request: Request, response: Response) -> None:
        reservation_id = json.loads(response.body).get("reservation_id")  # a dry run has none
        if request.method == "POST" and reservation_id is not None:
            self._granted[json.loads(request.body)["subject"].get("agent", "")].add(reservation_id)

    def _note_requested(self, request: Request) -> None:
        if request.target == EVENTS or COMMIT.fullmatch(request.target):
            body = json.loads(request.body or b"{}")
            self.store.requested[body["idempotency_key"]] = body["actual"]["amount"]

    def _charged(self, server: embedded.EmbeddedServer, request: Request) -> str | None:
        """Return the agent that a request charges; None if it is no commit and no event."""
        if request.method != "POST" or server is not self._server:
            return None
        if request.target == EVENTS:
            agent: str = json.loads(request.body or b"{}")["subject"]["agent"]
            return agent
        match = COMMIT.fullmatch(request.target)
        row = None if match is None else server._ledger.tables.reservations.get((match[1],))
        return None if row is None else row.subject["agent"]
