"""What tests read inside of objects of the SDK, because a user sees it only later: one place for each."""

from __future__ import annotations

import operator
from typing import Any

import cycles
from cycles._drivers.runtime import Runtime


def runtime_of(client: cycles.Cycles) -> Runtime:
    """Return the runtime of a client, which a forked child makes again: its threads, its queue and its journal."""
    return client._runtime()


def state_of(guard: Any) -> Any:
    """Return the state of a guard, a reservation or a pool."""
    return guard._state


def health_of(journal: Any) -> Any:
    """Return what a journal in a store knows of the last operations of its store."""
    return journal._health


def rows_of(store: Any) -> Any:
    """Return a copy of the rows of a store in memory, since the threads of a client change them meanwhile."""
    return table_of(store).copy()


def table_of(store: Any) -> Any:
    """Return the rows of a store in memory: a database has them too, and other programs may change them there."""
    return store._tables.rows


def store_of(journal: Any) -> Any:
    """Return the part of its store that a journal uses: that of its server and principal."""
    return journal._store


def ledger_lock_of(server: Any) -> Any:
    """Return the lock of the ledger of an embedded server."""
    return operator.attrgetter("_ledger._lock")(server)


def pool_of(client: cycles.Cycles) -> Any:
    """Return the state of the only pool of a client."""
    (pool,) = operator.attrgetter("pools._pools")(runtime_of(client))
    return pool


def ahead_lock_of(client: cycles.Cycles) -> Any:
    """Return the lock of what is written ahead."""
    return operator.attrgetter("ahead._lock")(runtime_of(client))


def write_waiting(client: cycles.Cycles) -> None:
    """Write the spend ahead that waits for its time."""
    operator.attrgetter("ahead._write_waiting")(runtime_of(client))()
