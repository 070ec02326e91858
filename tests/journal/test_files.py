"""The journal as users see it: private files that appear, disappear, and survive errors of the file system."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._core.settlement.record import encode, file_name
from cycles._journal.files.file_calls import make_private_folder, move_to_free_name, write_whole
from cycles._journal.files.locked_file import fcntl, is_supported, left, make_in
from cycles._journal.files.record_files import SpareFiles
from cycles._journal.files.spend import left_entries
from cycles._journal.journal import Entry, Journal, default_root
from cycles._journal.stores.memory import MemoryStore
from tests.journal.kit import (
    ROOT_USER,
    Told,
    a_record,
    all_files,
    failing,
    files,
    open_files,
    posix_only,
    put,
    settle_all,
)
from tests.support.points import run_at


def test_a_saved_settlement_is_there_for_the_next_process(
    journal: Journal, open_journal: Callable[..., Journal]
) -> None:
    assert journal.save(a_record())
    assert files(journal) == {file_name("rsv_1")}
    assert settle_all(open_journal()) == [a_record()]
    assert files(journal) == set()


def test_a_later_state_replaces_the_earlier_one(journal: Journal) -> None:
    journal.save(a_record())
    journal.save(a_record().to_event_mode())
    assert settle_all(journal) == [a_record().to_event_mode()]


def test_deleting_twice_or_a_record_that_was_never_saved_is_allowed(journal: Journal, told: Told) -> None:
    journal.delete(a_record())
    journal.save(a_record())
    journal.delete(a_record())
    journal.delete(a_record())
    assert not told


def test_reading_an_empty_journal_makes_no_directory(journal: Journal, tmp_path: Path) -> None:
    assert journal.pending() == []
    assert list(tmp_path.iterdir()) == []


def test_the_key_is_nowhere_in_the_journal(journal: Journal, tmp_path: Path) -> None:
    journal.save(a_record())
    assert not any("secret-key" in str(path) for path in tmp_path.rglob("*"))
    contents = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"reservation_id" in content for content in contents)
    assert not any(b"secret-key" in content for content in contents)
    assert "secret-key" not in repr(vars(journal))


def test_clients_of_another_server_or_principal_do_not_see_it(
    journal: Journal, open_journal: Callable[..., Journal]
) -> None:
    journal.save(a_record())
    assert open_journal(base_url="http://elsewhere").pending() == []
    assert open_journal(tenant="other").pending() == []
    assert open_journal(tenant=None).pending() == []
    assert len(open_journal(api_key="rotated").pending()) == 1


@posix_only
@pytest.mark.parametrize("durability", ["process", "disk"])
def test_directories_and_files_are_private(
    open_journal: Callable[..., Journal], tmp_path: Path, durability: str
) -> None:
    before = os.umask(0)
    try:
        journal = open_journal(tmp_path / "new" / "deep", durability=durability)
        journal.save(a_record())
    finally:
        os.umask(before)
    for folder in (tmp_path / "new", tmp_path / "new" / "deep", Path(journal.directory)):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (file,) = Path(journal.directory).iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@posix_only
def test_directories_that_were_there_keep_their_modes(open_journal: Callable[..., Journal], tmp_path: Path) -> None:
    root = tmp_path / "shared"
    root.mkdir()
    root.chmod(0o755)
    open_journal(root).save(a_record())
    assert stat.S_IMODE(root.stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ["with spaces", "日本語 é", "a'b\"c", "-rf"])
def test_any_path_is_accepted(open_journal: Callable[..., Journal], tmp_path: Path, name: str, told: Told) -> None:
    journal = open_journal(tmp_path / name)
    assert journal.save(a_record("rsv/../☃ 1"))
    assert settle_all(open_journal(tmp_path / name)) == [a_record("rsv/../☃ 1")]
    assert not told


def test_a_relative_root_is_fixed_when_it_is_first_used(
    open_journal: Callable[..., Journal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    journal = open_journal(Path("here"))
    journal.save(a_record())
    monkeypatch.chdir("/")
    journal.delete(a_record())
    assert files(journal) == set()
    assert Path(journal.directory).parent == tmp_path / "here"


def test_a_journal_directory_removed_under_a_running_client_is_made_again(journal: Journal, told: Told) -> None:
    journal.save(a_record())
    (Path(journal.directory) / file_name("rsv_1")).unlink()
    Path(journal.directory).rmdir()
    assert journal.save(a_record())
    assert files(journal) == {file_name("rsv_1")}
    assert not told


# Problems of the file system


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.EDQUOT, errno.EMFILE])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "close", "replace", "mkdir"])
def test_a_failing_write_is_reported_once_and_leaves_no_file(
    open_journal: Callable[..., Journal], told: Told, call: str, number: int
) -> None:
    journal = open_journal(durability="disk")
    if call != "mkdir":
        journal.save(a_record("earlier"))
    with failing(call, number) as calls:
        assert not journal.save(a_record())
        assert not journal.save(a_record("rsv_2"))
        assert calls[0] >= 2
    assert told.kinds == ["unwritable"]
    assert "journal_dir" in told[0].message
    if call == "mkdir":
        assert not Path(journal.directory).exists()
    else:
        # What was there stays, and no half-written file does.
        assert {name for name in files(journal) if name.endswith(".tmp")} == set()
        assert file_name("earlier") in files(journal)
    # It works again, and the next failure is news again.
    assert journal.save(a_record())
    with failing("open", number):
        assert not journal.save(a_record())
    assert told.kinds == ["unwritable", "unwritable"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="lists descriptors in /proc")
def test_a_file_that_cannot_be_used_is_not_left_open(journal: Journal) -> None:
    journal.save(a_record("earlier"))
    before = open_files(journal.directory)
    with failing("write", errno.ENOSPC):
        assert not journal.save(a_record())
    with put(journal, "0a1b2c3d-17-0.spare", encode(a_record())).open() as of_another_process:
        fcntl.flock(of_another_process, fcntl.LOCK_EX)
        assert len(list(journal.pending())) == 1
    for name, content in {"spend-0.log.new": b"", "spend-1.log": b"", "spend-2.log": b"of a newer version"}.items():
        put(journal, name, content)
    with left_entries(f"{journal.directory}/") as entries:
        assert entries == []
    assert open_files(journal.directory) == before
    assert len(before) == 1


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="lists descriptors in /proc")
@pytest.mark.parametrize("store", [None, MemoryStore()], ids=["alone", "beside a store"])
def test_a_closed_client_has_no_file_of_its_journal_open(tmp_path: Path, store: MemoryStore | None) -> None:
    with cycles.EmbeddedServer({"tenant:acme": cycles.tokens(100)}) as server:
        with server.client(journal_dir=tmp_path, journal_store=store) as client:
            with client.reserve(cycles.tokens(5), action=("a", "b")) as guard:
                guard.spend(cycles.tokens(3))
            assert open_files(tmp_path)
        assert server.spent("tenant:acme") == cycles.tokens(3)
    assert open_files(tmp_path) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_full_disk_keeps_the_earlier_state_of_a_record(journal: Journal, told: Told) -> None:
    journal.save(a_record())
    with failing("write", errno.ENOSPC):
        assert not journal.save(a_record().to_event_mode())
    assert settle_all(journal) == [a_record()]
    assert "free some space" in told[0].message.lower()


def test_short_writes_are_continued(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with monkeypatch.context() as during:
        during.setattr(os, "write", lambda handle, content: write(handle, content[:7]))
        assert journal.save(a_record())
    assert settle_all(journal) == [a_record()]


def test_short_writes_into_a_file_that_is_used_again_are_continued(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for record in (a_record("a"), a_record("b"), a_record("longer")):
        assert journal.save(record)
        assert settle_all(journal) == [record]
    write = os.write
    with monkeypatch.context() as during:
        during.setattr(os, "write", lambda handle, content: write(handle, content[:7]))
        assert journal.save(a_record("c"))
    assert settle_all(journal) == [a_record("c")]
    assert len(all_files(journal)) == 1, "one file for all of them"


@pytest.mark.parametrize(("durability", "count"), [("process", 0), ("disk", 2)])
def test_a_file_that_is_used_again_is_made_to_last(
    open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch, durability: str, count: int
) -> None:
    journal, fsync, calls = open_journal(durability=durability), os.fsync, list[bool]()
    journal.save(a_record("a"))
    journal.delete(a_record("a"))

    def noted(handle: int) -> None:
        calls.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    journal.save(a_record("b"))
    assert calls == [False, True][:count]


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EEXIST], ids=["taken away", "in use"])
@pytest.mark.parametrize("is_reused", [False, True], ids=["a new file", "a file that is used again"])
@pytest.mark.parametrize("call", ["replace", "open"])
def test_a_name_that_is_taken_away_or_in_use_once_is_written_again(
    journal: Journal, told: Told, call: str, is_reused: bool, number: int
) -> None:
    journal.save(a_record("earlier"))
    if is_reused:
        journal.delete(a_record("earlier"))
    with failing(call, number, only_call=1):
        assert journal.save(a_record())
    assert file_name("rsv_1") in files(journal)
    assert not told


@pytest.mark.skipif(not is_supported(), reason="needs file locks")
@pytest.mark.parametrize(("losses", "is_saved"), [(10, True), (15, False)])
def test_a_name_that_is_taken_away_again_and_again_is_written_three_times(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, losses: int, is_saved: bool
) -> None:
    """Each of the three tries makes its file up to five times."""
    journal.recover_spend()
    replace, calls = os.replace, []

    def lose(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) <= losses:
            raise FileNotFoundError(source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", lose)
    assert journal.save(a_record()) is is_saved
    assert len(calls) == min(losses + 1, 15)


@pytest.mark.skipif(not is_supported(), reason="needs file locks")
def test_a_start_that_locks_a_new_file_first_makes_it_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = fcntl.flock, list[int]()

    def locked_once(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise BlockingIOError
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", locked_once)
    file = make_in(f"{tmp_path}/", "spend-1.log", b"entry", sync=False)
    assert ([path.name for path in tmp_path.iterdir()], open_files(tmp_path)) == (["spend-1.log"], [file.path])
    file.close()


@pytest.mark.skipif(not is_supported(), reason="needs file locks")
@pytest.mark.parametrize("step", ["put into place", "put out of place", "interrupted"])
def test_a_record_whose_file_cannot_be_moved_is_in_no_other_file(
    journal: Journal, open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    journal.save(a_record("earlier"))
    if step == "put into place":
        journal.delete(a_record("earlier"))
        with failing("replace", errno.EROFS):
            assert not journal.save(a_record())
    else:
        if step == "interrupted":
            journal.delete(a_record("earlier"))

        def interrupt(*words: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as during, pytest.raises(KeyboardInterrupt):
            if step == "interrupted":
                during.setattr(os, "replace", interrupt)
                journal.save(a_record())
            during.setattr(os, "lseek", interrupt)
            journal.delete(a_record("earlier"))
    assert (open_journal().pending(), all_files(journal), open_files(journal.directory)) == ([], set(), [])


def test_a_record_that_json_cannot_express_is_reported_and_not_written(journal: Journal, told: Told) -> None:
    assert not journal.save(a_record(commit_body={"metadata": float("nan")}))
    assert told.kinds == ["unwritable"]


def test_a_finished_settlement_that_cannot_be_removed_is_reported_once(journal: Journal, told: Told) -> None:
    journal.save(a_record())
    with failing("unlink", errno.EROFS):
        journal.delete(a_record())
        journal.delete(a_record("rsv_2"))
    assert told.kinds == ["unreadable"]
    assert "charges nothing twice" in told[0].message


def test_a_journal_that_cannot_be_listed_is_reported_once(journal: Journal, told: Told) -> None:
    journal.save(a_record())
    with failing("scandir", errno.EACCES):
        assert journal.pending() == []
        assert journal.pending() == []
    assert told.kinds == ["unreadable"]


def test_a_folder_that_cannot_be_read_leaves_it_unknown_what_an_earlier_process_left(journal: Journal) -> None:
    journal.save(a_record())
    assert (len(journal.pending()), journal.unread) == (1, False)
    with failing("scandir", errno.EACCES):
        assert journal.rejected() == []
        assert journal.recover_spend() == []
        assert not journal.unread
        assert journal.pending() == []
        assert journal.rejected() == []
    assert journal.unread


def test_a_file_that_cannot_be_read_stays_and_the_others_load(journal: Journal, told: Told) -> None:
    journal.save(a_record())
    (Path(journal.directory) / "folder.json").mkdir()
    assert settle_all(journal) == [a_record()]
    assert settle_all(journal) == []
    assert told.kinds == ["unreadable"]


def test_a_file_with_the_name_of_the_directory_is_reported(
    open_journal: Callable[..., Journal], tmp_path: Path, told: Told
) -> None:
    (tmp_path / "journal").write_text("in the way")
    journal = open_journal()
    assert not journal.save(a_record())
    assert journal.pending() == []
    assert told.kinds == ["unwritable"]


def test_a_journal_that_need_not_survive_a_power_loss_is_read_without_a_sync(
    journal: Journal, open_journal: Callable[..., Journal]
) -> None:
    journal.save(a_record())
    with failing("fsync", errno.EIO) as calls:
        assert len(open_journal().pending()) == 1
    assert calls == [0]


@pytest.mark.skipif(not is_supported(), reason="needs file locks")
def test_a_file_that_its_process_has_locked_is_not_left_open(tmp_path: Path) -> None:
    file = make_in(f"{tmp_path}/", "spend-1.log", b"entry", sync=False)
    assert stat.S_IMODE((tmp_path / "spend-1.log").stat().st_mode) == 0o600
    assert list(left(f"{tmp_path}/", "spend-")) == []
    assert open_files(tmp_path) == [file.path]
    file.close()
    (found,) = left(f"{tmp_path}/", "spend-")
    assert found.map()[:] == b"entry"
    found.close()
    (tmp_path / "spend-2.log.0a.new").write_bytes(b"entry")
    (tmp_path / "spend-3.log").write_bytes(b"")
    assert [each.path for each in left(f"{tmp_path}/", "spend-")] == [found.path]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spend-1.log", "spend-3.log"]


@pytest.mark.skipif(not is_supported(), reason="needs file locks")
@pytest.mark.parametrize(("sync", "synced"), [(False, []), (True, ["a folder", "a file", "a folder"])])
def test_a_locked_file_and_its_new_folder_survive_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sync: bool, synced: list[str]
) -> None:
    calls, fsync = list[str](), os.fsync

    def noted(handle: int) -> None:
        calls.append("a folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "a file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    make_in(f"{tmp_path}/new/", "spend-1.log", b"entry", sync=sync).close()
    assert calls == synced


@pytest.mark.skipif(not is_supported(), reason="needs file locks")
@pytest.mark.parametrize("call", ["write", "replace", "fsync"])
def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path: Path, call: str) -> None:
    with failing(call, errno.ENOSPC), pytest.raises(OSError, match="No space"):
        make_in(f"{tmp_path}/", "spend-1.log", b"entry", sync=True)
    assert (list(tmp_path.iterdir()), open_files(tmp_path)) == ([], [])


@pytest.mark.skipif(not is_supported(), reason="files are used again under file locks")
def test_only_so_many_files_are_open_whether_their_records_are_pending_or_settled(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles._journal.files.record_files.MOST_SPARES", 3)
    names = [f"rsv_{number}" for number in range(6)]
    for name in names:
        journal.save(a_record(name))
    assert len(open_files(journal.directory)) == 3
    for name in names:
        journal.delete(a_record(name))
    assert len(open_files(journal.directory)) == len(all_files(journal)) == 3
    for name in names:
        journal.save(a_record(name))
    assert len(open_files(journal.directory)) == 3
    assert len(settle_all(journal)) == 6


def test_rejected_records_leave_no_file_open(journal: Journal) -> None:
    for number in range(3):
        journal.reject(a_record(f"rsv_{number}"), "no budget")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in Path(journal.directory, "rejected").iterdir()]
    assert modes == [0o600 if os.name == "posix" else modes[0]] * 3
    journal.close()
    assert open_files(journal.directory) == []
    with failing("replace", errno.EROFS):
        journal.reject(a_record(), "no budget")
    assert open_files(journal.directory) == []
    assert len(journal.rejected()) == 3


def test_a_user_without_a_home_gets_a_report_and_continues(
    open_journal: Callable[..., Journal], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_STATE_HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", os.fspath)  # what it does where the user is unknown
    journal = open_journal(Path("~/journal"))
    assert not journal.save(a_record())
    assert journal.pending() == []
    assert journal.load(Entry("v2-any.json")) is None
    journal.delete(a_record())
    assert told.kinds == ["unwritable"]
    assert "home" in told[0].message
    assert not Path("~").exists()


def test_the_default_place_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root().name == "journal"
    assert tmp_path in default_root().parents


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may pass through; pytest keeps its own to their owner."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.skipif(not ROOT_USER, reason="only root can become another user")
@pytest.mark.parametrize(("mode", "kind"), [(0o700, "unwritable"), (0o555, "unwritable"), (0o777, None)])
def test_a_directory_of_another_user(open_folder: Path, mode: int, kind: str | None) -> None:
    """It is used if possible, else reported once, and its modes stay. Runs as user `nobody` in a separate process."""
    root = open_folder / "theirs"
    root.mkdir()
    root.chmod(mode)
    program = (
        "import os, sys; from pathlib import Path; from cycles._core.settlement.record import Record;"
        "from cycles._journal.journal import Journal; os.setgid(65534); os.setuid(65534);"
        "j = Journal(Path(sys.argv[1]), base_url='b', tenant='t', api_key='k', report=lambda p: print(p.kind));"
        "r = Record(reservation_id='r', base_url='b', commit_body={'idempotency_key': 'k'});"
        "j.save(r); j.save(r); j.delete(r)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True, check=True)
    told = done.stdout.split()
    assert told[:1] == ([kind] if kind else [])
    assert told.count("unwritable") == (1 if kind else 0)
    assert stat.S_IMODE(root.stat().st_mode) == mode


def test_a_record_that_is_saved_after_the_close_leaves_no_file(journal: Journal) -> None:
    journal.save(a_record("before"))
    journal.close()
    journal.save(a_record("after"))
    for name in ("before", "after"):
        journal.delete(a_record(name))
    assert all_files(journal) == set()


def test_a_record_that_is_deleted_during_the_close_leaves_no_file(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The close comes after the file has got its other name."""
    journal.save(a_record())
    usual = os.stat

    def close_before(path: Any, **options: Any) -> os.stat_result:
        monkeypatch.undo()
        journal.close()
        return usual(path, **options)

    monkeypatch.setattr(os, "stat", close_before)
    journal.delete(a_record())
    assert os.stat is usual
    assert all_files(journal) == set()


def test_a_record_that_is_saved_during_the_close_leaves_no_file_open(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = os.replace

    def close_before(source: str, target: str) -> None:
        monkeypatch.undo()
        journal.close()
        usual(source, target)

    monkeypatch.setattr(os, "replace", close_before)
    assert journal.save(a_record())
    assert (files(journal), open_files(journal.directory)) == ({file_name("rsv_1")}, [])


def test_a_close_at_any_point_of_a_record_leaves_no_file(tmp_path: Path) -> None:
    def use() -> None:
        path = f"{tmp_path}/record"
        if spares.write(f"{tmp_path}/", path, b"{}") and not spares.remove(path):
            Path(path).unlink()

    for number in itertools.count():
        spares = SpareFiles(lambda: "1-1", sync=False)
        use()
        if not run_at("/cycles/_journal/files/record_files", number, spares.close, use):
            break
        assert (open_files(tmp_path), list(tmp_path.iterdir())) == ([], []), number
    assert number > 20
    spares.close()


def test_an_interrupt_at_any_point_of_a_record_leaves_all_of_it_or_nothing(tmp_path: Path) -> None:
    """And says nothing: what a destructor raises fails this test."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    path, seen, is_reached = tmp_path / "record", set[str](), True
    for number in itertools.count():
        spares = SpareFiles(lambda: "1-1", sync=False)
        write = partial(spares.write, f"{tmp_path}/", str(path), b"{}")
        with contextlib.suppress(KeyboardInterrupt):
            is_reached = run_at("/cycles/_journal/files/record_files", number, interrupt, write)
        spares.close()
        seen.add(path.read_text() if path.exists() else "nothing")
        path.unlink(missing_ok=True)
        if not is_reached:
            break
    assert (number > 10, seen) == (True, {"nothing", "{}"})


def test_a_file_is_used_again_for_records_of_any_length(
    journal: Journal, open_journal: Callable[..., Journal], told: Told
) -> None:
    """The end of a longer record would stay behind a shorter one."""
    for length in (5, 200, 100, 150, 1):
        record = a_record("r" * length)
        assert journal.save(record)
        reader = open_journal()
        assert [reader.load(entry) for entry in reader.pending()] == [record]
        journal.delete(record)
    assert told == []


@pytest.mark.parametrize(
    ("durability", "expected"),
    [("process", ["write", "replace"]), ("disk", ["write", "fsync file", "replace", "fsync folder"])],
)
def test_on_disk_the_content_comes_before_the_name_and_the_name_before_the_request(
    open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch, durability: str, expected: list[str]
) -> None:
    journal = open_journal(durability=durability)
    journal.save(a_record())
    calls: list[str] = []
    for name in ("write", "replace", "fsync"):
        real = getattr(os, name)

        def call(*args: Any, name: str = name, real: Any = real) -> Any:
            is_folder = name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode)
            calls.append(name if name != "fsync" else f"fsync {'folder' if is_folder else 'file'}")
            return real(*args)

        monkeypatch.setattr(os, name, call)
    journal.save(a_record())
    monkeypatch.undo()
    assert calls == expected


@posix_only
def test_new_directories_are_made_to_last_too(
    open_journal: Callable[..., Journal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr("cycles._journal.files.file_calls.sync_folder", synced.append)
    open_journal(tmp_path / "new", durability="disk").save(a_record())
    assert synced[:2] == [str(tmp_path), str(tmp_path / "new")]


@posix_only
def test_the_name_of_a_rejected_record_is_made_to_last_in_its_own_folder(
    open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal(durability="disk")
    journal.save(a_record())
    synced: list[str] = []
    for module in ("file_calls", "record_files"):
        monkeypatch.setattr(f"cycles._journal.files.{module}.sync_folder", lambda path: synced.append(path.rstrip("/")))
    journal.reject(a_record(), "no")
    folder = journal.directory
    assert synced == [folder, folder, f"{folder}/rejected"], "the record, the new folder, the rejected record"
    assert [reason for _, reason in journal.rejected()] == ["no"]


@posix_only
def test_a_name_that_a_dead_writer_left_is_made_to_last_before_it_is_sent(
    open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, synced = open_journal(durability="disk"), list[str]()
    journal.save(a_record("renamed"))
    monkeypatch.setattr("cycles._journal.files.record_files.sync_folder", synced.append)
    assert journal.pending() == [file_name("renamed")]
    assert [path.rstrip("/") for path in synced] == [journal.directory]


@posix_only
@pytest.mark.parametrize(("durability", "count"), [("process", 0), ("disk", 2)])
def test_what_a_dead_writer_left_is_made_to_last_before_it_is_sent(
    open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch, durability: str, count: int
) -> None:
    """It may have died between the rename of the file and the fsync of the folder."""
    journal = open_journal(durability=durability)
    journal.save(a_record("renamed"))
    name = file_name("temporary")
    put(journal, f"{name}.0badcafe-1-0.tmp", encode(a_record("temporary")))
    synced: list[str] = []
    monkeypatch.setattr("cycles._journal.files.record_files.sync_folder", synced.append)
    monkeypatch.setattr("cycles._journal.files.record_files.sync_file", synced.append)
    assert set(journal.pending()) == {name, file_name("renamed")}
    assert len(synced) == count
    assert [str(path).rstrip("/") for path in synced[-1:]] == [journal.directory][:count]


@posix_only
def test_a_rejected_record_that_is_removed_during_the_listing_hides_no_other(journal: Journal, told: Told) -> None:
    journal.reject(a_record(), "no budget")
    removed = Path(journal.directory) / "rejected" / f"v2-{'0' * 64}.json"  # the first one
    removed.symlink_to("nothing")
    assert journal.rejected() == [(a_record(), "no budget")]
    assert told == []


def test_a_file_system_without_hard_links_moves_a_file_and_replaces_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("ours")
    target.write_text("theirs")
    with pytest.raises(FileExistsError):
        move_to_free_name(str(source), str(target))
    assert (source.read_text(), target.read_text()) == ("ours", "theirs")
    target.unlink()
    move_to_free_name(str(source), str(target))
    assert (source.exists(), target.read_text()) == (False, "ours")


@pytest.mark.skipif(not is_supported(), reason="spend is written ahead under file locks")
def test_spend_of_a_dead_process_that_cannot_be_saved_waits_for_the_next_start(journal: Journal, told: Told) -> None:
    slot = journal.spend_log().open_slot()
    assert slot is not None
    assert slot.write(encode(a_record()))
    (log,) = Path(journal.directory).glob("spend-*.log")
    left = put(journal, "spend-left.log", log.read_bytes())  # without the lock of this process
    with failing("write", errno.ENOSPC):
        assert journal.recover_spend() == []
    assert told.kinds == ["unwritable", "unreadable"]
    assert left.exists()
    assert journal.recover_spend() == [a_record()]
    assert not left.exists()
    assert settle_all(journal) == [a_record()]


@pytest.mark.skipif(not is_supported(), reason="logs need file locks")
def test_a_name_survives_a_loss_of_power_with_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = list[bool](), os.fsync

    def note(handle: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    write_whole(f"{tmp_path}/a", f"{tmp_path}/a.tmp", b"1", sync=True)
    make_in(f"{tmp_path}/", "b", b"1", sync=True).remove()
    assert synced == [False, True] * 2


def test_two_processes_may_make_the_folder_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exists = Path.exists

    def make_after_the_look(path: Path) -> bool:
        found = exists(path)
        path.mkdir(parents=True, exist_ok=True)
        return found

    monkeypatch.setattr(Path, "exists", make_after_the_look)
    make_private_folder(f"{tmp_path}/new/deep/", sync=True)
    assert (tmp_path / "new" / "deep").is_dir()


@pytest.mark.parametrize("error", [KeyboardInterrupt, PermissionError])
def test_a_file_that_is_not_put_into_place_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(error):
        write_whole(f"{tmp_path}/a", f"{tmp_path}/a.tmp", b"1", sync=False)
    assert list(tmp_path.iterdir()) == []
