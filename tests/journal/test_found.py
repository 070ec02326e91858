"""What a start finds in a journal: records, legacy names, broken files, and what dead writers left."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import encode, file_name
from cycles._journal.files.record_files import RecordFiles
from cycles._journal.journal import Entry, Journal
from tests.journal.kit import BASE, Told, a_record, all_files, failing, files, open_files, put, settle_all


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b'{"version": 2, "reservation_id": "r"}', b"\xff\xfe", encode(a_record())[:-9]],
)
def test_a_file_that_is_no_record_is_quarantined_and_reported_and_the_rest_loads(
    journal: Journal, told: Told, content: bytes
) -> None:
    journal.save(a_record())
    put(journal, file_name("rsv_bad"), content)
    assert settle_all(journal) == [a_record()]
    assert told.kinds == ["quarantined"]
    (kept,) = files(journal)
    assert (Path(journal.directory) / kept).read_bytes() == content
    assert f"is kept as {kept} and" in told[0].message
    assert told[0].message.endswith("read it, or record its amount by hand with client.record()")
    assert settle_all(journal) == []
    assert told.kinds == ["quarantined"]


def test_two_quarantined_files_of_one_name_are_both_kept(journal: Journal) -> None:
    for content in (b"one", b"two"):
        put(journal, file_name("rsv_bad"), content)
        settle_all(journal)
    folder = Path(journal.directory)
    assert sorted((folder / name).read_bytes() for name in files(journal)) == [b"one", b"two"]


def test_a_failed_quarantine_is_reported_once(journal: Journal, told: Told) -> None:
    put(journal, file_name("rsv_bad"), b"?")
    with failing("replace", errno.EROFS):
        assert settle_all(journal) == []
        assert settle_all(journal) == []
    assert told.kinds == ["unreadable"]
    assert f"the settlement journal cannot use {Path(journal.directory, file_name('rsv_bad'))} (" in told[0].message


def test_an_entry_that_another_process_settled_first_is_skipped(journal: Journal, told: Told) -> None:
    journal.save(a_record())
    (entry,) = journal.pending()
    journal.delete(a_record())
    assert journal.load(entry) is None
    assert not told


def test_a_record_of_another_server_is_left_alone(journal: Journal, told: Told) -> None:
    journal.save(a_record(base_url="http://elsewhere"))
    assert settle_all(journal) == []
    assert settle_all(journal) == []
    assert told.kinds == ["foreign"]
    assert files(journal) == {file_name("rsv_1")}


def test_a_slash_at_the_end_of_the_address_makes_no_other_server(journal: Journal) -> None:
    journal.save(a_record(base_url=f"{BASE}/"))
    assert settle_all(journal) == [a_record(base_url=f"{BASE}/")]


def test_a_legacy_name_becomes_the_records_own(journal: Journal) -> None:
    put(journal, "rsv_1.json", encode(a_record()))
    (entry,) = journal.pending()
    assert journal.load(entry) == a_record()
    assert files(journal) == {file_name("rsv_1")}


def test_a_legacy_name_migrates_on_a_file_system_without_links(journal: Journal) -> None:
    put(journal, "rsv_1.json", encode(a_record()))
    with failing("link", errno.EPERM):
        assert settle_all(journal) == [a_record()]
    assert files(journal) == set()


def test_a_legacy_copy_of_the_same_settlement_goes(journal: Journal) -> None:
    journal.save(a_record())
    put(journal, "rsv_1.json", encode(a_record().to_event_mode()))
    assert settle_all(journal) == [a_record()]
    assert files(journal) == set()


@pytest.mark.parametrize("links", [True, False])
def test_a_legacy_file_with_another_settlement_of_the_id_is_kept_aside(
    journal: Journal, told: Told, links: bool
) -> None:
    journal.save(a_record())
    put(journal, "rsv_1.json", encode(a_record(key="another")))
    with contextlib.nullcontext() if links else failing("link", errno.EPERM):
        assert settle_all(journal) == [a_record()]
    assert told.kinds == ["quarantined"]
    (kept,) = files(journal)
    assert json.loads((Path(journal.directory) / kept).read_bytes())["commit_body"]["idempotency_key"] == "another"


def test_two_ids_with_one_legacy_name_both_come_through(journal: Journal) -> None:
    put(journal, "a_b.json", encode(a_record("a/b", "k1")))
    journal.save(a_record("a_b", "k2"))
    assert {record.reservation_id for record in settle_all(journal)} == {"a/b", "a_b"}
    assert files(journal) == set()


def test_a_file_that_lies_under_the_name_of_another_record_makes_way(journal: Journal, told: Told) -> None:
    put(journal, file_name("rsv_1"), encode(a_record("rsv_2", "key-2")))
    put(journal, "old.json", encode(a_record()))
    assert journal.load(Entry("old.json")) == a_record()
    assert {record.reservation_id for record in settle_all(journal)} == {"rsv_1", "rsv_2"}
    assert files(journal) == set()
    assert not told


@pytest.mark.parametrize("lost", ["the file that was found", "the file that has its name", "both"])
def test_a_file_that_another_process_settles_while_it_is_renamed_is_left_to_it(
    journal: Journal, told: Told, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    old, own = put(journal, "old.json", encode(a_record())), Path(journal.directory) / file_name("rsv_1")
    if lost != "the file that was found":
        put(journal, own.name, encode(a_record()))
    link, gone = os.link, {"the file that was found": [old], "the file that has its name": [own], "both": [old, own]}

    def settled_before(source: Any, target: Any) -> None:
        if lost == "the file that was found":
            old.unlink()
        try:
            link(source, target)
        except FileExistsError:
            for path in gone[lost]:
                path.unlink()
            raise

    monkeypatch.setattr(os, "link", settled_before)
    found = journal.load(Entry("old.json"))
    assert found == (a_record() if lost == "the file that has its name" else None)
    assert files(journal) == ({own.name} if found else set())
    assert not told


def test_two_files_under_each_others_names_are_neither_lost_nor_mixed_up(journal: Journal) -> None:
    put(journal, file_name("rsv_1"), encode(a_record("rsv_2", "key-2")))
    put(journal, file_name("rsv_2"), encode(a_record("rsv_1", "key-1")))
    for _ in range(3):
        settle_all(journal)
    left = [json.loads((Path(journal.directory) / name).read_bytes())["reservation_id"] for name in files(journal)]
    assert sorted(left) == ["rsv_1", "rsv_2"]


def test_a_broken_file_under_the_name_of_a_legacy_record_makes_way(journal: Journal, told: Told) -> None:
    put(journal, file_name("rsv_1"), b"broken")
    put(journal, "rsv_1.json", encode(a_record()))
    assert journal.load(Entry("rsv_1.json")) == a_record()
    assert told.kinds == ["quarantined"]


def test_the_records_of_a_read_only_journal_are_settled(journal: Journal, told: Told) -> None:
    put(journal, "rsv_1.json", encode(a_record()))
    with failing("link", errno.EROFS), failing("rename", errno.EROFS):
        assert journal.load(Entry("rsv_1.json")) == a_record()
    assert told.kinds == ["unreadable"]


def a_temporary_name(reservation_id: str) -> str:
    return f"{file_name(reservation_id)}.0a1b2c3d-17-0.tmp"


def test_a_complete_temporary_file_of_a_dead_writer_is_pending(journal: Journal) -> None:
    put(journal, a_temporary_name("rsv_1"), encode(a_record()))
    assert settle_all(journal) == [a_record()]
    assert files(journal) == set()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_the_spare_files_of_dead_writers_are_closed_again(journal: Journal) -> None:
    for number in range(3):
        put(journal, f"0a1b2c3d-17-{number}.spare", encode(a_record(f"rsv_{number}")))
    before = open_files(journal.directory)
    assert len(journal.pending()) == 3
    assert open_files(journal.directory) == before


def test_a_temporary_file_beside_its_record_goes(journal: Journal) -> None:
    journal.save(a_record())
    put(journal, a_temporary_name("rsv_1"), encode(a_record().to_event_mode()))
    assert settle_all(journal) == [a_record()]
    assert files(journal) == set()


def test_a_file_with_another_name_is_pending_if_another_process_frees_its_own(
    journal: Journal, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name was there when the file was to be renamed, and is free now."""
    put(journal, "v2-other.json", encode(a_record()))
    rename, refused = RecordFiles.rename, list[object]()

    def exists_once(files: RecordFiles, *names: Any) -> None:
        refused.append(names)
        if len(refused) == 1:
            raise FileExistsError
        rename(files, *names)

    monkeypatch.setattr(RecordFiles, "rename", exists_once)
    assert journal.load(Entry("v2-other.json")) == a_record()
    assert len(refused) == 2
    assert not told


@pytest.mark.parametrize("content", [b"", encode(a_record())[:-1], encode(a_record("another id"))])
def test_a_temporary_file_that_is_not_complete_goes(journal: Journal, content: bytes, told: Told) -> None:
    put(journal, a_temporary_name("rsv_1"), content)
    assert settle_all(journal) == []
    assert files(journal) == set()
    assert not told


def test_a_spare_file_in_which_a_dead_writer_has_written_a_record_is_pending(journal: Journal, told: Told) -> None:
    put(journal, "0a1b2c3d-17-0.spare", encode(a_record()))
    put(journal, "0a1b2c3d-17-1.spare", b"\0" + encode(a_record("rsv_2"))[1:])  # it was deleted
    assert settle_all(journal) == [a_record()]
    assert all_files(journal) == set()
    assert not told


def test_a_temporary_file_of_a_thread_of_this_process_is_left_to_it(
    journal: Journal, open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[str], set[str]]] = []
    replace = os.replace

    def scan_first(*args: Any) -> None:
        before = all_files(journal)
        journal.pending()
        seen.append((before, all_files(journal)))
        replace(*args)

    monkeypatch.setattr(os, "replace", scan_first)
    assert journal.save(a_record())
    (before, after) = seen[0]
    assert before == after != set()
    assert len(seen) == 1


@pytest.mark.parametrize("form", ["{record}.{writer}-0.tmp", "{writer}-0.spare"])
@pytest.mark.parametrize("pid", ["2", "{own}0"])
def test_what_a_forked_child_was_killed_over_is_pending(journal: Journal, form: str, pid: str) -> None:
    """Its token is that of its parent, and its process id may begin with that of its parent."""
    journal.save(a_record("first"))
    journal.delete(a_record("first"))
    (spare,) = all_files(journal)
    token, own, _ = spare.split("-")
    writer = f"{token}-{pid.format(own=own)}"
    put(journal, form.format(record=file_name("rsv_1"), writer=writer), encode(a_record()))
    assert journal.pending() == [file_name("rsv_1")]


def test_files_that_are_not_the_journals_are_left_alone(journal: Journal) -> None:
    mine = {"notes.txt", "x.tmp", f"{file_name('r')}.99.abcd1234.tmp", f"{file_name('r')}.corrupt"}
    for name in mine:
        put(journal, name, b"mine")
    assert settle_all(journal) == []
    assert files(journal) == mine


def test_entries_are_light(journal: Journal) -> None:
    """10,000 of them take less than 3 MB."""
    import tracemalloc

    folder = Path(journal.directory)
    folder.mkdir(parents=True)
    for number in range(1_000):
        os.close(os.open(folder / file_name(str(number)), os.O_CREAT | os.O_WRONLY, 0o600))
    tracemalloc.start()
    entries = journal.pending()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(entries) == 1_000
    assert held < 300 * len(entries)
    assert peak < 600 * len(entries)


def test_a_record_that_names_no_server_belongs_to_the_partition_it_lies_in(journal: Journal) -> None:
    journal.save(a_record(base_url=""))
    assert settle_all(journal) == [a_record(base_url="")]


@pytest.mark.parametrize("is_rejected", [False, True])
def test_an_excess_that_is_rejected_again_keeps_the_members_of_a_newer_version(
    journal: Journal, is_rejected: bool
) -> None:
    """A disk kept its record, a newer version added to it, and the record of the commit is settled once more."""
    excess = a_record("rsv_1:excess", rejected="BUDGET_EXCEEDED")
    newer = evolve(excess, extra={"settled_by": {"version": "9.1"}})
    assert journal.save(newer)
    if is_rejected:
        journal.reject(newer, "BUDGET_EXCEEDED")
    journal.reject(excess, "BUDGET_EXCEEDED")
    assert journal.rejected() == [(newer, "BUDGET_EXCEEDED")]
    assert journal.pending() == []


@pytest.mark.parametrize(
    ("of_record", "of_client", "is_ours"),
    [
        ("http://h", "http://h", True),
        ("http://h/", "http://h", True),
        ("http://h", "http://h/", True),
        ("", "http://h", True),
        ("http://other", "http://h", False),
        ("http://h/v1", "http://h", False),
    ],
)
def test_a_record_belongs_to_its_server(
    open_journal: Callable[..., Journal], told: Told, tmp_path: Path, of_record: str, of_client: str, is_ours: bool
) -> None:
    journal = open_journal(base_url=of_client)
    record = a_record(base_url=of_record)
    path = put(journal, file_name("rsv_1"), encode(record))
    for _ in range(2):
        assert [journal.load(entry) for entry in journal.pending()] == [record if is_ours else None]
    message = (
        f"{path} belongs to {of_record}, not to {of_client}; it is unchanged; move it to the journal directory of a"
        " client of that server"
    )
    assert [(issue.kind, issue.message) for issue in told] == [("foreign", message)] * (not is_ours)
    journal.save(record)
    journal.reject(record, "no budget")
    assert [reason for _, reason in journal.rejected()] == ["no budget"] * is_ours


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space there"),
        (errno.EDQUOT, "free some space there"),
        (errno.EROFS, "make it writable"),
    ],
)
def test_a_journal_that_cannot_be_written_says_what_to_do(
    journal: Journal, told: Told, number: int, advice: str
) -> None:
    for _ in range(2):
        with failing("replace", number):
            assert not journal.save(a_record())
            assert not journal.save(a_record("rsv_2"))
        assert told.kinds == ["unwritable"]
        told.clear()
        assert journal.save(a_record())  # the next failure is a new one
    with failing("replace", number):
        journal.save(a_record("rsv_2"))
    problem = f"[Errno {number}] {os.strerror(number)}: "
    begin = f"the settlement journal cannot be written in {journal.directory}/ ({problem}"
    assert told[0].message.startswith(begin)
    assert told[0].message.endswith(
        "); settlements are sent anyway, but one that is unfinished when this process dies is lost; "
        f"{advice}, or set journal_dir (CYCLES_JOURNAL_DIR)"
    )


def test_a_finished_record_that_cannot_be_removed_says_what_follows(journal: Journal, told: Told) -> None:
    journal.save(a_record())
    journal.save(a_record("rsv_2"))
    with failing("replace", errno.EROFS), failing("unlink", errno.EROFS):
        journal.delete(a_record())
        journal.delete(a_record("rsv_2"))
    (issue,) = told
    assert issue.kind == "unreadable"
    assert issue.message.startswith("the records of finished settlements cannot be removed from the journal ([Errno ")
    assert issue.message.endswith(
        "); they are sent again at every start, which charges nothing twice; make the directory writable for this user"
    )


def test_a_file_that_cannot_be_read_says_that_it_stays(journal: Journal, told: Told) -> None:
    path = put(journal, file_name("rsv_1"), encode(a_record()))
    with failing("open", errno.EACCES):
        assert journal.load(Entry(file_name("rsv_1"))) is None
    (issue,) = told
    message = f"the settlement journal cannot use {path} ([Errno 13] Permission denied: '{path}')"
    assert (issue.kind, issue.message) == ("unreadable", f"{message}; it stays there and is not settled")


@pytest.mark.parametrize(("other", "kept"), [("key-1", 0), ("another", 1)])
@pytest.mark.parametrize(
    "changes",
    [{}, {"event_fallback_body": None}, {"commit_body": None, "mode": "event"}],
    ids=["with its event", "without an event", "an event"],
)
def test_an_old_file_of_a_reservation_that_has_its_own_goes_or_is_quarantined(
    journal: Journal, told: Told, changes: dict[str, Any], other: str, kept: int
) -> None:
    journal.save(a_record(**changes))
    put(journal, "old.json", encode(a_record(key=other, **changes)))
    assert journal.load(Entry("old.json")) is None
    assert file_name("rsv_1") in files(journal)
    assert (len(files(journal)), told.kinds, journal.quarantined) == (1 + kept, ["quarantined"] * kept, kept)
    reason = "another settlement of the same reservation is already there"
    assert [reason in issue.message for issue in told] == [True] * kept


def test_what_cannot_be_read_hides_no_request_of_unknown_cost_and_no_rejected_record(journal: Journal) -> None:
    sent = Entry(file_name("rsv_2"))
    journal.save(a_record("rsv_2", sent=True))
    Path(journal.directory, file_name("rsv_1")).mkdir()
    assert journal.sent([Entry(file_name("rsv_1")), Entry(file_name("rsv_0")), sent]) == {sent}
    journal.reject(a_record("rsv_3"), "no budget")
    for content in (b"{}", b"[", b"[]", b"1"):
        put(journal, f"rejected/v2-{len(content) * '0'}{(64 - len(content)) * '0'}.json", content)
        assert [reason for _, reason in journal.rejected()] == ["no budget"]


def test_a_file_that_could_not_be_renamed_and_then_was_is_replaced_by_an_event(
    journal: Journal, open_journal: Callable[..., Journal]
) -> None:
    entry = Entry("v1-rsv_1.json")
    put(journal, entry, encode(a_record()))
    event = a_record().to_event_mode(5_000)
    with failing("link", errno.EROFS), failing("rename", errno.EROFS):
        assert journal.load(entry) == a_record()
    assert journal.keeps_commit(event)
    assert journal.load(entry) == a_record()
    assert journal.put(event) is PutResult.SAVED
