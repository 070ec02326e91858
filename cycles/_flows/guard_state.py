"""The state of one guard, which flows read and change. Sync and async guards use the same class.

Its lock lets exactly one of two threads that end the same guard settle it.
"""

from __future__ import annotations

import json
import threading
from typing import Final, Literal

from attrs import frozen

from cycles._core.amounts import Amount
from cycles._core.caps import CapsLike, next_step
from cycles._core.lifecycle import StateName
from cycles._core.outcome import Success
from cycles._core.records import Record
from cycles._core.reserve_request import ReserveRequest
from cycles._core.results import ReservationCreateResponse
from cycles._core.settlement import Settlement
from cycles._core.usage import Usage
from cycles._errors import GuardFinalizedError, InvalidRequestError
from cycles._flows.heartbeat_state import Heartbeat

ANY_AMOUNT: Final = "as it is"
"""What is claimed whatever is known to be spent by now: somebody has said how the guard ends."""


@frozen
class Release:
    """One release that is owed: repeated with the same key, it gives the budget back at most once."""

    reservation_id: str
    key: str
    reason: str | None
    trace_id: str | None = None


class GuardState:
    """What one guard holds, from the answer to its reserve to its settlement."""

    __slots__ = (
        "_answer",
        "_claimed",
        "_created",
        "_lock",
        "_state",
        "_usage",
        "cancelled_by_lease",
        "heartbeat",
        "in_block",
        "is_stream",
        "key",
        "opened_ms",
        "owed",
        "reported_amount",
        "request",
        "reservation_id",
        "settlement",
        "shadow_why",
        "spent",
        "steps",
        "trace_id",
    )

    def __init__(
        self,
        request: ReserveRequest,
        key: str,
        trace_id: str,
        opened_ms: float,
        created: Success | ReservationCreateResponse | None,
    ) -> None:
        self.request = request
        self.key = key
        self.trace_id = trace_id
        self.opened_ms = opened_ms
        self.reservation_id: str | None = None
        self.heartbeat: Heartbeat | None = None
        self.spent: Amount | None = None
        self.reported_amount: Amount | None = None  # by a commit that could not go out as it was given
        self.owed: Record | Release | None = None  # by whoever ends the guard, until it is done or handed on
        self.settlement: Settlement | None = None
        self.steps = 0
        self.cancelled_by_lease = False
        self.shadow_why: str | None = None
        self.in_block = False
        self.is_stream = False  # closing it early is how it ends, and no error
        self._claimed: str | None = None
        self._state: StateName = "active" if created is not None or request.shadow else "unreserved"
        self._usage: Usage | None = None
        self._created: ReservationCreateResponse | None = None
        self._answer: tuple[bytes, str | None, str | None] | None = None
        if isinstance(created, Success):
            self.reservation_id = created.body.get("reservation_id")
            self._answer = created.content, created.request_id, created.trace_id or trace_id
        elif created is not None:
            self.reservation_id = created.reservation_id
            self._created = created
        self._lock = threading.Lock()

    @property
    def created(self) -> ReservationCreateResponse | None:
        """The answer to the reserve, or None. Read when somebody asks: thousands of guards may be alive at once."""
        if self._created is None and self._answer is not None:
            content, request_id, trace_id = self._answer
            body = json.loads(content)
            self._created = ReservationCreateResponse.read(body, request_id=request_id, trace_id=trace_id)
        return self._created

    @property
    def usage(self) -> Usage:
        """What the work of this guard has used; made when somebody asks."""
        if self._usage is None:
            with self._lock:
                self._usage = self._usage or Usage()
        return self._usage

    @property
    def name(self) -> str:
        """What to call this guard in an error."""
        return f"reservation {self.reservation_id}" if self.reservation_id else f"guard of {self.request.action.name!r}"

    @property
    def state(self) -> StateName:
        """Where in its life the guard is; ``lost`` only while nothing has been settled (decisions 2)."""
        if self._state == "active" and self.heartbeat is not None and self.heartbeat.lost:
            return "lost"
        return self._state

    @state.setter
    def state(self, state: StateName) -> None:
        self._state = state

    @property
    def finalized(self) -> bool:
        """True once somebody has begun to commit or release it."""
        return self._claimed is not None

    @property
    def known(self) -> Amount | None:
        """What is known to have been spent: what `spend` added up to, and no less than any commit has stated."""
        reported_amount, spent = self.reported_amount, self.spent
        if reported_amount is None or (spent is not None and spent > reported_amount):
            return spent
        return reported_amount

    def claim(
        self,
        what: str,
        known: Amount | Literal["as it is"] | None = ANY_AMOUNT,
        owed: Record | Release | None = None,
    ) -> bool:
        """Become the one who ends this guard. False if `known` is given and another thread has spent meanwhile.

        Raises:
            GuardFinalizedError: if somebody else already is; nothing has been sent.
        """
        with self._lock:
            if self._claimed is not None:
                raise GuardFinalizedError(
                    f"cannot {what}: {self.name} already ended ({self._claimed}); nothing was sent"
                )
            if known != ANY_AMOUNT and known != self.known:
                return False
            self.owed = owed
            self._claimed = what
            return True

    def enter_block(self) -> None:
        """Note that the block of this guard begins.

        Raises:
            GuardFinalizedError: The guard has ended, or a block of it is running.
        """
        with self._lock:
            if self._claimed is not None:
                raise GuardFinalizedError(f"cannot enter: {self.name} has ended ({self._claimed}); reserve again")
            if self.in_block:
                raise GuardFinalizedError(f"cannot enter: a block of {self.name} is running; it ends this guard")
            self.in_block = True

    def raise_loss_outside_a_block(self) -> None:
        """A guard without a block has no end of its own: what it was told to fail on fails here (decisions 3).

        Raises:
            LeaseLostError: under ``fail_on_finalize`` and ``cancel``, if the lease was lost.
        """
        heartbeat = self.heartbeat
        if not self.in_block and self.request.lease_policy != "warn" and heartbeat is not None and heartbeat.lost:
            raise heartbeat.lost_error()

    def spend(self, amount: Amount) -> Amount:
        """Add to what is known to have been spent.

        Raises:
            InvalidRequestError: for another unit than the estimate's.
            GuardFinalizedError: once the guard has ended: the addition would reach no ledger.
        """
        self.check_unit(amount)
        with self._lock:
            if self._claimed is not None:
                raise GuardFinalizedError(f"cannot spend: {self.name} already ended ({self._claimed})")
            self.spent = amount if self.spent is None else self.spent + amount
            return self.spent

    def next_step(self, limit: CapsLike | None) -> int:
        """Count one more step.

        Raises:
            StepsExhaustedError: if the caps grant none.
        """
        with self._lock:
            self.steps = next_step(limit, self.steps)
            return self.steps

    def check_unit(self, amount: Amount) -> None:
        """One reservation lives in one unit (semantics 2)."""
        if not isinstance(amount, Amount):
            raise InvalidRequestError(f"actual: give an amount such as cycles.usd('0.05'), got {amount!r}")
        if amount.unit != self.request.estimate.unit:
            raise InvalidRequestError(
                f"actual: {amount} is in {amount.unit}, but the reservation is in {self.request.estimate.unit}"
            )
