"""Open and end the reservation of a call: written once as flows, run by threads, by event loops, and by finalizers."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import cycles
from cycles._core.amounts import Amount
from cycles._errors import CyclesError
from cycles._flows.commit import commit
from cycles._flows.guard_state import GuardState
from cycles._flows.io import Io, run
from cycles._flows.release import release
from cycles._flows.reserve import Take
from cycles.providers._call import Call, Ending, Outcome

if TYPE_CHECKING:
    from cycles import AsyncGuard, Guard

_in_flight: Final[weakref.WeakKeyDictionary[Any, dict[Call, int]]] = weakref.WeakKeyDictionary()
"""Estimates of requests that an enclosing guard pays and that are not settled yet."""
_in_flight_lock: Final = threading.Lock()


def open_call(call: Call) -> int | None:
    """Reserve for a call, and return the cap of its output.

    Raises:
        CyclesError: as `Cycles.reserve` does; nothing was sent to the provider.
    """
    cap = _enclose(call)
    if call.guard is not None:
        return cap
    reservation = call.client.reserve(call.reserved, **call.reserve_options())
    call.runtime = call.client._runtime()
    try:
        call.guard = run(reservation._open(call.runtime.blocking, reservation._request, _owner(call)))
        return _cap(call.guard)
    except BaseException as error:
        if call.guard is not None:  # interrupted after the reservation was made: nothing was sent to the provider
            end_call(call, None, error)
        raise


async def open_call_async(call: Call) -> int | None:
    """As `open_call`, from an event loop."""
    cap = _enclose(call)
    if call.guard is not None:
        return cap
    reservation = call.client.reserve(call.reserved, **call.reserve_options())
    call.runtime = call.client._runtime()
    io = call.runtime.tasks()
    try:
        call.guard = await io.to_the_end(reservation._open(io, reservation._request, _owner(call)))
        return _cap(call.guard)
    except BaseException as error:
        if call.guard is not None:
            await end_call_async(call, None, error)
        raise


def _owner(call: Call) -> Take:
    """Return what makes a call the owner of its reservation."""
    return partial(setattr, call, "guard")


def _cap(state: GuardState) -> int | None:
    created = state.created
    caps = None if created is None else created.caps
    return None if caps is None else caps.max_tokens


def end_call(call: Call, outcome: Outcome = None, raised: BaseException | None = None) -> None:
    """Settle a call in this thread, if nothing else has. Raises nothing that a server can cause."""
    if not call.claim_end():
        return
    ending = call.conclude(outcome, raised)
    if isinstance(call.guard, GuardState):
        run(_end(call.runtime.blocking, call, ending))
    elif call.guard is not None and (event := _pay(call, ending)) is not None:
        with contextlib.suppress(CyclesError):  # logged and reported by the client
            call.client.record(**event)


async def end_call_async(call: Call, outcome: Outcome = None, raised: BaseException | None = None) -> None:
    """As `end_call`, from an event loop. If the caller is cancelled, the client continues with the settlement."""
    if not call.claim_end():
        return
    ending = call.conclude(outcome, raised)
    if isinstance(call.guard, GuardState):
        io = call.runtime.tasks()
        await io.to_the_end(_end(io, call, ending))
    elif call.guard is not None and (event := _pay(call, ending)) is not None:
        with contextlib.suppress(CyclesError):  # logged and reported by the client
            await call.client.aio.record(**event)


def end_dropped(call: Call) -> None:
    """Settle a call whose response was dropped: in a thread, or here if no thread can be started any more."""
    outcome = call.stream_outcome
    if not threading.main_thread().is_alive():
        end_call(call, outcome)
        return
    try:
        threading.Thread(target=end_call, args=(call, outcome), name="cycles-dropped-response", daemon=False).start()
    except RuntimeError:  # the interpreter is ending
        end_call(call, outcome)


async def _end(io: Io, call: Call, ending: Ending) -> None:
    state: GuardState = call.guard
    _copy_usage(call, state.usage)
    with contextlib.suppress(CyclesError):  # a response that is paid is returned; the client reports the rejection
        if ending.amount is None:
            await release(io, state, ending.reason)
        else:
            wait = state.request.settle is None
            await commit(io, state, ending.amount, metadata=ending.metadata, wait=wait)


def _copy_usage(call: Call, usage: Any) -> None:
    for one in call.usage.responses():
        usage.see_response(object(), one.counts, model=one.model, context=one.context)


def _enclose(call: Call) -> int | None:
    """Let the guard around the request pay, if it can: then the call has that guard, and its cap is returned."""
    if call.meter.within != "enclosing":
        return None
    guard: Guard | AsyncGuard | None = cycles.current_guard()
    if guard is None or guard._inert() or guard.estimate.unit != call.reserved.unit:
        return None
    if guard.state not in ("active", "lost", "unreserved", "observed"):
        return None
    with _in_flight_lock:
        calls = _in_flight.setdefault(guard, {})
        spent = guard.spent.amount if guard.spent is not None else 0
        if call.reserved.amount > guard.estimate.amount - spent - sum(calls.values()):
            return None
        calls[call] = call.reserved.amount
    call.guard = guard
    return None if guard.caps is None else guard.caps.max_tokens


def _pay(call: Call, ending: Ending) -> dict[str, Any] | None:
    """Add what a call cost to its enclosing guard; return the event to record if that guard has ended."""
    guard = call.guard
    try:
        if ending.amount is None:
            return None
        guard.spend(ending.amount)
    except CyclesError:
        assert ending.amount is not None
        return _event(call, guard, ending.amount, ending.metadata)
    finally:  # after `spend`, so that no other request sees the amount as free in between
        with _in_flight_lock:
            _in_flight.get(guard, {}).pop(call, None)
    _copy_usage(call, guard.usage)
    return None


def _event(call: Call, guard: Any, amount: Amount, metadata: Mapping[str, Any]) -> dict[str, Any]:
    action = call.reserve_options()["action"]
    metrics = call.usage.metrics()
    return {
        "actual": amount,
        "action": action,
        "subject": guard.subject,
        "metrics": metrics,
        "metadata": metadata or None,
    }
