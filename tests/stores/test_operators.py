"""What an operator does with the records of stores and journals: looks, replaces one, moves all."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._core.pool.sums import Totals
from cycles._core.settlement.lifecycle import RECOVERED_ID
from cycles._core.settlement.record import Record, decode, encode, file_name
from cycles._journal.files.locked_file import is_supported
from cycles._journal.operators.inspect_store import StoreView, files_of, is_url, move_files_into, move_store_into
from cycles._journal.stores.files import FileStore
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.shared import key_of
from cycles._journal.stores.store import Put, settled_by_hand
from tests.journal.kit import a_record, failing, posix_only, spend_file, write_log

DAY_MS = 86_400_000
OWNER = "0123456789abcdef"
KEY = key_of("rsv_1")
RAW = encode(a_record())


class Noted(MemoryStore):
    """A store that says how often it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def store() -> Noted:
    return Noted()


@pytest.fixture
def view(store: Noted) -> StoreView:
    return StoreView(store, "redis://host")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def rejected(record: Record, reason: str = "no budget") -> bytes:
    return encode(evolve(record, rejected=reason))


@pytest.mark.parametrize(
    ("put", "state", "reason"),
    [
        (Put(KEY, RAW), "pending", None),
        (Put(KEY, encode(a_record(sent=True))), "sent", None),
        (Put(KEY, rejected(a_record()), kept="rejected"), "rejected", "no budget"),
        (Put(KEY, RAW, kept="rejected"), "rejected", "rejected"),
        (
            Put(KEY, RAW, kept="quarantined"),
            "quarantined",
            "poison: taken 10 times, and no attempt ended; or discarded by hand",
        ),
    ],
)
def test_a_record_of_a_store_has_a_state_and_a_reason(
    view: StoreView, store: Noted, put: Put, state: str, reason: str | None
) -> None:
    store.put([put])
    (entry,) = view.records()
    assert (entry.id, entry.state, entry.reason, entry.path) == (KEY, state, reason, f"redis://host#{KEY}")
    assert (entry.settled_at_ms, entry.reservation_id, entry.amount) == (None, "rsv_1", cycles.tokens(5))


def test_a_record_that_cannot_be_read_says_why(view: StoreView, store: Noted) -> None:
    store.put([Put("a" * 64, b"{", kept="quarantined"), Put("b" * 64, b"{")])
    first, second = view.records()
    assert first.state == second.state == "quarantined"
    assert first.reason == second.reason
    assert first.reason
    assert "poison" not in first.reason


def test_the_mark_of_what_is_settled_is_listed_only_if_it_was_rejected(view: StoreView, store: Noted) -> None:
    at_ms = now_ms()
    store.put(
        [settled_by_hand(KEY, rejected(a_record()), -DAY_MS), Put("a" * 64, encode(a_record("rsv_2", settled=5)))]
    )
    (entry,) = view.records()
    assert (entry.id, entry.state, entry.reason) == (KEY, "rejected", "no budget")
    assert entry.settled_at_ms is not None
    assert -DAY_MS <= entry.settled_at_ms - at_ms < -DAY_MS + 60_000


def test_records_are_listed_with_the_oldest_first(view: StoreView, store: Noted) -> None:
    for number, recorded_at_ms in enumerate((5, 3, 3)):
        record = a_record(f"rsv_{number}", recorded_at_ms=recorded_at_ms)
        store.put([Put(format(9 - number, "x") * 64, encode(record), kept="rejected" if number == 2 else None)])
    store.put([Put("f" * 64, b"{")])
    assert [entry.id[0] for entry in view.records()] == ["f", "7", "8", "9"]


def test_a_discarded_record_is_quarantined_and_one_that_is_kept_is_deleted(view: StoreView, store: Noted) -> None:
    store.put([Put(KEY, RAW)])
    (entry,) = view.records()
    assert view.discard(entry) == "quarantined in redis://host"
    ((kept, record),) = [(each.kept, each.record) for each in store.list(kept="quarantined")]
    assert (kept, record, store.list()) == ("quarantined", RAW, [])
    (entry,) = view.records()
    view.requeue(entry)
    assert ([each.record for each in store.list()], store.list(kept="quarantined")) == ([RAW], [])
    assert [each.key for each in store.take(9, 0)] == [KEY], "it is due now"
    (entry,) = view.records()
    view.discard(entry)
    assert view.discard(evolve(entry, state="quarantined")) == "deleted from redis://host"
    store.put([Put(KEY, RAW, kept="rejected")])
    (entry,) = view.records()
    assert view.discard(entry) == "deleted from redis://host"
    assert view.records() == []
    view.close()
    assert store.closed == 1


def test_a_rejected_record_is_put_back_and_kept_for_30_days_once_it_is_settled(view: StoreView, store: Noted) -> None:
    store.put([Put(KEY, rejected(a_record()), kept="rejected")])
    (entry,) = view.records()
    view.put_rejected_back(a_record())
    (stored,) = store.list()
    assert (stored.record, stored.kept) == (RAW, None)
    store.delete([(KEY, stored.fence)])
    at_ms = now_ms()
    view.mark_settled(entry)
    (stored,) = store.list()
    assert 30 * DAY_MS <= stored.due_ms - at_ms < 30 * DAY_MS + 60_000
    assert (decode(stored.record).settled, decode(stored.record).rejected) == (5, "no budget")


@pytest.mark.parametrize("kept", ["rejected", "quarantined"])
def test_what_was_put_back_while_the_operator_looked_is_not_discarded(view: StoreView, store: Noted, kept: Any) -> None:
    store.put([Put(KEY, RAW, kept=kept)])
    (entry,) = view.records()
    view.put_rejected_back(a_record()) if kept == "rejected" else view.requeue(entry)
    with pytest.raises(cycles.StoreError, match="is settled, deleted or pending; list the journal again"):
        view.discard(entry)
    assert [(each.record, each.kept) for each in store.list()] == [(RAW, None)]


def test_an_amount_that_was_settled_by_hand_can_be_discarded(view: StoreView, store: Noted) -> None:
    store.put([Put(KEY, rejected(a_record()), kept="rejected")])
    (entry,) = view.records()
    store.delete([(KEY, each.fence) for each in store.list(kept="rejected")])
    view.mark_settled(entry)
    (settled,) = view.records()
    assert (view.discard(settled), view.records()) == ("deleted from redis://host", [])


@pytest.mark.parametrize("kept", [None, "rejected", "quarantined", "none"])
def test_a_record_in_another_state_is_named(view: StoreView, store: Noted, kept: Any) -> None:
    store.put([Put(KEY, RAW, kept="rejected")])
    (entry,) = view.records()
    (stored,) = store.list(kept="rejected")
    if kept == "none":
        store.delete([(KEY, stored.fence)])
    else:
        store.put([Put(KEY, RAW, stored.fence, kept=kept)])
    message = f"record {KEY[:12]} is settled, deleted or pending; list the journal again"
    calls: dict[str, Callable[[], object]] = {
        "quarantined": lambda: view.requeue(entry),
        "rejected": lambda: view.put_rejected_back(a_record()),
        "any": lambda: view.discard(entry),
    }
    for wanted, call in calls.items():
        if kept != "none" and wanted in ("any", kept):
            continue
        with pytest.raises(cycles.StoreError) as caught:
            call()
        assert str(caught.value) == message


def test_a_record_that_changes_at_the_same_moment_is_named(
    view: StoreView, store: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put([Put(KEY, RAW)])
    (entry,) = view.records()
    monkeypatch.setattr(store, "put", lambda items: [None])
    with pytest.raises(cycles.StoreError) as caught:
        view.discard(entry)
    assert str(caught.value) == f"record {KEY[:12]} was changed by a client at this moment; try again"


def folder_in(root: Path) -> Path:
    folder = root / OWNER
    (folder / "rejected").mkdir(parents=True)
    return folder


def moved(source: Path, store: MemoryStore) -> tuple[int, int]:
    return move_files_into(store.bind, source)


def test_all_records_of_a_journal_move_with_their_state(tmp_path: Path, store: Noted) -> None:
    folder = folder_in(tmp_path)
    names = [file_name(f"rsv_{number}") for number in range(5)]
    (folder / names[0]).write_bytes(encode(a_record("rsv_0")))
    (folder / f"{names[1]}.a-1-2.quarantined").write_bytes(b"{")
    reason = {"reason": "no budget", "record": json.loads(encode(a_record("rsv_2")))}
    (folder / "rejected" / names[2]).write_bytes(json.dumps(reason).encode())
    at_ms = now_ms()
    reason = {"reason": "x", "record": json.loads(encode(a_record("rsv_3"))), "settled_at_ms": at_ms - DAY_MS}
    (folder / "rejected" / names[3]).write_bytes(json.dumps(reason).encode())
    (folder / f"{names[4]}.a-1-2.tmp").write_bytes(encode(a_record("rsv_4")))
    assert moved(tmp_path, store) == (4, 1)
    bound = store.bind(OWNER)
    (pending, settled) = sorted(bound.list(), key=lambda each: each.due_ms)
    assert (pending.key, pending.record) == (names[0][3:-5], encode(a_record("rsv_0")))
    assert settled.key == names[3][3:-5]
    assert 29 * DAY_MS - 60_000 <= settled.due_ms - at_ms < 29 * DAY_MS + 60_000
    (quarantined,) = bound.list(kept="quarantined")
    assert (quarantined.key, quarantined.record) == (names[1][3:-5], b"{")
    (kept,) = bound.list(kept="rejected")
    assert (kept.key, kept.record) == (names[2][3:-5], rejected(a_record("rsv_2")))
    assert [path.name for path in folder.rglob("*") if path.is_file()] == [f"{names[4]}.a-1-2.tmp"]


@pytest.mark.parametrize(
    ("name", "content", "is_moved"),
    [
        ("old.json", RAW, True),
        ("old.json", b"{}", False),
        (file_name("rsv_1"), b'{"a":"\xc3\xa9"}', False),
        (file_name("rsv_1"), b'{"a":"\0"}', False),
        (file_name("rsv_1"), b"{", True),
    ],
)
@pytest.mark.parametrize("into_files", [True, False])
def test_what_a_store_may_not_keep_stays(
    tmp_path: Path, store: Noted, name: str, content: bytes, is_moved: bool, into_files: bool
) -> None:
    folder = folder_in(tmp_path / "source")
    (folder / name).write_bytes(content)
    is_moved = is_moved or (into_files and name != "old.json")
    target = (lambda owner: files_of(tmp_path / "target", owner)) if into_files else store.bind
    assert move_files_into(target, tmp_path / "source") == (is_moved, not is_moved)
    assert (folder / name).exists() is not is_moved


@pytest.mark.parametrize("same", [True, False])
def test_a_record_moves_if_the_store_has_the_same_bytes(tmp_path: Path, store: Noted, same: bool) -> None:
    folder = folder_in(tmp_path)
    (folder / file_name("rsv_1")).write_bytes(RAW)
    store.bind(OWNER).put([Put(KEY, RAW if same else encode(a_record(not_before_ms=1)))])
    assert moved(tmp_path, store) == (same, not same)
    assert (folder / file_name("rsv_1")).exists() is not same


def test_a_store_that_does_not_respond_changes_no_file(tmp_path: Path, store: Noted) -> None:
    folder = folder_in(tmp_path)
    (folder / f"{file_name('rsv_1')}.a-1-2.tmp").write_bytes(RAW)
    store.fails = "it is down"
    opened: list[str] = []

    def target(owner: str) -> MemoryStore:
        opened.append(owner)
        return store

    with pytest.raises(cycles.StoreError):
        move_files_into(target, tmp_path)
    assert (opened, store.closed) == (["moved"], 1)


def test_a_record_that_a_client_settles_during_the_move_is_not_moved(
    tmp_path: Path, store: Noted, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder_in(tmp_path) / file_name("rsv_1")).write_bytes(RAW)

    def read_bytes(path: Path) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert moved(tmp_path, store) == (0, 1)
    assert store.bind(OWNER).list() == []


@pytest.mark.skipif(not is_supported(), reason="needs file locks")
def test_the_sum_of_a_chunk_moves_without_what_the_events_of_its_guards_have(tmp_path: Path, store: Noted) -> None:
    folder = folder_in(tmp_path)
    event = {
        "idempotency_key": "key-2",
        "subject": {"tenant": "acme"},
        "action": {"kind": "a", "name": "b"},
        "actual": {"unit": "TOKENS", "amount": 5},
        "metadata": {RECOVERED_ID: "rsv_1"},
    }
    write_log(folder, Totals(7, calls=1, ahead=6))
    spend_file(folder, "spend-1.log", a_record("rsv_2", mode="event", commit_body=None, event_fallback_body=event))
    assert moved(tmp_path, store) == (2, 0)
    amounts = {
        (record := decode(each.record)).reservation_id: record.actual.amount for each in store.bind(OWNER).list()
    }
    assert amounts == {"rsv_1": 8, "rsv_2": 5}
    assert [path.name for path in folder.rglob("*") if path.is_file()] == []


def test_a_store_moves_into_a_store_or_into_files(tmp_path: Path, store: Noted, view: StoreView) -> None:
    target = MemoryStore()
    puts = [
        Put("1" * 64, encode(a_record("rsv_1"))),
        Put("2" * 64, rejected(a_record("rsv_2")), kept="rejected"),
        Put("3" * 64, b"{", kept="quarantined"),
        Put("4" * 64, encode(a_record("rsv_4", settled=5)), due_ms=DAY_MS),
        Put("5" * 64, encode(a_record("rsv_5")), due_ms=DAY_MS),
    ]
    store.put(puts)
    target.put([Put("1" * 64, b"another")])
    at_ms = now_ms()
    assert move_store_into(view, target) == (4, 1)
    assert [each.key[0] for each in store.list()] == ["1"]
    found = {each.key[0]: each for kept in (None, "rejected", "quarantined") for each in target.list(kept=kept)}
    assert {key: each.record for key, each in found.items()} == {each.key[0]: each.record for each in puts} | {
        "1": b"another"
    }
    assert DAY_MS - 60_000 < found["4"].due_ms - at_ms <= DAY_MS + 60_000
    assert found["5"].due_ms - at_ms < 60_000, "due now"
    assert [found[key].kept for key in "2345"] == ["rejected", "quarantined", None, None]
    files = FileStore(tmp_path, lambda: OWNER, sync=False)
    assert move_store_into(StoreView(target, "x"), files) == (4, 0)
    assert [each.key[0] for each in target.list()] == ["4"], "files have no use for the mark"


def test_many_records_of_a_store_move_page_by_page(store: Noted, view: StoreView) -> None:
    keys = [format(number, "064x") for number in range(1_001)]
    store.put([Put(key, b"{}") for key in keys])
    target = MemoryStore()
    assert move_store_into(view, target) == (1_001, 0)
    assert (len(target.list(limit=9_999)), store.list()) == (1_001, [])


def test_a_move_into_the_same_store_is_an_error(store: Noted, view: StoreView) -> None:
    store.put([Put(KEY, RAW)])
    with pytest.raises(cycles.ConfigurationError) as caught:
        move_store_into(view, store)
    assert str(caught.value) == "both places are the same: redis://host; pass another one, nothing was moved"
    assert len(store.list()) == 1


@posix_only
def test_records_that_are_in_the_target_by_a_link_stay(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    files = files_of(source, OWNER)
    files.put([Put(KEY, RAW)])
    target.mkdir()
    (target / OWNER).symlink_to(source / OWNER)
    assert move_files_into(partial(files_of, target), source) == (0, 1)
    (kept,) = files.list()
    assert kept.record == RAW


def test_records_that_move_into_files_survive_a_loss_of_power(tmp_path: Path) -> None:
    with failing("fsync", errno.EIO), pytest.raises(cycles.StoreError):
        files_of(tmp_path, OWNER).put([Put(KEY, RAW)])


@pytest.mark.parametrize(
    ("place", "expected"),
    [("redis://h", True), ("postgresql://h", True), ("file:///tmp/x", False), ("/tmp/x", False), ("file:/tmp", False)],
)
def test_what_is_a_store(place: str, expected: bool) -> None:
    assert is_url(place) is expected
