"""Run a blocking call in a new thread for a task of an event loop, and a coroutine in one for a thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from cycles._http.running_loop import running_loop, set_once

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


def run_coroutine(awaitable: Awaitable[T]) -> T:
    """Run a coroutine of the user in an event loop of a new thread, in the caller's context, and wait for its result.

    Not in this thread: it may run a loop, and `asyncio.run` would take away the one that the application has set.
    """
    context, result = copy_context(), Future[T]()

    async def finish() -> T:
        return await awaitable

    def run() -> None:
        try:
            result.set_result(context.run(asyncio.run, finish()))
        except BaseException as error:  # it is raised in the thread that waits
            result.set_exception(error)

    threading.Thread(target=run, name="cycles-coroutine", daemon=True).start()
    return result.result()


def _set_error(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
