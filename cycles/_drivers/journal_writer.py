"""The thread that does the file work of event loops: in order, in batches, with few wake-ups.

A task waits until its record is saved or deleted. What other tasks need in the meantime is done in one batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

from cycles._core.records import Record

IDLE_S: Final = 15.0  # then the thread ends; the next job starts another
STUCK_S: Final = 4.0  # so long on one record: the file system hangs, and its tasks continue without their records

_Job: TypeAlias = tuple[Callable[[Any], Any], Any, "asyncio.Future[Any]"]


class JournalWriter:
    """Saves and deletes records for any number of event loops.

    Args:
        save: Saves one record; blocks.
        delete: Deletes one; blocks.
        save_many: Saves several in one round trip of a shared store; None if each is saved by itself.
    """

    def __init__(
        self,
        save: Callable[[Record], bool],
        delete: Callable[[Record], None],
        save_many: Callable[[list[Record]], list[bool]] | None = None,
    ) -> None:
        self._save = save
        self._save_many = save_many
        self._delete = delete
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._since_s: float | None = None  # when the thread began with the record that it saves or deletes
        self._lock = threading.Lock()

    async def save(self, record: Record) -> bool:
        """Save the record, and return when it is saved; False if it cannot be."""
        return bool(await self._done_or_stuck(self._save, record))

    async def delete(self, record: Record) -> None:
        """Delete the record, and return when it is deleted."""
        await self._done_or_stuck(self._delete, record)

    async def run(self, work: Callable[[], Any]) -> Any:
        """Call a blocking function on the journal's thread, and return its result."""
        return await self._done(lambda _: work(), None)

    def close(self, timeout_s: float | None = None) -> None:
        """Do the remaining jobs and end the thread, waiting at most `timeout_s` for a file system that hangs."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join(timeout_s)
            if thread.is_alive():
                return
        self._process(None)

    def _done(self, work: Callable[[Any], Any], record: Record | None) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.put((work, record, done))
        self._ensure_thread()
        return done

    async def _done_or_stuck(self, work: Callable[[Any], Any], record: Record) -> Any:
        done = self._done(work, record)
        timer = done.get_loop().call_later(STUCK_S, self._check, done)
        try:
            return await done
        finally:
            timer.cancel()

    def _check(self, done: asyncio.Future[Any]) -> None:
        """Let a task continue without its record if the thread has made no progress; another thread does the rest."""
        if done.done():
            return
        since_s = self._since_s
        if since_s is None or time.monotonic() - since_s < STUCK_S:  # the disk is slow, or there are many records
            done.get_loop().call_later(STUCK_S, self._check, done)
            return
        with self._lock:
            self._thread, self._since_s = None, None
        self._ensure_thread()
        _settle(done, False)

    def _ensure_thread(self) -> None:
        """Start the thread if it does not run."""
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(target=self._work, name="cycles-journal", daemon=True)
            try:
                self._thread.start()
                return
            except RuntimeError:  # the interpreter is ending and starts no thread: do the job here
                self._thread = None
        self._process(None)

    def _work(self) -> None:
        me = threading.current_thread()
        while True:
            try:
                job, idle = self._jobs.get(timeout=IDLE_S), False
            except queue.Empty:
                job, idle = None, True
            self._process(job)
            if self._may_end(me, idle=idle):
                return

    def _may_end(self, me: threading.Thread, *, idle: bool) -> bool:
        """Return whether the thread is not needed any more; the next job starts another."""
        with self._lock:
            if self._thread is me and idle and self._jobs.empty():
                self._thread = None
            return self._thread is not me and self._jobs.empty()

    def _process(self, job: _Job | None) -> None:
        """Do this job and all that wait behind it; then notify each loop once."""
        results: dict[asyncio.AbstractEventLoop, list[partial[None]]] = {}
        saves: list[_Job] = []
        while True:
            if job is not None and self._save_many is not None and job[0] == self._save:
                saves.append(job)
            elif job is not None:
                self._do_saves(saves, results)
                work, record, done = job
                self._since_s = time.monotonic() if record is not None else None
                results.setdefault(done.get_loop(), []).append(_worked(work, record, done))
                self._since_s = None
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
        self._do_saves(saves, results)
        for loop, settings in results.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed, and no task waits
                loop.call_soon_threadsafe(_set_results, settings)

    def _do_saves(self, saves: list[_Job], results: dict[asyncio.AbstractEventLoop, list[partial[None]]]) -> None:
        """Save what consecutive jobs want to save, together, and empty the list."""
        jobs, saves[:] = list(saves), []
        if not jobs or self._save_many is None:
            return
        try:
            saved = self._save_many([record for _, record, _ in jobs])
            settings = [partial(_settle, done, result) for (_, _, done), result in zip(jobs, saved, strict=True)]
        except Exception as error:  # as in `_worked`
            settings = [partial(_fail, done, error) for _, _, done in jobs]
        for (_, _, done), setting in zip(jobs, settings, strict=True):
            results.setdefault(done.get_loop(), []).append(setting)


def _worked(work: Callable[[Any], Any], record: Any, done: asyncio.Future[Any]) -> partial[None]:
    try:
        return partial(_settle, done, work(record))
    except Exception as error:  # a bug: it is raised in the task that waits, and this thread continues
        return partial(_fail, done, error)


def _set_results(settings: list[partial[None]]) -> None:
    for setting in settings:
        setting()


def _settle(done: asyncio.Future[Any], result: Any) -> None:
    if not done.done():
        done.set_result(result)


def _fail(done: asyncio.Future[Any], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
