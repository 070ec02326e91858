"""One attempt of a queue's task, and the operations of the flow in `_queues.py`, sync and async."""

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


class Blocking:
    """Operations of the flow that never suspend."""

    @staticmethod
    async def call(function: Any, args: Any, kwargs: Any) -> Any:
        return function(*args, **kwargs)

    @staticmethod
    async def run(work: Work, function: Any, args: Any, kwargs: Any) -> Any:
        return work.run(lambda guard: function(*args, **kwargs))

    @staticmethod
    async def find(work: Work) -> ReservationSummary | None:
        return work.common.reserving().find(idempotency_key=str(work.key))


class Awaiting:
    """Operations of the flow for coroutine functions."""

    @staticmethod
    async def call(function: Any, args: Any, kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    @staticmethod
    async def run(work: Work, function: Any, args: Any, kwargs: Any) -> Any:
        return await work.arun(lambda guard: function(*args, **kwargs))

    @staticmethod
    async def find(work: Work) -> ReservationSummary | None:
        return await work.common.reserving().aio.find(idempotency_key=str(work.key))


async def status_of(error: Exception, work: Work, io: Any) -> str | None:
    """Return the state of the reservation that the key belongs to, NONE if it is not found, None for another error."""
    if isinstance(error, cycles.ReservationNotActiveError) and error.status is not None:
        return str(error.status)
    if isinstance(error, cycles.ReservationNotActiveError | cycles.ReservationKeyReusedError):
        row = await io.find(work)
        return "NONE" if row is None else str(row.status)
    return None
