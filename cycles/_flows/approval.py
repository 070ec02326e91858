"""Approval of reservations when most of a budget is used: one call of `approve` at a time for each subject and unit.

Reservations that come in the meantime wait for its reply. A reserve that `approve` itself makes is exempt, and so is
one of a signal handler that interrupts the caller of `approve`: it would wait for the code that it interrupted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from cycles._core.amounts import Amount, SignedAmount
from cycles._core.messages.approval import ApprovalRequest, Waiting
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.messages.used_fraction import Used, levels_of
from cycles._errors import ApprovalDeniedError
from cycles._flows.signal import Signal

T = TypeVar("T")
Approve: TypeAlias = Callable[[ApprovalRequest], Any]

_exempt: Final[ContextVar[bool]] = ContextVar("cycles_exempt_from_approval", default=False)


class CallsUser(Protocol):
    """What approval needs of an `Io`."""

    async def call_user(self, function: Callable[[T], Any], argument: T) -> Any:
        """Call a function or a coroutine function of the user; in an event loop a function runs in a thread."""

    async def wait(self, signal: Signal) -> bool:
        """Wait until another thread or task sets a signal."""
        ...


class Approvals:
    """The approvals of one client in one process.

    Args:
        approve: The function of the user.
        above: The used fraction from which it is called.
        known: Returns the budgets whose used fraction is known.
    """

    def __init__(self, approve: Approve, above: float, known: Callable[[], list[Used]]) -> None:
        self._approve = approve
        self._above = above
        self._known = known
        self._gates: dict[tuple[Any, ...], _Gate] = {}

    async def check(self, io: CallsUser, request: ReserveRequest) -> None:
        """Return if the reservation may be sent.

        Raises:
            ApprovalDeniedError: it may not. Nothing was sent.
        """
        is_exempt = _exempt.get()
        used = None if request.is_approved or request.shadow or is_exempt else self._most_used(request)
        if used is None or used.fraction < self._above:
            return
        # One gate for each set of levels and unit: only these reservations draw on the same budgets.
        gate, turn = self._gate(request), _Turn()
        try:
            while not gate.covers(request.estimate.amount):
                _exempt.set(True)  # before this caller has the turn, and after `try`: an interrupt ends it at any point
                current = gate.enter(turn, request.estimate.amount)
                # The first one calls `approve`; the others wait for what it grants beyond that estimate.
                if current is turn:
                    await self._decide(io, request, used, gate, turn)
                    return
                _exempt.set(is_exempt)
                await io.wait(current.ended)
                if current.denied is not None:
                    raise _denied(request, used, current.denied)
        finally:  # if this caller is interrupted, the next one in the queue calls `approve`
            try:
                gate.leave(turn)
            finally:  # the interrupt may have come inside of the first call
                try:
                    gate.leave(turn)
                finally:
                    _exempt.set(is_exempt)

    def _most_used(self, request: ReserveRequest) -> Used | None:
        levels = levels_of(request.subject)
        mine = (used for used in self._known() if used.unit == request.estimate.unit and used.pays_for(levels))
        return max(mine, key=lambda used: used.fraction, default=None)

    def _gate(self, request: ReserveRequest) -> _Gate:
        key = (request.estimate.unit, *sorted(levels_of(request.subject).items()))
        return self._gates.setdefault(key, _Gate())

    async def _decide(self, io: CallsUser, request: ReserveRequest, used: Used, gate: _Gate, turn: _Turn) -> None:
        try:
            returned = await self._reply_of_user(io, request, used, gate)
            # A reply that is no reply denies: to approve by mistake would spend money that no person has approved.
            turn.denied, granted = _read_reply(returned, request)
            gate.grant(granted)
        except Exception as error:
            turn.denied = _Denied(error)
        if turn.denied is not None:
            raise _denied(request, used, turn.denied)

    async def _reply_of_user(self, io: CallsUser, request: ReserveRequest, used: Used, gate: _Gate) -> Any:
        unit = request.estimate.unit
        question = ApprovalRequest(
            subject=request.subject,
            action=request.action,
            estimate=request.estimate,
            scope=used.scope,
            fraction=used.fraction,
            remaining=SignedAmount(unit, used.remaining),
            waiting=lambda: Waiting(len(gate.waiting), Amount(unit, sum(list(gate.waiting.values())))),
        )
        return await io.call_user(self._approve, question)


class _Denied:
    """The reply of `approve` was no."""

    def __init__(self, cause: Exception | None = None) -> None:
        self.cause = cause


class _Turn:
    """One call of `approve`, for which other reservations may wait.

    Attributes:
        denied: The reply if it is no; None as long as there is none, and if the caller was interrupted.
        ended: Set when the caller has its reply or is interrupted.
    """

    __slots__ = ("denied", "ended")

    def __init__(self) -> None:
        self.denied: _Denied | None = None
        self.ended: Final = Signal()


class _Gate:
    """Lets one reservation at a time call `approve`, and keeps what it has granted.

    A signal handler may reserve while its thread is in a method. So the lock is re-entrant, and no method makes a call
    between what it reads and what it stores.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._granted = 0
        self._turn: _Turn | None = None  # of the caller whose `approve` runs
        self.waiting: dict[_Turn, int] = {}  # with their estimates

    def covers(self, estimate: int) -> bool:
        """Use up a part of what was granted; False if too little of it is left."""
        with self._lock:
            if estimate > self._granted:
                return False
            self._granted -= estimate
            return True

    def enter(self, turn: _Turn, estimate: int) -> _Turn:
        """Return `turn` if its caller calls `approve`, otherwise the turn to wait for."""
        with self._lock:
            if self._turn is None:
                self._turn = turn
                self.waiting.pop(turn, None)
            if self._turn is not turn:
                self.waiting[turn] = estimate
            return self._turn

    def grant(self, amount: int) -> None:
        """Keep what a reply has granted beyond its reservation."""
        with self._lock:
            self._granted += amount

    def leave(self, turn: _Turn) -> None:
        """End a turn or its wait, and wake those that wait for the turn. May be called twice."""
        with self._lock:
            self.waiting.pop(turn, None)
            if self._turn is turn:
                self._turn = None
        turn.ended.set()  # in each call: the first one may have been interrupted here


def _read_reply(returned: Any, request: ReserveRequest) -> tuple[_Denied | None, int]:
    """Return whether the reply denies, and what it grants beyond this reservation."""
    if returned is True:
        return None, 0
    if returned is False:
        return _Denied(), 0
    # An amount approves several reservations: what is left of it covers those that wait, without another question.
    if isinstance(returned, Amount) and returned.unit == request.estimate.unit:
        left = returned.amount - request.estimate.amount
        return (None, left) if left >= 0 else (_Denied(), 0)
    raise TypeError(f"approve must return True, False or an amount in {request.estimate.unit}, got {returned!r:.80}")


def _denied(request: ReserveRequest, used: Used, reply: _Denied) -> ApprovalDeniedError:
    cause = reply.cause
    why = "was not approved" if cause is None else f"was not approved, because approve failed ({cause!r:.200})"
    error = ApprovalDeniedError(
        f"a reservation of {request.estimate} {why}: {used.fraction:.0%} of {used.scope} is used",
        hint="nothing was sent; approve it, or fund the budget",
        code="APPROVAL_DENIED",
    )
    error.__cause__ = cause
    return error
