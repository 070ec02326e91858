"""What the simulated programs do: guards of every kind, with faults in the middle, and notes of what they reported."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import threading
from collections.abc import Callable, Generator, Iterator
from functools import partial
from random import Random
from types import TracebackType
from typing import Any, Final, Protocol

from attrs import define, field

import cycles
from tests.simulation import loop
from tests.simulation.accounts import CAPS, ESTIMATE, Account
from tests.simulation.byte_codes import Interrupted, points
from tests.simulation.hub import Hub, Process
from tests.simulation.network import amount
from tests.simulation.server import SimServer

TIMEOUT_S: Final = 5.0
FLUSH_S: Final = 5.0
RESERVE_S: Final = 2 * TIMEOUT_S  # two attempts with the same key
SETTLE_S: Final = 3 * TIMEOUT_S  # one attempt, one for the event, one without metadata
CANCEL_S: Final = 0.5  # a cancelled caller waits so long for the task that continues without it
ENDS_S: Final = 3.0  # the end of the threads of a client
CLOSES_S: Final = 0.8  # of a client with nothing to settle
LIMIT: Final = 1_000_000  # of a `cycles.limit` around all uses of a program: never reached
TOGETHER: Final = 0.25  # the share of runs in which all tasks of a loop do the same at the same time
MOMENT_S: Final = 0.1  # what needs no request
REQUESTS: Final = 8  # so many times the delay of the network a call takes at most if nothing fails
ENDS: Final = ("flush", "close", "the exit of the interpreter")  # which settle what all others have left
REQUESTS_OF_ENDS: Final = 24
TOO_OLD: Final = "days old"
IN_JOURNAL: Final = "client.pending(rejected=True)"
ACTION: Final = ("llm.completion", "small-model")
NOT_FINAL: Final = (cycles.ServerError, cycles.RateLimitedError, cycles.UnauthorizedError)


class Boom(Exception):
    """The exception of a failing block."""


@define(eq=False)
class Op:
    """One use of a guard, and what its caller reported about it."""

    account: Account
    kind: str
    process: Process
    billed: int = 0  # what a provider bills for it
    known: int = 0  # what was reported as spent so far, by `spend` or `commit`
    reaching: int = 0  # what a call that has not returned yet reports
    committing: bool = False  # `commit` or the end of the block was called, with `known`
    ended: bool = False  # the call returned to the program
    returned: int = 0  # what was reported by commits that have returned
    in_chunk: int | None = None  # the part of the amount of a commit in progress that fits into its chunk
    killed_s: float | None = None  # when the process was killed, if that was before the end
    saved: bool = False  # killed, and the journal holds a record of it
    is_only_in_store: bool = False  # killed, and only a store that may fail has its record
    keeps_spend: bool = True  # False: a kill may lose its spend too: a token has it, or the power was lost
    keeps_commits: bool = True  # False: the disk failed, so the record of a commit may be missing
    may_be_lost: bool = False  # killed, and only its memory, a lost disk or an emptied store had its record
    checkpointed: bool = False  # but the store never failed: it has the sums of open chunks
    ends_after_close: bool = False
    dropped: bool = False  # nobody waits for its settlement
    is_open: bool = False  # its response is made in the background, and the close of the client settles its estimate
    interrupted: bool = False  # a signal handler raised in one of its calls
    pool: Any = None  # whose guards it uses
    in_main: bool = False  # its thread is the main thread of its program, in which signal handlers run
    exact: set[int] = field(factory=set)  # what it costs if a handler raises from now on
    beside: int = 0  # what a signal handler that has not returned yet reports
    rejected: str | None = None  # the typed error of an understood rejection
    ran: bool = False
    may_run_unreserved: bool = False
    charges: bool = True  # False: shadow
    releases: bool = False  # the caller released it: nothing is charged
    steps: list[tuple[float, int]] = field(factory=list)  # when `spend` returned, and the sum
    reservations: set[str] = field(factory=set)
    problems: list[str] = field(factory=list)

    @property
    def agent(self) -> str:
        """The subject level that only this use has."""
        return self.account.agent

    @property
    def most(self) -> int:
        """The most that may be charged for it now."""
        return max(self.known, self.reaching) if self.charges and not self.releases else 0


class Observer(Protocol):
    """The run, as its programs need it."""

    def closed(self, program: Program) -> None:
        """Check what must hold when the client of a program is closed."""
        ...

    def pooled(self, op: Op, reservation_id: str) -> None:
        """Check what must hold when the commit of a pooled guard has returned."""
        ...

    def may_have_arrived(self, program: Program, record_id: str) -> bool:
        """Return whether a request of a record was sent, or may have been: another program has made the record."""
        ...

    def has_settled(self, program: Program) -> bool:
        """Return whether nothing has failed, and each amount of a program is in the ledger or rejected."""
        ...


def check_unreserved(op: Op, guard: Any) -> None:
    """Check that a guard without a reservation cannot be detached: no client could continue it."""
    if guard.state != "unreserved":
        return
    with contextlib.suppress(cycles.InvalidRequestError):
        guard.detach()
        op.problems.append("a guard without a reservation was detached")


LATE: Final = ("RESERVATION_EXPIRED", "no safe retry")  # why a lease is lost that was not extended in time
REPEATS: Final = ("own key",)  # reserves again under a key that it has used


class Program:
    """One simulated program: a client, some threads and one event loop.

    Args:
        hub: The machine.
        server: Where its client sends requests.
        process: Where it runs.
        accounts: The accounts of its tenant that no program has used yet.
        ops: Where it notes its uses; shared by all programs of a run.
        settings: Of its client.
        observer: Checks what must hold at this moment.
    """

    def __init__(
        self,
        hub: Hub,
        server: SimServer,
        process: Process,
        accounts: Iterator[Account],
        ops: list[Op],
        settings: dict[str, Any],
        observer: Observer,
    ) -> None:
        self.hub = hub
        self.server = server
        self.process = process
        self.accounts = accounts
        self.ops = ops
        self.settings = settings
        self.observer = observer
        self._close_s = settings["flush_timeout"] + ENDS_S
        self.finished = False
        self.closed = False
        self.closed_in_loop = False  # by `aclose`, in the loop of its tasks
        self.killed = False
        self.left_pending = 0
        self.rejected: dict[str, int] = {}  # by reservation, what was reported as rejected
        self.lost: set[str] = set()  # reservations whose lease was reported as lost
        self._is_fast = self.server.faults.delay_s < MOMENT_S  # else a lease may end before its extension arrives
        self._queued_s: dict[str, float] = {}  # by reservation, when its commit was queued
        self._over_s: dict[str, float] = {}  # by reservation, when it was reported as settled or released
        self.held: list[tuple[Op, Any]] = []  # guards that stay open until the program exits
        self._proxy: Any = None
        self.limit = cycles.limit(amount(LIMIT)) if "run limit" in server.swarm else None  # of all threads and tasks
        self.client: cycles.Cycles

    def main(self, threads: list[list[str]], tasks: list[str], ending: str) -> None:
        """Run the given kinds of uses, each list of `threads` in its own thread and `tasks` in one loop."""
        self.client = client_of(self.server, self.settings)
        self.client.on_event(self._observe)
        self.closed_in_loop = ending == "aclose" and bool(tasks)
        self._run(threads, tasks)
        if ending == "close":
            with self.within(None, "close", self._close_limit_s()):
                self.client.close()
            self._note_closed()
            self._end_held()
        self.finished = True
        if ending == "exit":
            runtime: Any = self.client._runtime_
            with self.within(None, "the exit of the interpreter", self._close_s):
                runtime.close_at_exit()
            open_ = [guard.name for _, guard in self.held if guard.state == "active"]
            if open_:
                self.hub.problems.append(f"the interpreter has exited, and these guards are not ended: {open_}")
            self.observer.closed(self)
            self.process.end()

    @property
    def runtime(self) -> Any:
        """The parts of its client, None if it has none yet."""
        return self.client._runtime_ if hasattr(self, "client") else None

    def _close_limit_s(self) -> float:
        """Return how long a close may take: it waits for nothing if each amount is settled, or is kept as rejected."""
        soon_s = CLOSES_S + 4 * self.server.faults.delay_s  # a response may be on its way, and then a heartbeat
        return soon_s if self.observer.has_settled(self) else self._close_s

    def _note_closed(self) -> None:
        self.closed = True
        for op in self.ops:
            if op.process is self.process and op.pool is not None and (live := op.pool.stats().live.amount):
                op.problems.append(f"each guard of its pool has ended, and {live} of their estimates are live")
        self.observer.closed(self)

    def _end_held(self) -> None:
        """Commit some of the guards that are in use after the close of their client."""
        while self.held and self.hub.random.random() < 0.5:
            op, guard = self.held.pop()
            op.committing, op.ends_after_close, op.ended = True, True, False
            with contextlib.suppress(cycles.ProtocolError), self.settles(op, "commit"):
                self.left_pending += guard.commit().status == "pending"
            op.ended = True

    def fork(self, process: Process) -> Program:
        """Return the program of a forked child. It has the client of its parent."""
        child = Program(self.hub, self.server, process, self.accounts, self.ops, self.settings, self.observer)
        child.client = client = copy.copy(self.client)
        client.aio = type(client.aio)(client)
        return child

    def forked_main(self, kinds: list[str]) -> None:
        """Use the client of the parent process."""
        self.client.on_event(self._observe)
        self._run([kinds], [])
        with self.within(None, "close", self._close_s):
            self.client.close()
        self._note_closed()
        self.finished = True

    def _run(self, threads: list[list[str]], tasks: list[str]) -> None:
        workers = [threading.Thread(target=self._in_thread, args=each) for each in enumerate(threads)]
        if tasks:
            workers.append(threading.Thread(target=self._in_loop, args=(tasks,)))
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def _observe(self, event: cycles.events.Event) -> None:
        if self.hub.current is None or self.hub.current.process is not self.process:
            return  # of a forked child, which has the observers of its parent
        if isinstance(event, cycles.events.SettlementsLeftPending):
            self.left_pending = event.pending
            self.hub.trace(f"{self.process.name} leaves {event.pending} settlements pending")
        elif isinstance(event, cycles.events.SettlementRejected):
            self.rejected[event.reservation_id or ""] = event.actual.amount
            self.hub.trace(f"{self.process.name} reports {event.reservation_id} as rejected: {event.detail}")
            self._check_rejected(event)
        elif isinstance(event, cycles.events.Settled | cycles.events.Released):
            self._over_s.setdefault(event.reservation_id or "", self.hub.now_s)
            self._check_queued(event.reservation_id or "")
        elif isinstance(event, cycles.events.LeaseLost | cycles.events.LeaseExtended | cycles.events.LeaseRetrying):
            self._check_lease(event.reservation_id or "")
            if isinstance(event, cycles.events.LeaseLost):
                self.lost.add(event.reservation_id or "")
                is_late = any(text in event.detail for text in LATE)
                if is_late and self.server.swarm.plain and self._is_fast:
                    self.hub.problems.append(f"nothing fails, and a lease is lost: {event.text()}")

    def _check_lease(self, reservation_id: str) -> None:
        """Check that no lease is renewed whose reservation is over. A repeated reserve has another guard of it."""
        over_s, ops = self._over_s.get(reservation_id), [op for op in self.ops if reservation_id in op.reservations]
        if over_s is not None and self.hub.now_s > over_s + MOMENT_S and not any(op.kind in REPEATS for op in ops):
            self.hub.problems.append(
                f"the lease of {reservation_id} is renewed {self.hub.now_s - over_s:.1f} s too late"
            )

    def _check_rejected(self, event: Any) -> None:
        """Check that an amount is given up for its age only if a request was sent, and that it is where it says."""
        if TOO_OLD in event.detail and not self.observer.may_have_arrived(self, event.reservation_id):
            self.hub.problems.append(f"{event.reservation_id} is given up as too old, and no request was sent")
        if IN_JOURNAL in event.hint and not self.settings["journal"]:
            self.hub.problems.append(f"{event.reservation_id} is to be found in the journal, and there is none")

    def _in_thread(self, number: int, kinds: list[str]) -> None:
        # They take a Program.
        from tests.simulation import uses_background, uses_pool, uses_provider, uses_requests, uses_sdk, uses_sync

        uses = uses_sync.SYNC | uses_pool.LATER
        uses |= {
            uses_background.BACKGROUND: uses_background.background,
            uses_provider.PROVIDER: uses_provider.call_in_thread,
            uses_sdk.CALL: uses_sdk.call_in_thread,
            uses_sdk.IN_GUARD: uses_sdk.guard_in_thread,
        }

        for kind in kinds:
            self.hub.sleep(self.hub.random.random() * 3)
            op = self._note(kind)
            op.in_main = number == 0
            is_main = number == 0 and kind in uses_sync.INTERRUPTIBLE
            handler = partial(uses_pool.in_handler, self, op) if kind in uses_pool.WITH_HANDLERS else None
            signals = points(self.hub, self.server.swarm, len(self.ops), handler)
            main = signals if is_main else contextlib.nullcontext()
            with self._watched(op), self._limited(), main:
                uses.get(kind, uses_requests.request_sync)(self, op)

    def _in_loop(self, kinds: list[str]) -> None:
        loop.run(self.hub, self._tasks(kinds))

    async def _tasks(self, kinds: list[str]) -> None:
        random = self.hub.random
        delays = [random.random() * 5 for _ in kinds]
        if Random(f"together {self.hub.seed}").random() < TOGETHER:  # drawn apart, as other seeds stay as they are
            kinds, delays = kinds[:1] * len(kinds), delays[:1] * len(kinds)
        # Also in runs without any fault, in which everything is settled and released at the end.
        is_cancelled = self.server.swarm.plain and Random(f"cancellation {self.hub.seed}").random() < 0.4
        tasks = [asyncio.ensure_future(self._in_task(*each)) for each in zip(kinds, delays, strict=True)]
        for task in tasks:
            how = random.random()
            if "cancellation" not in self.server.swarm and not is_cancelled:
                continue
            if how < 0.2:  # at a moment
                self.server.swarm.matters("cancellation")
                delay = random.random() * 12
                for _ in range(random.choice((1, 1, 2, 6))):
                    asyncio.get_running_loop().call_later(delay, task.cancel)
                    delay += random.choice((0.0, 0.001, 0.3))
            elif how < 0.4:  # at an await
                self.server.swarm.matters("cancellation")
                first = random.randrange(1, 25)
                task.cancel_before = set(range(first, first + random.choice((1, 1, 2, 6))))  # type: ignore[attr-defined]
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.closed_in_loop:
            with self.within(None, "aclose", self._close_limit_s()):
                await self.client.aclose()
            self._note_closed()

    async def _in_task(self, kind: str, delay_s: float) -> None:
        from tests.simulation import uses_async, uses_requests

        await asyncio.sleep(delay_s)
        op = self._note(kind)
        with self._watched(op), self._limited():
            uses = uses_async.ASYNC | uses_async.LATER
            await uses.get(kind, uses_requests.request_async)(self, op)

    @property
    def proxy(self) -> Any:
        """The guard proxy in its loop."""
        from tests.simulation import uses_proxy

        if self._proxy is None:
            self._proxy = uses_proxy.Proxy(self)
        return self._proxy

    def _note(self, kind: str) -> Op:
        op = Op(next(self.accounts), kind, self.process)
        self.ops.append(op)
        return op

    def _limited(self) -> contextlib.AbstractContextManager[object]:
        if self.limit is None:
            return contextlib.nullcontext()
        self.server.swarm.matters("run limit")
        return self.limit

    @contextlib.contextmanager
    def _watched(self, op: Op) -> Iterator[None]:
        """Check what the caller gets: its own exception, a denial, or an understood rejection."""
        self.hub.trace(f"{self.process.name} begins {op.kind} {op.agent}")
        try:
            yield
        except Interrupted:
            op.interrupted = True
        except Boom:
            if "raise" not in op.kind:
                op.problems.append("raised an exception of another block")
        except (cycles.ProtocolError, cycles.ReservationNotActiveError) as error:
            if IN_JOURNAL in str(error) and not self.settings["journal"]:
                op.problems.append(f"without a journal, an error says that the journal has an amount: {error}")
            if op.ran:
                op.rejected = type(error).__name__
            if "raise" in op.kind and (op.committing or op.releases):
                op.problems.append(f"{error!r} replaced the exception of the block")
            if op.ran and op.committing and isinstance(error, NOT_FINAL):
                op.problems.append(f"the settlement of a block raised {error!r}")
        except cycles.TransportError as error:
            if op.ran and op.kind not in (
                "release",
                "series",
                "extend",
                "provider call",
                "SDK call",
                "SDK call in a guard",
            ):
                op.problems.append(f"a block that ran raised {error!r}")
        except cycles.CyclesError as error:
            op.problems.append(f"unexpected {error!r}")
        except Exception as error:
            if not self.process.alive:
                raise
            op.problems.append(f"unexpected {error!r}")
        else:
            if "raise" in op.kind and op.ran:
                op.problems.append("the exception of the block was swallowed")
        finally:
            if self.process.alive:
                op.ended = True
                self.hub.trace(f"{self.process.name} ended {op.kind} {op.agent}, known {op.known}")

    @contextlib.contextmanager
    def settles(self, op: Op, what: str, more_s: float = 0.0) -> Iterator[None]:
        """Check that a call makes one attempt at a settlement, and one more for each response that requires it."""
        before = self.answers(op)
        most = SETTLE_S + more_s
        with self.within(op, what, lambda: min(TIMEOUT_S * (1 + self.answers(op) - before) + more_s, most)):
            yield

    def answers(self, op: Op) -> int:
        """Return the number of responses after which a client sends another request at once."""
        return sum(self.server.answers[each] for each in {op.agent, *op.reservations})

    @contextlib.contextmanager
    def within(self, op: Op | None, what: str, limit: float | Callable[[], float]) -> Iterator[None]:
        """Check that a call takes no longer than its bound, in virtual time."""
        began_s, suspended = self.hub.now_s - loop.blocked_by_others_s(), self.hub.suspended
        try:
            yield
        finally:
            took_s = self.hub.now_s - loop.blocked_by_others_s() - began_s
            limit_s = min(limit() if callable(limit) else limit, self._quick_s(what))
            limit_s += (CANCEL_S if _is_cancelled() else 0.0) + self.hub.slow_s
            if took_s > limit_s + MOMENT_S and self.process.alive and self.hub.suspended == suspended:
                text = f"{what} took {took_s:.2f} s, more than {limit_s:g} s"
                (self.hub.problems if op is None else op.problems).append(text)

    def _quick_s(self, what: str) -> float:
        """Return how long a call may take in a run in which nothing fails."""
        if not (self.server.swarm.plain and self._is_fast):
            return math.inf
        return (REQUESTS_OF_ENDS if what in ENDS else REQUESTS) * self.server.faults.delay_s

    def queued(self, guard: Any) -> None:
        """Note that a commit has returned that the background sends."""
        self._queued_s[guard.reservation_id] = self.hub.now_s

    def _check_queued(self, reservation_id: str) -> None:
        took_s = self.hub.now_s - self._queued_s.pop(reservation_id, self.hub.now_s)
        if took_s > self._quick_s("settled") + MOMENT_S:
            self.hub.problems.append(
                f"nothing fails, and the commit of {reservation_id} is confirmed after {took_s:.2f} s"
            )

    def reserve(self, op: Op, **options: Any) -> TimedReservation:
        """Describe the reservation of a use."""
        account = op.account
        ttl_ms = self.hub.random.choice((1_000, 5_000, 60_000))
        described = {"action": ACTION, "subject": account.subject, "overage_policy": account.policy}
        return TimedReservation(
            self, op, self.client.reserve(amount(ESTIMATE), **{"ttl_ms": ttl_ms, **described, **options})
        )

    def entered(self, op: Op, guard: Any) -> None:
        """Note that the block runs, and check that it may."""
        op.ran = True
        if guard.reservation_id is not None:
            op.reservations.add(guard.reservation_id)
        if guard.state == "unreserved" and not op.may_run_unreserved:
            op.problems.append("the block ran without a reservation")
        if op.account.is_empty and not op.account.has_changed and guard.state == "active" and op.charges:
            op.problems.append("the block ran although its budget is too small")
        if guard.state == "active" and op.charges and not op.kind.startswith("transfer"):
            expected = None if op.account.caps is None else CAPS["max_tokens"]
            if (None if guard.caps is None else guard.caps.max_tokens) != expected:
                op.problems.append(f"the caps are {guard.caps}, expected max_tokens {expected}")

    def spend(self, op: Op, guard: Any, value: int) -> None:
        """Report spend."""
        op.reaching = op.known + value
        with self.within(op, "spend", MOMENT_S):
            guard.spend(amount(value))
        self.spent(op, value)

    def spent(self, op: Op, value: int) -> None:
        """Note that the caller has reported spend."""
        op.known += value
        op.steps.append((self.hub.awake_s, op.known))

    def commits(self, op: Op, value: int) -> cycles.Amount:
        """Note that the caller commits an amount."""
        op.known = op.reaching = value
        op.committing = True
        return amount(value)

    def work_s(self) -> float:
        """Return how long a piece of work takes."""
        return self.hub.random.choice((0.0, 0.1, 2.0, 7.0, 30.0))


def _is_cancelled() -> bool:
    """Return whether this runs in a task that was cancelled: it may wait for what continues without it."""
    task = asyncio.current_task() if asyncio._get_running_loop() is not None else None
    return task is not None and task.cancelling() > 0


class TimedReservation:
    """A reservation whose calls have bounds in virtual time."""

    def __init__(self, program: Program, op: Op, reservation: cycles.Reservation) -> None:
        self._program = program
        self._op = op
        self.described = reservation
        # The earlier run of a caller's key is read once, and a denial that has an id is released once.
        self._one_more = bool(reservation._request.idempotency_key or program.server.faults.denial_as_200)

    def _reserves(self) -> contextlib.AbstractContextManager[None]:
        program, op = self._program, self._op
        before = program.server.answers[op.agent]
        # The first reservation of a process waits for the requests that a killed one has left.
        is_first = not program.client._runtime().background.may_reserve
        first_s = 2 * max(FLUSH_S, TIMEOUT_S) if is_first else 0.0

        def limit_s() -> float:
            has_answer = program.server.answers[op.agent] > before
            return RESERVE_S + first_s + (TIMEOUT_S if self._one_more and has_answer else 0.0)

        return program.within(op, "reserve", limit_s)

    def acquire(self) -> cycles.Guard:
        with self._reserves():
            return self.described.acquire()

    def __enter__(self) -> cycles.Guard:
        with self._reserves():
            return self.described.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        with self._program.settles(self._op, "the end of a block"):
            self.described.__exit__(kind, raised, tb)

    def __await__(self) -> Generator[Any, None, cycles.AsyncGuard]:
        with self._reserves():
            return (yield from self.described.__await__())

    async def __aenter__(self) -> cycles.AsyncGuard:
        with self._reserves():
            return await self.described.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, tb: TracebackType | None
    ) -> None:
        with self._program.settles(self._op, "the end of a block"):
            await self.described.__aexit__(kind, raised, tb)


def client_of(server: SimServer, settings: dict[str, Any]) -> cycles.Cycles:
    """Return a client of the simulated server."""
    key = server.api_keys[settings["tenant"]]
    of_client = {name: value for name, value in settings.items() if name != "most_queued"}
    client = cycles.Cycles(base_url="http://sim.invalid", api_key=key, timeout=TIMEOUT_S, **of_client)
    client._runtime().background.most_queued = settings["most_queued"]
    return client
