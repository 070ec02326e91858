"""What a lost lease does to the work under each `lease_policy`, sync and async."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import cycles
from tests.lease.conftest import Events, reserve
from tests.lease.server import LeaseServer, gated, grant, refuse
from tests.support.still_time import StillTime
from tests.support.waiting import PATIENCE_S, forever, set_by

Make = Callable[..., cycles.Cycles]
LOSING = (refuse(404, "NOT_FOUND"),)
LONG_MS = 60_000
"""A lease that is lost only by what the server says, also if the response to its extend is late."""
ONE = cycles.tokens(1)


def settled(server: LeaseServer) -> list[str]:
    return [seen.what for seen in server.seen if seen.what in ("commit", "release")]


def cause(raised: pytest.ExceptionInfo[cycles.LeaseLostError]) -> BaseException | None:
    assert raised.value.reservation_id == "r1"
    return raised.value.__cause__


def test_warn_lets_the_block_end_as_it_would(client_of: Make, server_responded: Events) -> None:
    with LeaseServer(*LOSING) as server, client_of(server) as client:
        with reserve(client, actual=ONE) as guard:
            server_responded.wait_for("LeaseLost")
        assert guard.state == "committed"
    assert settled(server) == ["commit"]


@pytest.mark.parametrize("policy", ["fail_on_finalize", "cancel"])
def test_a_block_of_blocking_code_raises_at_its_end_after_it_settled(
    client_of: Make, server_responded: Events, still: StillTime, policy: str
) -> None:
    with LeaseServer(*LOSING) as server, client_of(server) as client:
        reservation = reserve(client, actual=ONE, lease_policy=policy, ttl_ms=LONG_MS)
        with pytest.raises(cycles.LeaseLostError) as raised, reservation as guard:
            still.beat(guard)
            server_responded.wait_for("LeaseLost")
        assert isinstance(cause(raised), cycles.NotFoundError)
    assert settled(server) == ["commit"]


def test_blocking_code_stops_where_it_looks(client_of: Make, server_responded: Events, still: StillTime) -> None:
    went_on = False
    with LeaseServer(*LOSING) as server, client_of(server) as client:
        reservation = reserve(client, lease_policy="cancel", ttl_ms=LONG_MS)
        with pytest.raises(cycles.LeaseLostError) as raised, reservation as guard:
            guard.raise_if_lost()
            guard.spend(ONE)
            still.beat(guard)
            server_responded.wait_for("LeaseLost")
            guard.raise_if_lost()
            went_on = True
        assert isinstance(cause(raised), cycles.NotFoundError)
        assert not getattr(raised.value, "__notes__", [])  # the loss is no note of itself
    assert not went_on
    assert settled(server) == ["commit"]


@pytest.mark.parametrize("policy", ["fail_on_finalize", "cancel"])
def test_a_guard_without_a_block_raises_from_its_commit_after_it_settled(
    client_of: Make, server_responded: Events, policy: str
) -> None:
    with LeaseServer(*LOSING) as server, client_of(server) as client:
        guard = reserve(client, lease_policy=policy).acquire()
        server_responded.wait_for("LeaseLost")
        with pytest.raises(cycles.LeaseLostError):
            guard.commit(ONE)
        assert guard.state == "committed"
        assert guard.settlement.status == "committed"


@pytest.mark.parametrize("policy", ["warn", "fail_on_finalize", "cancel"])
def test_the_exception_of_the_block_wins(client_of: Make, server_responded: Events, policy: str) -> None:
    with LeaseServer(*LOSING) as server, client_of(server) as client:
        with pytest.raises(ValueError, match="mine") as raised, reserve(client, lease_policy=policy) as guard:
            guard.spend(ONE)
            server_responded.wait_for("LeaseLost")
            raise ValueError("mine")
        assert any("lease of reservation r1 was lost" in note for note in raised.value.__notes__)
    assert settled(server) == ["commit"]


@pytest.mark.parametrize("policy", ["fail_on_finalize", "cancel"])
def test_the_policy_of_the_client_is_the_default(client_of: Make, server_responded: Events, policy: Any) -> None:
    with LeaseServer(*LOSING) as server, client_of(server, lease_policy=policy) as client:
        reservation = reserve(client, actual=ONE)
        with pytest.raises(cycles.LeaseLostError), reservation:
            server_responded.wait_for("LeaseLost")


# -- async ---


def run(main: Callable[[], Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main(), 60))


def test_cancel_ends_the_block_at_its_await(client_of: Make, still: StillTime) -> None:
    async def main() -> None:
        with pytest.raises(cycles.LeaseLostError) as raised:
            async with reserve(client, lease_policy="cancel", ttl_ms=LONG_MS) as guard:
                still.beat(guard)
                await forever()
        assert isinstance(cause(raised), cycles.NotFoundError)
        assert guard.state == "released"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # nothing of the cancellation is left

    with LeaseServer(*LOSING) as server, client_of(server) as client:
        run(main)
        (release,) = server.of("release")
        assert release.body["reason"] == "lease_lost"


def test_a_loss_in_a_task_that_was_cancelled_before_is_raised_as_a_loss(client_of: Make) -> None:
    """Its clean-up calls a model, for example: the earlier cancellation is not that of the block."""

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await forever()
        with pytest.raises(cycles.LeaseLostError):
            async with reserve(client, lease_policy="cancel"):
                await forever()
        assert task.cancelling() == 1

    with LeaseServer(*LOSING) as server, client_of(server) as client:
        run(main)


def test_a_block_is_cancelled_if_the_lease_of_its_guard_is_lost_already(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    go_on, ran_to_its_end = threading.Event(), list[bool]()

    async def main() -> None:
        guard = await reserve(client, lease_policy="cancel")
        still.beat(guard)
        await asyncio.to_thread(server_responded.wait_for, "LeaseLost")
        with pytest.raises(cycles.LeaseLostError):
            async with guard:
                ran_to_its_end.append(await asyncio.to_thread(go_on.wait, PATIENCE_S))
        go_on.set()

    with LeaseServer(refuse(404, "NOT_FOUND")) as server:
        client = client_of(server)
        asyncio.run(main())
    assert ran_to_its_end == []


def test_cancel_commits_what_is_known_to_be_spent(client_of: Make) -> None:
    async def main() -> None:
        async with reserve(client, lease_policy="cancel") as guard:
            guard.spend(ONE)
            await forever()

    with LeaseServer(*LOSING) as server, client_of(server) as client:
        with pytest.raises(cycles.LeaseLostError):
            run(main)
        (commit,) = server.of("commit")
        assert commit.body["metadata"] == {"outcome": "error"}


def test_a_loss_after_the_block_has_ended_cancels_nothing(
    client_of: Make, server_responded: Events, still: StillTime
) -> None:
    async def main() -> str:
        before = asyncio.all_tasks()
        async with reserve(client, lease_policy="cancel", ttl_ms=LONG_MS) as guard:
            still.beat(guard)
            await asyncio.to_thread(server.wait_for_extends, 1)
            await guard.commit(ONE)
        answer_it.set()  # the beat that was under way is answered 404 now
        await asyncio.wait(asyncio.all_tasks() - before, timeout=60)
        await asyncio.sleep(0)
        return "went on"

    answer_it = threading.Event()
    with LeaseServer(lambda server: gated(answer_it, {"error": "NOT_FOUND"}, 404)) as server:
        client = client_of(server)
        assert run(main) == "went on"
        client.close()
    assert server_responded.of("LeaseLost") == []


def test_without_a_block_nothing_is_cancelled(client_of: Make, server_responded: Events) -> None:
    async def main() -> str:
        guard = await reserve(client, lease_policy="cancel")
        await asyncio.to_thread(server_responded.wait_for, "LeaseLost")
        with pytest.raises(cycles.LeaseLostError):
            await guard.commit(ONE)
        return "went on"

    with LeaseServer(*LOSING) as server, client_of(server) as client:
        assert run(main) == "went on"


def test_a_cancellation_from_outside_stays_one(client_of: Make) -> None:
    async def block() -> None:
        async with reserve(client, lease_policy="cancel"):
            inside.set()
            await forever()

    async def main() -> None:
        task = asyncio.create_task(block())
        await set_by(task, inside)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    inside = asyncio.Event()
    with LeaseServer(grant(), remaining_ms=60_000) as server, client_of(server) as client:
        run(main)
        assert settled(server) == ["release"]


def test_a_cancellation_from_outside_beside_a_loss_stays_one(client_of: Make, server_responded: Events) -> None:
    async def block() -> None:
        async with reserve(client, lease_policy="cancel"):
            try:
                await forever()
            except asyncio.CancelledError:  # the loss; the outside follows before the block is left
                stopping.set()
                await forever()

    async def main() -> None:
        task = asyncio.create_task(block())
        await set_by(task, stopping)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    stopping = asyncio.Event()
    with LeaseServer(*LOSING) as server, client_of(server) as client:
        run(main)
    assert server_responded.of("LeaseLost")


def test_a_block_that_swallows_the_cancellation_still_raises_at_its_end(client_of: Make) -> None:
    async def main() -> None:
        async with reserve(client, lease_policy="cancel", actual=ONE):
            with contextlib.suppress(asyncio.CancelledError):
                await forever()

    with LeaseServer(*LOSING) as server, client_of(server) as client:
        with pytest.raises(cycles.LeaseLostError):
            run(main)
        assert settled(server) == ["commit"]


def test_a_timeout_around_the_block_is_not_mistaken_for_the_loss(client_of: Make) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), reserve(client, lease_policy="cancel"):
                await forever()
        with pytest.raises(cycles.LeaseLostError):
            async with asyncio.timeout(60), reserve(client, lease_policy="cancel"):
                await forever()

    with LeaseServer(*LOSING) as server, client_of(server) as client:
        run(main)


@pytest.mark.parametrize("group", [asyncio.TaskGroup, anyio.create_task_group])
def test_cancel_ends_the_tasks_of_a_group_in_the_block(client_of: Make, group: Callable[[], Any]) -> None:
    async def work() -> None:
        try:
            await forever()
        finally:
            ended.append("work")

    async def main() -> None:
        async with reserve(client, lease_policy="cancel"), group() as tasks:
            if group is asyncio.TaskGroup:
                tasks.create_task(work())
            else:
                tasks.start_soon(work)

    ended: list[str] = []
    with LeaseServer(*LOSING) as server, client_of(server) as client:
        with pytest.raises(cycles.LeaseLostError):
            run(main)
        assert ended == ["work"]
        assert settled(server) == ["release"]


def test_a_block_in_a_task_of_a_group_fails_alone(client_of: Make) -> None:
    async def block() -> None:
        async with reserve(client, lease_policy="cancel"):
            await forever()

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(block())

    with LeaseServer(*LOSING) as server, client_of(server) as client:
        with pytest.raises(ExceptionGroup) as raised:
            run(main)
        (loss,) = raised.value.exceptions
        assert isinstance(loss, cycles.LeaseLostError)


def test_a_cancelled_anyio_scope_around_the_block_stays_one(client_of: Make) -> None:
    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with reserve(client, lease_policy="cancel"):
                scope.cancel()
                await forever()
        assert scope.cancelled_caught

    with LeaseServer(*LOSING) as server, client_of(server) as client:
        run(main)
        server.wait_for(lambda _: bool(server.of("release")))
        keys = {seen.body["idempotency_key"] for seen in server.of("release")}
        assert len(keys) == 1  # the client goes on where the scope cut the guard short, with the same key


def test_nested_blocks_each_raise_their_own_loss(client_of: Make, server_responded: Events) -> None:
    async def main() -> None:
        async with reserve(client) as outer:
            with pytest.raises(cycles.LeaseLostError) as raised:
                async with reserve(client, lease_policy="cancel"):
                    await forever()
            assert raised.value.reservation_id == "r2"
            assert outer.state == "active"
            await outer.commit(ONE)

    with LeaseServer(grant(60_000), remaining_ms=None) as server, client_of(server) as client:
        server.by_reservation["r2"] = list(LOSING)
        run(main)


@pytest.mark.parametrize("policy", ["warn", "fail_on_finalize"])
def test_the_other_policies_cancel_nothing(client_of: Make, server_responded: Events, policy: str) -> None:
    async def main() -> str:
        async with reserve(client, lease_policy=policy, actual=ONE):
            await asyncio.to_thread(server_responded.wait_for, "LeaseLost")
            for _ in range(10):  # a cancellation would arrive in one of these
                await asyncio.sleep(0)
        return "went on"

    with LeaseServer(*LOSING) as server, client_of(server) as client:
        if policy == "warn":
            assert run(main) == "went on"
        else:
            with pytest.raises(cycles.LeaseLostError):
                run(main)
        assert settled(server) == ["commit"]
