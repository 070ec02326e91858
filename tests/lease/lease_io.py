"""`Io` of one lease on a virtual clock, for tests that send its heartbeats themselves."""

from __future__ import annotations

from typing import Any

from cycles._core.messages.requests import CallOptions, new_trace_id
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.io import Clock, Settings
from cycles._flows.reports import event_of


class VirtualIo:
    """What every such `Io` does. The classes of the tests add `send`."""

    clock_ms: float
    events: list[Any]

    settings = Settings("http://x", 5.0, 1)

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.clock_ms, lambda: int(self.clock_ms), lambda: self.clock_ms, lambda: 0.5)

    def begin_trace(self, request: ReserveRequest, known: str | None = None) -> CallOptions:
        return CallOptions(new_trace_id())

    def is_enabled_for(self, level: int) -> bool:
        return True

    def report(self, name: str, ids: object = None, **members: Any) -> None:
        self.events.append(event_of(name, ids, members))

    async def approve(self, request: ReserveRequest) -> None:
        """No limit needs an approval."""

    async def ensure_journal(self) -> None:
        """The journal is there."""

    def schedule(self, heartbeat: Heartbeat) -> None:
        """The test sends the heartbeats."""
