"""Run a blocking call in a new thread while a task of an event loop waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from cycles._http.running_loop import running_loop

T = TypeVar("T")


async def call_in_thread(call: Callable[[], T]) -> T:
    """Run a blocking call in a new thread. The loop's executor would make it wait for the application's own work."""
    loop = running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            settle = partial(set_once, result, call())
        except BaseException as error:  # it is raised in the task that waits
            settle = partial(_set_error, result, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed, and no task waits
            loop.call_soon_threadsafe(settle)

    try:
        threading.Thread(target=run, name="cycles-call", daemon=True).start()
    except RuntimeError:  # no thread can be started
        run()
    return await result


def set_once(future: asyncio.Future[Any], result: object = None) -> None:
    """Set the result of a future, unless its task was cancelled or another result came first."""
    if not future.done():
        future.set_result(result)


def _set_error(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
