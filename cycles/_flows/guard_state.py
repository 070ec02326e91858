"""The state of one guard. Flows read and change it; sync and async guards share this class.

`apply` is the only writer of the state, by the tables of `cycles._core.settlement.lifecycle`. The lock lets exactly one
of two threads end a guard. It is re-entrant: a signal handler may use the guard, or close its client, while the thread
that it interrupts holds the lock, and must not wait for that thread. Python runs a handler after calls only. So each
method looks after its last call whether what it has read still holds, and then stores.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, Protocol, TypeAlias

from attrs import define, frozen

from cycles._core.amounts import Amount
from cycles._core.messages.outcome import RejectedResponse, Success
from cycles._core.messages.requests import NO_OPTIONS, CallOptions
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.results import ReservationCreateResponse
from cycles._core.settlement.lifecycle import TRANSITIONS, GuardEvent, StateName, next_state
from cycles._core.settlement.record import Record
from cycles._core.settlement.settlement import Settlement, SettlementOutcome
from cycles._core.values.caps import Caps, next_step
from cycles._core.values.usage import Metrics, Usage
from cycles._errors import GuardFinalizedError, InvalidRequestError, LeaseLostError
from cycles._flows.heartbeat_state import Heartbeat
from cycles._flows.signal import Signal

ANY_AMOUNT: Final = "any amount"
"""Claim the guard regardless of the spend: the caller has said how it ends."""

_OPEN: Final = ("active", "lost", "unreserved")
"""States of a guard whose settlement has no outcome yet. An observed guard keeps its state."""
_ENDED_LATER: Final = ("drop", "end", "exit")

_ENDED: Final = ("committed", "pending", "pooled", "rejected")

KnownSpend: TypeAlias = Amount | Literal["any amount"] | None


@frozen
class Release:
    """One release. Every repetition has the same key, so the server releases at most once."""

    reservation_id: str
    key: str
    reason: str | None
    options: CallOptions = NO_OPTIONS


@frozen
class Ended:
    """A record whose outcome is known, and which has to be ended in the journal."""

    record: Record
    result: SettlementOutcome


class WrittenAhead(Protocol):
    """The known spend of a guard, or of the chunk of a pool, written ahead to a log."""

    @property
    def is_left(self) -> bool:
        """Whether a log has it: if this process dies, the next one commits it."""
        ...

    def replace(self, record: Record) -> None:
        """Replace it by the record of the commit, which the journal does not take. Takes no lock that a flow holds."""

    def end(self) -> None:
        """Delete it. Takes no lock that a flow holds."""


class Cancellation(Protocol):
    """Cancels the task of a block."""

    def lease_lost(self) -> None:
        """Cancel it: its lease is lost."""

    def end(self, raised: BaseException | None) -> BaseException | None:
        """End with the block. Return the LeaseLostError if `raised` is this cancellation, and not another one."""
        ...


class Settler(Protocol):
    """Ends guards that no request of their own settles. `cycles._flows.pool.in_chunk` has the one of pools.

    `io` is an `Io`, whose module uses this one.
    """

    def commit_quickly(self, guard: GuardState, actual: Amount) -> Settlement | None:
        """End a guard with an amount, if that needs no request; None: `commit` has to, and nothing has happened."""
        ...

    async def commit(
        self,
        io: Any,
        guard: GuardState,
        actual: Amount | None,
        metrics: Metrics | Mapping[str, Any] | None,
        metadata: Mapping[str, Any] | None,
        settlement_metadata: Mapping[str, str] | None,
    ) -> Settlement:
        """End a guard with an amount, by default the known spend. See `cycles._flows.commit.commit`."""
        ...

    def release(self, io: Any, guard: GuardState, known: KnownSpend) -> bool:
        """End a guard without an amount, if its spend is still `known`; return whether it is. Nothing is sent."""
        ...

    def end(self, io: Any, guard: GuardState, amount: Amount | None, settlement_metadata: Mapping[str, str]) -> None:
        """End a claimed guard whose caller cannot wait, with an amount or without."""

    def spent(self, guard: GuardState, known: int) -> bool:
        """Write the known spend of a live guard ahead; return False if its chunk has no log any more."""
        ...


@define(init=False, eq=False, repr=False)
class GuardState:
    """What one guard knows, from the response to its reserve to its settlement.

    Attributes:
        request: What was reserved. Of a guard of a pool that did not wait it has no estimate of its own.
        settler: Ends the guard in a pool. None: requests of its own settle it.
        lease: Has the reservation, if it is shared: the chunk of a pool.
        settled_in: Its settlement has the amount of this guard.
        excess: Gets the outcome of the part that was settled separately.
        own_heartbeat: Ends with this guard; None in a pool, whose chunk needs its heartbeat until it is settled.
        reported_amount: That of a commit that was rejected before anything was sent.
        unfinished: Set by `claim`, until it is done or in the background.
        attached: The guard that continues this one, which was detached.
        counted_usage: The value of `usage`; None if it was never read.
        counted: What a callable `actual` returned for the usage so far, written ahead.
        sent: The sum of the bounds of requests that were sent and whose cost is unknown; it is written ahead.
        commit_key: Of the commit, and of the spend that is written ahead.
        claimed: What its caller does that ends it.
        is_stream: Closing a stream early is a normal end, not an error.
        is_background: A provider makes its response in the background; a close of the client commits the estimate.
    """

    request: ReserveRequest
    key: str
    call_options: CallOptions
    opened_ms: float
    estimate: Amount
    settler: Settler | None
    _lock: AbstractContextManager[bool]
    _state: StateName
    reservation_id: str | None = None
    lease: GuardState | None = None
    settled_in: GuardState | None = None
    excess: GuardState | None = None
    own_heartbeat: Heartbeat | None = None
    cancellation: Cancellation | None = None
    cancelled_by_lease: bool = False
    in_block: bool = False
    is_stream: bool = False
    is_background: bool = False
    spent: Amount | None = None
    steps: int = 0
    counted_usage: Usage | None = None
    counted: Amount | None = None
    sent: int = 0
    commit_key: str | None = None
    ahead: WrittenAhead | None = None
    claimed: str | None = None
    unfinished: Record | Release | Ended | None = None
    reported_amount: Amount | None = None
    attached: GuardState | None = None
    unreachable_detail: str | None = None
    _created: ReservationCreateResponse | None = None
    _response: tuple[bytes, str | None, str | None] | None = None
    _settlement: Settlement | None = None
    _rejection: RejectedResponse | None = None
    _settled: Signal | None = None

    def __init__(
        self,
        request: ReserveRequest,
        key: str,
        options: CallOptions,
        opened_ms: float,
        created: Success | ReservationCreateResponse | None,
        *,
        observed: bool = False,
        estimate: Amount | None = None,
        settler: Settler | None = None,
        lock: AbstractContextManager[bool] | None = None,
    ) -> None:
        # Without a response and without a pool no server holds anything: only an event can charge the amount.
        is_unreserved = created is None and settler is None and not request.shadow
        state: StateName = "observed" if observed else "unreserved" if is_unreserved else "active"
        own_lock = threading.RLock() if lock is None else lock
        reserved = request.estimate if estimate is None else estimate
        its = request, key, options, opened_ms, reserved, settler, own_lock, state
        self.__attrs_init__(*its)  # pyright: ignore[reportAttributeAccessIssue] # attrs makes it
        if isinstance(created, Success):  # it has just arrived, and is parsed when it is needed
            self.reservation_id = created.body.get("reservation_id")
            self._response = created.content, created.request_id, created.trace_id or options.trace_id or ""
        elif created is not None:
            self.reservation_id, self._created = created.reservation_id, created

    @property
    def created(self) -> ReservationCreateResponse | None:
        """The response to the reserve, or None. It is parsed on first use, to save memory with thousands of guards."""
        if self.lease is not None:
            return self.lease.created
        # Most guards never need it: the ids that each guard needs are read from the body without it.
        if self._created is None and self._response is not None:
            content, request_id, trace_id = self._response
            body = json.loads(content)
            self._created = ReservationCreateResponse.read(body, request_id=request_id, trace_id=trace_id)
        return self._created

    @property
    def usage(self) -> Usage:
        """What the work of this guard has used; made on first use."""
        # Made outside of the lock, because a call under it could be interrupted; one of two threads wins.
        if self.counted_usage is None:
            made = Usage()
            with self._lock:
                if self.counted_usage is None:
                    self.counted_usage = made
        return self.counted_usage

    @property
    def name(self) -> str:
        """How an error names this guard."""
        return f"reservation {self.reservation_id}" if self.reservation_id else f"guard of {self.request.action.name!r}"

    @property
    def heartbeat(self) -> Heartbeat | None:
        """What renews the lease; None if nothing is held."""
        return self.own_heartbeat if self.lease is None else self.lease.heartbeat

    @property
    def loss(self) -> LeaseLostError | None:
        """The error of its lost lease; None as long as the lease is not lost."""
        heartbeat = self.heartbeat
        return None if heartbeat is None or not heartbeat.lost else heartbeat.lost_error()

    @property
    def state(self) -> StateName:
        """The current state (`docs/protocol/guards.md#states`): with the outcome of its chunk that of the chunk."""
        state, chunk = self._state, self.settled_in
        # A pooled guard has no request of its own: its chunk's outcome is its outcome.
        if state == "pooled" and chunk is not None and chunk.state in ("committed", "rejected"):
            return chunk.state
        return state

    @property
    def settlement(self) -> Settlement | None:
        """The settlement: that of its chunk, with the actual of this guard, as soon as there is one."""
        own, chunk = self._settlement, self.settled_in
        of_chunk = None if own is None or chunk is None or chunk.state != "committed" else chunk.settlement
        if own is None or of_chunk is None:
            return own
        ids: dict[str, Any] = {"request_id": of_chunk.request_id, "trace_id": of_chunk.trace_id, "http": of_chunk.http}
        # Of a chunk that was charged in part, no server says which guard the rest belongs to.
        charged = None if self._may_be_undercharged(of_chunk) else own.actual
        return Settlement(status=of_chunk.status, actual=own.actual, charged=charged, **ids)

    @settlement.setter
    def settlement(self, settlement: Settlement | None) -> None:
        self._settlement = settlement

    def _may_be_undercharged(self, of_chunk: Settlement) -> bool:
        if self.excess is None or of_chunk.undercharged:
            return of_chunk.undercharged
        event = self.excess.settlement
        return event is None or event.charged is None or event.undercharged

    @property
    def rejection(self) -> RejectedResponse | None:
        """The error response that ended it, or its chunk."""
        return self._rejection or (None if self.settled_in is None else self.settled_in.rejection)

    @rejection.setter
    def rejection(self, response: RejectedResponse | None) -> None:
        self._rejection = response

    @property
    def sends_nothing(self) -> bool:
        """True if nothing is held, and nothing is sent at the end: in shadow mode, and if it was only observed."""
        return self.request.shadow or self._state == "observed"

    def apply(self, event: GuardEvent, settlement: Settlement | None = None, *, if_accepted: bool = False) -> None:
        """Change the state by the table, and store the settlement that the event brought.

        Args:
            event: What happened.
            settlement: Replaces `settlement` if given.
            if_accepted: Do nothing if the table has no row, instead of raising: for an event that may come twice
                after an interruption, or after the end of the guard.

        Raises:
            ValueError: the table has no row for this state and event.
        """
        with self._lock:
            while True:
                state = self._state
                following = TRANSITIONS[state].get(event) if if_accepted else next_state(state, event)
                if following is None:
                    return
                if self._state == state:
                    break
            if settlement is not None:
                self._settlement = settlement  # before the state, by which `cost` knows that it is there
            self._state = following
            # Set outside of the lock: its callbacks may take other locks, that of a pool for example.
            signal = None if TRANSITIONS[self._state] else self._settled
        if signal is not None:
            signal.set()

    def end_trace(self) -> None:
        """Report to the tracer that this guard has ended, after its last request and its last event."""
        trace = self.call_options.trace
        if trace is not None and self.claimed is not None and self._state not in _OPEN:
            trace.ended(self)

    @property
    def trace_id(self) -> str:
        """The trace id of its requests."""
        return self.call_options.trace_id or ""

    @property
    def trace(self) -> Any:
        """The trace of this guard, if the client has a tracer."""
        return self.call_options.trace

    @property
    def charged(self) -> Amount | None:
        """What this guard was charged; None if it is not known, and for what the chunk of a pool is charged."""
        if self.excess is not None:
            return self.excess.charged
        return None if self._settlement is None or self.settled_in is not None else self._settlement.charged

    @property
    def decision(self) -> str | None:
        """The decision of the reserve; None if no server could be reached."""
        return None if self.created is None else self.created.decision

    def when_settled(self) -> Signal:
        """Return the signal that is set when the state can change no longer."""
        if self.settled_in is not None:
            return self.settled_in.when_settled()
        made = Signal()
        with self._lock:
            # Two callers must wait for the same signal, or one of them would wait for ever.
            signal = self._settled = self._settled or made
            is_final = not TRANSITIONS[self._state]
        if is_final:
            signal.set()
        return signal

    def lease_changed(self, event: GuardEvent) -> None:
        """Apply an event of the heartbeat, which may continue after the end of the guard."""
        self.apply(event, if_accepted=True)

    def lease_lost(self) -> None:
        """Cancel its block under the policy ``cancel``. Called after the loss is reported."""
        if self.cancellation is not None:
            self.cancellation.lease_lost()

    def may_extend(self) -> bool:
        """Return whether the lease is needed: a guard needs it until its heartbeat is stopped."""
        return True

    @property
    def finalized(self) -> bool:
        """True once a caller has begun to commit, release or detach it."""
        return self.claimed is not None

    @property
    def is_ended_later(self) -> bool:
        """Whether the background ends it, and has not done so: it was dropped, or the interpreter exits."""
        return self.claimed in _ENDED_LATER and self._state in _OPEN

    @property
    def known(self) -> Amount | None:
        """The known spend: the sum of `spend`, and no less than the amount of a commit that could not be sent."""
        reported_amount, spent = self.reported_amount, self.spent
        if reported_amount is None or (spent is not None and spent > reported_amount):
            return spent
        return reported_amount

    @property
    def cost(self) -> int | None:
        """What it has cost, also if the server rejected the amount; None as long as it may spend.

        A detached guard costs what the guard costs that was attached in its place. Limits count this.
        """
        if self.attached is not None:
            return self.attached.cost
        # The settlement says the amount also if only a part was charged: limits count what was spent.
        state, ended, reported = self.state, self.settlement, self.reported_amount or self.spent
        if ended is not None:
            # Of a rejected excess, a pending settlement has only the estimate, which is still to be charged.
            return (ended.actual if ended.status != "pending" else reported or ended.actual).amount
        if state not in _ENDED:
            return 0 if state == "released" else None
        return (self.known or self.estimate).amount

    @property
    def held(self) -> int:
        """What limits count as long as `cost` is None: its estimate, or its known spend if that is more."""
        if self.attached is not None:
            return self.attached.held
        known, estimate = self.known, self.estimate.amount
        return estimate if known is None else max(estimate, known.amount)

    def claim(self, operation: str, known: KnownSpend = ANY_AMOUNT, unfinished: Record | Release | None = None) -> bool:
        """Reserve the right to end this guard. Return False if the spend is no longer `known`.

        Args:
            operation: What the caller does, for the error message of the next caller.
            known: The spend that the caller has seen; another thread may have added to it since.
            unfinished: What the background does if the caller is interrupted.

        Raises:
            GuardFinalizedError: another caller has already ended it; nothing was sent.
        """
        with self._lock:
            # The same object: of an equal one, a comparison would be a call.
            is_known = known is ANY_AMOUNT or known is self.known
            if self.claimed is not None:
                raise GuardFinalizedError(
                    f"cannot {operation}: {self.name} already ended ({self.claimed}); nothing was sent"
                )
            if is_known:
                self.unfinished = unfinished
                self.claimed = operation
        return is_known

    def enter_block(self) -> None:
        """Note that the block of this guard begins.

        Raises:
            GuardFinalizedError: The guard has ended, or a block of it is running.
        """
        with self._lock:
            if self.claimed is not None:
                raise GuardFinalizedError(f"cannot enter: {self.name} has ended ({self.claimed}); reserve again")
            # Two blocks would both end it: the second one would find it ended, and lose its amount.
            if self.in_block:
                raise GuardFinalizedError(f"cannot enter: a block of {self.name} is running; it ends this guard")
            self.in_block = True

    def end_written_ahead(self) -> None:
        """Delete the spend that was written ahead: the journal has the record now, or nothing is to be settled."""
        if self.ahead is not None:
            self.ahead.end()

    def start_release(self) -> None:
        """Mark the guard as released and stop its heartbeat, before its release is sent."""
        self.apply("release_started", if_accepted=True)
        self.end_written_ahead()
        if self.heartbeat is not None:
            self.heartbeat.end()

    def raise_loss_outside_a_block(self) -> None:
        """Raise the loss of the lease from `commit` or `release` of a guard that has no block.

        See `docs/protocol/guards.md#guards-without-a-block`.

        Raises:
            LeaseLostError: under ``fail_on_finalize`` and ``cancel``, if the lease was lost.
        """
        if not self.in_block and self.request.lease_policy != "warn" and (loss := self.loss) is not None:
            raise loss

    def spend(self, amount: Amount) -> Amount:
        """Add to the known spend and return the sum.

        Raises:
            InvalidRequestError: another unit than the estimate's.
            GuardFinalizedError: the guard has ended, so the amount would reach no ledger.
        """
        self.check_unit(amount)
        with self._lock:
            while True:
                before = self.spent
                after = amount if before is None else before + amount
                if self.claimed is not None:
                    raise GuardFinalizedError(
                        f"cannot spend: {self.name} already ended ({self.claimed}); reserve again"
                    )
                if self.spent is before:
                    self.spent = after
                    return after

    def next_step(self, limit: Caps | None) -> int:
        """Count one more step and return its number.

        Raises:
            StepsExhaustedError: the caps allow no further step.
        """
        if self.lease is not None:
            return self.lease.next_step(limit)
        with self._lock:
            while True:
                before = self.steps
                after = next_step(limit, before)
                if self.steps == before:
                    self.steps = after
                    return after

    def note(self, actual: Amount) -> None:
        """Note the amount that a commit was given, unless the guard has ended: it stays known if the commit fails.

        Raises:
            InvalidRequestError: another unit than the estimate's.
        """
        self.check_unit(actual)
        if self.claimed is None:
            self.reported_amount = actual

    def check_unit(self, amount: Amount) -> None:
        """Check an actual against the unit of the reservation.

        See `docs/protocol/amounts-and-subjects.md#one-unit-per-reservation`.

        Raises:
            InvalidRequestError: not an amount, or in another unit.
        """
        if amount.__class__ is not Amount:
            raise InvalidRequestError(f"actual must be an amount: {amount!r:.80}; pass one such as cycles.usd('0.05')")
        unit = self.estimate.unit
        if amount.unit != unit:
            raise InvalidRequestError(
                f"actual must be in the unit of the reservation: {amount} is in {amount.unit}; pass an amount in {unit}"
            )
