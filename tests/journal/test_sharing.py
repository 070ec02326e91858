"""Threads, forked children and separate processes on one journal: nothing is lost, torn or mixed up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record
from cycles._journal.journal import Entry, Journal, JournalIssue
from cycles._journal.records import Records
from tests.journal.kit import a_record, settle_all

ACTUAL = {"unit": "TOKENS", "amount": 5}
WRITER = """
import sys
from pathlib import Path
from cycles._core.settlement.record import Record
from cycles._journal.journal import Journal
root, name, shared = sys.argv[1:]
journal = Journal(Path(root), base_url="b", tenant="t", api_key="k", report=lambda problem: print(problem, flush=True))
number, actual = 0, {"unit": "TOKENS", "amount": 5}
print("ready", flush=True)
while True:
    body = {"idempotency_key": f"{name}-{number}", "actual": actual, "fill": "x" * 3000}
    owed = Record(reservation_id=f"{name}-{number}", base_url="b", commit_body=body)
    same = {"idempotency_key": "same", "actual": actual, "fill": "y" * 3000}
    both = Record(reservation_id=shared, base_url="b", commit_body=same)
    assert journal.save(owed) and journal.save(both)
    if number % 3:
        journal.forget(owed)
        journal.forget(both)
    number += 1
"""


def open_journal(root: Path, problems: list[JournalIssue] | None = None) -> Journal:
    report = (problems if problems is not None else []).append
    return Journal(root, base_url="b", tenant="t", api_key="k", report=report)


def owed(number: object) -> Record:
    body = {"idempotency_key": f"k{number}", "actual": ACTUAL}
    return Record(reservation_id=f"r{number}", base_url="b", commit_body=body)


def test_readers_get_only_whole_records_while_writers_die(tmp_path: Path) -> None:
    """Two processes write and are killed in the middle of it; a third reads all the time, and cleans up after them."""
    problems: list[JournalIssue] = []
    reader = open_journal(tmp_path, problems)
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*command, name, "shared"], stdout=subprocess.PIPE) for name in ("one", "two")]
    try:
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
        loaded = 0
        while loaded < 2_000:
            loaded += sum(reader.load(entry) is not None for entry in reader.pending())
    finally:
        for writer in writers:
            writer.send_signal(signal.SIGKILL) if os.name == "posix" else writer.kill()
    for writer in writers:
        output, _ = writer.communicate()
        assert output == b""  # no problem was reported to a writer, although its temporary files were taken away
    for entry in reader.pending():
        record = reader.load(entry)
        assert record is not None
        reader.delete(record)
    assert list(Path(reader.directory).iterdir()) == []
    assert problems == []


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_threads_share_one_journal(tmp_path: Path, durability: str) -> None:
    problems: list[JournalIssue] = []
    journal = Journal(
        tmp_path,
        base_url="b",
        tenant="t",
        api_key="k",
        durability=durability,  # type: ignore[arg-type]
        report=problems.append,
    )
    start = threading.Barrier(16)

    def work(thread: int) -> None:
        start.wait(timeout=300)
        for number in range(10):
            mine = owed(f"{thread}-{number}")
            assert journal.save(mine)
            assert journal.save(owed("shared"))
            if number % 2:
                journal.delete(mine)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    assert len(journal.pending()) == 16 * 5 + 1
    assert problems == []


def test_the_partition_is_computed_once_for_all_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    others_came = threading.Event()

    def slow_partition(*_: object) -> str:
        calls.append("partition")
        others_came.wait(0.1)  # blocks the first thread until the others have called too; no thread sets it
        return "partition"

    monkeypatch.setattr("cycles._journal.journal.partition", slow_partition)
    journal = open_journal(tmp_path)
    assert calls == []  # making a client costs nothing of it
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: journal.save(owed(number)), range(32)))
    assert calls == ["partition"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_uses_the_same_journal(tmp_path: Path) -> None:
    """Also when another thread of the parent was inside the journal at that moment: its lock is not inherited."""
    program = """
import os, sys, threading, time
from pathlib import Path
import cycles._journal.journal as module
from cycles._core.settlement.record import Record
inside, go_on = threading.Event(), threading.Event()
real = module.partition
def slow(*args):
    inside.set()
    if threading.current_thread() is not threading.main_thread():
        go_on.wait(60)
    return real(*args)
module.partition = slow
journal = module.Journal(Path(sys.argv[1]), base_url="b", tenant="t", api_key="k", report=print)
actual = {"unit": "TOKENS", "amount": 5}
record = lambda name: Record(
    reservation_id=name, base_url="b", commit_body={"idempotency_key": name, "actual": actual}
)
thread = threading.Thread(target=journal.save, args=(record("thread"),))
thread.start(); inside.wait(60)
child = os.fork()
if child == 0:
    os._exit(0 if journal.save(record("child")) else 1)
_, status = os.waitpid(child, 0)
go_on.set(); thread.join()
journal.save(record("parent"))
print(status, sorted(journal.load(e).reservation_id for e in journal.pending()))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split("\n")[0] == "0 ['child', 'parent', 'thread']", done.stderr


def test_a_worker_does_not_turn_the_event_of_another_one_back_into_a_commit(
    open_journal: Callable[..., Journal],
) -> None:
    """Otherwise the time of the first attempt is lost, and the event is sent after the server has deleted its key."""
    one, other = open_journal(), open_journal()
    record = a_record()
    one.save(record)
    one.save(record.to_event_mode(5_000))
    assert other.save(attrs.evolve(record, attempt_unknown=True))
    assert [one.load(entry) for entry in one.pending()] == [record.to_event_mode(5_000)]
    other.save(record.to_event_mode(9_000))
    assert settle_all(one) == [record.to_event_mode(5_000)]


def test_a_worker_does_not_bring_back_a_record_that_another_one_has_settled(
    open_journal: Callable[..., Journal],
) -> None:
    """Otherwise an event is sent again after the server has deleted its key."""
    one, other = open_journal(), open_journal()
    record = a_record()
    other.save(record)
    assert settle_all(one) == [record]
    assert other.save(attrs.evolve(record, attempt_unknown=True))
    assert one.pending() == []


def test_a_record_is_saved_again_if_the_directory_was_removed(open_journal: Callable[..., Journal]) -> None:
    journal, record = open_journal(), a_record()
    journal.save(record)
    shutil.rmtree(journal.directory)
    later = attrs.evolve(record, attempt_unknown=True)
    assert journal.save(later)
    assert settle_all(journal) == [later]


def test_a_start_leaves_a_record_alone_that_is_saved_while_it_lists(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, pending = Records(journal), journal.pending

    def save_and_list() -> list[Entry]:
        records.put(a_record())
        return pending()

    monkeypatch.setattr(journal, "pending", save_and_list)
    assert records.left_by_others(0) == []


def test_a_start_leaves_a_record_alone_that_has_just_been_saved(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, put, found = Records(journal), journal.put, list[list[Entry]]()

    def save_before_a_start(record: Record) -> PutResult:
        result = put(record)
        found.append(records.left_by_others(0))
        return result

    monkeypatch.setattr(journal, "put", save_before_a_start)
    assert records.put(a_record()) is PutResult.SAVED
    assert found == [[]]
