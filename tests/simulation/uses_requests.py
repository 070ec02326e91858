"""A use whose guard pays for a request to a provider: the bound is written ahead, and its cost is known later."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Final

from tests.simulation.accounts import ESTIMATE
from tests.simulation.network import amount
from tests.simulation.workload import Op, Program

REQUEST: Final = "request"
SHARE: Final = 0.5
"""The share of programs that send requests."""
_COST: Final = 60


def requests_of(seed: int, number: int) -> int:
    """Return how many requests a program sends; drawn apart, so that the runs of all other uses stay as they are."""
    random = Random(f"requests {seed} {number}")
    return random.randrange(1, 4) if random.random() < SHARE else 0


def _send(program: Program, op: Op, guard: Any) -> None:
    op.reaching = ESTIMATE  # what a process that is killed from now on may cost
    with program.within(op, "note_sent", 0.1):
        guard._runtime.ahead.sent(guard._state, ESTIMATE)
    op.steps.append((program.hub.awake_s, ESTIMATE))


def _fails(program: Program, op: Op) -> bool:
    """Return whether the request gets an error status. From then on what is written ahead may be deleted."""
    failed = program.hub.random.random() < 0.3
    if failed:
        op.steps.clear()
    else:
        op.known, op.committing = _COST, True
    return failed


def _ended(op: Op, *, failed: bool) -> None:
    if failed:
        op.releases = True
    else:
        op.reaching = op.returned = _COST


def request_sync(program: Program, op: Op) -> None:
    with program.reserve(op) as guard:
        program.entered(op, guard)
        _send(program, op, guard)
        program.hub.sleep(program.work_s())
        failed = _fails(program, op)
        with program.settles(op, "the end of a request"):
            if failed:
                guard.release()
            else:
                guard.commit(amount(_COST))
        _ended(op, failed=failed)


async def request_async(program: Program, op: Op) -> None:
    async with program.reserve(op) as guard:
        program.entered(op, guard)
        _send(program, op, guard)
        try:
            await asyncio.sleep(program.work_s())
        except asyncio.CancelledError:
            op.steps.clear()  # its block releases it
            raise
        failed = _fails(program, op)
        with program.settles(op, "the end of a request"):
            if failed:
                await guard.release()
            else:
                await guard.commit(amount(_COST))
        _ended(op, failed=failed)
