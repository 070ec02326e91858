"""Send calls of admin operations: one attempt in, one `Outcome` out, in a thread or in an event loop."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, cast

import httpx
from attrs import evolve

from cycles._client.options import checked_timeout
from cycles._config import Config
from cycles._core.headers import checked_header, checked_headers, merged_headers
from cycles._core.outcome import NoSuccess, Outcome, Success, Unreachable
from cycles._core.requests import Call
from cycles._errors import ConfigurationError, CyclesError
from cycles._flows.retry import Sender, send_read, send_write
from cycles._http.exchange import Endpoint, ExchangeError
from cycles._http.factory import Async, Blocking, asynchronous, blocking
from cycles._wire.wire import Prepared, ReplyLike, Tables, Wire, tables_of
from cycles.admin._errors import admin_error

PACKAGE: Final = "cycles_admin_client"
_KEY_HEADER: Final = b"X-Admin-API-Key"


def _tables() -> Tables:
    from cycles_admin_client import checks, protocol

    return tables_of(protocol, checks)


def configured(base_url: str | None, api_key: str | None, settings: Mapping[str, Any]) -> Config:
    """Return the configuration of an admin client, from arguments over ``CYCLES_ADMIN_...`` variables.

    Raises:
        ConfigurationError: naming the setting that is missing or wrong.
    """
    config = Config.from_env("CYCLES_ADMIN_", base_url=base_url, api_key=api_key, **settings)
    if not config.base_url:
        raise ConfigurationError("base_url of the admin server is missing: pass base_url= or set CYCLES_ADMIN_BASE_URL")
    if not config.api_key:
        raise ConfigurationError("the admin key is missing: pass api_key= or set CYCLES_ADMIN_API_KEY")
    if not isinstance(config.api_key, str):
        raise ConfigurationError("api_key must be a string: admin keys do not rotate; make a new Admin for a new key")
    return config


class Channel(Sender, Protocol):
    """What an operation needs: send a call, repeat it, and wait."""

    wire: Wire

    def with_options(self, timeout: Any = None, extra_headers: Any = None) -> Channel:
        """Return this channel with options of one call."""
        ...

    @property
    def max_retries(self) -> int:
        """How often a change with an unknown outcome is sent again."""
        ...


class _Connections:
    """The connections of one client: one pool for threads, and one for each event loop, all made when first used."""

    def __init__(
        self, config: Config, http_client: httpx.Client | None, async_http_client: httpx.AsyncClient | None
    ) -> None:
        assert config.base_url is not None
        self.config = config
        self.endpoint = Endpoint(config.base_url)
        self.closed = False
        self._clients = (http_client, async_http_client)
        self._pid = os.getpid()
        self._blocking: Blocking | None = None
        self._loops: dict[asyncio.AbstractEventLoop, Async] = {}

    def _check(self) -> None:
        if self.closed:
            raise CyclesError("this admin client is closed; make a new one")
        if self._pid != os.getpid():  # connections of the parent process must not be used in a forked child
            self._pid, self._blocking, self._loops = os.getpid(), None, {}

    def for_threads(self) -> Blocking:
        """Return the pool for threads."""
        self._check()
        if self._blocking is None:
            self._blocking = blocking(
                self.endpoint,
                connect_timeout_s=self.config.usable_connect_timeout,
                max_connections=self.config.max_connections,
                client=self._clients[0],
            )
        return self._blocking

    def for_loop(self) -> Async:
        """Return the pool of the running event loop."""
        self._check()
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            self._loops = {other: pool for other, pool in self._loops.items() if not other.is_closed()}
            self._loops[loop] = asynchronous(
                self.endpoint,
                connect_timeout_s=self.config.usable_connect_timeout,
                max_connections=self.config.max_connections,
                client=self._clients[1],
            )
        return self._loops[loop]

    def close(self) -> None:
        """Close the connections of threads."""
        self.closed = True
        if self._blocking is not None:
            self._blocking.close()

    async def aclose(self) -> None:
        """Close the connections of threads and of the running event loop."""
        pool = self._loops.pop(asyncio.get_running_loop(), None)
        self.close()
        if pool is not None:
            await pool.aclose()


class _Optional:
    """A channel that one call can give options."""

    def with_options(self, timeout: Any = None, extra_headers: Any = None) -> Channel:
        """Return this channel with options of one call.

        Raises:
            InvalidRequestError: One of them is wrong; nothing was sent.
        """
        channel = cast(Channel, self)
        if timeout is None and extra_headers is None:
            return channel
        if timeout is not None:
            checked_timeout(timeout)
        headers = checked_headers("extra_headers", extra_headers)
        for name, value in headers.items():
            checked_header("extra_headers", name, value, _KEY_HEADER.decode())
        return cast(Channel, _CallChannel(channel, timeout, headers))


class _BaseChannel(_Optional):
    """What both channels share."""

    def __init__(self, wire: Wire, connections: _Connections) -> None:
        self.wire = wire
        self._connections = connections

    @property
    def max_retries(self) -> int:
        """How often a change with an unknown outcome is sent again."""
        return self._connections.config.max_retries

    @property
    def timeout_s(self) -> float:
        """Seconds that one attempt may take."""
        return self._connections.config.timeout

    def now_ms(self) -> float:
        """Return monotonic milliseconds."""
        return time.monotonic() * 1000

    def random(self) -> float:
        """Return a random number from 0 to 1, for jitter."""
        return random.random()  # noqa: S311 - jitter is no secret

    def _prepared(self, call: Call) -> tuple[Prepared, float]:
        return self.wire.prepare(call), self.timeout_s if call.timeout_s is None else call.timeout_s

    def _classified(self, call: Call, reply: ReplyLike) -> Outcome:
        return self.wire.classify_response(call, reply)

    def _unreachable(self, call: Call, error: ExchangeError) -> Unreachable:
        message = f"no usable response from {self._connections.endpoint.name}: {error}"
        if not error.request_sent:
            message += "; check that the admin server runs, and base_url / CYCLES_ADMIN_BASE_URL"
        return Unreachable(self.wire.redact(message), error.__cause__ or error, error.request_sent, call.trace_id)


class BlockingChannel(_BaseChannel):
    """A channel for threads. No coroutine of it suspends."""

    async def send(self, call: Call) -> Outcome:
        """Make one attempt in this thread."""
        request, timeout_s = self._prepared(call)
        pool = self._connections.for_threads()
        try:
            reply = pool.send(request.method, request.target, request.headers, request.content, timeout_s)
        except ExchangeError as error:
            return self._unreachable(call, error)
        return self._classified(call, reply)

    async def pause(self, seconds: float) -> None:
        """Sleep in this thread."""
        time.sleep(seconds)  # noqa: ASYNC251 - no coroutine of this channel suspends


class AsyncChannel(_BaseChannel):
    """A channel for the tasks of event loops."""

    async def send(self, call: Call) -> Outcome:
        """Make one attempt in this task."""
        request, timeout_s = self._prepared(call)
        pool = self._connections.for_loop()
        try:
            reply = await pool.send(request.method, request.target, request.headers, request.content, timeout_s)
        except ExchangeError as error:
            return self._unreachable(call, error)
        return self._classified(call, reply)

    async def pause(self, seconds: float) -> None:
        """Sleep in this task."""
        await asyncio.sleep(seconds)


class _CallChannel(_Optional):
    """A channel with the timeout and headers of one call."""

    def __init__(self, channel: Channel, timeout_s: float | None, headers: Mapping[str, str]) -> None:
        self._channel = channel
        self._headers = headers
        self.timeout_s = channel.timeout_s if timeout_s is None else timeout_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    async def send(self, call: Call) -> Outcome:
        """Make one attempt."""
        timeout_s = self.timeout_s if call.timeout_s is None else call.timeout_s
        headers = merged_headers(self._headers, call.headers)
        return await self._channel.send(evolve(call, timeout_s=timeout_s, headers=headers))


def channels(
    config: Config, http_client: httpx.Client | None, async_http_client: httpx.AsyncClient | None
) -> tuple[BlockingChannel, AsyncChannel, _Connections]:
    """Return the channels of a client for threads and for event loops, over the same connections object."""
    assert isinstance(config.api_key, str)
    wire = Wire(config.api_key, tables=_tables, key_header=_KEY_HEADER)
    connections = _Connections(config, http_client, async_http_client)
    return BlockingChannel(wire, connections), AsyncChannel(wire, connections), connections


async def read(channel: Channel, call: Call) -> Success:
    """Send a read, repeated within one timeout, and return its success."""
    return require(await checked(channel, call, send_read), call.operation)


async def change(channel: Channel, call: Call) -> Success:
    """Send a change that may be repeated, once more if the outcome is unknown, and return its success."""
    return require(await checked(channel, call, send_write), call.operation)


async def checked(channel: Channel, call: Call, send: Callable[[Channel, Call], Awaitable[Outcome]]) -> Outcome:
    """Check a call against the schema, and send it.

    Raises:
        InvalidRequestError: naming the member that is wrong. Nothing was sent.
    """
    channel.wire.check(call)
    return await send(channel, call)


async def once(channel: Channel, call: Call) -> Outcome:
    """Send a call exactly once."""
    return await channel.send(call)


def require(outcome: Outcome, operation: str) -> Success:
    """Return a success; raise the typed error of any other outcome."""
    if isinstance(outcome, Success):
        return outcome
    raise failed(outcome, operation)


def failed(outcome: NoSuccess, operation: str) -> CyclesError:
    """Return the typed error of an outcome that is no success, with its cause."""
    error = admin_error(outcome, operation)
    error.__cause__ = getattr(outcome, "cause", None)
    return error
