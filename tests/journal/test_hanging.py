"""A file that hangs, on a network or in a user's own file system, blocks nothing else of the journal."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cycles._core.records import encode, file_name
from cycles._journal import bounded, file_store, spend_log
from cycles._journal.inspection import inspect
from cycles._journal.journal import Journal
from tests.journal.kit import Told, a_record, put, settle_all


class HangingOs:
    """The operating system, in which opening some files returns only when the test ends."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.opened: list[str] = []
        self.ended = threading.Event()

    def open(self, path: Any, *args: Any) -> int:
        self.opened.append(Path(path).name)
        if Path(path).name in self.names:
            self.ended.wait()
        return os.open(path, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingOs]:
    fake = HangingOs()
    monkeypatch.setattr(bounded, "DEADLINE_S", 0.02)
    monkeypatch.setattr(file_store, "os", fake)
    monkeypatch.setattr(spend_log, "os", fake)
    yield fake
    fake.ended.set()


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
    hanging.ended.set()
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
    assert discarded.wait(5)
    assert calls.call("a", lambda path: path * 2) == "aa"


def until(condition: Callable[[], bool]) -> None:
    moment = threading.Event()
    for _ in range(1_000):
        if condition():
            return
        moment.wait(0.005)
    raise AssertionError("it never came true")
