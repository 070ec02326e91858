"""The operations in which a blocking and an async stream differ, and the driver of flows that never suspend."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from cycles import Reservation

END: Final = object()
"""What a step returns at the end of a stream."""


class Steps(Protocol):
    """The operations of one kind of stream."""

    @staticmethod
    async def acquired(reservation: Reservation) -> Any:
        """Reserve, and return the guard."""
        ...

    @staticmethod
    def events(stream: Any) -> Any:
        """Return the iterator of a stream."""
        ...

    @staticmethod
    async def next(events: Any) -> Any:
        """Return the next event, or `END`."""
        ...

    @staticmethod
    async def close(stream: Any) -> None:
        """Close a stream, if it can be closed."""


class Blocking:
    """Operations that never suspend."""

    @staticmethod
    async def acquired(reservation: Reservation) -> Any:
        return reservation.acquire()

    @staticmethod
    def events(stream: Any) -> Any:
        return iter(stream)

    @staticmethod
    async def next(events: Any) -> Any:
        return next(events, END)

    @staticmethod
    async def close(stream: Any) -> None:
        if (close := getattr(stream, "close", None)) is not None:
            close()


class Awaiting:
    """Operations of async streams."""

    @staticmethod
    async def acquired(reservation: Reservation) -> Any:
        return await reservation

    @staticmethod
    def events(stream: Any) -> Any:
        return aiter(stream)

    @staticmethod
    async def next(events: Any) -> Any:
        return await anext(events, END)

    @staticmethod
    async def close(stream: Any) -> None:
        if (close := getattr(stream, "aclose", None)) is not None:
            await close()


async def result_of(value: Any) -> Any:
    """Return a value, or the result of an awaitable: a method of an `AsyncGuard` is awaited, one of a `Guard` not."""
    return await value if inspect.isawaitable(value) else value


def finished(flow: Awaitable[Any]) -> Any:
    """Run a flow whose operations never suspend."""
    try:
        flow.__await__().send(None)  # type: ignore[attr-defined]
    except StopIteration as end:
        return end.value
    raise RuntimeError("a blocking flow must not suspend")
