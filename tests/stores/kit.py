"""What the tests of clients with a store in memory share: its clock, its records, and what a client does with them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cycles
from cycles._core.settlement.record import decode
from cycles._journal.stores.memory import MemoryStore
from tests.support.inside import health_of, rows_of, runtime_of

ACTION = ("llm.completion", "small-model")
FIVE, THREE = cycles.tokens(5), cycles.tokens(3)


class StoreClock:
    """The clock of a store, which only a test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


def scanned(client: cycles.Cycles) -> cycles.Cycles:
    """Wait until the client has claimed what is due at its start."""
    assert runtime_of(client).background._scanned.wait(60)
    return client


def records(store: MemoryStore) -> list[Any]:
    """Return the records of all partitions."""
    return [
        decode(row.record) for row in rows_of(store).values() if row.kept is None and decode(row.record).settled is None
    ]


def shared(client: cycles.Cycles) -> Any:
    """Return the journal in the store."""
    journal = runtime_of(client).records.shared
    assert journal is not None
    return journal


def files(client: cycles.Cycles) -> list[Path]:
    """Return the records that the client keeps on its own disk."""
    return sorted(Path(shared(client).local.directory).glob("v2-*.json"))


def tick(client: cycles.Cycles) -> None:
    """Renew and claim now, as the timer does."""
    runtime_of(client).background._take_claimed(shared(client).tick(64))


def pass_outage(journal: Any) -> None:
    """Let the time pass for which a journal does not try its store again after a failure."""
    health, passed_s = health_of(journal), 0.0
    health._clock = lambda: time.monotonic() + passed_s
    while health.is_open:
        passed_s += 0.1


def spent(server: cycles.EmbeddedServer) -> int:
    """Return what the ledger has charged."""
    return server.spent("tenant:acme").amount
