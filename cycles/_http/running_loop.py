"""The event loop that async code needs, how other threads wake its tasks, and the error if there is none."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from cycles._errors import InvalidRequestError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator


class NoEventLoopError(InvalidRequestError, RuntimeError):
    """Async code was awaited where no event loop of asyncio runs. A RuntimeError too, which asyncio raises for it."""


def in_event_loop() -> bool:
    """Return whether this thread runs an event loop. It does not while the garbage collector closes a coroutine."""
    asyncio = sys.modules.get("asyncio")  # not imported: scripts without an event loop start a tenth faster without it
    return asyncio is not None and asyncio._get_running_loop() is not None


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of this thread.

    Raises:
        NoEventLoopError: There is none. Nothing was sent.
    """
    import asyncio  # late: scripts without an event loop start a tenth faster without it

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise NoEventLoopError(
            "no event loop of asyncio is running here, and trio is not supported, so nothing was sent: run async code "
            "with asyncio.run(...), or use the sync methods, under trio in threads (trio.to_thread.run_sync)"
        ) from None


def set_once(future: asyncio.Future[Any], result: object = None) -> None:
    """Set the result of a future, unless its task was cancelled or another result came first."""
    if not future.done():
        future.set_result(result)


def wake(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    """Set a future of a loop from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop is closed, and no task waits
        loop.call_soon_threadsafe(set_once, future)


def run_to_first_yield(generator: AsyncGenerator[Any, None]) -> None:
    """Start an async generator that awaits nothing before its first ``yield``."""
    with contextlib.suppress(StopIteration):
        generator.__anext__().send(None)
