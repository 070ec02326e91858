"""A process that forks while calls wait or run: the child has its own queue, and settles nothing of its parent."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

import cycles
from cycles.testing import FakeProvider
from tests.support import warm
from tests.support.short import IS_SHORT
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PATIENCE_S = 300.0  # a process that imports openai took more than 60 s on a busy machine

START = """
import contextlib, os, sys, threading
import cycles, openai
url, key, journal, provider = sys.argv[1:]
client = cycles.Cycles(base_url=url, api_key=key, tenant="acme", journal_dir=journal)
book = cycles.PriceBook({"m": cycles.Price("0", "10")})
original = openai.OpenAI(api_key="k", base_url=provider, max_retries=0)
def of(name, **more):
    return cycles.providers.guard(original, client=client, prices=book, action=("test", name), **more)
def ask(llm, **more):
    return llm.chat.completions.create(model="m", messages=[], max_tokens=6_000, **more)
"""

FORK_WHILE_A_CALL_WAITS = (
    START
    + """
parent = of("parent")
calls = [threading.Thread(target=ask, args=(parent,)) for _ in range(2)]
for call in calls:
    call.start()
sys.stdin.readline()
pid = os.fork()
if pid == 0:
    ask(of("child"))
    client.close()
    os._exit(0)
for call in calls:
    call.join()
assert os.waitpid(pid, 0)[1] == 0
"""
)

FORK_WHILE_A_STREAM_RUNS = (
    START
    + """
how = os.path.basename(journal)
with client.reserve(cycles.usd(0.08), action=("test", "work")) if how == "enclosed" else contextlib.nullcontext():
    stream = ask(of("parent", within="enclosing"), stream=True)
    next(stream)
    pid = os.fork()
    if pid == 0:
        if how == "dropped":
            del stream
        sys.exit()  # what is left is dropped at the exit
    assert os.waitpid(pid, 0)[1] == 0
    for _ in stream:
        pass
"""
)

FORK_AT_EACH_LINE = (
    START
    + f"\nEACH = {16 if IS_SHORT else 1}  # every line, or in the short form every 16th\n"
    + """
import signal, http.client, httpx
class WithoutLocks(httpx.BaseTransport):
    def handle_request(self, request):  # the lock of a pool of httpx may be held at the fork, and is not the SDK's
        connection = http.client.HTTPConnection(request.url.host, request.url.port)
        connection.request(request.method, request.url.raw_path.decode(), request.read(), dict(request.headers))
        response = connection.getresponse()
        return httpx.Response(response.status, headers=response.getheaders(), content=response.read())
original = original.copy(http_client=httpx.Client(transport=WithoutLocks()))
llm = of("both", within="enclosing")
def work():
    with client.reserve(cycles.usd(0.07), action=("test", "work")):
        ask(llm)
def traced(on_line):
    def trace(frame, event, argument):
        if frame.f_code.co_name not in ("learn", "bound", "_enclose", "_pay", "once"):
            return None
        if event == "line" and "providers" in frame.f_code.co_filename:
            on_line()
        return trace
    sys.settrace(trace)
    work()
    sys.settrace(None)
work()
lines, forking = [], threading.Event()
os.register_at_fork(before=forking.set)  # it runs before the functions that were registered earlier
traced(lambda: lines.append(1))
assert len(lines) > 20
for number in range(1, len(lines) + 1, EACH):
    at_line, left = threading.Event(), number
    forking.clear()
    def count():
        global left
        left -= 1
        if left == 0:
            at_line.set()
            forking.wait(60)
    thread = threading.Thread(target=traced, args=(count,))
    thread.start()
    assert at_line.wait(60)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # a child that hangs is killed
        work()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert status == 0, f"the child that was forked at line {number} hung, or failed: {status}"
    thread.join()
"""
)


def _run(program: str, server: cycles.EmbeddedServer, url: str, journal: Path, provider: str) -> warm.Started:
    given = [url, server.api_key_for("acme"), str(journal), provider]
    # From Python 3.12, `os.fork` warns in a process with threads; that is what these tests are about.
    ignored = "ignore::DeprecationWarning"
    if journal.name == "at exit":
        command = [sys.executable, "-W", ignored, "-c", program, *given]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return warm.start(None, *given, code=program, warnings=[ignored], modules=["openai"])


def test_a_fork_while_a_call_waits_gives_the_child_its_own_queue(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    pytest.importorskip("uvicorn")
    budget, gate = cycles.Amount("USD_MICROCENTS", 10_000_000), threading.Event()
    with FakeProvider() as provider, cycles.EmbeddedServer(budgets={"tenant:acme": budget}) as server:
        provider.reply(usage={"tokens_input": 1, "tokens_output": 100}, gate=gate, times=3)
        with (
            server.listen() as url,
            _run(FORK_WHILE_A_CALL_WAITS, server, url, tmp_path, provider.openai_url) as process,
        ):
            try:
                until(lambda: provider.count("/chat/completions") == 1 and "parent" in _readers(server))
                print(file=process.stdin, flush=True)
                until(lambda: "child" in _readers(server))
                gate.set()
                assert process.communicate(timeout=PATIENCE_S)[1] == ""
            finally:
                process.kill()
                gate.set()
        assert process.returncode == 0
        assert provider.count("/chat/completions") == 3
        assert server.spent("tenant:acme").amount == 300_000
        assert len(server.requests.of("commit")) == 3


def _readers(server: cycles.EmbeddedServer) -> set[str]:
    """Return whose waiting calls have read their budgets."""
    return {request.json["action"]["name"] for request in server.requests.of("reserve") if request.json.get("dry_run")}


@pytest.mark.parametrize("how", ["at exit", "dropped", "enclosed"])
def test_a_child_does_not_settle_a_stream_of_its_parent(how: str, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    pytest.importorskip("uvicorn")
    if how != "dropped" and sys.version_info[:2] == (3, 13) and find_spec("httpx2"):
        pytest.skip("with httpx2, Python 3.13 crashes at its exit if a stream of openai is open, also without the SDK")
    budget = cycles.Amount("USD_MICROCENTS", 10_000_000)
    with FakeProvider() as provider, cycles.EmbeddedServer(budgets={"tenant:acme": budget}) as server:
        provider.reply(usage={"tokens_input": 1, "tokens_output": 100})
        with (
            server.listen() as url,
            _run(FORK_WHILE_A_STREAM_RUNS, server, url, tmp_path / how, provider.openai_url) as process,
        ):
            assert process.communicate(timeout=PATIENCE_S)[1] == ""
        assert process.returncode == 0
        assert [request.json["actual"]["amount"] for request in server.requests.of("commit")] == [100_000]
        assert not server.requests.of("event")
        assert server.spent("tenant:acme").amount == 100_000


def test_a_fork_while_another_thread_opens_or_ends_a_call_hangs_no_child(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    pytest.importorskip("uvicorn")
    with FakeProvider() as provider, cycles.EmbeddedServer(budgets={"tenant:acme": cycles.usd(100)}) as server:
        provider.reply(usage={"tokens_input": 1, "tokens_output": 100}, times=1_000)
        with (
            server.listen() as url,
            _run(FORK_AT_EACH_LINE, server, url, tmp_path, provider.openai_url) as process,
        ):
            assert process.communicate(timeout=PATIENCE_S)[1] == ""
        assert process.returncode == 0
        assert server.spent("tenant:acme").amount == 100_000 * provider.count("/chat/completions")
