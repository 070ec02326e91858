"""The limit of one run in code: what the reservations inside a `cycles.limit(...)` block hold and spend together.

`open_lease` holds an estimate before it sends anything, and then passes the guard that it opened. From then on
`GuardState.cost` says what was spent. Only reservations in the unit of the limit count; shadow reservations hold
nothing. The context has the limits around the code, so any number of threads and tasks may be inside one limit.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from types import TracebackType
from typing import Final, Self

from cycles._core.amounts import Amount
from cycles._errors import BudgetExceededError, InvalidRequestError
from cycles._flows.guard_state import GuardState
from cycles._version import readable

RUN_LIMIT: Final = "RUN_LIMIT"
"""The code of a denial by a limit of the run: nothing was sent."""
_limits: Final[ContextVar[tuple[RunLimit, ...]]] = ContextVar("cycles_limits", default=())


class RunLimit:
    """A limit for everything inside its block, in this context and in the tasks that it starts.

    ``with cycles.limit(cycles.usd(2)) as limit:`` and ``async with`` are the same. Nested limits all apply.
    """

    __slots__ = ("_lock", "_open", "_spent", "amount")

    def __init__(self, amount: Amount) -> None:
        if not isinstance(amount, Amount):
            raise InvalidRequestError(f"limit must be an amount: {amount!r:.80}; pass one such as cycles.usd(2)")
        self.amount: Amount = amount
        self._lock = threading.Lock()
        self._open: dict[object, tuple[int, GuardState | None]] = {}
        self._spent = 0

    @property
    def spent(self) -> Amount:
        """What guards inside have spent; what is only held does not count."""
        with self._lock:
            self._count_ended()
            return Amount(self.amount.unit, self._spent)

    @property
    def held(self) -> Amount:
        """What reservations inside hold now."""
        with self._lock:
            return Amount(self.amount.unit, self._count_ended())

    @property
    def remaining(self) -> Amount:
        """What further reservations may hold: 0 if more was spent than the limit."""
        with self._lock:
            return Amount(self.amount.unit, max(0, self._left()))

    def add(self, key: object, estimate: Amount) -> None:
        """Hold an estimate.

        Raises:
            BudgetExceededError: code RUN_LIMIT, if it does not fit; nothing is held.
        """
        if estimate.unit != self.amount.unit:
            return
        with self._lock:
            left = self._left()
            if estimate.amount > left:
                raise BudgetExceededError(
                    f"the limit of this run is {self.amount}, and {Amount(self.amount.unit, max(0, left))} of it is "
                    f"left: a reservation of {estimate} was not sent",
                    hint="raise the amount of cycles.limit(...), or finish the guards that are open inside it",
                    code=RUN_LIMIT,
                )
            self._open[key] = (estimate.amount, None)

    def opened(self, key: object, guard: GuardState | None) -> None:
        """Take the guard whose state counts from now on; None if the reservation failed and nothing is held."""
        with self._lock:
            held = self._open.pop(key, None)
            if held is not None and guard is not None:
                self._open[key] = (held[0], guard)

    def _left(self) -> int:
        return self.amount.amount - self._count_ended() - self._spent

    def _count_ended(self) -> int:
        """Add what ended guards have spent, and return what the others hold, or have spent. The lock is held."""
        held = 0
        for key, (estimate, guard) in list(self._open.items()):
            cost = None if guard is None else guard.cost
            if cost is None:
                held += estimate if guard is None else guard.held
            else:
                self._spent += cost
                del self._open[key]
        return held

    def __enter__(self) -> Self:
        _limits.set((*_limits.get(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        around = list(_limits.get())
        if self in around:  # else the block was entered in another context
            around.reverse()
            around.remove(self)
            _limits.set(tuple(reversed(around)))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, raised, tb)

    def __repr__(self) -> str:
        return f"<limit {self.amount}: {self.spent} spent, {self.held} held>"


class HeldByLimits:
    """What one reservation holds in all limits around it."""

    __slots__ = ("_limits",)

    def __init__(self, estimate: Amount) -> None:
        self._limits: tuple[RunLimit, ...] = ()
        around = limits_around()
        for index, limit in enumerate(around):
            try:
                limit.add(self, estimate)
            except BudgetExceededError:
                for held in around[:index]:
                    held.opened(self, None)
                raise
        self._limits = around

    def opened(self, guard: GuardState | None) -> None:
        """Pass the guard to the limits, or None if there is no reservation."""
        for limit in self._limits:
            limit.opened(self, guard)


def limits_apply() -> bool:
    """Return whether this code is inside a limit."""
    return bool(_limits.get())


def limits_around() -> tuple[RunLimit, ...]:
    """Return the limits around this code, outermost first; one that was entered twice counts once."""
    return tuple(dict.fromkeys(_limits.get()))


readable(RunLimit)
