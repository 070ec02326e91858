"""The simulated machine: virtual time, and a scheduler that runs one simulated thread at a time in a seeded order.

A simulated thread is a greenlet, so blocking code of the SDK runs unchanged. A thread runs until it waits. Each lock,
sleep, request and file call is a point at which another thread may be chosen.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import random
import sys
import traceback
from collections.abc import Callable
from typing import Any, Final, Protocol

import greenlet

START_WALL_S: Final = 1_800_000_000.0
SHORTEST_WAIT_S: Final = 1e-6  # time moves in every wait; without this, rounding could keep it still
STEP_S: Final = 1e-6  # what a step of code takes
PREEMPT: Final = 0.2
"""How often a point at which a thread could continue lets another thread run instead."""


class SimulationStuckError(AssertionError):
    """No thread can run and no timer is set, although a thread is expected to end."""


class ProcessKilled(greenlet.GreenletExit):
    """Raised in code of a killed process, if Python runs any of it while it deletes the process."""


class HasHolder(Protocol):
    """A lock of a module, which all simulated processes have in common."""

    def release(self) -> None:
        """Let another thread take it."""
        ...


class Process:
    """One simulated process. Its threads never run again after `kill`."""

    def __init__(self, hub: Hub, name: str, pid: int) -> None:
        self.hub = hub
        self.name = name
        self.pid = pid
        self.alive = True
        self.threads: list[Thread] = []
        self.shared: dict[HasHolder, None] = {}  # the locks of modules that it holds
        self.wall_offset_s = 0.0  # of the clock of its machine
        self.began_s = hub.now_s
        self.refused = 0  # how many threads of the SDK could not be started
        self.paused = 0  # how many pauses are not over
        self.parked: list[Thread] = []  # what could run if it was not paused

    def kill(self) -> None:
        """End the process immediately, as `kill -9` does."""
        self.end()
        self.hub.trace(f"{self.name} is killed")

    def pause(self) -> None:
        """Let none of its threads run until `resume`, as SIGSTOP does."""
        self.paused += 1
        self.hub.suspended += 1

    def resume(self) -> None:
        """Let its threads continue, if no other pause lasts."""
        self.paused -= 1
        self.hub.suspended += 1
        if not self.paused:
            self.hub.ready += self.parked
            self.parked.clear()

    def end(self) -> None:
        """Let none of its threads run again. The other processes have modules, and so locks, of their own."""
        self.alive = False
        for lock in list(self.shared):
            lock.release()
        self.shared.clear()


class Thread:
    """A simulated thread."""

    def __init__(self, process: Process, body: Callable[[], object], name: str) -> None:
        self.process = process
        self.name = name
        self.body = body
        self.done = False
        self.joiners: list[Waiter] = []
        self.refused = 0  # how many threads of the SDK it could not start
        # What Python keeps for each thread, while this one is switched out.
        self.loop: asyncio.AbstractEventLoop | None = None
        self.asyncgen_hooks: tuple[Any, Any] = (None, None)
        self.greenlet = greenlet.greenlet(self._run, parent=process.hub.main)
        self.proxy: Any = None
        process.threads.append(self)

    def _run(self) -> None:
        hub = self.process.hub
        try:
            self.body()
        except greenlet.GreenletExit:
            pass
        except BaseException as error:
            hub.failures.append((self, error))
        self.done = True
        for waiter in self.joiners:
            waiter.wake()


class Waiter:
    """One wait of one thread: ends by `wake` or at its deadline, whichever comes first."""

    def __init__(self, hub: Hub, thread: Thread) -> None:
        self._hub = hub
        self.thread = thread
        self.over = False
        self.timed_out = False

    def wake(self) -> None:
        """End the wait; the thread can run from now on."""
        if not self.over:
            self.over = True
            self._hub.ready.append(self.thread)

    def expire(self) -> None:
        """End the wait at its deadline."""
        if not self.over:
            self.timed_out = True
            self.wake()


class Hub:
    """Time, threads and timers of one run.

    Args:
        seed: Decides everything that could happen in another order.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.main = greenlet.getcurrent()
        self.now_s = 1000.0  # monotonic
        self.wall_offset_s = START_WALL_S
        self.ready: list[Thread] = []
        self.steps = 0
        self._last: Thread | None = None
        self.suspended = 0  # how often the machine was suspended
        self.suspended_s = 0.0  # and for how long
        self.slow_s = 0.0  # what a disk that hangs, or a signal handler, may add to the bound of a call
        self.log: list[str] = []
        self.problems: list[str] = []
        self.interrupted: set[Process] = set()
        self.failures: list[tuple[Thread, BaseException]] = []
        self.processes: list[Process] = []
        self.current: Thread | None = None
        self._steps: list[tuple[int, int, Callable[[], None]]] = []  # actions, by the step after which they are called
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = itertools.count()
        self._pids = itertools.count(100)

    def process(self, name: str) -> Process:
        """Start a process without threads."""
        process = Process(self, name, next(self._pids))
        self.processes.append(process)
        return process

    def start(self, process: Process, body: Callable[[], object], name: str) -> Thread:
        """Start a thread; it first runs when the scheduler chooses it."""
        thread = Thread(process, body, name)
        self.ready.append(thread)
        return thread

    def wall_s(self) -> float:
        """Return the wall clock, which may jump."""
        machine_s = 0.0 if self.current is None else self.current.process.wall_offset_s
        return self.now_s + self.wall_offset_s + machine_s

    @property
    def awake_s(self) -> float:
        """The time without that in which the machine was suspended: no process ran then."""
        return self.now_s - self.suspended_s

    def suspend(self, seconds: float) -> None:
        """Let time pass in which nothing runs."""
        self.suspended += 1
        self.suspended_s += seconds
        self.now_s += seconds

    def trace(self, text: str) -> None:
        """Add one line to the trace of the run."""
        self.log.append(f"{self.now_s - 1000.0:9.3f} s  {text}")

    def at(self, when_s: float, action: Callable[[], None]) -> None:
        """Call `action` outside of any thread at a time."""
        heapq.heappush(self._timers, (max(when_s, self.now_s), next(self.serial), action))

    def after(self, steps: int, action: Callable[[], None]) -> None:
        """Call `action` outside of any thread after so many steps, also while threads could continue."""
        heapq.heappush(self._steps, (self.steps + steps, next(self.serial), action))

    def waiter(self) -> Waiter:
        """Begin a wait of the current thread."""
        assert self.current is not None, "a wait outside of a simulated thread"
        return Waiter(self, self.current)

    def wait(self, waiter: Waiter, timeout_s: float | None = None) -> bool:
        """Let other threads run until the waiter is woken. Return whether it was, before `timeout_s` passed."""
        self.check_alive()
        if timeout_s is not None:
            self.at(self.now_s + max(SHORTEST_WAIT_S, timeout_s), waiter.expire)
        self._switch_out()
        return not waiter.timed_out

    def sleep(self, seconds: float) -> None:
        """Let time pass for the current thread."""
        self.wait(self.waiter(), seconds)

    def preempt(self, chance: float = PREEMPT) -> None:
        """Let another thread run first, sometimes."""
        self.now_s += STEP_S
        thread = self.current
        if thread is None or not self.ready or self.random.random() >= chance:
            return
        self.check_alive()
        self.ready.append(thread)
        self._switch_out()

    def preempt_now(self) -> None:
        """Let another thread run first, or what is planned for this step."""
        thread = self.current
        if thread is not None:
            self.check_alive()
            self.ready.append(thread)
            self._switch_out()

    def check_alive(self) -> None:
        """Stop code of a killed process."""
        if self.current is None or not self.current.process.alive:
            raise ProcessKilled

    def run(self, until: Callable[[], bool], *, deadline_s: float, max_steps: int = 400_000) -> bool:
        """Run threads and timers until a condition holds. Return whether it does before the virtual deadline."""
        while not until():
            if self.ready:
                self._run_one()
            elif self._timers and self._timers[0][0] <= deadline_s:
                when_s, _, action = heapq.heappop(self._timers)
                self.now_s = max(self.now_s, when_s)
                action()
            else:
                return False
            self.steps += 1
            while self._steps and self._steps[0][0] <= self.steps:
                heapq.heappop(self._steps)[2]()
            if self.steps > max_steps:
                raise SimulationStuckError(f"more than {max_steps} steps: this code does not wait:\n{self._stack()}")
        return True

    def end(self) -> None:
        """End every thread that is left, so that nothing of this run acts after it."""
        for process in self.processes:
            process.end()
        for process in self.processes:
            for thread in self.live_threads(process):
                self.current = thread
                with contextlib.suppress(BaseException):
                    thread.greenlet.throw(ProcessKilled)
                thread.done = True
        self.current = None
        asyncio._set_running_loop(None)

    def live_threads(self, process: Process) -> list[Thread]:
        """Return the threads of a process that have not ended."""
        return [thread for thread in process.threads if not thread.done]

    def _stack(self) -> str:
        frame = None if self._last is None else self._last.greenlet.gr_frame
        return "".join(traceback.format_stack(frame)[-8:]) if frame is not None else "unknown"

    def _run_one(self) -> None:
        index = self.random.randrange(len(self.ready))
        self.ready[index], self.ready[-1] = self.ready[-1], self.ready[index]
        thread = self.ready.pop()
        if thread.done or not thread.process.alive:
            return
        if thread.process.paused:
            thread.process.parked.append(thread)
            return
        self.current = thread
        self._last = thread
        asyncio._set_running_loop(thread.loop)
        sys.set_asyncgen_hooks(*thread.asyncgen_hooks)
        try:
            thread.greenlet.switch()
        finally:
            self.current = None
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(None, None)

    def _switch_out(self) -> None:
        thread = self.current
        assert thread is not None
        thread.loop = asyncio._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        thread.asyncgen_hooks = (hooks.firstiter, hooks.finalizer)
        self.main.switch()
        if not thread.process.alive:
            raise ProcessKilled
