"""The network between the clients and the server: losses, delays, duplicates, damaged and foreign responses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import define

import cycles
from cycles._core.messages.outcome import Reply
from cycles._core.messages.requests import Prepared
from cycles._http.exchange import ExchangeError, FailureKind, Limits
from cycles.embedded.http import Request, Response
from tests.simulation.hub import Process, Waiter

if TYPE_CHECKING:
    from tests.simulation.server import SimServer

Headers = Sequence[tuple[bytes, bytes]]

HOSTILE: Final = (
    (200, b"<html>proxy</html>"),
    (200, b'{"decision": 7}'),
    (200, b'{"status": "COMMITT'),
    (204, b""),
    (302, b""),
    (413, b"too large"),
    (429, b'{"error": "LIMIT_EXCEEDED", "message": "slow down", "request_id": "r"}'),
    (500, b'{"error": "INTERNAL_ERROR", "message": "boom", "request_id": "r"}'),
    (502, b"bad gateway"),
    (503, b""),
    (401, b'{"error": "UNAUTHORIZED", "message": "INTERNAL_ERROR", "request_id": "r"}'),
)
"""Responses that a proxy, or a server whose store is down, sends in place of the real one."""
NETWORK: Final = (
    "lost_request",
    "lost_response",
    "duplicate",
    "hostile",
    "truncated",
    "refused",
    "slow",
    "denial_as_200",
)
"""The members of `Faults` that are chances."""


_PAGE: Final = b"<!doctype html><html><body>not available</body></html>"
PAGES: Final = tuple((status, _PAGE) for status in (403, 404, 409, 410, 413, 422, 429, 502, 503))
"""Pages of a gateway, which say nothing about the request."""
NO_ROUTE: Final = (403, 404, 410)
"""The status of the page of a gateway that does not know where a request belongs."""
EXTEND: Final = "/extend"
SHORT_TTL_MS: Final = 1_000
LATE_S: Final = 1.5  # more than such a lease lasts
WAIT: Final = b"2"
RETRY_AFTER: Final = (WAIT, b"Fri, 15 Jan 2027 08:00:30 GMT", b"soon", b"-7", b"1e9", b"")


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
    denial_as_200: float = 0.0
    pages: float = 0.0
    no_remaining_ttl: bool = False
    delay_s: float = 0.02


class HasServer(Protocol):
    """The run, which makes its server after the patches are in place."""

    server: SimServer

    def before_sending(self, target: str, body: bytes, process: Process | None) -> None:
        """Check what must be true before a request is sent."""
        ...

    def connected(self, connections: SimBlocking | SimAsync) -> None:
        """Note connections that a client has made."""
        ...


class Exchange:
    """One attempt of a client: a request on its way, and who waits for the response."""

    def __init__(self, server: SimServer, request: Request, process: Process | None) -> None:
        self.server = server
        self.process = process
        self.request = request
        self.what = f"{'-' if process is None else process.name} {request.method} {request.target}"
        self.reply: Reply | None = None
        self.error: ExchangeError | None = None
        self.over = False
        self.confirms = False  # the reply is the undamaged success of the server
        self.page: tuple[int, bytes, list[tuple[bytes, bytes]]] | None = None  # what a gateway sends instead
        self.sent_s = server.hub.now_s
        self.notify: Any = lambda: None

    def send(self) -> None:
        """Put the request on the network, or fail as the faults decide."""
        hub, faults = self.server.hub, self.server.faults
        if self._is_refused() or not self.server.up or self._happens("refused"):
            hub.trace(f"{self.what}: connection refused")
            self.fail(FailureKind.CONNECT, "connection refused", request_sent=False)
            return
        self.server.note_sent(self.request)
        delay_s = faults.delay_s * (0.5 + hub.random.random())
        if self.server.is_without_route(self.request):
            status = self.server.apart.choice(NO_ROUTE)
            headers = [(b"Content-Type", b"text/html")]
            hub.at(hub.now_s + delay_s, lambda: self._arrive(status, tuple(headers), _PAGE, confirms=False))
            return
        if faults.pages and self.server.apart.random() < faults.pages:
            self.server.swarm.matters("pages")
            status, body = self.server.apart.choice(PAGES)
            headers = [(b"Content-Type", b"text/html"), (b"Retry-After", self.server.apart.choice(RETRY_AFTER))]
            self.page = status, body, headers
            if status < 500:  # the gateway has not forwarded the request
                hub.at(hub.now_s + delay_s, lambda: self._arrive(status, tuple(headers), body, confirms=False))
                return
        if self._happens("slow"):
            delay_s += hub.random.choice((1.0, 4.9, 5.1, 20.0))
        if self._happens("lost_request"):
            hub.trace(f"{self.what}: the request is lost")
            if hub.random.random() < 0.5:
                hub.at(hub.now_s + delay_s, lambda: self.fail(FailureKind.BROKEN, "reset", request_sent=True))
            return
        hub.at(hub.now_s + delay_s, lambda: self.server.deliver(self))
        if self._happens("duplicate"):
            hub.trace(f"{self.what}: the request arrives twice")
            hub.at(hub.now_s + delay_s + hub.random.choice((0.0, 0.5, 30.0)), lambda: self.server.deliver(self))

    def _happens(self, name: str) -> bool:
        """Return whether a fault of the network happens now."""
        happens: bool = self.server.hub.random.random() < getattr(self.server.faults, name)
        if happens:
            self.server.swarm.matters(name)
        return happens

    def _is_refused(self) -> bool:
        head, _, operation = self.request.target.rpartition("/")
        reservation_id = head.rpartition("/")[2]
        if operation != "commit" or reservation_id not in self.server.refused:
            return False
        self.server.refused.discard(reservation_id)
        return True

    def handled(self, response: Response) -> None:
        """Send the server's response back, or lose or damage it."""
        hub, faults = self.server.hub, self.server.faults
        status, body = response.status, response.body
        if status < 300 and self.process is not None and self.server.kills(self.request, self.process):
            return
        if self._happens("lost_response"):
            hub.trace(f"{self.what}: {status}, the response is lost")
            if hub.random.random() < 0.5:
                self.fail(FailureKind.BROKEN, "closed", request_sent=True)
            return
        if status == 409 and self._happens("denial_as_200") and self.what.endswith("POST /v1/reservations"):
            status, body = 200, _denial(body)
        whole = body
        if self._happens("truncated"):
            body = body[: len(body) // 2]
        if self._happens("hostile"):
            status, body = hub.random.choice(HOSTILE)
        headers = [(name.encode(), value.encode()) for name, value in response.headers.items()]
        if faults.no_remaining_ttl and b"remaining_ttl_ms" in body and body == whole:
            self.server.swarm.matters("no remaining ttl")
            whole = body = _without(body, "remaining_ttl_ms")
        if status != response.status:
            headers = [(b"Content-Type", b"application/json")]
            if status == 429:
                headers.append((b"Retry-After", WAIT))
        if self.page is not None:
            status, body, headers = self.page
        delay_s = faults.delay_s * (0.5 + hub.random.random())
        if self.server.swarm.late_chunks and self._is_short_lease() and self.server.apart.random() < 0.5:
            self.server.swarm.matters("late chunks")
            delay_s += LATE_S
        confirms = status == response.status < 300 and body == whole
        hub.at(hub.now_s + delay_s, lambda: self._arrive(status, tuple(headers), body, confirms=confirms))

    def _is_short_lease(self) -> bool:
        is_reserve = self.what.endswith("POST /v1/reservations")
        return is_reserve and json.loads(self.request.body or b"{}").get("ttl_ms") == SHORT_TTL_MS

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
        if self.reply.status == 429 and (b"retry-after", WAIT) in self.reply.headers:
            self.server.defer(self.request, self.process, float(WAIT))
        if self.confirms and self.request.target.endswith(EXTEND):
            self.server.extended.add(key_in(self.request.body))
        return self.reply

    def _arrive(self, status: int, headers: tuple[tuple[bytes, bytes], ...], body: bytes, *, confirms: bool) -> None:
        if not self.over:
            self.server.note_answer(self.request, status)
            self.confirms = confirms
            if confirms:
                self.server.confirm(self.request, self.process)
            self.over = True
            self.server.hub.trace(f"{self.what}: {status}")
            lower = tuple(
                (name.lower(), value) for name, value in headers
            )  # as each way to read a response returns them
            self.reply = Reply(status, lower, body, self.sent_s, self.server.hub.now_s)
            self.notify()


def key_in(body: bytes | None) -> str:
    """Return the idempotency key of a request."""
    key: str = json.loads(body or b"{}").get("idempotency_key", "")
    return key


def _denial(body: bytes) -> bytes:
    """Return the response of a server that keeps a record of a reservation which it denies, with status 200."""
    denial = {"decision": "DENY", "reason_code": json.loads(body)["error"], "affected_scopes": []}
    return json.dumps({**denial, "reservation_id": "denied"}).encode()


def _without(body: bytes, member: str) -> bytes:
    """Return the response of an older server, which does not have a member yet."""
    return json.dumps({name: value for name, value in json.loads(body).items() if name != member}).encode()


class _Connections:
    """What both kinds of connections share."""

    def __init__(self, simulated: HasServer) -> None:
        self._simulated = simulated
        self._server = simulated.server
        self.closed = False
        current = simulated.server.hub.current
        self.process = None if current is None else current.process

    def _exchange(self, prepared: Prepared) -> Exchange:
        method, target, body = prepared.method, prepared.target, prepared.content
        self._simulated.before_sending(target, body, self.process)
        named = {name.decode().lower(): value.decode() for name, value in prepared.headers}
        request = Request(method=method, target=target, headers=named, body=body)
        if self.closed:
            self._server.hub.problems.append(f"a request on closed connections: {method} {target}")
        return Exchange(self._server, request, self.process)


class SimBlocking(_Connections):
    """Connections for threads."""

    def send(self, request: Prepared, limits: Limits) -> Reply:
        """Make one attempt; the current thread waits."""
        hub = self._server.hub
        timeout_s = min(limits.timeout_s, limits.ends_at_s - hub.now_s)
        hub.preempt()
        exchange = self._exchange(request)
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

    async def send(self, request: Prepared, limits: Limits) -> Reply:
        """Make one attempt; the current task waits."""
        timeout_s = min(limits.timeout_s, limits.ends_at_s - self._server.hub.now_s)
        loop = asyncio.get_running_loop()
        exchange = self._exchange(request)
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
    from cycles.embedded import server

    def blocking(endpoint: object, **_: object) -> SimBlocking:
        made = SimBlocking(simulated)
        simulated.connected(made)
        return made

    def asynchronous(endpoint: object, **_: object) -> SimAsync:
        made = SimAsync(simulated)
        simulated.connected(made)
        return made

    return [
        (channel, "blocking", blocking),
        (channel, "asynchronous", asynchronous),
        (server, "_store", lambda path: path),
    ]


def amount(value: int) -> cycles.Amount:
    """Return an amount of the unit that all simulated budgets use."""
    return cycles.tokens(value)
