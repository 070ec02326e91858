"""Real stores and real processes: what a fleet of four does when parts of it are killed, stopped or emptied.

`make test-stores` runs these; without the variables of its servers they are skipped.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._core.settlement.record import Record, encode
from cycles._journal.stores.shared import key_of
from cycles._journal.stores.store import Put
from tests.stores import servers
from tests.stores.servers import PASSWORD, POSTGRES, REDIS
from tests.support.inside import runtime_of
from tests.support.waiting import until

ACTION = ("llm.completion", "small-model")
ROOT = Path(__file__).parents[2]
URLS = {name: os.environ.get(name, "") for name in (REDIS, POSTGRES)}

pytestmark = pytest.mark.skipif(not all(URLS.values()), reason="make test-stores starts Redis and PostgreSQL")


@pytest.fixture(params=[REDIS, POSTGRES])
def url(request: pytest.FixtureRequest) -> str:
    return URLS[request.param]


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    tenant = f"t{secrets.token_hex(4)}"  # a partition of its own
    with cycles.EmbeddedServer({f"tenant:{tenant}": cycles.tokens(10**9)}) as server:
        yield server


@pytest.fixture
def worker(server: cycles.EmbeddedServer, url: str, tmp_path: Path) -> Iterator[Callable[..., cycles.Cycles]]:
    made: list[cycles.Cycles] = []

    def make(**options: Any) -> cycles.Cycles:
        own = {"journal_store": url, "journal_store_timeout": 30.0, "journal_dir": tmp_path / str(len(made))}
        options = {**own, "flush_timeout": 0.0, **options}
        made.append(server.client(**options))
        assert runtime_of(made[-1]).background._scanned.wait(60)
        return made[-1]

    yield make
    for client in made:
        client.close()


def store_of(client: cycles.Cycles) -> Any:
    return runtime_of(client).records.shared._store  # type: ignore[union-attr]


def spent(server: cycles.EmbeddedServer) -> int:
    return server.spent(f"tenant:{server.tenant}").amount


def leave_pending(client: cycles.Cycles, server: cycles.EmbeddedServer) -> None:
    guard = client.reserve(cycles.tokens(5), action=ACTION).acquire()
    server.faults.refuse("commit", times=None)
    assert guard.commit(cycles.tokens(3)).status == "pending"


def test_a_record_is_put_claimed_and_settled(
    worker: Callable[..., cycles.Cycles], server: cycles.EmbeddedServer
) -> None:
    first = worker(journal_claim_ms=1_000)
    leave_pending(first, server)
    assert len(store_of(first).list()) == 1
    runtime_of(first).background._claims.stop()  # it renews no more, as a process that was killed
    second = worker(journal_claim_ms=1_000)
    server.faults.clear()
    until(lambda: spent(server) == 3)
    until(lambda: store_of(second).list() == [])


def test_an_emptied_store_gets_its_records_again(
    worker: Callable[..., cycles.Cycles], server: cycles.EmbeddedServer
) -> None:
    client = worker(journal_claim_ms=1_000)
    leave_pending(client, server)
    (stored,) = store_of(client).list()
    store_of(client).delete([(stored.key, stored.fence)])
    until(lambda: [each.record for each in store_of(client).list()] == [stored.record])


def test_ten_thousand_due_records_are_settled_by_bounded_workers(
    worker: Callable[..., cycles.Cycles], server: cycles.EmbeddedServer
) -> None:
    client = worker()
    store, count = store_of(client), 10_000
    body = {"actual": {"unit": "TOKENS", "amount": 1}, "subject": {"tenant": server.tenant}}
    body["action"] = {"kind": "a", "name": "b"}
    records = [
        Record(
            reservation_id=f"event:k{number}",
            base_url="",
            mode="event",
            event_fallback_body={"idempotency_key": f"k{number}", **body},
            recorded_at_ms=time.time_ns() // 1_000_000,
        )
        for number in range(count)
    ]
    puts = [Put(key_of(record.reservation_id), encode(record)) for record in records]
    for start in range(0, count, 500):
        store.put(puts[start : start + 500])
    successor = worker()
    most = 0

    def is_settled() -> bool:
        nonlocal most
        most = max(most, len(runtime_of(successor).background._schedule.items))
        return spent(server) == count

    until(is_settled, 240)
    assert most <= 80
    until(lambda: store.list() == [])


def test_no_password_is_shown(url: str, server: cycles.EmbeddedServer, tmp_path: Path, caplog: Any) -> None:
    wrong = url.replace(PASSWORD, "another-secret")
    with server.client(journal_store=wrong, journal_dir=tmp_path, flush_timeout=0.0) as client:
        seen: list[Any] = []
        client.on_event(seen.append)
        guard = client.reserve(cycles.tokens(5), action=ACTION).acquire()
        guard.commit(cycles.tokens(3))
        shown = f"{client!r} {client.config!r} {caplog.text} {[event.text() for event in seen]}"
        shown += repr(runtime_of(client).records.shared._store)  # type: ignore[union-attr]
    assert "another-secret" not in shown
    assert spent(server) == 3  # as an outage


class TestAStoreThatHangs:
    """A private Redis that is stopped, killed, and started again."""

    @pytest.fixture
    def redis(self) -> Iterator[tuple[subprocess.Popen[bytes], str, Path, int]]:
        with tempfile.TemporaryDirectory() as name:
            port = servers.free_port()
            process = servers.start_redis(Path(name), port)
            yield process, f"redis://:{PASSWORD}@127.0.0.1:{port}/0", Path(name), port
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def test_a_commit_returns_in_time(self, redis: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        process, url, _, _ = redis
        with cycles.EmbeddedServer({"tenant:acme": cycles.tokens(1_000)}) as server:
            options: dict[str, Any] = {"journal_dir": tmp_path, "flush_timeout": 0.0}
            with server.client(journal_store=url, **options) as client:
                guards = [client.reserve(cycles.tokens(5), action=ACTION).acquire() for _ in range(2)]
                process.send_signal(signal.SIGSTOP)  # it would hang for ever
                assert guards[0].commit(cycles.tokens(3)).status == "committed"
                store = store_of(client)
                asked: list[object] = []
                monkeypatch.setattr(store, "put", asked.append)
                assert guards[1].commit(cycles.tokens(3)).status == "committed"  # straight to disk
                assert asked == []
                process.send_signal(signal.SIGCONT)
                assert server.spent("tenant:acme") == cycles.tokens(6)

    def test_files_move_into_a_redis_that_is_back(self, redis: Any, tmp_path: Path) -> None:
        process, url, folder, port = redis
        with cycles.EmbeddedServer({"tenant:acme": cycles.tokens(1_000)}) as server:
            options: dict[str, Any] = {"journal_dir": tmp_path, "flush_timeout": 0.0, "journal_claim_ms": 1_000}
            with server.client(journal_store=url, **options) as client:
                leave_pending(client, server)
                process.kill()
                process.wait()
                leave_pending(client, server)
                assert len(list(tmp_path.glob("*/v2-*.json"))) == 1
                again = servers.start_redis(folder, port)
                try:
                    until(lambda: len(list(tmp_path.glob("*/v2-*.json"))) == 0)
                    assert len(store_of(client).list()) == 2  # the first one survived in the append-only file
                    server.faults.clear()
                    client.flush()
                    until(lambda: store_of(client).list() == [])
                finally:
                    again.kill()
                    again.wait()
                assert server.spent("tenant:acme") == cycles.tokens(6)


def test_a_fleet_loses_two_of_four_workers_and_no_amount() -> None:
    words = [sys.executable, str(ROOT / "examples" / "fleet" / "run_fleet.py")]
    found = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "no amount was lost, none was charged twice" in found.stdout
