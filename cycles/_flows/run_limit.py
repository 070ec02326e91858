"""The limit of one run in code: what the reservations inside a `cycles.limit(...)` block hold and spend together.

`open_lease` holds an estimate before it sends anything, and then passes the guard that it opened. From then on
`GuardState.cost` says what was spent. Only reservations in the unit of the limit count; shadow reservations hold
nothing. The context has the limits around the code, so any number of threads and tasks may be inside one limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Final, NamedTuple, Self
from weakref import ref

from cycles._core.amounts import Amount
from cycles._errors import BudgetExceededError, InvalidRequestError
from cycles._flows.guard_state import GuardState
from cycles._version import readable

RUN_LIMIT: Final = "RUN_LIMIT"
"""The code of a denial by a limit of the run: nothing was sent."""
LIMITS: Final[ContextVar[tuple[RunLimit, ...]]] = ContextVar("cycles_limits", default=())
"""The limits around this code, outermost first; one that was entered twice is in it twice."""


class _Counted(NamedTuple):
    """What a limit counts, as one value: one store replaces it, so that an interrupt comes before or after a change.

    Attributes:
        open: What is held, with the guard that decides from now on what it costs.
        spent: By guards that have ended.
        following: The value that has replaced this one, if there is one.
    """

    open: Mapping[object, tuple[int, GuardState | None]]
    spent: int
    following: dict[None, _Counted]

    def now(self) -> tuple[_Counted, int]:
        """Return the value without the guards that have ended, and what the others hold, or have spent."""
        held, spent, left = 0, self.spent, {}
        for key, (estimate, guard) in self.open.items():
            # Its caller was interrupted, so there is no reservation.
            if guard is None and isinstance(key, ref) and key() is None:
                continue
            cost = None if guard is None else guard.cost
            if cost is None:
                held += estimate if guard is None else guard.held
                left[key] = estimate, guard
            else:
                spent += cost
        return _Counted(left, spent, {}), held


class RunLimit:
    """A limit for everything inside its block, in this context and in the tasks that it starts.

    ``with cycles.limit(cycles.usd(2)) as limit:`` and ``async with`` are the same. Nested limits all apply.
    """

    __slots__ = ("_earlier", "amount")

    def __init__(self, amount: Amount) -> None:
        if not isinstance(amount, Amount):
            raise InvalidRequestError(f"limit must be an amount: {amount!r:.80}; pass one such as cycles.usd(2)")
        self.amount: Amount = amount
        self._earlier = _Counted({}, 0, {})  # one of the last values: `_counted` is the current one

    @property
    def spent(self) -> Amount:
        """What guards inside have spent; what is only held does not count."""
        return Amount(self.amount.unit, self._counted.now()[0].spent)

    @property
    def held(self) -> Amount:
        """What reservations inside hold now."""
        return Amount(self.amount.unit, self._counted.now()[1])

    @property
    def remaining(self) -> Amount:
        """What further reservations may hold: 0 if more was spent than the limit."""
        counted, held = self._counted.now()
        return Amount(self.amount.unit, max(0, self.amount.amount - held - counted.spent))

    def counts(self, request: object) -> bool:
        """Return whether it counts the open guard of a reserve request."""
        return any(guard is not None and guard.request is request for _, guard in self._counted.open.values())

    def add(self, key: object, estimate: Amount) -> None:
        """Hold an estimate.

        Raises:
            BudgetExceededError: code RUN_LIMIT, if it does not fit; nothing is held.
        """
        # A limit in dollars says nothing about tokens; `cycles.limit` may be nested for both.
        if estimate.unit != self.amount.unit:
            return
        while True:
            before = self._counted
            counted, held = before.now()
            # Recomputed in each round: guards end at any time, and what they have spent replaces what they held.
            left = self.amount.amount - held - counted.spent
            if estimate.amount > left:
                raise BudgetExceededError(
                    f"the limit of this run is {self.amount}, and {Amount(self.amount.unit, max(0, left))} of it is "
                    f"left: a reservation of {estimate} was not sent",
                    hint="raise the amount of cycles.limit(...), or finish the guards that are open inside it",
                    code=RUN_LIMIT,
                )
            # No lock is held while the sums are computed: `cost` reads other guards.
            if self._replace(before, _Counted({**counted.open, key: (estimate.amount, None)}, counted.spent, {})):
                return

    def opened(self, key: object, guard: GuardState | None) -> None:
        """Take the guard whose state counts from now on; None if the reservation failed and nothing is held."""
        while held := (before := self._counted).open.get(key):
            others = {each: value for each, value in before.open.items() if each is not key}
            after = others if guard is None else {**others, key: (held[0], guard)}
            if self._replace(before, _Counted(after, before.spent, {})):
                return

    @property
    def _counted(self) -> _Counted:
        counted = self._earlier
        while following := counted.following.get(None):
            counted = following
        return counted

    def _replace(self, before: _Counted, after: _Counted) -> bool:
        """Replace the value; return False if another thread, or a signal handler, has done so.

        No lock: a handler that reserves in the middle would wait for ever, and so would a child that was forked while
        another thread held it.
        """
        if before.following.setdefault(None, after) is not after:
            return False
        self._earlier = after  # an earlier value, if another thread is faster; a later one always follows from it
        return True

    def __enter__(self) -> Self:
        LIMITS.set((*LIMITS.get(), self))
        return self

    def __exit__(self, kind: object, raised: BaseException | None, tb: object) -> None:
        # The innermost entry of this limit is removed: it may have been entered twice, and others may be inside it.
        around = list(reversed(LIMITS.get()))
        if self in around:  # else the block was entered in another context
            around.remove(self)
            LIMITS.set(tuple(reversed(around)))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: object, raised: BaseException | None, tb: object) -> None:
        self.__exit__(kind, raised, tb)

    def __repr__(self) -> str:
        return f"<limit {self.amount}: {self.spent} spent, {self.held} held>"


class HeldByLimits:
    """What one reservation holds in all limits around it. At the end of its block they get the guard, if there is one.

    Attributes:
        guard: The guard that was opened; None if the reservation failed, or if the caller was interrupted.

    Raises:
        BudgetExceededError: code RUN_LIMIT, if the estimate does not fit; nothing is held.
    """

    __slots__ = ("__weakref__", "_key", "_limits", "guard")

    def __init__(self, estimate: Amount) -> None:
        self.guard: GuardState | None = None
        # Weak: if the caller is interrupted before the reservation, this object dies and the estimate is free again.
        self._key: Final = ref(self)
        self._limits: tuple[RunLimit, ...] = limits_around()
        try:
            for limit in self._limits:
                limit.add(self._key, estimate)
        except BudgetExceededError:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for limit in self._limits:
            limit.opened(self._key, self.guard)


def limits_around() -> tuple[RunLimit, ...]:
    """Return the limits around this code, outermost first; one that was entered twice counts once."""
    return tuple(dict.fromkeys(LIMITS.get()))


readable(RunLimit)
