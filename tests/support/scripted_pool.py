"""A pool on a `ScriptedIo`: the threads of the client run when a caller waits, or when the test lets them.

pool = ScriptedPool([allowed(...), committed(7)])
pool.use(10, 7)
pool.flush()
assert pool.io.story == "start a thread > wait for ever > send reserve > ..."
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any

import cycles
from cycles._core.messages.outcome import Outcome
from cycles._core.messages.requests import NO_OPTIONS
from cycles._core.pool.chunk_record import ChunkHeader
from cycles._core.pool.sums import Totals
from cycles._core.subjects import Subject
from cycles._errors import CyclesError
from cycles._flows.commit import commit
from cycles._flows.guard_state import GuardState
from cycles._flows.io import run
from cycles._flows.pool.admission import acquire
from cycles._flows.pool.chunks import carry_out, flush, settle_now
from cycles._flows.pool.in_chunk import InChunk
from cycles._flows.pool.parts import PoolChunk, PooledOptions, PoolIo, PoolOptions, SubPool, Waiter
from cycles._flows.pool.pool import PoolState
from cycles._flows.release import release
from tests.support.scripted_io import Ahead, ScriptedIo, request_of

ACME = Subject(tenant="acme")
RESERVES = "ensure journal > send reserve"
HOLDS = f"{RESERVES} > schedule 49000 > report Reserved > trace of active guard opens"
FOLDS = {
    f"{HOLDS} > open log 100 > report ChunkOpened": "A CHUNK OPENS",
    HOLDS: "A LEASE OPENS",
    "approve > start a thread > wait for ever > A CHUNK OPENS > trace of active guard opens": "A GUARD IN A NEW CHUNK",
    "put commit 7 > remove log > send commit > report ChunkSettled > report Settled > finish commit 7 Settled > "
    "end trace": "7 ARE COMMITTED",
}
"""Steps that most stories have."""


NEED_THE_LOCK = (
    *("over_limit", "serve", "fail_waiters", "open_ahead", "catch_up", "carry_out", "free", "after_end", "drain"),
    *("seal", "add_chunk", "_sub_pool"),
)


OF_AN_ALLOTMENT = (
    *("next_step", "ahead", "begin", "smaller", "failed", "opened", "drained", "sealed", "sent", "ended", "too_small"),
)


CHANGED_UNDER_THE_LOCK = ("settling", "closed", "book", "awaited", "excess", "opened", "directs", "numbered")


class CheckedSet(set[Any]):
    """A set that several threads change: only the thread that has the lock of the pool may change or read it."""

    def __init__(self, pool: PoolState, values: Iterable[Any] = ()) -> None:
        super().__init__(values)
        self._pool = pool

    def __iter__(self) -> Iterator[Any]:
        assert self._pool.is_inside()
        return super().__iter__()

    def add(self, value: Any) -> None:
        assert self._pool.is_inside()
        super().add(value)

    def discard(self, value: Any) -> None:
        assert self._pool.is_inside()
        super().discard(value)


class CheckedPool(PoolState):
    """A pool whose methods that need its lock check that this thread has it."""

    def __init__(self, options: PoolOptions, pool_io: PoolIo) -> None:
        super().__init__(options, pool_io)
        self.busy = CheckedSet(self)
        for name in NEED_THE_LOCK:
            self._check(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        is_checked = name in CHANGED_UNDER_THE_LOCK and isinstance(getattr(self, "busy", None), CheckedSet)
        assert not is_checked or self.is_inside(), f"{name} without the lock of the pool"
        super().__setattr__(name, value)

    def sub_pool(self, key: object, subject: Subject) -> SubPool | None:
        sub = super().sub_pool(key, subject)
        if sub is not None and "begin" not in vars(sub.allotment):
            for name in OF_AN_ALLOTMENT:
                self._check(sub.allotment, name)
        return sub

    def _check(self, owner: object, name: str) -> None:
        method = getattr(owner, name)

        def checked(*args: Any, **keywords: Any) -> Any:
            assert self.is_inside(), f"{name} without the lock of the pool"
            return method(*args, **keywords)

        setattr(owner, name, checked)


class NotingLock:
    """A lock that notes when it is taken."""

    def __init__(self, io: ScriptedIo, name: str) -> None:
        self._io = io
        self._name = name

    def __enter__(self) -> None:
        self._io.note(f"take {self._name}")

    def __exit__(self, *_: object) -> None:
        """Nothing else takes it."""


class OthersLock:
    """The lock of a pool, which another thread has once, for all that it does, before this one gets it.

    Attributes:
        its: What the other thread does before the entry `number`; None once it has.
    """

    def __init__(self, pool: PoolState, number: int, its: Callable[[], object]) -> None:
        self._lock = pool.lock
        self._is_inside = pool.is_inside
        self._left = number
        self.its: Callable[[], object] | None = its

    def __enter__(self) -> None:
        if not self._is_inside() and self.its is not None:
            self._left -= 1
            if self._left < 0:
                its, self.its = self.its, None
                its()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class ScriptedPool:
    """One pool, and what its callers do, one after the other.

    Attributes:
        threads: Whether threads of the client can be started.
        first_use: Whether the caller has interrupted the first use of the SDK.
        flows: Of threads that were started and have not run yet.
        jobs: Of timers, with the times at which they are due.
    """

    def __init__(self, responses: Sequence[Outcome | BaseException] = (), **options: Any) -> None:
        script = {
            name: options.pop(name) for name in ("puts", "takes", "journal", "raises", "is_traced") if name in options
        }
        self.io = ScriptedIo(responses, **script)
        self.io.others_run = self.run_threads
        self.io.folds = FOLDS
        self.threads = True
        self.first_use = False
        self.log_error: OSError | None = options.pop("log_error", None)
        self.flows: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.jobs: list[Job] = []
        own: dict[str, Any] = {"name": "pool-1", "unit": "TOKENS", "max_held": 1_000, "chunk": 100, "limit": None}
        own |= {"is_chunk_fixed": True, "dimensions": {}, "settle_ms": 30_000, "sync": False}
        own |= {name: options.pop(name) for name in list(options) if name in own}
        self._has_logs: bool = options.pop("has_logs", True)
        self.request = request_of(**options)
        pool_io = PoolIo(
            self.io.io,
            lambda: self.io.is_traced,
            self._soon,
            self._at,
            self._open_log if self._has_logs else None,
            lambda problem: self.io.note(f"problem: {problem}"),
            self._write_ahead,
            lambda: self.first_use,
        )
        self.pool: PoolState = CheckedPool(PoolOptions(request=self.request, **own), pool_io)

    def _soon(self, flow: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        if self.threads:
            self.flows.append(flow)
        self.io.note("start a thread" if self.threads else "no thread")
        return self.threads

    def _at(self, due_ms: float, job: Callable[[], object]) -> Job:
        self.jobs.append(Job(self.io, due_ms, job))
        return self.jobs[-1]

    def _open_log(self, header: ChunkHeader) -> Log:
        self.io.note(f"open log {header.amount}")
        if self.log_error is not None:
            raise self.log_error
        return Log(self.io)

    def _write_ahead(self, guard: GuardState) -> None:
        self.io.note(f"write ahead {guard.known}")
        if self._has_logs:
            guard.ahead = guard.ahead or Ahead(self.io)

    def run_threads(self) -> None:
        """Let each thread that was started run to its end."""
        while self.flows:
            run(self.flows.pop(0)())

    # --- what callers do ------------------------------------------------------------------------------------

    def reserve(
        self, estimate: int = 10, wait_s: float | None = None, *, has_place: bool = True, **subject: Any
    ) -> GuardState:
        """Return the guard of a pool, or one that was reserved directly. Without `has_place` it has no sub-pool."""
        who = Subject(tenant="acme", **subject)
        sub = self.pool.sub_pool(who, who) if has_place else None
        place = InChunk(estimate, self.pool, PooledOptions(sub, self.request))
        amount = cycles.tokens(estimate)
        guard = GuardState(
            self.request, "", NO_OPTIONS, self.io.clock_ms, None, estimate=amount, settler=place, lock=self.pool.lock
        )
        if sub is not None and self.pool.admit(sub, guard, place, self.io.clock_ms):
            carry_out(self.pool)
            return guard
        return run(acquire(self.io.io, self.pool, guard, place, wait_s, self.io.take))

    def waiter(self, estimate: int) -> Waiter:
        """Let a guard wait for a chunk, without a thread that waits."""
        sub = self.pool.sub_pool(ACME, ACME)
        place = InChunk(estimate, self.pool, PooledOptions(sub, self.request))
        guard = GuardState(
            *(self.request, "", NO_OPTIONS, self.io.clock_ms, None),
            estimate=cycles.tokens(estimate),
            settler=place,
            lock=self.pool.lock,
        )
        waiter = Waiter(sub, guard, place)
        self.pool.wait_for(waiter)
        carry_out(self.pool)
        return waiter

    def commit(self, guard: GuardState, actual: int | None = None, **values: Any) -> str:
        """Commit, and return the status of the settlement."""
        amount = None if actual is None else cycles.tokens(actual)
        if amount is not None and not values and guard.settler is not None:
            quick = guard.settler.commit_quickly(guard, amount)
            if quick is not None:
                return quick.status
        return run(commit(self.io.io, guard, amount, wait=True, **values)).status

    def release(self, guard: GuardState) -> None:
        run(release(self.io.io, guard, None))

    def spend(self, guard: GuardState, amount: int) -> None:
        """Spend, and write it ahead as the client does."""
        known = guard.spend(cycles.tokens(amount))
        assert guard.settler is not None
        if not guard.settler.spent(guard, known.amount):
            self._write_ahead(guard)

    def use(self, estimate: int, actual: int) -> GuardState:
        guard = self.reserve(estimate)
        self.commit(guard, actual)
        return guard

    def flush(self, timeout_s: float = 5.0, *, force: bool = False) -> str:
        report = run(flush(self.io.io, self.pool, timeout_s, force=force))
        return f"{report.settled} settled, {report.pending} pending"

    def close(self) -> list[int]:
        """Close the pool, and return the amounts that are left to settle."""
        return [record.actual.amount for record, _ in settle_now(self.pool)]

    def chunk_of(self, guard: GuardState) -> PoolChunk:
        assert isinstance(guard.settler, InChunk)
        assert guard.settler.chunk is not None
        return guard.settler.chunk

    def beat(self, guard: GuardState) -> bool:
        """Return whether a heartbeat of the chunk of a guard would renew its lease."""
        heartbeat = self.chunk_of(guard).heartbeat
        assert heartbeat is not None
        assert heartbeat.owner is not None
        return heartbeat.owner.may_extend()

    def at_its_lock(self, number: int, its: Callable[[], object]) -> OthersLock:
        """Let another thread do something when this one takes the lock of the pool for the time `number`."""
        lock = OthersLock(self.pool, number, its)
        setattr(self.pool, "lock", lock)  # noqa: B010 - only a test changes it
        return lock

    def look(self) -> None:
        """Note what the pool counts."""
        pool = self.pool
        allotments = [sub.allotment for sub in pool.subs.values()]
        held = sum(allotment.held for allotment in allotments)
        free = sum(chunk.sums.free for allotment in allotments for chunk in allotment.open)
        counts = f"{len(pool.book.chunks)} of {pool.opened} chunks, {pool.directs} direct, {pool.denied} denied"
        amounts = f"held {held}, spent {pool.spent}, live {pool.live}, free {free}, awaited {pool.awaited}"
        excess = f", excess {pool.excess}" if pool.excess else ""
        self.io.note(f"look: {amounts}{excess}, {counts}")

    def attempt(self, act: Callable[[], object]) -> None:
        """Do something, and note its error."""
        try:
            act()
        except CyclesError as error:
            self.io.note(f"raise {type(error).__name__} {getattr(error, 'code', None) or ''}".strip())


class Job:
    """A job of a timer."""

    def __init__(self, io: ScriptedIo, due_ms: float, job: Callable[[], object]) -> None:
        self._io = io
        self.due_ms = due_ms
        self.run = job

    def cancel(self) -> None:
        self._io.note("cancel timer")


class Log:
    """The log of a chunk."""

    sync_error: OSError | None = None

    def __init__(self, io: ScriptedIo) -> None:
        self._io = io

    def write(self, totals: Totals) -> None:
        self._io.note(f"log {totals.spent} + {totals.ahead}")

    def sync_if_durable(self) -> None:
        self._io.note("sync log if durable")

    def sync(self) -> None:
        self._io.note("sync log")
        if self.sync_error is not None:
            raise self.sync_error

    def remove(self) -> None:
        self._io.note("remove log")
