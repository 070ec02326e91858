"""Admit a call to its budgets: reserve its upper bound, and wait or lower its output limit if that does not fit.

One flow for threads and event loops, used by guarded clients and by the proxy. In one call:

1. Reserve the bound at the output limit of the request, unless a call that needs as much or less waits already.
2. If that is denied for lack of budget, join the queue of the call's budgets (`_queue`). Other denials are final.
3. The first of a queue reads its budgets with a dry run of estimate 0, and the limits of the run.
4. If the bound at the lowest output limit could never fit, the call is denied.
5. Otherwise the highest limit that would fit without other calls is reserved, if it fits now.
6. If not, wait for the end of a call of this process, or a moment for other processes.
7. If nothing has changed for the whole wait, take what is left, or be denied.
8. What was held then counts as spent until less is held.

A waiting call holds nothing: it can be left at any point. All its attempts have one idempotency key, because a denied
reserve stores none. `docs/exact-budgets.md` says why calls wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve, frozen

from cycles._core.amounts import Amount
from cycles._core.messages.outcome import RejectedResponse, Success
from cycles._core.messages.requests import NO_OPTIONS, Call as Sent, new_key, new_keys
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.protocol import CREATE_RESERVATION, GET_BALANCES, is_allowed
from cycles._errors import BudgetExceededError, CyclesError, RateLimitedError, ReservationDeniedError, UnitMismatchError
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io
from cycles._flows.reserve import Take, open_with, report_denied, traced
from cycles._flows.retry import send_read, send_write
from cycles._flows.run_limit import RUN_LIMIT, limits_around
from cycles._flows.signal import Signal
from cycles.providers._queue import Admissions, BudgetQueue, Left, Source, Ticket, pays
from cycles.providers._typed import rounded_up, written

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 1.0
"""How long the first of a queue waits before it looks at its budgets again: other processes cannot wake it."""
MOST_MISSES: Final = 3
"""How often an attempt that would fit is denied although nothing has changed; then no other client was faster."""


def highest_limit(bound: Callable[[int], int], low: int, high: int, amount: float) -> int:
    """Return the highest output limit from `low` to `high` whose bound an amount can pay; that of `low` must fit."""
    while low < high:
        middle = (low + high + 1) // 2
        if bound(middle) <= amount:
            low = middle
        else:
            high = middle - 1
    return low


@frozen
class Need:
    """What a call needs by its output limit.

    Attributes:
        first: What is reserved first: the bound at the limit of the request, or at the maximum of its model.
        limit: The highest output limit with which it may be sent if that does not fit.
        lowest: The lowest one.
        bound: Returns what the call may cost at an output limit; None: it cannot be lowered.
    """

    first: int
    limit: int = 0
    lowest: int = 0
    bound: Callable[[int], int] | None = None

    @property
    def most(self) -> int:
        """What a waiting call needs at its highest output limit."""
        return self.first if self.bound is None else self.bound(self.limit)

    @property
    def least(self) -> int:
        """What it needs at its lowest output limit."""
        return self.first if self.bound is None else self.bound(self.lowest)

    def fits(self, amount: float) -> tuple[int, int | None]:
        """Return the most that the call can use of an amount, and the output limit for it; the least must fit."""
        if self.bound is None:
            return self.first, None
        limit = highest_limit(self.bound, self.lowest, self.limit, amount)
        return self.bound(limit), limit


@frozen
class Admitted:
    """A reserved call.

    Attributes:
        guard: Its reservation.
        amount: What was reserved.
        limit: The output limit that its request must have; None: that of the request.
    """

    guard: GuardState
    amount: Amount
    limit: int | None


def units_of_budgets(error: UnitMismatchError) -> str | None:
    """Return the units in which the scope of a call has budgets, if the server names them."""
    units = error.details.get("expected_units")
    return ", ".join(map(str, units)) if isinstance(units, list) and units else None


class Admission:
    """The admission of one call.

    Args:
        io: The operations.
        admissions: The queues of the client.
        request: What to reserve, with the bound at the request's own limit.
        need: What it needs by its output limit.
        wait_s: How long it waits while nothing changes.
        take: Gets the guard, as for `open_lease`.
        on_wait: Called before it waits.
        loop: The event loop of the task; None in a thread.
        enclosing: The reservation of the guard around the call.
    """

    def __init__(
        self,
        io: Io,
        admissions: Admissions,
        request: ReserveRequest,
        need: Need,
        *,
        wait_s: float,
        take: Take,
        on_wait: Callable[[], object],
        loop: AbstractEventLoop | None = None,
        enclosing: ReserveRequest | None = None,
    ) -> None:
        self._io = io
        self._admissions = admissions
        self._request = request.without_wait()
        self._need = need
        self._wait_s = wait_s
        self._take = take
        self._on_wait = on_wait
        self._loop = loop
        self._enclosing = enclosing
        self._limits = tuple(limit for limit in limits_around() if limit.amount.unit == request.estimate.unit)
        self._options = NO_OPTIONS
        self._keys = new_keys(2)  # of the reserve and of the commit
        self._approved = False
        self._error: BudgetExceededError | None = None  # of the last attempt
        self._missed: tuple[Source, ...] | None = None  # what was read before an attempt that was denied anyway
        self._misses = 0  # how often in succession
        self._rated_ms: float | None = None  # since when the server limits the rate

    async def run(self) -> Admitted:
        """Reserve the call.

        Raises:
            ReservationDeniedError: it was denied.
            CyclesError: there is no reservation for another reason.
        """
        self._options = self._io.begin_trace(self._request, new_key())
        found: list[Admitted] = []

        async def opening() -> GuardState:
            found.append(await self._reported())
            return found[0].guard

        trace = self._options.trace
        await (opening() if trace is None else traced(trace, opening()))
        return found[0]

    async def _reported(self) -> Admitted:
        try:
            return await self._admitted()
        except (ReservationDeniedError, RateLimitedError) as error:
            report_denied(self._io, self._request, error)
            raise
        except UnitMismatchError as error:
            units = units_of_budgets(error)
            if units is not None:
                error.hint = f"its budgets are in {units}: pass unit={units.split(', ')[0]!r} to guard()"
            raise

    async def _admitted(self) -> Admitted:
        need, request = self._need, self._request
        if request.shadow or request.observe or not self._wait_s:
            held_up = False
        else:
            held_up = self._admissions.holds_up(request, self._limits, need.first)
        if not held_up:
            try:
                return await self._attempt(need.first, None)
            except BudgetExceededError as error:
                self._error = error
        ticket = Ticket(need.most, need.least, self._loop)
        queue: BudgetQueue | None = None
        try:
            queue = self._admissions.join(request, self._limits, ticket)
            return await self._in_queue(queue, ticket)
        finally:
            try:
                self._leave(queue, ticket)
            finally:  # once more, if a signal interrupted it
                self._leave(queue, ticket)

    def _leave(self, queue: BudgetQueue | None, ticket: Ticket) -> None:
        queue = queue or self._admissions.queue_of(ticket)
        if queue is not None:
            queue.leave(ticket)

    async def _in_queue(self, queue: BudgetQueue, ticket: Ticket) -> Admitted:
        pause_s = FIRST_PAUSE_S
        while True:
            queue.begin_turn(ticket)
            may_try = not self._wait_s or queue.is_first(ticket)
            if not may_try and not (queue.idle is not None and ticket.lowest > queue.idle):
                await self._sleep(queue, ticket, queue.watch_s(ticket))
                continue
            sources = self._of_limits()
            if self._need.least <= self._left(queue, sources).idle:  # else the limit of the run alone denies finally
                sources += await self._of_budgets()
                queue.see(sources)
                queue.note_idle(sources)
            left = self._left(queue, sources)
            if self._need.least > left.idle:
                return await self._denied(left)
            if may_try and (admitted := await self._try(queue, sources, left)) is not None:
                return admitted
            if self._wait_s:
                due_s = (queue.since_ms - self._io.clock.now_ms()) / 1000 + self._wait_s
                await self._sleep(queue, ticket, min(pause_s * (0.75 + self._io.clock.random() / 2), max(0.0, due_s)))
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _try(self, queue: BudgetQueue, sources: tuple[Source, ...], left: Left) -> Admitted | None:
        """Reserve what would fit without other calls; after the whole wait, what is left. None: wait on."""
        amount, limit = self._need.fits(left.idle)
        if amount > left.left:
            if self._io.clock.now_ms() - queue.since_ms < self._wait_s * 1000:
                return None
            if self._wait_s:
                queue.note_stuck(sources)
            if self._need.least > left.left:
                return await self._denied(left)
            amount, limit = self._need.fits(left.left)
        try:
            return await self._attempt(amount, limit)
        except BudgetExceededError as error:
            self._error = error
            self._misses = self._misses + 1 if self._missed == sources else 1
            self._missed = sources
        if self._misses < MOST_MISSES or self._io.clock.now_ms() - queue.since_ms < self._wait_s * 1000:
            return None  # another client was faster
        return await self._denied(left)

    async def _denied(self, left: Left) -> Admitted:
        """Raise the error of the last attempt, with what the call needs and what is left; attempt it if there is none.

        An attempt that succeeds anyway admits the call.
        """
        of_run, by_run = not isinstance(left.name, str | None), getattr(self._error, "code", None) == RUN_LIMIT
        if self._error is None or of_run != by_run:
            try:  # with the least after a denial of the run, which denies the most without a request to the server
                return await self._attempt(*self._need.fits(0 if by_run else float("inf")))
            except BudgetExceededError as error:
                self._error = error
        denial = self._error
        explained = self._explained(left, denial.message)
        denial.hint = f"{explained}; {denial.hint}" if denial.hint else explained
        raise denial

    def _explained(self, left: Left, message: str) -> str:
        """Return what the call needs and what is left, if the server has not said it, and what would let it pass."""
        unit, name, least = self._request.estimate.unit, left.name, self._need.least
        if left.left == float("inf"):
            return f"it needs at least {Amount(unit, least)}{self._at_limit()}"
        remaining = max(0, int(left.left))
        is_scope = isinstance(name, str) and name != ""
        where = f" in {name:.200}" if is_scope else ""
        needs = (
            f"it needs at least {Amount(unit, least)}{self._at_limit()}, and {Amount(unit, remaining)} is left{where}"
        )
        if not is_scope or least <= left.left:  # the limit of the run denies, or another client was faster
            return needs
        passes = f"cycles fund {name:.200} {written(rounded_up(least - int(left.left), unit))}"
        if self._need.bound is not None and self._need.bound(1) <= remaining:
            highest = highest_limit(self._need.bound, 1, self._need.lowest - 1, remaining)
            passes = f"an output limit of at most {highest} tokens or {passes}"
        return f"{passes} lets it pass" if str(Amount(unit, least)) in message else f"{needs}; {passes} lets it pass"

    def _at_limit(self) -> str:
        return "" if self._need.bound is None else f", at an output limit of {self._need.lowest} tokens"

    async def _attempt(self, amount: int, limit: int | None) -> Admitted:
        request = self._request
        if amount != request.estimate.amount:
            request = evolve(request, estimate=Amount(request.estimate.unit, amount))
        while True:
            try:
                guard = await self._reserve(request)
            except RateLimitedError as error:
                await self._wait_for_rate(error, error.retry_after_ms)
                continue
            except ReservationDeniedError as error:
                self._rated_ms = None
                if error.status == 200:  # a decision that the server may return again for the same key
                    self._keys = new_keys(2)
                raise
            return Admitted(guard, request.estimate, limit)

    async def _reserve(self, request: ReserveRequest) -> GuardState:
        """Reserve once. `approve` is called once for the call, with its unlowered estimate."""
        if self._approved:
            request = evolve(request, is_approved=True)
            return await open_with(self._io, request, self._options, self._take, list(self._keys))
        if request is not self._request:
            await self._io.approve(self._request)
            self._approved = True
            return await self._reserve(request)
        try:
            return await open_with(self._io, request, self._options, self._take, list(self._keys))
        except CyclesError as error:
            self._approved = getattr(error, "code", None) != RUN_LIMIT  # which is raised before `approve` is called
            raise

    async def _wait_for_rate(self, error: CyclesError, retry_after_ms: int | None) -> None:
        """Wait as the server says, within `wait`.

        Raises:
            RateLimitedError: it is longer.
        """
        now_ms = self._io.clock.now_ms()
        self._rated_ms = now_ms if self._rated_ms is None else self._rated_ms
        delay_ms = LONGEST_PAUSE_S * 1000 if retry_after_ms is None else retry_after_ms
        if now_ms + delay_ms > self._rated_ms + self._wait_s * 1000 or self._admissions.is_closed:
            raise error
        self._on_wait()
        await self._io.wait(Signal(), delay_ms / 1000)

    async def _sleep(self, queue: BudgetQueue, ticket: Ticket, seconds: float | None) -> None:
        if self._admissions.is_closed:
            raise CyclesError("the client was closed while a call waited for budget: nothing was sent; call it again")
        self._on_wait()
        await self._io.wait(queue.armed(ticket), seconds)

    def _left(self, queue: BudgetQueue, sources: tuple[Source, ...]) -> Left:
        own = self._admissions.own_holds(sources, by_task=self._loop is not None, enclosing=self._enclosing)
        return queue.left_of(sources, own, self._wait_s)

    def _of_limits(self) -> tuple[Source, ...]:
        return tuple(self._read_limits())

    def _read_limits(self) -> Iterator[Source]:
        for limit in self._limits:
            spent, held = limit.spent.amount, limit.held.amount
            yield Source(limit, limit.amount.amount - spent - held, held)

    async def _of_budgets(self) -> tuple[Source, ...]:
        """Read the budgets of exactly the scopes of the call, with a dry run. Empty: only an attempt can tell."""
        nothing = evolve(
            self._request,
            estimate=Amount(self._request.estimate.unit, 0),
            shadow=True,
            metadata=None,
        )
        while True:
            outcome = await send_write(
                self._io, Sent(CREATE_RESERVATION, body=nothing.body(new_key()), options=self._options)
            )
            if not (isinstance(outcome, RejectedResponse) and outcome.status == 429):
                break
            if self._error is None or self._admissions.is_closed:
                return ()
            await self._wait_for_rate(self._error, outcome.retry_after_ms)
        self._rated_ms = None
        if not isinstance(outcome, Success):
            return ()
        if not is_allowed(outcome.body["decision"]):
            return await self._overdrawn() if outcome.body.get("reason_code") == "BUDGET_EXCEEDED" else ()
        return tuple(self._read_balances(outcome.body.get("balances")))

    async def _overdrawn(self) -> tuple[Source, ...]:
        """Read the budgets of the tenant: less than 0 is left, and the denial of a dry run has no balances."""
        subject, left = self._request.subject, Source("", -1, None)
        if subject.tenant is None:
            return (left,)
        outcome = await send_read(self._io, Sent(GET_BALANCES, query={"tenant": subject.tenant}, options=self._options))
        found = self._read_balances(outcome.body.get("balances")) if isinstance(outcome, Success) else ()
        below = tuple(each for each in found if each.left < 0 and pays(each.name, self._request))
        return below or (left,)

    def _read_balances(self, balances: Any) -> Iterator[Source]:
        unit = self._request.estimate.unit
        for each in balances if isinstance(balances, list) else ():
            left, held = each["remaining"], each.get("reserved")
            if left["unit"] == unit:
                yield Source(each["scope_path"], left["amount"], None if held is None else held["amount"])
