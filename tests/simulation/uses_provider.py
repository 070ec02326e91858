"""Calls of a provider through a guarded client: whole responses, streams that are left, lost responses with a retry.

`cycles.providers` is the real code, called as its hooks call it, by threads and by tasks. The provider keeps a bill:
what is charged for a use must be at least what it billed. A signal handler may raise while a response is read, priced
and settled. A task may be cancelled at any await.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, Final, TypeAlias

from cycles._flows.io import run
from cycles.providers._call import Call
from cycles.providers._settle import TASK, THREAD, Caller
from tests.simulation.accounts import ESTIMATE
from tests.simulation.byte_codes import points
from tests.simulation.uses_background import MADE, RESERVE_S, call_of

if TYPE_CHECKING:
    from tests.simulation.swarm import Swarm
    from tests.simulation.workload import Op, Program

PROVIDER: Final = "provider call"
FEATURE: Final = "provider calls"
IN_LOOPS: Final = "provider calls in loops"
SHARE: Final = 0.6
"""The share of programs whose first thread makes such calls, if the feature is on."""
LEFT: Final = 10
"""What a stream costs that is left before its first output: its prompt, as it is estimated."""
BODY: Final = {"model": "m", "input": "hi"}
USAGE: Final = {"input_tokens": 20, "output_tokens": MADE - 20, "total_tokens": MADE}
RESPONSE: Final = json.dumps({"id": "resp_1", "model": "m", "status": "completed", "usage": USAGE}).encode()
BEGUN: Final = b'event: response.created\ndata: {"type": "response.created", "response": {"id": "r", "model": "m"}}\n\n'
ENDED: Final = (
    b"event: response.completed\ndata: %s\n\n"
    % json.dumps({"type": "response.completed", "response": json.loads(RESPONSE)}).encode()
)


_Sleep: TypeAlias = Callable[[float], Awaitable[None]]


class LostError(Exception):
    """The connection ended after the request was sent, and before a status."""


def with_provider(threads: list[list[str]], swarm: Swarm, random: Random) -> list[list[str]]:
    """Return the kinds of uses of each thread, of which calls of a provider may replace the first ones."""
    if threads and FEATURE in swarm and random.random() < SHARE:
        return [[PROVIDER] * 3 + threads[0][3:], *threads[1:]]
    return threads


def with_provider_in_loop(tasks: list[str], swarm: Swarm, random: Random) -> list[str]:
    """Return the kinds of uses of the tasks of a loop; see `with_provider`."""
    return [PROVIDER] * 3 + tasks[3:] if tasks and IN_LOOPS in swarm and random.random() < SHARE else tasks


def call_in_thread(program: Program, op: Op) -> None:
    program.server.swarm.matters(FEATURE)

    async def sleep(seconds: float) -> None:
        program.hub.sleep(seconds)

    run(_call(program, op, THREAD, sleep))


async def call_in_task(program: Program, op: Op) -> None:
    program.server.swarm.matters(IN_LOOPS)
    await _call(program, op, TASK, asyncio.sleep)


async def _call(program: Program, op: Op, caller: Caller, sleep: _Sleep) -> None:
    """Call the provider once, or again after a lost response."""
    how = program.hub.random.choice(("whole", "whole", "stream", "left", "lost"))
    call = call_of(program, op, BODY, stream=how in ("stream", "left"))
    bill = await _sent(program, op, caller, call)
    if how == "lost":
        await _lost(program, op, caller, call, LostError("reset"))
        call = call.again()
        bill += await _sent(program, op, caller, call)
    try:
        await sleep(program.work_s())
    except asyncio.CancelledError as error:
        await _lost(program, op, caller, call, error)
        raise
    if how in ("stream", "left"):
        call.stream().feed(BEGUN + (ENDED if how == "stream" else b""))
    await _ends(program, op, caller, call, how)
    if how != "left" and op.known < bill:
        op.problems.append(f"the provider bills {bill} for a response that is {how}, and {op.known} are charged")


async def _sent(program: Program, op: Op, caller: Caller, call: Call) -> int:
    """Reserve for a request and send it. Return what the provider bills for it."""
    op.reaching = op.known + ESTIMATE
    with program.within(op, "reserve", RESERVE_S):
        await caller.open(call)
    op.ran = True
    op.reservations.add(call.guard.reservation_id)
    op.steps.append((program.hub.awake_s, op.known + ESTIMATE))  # its bound was written ahead
    call.attempts = 1
    return MADE


async def _lost(program: Program, op: Op, caller: Caller, call: Call, error: BaseException) -> None:
    """End a call whose response the caller does not get. The provider has made it, and bills it."""
    op.known, op.committing = op.known + ESTIMATE, True
    with program.settles(op, "the end of a lost call"):
        await caller.end(call, None, error)
    op.returned, op.committing = op.known, False


async def _ends(program: Program, op: Op, caller: Caller, call: Call, how: str) -> None:
    """Read the response, and settle the call. From then on an interrupt changes nothing about what it costs."""
    cost = op.known + (LEFT if how == "left" else MADE)
    op.exact = {cost, op.known + ESTIMATE}  # the bound, if it comes before the response is read
    op.known, op.committing = cost, True
    outcome = call.stream_outcome if how in ("stream", "left") else None
    signals = points(program.hub, program.server.swarm, len(program.ops)) if op.in_main else contextlib.nullcontext()
    try:
        with signals, program.settles(op, "the end of a call"):
            if how in ("whole", "lost"):
                call.whole(RESPONSE)
            await caller.end(call, outcome)
    except BaseException as error:  # as the hook of a whole response, or the finalizer of a stream
        await caller.end(call, outcome, error if how in ("whole", "lost") else None)
        raise
    op.reaching = op.returned = op.known
