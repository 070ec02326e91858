"""Pools of a fleet: the sum of an open chunk is in the store too, and a claimed chunk is charged once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cycles
from cycles._core.settlement.late import late_record
from cycles._core.settlement.record import decode
from cycles._drivers.pools import IDLE_TICKS, Checkpoints
from cycles._journal.files.locked_file import is_supported
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.shared import StoreJournal
from tests.stores.kit import ACTION, StoreClock, records, spent, tick
from tests.support.inside import rows_of, runtime_of, state_of
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not is_supported(), reason="pools need file locks")
T = cycles.tokens


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({"tenant:acme": T(10_000)}) as server:
        yield server


@pytest.fixture
def worker_options() -> dict[str, Any]:
    return {"journal_checkpoint_ms": 5, "flush_timeout": 0.5}


def spend(pool: Any, *amounts: int) -> None:
    for amount in amounts:
        with pool.reserve(T(20)) as guard:
            guard.commit(T(amount))


def checkpoint(client: cycles.Cycles) -> None:
    """Put the sums of the open chunks into the store now, in the thread that does it."""
    checkpoints: Any = runtime_of(client).pools._checkpoints
    done = threading.Event()

    def put() -> None:
        checkpoints._tick()
        done.set()

    checkpoints._scheduler.at(time.monotonic(), put, checkpoints._pool)
    assert done.wait(60)


def sums(store: MemoryStore) -> list[int]:
    return [record.commit_body["actual"]["amount"] for record in records(store) if record.commit_body]


def test_the_sum_of_an_open_chunk_is_in_the_store(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer
) -> None:
    client = worker()
    with client.pool(max_held=T(500), action=ACTION) as pool:
        spend(pool, 3, 4)
        until(lambda: sums(store) == [7])
        spend(pool, 5)
        until(lambda: sums(store) == [12])
        assert server.requests.of("commit") == []
    until(lambda: records(store) == [])
    assert spent(server) == 12


class Timers:
    """Counts the ticks of checkpoints, and the timers that are pending."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ticks = self.pending = self.begun = 0
        self._schedule, self._tick = Checkpoints._schedule, Checkpoints._tick
        monkeypatch.setattr(Checkpoints, "_schedule", lambda checkpoints: self.schedule(checkpoints))
        monkeypatch.setattr(Checkpoints, "_tick", lambda checkpoints: self.tick(checkpoints))

    def schedule(self, checkpoints: Checkpoints) -> None:
        self.pending += 1
        self.begun += 1
        self._schedule(checkpoints)

    def tick(self, checkpoints: Checkpoints) -> None:
        self._tick(checkpoints)
        self.ticks += 1
        self.pending -= 1


def test_the_timer_of_checkpoints_ends_without_chunks_and_begins_with_the_next_one(
    worker: Callable[..., cycles.Cycles], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, timers = worker(), Timers(monkeypatch)
    begun = [0]
    for _ in range(2):
        with client.pool(max_held=T(500), action=ACTION) as pool:
            spend(pool, 3)
        until(lambda: timers.begun > begun[-1])
        until(lambda: timers.pending == 0)
        begun.append(timers.begun)


def test_a_chunk_is_watched_until_its_first_guard_ends(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of a model takes longer than the time after which the timer of checkpoints ends."""
    timers = Timers(monkeypatch)
    with worker().pool(max_held=T(500), action=ACTION) as pool, pool.reserve(T(20)) as guard:
        until(lambda: timers.ticks > 2 * IDLE_TICKS)
        assert records(store) == []
        guard.commit(T(7))
        until(lambda: sums(store) == [7])


def test_a_sum_that_the_store_did_not_take_is_put_again(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = worker(journal_checkpoint_ms=600_000)
    with client.pool(max_held=T(500), action=ACTION) as pool:
        spend(pool, 3)
        with monkeypatch.context() as patch:
            patch.setattr(StoreJournal, "checkpoint", lambda *_: False)
            checkpoint(client)
        checkpoint(client)
        assert sums(store) == [3]


def test_a_lost_worker_loses_no_open_chunk(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, clock: StoreClock
) -> None:
    lost = worker()
    pool = lost.pool(max_held=T(500), action=ACTION).__enter__()
    spend(pool, 3, 4)
    until(lambda: sums(store) == [7])
    runtime_of(lost).background._claims.stop()  # it renews no more, as a process that was killed
    clock.now += 30_001
    tick(worker())
    until(lambda: spent(server) == 7)
    until(lambda: records(store) == [])


def test_a_suspended_worker_sends_what_the_other_did_not_commit(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, clock: StoreClock
) -> None:
    owner = worker()
    runtime_of(owner).background._claims.stop()
    with owner.pool(max_held=T(500), action=ACTION) as pool:
        spend(pool, 3, 4)
        until(lambda: sums(store) == [7])
        clock.now += 30_001
        tick(worker())
        until(lambda: spent(server) == 7)
        until(lambda: records(store) == [])
        spend(pool, 5)
        checkpoint(owner)  # it finds that the record is another client's, or gone
    owner.flush()
    until(lambda: spent(server) == 12 and server.requests.of("event"))
    (event,) = server.requests.of("event")
    assert event.json["actual"]["amount"] == 5
    until(lambda: records(store) == [])


def test_what_a_client_that_has_claimed_a_chunk_does_not_charge_is_an_event(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, clock: StoreClock
) -> None:
    owner = worker()
    runtime_of(owner).background._claims.stop()
    with owner.pool(max_held=T(500), action=ACTION) as pool:
        spend(pool, 3, 4)
        until(lambda: sums(store) == [7])
        server.faults.refuse("commit", times=None)
        clock.now += 30_001
        claimer = worker()
        tick(claimer)
        until(lambda: len(claimer.pending()) == 1)
        spend(pool, 5)
    assert server.requests.of("event") == [], "the commit of 7 may still fail, or one of 12 may still arrive"
    server.faults.clear()
    claimer.flush(60)
    owner.flush(60)
    assert spent(server) == 12


def test_the_rest_of_a_chunk_that_another_client_sends_as_an_event_is_an_event(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, clock: StoreClock
) -> None:
    owner = worker()
    runtime_of(owner).background._claims.stop()
    with owner.pool(max_held=T(500), action=ACTION) as pool:
        spend(pool, 3, 4)
        until(lambda: sums(store) == [7])
        over = {"error": "RESERVATION_EXPIRED", "message": "over", "request_id": "r"}
        server.faults.status("commit", 410, body=over, times=None)
        server.faults.refuse("event")
        clock.now += 30_001
        claimer = worker(retry_initial_delay=600.0, retry_max_delay=600.0)
        tick(claimer)
        until(lambda: [each.mode for each in claimer.pending() if each.last_outcome] == ["event"])
        spend(pool, 5)
    until(lambda: server.requests.of("event"))
    event = server.requests.of("event")[-1]
    assert event.json["actual"]["amount"] == 5
    assert str(event.idempotency_key).endswith(":late:7")
    claimer.flush(60)
    assert spent(server) == 12


def test_a_bug_at_one_chunk_ends_the_checkpoints_of_no_other_one(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, failing = worker(), list[Any]()
    both_are_used, save = threading.Event(), Checkpoints._save_sum

    def fail_at_the_first(checkpoints: Checkpoints, pool: Any, chunk: Any) -> None:
        if not both_are_used.is_set():
            return
        if not failing or failing[0] is chunk:
            failing[:] = [chunk]
            raise TypeError("a bug of the store")
        save(checkpoints, pool, chunk)

    monkeypatch.setattr(Checkpoints, "_save_sum", fail_at_the_first)
    with client.pool(max_held=T(500), action=ACTION) as one, client.pool(max_held=T(500), action=ACTION) as two:
        spend(one, 7)
        spend(two, 7)
        both_are_used.set()
        until(lambda: sums(store) == [7])


def test_a_chunk_that_another_client_has_claimed_is_held_no_longer(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, clock: StoreClock
) -> None:
    owner = worker()
    runtime_of(owner).background._claims.stop()
    pool = owner.pool(max_held=T(500), action=ACTION)
    with pool.reserve(T(20)) as guard:
        guard.commit(T(7))
    until(lambda: sums(store) == [7])
    server.faults.refuse("commit", times=None)
    clock.now += 30_001
    claimer = worker()
    tick(claimer)
    until(lambda: len(claimer.pending()) == 1)
    assert pool.flush(timeout=60).pending == 1
    assert (pool.stats().held, pool.stats().chunks) == (T(0), 0)
    assert state_of(guard).when_settled().is_set, "this client settles it no longer"
    assert guard.settled().status == "pooled"


def test_what_is_late_is_the_difference(worker: Callable[..., cycles.Cycles], store: MemoryStore) -> None:
    with worker().pool(max_held=T(500), action=ACTION) as pool:
        spend(pool, 7)
        until(lambda: sums(store) == [7])
        (record,) = [decode(row.record) for row in rows_of(store).values()]
    late = late_record(record, 3, 5)
    assert late is not None
    assert late.body["actual"] == {"unit": "TOKENS", "amount": 4}
    assert late.body["idempotency_key"] == f"{record.body['idempotency_key']}:late:3"
    later = late_record(late, 5, 5)
    assert later is not None
    assert later.body["actual"] == {"unit": "TOKENS", "amount": 2}
    assert later.body["idempotency_key"] == f"{record.body['idempotency_key']}:late:5"
    assert late_record(record, 7, 5) is None
    assert late_record(late, 7, 5) is None
