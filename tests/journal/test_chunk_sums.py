"""What a start makes of the log of a chunk, and of a record of it that is in a file already."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from cycles._core.pool.chunk_record import log_name
from cycles._core.pool.sums import SECTOR, Totals
from cycles._core.settlement.record import Record, decode, file_name
from cycles._journal.files.locked_file import is_supported, left
from cycles._journal.journal import Journal
from tests.journal.kit import CHUNK, Told, a_record, a_sum, failing, open_files, put, spend_file, write_log

pytestmark = pytest.mark.skipif(not is_supported(), reason="needs file locks")

Shown: TypeAlias = list[tuple[str, str, int, str]]


def log_in(journal: Journal, totals: Totals, name: str = log_name("rsv_1")) -> Path:
    folder = Path(journal.directory)
    folder.mkdir(parents=True, exist_ok=True)
    return write_log(folder, totals, name)


def shown(journal: Journal) -> Shown:
    records = [record for entry in journal.pending() if (record := journal.load(entry)) is not None]
    return sorted(
        (
            "the chunk" if record.reservation_id == "rsv_1" else "more",
            record.mode,
            record.actual.amount,
            record.body["idempotency_key"],
        )
        for record in records
    )


OTHER = ("the chunk", "commit", 5, "key-1")


@pytest.mark.parametrize(
    ("found", "totals", "expected"),
    [
        (None, Totals(12, calls=3), [("the chunk", "commit", 12, "key-1")]),
        (None, Totals(5, calls=1, ahead=3), [("the chunk", "commit", 8, "key-1")]),
        (None, Totals(0, calls=0, ahead=3), [("the chunk", "commit", 3, "key-1")]),
        (None, Totals(0, calls=1), [("the chunk", "commit", 0, "key-1")]),
        (None, Totals(0, calls=0), []),
        (None, Totals(390, calls=1, ahead=11), [("the chunk", "commit", 400, "key-1")]),
        (a_sum(7, 2), Totals(12, calls=3), [("the chunk", "commit", 12, "key-1")]),
        (a_sum(7, 2), Totals(12, calls=2), [("the chunk", "commit", 7, "key-1")]),
        (a_sum(12, 3), Totals(12, calls=3), [("the chunk", "commit", 12, "key-1")]),
        (a_sum(12, 3), Totals(7, calls=2), [("the chunk", "commit", 12, "key-1")]),
        (a_sum(12, 2), Totals(12, calls=3), [("the chunk", "commit", 12, "key-1")]),
        (
            a_sum(7, 2, "event"),
            Totals(12, calls=3),
            [("more", "event", 5, "key-1:late:7"), ("the chunk", "event", 7, "key-1")],
        ),
        (a_sum(7, 2, "event"), Totals(12, calls=2), [("the chunk", "event", 7, "key-1")]),
        (a_sum(12, 3, "event"), Totals(7, calls=2), [("the chunk", "event", 12, "key-1")]),
        (a_record(), Totals(12, calls=3), [OTHER]),
    ],
)
def test_what_a_file_does_not_have_of_a_log_is_saved(
    journal: Journal, told: Told, found: Record | None, totals: Totals, expected: Shown
) -> None:
    if found is not None:
        journal.save(found)
    log = log_in(journal, totals)
    assert journal.recover_spend() == []
    assert shown(journal) == expected
    assert (log.exists(), list(told)) == (False, [])


@pytest.mark.parametrize("attempt_unknown", [True, False])
def test_a_larger_sum_may_have_been_sent_if_the_earlier_one_may(journal: Journal, attempt_unknown: bool) -> None:
    journal.save(a_sum(7, 2, attempt_unknown=attempt_unknown))
    log_in(journal, Totals(12, calls=3, ahead=2))
    before_ms = time.time_ns() // 1_000_000
    journal.recover_spend()
    (entry,) = journal.pending()
    record = journal.load(entry)
    assert record is not None
    assert (record.attempt_unknown, record.actual.amount) == (attempt_unknown, 14)
    assert before_ms <= record.recorded_at_ms <= time.time_ns() // 1_000_000
    metadata = record.body["metadata"]
    assert (metadata["pool_calls"], metadata["pool_recovered"], metadata["pool_unfinished"]) == (3, True, 2)


@pytest.mark.parametrize("found", [None, a_sum(7, 2), a_sum(7, 2, "event")])
def test_a_log_whose_sum_cannot_be_saved_stays(journal: Journal, told: Told, found: Record | None) -> None:
    if found is not None:
        journal.save(found)
        journal.close()
    log = log_in(journal, Totals(12, calls=3))
    content = log.read_bytes()
    with failing("replace", errno.EROFS):
        journal.recover_spend()
    assert log.read_bytes() == content
    assert told.kinds == ["unwritable"]
    assert journal.recover_spend() == []
    assert sum(amount for _, _, amount, _ in shown(journal)) == 12


def test_a_damaged_file_leaves_the_log_to_the_next_start(journal: Journal, told: Told) -> None:
    put(journal, file_name("rsv_1"), b"{")
    log = log_in(journal, Totals(12, calls=3))
    for is_there, expected in ((True, []), (False, [("the chunk", "commit", 12, "key-1")])):
        journal.recover_spend()
        assert (shown(journal), log.exists()) == (expected, is_there)
    assert told.kinds == ["quarantined"]
    assert log.name in told[0].message


@pytest.mark.parametrize("name", ["pool-1.txt", "pool-1.log.0a.new"])
def test_another_file_is_no_log(journal: Journal, name: str) -> None:
    path = log_in(journal, Totals(12, calls=3), name)
    assert journal.recover_spend() == []
    assert (shown(journal), path.exists()) == ([], not name.endswith(".new"))


def test_a_log_of_another_version_stays_and_hides_no_other_one(journal: Journal) -> None:
    other = put(journal, "pool-0.log", CHUNK.encode().replace(b'"version":3', b'"version":9') + bytes(SECTOR))
    log_in(journal, Totals(12, calls=3))
    journal.recover_spend()
    assert (len(shown(journal)), other.exists()) == (1, True)


def test_a_record_in_a_file_is_read_as_it_was_saved(journal: Journal) -> None:
    journal.save(a_sum(7, 2))
    assert decode(Path(journal.directory, file_name("rsv_1")).read_bytes()) == a_sum(7, 2)


def test_a_record_that_cannot_be_read_leaves_it_unknown_what_an_earlier_process_left(
    journal: Journal, told: Told
) -> None:
    log = log_in(journal, Totals(12, calls=3))
    os.mkfifo(Path(journal.directory, file_name("rsv_1")))
    assert not journal.unread
    journal.recover_spend()
    assert (log.exists(), journal.unread, told.kinds) == (True, True, ["unreadable"])


def test_a_closed_log_of_a_chunk_takes_no_more_and_is_left_to_the_next_start(journal: Journal) -> None:
    log = journal.chunk_log(CHUNK)
    log.write(Totals(7, calls=1, changes=1))
    log.close()
    log.write(Totals(9, calls=2, changes=2))
    assert open_files(journal.directory) == []
    journal.recover_spend()
    assert shown(journal) == [("the chunk", "commit", 7, "key-1")]


def test_a_log_that_could_not_be_synced_is_synced_again(journal: Journal) -> None:
    log = journal.chunk_log(CHUNK)
    log.write(Totals(7, calls=1, changes=1))
    for _ in range(2):
        with failing("fdatasync", errno.EIO), pytest.raises(OSError, match="Input/output error"):
            log.sync()
    with failing("fdatasync", errno.EIO, only_call=9) as calls:
        log.sync()
        log.sync()
        log.write(Totals(8, calls=2, changes=2))
        log.sync()
    assert calls == [2], "nothing to sync is no call"
    log.remove()
    assert open_files(journal.directory) == []


def test_spend_that_cannot_be_saved_leaves_it_unknown_what_an_earlier_process_left(
    journal: Journal, told: Told
) -> None:
    folder = Path(journal.directory)
    folder.mkdir(parents=True)
    path = spend_file(folder, "spend-1.log", a_record())
    with failing("replace", errno.EROFS):
        assert journal.recover_spend() == []
    assert (journal.unread, path.exists()) == (True, True)
    assert told.kinds == ["unwritable", "unreadable"]


def test_what_is_written_during_a_sync_needs_another_one(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages that are being written have the earlier sum."""
    log, sync, calls = journal.chunk_log(CHUNK), os.fdatasync, list[int]()

    def write_during(descriptor: int) -> None:
        sync(descriptor)
        calls.append(descriptor)
        if len(calls) == 1:
            log.write(Totals(9, calls=2, changes=2))

    monkeypatch.setattr(os, "fdatasync", write_during)
    log.write(Totals(7, calls=1, changes=1))
    for _ in range(3):
        log.sync()
    assert len(calls) == 2
    log.remove()


def test_a_log_is_empty_on_disk_before_it_is_removed(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of power may bring the file back once its sum is settled."""
    log, sync, synced = log_in(journal, Totals(12, calls=3)), os.fdatasync, list[bytes]()

    def note(descriptor: int) -> None:
        sync(descriptor)
        synced.append(log.read_bytes()[-SECTOR:])

    monkeypatch.setattr(os, "fdatasync", note)
    journal.recover_spend()
    assert (synced, log.exists()) == ([bytes(SECTOR)], False)


def test_spend_that_cannot_be_read_leaves_the_log_of_its_chunk_to_the_next_start(journal: Journal, told: Told) -> None:
    """What guards of the chunk have moved there would be charged twice."""
    log = log_in(journal, Totals(5, calls=1, ahead=3))
    os.mkfifo(Path(journal.directory, "spend-1.log"))
    journal.recover_spend()
    assert (shown(journal), log.exists(), journal.unread, told.kinds) == ([], True, True, ["unreadable"])


def test_a_log_is_locked_until_it_is_removed(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that gets the lock before would save its sum once more."""
    log, unlink, found = journal.chunk_log(CHUNK), os.unlink, list[list[str]]()

    def look(path: str) -> None:
        found.append([file.path for file in left(f"{journal.directory}/", "pool-")])
        unlink(path)

    monkeypatch.setattr(os, "unlink", look)
    log.remove()
    assert found == [[]]
    assert list(Path(journal.directory).iterdir()) == []


def test_a_chunk_that_cannot_be_recovered_keeps_no_spend_of_other_guards(journal: Journal) -> None:
    log_in(journal, Totals(12, calls=3))
    os.mkfifo(Path(journal.directory, file_name("rsv_1")))
    spend_file(Path(journal.directory), "spend-1.log", a_record("rsv_2"))
    assert journal.recover_spend() == [a_record("rsv_2")]
    assert journal.unread


@pytest.mark.parametrize(("durability", "synced"), [("disk", [12]), ("process", [])])
def test_the_sum_of_a_log_is_on_disk_before_it_is_removed(
    open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch, durability: str, synced: list[int]
) -> None:
    """A loss of power may bring the file back: with an earlier sum, the rest would look like another one."""
    log, sync, found = open_journal(durability=durability).chunk_log(CHUNK), os.fdatasync, list[int]()

    def note(descriptor: int) -> None:
        sync(descriptor)
        found.append(12)

    log.write(Totals(12, calls=1, changes=1))
    monkeypatch.setattr(os, "fdatasync", note)
    log.remove()
    assert found == synced
