"""The one clock of a server: milliseconds since the epoch. Client time never enters the ledger (ledger rules, time)."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Whatever tells the server what time it is."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        ...


class SystemClock:
    """The machine's own time."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that stands still until a test advances it.

    Args:
        start_ms: Where it starts, in milliseconds since the epoch.
    """

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = start_ms
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return self._now_ms

    def advance(self, ms: int) -> int:
        """Move forward by `ms` milliseconds and return the new time.

        Raises:
            ValueError: if `ms` is negative; server time does not run backwards.
        """
        if ms < 0:
            raise ValueError(f"a clock only moves forward, got {ms} ms")
        with self._lock:
            self._now_ms += ms
            return self._now_ms
