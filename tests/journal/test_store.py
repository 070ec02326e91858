"""The protocol of a journal store, and what the file store does for it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cycles._core.records import decode, encode, file_name
from cycles._journal.file_store import FileStore
from cycles._journal.journal import Journal
from cycles._journal.store import Claimed, JournalStore, Put, Stored, StoreError
from tests.journal.kit import BASE, Told, a_record, files, posix_only, put

A, B, C = (format(digit, "x") * 64 for digit in (1, 2, 3))


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path, lambda: "partition", sync=False)


@pytest.fixture
def other(tmp_path: Path) -> FileStore:
    """A second process on the same folder."""
    return FileStore(tmp_path, lambda: "partition", sync=False)


def test_bytes_are_returned_unchanged(store: FileStore) -> None:
    record = b'{"b": 1,\t"a": "\xc3\xa9"}\n'
    assert store.put([Put(A, record)]) == [True]
    assert store.list() == [Stored(A, record, 0, 0)]


def test_put_replaces_a_record(store: FileStore) -> None:
    store.put([Put(A, b"old"), Put(B, b"other")])
    store.put([Put(A, b"new")])
    assert {each.key: each.record for each in store.list()} == {A: b"new", B: b"other"}


def test_settle_deletes_and_ignores_unknown_keys(store: FileStore) -> None:
    store.put([Put(A, b"a")])
    store.settle([A, B])
    store.settle([A])
    assert store.list() == []


def test_a_claim_returns_each_record_of_another_process_once(store: FileStore, other: FileStore) -> None:
    other.put([Put(A, b"a"), Put(B, b"b")])
    store.put([Put(C, b"own")])
    first, second = store.claim(1, 30_000), store.claim(16, 30_000)
    assert sorted(first + second, key=lambda each: each.key) == [Claimed(A, b"a", 1), Claimed(B, b"b", 1)]
    assert store.claim(16, 30_000) == []


def test_a_put_with_a_fence_writes_only_what_is_claimed_here(store: FileStore, other: FileStore) -> None:
    other.put([Put(A, b"a")])
    assert store.put([Put(A, b"changed", fence=1)]) == [False]
    store.claim(1, 30_000)
    assert store.put([Put(A, b"changed", fence=1)]) == [True]
    other.settle([A])
    assert store.put([Put(A, b"late", fence=1)]) == [False]
    assert store.list() == []


def test_renew_returns_the_keys_that_no_longer_exist(store: FileStore) -> None:
    store.put([Put(A, b"a")])
    assert store.renew([A, B], 30_000) == [B]


def test_a_quarantined_record_is_kept_and_never_claimed(store: FileStore, other: FileStore) -> None:
    other.put([Put(A, b"a")])
    store.quarantine(A, "unreadable")
    assert store.claim(16, 30_000) == []
    (kept,) = Path(store.locate()).iterdir()
    assert kept.name.startswith(f"v2-{A}.json.")
    assert kept.suffix == ".quarantined"


def test_a_rejected_record_is_kept_with_its_reason_and_never_claimed(store: FileStore, other: FileStore) -> None:
    other.put([Put(A, encode(a_record()))])
    store.reject(A, "may_be_charged")
    assert store.claim(16, 30_000) == []
    assert store.list() == []
    kept = json.loads((Path(store.locate()) / "rejected" / f"v2-{A}.json").read_bytes())
    assert kept["reason"] == "may_be_charged"
    assert decode(json.dumps(kept["record"]).encode()) == a_record()


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    store = FileStore(tmp_path / "taken", lambda: "partition", sync=False)
    with pytest.raises(StoreError):
        store.put([Put(A, b"a")])


class MemoryStore(FileStore):
    """A store that keeps its records in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put(self, items: Sequence[Put]) -> list[bool]:
        self.kept.update((item.key, item.record) for item in items)
        return [True for _ in items]

    def settle(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.kept.pop(key, None)

    def list(self, limit: int = 1000) -> list[Stored]:
        return [Stored(key, record, 0, 0) for key, record in self.kept.items()]


def test_a_journal_keeps_its_records_in_the_store_that_it_is_given(
    open_journal: Callable[..., Journal], tmp_path: Path
) -> None:
    store: JournalStore = MemoryStore()
    journal = open_journal(store=store)
    assert journal.save(a_record())
    assert journal.inspect() == [a_record()]
    journal.delete(a_record())
    assert journal.inspect() == []
    assert list(tmp_path.iterdir()) == []


def test_inspect_returns_the_records_of_this_server_and_changes_nothing(journal: Journal, told: Told) -> None:
    journal.save(a_record())
    put(journal, file_name("rsv_bad"), b"no record")
    put(journal, file_name("rsv_2"), encode(a_record("rsv_2", base_url="http://elsewhere")))
    put(journal, f"{file_name('rsv_3')}.abc-1-1.tmp", encode(a_record("rsv_3")))
    before = files(journal)
    assert journal.inspect() == [a_record(base_url=BASE)]
    assert files(journal) == before
    assert told == []


@posix_only
def test_a_named_pipe_in_the_journal_blocks_neither_a_start_nor_the_other_records(journal: Journal, told: Told) -> None:
    journal.save(a_record())
    folder = Path(journal.directory)
    os.mkfifo(folder / file_name("rsv_pipe"))
    os.mkfifo(folder / f"{file_name('rsv_4')}.abc-1-1.tmp")
    loaded: list[object] = []
    start = threading.Thread(target=lambda: loaded.extend(map(journal.load, journal.pending())), daemon=True)
    start.start()
    start.join(60.0)
    assert sorted(loaded, key=bool) == [None, a_record()]
    assert told.kinds == ["unreadable"]
