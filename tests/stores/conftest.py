"""A store in memory, and clients that share it. Modules with other servers have their own fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._journal.stores.memory import MemoryStore
from tests.stores.kit import StoreClock, scanned
from tests.support.inside import runtime_of


@pytest.fixture
def clock() -> StoreClock:
    return StoreClock()


@pytest.fixture
def store(clock: StoreClock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def worker_options() -> dict[str, Any]:
    """Options of each client that `worker` makes; a module may replace them."""
    return {"retry_initial_delay": 0.01, "flush_timeout": 0.0}


@pytest.fixture
def worker(
    server: cycles.EmbeddedServer, store: MemoryStore, worker_options: dict[str, Any], tmp_path: Path
) -> Iterator[Callable[..., cycles.Cycles]]:
    """Returns a function that makes a client of the store, with its own files."""
    made: list[cycles.Cycles] = []
    runtimes: list[Any] = []

    def make(**options: Any) -> cycles.Cycles:
        own = {"journal_store": store, "journal_dir": tmp_path / f"disk-{len(made)}"}
        made.append(scanned(server.client(tenant="acme", **{**own, **worker_options, **options})))
        runtimes.append(runtime_of(made[-1]))
        return made[-1]

    yield make
    for client, runtime in zip(made, runtimes, strict=True):
        client.close()
        # A record that counts as in progress for ever, although another client has it, delays each close.
        assert runtime.records.in_progress() - runtime.background.unsettled() == set()
