"""An event is not sent while a shared store has the commit that it replaces and does not respond."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cycles
from cycles._core.settlement.put import PutResult
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.shared import key_of
from tests.journal.kit import a_record, failing
from tests.stores.kit import ACTION, FIVE, THREE, StoreClock, files, pass_outage, records, shared, spent, tick

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@pytest.fixture
def time() -> cycles.ManualClock:
    return cycles.ManualClock()


@pytest.fixture
def server(time: cycles.ManualClock) -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({"tenant:acme": cycles.tokens(1_000)}, clock=time) as server:
        yield server


@pytest.fixture
def worker_options() -> dict[str, Any]:
    return {"retry_initial_delay": 60.0, "flush_timeout": 0.0}


@pytest.mark.parametrize("outage", ["disk", "memory", "refuse"])
@pytest.mark.parametrize("is_lost", [False, True], ids=["put", "put without a response"])
def test_an_event_waits_until_the_store_takes_it(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    time: cycles.ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    outage: Any,
    is_lost: bool,
) -> None:
    client = worker(journal_outage=outage)
    guard = client.reserve(FIVE, action=ACTION).acquire()
    put = store.put

    def put_and_fail(items: Any) -> list[str | None]:
        result = put(items)
        store.fails = "it is down"
        if is_lost:
            raise cycles.StoreError("the response was lost")
        return result

    monkeypatch.setattr(shared(client)._store, "put", put_and_fail)
    monkeypatch.setattr(shared(client)._combiner._store, "put", put_and_fail)
    time.advance(HOUR_MS)
    assert guard.commit(THREE).status == "pending"
    monkeypatch.undo()
    assert [each.operation for each in server.requests if each.operation in ("commit", "event")] == ["commit"]
    assert ([record.mode for record in records(store)], spent(server)) == (["commit"], 0)
    store.fails = None
    tick(client)
    assert client.flush(timeout=60).pending == 0
    assert spent(server) == 3


def test_the_fleet_finds_the_commit_eight_days_later_and_charges_it_once(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    time: cycles.ManualClock,
    clock: StoreClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = worker()
    guard = lost.reserve(FIVE, action=ACTION).acquire()
    server.faults.refuse("commit")
    server.faults.drop_response("event", times=None)
    guard.commit(THREE)
    time.advance(HOUR_MS)
    store.fails = "it is down"
    lost.flush(timeout=0.2)
    lost.close()
    server.faults.clear()
    store.fails = None
    time.advance(8 * DAY_MS)
    clock.now += 8 * DAY_MS
    found = worker()
    assert found.flush(timeout=60).pending == 0
    assert (spent(server), records(store), files(found)) == (3, [], [])


def test_a_commit_that_only_a_local_file_has_is_replaced_there(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, time: cycles.ManualClock
) -> None:
    client = worker()
    guard = client.reserve(FIVE, action=ACTION).acquire()
    store.fails = "it is down"
    client.record(THREE, action=ACTION)  # opens the breaker: the store gets no put of the commit
    time.advance(HOUR_MS)
    assert guard.commit(THREE).status == "recorded_as_event"
    assert spent(server) == 6
    store.fails = None


def test_records_that_were_put_together_without_a_response_may_be_in_the_store(
    worker: Callable[..., cycles.Cycles], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = shared(worker())
    one, two = a_record("one", "key-1"), a_record("two", "key-2")
    put = MemoryStore.put

    def put_and_fail(bound: MemoryStore, items: Any) -> None:
        put(bound, items)
        raise cycles.StoreError("the response was lost")

    monkeypatch.setattr(MemoryStore, "put", put_and_fail)
    assert journal.put_many([one, two]) == [PutResult.SAVED, PutResult.SAVED]  # in local files
    assert journal.put(one.to_event_mode(5_000)) is PutResult.HELD_BACK


def test_the_latest_form_of_a_record_is_put_after_an_outage(
    worker: Callable[..., cycles.Cycles], store: MemoryStore
) -> None:
    journal = shared(worker())
    journal.put(a_record())
    store.fails = "it is down"
    journal.put(a_record(not_before_ms=7))
    store.fails = None
    journal.tick(0)
    assert [record.not_before_ms for record in records(store)] == [7]


@pytest.mark.parametrize("is_settled", [False, True], ids=["changed", "settled"])
def test_what_changes_while_an_outage_is_cleaned_up_does_not_go_back(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, monkeypatch: pytest.MonkeyPatch, is_settled: bool
) -> None:
    """Otherwise the store gets the commit of an event that was sent, or a record that was settled."""
    journal = shared(worker())
    one, two = a_record("one", "key-1"), a_record("two", "key-2")
    store.fails = "it is down"
    journal.put(one)
    journal.put(two)
    store.fails = None
    pass_outage(journal)
    save, moved = journal._put, []

    def save_and_change(key: str, *words: Any) -> bool:
        moved.append(key)
        if moved == [key_of("one")] and is_settled:
            journal.delete(two)
            journal.settle_finished()
        elif moved == [key_of("one")]:
            journal.put(two.to_event_mode(5_000))
        return bool(save(key, *words))

    monkeypatch.setattr(journal, "_put", save_and_change)
    journal.tick(0)
    kept = {record.reservation_id: record.mode for record in records(store)}
    assert kept == {"one": "commit"} | ({} if is_settled else {"two": "event"})


def test_an_event_waits_until_the_commit_in_a_local_file_is_deleted(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, time: cycles.ManualClock
) -> None:
    """The store has the event then, but a start on this disk eight days later would find the commit."""
    client = worker()
    guard = client.reserve(FIVE, action=ACTION).acquire()
    store.fails = "it is down"
    server.faults.refuse("commit", times=None)
    assert guard.commit(THREE).status == "pending"
    assert len(files(client)) == 1
    time.advance(HOUR_MS)
    server.faults.clear()
    store.fails = None
    with failing("replace", errno.EACCES), failing("unlink", errno.EACCES):
        tick(client)
        assert client.flush(timeout=0.2).pending == 1
        assert (spent(server), len(files(client))) == (0, 1)
    assert client.flush(timeout=60).pending == 0
    assert (spent(server), files(client)) == (3, [])


def test_an_event_that_only_the_store_takes_replaces_the_commit_in_a_local_file(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, time: cycles.ManualClock
) -> None:
    """The disk took the commit during an outage of the store, and was full when the event was to replace it."""
    client = worker()
    guard = client.reserve(FIVE, action=ACTION).acquire()
    store.fails = "it is down"
    server.faults.refuse("commit", times=None)
    assert guard.commit(THREE).status == "pending"
    time.advance(HOUR_MS)
    server.faults.clear()
    with failing("replace", errno.ENOSPC):
        assert client.flush(timeout=0.2).pending == 1
        assert (spent(server), len(files(client))) == (0, 1)
        store.fails = None
        pass_outage(shared(client))
        assert client.flush(timeout=60).pending == 0
    assert (spent(server), files(client)) == (3, [])


@pytest.mark.parametrize("is_settled", [False, True], ids=["moved", "settled"])
def test_a_file_with_an_earlier_form_is_removed(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, is_settled: bool
) -> None:
    """A later form did not fit on the disk. A start on it would send the earlier one again, if need be as an event."""
    client = worker()
    journal = shared(client)
    store.fails = "it is down"
    assert journal.put(a_record()) is PutResult.SAVED
    later = a_record(not_before_ms=7)
    with failing("replace", errno.ENOSPC):
        for _ in range(3):
            assert journal.put(later) is PutResult.FAILED
    assert len(files(client)) == 1
    if is_settled:
        journal.delete(later)
    else:
        store.fails = None
        pass_outage(journal)
        journal.tick(0)
    assert files(client) == []
