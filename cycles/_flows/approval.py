"""Approval of reservations when most of a budget is used: one call of `approve` at a time for each subject and unit.

Reservations that come in the meantime wait for its reply. A reserve that `approve` itself makes is exempt.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from cycles._core.amounts import Amount, SignedAmount
from cycles._core.events.used_fraction import Used, levels_of
from cycles._core.messages.approval import ApprovalRequest, Waiting
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._errors import ApprovalDeniedError

T = TypeVar("T")
Approve: TypeAlias = Callable[[ApprovalRequest], Any]

_exempt: Final[ContextVar[bool]] = ContextVar("cycles_exempt_from_approval", default=False)


class CallsUser(Protocol):
    """What approval needs of an `Io`."""

    async def call_user(self, function: Callable[[T], Any], argument: T) -> Any:
        """Call a function or a coroutine function of the user; in an event loop a function runs in a thread."""
        ...

    async def result_of(self, future: Future[T]) -> T:
        """Wait for a result that another thread or task sets."""
        ...


@contextmanager
def exempt_from_approval() -> Iterator[None]:
    """Reserve without approval in this block, for example to refill a pool ahead."""
    token = _exempt.set(True)
    try:
        yield
    finally:
        _exempt.reset(token)


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
        self._lock = threading.Lock()
        self._gates: dict[tuple[Any, ...], _Gate] = {}

    async def check(self, io: CallsUser, request: ReserveRequest) -> None:
        """Return if the reservation may be sent.

        Raises:
            ApprovalDeniedError: it may not. Nothing was sent.
        """
        used = None if _exempt.get() else self._most_used(request)
        if used is None or used.fraction < self._above:
            return
        gate = self._gate(request)
        while not gate.covers(request.estimate.amount):
            waits_for = gate.enter(request.estimate.amount)
            if waits_for is None:
                await self._decide(io, request, used, gate)
                return
            reply = await io.result_of(waits_for)
            if isinstance(reply, _Denied):
                raise _denied(request, used, reply)

    def _most_used(self, request: ReserveRequest) -> Used | None:
        levels = levels_of(request.subject)
        mine = (used for used in self._known() if used.unit == request.estimate.unit and used.pays_for(levels))
        return max(mine, key=lambda used: used.fraction, default=None)

    def _gate(self, request: ReserveRequest) -> _Gate:
        key = (request.estimate.unit, *sorted(levels_of(request.subject).items()))
        with self._lock:
            return self._gates.setdefault(key, _Gate())

    async def _decide(self, io: CallsUser, request: ReserveRequest, used: Used, gate: _Gate) -> None:
        reply: _Denied | None = None
        granted = 0
        try:
            returned = await self._reply_of_user(io, request, used, gate)
            reply, granted = _read_reply(returned, request)
        except Exception as error:
            reply = _Denied(error)
        finally:  # also if this caller is interrupted: then the next one in the queue calls `approve`
            gate.leave(reply, granted)
        if reply is not None:
            raise _denied(request, used, reply)

    async def _reply_of_user(self, io: CallsUser, request: ReserveRequest, used: Used, gate: _Gate) -> Any:
        unit = request.estimate.unit
        question = ApprovalRequest(
            subject=request.subject,
            action=request.action,
            estimate=request.estimate,
            scope=used.scope,
            fraction=used.fraction,
            remaining=SignedAmount(unit, used.remaining),
            waiting=lambda: Waiting(gate.count, Amount(unit, gate.sum)),
        )
        with exempt_from_approval():
            return await io.call_user(self._approve, question)


class _Denied:
    """The reply of `approve` was no."""

    def __init__(self, cause: Exception | None = None) -> None:
        self.cause = cause


class _Gate:
    """Lets one reservation at a time call `approve`, and keeps what it has granted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._granted = 0
        self._reply: Future[_Denied | None] | None = None  # set while `approve` runs
        self.count = 0
        self.sum = 0

    def covers(self, estimate: int) -> bool:
        """Use up a part of what was granted; False if too little of it is left."""
        with self._lock:
            if estimate > self._granted:
                return False
            self._granted -= estimate
            return True

    def enter(self, estimate: int) -> Future[_Denied | None] | None:
        """Return None if this caller calls `approve`, otherwise the reply to wait for."""
        with self._lock:
            if self._reply is None:
                self._reply = Future()
                return None
            self.count += 1
            self.sum += estimate
            return self._reply

    def leave(self, reply: _Denied | None, granted: int) -> None:
        """Pass the reply to those that wait."""
        with self._lock:
            waiting, self._reply = self._reply, None
            self._granted += granted
            self.count = self.sum = 0
        assert waiting is not None
        waiting.set_result(reply)


def _read_reply(returned: Any, request: ReserveRequest) -> tuple[_Denied | None, int]:
    """Return whether the reply denies, and what it grants beyond this reservation."""
    if returned is True:
        return None, 0
    if returned is False:
        return _Denied(), 0
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
