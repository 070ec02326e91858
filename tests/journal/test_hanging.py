"""A file that hangs, on a network or in a user's own file system, blocks nothing else of the journal."""

from __future__ import annotations

import _thread
import contextlib
import errno
import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cycles._core.settlement.record import encode, file_name
from cycles._journal.files import bounded, spend as spend_log
from cycles._journal.files.locked_file import fcntl, is_supported, left, make_in
from cycles._journal.journal import Journal
from cycles._journal.operators.inspect import inspect
from tests.journal.kit import Told, a_record, open_files, put, settle_all
from tests.support.directories import HangingCalls, use
from tests.support.waiting import PATIENCE_S, until


class HangingOs(HangingCalls):
    """The operating system, in which opening some files returns only when the test ends."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.opened: list[str] = []
        self.calls: set[str] = set()  # those that hang for every file

    def open(self, path: Any, *args: Any) -> int:
        self.opened.append(Path(path).name)
        if Path(path).name in self.names:
            self.hang()
        return os.open(path, *args)

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.calls:
            return real

        def hang(*args: Any, **kwargs: Any) -> Any:
            self.hang()
            return real(*args, **kwargs)

        return hang


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingOs]:
    fake = HangingOs()
    use(fake, monkeypatch)
    yield fake
    fake.may_end.set()


def test_a_record_that_hangs_is_reported_and_the_others_are_settled(
    journal: Journal, told: Told, hanging: HangingOs
) -> None:
    for number in range(3):
        journal.save(a_record(f"rsv_{number}"))
    hanging.names = {file_name("rsv_1")}
    assert sorted(record.reservation_id for record in settle_all(journal)) == ["rsv_0", "rsv_2"]
    assert told.kinds == ["unreadable"]
    assert "has not responded" in told[0].message


def test_a_record_that_hangs_is_not_opened_again_until_it_returns(journal: Journal, hanging: HangingOs) -> None:
    journal.save(a_record())
    hanging.names = {file_name("rsv_1")}
    for _ in range(3):
        assert settle_all(journal) == []
    assert hanging.opened.count(file_name("rsv_1")) == 1
    hanging.names.clear()
    hanging.may_end.set()
    until(lambda: not journal._files._calls._hanging)
    assert [record.reservation_id for record in settle_all(journal)] == ["rsv_1"]


def test_a_file_system_that_hangs_costs_the_deadline_of_a_few_files_only(journal: Journal, hanging: HangingOs) -> None:
    names = [f"rsv_{number}" for number in range(40)]
    for name in names:
        journal.save(a_record(name))
    hanging.names = {file_name(name) for name in names}
    hanging.opened.clear()
    assert settle_all(journal) == []
    assert len(hanging.opened) == bounded.MOST_HANGING


def test_other_files_that_hang_block_nothing(journal: Journal, told: Told, hanging: HangingOs) -> None:
    """A temporary file, spend that was written ahead, and a rejected record."""
    journal.save(a_record())
    temporary = f"{file_name('rsv_9')}.0abc-1-1.tmp"
    put(journal, temporary, encode(a_record("rsv_9")))
    put(journal, "spend-1.log", bytes(spend_log.SMALL.file_bytes))
    rejected = Path(journal.directory, "rejected")
    rejected.mkdir()
    (rejected / file_name("rsv_8")).write_bytes(b"{}")
    hanging.names = {temporary, "spend-1.log", file_name("rsv_8")}
    journal.recover_spend()
    journal.remove_settled(0)
    assert journal.rejected() == []
    assert [record.reservation_id for record in settle_all(journal)] == ["rsv_1"]
    shown = {entry.state: entry.reason for entry in inspect(Path(journal.directory))}
    assert set(shown) == {"unfinished", "rejected"}
    assert "has not responded" in str(shown["rejected"])


def test_a_file_is_read_without_a_thread_if_none_can_be_started(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    journal.save(a_record())
    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    assert len(settle_all(journal)) == 1


def test_what_a_late_call_returns_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "DEADLINE_S", 0.02)
    calls, gate, discarded = bounded.BoundedCalls(), threading.Event(), threading.Event()

    def late(path: str) -> str:
        gate.wait()
        return path

    with pytest.raises(OSError, match="has not responded"):
        calls.call("a", late, discard=lambda _: discarded.set())
    gate.set()
    assert discarded.wait(60)
    monkeypatch.setattr(bounded, "DEADLINE_S", 60)
    assert calls.call("a", lambda path: path * 2) == "aa"


def test_a_call_that_returns_at_its_deadline_blocks_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Future[Any]):
        def result(self, timeout: float | None = None) -> Any:
            found = super().result(PATIENCE_S)
            if timeout is not None:
                raise TimeoutError
            return found

    monkeypatch.setattr(bounded, "Future", Late)
    calls = bounded.BoundedCalls()
    assert [calls.call("a", str.upper) for _ in range(2)] == ["A", "A"]


@pytest.mark.parametrize("ends", [True, False])
def test_an_error_keeps_no_frame_alive(monkeypatch: pytest.MonkeyPatch, ends: bool) -> None:
    """A dropped guard is settled immediately, although an error of its journal has passed through its frames.

    The thread of the call may not have ended yet.
    """
    run, may_end = bounded._run, threading.Event()

    def run_and_stay(*arguments: Any) -> None:
        run(*arguments)
        may_end.wait()

    if not ends:
        monkeypatch.setattr(bounded, "_run", run_and_stay)

    class Guard:
        pass

    def fail(path: str) -> None:
        raise OSError(errno.EROFS, "read-only", path)

    def use() -> weakref.ref[Guard]:
        guard = Guard()
        with contextlib.suppress(OSError):
            bounded.BoundedCalls().call("a", fail)
        return weakref.ref(guard)

    gc.disable()
    try:
        assert use()() is None
    finally:
        gc.enable()
        may_end.set()


def a_moment_later(journal: Journal) -> None:
    """Let the time pass in which a directory that has responded is used without a deadline."""
    journal._files._calls._responded_s = 0.0


@pytest.mark.parametrize("call", ["replace", "lseek", "unlink", "scandir", "link", "write"])
@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_directory_that_hangs_blocks_no_caller(
    open_journal: Callable[..., Journal], hanging: HangingOs, told: Told, call: str, durability: str
) -> None:
    """Not in any operation. Settlements continue without their records, and that is reported."""
    journal = open_journal(durability=durability)
    first, second = a_record("rsv_1"), a_record("rsv_2")
    journal.save(first)
    a_moment_later(journal)
    hanging.calls = {call, "fsync"}
    saved = journal.save(second)
    a_moment_later(journal)
    journal.delete(first)
    a_moment_later(journal)
    journal.reject(second, "BUDGET_FROZEN")
    journal.recover_spend()
    journal.remove_settled(0)
    found = [record for entry in journal.pending() if (record := journal.load(entry)) is not None]
    journal.rejected()
    journal.close()
    hanging.may_end.set()
    assert saved is (call in ("lseek", "unlink", "scandir", "link") and durability == "process")
    assert (told == []) is (call in ("link", "unlink") and durability == "process"), told
    assert len(found) <= 2


def test_a_directory_that_hangs_fails_immediately_until_it_responds(journal: Journal, hanging: HangingOs) -> None:
    journal.save(a_record("rsv_1"))
    a_moment_later(journal)
    hanging.calls = {"replace"}
    assert not journal.save(a_record("rsv_2"))
    with threads_started() as started:
        assert not journal.save(a_record("rsv_3"))
        assert journal.pending() == []
    assert started == []
    hanging.calls = set()
    hanging.may_end.set()
    until(lambda: not journal._files._calls._hanging)
    assert journal.save(a_record("rsv_3"))
    assert sorted(record.reservation_id for record in settle_all(journal)) == ["rsv_1", "rsv_2", "rsv_3"]


def test_a_series_of_records_costs_no_thread(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "RECENT_S", 1_000.0)
    with threads_started() as started:
        for number in range(20):
            journal.save(a_record(f"rsv_{number}"))
            journal.delete(a_record(f"rsv_{number}"))
    assert len(started) <= 1


@contextlib.contextmanager
def threads_started() -> Iterator[list[Any]]:
    started: list[Any] = []
    start = _thread.start_new_thread

    def counted(function: Callable[..., object], args: tuple[Any, ...]) -> int:
        started.append(function)
        return start(function, args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", counted)
        yield started


def test_what_a_call_returns_after_its_deadline_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "DEADLINE_S", 0.01)
    returns, discarded = threading.Event(), list[str]()

    def slow(path: str) -> str:
        returns.wait(60)
        return path

    with pytest.raises(OSError, match="has not responded"):
        bounded.BoundedCalls().call("/slow", slow, discard=discarded.append)
    returns.set()
    until(lambda: discarded == ["/slow"])


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Set at the end of the test: until then, the calls that wait for it hang."""
    gate = threading.Event()
    yield gate
    gate.set()


def hang(calls: bounded.BoundedCalls, gate: threading.Event, *paths: str) -> None:
    """Let calls about these paths hang beyond their deadline."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded, "DEADLINE_S", 0.001)
        for path in paths:
            with pytest.raises(OSError, match="has not responded for"):
                calls.call(path, lambda _: gate.wait(60))


def test_a_path_that_hangs_is_named_with_the_deadline(gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = bounded.BoundedCalls()
    assert not calls.hangs("a")
    hang(calls, gate, "a")
    assert (calls.hangs("a"), calls.hangs("b")) == (True, False)
    with monkeypatch.context() as during, pytest.raises(TimeoutError) as caught:
        during.setattr(bounded, "DEADLINE_S", 2.0)
        calls.call("a", str)
    assert (caught.value.errno, caught.value.filename) == (errno.ETIMEDOUT, "a")
    assert caught.value.strerror == "its file system has not responded for 2 s"
    gate.set()
    until(lambda: not calls.hangs("a"))
    assert calls.call("a", str.upper) == "A"


@pytest.mark.parametrize(("hanging", "is_used"), [(7, True), (8, False)])
def test_a_file_system_of_which_eight_files_hang_is_not_used(
    gate: threading.Event, hanging: int, is_used: bool
) -> None:
    calls = bounded.BoundedCalls()
    hang(calls, gate, *map(str, range(hanging)))
    if not is_used:
        with pytest.raises(TimeoutError):
            calls.call("other", str)
        return
    assert calls.call("other", str.upper) == "OTHER"


def test_a_folder_is_used_without_a_thread_for_a_tenth_of_a_second_after_its_last_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = [1_000.0]
    monkeypatch.setattr(bounded, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    calls, counts = bounded.BoundedCalls(), []
    with threads_started() as started:
        for second in (1_000.0, 1_000.09, 1_000.18, 1_000.29, 1_000.38):
            now_s[0] = second
            assert calls.quick("folder", divmod, 7, 2) == (3, 1)
            counts.append(len(started))
        with pytest.raises(ZeroDivisionError):
            calls.quick("folder", divmod, 7, 0)
        now_s[0] = 1_000.47
        calls.quick("folder", divmod, 7, 2)
        counts.append(len(started))
    assert counts == [1, 1, 1, 2, 2, 2], "an error is a response, too"


def test_the_end_of_the_interpreter_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "sys", SimpleNamespace(is_finalizing=lambda: True))
    with threads_started() as started:
        assert bounded.BoundedCalls().call("a", str.upper) == "A"
    assert started == []


def test_a_late_error_ends_the_wait_for_its_path(gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "DEADLINE_S", 0.001)
    calls, discarded = bounded.BoundedCalls(), list[object]()

    def fail(path: str) -> None:
        gate.wait(60)
        raise PermissionError(path)

    with pytest.raises(TimeoutError):
        calls.call("a", fail, discard=discarded.append)
    gate.set()
    until(lambda: not calls.hangs("a"))
    assert discarded == []


def test_a_path_that_hangs_in_one_process_is_used_in_its_forked_child(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child has no thread that would end the wait."""
    calls = bounded.BoundedCalls()
    hang(calls, gate, "a")
    monkeypatch.setattr(os, "getpid", lambda: 0)
    assert not calls.hangs("a")
    assert calls.call("a", str.upper) == "A"


def test_a_folder_has_responded_when_its_call_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [1_000.0]
    monkeypatch.setattr(bounded, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    calls, counts = bounded.BoundedCalls(), []

    def slow() -> None:
        now_s[0] += 1.0

    with threads_started() as started:
        for pause_s in (0.0, 0.05, 0.05, 0.2):
            now_s[0] += pause_s
            calls.quick("folder", slow)
            counts.append(len(started))
    assert counts == [1, 1, 1, 2]


def test_a_call_that_ends_while_it_is_abandoned_blocks_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "DEADLINE_S", 0.001)
    gate, ended = threading.Event(), threading.Event()

    class Abandoned(Future[Any]):
        def cancel(self) -> bool:
            found = super().cancel()
            gate.set()
            assert ended.wait(60)
            return found

    monkeypatch.setattr(bounded, "Future", Abandoned)
    calls = bounded.BoundedCalls()
    with pytest.raises(TimeoutError):
        calls.call("a", lambda _: gate.wait(60), discard=lambda _: ended.set())
    assert not calls.hangs("a")


@pytest.mark.skipif(not is_supported(), reason="needs file locks")
@pytest.mark.parametrize("step", ["made", "found"])
def test_a_file_that_is_locked_too_late_is_not_kept(
    gate: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It would look like one of a live process as long as this one lives."""
    lock, folder = fcntl.flock, f"{tmp_path}/"

    def late(descriptor: int, operation: int) -> None:
        gate.wait(60)
        lock(descriptor, operation)

    if step == "found":
        (tmp_path / "spend-1.log").write_bytes(b"entry")
    monkeypatch.setattr(fcntl, "flock", late)
    with monkeypatch.context() as during:
        during.setattr(bounded, "DEADLINE_S", 0.05)
        if step == "made":
            with pytest.raises(TimeoutError):
                make_in(folder, "spend-1.log", b"entry", sync=False)
        else:
            assert list(left(folder, "spend-")) == []
    gate.set()
    until(lambda: not bounded.CALLS.hangs(folder) and not bounded.CALLS.hangs(f"{folder}spend-1.log"))
    until(lambda: open_files(tmp_path) == [])
    assert [path.name for path in tmp_path.iterdir()] == ["spend-1.log"] * (step == "found")
