"""Clients that share a store: a record is put before the first request, taken over from a dead owner, and fenced."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import cycles
from cycles._core.settlement.put import PutResult
from cycles._core.settlement.record import encode, file_name
from cycles._errors import StoreError
from cycles._flows.heartbeat import send_heartbeat
from cycles._flows.io import run
from cycles._journal.files.locked_file import is_supported
from cycles._journal.stores.batch import Combiner
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.store import Put
from tests.journal.kit import a_record
from tests.stores.kit import ACTION, FIVE, THREE, StoreClock, files, pass_outage, records, scanned, shared, spent, tick
from tests.support.inside import rows_of, runtime_of, state_of, store_of, table_of
from tests.support.waiting import PATIENCE_S, until


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({"tenant:acme": cycles.tokens(1_000)}) as server:
        yield server


def leave_pending(client: cycles.Cycles, server: cycles.EmbeddedServer) -> str:
    """Commit while the server is down, and return the id of the reservation."""
    guard = client.reserve(FIVE, action=ACTION).acquire()
    server.faults.refuse("commit", times=None)
    assert guard.commit(THREE).status == "pending"
    assert guard.reservation_id is not None
    return guard.reservation_id


def test_a_commit_is_in_the_store_while_it_is_pending(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer
) -> None:
    client = worker()
    reservation_id = leave_pending(client, server)
    (record,) = records(store)
    assert (record.reservation_id, record.commit_body["actual"]["amount"]) == (reservation_id, 3)
    assert files(client) == []
    assert [pending.reservation_id for pending in client.pending()] == [reservation_id]
    server.faults.clear()
    assert client.flush().pending == 0
    until(lambda: records(store) == [])
    assert spent(server) == 3


def test_another_worker_settles_what_a_dead_one_left(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, clock: StoreClock
) -> None:
    reservation_id = leave_pending(worker(), server)
    survivor = worker()
    tick(survivor)
    assert survivor.pending() == []  # it is not due: its owner may be alive
    clock.now += 30_001
    tick(survivor)
    assert [pending.reservation_id for pending in survivor.pending()] == [reservation_id]
    server.faults.clear()
    until(lambda: spent(server) == 3)
    until(lambda: records(store) == [])
    keys = {request.idempotency_key for request in server.requests.of("commit")}
    assert len(keys) == 1


@pytest.mark.skipif(not is_supported(), reason="spend is written ahead under file locks")
@pytest.mark.parametrize("responds", [True, False])
def test_spend_written_ahead_is_no_second_record_of_what_the_store_has(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, responds: bool
) -> None:
    """A process died after its commit was put, and before the slot of its guard was cleared."""
    first, second = worker(), worker()
    leave_pending(first, server)
    (record,) = records(store)
    unknown = evolve(record, reservation_id="unknown")
    log = shared(first).local.spend_log()
    for each in (record, unknown):
        assert log.open_slot().write(encode(each))
    (path,) = Path(shared(first).local.directory).glob("spend-*.log")
    folder = Path(shared(second).local.directory)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "spend-left.log").write_bytes(path.read_bytes())  # without the lock of a living process
    store.fails = None if responds else "it is down"
    found = shared(second).recover_spend()
    assert {each.reservation_id for each in found} == ({"unknown"} if responds else {record.reservation_id, "unknown"})
    store.fails = None
    server.faults.clear()


def test_a_living_owner_keeps_its_records(
    worker: Callable[..., cycles.Cycles], server: cycles.EmbeddedServer, clock: StoreClock
) -> None:
    owner, other = worker(), worker()
    leave_pending(owner, server)
    for _ in range(10):
        clock.now += 10_000
        tick(owner)
        tick(other)
    assert other.pending() == []


def test_a_stale_owner_changes_nothing_and_sends_no_more(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    clock: StoreClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="cycles")
    owner = worker()
    seen: list[str] = []
    owner.on_event(lambda event: seen.append(type(event).__name__))
    guard = owner.reserve(FIVE, action=ACTION).acquire()
    reserved = runtime_of(owner).records
    server.faults.refuse("commit", times=None)
    guard.commit(THREE)
    (record,) = records(store)
    clock.now += 30_001
    claimer = worker()
    assert len(claimer.pending()) == 1
    changed = evolve(record, not_before_ms=5)
    assert reserved.put(changed) is PutResult.TAKEN
    assert reserved.is_taken(record)
    assert records(store)[0].not_before_ms is None
    owner.flush(0.2)
    assert owner.pending() == []
    assert state_of(guard).when_settled().is_set
    assert guard.settled().status == "pending"
    run(send_heartbeat(runtime_of(owner).blocking, state_of(guard).heartbeat))
    assert server.requests.of("extend") == [], "the lease is needed no longer here"
    assert f"{record.reservation_id}: another client settles it" in caplog.text
    owner.close()
    assert "SettlementsLeftPending" not in seen
    server.faults.clear()
    claimer.flush()
    assert spent(server) == 3


def test_a_renewal_during_a_put_does_not_take_the_record_for_that_of_another_client(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = shared(worker())
    journal.put(a_record())
    put = Combiner.put

    def put_and_renew(combiner: Combiner, items: Any) -> Any:
        result = put(combiner, items)
        monkeypatch.undo()
        journal.tick(0)  # of another thread, with the fence of before
        return result

    monkeypatch.setattr(Combiner, "put", put_and_renew)
    assert journal.put(a_record(not_before_ms=6)) is PutResult.SAVED
    assert journal.put(a_record(not_before_ms=7)) is PutResult.SAVED
    assert [record.not_before_ms for record in records(store)] == [7]


def test_a_record_that_the_store_lost_is_put_again(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer
) -> None:
    client = worker()
    leave_pending(client, server)
    table_of(store).clear()
    tick(client)
    assert len(records(store)) == 1
    table_of(store).clear()
    (pending,) = client.pending()
    record = runtime_of(client).background.record(pending.reservation_id)
    assert record is not None
    changed = evolve(record, not_before_ms=7)
    assert runtime_of(client).records.put(changed) is PutResult.SAVED  # an update finds it missing
    assert records(store)[0].not_before_ms == 7


def test_a_client_that_is_closed_puts_again_what_the_store_has_just_lost(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cycles._drivers.work.claims.TICKS_PER_CLAIM", 0.001)  # no tick renews its records
    client = worker(flush_timeout=0.2)
    reservation_id = leave_pending(client, server)
    table_of(store).clear()
    client.close()
    assert [record.reservation_id for record in records(store)] == [reservation_id]
    # Due, so claimed at the start. The server is down until it is listed: else it may be settled before.
    assert [pending.reservation_id for pending in worker().pending()] == [reservation_id]
    server.faults.clear()
    until(lambda: spent(server) == 3)


def test_one_finished_record_is_deleted_soon(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles._drivers.work.claims.TICKS_PER_CLAIM", 0.001)  # no tick deletes it
    worker().reserve(FIVE, action=ACTION).acquire().commit(THREE)
    until(lambda: rows_of(store) == {})


def test_a_finished_record_is_deleted_after_a_failure_of_the_store(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client, failed = worker(), threading.Event()
    bound = store_of(shared(client))
    delete = bound.delete

    def fail_once(items: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise StoreError("it is down")
        delete(items)

    monkeypatch.setattr(bound, "delete", fail_once)
    client.reserve(FIVE, action=ACTION).acquire().commit(THREE)
    assert failed.wait(60)

    def is_deleted() -> bool:
        tick(client)
        return records(store) == []

    until(is_deleted)
    assert spent(server) == 3


def test_a_put_that_waits_too_long_at_the_end_of_another_one_stops_no_later_one(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The store responds to the first put just when the time of the caller of the second one is over."""
    client, begun, respond = worker(), threading.Event(), threading.Event()
    bound = store_of(shared(client))
    put = bound.put

    def slow(items: Any) -> Any:
        if not begun.is_set():
            begun.set()
            assert respond.wait(60)
        return put(items)

    changed = shared(client)._combiner._changed
    wait_for = changed.wait_for

    def too_late(is_over: Callable[[], bool], timeout: float | None = None) -> bool:
        if not begun.is_set() or respond.is_set():
            return bool(wait_for(is_over, timeout))
        respond.set()
        assert wait_for(is_over, 60)
        return False

    monkeypatch.setattr(changed, "wait_for", too_late)
    monkeypatch.setattr(bound, "put", slow)
    server.faults.refuse("commit", times=None)
    guards = [client.reserve(FIVE, action=ACTION).acquire() for _ in range(3)]
    first, second = (threading.Thread(target=guard.commit, args=(THREE,)) for guard in guards[:2])
    first.start()
    assert begun.wait(60)
    second.start()
    first.join()
    second.join()
    tick(client)
    guards[2].commit(THREE)
    assert len(records(store)) == 3
    assert files(client) == []
    server.faults.clear()
    client.flush()
    assert spent(server) == 9


def test_what_a_thread_no_longer_waits_for_is_put_by_no_other_one() -> None:
    """The caller has saved it elsewhere, and may have settled it when the store takes it."""
    begun, respond, puts = threading.Event(), threading.Event(), list[list[str]]()

    class Store(MemoryStore):
        def put(self, items: Any) -> Any:
            puts.append([item.key for item in items])
            begun.set()
            assert respond.wait(60)
            return super().put(items)

    combiner = Combiner(Store(), 0.01)
    first = threading.Thread(target=combiner.put, args=([Put("a", b"{}")],))
    first.start()
    assert begun.wait(60)
    with pytest.raises(StoreError, match="busy"):
        combiner.put([Put("b", b"{}")])
    respond.set()
    first.join()
    combiner.put([Put("c", b"{}")])
    assert puts == [["a"], ["c"]]


@pytest.mark.parametrize(("outage", "on_disk"), [("disk", 1), ("memory", 0), ("refuse", 1)])
def test_an_outage_of_the_store_delays_nothing(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    outage: Any,
    on_disk: int,
) -> None:
    client = worker(journal_outage=outage)
    seen: list[Any] = []
    client.on_event(seen.append)
    guard = client.reserve(FIVE, action=ACTION).acquire()
    store.fails = "it is down"
    server.faults.refuse("commit", times=None)
    assert guard.commit(THREE).status == "pending"
    assert len(files(client)) == on_disk
    problems = [event.detail for event in seen if isinstance(event, cycles.events.JournalProblem)]
    assert len(problems) == 1
    assert "the journal's store does not respond" in problems[0]
    store.fails = None
    tick(client)
    assert (len(records(store)), len(files(client))) == (1, 0)
    server.faults.clear()
    client.flush()
    assert spent(server) == 3


def test_closing_after_an_outage_leaves_no_file(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer
) -> None:
    client = worker()
    guard = client.reserve(FIVE, action=ACTION).acquire()
    store.fails = "it is down"
    guard.commit(THREE)
    store.fails = None
    folder = Path(shared(client).local.directory)
    assert list(folder.glob("*.spare")) != [], "the outage made one"
    client.close()
    assert [path.name for path in folder.iterdir()] == []
    assert spent(server) == 3


def test_a_file_that_an_outage_left_is_moved_by_the_next_start(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, tmp_path: Path
) -> None:
    first = worker()
    guard = first.reserve(FIVE, action=ACTION).acquire()
    store.fails = "it is down"
    server.faults.refuse("commit", times=None)
    guard.commit(THREE)
    store.fails = None
    second = worker(journal_dir=tmp_path / "disk-0")
    assert len(second.pending()) == 1
    assert (len(records(store)), len(files(second))) == (1, 0)


def test_files_that_an_outage_left_are_settled_while_the_store_is_still_down(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, tmp_path: Path
) -> None:
    first = worker(retry_initial_delay=60.0)
    guards = [first.reserve(FIVE, action=ACTION).acquire() for _ in range(3)]
    store.fails = "it is down"
    server.faults.refuse("commit", times=None)
    for guard in guards:
        guard.commit(THREE)
    server.faults.clear()
    second = worker(journal_dir=tmp_path / "disk-0")
    second.flush(PATIENCE_S)
    assert (spent(server), files(second)) == (9, [])


def test_nothing_is_reserved_without_a_store_with_journal_outage_refuse(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer
) -> None:
    client = worker(journal_outage="refuse")
    store.fails = "it is down"
    with pytest.raises(cycles.JournalUnavailableError, match="nothing was reserved") as caught:
        client.reserve(FIVE, action=ACTION).acquire()
    with pytest.raises(cycles.JournalUnavailableError):  # the breaker is open
        client.reserve(FIVE, action=ACTION).acquire()
    assert server.requests.of("reserve") == []
    assert type(pickle.loads(pickle.dumps(caught.value))) is cycles.JournalUnavailableError
    store.fails = None
    pass_outage(shared(client))
    client.reserve(FIVE, action=ACTION).acquire().release()


@pytest.mark.anyio
async def test_it_is_the_same_on_an_event_loop(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer
) -> None:
    client = worker(journal_outage="refuse")
    async with client.reserve(FIVE, action=ACTION) as guard:
        server.faults.drop_response("commit", times=2)
        assert (await guard.commit(THREE)).status == "pending"
        assert len(records(store)) == 1
    store.fails = "it is down"
    with pytest.raises(cycles.JournalUnavailableError):
        await client.reserve(FIVE, action=ACTION)
    store.fails = None
    await client.aclose()


def test_no_record_is_claimed_right_after_an_outage(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, clock: StoreClock
) -> None:
    owner, other = worker(), worker()
    leave_pending(owner, server)
    store.fails = "it is down"
    tick(owner)
    tick(other)
    clock.now += 75_000  # 2.5 claims
    store.fails = None
    tick(other)
    tick(owner)
    tick(other)
    assert other.pending() == []
    assert len(owner.pending()) == 1


def test_an_unreadable_record_is_quarantined_and_the_rest_continues(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, clock: StoreClock
) -> None:
    leave_pending(worker(), server)
    ((partition, _),) = rows_of(store)
    bound = store.bind(partition)
    bound.put([Put("ab" * 32, b'{"version":9}'), Put("cd" * 32, b"no JSON")])
    clock.now += 30_001
    seen: list[Any] = []
    survivor = worker()
    survivor.on_event(seen.append)
    server.faults.clear()
    until(lambda: spent(server) == 3)
    survivor.flush()
    assert [kept.key[:2] for kept in bound.list("", 10, "quarantined")] == ["ab", "cd"]


def test_a_rejected_amount_is_kept_in_the_store(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer
) -> None:
    client = worker()
    guard = client.reserve(FIVE, action=ACTION).acquire()
    error = {"error": "INVALID_REQUEST", "message": "no", "request_id": "r"}
    server.faults.status("commit", 400, body=error, times=None)
    with pytest.raises(cycles.ProtocolError):
        guard.commit(THREE)
    assert [each.reservation_id for each in client.pending(rejected=True)] == [guard.reservation_id]
    assert (records(store), files(client)) == ([], [])


@pytest.mark.parametrize("is_rejected", [False, True])
def test_an_excess_that_is_rejected_again_keeps_the_members_of_a_newer_version(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, is_rejected: bool
) -> None:
    journal = shared(worker())
    excess = a_record("rsv_1:excess", rejected="BUDGET_EXCEEDED")
    newer = evolve(excess, extra={"settled_by": {"version": "9.1"}})
    assert journal.put(newer) is PutResult.SAVED
    if is_rejected:
        journal.reject(newer, "BUDGET_EXCEEDED")
    journal.reject(excess, "BUDGET_EXCEEDED")
    assert journal.rejected() == [(newer, "BUDGET_EXCEEDED")]
    assert records(store) == []


def test_an_excess_that_is_rejected_in_an_outage_keeps_the_members_of_a_newer_version(
    worker: Callable[..., cycles.Cycles], store: MemoryStore
) -> None:
    journal = shared(worker())
    excess = a_record("rsv_1:excess", rejected="BUDGET_EXCEEDED", base_url="")
    newer = evolve(excess, extra={"settled_by": {"version": "9.1"}})
    store.fails = "it is down"
    assert journal.put(newer) is PutResult.SAVED
    journal.reject(excess, "BUDGET_EXCEEDED")
    assert journal.local.rejected() == [(newer, "BUDGET_EXCEEDED")]
    assert journal.local.pending() == []


def test_an_amount_that_is_rejected_in_an_outage_is_deleted_from_the_store(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer
) -> None:
    """Another worker would send it again."""
    client = worker(retry_initial_delay=60.0)
    reservation_id = leave_pending(client, server)
    store.fails = "it is down"
    server.faults.clear()
    error = {"error": "INVALID_REQUEST", "message": "no", "request_id": "r"}
    server.faults.status("commit", 400, body=error, times=None)
    client.flush(PATIENCE_S)
    assert [each.reservation_id for each in shared(client).local.rejected()[0][:1]] == [reservation_id]
    store.fails = None
    tick(client)
    assert rows_of(store) == {}


def test_an_event_in_the_store_gets_what_a_newer_version_has_added_to_its_commit_in_a_file(
    worker: Callable[..., cycles.Cycles],
) -> None:
    first, second = shared(worker()), shared(worker())
    commit = a_record(base_url="")
    event = commit.to_event_mode(now_ms=2_000)
    assert first.put(event) is PutResult.SAVED
    newer = {"settled_by": {"version": "9.1"}}
    assert second.local.put(evolve(commit, extra=newer)) is PutResult.SAVED
    (entry,) = second.pending()
    assert second.load(entry) == evolve(event, extra=newer)
    assert second.local.pending() == []


def test_two_principals_never_see_each_others_records(store: MemoryStore, tmp_path: Path) -> None:
    budgets = {"tenant:acme": cycles.tokens(100), "tenant:other": cycles.tokens(100)}
    with cycles.EmbeddedServer(budgets) as server:
        options: dict[str, Any] = {"journal_store": store, "journal_dir": tmp_path, "flush_timeout": 0.0}
        with server.client(tenant="acme", **options) as one:
            leave_pending(one, server)
        with server.client(tenant="other", **options) as two:
            scanned(two)
            assert two.pending() == []
        with server.client(tenant="acme", **options) as three:
            scanned(three)
            assert len(three.pending()) == 1  # closing a client lets others claim immediately


def test_ten_thousand_due_records_are_claimed_in_small_portions(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, clock: StoreClock
) -> None:
    client = worker()
    leave_pending(client, server)
    (template,) = records(store)
    client.close()
    ((partition, _),) = rows_of(store)
    from cycles._core.settlement.record import encode
    from cycles._journal.stores.shared import key_of

    copies = [evolve(template, reservation_id=f"r-{number}") for number in range(10_000)]
    store.bind(partition).put([Put(key_of(each.reservation_id), encode(each)) for each in copies])
    successor = worker()
    tick(successor)
    assert 16 <= len(successor.pending()) <= 80


def test_close_leaves_no_thread_that_touches_the_store(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer
) -> None:
    before = set(threading.enumerate())
    client = worker(journal_claim_ms=1_000)
    assert set(threading.enumerate()) - before, "it claims in a thread"
    client.close()
    until(lambda: set(threading.enumerate()) <= before)


@pytest.mark.anyio
async def test_the_commits_of_many_tasks_are_put_together(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer
) -> None:
    client = worker()
    sizes: list[int] = []
    all_have_started = threading.Event()
    bound = store_of(shared(client))
    put = bound.put

    def counting(items: Any) -> list[str | None]:
        sizes.append(len(items))
        assert all_have_started.wait(60)  # a round trip, in which the other tasks commit
        result: list[str | None] = put(items)
        return result

    bound.put = counting
    guards = [await client.reserve(FIVE, action=ACTION) for _ in range(40)]
    tasks = [asyncio.ensure_future(guard.commit(THREE)) for guard in guards]
    asyncio.get_running_loop().call_soon(all_have_started.set)
    await asyncio.gather(*tasks)
    assert sum(sizes) == 40
    assert len(sizes) < 20
    assert spent(server) == 120
    await client.aclose()
    assert records(store) == []


def test_a_commit_is_put_into_the_store_once(
    worker: Callable[..., cycles.Cycles], server: cycles.EmbeddedServer
) -> None:
    puts: list[int] = []

    class Store(MemoryStore):
        def bind(self, *_: Any, **__: Any) -> MemoryStore:
            return self

        def put(self, items: Sequence[Put]) -> list[str | None]:
            puts.append(len(items))
            return super().put(items)

    client = worker(journal_store=Store())
    with client.reserve(FIVE, action=ACTION) as guard:
        guard.commit(THREE)
    assert puts == [1]
    assert spent(server) == 3


@pytest.mark.parametrize(("ids", "operations"), [(["a"], [1]), (["a", "b"], [2]), (["a", "b", "c"], [3])])
def test_new_records_are_put_in_one_operation(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    monkeypatch: pytest.MonkeyPatch,
    ids: list[str],
    operations: list[int],
) -> None:
    sizes: list[int] = []
    put = store.put
    journal = shared(worker())

    def counted(items: Sequence[Put]) -> list[str | None]:
        sizes.append(len(items))
        return put(items)

    monkeypatch.setattr(store_of(journal), "put", counted)
    assert journal.put_many([a_record(each) for each in ids]) == [PutResult.SAVED for _ in ids]
    assert sizes == operations
    assert len(records(store)) == len(ids)


def test_a_record_that_json_cannot_express_stops_no_other_one_of_its_round_trip(
    worker: Callable[..., cycles.Cycles], store: MemoryStore
) -> None:
    bad = a_record("bad", commit_body={"metadata": float("nan")})
    results = shared(worker()).put_many([a_record("first"), a_record("second"), bad, a_record("last")])
    assert results == [PutResult.SAVED, PutResult.SAVED, PutResult.FAILED, PutResult.SAVED]
    assert {record.reservation_id for record in records(store)} == {"first", "second", "last"}


def test_files_that_the_store_does_not_take_are_known_as_requests_of_unknown_cost(
    worker: Callable[..., cycles.Cycles], store: MemoryStore
) -> None:
    """A client charges these first. Of the two, the store is asked only for one while it fails."""
    journal = shared(worker())
    for name in ("first", "second"):
        assert journal.local.save(a_record(name, sent=True))
    store.fails = "it is down"
    found = journal.pending()
    assert journal.sent(found) == {file_name("first"), file_name("second")}


def test_a_client_says_at_its_start_what_a_store_may_lose(
    worker: Callable[..., cycles.Cycles], caplog: pytest.LogCaptureFixture
) -> None:
    class Lossy(MemoryStore):
        def bind(self, *_: Any, **__: Any) -> MemoryStore:
            return self

        def problems(self) -> list[str]:
            return ["appendonly is off"]

    worker(journal_store=Lossy())
    assert "the journal's store may lose records: appendonly is off" in caplog.text


def test_an_idle_worker_takes_what_another_one_leaves_without_a_call(
    worker: Callable[..., cycles.Cycles], server: cycles.EmbeddedServer
) -> None:
    worker(journal_claim_ms=1_000)
    owner = worker()
    leave_pending(owner, server)
    owner.close()  # its record is due now
    server.faults.clear()
    until(lambda: spent(server) == 3)


@pytest.mark.parametrize(("amount", "kept"), [(5, []), (6, ["may_be_charged"])])
def test_a_file_whose_record_another_client_has_is_rejected_if_that_has_another_amount(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, amount: int, kept: list[str]
) -> None:
    """What the ledger charges of the two, this client never learns."""
    first, second = shared(worker()), shared(worker())
    stored = a_record(base_url="")
    assert first.put(stored) is PutResult.SAVED
    body = {"idempotency_key": "key-1", "actual": {"unit": "TOKENS", "amount": amount}}
    left = evolve(stored, commit_body=body, event_fallback_body=body)
    assert second.local.put(left) is PutResult.SAVED
    second.pending()
    assert second.local.rejected() == [(left, reason) for reason in kept]
    assert second.local.pending() == []
    assert [record.actual for record in records(store)] == [stored.actual]


def test_no_other_worker_takes_a_record_before_the_end_of_its_rate_limit(
    worker: Callable[..., cycles.Cycles], clock: StoreClock
) -> None:
    owner, other = shared(worker()), shared(worker())
    in_an_hour_ms = time.time_ns() // 1_000_000 + 3_600_000
    assert owner.put(a_record(base_url="", not_before_ms=in_an_hour_ms)) is PutResult.SAVED
    found = []
    for waited_ms in (30_001, 1_800_000, 1_800_000):
        clock.now += waited_ms
        found.append(len(other.claim(9)))
    assert found == [0, 0, 1]


def test_a_record_that_many_workers_have_tried_during_an_outage_is_no_poison(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer, clock: StoreClock
) -> None:
    """Each of them ended its attempt: only a record that ends its workers is taken ten times without a put."""

    def has_tried() -> bool:
        return any(each.last_outcome for each in client.pending())

    leave_pending(worker(), server)
    for _ in range(11):
        clock.now += 30_001
        client = worker(retry_initial_delay=600.0, retry_max_delay=600.0)
        until(has_tried)
        client.close()
    server.faults.clear()
    assert worker().flush(PATIENCE_S).pending == 0
    assert (spent(server), rows_of(store)) == (3, {})
