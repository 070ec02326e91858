"""Closing a client: it retries until its time is over, reports what is left, and is bounded whatever hangs."""

from __future__ import annotations

import asyncio
import logging
import queue
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import cycles
from tests.recovery.child import ACTION
from tests.recovery.kit import PATIENCE_S, Setup, journal_files
from tests.support.inside import runtime_of
from tests.support.still_time import StillTime
from tests.support.waiting import event_of, hold_responses, until

ACTUAL = cycles.tokens(42)
SOON_S = 30.0  # less than what hangs in these tests
HANG_S = 120.0


def acquire(client: cycles.Cycles) -> cycles.Guard:
    return client.reserve(cycles.tokens(100), action=ACTION).acquire()


def test_a_flush_does_not_wait_for_what_the_server_defers_beyond_its_end(world: Setup) -> None:
    throttled = {"error": "LIMIT_EXCEEDED", "message": "m", "request_id": "r"}
    world.server.faults.status("commit", 429, body=throttled, headers={"Retry-After": "600"})
    client = world.client(flush_timeout=0.0)
    assert acquire(client).commit(ACTUAL).status == "pending"
    reports: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=lambda: reports.put(client.flush(300.0)), daemon=True).start()
    assert reports.get(timeout=PATIENCE_S).pending == 1
    client.close()


def test_a_close_does_not_wait_for_what_another_process_has_settled(world: Setup) -> None:
    world.server.faults.refuse("commit", times=None)
    with world.client(flush_timeout=0.0) as earlier:
        assert acquire(earlier).commit(ACTUAL).status == "pending"
    client = world.client(retry_initial_delay=3_600.0, flush_timeout=3_600.0)
    until(lambda: any(each.last_outcome for each in client.pending()))
    for path in journal_files(world.root):
        path.unlink()
    assert client.flush(PATIENCE_S).pending == 0
    closing = threading.Thread(target=client.close, daemon=True)
    closing.start()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()


def test_a_flush_tries_again_what_the_server_throttled(world: Setup) -> None:
    throttled = {"error": "LIMIT_EXCEEDED", "message": "m", "request_id": "r"}
    world.server.faults.status("commit", 429, body=throttled, headers={"Retry-After": "0"}, times=4)
    client = world.client(retry_initial_delay=0.05, flush_timeout=0.0)
    assert acquire(client).commit(ACTUAL).status == "pending"
    assert client.flush(PATIENCE_S).pending == 0
    client.close()
    assert world.server.charged == 42


@pytest.mark.parametrize("how", ["close", "aclose", "flush"])
def test_leaving_retries_until_its_time_is_over(world: Setup, how: str) -> None:
    world.server.faults.refuse("commit", times=4)
    client = world.client(retry_initial_delay=0.05, flush_timeout=PATIENCE_S)
    assert acquire(client).commit(ACTUAL).status == "pending"
    if how == "flush":
        assert client.flush(PATIENCE_S).settled == 1
        client.close()
    elif how == "close":
        client.close()
    else:
        asyncio.run(client.aclose())
    assert world.server.charged == 42
    assert world.leftovers == []


def test_a_later_flush_waits_for_what_an_earlier_one_saw_rejected(world: Setup) -> None:
    body = {"error": "SOMETHING_NEW", "message": "m", "request_id": "r"}
    world.server.faults.status("commit", 409, body=body, times=None)
    client = world.client(flush_timeout=0.0, retry_initial_delay=0.1)
    assert acquire(client).commit(ACTUAL).status == "pending"
    assert client.flush(HANG_S).pending == 1
    world.server.faults.clear()
    world.server.faults.refuse("commit")
    assert client.flush(PATIENCE_S).pending == 0
    assert world.server.charged == 42
    client.close()


def test_what_the_server_rejects_is_tried_once_and_not_waited_for(world: Setup) -> None:
    body = {"error": "SOMETHING_NEW", "message": "m", "request_id": "r"}
    world.server.faults.status("commit", 409, body=body, times=None)
    client = world.client(flush_timeout=HANG_S, retry_initial_delay=0.05)
    assert acquire(client).commit(ACTUAL).status == "pending"
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < SOON_S
    assert len(world.server.settling()) == 2


def test_without_a_journal_a_warning_has_the_sum_and_an_error_lists_each_amount(
    world: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    world.server.faults.refuse("commit", times=None)
    client = world.client(journal=False, flush_timeout=0.1)
    guards = [acquire(client) for _ in range(2)]
    with caplog.at_level(logging.WARNING, "cycles"):
        for guard in guards:
            guard.commit(ACTUAL)
        caplog.clear()
        client.close()
    warning, error = caplog.records
    assert warning.getMessage().startswith("client closed with 2 settlements of 84 tokens in total pending")
    assert error.levelno == logging.ERROR
    for guard in guards:
        assert f"{guard.reservation_id}: {ACTUAL}" in error.getMessage()


def test_a_commit_in_progress_at_the_close_is_part_of_it(world: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    respond = hold_responses(monkeypatch)
    world.server.faults.delay("commit", 1.0)
    client = world.client(journal=False, flush_timeout=PATIENCE_S)
    guard = acquire(client)
    with ThreadPoolExecutor(1) as pool:
        committed = pool.submit(guard.commit, ACTUAL)
        world.server.wait_for("commit")
        threading.Timer(0.2, respond.set).start()
        client.close()
        assert respond.is_set()  # it has waited for the response
        assert committed.result(PATIENCE_S).status == "committed"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_guard_that_outlives_its_client_settles_in_the_foreground(world: Setup, is_async: bool) -> None:
    async def run() -> str:
        client = world.client(journal=False)
        guard = await client.reserve(cycles.tokens(100), action=ACTION)
        await client.aclose()
        return (await guard.commit(ACTUAL)).status

    if is_async:
        assert asyncio.run(run()) == "committed"
    else:
        client = world.client(journal=False)
        guard = acquire(client)
        client.close()
        assert guard.commit(ACTUAL).status == "committed"
    assert world.server.charged == 42


def test_async_code_does_not_wait_behind_the_applications_executor(world: Setup) -> None:
    async def run() -> None:
        release = threading.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, release.wait, HANG_S)
        client = world.client()
        assert await asyncio.wait_for(client.aio.pending(), SOON_S) == []
        assert await asyncio.wait_for(client.aio.flush(), SOON_S) == cycles.FlushReport(0, 0, 0)
        await asyncio.wait_for(client.aclose(), SOON_S)
        release.set()
        await busy

    asyncio.run(run())


def test_a_name_service_that_hangs_does_not_hold_up_a_close(world: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()

    def getaddrinfo(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("flags"):
            raise OSError("not numeric")
        hangs.wait(HANG_S)
        raise OSError("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    client = world.client(base_url="http://server.test:1", timeout=0.2, flush_timeout=0.3)
    assert client.record(ACTUAL, action=ACTION).status == "PENDING"
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < SOON_S
    hangs.set()


@pytest.mark.parametrize("kind", ["generator", "block", "stream"])
def test_what_is_dropped_waits_for_no_request(world: Setup, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    respond = hold_responses(monkeypatch)
    with world.client(timeout=PATIENCE_S) as client:

        @client.guarded(cycles.tokens(100), action=ACTION)
        def decorated() -> Any:
            guard: Any = cycles.current_guard()
            guard.spend(ACTUAL)
            yield 1

        def block() -> Any:
            with client.reserve(cycles.tokens(100), action=ACTION) as guard:
                guard.spend(ACTUAL)
                yield 1

        def stream() -> Any:
            guard = acquire(client)
            guard.spend(ACTUAL)
            return guard.wrap([1, 2])

        world.server.faults.delay("commit", 1.0)
        items: Any = {"generator": decorated, "block": block, "stream": stream}[kind]()
        next(items)
        started = time.monotonic()
        del items
        assert time.monotonic() - started < SOON_S
        respond.set()
        assert client.flush(PATIENCE_S).pending == 0
    assert world.server.charged == 42


def test_the_lease_of_a_guard_that_outlives_its_loop_is_renewed_by_the_scheduler(
    world: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, still = world.client(), StillTime(monkeypatch)
    still.drives(runtime_of(client).scheduler)
    wait_for_extend = event_of(client, "LeaseExtended")

    async def run() -> Any:
        return await client.reserve(cycles.tokens(100), action=ACTION, ttl_ms=7_500)

    guard = asyncio.run(run())
    still.beat(guard)
    wait_for_extend()
    assert guard.state == "active"
    asyncio.run(guard.release())
    client.close()
