"""Faults that are planted in the admission of calls, to show that its simulation finds them.

Each one replaces a method of the real code. `python -m tests.simulation.calls_planted` prints after how many seeds each
is found.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from unittest import mock

from attrs import evolve

from cycles._errors import BudgetExceededError
from cycles.providers import _queue
from cycles.providers._admission import Admission
from cycles.providers._queue import BudgetQueue
from tests.simulation import calls

MOST_SEEDS: Final = 2_000


def loses_a_wake_up() -> Any:
    """A call that is woken while it reads its budgets is not woken."""

    def wake(tickets: Any) -> None:
        for ticket in tickets:
            if ticket._signal is not None:
                ticket._signal.set()

    return mock.patch.object(_queue, "_wake", wake)


def leaves_a_ticket() -> Any:
    """The ticket of a call that is cancelled stays in its queue."""
    leave = Admission._leave

    def left(self: Admission, queue: Any, ticket: Any) -> None:
        if not isinstance(sys.exc_info()[1], GeneratorExit):
            leave(self, queue, ticket)

    return mock.patch.object(Admission, "_leave", left)


@contextlib.contextmanager
def has_a_clock_for_every_waiter() -> Iterator[None]:
    """Each call has a clock from the beginning of its wait, also if others end in the meantime."""
    try_, in_queue, is_first = Admission._try, Admission._in_queue, BudgetQueue.is_first
    began: dict[Any, float] = {}

    async def in_queue_with_clock(self: Admission, queue: BudgetQueue, ticket: Any) -> Any:
        began[ticket] = began[self] = self._io.clock.now_ms()
        return await in_queue(self, queue, ticket)

    def is_due(self: BudgetQueue, ticket: Any) -> bool:
        return is_first(self, ticket) or self._now_ms() - began[ticket] >= calls.WAIT_S * 1000

    async def tries(self: Admission, queue: BudgetQueue, sources: Any, left: Any) -> Any:
        queue.since_ms = min(queue.since_ms, began[self])
        return await try_(self, queue, sources, left)

    with (
        mock.patch.object(Admission, "_in_queue", in_queue_with_clock),
        mock.patch.object(Admission, "_try", tries),
        mock.patch.object(BudgetQueue, "is_first", is_due),
    ):
        yield


def counts_a_hold_twice() -> Any:
    """What is held counts twice in what would be left without it."""
    left_of = BudgetQueue.left_of

    def doubled(self: BudgetQueue, sources: Sequence[Any], own: Any, wait_s: float) -> Any:
        twice = [source if source.held is None else evolve(source, held=2 * source.held) for source in sources]
        return left_of(self, tuple(twice), own, wait_s)

    return mock.patch.object(BudgetQueue, "left_of", doubled)


def forgets_the_limit_of_the_run() -> Any:
    """What the limit of the run leaves is not looked at."""
    return mock.patch.object(Admission, "_of_limits", return_value=())


def takes_a_race_as_final() -> Any:
    """A call is denied if another client was faster after its dry run."""
    try_ = Admission._try

    async def tries(self: Admission, *given: Any) -> Any:
        admitted = await try_(self, *given)
        if admitted is None and self._misses:
            raise BudgetExceededError("another client was faster", code="BUDGET_EXCEEDED")
        return admitted

    return mock.patch.object(Admission, "_try", tries)


def reserves_less_than_the_bill() -> Any:
    """Less is reserved than the request may cost."""
    attempt = Admission._attempt

    async def cheaper(self: Admission, amount: int, limit: int | None) -> Any:
        return await attempt(self, amount * 9 // 10, limit)

    return mock.patch.object(Admission, "_attempt", cheaper)


def does_not_send_the_lowered_limit() -> Any:
    """The request is sent with its own limit, although a lower one was reserved."""
    attempt = Admission._attempt

    async def unlowered(self: Admission, amount: int, limit: int | None) -> Any:
        return evolve(await attempt(self, amount, limit), limit=None)

    return mock.patch.object(Admission, "_attempt", unlowered)


PLANTED: Final[tuple[Callable[[], Any], ...]] = (
    loses_a_wake_up,
    leaves_a_ticket,
    has_a_clock_for_every_waiter,
    counts_a_hold_twice,
    forgets_the_limit_of_the_run,
    takes_a_race_as_final,
    reserves_less_than_the_bill,
    does_not_send_the_lowered_limit,
)


def seeds_until_found(plant: Callable[[], Any]) -> tuple[int, str] | None:
    """Return how many seeds ran until one failed, and what it found; None: none did."""
    with plant():
        for seed in range(MOST_SEEDS):
            if (problem := calls.run(seed)) is not None:
                return seed + 1, problem
    return None


def main() -> int:
    """Plant each fault. Return 1 if one is not found."""
    missed = 0
    for plant in PLANTED:
        found = seeds_until_found(plant)
        missed += found is None
        told = "missed" if found is None else f"{found[0]:4} seeds: {found[1][:90]}"
        print(f"{plant.__name__}: {told}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
