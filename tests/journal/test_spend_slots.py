"""The slots in which a process writes known spend ahead, and what the next one reads of them."""

from __future__ import annotations

import errno
import itertools
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from cycles._core.pool.chunk_record import log_name
from cycles._core.settlement.lifecycle import RECOVERED_ID
from cycles._core.settlement.record import Record, encode
from cycles._journal.files.locked_file import is_supported
from cycles._journal.files.spend import LARGE, SMALL, SpendLog, latest_records, read_entries, recover_spend
from cycles._journal.journal import Journal
from tests.journal.kit import CHUNK, a_record, spend_file
from tests.support.points import run_at

pytestmark = pytest.mark.skipif(not is_supported(), reason="needs file locks")


@pytest.fixture
def log(tmp_path: Path) -> SpendLog:
    return SpendLog(lambda: f"{tmp_path}/", sync=False)


def entries(folder: Path) -> list[bytes]:
    return sorted(entry for path in folder.glob("spend-*.log") for entry in read_entries(path.read_bytes()))


def sizes(folder: Path) -> list[int]:
    return sorted(path.stat().st_size for path in folder.glob("spend-*"))


@pytest.mark.parametrize(
    ("length", "layout"), [(0, SMALL), (1_022, SMALL), (1_023, LARGE), (16_382, LARGE), (16_383, None)]
)
def test_a_slot_is_as_large_as_its_records(log: SpendLog, tmp_path: Path, length: int, layout: Any) -> None:
    slot = log.open_slot(length)
    assert (slot is None) == (layout is None)
    assert sizes(tmp_path) == ([] if layout is None else [layout.file_bytes])
    log.close()


@pytest.mark.parametrize(("length", "most"), [(0, 1_022), (1_023, 16_382)])
def test_a_record_that_does_not_fit_changes_nothing(log: SpendLog, tmp_path: Path, length: int, most: int) -> None:
    slot = log.open_slot(length)
    assert slot is not None
    assert slot.write(b"a" * most)
    assert not slot.write(b"b" * (most + 1))
    assert entries(tmp_path) == [b"a" * most]
    slot.end()
    log.close()


def test_the_sizes_of_files_are_those_of_earlier_versions() -> None:
    """The next process recognizes a file by its size, also after an update."""
    assert (SMALL.file_bytes, LARGE.file_bytes) == (256 + 2 * 256 * 1_024, 32 + 2 * 32 * 16_384)
    assert [SMALL.start(0, 1), SMALL.start(0, 2), SMALL.start(3, 1)] == [256, 1_280, 256 + 6 * 1_024]


def test_a_slot_has_its_latest_record_until_it_ends(log: SpendLog, tmp_path: Path) -> None:
    one, two = log.open_slot(), log.open_slot()
    assert one is not None
    assert two is not None
    assert entries(tmp_path) == []
    for number in range(5):
        assert one.write(b"one %d" % number * (1 + number % 2))
        assert two.write(b"two %d" % number)
        assert entries(tmp_path) == sorted([b"one %d" % number * (1 + number % 2), b"two %d" % number])
    assert not one.ended
    one.end()
    one.end()
    assert one.ended
    assert not one.write(b"late")
    assert entries(tmp_path) == [b"two 4"]
    again = [log.open_slot() for _ in range(2)]
    for number, slot in enumerate(again):
        assert slot is not None
        assert slot.write(b"again %d" % number)
    assert entries(tmp_path) == [b"again 0", b"again 1", b"two 4"], "a slot that ends twice is free once"
    log.close()


def test_256_guards_share_a_file(log: SpendLog, tmp_path: Path) -> None:
    slots = [log.open_slot() for _ in range(256)]
    assert sizes(tmp_path) == [SMALL.file_bytes]
    slots.append(log.open_slot())
    assert sizes(tmp_path) == [SMALL.file_bytes] * 2
    for number, slot in enumerate(slots):
        assert slot is not None
        assert slot.write(b"%d" % number)
    assert len(set(entries(tmp_path))) == 257
    log.close()


def test_a_slot_that_has_ended_is_used_again(log: SpendLog, tmp_path: Path) -> None:
    for _ in range(300):
        slot = log.open_slot()
        assert slot is not None
        slot.end()
    assert sizes(tmp_path) == [SMALL.file_bytes]
    log.close()


def test_a_kill_during_a_write_leaves_the_earlier_record(log: SpendLog, tmp_path: Path) -> None:
    """So the earlier one stays where it is until the next write but one."""
    slot = log.open_slot()
    assert slot is not None
    (path,) = tmp_path.glob("spend-*.log")
    halves = []
    for record in (b"1", b"2", b"3"):
        slot.write(record)
        content = path.read_bytes()
        (index,) = [place for place in range(256) if content[place]]
        halves.append([content[SMALL.start(index, half) + 2 :][:1] for half in (1, 2)])
    assert halves == [[b"1", b"\0"], [b"1", b"2"], [b"3", b"2"]]
    log.close()


def test_a_closed_log_keeps_the_files_of_live_guards_until_they_end(log: SpendLog, tmp_path: Path) -> None:
    large, small, other = log.open_slot(2_000), log.open_slot(), log.open_slot()
    assert large is not None
    assert small is not None
    assert other is not None
    small.write(b"1")
    other.write(b"2")
    log.close()
    assert sizes(tmp_path) == [SMALL.file_bytes], "the file without an entry is removed"
    assert not large.write(b"late")
    large.end()
    again = log.open_slot(2_000)
    assert again is not None
    assert again.write(b"4"), "the slot of a file that was removed is not used again"
    again.end()
    assert small.write(b"3")
    small.end()
    assert entries(tmp_path) == [b"2"]
    other.end()
    assert sizes(tmp_path) == []


def test_a_closed_log_can_be_used_again(log: SpendLog, tmp_path: Path) -> None:
    for _ in range(2):
        first = log.open_slot()
        assert first is not None
        assert first.write(b"entry")
        assert entries(tmp_path) == [b"entry"]
        first.end()
        log.close()
        assert sizes(tmp_path) == []


def test_a_file_of_another_size_has_no_entries() -> None:
    assert read_entries(bytes(SMALL.file_bytes - 1)) == []
    damaged = bytearray(SMALL.file_bytes)
    damaged[0], damaged[1], damaged[2] = 1, 2, 3  # the third flag is none
    damaged[256:258] = b"\xff\xff"
    assert [len(entry) for entry in read_entries(bytes(damaged))] == [1_022, 0], "no entry is larger than its half"


def spent(amount: int, reservation_id: str = "rsv_1", **changes: Any) -> Record:
    body = {"idempotency_key": "key", "actual": {"unit": "TOKENS", "amount": amount}}
    return a_record(reservation_id, commit_body=body, event_fallback_body=body, **changes)


def test_the_larger_of_two_entries_of_a_guard_counts() -> None:
    found = latest_records([encode(each) for each in (spent(5), spent(7), spent(6), spent(1, "rsv_2"))] + [b"{"])
    assert [(each.reservation_id, each.actual.amount) for each in found] == [("rsv_1", 7), ("rsv_2", 1)]


class Start:
    """What a start of another process reads in a folder."""

    def __init__(self, folder: Path, **has: bool) -> None:
        self.folder, self.has, self.saved = folder, has, list[str]()
        self.may_save = True

    def save(self, record: Record) -> bool:
        self.saved.append(record.reservation_id)
        return self.may_save

    def recover(self) -> list[str]:
        found = recover_spend(f"{self.folder}/", lambda id_: self.has.get(id_, False), self.save)
        return [record.reservation_id for record in found]


def test_a_start_saves_what_the_journal_does_not_have_and_removes_the_file(tmp_path: Path) -> None:
    path = spend_file(tmp_path, "spend-1.log", spent(5), spent(6, "rsv_2"))
    (tmp_path / "spend-2.log").write_bytes(b"of another program")
    start = Start(tmp_path, rsv_1=True)
    assert (start.recover(), start.saved) == (["rsv_2"], ["rsv_2"])
    assert [each.name for each in tmp_path.iterdir()] == ["spend-2.log"]
    assert not path.exists()


def test_a_start_leaves_the_files_of_live_processes(log: SpendLog, tmp_path: Path) -> None:
    slot = log.open_slot()
    assert slot is not None
    slot.write(encode(spent(5)))
    assert Start(tmp_path).recover() == []
    assert entries(tmp_path) == [encode(spent(5))]
    slot.end()
    log.close()


def test_a_file_whose_entries_cannot_be_saved_stays(tmp_path: Path) -> None:
    path = spend_file(tmp_path, "spend-1.log", spent(5), spent(6, "rsv_2"))
    start = Start(tmp_path)
    start.may_save = False
    with pytest.raises(OSError, match="its entries cannot be saved as records") as caught:
        start.recover()
    assert (caught.value.errno, start.saved, path.exists()) == (errno.EIO, ["rsv_1"], True)


@pytest.mark.parametrize(("has_log", "is_event"), [(True, True), (False, True), (True, False)])
def test_an_entry_of_a_guard_of_a_chunk_waits_for_the_log_of_that_chunk(
    tmp_path: Path, has_log: bool, is_event: bool
) -> None:
    record = spent(5)
    event = evolve(record, mode="event", event_fallback_body={**record.body, "metadata": {RECOVERED_ID: "chunk"}})
    path = spend_file(tmp_path, "spend-1.log", event if is_event else record)
    if has_log:
        (tmp_path / log_name("chunk")).write_bytes(b"of a live process")
    start = Start(tmp_path)
    if has_log and is_event:
        with pytest.raises(OSError, match="the log of its chunk is there; the next start settles both") as caught:
            start.recover()
        assert caught.value.errno == errno.EBUSY
    else:
        assert start.recover() == ["rsv_1"]
    assert path.exists() is (has_log and is_event)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_into_its_own_file(log: SpendLog, tmp_path: Path) -> None:
    slot = log.open_slot()
    assert slot is not None
    slot.write(b"parent")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that other tests have left
        child = os.fork()
    if child == 0:
        status = 1
        try:
            own = log.open_slot()
            is_written = own is not None and own.write(b"child") and not slot.write(b"late")
            status = int(not (is_written and entries(tmp_path) == [b"child", b"parent"]))
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert slot.write(b"later")
    assert entries(tmp_path) == [b"child", b"later"]
    log.close()


def test_a_slot_that_ends_leaves_what_the_next_guard_writes_into_it(log: SpendLog, tmp_path: Path) -> None:
    """A signal handler begins the next guard at each point of the end of the first one."""

    def begin() -> None:
        slot = log.open_slot()
        assert slot is not None
        assert slot.write(b"next")

    for number in itertools.count():
        slot = log.open_slot()
        assert slot is not None
        slot.write(b"first")
        if not run_at("/cycles/_journal/files/spend", number, begin, slot.end):
            break
        assert entries(tmp_path) == [b"next"] * (number + 1), number
    assert number > 5
    log.close()


def test_what_is_saved_before_an_error_counts(journal: Journal) -> None:
    """Whether its cost is known decides how the start settles it."""
    open_log = journal.chunk_log(CHUNK)
    event = evolve(spent(5), mode="event", event_fallback_body={**spent(5).body, "metadata": {RECOVERED_ID: "rsv_1"}})
    spend_file(Path(journal.directory), "spend-1.log", spent(5, "rsv_0", sent=True), event)
    assert [record.reservation_id for record in journal.recover_spend()] == ["rsv_0"]
    assert journal.unread
    open_log.remove()
