"""Blocking calls for tasks, and coroutines for threads, each in a new thread."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from cycles._drivers import in_thread as module
from cycles._drivers.in_thread import call_in_thread, run_coroutine
from tests.support.waiting import PATIENCE_S

REGION = contextvars.ContextVar("region", default="none")


class Stop(BaseException):
    pass


@pytest.fixture(params=[True, False], ids=["threads", "no threads"])
def has_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    class Thread(threading.Thread):
        def start(self) -> None:
            if not request.param:
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr(module, "threading", SimpleNamespace(Thread=Thread))
    return bool(request.param)


@pytest.mark.parametrize("error", [None, ValueError("no"), Stop()])
def test_a_call_has_its_result_in_the_task(has_threads: bool, error: BaseException | None) -> None:
    threads: list[Any] = []

    def call() -> int:
        threads.append(threading.current_thread())
        if error is not None:
            raise error
        return 7

    async def main() -> Any:
        try:
            return await call_in_thread(call)
        except (ValueError, Stop) as raised:
            return raised

    assert asyncio.run(main()) == (7 if error is None else error)
    [thread] = threads
    named = ("cycles-call", True) if has_threads else (threading.current_thread().name, False)
    assert (thread.name, thread.daemon) == named


@pytest.mark.parametrize("error", [None, ValueError("no"), Stop()])
def test_a_coroutine_runs_in_the_context_of_the_caller(error: BaseException | None) -> None:
    seen: list[Any] = []

    async def coroutine() -> int:
        await asyncio.sleep(0)
        seen.extend([REGION.get(), threading.current_thread().name, threading.current_thread().daemon])
        if error is not None:
            raise error
        return 7

    def main() -> Any:
        REGION.set("here")
        try:
            return run_coroutine(coroutine())
        except (ValueError, Stop) as raised:
            return raised

    assert contextvars.Context().run(main) == (7 if error is None else error)
    assert seen == ["here", "cycles-coroutine", True]


def test_an_error_of_a_call_whose_task_was_cancelled_is_no_error_of_the_loop() -> None:
    entered, goes_on = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []
    problems: list[dict[str, Any]] = []

    def call() -> None:
        threads.append(threading.current_thread())
        entered.set()
        goes_on.wait(PATIENCE_S)
        raise ValueError("no")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
        task = asyncio.create_task(call_in_thread(call))
        assert await asyncio.to_thread(entered.wait, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        goes_on.set()
        await asyncio.to_thread(threads[0].join, PATIENCE_S)

    asyncio.run(main())
    assert problems == []
