"""The event loop that async code needs, or one error that says what to do without it, as under trio."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cycles._errors import InvalidRequestError

if TYPE_CHECKING:
    import asyncio


class NoEventLoopError(InvalidRequestError, RuntimeError):
    """Async code was awaited where no event loop of asyncio runs. A RuntimeError too, which asyncio raises for it."""


def no_event_loop() -> NoEventLoopError:
    """Return the error."""
    return NoEventLoopError(
        "no event loop of asyncio is running here, and trio is not supported, so nothing was sent: run async code "
        "with asyncio.run(...), or use the sync methods, under trio in threads (trio.to_thread.run_sync)"
    )


def in_event_loop() -> bool:
    """Return whether this thread runs an event loop. It does not while the garbage collector closes a coroutine."""
    asyncio = sys.modules.get("asyncio")  # not imported: scripts without an event loop start a tenth faster without it
    return asyncio is not None and asyncio._get_running_loop() is not None


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop of this thread.

    Raises:
        NoEventLoopError: There is none. Nothing was sent.
    """
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise no_event_loop() from None
