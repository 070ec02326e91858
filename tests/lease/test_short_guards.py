"""A guard that ends before its first heartbeat costs no thread, no task and no wake-up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

import cycles
from tests.lease.conftest import reserve
from tests.lease.server import LeaseServer
from tests.support.inside import runtime_of
from tests.support.schedulers import scheduled
from tests.support.still_time import StillTime
from tests.support.waiting import PATIENCE_S

Make = Callable[..., cycles.Cycles]


def test_a_short_guard_costs_two_requests_and_no_wake_up(client_of: Make, still: StillTime) -> None:
    with LeaseServer(remaining_ms=60_000) as server, client_of(server) as client:
        with reserve(client, ttl_ms=60_000) as guard:
            guard.commit(cycles.tokens(1))
        before = set(threading.enumerate())
        for _ in range(20):
            with reserve(client, ttl_ms=60_000) as guard:
                guard.commit(cycles.tokens(1))
        assert set(threading.enumerate()) <= before  # some of earlier tests may have ended
        assert len(server.requests) == 42
        assert scheduled(runtime_of(client).scheduler) == 0


def test_a_short_async_guard_makes_no_task(client_of: Make) -> None:
    async def main() -> None:
        for _ in range(5):
            async with reserve(client, ttl_ms=60_000) as guard:
                assert len(asyncio.all_tasks()) == 1
                await guard.commit(cycles.tokens(1))
        assert len(asyncio.all_tasks()) == 1

    with LeaseServer(remaining_ms=60_000) as server, client_of(server) as client:
        asyncio.run(main())
        assert len(server.requests) == 10


def test_no_scheduler_thread_is_left_after_close(client_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cycles._drivers.runtime.THREADS_END_S", PATIENCE_S)

    def mine() -> list[str]:
        return [thread.name for thread in threading.enumerate() if str(server.port) in thread.name]

    with LeaseServer(remaining_ms=60_000) as server:
        client = client_of(server)
        guard = reserve(client, ttl_ms=60_000).acquire()
        assert mine() == [f"cycles-scheduler-127.0.0.1:{server.port}-timer"]
        guard.commit(cycles.tokens(1))
        client.close()
        client.close()
        assert mine() == []
