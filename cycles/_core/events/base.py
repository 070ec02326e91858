"""`Event`: the base class of all events. `cycles.events` has the events themselves."""

from __future__ import annotations

import logging
from typing import ClassVar

from attrs import frozen


@frozen(kw_only=True)
class Event:
    """Base class of all events.

    Attributes:
        reservation_id: Id of the reservation, or None if there is none.
        request_id: The server's id of the request that caused the event, or None if no single request did.
        trace_id: Trace id of the guard (32 hex digits), or None.
        detail: The cause, on events that have one.
    """

    reservation_id: str | None = None
    request_id: str | None = None
    trace_id: str | None = None

    level: ClassVar[int] = logging.INFO

    def text(self) -> str:
        """Return the log message: one line. Of an event without its own, the name of its class."""
        return type(self).__name__

    @property
    def _id(self) -> str:
        return f"reservation {self.reservation_id}"


Event.__module__ = "cycles.events"
