"""The state of one pool: its sub-pools, their chunks, and the guards that wait for a chunk.

One re-entrant lock protects all of it; no request and no file call happens under it. `pool_chunks.py` opens and settles
chunks, `pool_guard.py` is the guard. Admission waits for requests of this pool only, never for its guards.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol

from cycles._core.allotment import Move
from cycles._core.amounts import Amount
from cycles._core.subjects import Subject
from cycles._errors import BudgetExceededError, CyclesError
from cycles._flows.guard_state import GuardState
from cycles._flows.pool_parts import DENIALS, Admitted, PoolChunk, PoolIo, PoolOptions, SubPool, Waiter
from cycles._flows.reports import report
from cycles._flows.signal import Signal

LONGEST_LIFE_TTLS: Final = 4  # a chunk is extended no longer: a server allows ten extensions


class PoolState:
    """One pool in one process."""

    def __init__(self, options: PoolOptions, pool_io: PoolIo, chunks: ChunkFlows) -> None:
        self.options = options
        self.pool_io = pool_io
        self.io: Final = pool_io.io
        self.lock: Final = threading.RLock()
        self.closed = False
        self.subs: dict[object, SubPool] = {}
        self.chunks: set[PoolChunk] = set()  # that hold something
        self.busy: set[Signal] = set()  # of requests in progress
        self.settling: int = 0  # threads that settle a chunk
        self.direct: list[GuardState] = []  # guards that were reserved without the pool
        self.spent: int = 0
        self.live: int = 0
        self.awaited: int = 0  # estimates of guards that wait, or that are being reserved directly
        self.excess: int = 0
        self.opened: int = 0
        self.denied: int = 0
        self.directs: int = 0
        self.numbered: int = 0
        self._flows = chunks

    # --- sub-pools ------------------------------------------------------------------------------------------

    def sub_pool(self, key: object, subject: Subject) -> SubPool | None:
        """Return the sub-pool of a scope set; None if there are too many others."""
        sub = self.subs.get(key)
        if sub is None:
            with self.lock:
                if len(self.subs) >= self.options.max_scopes:
                    for idle in [each for each in self.subs.values() if each.is_idle]:
                        idle.has_place = False
                        del self.subs[idle.key]
                if len(self.subs) >= self.options.max_scopes:
                    return None
                sub = self.subs.setdefault(key, SubPool(key, subject, self.options))
        return sub

    # --- admission ------------------------------------------------------------------------------------------

    def admit(self, sub: SubPool, estimate: int, now_ms: float) -> PoolChunk | None:
        """Admit a guard without waiting; None if that is not possible now.

        Raises:
            BudgetExceededError: code POOL_LIMIT.
        """
        with self.lock:
            if self.options.limit is not None:
                self._check_limit(estimate)
            if sub.waiters or self.closed:
                return None
            return self._admit(sub, estimate, now_ms)

    def _admit(self, sub: SubPool, estimate: int, now_ms: float) -> PoolChunk | None:
        for chunk in sub.allotment.open:
            if chunk.free >= estimate and chunk.admit(estimate):
                assert isinstance(chunk, PoolChunk)
                if not chunk.is_live(now_ms):  # this process was stopped for longer than the lease
                    chunk.release(estimate)
                    self.seal(chunk)
                    return self._admit(sub, estimate, now_ms)
                self.live += estimate
                sub.admitted += 1
                if not chunk.is_next_wanted and chunk.is_half_used:
                    chunk.is_next_wanted = True
                    self.open_ahead(sub, now_ms)
                return chunk
        return None

    def wait_for(self, waiter: Waiter) -> None:
        """Let a guard wait for its turn; it may have its result when this returns.

        Until it has a chunk, or `end_admission` is called, its estimate counts for the limit of the pool.
        """
        with self.lock:
            if self.options.limit is not None:
                self._check_limit(waiter.estimate)
            self.awaited += waiter.estimate
            sub = waiter.sub
            if sub is not None and not sub.has_place:
                sub = waiter.sub = self.sub_pool(sub.key, sub.subject)
            if sub is None:
                waiter.result = _closed() if self.closed else Move.DIRECT
                waiter.signal.set()
                return
            sub.waiters.append(waiter)
            self.serve(sub)

    def abandon(self, waiter: Waiter) -> None:
        """Remove a guard whose caller was interrupted while it waited."""
        with self.lock:
            sub = waiter.sub
            if isinstance(waiter.result, PoolChunk):
                self.release(waiter.result, waiter.estimate)
            else:
                self.end_admission(waiter.estimate)
            if sub is not None:
                if waiter in sub.waiters:
                    sub.waiters.remove(waiter)
                self.serve(sub)

    def end_admission(self, estimate: int) -> None:
        """Count a guard no longer that waited and was not admitted into a chunk."""
        with self.lock:
            self.awaited -= estimate

    def serve(self, sub: SubPool) -> None:
        """Give every waiter its result that can have one, first come, first served. The lock is held."""
        while sub.waiters:
            waiter = sub.waiters[0]
            result = self._result_for(sub, waiter)
            if result is None:
                return
            sub.waiters.popleft()
            if isinstance(result, PoolChunk):
                self.awaited -= waiter.estimate  # it is in `live`
            waiter.result = result
            waiter.signal.set()

    def _result_for(self, sub: SubPool, waiter: Waiter) -> Admitted | None:
        if self.closed:
            return _closed()
        now_ms, allotment = self.io.clock.now_ms(), sub.allotment
        if now_ms < sub.direct_until_ms:
            return Move.DIRECT
        chunk = self._admit(sub, waiter.estimate, now_ms)
        if chunk is not None:
            return chunk
        if waiter.estimate <= allotment.chunk:
            for small in allotment.too_small(waiter.estimate):
                assert isinstance(small, PoolChunk)
                self.drain(small)
        step = allotment.next_step(waiter.estimate, now_ms)
        if step.move is Move.OPEN:
            self._open(sub, step.amount, waiter.estimate)
        elif step.move is Move.WAIT:
            sub.floor = max(sub.floor, waiter.estimate)
        if step.move is Move.DENY and sub.denial is not None:
            self.denied += 1
            return copy.copy(sub.denial)
        return Move.DIRECT if step.move is Move.DIRECT else None

    def fail_waiters(self, sub: SubPool, result: CyclesError | GuardState | Move) -> None:
        """Give every waiter what follows from the failure of the chunk that it waited for. The lock is held."""
        waiters, sub.waiters = sub.waiters, deque()
        for waiter in waiters:
            if isinstance(result, CyclesError):
                self.denied += isinstance(result, DENIALS)
                waiter.result = copy.copy(result)
            else:
                waiter.result = result
            waiter.signal.set()

    def open_ahead(self, sub: SubPool, now_ms: float) -> None:
        """Open the next chunk in the background if the current one is half used. The lock is held."""
        amount = 0 if self.closed or now_ms < sub.direct_until_ms else sub.allotment.ahead(now_ms)
        if amount:
            self._open(sub, amount, 0)

    def _open(self, sub: SubPool, amount: int, floor: int) -> None:
        sub.allotment.begin(amount)
        sub.floor = floor
        self.numbered += 1
        self._start(partial(self._flows.open, self, sub, self.numbered))

    # --- the limit of the pool ------------------------------------------------------------------------------

    def _check_limit(self, estimate: int) -> None:
        limit = self.options.limit
        assert limit is not None
        used = self.spent + self.live + self.awaited + self.held_directly()
        if used + estimate <= limit:
            return
        self.denied += 1
        unit = self.options.unit
        left = Amount(unit, max(0, limit - used))
        error = BudgetExceededError(
            f"the limit of this pool is {Amount(unit, limit)}, and {left} of it is left: a reservation of "
            f"{Amount(unit, estimate)} was not made",
            hint="pass a larger limit to client.pool(...), or finish the guards that are open",
            code="POOL_LIMIT",
        )
        report(self.io, "PoolDenied", estimate=Amount(unit, estimate), pool=self.options.name, reason=str(error))
        raise error

    def held_directly(self) -> int:
        """Count what guards outside of the chunks have spent, and return what the others hold."""
        held, left = 0, []
        for guard in self.direct:
            cost = guard.cost
            if cost is None:
                held += guard.held
                left.append(guard)
            else:
                self.spent += cost
        self.direct = left
        return held

    def add_direct(self, guard: GuardState) -> None:
        """Count a guard that waited and was reserved without the pool."""
        with self.lock:
            self.held_directly()
            self.end_admission(guard.request.estimate.amount)
            self.directs += 1
            self.direct.append(guard)

    # --- ends of guards and chunks; the lock is held --------------------------------------------------------

    def release(self, chunk: PoolChunk, estimate: int) -> None:
        """End a guard without an amount."""
        self.live -= estimate
        if chunk.takes_spend:
            chunk.release(estimate)
        else:
            chunk.leave(estimate)
        self.after_end(chunk)

    def after_end(self, chunk: PoolChunk) -> None:
        """Continue after a guard of the chunk has ended: seal the chunk, or serve a waiter."""
        if chunk.state == "open" and chunk.is_used_up:
            self.drain(chunk)
        elif chunk.state == "draining" and not chunk.guards:
            self.seal(chunk)
        elif chunk.sub.waiters:
            self.serve(chunk.sub)

    def drain(self, chunk: PoolChunk) -> None:
        """Admit no more guards; seal the chunk when its last one has ended."""
        if chunk.sub.allotment.drained(chunk) and not chunk.guards:
            self.seal(chunk)

    def seal(self, chunk: PoolChunk, *, now: bool = False) -> bool:
        """Take no more spend, and settle the chunk in the background unless `now`. Return whether it was not sealed."""
        if not chunk.sub.allotment.sealed(chunk):
            return False
        if chunk.timer is not None:
            chunk.timer.cancel()
            chunk.timer = None
        if not now:
            self._start(partial(self._settle, chunk))
        return True

    async def _settle(self, chunk: PoolChunk) -> None:
        with self.lock:
            self.settling += 1
        try:
            await self._flows.settle(self, chunk)
        finally:
            with self.lock:
                self.settling -= 1

    def _start(self, flow: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a flow in a thread of the client. The lock is held."""
        done = Signal()
        self.busy.add(done)
        self.pool_io.soon(partial(self._until_done, flow, done))

    async def _until_done(self, flow: Callable[[], Coroutine[Any, Any, None]], done: Signal) -> None:
        try:
            await flow()
        finally:
            with self.lock:
                self.busy.discard(done)
            done.set()

    def end_chunk(self, chunk: PoolChunk) -> None:
        """Stop holding a chunk whose outcome is known, or that this process settles no longer."""
        event = {"committed": "confirm", "released": "discard", "rejected": "reject"}.get(chunk.lease.state)
        with self.lock:
            self.chunks.discard(chunk)
            if event is not None:
                chunk.sub.allotment.ended(chunk, event)  # type: ignore[arg-type]
            elif not self.closed:  # another client settles it
                chunk.sub.allotment.held -= chunk.amount
            self.serve(chunk.sub)
            self.open_ahead(chunk.sub, self.io.clock.now_ms())
        chunk.ended.set()

    def may_extend(self, chunk: PoolChunk) -> bool:
        """Return whether a heartbeat renews the lease. An idle chunk is settled instead, and one that is too old.

        A chunk is idle if no guard was admitted into its sub-pool since the last heartbeat: one that was opened ahead
        stays as long as its predecessor is used.
        """
        with self.lock:
            if chunk.state == "open":
                if chunk.seen_admitted == chunk.sub.admitted and not chunk.guards:
                    self.drain(chunk)
                    return False
                chunk.seen_admitted = chunk.sub.admitted
            age_ms = self.io.clock.now_ms() - chunk.lease.opened_ms
            if chunk.state == "draining" and age_ms >= LONGEST_LIFE_TTLS * self.options.ttl_ms:
                self.seal(chunk)
                return False
            return True

    def lease_lost(self, chunk: PoolChunk) -> None:
        """Settle a chunk within its grace period; guards that still run are settled elsewhere."""
        with self.lock:
            self.seal(chunk)

    def expire(self, chunk: PoolChunk) -> None:
        """Settle a chunk that has reached `settle_ms`, when its last guard has ended."""
        with self.lock:
            self.drain(chunk)


def _closed() -> CyclesError:
    return CyclesError("this pool is closed: make a new one with client.pool(...)")


class ChunkFlows(Protocol):
    """Opens and settles the chunks of a pool."""

    async def open(self, pool: PoolState, sub: SubPool, number: int) -> None:
        """Reserve the chunk that `sub.allotment` has begun."""
        ...

    async def settle(self, pool: PoolState, chunk: PoolChunk) -> None:
        """Settle a sealed chunk."""
        ...
