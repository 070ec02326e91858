"""What threads of a client share is used with a lock held: without it, a rare switch of threads loses an amount."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._core.settlement.put import PutResult
from cycles._drivers.api_key import KeySource
from cycles._drivers.journal import writer as journal_writer
from cycles._drivers.journal.loop_writer import LoopWriter
from cycles._drivers.journal.writer import JournalWriter
from cycles._drivers.pools import Checkpoints
from cycles._drivers.work.queue import WorkQueue
from cycles._drivers.work.scheduler import Handle, Scheduler, WorkerPool
from cycles._drivers.write_ahead import Entry, WriteAhead
from cycles._flows.approval import _Gate
from cycles._flows.guard_state import GuardState
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.pool.parts import Place, PoolChunk
from cycles._flows.pool.pool import PoolState
from cycles._journal.files.record_files import SpareFiles
from cycles._journal.files.spend import Slot, SpendLog
from cycles._journal.stores.batch import Combiner
from cycles._journal.stores.files import FileStore
from cycles._journal.stores.health import StoreHealth
from cycles._journal.stores.memory import MemoryStore
from cycles._journal.stores.shared import StoreJournal
from cycles._journal.stores.store import Put
from tests.journal.kit import a_record, a_sum
from tests.stores.kit import StoreClock
from tests.stores.test_pools import checkpoint
from tests.stores.test_store_journal import NAME, Client, Noted
from tests.support.held import Watch
from tests.support.inside import ahead_lock_of, pool_of, runtime_of, state_of, write_waiting

ACTION, USD = ("llm.completion", "n"), cycles.usd


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({"tenant:acme": USD(1_000)}) as server:
        yield server


def spend(client: cycles.Cycles, **options: Any) -> None:
    guard = client.reserve(USD(1), action=ACTION).acquire()
    guard.spend(USD("0.5"))
    guard.commit(**options)


def test_the_queue_of_pending_work(server: cycles.EmbeddedServer, watch: Watch, tmp_path: Path) -> None:
    watch.of(
        WorkQueue,
        "_lock",
        "_schedule _untried _scan_begun _wake_at",
        "_workers _is_watched _done _sent _closed _is_closing",
    )
    with server.client(journal_dir=tmp_path, retry_initial_delay=0.01) as client:
        spend(client, wait=False)
        client.flush()
        server.faults.refuse("commit")
        spend(client)
        client.pending()
        client.flush()
    assert watch.used >= {"_schedule", "_untried", "_scan_begun", "_workers", "_done", "_closed", "_is_closing"}
    # A look whether anything is pending, and the begin of a close.
    assert watch.without.keys() == {"_schedule in server_responded", "_is_closing in decline"}


def test_the_queue_of_an_event_loop(server: cycles.EmbeddedServer, watch: Watch, tmp_path: Path) -> None:
    watch.of(WorkQueue, "_lock", "_schedule", "_workers _done")
    watch.of(JournalWriter, "_lock", written="_worker")

    async def use(client: cycles.Cycles) -> None:
        for wait in (True, False, False):
            guard = await client.reserve(USD(1), action=ACTION)
            await guard.commit(USD(1), wait=wait)
        server.faults.refuse("commit", times=None)
        guard = await client.reserve(USD(1), action=ACTION)
        await guard.commit(USD(1), wait=False)

    with server.client(journal_dir=tmp_path, retry_initial_delay=0.01, flush_timeout=0.0) as client:
        asyncio.run(use(client))
        server.faults.clear()
        queue = runtime_of(client).background
        assert queue.unsettled() >= set()
        queue.record("rsv_unknown")
    assert watch.used >= {"_schedule", "_worker"}
    assert not watch.without.keys() - {"_schedule in server_responded"}


def test_the_thread_of_the_journal(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one takes its place while the file system hangs, and ends when it is idle."""
    watch.of(JournalWriter, "_lock", written="_worker")
    threads: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: threads.append(thread))
    monkeypatch.setattr(journal_writer, "STUCK_S", 0.0)
    monkeypatch.setattr(journal_writer, "IDLE_S", 0.0)
    writer = JournalWriter(lambda record: PutResult.SAVED if writer.replace_if_stuck() else PutResult.FAILED, print)

    async def put() -> PutResult:
        saved = asyncio.ensure_future(LoopWriter(writer, asyncio.get_running_loop()).put(a_record()))
        await asyncio.sleep(0)
        for _ in range(2):
            threads.pop().run()
        return await saved

    assert asyncio.run(put()) is PutResult.SAVED
    assert threads == []
    assert watch.used == {"_worker"}
    assert not watch.without


def test_the_timer_and_its_workers(server: cycles.EmbeddedServer, watch: Watch, tmp_path: Path) -> None:
    watch.of(Scheduler, "_lock", "timetable pools", "_thread wakes_at_s _closed")
    watch.of(WorkerPool, "scheduler._lock", "_waiting _idle", "_started _grow_at_s")
    watch.of(Handle, "_pool.scheduler._lock", "_in_table", "_job")
    with server.client(journal_dir=tmp_path) as client:
        spend(client)
        pool = client.pool(USD(5), action=ACTION)
        with pool.reserve(USD(1)) as guard:
            guard.commit(USD("0.5"))
        spend(client, wait=False)
    assert watch.used >= {"timetable", "pools", "_thread", "_closed", "_waiting", "_idle", "_started", "_job"}
    assert not watch.without


def test_a_lease_and_its_guard(server: cycles.EmbeddedServer, watch: Watch) -> None:
    watch.of(Heartbeat, "_lock", "_attempting", "ended owner step stop lease key")
    written = "_state spent steps _settled counted_usage claimed in_block"
    watch.of(GuardState, "_lock", written=written)
    with server.client() as client:
        with client.reserve(USD(1), action=ACTION) as guard:
            guard.spend(USD("0.5"))
            guard.step()
            guard.extend()
            guard.usage.add(tokens_input=1)
            state_of(guard).when_settled()
            guard.commit()
        client.reserve(USD(1), action=ACTION).acquire().release()
    assert watch.used >= {
        "_state",
        "spent",
        "steps",
        "counted_usage",
        "claimed",
        "in_block",
        "_settled",
        "ended",
        "step",
        "lease",
    }
    assert watch.without.keys() == {"in_block in _leave"}  # the block has ended


def test_a_pool(server: cycles.EmbeddedServer, watch: Watch, tmp_path: Path) -> None:
    watch.of(PoolState, "lock", "_unused", "book redo closed settling awaited directs opened denied")
    watch.of(
        PoolChunk,
        lambda: pool_of(client).lock,
        written="sums begun is_held has_thread is_next_wanted",
    )
    watch.of(Place, lambda: pool_of(client).lock, written="is_live is_awaited chunk ahead")
    with server.client(journal_dir=tmp_path) as client:
        pool = client.pool(USD(5), action=ACTION)
        for amount in ("0.5", "2"):
            with pool.reserve(USD(1)) as guard:
                guard.spend(USD("0.1"))
                guard.commit(USD(amount))
        with pool.reserve(USD(1)) as guard:
            guard.release()
        with pool.reserve(USD(100)) as guard:
            guard.commit(USD(1))
        pool.close()
    assert watch.used >= {
        "book",
        "redo",
        "closed",
        "settling",
        "awaited",
        "directs",
        "opened",
        "sums",
        "begun",
        "is_held",
    }
    assert watch.used >= {"is_live", "is_awaited", "chunk", "ahead"}
    # A pool that no thread uses yet, or any more.
    assert watch.without.keys() == {"closed in _state", "closed in _close"}


def test_files_of_records_and_of_spend(server: cycles.EmbeddedServer, watch: Watch, tmp_path: Path) -> None:
    watch.of(SpareFiles, "_lock", "_spares _placed", "_closed")
    watch.of(SpendLog, "lock", "_free _files _closed")
    watch.of(WriteAhead, "_lock", written="_waiting")
    with server.client(journal_dir=tmp_path) as client:
        for _ in range(3):
            spend(client)
    assert watch.used >= {"_spares", "_placed", "_free", "_files", "_closed"}
    assert watch.without.keys() == {"_spares in write", "_placed in remove"}  # one step of a container


def test_a_store(server: cycles.EmbeddedServer, watch: Watch, tmp_path: Path) -> None:
    watch.of(StoreJournal, "_lock", "_finished _open _watched")
    watch.of(StoreHealth, "_lock", written="_pause_s _until_s _claim_from_s")
    watch.of(Combiner, "_changed", "_batch _waiting")
    watch.of(Checkpoints, "_lock", "_idle", "_timer")
    with server.client(journal_dir=tmp_path, journal_store=MemoryStore()) as client:
        spend(client)
        pool = client.pool(USD(5), action=ACTION)
        with pool.reserve(USD(1)) as guard:
            guard.commit(USD("0.5"))
        pool.close()
    assert watch.used >= {"_finished", "_open", "_watched", "_batch", "_waiting", "_idle", "_timer"}
    assert not watch.without


def test_what_a_client_knows_of_the_records_in_a_store(watch: Watch, tmp_path: Path) -> None:
    """Two chunks that another client takes, of which this one takes one back, then an outage in which it closes."""
    store = Noted(clock := StoreClock())
    client, other = (Client(store, clock, tmp_path / name) for name in ("one", "other"))
    journal = client.journal
    watch.of(StoreJournal, "_lock", "_held _taken _parted _watched _open _finished")
    watch.of(StoreHealth, "_lock", written="_pause_s _until_s _claim_from_s")
    journal.put_many([a_record("one"), a_record("two")])
    journal.checkpoint(a_sum(7, 2))
    journal.put(settled := a_sum(3, 1, reservation_id="rsv_2"))
    clock.now += 30_000
    other.journal.claim(9)
    journal.tick(0)
    other.journal.put(a_sum(7, 2, "event"))
    other.journal.delete(settled)
    other.journal.settle_finished()
    journal.tick(0)
    clock.now += 30_000
    journal.claim(9)
    journal.sent([NAME])
    journal.put(a_record("two").to_event_mode(5_000))
    journal.put(a_sum(9, 3))
    journal.leave(a_sum(9, 3))
    journal.delete(a_record("one"))
    journal.settle_finished()
    store.fails = "it is down"
    journal.put(a_record("three"))
    journal.reject(a_record("two"), "no budget")
    journal.close()
    store.fails = None
    client.seconds = 9.0
    journal.tick(9)
    shared = {"_held", "_taken", "_parted", "_watched", "_open", "_finished"}
    assert watch.used == {*shared, "_pause_s", "_until_s", "_claim_from_s"}
    # One step of a dict.
    steps = {"_held in _put", "_held in _renew", "_held in _move_own", "_held in reject", "_taken in reject"}
    assert watch.without.keys() == steps | {"_taken in _watch", "_held in keeps_commit"}


def test_a_store_of_files(watch: Watch, tmp_path: Path) -> None:
    watch.of(FileStore, "_lock", "_own")
    store = FileStore(tmp_path, lambda: "p", sync=False)
    store.put([Put("a" * 64, b"{}")])
    assert store.take(9, 0) == []
    assert watch.used == {"_own"}
    assert not watch.without


def test_what_is_written_ahead_of_one_guard(server: cycles.EmbeddedServer, watch: Watch, tmp_path: Path) -> None:
    """Another guard gets the slot of one that has ended, and a request ends in another thread than it began."""
    watch.of(SpendLog, "lock", "_free")
    watch.of(Slot, "_lock", "ended")
    watch.of(Entry, "_log.lock", "_slot")
    watch.of(GuardState, lambda: ahead_lock_of(client), written="sent ahead")
    with server.client(journal_dir=tmp_path) as client:
        log = runtime_of(client).records.spend_log()
        assert log is not None
        slot = log.open_slot()
        assert slot is not None
        slot.end()
        log.close()
        guard = client.reserve(USD(1), action=ACTION).acquire()
        runtime_of(client).ahead.sent(state_of(guard), 5)
        runtime_of(client).ahead.ended(state_of(guard), 5)
        state_of(guard).ahead.replace(a_record())
        guard.commit(USD("0.5"))
    assert watch.used == {"_free", "ended", "_slot", "sent", "ahead"}
    assert watch.without.keys() == {"_slot in end"}


@pytest.mark.parametrize("member", ["begun", "checkpoint"])
def test_the_checkpoints_of_a_pool(server: cycles.EmbeddedServer, watch: Watch, tmp_path: Path, member: str) -> None:
    """The sum is read under the lock of the pool, and put under that of the chunk."""
    watch.of(Checkpoints, "_lock", "_idle")
    watch.of(PoolState, "lock", "book")
    watch.of(PoolChunk, (lambda: pool_of(client).lock) if member == "begun" else "put_lock", member)
    with server.client(journal_dir=tmp_path, journal_store=MemoryStore()) as client:
        pool = client.pool(USD(5), action=ACTION)
        with pool.reserve(USD(1)) as guard:
            guard.commit(USD("0.5"))
        checkpoint(client)
        pool.close()
    assert watch.used == {"_idle", "book", member}
    assert not watch.without.keys() & {"_idle in _tick", "book in _open_chunks", f"{member} in _save_sum"}


def test_spend_that_is_written_later(
    server: cycles.EmbeddedServer, watch: Watch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    watch.of(WriteAhead, "_lock", "_waiting")
    with server.client(journal_dir=tmp_path) as client:
        guard = client.reserve(USD(1), action=ACTION).acquire()
        for _ in range(3):
            guard.spend(USD("0.1"))
        monkeypatch.setattr("cycles._drivers.write_ahead.INTERVAL_S", 0.0)
        write_waiting(client)
        guard.commit()
    assert watch.used == {"_waiting"}
    assert watch.without.keys() == {"_waiting in spent"}  # a look whether it waits


def test_an_approval(server: cycles.EmbeddedServer, watch: Watch) -> None:
    watch.of(_Gate, "_lock", "_granted _turn")
    with server.client(approve=lambda request: True, approve_above=0.5) as client:
        for amount in (600, 1):
            client.reserve(USD(amount), action=ACTION).acquire().commit(USD(amount))
    assert watch.used == {"_granted", "_turn"}
    assert not watch.without


def test_a_key_that_a_function_returns(server: cycles.EmbeddedServer, watch: Watch) -> None:
    watch.of(KeySource, "_lock", "_key")
    with server.client(api_key=lambda: server.api_key_for("acme")) as client:
        assert list(client.balances())
    assert watch.used == {"_key"}
    assert not watch.without
