"""Python's threading, time and randomness over a `Hub`, and `installed`, which puts them in place for one run."""

from __future__ import annotations

import _thread
import contextlib
import os
import queue
import secrets
import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from cycles._drivers import jitter
from cycles._drivers.work.scheduler import Scheduler
from tests.simulation.hub import Hub, Process, Thread, Waiter
from tests.simulation.patching import patched

OF_THE_SDK: Final = ("cycles-", "new")
"""How the names of the client's threads begin. The program's own threads have been started before."""


class SimLock:
    """A lock whose waiters are served in the order of the scheduler."""

    hub: Hub

    def __init__(self) -> None:
        self._locked = False
        self._waiters: deque[Waiter] = deque()
        current = self.hub.current
        self._process = None if current is None else current.process  # None: of a module, or of the server
        self._holder: Process | None = None  # of a lock of a module

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        hub = self.hub
        if hub.current is None:  # set-up and checks, outside of any thread
            assert not self._locked, "a lock is held while no thread runs"
            self._locked = True
            return True
        if not hub.current.process.alive:
            return True
        if self._process is not None and self._process is not hub.current.process:
            hub.problems.append(f"{hub.current.process.name} uses a lock of {self._process.name}:\n{_place()}")
            return True
        hub.preempt()
        deadline_s = None if timeout < 0 else hub.now_s + timeout
        while self._locked:
            if not blocking:
                return False
            waiter = hub.waiter()
            self._waiters.append(waiter)
            if not hub.wait(waiter, None if deadline_s is None else deadline_s - hub.now_s):
                return False
        self._locked = True
        if self._process is None:
            self._holder = hub.current.process
            self._holder.shared[self] = None
        return True

    def release(self) -> None:
        if not self._locked:
            if self.hub.current is None or not self.hub.current.process.alive:
                return
            raise RuntimeError("release unlocked lock")
        self._locked = False
        if self._holder is not None:
            self._holder.shared.pop(self, None)
            self._holder = None
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.over and waiter.thread.process.alive:
                waiter.wake()
                break

    def locked(self) -> bool:
        return self._locked

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _place() -> str:
    return "".join(traceback.format_stack()[-7:-2])


class SimRLock:
    """A re-entrant lock."""

    hub: Hub

    def __init__(self) -> None:
        self._lock = SimLock()
        self._owner: object = None
        self._count = 0

    def _me(self) -> object:
        return self.hub.current

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._count and self._owner is self._me():
            self._count += 1
            return True
        if not self._lock.acquire(blocking, timeout):
            return False
        self._owner, self._count = self._me(), 1
        return True

    def locked(self) -> bool:
        return self._count > 0

    def release(self) -> None:
        if self._owner is not self._me():
            if self.hub.current is None or not self.hub.current.process.alive:
                return
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._owner = None
            self._lock.release()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()

    # What `threading.Condition` uses of a lock.

    def _is_owned(self) -> bool:
        return self._owner is self._me()

    def _release_save(self) -> tuple[int, object]:
        saved = self._count, self._owner
        self._count, self._owner = 0, None
        self._lock.release()
        return saved

    def _acquire_restore(self, saved: tuple[int, object]) -> None:
        self._lock.acquire()
        self._count, self._owner = saved


class SimThread:
    """`threading.Thread` for simulated threads."""

    hub: Hub
    refuse_to_start: staticmethod[[], bool] = staticmethod(lambda: False)

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self._target = target or (lambda: None)
        self._args, self._kwargs = args, kwargs or {}
        self.name = name or "thread"
        self.daemon = bool(daemon)
        self.thread: Thread | None = None
        self._serial = next(self.hub.serial)

    def __hash__(self) -> int:
        return self._serial  # sets of threads have the same order in each run of a seed

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def ident(self) -> int | None:
        return None if self.thread is None else id(self.thread)

    def start(self) -> None:
        hub = self.hub
        assert hub.current is not None
        if self.name.startswith(OF_THE_SDK) and SimThread.refuse_to_start():
            hub.current.refused += 1
            hub.current.process.refused += 1
            raise RuntimeError("can't start new thread")
        self.thread = hub.start(hub.current.process, lambda: self._target(*self._args, **self._kwargs), self.name)
        self.thread.proxy = self
        hub.preempt()

    def is_alive(self) -> bool:
        return self.thread is not None and not self.thread.done

    def join(self, timeout: float | None = None) -> None:
        assert self.thread is not None
        if not self.thread.done:
            waiter = self.hub.waiter()
            self.thread.joiners.append(waiter)
            self.hub.wait(waiter, timeout)


def _patches(hub: Hub) -> list[tuple[Any, str, Any]]:
    main = SimThread(name="main")

    def current_thread() -> Any:
        thread = hub.current
        if thread is None:
            return main
        if thread.proxy is None:
            thread.proxy = SimThread(name=thread.name)
            thread.proxy.thread = thread
        return thread.proxy

    def start_new_thread(function: Callable[..., object], args: tuple[Any, ...], kwargs: Any = None) -> int:
        thread = SimThread(target=function, name="new", args=args, kwargs=kwargs)
        thread.start()
        return thread.ident or 0

    def sleep(seconds: float) -> None:
        if hub.current is not None:
            hub.sleep(seconds)

    def getpid() -> int:
        return real_getpid() if hub.current is None else hub.current.process.pid

    def uuid4() -> uuid.UUID:
        return uuid.UUID(int=hub.random.getrandbits(128), version=4)

    real_getpid = os.getpid
    defaults = {**(Scheduler.__init__.__kwdefaults__ or {}), "monotonic": lambda: hub.now_s}
    return [
        (threading, "Lock", SimLock),
        (threading, "RLock", SimRLock),
        (threading, "_allocate_lock", SimLock),
        (threading, "Thread", SimThread),
        (threading, "current_thread", current_thread),
        (threading, "get_ident", lambda: id(hub.current)),
        (threading, "main_thread", lambda: main),
        (_thread, "start_new_thread", start_new_thread),
        (queue, "SimpleQueue", queue._PySimpleQueue),  # type: ignore[attr-defined]
        (threading, "_time", lambda: hub.now_s),
        (queue, "time", lambda: hub.now_s),
        (time, "monotonic", lambda: hub.now_s),
        (time, "clock_gettime", lambda clock: hub.now_s),
        (time, "perf_counter", lambda: hub.now_s),
        (time, "time", hub.wall_s),
        (time, "time_ns", lambda: int(hub.wall_s() * 1000) * 1_000_000),
        (time, "sleep", sleep),
        (Scheduler.__init__, "__kwdefaults__", defaults),  # it was imported with the clock of an earlier run
        (os, "getpid", getpid),
        (uuid, "uuid4", uuid4),
        (jitter, "_GENERATOR", hub.random),
        (secrets, "token_hex", lambda n=16: hub.random.getrandbits(8 * n).to_bytes(n, "big").hex()),
        (secrets, "token_bytes", lambda n=16: hub.random.getrandbits(8 * n).to_bytes(n, "big")),
    ]


@contextlib.contextmanager
def installed(hub: Hub) -> Iterator[None]:
    """Replace threads, locks, clocks and randomness by those of the hub."""
    SimLock.hub = SimRLock.hub = SimThread.hub = hub
    with patched(_patches(hub)):
        yield
