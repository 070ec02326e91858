"""The journal as users meet it: private files that appear, disappear, and survive whatever the file system does."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cycles._core.records import Record, encode, file_name
from cycles._edges.journal import Entry, Journal, JournalProblem, default_root

BASE = "http://localhost"
ROOT_USER = hasattr(os, "geteuid") and os.geteuid() == 0
posix_only = pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX")


def a_record(reservation_id: str = "rsv_1", key: str = "key-1", **changes: Any) -> Record:
    body = {"idempotency_key": key, "actual": {"unit": "TOKENS", "amount": 5}}
    fields = {"base_url": BASE, "commit_body": body, "event_fallback_body": body, "recorded_at_ms": 1_000, **changes}
    return Record(reservation_id=reservation_id, **fields)


class Told(list[JournalProblem]):
    """What the operator was told."""

    @property
    def kinds(self) -> list[str]:
        return [problem.kind for problem in self]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def open_journal(tmp_path: Path, told: Told) -> Callable[..., Journal]:
    def open_it(root: Path | None = None, **changes: Any) -> Journal:
        settings = {"base_url": BASE, "tenant": "acme", "api_key": "secret-key", "report": told.append, **changes}
        return Journal(root or tmp_path / "journal", **settings)

    return open_it


@pytest.fixture
def journal(open_journal: Callable[..., Journal]) -> Journal:
    return open_journal()


def files(journal: Journal) -> set[str]:
    return {path.name for path in Path(journal.directory).iterdir()}


def put(journal: Journal, name: str, content: bytes) -> Path:
    folder = Path(journal.directory)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def settle_all(journal: Journal) -> list[Record]:
    found = [record for entry in journal.pending() if (record := journal.load(entry)) is not None]
    for record in found:
        journal.forget(record)
    return found


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


def test_forgetting_twice_or_what_was_never_saved_is_fine(journal: Journal, told: Told) -> None:
    journal.forget(a_record())
    journal.save(a_record())
    journal.forget(a_record())
    journal.forget(a_record())
    assert not told


def test_reading_an_empty_journal_makes_no_directory(journal: Journal, tmp_path: Path) -> None:
    assert journal.pending() == []
    assert list(tmp_path.iterdir()) == []


def test_the_key_is_nowhere_in_the_journal(journal: Journal, tmp_path: Path) -> None:
    journal.save(a_record())
    for path in tmp_path.rglob("*"):
        assert "secret-key" not in str(path)
        assert path.is_dir() or b"secret-key" not in path.read_bytes()
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
def test_any_path_will_do(open_journal: Callable[..., Journal], tmp_path: Path, name: str, told: Told) -> None:
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
    journal.forget(a_record())
    assert files(journal) == set()
    assert Path(journal.directory).parent == tmp_path / "here"


def test_a_journal_directory_removed_under_a_running_client_comes_back(journal: Journal, told: Told) -> None:
    journal.save(a_record())
    (Path(journal.directory) / file_name("rsv_1")).unlink()
    Path(journal.directory).rmdir()
    assert journal.save(a_record())
    assert files(journal) == {file_name("rsv_1")}
    assert not told


# Problems of the file system


@contextlib.contextmanager
def failing(name: str, number: int, *, only_call: int | None = None) -> Iterator[list[int]]:
    """The operating system's call fails: each time, or the given time only. Counts the calls."""
    real, calls = getattr(os, name), [0]

    def fail(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if only_call in (None, calls[0]):
            if name == "close":
                real(*args)  # it is closed whatever it reports
            raise OSError(number, os.strerror(number), str(args[0]))
        return real(*args, **kwargs)

    patch = pytest.MonkeyPatch()
    with patch.context() as during:
        during.setattr(os, name, fail)
        yield calls


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.EDQUOT, errno.EMFILE])
@pytest.mark.parametrize("call", ["open", "write", "fsync", "close", "replace", "mkdir"])
def test_a_failing_write_is_told_once_and_leaves_nothing_behind(
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


@pytest.mark.parametrize("call", ["replace", "open"])
def test_a_name_taken_away_once_is_written_again(journal: Journal, told: Told, call: str) -> None:
    journal.save(a_record("earlier"))
    with failing(call, errno.ENOENT, only_call=1):
        assert journal.save(a_record())
    assert file_name("rsv_1") in files(journal)
    assert not told


def test_a_record_that_json_cannot_express_is_told_and_not_written(journal: Journal, told: Told) -> None:
    assert not journal.save(a_record(commit_body={"metadata": float("nan")}))
    assert told.kinds == ["unwritable"]


def test_a_finished_settlement_that_cannot_be_removed_is_told_once(journal: Journal, told: Told) -> None:
    journal.save(a_record())
    with failing("unlink", errno.EROFS):
        journal.forget(a_record())
        journal.forget(a_record("rsv_2"))
    assert told.kinds == ["unreadable"]
    assert "charges nothing twice" in told[0].message


def test_a_journal_that_cannot_be_listed_is_told_once(journal: Journal, told: Told) -> None:
    journal.save(a_record())
    with failing("scandir", errno.EACCES):
        assert journal.pending() == []
        assert journal.pending() == []
    assert told.kinds == ["unreadable"]


def test_a_file_that_cannot_be_read_stays_and_the_others_load(journal: Journal, told: Told) -> None:
    journal.save(a_record())
    (Path(journal.directory) / "folder.json").mkdir()
    assert settle_all(journal) == [a_record()]
    assert settle_all(journal) == []
    assert told.kinds == ["unreadable"]


def test_a_file_in_the_way_of_the_directory_is_told(
    open_journal: Callable[..., Journal], tmp_path: Path, told: Told
) -> None:
    (tmp_path / "journal").write_text("in the way")
    journal = open_journal()
    assert not journal.save(a_record())
    assert journal.pending() == []
    assert told.kinds == ["unwritable"]


def test_a_user_without_a_home_is_told_and_goes_on(
    open_journal: Callable[..., Journal], told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_STATE_HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", os.fspath)  # what it does where the user is unknown
    journal = open_journal(Path("~/journal"))
    assert not journal.save(a_record())
    assert journal.pending() == []
    assert journal.load(Entry("v2-any.json")) is None
    journal.forget(a_record())
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


@pytest.mark.skipif(not ROOT_USER, reason="only root can become somebody else")
@pytest.mark.parametrize(("mode", "kind"), [(0o700, "unwritable"), (0o555, "unwritable"), (0o777, None)])
def test_a_directory_of_another_user(open_folder: Path, mode: int, kind: str | None) -> None:
    """Used if it can be, told once if not, and its modes are not touched. Runs as `nobody` in a process of its own."""
    root = open_folder / "theirs"
    root.mkdir()
    root.chmod(mode)
    program = (
        "import os, sys; from pathlib import Path; from cycles._core.records import Record;"
        "from cycles._edges.journal import Journal; os.setgid(65534); os.setuid(65534);"
        "j = Journal(Path(sys.argv[1]), base_url='b', tenant='t', api_key='k', report=lambda p: print(p.kind));"
        "r = Record(reservation_id='r', base_url='b', commit_body={'idempotency_key': 'k'});"
        "j.save(r); j.save(r); j.forget(r)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True, check=True)
    told = done.stdout.split()
    assert told[:1] == ([kind] if kind else [])
    assert told.count("unwritable") == (1 if kind else 0)
    assert stat.S_IMODE(root.stat().st_mode) == mode


# What a start finds


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b'{"version": 2, "reservation_id": "r"}', b"\xff\xfe", encode(a_record())[:-9]],
)
def test_what_is_no_record_is_renamed_kept_and_told_and_the_rest_loads(
    journal: Journal, told: Told, content: bytes
) -> None:
    journal.save(a_record())
    put(journal, file_name("rsv_bad"), content)
    assert settle_all(journal) == [a_record()]
    assert told.kinds == ["quarantined"]
    (kept,) = files(journal)
    assert (Path(journal.directory) / kept).read_bytes() == content
    assert str(told[0].path).endswith(kept)
    assert settle_all(journal) == []
    assert told.kinds == ["quarantined"]


def test_two_quarantined_files_of_one_name_are_both_kept(journal: Journal) -> None:
    for content in (b"one", b"two"):
        put(journal, file_name("rsv_bad"), content)
        settle_all(journal)
    folder = Path(journal.directory)
    assert sorted((folder / name).read_bytes() for name in files(journal)) == [b"one", b"two"]


def test_a_quarantine_that_cannot_be_made_is_told_once(journal: Journal, told: Told) -> None:
    put(journal, file_name("rsv_bad"), b"?")
    with failing("replace", errno.EROFS):
        assert settle_all(journal) == []
        assert settle_all(journal) == []
    assert told.kinds == ["unreadable"]


def test_an_entry_that_another_process_settled_meanwhile_is_nothing(journal: Journal, told: Told) -> None:
    journal.save(a_record())
    (entry,) = journal.pending()
    journal.forget(a_record())
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


def test_a_read_only_journal_is_settled_from_where_it_is(journal: Journal, told: Told) -> None:
    put(journal, "rsv_1.json", encode(a_record()))
    with failing("link", errno.EROFS), failing("rename", errno.EROFS):
        assert journal.load(Entry("rsv_1.json")) == a_record()
    assert told.kinds == ["unreadable"]


def a_temporary_name(reservation_id: str) -> str:
    return f"{file_name(reservation_id)}.0a1b2c3d-17-0.tmp"


def test_a_complete_temporary_file_of_a_dead_writer_is_owed(journal: Journal) -> None:
    put(journal, a_temporary_name("rsv_1"), encode(a_record()))
    assert settle_all(journal) == [a_record()]
    assert files(journal) == set()


def test_a_temporary_file_beside_its_record_goes(journal: Journal) -> None:
    journal.save(a_record())
    put(journal, a_temporary_name("rsv_1"), encode(a_record().to_event_mode()))
    assert settle_all(journal) == [a_record()]
    assert files(journal) == set()


@pytest.mark.parametrize("content", [b"", encode(a_record())[:-1], encode(a_record("another id"))])
def test_a_temporary_file_that_is_not_complete_goes(journal: Journal, content: bytes, told: Told) -> None:
    put(journal, a_temporary_name("rsv_1"), content)
    assert settle_all(journal) == []
    assert files(journal) == set()
    assert not told


def test_a_temporary_file_of_a_thread_of_this_process_is_left_to_it(
    journal: Journal, open_journal: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[str], set[str]]] = []
    replace = os.replace

    def scan_first(*args: Any) -> None:
        before = files(journal)
        journal.pending()
        seen.append((before, files(journal)))
        replace(*args)

    monkeypatch.setattr(os, "replace", scan_first)
    assert journal.save(a_record())
    (before, after) = seen[0]
    assert before == after != set()
    assert len(seen) == 1


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
    monkeypatch.setattr("cycles._edges.files.sync_folder", synced.append)
    open_journal(tmp_path / "new", durability="disk").save(a_record())
    assert synced[:2] == [str(tmp_path), str(tmp_path / "new")]
