"""The connection that `RedisStore` keeps for its puts: closed by the server, slow, forked. See `make test-stores`."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from cycles._errors import StoreError
from cycles._journal.stores.redis import RedisStore
from cycles._journal.stores.store import Put
from tests.stores.servers import REDIS
from tests.support.waiting import until

URL = os.environ.get(REDIS, "")

pytestmark = pytest.mark.skipif(not URL, reason="make test-stores starts Redis")


@pytest.fixture
def store() -> Iterator[RedisStore]:
    store = RedisStore(URL, partition=secrets.token_hex(8), timeout_s=60.0)
    yield store
    store.close()


@pytest.fixture
def operator() -> Iterator[Any]:
    import redis

    with redis.Redis.from_url(URL) as client:
        yield client


def item(number: int, fence: str | None = None) -> Put:
    return Put(hashlib.sha256(str(number).encode()).hexdigest(), b"record", fence, 60_000)


def count_of_uses(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows with each connection that is taken from the pool."""
    pool, uses = store._client.connection_pool, list[int]()
    get_connection = pool.get_connection

    def counted(*words: Any) -> Any:
        uses.append(1)
        return get_connection(*words)

    monkeypatch.setattr(pool, "get_connection", counted)
    return uses


def test_puts_keep_one_connection(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put([item(0)])
    uses = count_of_uses(store, monkeypatch)
    assert [store.put([item(number)]) for number in range(1, 11)].count([None]) == 0
    assert uses == []
    assert len(store.list()) == 11


def test_a_connection_that_the_server_closed_while_idle_loses_no_put(store: RedisStore, operator: Any) -> None:
    store.put([item(0)])
    operator.client_kill_filter(_type="normal")  # not the connection of the operator itself
    first, second = store.put([item(1), item(1, "another")])
    assert (first is not None, second) == (True, None)
    assert len(store.list()) == 2


def test_a_connection_that_is_lost_later_fails_the_put_and_is_made_again(store: RedisStore, operator: Any) -> None:
    """The time of an operation is over then; its outcome is unknown."""
    store.put([item(0)])
    store._link._repeat_s = -1.0  # type: ignore[union-attr]
    operator.client_kill_filter(_type="normal")
    with pytest.raises(StoreError, match="the operation put of Redis failed: ConnectionError"):
        store.put([item(1)])
    assert store.put([item(1)]) != [None]


def test_a_late_response_is_not_that_of_the_next_put(store: RedisStore, operator: Any) -> None:
    store.put([item(0)])
    store._link._own.connection._sock.settimeout(0.2)  # type: ignore[union-attr]
    operator.client_pause(600_000, all=False)  # writes wait
    try:
        with pytest.raises(StoreError, match="the operation put of Redis failed: TimeoutError"):
            store.put([item(0, "another")])  # its response, when it comes, is None
    finally:
        operator.client_unpause()
    assert store.put([item(1)]) != [None]


def test_a_script_that_redis_forgot_is_loaded_again(store: RedisStore, operator: Any) -> None:
    store.put([item(0)])
    operator.script_flush()
    assert store.put([item(1)]) != [None]


def test_a_second_thread_does_not_wait_for_the_connection(store: RedisStore) -> None:
    store.put([item(0)])
    done: list[str | None] = []
    with store._link._lock:  # type: ignore[union-attr]
        thread = threading.Thread(target=lambda: done.extend(store.put([item(1)])))
        thread.start()
        thread.join(20.0)
    assert done not in ([], [None])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_makes_its_own_connection(store: RedisStore, operator: Any) -> None:
    store.put([item(0)])
    parents = store._link._own  # type: ignore[union-attr]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            saved = store.put([item(1)])
            status = int(saved == [None] or store._link._own is parents)  # type: ignore[union-attr]
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert store.put([item(2)]) != [None]
    assert len(store.list()) == 3


def test_a_closed_store_leaves_no_connection(operator: Any) -> None:
    name = secrets.token_hex(8)
    store = RedisStore(f"{URL}?client_name={name}", partition=name, timeout_s=60.0)
    store.put([item(0)])
    store.list()
    assert [each["name"] for each in operator.client_list()].count(name) == 2
    store.close()
    until(lambda: name not in [each["name"] for each in operator.client_list()], 120.0)
    assert name not in [each["name"] for each in operator.client_list()]
