"""PostgreSQL behind a pooler in transaction mode: settings apply to the own transactions and to no other program.

`make test-stores` runs these; without the variables of its servers they are skipped.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._journal.stores.postgres import PostgresStore
from cycles._journal.stores.store import Put
from tests.stores.servers import PGBOUNCER, POSTGRES, pgbouncer
from tests.support.waiting import until

URL = os.environ.get(PGBOUNCER, "")

pytestmark = pytest.mark.skipif(not URL, reason="make test-stores starts PgBouncer")
SETTINGS = "select current_setting('synchronous_commit'), current_setting('statement_timeout')"
MODES = {"process": "off", "disk": "on"}


@pytest.fixture(params=["process", "disk"])
def durability(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def store(durability: Any) -> Iterator[PostgresStore]:
    store = PostgresStore(URL, partition=secrets.token_hex(8), durability=durability, timeout_s=30.0)
    yield store
    store.close()


@pytest.fixture
def asynchronous() -> Iterator[str]:
    """The URL of another pooler, with a role whose commits do not wait for the disk, as an operator may have set it."""
    import psycopg

    with psycopg.connect(os.environ[POSTGRES], autocommit=True) as operator:
        operator.execute("alter role cycles set synchronous_commit = off")
        try:
            with pgbouncer(os.environ[POSTGRES]) as url:
                yield url
        finally:
            operator.execute("alter role cycles reset synchronous_commit")


def other_program() -> list[tuple[str, str]]:
    """Return the settings that another program finds on each connection of the pooler to the database."""
    import psycopg

    connections: list[Any] = [psycopg.connect(URL, prepare_threshold=None) for _ in range(2)]
    try:
        # Both transactions are open at once, so that each one has another connection of the two.
        return [connection.execute(SETTINGS).fetchone() for connection in connections]
    finally:
        for connection in connections:
            connection.close()


def test_each_transaction_has_its_settings(store: PostgresStore, durability: str) -> None:
    ((commits, timeout),) = store._link.run(SETTINGS)
    assert (commits, timeout) == (MODES[durability], "30s")


def test_disk_waits_for_the_disk_on_every_connection(durability: Any, asynchronous: str) -> None:
    """The pooler gives a transaction any of its connections, which other programs have used before."""
    found: list[Any] = []

    def look() -> None:
        own = PostgresStore(asynchronous, partition="p", durability=durability, timeout_s=30.0)
        found.append(own._link.run(f"{SETTINGS}, pg_sleep(0.2)::text")[0][0])
        own.close()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [MODES[durability]] * 4


def test_no_setting_stays_on_a_connection_of_the_pooler(store: PostgresStore) -> None:
    before = other_program()
    for number in range(20):
        store.put([Put(f"{number:064x}", b"{}", None, 60_000)])
        store.take(1, 1_000)
    assert sorted(other_program()) == sorted(before)
    assert {timeout for _, timeout in before} == {"0"}


def test_two_stores_take_turns_on_the_connections_of_the_pooler(store: PostgresStore) -> None:
    others = [PostgresStore(URL, partition=store._partition, timeout_s=30.0) for _ in range(4)]
    keys = [f"{number:064x}" for number in range(100)]

    def put(number: int) -> None:
        for key in keys[number::4]:
            others[number].put([Put(key, b"{}", None, 60_000)])

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.key for each in store.list()] == keys
    for other in others:
        other.close()


def test_a_client_settles_behind_a_pooler(durability: Any, tmp_path: Path) -> None:
    tenant = f"t{secrets.token_hex(4)}"
    with cycles.EmbeddedServer({f"tenant:{tenant}": cycles.tokens(1_000)}) as server:
        options: dict[str, Any] = {"journal_store": URL, "journal_dir": tmp_path, "durability": durability}
        with server.client(journal_store_timeout=30.0, flush_timeout=0.0, **options) as client:
            guard = client.reserve(cycles.tokens(5), action=("a", "b")).acquire()
            server.faults.refuse("commit", times=None)
            assert guard.commit(cycles.tokens(3)).status == "pending"
            server.faults.clear()
            client.flush(30.0)
            until(lambda: client.pending() == [])
        assert server.spent(f"tenant:{tenant}") == cycles.tokens(3)
        assert list(tmp_path.glob("*/v2-*")) == []
