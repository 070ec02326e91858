"""Records under the names of earlier versions are moved by the first client that starts; and no start reads everything.

`make test-stores` runs these; without the variables of its servers they are skipped.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._core.settlement.record import Record, decode, encode
from cycles._journal.stores.postgres import PostgresStore
from cycles._journal.stores.redis import RedisStore
from cycles._journal.stores.shared import key_of
from cycles._journal.stores.store import PAGE, Put, pages, with_reason
from tests.journal.kit import a_record
from tests.stores.servers import POSTGRES, REDIS
from tests.support.inside import runtime_of
from tests.support.waiting import until

URLS = {name: os.environ.get(name, "") for name in (REDIS, POSTGRES)}
DAY_MS = 86_400_000
PENDING = 1_203  # more than two pages

OLD_TABLE = """create table if not exists cycles_journal (
  partition text, key text, record text not null, due timestamptz not null, fence bigint not null default 0,
  claims int not null default 0, recorded_at timestamptz not null default now(), quarantined text, rejected text,
  primary key (partition, key))"""

pytestmark = pytest.mark.skipif(not all(URLS.values()), reason="make test-stores starts Redis and PostgreSQL")


@pytest.fixture(params=[REDIS, POSTGRES])
def url(request: pytest.FixtureRequest) -> str:
    return URLS[request.param]


def record(number: int, name: str = "r") -> Record:
    return a_record(f"{name}-{number}", f"k-{name}-{number}")


def old_bytes(record: Record) -> bytes:
    """Return a record as an earlier version has written it: without the check, which is the first member now."""
    return b"{" + encode(record).partition(b",")[2]


def write_old(url: str, partition: str, now_ms: int) -> None:
    """Write what an earlier version has left: pending, rejected, settled by hand and quarantined records."""
    pending = [(key_of(f"r-{number}"), old_bytes(record(number))) for number in range(PENDING)]
    kept = {name: (key_of(f"{name}-0"), old_bytes(record(0, name))) for name in ("rejected", "settled", "bad")}
    if url.startswith("redis"):
        import redis

        with redis.Redis.from_url(url) as client:
            old = f"cycles:j1:{{{partition}}}:"
            client.hset(f"{old}records", mapping=dict(pending))
            client.zadd(f"{old}due", {key: now_ms - 1 for key, _ in pending})
            client.hset(f"{old}fence", pending[0][0], 3)
            for name, part in (("rejected", "rejected"), ("settled", "rejected"), ("bad", "quarantine")):
                key, raw = kept[name]
                value: dict[str, Any] = {"record": raw.decode(), "reason": "BUDGET_FROZEN", "at_ms": now_ms}
                value |= {"settled_at_ms": now_ms - DAY_MS} if name == "settled" else {}
                client.hset(f"{old}{part}", key, json.dumps(value))
        return
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(OLD_TABLE)
        insert = (
            "insert into cycles_journal (partition, key, record, due, claims, quarantined, rejected) "
            "values (%s, %s, %s, to_timestamp(%s / 1000.0), %s, %s, %s)"
        )
        rows: list[tuple[Any, ...]] = [
            (partition, key, raw.decode(), now_ms - 1, 0, None, None) for key, raw in pending
        ]
        for name, claims, quarantined, rejected, due in (
            ("rejected", 0, None, "BUDGET_FROZEN", now_ms),
            ("settled", -1, None, "BUDGET_FROZEN", now_ms - DAY_MS),
            ("bad", 0, "no record", None, now_ms),
        ):
            key, raw = kept[name]
            rows.append((partition, key, raw.decode(), due, claims, quarantined, rejected))
        with connection.cursor() as cursor:
            cursor.executemany(insert, rows)


def made(url: str, partition: str) -> Any:
    kind = RedisStore if url.startswith("redis") else PostgresStore
    return kind(url, partition=partition, timeout_s=30.0)


def test_the_first_client_moves_what_an_earlier_version_left(url: str) -> None:
    partition, now_ms = secrets.token_hex(8), time.time_ns() // 1_000_000
    write_old(url, partition, now_ms)
    store = made(url, partition)
    found = {each.key: each for each in pages(store)}
    settled = found.pop(key_of("settled-0"))
    assert {key: each.record for key, each in found.items()} == {
        key_of(f"r-{number}"): old_bytes(record(number)) for number in range(PENDING)
    }
    assert len(store.take(10, 1_000)) == 10, "they are due"
    assert abs(settled.due_ms - (now_ms + 29 * DAY_MS)) < 60_000, "it stays for 30 days after it was settled"
    assert decode(settled.record).rejected == "BUDGET_FROZEN"
    assert decode(settled.record).settled is not None
    (rejected,) = store.list("", 10, "rejected")
    assert (rejected.key, decode(rejected.record).rejected) == (key_of("rejected-0"), "BUDGET_FROZEN")
    (bad,) = store.list("", 10, "quarantined")
    assert bad.record == old_bytes(record(0, "bad"))
    store.delete([(each.key, each.fence) for each in pages(store)])
    again = made(url, partition)
    assert again.list() == [], "nothing is moved a second time"
    again.close()
    store.close()


def test_two_clients_that_start_together_move_each_record_once(url: str) -> None:
    import threading

    partition = secrets.token_hex(8)
    write_old(url, partition, time.time_ns() // 1_000_000)
    counts: list[int] = []

    def start() -> None:
        store = made(url, partition)
        counts.append(sum(1 for _ in pages(store)))
        store.close()

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts[-1] == PENDING + 1
    store = made(url, partition)
    assert sum(1 for _ in pages(store)) == PENDING + 1
    store.close()


def test_fifty_thousand_rejected_records_delay_no_start(url: str, tmp_path: Path, monkeypatch: Any) -> None:
    tenant = f"t{secrets.token_hex(4)}"
    with cycles.EmbeddedServer({f"tenant:{tenant}": cycles.tokens(1_000)}) as server:
        options: dict[str, Any] = {"journal_store": url, "journal_dir": tmp_path, "journal_store_timeout": 30.0}
        with server.client(**options) as client:
            shared: Any = runtime_of(client).records.shared
            store = shared._store
            raw = with_reason(encode(record(0)), "BUDGET_FROZEN")
            for start in range(0, 50_000, 2_500):
                store.put([Put(f"{number:064x}", raw, None, 0, "rejected") for number in range(start, start + 2_500)])
        sizes: list[int] = []
        kind = type(store)
        for method in ("list", "get", "take"):
            operation = getattr(kind, method)

            def counted(*words: Any, operation: Any = operation, **more: Any) -> Any:
                result = operation(*words, **more)
                sizes.append(len(result))
                return result

            monkeypatch.setattr(kind, method, counted)
        with server.client(**options) as client:
            assert runtime_of(client).background._scanned.wait(60)
            guard = client.reserve(cycles.tokens(5), action=("a", "b")).acquire()
            assert guard.commit(cycles.tokens(3)).status == "committed"
            assert sum(sizes) < PAGE, "a start reads none of them"
            assert len(client.pending(rejected=True)) == 50_000
            assert max(sizes) == PAGE, "they are read page by page"
        until(lambda: server.spent(f"tenant:{tenant}") == cycles.tokens(3))
