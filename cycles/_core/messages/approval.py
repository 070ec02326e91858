"""What a function of `approve=` gets: a reservation that needs approval, and those that wait for the same reply."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attrs import field, frozen

from cycles._core.amounts import Amount, SignedAmount
from cycles._core.subjects import Action, Subject
from cycles._version import public


@frozen
class Waiting:
    """Reservations that wait for the reply: ``count, sum = request.waiting``.

    Attributes:
        count: How many.
        sum: The sum of their estimates.
    """

    count: int
    sum: Amount

    def __iter__(self) -> Iterator[int | Amount]:
        return iter((self.count, self.sum))


@frozen(kw_only=True)
class ApprovalRequest:
    """A reservation that is sent only if it is approved.

    Attributes:
        subject: Whose budget pays.
        action: What is about to be done.
        estimate: What it may cost.
        scope: The full path of the scope of which the most is used.
        fraction: Its used fraction.
        remaining: What is left in it.
    """

    subject: Subject
    action: Action
    estimate: Amount
    scope: str
    fraction: float
    remaining: SignedAmount
    _waiting: Callable[[], Waiting] = field(repr=False, eq=False, alias="waiting")

    @property
    def waiting(self) -> Waiting:
        """The reservations of the same subject that wait for this reply now."""
        return self._waiting()


public(ApprovalRequest)
