"""The events of `client.pool`. `cycles.events` has them, beside all others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from cycles._core.amounts import Amount
from cycles._core.events.base import Event
from cycles._core.subjects import Action, Subject
from cycles._core.values.usage import Metrics


@frozen(kw_only=True)
class PooledSettled(Event):
    """A guard of a pool ended with an amount. Only this event has its own actual, action, metrics and metadata.

    `reservation_id` is that of its chunk, which many guards share.
    """

    actual: Amount
    estimate: Amount
    action: Action
    subject: Subject
    metrics: Metrics | None
    metadata: Mapping[str, Any]
    latency_ms: int

    level = logging.DEBUG

    def text(self) -> str:
        return f"{self._id}: {self.actual} of {self.estimate} spent by {self.action.name} in the pool"


@frozen(kw_only=True)
class ChunkOpened(Event):
    """A pool reserved a chunk. `held` is what the pool holds for this scope set now."""

    pool: str
    amount: Amount
    held: Amount

    level = logging.DEBUG

    def text(self) -> str:
        return f"{self._id}: chunk of {self.amount} reserved for pool {self.pool}, which holds {self.held}"


@frozen(kw_only=True)
class ChunkSettled(Event):
    """The commit of a chunk is confirmed. `guards` is the number of guards whose amounts it has."""

    pool: str
    reserved: Amount
    spent: Amount
    guards: int
    status: str

    def text(self) -> str:
        how = "committed" if self.status == "committed" else "recorded as an event"
        return f"{self._id}: chunk of pool {self.pool} {how}: {self.spent} of {self.reserved}, {self.guards} guards"


@frozen(kw_only=True)
class PoolDenied(Event):
    """The server denied a chunk, or the limit of the pool is reached."""

    pool: str
    estimate: Amount
    reason: str

    def text(self) -> str:
        return f"pool {self.pool}: {self.estimate} denied: {self.reason}"


for _event in (ChunkOpened, ChunkSettled, PoolDenied, PooledSettled):
    _event.__module__ = "cycles.events"
