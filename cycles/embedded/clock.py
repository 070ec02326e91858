"""The clock of a server, in milliseconds since the epoch. Client time never enters the ledger.

See `docs/protocol/server.md#time`.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from cycles._version import public


class Clock(Protocol):
    """Source of the server's time."""

    def now_ms(self) -> int:
        """Return the time in milliseconds since the epoch."""
        ...


class SystemClock:
    """The time of the machine."""

    def now_ms(self) -> int:
        """Return the time in milliseconds since the epoch."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that does not move until a test advances it.

    Args:
        start_ms: Start time, in milliseconds since the epoch.
    """

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = start_ms
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        """Return the time in milliseconds since the epoch."""
        return self._now_ms

    def advance(self, ms: int) -> int:
        """Move forward by `ms` milliseconds and return the new time.

        Raises:
            ValueError: if `ms` is negative, because server time never runs backwards.
        """
        if ms < 0:
            raise ValueError(f"a clock cannot move backwards: {ms} ms; pass 0 or more")
        with self._lock:
            self._now_ms += ms
            return self._now_ms


public(ManualClock)
