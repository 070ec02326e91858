"""Simulated calls that wait for budget: many clients, one ledger, virtual time; the real admission and its queue.

`cycles.providers._admission` and `_queue` are the real code. The ledger, the provider and the drivers are simulated: a
reserve takes its time in both directions, so that clients race; a provider never makes more than the output limit that
it was sent, which may be the whole bound. Clients are killed with calls in flight, commits are rejected, calls are
cancelled while they wait. A seed decides everything.

In runs with one client time passes for a waiting call only after its whole wait: looking again from time to time would
hide a wake-up that was lost.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Coroutine, Generator, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

from attrs import define

from cycles._core.amounts import Amount
from cycles._core.messages.outcome import Success
from cycles._core.messages.requests import NO_OPTIONS, CallOptions
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.subjects import Action, Subject
from cycles._errors import BudgetExceededError, CyclesError
from cycles._flows.run_limit import RunLimit
from cycles.providers import _admission, _queue
from cycles.providers._admission import Admission, Admitted, Need
from cycles.providers._queue import Admissions

UNIT: Final = "USD_MICROCENTS"
TENANT: Final = "tenant:acme"
PROMPT: Final = 7
WAIT_S: Final = 240.0
LEASE_S: Final = 60.0
SLACK_S: Final = 3.0
"""How long after a change a call may be reserved or denied: some requests, and the pause for other processes."""
MOST_STEPS: Final = 200_000
LOOP: Final[Any] = SimpleNamespace(is_running=lambda: True)


class BrokenError(AssertionError):
    """An invariant does not hold."""


class Wait:
    """What a simulated operation awaits: it is resumed with a value."""

    def __init__(self, begin: Callable[[Callable[[Any], None]], object]) -> None:
        self.begin = begin

    def __await__(self) -> Generator[Wait, Any, Any]:
        return (yield self)


class Task:
    """A coroutine that runs in virtual time."""

    def __init__(self, world: World, work: Coroutine[Any, Any, None]) -> None:
        self._world = world
        self._work = work
        self._turn = 0
        self.ended = False

    def step(self, turn: int, value: Any = None) -> None:
        """Resume it, unless something else has resumed it since."""
        if self.ended or turn != self._turn:
            return
        self._turn += 1
        mine = self._turn
        self._world.current = self
        try:
            wait = self._work.send(value)
        except StopIteration:
            self.ended = True
        else:
            wait.begin(lambda found: self._world.soon(lambda: self.step(mine, found)))

    def cancel(self) -> None:
        """End it as a cancellation would."""
        if not self.ended:
            self.ended = True
            self._work.close()

    def kill(self) -> None:
        """Stop it: nothing of it runs any more."""
        self.ended = True
        self._world.killed.append(self._work)


class World:
    """Virtual time."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._number = 0
        self.killed: list[Any] = []
        self.current: Task | None = None

    def running(self) -> Task | None:
        """Return the task that runs."""
        return self.current

    def after(self, seconds: float, happen: Callable[[], object]) -> None:
        """Let something happen later."""
        self._number += 1
        heapq.heappush(self._events, (self.now_s + seconds, self._number, happen))

    def soon(self, happen: Callable[[], object]) -> None:
        """Let something happen now, after what is happening."""
        self.after(0.0, happen)

    def run(self) -> None:
        """Let everything happen."""
        for _ in range(MOST_STEPS):
            if not self._events:
                return
            at_s, _, happen = heapq.heappop(self._events)
            self.now_s = max(self.now_s, at_s)
            happen()
        raise BrokenError("it does not end")


@define(eq=False)
class Held:
    """A hold of the ledger, and what is known of its call."""

    scopes: tuple[str, ...]
    amount: int
    since_s: float
    client: Client
    cost: int | None = None  # a `RunLimit` reads it, as of a guard
    lost: bool = False  # its client was killed, or its commit was rejected: its lease ends it

    @property
    def held(self) -> int:
        return self.amount


class Ledger:
    """Budgets of scopes, and their holds."""

    def __init__(self, world: World, allocated: dict[str, int]) -> None:
        self._world = world
        self.allocated = allocated
        self.spent = dict.fromkeys(allocated, 0)
        self.holds: list[Held] = []
        self.changed_s = world.now_s

    def reserved(self, scope: str) -> int:
        return sum(hold.amount for hold in self.holds if scope in hold.scopes)

    def remaining(self, scope: str) -> int:
        return self.allocated[scope] - self.spent[scope] - self.reserved(scope)

    def reserve(self, scopes: tuple[str, ...], amount: int, client: Client) -> Held | None:
        if any(self.remaining(scope) < amount for scope in scopes):
            return None
        hold = Held(scopes, amount, self._world.now_s, client)
        self.holds.append(hold)
        self.changed_s = self._world.now_s
        return hold

    def end(self, hold: Held, cost: int) -> None:
        if hold in self.holds:
            self.holds.remove(hold)
            for scope in hold.scopes:
                self.spent[scope] += cost
            self.changed_s = self._world.now_s

    def balances(self, scopes: tuple[str, ...]) -> list[dict[str, Any]]:
        return [
            {
                "scope_path": scope,
                "remaining": _amount(self.remaining(scope)),
                "reserved": _amount(self.reserved(scope)),
            }
            for scope in scopes
        ]


class Client:
    """One process with a Cycles client, and what its calls do."""

    def __init__(self, run: Run, number: int, limit: RunLimit | None) -> None:
        self.run = run
        self.alive = True
        self.limits = () if limit is None else (limit,)
        self.admissions = Admissions(f"process {number}", lambda: run.world.now_s * 1000, lambda: False)
        self.opened: list[Held] = []
        self.clock = SimpleNamespace(now_ms=lambda: run.world.now_s * 1000, random=run.rng.random)
        self.settings = SimpleNamespace(max_retries=0, base_url=f"process {number}")

    # --- the operations of `Io`

    def begin_trace(self, request: ReserveRequest, known: str | None = None) -> CallOptions:
        return NO_OPTIONS

    def is_enabled_for(self, level: int) -> bool:
        return False

    def report(self, name: str, ids: object = None, **members: Any) -> None:
        return  # no observer

    async def approve(self, request: ReserveRequest) -> None:
        return

    async def wait(self, signal: Any, timeout_s: float | None = None) -> bool:
        if self.run.is_alone and timeout_s is not None and timeout_s < WAIT_S / 2:
            timeout_s = max(timeout_s, self.run.deaf_s)

        def begin(resume: Callable[[Any], None]) -> None:
            signal.on_set(lambda: resume(None))
            if timeout_s is not None:
                self.run.world.after(timeout_s, lambda: resume(None))

        await Wait(begin)
        return bool(signal.is_set)

    async def send(self, sent: Any) -> Success:
        """Respond to a dry run."""
        await self.run.travel()
        scopes = self.run.scopes_of(sent.body["subject"].get("agent"))
        body = {"decision": "ALLOW", "balances": self.run.ledger.balances(scopes)}
        await self.run.travel()
        return Success(body, None, None, None, 0.0, b"")


@define(eq=False)
class Call:
    """One call of a program.

    Attributes:
        limit: Its output limit.
        lowest: The lowest one.
        agent: Whose budget pays beside the tenant's.
        share: How much of its limit the provider makes.
        seconds: How long that takes.
    """

    client: Client
    limit: int
    lowest: int
    agent: str | None
    share: float
    seconds: float
    is_rejected: bool
    wait_s: float
    started_s: float = 0.0
    task: Any = None
    hold: Held | None = None
    admission: Any = None
    outcome: str = "waiting"
    sent_limit: int = 0
    can_never_fit: bool = False  # already when it began

    @property
    def least(self) -> int:
        return bound(self.lowest)


def bound(limit: int) -> int:
    """What a call may cost at an output limit."""
    return PROMPT + limit


class Run:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.world = World()
        self.is_alone = rng.random() < 0.4
        self.deaf_s = WAIT_S * 10
        allocated = {TENANT: rng.randrange(500, 20_000)}
        agents = [None, *(f"a{n}" for n in range(rng.randrange(3)))]
        for agent in agents[1:]:
            if rng.random() < 0.7:
                allocated[f"{TENANT}/agent:{agent}"] = rng.randrange(300, allocated[TENANT])
        self.ledger = Ledger(self.world, allocated)
        self.clients: list[Client] = []
        for number in range(1 if self.is_alone else rng.choice((2, 3, 4))):
            limit = RunLimit(Amount(UNIT, rng.randrange(300, allocated[TENANT]))) if rng.random() < 0.3 else None
            # An attempt of another queue holds a part of the limit for a moment, and its denial wakes nothing.
            self.clients.append(Client(self, number, None if self.is_alone and len(agents) > 1 else limit))
        self.calls = [self._call(agents) for _ in range(rng.randrange(2, 65))]
        self.bill = 0
        self.decided_s = 0.0  # when the last call was reserved or denied
        self.unknown = 0  # bounds of calls in flight of processes that were killed

    def _call(self, agents: list[str | None]) -> Call:
        rng = self.rng
        limit = rng.choice((10, 100, 400, 1_000, 4_000, rng.randrange(1, 5_000)))
        return Call(
            client=rng.choice(self.clients),
            limit=limit,
            lowest=min(limit, rng.choice((1, 50, 200, limit))),
            agent=rng.choice(agents),
            share=rng.choice((0.02, 0.1, 0.5, 1.0)),
            seconds=rng.choice((0.5, 2.0, 10.0)),
            is_rejected=not self.is_alone and rng.random() < 0.03,
            wait_s=WAIT_S,
        )

    # --- what happens

    def scopes_of(self, agent: str | None) -> tuple[str, ...]:
        return tuple(scope for scope in (TENANT, f"{TENANT}/agent:{agent}") if scope in self.ledger.allocated)

    def sleep(self, seconds: float) -> Wait:
        return Wait(lambda resume: self.world.after(seconds, lambda: resume(None)))

    def travel(self) -> Wait:
        return self.sleep(self.rng.choice((0.0, 0.01, 0.05, 0.4)))

    def run(self) -> None:
        """Run every call to its end.

        Raises:
            BrokenError: an invariant does not hold.
        """
        rng = self.rng
        running = mock.patch.object(_queue, "_running_task", self.world.running)
        with mock.patch.object(_admission, "open_with", self._open_with), running:
            for call in self.calls:
                starts_s = rng.choice((0.0, 0.0, rng.random(), rng.random() * 30))
                self.world.after(starts_s, partial(self._start, call))
                if rng.random() < 0.1:
                    self.world.after(starts_s + rng.random() * 5, partial(self._cancel, call))
            if len(self.clients) > 1 and rng.random() < 0.3:
                victim = rng.choice(self.clients)
                self.world.after(rng.random() * 20, lambda: self._kill(victim))
            self.world.run()
            self._check_end()

    def _start(self, call: Call) -> None:
        if call.client.alive:
            call.started_s = self.world.now_s
            call.can_never_fit = call.least > self._idle(call, without_old=False)
            call.task = Task(self.world, self._life(call))
            call.task.step(0)

    def _cancel(self, call: Call) -> None:
        if call.outcome == "waiting" and call.hold is None and call.client.alive and call.started_s:
            call.outcome = "cancelled"
            call.task.cancel()

    def _kill(self, client: Client) -> None:
        client.alive = False
        for call in self.calls:
            if call.client is client and call.task is not None:
                call.task.kill()
                if call.outcome == "billed" and call.hold in self.ledger.holds:
                    self.unknown += self._cost(call)
                if call.outcome in ("waiting", "sent", "billed"):
                    call.outcome = "killed"
        for hold in [hold for hold in self.ledger.holds if hold.client is client]:
            self._lose(hold)

    def _lose(self, hold: Held) -> None:
        """Let the lease of a hold end without a settlement: what its call cost is unknown to the ledger."""
        hold.lost = True
        self.world.after(LEASE_S, lambda: self.ledger.end(hold, 0))

    async def _life(self, call: Call) -> None:
        request = ReserveRequest(
            estimate=Amount(UNIT, bound(call.limit)),
            action=Action("llm.completion", "m"),
            subject=Subject(tenant="acme", agent=call.agent),
            ttl_ms=60_000,
        )
        need = Need(bound(call.limit), call.limit, call.lowest, bound)
        io: Any = call.client
        call.admission = Admission(
            io,
            call.client.admissions,
            request,
            need,
            wait_s=call.wait_s,
            take=lambda guard: None,
            on_wait=lambda: None,
            loop=LOOP,
        )
        call.admission._limits = call.client.limits
        call.admission.call = call
        try:
            admitted: Admitted = await call.admission.run()
        except BudgetExceededError as error:
            call.outcome, self.decided_s = "denied", self.world.now_s
            self._check_denial(call, error)
            return
        hold: Any = admitted.guard
        call.hold, call.outcome, self.decided_s = hold, "sent", self.world.now_s
        call.sent_limit = call.limit if admitted.limit is None else min(call.limit, admitted.limit)
        self._check_admitted(call, hold)
        await self.sleep(call.seconds)
        await self._settle(call, hold)

    async def _settle(self, call: Call, hold: Held) -> None:
        cost = self._cost(call)
        self.bill += cost
        call.outcome = "billed"
        await self.travel()
        if call.is_rejected:
            self._lose(hold)
            self.unknown += cost
            call.outcome = "rejected"
            return
        self.ledger.end(hold, cost)
        hold.cost = cost
        await self.travel()
        call.outcome = "done"
        call.client.admissions.ended(call.client.admissions.closed(call))

    def _cost(self, call: Call) -> int:
        return PROMPT + int(call.sent_limit * call.share)

    async def _open_with(
        self, io: Client, request: ReserveRequest, options: CallOptions, take: Any, keys: Any = None
    ) -> Held:
        key, around = object(), io.limits
        for limit in around:
            limit.add(key, request.estimate)
        held: Held | None = None
        try:
            await self.travel()
            scopes = self.scopes_of(request.subject.agent)
            held = self.ledger.reserve(scopes, request.estimate.amount, io)
            await self.travel()
            if held is None:
                raise BudgetExceededError("too little is left", code="BUDGET_EXCEEDED", status=409)
        except GeneratorExit:  # the call was cancelled: the client releases what it may have reserved
            if held is not None:
                self.ledger.end(held, 0)
                self.world.soon(lambda: io.admissions.ended(None))  # else only the next look would see it
            held = None
            raise
        finally:
            for limit in around:
                state: Any = held
                limit.opened(key, state)
        assert held is not None  # only a cancelled call has none
        io.admissions.opened(held, request, around)
        io.opened.append(held)
        return held

    # --- invariants

    def _in_flight(self, scope: str) -> int:
        return sum(
            bound(call.sent_limit)
            for call in self.calls
            if call.outcome == "sent" and call.hold is not None and scope in call.hold.scopes
        )

    def _check_admitted(self, call: Call, hold: Held) -> None:
        for scope in hold.scopes:
            left = self.ledger.allocated[scope] - self.ledger.spent[scope]
            _require(self._in_flight(scope) <= left, f"the bounds in flight do not fit into {scope}")
        _require(bound(call.sent_limit) <= hold.amount, "less was reserved than the request may cost")
        for limit in call.client.limits:
            _require(limit.remaining.amount >= 0, "the limit of the run is exceeded")
        if call.sent_limit < call.limit:
            _require(call.sent_limit >= call.lowest, "a limit was lowered below the lowest")
            idle = self._idle(call, without_old=True)
            _require(bound(call.sent_limit + 1) > idle, f"a limit was lowered to {call.sent_limit}, idle is {idle}")

    def _idle(self, call: Call, *, without_old: bool) -> int:
        """Return what the budgets of a call would have left without calls in flight."""
        found = []
        for scope in self.scopes_of(call.agent):
            old = [h.amount for h in self.ledger.holds if scope in h.scopes and self._is_old(h)] if without_old else []
            found.append(self.ledger.allocated[scope] - self.ledger.spent[scope] - sum(old))
        old = [h.amount for h in call.client.opened if h.cost is None and self._is_old(h)] if without_old else []
        found += [limit.amount.amount - limit.spent.amount - sum(old) for limit in call.client.limits]
        return min(found)

    def _is_old(self, hold: Held) -> bool:
        return self.world.now_s - hold.since_s >= WAIT_S - SLACK_S

    def _check_denial(self, call: Call, error: CyclesError) -> None:
        waited_s = self.world.now_s - call.started_s
        _require(
            not call.can_never_fit or waited_s <= SLACK_S, f"a call that can never fit waited for {waited_s:.0f} s"
        )
        if call.least > self._idle(call, without_old=True):
            return
        _require(
            self.world.now_s - self.ledger.changed_s >= call.wait_s - SLACK_S,
            f"a call that needs {call.least} was denied ({getattr(error, 'code', None)}), "
            f"{self._idle(call, without_old=False)} is idle",
        )

    def _check_end(self) -> None:
        for call in self.calls:
            _require(call.outcome != "waiting" or not call.client.alive or not call.started_s, "a call waits forever")
        for client in self.clients:
            if client.alive:
                _require(not any(queue.has_waiting for queue in client.admissions._all()), "a ticket stayed in a queue")
        if self.is_alone:
            _require(self.decided_s < 1_000 + self.deaf_s, "a call was woken by nothing, although others ended")
        _require(self.bill - self.unknown <= self.ledger.allocated[TENANT], "the bill is above the budget")


def _amount(amount: int) -> dict[str, Any]:
    return {"unit": UNIT, "amount": amount}


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise BrokenError(what)


def run(seed: int) -> str | None:
    """Run a seed, and return what went wrong."""
    try:
        Run(seed).run()
    except (BrokenError, CyclesError, AssertionError) as problem:
        return f"{type(problem).__name__}: {problem}"
    return None


def outcomes(seed: int) -> Iterator[str]:
    """Yield how each call of a seed has ended."""
    made = Run(seed)
    made.run()
    yield from (call.outcome for call in made.calls)


def main() -> int:
    """Run seeds, and print those that fail."""
    import argparse
    import sys
    import time

    parser = argparse.ArgumentParser(prog="python -m tests.simulation.calls", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    failed, started = 0, time.monotonic()
    for seed in range(options.first, options.first + options.seeds):
        if (problem := run(seed)) is not None:
            failed += 1
            print(f"seed {seed} failed:\n  {problem}", flush=True)
    print(f"{options.seeds} seeds, {failed} failed, {time.monotonic() - started:.0f} s", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
