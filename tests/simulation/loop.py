"""An asyncio event loop that runs in a simulated thread: virtual time, and ready tasks in a seeded order."""

from __future__ import annotations

import asyncio
import collections
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tests.simulation.hub import Hub, Waiter
from tests.simulation.threads import SimThread

T = TypeVar("T")


class _Selector(selectors.BaseSelector):
    """Waits in the hub: for a wake-up by another thread or for a timer. There are no files."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._woken = False
        self._waiter: Waiter | None = None
        self.loop: SimLoop

    def wake(self) -> None:
        self._woken = True
        if self._waiter is not None:
            self._waiter.wake()

    def select(self, timeout: float | None = None) -> list[Any]:
        if not self._woken and (timeout is None or timeout > 0):
            self._waiter = self._hub.waiter()
            self._hub.wait(self._waiter, timeout)
            self._waiter = None
        else:
            self._hub.preempt()
        self._woken = False
        self.loop.shuffle()
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any:
        raise NotImplementedError

    def unregister(self, fileobj: Any) -> Any:
        raise NotImplementedError

    def get_map(self) -> Any:
        return {}


class SimTask(asyncio.tasks._PyTask):  # type: ignore[name-defined, misc]
    """A task in pure Python, so that the loop can tell its steps from other callbacks."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: SimLoop, **options: Any) -> None:
        self._serial = next(loop.hub.serial)
        self._steps = 0
        self.cancel_before: set[int] = set()  # the steps before which the task is cancelled
        self.blocked_s = 0.0  # how long it has blocked its loop, because no thread could be started for a call
        super().__init__(coro, loop=loop, **options)

    def _Task__step(self, exc: BaseException | None = None) -> None:
        self._steps += 1
        if self._steps in self.cancel_before and not self.done():
            self.cancel()
        loop, thread = self._loop, self._loop.hub.current
        began_s, refused = loop.hub.now_s, thread.refused
        super()._Task__step(exc)
        if thread.refused > refused:
            blocked_s = loop.hub.now_s - began_s
            loop.blocked_s, self.blocked_s = loop.blocked_s + blocked_s, self.blocked_s + blocked_s

    def __hash__(self) -> int:
        return self._serial  # sets of tasks have the same order in each run of a seed

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(asyncio.SelectorEventLoop):
    """An event loop without sockets. Steps of different tasks run in a seeded order."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.blocked_s = 0.0  # by its tasks; see there
        self._sim_selector = _Selector(hub)
        super().__init__(self._sim_selector)
        self._sim_selector.loop = self
        self.set_task_factory(self._task)

    @staticmethod
    def _task(loop: Any, coroutine: Any, **options: Any) -> SimTask:
        return SimTask(coroutine, loop=loop, **options)

    def _make_self_pipe(self) -> None:
        pass

    def _close_self_pipe(self) -> None:
        pass

    def _write_to_self(self) -> None:
        self._sim_selector.wake()

    def time(self) -> float:
        return self.hub.now_s

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run the function in a simulated thread: a real pool would block the whole simulation."""
        future: asyncio.Future[Any] = self.create_future()

        def finish(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def work() -> None:
            result, error = None, None
            try:
                result = func(*args)
            except Exception as raised:
                error = raised
            if not self.is_closed():
                self.call_soon_threadsafe(finish, result, error)

        SimThread(target=work, name="executor").start()
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is no executor."""

    def shuffle(self) -> None:
        """Put the steps of tasks that are ready into a seeded order; other callbacks keep their places."""
        ready: collections.deque[Any] = self._ready  # type: ignore[attr-defined]
        places = [i for i, handle in enumerate(ready) if isinstance(_owner(handle), SimTask)]
        if len(places) < 2:
            return
        handles = [ready[i] for i in places]
        self.hub.random.shuffle(handles)
        for place, handle in zip(places, handles, strict=True):
            ready[place] = handle


def _owner(handle: Any) -> Any:
    return getattr(handle._callback, "__self__", None)


def blocked_by_others_s() -> float:
    """Return how long other tasks have blocked the loop of this task, because no thread could be started for a call."""
    task = asyncio.current_task() if asyncio._get_running_loop() is not None else None
    return task._loop.blocked_s - task.blocked_s if isinstance(task, SimTask) else 0.0


def run(hub: Hub, main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a new loop in the current simulated thread, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=lambda: SimLoop(hub)) as runner:
        return runner.run(main)
