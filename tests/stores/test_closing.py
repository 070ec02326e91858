"""A client that is closed while its store does not respond leaves its records on its own disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._journal.stores.memory import MemoryStore
from tests.stores.kit import ACTION, FIVE, THREE, records, shared, spent
from tests.support.inside import table_of


@pytest.fixture
def server() -> Iterator[cycles.EmbeddedServer]:
    with cycles.EmbeddedServer({"tenant:acme": cycles.tokens(1_000)}) as server:
        yield server


@pytest.fixture
def worker_options() -> dict[str, Any]:
    return {"retry_initial_delay": 60.0, "flush_timeout": 0.0}


@pytest.mark.parametrize("outage", ["disk", "refuse"])
@pytest.mark.parametrize("is_emptied", [False, True], ids=["kept", "emptied"])
def test_what_the_store_may_have_lost_is_charged_once_by_the_next_client(
    worker: Callable[..., cycles.Cycles],
    store: MemoryStore,
    server: cycles.EmbeddedServer,
    is_emptied: bool,
    outage: Any,
) -> None:
    client = worker(journal_outage=outage)
    guards = [client.reserve(FIVE, action=ACTION).acquire() for _ in range(2)]
    server.faults.refuse("commit", times=None)
    assert [guard.commit(THREE).status for guard in guards] == ["pending", "pending"]
    assert len(records(store)) == 2
    if is_emptied:
        table_of(store).clear()
    store.fails = "it is down"
    folder = Path(shared(client).local.directory).parent
    client.close()
    store.fails = None
    server.faults.clear()
    following = worker(journal_outage=outage, journal_dir=folder)
    following.flush(timeout=60)
    assert spent(server) == 6
    assert following.pending() == []
    assert shared(following).local.pending() == []


def test_a_store_that_responds_keeps_what_is_pending_alone(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer
) -> None:
    """The disk of a worker may be lost, or found by a client of another store."""
    client = worker()
    server.faults.refuse("commit", times=None)
    client.reserve(FIVE, action=ACTION).acquire().commit(THREE)
    folder = Path(shared(client).local.directory)
    client.close()
    assert len(records(store)) == 1
    assert sorted(folder.glob("*.json")) == []


def test_what_an_outage_kept_elsewhere_is_claimed_right_after_the_close(
    worker: Callable[..., cycles.Cycles], store: MemoryStore, server: cycles.EmbeddedServer
) -> None:
    """The next worker does not wait until a claim of the closed client ends."""
    client = worker()
    guard = client.reserve(FIVE, action=ACTION).acquire()
    server.faults.refuse("commit", times=None)
    store.fails = "it is down"
    guard.commit(THREE)
    store.fails = None
    client.close()
    assert [pending.reservation_id for pending in worker().pending()] == [guard.reservation_id]
