"""Send calls of admin operations over the channel of the client: one attempt in, one `Outcome` out."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Self

from attrs import define, evolve

from cycles._client.options import check_timeout
from cycles._config import Config
from cycles._core.messages.outcome import NoSuccess, Outcome, Success
from cycles._core.messages.requests import NO_OPTIONS, Call, CallOptions
from cycles._core.values.headers import checked_header, checked_headers, merged_headers
from cycles._drivers import channel
from cycles._drivers.io.threads import CLOCK
from cycles._drivers.reporting import Reporter
from cycles._errors import ConfigurationError, CyclesError
from cycles._flows.io import Clock, Settings
from cycles._flows.retry import send_read, send_write
from cycles._flows.signal import Signal
from cycles._http.running_loop import running_loop
from cycles._wire.wire import Tables, Wire, tables_of
from cycles.admin._errors import admin_error

PACKAGE: Final = "cycles_admin_client"
_KEY_HEADER: Final = "X-Admin-API-Key"


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


class Channels:
    """The channel of one admin client in this process. It opens nothing before it is used.

    Args:
        config: Settings that `configured` has checked.
        clients: The user's clients for threads and for event loops, if there are any.
    """

    def __init__(self, config: Config, *clients: Any) -> None:
        self.config = config
        self._clients = clients
        self._closed = False
        self._pid = os.getpid()
        self._channel = self._new()

    def _new(self) -> channel.Channel:
        return channel.Channel(
            self.config,
            int,
            Reporter(),
            *self._clients,
            tables=_tables,
            key_header=_KEY_HEADER,
            variables="CYCLES_ADMIN_",
        )

    def current(self) -> channel.Channel:
        """Return the channel.

        Raises:
            CyclesError: The client is closed.
        """
        if self._closed:
            raise CyclesError("this admin client is closed; make a new one")
        if self._pid != os.getpid():  # connections of the parent process must not be used in a forked child
            self._pid, self._channel = os.getpid(), self._new()
        return self._channel

    def close(self) -> None:
        """Close the connections of threads."""
        self._closed = True
        self._channel.close()

    async def aclose(self) -> None:
        """Close the connections of threads and of the running event loop."""
        self.close()
        await self._channel.aclose(running_loop())


@define
class Channel:
    """What an operation needs: send a call with the options of this one, repeat it, and wait."""

    channels: Channels
    options: CallOptions = NO_OPTIONS

    def with_options(self, timeout: Any = None, extra_headers: Any = None) -> Self:
        """Return this channel with options of one call.

        Raises:
            InvalidRequestError: One of them is wrong; nothing was sent.
        """
        if timeout is not None:
            check_timeout(timeout)
        headers = checked_headers("extra_headers", extra_headers)
        for name, value in headers.items():
            checked_header("extra_headers", name, value, _KEY_HEADER)
        given = self.options.timeout_s if timeout is None else timeout
        return evolve(self, options=CallOptions(timeout_s=given, headers=merged_headers(self.options.headers, headers)))

    @property
    def wire(self) -> Wire:
        """The operations of the admin server."""
        return self.channels.current().wire

    @property
    def settings(self) -> Settings:
        """What this client is configured with."""
        config, own = self.channels.config, self.options.timeout_s
        return Settings(config.base_url or "", config.timeout if own is None else own, config.max_retries)

    @property
    def clock(self) -> Clock:
        """The times, and the jitter."""
        return CLOCK

    def with_own(self, call: Call) -> Call:
        """Return a call with the options of this channel, unless it has its own."""
        return evolve(call, options=self.options) if call.options is NO_OPTIONS else call

    async def send(self, call: Call) -> Outcome:
        """Make one attempt in this thread. No coroutine of this class suspends."""
        return await self.channels.current().send(self.with_own(call))

    async def wait(self, signal: Signal, timeout_s: float | None = None) -> bool:
        """Sleep in this thread: no signal of a channel is ever set."""
        time.sleep(timeout_s or 0.0)  # noqa: ASYNC251 - no coroutine of this channel suspends
        return signal.is_set


class AsyncChannel(Channel):
    """A channel for the tasks of event loops."""

    async def send(self, call: Call) -> Outcome:
        """Make one attempt in this task."""
        return await self.channels.current().send(self.with_own(call), running_loop())

    async def wait(self, signal: Signal, timeout_s: float | None = None) -> bool:
        """Sleep in this task: no signal of a channel is ever set."""
        await asyncio.sleep(timeout_s or 0.0)
        return signal.is_set


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
