"""The real embedded server in a simulated process, and the network to it: losses, delays, duplicates, restarts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

from attrs import define

import cycles
from cycles._http.exchange import ExchangeError, FailureKind, Reply
from cycles.embedded import server as embedded
from cycles.embedded.http import Request, Response
from cycles.embedded.records import KINDS, Record
from tests.simulation.hub import START_WALL_S, Hub, Waiter

Headers = Sequence[tuple[bytes, bytes]]

HOSTILE: Final = (
    (200, b"<html>proxy</html>"),
    (200, b'{"decision": 7}'),
    (200, b'{"status": "COMMITT'),
    (204, b""),
    (302, b""),
    (429, b'{"error": "LIMIT_EXCEEDED", "message": "slow down", "request_id": "r"}'),
    (500, b'{"error": "INTERNAL_ERROR", "message": "boom", "request_id": "r"}'),
    (502, b"bad gateway"),
    (503, b""),
    (401, b'{"error": "UNAUTHORIZED", "message": "INTERNAL_ERROR", "request_id": "r"}'),
)
"""Responses that a proxy, or a server whose store is down, sends in place of the real one."""


@define
class Faults:
    """How often the network fails, as chances from 0 to 1, and how slow it is, in seconds."""

    lost_request: float = 0.0
    lost_response: float = 0.0
    duplicate: float = 0.0
    hostile: float = 0.0
    truncated: float = 0.0
    refused: float = 0.0
    slow: float = 0.0
    delay_s: float = 0.02


class HasServer(Protocol):
    """The run, which makes its server after the patches are in place."""

    server: SimServer

    def before_sending(self, target: str) -> None:
        """Check what must be true before a request is sent."""
        ...


class MemoryStore:
    """The disk of the server: what it wrote, with a copy that a restore can go back to."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, Any], Record] = {}
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
        budgets: As for `EmbeddedServer`.
    """

    def __init__(self, hub: Hub, budgets: dict[str, Any]) -> None:
        self.hub = hub
        self.store = MemoryStore()
        self.faults = Faults()
        self.up = True
        self.lost_in_restore: dict[str, int] = {}
        self.charges_seen = 0
        self._clock = ServerClock(hub)
        self._process = hub.process("server")
        self._server = embedded.EmbeddedServer(budgets, path=self.store, clock=self._clock)  # type: ignore[arg-type]
        self.api_key = self._server.api_key

    @property
    def ledger(self) -> Any:
        """The operator's view of the ledger."""
        return self._server.ledger

    def spent(self, scope: str) -> int:
        """Return what a scope has spent, in its smallest unit."""
        return self._server.spent(scope).amount

    def backup(self) -> None:
        """Copy the ledger; `restore` goes back to this copy."""
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
        self._server = embedded.EmbeddedServer(path=self.store, clock=self._clock)  # type: ignore[arg-type]
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

    def deliver(self, exchange: Exchange) -> None:
        """Handle a request that reached the server, in a thread of the server."""
        if not self.up:
            return
        server = self._server

        def handle() -> None:
            response, _ = server.handle(exchange.request)
            if response is not None:
                exchange.handled(response)

        self.hub.start(self._process, handle, "request")


class Exchange:
    """One attempt of a client: a request on its way, and who waits for the response."""

    def __init__(self, server: SimServer, request: Request, what: str) -> None:
        self.server = server
        self.request = request
        self.what = what
        self.reply: Reply | None = None
        self.error: ExchangeError | None = None
        self.over = False
        self.sent_s = server.hub.now_s
        self.notify: Any = lambda: None

    def send(self) -> None:
        """Put the request on the network, or fail as the faults decide."""
        hub, faults, chance = self.server.hub, self.server.faults, self.server.hub.random.random
        if not self.server.up or chance() < faults.refused:
            hub.trace(f"{self.what}: connection refused")
            self.fail(FailureKind.CONNECT, "connection refused", request_sent=False)
            return
        delay_s = faults.delay_s * (0.5 + hub.random.random())
        if chance() < faults.slow:
            delay_s += hub.random.choice((1.0, 4.9, 5.1, 20.0))
        if chance() < faults.lost_request:
            hub.trace(f"{self.what}: the request is lost")
            if chance() < 0.5:
                hub.at(hub.now_s + delay_s, lambda: self.fail(FailureKind.BROKEN, "reset", request_sent=True))
            return
        hub.at(hub.now_s + delay_s, lambda: self.server.deliver(self))
        if chance() < faults.duplicate:
            hub.trace(f"{self.what}: the request arrives twice")
            hub.at(hub.now_s + delay_s + hub.random.choice((0.0, 0.5, 30.0)), lambda: self.server.deliver(self))

    def handled(self, response: Response) -> None:
        """Send the server's response back, or lose or damage it."""
        hub, faults, chance = self.server.hub, self.server.faults, self.server.hub.random.random
        status, body = response.status, response.body
        if chance() < faults.lost_response:
            hub.trace(f"{self.what}: {status}, the response is lost")
            if chance() < 0.5:
                self.fail(FailureKind.BROKEN, "closed", request_sent=True)
            return
        if chance() < faults.truncated:
            body = body[: len(body) // 2]
        if chance() < faults.hostile:
            status, body = hub.random.choice(HOSTILE)
        headers = [(name.encode(), value.encode()) for name, value in response.headers.items()]
        if status != response.status:
            headers = [(b"Content-Type", b"application/json")]
            if status == 429:
                headers.append((b"Retry-After", b"2"))
        delay_s = faults.delay_s * (0.5 + hub.random.random())
        hub.at(hub.now_s + delay_s, lambda: self._arrive(status, tuple(headers), body))

    def fail(self, kind: FailureKind, message: str, *, request_sent: bool) -> None:
        """End the attempt without a response."""
        if not self.over:
            self.over = True
            self.error = ExchangeError(kind, message, request_sent=request_sent)
            self.notify()

    def result(self) -> Reply:
        """Return the response, or raise the failure of the attempt."""
        self.over = True
        if self.error is not None:
            raise self.error
        if self.reply is None:
            self.server.hub.trace(f"{self.what}: timeout")
            raise ExchangeError(FailureKind.TIMEOUT, "timed out", request_sent=True)
        return self.reply

    def _arrive(self, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes) -> None:
        if not self.over:
            self.over = True
            self.server.hub.trace(f"{self.what}: {status}")
            self.reply = Reply(status, headers, body, self.sent_s, self.server.hub.now_s)
            self.notify()


class _Connections:
    """What both kinds of connections share."""

    def __init__(self, simulated: HasServer) -> None:
        self._simulated = simulated
        self._server = simulated.server
        self.closed = False

    def _exchange(self, method: str, target: str, headers: Headers, body: bytes) -> Exchange:
        self._simulated.before_sending(target)
        named = {name.decode().lower(): value.decode() for name, value in headers}
        request = Request(method=method, target=target, headers=named, body=body)
        process = self._server.hub.current
        return Exchange(self._server, request, f"{process.process.name if process else '-'} {method} {target}")


class SimBlocking(_Connections):
    """Connections for threads."""

    def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes,
        timeout_s: float,
        queue_timeout_s: float = math.inf,
        ends_at_s: float = math.inf,
    ) -> Reply:
        """Make one attempt; the current thread waits."""
        hub = self._server.hub
        timeout_s = min(timeout_s, ends_at_s - hub.now_s)
        hub.preempt()
        exchange = self._exchange(method, target, headers, body)
        exchange.send()
        if not exchange.over:
            waiter: Waiter = hub.waiter()
            exchange.notify = waiter.wake
            hub.wait(waiter, timeout_s)
        return exchange.result()

    def close(self) -> None:
        """Note that the connections are closed."""
        self.closed = True


class SimAsync(_Connections):
    """Connections for the tasks of one loop."""

    async def send(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: bytes,
        timeout_s: float,
        queue_timeout_s: float = math.inf,
        ends_at_s: float = math.inf,
    ) -> Reply:
        """Make one attempt; the current task waits."""
        timeout_s = min(timeout_s, ends_at_s - self._server.hub.now_s)
        loop = asyncio.get_running_loop()
        exchange = self._exchange(method, target, headers, body)
        done: asyncio.Future[None] = loop.create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        def notify() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(finish)

        exchange.notify = notify
        exchange.send()
        try:
            if not exchange.over:
                timer = loop.call_later(timeout_s, finish)
                try:
                    await done
                finally:
                    timer.cancel()
            return exchange.result()
        finally:
            exchange.over = True

    async def aclose(self) -> None:
        """Note that the connections are closed."""
        self.closed = True


def patches(simulated: HasServer) -> list[tuple[Any, str, Any]]:
    """Return what replaces sockets and the server's disk: module, name, value."""
    from cycles._drivers import channel

    return [
        (channel, "blocking", lambda endpoint, **_: SimBlocking(simulated)),
        (channel, "asynchronous", lambda endpoint, **_: SimAsync(simulated)),
        (embedded, "_store", lambda path: path),
    ]


def amount(value: int) -> cycles.Amount:
    """Return an amount of the unit that all simulated budgets use."""
    return cycles.tokens(value)
