"""Mixed guards for fault runs: each has its own scope and, if its spend is known, its own amount.

A guard opens while the server is healthy, waits for the fault, and ends during it. The scope of a guard is charged by
no other, so the ledger shows for each guard what was settled.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from attrs import define

import cycles

ESTIMATE = 500
ACTION = ("llm.completion", "small-model")
# Longer than a fault run, so that only a moved clock ends a lease.
TTL_MS = 120_000
GRACE_MS = 1_000


# Only a failing run waits that long.
WAIT_S = 240.0


class BlockError(Exception):
    """The error of a block that fails."""


@define
class Case:
    """One guard of a run: `known` is the amount that must be settled, 0 if no spend is known at its end."""

    number: int
    kind: str
    client: cycles.Cycles
    ttl_ms: int
    known: int = 0
    has_begun: bool = False

    @property
    def agent(self) -> str:
        """The agent in the subject of this guard, which makes its scope unique."""
        return f"g{self.number}"

    @property
    def amount(self) -> int:
        """The amount of this guard, different from those of its neighbours."""
        return 10 + self.number % 200

    def reserve(self) -> Any:
        """Describe the reservation of this guard."""
        return self.client.reserve(cycles.tokens(ESTIMATE), **self.options)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the reservation. The grace period is short, so that a lease ends soon after its ttl."""
        return {
            "action": ACTION,
            "subject": {"agent": self.agent},
            "ttl_ms": self.ttl_ms,
            "grace_period_ms": GRACE_MS,
        }

    def spend_in_two(self, guard: Any, pause: Callable[[], None]) -> None:
        """Spend the amount of this guard, one token of it after the pause."""
        guard.spend(cycles.tokens(self.amount - 1))
        pause()
        guard.spend(cycles.tokens(1))


# --- blocking guards --------------------------------------------------------------------------------------------------


def commit(case: Case, pause: Callable[[], None]) -> None:
    """Commit in the block."""
    case.known = case.amount
    with case.reserve() as guard:
        pause()
        guard.commit(cycles.tokens(case.amount))


def spend(case: Case, pause: Callable[[], None]) -> None:
    """Spend in the block, before and during the fault."""
    case.known = case.amount
    with case.reserve() as guard:
        case.spend_in_two(guard, pause)


def fail_after_spend(case: Case, pause: Callable[[], None]) -> None:
    """Spend and raise: the known spend is committed."""
    case.known = case.amount
    with case.reserve() as guard:
        case.spend_in_two(guard, pause)
        raise BlockError


def fail(case: Case, pause: Callable[[], None]) -> None:
    """Raise without a known spend: the reservation is released."""
    with case.reserve():
        pause()
        raise BlockError


def drop_after_spend(case: Case, pause: Callable[[], None]) -> None:
    """Drop the guard after a spend: the known spend is committed."""
    case.known = case.amount
    guard = case.reserve().acquire()
    guard.spend(cycles.tokens(case.amount))
    pause()
    del guard
    gc.collect()


def drop(case: Case, pause: Callable[[], None]) -> None:
    """Drop the guard without a known spend: the reservation is released."""
    guard = case.reserve().acquire()
    pause()
    del guard
    gc.collect()


def _count(usage: Any) -> cycles.Amount:
    return cycles.tokens(usage.tokens_output)


def _tokens_of(case: Case) -> Any:
    @case.client.guarded(cycles.tokens(ESTIMATE), actual=_count, **case.options)
    def stream() -> Any:
        guard = cycles.current_guard()
        assert guard is not None
        for _ in range(case.amount):
            guard.usage.add(tokens_output=1)
            yield "token"

    return stream()


def stream(case: Case, pause: Callable[[], None]) -> None:
    """Read a guarded stream to its end."""
    case.known = case.amount
    tokens = _tokens_of(case)
    next(tokens)
    pause()
    assert len(list(tokens)) == case.amount - 1


def stream_closed(case: Case, pause: Callable[[], None]) -> None:
    """Close a guarded stream early: the tokens read so far are committed."""
    case.known = 3
    tokens = _tokens_of(case)
    for _ in range(case.known):
        next(tokens)
    pause()
    tokens.close()


def record(case: Case, pause: Callable[[], None]) -> None:
    """Record an event without a reservation."""
    case.known = case.amount
    pause()
    case.client.record(cycles.tokens(case.amount), action=ACTION, subject={"agent": case.agent})


BLOCKING = (commit, spend, fail_after_spend, fail, drop_after_spend, drop, stream, stream_closed, record)


# --- asyncio guards ---------------------------------------------------------------------------------------------------

Pause = Callable[[], Awaitable[None]]


async def async_commit(case: Case, pause: Pause) -> None:
    """Commit in the block."""
    case.known = case.amount
    async with case.reserve() as guard:
        await pause()
        await guard.commit(cycles.tokens(case.amount))


async def async_spend(case: Case, pause: Pause) -> None:
    """Spend in the block."""
    case.known = case.amount
    async with case.reserve() as guard:
        guard.spend(cycles.tokens(case.amount))
        await pause()


async def async_fail(case: Case, pause: Pause) -> None:
    """Raise without a known spend: the reservation is released."""
    async with case.reserve():
        await pause()
        raise BlockError


async def async_cancel_after_spend(case: Case, pause: Pause) -> None:
    """Cancel the task of the block after a spend: the known spend is committed."""
    case.known = case.amount
    async with case.reserve() as guard:
        guard.spend(cycles.tokens(case.amount))
        await pause()
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)


async def async_stream(case: Case, pause: Pause) -> None:
    """Read a guarded async stream to its end."""
    case.known = case.amount

    @case.client.guarded(cycles.tokens(ESTIMATE), actual=_count, **case.options)
    async def stream() -> Any:
        guard = cycles.current_guard()
        assert guard is not None
        for _ in range(case.amount):
            guard.usage.add(tokens_output=1)
            yield "token"

    tokens = stream()
    await anext(tokens)
    await pause()
    assert len([token async for token in tokens]) == case.amount - 1


ASYNC = (async_commit, async_spend, async_fail, async_cancel_after_spend, async_stream)
KINDS: dict[str, Callable[[Case, Any], Any]] = {kind.__name__: kind for kind in (*BLOCKING, *ASYNC)}


# --- running them -----------------------------------------------------------------------------------------------------


class Gate:
    """Holds a set of guards between their opening and their end."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting = 0
        self._ending = 0
        self._failed: list[BaseException] = []
        self._news = threading.Condition()
        self._is_open = threading.Event()
        self._loop_events: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def _arrive(self) -> None:
        with self._news:
            self._waiting += 1
            self._news.notify_all()

    def _leave(self) -> None:
        with self._news:
            self._ending += 1
            self._news.notify_all()

    def pause(self) -> None:
        """Wait in a thread until the gate opens."""
        self._arrive()
        assert self._is_open.wait(WAIT_S)
        self._leave()

    async def pause_async(self) -> None:
        """Wait in a task until the gate opens."""
        event = asyncio.Event()
        with self._news:
            if self._is_open.is_set():
                event.set()
            self._loop_events.append((asyncio.get_running_loop(), event))
        self._arrive()
        await asyncio.wait_for(event.wait(), WAIT_S)
        self._leave()

    def wait_until_opened(self) -> None:
        """Wait until every guard of the set is reserved."""
        with self._news:
            self._news.wait_for(lambda: self._waiting >= self._size or self._failed, WAIT_S)
            assert self._waiting >= self._size, f"{self._waiting} of {self._size} guards opened: {self._failed}"

    def give_up(self) -> None:
        """Count a guard that could not open."""
        self._leave()

    def fail(self, error: BaseException) -> None:
        """Report the error of a guard that will not arrive."""
        with self._news:
            self._failed.append(error)
            self._news.notify_all()

    def release(self) -> None:
        """Let the guards end."""
        with self._news:
            self._is_open.set()
            waiting = list(self._loop_events)
        for loop, event in waiting:
            loop.call_soon_threadsafe(event.set)

    def wait_until_ending(self, share: float) -> None:
        """Wait until this share of the guards has begun to end."""
        with self._news:
            assert self._news.wait_for(lambda: self._ending >= self._size * share, WAIT_S)


class Batch:
    """A set of guards that open together and end together, in threads and in one event loop."""

    def __init__(self, cases: list[Case]) -> None:
        self.cases = cases
        self.gate = Gate(len(cases))
        self.errors: list[BaseException] = []
        blocking = [case for case in cases if not case.kind.startswith("async")]
        self._threads = [threading.Thread(target=self._run, args=(case,), name=case.kind) for case in blocking]
        tasks = [case for case in cases if case.kind.startswith("async")]
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._run_tasks(tasks)), name="tasks"))

    def open(self) -> Batch:
        """Reserve every guard and return the batch."""
        self.begin()
        self.gate.wait_until_opened()
        return self

    def begin(self) -> Batch:
        """Start the guards without waiting for their reservations, and return the batch."""
        for thread in self._threads:
            thread.start()
        return self

    def finish(self) -> None:
        """Wait until every guard has ended. Any error but the blocks' own fails the run."""
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive(), f"{thread.name} did not end"
        assert not self.errors, self.errors

    def _run(self, case: Case) -> None:
        def pause() -> None:
            case.has_begun = True
            self.gate.pause()

        try:
            KINDS[case.kind](case, pause)
        except BlockError:
            pass
        except BaseException as error:
            self._ended_by(case, error)

    def _ended_by(self, case: Case, error: BaseException) -> None:
        """An unreachable server may reject a reservation, so that the block does not run. Other errors fail the run."""
        if isinstance(error, cycles.TransportError | cycles.AmbiguousResponseError) and not case.has_begun:
            case.known = 0
            self.gate.give_up()
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.errors.append(error)
        self.gate.fail(error)

    async def _run_tasks(self, cases: list[Case]) -> None:
        async def run(case: Case) -> None:
            async def pause() -> None:
                case.has_begun = True
                await self.gate.pause_async()

            body: Coroutine[Any, Any, None] = KINDS[case.kind](case, pause)
            try:
                await body
            except BlockError:
                pass
            except asyncio.CancelledError as error:
                if "cancel" not in case.kind:
                    self._fail(error)
            except Exception as error:
                self._ended_by(case, error)

        await asyncio.gather(*(asyncio.create_task(run(case)) for case in cases))
