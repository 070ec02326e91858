"""Real stores with faults: a suspended worker, a store that is emptied, killed and restarted, and several tenants.

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
from tests.stores import servers
from tests.stores.servers import PASSWORD, POSTGRES, REDIS
from tests.support.inside import runtime_of
from tests.support.waiting import until

ACTION = ("llm.completion", "small-model")
URLS = {name: os.environ.get(name, "") for name in (REDIS, POSTGRES)}
CLAIM_MS = 1_000
WORKER = """
import sys, time
import cycles

url, key, store, folder, tenant = sys.argv[1:]
client = cycles.Cycles(
    base_url=url, api_key=key, tenant=tenant, journal_store=store, journal_dir=folder, journal_claim_ms=1000
)
for _ in range(3):
    guard = client.reserve(cycles.tokens(5), action=("a", "b")).acquire()
    assert guard.commit(cycles.tokens(3)).status == "pending"
print("pending", flush=True)
sys.stdin.readline()
client.close()
"""

pytestmark = pytest.mark.skipif(not all(URLS.values()), reason="make test-stores starts Redis and PostgreSQL")


@pytest.fixture(params=[REDIS, POSTGRES])
def url(request: pytest.FixtureRequest) -> str:
    return URLS[request.param]


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({f"tenant:t{secrets.token_hex(4)}": cycles.tokens(10**9)}) as server:
        yield server


@pytest.fixture
def make(server: cycles.EmbeddedServer, tmp_path: Path) -> Iterator[Callable[..., cycles.Cycles]]:
    made: list[cycles.Cycles] = []

    def client(store: str, **options: Any) -> cycles.Cycles:
        options = {"journal_claim_ms": CLAIM_MS, "flush_timeout": 0.0, "retry_max_delay": 1.0, **options}
        options.setdefault("journal_store_timeout", 30.0)  # of a busy machine
        made.append(server.client(journal_store=store, journal_dir=tmp_path / str(len(made)), **options))
        assert runtime_of(made[-1]).background._scanned.wait(60)
        return made[-1]

    yield client
    for each in made:
        each.close()


@pytest.fixture
def redis() -> Iterator[PrivateRedis]:
    with tempfile.TemporaryDirectory() as folder:
        started = PrivateRedis(Path(folder))
        yield started
        started.kill()


class PrivateRedis:
    """A Redis that is killed and started again with its append-only file."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, servers.free_port()
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        self._process = servers.start_redis(self._folder, self._port)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def spent(server: cycles.EmbeddedServer) -> int:
    return server.spent(f"tenant:{server.tenant}").amount


def stored(client: cycles.Cycles) -> list[Any]:
    found: list[Any] = runtime_of(client).records.shared._store.list()  # type: ignore[union-attr]
    return found


def commit(client: cycles.Cycles) -> str:
    return client.reserve(cycles.tokens(5), action=ACTION).acquire().commit(cycles.tokens(3)).status


def empty(url: str) -> None:
    """Delete everything from the store, as a failover to an empty replica does."""
    if url.startswith("redis"):
        import redis

        with redis.Redis.from_url(url) as connection:
            connection.flushall()
    else:
        import psycopg

        with psycopg.connect(url) as connection:
            connection.execute("truncate cycles_journal_j2")


@pytest.mark.parametrize("settled_before", [True, False], ids=["before it resumes", "after it resumes"])
def test_a_suspended_worker_whose_claims_another_one_has_taken(
    server: cycles.EmbeddedServer, make: Callable[..., cycles.Cycles], url: str, tmp_path: Path, settled_before: bool
) -> None:
    server.faults.refuse("commit", times=None)
    with server.listen() as address:
        words = [sys.executable, "-c", WORKER, address, server.api_key, url, str(tmp_path / "worker"), server.tenant]
        worker = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "pending\n"
            worker.send_signal(signal.SIGSTOP)
            survivor = make(url, base_url=address)
            until(lambda: len(survivor.pending()) == 3)
            if settled_before:
                server.faults.clear()
                until(lambda: spent(server) == 9)
            worker.send_signal(signal.SIGCONT)
            if not settled_before:
                server.faults.clear()
            worker.communicate("\n", timeout=300)
            assert worker.returncode == 0
            until(lambda: stored(survivor) == [])
            assert spent(server) == 9
        finally:
            worker.kill()
            worker.communicate()


def test_a_store_that_is_emptied_in_the_middle_loses_nothing_of_living_owners(
    server: cycles.EmbeddedServer, make: Callable[..., cycles.Cycles], url: str
) -> None:
    owners = [make(url), make(url)]
    server.faults.refuse("commit", times=None)
    for owner in owners:
        assert [commit(owner) for _ in range(10)] == ["pending"] * 10
    before = {each.key: each.record for each in stored(owners[0])}
    assert len(before) == 20
    empty(url)
    until(lambda: {each.key: each.record for each in stored(owners[0])} == before)
    server.faults.clear()
    until(lambda: spent(server) == 60)
    until(lambda: stored(owners[0]) == [])
    assert spent(server) == 60


@pytest.mark.parametrize("outage", ["disk", "memory"])
def test_a_redis_that_is_killed_and_restarted_costs_no_commit(
    server: cycles.EmbeddedServer,
    make: Callable[..., cycles.Cycles],
    redis: PrivateRedis,
    tmp_path: Path,
    outage: str,
) -> None:
    client = make(redis.url, journal_outage=outage)
    assert commit(client) == "committed"
    server.faults.refuse("commit", times=None)
    assert commit(client) == "pending"  # in Redis
    redis.kill()
    assert commit(client) == "pending"
    assert len(list(tmp_path.glob("*/*/v2-*.json"))) == (1 if outage == "disk" else 0)
    redis.start()
    until(lambda: len(stored(client)) == 2)
    until(lambda: list(tmp_path.glob("*/*/v2-*.json")) == [])
    server.faults.clear()
    until(lambda: spent(server) == 9)
    until(lambda: stored(client) == [])


def test_nothing_is_reserved_while_a_redis_is_down_with_journal_outage_refuse(
    server: cycles.EmbeddedServer, make: Callable[..., cycles.Cycles], redis: PrivateRedis
) -> None:
    client = make(redis.url, journal_outage="refuse")
    guard = client.reserve(cycles.tokens(5), action=ACTION).acquire()
    redis.kill()
    with pytest.raises(cycles.JournalUnavailableError, match="nothing was reserved"):
        client.reserve(cycles.tokens(5), action=ACTION).acquire()
    assert guard.commit(cycles.tokens(3)).status == "committed"  # the money is spent already
    assert spent(server) == 3
    redis.start()

    def reserves() -> bool:
        try:
            client.reserve(cycles.tokens(5), action=ACTION).acquire().release()
        except cycles.JournalUnavailableError:
            return False
        return True

    until(reserves)


def test_tenants_on_one_store_never_see_each_others_records(url: str, tmp_path: Path) -> None:
    names = [f"t{secrets.token_hex(4)}" for _ in range(2)]
    clients: list[cycles.Cycles] = []
    ledgers: list[cycles.EmbeddedServer] = []
    for name in names:
        ledgers.append(cycles.EmbeddedServer({f"tenant:{name}": cycles.tokens(1_000)}))
        options: dict[str, Any] = {"journal_claim_ms": CLAIM_MS, "journal_dir": tmp_path / name, "flush_timeout": 0.0}
        clients.append(ledgers[-1].client(journal_store=url, **options))
    ledgers[0].faults.refuse("commit", times=None)
    assert commit(clients[0]) == "pending"
    runtime_of(clients[0]).background._claims.stop()  # it renews no more
    assert stored(clients[1]) == []
    (left,) = stored(clients[0])
    until(lambda: left.due_ms < time.time_ns() // 1_000_000 - 1_000)  # the other one had time to claim it
    assert [each.fence for each in stored(clients[0])] == [left.fence]
    assert [ledger.spent(f"tenant:{name}").amount for name, ledger in zip(names, ledgers, strict=True)] == [0, 0]
    for client in clients:
        client.close()
