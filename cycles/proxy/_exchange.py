"""One HTTP exchange with the program: its request, its response, and whether it is still connected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from cycles.proxy._shares import Share
from cycles.proxy._targets import origin_form

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]

HOST_URL = "cycles.host_url"
"""The extension of a scope that names the captured host, and its address if that is the upstream."""
DRAIN_BYTES = 64 * 1024
_DRAIN_S = 1.0
"""How much, and how long, is read for the usage behind the finish reason after the program has left."""


class Exchange:
    """The program's side of one request.

    Attributes:
        captured_host: The host whose connection was captured, or None.
        host_url: Its address, if that is where the request goes.
        share: The share whose secret the request has; None: the run.
        left: The program has disconnected, and only what its call costs is still read.
        reads_on: If the program leaves, the response is read to its end: it is a whole one, which the provider bills.
        started: The head of the response was sent.
    """

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.query: str = scope["query_string"].decode("latin-1")
        self.headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        target = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        self.raw_path: str = origin_form(target, self.headers.get("host"))
        captured = (scope.get("extensions") or {}).get(HOST_URL)
        self.captured_host: str | None = None if captured is None else captured["host"]
        self.host_url: str | None = None if captured is None else captured["url"]
        self.share: Share | None = None
        self.left = False
        self.reads_on = False
        self.started = False
        self._receive = receive
        self._send = send
        self._watcher: asyncio.Task[None] | None = None
        self._usage_may_follow: Callable[[], bool] = lambda: False

    async def body(self) -> bytes:
        """Return the whole body, and cancel this task from now on if the program disconnects."""
        chunks = [chunk async for chunk in self.chunks()]
        self.watch()
        return b"".join(chunks)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            CancelledError: if the program disconnects.
        """
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise asyncio.CancelledError("the program has disconnected")
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    def watch(self) -> None:
        """Cancel the current task when the program disconnects; the body must have been read."""
        task = asyncio.current_task()
        assert task is not None
        self._watcher = asyncio.create_task(self._watch(task))

    def drain_if(self, usage_may_follow: Callable[[], bool]) -> None:
        """If the program leaves while this is true, read on for a second instead of cancelling immediately."""
        self._usage_may_follow = usage_may_follow

    async def _watch(self, task: asyncio.Task[Any]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self.reads_on:
            self.left = True
            return
        if self._usage_may_follow():
            self.left = True
            await asyncio.sleep(_DRAIN_S)
        task.cancel()

    def close(self) -> None:
        """Stop watching: from now on the program may leave."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def start(self, status: int, headers: RawHeaders) -> None:
        """Send the head of the response."""
        self.started = True
        if not self.left:
            await self._send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def send(self, data: bytes) -> None:
        """Send a part of the body; nothing if the program has left."""
        if data and not self.left:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        """Send the end of the body."""
        self.close()
        if not self.left:
            await self._send({"type": "http.response.body", "body": data})

    async def respond(self, response: tuple[int, RawHeaders, bytes]) -> None:
        """Send a whole response."""
        status, headers, body = response
        await self.start(status, headers)
        await self.finish(body)
