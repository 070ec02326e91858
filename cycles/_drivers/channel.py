"""One request out, one `Outcome` back: the wire, the server's address, and the connections of threads and event loops.

Heartbeats have their own connections, so that no call makes them wait.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve

from cycles._config import Config
from cycles._core.messages.outcome import Outcome, RejectedResponse, Success, Unreachable
from cycles._core.messages.requests import Call, Prepared
from cycles._core.protocol import EXTEND_RESERVATION
from cycles._core.values.headers import KEY_HEADER
from cycles._drivers.api_key import KeySource, KeyUnavailableError, is_rejected_key, no_key
from cycles._drivers.reporting import Reporter, request_log
from cycles._drivers.soft_limits import SoftLimits
from cycles._errors import TransportError
from cycles._http.exchange import QUEUE_TIMEOUT_S, Endpoint, ExchangeError, FailureKind, Limits
from cycles._http.factory import asynchronous, blocking
from cycles._http.first_use import first_use, loading
from cycles._wire.wire import Tables, Wire, runtime_tables

if TYPE_CHECKING:
    import asyncio

    import httpx

    from cycles._drivers.tracing import SafeTrace

HEARTBEAT_CONNECTIONS: Final = 32
_V1: Final = "base_url ends in /v1, which the client adds itself: remove it"


class Channel:
    """Sends the calls of one client, from any number of threads and event loops.

    Args:
        config: Names the server and the API key, the limits of connections, and the timeouts.
        on_success: Called after each request that succeeded; must return immediately.
        reporter: Has the tracer of the client, if there is one, and gets the thresholds that responses reach.
        http_client: The user's client for calls from threads, if there is one.
        async_http_client: The user's client for calls from event loops, if there is one.
        tables: Returns the operations, at the first call.
        key_header: The header with the API key.
        variables: How the names of its environment variables begin, for messages.
    """

    def __init__(
        self,
        config: Config,
        on_success: Callable[[], object],
        reporter: Reporter,
        http_client: httpx.Client | None = None,
        async_http_client: httpx.AsyncClient | None = None,
        *,
        tables: Callable[[], Tables] = runtime_tables,
        key_header: str = KEY_HEADER,
        variables: str = "CYCLES_",
    ) -> None:
        self.base_url: str = config.endpoint()[0]
        self.timeout_s: float = config.timeout
        self.max_retries: int = config.max_retries
        self.wire: Wire = Wire(config.endpoint()[1], partial(_loaded, tables), key_header, config.default_headers)
        self._variables = variables
        self._endpoint = Endpoint(self.base_url)
        self._config = config
        self._on_success = on_success
        self._reporter = reporter
        self._keys = KeySource(config.api_key) if callable(config.api_key) else None
        self._log = request_log()
        self.soft_limits: SoftLimits = SoftLimits(config, reporter)
        self._http_client = http_client
        self._async_http_client = async_http_client
        self._closed = False
        self._threads: dict[bool, Any] = {}  # by whether they are for heartbeats only
        self._loops: dict[asyncio.AbstractEventLoop, dict[bool, Any]] = {}

    async def send(
        self, call: Call, loop: asyncio.AbstractEventLoop | None = None, ends_at_s: float = math.inf
    ) -> Outcome:
        """Make one attempt within the call's timeout: on this event loop, or without one in this thread.

        Without a loop nothing suspends, and the attempt ends at `ends_at_s` (monotonic seconds) at the latest.
        """
        tracer = self._reporter.trace
        trace: SafeTrace | None = None if tracer is None else call.options.trace or tracer
        if trace is None:  # the usual case: without a tracer, and with a key that stays
            sent = self._attempt if self._keys is None else self._send
            return await sent(call, loop, ends_at_s)
        with trace.sending(call) as (traced, received):
            outcome = await self._send(traced, loop, ends_at_s)
            received(outcome)
        return outcome

    async def _send(self, call: Call, loop: asyncio.AbstractEventLoop | None, ends_at_s: float) -> Outcome:
        if self._keys is None or not self.wire.needs_key(call):
            return await self._attempt(call, loop, ends_at_s)
        get = self._keys.get if loop is None else self._keys.aget
        # A rejected key is fetched once more, and the call repeated if that returned another one: keys are rotated.
        try:
            self.wire.use_key(key := await get())
            outcome = await self._attempt(call, loop, ends_at_s)
            if not is_rejected_key(outcome) or (other := await get(rejected=key)) == key:
                return outcome
        except KeyUnavailableError as error:
            return no_key(error, call.trace_id)
        self.wire.use_key(other)
        return await self._attempt(call, loop, ends_at_s)

    async def _attempt(self, call: Call, loop: asyncio.AbstractEventLoop | None, ends_at_s: float) -> Outcome:
        # A client may close between here and the connection; then one more attempt gets a new connection.
        was_open = not self._closed
        try:
            request, limits = self._prepare(call, ends_at_s)
            connections = self._connections(loop, heartbeat=call.operation == EXTEND_RESERVATION)
        except TransportError as error:
            return _not_loaded(call, error)
        started = time.monotonic()
        try:
            sent = connections.send(request, limits)
            reply = sent if loop is None else await sent
        except ExchangeError as error:
            if loop is None and error.kind is FailureKind.CLOSED and was_open and self._closed:
                return await self._attempt(call, loop, ends_at_s)  # closed on its way to a connection
            outcome: Outcome = self._unreachable(call, error, limits.timeout_s)
        else:
            outcome = self._classify(call, reply)
        finally:
            if self._closed and (loop is None or loop not in self._loops):
                await connections.aclose() if loop is not None else connections.close()
        if self._log is not None:
            self._log(request.method, request.target, time.monotonic() - started, outcome)
        return outcome

    def close(self) -> None:
        """Close the idle connections of threads. A guard that ends later gets a new connection for each request."""
        self._closed = True
        for connections in self._threads.values():
            connections.close()

    async def aclose(self, loop: asyncio.AbstractEventLoop) -> None:
        """Close the idle connections of this event loop. A guard that ends later gets a new one for each request."""
        self._closed = True
        for connections in self._loops.pop(loop, {}).values():
            await connections.aclose()

    def _prepare(self, call: Call, ends_at_s: float) -> tuple[Prepared, Limits]:
        """Return the request and its times. A heartbeat waits for a connection slot no longer than its timeout."""
        # A heartbeat has a timeout from its lease, which is shorter than what the caller has set.
        own_s = call.options.timeout_s if call.timeout_s is None else call.timeout_s
        timeout_s = self.timeout_s if own_s is None else own_s
        queue_timeout_s = min(timeout_s, QUEUE_TIMEOUT_S) if call.operation == EXTEND_RESERVATION else QUEUE_TIMEOUT_S
        return self.wire.prepare(call), Limits(timeout_s, queue_timeout_s, ends_at_s)

    def _classify(self, call: Call, reply: Any) -> Outcome:
        outcome = self.wire.classify_response(call, reply)
        if isinstance(outcome, Success):
            self._on_success()
            # Most clients watch no budget: their responses are not read a second time.
            if self._reporter.watchers or self.soft_limits.approvals is not None:
                self.soft_limits.see(call.operation, outcome.body)
        elif isinstance(outcome, RejectedResponse) and outcome.status in (404, 500) and self.base_url.endswith("/v1"):
            return evolve(outcome, message=f"{outcome.message}; {_V1}")
        return outcome

    def _unreachable(self, call: Call, error: ExchangeError, timeout_s: float) -> Unreachable:
        message = f"no usable response from {self.base_url}: {error}"
        if error.kind is FailureKind.CONNECT:
            message += f"; check that the server is running and that base_url ({self._variables}BASE_URL) is right"
        elif error.kind is FailureKind.TIMEOUT and call.timeout_s is None:
            message += f": {timeout_s:g} s; raise timeout ({self._variables}TIMEOUT) if the server is only slow"
        queued = error.kind is FailureKind.QUEUE
        if queued:
            message = str(error)
        # Crash reporters print local variables of frames, and those of connections have the API key.
        cause = without_frames(error.__cause__ or error)
        return Unreachable(self.wire.redact(message), cause, error.request_sent, call.trace_id, queued)

    def _connections(self, loop: asyncio.AbstractEventLoop | None, *, heartbeat: bool) -> Any:
        """Return the connections of threads or of a loop. Heartbeats have separate ones, unless the user's client does.

        After the close each request gets new ones.
        """
        client = self._http_client if loop is None else self._async_http_client
        # A pool of its own: calls that wait for a connection would otherwise delay the heartbeats of all leases.
        separate = heartbeat and client is None
        # A connection of asyncio belongs to its loop, so each loop has separate ones.
        kept = self._threads if loop is None else self._loops.get(loop)
        if self._closed and (loop is None or kept is None):
            return self._new_connections(loop, separate=separate)
        if kept is None or separate not in kept:
            with first_use, loading:
                kept = kept if kept is not None else self._add_loop(loop)
                if separate not in kept:
                    kept[separate] = self._new_connections(loop, separate=separate)
        return kept[separate]

    def _new_connections(self, loop: asyncio.AbstractEventLoop | None, *, separate: bool) -> Any:
        limits: dict[str, Any] = {
            "connect_timeout_s": self._config.usable_connect_timeout,
            "max_connections": HEARTBEAT_CONNECTIONS if separate else self._config.max_connections,
        }
        if loop is None:
            return blocking(self._endpoint, client=self._http_client, **limits)
        return asynchronous(self._endpoint, client=self._async_http_client, **limits)

    def _add_loop(self, loop: Any) -> dict[bool, Any]:
        """Register a loop, and delete those that are closed."""
        self._loops = {known: its for known, its in self._loops.items() if not known.is_closed()}
        return self._loops.setdefault(loop, {})


def without_frames(error: BaseException) -> BaseException:
    """Remove the tracebacks of an error that becomes a cause: the frames of connections have requests with the key."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def _not_loaded(call: Call, error: TransportError) -> Unreachable:
    cause = without_frames(error.cause or error)
    return Unreachable(str(error), cause, False, call.trace_id)


def _loaded(tables: Callable[[], Tables]) -> Tables:
    """Import the generated tables while no thread forks: a child would find the import lock held for ever."""
    with first_use, loading:
        return tables()
