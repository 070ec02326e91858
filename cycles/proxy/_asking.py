"""`--ask-at`: asks on the terminal before a call is sent. The call holds its budget already, so that a yes lets it run.

Calls that come in the meantime wait for their own question; a no denies them too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from attrs import frozen

from cycles._core.amounts import Amount, SignedAmount
from cycles.proxy._denials import Payer


@frozen
class Question:
    """What is asked.

    Attributes:
        model: The model of the call.
        estimate: What the call may cost; it is reserved.
        used: How much of which budget is used, without this call.
        waiting: How many other calls wait for a question.
        total: What they may cost.
    """

    model: str
    estimate: Amount
    used: str
    waiting: int
    total: Amount


class Asking:
    """The questions of one run.

    Args:
        above: The used fraction of a budget from which is asked.
        ask: Asks in a thread, and returns the reply: no, yes, or an amount up to which calls pass without a question.
    """

    def __init__(self, above: float, ask: Callable[[Question], bool | Amount]) -> None:
        self._above = above
        self._ask = ask
        self._lock = asyncio.Lock()
        self._granted = 0
        self._noes = 0
        self._waiting: dict[object, int] = {}

    @property
    def waiting(self) -> int:
        """How many calls wait for a question."""
        return len(self._waiting)

    async def denial(self, model: str, estimate: Amount, payers: Sequence[Payer]) -> str | None:
        """Return None if a call may be sent, which `payers` hold already; otherwise why not."""
        used = self._used(estimate, payers)
        if used is None or self._covers(estimate):
            return None
        noes, place = self._noes, object()
        self._waiting[place] = estimate.amount
        try:
            async with self._lock:
                del self._waiting[place]
                if noes == self._noes and not self._covers(estimate):
                    await self._decide(model, estimate, used)
        finally:
            self._waiting.pop(place, None)
        return None if noes == self._noes else f"it was not approved: {used}"

    def _used(self, estimate: Amount, payers: Sequence[Payer]) -> str | None:
        """Return how much is used of the budget of which the most is used; None if it is not enough to ask."""
        known = [payer for payer in payers if payer.whole > 0]
        if not known:
            return "how much of its budget is used is not known"
        fraction, left, name = max(
            ((payer.whole - payer.left - estimate.amount) / payer.whole, payer.left + estimate.amount, payer.name)
            for payer in known
        )
        if fraction < self._above:
            return None
        return f"{fraction:.0%} of {name} is used, {SignedAmount(estimate.unit, left)} is left"

    def _covers(self, estimate: Amount) -> bool:
        if estimate.amount > self._granted:
            return False
        self._granted -= estimate.amount
        return True

    async def _decide(self, model: str, estimate: Amount, used: str) -> None:
        total = Amount(estimate.unit, sum(self._waiting.values()))
        question = Question(model, estimate, used, len(self._waiting), total)
        try:
            reply = await asyncio.to_thread(self._ask, question)
        except OSError:  # the terminal is gone
            reply = False
        if isinstance(reply, Amount):
            if reply.unit == estimate.unit and reply.amount >= estimate.amount:
                self._granted += reply.amount - estimate.amount
                return
            reply = False
        if not reply:
            self._noes += 1
