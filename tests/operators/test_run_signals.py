"""`cycles run` as a process: signals, a terminal, and processes that are killed."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import cycles
from cycles.testing import FakeProvider
from tests.operators.kit import ROOT, environment, processes, run_process
from tests.operators.running import GPT_4O, USED, agent, read_line, start, upstreams
from tests.support.waiting import until

pytestmark = processes


@pytest.mark.parametrize(("number", "counts"), [(signal.SIGTERM, "INT 0 TERM 1"), (signal.SIGINT, "INT 1 TERM 0")])
def test_a_signal_reaches_the_command_once(number: signal.Signals, counts: str) -> None:
    process = start("run", "--budget", "1USD", *agent("signals"), start_new_session=True)
    assert read_line(process).startswith("ready")
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert out.strip() == counts
    assert process.returncode == 5
    assert "cycles: 0 calls" in err


def test_ctrl_c_of_a_terminal_reaches_the_command_once() -> None:
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - another process
        command = [sys.executable, "-m", "cycles", "run", "--budget", "1USD", *agent("signals")]
        os.chdir(ROOT)
        os.execve(sys.executable, command, environment())
    seen = b""
    while b"ready" not in seen:
        seen += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    while b"cycles: 0 calls" not in seen:
        seen += os.read(terminal, 1000)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert b"INT 1 TERM 0" in seen
    assert os.waitstatus_to_exitcode(status) == 5


def test_a_denial_stops_the_command_if_it_shall(provider: FakeProvider) -> None:
    program = (
        "import openai, signal\n"
        "try: openai.OpenAI(api_key='k').chat.completions.create(model='gpt-4o', messages=[], max_tokens=10**7)\n"
        "except openai.APIStatusError: signal.pause()\n"
    )
    ran = run_process(
        "run",
        "--budget",
        "1USD",
        "--min-output-tokens",
        "0",
        "--on-denied",
        "stop",
        *upstreams(provider),
        "--",
        sys.executable,
        "-c",
        program,
    )
    assert ran.status == 143
    assert "1 denied" in ran.err


def test_after_kill_9_of_the_proxy_no_call_passes(provider: FakeProvider) -> None:
    program = (
        "import openai, os, sys\n"
        "print(os.getppid(), flush=True)\n"
        "sys.stdin.readline()\n"
        "try: openai.OpenAI(api_key='k', max_retries=0).models.list()\n"
        "except openai.APIConnectionError as error: print('refused', flush=True)\n"
    )
    process = start(
        "run", "--budget", "1USD", *upstreams(provider), "--", sys.executable, "-c", program, stdin=subprocess.PIPE
    )
    assert int(read_line(process)) == process.pid
    process.kill()
    process.wait(120)
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert read_line(process).strip() == "refused"
    process.communicate(timeout=300)
    assert provider.requests == []


def test_kill_9_of_the_program_in_mid_stream_charges_what_was_made(provider: FakeProvider) -> None:
    import threading

    gate = threading.Event()
    provider.reply(usage=USED, text="one two three four five", gate=gate, gate_after=4)
    process = start("run", "--budget", "1USD", "--json", *upstreams(provider), *agent("streaming"))
    while "two" not in read_line(process):
        pass
    child = _child_of(process.pid)
    os.kill(child, signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    gate.set()
    assert process.returncode == 137
    found = json.loads(err.splitlines()[-1])
    assert (found["calls"], found["estimated"]) == (1, 1)
    assert 0 < found["spent"]["amount"] < GPT_4O


def _child_of(pid: int) -> int:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if found := listed.read_text().split():
            return int(found[0])
    raise AssertionError("no child")


def test_kill_9_of_the_proxy_keeps_pending_commits_in_the_journal(
    provider: FakeProvider, configured: cycles.EmbeddedServer
) -> None:
    configured.faults.refuse("commit", times=None)
    provider.reply(usage=USED, times=4)
    program = (
        "import openai, os, signal\n"
        "openai.OpenAI(api_key='k').chat.completions.create(model='gpt-4o', messages=[], max_tokens=100)\n"
        "os.kill(os.getppid(), signal.SIGKILL)\n"
    )
    ran = run_process("run", *upstreams(provider), "--", sys.executable, "-c", program)
    assert ran.status == -9
    configured.faults.clear()
    with cycles.Cycles() as client:
        client.flush(10)
        assert client.pending() == []
    assert configured.spent("tenant:acme", "USD_MICROCENTS").amount == GPT_4O


def test_ask_at_needs_a_terminal(provider: FakeProvider) -> None:
    ran = run_process("run", "--budget", "1USD", "--ask-at", "90%", "--", "true")
    assert ran.status in (0, 2)  # a terminal of the developer may be there
    process = start("run", "--budget", "1USD", "--ask-at", "90%", "--", "true", start_new_session=True)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "--ask-at needs a terminal" in err


@pytest.mark.parametrize(("replies", "sent"), [(["n"], 1), (["y", "nonsense", "1USD"], 3)])
def test_ask_at_prompts_on_the_terminal_before_more_is_spent(
    provider: FakeProvider, replies: list[str], sent: int
) -> None:
    provider.reply(usage=USED, times=4)
    program = (
        "import openai\n"
        "llm = openai.OpenAI(api_key='k')\n"
        "for _ in range(3): llm.chat.completions.create(model='gpt-4o', messages=[], max_tokens=100)\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:  # pragma: no cover - another process
        command = [sys.executable, "-m", "cycles", "run", "--budget", "0.02USD", "--ask-at", "10%"]
        os.chdir(ROOT)
        os.execve(sys.executable, [*command, *upstreams(provider), "--", sys.executable, "-c", program], environment())
    seen, answered = b"", 0
    while b" m " not in seen and b"denied, " not in seen:
        try:
            seen += os.read(terminal, 1000)
        except OSError:
            break
        if seen.count(b"Spend it?") > answered:
            os.write(terminal, f"{replies[answered]}\n".encode())
            answered += 1
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert answered == len(replies), seen
    assert len(provider.requests) == sent
    assert (os.waitstatus_to_exitcode(status) == 0) == (sent == 3)
    if sent == 1:
        assert b"was not approved" in seen


def test_a_command_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    program = (
        "from cycles.proxy import _child\n"
        "import os, pathlib, sys\n"
        "_child.STOP_S = 0.2\n"
        "with _child.blocked_signals():\n"
        "    os.mkfifo(sys.argv[1])\n"
        '    script = \'trap "" TERM; echo up > "$0"; read x < "$0"\'\n'
        "    child = _child.Child(['sh', '-c', script, sys.argv[1]], os.environ)\n"
        "    assert pathlib.Path(sys.argv[1]).read_text() == 'up\\n'\n"
        "    child.stop()\n"
        "    print(child.wait())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "up")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment())
    assert (ran.stdout, ran.stderr) == ("137\n", "")


LEAVES = """
import os, threading, time, urllib.request
def ask():
    body = b'{"model": "gpt-4o", "messages": [], "max_tokens": 5000}'
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, method="POST")
    request.add_header("content-type", "application/json")
    urllib.request.urlopen(request)
threading.Thread(target=ask, daemon=True).start()
print("asks", flush=True)
input()
os._exit(7)
"""


def leave(provider: FakeProvider, gate: threading.Event) -> subprocess.Popen[str]:
    """Start a command that leaves a response which the provider sends once the gate is open."""
    provider.reply(usage=USED, gate=gate)
    command = ["--", sys.executable, "-c", LEAVES]
    process = start("run", "--budget", "1USD", *upstreams(provider), *command, stdin=subprocess.PIPE)
    assert read_line(process).startswith("asks")
    until(lambda: provider.requests)
    assert process.stdin is not None
    assert process.stderr is not None
    print(file=process.stdin, flush=True)
    assert "waiting for responses that the command has left" in process.stderr.readline()
    return process


def test_a_response_that_the_command_has_left_is_read_and_charged_exactly(provider: FakeProvider) -> None:
    gate = threading.Event()
    process = leave(provider, gate)
    gate.set()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 7
    assert "1 calls, $0.0035 of $1.00 spent" in err.replace("1 call,", "1 calls,")


def test_another_signal_ends_the_wait_for_a_response_that_costs_its_bound_then(provider: FakeProvider) -> None:
    gate = threading.Event()
    process = leave(provider, gate)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    gate.set()
    assert "$0.05" in err
