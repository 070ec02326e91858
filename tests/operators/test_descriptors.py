"""The limit of open files: raised at the start, given back to the command, and waited for when it is reached."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cycles.proxy import _descriptors
from cycles.proxy._descriptors import Listener, for_programs, for_providers, raise_limit, restored_limit
from tests.operators.kit import ROOT, environment, processes

CALLS = 700
MANY_CALLS = """
import asyncio, collections, json, os, resource, sys
from urllib.parse import urlsplit

url, count = urlsplit(os.environ["OPENAI_BASE_URL"]), int(sys.argv[1])
body = json.dumps({"model": "gpt-4o", "messages": [], "max_tokens": 10}).encode()
head = f"POST {url.path}/chat/completions HTTP/1.1\\r\\nHost: {url.netloc}\\r\\nContent-Type: application/json\\r\\n"
head += f"Content-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n"
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
resource.setrlimit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)[1:] * 2)


async def call(connected):
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    connected.append(1)
    if len(connected) == count:
        everyone.set()
    await everyone.wait()
    writer.write(head.encode() + body)
    status = (await reader.readline()).split()[1].decode()
    await reader.read()
    writer.close()
    return status


async def main():
    global everyone
    everyone, connected = asyncio.Event(), []
    print(dict(collections.Counter(await asyncio.gather(*(call(connected) for _ in range(count))))))


asyncio.run(main())
"""


@processes
@pytest.mark.parametrize(("soft", "hard"), [(1024, 1024), (256, 4096)])
def test_700_calls_at_once_all_work(tmp_path: Path, soft: int, hard: int) -> None:
    program = tmp_path / "calls.py"
    program.write_text(MANY_CALLS)
    command = [sys.executable, "-m", "cycles", "run", "--fake", "--budget", "100USD", "--"]
    ran = subprocess.run(
        [*command, sys.executable, str(program), str(CALLS)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
    )
    assert ran.stdout.splitlines() == [str(soft), str({"200": CALLS})], ran.stderr
    assert f"{CALLS} calls" in ran.stderr
    assert "Traceback" not in ran.stderr
    # At most one warning: whether the limit is reached depends on how fast the provider responds.
    assert ran.stderr.count("the limit of open files allows no more") <= (hard == 1024)


@pytest.mark.parametrize("limit", [64, 256, 1024, 4096, 65_536])
@pytest.mark.parametrize("fake", [False, True])
def test_programs_and_providers_fit_into_the_limit(limit: int, fake: bool) -> None:
    both = for_programs(limit) + for_providers(limit, fake=fake) * (2 if fake else 1)
    assert both <= limit
    if limit >= 1024:
        assert both + _descriptors.OTHERS <= limit


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_a_limit_that_the_system_rejects_stays_what_it_was(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """The number of connections follows from the limit that is returned."""

    def setrlimit(*_: object) -> None:
        raise error("the kernel has a lower one")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4_096))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    assert raise_limit() == 256


def test_the_soft_limit_becomes_the_hard_one_and_a_started_process_gets_it_back() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        start = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = raise_limit()
        assert limit == min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], _descriptors.MOST) > 200
        with restored_limit(start):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 200
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= limit
        with contextlib.suppress(ValueError), restored_limit(start):
            raise ValueError("the process cannot be started")
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= limit
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Held(asyncio.Protocol):
    """A connection that stays open until the test closes it."""

    def __init__(self, connections: set[asyncio.BaseTransport], accepted: asyncio.Queue[asyncio.Transport]) -> None:
        self._connections = connections
        self._accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._connections.add(transport)
        self._accepted.put_nowait(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self.transport)


def test_a_connection_above_the_limit_waits_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        paused, real = asyncio.Event(), asyncio.sleep

        async def pause(seconds: float) -> None:
            paused.set()
            await real(0)

        monkeypatch.setattr(asyncio, "sleep", pause)
        accepted: asyncio.Queue[asyncio.Transport] = asyncio.Queue()
        connections: set[asyncio.BaseTransport] = set()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            listener = Listener(sock, lambda: Held(connections, accepted), connections, 1)
            writers = [(await asyncio.open_connection(*sock.getsockname()))[1] for _ in range(3)]
            first = await accepted.get()
            await paused.wait()
            assert (len(connections), accepted.qsize()) == (1, 0)
            first.close()
            (await accepted.get()).close()
            (await accepted.get()).close()
            listener.close()
            await listener.wait_closed()
            for writer in writers:
                writer.close()

    with caplog.at_level(logging.WARNING, "cycles"):
        asyncio.run(asyncio.wait_for(scenario(), 60))
    assert caplog.text.count("the limit of open files allows no more") == 1


def test_without_a_descriptor_accepting_waits_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        loop, left = asyncio.get_running_loop(), [OSError(24, "Too many open files")] * 2
        real = loop.sock_accept

        async def accept(sock: socket.socket) -> tuple[socket.socket, object]:
            if left:
                raise left.pop()
            return await real(sock)

        monkeypatch.setattr(loop, "sock_accept", accept)
        accepted: asyncio.Queue[asyncio.Transport] = asyncio.Queue()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            listener = Listener(sock, lambda: Held(set(), accepted), (), 5)
            _, writer = await asyncio.open_connection(*sock.getsockname())
            (await accepted.get()).close()
            listener.close()
            await listener.wait_closed()
            writer.close()

    with caplog.at_level(logging.WARNING, "cycles"):
        asyncio.run(asyncio.wait_for(scenario(), 60))
    assert caplog.text.count("the limit of open files allows no more") == 1


@pytest.mark.parametrize("step", ["sock_accept", "connect_accepted_socket"])
def test_a_connection_that_is_gone_before_it_is_served_stops_no_later_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    async def scenario() -> None:
        loop, left = asyncio.get_running_loop(), [ConnectionAbortedError(103, "aborted")] * 2
        real = getattr(loop, step)

        async def fails(*given: Any) -> Any:
            if left:
                if step == "connect_accepted_socket":
                    given[1].close()
                raise left.pop()
            return await real(*given)

        monkeypatch.setattr(loop, step, fails)
        monkeypatch.setattr(_descriptors, "PAUSE_S", 0.0)
        accepted: asyncio.Queue[asyncio.Transport] = asyncio.Queue()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            listener = Listener(sock, lambda: Held(set(), accepted), (), 5)
            writers = [(await asyncio.open_connection(*sock.getsockname()))[1] for _ in range(3)]
            (await accepted.get()).close()
            listener.close()
            await listener.wait_closed()
            for writer in writers:
                writer.close()

    with caplog.at_level(logging.WARNING, "cycles"):
        asyncio.run(asyncio.wait_for(scenario(), 60))
    assert caplog.text == "", "there are descriptors"
