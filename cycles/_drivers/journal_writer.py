"""The one thread on which event loops have their file work done: in order, in batches, with few wake-ups.

A loop waits until its record is written, or removed; while the thread is at it, what other tasks want gathers and goes
in one batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from cycles._core.records import Record

IDLE_S: Final = 15.0  # then the thread ends; the next job starts another

_Job: TypeAlias = tuple[Callable[[Any], Any], Any, "asyncio.Future[Any]"]


class JournalWriter:
    """Writes and removes records for any number of event loops.

    Args:
        save: Writes one record down; blocks.
        forget: Removes one; blocks.
    """

    def __init__(self, save: Callable[[Record], bool], forget: Callable[[Record], None]) -> None:
        self._save = save
        self._forget = forget
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    async def save(self, record: Record) -> bool:
        """Write the record down before going on; False if it could not be."""
        return bool(await self._done(self._save, record))

    async def delete(self, record: Record) -> None:
        """Remove the record before going on."""
        await self._done(self._forget, record)

    async def run(self, work: Callable[[], Any]) -> Any:
        """Call a blocking function on the journal's thread, and return its result."""
        return await self._done(lambda _: work(), None)

    def close(self) -> None:
        """Finish what there is, and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()
        self._work_off(None)

    def _done(self, work: Callable[[Any], Any], record: Record | None) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.put((work, record, done))
        self._see_to_it()
        return done

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
            try:
                job, idle = self._jobs.get(timeout=IDLE_S), False
            except queue.Empty:
                job, idle = None, True
            self._work_off(job)
            if self._may_end(me, idle=idle):
                return

    def _may_end(self, me: threading.Thread, *, idle: bool) -> bool:
        """Whether the thread is not needed any more; whoever puts a job there from now on starts another."""
        with self._lock:
            if self._thread is me and idle and self._jobs.empty():
                self._thread = None
            return self._thread is not me and self._jobs.empty()

    def _work_off(self, job: _Job | None) -> None:
        """This job and all that have gathered behind it; then one word to each loop."""
        told: dict[asyncio.AbstractEventLoop, list[partial[None]]] = {}
        while True:
            if job is not None:
                work, record, done = job
                told.setdefault(done.get_loop(), []).append(_worked(work, record, done))
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
        for loop, words in told.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed, and whoever waited with it
                loop.call_soon_threadsafe(_tell, words)


def _worked(work: Callable[[Any], Any], record: Any, done: asyncio.Future[Any]) -> partial[None]:
    try:
        return partial(_settle, done, work(record))
    except Exception as error:  # a bug, which belongs to whoever waits; this thread has others to serve
        return partial(_fail, done, error)


def _tell(words: list[partial[None]]) -> None:
    for word in words:
        word()


def _settle(done: asyncio.Future[Any], result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
