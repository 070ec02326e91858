"""More calls at the same time than connections: each waits for its slot, and none fails because of the wait."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles._drivers import channel
from cycles._http.connection_pool import Held
from tests.performance.conftest import ACTION, ACTUAL, ESTIMATE, answer
from tests.support.inside import runtime_of
from tests.support.still_time import StillTime
from tests.support.stub import Stub, ok

RESPONSE_S = 0.02
CALLS = 60  # with one connection they take longer than TIMEOUT_S together
TIMEOUT_S = 2.0
BUSY: Any = {"timeout": 60.0}

Make = Callable[..., cycles.Cycles]


@pytest.fixture
def hurry() -> threading.Event:
    """When it is set, the server responds at once."""
    return threading.Event()


@pytest.fixture
def slow(hurry: threading.Event) -> Iterator[Stub]:
    """A server that needs `RESPONSE_S` for a response."""

    def respond(sock: socket.socket, ended: threading.Event) -> bool:
        target = stub.requests[-1].target
        hurry.wait(RESPONSE_S)
        return ok(answer(target))(sock, ended)

    with Stub(respond) as stub:
        yield stub


@pytest.fixture
def make(slow: Stub, tmp_path: Path) -> Iterator[Make]:
    made: list[cycles.Cycles] = []

    def client(**settings: Any) -> cycles.Cycles:
        base: dict[str, Any] = {
            "base_url": slow.url,
            "api_key": "cyc_live_x",
            "tenant": "acme",
            "journal_dir": tmp_path,
        }
        made.append(cycles.Cycles(**{**base, "max_connections": 1, "timeout": TIMEOUT_S, **settings}))
        return made[-1]

    yield client
    for each in made:
        each.close()


@pytest.fixture
def no_wait(hurry: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each response take `RESPONSE_S` of a time that only the server moves."""
    monkeypatch.setattr(hurry, "wait", StillTime(monkeypatch).move)


@pytest.mark.usefixtures("no_wait")
def test_threads_that_wait_for_a_connection_longer_than_the_timeout_all_commit(make: Make) -> None:
    client = make()

    def guarded(_: int) -> str:
        with client.reserve(ESTIMATE, action=ACTION) as guard:
            return guard.commit(ACTUAL).status

    with ThreadPoolExecutor(CALLS) as pool:
        assert list(pool.map(guarded, range(CALLS))) == ["committed"] * CALLS
    assert client.pending() == []


@pytest.mark.usefixtures("no_wait")
def test_tasks_that_wait_for_a_connection_longer_than_the_timeout_all_commit(make: Make) -> None:
    client = make()

    async def guarded() -> str:
        async with client.reserve(ESTIMATE, action=ACTION) as guard:
            return (await guard.commit(ACTUAL)).status

    async def main() -> None:
        async with client:
            assert await asyncio.gather(*(guarded() for _ in range(CALLS))) == ["committed"] * CALLS
            assert await client.aio.pending() == []

    asyncio.run(main())


def first_busy(slow: Stub, client: cycles.Cycles, pool: ThreadPoolExecutor) -> None:
    """Let a call hold the only connection."""
    pool.submit(lambda: client.decide(ESTIMATE, action=ACTION))
    slow.wait_for(lambda stub: len(stub.requests) == 1)


@pytest.mark.parametrize("on_unavailable", ["raise", "allow"])
def test_a_wait_that_is_too_long_is_an_error_that_says_so_and_sends_nothing(
    make: Make, slow: Stub, hurry: threading.Event, on_unavailable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(**BUSY)
    monkeypatch.setattr(channel, "QUEUE_TIMEOUT_S", 0.05)
    monkeypatch.setattr("tests.performance.test_load.RESPONSE_S", 60.0)
    with ThreadPoolExecutor(1) as pool:
        first_busy(slow, client, pool)
        with pytest.raises(
            cycles.TransportError, match=r"no connection was free within 0\.05 s.*max_connections"
        ) as raised:
            client.reserve(ESTIMATE, action=ACTION, on_unavailable=on_unavailable).acquire()
        hurry.set()
    assert not raised.value.request_sent
    assert not isinstance(raised.value, cycles.AmbiguousResponseError)
    assert len(slow.requests) == 1  # neither sent nor repeated


def test_a_tasks_wait_that_is_too_long_is_an_error_too(
    make: Make, slow: Stub, hurry: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(**BUSY)
    monkeypatch.setattr(channel, "QUEUE_TIMEOUT_S", 0.05)
    monkeypatch.setattr("tests.performance.test_load.RESPONSE_S", 60.0)

    async def main() -> None:
        async with client:
            first = asyncio.ensure_future(client.aio.decide(ESTIMATE, action=ACTION))
            await asyncio.sleep(0)
            with pytest.raises(cycles.TransportError, match="max_connections") as raised:
                await client.reserve(ESTIMATE, action=ACTION, on_unavailable="allow")
            assert not raised.value.request_sent
            hurry.set()
            await first

    asyncio.run(main())
    assert len(slow.requests) == 1


def test_a_heartbeat_waits_for_no_connection_of_the_calls(
    make: Make, slow: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(**BUSY)
    monkeypatch.setattr(channel, "QUEUE_TIMEOUT_S", 0.05)
    guard = client.reserve(ESTIMATE, action=ACTION).acquire()
    connections: Any = runtime_of(client).channel._connections(None, heartbeat=False)
    held = Held(connections._pool)
    assert connections._pool.take(held)
    with pytest.raises(cycles.TransportError, match="max_connections"):
        client.decide(ESTIMATE, action=ACTION)
    assert guard.extend() is not None
    connections._pool.put(held)
    guard.release()
