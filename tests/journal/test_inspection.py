"""What an operator sees of the files of journals."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._core.settlement.record import Record, decode, encode, file_name
from cycles._journal.files.file_calls import read_whole
from cycles._journal.files.locked_file import is_supported
from cycles._journal.files.spend import SpendLog
from cycles._journal.operators import inspect as inspection
from cycles._journal.operators.by_hand import as_event, discard
from cycles._journal.operators.inspect import InspectedRecord, inspect, select
from tests.journal.kit import BASE, a_record, posix_only, spend_file

FUTURE = 4_000_000_000_000
OWNER = "0123456789abcdef"
K = {number: file_name(f"rsv_{number}") for number in range(10)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / OWNER
    (path / "rejected").mkdir(parents=True)
    return path


def put(folder: Path, name: str, content: bytes | Record | object) -> str:
    raw = encode(content) if isinstance(content, Record) else content
    path = folder / name
    path.write_bytes(raw if isinstance(raw, bytes) else json.dumps(raw).encode())
    return str(path)


def members(record: Record, **changes: Any) -> dict[str, Any]:
    return {**json.loads(encode(record)), **changes}


def shown(root: Path) -> list[tuple[Any, ...]]:
    return [
        (Path(each.path).name, each.state, each.reservation_id, each.amount and each.amount.amount, each.reason)
        for each in inspect(root)
    ]


@pytest.mark.parametrize(
    ("name", "content", "state", "amount"),
    [
        (K[1], a_record(), "pending", 5),
        (K[1], a_record(not_before_ms=FUTURE), "deferred", 5),
        (K[1], a_record(not_before_ms=1), "pending", 5),
        (K[1], a_record(sent=True), "sent", 5),
        (K[1], a_record(sent=True, not_before_ms=FUTURE), "deferred", 5),
        (f"{K[1]}.a-1-2.quarantined", a_record(not_before_ms=FUTURE), "quarantined", 5),
        (f"{K[1]}.a-1-2.quarantined", a_record(sent=True), "quarantined", 5),
        (f"{K[1]}.a-1-2.tmp", a_record(), "unfinished", 5),
        (f"{K[1]}.a-1-2.tmp", a_record(sent=True), "unfinished", 5),
        ("old.json", a_record(), "pending", 5),
    ],
)
def test_the_name_and_the_record_say_its_state(
    tmp_path: Path, folder: Path, name: str, content: Record, state: str, amount: int
) -> None:
    path = put(folder, name, content)
    (found,) = inspect(tmp_path)
    assert found == InspectedRecord(
        id="old.json" if name == "old.json" else K[1][3:-5],
        state=state,  # type: ignore[arg-type]
        reservation_id="rsv_1",
        base_url=BASE,
        mode="commit",
        amount=cycles.tokens(amount),
        recorded_at_ms=1_000,
        not_before_ms=content.not_before_ms,
        path=path,
        record=json.loads(encode(content)),
    )
    assert found.decoded() == content
    assert "commit_body" not in repr(found)


@pytest.mark.parametrize(
    "name", ["x.tmp", "a.spare", f"{K[1]}.discarded", f"{K[1]}.x", "spend-1.log", "pool-1.log", "json"]
)
def test_other_files_are_no_records(tmp_path: Path, folder: Path, name: str) -> None:
    put(folder, name, a_record())
    put(folder / "rejected", f"{K[1]}.a-1-2.tmp", a_record())
    (folder / "more").mkdir()
    (folder / "rejected" / "rejected").mkdir()
    put(folder / "more", K[1], a_record())
    put(folder / "rejected" / "rejected", K[1], a_record())
    assert inspect(tmp_path) == []


@pytest.mark.parametrize(("shift_ms", "state"), [(-60_000, "pending"), (60_000, "deferred")])
def test_a_record_is_deferred_until_its_time_has_come(tmp_path: Path, folder: Path, shift_ms: int, state: str) -> None:
    put(folder, K[1], a_record(not_before_ms=time.time_ns() // 1_000_000 + shift_ms))
    assert [each.state for each in inspect(tmp_path)] == [state]


def test_a_record_that_cannot_be_read_shows_what_it_has_and_why(tmp_path: Path, folder: Path) -> None:
    put(folder, K[1], b"{")
    put(folder, K[2], b"[]")
    put(folder, K[3], members(a_record("rsv_3"), version=2, base_url=7, recorded_at_ms=True, not_before_ms=9))
    put(folder, f"{K[4]}.a-1-2.tmp", b"{")
    found = {Path(each.path).name: each for each in inspect(tmp_path)}
    assert [found[name].state for name in (K[1], K[2], K[3])] == ["quarantined"] * 3
    assert found[f"{K[4]}.a-1-2.tmp"].state == "unfinished"
    assert [found[name].record for name in (K[1], K[2])] == [None, None]
    assert None not in [each.reason for each in found.values()]
    third = found[K[3]]
    assert (third.reservation_id, third.base_url, third.mode, third.recorded_at_ms, third.not_before_ms) == (
        "rsv_3",
        None,
        "commit",
        None,
        9,
    )
    assert third.amount is None
    assert third.decoded() is None


def test_a_rejected_record_has_its_reason_and_the_time_when_it_was_settled(tmp_path: Path, folder: Path) -> None:
    record = members(a_record())
    for number, content in enumerate(
        [
            {"reason": "no budget", "record": record, "settled_at_ms": 7},
            {"reason": 1, "record": record, "settled_at_ms": True},
            {"reason": "no budget", "record": {"version": 9}},
            {"reason": "no budget", "record": "r"},
            {"record": {"version": 9}},
            [],
            {"reason": "later", "record": members(a_record(not_before_ms=FUTURE, sent=True))},
        ]
    ):
        put(folder / "rejected", K[number], content)
    found = sorted(inspect(tmp_path), key=lambda each: [*K.values()].index(Path(each.path).name))
    assert [each.state for each in found] == ["rejected"] * 7
    assert [each.reason for each in found][:4] == ["no budget", None, "no budget", "no budget"]
    assert [each.settled_at_ms for each in found] == [7, *[None] * 6]
    assert [each.amount for each in found] == [cycles.tokens(5)] * 2 + [None] * 4 + [cycles.tokens(5)]
    assert [each.record for each in found][2:6] == [{"version": 9}, None, {"version": 9}, None]
    assert found[4].reason is not None
    assert found[5].reason is not None
    printed = found[0].to_dict()
    assert [*printed] == [
        *("id", "state", "reservation_id", "base_url", "mode", "amount", "recorded_at_ms", "not_before_ms", "path"),
        "reason",
    ]
    assert (printed["amount"], printed["reason"]) == ({"unit": "TOKENS", "amount": 5}, "no budget")


def test_records_are_listed_with_the_oldest_first_and_print_no_reason(tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "fedcba9876543210"
    other.mkdir()
    put(other, K[1], a_record(recorded_at_ms=2))
    put(folder, K[2], a_record("rsv_2", recorded_at_ms=3))
    put(folder, K[3], a_record("rsv_3", recorded_at_ms=2))
    put(folder, K[4], b"{")
    put(tmp_path, "top.json", a_record(recorded_at_ms=1))
    found = inspect(tmp_path)
    assert [Path(each.path).name for each in found] == [K[4], "top.json", K[3], K[1], K[2]]
    assert "reason" not in found[0].to_dict()
    assert (found[0].to_dict()["amount"], found[1].to_dict()["amount"]) == (None, {"unit": "TOKENS", "amount": 5})


def test_a_directory_that_does_not_exist_is_empty_and_one_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    assert inspect(tmp_path / "none") == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied", path)))
        with pytest.raises(PermissionError):
            inspect(tmp_path)


@posix_only
def test_a_file_that_cannot_be_read_is_listed_with_the_reason(tmp_path: Path, folder: Path) -> None:
    os.mkfifo(folder / K[1])
    ((name, state, reservation_id, amount, reason),) = shown(tmp_path)
    assert (name, state, reservation_id, amount, reason) == (K[1], "pending", None, None, "not a regular file")


def test_an_id_means_the_records_of_its_first_digits_name_or_reservation(tmp_path: Path, folder: Path) -> None:
    path = put(folder, K[1], a_record())
    put(folder / "rejected", K[1], {"reason": "r", "record": members(a_record())})
    put(folder, K[2], a_record("rsv_2"))
    put(folder, "old.json", a_record("rsv_3"))
    found, key = inspect(tmp_path), K[1][3:-5]
    first = [each for each in found if each.reservation_id == "rsv_1"]
    assert len(first) == 2
    for wanted in (key, "rsv_1", K[1], key[:6], f"v2-{key[:6]}", f"v2-{key}"):
        assert select(found, wanted) == first
    assert select(found, path) == [each for each in first if each.path == path]
    assert [each.reservation_id for each in select(found, "old.json")] == ["rsv_3"]
    assert (select(found, key[:5]), select(found, ""), select(found, "rsv_9"), select(found, "f" * 60)) == (
        [],
        [],
        [],
        [],
    )


def test_requests_of_dead_processes_are_listed_once(tmp_path: Path, folder: Path) -> None:
    sent = a_record(sent=True)
    spend_file(folder, "spend-1.log", sent, a_record("rsv_2"), a_record("rsv_3", sent=True))
    spend_file(folder, "spend-2.log", sent)
    spend_file(folder, "spend-3.log.0a.new", a_record("rsv_4", sent=True))
    spend_file(folder, "pool-1.log", a_record("rsv_5", sent=True))
    spend_file(folder / "rejected", "spend-6.txt", a_record("rsv_6", sent=True))
    (folder / "spend-4.log").write_bytes(b"short")
    put(folder, K[3], a_record("rsv_3"))
    found = inspect(tmp_path)
    assert [(each.id, each.reservation_id, each.state) for each in found] == [
        (K[1][3:-5], "rsv_1", "sent"),
        (K[3][3:-5], "rsv_3", "pending"),
    ]


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux shows who has locked a file")
@pytest.mark.parametrize("shows_locks", [True, False])
def test_requests_of_a_live_process_are_in_flight(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, shows_locks: bool
) -> None:
    log = SpendLog(lambda: f"{folder}/", sync=False)
    slot = log.open_slot()
    assert slot is not None
    assert slot.write(encode(a_record(sent=True)))
    read_text = Path.read_text

    def read(path: Path, *words: Any) -> str:
        if path == Path("/proc/locks") and not shows_locks:
            raise FileNotFoundError(path)
        return read_text(path, *words)

    monkeypatch.setattr(Path, "read_text", read)
    assert [each.state for each in inspect(tmp_path)] == ([] if shows_locks else ["sent"])
    slot.end()
    log.close()


def test_a_record_that_is_settled_while_the_journal_is_read_is_not_listed(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, K[1], a_record())
    put(folder, K[2], a_record("rsv_2"))
    spend_file(folder, "spend-1.log", a_record("rsv_3", sent=True))

    def read_or_settled(path: str) -> bytes:
        if path.endswith((K[1], ".log")):
            raise FileNotFoundError(path)
        return read_whole(path)

    monkeypatch.setattr(inspection, "read_whole", read_or_settled)
    assert [each.reservation_id for each in inspect(tmp_path)] == ["rsv_2"]


def test_a_discarded_record_is_kept_under_a_name_that_no_client_reads(tmp_path: Path, folder: Path) -> None:
    names = []
    for _ in range(2):
        put(folder, K[1], a_record())
        (entry,) = inspect(tmp_path)
        names.append(discard(entry))
    assert names[0] == str(folder / f"{K[1]}.discarded")
    assert names[1].startswith(str(folder / f"{K[1]}."))
    assert len(Path(names[1]).name) == len(f"{K[1]}.") + 8 + len(".discarded")
    assert [Path(name).read_bytes() for name in names] == [encode(a_record())] * 2
    assert inspect(tmp_path) == []


@pytest.mark.skipif(not is_supported(), reason="needs file locks")
def test_what_was_written_ahead_is_discarded_once_its_process_has_ended(tmp_path: Path, folder: Path) -> None:
    spend_file(folder, "spend-1.log", a_record(sent=True), a_record("rsv_2", sent=True))
    entry = next(each for each in inspect(tmp_path) if each.reservation_id == "rsv_1")
    assert discard(entry) == str(folder / f"{K[1]}.discarded")
    assert [(each.reservation_id, each.state) for each in inspect(tmp_path)] == [("rsv_2", "sent")]
    log = SpendLog(lambda: f"{folder}/", sync=False)
    slot = log.open_slot()
    assert slot is not None
    (path,) = folder.glob("spend-*.log")
    with pytest.raises(BlockingIOError, match="the process that has written it ahead lives"):
        discard(evolve(entry, path=str(path)))
    slot.end()
    log.close()


def test_a_rejected_record_becomes_an_event_as_if_it_was_never_sent() -> None:
    record = a_record(rejected="no budget", settled=5, not_before_ms=7, attempt_unknown=True, event_since_ms=3)
    event = as_event(record, 9)
    assert event == evolve(a_record(), mode="event", event_since_ms=9)
    assert as_event(evolve(record, event_fallback_body=None), 9) is None
    assert decode(encode(event or record)) == event
