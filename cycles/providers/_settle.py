"""Open and end the reservation of a call: written once as flows, run by threads, by event loops, and by finalizers."""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from attrs import evolve, frozen

import cycles
from cycles._core.amounts import Amount
from cycles._core.messages.requests import new_key
from cycles._core.messages.reserve_request import ReserveRequest
from cycles._errors import CyclesError
from cycles._flows.commit import commit
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io, run
from cycles._flows.release import release
from cycles._flows.run_limit import limits_around
from cycles.providers._admission import Admission, Need
from cycles.providers._background import Retrieval
from cycles.providers._call import Call, End, Ending, Outcome
from cycles.providers._held import HeldResponses
from cycles.providers._queue import admissions_of
from cycles.providers._shared import shared

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from cycles import AsyncGuard, Guard

_Flow: TypeAlias = Callable[[Any, Any], Coroutine[Any, Any, None]]
_OPEN: Final = ("active", "lost", "unreserved", "observed")
"""States of a guard that can pay."""
_STOPPED: Final = "coroutine raised StopIteration"
"""The message of the error that replaces a StopIteration (PEP 479)."""
_in_flight: Final[weakref.WeakKeyDictionary[Any, dict[Call, int]]] = weakref.WeakKeyDictionary()
"""Estimates of requests that an enclosing guard pays and that are not settled yet."""


@frozen
class Caller:
    """Opens and ends calls for the threads or for the tasks that make them: `THREAD` or `TASK`.

    Attributes:
        method: Returns a method of a client that runs a flow. No operation of the flow suspends in a thread.
        result: Returns what a method of a client has returned, or has returned an awaitable of.
        run: Runs a flow over the operations of a runtime. It gets them, and the event loop of the task.
        record: Records an event.
    """

    method: Callable[[Callable[..., Coroutine[Any, Any, Any]]], Callable[..., Any]]
    result: Callable[[Any], Awaitable[Any]]
    run: Callable[[Any, _Flow], Awaitable[None]]
    record: Callable[[Any, Mapping[str, Any]], Awaitable[None]]

    async def open(self, call: Call) -> int | None:
        """Reserve for a call, and return the cap of its output.

        Raises:
            CyclesError: as `Cycles.reserve` does; nothing was sent to the provider.
        """
        cap = _enclose(call)
        if call.guard is not None:
            return cap
        request = _request_of(call)
        try:
            await self.run(call.runtime, partial(_admit, call, request))
            return _cap(call)
        except BaseException as error:
            if call.guard is not None:  # interrupted after the reservation was made: nothing was sent to the provider
                await self.end(call, None, error)
            call.meter.note_failed_reserve(error)
            raise

    async def end(self, call: Call | Retrieval, outcome: Outcome = None, raised: BaseException | None = None) -> None:
        """Settle a call, if nothing else has. Raises nothing that a server can cause.

        A call whose response is still being made in the background stays open. A retrieval ends the call that it has
        found. If the caller is cancelled, the client continues with the settlement.
        """
        if isinstance(call, Retrieval):
            if (found := call.end_of_call()) is not None:
                await self.end_open(call.call, found)
        elif raised is not None or not _keep_open(call):
            await self.end_open(call, End(outcome, raised))

    async def end_open(self, call: Call, end: End) -> None:
        """Settle a call, also if its response is still being made in the background."""
        try:
            if call.claim_end(end):
                await self.settle(call, end)
        except BaseException:  # cancelled, or a signal handler has raised
            _continue_later(call, end)
            raise

    async def settle(self, call: Call, end: End) -> None:
        """Price a call and settle it. After an interruption this may run again."""
        ending = call.conclude(end)
        if isinstance(call.guard, GuardState):
            try:
                await self.run(call.runtime, partial(_end, call, ending))
            finally:
                _wake_others(call, call.guard)
        elif call.guard is not None and (event := _pay(call, ending)) is not None:
            with contextlib.suppress(CyclesError):  # logged and reported by the client
                await self.record(call.client, event)


def _run_method(flow: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    @functools.wraps(flow)
    def method(*args: Any, **options: Any) -> Any:
        try:
            return run(flow(*args, **options))
        except RuntimeError as error:
            if not isinstance(error.__cause__, StopIteration) or str(error) != _STOPPED:
                raise
            stopped = error.__cause__
        raise stopped  # as without the flow: a coroutine replaces a StopIteration that leaves it

    return method


async def _returned(value: Any) -> Any:
    return value


async def _awaited(value: Any) -> Any:
    return await value


def _run_in_thread(runtime: Any, flow: _Flow) -> Awaitable[None]:
    return flow(runtime.blocking, None)


def _run_in_task(runtime: Any, flow: _Flow) -> Awaitable[None]:
    import asyncio  # late: scripts without an event loop start faster without it

    io = runtime.tasks()
    found: Awaitable[None] = io.to_the_end(flow(io, asyncio.get_running_loop()))
    return found


async def _record_in_thread(client: Any, event: Mapping[str, Any]) -> None:
    client.record(**event)


async def _record_in_task(client: Any, event: Mapping[str, Any]) -> None:
    await client.aio.record(**event)


THREAD: Final = Caller(_run_method, _returned, _run_in_thread, _record_in_thread)
TASK: Final = Caller(lambda flow: flow, _awaited, _run_in_task, _record_in_task)


def open_call(call: Call) -> int | None:
    """Reserve for a call in this thread, as `Caller.open` says."""
    return run(THREAD.open(call))


def end_call(call: Call | Retrieval, outcome: Outcome = None, raised: BaseException | None = None) -> None:
    """Settle a call in this thread, as `Caller.end` says."""
    run(THREAD.end(call, outcome, raised))


def end_open(call: Call, end: End, ends_at_s: float = math.inf) -> None:
    """Settle a call in this thread, by requests until a time, as `Caller.end_open` says."""
    run(_until(ends_at_s).end_open(call, end))


def _request_of(call: Call) -> ReserveRequest:
    reservation = call.client.reserve(call.reserved, **call.reserve_options())
    call.runtime = call.client._runtime()
    call.admissions = admissions_of(call.runtime)
    request: ReserveRequest = reservation._request
    return request


async def _admit(call: Call, request: ReserveRequest, io: Io, loop: AbstractEventLoop | None) -> None:
    """Reserve for a call, which is in flight from then on."""
    limits = limits_around()
    around = cycles.current_guard()
    is_held = around is not None and around.state in ("active", "lost") and not around.is_pooled
    is_enclosed = is_held and around is not None and around._runtime is call.runtime

    def take(guard: GuardState) -> None:
        call.guard = guard
        call.admissions.opened(call, guard.request, limits)

    def waits() -> None:
        if not call.waited:
            call.waited = True
            call.meter.report_wait(request)

    admission = Admission(
        io,
        call.admissions,
        request,
        call.need or Need(call.reserved.amount),
        wait_s=call.meter.wait_s,
        take=take,
        on_wait=waits,
        loop=loop,
        enclosing=around._state.request if around is not None and is_enclosed else None,
    )
    admitted = await admission.run()
    call.guard = admitted.guard
    call.admitted(admitted.amount, admitted.limit)
    call.runtime.ahead.sent(admitted.guard, admitted.amount.amount)


def _cap(call: Call) -> int | None:
    created = call.guard.created
    caps = None if created is None else created.caps
    return None if caps is None else caps.max_tokens


def _keep_open(call: Call) -> bool:
    """Let a call stay open whose response is still being made in the background; return whether it stays open.

    Its estimate was written ahead before the request was sent, and a close of the client commits it. Each step may be
    repeated after an interruption.
    """
    held, response_id, guard = call.held_in, call.running_response(), call.guard
    if held is None or response_id is None or not isinstance(guard, GuardState) or guard.finalized:
        return False
    if call.held_id is None:
        guard.is_background = True
        call.runtime.watch(guard)
        if call.timer is None:
            call.timer = call.runtime.after(call.meter.background_wait_s, partial(end_open, call, End(None, None)))
        call.held_id = response_id
    # Last: a client that is closed or dropped after this finds the call.
    return held.add(call.held_id, call) and not call.runtime.closed


def end_all_open(held: HeldResponses[Call]) -> None:
    """Settle the estimate of the open calls of a client that was dropped. The garbage collector may call this."""
    for call in held.close():
        if call.is_mine:
            call.runtime.background.ends.add(partial(end_open, call, End(None, None)))


def _settle(call: Call, end: End, ends_at_s: float) -> None:
    run(_until(ends_at_s).settle(call, end))


def _until(ends_at_s: float) -> Caller:
    """Return `THREAD` for requests that end at a time at the latest: a flush may settle what no thread could."""

    def run_flow(runtime: Any, flow: _Flow) -> Awaitable[None]:
        return flow(runtime.blocking.until(ends_at_s), None)

    async def record(client: Any, event: Mapping[str, Any]) -> None:
        client.record(**event, timeout=None if ends_at_s == math.inf else max(0.001, ends_at_s - time.monotonic()))

    return evolve(THREAD, run=run_flow, record=record)


def _continue_later(call: Call, end: End) -> None:
    """Settle a call in another thread, whose caller was interrupted after it had claimed the end.

    A guard is claimed once, so an amount that was committed is not committed again. What an enclosing guard pays is
    added to its spend, unless the spend has grown by it already, or recorded with the key of the first attempt. A payer
    prices the call when it ends.
    """
    if call.payer is not None:
        return
    if call.end is not end or call.guard is None:
        return
    if isinstance(call.guard, GuardState):
        if call.guard.finalized:
            _wake_others(call, call.guard)
            return
    elif call.ending is not None and _has_spent(call, call.ending.amount):
        return
    runtime = call.client._runtime() if call.runtime is None else call.runtime
    runtime.background.ends.add(partial(_settle, call, end))


def _has_spent(call: Call, amount: Amount | None) -> bool:
    """Return whether an interrupted `_pay` has added the amount to the spend of its guard."""
    before, after = call.spent_before, call.guard.spent
    if amount is None:
        return True
    if not call.spends or after is None or after is before:
        return False
    return before is None or bool(after - before >= amount)


def end_dropped(call: Call | Retrieval) -> None:
    """Settle a call whose response was dropped: in a thread, or here if no thread can be started any more."""
    outcome = call.stream_outcome
    if not threading.main_thread().is_alive():
        end_call(call, outcome)
        return
    try:
        threading.Thread(target=end_call, args=(call, outcome), name="cycles-dropped-response", daemon=False).start()
    except RuntimeError:  # the interpreter is ending
        end_call(call, outcome)


async def _end(call: Call, ending: Ending, io: Io, _: AbstractEventLoop | None) -> None:
    state: GuardState = call.guard
    call.add_usage(state.usage)
    with contextlib.suppress(CyclesError):  # a response that is paid is returned; the client reports the rejection
        if ending.amount is None:
            await release(io, state, ending.reason)
        else:
            wait = state.request.settle is None
            await commit(io, state, ending.amount, metadata=ending.metadata, wait=wait)


def _wake_others(call: Call, guard: GuardState) -> None:
    """Wake the calls that wait, as soon as the settlement of this one has ended; that may be in the background."""
    _forget_open(call)
    guard.when_settled().on_set(partial(call.admissions.ended, call.admissions.closed(call)))


def _forget_open(call: Call) -> None:
    """Remove a call that has ended from those whose responses are made in the background."""
    if call.timer is not None:
        call.timer.cancel()
    if call.held_in is not None and call.held_id is not None:
        call.held_in.remove(call.held_id, call)


def _enclose(call: Call) -> int | None:
    """Let the guard around the request pay, if it can: then the call has that guard, and its cap is returned.

    It does not pay for a response that is made in the background, which may end after it.
    """
    if call.payer is not None:
        call.guard = call.payer
        call.meter.report_payer()
        call.payer.bind(call)
        return None
    if call.meter.within != "enclosing" or (call.is_background and call.held_in is not None):
        return None
    guard: Guard | AsyncGuard | None = cycles.current_guard()
    if guard is None or guard._inert() or guard.estimate.unit != call.reserved.unit:
        return None
    if guard.state not in _OPEN:
        return None
    with shared:
        calls = _in_flight.setdefault(guard, {})
        spent = guard.spent.amount if guard.spent is not None else 0
        found = _fits(call, guard.estimate.amount - spent - sum(calls.values()))
        if found is None:
            return None
        calls[call] = found[0]
    guard._runtime.ahead.sent(guard._state, found[0])
    call.noted, call.guard = found[0], guard
    call.admitted(Amount(call.reserved.unit, found[0]), found[1])
    return None if guard.caps is None else guard.caps.max_tokens


def _fits(call: Call, left: int) -> tuple[int, int | None] | None:
    """Return what an enclosing guard pays for a call, and the output limit for it; None if it cannot."""
    if call.reserved.amount <= left:
        return call.reserved.amount, None
    need = call.need
    if need is None or call.planned_limit() is not None or need.bound is None or need.most > left:
        return None
    return need.most, need.limit


def _pay(call: Call, ending: Ending) -> dict[str, Any] | None:
    """Add what a call cost to its enclosing guard; return the event to record if that guard has ended."""
    guard = call.guard
    if call.payer is not None:
        call.payer.ended(call)
        return None
    noted, call.noted = call.noted, 0
    guard._runtime.ahead.ended(guard._state, noted)
    try:
        if ending.amount is None:
            return None
        call.spent_before = guard.spent
        call.spends = True
        guard.spend(ending.amount)
    except CyclesError:
        assert ending.amount is not None
        return _event(call, guard, ending.amount, ending.metadata)
    finally:  # after `spend`, so that no other request sees the amount as free in between
        with shared:
            _in_flight.get(guard, {}).pop(call, None)
        guard._runtime.ahead.sent(guard._state, 0)  # what is written ahead has the cost in place of the bound now
    call.add_usage(guard.usage)
    return None


def _event(call: Call, guard: Any, amount: Amount, metadata: Mapping[str, Any]) -> dict[str, Any]:
    action = call.reserve_options()["action"]
    metrics = call.usage.metrics()
    call.event_key = call.event_key or new_key()
    return {
        "actual": amount,
        "action": action,
        "subject": guard.subject,
        "metrics": metrics,
        "metadata": metadata or None,
        "idempotency_key": call.event_key,
    }
