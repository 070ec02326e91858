"""The commands on the journal with a shared store: list, show, export, retry, discard, move, pending."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._core.settlement.record import Record, decode, encode, file_name, partition
from cycles._journal import open as open_journal
from cycles._journal.files.locked_file import is_supported
from cycles._journal.operators import inspect_store as store_inspection
from cycles._journal.stores.files import FileStore
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.shared import key_of
from cycles._journal.stores.store import Put, settled_by_hand, with_reason
from cycles.journal.__main__ import main

STORE = "redis://:secret@store.test:6379/0"
SHOWN = "redis://[hidden]@store.test:6379/0"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """A store that the URL of the tests opens."""
    shared = MemoryStore()
    for module in (open_journal, store_inspection):
        monkeypatch.setattr(module, "open_store", lambda url: shared)
    return shared


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({"tenant:acme": cycles.tokens(1_000)}) as server, server.listen() as url:
        monkeypatch.setenv("CYCLES_BASE_URL", url)
        monkeypatch.setenv("CYCLES_API_KEY", server.api_key)
        monkeypatch.setenv("CYCLES_TENANT", "acme")
        monkeypatch.setenv("CYCLES_JOURNAL_URL", STORE)
        monkeypatch.setenv("CYCLES_JOURNAL_DIR", str(tmp_path / "files"))
        yield server


@pytest.fixture
def url(server: cycles.EmbeddedServer) -> str:
    return os.environ["CYCLES_BASE_URL"]


def an_event(url: str, number: int, **changes: Any) -> Record:
    body = {
        "idempotency_key": f"k{number}",
        "actual": {"unit": "TOKENS", "amount": number},
        "subject": {"tenant": "acme"},
        "action": {"kind": "a", "name": "b"},
    }
    record = Record(
        reservation_id=f"event:k{number}",
        base_url=url,
        mode="event",
        event_fallback_body=body,
        recorded_at_ms=1_700_000_000_000 + number,
    )
    return evolve(record, **changes)


def bound(store: MemoryStore, url: str) -> MemoryStore:
    return store.bind(partition(url, "acme", ""))


def fill(store: MemoryStore, url: str, *numbers: int) -> None:
    records = [an_event(url, number, recorded_at_ms=2_000_000_000_000) for number in numbers]
    bound(store, url).put([Put(key_of(each.reservation_id), encode(each), None, 0) for each in records])


def reject(store: MemoryStore, reservation_id: str, reason: str) -> None:
    """Keep a record as a client does whose amount the server has rejected."""
    (stored,) = store.get([key_of(reservation_id)])
    assert stored is not None
    store.put([Put(stored.key, with_reason(stored.record, reason), stored.fence, 0, "rejected")])


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    try:
        status = main(list(words))
    except SystemExit as left:
        status = int(left.code or 0)
    found = capsys.readouterr()
    return status, found.out + found.err


def test_the_records_of_the_store_are_listed_without_a_claim(
    store: MemoryStore, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store, url, 3, 4)
    reject(bound(store, url), "event:k4", "may_be_charged")
    status, out = run(capsys, "list", "--json")
    (entry,) = json.loads(out)["records"]
    assert status == 0
    assert (entry["reservation_id"], entry["state"], entry["amount"]["amount"]) == ("event:k3", "pending", 3)
    assert entry["path"] == f"{SHOWN}#{key_of('event:k3')}"
    _, out = run(capsys, "list", "--rejected", "--json")
    (entry,) = json.loads(out)["records"]
    assert (entry["reservation_id"], entry["reason"]) == ("event:k4", "may_be_charged")
    (stored,) = bound(store, url).list()
    assert [each.key for each in bound(store, url).take(9, 0)] == [stored.key], "it is due still"
    assert "secret" not in out
    _, out = run(capsys, "export")
    exported = {json.loads(line)["record"]["reservation_id"] for line in out.splitlines()}
    assert exported == {"event:k3", "event:k4"}


def test_a_deferred_record_is_listed_as_pending_once_its_time_has_come(
    store: MemoryStore, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    now_ms = time.time_ns() // 1_000_000
    for number, shift_ms in ((3, -60_000), (4, 60_000)):
        record = an_event(url, number, not_before_ms=now_ms + shift_ms)
        bound(store, url).put([Put(key_of(record.reservation_id), encode(record), None, 0)])
    _, out = run(capsys, "list", "--json")
    assert [entry["state"] for entry in json.loads(out)["records"]] == ["pending", "deferred"]


def test_a_record_is_retried(
    store: MemoryStore, url: str, server: cycles.EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store, url, 3)
    status, out = run(capsys, "retry", "event:k3", "--yes")
    assert (status, server.spent("tenant:acme")) == (0, cycles.tokens(3)), out
    assert bound(store, url).list() == []


def test_a_poison_record_is_retried_with_no_claims_counted(
    store: MemoryStore, url: str, server: cycles.EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store, url, 3)
    for _ in range(11):
        bound(store, url).take(16, 0)
    assert [kept.key for kept in bound(store, url).list("", 10, "quarantined")] == [key_of("event:k3")]
    status, out = run(capsys, "retry", "event:k3", "--yes")
    assert (status, server.spent("tenant:acme")) == (0, cycles.tokens(3)), out


def test_a_rejected_amount_is_sent_as_an_event(
    store: MemoryStore, url: str, server: cycles.EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store, url, 3)
    reject(bound(store, url), "event:k3", "BUDGET_EXCEEDED")
    assert run(capsys, "retry", "event:k3", "--yes")[0] != 0
    status, out = run(capsys, "retry", "event:k3", "--as-event", "--yes")
    assert (status, server.spent("tenant:acme")) == (0, cycles.tokens(3)), out
    assert bound(store, url).list("", 10, "rejected") == []
    assert "no unsettled record" in run(capsys, "list")[1]
    assert "BUDGET_EXCEEDED (settled by hand)" in run(capsys, "list", "--rejected")[1]
    status, out = run(capsys, "retry", "event:k3", "--as-event", "--yes")
    assert (status, "settled by hand already" in out, server.spent("tenant:acme")) == (2, True, cycles.tokens(3)), out


def test_a_rejected_amount_of_an_earlier_year_is_sent_as_an_event(
    store: MemoryStore, url: str, server: cycles.EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its age counts from the moment of the command."""
    record = encode(an_event(url, 3))
    bound(store, url).put([Put(key_of("event:k3"), with_reason(record, "BUDGET_FROZEN"), None, 0, "rejected")])
    status, out = run(capsys, "retry", "event:k3", "--as-event", "--yes")
    assert (status, server.spent("tenant:acme")) == (0, cycles.tokens(3)), out


def test_a_rejected_amount_without_an_event_is_not_sent(
    store: MemoryStore, url: str, server: cycles.EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another SDK may write commits without one."""
    body = {"idempotency_key": "k", "actual": {"unit": "TOKENS", "amount": 3}}
    record = Record(reservation_id="r-1", base_url=url, commit_body=body)
    bound(store, url).put([Put(key_of("r-1"), with_reason(encode(record), "BUDGET_FROZEN"), None, 0, "rejected")])
    before = bound(store, url).list("", 10, "rejected")
    status, out = run(capsys, "retry", "r-1", "--as-event", "--yes")
    assert (status, "this record has no event; record its amount with cycles record" in out) == (2, True), out
    assert bound(store, url).list("", 10, "rejected") == before
    assert len(server.requests) == 0


def test_an_amount_that_was_settled_by_hand_is_deleted_after_30_days(
    store: MemoryStore, url: str, server: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = an_event(url, 3, recorded_at_ms=2_000_000_000_000)
    key, settled_at_ms = key_of(record.reservation_id), 2_000_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: settled_at_ms * 1_000_000)
    bound(store, url).put([settled_by_hand(key, encode(evolve(record, rejected="BUDGET_FROZEN")), 0)])
    fill(store, url, 4)
    reject(bound(store, url), "event:k4", "BUDGET_FROZEN")
    left = []
    for age_ms in (30 * 86_400_000 - 1, 30 * 86_400_000):
        moment = (settled_at_ms + age_ms) * 1_000_000
        monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment)
        with cycles.Cycles() as client:
            client.flush(1.0)
        left.append({*bound(store, url).list(), *bound(store, url).list("", 10, "rejected")})
    assert [{each.key for each in found} for found in left] == [{key, key_of("event:k4")}, {key_of("event:k4")}]


@pytest.mark.parametrize(("days", "left"), [(0, 30), (1, 29), (30, 0), (31, 0)])
def test_a_moved_amount_is_deleted_30_days_after_it_was_settled_by_hand(days: int, left: int) -> None:
    assert settled_by_hand("key", b"{}", -days * 86_400_000).due_ms == left * 86_400_000


def test_a_record_is_discarded(store: MemoryStore, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    fill(store, url, 3)
    status, out = run(capsys, "discard", "event:k3", "--yes")
    assert (status, f"kept as quarantined in {SHOWN}" in out) == (0, True)
    assert bound(store, url).list() == []
    run(capsys, "discard", "event:k3", "--yes")
    assert bound(store, url).list("", 10, "quarantined") == []


def test_records_move_between_files_and_store_with_the_same_bytes(
    store: MemoryStore, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owner, record = partition(url, "acme", ""), an_event(url, 3)
    folder = tmp_path / "files" / owner
    folder.mkdir(parents=True)
    content = encode(record) + b" "
    (folder / file_name(record.reservation_id)).write_bytes(content)
    status, out = run(capsys, "move", str(tmp_path / "files"), STORE)
    assert (status, "1 moved to redis://[hidden]" in out) == (0, True), out
    assert [stored.record for stored in bound(store, url).list()] == [content]
    assert list(folder.glob("v2-*")) == []
    status, out = run(capsys, "move", STORE, str(tmp_path / "files"))
    assert status == 0, out
    assert (folder / file_name(record.reservation_id)).read_bytes() == content
    assert bound(store, url).list() == []
    assert "secret" not in out


def test_a_record_that_its_client_settles_during_the_move_is_in_the_store_alone(
    store: MemoryStore, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "files" / partition(url, "acme", "")
    folder.mkdir(parents=True)
    put = MemoryStore.put

    def settle(self: MemoryStore, items: Any) -> Any:
        for path in folder.glob("v2-*"):
            path.unlink()
        return put(self, items)

    (folder / file_name(an_event(url, 3).reservation_id)).write_bytes(encode(an_event(url, 3)))
    monkeypatch.setattr(MemoryStore, "put", settle)
    status, out = run(capsys, "move", str(tmp_path / "files"), STORE)
    assert (status, "1 moved to redis://[hidden]" in out) == (0, True), out


@pytest.mark.skipif(not is_supported(), reason="spend is written ahead under file locks")
@pytest.mark.parametrize("into", ["store", "files"])
def test_what_a_killed_process_wrote_ahead_moves_too(
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    into: str,
) -> None:
    """Spend of a guard, and the sum of a pool."""
    with server.client(tenant="acme", base_url=url, journal=True, journal_dir=tmp_path / "live") as client:
        options: Any = {"action": ("a", "b"), "subject": {"agent": "planner"}}
        guard = client.reserve(cycles.tokens(9), **options).acquire()
        guard.spend(cycles.tokens(3))
        pool = client.pool(max_held=cycles.tokens(100), **options)
        pool.reserve(cycles.tokens(9)).acquire().commit(cycles.tokens(4))
        shutil.copytree(tmp_path / "live", tmp_path / "dead")  # no process has a lock there
        pool.close()
        guard.commit()
    other = str(tmp_path / "other")
    status, out = run(capsys, "move", str(tmp_path / "dead"), STORE if into == "store" else other)
    assert (status, "2 moved" in out, list((tmp_path / "dead").rglob("*.log"))) == (0, True, []), out
    files = FileStore(Path(other), lambda: partition(url, "acme", ""), sync=False)
    stored = bound(store, url) if into == "store" else files
    assert sorted(decode(each.record).actual.amount for each in stored.list()) == [3, 4]


def test_a_rejected_amount_that_is_settled_stays_settled_when_it_moves(
    store: MemoryStore, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = an_event(url, 3)
    key = key_of(record.reservation_id)
    bound(store, url).put([settled_by_hand(key, encode(evolve(record, rejected="BUDGET_FROZEN")), 0)])
    (before,) = bound(store, url).list()
    assert run(capsys, "move", STORE, str(tmp_path / "files"))[0] == 0
    assert bound(store, url).list() == []
    assert "BUDGET_FROZEN (settled by hand)" in run(capsys, "list", "--rejected")[1]
    assert run(capsys, "move", str(tmp_path / "files"), STORE)[0] == 0
    (after,) = bound(store, url).list()
    assert (after.key, after.record) == (key, before.record)
    assert abs(after.due_ms - before.due_ms) < 86_400_000, "it stays for 30 days after it was settled"


def test_a_record_stays_if_the_store_has_another_one_under_its_key(
    store: MemoryStore, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store, url, 3)
    before = bound(store, url).list()
    folder = tmp_path / "files" / partition(url, "acme", "")
    folder.mkdir(parents=True)
    older = folder / file_name("event:k3")
    older.write_bytes(encode(an_event(url, 3, recorded_at_ms=1)))
    status, out = run(capsys, "move", str(tmp_path / "files"), STORE)
    assert (status, "0 moved" in out, "1 left" in out, older.exists()) == (4, True, True, True), out
    status, out = run(capsys, "move", STORE, str(tmp_path / "files"))
    assert (status, "0 moved" in out, "1 left" in out) == (4, True, True), out
    assert bound(store, url).list() == before


@pytest.mark.parametrize("other", [STORE, "redis://elsewhere.test:6379/0"])
def test_a_move_into_the_same_store_deletes_nothing(
    store: MemoryStore, url: str, capsys: pytest.CaptureFixture[str], other: str
) -> None:
    fill(store, url, 3, 4)
    before = bound(store, url).list()
    status, out = run(capsys, "move", STORE, other)
    assert (status, "both places are the same" in out, "secret" in out) == (2, True, False), out
    assert bound(store, url).list() == before


@pytest.mark.parametrize(("other", "status"), [(STORE, 2), ("redis://elsewhere.test:6379/0", 0)])
def test_an_empty_store_is_known_by_its_url_only(
    store: MemoryStore, url: str, capsys: pytest.CaptureFixture[str], other: str, status: int
) -> None:
    found, out = run(capsys, "move", STORE, other)
    assert (found, bound(store, url).list()) == (status, []), out


def test_a_move_into_the_same_directory_deletes_nothing(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, record = tmp_path / "files", an_event(url, 3)
    path = root / partition(url, "acme", "") / file_name(record.reservation_id)
    path.parent.mkdir(parents=True)
    path.write_bytes(encode(record))
    (tmp_path / "link").symlink_to(root)
    for target in (str(root), f"{root}/", str(root / "x" / ".."), root.as_uri(), str(tmp_path / "link")):
        status, out = run(capsys, "move", str(root), target)
        assert (status, "both places are the same" in out) == (2, True), out
    other = tmp_path / "other"
    other.mkdir()
    (other / path.parent.name).symlink_to(path.parent)
    status, out = run(capsys, "move", str(root), str(other))
    assert (status, "0 moved" in out) == (4, True), out
    assert path.read_bytes() == encode(record)


def test_settling_says_that_the_store_does_not_respond(
    store: MemoryStore, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, url, 3)

    def fails(*_: Any) -> Any:
        raise cycles.StoreError("no connection; check the store")

    for method in ("put", "get", "take", "renew", "delete", "list"):
        monkeypatch.setattr(MemoryStore, method, fails)
    status, out = run(capsys, "retry", "--yes")
    assert (status, "0 settled, 0 pending" in out, "no connection; check the store" in out) == (2, True, True), out
