"""How a guard of a pool ends: in the sums of its chunk, or for what no chunk has space for, by a separate event.

`pool.py` explains the order of the steps.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from attrs import define, evolve, field

from cycles._core.amounts import Amount
from cycles._core.messages.outcome import RejectedResponse
from cycles._core.messages.requests import new_key
from cycles._core.pool.allotment import TAKES_SPEND
from cycles._core.pool.sums import Sums, new_end
from cycles._core.protocol import BUDGET_EXCEEDED
from cycles._core.settlement.lifecycle import OUTCOME
from cycles._core.settlement.rules import reject_here
from cycles._core.settlement.settlement import Settlement, commit_body, event_body
from cycles._core.values.usage import Metrics
from cycles._errors import BudgetExceededError, GuardFinalizedError
from cycles._flows.guard_state import ANY_AMOUNT, GuardState, KnownSpend
from cycles._flows.io import Io, Settle
from cycles._flows.pool.chunks import carry_out
from cycles._flows.pool.parts import Place, PoolChunk, PooledOptions
from cycles._flows.pool.pool import PoolState
from cycles._flows.settle import amount_to_commit, event_record, put, settle_queued, settle_shadow, usable_values

EXCESS_OF: Final = "pool_excess_of"
REJECT: Final = "REJECT"


@define(eq=False)
class _Ending:
    """One end of a guard with an amount: what was passed, and what is left to do if it is interrupted.

    Attributes:
        given: The amount that the caller passed; None commits the known spend.
        outcome: How the block ended, if it did not end normally.
        is_claimed: Whether the guard was claimed before, for a caller that cannot wait.
        known: The spend that `actual` counts.
        actual: What is committed.
        separate: What is still to be settled separately, because no chunk has space for it: its event, with the guard
            that gets the outcome. Without a guard it is kept in `rejected/`.
    """

    given: Amount | None
    metrics: Metrics | None
    metadata: Mapping[str, Any]
    outcome: str | None
    is_claimed: bool = False
    known: Amount | None = None
    actual: Amount = field(init=False)
    separate: Settle | None = None

    def begin(self, guard: GuardState) -> None:
        """Take the amount. The known spend is read first: a signal handler may add to it at any point."""
        self.known = guard.known
        self.actual = amount_to_commit(self.known) if self.given is None else self.given

    def is_overtaken(self, guard: GuardState) -> bool:
        """Return whether a signal handler has ended the guard, or added to its spend, since `begin`."""
        return (guard.claimed is not None and not self.is_claimed) or guard.known != self.known


@define(eq=False, repr=False)
class InChunk(Place):
    """Ends one guard in a chunk of a pool."""

    pool: PoolState
    options: PooledOptions

    def spent(self, guard: GuardState, known: int) -> bool:
        """Count the known spend of a live guard in the log of its chunk: if the process is killed, it is charged.

        A signal handler whose thread is inside writes nothing; the next spend of the guard does. False: the chunk is
        sealed, so the spend is written ahead as an event.
        """
        pool, chunk = self.pool, self.chunk
        if chunk is None:
            return True
        if (log := chunk.log) is None or pool.is_inside():
            return log is not None and chunk.takes_spend
        with pool.lock:
            pool.catch_up()
            while guard.claimed is None and self.is_live and chunk.takes_spend and known != self.ahead:
                before = chunk.sums
                after = before._replace(totals=before.totals.with_ahead(known - self.ahead))
                if chunk.sums is before:  # else a signal handler has closed the pool
                    chunk.sums = after  # no call until the next line
                    self.ahead = known
                    log.write(after.totals)
            if not chunk.takes_spend:
                chunk.leave_guards()
        return chunk.takes_spend

    # --- with an amount -------------------------------------------------------------------------------------

    def commit_quickly(self, guard: GuardState, actual: Amount) -> Settlement | None:
        """End the guard with an amount that fits into its chunk. None: take the general way, nothing has happened."""
        pool, chunk, amount = self.pool, self.chunk, actual.amount
        options = pool.options
        if chunk is None or actual.unit != options.unit or options.sync or options.request.shadow:
            return None
        # This way ends no trace, and a thread that is inside must not change the sums.
        if guard.trace is not None or pool.is_inside():
            return None
        settlement = Settlement(status="pooled", actual=actual, trace_id=guard.call_options.trace_id)
        try:
            with pool.lock:
                if pool.redo is not None or pool.freed:
                    pool.catch_up()
                before = chunk.sums
                # More than the estimate is taken from what the chunk has free; else the general way splits the amount.
                if amount - self.held > before.free:
                    return None
                after = self._sums(guard, chunk, before, self.held, amount, settlement, guard.counted_usage, None)
                if guard.claimed is not None or not self.is_live or chunk.state not in TAKES_SPEND:
                    return None
                if chunk.sums is not before:  # a signal handler has closed the pool
                    return None
                # No call until the end of these lines: a signal cannot come in between.
                pool.redo = chunk, after
                chunk.sums = after
                self.is_live = False
                guard.claimed = "commit"
                pool.carry_out(chunk, after)
        # The amount may be in the sums already. Then the end is carried out here, and the interrupt continues.
        except BaseException:
            self._catch_up()
            raise
        if pool.work or pool.io.is_enabled_for(logging.DEBUG):
            self._report(guard, actual, None, None)
        return settlement

    async def commit(
        self,
        io: Io,
        guard: GuardState,
        actual: Amount | None,
        metrics: Metrics | Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
        settlement_metadata: Mapping[str, str] | None,
    ) -> Settlement:
        """End the guard with an amount, by default the known spend. See `cycles._flows.commit.commit`."""
        if actual is not None:
            guard.note(actual)
        given, labels = usable_values(io, guard.reservation_id, metrics, metadata)
        settlement_metadata = {**guard.request.settlement_metadata, **(settlement_metadata or {})}
        if self.options.request.shadow:
            settlement = self._end_shadow(io, guard, self._claim(guard, actual))
            guard.end_trace()
            return settlement
        ending = _Ending(actual, given, {**labels, **settlement_metadata}, settlement_metadata.get(OUTCOME))
        separate: Settle | None = None
        try:
            separate = self._end(io, guard, ending)
            await self._follow(io, guard, ending, separate)
        except BaseException:  # interrupted or cancelled: what was counted is carried out, the rest is settled
            try:
                self._catch_up()
            finally:  # also if a second signal comes
                if ending.separate is not None:
                    _finish_separately(io, guard, ending.separate)
            raise
        finally:
            if separate is None or separate.guard is None or guard.trace is None:
                guard.end_trace()
            else:
                separate.guard.when_settled().on_set(guard.end_trace)
        guard.raise_loss_outside_a_block()
        return Settlement(status="pooled", actual=ending.actual, trace_id=guard.trace_id)

    async def _follow(self, io: Io, guard: GuardState, ending: _Ending, separate: Settle | None) -> None:
        self._report(guard, ending.actual, ending.metrics, ending.metadata)
        try:
            if separate is not None:
                await self._settle_separately(io, guard, ending, separate)
        finally:
            await self._sync(io)

    def end(self, io: Io, guard: GuardState, amount: Amount | None, settlement_metadata: Mapping[str, str]) -> None:
        """End a claimed guard whose caller cannot wait."""
        if amount is None:
            self._release_claimed(io, guard)
        elif self.options.request.shadow:
            self._end_shadow(io, guard, amount)
        else:
            outcome = settlement_metadata.get(OUTCOME)
            separate = self._end(io, guard, _Ending(amount, None, settlement_metadata, outcome, is_claimed=True))
            self._report(guard, amount, None, settlement_metadata)
            if separate is not None:
                _finish_separately(io, guard, separate)
        guard.end_trace()

    def _end(self, io: Io, guard: GuardState, ending: _Ending) -> Settle | None:
        """Claim the guard, and count its amount in its chunk or in another open one.

        Returns:
            The part that has to be settled separately, or None.
        """
        pool = self.pool
        is_inside, is_counted = pool.is_inside(), False
        with pool.lock:
            if not is_inside:
                pool.catch_up()
            while not is_counted:
                if self.chunk is not None and not self.chunk.takes_spend:
                    self.chunk.leave_guards()
                if guard.claimed is not None and not ending.is_claimed:
                    guard.claim("commit")  # raises the error
                ending.begin(guard)
                found = None if is_inside else self._chunk_for(guard, ending.actual.amount)
                if found is None:
                    is_counted = self._end_outside(io, guard, ending, is_inside=is_inside)
                else:
                    is_counted = self._end_in(io, guard, ending, *found)
        return ending.separate

    def _end_outside(self, io: Io, guard: GuardState, ending: _Ending, *, is_inside: bool) -> bool:
        """Settle the whole amount separately: the thread is inside, or no chunk takes it. False: begin again."""
        pool, amount = self.pool, ending.actual.amount
        book = pool.book
        whole = self._separate(io, guard, ending, amount, is_all=True)
        settlement = Settlement(status="pooled", actual=ending.actual)
        after_book = book._replace(spent=book.spent + amount)
        pool.freed.append((guard, self))  # if the guard is not ended after all, it is still counted, elsewhere
        if ending.is_overtaken(guard) or pool.book is not book:
            return False
        # No call until the amount has its event: a signal cannot come in between.
        guard.claimed = guard.claimed or "commit"
        pool.book, ending.separate = after_book, whole
        guard.apply("pooled", settlement, if_accepted=True)
        if not is_inside:
            pool.catch_up()
        return True

    def _end_in(self, io: Io, guard: GuardState, ending: _Ending, chunk: PoolChunk, before: Sums) -> bool:
        """Count the amount in a chunk, and what does not fit separately. False: begin again."""
        pool, amount = self.pool, ending.actual.amount
        book = pool.book
        is_own = chunk is self.chunk and self.is_live
        held = self.held if is_own else amount
        excess = max(0, amount - held - before.free)
        # REJECT rejects all that is above the estimate, as a server does that knows the guard.
        rejects = bool(excess) and pool.options.request.overage_policy == REJECT
        if rejects:
            excess = amount - held
        settlement = Settlement(status="pooled", actual=ending.actual, trace_id=guard.trace_id)
        used = ending.metrics if ending.metrics is not None else guard.counted_usage
        in_chunk = before if is_own else before.admitted(amount)
        after = self._sums(guard, chunk, in_chunk, held, amount - excess, settlement, used, ending.outcome)
        separate = self._separate(io, guard, ending, excess, rejects=rejects) if excess else None
        of_excess = None if separate is None else separate.guard
        after_book = book._replace(spent=book.spent + excess)
        if not is_own:
            pool.free(guard, self)
        if ending.is_overtaken(guard) or chunk.state not in TAKES_SPEND:
            return False
        if chunk.sums is not before or pool.book is not book or (guard.ahead is not None and not is_own):
            return False
        # No call until the end of these lines: a signal cannot come in between.
        pool.redo = chunk, after
        chunk.sums, pool.book = after, after_book
        pool.excess += excess
        self.is_live = False
        self.chunk, self.held = chunk, held
        guard.reservation_id, guard.lease = chunk.lease.reservation_id, chunk.lease
        guard.claimed = guard.claimed or "commit"
        guard.excess, ending.separate = of_excess, separate
        pool.carry_out(chunk, after)
        return True

    def _chunk_for(self, guard: GuardState, amount: int) -> tuple[PoolChunk, Sums] | None:
        """Return the chunk that takes the amount of this guard: its own, or if that is sealed another open one."""
        own, now_ms = self.chunk, self.pool.io.clock.now_ms()
        if own is None:
            return None
        # Its own chunk holds its estimate, and needs no space for it.
        if own.takes_spend and self.is_live:
            return own, own.sums
        # What is written ahead as an event ends as this event: a kill between two files would charge it twice.
        for chunk in own.sub.allotment.open if guard.ahead is None else ():
            # The amount is known, so a chunk takes it whole, or not.
            if chunk.sums.free >= amount and chunk.is_live(now_ms):
                return chunk, chunk.sums
        return None

    def _sums(
        self,
        guard: GuardState,
        chunk: PoolChunk,
        before: Sums,
        held: int,
        amount: int,
        settlement: Settlement,
        used: Any,
        outcome: str | None,
    ) -> Sums:
        """Return the sums of a chunk with this end. See `Sums.ended`."""
        now_ms, action = self.pool.io.clock.now_ms(), self.options.request.action.name
        calls, spent = chunk.audit.actions.get(action, (0, 0))
        model = None if used is None else used.model_version
        ended_ms, latency_ms = int(now_ms + chunk.wall_offset_ms), int(now_ms - guard.opened_ms)
        end = new_end((guard, settlement, action, (calls + 1, spent + amount), model, ended_ms))
        ahead = self.ahead if chunk is self.chunk and self.is_live else 0
        return before.ended(held, ahead, amount, used, latency_ms, end, failed=outcome == "error")

    # --- without an amount ----------------------------------------------------------------------------------

    def release(self, io: Io, guard: GuardState, known: KnownSpend) -> bool:
        """Free the estimate of a guard, if its spend is still `known`. Nothing is sent."""
        try:
            is_claimed = guard.claim("release", known)
            if is_claimed:
                self._release_claimed(io, guard)
        except GuardFinalizedError:
            raise
        except BaseException:
            if guard.claimed == "release":
                self.leave(guard)
            raise
        return is_claimed

    def _release_claimed(self, io: Io, guard: GuardState) -> None:
        if self.options.request.shadow:
            self._end_shadow(io, guard, None)
            return
        guard.apply("release_started", if_accepted=True)
        guard.end_written_ahead()
        if self.chunk is not None:
            self.chunk.audit.released += 1
        self.leave(guard)

    def leave(self, guard: GuardState) -> None:
        """Free the place of a guard; if this thread is inside, the frame that it interrupted frees it."""
        pool = self.pool
        pool.freed.append((guard, self))
        self._catch_up()

    def _end_shadow(self, io: Io, guard: GuardState, amount: Amount | None) -> Settlement:
        self.leave(guard)
        return settle_shadow(io, guard, amount)

    def _claim(self, guard: GuardState, actual: Amount | None) -> Amount:
        while True:
            known = guard.known
            amount = amount_to_commit(known) if actual is None else actual
            if guard.claim("commit", known if actual is None else ANY_AMOUNT):
                return amount

    def _catch_up(self) -> None:
        """Carry out what was interrupted in the pool, unless this thread is inside."""
        pool = self.pool
        if not pool.is_inside():
            with pool.lock:
                pool.catch_up()
            carry_out(pool)

    # --- what no chunk has space for ------------------------------------------------------------------------

    def _separate(
        self, io: Io, guard: GuardState, ending: _Ending, amount: int, *, is_all: bool = False, rejects: bool = False
    ) -> Settle:
        """Return an amount with its event, and the guard that gets the outcome: this one, or one for the excess."""
        request = guard.request
        metrics = None if ending.metrics is None else ending.metrics.to_dict()
        metadata = ending.metadata if is_all else {**ending.metadata, EXCESS_OF: guard.reservation_id}
        key = new_key()
        if is_all:  # also the key of what is written ahead
            key = guard.commit_key = guard.commit_key or key
        commit = commit_body(key, Amount(guard.estimate.unit, amount), metrics, dict(metadata))
        chunk_id = guard.reservation_id if is_all else None
        body = event_body(commit, request.made or request.make(), chunk_id, self.pool.options.request.overage_policy)
        record = event_record(io, body)
        if rejects:
            return Settle(evolve(record, rejected=BUDGET_EXCEEDED), None)
        if is_all:
            return Settle(record, guard)
        # A guard of its own: the outcome of the excess must not become that of the pooled guard.
        excess = GuardState(request, guard.key, guard.call_options, guard.opened_ms, None, estimate=guard.estimate)
        return Settle(record, excess)

    async def _settle_separately(self, io: Io, guard: GuardState, ending: _Ending, separate: Settle) -> None:
        """Record an amount as an event, saved before it is sent; or keep it as rejected.

        Raises:
            BudgetExceededError: under the overage policy REJECT, with the code BUDGET_EXCEEDED.
        """
        if separate.guard is None:
            # The estimate is charged with the chunk; the excess is in no ledger, and `rejected/` keeps it.
            error = _reject_excess(io, guard, separate)
            actual, hint = separate.record.actual, io.settings.rejected_hint
            io.report("SettlementRejected", guard, actual=actual, detail=str(error), hint=hint)
            await io.finish(separate.record, reject_here(BUDGET_EXCEEDED))
            ending.separate = None
            raise error
        # A put that fails does not matter: the event is sent anyway.
        await put(io, separate.record, separate.guard)
        # In the background: the commit of a pooled guard does not wait for the server.
        if io.hand_over(separate, now=True):
            ending.separate = None
            return
        await settle_queued(io, separate.record, separate.guard)
        ending.separate = None

    async def _sync(self, io: Io) -> None:
        """With durability ``disk``, return when what the chunk counts is on disk."""
        log = None if self.chunk is None or not self.pool.options.sync else self.chunk.log
        if log is None:
            return
        try:
            await io.sync(log)
        except OSError as error:
            self.pool.pool_io.report_problem(
                f"the log of a pool cannot be synced ({error}): a loss of power may lose what its guards spent; "
                "the amounts are charged as long as the system runs"
            )

    def _report(
        self, guard: GuardState, actual: Amount, metrics: Metrics | None, metadata: Mapping[str, Any] | None
    ) -> None:
        """Carry out what the end requires, and report it with everything that the server's audit does not get."""
        pool = self.pool
        if pool.work:
            carry_out(pool)
        io = pool.io
        if not io.is_enabled_for(logging.DEBUG):
            return
        usage, request = guard.counted_usage, self.options.request
        io.report(
            "PooledSettled",
            guard,
            actual=actual,
            estimate=guard.estimate,
            action=self.options.request.action,
            subject=request.subject,
            metrics=metrics if metrics is not None else (None if usage is None else usage.metrics()),
            metadata={**(request.metadata or {}), **(metadata or {})},
            latency_ms=int(io.clock.now_ms() - guard.opened_ms),
        )


def _reject_excess(io: Io, guard: GuardState, separate: Settle) -> BudgetExceededError:
    """Note that the amount above the estimate is rejected, and return the error.

    The guard has no settlement then, as one outside of a pool.
    """
    error = BudgetExceededError(
        f"{guard.name}: its chunk has no space for {separate.record.actual} above the estimate "
        f"of {guard.estimate}, and the overage policy is REJECT; the estimate is charged and the rest is in no ledger",
        hint=io.settings.rejected_hint,
        code=BUDGET_EXCEEDED,
    )
    guard.rejection = RejectedResponse(409, BUDGET_EXCEEDED, error.message)
    guard.settlement = None
    guard.apply("rejected", if_accepted=True)
    return error


def _finish_separately(io: Io, guard: GuardState, separate: Settle) -> None:
    """Settle an amount separately in the background, because the caller of its guard cannot wait."""
    if separate.guard is None:
        _reject_excess(io, guard, separate)
    io.hand_over(evolve(separate, is_saved=False), now=True)
