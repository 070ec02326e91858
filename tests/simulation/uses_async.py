"""The kinds of uses of a guard in event loops: small programs that note what they report."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

import cycles
from tests.simulation import uses_proxy, uses_sdk
from tests.simulation.accounts import ESTIMATE
from tests.simulation.network import amount
from tests.simulation.uses_pool import POOL_ASYNC
from tests.simulation.uses_provider import PROVIDER, call_in_task
from tests.simulation.workload import ACTION, Boom, Op, Program, check_unreserved


async def commit(program: Program, op: Op, guard: Any, value: int) -> None:
    """Commit an amount, within the bound of a commit."""
    program.commits(op, value)
    with program.settles(op, "commit"):
        await guard.commit(amount(value), metadata={"use": op.agent})
    op.returned = value


async def commit_async(program: Program, op: Op) -> None:
    async with program.reserve(op) as guard:
        program.entered(op, guard)
        await asyncio.sleep(program.work_s())
        await commit(program, op, guard, 60)


async def cancelled_commit_async(program: Program, op: Op) -> None:
    task = asyncio.current_task()
    assert task is not None
    async with program.reserve(op) as guard:
        program.entered(op, guard)
        # At once: while the record is being saved. Later: while the request is on its way.
        delay_s = program.hub.random.choice((0.0, program.hub.random.random() * 2 * program.server.faults.delay_s))
        asyncio.get_running_loop().call_later(delay_s, task.cancel)
        await commit(program, op, guard, 65)


async def spend_async(program: Program, op: Op) -> None:
    async with program.reserve(op) as guard:
        program.entered(op, guard)
        for value in (10, 20, 30):
            await asyncio.sleep(program.work_s() / 3)
            program.spend(op, guard, value)
        op.committing = True


async def raise_async(program: Program, op: Op) -> None:
    async with program.reserve(op) as guard:
        program.entered(op, guard)
        op.releases = True
        await asyncio.sleep(program.work_s())
        raise Boom


async def spend_raise_async(program: Program, op: Op) -> None:
    async with program.reserve(op) as guard:
        program.entered(op, guard)
        program.spend(op, guard, 25)
        op.committing = True
        await asyncio.sleep(program.work_s())
        raise Boom


async def release_async(program: Program, op: Op) -> None:
    guard = await program.reserve(op)
    program.entered(op, guard)
    op.releases = True
    with program.settles(op, "release"):
        await guard.release("not needed")


async def unavailable_async(program: Program, op: Op) -> None:
    op.may_run_unreserved = True
    async with program.reserve(op, on_unavailable="allow") as guard:
        program.entered(op, guard)
        check_unreserved(op, guard)
        await asyncio.sleep(program.work_s())
        await commit(program, op, guard, 45)


async def record_async(program: Program, op: Op) -> None:
    op.ran = True
    with program.settles(op, "record"):
        await program.client.aio.record(program.commits(op, 33), action=ACTION, subject=op.account.subject)


async def cancel_policy_async(program: Program, op: Op) -> None:
    with contextlib.suppress(cycles.LeaseLostError):
        async with program.reserve(op, lease_policy="cancel") as guard:
            program.entered(op, guard)
            program.spend(op, guard, 5)
            op.committing = True
            await asyncio.sleep(program.work_s())


async def decorated_async(program: Program, op: Op) -> None:
    options: Any = {"subject": op.account.subject, "overage_policy": op.account.policy}

    @program.client.guarded(amount(ESTIMATE), action=ACTION, actual=amount, **options)
    async def call() -> int:
        program.entered(op, cycles.current_guard())
        program.commits(op, 42)
        return 42

    await call()


async def stream_async(program: Program, op: Op) -> None:
    async def chunks() -> AsyncIterator[int]:
        for chunk in range(5):
            await asyncio.sleep(program.work_s() / 5)
            op.reaching = op.known + 7
            yield chunk

    async with program.reserve(op, actual=_tokens) as guard:
        program.entered(op, guard)
        op.committing = True
        async for _ in guard.wrap(chunks(), usage=lambda _: {"tokens_output": 7}, settle=False):
            program.spent(op, 7)


def _generator(program: Program, op: Op) -> Any:
    options: Any = {"subject": op.account.subject, "overage_policy": op.account.policy}

    @program.client.guarded(amount(ESTIMATE), action=ACTION, actual=_tokens, **options)
    async def items() -> AsyncIterator[int]:
        guard = cycles.current_guard()
        assert guard is not None
        program.entered(op, guard)
        for item in range(4):
            op.reaching = op.known + 8
            guard.usage.add(tokens_output=8)
            program.spent(op, 8)
            op.committing = True
            await asyncio.sleep(program.work_s() / 5)
            yield item

    return items()


async def generator_async(program: Program, op: Op) -> None:
    assert [item async for item in _generator(program, op)] == [0, 1, 2, 3]


async def closed_generator_async(program: Program, op: Op) -> None:
    items = _generator(program, op)
    await anext(items)
    await anext(items)
    with program.settles(op, "the close of a generator"):
        await items.aclose()


async def dropped_async(program: Program, op: Op) -> None:
    guard = await program.reserve(op)
    program.entered(op, guard)
    program.spend(op, guard, 15)
    op.committing = op.dropped = True
    del guard


async def transfer_async(program: Program, op: Op) -> None:
    guard = await program.reserve(op)
    token, reservation_id = guard.detach(), str(guard.reservation_id)
    program.lost.add(reservation_id)  # a task that is cancelled before it has the guard leaves it to the token
    async with program.client.attach(token) as continued:
        program.lost.discard(reservation_id)
        program.entered(op, continued)
        await commit(program, op, continued, 55)


async def shadow_async(program: Program, op: Op) -> None:
    op.may_run_unreserved, op.charges = True, False
    async with program.reserve(op, shadow=True) as guard:
        program.entered(op, guard)
        await guard.commit(amount(50))


async def nested_subjects_async(program: Program, op: Op) -> None:
    options: Any = {"overage_policy": op.account.policy}
    with cycles.subject(agent="another"):
        await asyncio.sleep(0)
        with cycles.subject(**op.account.subject):
            async with program.client.reserve(amount(ESTIMATE), action=ACTION, **options) as guard:
                program.entered(op, guard)
                await asyncio.sleep(program.work_s())
                await commit(program, op, guard, 50)


async def overspend_async(program: Program, op: Op) -> None:
    async with program.reserve(op, overage_policy="REJECT") as guard:
        program.entered(op, guard)
        await commit(program, op, guard, ESTIMATE + 40)


async def series_async(program: Program, op: Op) -> None:
    options: Any = {"subject": op.account.subject, "overage_policy": op.account.policy}
    async with program.client.lease_series(amount(ESTIMATE), action=ACTION, part_ms=4_000, **options) as series:
        for _ in range(3):
            guard = await series.next()
            program.entered(op, guard)
            program.spend(op, guard, 15)
            await asyncio.sleep(program.hub.random.choice((0.0, 3.0)))
        op.committing = True


async def flush_async(program: Program, op: Op) -> None:
    with program.within(op, "flush", 2.0):
        await program.client.aio.flush(timeout=2.0)


def _tokens(usage: Any) -> cycles.Amount:
    return amount(usage.tokens_output)


ASYNC: Final[dict[str, Callable[[Program, Op], Coroutine[Any, Any, None]]]] = {
    "commit": commit_async,
    "commit, cancelled": cancelled_commit_async,
    "spend": spend_async,
    "raise": raise_async,
    "spend and raise": spend_raise_async,
    "release": release_async,
    "allow if unavailable": unavailable_async,
    "direct event": record_async,
    "cancel policy": cancel_policy_async,
    "decorated": decorated_async,
    "stream": stream_async,
    "generator": generator_async,
    "closed generator": closed_generator_async,
    "dropped": dropped_async,
    "transfer": transfer_async,
    "shadow": shadow_async,
    "nested subjects": nested_subjects_async,
    "series": series_async,
    "flush": flush_async,
    **POOL_ASYNC,
}
LATER: Final[dict[str, Callable[[Program, Op], Coroutine[Any, Any, None]]]] = {
    "overspend": overspend_async,
    PROVIDER: call_in_task,
    uses_proxy.PROXY: uses_proxy.request_in_task,
    uses_sdk.CALL: uses_sdk.call_in_task,
    uses_sdk.IN_GUARD: uses_sdk.guard_in_task,
}
"""Those that only some runs choose."""
