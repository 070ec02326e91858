"""Carry the dashboard over ASGI: responses, and streams of events that end when the listener stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from cycles.embedded.dashboard import checks
from cycles.embedded.dashboard.routes import PATH, Dashboard, Stream
from cycles.embedded.http import Request, Response

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

# A page takes a silent connection for a lost one, so an idle stream sends a comment this often.
ALIVE_S: Final = 4.0


class DashboardApp:
    """The dashboard on one listener. Reading needs the token too if the host is not loopback."""

    def __init__(self, dashboard: Dashboard, host: str) -> None:
        self._dashboard = dashboard
        self._host = host.lower()
        self._is_closed = False

    def serves(self, path: str) -> bool:
        """Return whether a path belongs to the dashboard; the root leads to it."""
        return path in ("/", PATH) or path.startswith(f"{PATH}/")

    def handle(self, request: Request, address: str) -> Response | Stream | None:
        """Return the response to a request, or what to stream, or None if the server is closed.

        Args:
            address: The local address of the connection.
        """
        if self._dashboard.feed.is_closed:
            return None
        reads_freely = checks.is_loopback(self._host)
        return self._dashboard.handle(request, frozenset({self._host, address.lower()}), reads_freely=reads_freely)

    async def stream(self, wanted: Stream, receive: Receive, send: Send) -> None:
        """Send events until the client disconnects or the listener stops."""
        headers = checks.HEADERS | {"Content-Type": "text/event-stream; charset=utf-8"}
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": lines})
        disconnected = asyncio.ensure_future(receive())
        try:
            await self._send_events(wanted.last_event_id, disconnected, send)
        finally:
            disconnected.cancel()
        await send({"type": "http.response.body"})

    async def _send_events(self, position: int, disconnected: asyncio.Future[Any], send: Send) -> None:
        feed, clock = self._dashboard.feed, asyncio.get_running_loop()
        last_s = float("-inf")  # the first comment is sent immediately, so that the page knows that it is connected
        while not self._is_closed and not feed.is_closed and not disconnected.done():
            pause_s = feed.publish()
            events, position = feed.after(position)
            if not events and clock.time() - last_s >= ALIVE_S:
                events = [b": at_ms=%d\n\n" % feed.now_ms()]
            if events:
                last_s = clock.time()
                await send({"type": "http.response.body", "body": b"".join(events), "more_body": True})
            await asyncio.wait([disconnected], timeout=pause_s)

    def open(self) -> None:
        """Allow streams, after `close` too."""
        self._is_closed = False

    def close(self) -> None:
        """End all streams, within a tenth of a second. Any thread may call it."""
        self._is_closed = True
