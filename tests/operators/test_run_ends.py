"""The end of a run in this process, whose command is a process: its status, and what is read after its end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles.proxy._ledger import RunLedger
from cycles.proxy._run import NO_DECISION, Ended, Run
from cycles.proxy._settings import ProxySettings
from cycles.testing import FakeProvider
from tests.operators.proxying import BOOK, EXACT, USED, upstreams
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_spawnp"), reason="commands are started with posix_spawn")

LEAVE = """
import os, socket, sys, urllib.parse
url = urllib.parse.urlsplit(os.environ["OPENAI_BASE_URL"])
body = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
head = f"POST {url.path}/chat/completions HTTP/1.1\\r\\nHost: {url.netloc}\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
connection = socket.create_connection((url.hostname, url.port))
connection.sendall(head.encode() + body)
if sys.argv[1] == "read":
    connection.recv(1)
else:
    open(sys.argv[3]).read()
sys.exit(int(sys.argv[2]))
"""
"""A command that sends one request, and reads the begin of its response or leaves when a pipe ends."""


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Block the signals that a run passes to its command, as `cycles run` does, until the test ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ended(client: cycles.Cycles, provider: str, *arguments: str, say: Any = lambda _: None) -> Ended:
    settings = ProxySettings(upstreams=upstreams(provider), prices=BOOK)
    run = Run(settings, RunLedger(client, None, None, "USD_MICROCENTS"), say=say)
    with signals_blocked():
        return run.run([sys.executable, "-S", "-c", LEAVE, *arguments], os.environ)


@pytest.mark.parametrize(("status", "found"), [(0, NO_DECISION), (5, 5)])
def test_a_command_that_fails_keeps_its_status_if_the_ledger_decided_nothing(status: int, found: int) -> None:
    client = cycles.Cycles(
        base_url="http://127.0.0.1:9", api_key="k", tenant="run", journal=False, max_retries=0, flush_timeout=0.0
    )
    with FakeProvider() as provider:
        assert ended(client, provider.url, "read", str(status)).status == found


def test_a_response_that_the_command_has_left_is_read_to_its_end(tmp_path: Path) -> None:
    gate, lines = threading.Event(), list[str]()

    def say(line: str) -> None:
        lines.append(line)
        gate.set()  # the command has ended, and its response is waited for

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with FakeProvider() as provider, cycles.EmbeddedServer({"tenant:run": cycles.usd(1)}) as server:

        def end_after_the_request() -> None:
            until(lambda: provider.count() == 1)
            pipe.write_text("")

        provider.reply(usage=USED, gate=gate)
        watcher = threading.Thread(target=end_after_the_request)
        watcher.start()
        with server.client(tenant="run") as client:
            found = ended(client, provider.url, "leave", "0", str(pipe), say=say)
        watcher.join()
        assert server.spent("tenant:run").amount == EXACT
    assert "waiting for responses that the command has left" in lines[0]
    assert (found.document["calls"], found.document["estimated"]) == (1, 0)
