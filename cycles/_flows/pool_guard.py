"""A guard of a pool: admitted into a chunk, ended in memory and in one slot of the chunk's log.

Its end sends nothing, except for an amount that no chunk has space for: that becomes a separate event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve

from cycles._core.amounts import Amount
from cycles._core.lifecycle import OUTCOME, StateName
from cycles._core.outcome import RejectedResponse
from cycles._core.pool_log import OUTCOMES, encode_slot
from cycles._core.protocol import BUDGET_EXCEEDED
from cycles._core.requests import NO_OPTIONS, CallOptions
from cycles._core.reserve_request import ReserveRequest
from cycles._core.results import ReservationCreateResponse
from cycles._core.settlement import Settlement
from cycles._core.settlement_rules import reject_here
from cycles._core.usage import Metrics
from cycles._errors import InvalidRequestError
from cycles._flows.guard_state import ANY_AMOUNT, GuardState, KnownSpend
from cycles._flows.io import Io, Settle
from cycles._flows.pool import PoolState
from cycles._flows.pool_ends import (
    REJECT,
    Separate,
    finish_separately,
    guard_of,
    reject_excess,
    report_excess,
    report_pooled,
    separate_record,
    sync_slot,
)
from cycles._flows.pool_parts import LeaseView, PoolChunk, PooledOptions
from cycles._flows.settle import settle_queued, settle_shadow, usable_values
from cycles._flows.signal import Signal


class PooledState(GuardState):
    """What one guard of a pool knows. Its lease, caps and outcome are those of its chunk."""

    __slots__ = (
        "_later",
        "_own_settlement",
        "_rejection",
        "_request",
        "_trace",
        "chunk",
        "estimate",
        "estimated",
        "excess",
        "is_separate",
        "on_lost",
        "options",
        "pool",
    )

    is_pooled = True

    def __init__(
        self,
        pool: PoolState,
        chunk: PoolChunk,
        estimate: Amount,
        options: PooledOptions,
        now_ms: float,
        call_options: CallOptions = NO_OPTIONS,
    ) -> None:
        # All attributes of `GuardState`, without those that are read from the chunk: this is on the way of every call.
        lease = chunk.lease
        self.pool = pool
        self.chunk = chunk
        self.estimate = estimate
        self.estimated = estimate.amount  # what the chunk holds for this guard
        self.options = options
        self.opened_ms = now_ms
        self.key = lease.key
        self._trace = call_options.trace
        self._later: Signal | None = None  # what ends the trace, if not the end of the guard
        self.call_options = lease.call_options if self._trace is None else call_options
        self.reservation_id = lease.reservation_id
        self._lock = pool.lock
        self._state = "active"
        self._claimed = self._usage = self._settled = None
        self.spent = self.reported_amount = self.unfinished = self.ahead = self.counted = self.commit_key = None
        self.unreachable_detail = self.attached = None
        self._request: ReserveRequest | None = None
        self._own_settlement: Settlement | None = None
        self._rejection: RejectedResponse | None = None
        self.excess: GuardState | None = None  # of an event for the part that did not fit
        self.on_lost: Callable[[], object] | None = None
        self.steps = 0
        self.cancelled_by_lease = self.in_block = self.is_stream = False
        self.is_separate = False  # settled by its own event, not by the commit of the chunk
        chunk.states.add(self)

    @property
    def request(self) -> ReserveRequest:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The request that would have reserved this guard directly."""
        if self._request is None:
            self._request = evolve(self.options.request, estimate=self.estimate)
        return self._request

    @request.setter
    def request(self, request: ReserveRequest) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._request = request

    @property
    def heartbeat(self) -> Any:  # type: ignore[override]
        """The heartbeat of the chunk; under ``cancel`` a view of it with this guard's own callback."""
        heartbeat = self.chunk.lease.heartbeat
        if heartbeat is None or self.options.request.lease_policy != "cancel":
            return heartbeat
        return LeaseView(heartbeat, self)

    @property
    def created(self) -> ReservationCreateResponse | None:
        """The response to the reserve of the chunk."""
        return self.chunk.lease.created

    @property
    def trace(self) -> Any:
        """The trace of this guard, if the client has a tracer. Without one, the guard has the trace id of its chunk."""
        return self._trace

    @property
    def charged(self) -> Amount | None:
        """What a separate event charged; the rest is charged with the chunk."""
        own = self._own_settlement if self.is_separate else None if self.excess is None else self.excess.settlement
        return None if own is None else own.charged

    @property
    def state(self) -> StateName:
        """The current state: with an outcome of the chunk that of the chunk."""
        if self._state == "pooled" and not self.is_separate:
            return outcome if (outcome := self.chunk.lease.state) in ("committed", "rejected") else "pooled"
        if self._state == "active" and self._claimed is None:
            heartbeat = self.chunk.lease.heartbeat
            return "lost" if heartbeat is not None and heartbeat.lost else "active"
        return self._state

    @property
    def settlement(self) -> Settlement | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The settlement: that of the chunk, with the actual of this guard, as soon as there is one."""
        own = self._own_settlement
        outcome = self.chunk.lease.settlement
        if own is None or own.status != "pooled" or self.is_separate:
            return own
        if outcome is None or self.chunk.lease.state != "committed":
            return own
        charged = None if self._may_be_undercharged(outcome) else own.actual
        ids: dict[str, Any] = {"request_id": outcome.request_id, "trace_id": outcome.trace_id, "http": outcome.http}
        return Settlement(status=outcome.status, actual=own.actual, charged=charged, **ids)

    @settlement.setter
    def settlement(self, settlement: Settlement | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._own_settlement = settlement

    def _may_be_undercharged(self, outcome: Settlement) -> bool:
        if self.excess is None:
            return outcome.undercharged
        event = self.excess.settlement
        return outcome.undercharged or event is None or event.charged is None or event.undercharged

    @property
    def rejection(self) -> RejectedResponse | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The error response to the commit of the chunk, or None."""
        if self._rejection is not None or self.is_separate:
            return self._rejection
        return self.chunk.lease.rejection

    @rejection.setter
    def rejection(self, response: RejectedResponse | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Store the response to the guard's own event."""
        self._rejection = response

    def when_settled(self) -> Signal:
        """Return the signal of the chunk."""
        in_chunk = self._state == "pooled" and not self.is_separate
        return self.chunk.lease.when_settled() if in_chunk else super().when_settled()

    def check_unit(self, amount: Amount) -> None:
        """As for other guards, without making a request."""
        if amount.__class__ is not Amount or amount.unit != self.estimate.unit:
            super().check_unit(amount)

    def next_step(self, limit: Any) -> int:
        """Count one more step of the chunk."""
        return self.chunk.lease.next_step(limit)

    def lease_lost(self) -> None:
        """Notify a block that is cancelled when its lease is lost."""
        if self.on_lost is not None:
            self.on_lost()

    def commit_quickly(self, actual: Amount) -> Settlement | None:
        """End the guard with an amount that fits into its chunk. None: take the general way, nothing has happened."""
        estimated, amount, chunk = self.estimated, actual.amount, self.chunk
        pool = self.pool
        if actual.unit != self.estimate.unit or pool.options.sync or pool.options.shadow:
            return None
        with pool.lock:
            if self._claimed is not None or not chunk.takes_spend or not chunk.fits(estimated, amount):
                return None
            self._claimed = "commit"
            settlement = self._pooled(actual, amount, None, None)
        report_pooled(self, actual, None, None)
        if self._trace is not None:
            self.end_trace()
        return settlement

    async def commit_pooled(
        self,
        io: Io,
        actual: Amount | None,
        metrics: Metrics | Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
        settlement_metadata: Mapping[str, str] | None,
    ) -> Settlement:
        """End the guard with an amount, by default the known spend. See `cycles._flows.commit.commit`."""
        if actual is not None:
            self.check_unit(actual)
            self.reported_amount = actual
        given, labels = usable_values(io, self.reservation_id, metrics, metadata)
        amount = self._claim_for_commit(actual)
        settlement_metadata = {**self.request.settlement_metadata, **(settlement_metadata or {})}
        if self.options.request.shadow:
            settlement = self._end_shadow(io, amount)
            self.end_trace()
            return settlement
        separate = self._end(amount, given, settlement_metadata.get(OUTCOME))
        report_pooled(self, amount, given, {**labels, **settlement_metadata})
        try:
            try:
                if separate is not None:
                    await self._settle_separately(io, separate, given, {**labels, **settlement_metadata})
            finally:
                await sync_slot(io, self)
        finally:
            if self._later is None:
                self.end_trace()
            else:
                self._later.on_set(self.end_trace)
        self.raise_loss_outside_a_block()
        return Settlement(status="pooled", actual=amount, trace_id=self.trace_id)

    def _claim_for_commit(self, actual: Amount | None) -> Amount:
        """Claim the guard, and return the amount to commit: `actual`, or the known spend."""
        while True:
            known = self.known
            amount = known if actual is None else actual
            if amount is None:
                raise InvalidRequestError(
                    "commit() has no amount: no spend is known; pass commit(amount), "
                    "or call guard.spend(amount) before it"
                )
            if self.claim("commit", known if actual is None else ANY_AMOUNT):
                return amount

    async def release_pooled(self, io: Io, reason: str | None, known: KnownSpend) -> bool:
        """End the guard without an amount. Return False if another thread has added to its spend."""
        if not self.claim("release", known):
            return False
        self.release_claimed(io)
        return True

    def release_claimed(self, io: Io) -> None:
        """Free the estimate of a claimed guard. Nothing is sent."""
        if self.options.request.shadow:
            self._end_shadow(io, None)
            return
        with self._lock:
            self.chunk.totals.released += 1
            self._leave()
            self.apply("release_started")

    def end_pooled(self, io: Io, amount: Amount | None, settlement_metadata: Mapping[str, str]) -> None:
        """End a claimed guard whose caller cannot wait."""
        if amount is None:
            self.release_claimed(io)
        elif self.options.request.shadow:
            self._end_shadow(io, amount)
        else:
            separate = self._end(amount, None, settlement_metadata.get(OUTCOME))
            report_pooled(self, amount, None, settlement_metadata)
            if separate is not None:
                finish_separately(self, io, separate, settlement_metadata)
        self.end_trace()

    def _end_shadow(self, io: Io, amount: Amount | None) -> Settlement:
        self._leave()
        return settle_shadow(io, self, amount)

    def _leave(self) -> None:
        with self._lock:
            self.chunk.states.discard(self)
            self.pool.release(self.chunk, self.estimated)

    def _end(self, actual: Amount, metrics: Metrics | None, outcome: str | None) -> Separate | None:
        """Settle the actual in the chunk, in another open chunk, or name the part that has to be settled separately."""
        pool, amount = self.pool, actual.amount
        with pool.lock:
            chunk = self.chunk
            if not chunk.takes_spend and not self._move(amount):
                pool.spent += amount
                pool.live -= self.estimated
                chunk.states.discard(self)
                pool.after_end(chunk)
                return Separate(amount, is_all=True)
            chunk = self.chunk
            excess = max(0, amount - self.estimated - chunk.free)
            rejects = bool(excess) and pool.options.overage_policy == REJECT
            if rejects:
                excess = amount - self.estimated
            self._pooled(actual, amount - excess, metrics, outcome)
            pool.spent += excess
            pool.excess += excess
            return Separate(excess, is_rejected=rejects) if excess else None

    def _move(self, amount: int) -> bool:
        """Move the guard of a sealed chunk into an open chunk that has space for its actual. The lock is held."""
        old, pool = self.chunk, self.pool
        pool.live -= self.estimated
        old.leave(self.estimated)
        chunk = pool._admit(old.sub, amount, self.pool.io.clock.now_ms())
        if chunk is None:
            pool.live += self.estimated
            return False
        old.states.discard(self)
        self.chunk, self.estimated = chunk, amount
        self.reservation_id = chunk.lease.reservation_id
        return True

    def _pooled(self, actual: Amount, amount: int, metrics: Metrics | None, outcome: str | None) -> Settlement:
        """Settle `amount` in the chunk, where it fits: sums, slot, state. The lock is held."""
        pool, chunk, totals = self.pool, self.chunk, self.chunk.totals
        now_ms = pool.io.clock.now_ms()
        latency_ms = int(now_ms - self.opened_ms)
        tokens_in = tokens_out = 0
        if metrics is not None or self._usage is not None:
            used: Any = metrics if metrics is not None else self._usage
            tokens_in, tokens_out = used.tokens_input or 0, used.tokens_output or 0
            if used.model_version is not None:
                totals.count_model(used.model_version)
        log = chunk.log
        if log is not None:
            log.write(chunk.used, encode_slot(amount, tokens_in, tokens_out, latency_ms, OUTCOMES[outcome]))
        chunk.settle(self.estimated, amount)
        pool.spent += amount
        pool.live -= self.estimated
        totals.latency_ms += latency_ms
        totals.tokens_in += tokens_in
        totals.tokens_out += tokens_out
        totals.errors += outcome == "error"
        name = self.options.action.name
        entry = totals.actions.get(name)
        if entry is None:
            totals.actions[name] = [1, amount]
        else:
            entry[0] += 1
            entry[1] += amount
        totals.last_ms = int(now_ms + chunk.wall_offset_ms)
        if totals.first_ms is None:
            totals.first_ms = totals.last_ms
        chunk.states.discard(self)
        settlement = Settlement(status="pooled", actual=actual, trace_id=self.trace_id)
        self.apply("pooled", settlement)
        pool.after_end(chunk)
        return settlement

    async def _settle_separately(
        self, io: Io, separate: Separate, metrics: Metrics | None, metadata: Mapping[str, Any]
    ) -> None:
        """Record an amount as an event, saved before it is sent; or keep it as rejected.

        Raises:
            BudgetExceededError: under the overage policy REJECT, with the code BUDGET_EXCEEDED.
        """
        record = separate_record(self, io, separate, metrics, metadata)
        if separate.is_rejected:
            error = reject_excess(self, separate)
            report_excess(self, io, separate, error)
            await io.finish(evolve(record, rejected=BUDGET_EXCEEDED), reject_here(BUDGET_EXCEEDED))
            raise error
        guard = guard_of(self, separate)
        try:
            await io.put(record)
        except BaseException:  # interrupted or cancelled: the amount is known, so it is settled
            io.hand_over(Settle(record, guard, is_saved=False), now=True)
            raise
        self._later = guard.when_settled() if self._trace is not None else None
        if not io.hand_over(Settle(record, guard), now=True):
            await settle_queued(io, record, guard)
