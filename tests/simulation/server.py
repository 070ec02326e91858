"""The real embedded server in a simulated process: killed, started again, restored from a backup, frozen budgets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from cycles.embedded import server as embedded
from cycles.embedded.http import Request, Response
from cycles.embedded.records import KINDS, Record
from tests.simulation.accounts import TENANTS, Account, records
from tests.simulation.hub import START_WALL_S, Hub
from tests.simulation.network import Faults

COMMIT: Final = re.compile(r"/v1/reservations/([^/]+)/commit")
EVENTS: Final = "/v1/events"


class Exchanged(Protocol):
    """An attempt of a client, as the server needs it."""

    @property
    def request(self) -> Request: ...

    def handled(self, response: Response) -> None:
        """Take the response."""
        ...


class MemoryStore:
    """The disk of the server: what it wrote, with a copy that a restore can go back to."""

    def __init__(self, written: Iterable[Record]) -> None:
        self.records: dict[tuple[str, Any], Record] = {(record.kind, record.key): record for record in written}
        self.backup: dict[tuple[str, Any], Record] = {}

    def load(self) -> Iterable[Record]:
        order = {kind: i for i, kind in enumerate(KINDS)}
        return sorted(self.records.values(), key=lambda record: order[record.kind])

    def write(self, saved: Iterable[Record], deleted: Iterable[Record]) -> None:
        for record in saved:
            self.records[record.kind, record.key] = record
        for record in deleted:
            self.records.pop((record.kind, record.key), None)

    def close(self) -> None:
        """Nothing is open."""


class ServerClock:
    """The clock of the server's machine, which no fault moves."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def now_ms(self) -> int:
        """Return the time in milliseconds since the epoch."""
        return int((START_WALL_S + self._hub.now_s) * 1000)


class SimServer:
    """The real embedded server in a simulated process.

    Args:
        hub: The machine.
        accounts: Its budgets.
        on_charge: Called with the agent after each commit and event that it accepted.
    """

    def __init__(self, hub: Hub, accounts: dict[str, list[Account]], on_charge: Callable[[str], None]) -> None:
        self.hub = hub
        self.store = MemoryStore(records(accounts))
        self.faults = Faults()
        self.up = True
        self.restores = 0
        self.lost_in_restore: dict[str, int] = {}
        self._on_charge = on_charge
        self._clock = ServerClock(hub)
        self._process = hub.process("server")
        self._server = self._started()
        self.api_keys = {tenant: self._server.ledger.api_key_for(tenant) for tenant in TENANTS}

    def _started(self) -> embedded.EmbeddedServer:
        return embedded.EmbeddedServer(path=self.store, clock=self._clock)  # type: ignore[arg-type]

    @property
    def ledger(self) -> Any:
        """The operator's view of the ledger."""
        return self._server.ledger

    def spent(self, scope: str) -> int:
        """Return what a scope has spent, in its smallest unit."""
        budget = self._server._ledger.tables.budgets[scope, "TOKENS"]
        return budget.spent + budget.debt

    def freeze(self, account: Account) -> None:
        """Freeze the budget of an account, as an operator does. Only outside of simulated threads."""
        if self.up and not self._server._ledger._lock._count:  # type: ignore[attr-defined]
            balance = self.ledger.balance(account.scope)
            numbers = {"spent": balance.spent.amount, "reserved": balance.reserved.amount, "debt": balance.debt.amount}
            self.ledger.set_budget(account.scope, balance.allocated, status="FROZEN", caps=account.caps, **numbers)
            self.hub.trace(f"the budget of {account.agent} is frozen")

    def backup(self) -> None:
        """Copy the ledger; a restore goes back to this copy."""
        self.store.backup = dict(self.store.records)

    def stop(self) -> None:
        """Kill the server; connections are refused until `start`."""
        self.up = False
        self._process.kill()

    def start(self, *, restore: bool = False) -> None:
        """Start the server again: with its whole ledger, or with the copy of the last `backup`."""
        before = self._all_spent()
        if restore and self.store.backup:
            self.store.records = dict(self.store.backup)
            self.restores += 1
        self._server = self._started()
        after = self._all_spent()
        for scope, amount in before.items():
            if amount > after.get(scope, 0):
                self.lost_in_restore[scope] = self.lost_in_restore.get(scope, 0) + amount - after.get(scope, 0)
        self._process = self.hub.process("server")
        self.up = True
        self.hub.trace(f"the server starts {'from a backup' if restore else 'with its whole ledger'}")

    def _all_spent(self) -> dict[str, int]:
        return {
            record.scope: record.spent  # type: ignore[attr-defined]
            for (kind, _), record in self.store.records.items()
            if kind == "budget"
        }

    def deliver(self, exchange: Exchanged) -> None:
        """Handle a request that reached the server, in a thread of the server."""
        if not self.up:
            return
        server = self._server

        def handle() -> None:
            response, _ = server.handle(exchange.request)
            if response is not None:
                if response.status < 300 and (agent := self._charged(server, exchange.request)):
                    self._on_charge(agent)
                exchange.handled(response)

        self.hub.start(self._process, handle, "request")

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
