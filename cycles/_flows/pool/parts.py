"""The parts of a pool: its options, chunks and sub-pools, the guards that wait, and what it needs of the drivers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol, TypeAlias

from attrs import define, field, frozen

from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.pool.allotment import Allotment, Chunk, Move
from cycles._core.pool.chunk_record import ChunkHeader, chunk_record
from cycles._core.pool.sums import ChunkAudit, Totals
from cycles._core.settlement.record import Record
from cycles._core.subjects import Subject
from cycles._errors import CyclesError, RateLimitedError, ReservationDeniedError
from cycles._flows.guard_state import GuardState
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.io import Io, Syncs
from cycles._flows.signal import Signal

DENIALS: Final = (ReservationDeniedError, RateLimitedError)
"""Errors that later guards get too, without a request, until the server may decide otherwise."""


class Log(Syncs, Protocol):
    """The log of a chunk."""

    def write(self, totals: Totals) -> None:
        """Replace the state of its cell."""

    def sync_if_durable(self) -> None:
        """As `sync`, if the log is to survive a loss of power; for at most a few seconds."""

    def remove(self) -> None:
        """Remove the log."""


class Timer(Protocol):
    """A scheduled job."""

    def cancel(self) -> object:
        """Keep it from starting."""


@frozen
class PoolIo:
    """What a pool needs beside `Io`: threads of the client, timers and logs.

    Attributes:
        io: The operations of the client's threads, which open, renew and settle the chunks.
        is_traced: Returns whether the client has a tracer.
        soon: Runs a flow in a thread of the client. False: none can be started, and the caller runs it.
        at: Calls a job in a thread of the client at a monotonic time, in milliseconds.
        open_log: Makes the log of a chunk, or raises OSError; None if chunks have no logs.
        report_problem: Reports a problem of the logs, once for each client.
        write_ahead: Writes the known spend of a guard ahead.
        is_first_use: Returns whether this thread loads parts of the SDK, for which a thread of the client may wait.
    """

    io: Io
    is_traced: Callable[[], bool]
    soon: Callable[[Callable[[], Coroutine[Any, Any, None]]], bool]
    at: Callable[[float, Callable[[], object]], Timer]
    open_log: Callable[[ChunkHeader], Log] | None
    report_problem: Callable[[str], None]
    write_ahead: Callable[[GuardState], None]
    is_first_use: Callable[[], bool]


@frozen(kw_only=True)
class PoolOptions:
    """The checked options of a pool. Amounts are integers of `unit`; durations are milliseconds."""

    request: ReserveRequest  # of a chunk, but for its amount and its subject
    name: str
    unit: str
    max_held: int
    chunk: int
    is_chunk_fixed: bool  # chosen by the caller
    limit: int | None
    dimensions: Mapping[str, str]
    settle_ms: int
    sync: bool


@define(eq=False, repr=False)
class PoolChunk(Chunk):
    """A chunk with its lease, its log and its guards.

    Attributes:
        guards: Those that are live.
        audit: What its commit reports beside its sums.
        has_thread: False if no thread could be started to settle it: a flush does so.
        is_held: Whether the server holds its amount, as far as this process knows.
        ended: Set when the chunk holds nothing any more, or when this process stops settling it.
        begun: The settlement of the sealed chunk has begun.
        seen_admitted: The count of its sub-pool's admitted guards at the last heartbeat; None before the first one.
        checkpoint: The sum of the last put into a shared store that succeeded. It decides nothing but the next put.
        put_lock: Held for each put of its sum.
    """

    sub: SubPool
    number: int
    lease: GuardState
    wall_offset_ms: float
    write_ahead: Callable[[GuardState], None]
    log: Log | None = None
    header: ChunkHeader | None = None
    audit: ChunkAudit = field(factory=ChunkAudit)
    guards: set[GuardState] = field(factory=set)
    ended: Signal = field(factory=Signal)
    is_held: bool = True
    has_thread: bool = True
    timer: Timer | None = None
    seen_admitted: int | None = None
    begun: bool = False
    checkpoint: int = 0
    put_lock: threading.Lock = field(factory=lambda: threading.Lock())  # see `Heartbeat`
    is_next_wanted: bool = False

    @property
    def is_left(self) -> bool:
        """Whether its log is there: if this process dies, the next one commits the sum of its guards."""
        return self.log is not None

    @property
    def spent(self) -> int:
        """What its guards have spent."""
        return self.sums.totals.spent

    def record(self, now_ms: int) -> Record:
        """Return the record that commits what its guards have spent."""
        assert self.header is not None
        totals = self.sums.totals
        metrics, metadata = self.audit.metrics(totals), self.audit.metadata(totals.calls, self.header.metadata)
        return chunk_record(self.header, totals.spent, metrics, metadata, now_ms)

    def replace(self, record: Record) -> None:
        """Do nothing: its log has the sum of its record."""

    def end(self) -> None:
        """Remove its log: the journal has its record, or nothing is to be settled."""
        log, self.log = self.log, None
        if log is not None:
            log.remove()

    def leave_guards(self) -> None:
        """Move what live guards have spent out of the log of this sealed chunk, into their own events.

        The lock of the pool is held. A process that dies in between leaves both: the next one subtracts the events,
        which name the chunk, from what its log has.
        """
        totals = self.sums.totals
        if self.log is not None and totals.ahead:
            for guard in list(self.guards):
                self.write_ahead(guard)
            # All at once: no later spend is counted in a sealed chunk, so its log has all of them or none.
            self.drop_ahead()
            self.log.write(self.sums.totals)
            self.log.sync_if_durable()  # before one of them ends as its event, which survives a loss of power

    @property
    def heartbeat(self) -> Heartbeat | None:
        """The heartbeat of its lease; None for a shadow."""
        return self.lease.heartbeat

    def is_live(self, now_ms: float) -> bool:
        """Return whether its lease is confirmed to last."""
        heartbeat = self.lease.heartbeat
        return heartbeat is None or now_ms < heartbeat.lease.confirmed_until_ms


@define(eq=False, repr=False)
class SubPool:
    """The chunks of one scope set, and the guards that wait for one.

    Attributes:
        direct_until_ms: Until when guards are reserved directly: no log could be made, or the server only observes.
        floor: The largest estimate that waits for the opening chunk.
        admitted: How many guards it has admitted.
        is_next_wanted: A chunk is half used, and the next one is to be opened when its waiters have been served.
        has_place: False: it was idle, and another scope set got its place.
    """

    key: object
    subject: Subject
    allotment: Allotment[PoolChunk]
    waiters: deque[Waiter] = field(factory=deque)
    denial: CyclesError | None = None
    direct_until_ms: float = 0.0
    floor: int = 0
    admitted: int = 0
    is_next_wanted: bool = False
    has_place: bool = True

    @property
    def is_idle(self) -> bool:
        """Whether it has neither chunks nor waiters, so that another scope set can take its place."""
        return not self.allotment.held and not self.waiters


Admitted: TypeAlias = "PoolChunk | Move | CyclesError | GuardState"
"""What a waiter gets: a chunk, DIRECT, an error, or the unreserved lease of a chunk that no server could open."""


@define(eq=False, repr=False)
class Place:
    """The place of one guard in a pool.

    Attributes:
        held: What its chunk holds for it.
        chunk: The chunk that has admitted it, or None.
        is_live: Whether the sums of the chunk count it as live.
        ahead: Its known spend, as far as the sums of the chunk count it.
        is_awaited: Whether the pool counts it as one that waits.
    """

    held: int
    chunk: PoolChunk | None = field(default=None, init=False)
    is_live: bool = field(default=False, init=False)
    ahead: int = field(default=0, init=False)
    is_awaited: bool = field(default=False, init=False)


@define(eq=False, repr=False)
class Waiter:
    """One guard that waits for a chunk.

    Attributes:
        sub: None: it has none, and is reserved directly.
        opens: What this guard has to open, because no thread can start.
    """

    sub: SubPool | None
    guard: GuardState
    place: Place
    opens: Open | None = None
    result: Admitted | None = None
    signal: Signal = field(factory=Signal)


@frozen
class PooledOptions:
    """What the caller of `pool.reserve` passed for one guard, checked."""

    sub: SubPool | None
    request: ReserveRequest


@define(eq=False)
class Open:
    """A chunk is to be reserved. `begun`: a thread or a caller does so."""

    sub: SubPool
    number: int
    begun: bool = False


Work: TypeAlias = Open | PoolChunk | Waiter
"""What a change of a pool requires: open a chunk, settle a sealed one, wake a guard that waited and has its result.

`carry_out` of `chunks.py` does it.
"""
