"""Calls that wait for budget, in queues, and the calls in flight. It sends nothing and has no clock of its own.

A queue has the calls that wait for the same budgets: same subject, unit and limits of the run, oldest first. Only the
first of a queue reads its budgets, tries to reserve and has a clock; the others wait until they are the first. Calls of
other subjects have other queues, so a budget that is used up holds up no call that another budget pays.

Who wakes whom: the end of a call wakes the first of every queue of the same server, because scopes overlap. A call that
leaves a queue, for any reason, wakes the next one. A wake-up is a flag of the ticket beside its signal, so one that
comes while the call reads the budgets is not lost. Queues and tickets have no lock, which a signal handler that makes a
call, or a child that was forked, could meet: each step is one call of C code, and may be repeated.

What was hard: a task whose event loop has stopped never takes its turn. The first of a queue is therefore the first
whose loop runs, and the one behind a task of another loop looks after it once a second.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import define, frozen

from cycles._core.messages.reserve_request import ReserveRequest
from cycles._core.messages.used_fraction import Used, levels_of
from cycles._flows.signal import Signal
from cycles.providers._shared import shared

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from cycles._flows.run_limit import RunLimit

MOST_QUEUES: Final = 1_024
"""Queues without a waiting call that are kept because of what is held in them."""
WATCH_S: Final = 1.0
"""How often a call looks whether the event loop of the first one in its queue still runs."""

QueueKey: TypeAlias = tuple[Any, ...]


@frozen
class Source:
    """One budget, or one limit of the run, as it was read.

    Attributes:
        name: The scope path, or the limit itself.
        left: What further reservations may hold.
        held: What reservations hold; None: the server does not report it.
    """

    name: Any
    left: int
    held: int | None


@frozen
class Left:
    """What the budgets of a call leave for it.

    Attributes:
        left: What is left now, in the budget in which the least is left.
        idle: What would be left if all holds that may end were released.
        name: The budget in which the least is left.
    """

    left: float
    idle: float
    name: Any = None


@define(eq=False)
class Ticket:
    """The place of one waiting call.

    Attributes:
        need: What it needs at its highest output limit.
        lowest: What it needs at its lowest one.
        loop: The event loop of its task; None for a thread.
    """

    need: int
    lowest: int
    loop: AbstractEventLoop | None = None
    _woken: bool = False
    _signal: Signal | None = None

    @property
    def is_stalled(self) -> bool:
        """Whether its task cannot run: its event loop has stopped."""
        return self.loop is not None and not self.loop.is_running()


@frozen(eq=False)
class InFlight:
    """A call in flight, and who has opened it.

    Attributes:
        request: Its reservation.
        limits: The limits of the run that it counts in.
        thread: The thread that opened it.
        task: The task that opened it, if it was one.
        opened_ms: When.
    """

    request: ReserveRequest
    limits: tuple[RunLimit, ...]
    thread: weakref.ref[threading.Thread]
    task: weakref.ref[Any] | None
    opened_ms: float

    def pays_into(self, name: Any) -> bool:
        """Return whether it holds something of a budget, or of a limit."""
        if isinstance(name, str):
            return pays(name, self.request)
        return name in self.limits

    def opener(self, *, by_task: bool) -> object:
        """Return the task that opened it, or the thread; an object that nothing else is if it has ended."""
        opened_by = self.task if by_task else self.thread
        opener = None if opened_by is None else opened_by()
        return self if opener is None else opener


class BudgetQueue:
    """The calls that wait for the same budgets, and what was read of these last.

    Attributes:
        since_ms: The time since which nothing has changed: neither the budgets, nor has a call of this process ended.
        idle: The last `Left.idle`, for calls that can never fit.
    """

    def __init__(self, now_ms: Callable[[], float]) -> None:
        self._now_ms = now_ms
        self._tickets: dict[Ticket, None] = {}
        self._sources: tuple[Source, ...] | None = None
        self._stuck: dict[Any, int] = {}
        self._stuck_since_ms = self._stuck_noted_ms = 0.0
        self.since_ms: float = now_ms()
        self.idle: float | None = None

    @property
    def is_needed(self) -> bool:
        """Whether calls wait in it, or what is held in it counts as spent."""
        return bool(self._tickets or self._stuck)

    @property
    def has_waiting(self) -> bool:
        """Whether calls wait in it."""
        return bool(self._tickets)

    def holds_up(self, need: int) -> bool:
        """Return whether a call waits that needs as much or less."""
        return any(ticket.need <= need for ticket in tuple(self._tickets) if not ticket.is_stalled)

    def join(self, ticket: Ticket) -> None:
        """Add a call at the end."""
        if not self.is_needed:
            self.since_ms, self._sources, self.idle = self._now_ms(), None, None
        self._tickets[ticket] = None

    def leave(self, ticket: Ticket) -> None:
        """Remove a call, if it is there, and wake the next one."""
        self._tickets.pop(ticket, None)
        self.wake()

    def has(self, ticket: Ticket) -> bool:
        """Return whether a call waits in it."""
        return ticket in self._tickets

    def is_first(self, ticket: Ticket) -> bool:
        """Return whether it is this call's turn."""
        return self._first_running()[:1] == [ticket]

    def watch_s(self, ticket: Ticket) -> float | None:
        """Return after how many seconds a call that is not the first looks again; None: it is woken."""
        first, *others = self._first_running() or [ticket]
        return WATCH_S if others == [ticket] and first.loop not in (None, ticket.loop) else None

    def wake(self) -> None:
        """Wake the first call, and the second, which may have to watch it."""
        _wake(self._first_running())

    def wake_all(self) -> None:
        """Wake every call."""
        _wake(tuple(self._tickets))

    def begin_turn(self, ticket: Ticket) -> None:
        """Note that a call looks at its budgets now: only later wake-ups count."""
        ticket._woken = False

    def armed(self, ticket: Ticket) -> Signal:
        """Return the signal that wakes a call; it is set already if it was woken since it began its turn."""
        signal = ticket._signal = Signal()
        if ticket._woken:  # looked at after the signal is in its place, so that `_wake` sets the one or the other
            ticket._woken = False
            signal.set()
        return signal

    def changed(self, one: InFlight | None) -> None:
        """Note that a call has ended: the clock starts again. Less is held of what counts as spent, if it was held."""
        self.since_ms = self._now_ms()
        if one is not None and one.opened_ms <= self._stuck_noted_ms:
            for name in tuple(self._stuck):
                if one.pays_into(name):
                    self._stuck.pop(name, None)

    def see(self, sources: tuple[Source, ...]) -> None:
        """Note what was read; the clock starts again if it differs."""
        if sources != self._sources:
            self._sources = sources
            self.since_ms = self._now_ms()
        for source in sources:
            if source.held is not None and source.held < self._stuck.get(source.name, 0):
                self._stuck.pop(source.name, None)

    def note_stuck(self, sources: tuple[Source, ...]) -> None:
        """Count what is held as spent until less is held: nothing of it has ended in a whole wait."""
        self._stuck_since_ms, self._stuck_noted_ms = self.since_ms, self._now_ms()
        self._stuck = {source.name: source.held for source in sources if source.held}

    def left_of(self, sources: tuple[Source, ...], own: Mapping[Any, int], wait_s: float) -> Left:
        """Return what is left for a call.

        Args:
            sources: Its budgets and limits.
            own: By name, what the caller itself has open: it cannot end while the caller waits.
            wait_s: How long the call waits for holds that do not end.
        """
        is_due = self._now_ms() - self._stuck_since_ms >= wait_s * 1000
        stuck = dict(self._stuck) if is_due else {}
        found = Left(float("inf"), float("inf"))
        for source in sources:
            spent = max(stuck.get(source.name, 0), own.get(source.name, 0))
            idle = float("inf") if source.held is None else source.left + max(0, source.held - spent)
            if source.left < found.left:
                found = Left(source.left, min(found.idle, idle), source.name)
            else:
                found = Left(found.left, min(found.idle, idle), found.name)
        return found

    def note_idle(self, sources: tuple[Source, ...]) -> None:
        """Keep what could be left at most, and wake the calls that need more: they can never fit."""
        idle = self.idle = self.left_of(sources, {}, float("inf")).idle
        _wake([ticket for ticket in tuple(self._tickets) if ticket.lowest > idle])

    def _first_running(self) -> list[Ticket]:
        """Return the first two calls that can take their turn."""
        found: list[Ticket] = []
        for ticket in tuple(self._tickets):
            if not ticket.is_stalled:
                found.append(ticket)
                if len(found) == 2:
                    break
        return found


class Admissions:
    """The queues and the calls in flight of one Cycles client in one process.

    Args:
        base_url: The address of its server.
        now_ms: Its monotonic clock.
        is_closed: Whether the client was closed.
    """

    def __init__(self, base_url: str, now_ms: Callable[[], float], is_closed: Callable[[], bool]) -> None:
        self._base_url = base_url
        self._now_ms = now_ms
        self._is_closed = is_closed
        self._queues: dict[QueueKey, BudgetQueue] = {}
        self._in_flight: dict[object, InFlight] = {}
        self._most_queues = MOST_QUEUES
        self._stopped = False

    @property
    def is_closed(self) -> bool:
        """Whether no call may wait any longer: the client was closed, or the proxy stops."""
        return self._stopped or self._is_closed()

    def stop(self) -> None:
        """End all waits."""
        self._stopped = True
        for queue in self._all():
            queue.wake_all()

    def holds_up(self, request: ReserveRequest, limits: tuple[RunLimit, ...], need: int) -> bool:
        """Return whether a call waits for the same budgets that needs as much or less."""
        queue = self._queues.get(_key(request, limits))
        return queue is not None and queue.holds_up(need)

    def join(self, request: ReserveRequest, limits: tuple[RunLimit, ...], ticket: Ticket) -> BudgetQueue:
        """Let a call wait for its budgets, and return its queue. The end of a call of the same server wakes it."""
        key = _key(request, limits)
        with shared:  # so that the queue is not dropped before the call is in it
            queue = self._queues.get(key)
            if queue is None:
                self._drop_unneeded()
                queue = self._queues[key] = BudgetQueue(self._now_ms)
            queue.join(ticket)
        _waiting.add(self)
        return queue

    def queue_of(self, ticket: Ticket) -> BudgetQueue | None:
        """Return the queue in which a call waits, if it waits in one."""
        return next((queue for queue in self._all() if queue.has(ticket)), None)

    def _drop_unneeded(self) -> None:
        """Drop queues that nothing needs, also if that is only what is held in them. The lock is held."""
        if len(self._queues) >= self._most_queues:
            for key, queue in list(self._queues.items()):
                if not queue.has_waiting:
                    self._queues.pop(key, None)
            self._most_queues = max(MOST_QUEUES, 2 * len(self._queues))

    def _all(self) -> list[BudgetQueue]:
        return list(self._queues.values())

    def opened(self, call: object, request: ReserveRequest, limits: tuple[RunLimit, ...]) -> None:
        """Note a call in flight, of the running thread and task."""
        task = _running_task()
        thread = weakref.ref(threading.current_thread())
        self._in_flight[call] = InFlight(
            request, limits, thread, None if task is None else weakref.ref(task), self._now_ms()
        )

    def closed(self, call: object) -> InFlight | None:
        """Note that a call is no longer in flight, and return what it was."""
        return self._in_flight.pop(call, None)

    def ended(self, one: InFlight | None) -> None:
        """Wake the waiting calls: the settlement of a call has ended."""
        for admissions in {self, *tuple(_waiting)}:
            if admissions._base_url == self._base_url:
                admissions._wake(one)

    def _wake(self, one: InFlight | None) -> None:
        for queue in self._all():
            if queue.is_needed:
                queue.changed(one)
            if queue.has_waiting:
                queue.wake()
        if not any(queue.has_waiting for queue in self._all()):
            _waiting.discard(self)
            if any(queue.has_waiting for queue in self._all()):  # joined in between
                _waiting.add(self)

    def own_holds(
        self, sources: Iterable[Source], *, by_task: bool, enclosing: ReserveRequest | None = None
    ) -> dict[Any, int]:
        """Return what the running task has open itself, or the running thread, by the names of the sources.

        Args:
            sources: The budgets and limits.
            by_task: Whether only this task waits; otherwise the thread, and every task of its event loop.
            enclosing: The reservation of the guard around the call, which ends after it.
        """
        me: object = _running_task() if by_task else threading.current_thread()
        mine = [one for one in tuple(self._in_flight.values()) if one.opener(by_task=by_task) is me]
        held: dict[Any, int] = {}
        for source in sources:
            requests = [one.request for one in mine if one.pays_into(source.name)]
            counts = partial(pays, source.name) if isinstance(source.name, str) else source.name.counts
            if enclosing is not None and counts(enclosing):
                requests.append(enclosing)
            if requests:
                held[source.name] = sum(request.estimate.amount for request in requests)
        return held


_waiting: Final[set[Admissions]] = set()
"""Those with waiting calls, of all clients of this process."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_waiting.clear)


def admissions_of(runtime: Any) -> Admissions:
    """Return the admissions of a client in this process: a forked child has another runtime, and new ones."""
    attributes: dict[str, Any] = vars(runtime)
    if "admissions" not in attributes:
        io = runtime.blocking
        made = Admissions(io.settings.base_url, io.clock.now_ms, lambda: runtime.closed)
        attributes.setdefault("admissions", made)
    found: Admissions = attributes["admissions"]
    return found


def _key(request: ReserveRequest, limits: tuple[RunLimit, ...]) -> QueueKey:
    return (request.estimate.unit, limits, *sorted(levels_of(request.subject).items()))


def pays(scope: str, request: ReserveRequest) -> bool:
    """Return whether the budget of a scope is one of those of a reservation."""
    return Used(scope, request.estimate.unit, 1, 0).pays_for(levels_of(request.subject))


def _running_task() -> Any:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None:
        return None
    return asyncio.current_task()


def _wake(tickets: Iterable[Ticket]) -> None:
    for ticket in tickets:
        ticket._woken = True  # before the signal is read: see `armed`
        if ticket._signal is not None:
            ticket._signal.set()
