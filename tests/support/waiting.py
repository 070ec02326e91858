"""Wait until something has happened: the code that makes it happen wakes the test.

`until` polls. It is for another process, and for a thread or a socket that nothing in the test can observe.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import cycles

PATIENCE_S = 240.0
"""How long a test waits for what must happen; only a failing test waits that long."""


def until(
    holds: Callable[[], object], timeout_s: float = PATIENCE_S, *, step_s: float = 0.005, what: Callable[[], str] = str
) -> None:
    """Return once a condition holds; fail after `timeout_s` with what `what` returns then."""
    moment, end_s = threading.Event(), time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s, f"it did not happen within {timeout_s:g} s {what()}"
        moment.wait(step_s)


class Arrivals:
    """Waits for requests of an embedded server. Create it before the first request that it waits for."""

    def __init__(self, server: cycles.EmbeddedServer) -> None:
        self._requests = server.requests
        self._news = threading.Condition()
        add = server.requests.add

        def note(request: object) -> None:
            add(request)  # type: ignore[arg-type]
            with self._news:
                self._news.notify_all()

        server.requests.add = note  # type: ignore[method-assign]

    def wait_for(self, operation: str, count: int = 1, timeout_s: float = PATIENCE_S) -> None:
        """Return when the server has received `count` requests of an operation."""
        with self._news:
            arrived = self._news.wait_for(lambda: len(self._requests.of(operation)) >= count, timeout_s)
        assert arrived, f"no {operation} within {timeout_s} s"

    async def arrives(self, operation: str, count: int = 1) -> None:
        """Do the same on an event loop."""
        await asyncio.to_thread(self.wait_for, operation, count)


def event_of(client: cycles.Cycles, name: str) -> Callable[[], None]:
    """Return a function that waits until an event of this class is reported. Call this before it can happen."""
    reported = threading.Event()
    client.on_event(lambda event: reported.set() if type(event).__name__ == name else None)

    def wait() -> None:
        assert reported.wait(PATIENCE_S), f"no {name}"

    return wait


def hold_responses(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let each response that a fault delays wait until the returned event is set, or its client leaves."""
    go_on = threading.Event()

    async def wait(seconds: float, receive: Callable[[], Coroutine[Any, Any, object]]) -> bool:
        leaves = asyncio.ensure_future(receive())
        while not go_on.is_set():
            if (await asyncio.wait([leaves], timeout=0.005))[0]:
                return True
        leaves.cancel()
        return False

    monkeypatch.setattr("cycles.embedded.serve._disconnects_within", wait)
    return go_on


async def set_by(task: asyncio.Task[Any], event: asyncio.Event) -> None:
    """Return when a task has set an event; raise what the task raises if it ends without that."""
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait([task, waiting], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not event.is_set():
        assert task.done(), f"the task has not set the event within {PATIENCE_S:g} s"
        raise AssertionError(f"the task has ended and not set the event: {task.result()!r}")


async def forever() -> None:
    """Wait until the task is cancelled."""
    await asyncio.get_running_loop().create_future()
