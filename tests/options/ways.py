"""The ways to use one reservation, sync and async, and what a user sees of each: its requests, its guard, its error."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import httpx

import cycles
from cycles._core.lease.planner import Stop, StopReason
from cycles._flows.heartbeat import lose_lease
from cycles.embedded.routes import find
from cycles.embedded.transports import EmbeddedTransport
from tests.support.inside import runtime_of, state_of
from tests.support.worlds import ACTION, World

T = cycles.tokens
SPENT = T(7)
_CALLER: contextvars.ContextVar[object] = contextvars.ContextVar("_CALLER", default=None)


class Sent(NamedTuple):
    """One request as it leaves the client."""

    operation: str | None
    query: dict[str, str]
    body: Any
    headers: httpx.Headers
    timeout: Any
    """Of each phase, in seconds: what httpx limits."""
    is_foreground: bool
    """Whether the caller of the SDK waits for it."""
    is_async: bool


class Recorder(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Passes requests to an embedded server and notes them."""

    def __init__(self, server: cycles.EmbeddedServer) -> None:
        self._inner = EmbeddedTransport(server)
        self.sent: list[Sent] = []
        self.task: asyncio.Task[Any] | None = None
        """The caller in async code."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self._note(request, _CALLER.get() is self, is_async=False)
        return self._inner.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self._note(request, asyncio.current_task() is self.task, is_async=True)
        return await self._inner.handle_async_request(request)

    def _note(self, request: httpx.Request, is_foreground: bool, *, is_async: bool) -> None:
        body = json.loads(request.content) if request.content else None
        operation, query = find(request.method, request.url.path).operation, dict(request.url.params)
        timeout = request.extensions.get("timeout", {})
        self.sent.append(Sent(operation, query, body, request.headers, timeout, is_foreground, is_async))

    @contextlib.contextmanager
    def called_here(self) -> Iterator[None]:
        """Note requests of this thread or task as those for which a caller waits."""
        self.task, token = asyncio.current_task(), _CALLER.set(self)
        try:
            yield
        finally:
            _CALLER.reset(token)


class Place:
    """An embedded server, and clients whose requests are noted."""

    def __init__(self, kind: str, server: cycles.EmbeddedServer, stack: contextlib.ExitStack) -> None:
        self.kind = kind
        self.server = server
        self.recorder = Recorder(server)
        self._stack = stack

    @property
    def is_async(self) -> bool:
        return self.kind == "async"

    def client(self, **settings: Any) -> cycles.Cycles:
        """Return a client; it is closed with the test."""
        clients = httpx.Client(transport=self.recorder), httpx.AsyncClient(transport=self.recorder)
        names = {"http_client": clients[0], "async_http_client": clients[1], "tenant": "acme", "flush_timeout": 0.0}
        client = self.server.client(**{**names, **settings})
        self._stack.callback(client.close)
        return client

    def use(self, client: cycles.Cycles | None = None) -> Use:
        """Return a way to use a client, by default a new one."""
        return Use(self, self.client() if client is None else client)


class Use:
    """One use of a client, and what was seen of it."""

    def __init__(self, place: Place, client: cycles.Cycles) -> None:
        self.place = place
        self.server = place.server
        self.world = World(place.kind, client)
        self.guard: Any = None
        """The guard that the work had."""
        self.state: str | None = None
        """Its state in the block."""
        self.work: Callable[[Any], object] = lambda guard: guard.spend(SPENT)
        """What is done with it."""
        self._before = len(place.recorder.sent)

    @property
    def sent(self) -> list[Sent]:
        """The requests since this use began."""
        return self.place.recorder.sent[self._before :]

    def of(self, operation: str) -> list[Sent]:
        """Return the requests of one operation, by the server's short name."""
        return [each for each in self.sent if each.operation == operation]

    def content(self, operation: str) -> Any:
        """Return the body of the only request of an operation."""
        (sent,) = self.of(operation)
        return sent.body

    def do(self, guard: Any) -> None:
        """Do the work."""
        self.guard, self.state = guard, guard.state
        self.work(guard)

    def body(self, first: int, *, second: int) -> None:
        """Do the work with the current guard: the body of decorated functions."""
        assert (first, second) == (1, 2)
        self.do(cycles.current_guard())

    def after(self, value: Any) -> Callable[[int], Any]:
        """Return a callable of the arguments of `body` that returns a value."""

        def given(second: int) -> Any:
            assert second == 2
            return value

        return given

    def lose(self, guard: Any) -> None:
        """Lose the lease of a guard that has spent something."""
        guard.spend(SPENT)
        io = runtime_of(self.world.client).blocking
        lose_lease(io, state_of(guard).heartbeat, Stop(StopReason.EXPIRED, "lost by a test"))

    async def run(self, way: Way, **options: Any) -> None:
        """Reserve and do the work, in one of the ways."""
        given = {"estimate": T(100), "action": ACTION, **options}
        with self.place.recorder.called_here():
            await way(self, given.pop("estimate"), given)


Way = Callable[[Use, Any, dict[str, Any]], Awaitable[None]]


async def block(use: Use, estimate: Any, options: dict[str, Any]) -> None:
    async with use.world.enter(use.world.client.reserve(estimate, **options)) as guard:
        use.do(guard)


async def by_hand(use: Use, estimate: Any, options: dict[str, Any]) -> None:
    guard = await use.world.acquire(use.world.client.reserve(estimate, **options))
    use.do(guard)
    await use.world.get(guard.end())


async def function(use: Use, estimate: Any, options: dict[str, Any]) -> None:
    call = use.world.client.guarded(estimate, **options)(use.world.function(use.body))
    await use.world.get(call(1, second=2))


async def default_client(use: Use, estimate: Any, options: dict[str, Any]) -> None:
    call = cycles.guarded(estimate, **options)(use.world.function(use.body))
    cycles.set_default_client(use.world.client)
    try:
        await use.world.get(call(1, second=2))
    finally:
        cycles.set_default_client(None)


async def generator(use: Use, estimate: Any, options: dict[str, Any]) -> None:
    def steps(first: int, *, second: int) -> Iterator[int]:
        use.body(first, second=second)
        yield 1

    call = use.world.client.guarded(estimate, **options)(use.world.generator(steps))
    assert await use.world.all(call(1, second=2)) == [1]


async def computed(use: Use, estimate: Any, options: dict[str, Any]) -> None:
    """As `function`, with each option that may be one as a callable of the call's arguments."""
    fixed = {name: options.pop(name) for name in FIXED if name in options}
    made: dict[str, Any] = {name: use.after(value) for name, value in {"estimate": estimate, **options}.items()}
    call = use.world.client.guarded(**made, **fixed)(use.world.function(use.body))
    await use.world.get(call(1, second=2))


async def series(use: Use, estimate: Any, options: dict[str, Any]) -> None:
    async with use.world.enter(use.world.client.lease_series(estimate, **options)) as parts:
        use.do(await use.world.get(parts.next()))


FIXED = ("lease_policy", "on_unavailable", "on_observed", "settle", "actual")
"""Options of `guarded` that are no callables of the arguments."""
WAYS: dict[str, Way] = {
    each.__name__: each for each in (block, by_hand, function, default_client, generator, computed, series)
}
