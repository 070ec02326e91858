"""Forward the bytes of a response that the user reads, read their usage, and settle the call when they end.

The same steps for `httpx` and `httpx2`, whose responses share these public methods.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

from cycles.providers._background import Retrieval
from cycles.providers._call import Call, Outcome
from cycles.providers._classes import subclass
from cycles.providers._settle import TASK, end_call, end_dropped

_DRAIN_BYTES: Final = 64 * 1024
_DRAIN_S: Final = 1.0
"""How much, and how long, is read for the usage behind the finish reason of a stream that the user has left."""


class Pump:
    """What one response has forwarded so far."""

    __slots__ = ("_body", "_filter", "call", "exhausted", "reading", "source")

    def __init__(self, call: Call | Retrieval, content_type: str) -> None:
        self.call = call
        self.source: Any = None  # the iterator over the response's bytes, once the user reads
        self.reading = False
        self.exhausted = False
        in_frames = "amazon.eventstream" in content_type
        self._filter = call.stream(in_frames=in_frames) if in_frames or "event-stream" in content_type else None
        self._body: list[bytes] | None = [] if "json" in content_type else None
        call.responded = True

    @contextlib.contextmanager
    def reads(self) -> Iterator[None]:
        """Mark that the source is being read: a close that comes from it is not the user's."""
        self.reading = True
        try:
            yield
        finally:
            self.reading = False

    def take(self, chunk: bytes | None) -> bytes:
        """Take bytes of the response, or None at its end, and return those to forward."""
        if chunk is not None:
            return self.feed(chunk)
        self.exhausted = True
        if self._filter is not None:
            return self._filter.flush()
        if self._body is not None:
            self.call.whole(b"".join(self._body))
        return b""

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes of the response, and return those to forward."""
        if self._filter is not None:
            return self._filter.feed(chunk)
        if self._body is not None:
            self._body.append(chunk)
        return chunk

    @property
    def outcome(self) -> Outcome:
        """How a response that was read to its end has ended."""
        if self._filter is None:
            return self.call.chunks_outcome if isinstance(self.call, Call) else None
        return "error" if self._filter.failed else None

    @property
    def usage_may_follow(self) -> bool:
        """Whether the event with the usage is still to come, behind the finish reason."""
        seen = self._filter
        if seen is None or self.source is None or not self.call.usage_event:
            return False
        return seen.finished and not (seen.usage_seen or seen.complete or seen.failed)

    @property
    def drained(self) -> bool:
        """Whether nothing more is to be read for the usage."""
        return self._filter is None or self._filter.usage_seen or self._filter.complete


def broken(error: BaseException) -> Outcome:
    """Return how a stream ended that raised: an interrupted or cancelled reader has left it."""
    return "error" if isinstance(error, Exception) else "closed"


def media_type(call: Call | Retrieval, headers: Mapping[str, str]) -> str:
    """Return the media type of a response in lower case; if it names none, the one that its request asks for."""
    is_stream = isinstance(call, Call) and call.request.stream
    return headers.get("content-type", "").lower() or ("text/event-stream" if is_stream else "application/json")


def receive(call: Call | Retrieval, response: Any) -> None:
    """Read a whole response, or watch one that is still to be read; error responses are not paid."""
    if not response.is_success:
        return
    kind = media_type(call, response.headers)
    # A hook of the HTTP client, or a fake transport, may have read a stream already; the SDK reads its events later.
    is_stream = isinstance(call, Call) and call.request.stream and "event-stream" in kind
    if response.is_closed and not is_stream:
        call.whole(response.content)
        return
    pump = Pump(call, kind)
    call.streams = True
    response_class: Any = type(response)
    response.__class__ = guarded_response(response_class)
    response._cycles_pump = pump
    weakref.finalize(response, end_dropped, call)


@cache
def guarded_response(cls: type) -> type[Any]:
    """Return a subclass of a response class whose reading is watched."""
    base: Any = cls

    def iter_bytes(self: Any, chunk_size: int | None = None) -> Iterator[bytes]:
        return forwarded(self._cycles_pump, base.iter_bytes(self, chunk_size))

    def aiter_bytes(self: Any, chunk_size: int | None = None) -> AsyncIterator[bytes]:
        return _aforwarded(self._cycles_pump, base.aiter_bytes(self, chunk_size))

    def close(self: Any) -> None:
        close_response(self._cycles_pump, lambda: base.close(self), lambda: _socket_of(self))

    async def aclose(self: Any) -> None:
        pump: Pump = self._cycles_pump
        if pump.reading:
            await base.aclose(self)
            return
        try:
            if pump.usage_may_follow:
                await _adrain(pump)
        finally:
            try:
                await base.aclose(self)
            finally:
                await TASK.end(pump.call, pump.call.stream_outcome)

    return subclass(cls, __slots__=(), iter_bytes=iter_bytes, aiter_bytes=aiter_bytes, close=close, aclose=aclose)


def close_response(pump: Pump, close: Callable[[], object], connection: Callable[[], object]) -> None:
    """Close a response that the user has left, and settle its call.

    Args:
        pump: What it has forwarded.
        close: Closes it.
        connection: Returns its socket, if that is known.
    """
    if pump.reading:
        close()
        return
    try:
        if pump.usage_may_follow:
            _drain(pump, connection)
    finally:
        try:
            close()
        finally:
            end_call(pump.call, pump.call.stream_outcome)


def forwarded(pump: Pump, source: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the bytes of a response, and settle its call when they end."""
    pump.source = source
    try:
        while not pump.exhausted:
            with pump.reads():
                chunk = next(source, None)
            data = pump.take(chunk)
            if pump.outcome == "error":
                end_call(pump.call, "error")  # the SDK raises now, and some versions do not close the response
            if data:
                yield data
    except GeneratorExit:
        raise  # the response is closed or dropped, and settled then
    except BaseException as error:
        end_call(pump.call, broken(error))
        raise
    end_call(pump.call, pump.outcome)


async def _aforwarded(pump: Pump, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    pump.source = source
    try:
        while not pump.exhausted:
            with pump.reads():
                chunk = await anext(source, None)
            data = pump.take(chunk)
            if pump.outcome == "error":
                await TASK.end(pump.call, "error")
            if data:
                yield data
    except GeneratorExit:
        raise  # the response is closed or dropped, and settled then
    except BaseException as error:
        await TASK.end(pump.call, broken(error))
        raise
    await TASK.end(pump.call, pump.outcome)


def _drain(pump: Pump, connection: Callable[[], object]) -> None:
    """Read on for the usage, in a thread: the connection's own buffer cannot be polled."""

    def read() -> None:
        size = 0
        with contextlib.suppress(Exception):
            for chunk in pump.source:
                pump.feed(chunk)
                size += len(chunk)
                if pump.drained or size > _DRAIN_BYTES:
                    return

    with pump.reads():
        reader = threading.Thread(target=read, name="cycles-stream-usage", daemon=True)
        reader.start()
        reader.join(_DRAIN_S)
        if reader.is_alive():
            _shut_down(connection())
            reader.join(_DRAIN_S)


def _socket_of(response: Any) -> object:
    stream = response.extensions.get("network_stream")
    return None if stream is None else stream.get_extra_info("socket")


def _shut_down(connection: object) -> None:
    if isinstance(connection, socket.socket):
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


async def _adrain(pump: Pump) -> None:
    import asyncio

    async def read() -> None:
        size = 0
        async for chunk in pump.source:
            pump.feed(chunk)
            size += len(chunk)
            if pump.drained or size > _DRAIN_BYTES:
                return

    with pump.reads(), contextlib.suppress(Exception):
        await asyncio.wait_for(read(), _DRAIN_S)
