"""Calls and amounts of one reservation by the name of the action, with what the chunk of a pool itemises. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

import cycles


@frozen
class Item:
    """Calls of one action in one reservation, and what they were charged.

    Attributes:
        name: The name of the action: the model of a model call.
        calls: How many there were.
        amount: What they were charged, in the unit of the reservation.
    """

    name: str
    calls: int
    amount: int


def items_of(row: cycles.ReservationSummary) -> Iterator[Item]:
    """Yield what a committed reservation was charged, by action; what its chunk does not itemise has its own name.

    If the listed amounts are more than the charge, as after a budget that had less, the chunk is not itemised.
    """
    charged = 0 if row.committed is None else row.committed.amount
    metadata = row.committed_metadata or {}
    listed = list(_listed(metadata.get("actions")))
    if sum(item.amount for item in listed) > charged:
        listed = []
    yield from listed
    name = row.action.name
    if not is_chunk(row):
        yield Item(name, 1, charged)
        return
    calls = _count(metadata.get("pool_calls")) - sum(item.calls for item in listed)
    amount = charged - sum(item.amount for item in listed)
    if calls > 0 or amount:
        yield Item(name, max(calls, 0), amount)


def is_chunk(row: cycles.ReservationSummary) -> bool:
    """Return whether a reservation is the chunk of a pool, by what its commit or its creation says."""
    return "pool_chunk" in (row.committed_metadata or {}) or "pool_chunk" in (row.metadata or {})


def _listed(actions: Any) -> Iterator[Item]:
    for name, sums in actions.items() if isinstance(actions, Mapping) else ():
        if isinstance(sums, list | tuple) and len(sums) == 2:
            yield Item(str(name), _count(sums[0]), _count(sums[1]))


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0
