"""A server that is down for an hour with thousands of settlements pending: a few requests, a few threads, no loss."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles._core.settlement.record import Record, event_record_id
from cycles._drivers.io.threads import BlockingIo
from cycles._journal.journal import Journal
from tests.recovery.kit import PATIENCE_S, TENANT, Setup, journal_files, records_in
from tests.support.short import fewer

HOUR_S = 3_600.0
BASE_URL = "http://ledger.test"
DEFAULT_LONGEST_PAUSE_S = cycles.Config().retry_max_delay


def leave_pending(root: Path, base_url: str, count: int) -> None:
    """What an earlier process left behind: direct events of one token each."""
    journal = Journal(
        root, base_url=base_url, tenant=TENANT, api_key="", report=lambda problem: pytest.fail(problem.message)
    )
    for number in range(count):
        body = {
            "idempotency_key": f"key-{number}",
            "subject": {"tenant": TENANT},
            "action": {"kind": "k", "name": "n"},
            "actual": {"unit": "TOKENS", "amount": 1},
        }
        journal.save(
            Record(
                reservation_id=event_record_id(f"key-{number}"),
                base_url=base_url,
                mode="event",
                event_fallback_body=body,
                recorded_at_ms=time.time_ns() // 1_000_000 - count + number,
            )
        )


class VirtualKeeper:
    """Replaces the scheduler's threads: runs each job when its time has come, one after the other."""

    def __init__(self, clock: SimpleNamespace) -> None:
        self._clock = clock
        self._jobs: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = itertools.count()
        self.stalled = False

    def worker_pool(self, name: str, workers: int) -> SimpleNamespace:
        return SimpleNamespace(scheduler=self, later=lambda delay_s, job: self.at(self._clock.now + delay_s, job, None))

    def at(self, when_s: float, job: Callable[[], object], worker_pool: object) -> SimpleNamespace:
        heapq.heappush(self._jobs, (when_s, next(self._serial), job))
        return SimpleNamespace(cancel=lambda: True)

    def soon(self, job: Callable[[], object], worker_pool: object) -> bool:
        self.at(self._clock.now, job, worker_pool)
        return True

    def close(self, timeout_s: float) -> None:
        self._jobs.clear()

    def run_for(self, seconds: float) -> None:
        end = self._clock.now + seconds
        while self._jobs and self._jobs[0][0] <= end:
            when_s, _, job = heapq.heappop(self._jobs)
            self._clock.now = max(self._clock.now, when_s)
            job()
        self._clock.now = end


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time the background sees."""
    clock = SimpleNamespace(now=1_000.0)
    virtual = SimpleNamespace(monotonic=lambda: clock.now, time_ns=time.time_ns)
    monkeypatch.setattr("cycles._drivers.work.queue.time", virtual)
    monkeypatch.setattr("cycles._drivers.work.work.time", virtual)
    return clock


@pytest.fixture
def scheduler(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> VirtualKeeper:
    scheduler = VirtualKeeper(clock)
    monkeypatch.setattr("cycles._drivers.runtime.Scheduler", lambda *_, **__: scheduler)
    return scheduler


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({f"tenant:{TENANT}": cycles.tokens(1_000_000)}) as server:
        yield server


def test_an_hour_of_outage_with_two_thousand_settlements_pending(
    tmp_path: Path, scheduler: VirtualKeeper, server: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = fewer(2_000, 8)
    leave_pending(tmp_path, BASE_URL, count)
    arrived: list[str] = []
    handle = server.handle

    def note(request: Any) -> Any:
        arrived.append(request.target)
        return handle(request)

    monkeypatch.setattr(server, "handle", note)
    server.faults.refuse("event", times=None)
    client = server.client(tenant=TENANT, journal_dir=tmp_path, base_url=BASE_URL)
    tracemalloc.start()
    scheduler.run_for(HOUR_S)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # One probe now and then, however much is pending; nothing lost; nothing of it in memory but names.
    assert 30 <= len(arrived) <= 150
    assert len(journal_files(tmp_path)) == count
    assert held < 4_000_000
    # Back: the next probe, at most the longest pause away, opens the way for all.
    server.faults.clear()
    arrived.clear()
    scheduler.run_for(DEFAULT_LONGEST_PAUSE_S)
    assert journal_files(tmp_path) == []
    assert server.spent(f"tenant:{TENANT}") == cycles.tokens(count)
    assert len(arrived) == count
    client.close()


def test_after_an_outage_that_was_longer_than_its_lease_no_create_is_sent_again(
    tmp_path: Path, scheduler: VirtualKeeper, server: cycles.EmbeddedServer
) -> None:
    """What it may have reserved is over by then, and another create would hold budget again."""
    with server.client(tenant=TENANT, journal_dir=tmp_path, base_url=BASE_URL, flush_timeout=0.0) as client:
        scheduler.run_for(0.0)  # the first scan of the journal, for which a create waits
        server.faults.drop_response("reserve", times=None)
        with pytest.raises(cycles.TransportError):
            client.reserve(cycles.tokens(100), action=("k", "n"), ttl_ms=1_000, grace_period_ms=0).acquire()
        server.faults.clear()
        server.faults.refuse("reserve", times=None)
        scheduler.run_for(DEFAULT_LONGEST_PAUSE_S)
        server.faults.clear()
        reserved = len(server.requests.of("reserve"))
        scheduler.run_for(HOUR_S)
        assert len(server.requests.of("reserve")) == reserved


def test_a_backlog_is_processed_by_few_threads(world: Setup) -> None:
    count = 100
    leave_pending(world.root, world.url, count)
    immediately = 0
    most_at_once = most_threads = 0
    lock = threading.Lock()
    mine = f"cycles-scheduler-{world.url.removeprefix('http://')}"

    def note(seen: Any) -> None:
        nonlocal most_threads
        threads = [thread for thread in threading.enumerate() if thread.name.startswith(mine)]
        most_threads = max(most_threads, len(threads))

    send = BlockingIo.send

    async def counted(io: Any, call: Any) -> Any:
        nonlocal immediately, most_at_once
        with lock:
            immediately += 1
            most_at_once = max(most_at_once, immediately)
        try:
            return await send(io, call)
        finally:
            with lock:
                immediately -= 1

    world.server.on_arrival = note
    with pytest.MonkeyPatch.context() as patch, world.client() as client:
        patch.setattr(BlockingIo, "send", counted)
        assert client.flush(timeout=PATIENCE_S).pending == 0
    assert world.server.charged == count
    assert world.leftovers == []
    assert 1 <= most_at_once <= 5  # four workers and the thread that flushes
    assert 1 <= most_threads <= 8


def test_a_client_starts_without_waiting_for_its_journal(world: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_pending(world.root, world.url, 1)
    go_on = threading.Event()
    real = Journal.pending

    def slow(journal: Journal) -> Any:
        assert go_on.wait(PATIENCE_S)
        return real(journal)

    monkeypatch.setattr(Journal, "pending", slow)
    monkeypatch.setattr("cycles._drivers.work.queue.SCAN_S", 0.01)
    client = world.client()  # returns, though the journal has not been read
    guard = client.reserve(cycles.tokens(10), action=("k", "n")).acquire()
    assert guard.commit(cycles.tokens(5)).status == "committed"
    go_on.set()
    client.flush(timeout=PATIENCE_S)
    client.close()
    assert world.server.charged == 6
    assert world.leftovers == []


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 404, "body": b"<html>no such page</html>"},
        {"status": 401, "body": {"error": "UNAUTHORIZED", "message": "m", "request_id": "r"}},
        {
            "status": 429,
            "body": {"error": "LIMIT_EXCEEDED", "message": "m", "request_id": "r"},
            "headers": {"Retry-After": "30"},
        },
    ],
    ids=["wrong address", "wrong key", "throttled"],
)
def test_a_failure_that_concerns_all_records_costs_few_requests(
    tmp_path: Path, scheduler: VirtualKeeper, server: cycles.EmbeddedServer, answer: dict[str, Any]
) -> None:
    leave_pending(tmp_path, BASE_URL, 200)
    server.faults.status("event", **answer, times=None)
    with server.client(tenant=TENANT, journal_dir=tmp_path, base_url=BASE_URL, flush_timeout=0.0) as client:
        scheduler.run_for(600.0)
        assert 3 <= len(server.requests.of("event")) <= 40
        assert [owed.reservation_id for owed in client.pending()] == [f"event:key-{number}" for number in range(200)]
        server.faults.clear()
        scheduler.run_for(DEFAULT_LONGEST_PAUSE_S)
    # Only what was told to wait, by the clock on the wall, is still there.
    assert all(record["not_before_ms"] for record in records_in(tmp_path))
    assert len(journal_files(tmp_path)) <= 40
