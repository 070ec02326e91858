"""Exit paths of a process: each of them waits for what is pending, a bounded time, and leaves the rest on disk."""

from __future__ import annotations

import asyncio
import logging
import os
import time

import pytest

import cycles
from tests.recovery.child import ACTION
from tests.recovery.kit import PATIENCE_S, Setup, end_of
from tests.support.waiting import hold_responses

ACTUAL = cycles.tokens(42)
SOON_S = 30.0  # less than what hangs in these tests


def leave_one_pending(client: cycles.Cycles) -> None:
    assert client.reserve(cycles.tokens(100), action=ACTION).acquire().commit(ACTUAL).status == "pending"


@pytest.fixture
def unlucky(world: Setup) -> Setup:
    """The first response to a commit is lost."""
    world.server.faults.drop_response("commit")
    return world


def assert_settled_once(world: Setup) -> None:
    assert world.server.charged == 42
    assert len({seen.key for seen in world.server.settling()}) == 1
    assert world.leftovers == []


@pytest.mark.parametrize("commit", ["commit", "commit_async"])
def test_an_interpreter_that_just_ends_settles_first(unlucky: Setup, commit: str) -> None:
    ended = end_of(unlucky.start((commit, 42), leave=True))
    assert ended.code == 0
    assert ended.done[0]["status"] == "pending"
    assert_settled_once(unlucky)


def test_close_settles_first(unlucky: Setup) -> None:
    client = unlucky.client()
    leave_one_pending(client)
    client.close()
    assert_settled_once(unlucky)


def test_the_end_of_a_with_block_settles_first(unlucky: Setup) -> None:
    with unlucky.client() as client:
        leave_one_pending(client)
    assert_settled_once(unlucky)


def test_the_end_of_an_async_with_block_settles_first(unlucky: Setup) -> None:
    async def run() -> None:
        async with unlucky.client() as client:
            guard = await client.reserve(cycles.tokens(100), action=ACTION)
            assert (await guard.commit(ACTUAL)).status == "pending"

    asyncio.run(run())
    assert_settled_once(unlucky)


def test_flush_settles_and_counts_and_the_client_stays_usable(unlucky: Setup) -> None:
    with unlucky.client() as client:
        leave_one_pending(client)
        report = client.flush(timeout=PATIENCE_S)
        assert (report.settled, report.pending, report.quarantined) == (1, 0, 0)
        assert client.flush(timeout=PATIENCE_S) == cycles.FlushReport(0, 0, 0)
        assert client.reserve(cycles.tokens(1), action=ACTION).acquire().commit(cycles.tokens(0)).status == "committed"


def test_an_async_flush_does_not_block_the_loop(unlucky: Setup) -> None:
    async def run() -> cycles.FlushReport:
        async with unlucky.client() as client:
            guard = await client.reserve(cycles.tokens(100), action=ACTION)
            await guard.commit(ACTUAL)
            return await client.aio.flush(timeout=PATIENCE_S)

    assert asyncio.run(run()).settled == 1
    assert_settled_once(unlucky)


def test_an_unreachable_server_delays_the_exit_for_a_bounded_time_and_the_log_lists_what_is_left(
    world: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    client = world.client(flush_timeout=0.3)
    world.server.faults.refuse("commit", times=None)
    with caplog.at_level(logging.WARNING, "cycles"):
        leave_one_pending(client)
        started = time.monotonic()
        client.close()
    assert time.monotonic() - started < SOON_S
    assert len(world.leftovers) == 1
    (line,) = [record.getMessage() for record in caplog.records if "pending: saved in" in record.getMessage()]
    assert line.startswith(f"client closed with 1 settlement of {ACTUAL} pending: saved in ")
    assert str(world.root) in line


def test_a_flush_that_runs_out_of_time_leaves_the_records_where_they_are(world: Setup) -> None:
    world.server.faults.refuse("commit", times=None)
    with world.client(flush_timeout=0.1) as client:
        leave_one_pending(client)
        report = client.flush(timeout=0.2)
        assert (report.settled, report.pending) == (0, 1)
        assert len(world.leftovers) == 1
        (owed,) = client.pending()
        assert (owed.mode, owed.amount) == ("commit", ACTUAL)
        assert owed.last_outcome
    world.server.faults.clear()
    assert world.recover()["settled"] == 1
    assert_settled_once(world)


def test_a_server_that_hangs_delays_a_flush_and_a_close_no_longer_than_they_allow(
    world: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    respond = hold_responses(monkeypatch)
    world.server.faults.drop_response("commit")
    client = world.client(timeout=PATIENCE_S, flush_timeout=0.2, retry_initial_delay=60.0)
    leave_one_pending(client)
    world.server.faults.delay("commit", 1.0, times=None)
    started = time.monotonic()
    assert client.flush(timeout=0.2).pending == 1
    assert time.monotonic() - started < SOON_S
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < SOON_S
    assert len(world.leftovers) == 1
    respond.set()


def test_settlements_continue_automatically_after_an_outage(world: Setup) -> None:
    """The background tries again automatically, and a success wakes the others early."""
    world.server.faults.refuse("commit", times=None)
    with world.client(retry_initial_delay=0.05) as client:
        for _ in range(3):
            leave_one_pending(client)
        world.server.faults.clear()
        with world.server.news:
            assert world.server.news.wait_for(lambda: world.server.charged == 3 * 42, PATIENCE_S)


def test_a_success_makes_pending_settlements_due_early(world: Setup) -> None:
    """However long the pause would still be: another call that gets through shows that the server is back."""
    world.server.faults.refuse("commit")
    with world.client(retry_initial_delay=3_600.0, retry_max_delay=3_600.0, flush_timeout=0.0) as client:
        leave_one_pending(client)
        owe_nothing = client.reserve(cycles.tokens(1), action=ACTION).acquire().commit(cycles.tokens(1))
        assert owe_nothing.status == "committed"
        with world.server.news:
            assert world.server.news.wait_for(lambda: world.server.charged == 43, PATIENCE_S)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_task_cancelled_while_it_settles_is_settled_anyway(world: Setup, times: int) -> None:
    world.server.faults.delay("commit", PATIENCE_S)  # the server waits no longer than the client stays connected

    async def settle(client: cycles.Cycles) -> None:
        guard = await client.reserve(cycles.tokens(100), action=ACTION)
        await guard.commit(ACTUAL)

    async def run() -> None:
        async with world.client() as client:
            task = asyncio.create_task(settle(client))
            await asyncio.to_thread(world.server.wait_for, "commit")
            for _ in range(times):
                task.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert_settled_once(world)


@pytest.mark.parametrize("call", ["open", "replace"])
def test_ctrl_c_while_the_record_is_saved_loses_nothing(
    world: Setup, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def interrupted(*_: object) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    world.server.faults.refuse("commit", times=None)
    client = world.client(flush_timeout=0.0)
    guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
    monkeypatch.setattr(os, call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        guard.commit(ACTUAL)
    assert guard.state == "pending"
    client.close()
    world.server.faults.clear()
    assert world.recover()["settled"] == 1
    assert_settled_once(world)
