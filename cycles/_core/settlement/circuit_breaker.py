"""A circuit breaker: after a failure nothing is tried for a while, so that callers do not wait for what is down.

The pause is one second after the first failure. It doubles with each further failure, up to 30 seconds.
"""

from __future__ import annotations

from typing import Final

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0


class CircuitBreaker:
    """Open while what it protects is assumed to be down. Every method takes the time in monotonic seconds.

    The caller holds a lock if several threads use it.
    """

    def __init__(self) -> None:
        self._pause_s = 0.0
        self._until_s = 0.0

    @property
    def has_failed(self) -> bool:
        """Whether the last attempt failed."""
        return self._pause_s > 0

    def is_open(self, now_s: float) -> bool:
        """Return whether no attempt should be made now."""
        return self.has_failed and now_s < self._until_s

    def failed(self, now_s: float) -> None:
        """Note a failed attempt. One that began before the breaker opened does not make the pause longer."""
        # It says nothing new: its request was on the way when the breaker opened.
        if self.is_open(now_s):
            return
        # Doubled up to the longest pause, so that a long outage costs few attempts.
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S) if self._pause_s else FIRST_PAUSE_S
        self._until_s = now_s + self._pause_s

    def succeeded(self) -> None:
        """Note a successful attempt: the breaker closes."""
        self._pause_s = self._until_s = 0.0
