"""Responses that are made in the background: guarded calls that are held, retrieved, left, or timed out.

`cycles.providers` is the real code, called as its hooks call it. The SDK and the provider are a few JSON bodies.
"""

from __future__ import annotations

import json
from random import Random
from typing import TYPE_CHECKING, Any, Final

from cycles.providers._background import Retrieval
from cycles.providers._call import Call
from cycles.providers._endpoints import find
from cycles.providers._held import HeldResponses
from cycles.providers._meter import make_meter
from cycles.providers._settle import end_all_open, end_call, open_call
from tests.simulation.accounts import ESTIMATE
from tests.simulation.network import amount

if TYPE_CHECKING:
    from tests.simulation.workload import Op, Program

BACKGROUND: Final = "background response"
SHARE: Final = 0.25
"""The share of threads one of whose uses is such a response."""
MADE: Final = 60
BODY: Final = {"model": "m", "input": "hi", "background": True}
RUNNING: Final = json.dumps({"id": "resp_1", "status": "queued", "usage": None}).encode()
USAGE: Final = {"input_tokens": 20, "output_tokens": MADE - 20, "total_tokens": MADE}
ENDED: Final = json.dumps({"id": "resp_1", "model": "m", "status": "completed", "usage": USAGE}).encode()
SHORT_S: Final = 3.0
RESERVE_S: Final = 60.0  # its admission may read the budgets, and wait for a rate


def with_background(threads: list[list[str]], random: Random) -> list[list[str]]:
    """Return the kinds of uses of each thread, in some of which one is a response made in the background."""
    return [[BACKGROUND, *kinds[1:]] if random.random() < SHARE else kinds for kinds in threads]


def background(program: Program, op: Op) -> None:
    """Begin a response, and retrieve it, drop its client, or leave it to the close."""
    call = _begun(program, op)
    held = call.held_in
    assert held is not None
    how = program.hub.random.choice(("retrieve", "retrieve", "retrieve twice", "leave", "drop"))
    program.hub.sleep(program.work_s())
    if how == "drop":
        op.dropped, op.is_open = True, False
        end_all_open(held)
    for _ in range({"retrieve": 1, "retrieve twice": 2}.get(how, 0)):
        _retrieve(program, op, call)


def call_of(program: Program, op: Op, body: dict[str, Any], *, stream: bool = False) -> Call:
    """Return a call whose estimate is known, as the hooks of a guarded client make it."""
    account, random = op.account, program.hub.random
    options = {
        "client": program.client,
        "estimate": amount(ESTIMATE),
        "ttl_ms": random.choice((1_000, 5_000, 60_000)),
        "overage_policy": account.policy,
        "wait": 0,
        "background_wait": random.choice((SHORT_S, 3_600.0, 3_600.0)),
        "subject": account.subject,
    }
    meter = make_meter("openai", "openai", options)
    endpoint: Any = find("openai", "POST", "/responses")
    call = Call(meter, endpoint, "/responses", body, stream=stream, url="http://provider.invalid")
    call.reserved = call.estimate()
    return call


def _begun(program: Program, op: Op) -> Call:
    call = call_of(program, op, BODY)
    call.held_in = HeldResponses()
    op.reaching = ESTIMATE  # what a process may cost that is killed after the reserve
    with program.within(op, "reserve", RESERVE_S):
        open_call(call)
    op.ran = True
    op.reservations.add(call.guard.reservation_id)
    call.attempts = 1
    call.whole(RUNNING)
    op.is_open = True
    program.spent(op, ESTIMATE)
    end_call(call)
    return call


def _retrieve(program: Program, op: Op, call: Call) -> None:
    retrieval = Retrieval(call, deletes=False)
    retrieval.whole(ENDED)
    if call.end is None:  # otherwise the time for it has passed, and its estimate is settled
        program.commits(op, MADE)
        op.reaching = ESTIMATE  # the time may pass before the retrieval has claimed the call
    with program.settles(op, "retrieve"):
        end_call(retrieval)
    ending = call.ending
    assert ending is not None
    assert ending.amount is not None
    op.known = op.reaching = ending.amount.amount
    op.is_open = False
