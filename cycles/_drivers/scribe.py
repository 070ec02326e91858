"""The one thread on which event loops have their file work done: in order, in batches, with few wake-ups.

A loop that saves waits for its file; while the thread writes, the saves of other tasks gather and go in one batch.
Removing a file is in nobody's way: it waits for the next batch, or for the moment in which there is nothing to write.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from cycles._core.records import Record

LINGER_S: Final = 0.05  # a finished settlement may stay on disk this long: most calls are over by then
IDLE_S: Final = 15.0  # then the thread ends; the next save starts another

_Job: TypeAlias = tuple[Record, "asyncio.Future[bool]"]


class Scribe:
    """Writes and removes records for any number of event loops.

    Args:
        save: Writes one record down; blocks.
        forget: Removes one; blocks.
    """

    def __init__(self, save: Callable[[Record], bool], forget: Callable[[Record], None]) -> None:
        self._save = save
        self._forget = forget
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._done: deque[Record] = deque()
        self._looks_again = False  # the thread will look at `_done` by itself
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    async def save(self, record: Record) -> bool:
        """Write the record down before going on; False if it could not be."""
        written = asyncio.get_running_loop().create_future()
        self._jobs.put((record, written))
        self._see_to_it()
        return bool(await written)

    def forget(self, record: Record) -> None:
        """Remove the record soon."""
        self._done.append(record)
        if not self._looks_again:
            self._jobs.put(None)
            self._see_to_it()

    def close(self) -> None:
        """Finish what there is, and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()
        self._work_off(None)

    def _see_to_it(self) -> None:
        """Have a thread for what was just put there."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(target=self._work, name="cycles-journal", daemon=True)
            try:
                self._thread.start()
                return
            except RuntimeError:  # the interpreter is ending and starts no thread: better late than lost
                self._thread = None
        self._work_off(None)

    def _work(self) -> None:
        me = threading.current_thread()
        while True:
            self._looks_again = True
            job, idle = self._next(LINGER_S)
            if idle:
                self._looks_again = False
                self._tidy()
                job, idle = self._next(IDLE_S)
            self._work_off(job)
            if self._may_end(me, idle=idle):
                return

    def _next(self, wait_s: float) -> tuple[_Job | None, bool]:
        try:
            return self._jobs.get(timeout=wait_s), False
        except queue.Empty:
            return None, True

    def _may_end(self, me: threading.Thread, *, idle: bool) -> bool:
        """Whether the thread is not needed any more; whoever puts a job there from now on starts another."""
        with self._lock:
            if self._thread is me and idle and self._jobs.empty():
                self._thread = None
            return self._thread is not me and self._jobs.empty()

    def _work_off(self, job: _Job | None) -> None:
        """This job and all that have gathered behind it; then one word to each loop."""
        written: dict[asyncio.AbstractEventLoop, list[partial[None]]] = {}
        while True:
            if job is not None:
                record, future = job
                written.setdefault(future.get_loop(), []).append(self._write(record, future))
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
        for loop, words in written.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed, and whoever waited with it
                loop.call_soon_threadsafe(_tell, words)
        self._tidy()

    def _write(self, record: Record, future: asyncio.Future[bool]) -> partial[None]:
        try:
            return partial(_settle, future, self._save(record))
        except Exception as error:  # a bug, which belongs to whoever waits; this thread has others to serve
            return partial(_fail, future, error)

    def _tidy(self) -> None:
        while self._done:
            self._forget(self._done.popleft())


def _tell(words: list[partial[None]]) -> None:
    for word in words:
        word()


def _settle(future: asyncio.Future[bool], result: bool) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[bool], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
