"""One attempt of a queue's task, and the state of its reservation."""

from __future__ import annotations

from typing import Any, Protocol

import cycles
from cycles import ReservationSummary
from cycles.integrations._work import Work


class Attempt(Protocol):
    """One attempt of a task, as its queue knows it. Each method raises, or returns what the task returns."""

    key: str
    denials: int

    def is_redelivered(self, ttl_ms: int) -> bool:
        """Return whether another worker may run the same attempt for longer than `ttl_ms`."""
        ...

    def postpone(self, delay_s: float, denials: int) -> Any:
        """Run the same attempt later."""
        ...

    def reject(self, error: Exception) -> Any:
        """Reject the message."""
        ...

    def fail(self, error: Exception) -> Any:
        """Fail so that the queue does not run the task again."""
        ...

    def skip(self) -> Any:
        """Acknowledge the message without a result."""
        ...


async def found(work: Work, *, is_async: bool) -> ReservationSummary | None:
    """Return the reservation of the key, or None. It does not suspend unless `is_async`."""
    client, key = work.common.reserving(), str(work.key)
    return await client.aio.find(idempotency_key=key) if is_async else client.find(idempotency_key=key)


async def status_of(error: Exception, work: Work, *, is_async: bool) -> str | None:
    """Return the state of the reservation that the key belongs to, NONE if it is not found, None for another error."""
    if isinstance(error, cycles.ReservationNotActiveError) and error.status is not None:
        return str(error.status)
    if isinstance(error, cycles.ReservationNotActiveError | cycles.ReservationKeyReusedError):
        row = await found(work, is_async=is_async)
        return "NONE" if row is None else str(row.status)
    return None
