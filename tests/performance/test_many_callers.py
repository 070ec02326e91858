"""Many callers at the same time on one client: all commit, and none is left pending.

`make test` runs a few hundred, `make test-faults` 10,001 tasks and 1,000 threads. The limits of a call are those of a
slow machine; with CYCLES_BARS=1 they are the default settings, and no heartbeat may be needed or late.
"""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._drivers import channel
from tests.performance.conftest import ACTION, ACTUAL, ESTIMATE
from tests.performance.test_load import hurry as hurry, slow as slow
from tests.support.stub import Stub

BARS = bool(os.environ.get("CYCLES_BARS"))
TASKS = int(os.environ.get("CYCLES_LOAD_TASKS", "300"))
THREADS = int(os.environ.get("CYCLES_LOAD_THREADS", "60"))


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls wait for a connection as long as it takes on a busy machine."""
    if not BARS:
        monkeypatch.setattr(channel, "QUEUE_TIMEOUT_S", 600.0)


def client_of(server: Stub, folder: Path, seen: list[Any]) -> cycles.Cycles:
    """A client of a server that is 20 ms away."""
    limits: dict[str, Any] = {} if BARS else {"timeout": 120.0, "connect_timeout": 120.0}
    client = cycles.Cycles(base_url=server.url, api_key="cyc_live_x", tenant="acme", journal_dir=folder, **limits)
    client.on_event(seen.append)
    return client


def check(statuses: list[str], count: int, seen: list[Any]) -> None:
    assert statuses == ["committed"] * count
    names = {type(event).__name__ for event in seen}
    late = set() if BARS else {"LeaseExtended", "HeartbeatDelayed"}
    assert names - late <= {"Reserved", "Settled"}, names  # nothing pending, retried or lost


def test_all_tasks_commit(slow: Stub, tmp_path: Path) -> None:
    seen: list[Any] = []

    async def main() -> list[str]:
        async with client_of(slow, tmp_path, seen) as client:

            async def guarded() -> str:
                async with client.reserve(ESTIMATE, action=ACTION) as guard:
                    return (await guard.commit(ACTUAL)).status

            statuses = await asyncio.gather(*(guarded() for _ in range(TASKS)))
            assert await client.aio.pending() == []
            return statuses

    check(asyncio.run(main()), TASKS, seen)


def test_all_threads_commit(slow: Stub, tmp_path: Path) -> None:
    seen: list[Any] = []
    statuses: list[str] = []
    with client_of(slow, tmp_path, seen) as client:

        def guarded() -> None:
            with client.reserve(ESTIMATE, action=ACTION) as guard:
                statuses.append(guard.commit(ACTUAL).status)

        threads = [threading.Thread(target=guarded) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.pending() == []
    check(statuses, THREADS, seen)
