"""The protocol of a journal store, and what the file store does for it."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from cycles._core.settlement.record import decode, encode, file_name
from cycles._journal.journal import Journal
from cycles._journal.stores.files import FileStore
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.store import Put, Stored, StoreError, settled_by_hand
from tests.journal.kit import Told, a_record, posix_only

A, B, C = (format(digit, "x") * 64 for digit in (1, 2, 3))


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path, lambda: "partition", sync=False)


@pytest.fixture
def other(tmp_path: Path) -> FileStore:
    """A second process on the same folder."""
    return FileStore(tmp_path, lambda: "partition", sync=False)


def test_a_put_compares_and_sets(store: FileStore, other: FileStore) -> None:
    record = b'{"b": 1,\t"a": "\xc3\xa9"}\n'
    (fence,) = store.put([Put(A, record)])
    assert fence is not None
    assert other.list() == [Stored(A, record, fence, 0)]
    assert other.put([Put(A, b"new")]) == [None]
    (following,) = other.put([Put(A, b"new", fence), Put(B, b"b", fence)])[:1]
    assert store.put([Put(A, b"late", fence)]) == [None]
    assert [(each.key, each.record) for each in store.list()] == [(A, b"new")]
    store.delete([(A, fence), (B, fence)])
    assert len(store.list()) == 1
    store.delete([(A, str(following))])
    assert store.list() == []


def test_a_take_returns_each_record_of_another_process_once(store: FileStore, other: FileStore) -> None:
    fences = other.put([Put(A, b"a"), Put(B, b"b")])
    store.put([Put(C, b"own")])
    taken = [*store.take(1, 30_000), *store.take(16, 30_000)]
    assert [(each.key, each.record) for each in taken] == [(A, b"a"), (B, b"b")]
    assert store.take(16, 30_000) == []
    assert other.put([Put(A, b"late", fences[0])]) == [None]
    assert other.renew([(A, str(fences[0])), (C, "another")], 30_000) == [A, C]
    assert store.put([Put(A, b"changed", taken[0].fence)]) != [None]


def test_a_quarantined_record_is_a_file_that_no_client_reads(store: FileStore, other: FileStore) -> None:
    (fence,) = other.put([Put(A, b"a")])
    assert store.put([Put(A, b"a", fence, 0, "quarantined")]) != [None]
    assert store.take(16, 30_000) == []
    (kept,) = Path(store.locate()).glob("v2-*")
    assert kept.name.startswith(f"v2-{A}.json.")
    assert kept.suffix == ".quarantined"
    (found,) = other.list("", 10, "quarantined")
    assert (found.key, found.record) == (A, b"a")
    assert other.put([Put(A, b"again", found.fence)]) != [None]
    assert [(each.key, each.record) for each in store.list()] == [(A, b"again")]
    assert store.list("", 10, "quarantined") == []


def test_a_rejected_record_is_kept_with_its_reason(store: FileStore, other: FileStore) -> None:
    key = file_name(a_record().reservation_id)[3:-5]
    (fence,) = other.put([Put(key, encode(a_record()))])
    record = evolve(a_record(), rejected="may_be_charged")
    assert store.put([Put(key, encode(record), fence, 0, "rejected")]) != [None]
    assert store.list() == []
    kept = json.loads((Path(store.locate()) / "rejected" / f"v2-{key}.json").read_bytes())
    assert kept["reason"] == "may_be_charged"
    assert decode(json.dumps(kept["record"]).encode()) == record


@pytest.mark.parametrize("kept", ["rejected", "quarantined"])
def test_a_kept_record_that_is_put_back_is_in_one_place(store: FileStore, kept: Any) -> None:
    (fence,) = store.put([Put(A, encode(a_record()), kept=kept)])
    (again,) = store.put([Put(A, encode(a_record()), fence)])
    assert [[each.key for each in store.list(kept=place)] for place in (None, kept)] == [[A], []]
    store.delete([(A, str(again))])
    assert store.get([A]) == [None]


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    store = FileStore(tmp_path / "taken", lambda: "partition", sync=False)
    with pytest.raises(StoreError):
        store.put([Put(A, b"a")])


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


def test_a_record_that_was_saved_again_hides_the_quarantined_one_of_its_key(store: FileStore) -> None:
    store.put([Put(A, b"old", kept="quarantined"), Put(B, b"other", kept="quarantined")])
    (Path(store.locate()) / f"v2-{A}.json").write_bytes(b"new")
    assert [(each.key, each.record) for each in store.list()] == [(A, b"new")]
    assert [(each.key, each.record) for each in store.list(kept="quarantined")] == [(B, b"other")]


def test_a_page_of_files_begins_after_a_key(store: FileStore) -> None:
    store.put([Put(key, b"r") for key in (C, A, B)])
    assert [[each.key for each in store.list(after, limit)] for after, limit in (("", 2), (A, 9), (B, 1), (C, 9))] == [
        [A, B],
        [B, C],
        [C],
        [],
    ]


def test_the_store_in_memory_has_the_clock_of_this_machine() -> None:
    store, before_ms = MemoryStore(), time.time_ns() // 1_000_000
    store.put([Put(A, b"r", due_ms=60_000)])
    (stored,) = store.list()
    assert before_ms + 60_000 <= stored.due_ms <= time.time_ns() // 1_000_000 + 60_000
    store.fails = "it is down"
    with pytest.raises(StoreError) as caught:
        store.get([A])
    assert str(caught.value) == "the store failed: it is down; set fails to None to end that"


def test_the_store_in_memory_quarantines_a_record_after_ten_takes() -> None:
    store = MemoryStore()
    store.put([Put(A, b"r")])
    assert [len(store.take(9, 0)) for _ in range(12)] == [1] * 10 + [0] * 2
    assert [each.key for each in store.list(kept="quarantined")] == [A]


def test_a_record_that_was_settled_by_hand_keeps_the_time_of_that_in_a_file(store: FileStore) -> None:
    before_ms = time.time_ns() // 1_000_000
    store.put([settled_by_hand(A, encode(evolve(a_record(), rejected="no budget")), -86_400_000)])
    kept = json.loads((Path(store.locate()) / "rejected" / f"v2-{A}.json").read_bytes())
    assert (kept["reason"], kept["record"]["settled"]) == ("no budget", 5)
    assert -1 <= kept["settled_at_ms"] - (before_ms - 86_400_000) < 60_000
