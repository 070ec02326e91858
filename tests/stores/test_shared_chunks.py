"""A chunk of a pool that two clients of a store know: each token is charged once, in sync and async code."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._core.pool.chunk_record import log_name
from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import Record, decode, encode, file_name
from cycles._drivers.pools import Checkpoints
from cycles._journal.files.locked_file import is_supported
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.shared import StoreJournal
from cycles._journal.stores.store import Put
from cycles.journal import __main__ as journal_commands
from tests.journal.kit import a_record
from tests.pools.conftest import chunk_of
from tests.stores.kit import ACTION, StoreClock, files, pass_outage, records, shared, spent, tick
from tests.stores.test_pools import checkpoint, sums
from tests.support.inside import health_of, rows_of, runtime_of, store_of, table_of
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not is_supported(), reason="pools need file locks")
T = cycles.tokens
CLAIM_MS = 30_001
SEVEN_DAYS_MS = 7 * 86_400_000
EXPIRED = {"error": "RESERVATION_EXPIRED", "message": "over", "request_id": "r"}
POLICIES = ("REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT")


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({"tenant:acme": T(10_000)}) as server:
        yield server


@pytest.fixture
def worker_options() -> dict[str, Any]:
    return {"journal_checkpoint_ms": 600_000, "flush_timeout": 0.5}


@pytest.fixture(params=["sync", "async"])
def spend(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Returns a function that commits amounts, each with one guard of a pool."""

    def in_sync(pool: Any, *amounts: int) -> None:
        for amount in amounts:
            with pool.reserve(T(20)) as guard:
                guard.commit(T(amount))

    async def in_async(pool: Any, *amounts: int) -> None:
        for amount in amounts:
            async with pool.reserve(T(20)) as guard:
                await guard.commit(T(amount))

    if request.param == "sync":
        return in_sync
    return lambda *words: asyncio.run(in_async(*words))


class Owner:
    """A worker with a pool, which renews nothing by itself and puts the sum of its chunk when the test says so."""

    def __init__(self, client: cycles.Cycles, **options: Any) -> None:
        self.client = client
        self.store = store_of(shared(client))
        runtime_of(client).background._claims.stop()
        self.pool = client.pool(max_held=T(500), action=ACTION, **options)

    def lose_response(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the sum of the chunk; the response of the store is lost."""
        put = self.store.put

        def put_and_fail(items: Any) -> Any:
            put(items)
            raise cycles.StoreError("the response was lost")

        with monkeypatch.context() as lossy:
            lossy.setattr(self.store, "put", put_and_fail)
            checkpoint(self.client)
        pass_outage(shared(self.client))

    def lose_store(self) -> None:
        """Let the store get no put for a time."""
        health_of(shared(self.client)).failed(cycles.StoreError("it is down"))

    def end(self) -> None:
        """Close the pool, and wait until what it has sent is settled."""
        self.pool.close()
        self.client.flush()


def commit_in(claimer: cycles.Cycles, clock: StoreClock, server: cycles.EmbeddedServer, amount: int) -> None:
    """Let another worker claim the record of the chunk, and commit it."""
    clock.now += CLAIM_MS
    tick(claimer)
    until(lambda: spent(server) == amount)
    assert claimer.flush().pending == 0


def check_charged(server: cycles.EmbeddedServer, client: cycles.Cycles, amount: int) -> None:
    assert spent(server) == amount
    assert client.pending() == []
    assert client.pending(rejected=True) == []


def test_a_first_put_without_a_response_costs_no_amount(
    worker: Callable[..., cycles.Cycles],
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = Owner(worker())
    spend(owner.pool, 3, 4)
    owner.lose_response(monkeypatch)
    commit_in(worker(), clock, server, 7)
    spend(owner.pool, 5)
    owner.end()
    check_charged(server, owner.client, 12)
    (event,) = server.requests.of("event")
    assert event.json["actual"]["amount"] == 5
    assert str(event.idempotency_key).endswith(":late:7")


class WatchedLock:
    """A lock that notes when a thread begins to wait for it."""

    def __init__(self, waits: threading.Event) -> None:
        self._lock = threading.Lock()
        self._waits = waits

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._waits.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_chunk_that_is_closed_during_the_put_of_its_sum_leaves_nothing_in_the_store(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sum of the end would be overtaken by an earlier one, for which another client seems to have the chunk."""
    owner, begun, goes_on = Owner(worker()), threading.Event(), threading.Event()
    save = StoreJournal.checkpoint

    def slow(journal: StoreJournal, record: Record) -> bool:
        begun.set()
        assert goes_on.wait(60)
        return save(journal, record)

    with owner.pool.reserve(T(20)) as guard:
        guard.commit(T(7))
    chunk_of(guard).put_lock = WatchedLock(goes_on)
    monkeypatch.setattr(StoreJournal, "checkpoint", slow)
    saver = threading.Thread(target=checkpoint, args=(owner.client,))
    saver.start()
    assert begun.wait(60)
    with owner.pool.reserve(T(20)) as guard:
        guard.commit(T(5))

    def close() -> None:
        owner.end()
        goes_on.set()

    closer = threading.Thread(target=close)
    closer.start()
    closer.join()
    saver.join()
    tick(owner.client)
    assert sums(store) == []
    check_charged(server, owner.client, 12)


def test_a_record_is_found_among_more_than_ten_thousand(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = worker()
    others = [Put(f"{number:064x}", b"{}", None, 10**9) for number in range(10_001)]
    store_of(shared(client)).put(others)
    owner = Owner(client)
    spend(owner.pool, 3, 4)
    owner.lose_response(monkeypatch)
    checkpoint(client)  # it looks whether the store has the sum
    server.faults.refuse("commit", times=None)
    clock.now += CLAIM_MS
    claimer = worker()
    until(lambda: len(claimer.pending()) == 1)
    spend(owner.pool, 5)
    owner.pool.close()
    client.flush(0.1)  # it tries again, and cannot settle yet
    server.faults.clear()
    assert client.flush(60).pending == 0
    assert claimer.flush(60).pending == 0
    check_charged(server, client, 12)


def test_a_rest_that_cannot_be_saved_stays_in_the_log_of_its_chunk(
    worker: Callable[..., cycles.Cycles],
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The client closes while the server is down: neither has the amount, but the next process finds it."""
    owner = Owner(worker())
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    commit_in(worker(), clock, server, 7)
    spend(owner.pool, 5)
    server.faults.refuse("event", times=None)
    records = runtime_of(owner.client).records
    put = records.put
    monkeypatch.setattr(records, "put", lambda one: PutResult.FAILED if one.mode == "event" else put(one))
    owner.client.close()
    server.faults.clear()
    assert spent(server) == 7
    shutil.copytree(tmp_path / "disk-0", tmp_path / "restarted")  # without the locks of this process
    restarted = worker(journal_dir=tmp_path / "restarted")
    assert restarted.flush().pending == 0
    check_charged(server, restarted, 12)


@pytest.mark.parametrize("moved", [False, True], ids=["settled here", "moved by an operator"])
@pytest.mark.parametrize("mode", ["commit", "event"])
def test_an_earlier_sum_in_a_file_does_not_hide_what_the_log_of_its_chunk_has(
    worker: Callable[..., cycles.Cycles],
    server: cycles.EmbeddedServer,
    spend: Callable[..., None],
    tmp_path: Path,
    mode: str,
    moved: bool,
) -> None:
    """A client on the same disk, whose scan had not seen the log, claimed the earlier sum and closed in an outage."""
    owner = Owner(worker())
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    spend(owner.pool, 5)
    shutil.copytree(tmp_path / "disk-0", tmp_path / "restarted")  # as a process that was killed now leaves it
    (record,) = records(store_of(shared(owner.client)))
    assert record.actual == T(7)
    if mode == "event":
        record = record.to_event_mode(record.recorded_at_ms)
    (log,) = (tmp_path / "restarted").rglob(log_name(record.reservation_id))
    (log.parent / file_name(record.reservation_id)).write_bytes(encode(record))
    folder = tmp_path / "restarted"
    if moved:
        source, folder = folder, tmp_path / "other"
        assert journal_commands.main(["move", str(source), str(folder)]) == 0
        assert not log.exists()
    restarted = worker(journal_dir=folder)
    assert restarted.flush().pending == 0
    check_charged(server, restarted, 12)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_worker_that_restarts_on_its_disk_charges_what_another_one_did_not_commit(
    worker: Callable[..., cycles.Cycles],
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    policy: Any,
) -> None:
    owner = Owner(worker(), overage_policy=policy)
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    monkeypatch.setattr(Checkpoints, "_save_sum", lambda *_: None)
    spend(owner.pool, 5)
    shutil.copytree(tmp_path / "disk-0", tmp_path / "restarted")  # as a process that was killed now leaves it
    commit_in(worker(), clock, server, 7)
    restarted = worker(journal_dir=tmp_path / "restarted")
    assert restarted.flush().pending == 0
    check_charged(server, restarted, 12)


def test_a_worker_that_claims_the_record_of_its_open_chunk_continues_with_it(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
) -> None:
    owner, other = Owner(worker()), worker()
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    server.faults.refuse("commit", times=None)
    clock.now += CLAIM_MS  # the owner is paused
    tick(other)
    until(lambda: len(other.pending()) == 1)
    spend(owner.pool, 1)
    checkpoint(owner.client)  # it finds that another client has the record
    other.close()  # and releases it
    server.faults.clear()
    tick(owner.client)
    assert owner.client.flush().pending == 0
    assert spent(server) == 0, "the chunk is open"
    spend(owner.pool, 4)
    checkpoint(owner.client)
    assert sums(store) == [12]
    owner.end()
    check_charged(server, owner.client, 12)
    assert server.requests.of("event") == []
    assert records(store) == []


def test_an_owner_settles_its_closed_chunk_that_another_worker_took_and_left(
    worker: Callable[..., cycles.Cycles],
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
) -> None:
    owner = Owner(worker())
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    server.faults.refuse("commit", times=None)
    owner.pool.close()
    clock.now += CLAIM_MS
    hung = Owner(worker(retry_initial_delay=600.0, retry_max_delay=600.0)).client  # it claims the record, and no more
    until(lambda: any(each.last_outcome for each in hung.pending()))  # its attempt has ended
    tick(owner.client)
    owner.client.flush(60)
    assert owner.client.pending() == []
    clock.now += CLAIM_MS
    server.faults.clear()
    tick(owner.client)
    assert owner.client.flush(60).pending == 0
    check_charged(server, owner.client, 7)


def test_the_record_of_a_settled_chunk_stays_for_seven_days(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
) -> None:
    """Otherwise a put that arrives late would bring an earlier sum back."""
    owner, other = Owner(worker()), worker()
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    ((place, row),) = rows_of(store).items()
    late = Put(place[1], row.record, None, 0)
    commit_in(other, clock, server, 7)
    assert (records(store), other.pending()) == ([], [])
    (row,) = rows_of(store).values()
    assert (decode(row.record).settled, row.due_ms - clock.now) == (7, SEVEN_DAYS_MS)
    assert store_of(shared(owner.client)).put([late]) == [None]
    clock.now += SEVEN_DAYS_MS
    tick(other)
    assert rows_of(store) == {}
    assert len(server.requests.of("commit")) == 1
    owner.end()
    check_charged(server, owner.client, 7)


def test_the_record_of_a_chunk_that_its_owner_claims_again_stays_too(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
) -> None:
    """Another client had it for a time, and may put it late."""
    owner, other = Owner(worker()), worker()
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    ((place, row),) = rows_of(store).items()
    late = Put(place[1], row.record, None, 0)
    server.faults.refuse("commit", times=None)
    clock.now += CLAIM_MS
    tick(other)
    until(lambda: len(other.pending()) == 1)
    other.close()  # it releases the record
    server.faults.clear()
    assert shared(owner.client).claim(64) == []  # its chunk is open
    owner.end()
    assert store_of(shared(owner.client)).put([late]) == [None]
    clock.now += CLAIM_MS
    assert worker().flush().pending == 0
    check_charged(server, owner.client, 7)
    assert len(server.requests.of("commit")) == 1


def test_the_record_of_a_chunk_whose_last_put_had_no_response_stays_too(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    spend: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = Owner(worker())
    spend(owner.pool, 3, 4)
    put = owner.store.put

    def put_and_fail(items: Any) -> Any:
        put(items)
        monkeypatch.undo()
        raise cycles.StoreError("the response was lost")

    monkeypatch.setattr(owner.store, "put", put_and_fail)
    owner.end()

    def settled() -> list[int | None]:
        tick(owner.client)
        return [decode(row.record).settled for row in rows_of(store).values()]

    until(lambda: settled() == [7])
    check_charged(server, owner.client, 7)


def test_a_sum_whose_put_had_no_response_stays_with_its_owner(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner, other = Owner(worker()), worker()
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    spend(owner.pool, 5)
    owner.lose_response(monkeypatch)
    for _ in range(3):
        clock.now += CLAIM_MS - 10_000
        tick(owner.client)
        tick(other)
    assert (other.pending(), server.requests.of("commit")) == ([], [])
    spend(owner.pool, 1)
    checkpoint(owner.client)
    assert sums(store) == [13]
    owner.end()
    check_charged(server, owner.client, 13)
    assert server.requests.of("event") == []


def test_an_owner_puts_a_taken_record_again_that_the_store_has_lost(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
) -> None:
    owner, other = Owner(worker()), worker()
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    server.faults.status("commit", 410, body=EXPIRED, times=None)  # so the other client sends an event for the 7
    server.faults.refuse("event", times=None)
    clock.now += CLAIM_MS
    tick(other)
    until(lambda: [each.mode for each in other.pending() if each.last_outcome] == ["event"])
    runtime_of(other).background._claims.stop()  # it renews no more, as a process that was killed
    spend(owner.pool, 1)
    checkpoint(owner.client)  # it finds that another client has the record
    table_of(store).clear()
    tick(owner.client)
    assert sums(store) == [7], "unchanged"
    server.faults.clear()
    owner.end()
    assert other.flush(60).pending == 0
    check_charged(server, owner.client, 8)
    assert {event.json["actual"]["amount"] for event in server.requests.of("event")} == {1, 7}


@pytest.mark.parametrize(("is_owner_first", "events"), [(True, []), (False, [5])])
def test_a_pending_commit_whose_record_another_client_takes_charges_the_rest(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
    is_owner_first: bool,
    events: list[int],
) -> None:
    never = {"retry_initial_delay": 600.0, "retry_max_delay": 600.0}
    owner, other = Owner(worker(**never)), worker(**never)
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    spend(owner.pool, 5)
    server.faults.refuse("commit", times=None)
    owner.lose_store()
    owner.pool.close()  # the sum of 12 is in a local file, and its commit is pending
    until(lambda: len(files(owner.client)) == 1)
    pass_outage(shared(owner.client))
    clock.now += CLAIM_MS
    tick(other)
    until(lambda: any(each.last_outcome for each in other.pending()))  # its attempt has ended
    until(lambda: any(each.last_outcome for each in owner.client.pending()))
    tick(owner.client)
    assert (sums(store), files(owner.client)) == ([12], []), "no client has settled the 7, so the owner has it again"
    server.faults.clear()
    for client in (owner.client, other) if is_owner_first else (other, owner.client):
        assert client.flush(60).pending == 0
    assert [event.json["actual"]["amount"] for event in server.requests.of("event")] == events
    check_charged(server, owner.client, 12)


def test_a_sum_that_the_ledger_has_is_not_charged_again_if_the_store_had_an_earlier_one(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Another client committed the 7 of the store, and found 12 charged. The owner's disk has 12 of 12, not 5 more."""

    def fail(_: Any) -> Any:
        raise cycles.StoreError("it is down")

    owner, other = Owner(worker(retry_initial_delay=600.0, retry_max_delay=600.0)), worker()
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    spend(owner.pool, 5)
    monkeypatch.setattr(owner.store, "put", fail)  # so the sum of 12 is in a local file
    server.faults.drop_response("commit", times=None)
    owner.pool.close()
    until(lambda: any(each.last_outcome for each in owner.client.pending()))  # its attempt has ended
    assert (spent(server), sums(store)) == (12, [7])
    shutil.copytree(tmp_path / "disk-0", tmp_path / "restarted")  # as a process that was killed now leaves it
    server.faults.clear()
    clock.now += CLAIM_MS
    tick(other)
    assert other.flush().pending == 0
    restarted = worker(journal_dir=tmp_path / "restarted")
    assert restarted.flush().pending == 0
    check_charged(server, restarted, 12)


@pytest.mark.parametrize("is_owner_first", [True, False])
def test_a_sum_whose_response_was_lost_in_an_outage_is_charged_once_if_another_client_has_claimed_an_earlier_one(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
    is_owner_first: bool,
) -> None:
    owner, other = Owner(worker()), worker()
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    spend(owner.pool, 5)
    owner.lose_store()
    server.faults.drop_response("commit", times=None)
    owner.pool.close()
    until(lambda: any(each.last_outcome for each in owner.client.pending()))  # its attempt has ended
    assert (spent(server), sums(store)) == (12, [7])
    pass_outage(shared(owner.client))
    clock.now += CLAIM_MS
    server.faults.clear()
    server.faults.refuse("commit", times=None)
    tick(other)
    until(lambda: any(each.last_outcome for each in other.pending()))  # it has the 7, and cannot settle them yet
    tick(owner.client)  # the owner finds that
    owner.client.flush(0.1)
    server.faults.clear()
    for client in (owner.client, other) if is_owner_first else (other, owner.client):
        assert client.flush(60).pending == 0
    check_charged(server, owner.client, 12)
    assert server.requests.of("event") == []
    assert (records(store), files(owner.client)) == ([], [])


def test_a_worker_that_was_killed_once_another_client_had_its_chunk_charges_it_once_after_its_restart(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
    tmp_path: Path,
) -> None:
    """Its log has the whole sum, also if an event for the rest was saved at the moment of the kill."""
    never = {"retry_initial_delay": 600.0, "retry_max_delay": 600.0}
    owner, other = Owner(worker(**never)), worker(**never)
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    spend(owner.pool, 5)
    server.faults.refuse("commit", times=None)
    server.faults.refuse("event", times=None)
    clock.now += CLAIM_MS
    tick(other)
    until(lambda: any(each.last_outcome for each in other.pending()))
    shutil.copytree(tmp_path / "disk-0", tmp_path / "restarted")  # as a process that is killed in `close` leaves it
    owner.pool.close()  # it saves what it sends, and sends nothing more
    server.faults.clear()
    restarted = worker(journal_dir=tmp_path / "restarted")
    assert restarted.flush(60).pending == 0
    clock.now += CLAIM_MS  # what the killed process has in the store is due
    tick(restarted)
    for client in (restarted, other):
        assert client.flush(60).pending == 0
    check_charged(server, restarted, 12)


def test_a_restarted_worker_charges_the_rest_if_it_could_reach_neither_store_nor_server_at_first(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
    tmp_path: Path,
) -> None:
    """It finds that the store has a settled sum before it tries its own file again."""
    owner = Owner(worker())
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    spend(owner.pool, 5)
    shutil.copytree(tmp_path / "disk-0", tmp_path / "restarted")  # as a process that was killed now leaves it
    commit_in(worker(), clock, server, 7)
    server.faults.refuse("commit", times=None)
    store.fails = "it is down"
    restarted = worker(journal_dir=tmp_path / "restarted", retry_initial_delay=600.0, retry_max_delay=600.0)
    until(lambda: any(each.last_outcome for each in restarted.pending()))  # its attempt has ended
    store.fails = None
    tick(restarted)
    server.faults.clear()
    assert restarted.flush(60).pending == 0
    check_charged(server, restarted, 12)
    assert files(restarted) == []


def test_a_close_leaves_no_log_of_a_chunk_that_another_client_has_settled(
    worker: Callable[..., cycles.Cycles],
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    spend: Callable[..., None],
    tmp_path: Path,
) -> None:
    owner = Owner(worker())
    spend(owner.pool, 3, 4)
    checkpoint(owner.client)
    commit_in(worker(), clock, server, 7)
    assert len(list((tmp_path / "disk-0").rglob("pool-*.log"))) == 1
    owner.client.close()
    assert list((tmp_path / "disk-0").rglob("pool-*.log")) == []
    assert spent(server) == 7


def a_chunk(amount: int) -> Record:
    metadata = {"pool_chunk": 1, "pool_calls": 1}
    body = {"idempotency_key": "k", "actual": {"unit": "TOKENS", "amount": amount}, "metadata": metadata}
    return a_record(commit_body=body, event_fallback_body=body, base_url="")


def test_a_settled_sum_replaces_no_larger_one_if_its_put_had_no_response(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = Owner(worker())
    journal, other = shared(owner.client), shared(worker())
    put = owner.store.put

    def put_and_fail(items: Any) -> Any:
        put(items)
        raise cycles.StoreError("the response was lost")

    with monkeypatch.context() as lossy:
        lossy.setattr(owner.store, "put", put_and_fail)
        journal.put(a_chunk(7))
    pass_outage(journal)
    assert other.put(a_chunk(12)) is PutResult.SAVED
    journal.delete(a_chunk(7))
    journal.tick(0)
    assert sums(store) == [12]


@pytest.mark.parametrize(("left", "rest"), [(7, []), (5, []), (9, [T(2)])])
def test_the_file_of_a_chunk_goes_once_the_store_has_all_of_it(
    worker: Callable[..., cycles.Cycles], clock: StoreClock, left: int, rest: list[cycles.Amount]
) -> None:
    """A process that was killed in an outage left it, and another one had recovered the chunk and made it an event.

    What the file has beyond that event is settled too, as a late event.
    """
    client, other = worker(), shared(worker())
    journal = shared(client)
    assert other.put(evolve(a_chunk(7), mode="event")) is PutResult.SAVED
    assert journal.local.save(a_chunk(left))
    clock.now += CLAIM_MS
    records = [record for entry in dict.fromkeys(journal.pending()) if (record := journal.load(entry)) is not None]
    assert [(each.mode, each.actual) for each in records] == [("event", amount) for amount in (T(7), *rest)]
    for record in records:
        journal.delete(record)
    journal.tick(0)
    assert files(client) == []


def test_a_client_that_was_stopped_brings_back_no_commit_whose_event_is_charged(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, clock: StoreClock
) -> None:
    """Found eight days later, the commit would become an event again, whose key the server has forgotten by then."""
    body = {"idempotency_key": "k", "actual": {"unit": "TOKENS", "amount": 7}}
    commit = a_record(commit_body=body, event_fallback_body=body, base_url="")
    stopped, other = shared(worker()), shared(worker())
    assert stopped.put(commit) is PutResult.SAVED
    clock.now += CLAIM_MS
    (entry,) = other.pending()
    claimed = other.load(entry)
    assert claimed is not None
    event = claimed.to_event_mode(1)
    assert other.put(event) is PutResult.SAVED
    other.delete(event)
    other.tick(0)
    stopped.tick(0)
    assert stopped.is_taken(commit)
    (left,) = rows_of(store).values()
    assert decode(left.record).settled == 7
    clock.now += SEVEN_DAYS_MS
    assert other.tick(10) == []
    assert rows_of(store) == {}
