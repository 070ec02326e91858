"""Calls of a provider through a guarded client: whole responses, streams that are left, lost responses with a retry.

`cycles.providers` is the real code, called as its hooks call it. The provider keeps a bill: what is charged for a use
must be at least what it billed. A signal handler may raise while a response is read, priced and settled.
"""

from __future__ import annotations

import contextlib
import json
from random import Random
from typing import TYPE_CHECKING, Final

from cycles.providers._call import Call
from cycles.providers._settle import end_call, open_call
from tests.simulation.accounts import ESTIMATE
from tests.simulation.byte_codes import points
from tests.simulation.uses_background import MADE, RESERVE_S, call_of

if TYPE_CHECKING:
    from tests.simulation.swarm import Swarm
    from tests.simulation.workload import Op, Program

PROVIDER: Final = "provider call"
FEATURE: Final = "provider calls"
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


class LostError(Exception):
    """The connection ended after the request was sent, and before a status."""


def with_provider(threads: list[list[str]], swarm: Swarm, random: Random) -> list[list[str]]:
    """Return the kinds of uses of each thread, of which calls of a provider may replace the first ones."""
    if threads and FEATURE in swarm and random.random() < SHARE:
        return [[PROVIDER] * 3 + threads[0][3:], *threads[1:]]
    return threads


def provider_call(program: Program, op: Op) -> None:
    """Call the provider once, or again after a lost response."""
    program.server.swarm.matters(FEATURE)
    how = program.hub.random.choice(("whole", "whole", "stream", "left", "lost"))
    call = call_of(program, op, BODY, stream=how in ("stream", "left"))
    bill = _sent(program, op, call)
    if how == "lost":  # the provider has made the response, and bills it
        op.known, op.committing = ESTIMATE, True
        with program.settles(op, "the end of a lost call"):
            end_call(call, None, LostError("reset"))
        op.returned, op.committing = op.known, False
        call = call.again()
        bill += _sent(program, op, call)
    program.hub.sleep(program.work_s())
    if how in ("stream", "left"):
        call.stream().feed(BEGUN + (ENDED if how == "stream" else b""))
    _ends(program, op, call, how)
    if how != "left" and op.known < bill:
        op.problems.append(f"the provider bills {bill} for a response that is {how}, and {op.known} are charged")


def _sent(program: Program, op: Op, call: Call) -> int:
    """Reserve for a request and send it. Return what the provider bills for it."""
    op.reaching = op.known + ESTIMATE
    with program.within(op, "reserve", RESERVE_S):
        open_call(call)
    op.ran = True
    op.reservations.add(call.guard.reservation_id)
    op.steps.append((program.hub.awake_s, op.known + ESTIMATE))  # its bound was written ahead
    call.attempts = 1
    return MADE


def _ends(program: Program, op: Op, call: Call, how: str) -> None:
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
            end_call(call, outcome)
    except BaseException as error:  # as the hook of a whole response, or the finalizer of a stream
        end_call(call, outcome, error if how in ("whole", "lost") else None)
        raise
    op.reaching = op.returned = op.known
