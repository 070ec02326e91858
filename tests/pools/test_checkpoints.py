"""When the sums of chunks are put into a shared store, and in which threads a client's pools work."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest

from cycles._core.settlement.record import Record
from cycles._drivers import pools as module
from cycles._drivers.pools import IDLE_TICKS, NO_LOCKS, WORKERS, Checkpoints, Pools

INTERVAL_S = 0.25


class Jobs:
    """A scheduler that runs nothing: the test does."""

    def __init__(self) -> None:
        self.pools: list[tuple[str, int]] = []
        self.timers: list[Any] = []
        self.jobs: list[tuple[Callable[[], object], object]] = []
        self.takes = True

    def worker_pool(self, name: str, workers: int) -> tuple[str, int]:
        self.pools.append((name, workers))
        return name, workers

    def at(self, when_s: float, job: Callable[[], object], worker_pool: object) -> str:
        self.timers.append((when_s, job, worker_pool))
        return "handle"

    def soon(self, job: Callable[[], object], worker_pool: object) -> bool:
        self.jobs.append((job, worker_pool))
        return self.takes


class Chunk:
    """A chunk of a pool, as checkpoints see it."""

    def __init__(self, name: str, spent: int = 5) -> None:
        self.name = name
        self.header: object = "header"
        self.begun = False
        self.spent = spent
        self.checkpoint = 0
        self.put_lock = contextlib.nullcontext()

    def record(self, now_ms: int) -> tuple[str, int, int]:
        return self.name, self.spent, now_ms


class Pool:
    def __init__(self, *chunks: Chunk) -> None:
        self.lock = contextlib.nullcontext()
        self.book = SimpleNamespace(chunks=list(chunks))


class Store:
    """The checkpoints that are put into a store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *pools: Pool) -> None:
        self.jobs = Jobs()
        self.put: list[object] = []
        self.result: bool | Exception = True
        self.pools = pools
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 100.0, time_ns=lambda: 7_999_999))
        these: Any = WeakSet(pools)
        this: Any = self
        jobs: Any = self.jobs
        self.checkpoints = Checkpoints(jobs, this, int(INTERVAL_S * 1000), these)

    def checkpoint(self, record: Any) -> bool:
        self.put.append(record)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def tick(self) -> None:
        [(_, job, _)] = self.jobs.timers
        self.jobs.timers.clear()
        job()


def test_a_sum_is_put_once_for_each_change(monkeypatch: pytest.MonkeyPatch) -> None:
    chunk, same, begun, unsaved = Chunk("a"), Chunk("b", 0), Chunk("c"), Chunk("d")
    begun.begun, unsaved.header = True, None
    store = Store(monkeypatch, Pool(same, chunk, begun, unsaved))
    store.checkpoints.start()
    assert store.jobs.pools == [("checkpoints", 1)]
    assert [(when_s, pool) for when_s, _, pool in store.jobs.timers] == [(100.0 + INTERVAL_S, ("checkpoints", 1))]
    store.tick()
    store.tick()
    assert store.put == [("a", 5, 7)]
    chunk.spent = 6
    store.result = False  # the store is down
    store.tick()
    store.result = True
    store.tick()
    store.tick()
    assert store.put[1:] == [("a", 6, 7)] * 2
    assert [each.checkpoint for each in (chunk, same, begun, unsaved)] == [6, 0, 0, 0]


@pytest.mark.parametrize("saved", [True, False])
def test_what_is_spent_while_a_sum_is_put_is_put_at_the_next_look(monkeypatch: pytest.MonkeyPatch, saved: bool) -> None:
    chunk, put = Chunk("a"), list[object]()
    store = Store(monkeypatch, Pool(chunk))

    def spend_meanwhile(record: Any) -> bool:
        put.append(record)
        if len(put) == 1:
            chunk.spent = 6  # another thread commits a guard
            return saved
        return True

    store.checkpoint = spend_meanwhile  # type: ignore[method-assign]
    store.checkpoints.start()
    for _ in range(3):
        store.tick()
    assert put == [("a", 5, 7), ("a", 6, 7)]


def test_a_chunk_whose_end_has_begun_since_the_look_is_not_put(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Chunk("a"), Chunk("b")
    store = Store(monkeypatch, Pool(first, second))

    class Lock:
        def __enter__(self) -> None:
            second.begun = True  # by another thread, while the first one is put

        def __exit__(self, *_: object) -> None:
            pass

    first.put_lock = Lock()  # type: ignore[assignment]
    store.checkpoints.start()
    store.tick()
    assert store.put == [("a", 5, 7)]


def test_a_bug_keeps_no_other_sum_from_the_store(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(monkeypatch, Pool(Chunk("a"), Chunk("b")))
    store.result = ZeroDivisionError()
    store.checkpoints.start()
    store.tick()
    assert store.put == [("a", 5, 7), ("b", 5, 7)]
    said = "the journal's store did not take a chunk of a pool, because of a bug; report this traceback"
    assert caplog.messages == [said] * 2
    assert [record.exc_info is not None for record in caplog.records] == [True] * 2
    assert len(store.jobs.timers) == 1


@pytest.mark.parametrize("pools", [(), (Pool(),)])
def test_the_timer_ends_after_some_ticks_without_chunks(
    monkeypatch: pytest.MonkeyPatch, pools: tuple[Pool, ...]
) -> None:
    store = Store(monkeypatch, *pools)
    for _ in range(2):
        store.checkpoints.start()
        for _ in range(IDLE_TICKS - 1):
            store.tick()
        store.checkpoints.start()  # one more chunk: it counts from there, and there is one timer
        for _ in range(IDLE_TICKS):
            assert len(store.jobs.timers) == 1
            store.tick()
        assert store.jobs.timers == []


def test_a_chunk_keeps_the_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool()
    store = Store(monkeypatch, pool)
    store.checkpoints.start()
    for _ in range(IDLE_TICKS - 1):
        store.tick()
    pool.book.chunks.append(Chunk("a", 0))
    for _ in range(3):
        store.tick()
    pool.book.chunks.clear()
    for _ in range(IDLE_TICKS):
        assert len(store.jobs.timers) == 1
        store.tick()
    assert store.jobs.timers == []


REGION = contextvars.ContextVar("region", default="none")


class Client:
    """The pools of a client with fake parts."""

    def __init__(self, files: Any = None, shared: Any = None) -> None:
        self.jobs = Jobs()
        self.problems: list[str] = []
        self.reporter: Any = SimpleNamespace(journal_problem=self.problems.append, trace=None)
        records: Any = SimpleNamespace(files=files, shared=shared)
        io: Any = SimpleNamespace()
        jobs: Any = self.jobs
        reporter: Any = self.reporter
        self.pools = Pools(jobs, io, records, reporter, 250, lambda _: None)


@pytest.mark.parametrize("takes", [True, False])
def test_a_chunk_is_opened_in_a_thread_outside_of_the_context_of_its_caller(takes: bool) -> None:
    client, seen = Client(), list[str]()
    client.jobs.takes = takes

    async def flow() -> None:
        seen.append(REGION.get())

    token = REGION.set("here")
    assert client.pools.soon(flow) is takes
    assert client.jobs.pools == [("pools", WORKERS)]
    [(job, worker_pool)] = client.jobs.jobs
    job()
    REGION.reset(token)
    assert (seen, worker_pool) == (["none"], ("pools", WORKERS))


def test_a_timer_of_a_pool_is_in_milliseconds() -> None:
    client = Client()
    assert client.pools.at(2_500.0, len) == "handle"  # type: ignore[arg-type, comparison-overlap]
    assert client.jobs.timers == [(2.5, len, ("pools", WORKERS))]


@pytest.mark.parametrize("has_shared", [True, False])
def test_the_log_of_a_chunk_starts_the_checkpoints_of_a_shared_store(has_shared: bool) -> None:
    files = SimpleNamespace(chunk_log=lambda header: f"log of {header}")
    client = Client(files, SimpleNamespace() if has_shared else None)
    header: Any = "chunk"
    log: Any = client.pools.open_log(header)
    assert log == "log of chunk"
    assert len(client.jobs.timers) == has_shared
    assert client.jobs.pools == [("pools", WORKERS), *[("checkpoints", 1)] * has_shared]


@pytest.mark.parametrize(
    ("has_files", "has_locks", "has_logs"), [(True, True, True), (True, False, False), (False, False, True)]
)
def test_a_system_without_file_locks_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, has_files: bool, has_locks: bool, has_logs: bool
) -> None:
    monkeypatch.setattr(module, "is_supported", lambda: has_locks)
    client = Client(SimpleNamespace() if has_files else None)
    assert [client.pools.has_logs for _ in range(3)] == [has_logs] * 3
    assert client.problems == [NO_LOCKS] * (not has_logs)
    for detail in ("one", "two", "one"):
        client.pools.report_problem(detail)
    assert client.problems[-2:] == ["one", "two"]
    assert len(client.problems) == 2 + (not has_logs)


class State:
    """A pool, in place of its state."""

    def __init__(self, options: Any, io: Any) -> None:
        self.options = options
        self.io = io
        self.settling = False


class PoolParts:
    """What a pool gets from its client."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts


@pytest.mark.parametrize("has_files", [True, False])
def test_a_pool_has_logs_only_if_its_client_has_files(monkeypatch: pytest.MonkeyPatch, has_files: bool) -> None:
    monkeypatch.setattr(module, "PoolState", State)
    monkeypatch.setattr(module, "PoolIo", PoolParts)
    client = Client(SimpleNamespace() if has_files else None)
    options: Any = "options"
    made: Any = client.pools.make(options)
    io, is_traced, soon, at, open_log, report_problem, *_ = made.io.parts
    assert (made.options, io) == ("options", client.pools.io)
    assert (soon, at, report_problem) == (client.pools.soon, client.pools.at, client.pools.report_problem)
    assert open_log == (client.pools.open_log if has_files else None)
    assert not is_traced()
    client.reporter.trace = "tracer"
    assert is_traced()


def test_the_close_settles_the_chunks_of_all_pools_and_ends_their_traces_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PoolState", State)
    monkeypatch.setattr(module, "PoolIo", PoolParts)
    record = Record(reservation_id="res-1", base_url="http://x")
    results: dict[str, Any] = {"kept": record, "taken by another": "Taken"}
    done: list[Any] = []

    async def saved(io: object, sealed: str, lease: object) -> Any:
        done.append(("saved", sealed))
        return results[sealed]

    leases: Any = {name: SimpleNamespace(end_trace=lambda name=name: done.append(("trace", name))) for name in results}
    monkeypatch.setattr(module, "settle_now", lambda pool: [(name, leases[name]) for name in pool.options])
    monkeypatch.setattr(module, "saved", saved)
    monkeypatch.setattr(
        module, "conclude", lambda io, sealed, result, lease: done.append(("concluded", sealed, result, lease))
    )
    monkeypatch.setattr(module, "live_guards", lambda pool: [f"guard of {name}" for name in pool.options])
    client = Client()
    kept: Any = ["kept"]
    taken: Any = ["taken by another"]
    pools: Any = [client.pools.make(kept), client.pools.make(taken)]
    guards: list[Any] = list(client.pools.guards())
    assert sorted(guards) == ["guard of kept", "guard of taken by another"]
    assert not client.pools.are_settling()
    pools[1].settling = True
    assert client.pools.are_settling()
    client.pools.close(lambda record, lease: done.append(("settle", record, lease)))
    assert [each for each in done if each[0] == "settle"] == [("settle", record, leases["kept"])]
    concluded = ("concluded", "taken by another", "Taken", leases["taken by another"])
    assert [each for each in done if each[0] == "concluded"] == [concluded]
    assert "trace" not in {each[0] for each in done}
    client.pools.closed()
    assert sorted(done[4:]) == [("trace", "kept"), ("trace", "taken by another")]
