"""The connections of `RedisStore`: closed by the server, slow, forked. See `make test-stores`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
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


def test_operations_one_after_the_other_use_one_connection(operator: Any) -> None:
    name = secrets.token_hex(8)
    store = RedisStore(f"{URL}?client_name={name}", partition=name, timeout_s=60.0)
    assert [store.put([item(number)]) for number in range(10)].count([None]) == 0
    assert len(store.list()) == 10
    assert [each["name"] for each in operator.client_list()].count(name) == 1
    store.close()
    until(lambda: name not in [each["name"] for each in operator.client_list()], 120.0)
    assert name not in [each["name"] for each in operator.client_list()]


def test_a_connection_that_the_server_closed_while_idle_loses_no_put(store: RedisStore, operator: Any) -> None:
    store.put([item(0)])
    operator.client_kill_filter(_type="normal")  # not the connection of the operator itself
    first, second = store.put([item(1), item(1, "another")])
    assert (first is not None, second) == (True, None)
    assert len(store.list()) == 2


def test_a_late_response_is_not_that_of_the_next_put(store: RedisStore, operator: Any) -> None:
    quick = RedisStore(URL, partition=store._partition, timeout_s=0.4)
    store.put([item(0)])
    until(lambda: _responds(quick), 120.0)
    operator.client_pause(600_000, all=False)  # writes wait
    try:
        with pytest.raises(StoreError, match="the operation put of Redis failed: TimeoutError"):
            quick.put([item(0, "another")])  # its response, when it comes, is None
    finally:
        operator.client_unpause()
    until(lambda: _responds(quick), 120.0)
    quick.close()


def _responds(store: RedisStore) -> bool:
    with contextlib.suppress(StoreError):  # a slow machine
        return len(store.list()) == 1
    return False


def test_a_script_that_redis_forgot_is_loaded_again(store: RedisStore, operator: Any) -> None:
    store.put([item(0)])
    operator.script_flush()
    assert store.put([item(1)]) != [None]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_makes_its_own_connection(store: RedisStore, operator: Any) -> None:
    store.put([item(0)])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = int(store.put([item(1)]) == [None])
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert store.put([item(2)]) != [None]
    assert len(store.list()) == 3
