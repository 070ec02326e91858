"""The operations in which a blocking and an async stream differ, and the driver of flows that never suspend."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Generator
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
    async def begun(call: Any) -> Any:
        """Reserve for a call of a model that reports its usage, and return the limits to set."""
        ...

    @staticmethod
    async def ended(call: Any, raised: BaseException | None = None) -> None:
        """Settle that call."""

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
    async def begun(call: Any) -> Any:
        return call.begin()

    @staticmethod
    async def ended(call: Any, raised: BaseException | None = None) -> None:
        call.finish(raised)

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
    async def begun(call: Any) -> Any:
        return await call.abegin()

    @staticmethod
    async def ended(call: Any, raised: BaseException | None = None) -> None:
        await call.afinish(raised)

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


def blocking(steps: AsyncGenerator[Any, None]) -> Generator[Any, None, None]:
    """Yield what a generator yields whose operations never suspend; what its reader throws is raised inside of it."""
    try:
        while (event := finished(anext(steps, END))) is not END:
            try:
                yield event
            except BaseException as raised:
                finished(steps.athrow(raised))
                raise
    finally:
        finished(steps.aclose())
