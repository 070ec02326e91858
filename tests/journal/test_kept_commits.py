"""Whether a journal may still have the commit of an event that it did not take: then the event is not sent."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import encode, file_name
from cycles._journal.files import locked_file
from cycles._journal.files.record_files import RecordFiles
from cycles._journal.journal import Journal
from tests.journal.kit import Told, a_record, failing, files, posix_only, put, settle_all
from tests.support.directories import HangingDirectory, directory as directory

COMMIT = a_record()
EVENT = COMMIT.to_event_mode(5_000)


def test_an_event_that_replaces_its_commit_leaves_none(journal: Journal) -> None:
    assert journal.save(COMMIT)
    assert journal.save(EVENT)
    assert not journal.keeps_commit(EVENT)


@pytest.mark.parametrize(("name", "number"), [("write", errno.ENOSPC), ("write", errno.EIO), ("replace", errno.EACCES)])
def test_a_commit_stays_until_an_event_is_saved(journal: Journal, name: str, number: int) -> None:
    journal.save(COMMIT)
    with failing(name, number):
        assert not journal.save(EVENT)
    assert journal.keeps_commit(EVENT)
    assert journal.save(EVENT)
    assert not journal.keeps_commit(EVENT)
    assert settle_all(journal) == [EVENT]


@posix_only
def test_a_commit_that_an_earlier_process_left_counts(open_journal: Callable[..., Journal]) -> None:
    open_journal().save(COMMIT)
    journal = open_journal()
    with failing("write", errno.ENOSPC):
        journal.save(EVENT)
    assert journal.keeps_commit(EVENT)


def test_a_disk_that_never_took_the_commit_has_none(journal: Journal) -> None:
    with failing("write", errno.ENOSPC):
        assert not journal.save(COMMIT)
        assert not journal.save(EVENT)
    assert not journal.keeps_commit(EVENT)
    assert files(journal) == set()


def test_a_commit_that_cannot_be_read_counts(journal: Journal) -> None:
    journal.save(COMMIT)
    with failing("open", errno.EIO), failing("write", errno.ENOSPC):
        assert not journal.save(EVENT)
    assert journal.keeps_commit(EVENT)


def test_an_event_that_another_process_saved_has_replaced_the_commit(open_journal: Callable[..., Journal]) -> None:
    journal, other = open_journal(), open_journal()
    journal.save(COMMIT)
    other.save(EVENT)
    with failing("write", errno.ENOSPC):
        assert not journal.save(EVENT)
    assert not journal.keeps_commit(EVENT)


def test_a_folder_that_is_not_synced_may_bring_the_commit_back(open_journal: Callable[..., Journal]) -> None:
    """With durability="disk" the event has the commit's name, but a loss of power may undo that."""
    journal = open_journal(durability="disk")
    journal.save(COMMIT)
    with failing("fsync", errno.EIO, only_call=2):  # the file is the first, the folder the second
        assert not journal.save(EVENT)
    with failing("write", errno.ENOSPC):
        assert not journal.save(EVENT)
    assert journal.keeps_commit(EVENT)
    assert journal.save(EVENT)
    assert not journal.keeps_commit(EVENT)


@pytest.mark.parametrize("end", [Journal.delete, lambda journal, record: journal.reject(record, "may_be_charged")])
def test_what_has_ended_is_forgotten(journal: Journal, end: Callable[[Journal, Any], None]) -> None:
    journal.save(COMMIT)
    with failing("write", errno.ENOSPC):
        journal.save(EVENT)
    end(journal, EVENT)
    assert not journal.keeps_commit(EVENT)


def test_a_commit_under_a_legacy_name_that_cannot_be_renamed_counts(journal: Journal) -> None:
    put(journal, "v1-old.json", encode(COMMIT))
    with failing("link", errno.EACCES), failing("rename", errno.EACCES):
        (entry,) = journal.pending()
        assert journal.load(entry) == COMMIT
    assert journal.save(EVENT)
    assert journal.keeps_commit(EVENT)


@posix_only
@pytest.mark.parametrize("is_reused", [True, False])
def test_a_file_that_could_neither_be_put_into_place_nor_removed_is_no_record(
    open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch, is_reused: bool
) -> None:
    """The next start would take it for a commit that was saved, although the event of this process is charged."""
    if not is_reused:
        monkeypatch.setattr(locked_file, "fcntl", None)
    journal = open_journal()
    journal.save(a_record("another"))
    with failing("replace", errno.EACCES), failing("unlink", errno.EACCES):
        assert not journal.save(COMMIT)
    journal.close()
    assert [record.reservation_id for record in settle_all(open_journal())] == ["another"]


@posix_only
@pytest.mark.parametrize("name", ["stat", "lseek", "write"])
def test_a_settled_record_never_comes_back(open_journal: Callable[..., Journal], name: str) -> None:
    """Its file has no name of a record any more, and what comes then fails: a start took it for one to put into place.

    The commit of an event that was charged would be sent again, and after seven days be charged a second time.
    """
    journal = open_journal()
    journal.save(COMMIT)
    with failing(name, errno.EIO) as calls:
        journal.delete(COMMIT)
    assert calls == [1]
    assert settle_all(open_journal()) == []
    journal.close()
    assert settle_all(open_journal()) == []


def test_a_commit_that_cannot_be_deleted_counts(journal: Journal) -> None:
    """As when a shared store has the event, and the commit that an outage left on the disk stays there."""
    journal.save(COMMIT)
    with failing("replace", errno.EACCES), failing("unlink", errno.EACCES):
        journal.delete(COMMIT)
        assert journal.keeps_commit(EVENT)
        journal.delete_again(EVENT)
        assert journal.keeps_commit(EVENT)
    journal.delete_again(EVENT)
    assert not journal.keeps_commit(EVENT)
    assert settle_all(journal) == []


def test_a_commit_that_may_still_be_saved_counts(directory: HangingDirectory, journal: Journal) -> None:
    directory.hangs = True
    assert not journal.save(COMMIT)
    assert not journal.save(EVENT)
    assert journal.keeps_commit(EVENT)
    directory.hangs = False
    directory.may_end.set()
    assert directory.ended.wait(60)
    while not journal.save(EVENT):  # until the call that was late has returned
        pass
    assert not journal.keeps_commit(EVENT)
    assert [path.name[:3] for path in Path(journal.directory).glob("v2-*.json")] == ["v2-"]


def test_a_rejected_record_is_removed_after_it_is_kept(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed in between leaves it in both places."""
    there: list[int] = []
    keep = RecordFiles.keep_rejected

    def keep_and_look(files: RecordFiles, *words: Any) -> None:
        there.append(len(journal.pending()))
        keep(files, *words)

    monkeypatch.setattr(RecordFiles, "keep_rejected", keep_and_look)
    journal.reject(a_record(), "BUDGET_FROZEN")
    assert there == [1]
    assert journal.pending() == []
    assert [reason for _, reason in journal.rejected()] == ["BUDGET_FROZEN"]


@pytest.mark.parametrize(("number", "is_kept"), [(errno.ETIMEDOUT, True), (errno.EROFS, False)])
@pytest.mark.parametrize("mode", ["commit", "event"])
def test_a_save_that_hangs_may_still_store_the_commit(journal: Journal, number: int, is_kept: bool, mode: str) -> None:
    record = a_record() if mode == "commit" else a_record().to_event_mode()
    with failing("replace", number):
        assert not journal.save(record)
    assert journal.keeps_commit(record) is (is_kept and mode == "commit")


def test_another_event_of_the_reservation_is_no_commit(open_journal: Callable[..., Journal]) -> None:
    open_journal().save(a_record(key="another").to_event_mode())
    journal, event = open_journal(), a_record().to_event_mode()
    with failing("replace", errno.EROFS):
        assert not journal.save(event)
    assert not journal.keeps_commit(event)
    assert journal.save(event)
    assert not journal.keeps_commit(event)


@pytest.mark.parametrize(("durability", "is_kept"), [("process", False), ("disk", True)])
def test_an_event_that_another_process_saved_counts_although_this_one_cannot_save_it(
    open_journal: Callable[..., Journal], durability: str, is_kept: bool
) -> None:
    journal = open_journal(durability=durability)
    with failing("replace", errno.ETIMEDOUT):
        assert not journal.save(a_record())
    event = a_record().to_event_mode()
    open_journal().save(event)
    with failing("replace", errno.EROFS):
        assert not journal.save(event)
    assert journal.keeps_commit(event) is is_kept


def test_a_record_that_is_saved_again_after_its_end_is_there(journal: Journal) -> None:
    for _ in range(2):
        assert journal.save(a_record(attempt_unknown=True))
        assert settle_all(journal) == [a_record(attempt_unknown=True)]


def event(key: str = "key-1", since_ms: int | None = 5_000, **changes: Any) -> Any:
    return a_record(key=key, mode="event", event_since_ms=since_ms, **changes)


@pytest.mark.parametrize(
    ("stored", "record", "expected"),
    [
        (event(), a_record(), a_record()),  # its first state
        (event(), a_record(attempt_unknown=True), event()),
        (event(), a_record(not_before_ms=7), event()),
        (event("other"), a_record(attempt_unknown=True), a_record(attempt_unknown=True)),
        (a_record(), a_record(attempt_unknown=True), a_record(attempt_unknown=True)),
        (a_record(attempt_unknown=True), event(), event()),
        (event(since_ms=3_000), event(), event(since_ms=3_000)),
        (event(since_ms=9_000), event(), event()),
        (event(since_ms=None), event(), event()),
        (event(), event(since_ms=None), event()),
        (event(since_ms=None), event(since_ms=None), event(since_ms=None)),
        (event("other", 3_000), event(), event()),
        (event(not_before_ms=1), event(not_before_ms=2), event(not_before_ms=2)),
    ],
)
def test_a_record_becomes_no_earlier_state_of_what_another_worker_has_made_of_it(
    open_journal: Callable[..., Journal], stored: Any, record: Any, expected: Any
) -> None:
    open_journal().save(stored)
    assert open_journal().save(record)
    assert settle_all(open_journal()) == [expected]


@pytest.mark.parametrize("changes", [{"attempt_unknown": True}, {"not_before_ms": 7}, {"mode": "event"}, {}])
@pytest.mark.parametrize("end", ["settled", "folder removed"])
def test_a_record_that_another_worker_has_settled_is_saved_only_if_its_folder_is_gone(
    open_journal: Callable[..., Journal], changes: dict[str, Any], end: str
) -> None:
    journal = open_journal()
    journal.save(a_record())
    if end == "settled":
        open_journal().delete(a_record())
    else:
        shutil.rmtree(journal.directory)
    assert journal.save(a_record(**changes))
    is_saved = not changes or end != "settled"
    assert settle_all(open_journal()) == [a_record(**changes)] * is_saved


def test_a_record_that_another_worker_has_replaced_by_a_directory_is_reported(
    open_journal: Callable[..., Journal], told: Told
) -> None:
    journal = open_journal()
    journal.save(a_record())
    path = Path(journal.directory, file_name("rsv_1"))
    path.unlink()
    path.mkdir()
    assert not journal.save(event())
    assert (journal.keeps_commit(event()), told.kinds) == (True, ["unwritable"])


@pytest.mark.parametrize(
    ("mode", "before", "number", "result"),
    [
        ("commit", None, None, PutResult.SAVED),
        ("commit", None, errno.EROFS, PutResult.FAILED),
        ("event", None, None, PutResult.SAVED),
        ("event", None, errno.EROFS, PutResult.FAILED),
        ("event", "saved", None, PutResult.SAVED),
        ("event", "saved", errno.EROFS, PutResult.HELD_BACK),
        ("event", "not deleted", None, PutResult.SAVED),
        ("event", "not deleted", errno.EROFS, PutResult.HELD_BACK),
    ],
)
def test_a_put_says_whether_its_record_may_be_sent(
    journal: Journal, mode: str, before: str | None, number: int | None, result: PutResult
) -> None:
    if before is not None:
        journal.save(a_record())
    if before == "not deleted":
        with failing("replace", errno.EROFS), failing("unlink", errno.EROFS):
            journal.delete(a_record())
    record = a_record() if mode == "commit" else EVENT
    with contextlib.nullcontext() if number is None else failing("replace", number):
        assert journal.put(record) is result
    assert journal.keeps_commit(record) is (result is PutResult.HELD_BACK)


def test_a_record_that_was_read_and_then_settled_by_another_worker_does_not_come_back(
    open_journal: Callable[..., Journal],
) -> None:
    open_journal().save(a_record())
    journal = open_journal()
    (entry,) = journal.pending()
    assert journal.load(entry) == a_record()
    open_journal().delete(a_record())
    assert journal.save(a_record(attempt_unknown=True))
    assert files(journal) == set()
