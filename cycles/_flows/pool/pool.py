"""The state of one pool: its sub-pools, their chunks, and the guards that wait for a chunk.

One re-entrant lock protects all of it. No request, no file call and no code of the user runs under it; the one thing
that leaves it is a copy of 52 bytes into the mapped cell of a chunk. What a change requires beside that (open a
chunk, settle one, wake a waiter) is put into `work`, and `carry_out` of `pool_chunks.py` does it. An entry leaves
`work` only after it was passed on, so an interrupted caller loses none. Passing one on twice changes nothing.

**One value.** All that decides about money in a chunk is its `sums`: one immutable value, which one store replaces. A
chunk has two more writers of amounts, its cell and its guard's settlement. They follow from the value, so they are
written after it, and writing them again changes nothing.

**Redo.** A signal may raise an exception in the main thread after any call, also in the middle of an end. Before the
store of the sums `redo` names the end in progress, and no call lies between the two. The next caller under the lock
finds it and carries the end out (`catch_up`): the same sums, the same cell, the same state of the guard. Until then
the amount is in the sums already, and the guard counts as ended. Before that point nothing has happened, and the
caller may end the guard in another way.

**Threads inside.** A signal handler runs in the thread that it interrupts, which may hold the lock, with sums
computed and not yet stored. The lock would let it in. So a caller looks first (`is_inside`), and stays outside: what
it reserves is reserved directly, what it commits becomes a separate event, and the estimate of its guard goes into
`freed`. The frame that it interrupted frees that when it ends, or the next caller does. A handler may close the
client, too. It catches up, seals the chunks and settles them; the interrupted frame finds other sums than those that
it has read, and settles its amount elsewhere.

**No wait for guards.** A caller waits for requests of this pool only: for a chunk that is being opened, or for the
commit of one. It never waits until other guards end, because they may be its own: a thread with nested guards would
wait for ever. If live guards use up all that the pool may hold, a guard is reserved directly.

A chunk goes from open to draining (admits no more guards) to sealed (takes no more spend). It is sealed when its last
guard has ended, or when its lease does not last. A guard of a sealed chunk moves its amount into an open one, or
settles it as an event.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from cycles._core.amounts import Amount
from cycles._core.messages.requests import NO_OPTIONS
from cycles._core.pool.allotment import TAKES_SPEND, Allotment, ChunkEvent, Move
from cycles._core.pool.sums import Sums
from cycles._core.subjects import Subject
from cycles._errors import BudgetExceededError, CyclesError
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io
from cycles._flows.pool.parts import (
    DENIALS,
    Admitted,
    Open,
    Place,
    PoolChunk,
    PoolIo,
    PoolOptions,
    SubPool,
    Waiter,
    Work,
)
from cycles._flows.signal import Signal

T = TypeVar("T")

LONGEST_LIFE_TTLS: Final = 4  # a chunk is extended no longer: a server allows ten extensions
MOST_SCOPES: Final = 8  # sub-pools; guards of further scope sets are reserved directly


class Book(NamedTuple):
    """What a pool counts beside the sums of its chunks, as one value.

    Attributes:
        chunks: Those that hold something, or have live guards, in the order in which they were opened.
        direct: Guards that were reserved without the pool, and were live when they were last looked at.
        spent: By all others: ended chunks, ended guards, and amounts that no chunk had space for.
    """

    chunks: tuple[PoolChunk, ...] = ()
    direct: tuple[GuardState, ...] = ()
    spent: int = 0


class PoolState:
    """One pool in one process."""

    def __init__(self, options: PoolOptions, pool_io: PoolIo) -> None:
        self.options = options
        self.pool_io = pool_io
        self.io: Final[Io] = pool_io.io
        self.lock: Final = threading.RLock()
        owned: Any = self.lock
        self.is_inside: Final[Callable[[], bool]] = owned._is_owned  # of this thread; `threading.Condition` uses it too
        self.closed = False
        self.subs: dict[object, SubPool] = {}
        self.book: Book = Book()
        self.redo: tuple[PoolChunk, Sums] | None = None  # the end in progress
        self.freed: deque[tuple[GuardState, Place]] = deque()  # places that a thread could not free
        self.work: deque[Work] = deque()
        self.busy: set[Signal] = set()  # of requests in progress
        self.settling: int = 0  # threads that settle a chunk
        self.awaited: int = 0  # estimates of guards that wait, or that are being reserved directly
        self.excess: int = 0
        self.opened: int = 0
        self.denied: int = 0
        self.directs: int = 0
        self.numbered: int = 0

    # --- sub-pools ------------------------------------------------------------------------------------------

    def sub_pool(self, key: object, subject: Subject) -> SubPool | None:
        """Return the sub-pool of a scope set; None if there are too many others."""
        sub = self.subs.get(key)
        if sub is None and not self.is_inside():
            with self.lock:
                sub = self._sub_pool(key, subject)
        return sub

    def _sub_pool(self, key: object, subject: Subject) -> SubPool | None:
        # A scope set per user would hold a chunk for each of them: only the active ones have chunks.
        if len(self.subs) >= MOST_SCOPES:
            for idle in [each for each in self.subs.values() if each.is_idle]:
                idle.has_place = False
                del self.subs[idle.key]
        if len(self.subs) >= MOST_SCOPES:
            return None
        its = self.options
        allotment = Allotment[PoolChunk](its.max_held, its.chunk, is_fixed=its.is_chunk_fixed, limit=its.limit)
        return self.subs.setdefault(key, SubPool(key, subject, allotment))

    # --- amounts --------------------------------------------------------------------------------------------

    @property
    def spent(self) -> int:
        """What guards of this pool have spent."""
        book = self.book
        outside = sum(guard.cost or 0 for guard in book.direct)
        return book.spent + outside + sum(chunk.spent for chunk in book.chunks)

    @property
    def live(self) -> int:
        """The estimates of live guards, and what guards that were reserved directly hold."""
        book = self.book
        outside = sum(guard.held for guard in book.direct if guard.cost is None)
        return outside + sum(chunk.sums.live for chunk in book.chunks)

    def add_direct(self, guard: GuardState, place: Place) -> None:
        """Count a guard that was reserved without the pool, and drop those that have ended."""
        while True:
            # `cost` reads other guards and may take their locks, so it is computed before the lock of the pool is
            # taken.
            book = self.book
            costs = [(each, each.cost) for each in book.direct]
            live = tuple(each for each, cost in costs if cost is None)
            after = Book(book.chunks, (*live, guard), book.spent + sum(cost or 0 for _, cost in costs))
            if self.is_inside():
                after = book._replace(direct=(*book.direct, guard))
            with self.lock:
                if self.book is book:
                    self.book = after
                    self.directs += 1
                    if place.is_awaited:
                        place.is_awaited = False
                        self.awaited -= place.held
                    return

    def over_limit(self, estimate: int) -> BudgetExceededError | None:
        """Return the error if an estimate does not fit into the limit of the pool. The lock is held."""
        limit = self.options.limit
        if limit is None:
            return None
        # What waits counts too: two guards that wait for the same rest would both get it.
        used = self.spent + self.live + self.awaited
        if used + estimate <= limit:
            return None
        unit = self.options.unit
        left = Amount(unit, max(0, limit - used))
        return BudgetExceededError(
            f"the limit of this pool is {Amount(unit, limit)}, and {left} of it is left: a reservation of "
            f"{Amount(unit, estimate)} was not made",
            hint="pass a larger limit to client.pool(...), or finish the guards that are open",
            code="POOL_LIMIT",
        )

    # --- admission ------------------------------------------------------------------------------------------

    def admit(self, sub: SubPool, guard: GuardState, place: Place, now_ms: float) -> bool:
        """Admit a guard without waiting; return False if that is not possible now. The thread is not inside."""
        with self.lock:
            if self.redo is not None or self.freed:
                self.catch_up()
            # Guards that wait come first, also if this one would fit: else a large one could wait for ever.
            if sub.waiters or self.closed:
                return False
            if self.options.limit is not None and self.over_limit(place.held) is not None:
                return False
            is_admitted = self._admit(sub, guard, place, now_ms)
        return is_admitted  # noqa: RET504 - a return out of `with` ends the block at another instruction

    def _admit(self, sub: SubPool, guard: GuardState, place: Place, now_ms: float) -> bool:
        estimate = place.held
        for chunk in sub.allotment.open:
            before = chunk.sums
            if before.free < estimate:
                continue
            if not chunk.is_live(now_ms):  # this process was stopped for longer than the lease
                self.seal(chunk)
                return self._admit(sub, guard, place, now_ms)
            lease, after = chunk.lease, before.admitted(estimate)
            chunk.guards.add(guard)
            if chunk.state != "open" or chunk.sums is not before:  # a signal handler has closed the pool
                chunk.guards.discard(guard)
                continue
            # No call until the end of these lines: a signal cannot come in between.
            chunk.sums = after
            place.chunk = chunk
            place.is_live = True
            guard.lease = lease
            guard.reservation_id = lease.reservation_id
            guard.key = lease.key
            if guard.call_options is NO_OPTIONS:
                guard.call_options = lease.call_options
            sub.admitted += 1
            if 2 * after.free <= chunk.amount and not chunk.is_next_wanted:
                chunk.is_next_wanted = sub.is_next_wanted = True
                sub.allotment.latest = estimate
                if not sub.waiters:  # else `serve` does so, when it knows what fits into this chunk
                    self.open_ahead(sub, now_ms)
            return True
        return False

    def wait_for(self, waiter: Waiter) -> None:
        """Let a guard wait for its turn; it may have its result when this returns.

        Until it has a chunk, or `end_admission` is called, its estimate counts for the limit of the pool.
        """
        # A handler that has interrupted a first use must not wait for a thread, which may need the lock of that.
        is_inside, place = self.is_inside() or self.pool_io.is_first_use(), waiter.place
        with self.lock:
            if not is_inside:
                self.catch_up()
            # Before this guard is counted itself.
            error = self.over_limit(place.held)
            place.is_awaited = True  # no call until the next line
            self.awaited += place.held
            sub = waiter.sub
            if sub is not None and not sub.has_place and not is_inside:
                sub = waiter.sub = self._sub_pool(sub.key, sub.subject)
            if error is not None:
                waiter.result = error
            elif sub is None or is_inside:
                waiter.result = _closed() if self.closed else Move.DIRECT
            else:
                sub.waiters.append(waiter)
                self.serve(sub)
                return
        waiter.signal.set()

    def abandon(self, waiter: Waiter) -> None:
        """Remove a guard whose caller was interrupted while it waited. Its place, if it has one, is freed elsewhere."""
        with self.lock:
            self.end_admission(waiter.place)
            if waiter.opens is not None:
                self.work.append(waiter.opens)
            sub = waiter.sub
            if sub is not None:
                if waiter in sub.waiters:
                    sub.waiters.remove(waiter)
                self.serve(sub)

    def end_admission(self, place: Place) -> None:
        """Stop counting a guard as one that waits."""
        with self.lock:
            if place.is_awaited:
                place.is_awaited = False  # no call until the next line
                self.awaited -= place.held

    def serve(self, sub: SubPool) -> None:
        """Give every waiter its result that can have one, first come, first served. The lock is held."""
        while (waiter := _first(sub.waiters)) is not None:
            place = waiter.place
            result = waiter.result or (place.chunk if place.is_live else self._result_for(sub, waiter))
            if result is None:
                return
            if isinstance(result, PoolChunk):
                self.end_admission(place)  # it is in the sums of its chunk
            waiter.result = result
            self._pass_on(waiter, sub)
        if sub.is_next_wanted:
            self.open_ahead(sub, self.io.clock.now_ms())

    def _result_for(self, sub: SubPool, waiter: Waiter) -> Admitted | None:
        if self.closed:
            return _closed()
        now_ms, allotment, place = self.io.clock.now_ms(), sub.allotment, waiter.place
        if now_ms < sub.direct_until_ms:
            return Move.DIRECT
        # Before a new chunk: a guard that ended in the meantime may have left space.
        if self._admit(sub, waiter.guard, place, now_ms):
            return place.chunk
        # A chunk that can never take this estimate again would keep it waiting although a new one could.
        if place.held <= allotment.chunk:
            for small in allotment.too_small(place.held):
                self.drain(small)
        behind = (each.place.held for each in islice(sub.waiters, 1, None) if each.place.held <= allotment.chunk)
        step = allotment.next_step(place.held, now_ms, behind)
        if step.move is Move.OPEN:
            self._open(sub, step.amount, place.held)
        elif step.move is Move.WAIT:
            sub.floor = max(sub.floor, place.held)
        if step.move is Move.DENY and sub.denial is not None:
            self.denied += 1
            return copy.copy(sub.denial)
        return Move.DIRECT if step.move is Move.DIRECT else None

    def fail_waiters(self, sub: SubPool, result: CyclesError | GuardState | Move) -> None:
        """Give every waiter what follows from the failure of the chunk that it waited for. The lock is held."""
        while (waiter := _first(sub.waiters)) is not None:
            if waiter.result is None:
                self.denied += isinstance(result, DENIALS)
                waiter.result = copy.copy(result) if isinstance(result, CyclesError) else result
            self._pass_on(waiter, sub)

    def _pass_on(self, waiter: Waiter, sub: SubPool) -> None:
        """Let the first waiter continue with its result."""
        self.work.append(waiter)
        if sub.waiters and sub.waiters[0] is waiter:  # else a signal handler was faster
            sub.waiters.popleft()

    def open_ahead(self, sub: SubPool, now_ms: float) -> None:
        """Open the next chunk in the background if the current one is half used. The lock is held."""
        sub.is_next_wanted = False
        amount = 0 if self.closed or now_ms < sub.direct_until_ms else sub.allotment.ahead(now_ms)
        if amount:
            self._open(sub, amount, 0)

    def _open(self, sub: SubPool, amount: int, floor: int) -> None:
        sub.allotment.begin(amount)
        sub.floor = floor
        self.numbered += 1
        self.work.append(Open(sub, self.numbered))

    # --- ends of guards; the lock is held, and the thread was not inside -------------------------------------

    def catch_up(self) -> None:
        """Carry out an end that was interrupted, and free the places that signal handlers have left."""
        if self.redo is not None:
            self.carry_out(*self.redo)
        while (first := _first(self.freed)) is not None:
            self.free(*first)
            if self.freed and self.freed[0] is first:  # else a signal handler was faster
                self.freed.popleft()

    def carry_out(self, chunk: PoolChunk, sums: Sums) -> None:
        """Count an end in its chunk, in the cell and in its guard. A second call changes nothing."""
        chunk.sums = sums
        end = sums.last
        assert end is not None
        # The cell before the state: once the caller sees the end, `kill -9` must not lose the amount.
        if chunk.log is not None:
            chunk.log.write(sums.totals)
        chunk.audit.note(end)
        guard: GuardState = end.guard
        guard.settled_in = chunk.lease
        guard.apply("pooled", end.settlement, if_accepted=True)
        # The end is complete: what follows may be interrupted without a loss.
        chunk.guards.discard(guard)
        self.redo = None
        if chunk.state != "open" or chunk.sub.waiters or sums.totals.spent >= chunk.amount:
            self.after_end(chunk)

    def free(self, guard: GuardState, place: Place) -> None:
        """End a guard without an amount in its chunk. A second call changes nothing."""
        chunk = place.chunk
        if chunk is None:
            return
        while place.is_live:
            before = chunk.sums
            after = before.released(place.held, place.ahead, is_sealed=chunk.state not in TAKES_SPEND)
            if chunk.sums is before and place.is_live:
                place.is_live = False  # no call until the next line
                chunk.sums = after
        if not chunk.takes_spend:
            chunk.leave_guards()
        elif place.ahead and chunk.log is not None:
            chunk.log.write(chunk.sums.totals)
        chunk.guards.discard(guard)
        self.after_end(chunk)

    def after_end(self, chunk: PoolChunk) -> None:
        """Continue after a guard of the chunk has ended: seal the chunk, or serve a waiter."""
        if chunk.state == "open" and chunk.is_used_up:
            self.drain(chunk)
        elif chunk.state == "draining" and not chunk.sums.guards:
            self.seal(chunk)
        elif chunk.state not in TAKES_SPEND:
            self._count_out(chunk)
        if chunk.sub.waiters:
            self.serve(chunk.sub)

    # --- ends of chunks; the lock is held --------------------------------------------------------------------

    def drain(self, chunk: PoolChunk) -> None:
        """Admit no more guards; seal the chunk when its last one has ended."""
        chunk.sub.allotment.drained(chunk)
        if chunk.state == "draining" and not chunk.sums.guards:
            self.seal(chunk)

    def seal(self, chunk: PoolChunk) -> None:
        """Take no more spend, and settle the chunk."""
        if chunk.state in TAKES_SPEND:
            self.work.append(chunk)  # first: what takes it from there seals the chunk, too
            chunk.sub.allotment.sealed(chunk)
            if chunk.timer is not None:
                chunk.timer.cancel()

    def add_chunk(self, chunk: PoolChunk) -> None:
        """Count a new chunk."""
        self.opened += 1
        self.book = self.book._replace(chunks=(*self.book.chunks, chunk))

    def end_chunk(self, chunk: PoolChunk) -> None:
        """Stop holding a chunk whose outcome is known, or that this process settles no longer."""
        events: dict[str, ChunkEvent] = {"committed": "confirm", "released": "discard", "rejected": "reject"}
        event = events.get(chunk.lease.state)
        with self.lock:
            # Freed before waiters are served, so that they can open a chunk with this amount.
            chunk.is_held = False
            self._count_out(chunk)
            if event is not None:
                returned = chunk.sub.allotment.ended(chunk, event)
                if returned and isinstance(chunk.sub.denial, BudgetExceededError):
                    chunk.sub.allotment.denied_until_ms = 0.0  # the budget has more now than at the denial
            elif not self.closed:  # another client settles it
                chunk.sub.allotment.held -= chunk.amount
            self.serve(chunk.sub)
            self.open_ahead(chunk.sub, self.io.clock.now_ms())
        chunk.ended.set()

    def _count_out(self, chunk: PoolChunk) -> None:
        """Keep only the amount of a chunk that holds nothing and has no live guard."""
        while chunk in self.book.chunks and not chunk.is_held and not chunk.sums.guards:
            book = self.book
            others = tuple(each for each in book.chunks if each is not chunk)
            after = Book(others, book.direct, book.spent + chunk.spent)
            if self.book is book:
                self.book = after

    def may_extend(self, chunk: PoolChunk) -> bool:
        """Return whether a heartbeat renews the lease. An idle chunk is settled instead, and one that is too old.

        A chunk is idle if no guard was admitted into its sub-pool since the last heartbeat: one that was opened ahead
        stays as long as its predecessor is used.
        """
        with self.lock:
            self.catch_up()
            if chunk.state == "draining" and not chunk.sums.guards:
                self.seal(chunk)
                return False
            if chunk.state == "open":
                # An idle chunk would hold budget that other clients of the fleet need.
                if chunk.seen_admitted == chunk.sub.admitted and not chunk.sums.guards:
                    self.drain(chunk)
                    return False
                chunk.seen_admitted = chunk.sub.admitted
            age_ms = self.io.clock.now_ms() - chunk.lease.opened_ms
            if chunk.state == "draining" and age_ms >= LONGEST_LIFE_TTLS * self.options.request.ttl_ms:
                self.seal(chunk)
                return False
            return True


def _first(queue: deque[T]) -> T | None:
    """Return the first entry, which stays; None if there is none, also if a signal handler has just removed it."""
    try:
        return queue[0]
    except IndexError:
        return None


def _closed() -> CyclesError:
    return CyclesError("this pool is closed: make a new one with client.pool(...)")
