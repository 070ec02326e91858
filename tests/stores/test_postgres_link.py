"""The connection of `PostgresStore`: closed by the server, or without prepared statements. See `make test-stores`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from cycles._errors import StoreError
from cycles._journal.stores.postgres import PostgresStore
from cycles._journal.stores.store import Put
from tests.stores.servers import POSTGRES
from tests.support.points import run_at

URL = os.environ.get(POSTGRES, "")

pytestmark = pytest.mark.skipif(not URL, reason="make test-stores starts PostgreSQL")


@pytest.fixture
def store() -> Iterator[PostgresStore]:
    store = PostgresStore(URL, partition=secrets.token_hex(8), timeout_s=60.0)
    store.put([item(0)])
    yield store
    store.close()


def item(number: int) -> Put:
    return Put(hashlib.sha256(str(number).encode()).hexdigest(), b"record", None, 60_000)


def terminate(store: PostgresStore) -> None:
    """End the process of the server that serves the store, and wait until it has ended."""
    import psycopg

    ((pid,),) = store._link.run("select pg_backend_pid()::text")
    assert pid is not None
    with psycopg.connect(URL, autocommit=True) as operator:
        ended: Any = operator.execute("select pg_terminate_backend(%s, 60000)", [int(pid)]).fetchone()
    assert ended == (True,)


def test_a_connection_that_the_server_closed_while_idle_loses_no_put(store: PostgresStore) -> None:
    for number in range(1, 4):
        terminate(store)
        assert store.put([item(number)]) != [None]
    assert len(store.list()) == 4


def test_a_wrong_statement_keeps_the_connection(store: PostgresStore) -> None:
    before = store._link.run("select pg_backend_pid()::text")
    with pytest.raises(StoreError, match="no_such_table"):
        store._link.run("select * from no_such_table")
    assert store._link.run("select pg_backend_pid()::text") == before


def test_the_message_of_a_lost_connection_is_one_line(store: PostgresStore) -> None:
    with pytest.raises(StoreError, match="the database failed") as raised:
        store._link.run("select pg_terminate_backend(pg_backend_pid())::text, pg_sleep(60)::text")
    assert "\n" not in str(raised.value)
    assert store.put([item(1)]) != [None]


def test_a_signal_handler_may_use_the_store_in_the_middle_of_each_operation(store: PostgresStore) -> None:
    number, more, handled = 0, True, list[object]()

    def handle() -> None:
        handled.extend(store.put([item(10_000 + number)]))

    while more:
        more = run_at("/cycles/_journal/stores/postgres", number, handle, partial(store.put, [item(number + 1)]))
        number += 1
    assert number > 50
    assert len(handled) == number - 1
    assert None not in handled
    assert len(store.list("", 1_000)) == 2 * number  # with the first one of the fixture


def test_an_operation_that_is_interrupted_delays_no_later_one() -> None:
    number, more = 0, True
    store = PostgresStore(URL, partition=secrets.token_hex(8), timeout_s=5.0)
    store.put([item(0)])
    while more:
        with contextlib.suppress(KeyboardInterrupt):
            more = run_at("/cycles/_journal/stores/postgres", number, interrupt, partial(store.get, ["a"]))
        assert store.get([item(0).key]) != [None]
        number += 1
    store.close()
    assert number > 50


def interrupt() -> None:
    raise KeyboardInterrupt
