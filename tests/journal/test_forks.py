"""Locked files of the journal in a forked child: no lock of a file outlives the process that made it."""

from __future__ import annotations

import gc
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from cycles._core.pool.chunk_record import PREFIX, ChunkHeader
from cycles._core.pool.sums import Totals
from cycles._core.subjects import Action, Subject
from cycles._journal.files import chunk_cells as pool_log, locked_file, record_files, spend as spend_log
from cycles._journal.files.locked_file import fcntl, left
from cycles._journal.journal import Journal
from tests.journal.kit import BASE, a_record
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="forks are of Linux here")

HEADER = ChunkHeader(
    reservation_id="r1",
    base_url="http://127.0.0.1",
    unit="TOKENS",
    amount=5,
    key="k",
    subject=Subject(tenant="acme"),
    action=Action("tool", "search"),
)


class Child:
    """A child that lives until the end of the test."""

    def __init__(self) -> None:
        read, self._write = os.pipe()
        ready, say_ready = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads that other tests have left
            self._pid = os.fork()
        if self._pid == 0:
            os.close(self._write)
            os.write(say_ready, b"+")
            os.read(read, 1)
            os._exit(0)
        os.read(ready, 1)
        for descriptor in (read, ready, say_ready):
            os.close(descriptor)

    def end(self) -> None:
        os.write(self._write, b"+")
        os.close(self._write)
        os.waitpid(self._pid, 0)


def result_in_child(call: Callable[[], int]) -> int:
    """Return what a call returns in a child, at most 255, which is also what an error is."""
    child = os.fork()
    if child == 0:
        status = 255
        try:
            status = call()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def children() -> Iterator[list[Child]]:
    children: list[Child] = []
    yield children
    for child in children:
        child.end()


@pytest.fixture
def fork_before_the_lock(children: list[Child], monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that lets the next file be opened, then forks, then locks the file."""

    def plan() -> None:
        lock = fcntl.flock

        def fork_and_lock(descriptor: int, operation: int) -> None:
            if not children:
                children.append(Child())
            lock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", fork_and_lock)

    return plan


def close_all() -> None:
    """Close the locked files of this process, as its end does."""
    for file in list(locked_file.open_files):
        file.close()


def lockable(folder: str) -> int:
    """Return how many files another process could lock."""
    count = 0
    for path in Path(folder).iterdir():
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            count += 1
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
    return count


def test_the_log_of_a_chunk(tmp_path: Path, fork_before_the_lock: Callable[[], None]) -> None:
    folder = f"{tmp_path}/"
    fork_before_the_lock()
    log = pool_log.ChunkLog(folder, HEADER, sync=False)
    assert (lockable(folder), list(left(folder, PREFIX)), log is None) == (0, [], False)
    close_all()
    assert lockable(folder) == 1


def test_the_log_of_spend(tmp_path: Path, fork_before_the_lock: Callable[[], None]) -> None:
    folder = f"{tmp_path}/"
    log = spend_log.SpendLog(lambda: folder, sync=False)
    fork_before_the_lock()
    assert log.open_slot() is not None
    assert (lockable(folder), len(log._files)) == (0, 1)
    close_all()
    assert lockable(folder) == 1


def test_a_spare_file_that_is_being_made(tmp_path: Path, fork_before_the_lock: Callable[[], None]) -> None:
    folder = f"{tmp_path}/"
    files = record_files.SpareFiles(lambda: "1", sync=False)
    fork_before_the_lock()
    assert files.write(folder, folder + "record", b"{}")
    assert lockable(folder) == 0
    close_all()
    assert lockable(folder) == 1


def test_a_spare_file_that_is_being_written(
    tmp_path: Path, children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = f"{tmp_path}/"
    files = record_files.SpareFiles(lambda: "1", sync=False)
    assert files.write(folder, folder + "first", b"{}")
    assert files.remove(folder + "first")
    replace = os.replace

    def fork_and_replace(source: Any, target: Any) -> None:
        children.append(Child())
        replace(source, target)

    monkeypatch.setattr(os, "replace", fork_and_replace)
    assert files.write(folder, folder + "second", b"{}")
    assert lockable(folder) == 0
    close_all()
    assert lockable(folder) == 1


def test_many_forks_do_not_keep_a_log_from_being_made(
    tmp_path: Path, children: list[Child], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock

    def fork_and_lock(descriptor: int, operation: int) -> None:
        children.append(Child())
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", fork_and_lock)
    folder = f"{tmp_path}/"
    pool_log.ChunkLog(folder, HEADER, sync=False).write(Totals(5, calls=1))
    assert len(children) == 5
    assert list(left(folder, PREFIX)) == []


def test_a_child_makes_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is made again if a fork comes in between, and the fork of the child itself is over."""
    made, lock = [0], fcntl.flock

    def count(descriptor: int, operation: int) -> None:
        made[0] += 1
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", count)

    def make() -> int:
        pool_log.ChunkLog(f"{tmp_path}/", HEADER, sync=False)
        return made[0]

    assert result_in_child(make) == 1


def test_parent_and_child_give_their_files_other_names(tmp_path: Path) -> None:
    def open_journal() -> Journal:
        return Journal(tmp_path, base_url="b", tenant="t", api_key="k", report=lambda issue: None)

    def names(journal: Journal) -> set[str]:
        """Return the names of four files while no record is in them."""
        records = [a_record(f"{os.getpid()}-{number}") for number in range(4)]
        assert all(journal.save(record) for record in records)
        for record in records:
            journal.delete(record)
        return {path.name for path in Path(journal.directory).glob("*.spare")}

    journal = open_journal()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(writing)
            os.read(reading, 1)  # until the parent has made its files
            before = {path.name for path in Path(journal.directory).glob("*.spare")}
            status = int(len(names(journal) - before) != 4)
        finally:
            os._exit(status)
    assert len(names(journal)) == 4
    os.close(writing)
    os.close(reading)
    assert os.waitpid(child, 0)[1] == 0
    journal.close()


def test_a_file_that_is_made_while_another_thread_forks_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child of that thread may have its descriptor, and with it the lock."""
    replace, made, forking = os.replace, list[str](), locked_file._forks.forking

    def note(source: str, target: str) -> None:
        made.append(target)
        if len(made) == 2:
            forking.clear()  # that fork has ended
        replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    forking.add(-1)
    locked_file.make(f"{tmp_path}/a", b"1", temporary=f"{tmp_path}/a.new", sync=False).remove()
    assert made == [f"{tmp_path}/a"] * 2


def test_a_file_that_another_start_has_replaced_before_it_was_locked_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has the name now is another file, and perhaps of a live process."""
    path, new = tmp_path / "spend-1.log", tmp_path / "other"
    path.write_bytes(b"left")
    new.write_bytes(b"of a live process")
    flock = fcntl.flock

    def replaced(descriptor: int, how: int) -> None:
        if new.exists():
            new.replace(path)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", replaced)
    with pytest.raises(FileNotFoundError, match="another process has removed it"):
        locked_file.lock(str(path))
    locked_file.lock(str(path)).close()


def test_a_child_closes_every_file_of_its_parent(tmp_path: Path, children: list[Child]) -> None:
    folder = f"{tmp_path}/"
    logs = [pool_log.ChunkLog(folder, evolve(HEADER, reservation_id=f"r{number}"), sync=False) for number in range(3)]
    assert lockable(folder) == 0
    children.append(Child())
    for log in logs:
        log.close()
    assert lockable(folder) == 3


def test_a_child_ends_a_record_of_its_parent_and_saves_its_own(tmp_path: Path) -> None:
    journal = Journal(tmp_path, base_url=BASE, tenant="t", api_key="k", report=lambda issue: None)
    assert journal.save(a_record("of the parent"))

    def end_and_save() -> int:
        journal.delete(a_record("of the parent"))
        return int(journal.save(a_record()))

    assert result_in_child(end_and_save) == 1
    assert [journal.load(entry) for entry in journal.pending()] == [a_record()]
    journal.close()


def test_a_child_does_not_wait_for_a_thread_of_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that calculates the name of the folder does not exist in the child."""
    begun, gate = threading.Event(), threading.Event()

    def partition() -> str:
        if threading.current_thread() is thread:
            begun.set()
            gate.wait()
        return "p"

    files = record_files.RecordFiles(tmp_path, partition, sync=False)
    thread = threading.Thread(target=files.locate)
    thread.start()
    threads = ThreadPoolExecutor(1)
    try:
        assert begun.wait(PATIENCE_S)
        monkeypatch.setattr(os, "getpid", lambda: 0)
        assert threads.submit(files.locate).result(PATIENCE_S) == f"{tmp_path}/p/"
    finally:
        gate.set()
        thread.join()
        threads.shutdown()


def test_a_journal_that_is_not_used_any_more_is_not_kept_for_a_fork(tmp_path: Path) -> None:
    kept = [spend_log.SpendLog(lambda: f"{tmp_path}/", sync=False), record_files.SpareFiles(str, sync=False)]
    left_over = [weakref.ref(each) for each in kept]
    kept.clear()
    gc.collect()
    assert [each() for each in left_over] == [None, None]
