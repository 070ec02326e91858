"""`cycles run` as a process: the command's environment, signals, exit status and summary."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles.testing import FakeProvider
from tests.operators.kit import ROOT, Ran, environment, processes, run_process

pytestmark = processes

USED = {"tokens_input": 1000, "tokens_output": 100}
VENV = Path(sys.prefix)
PACKAGES = {"openai": "openai", "anthropic": "anthropic", "google": "google.genai"}
GPT_4O = 350_000
"""Microcents of that usage: 1,000 x 250 and 100 x 1,000."""


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as made:
        yield made


def upstreams(provider: FakeProvider) -> list[str]:
    urls = {"openai": provider.openai_url, "anthropic": provider.url, "gemini": provider.url}
    return [part for name, url in urls.items() for part in ("--upstream", f"{name}={url}")]


def agent(name: str, python: str = sys.executable) -> list[str]:
    return ["--", python, "-m", "tests.operators.agents", name]


def summary(ran: Ran) -> Any:
    return json.loads(ran.err.splitlines()[-1])


@pytest.mark.parametrize("versions", ["lowest", "newest"])
@pytest.mark.parametrize(
    ("name", "model", "cost"),
    [
        ("openai", "gpt-4o", GPT_4O * 4),
        ("anthropic", "claude-sonnet-4-5", (1000 * 300 + 100 * 1500) * 4),
        ("google", "gemini-2.5-flash", (1000 * 30 + 100 * 250) * 4),
    ],
)
def test_programs_with_the_real_sdks_are_charged_exactly(
    provider: FakeProvider, name: str, model: str, cost: int, versions: str
) -> None:
    python = Path(sys.executable) if versions == "newest" else VENV / "providers-lowest" / "bin" / "python"
    has_it = (
        python.exists()
        and not subprocess.run([python, "-c", f"import {PACKAGES[name]}"], capture_output=True).returncode
    )
    if not has_it:
        pytest.skip(f"{name} is not installed for {python}: make install-operators install-providers")
    provider.reply(usage=USED, text="four words of text", times=4)
    ran = run_process("run", "--budget", "1USD", "--json", *upstreams(provider), *agent(name, str(python)))
    assert ran.status == 0, ran.err
    assert "four words of text" in ran.out
    found = summary(ran)
    assert found["models"] == {model: {"calls": 4, "spent": {"unit": "USD_MICROCENTS", "amount": cost}}}
    assert found["spent"]["amount"] == cost
    assert (found["denied"], found["estimated"], found["pending"], found["exit"]) == (0, 0, 0, 0)


def test_a_node_program_is_charged_and_denied(provider: FakeProvider) -> None:
    modules = VENV / "npm" / "node_modules"
    if not (modules / "openai").exists():
        pytest.skip(f"openai is not installed in {modules}: make install-operators")
    provider.reply(usage=USED, text="four words of text", times=2)
    program = str(Path(__file__).with_name("agent.cjs"))
    env = environment(NODE_PATH=str(modules))
    ran = run_process("run", "--budget", "1USD", "--json", *upstreams(provider), "--", "node", program, env=env)
    assert ran.status == 0, ran.err
    text = "four words of text"
    assert ran.out.splitlines() == [text, text, "APIError 402 budget_exceeded at once"]
    found = summary(ran)
    assert (found["spent"]["amount"], found["denied"], len(provider.requests)) == (GPT_4O * 2, 1, 2)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("openai", "APIStatusError 402 budget_exceeded"),
        ("anthropic", "PaymentRequiredError 402 budget_exceeded"),
        ("google", "ClientError 402 RESOURCE_EXHAUSTED"),
    ],
)
def test_a_denial_is_raised_without_a_retry(provider: FakeProvider, name: str, says: str) -> None:
    pytest.importorskip(PACKAGES[name])
    ran = run_process("run", "--budget", "0.001USD", *upstreams(provider), *agent(f"denied_{name}"))
    assert ran.out.strip() == says, ran.err
    assert provider.requests == []
    assert "0 calls, $0.00 of $0.001 spent, 1 denied" in ran.err  # a retry would be denied too


def test_a_client_that_the_program_guards_is_charged_once(provider: FakeProvider) -> None:
    provider.reply(usage=USED)
    ran = run_process("run", "--budget", "1USD", *upstreams(provider), *agent("guarded"))
    assert ran.status == 0, ran.err
    assert "1 call, $0.0035 of $1.00 spent (gpt-4o $0.0035)" in ran.err
    assert "charged twice" not in ran.err


def test_reservations_of_the_command_itself_are_reported(provider: FakeProvider) -> None:
    ran = run_process("run", "--budget", "1USD", *upstreams(provider), *agent("reserving"))
    assert ran.status == 0, ran.err
    assert "1 reservations came from the command itself" in ran.err


def test_the_command_gets_addresses_a_ledger_and_no_other_proxy_for_loopback(provider: FakeProvider) -> None:
    env = environment(NO_PROXY="example.com", OPENAI_BASE_URL=provider.openai_url)
    ran = run_process("run", "--budget", "1USD", *agent("environment"), env=env)
    found = dict(line.split("=", 1) for line in ran.out.splitlines())
    proxy = found["CYCLES_PROXY_URL"]
    assert proxy.startswith("http://127.0.0.1:")
    assert len(proxy.rpartition("/")[2]) > 20
    assert found["OPENAI_BASE_URL"] == f"{proxy}/openai/v1"
    assert found["ANTHROPIC_BASE_URL"] == f"{proxy}/anthropic"
    assert found["GOOGLE_GEMINI_BASE_URL"] == f"{proxy}/gemini"
    assert found["NO_PROXY"] == found["no_proxy"] == "example.com,127.0.0.1,localhost"
    assert found["CYCLES_TENANT"] == "run"
    assert found["CYCLES_BASE_URL"].startswith("http://127.0.0.1:")
    assert "no call reached the proxy" in ran.err
    ran = run_process("run", "--budget", "1USD", "--no-cycles-env", *agent("environment"), env=env)
    assert "CYCLES_" not in ran.out
    assert "OPENAI_BASE_URL" in ran.out


def test_what_a_base_url_variable_held_is_the_upstream(provider: FakeProvider) -> None:
    provider.reply(usage=USED, times=4)
    env = environment(OPENAI_BASE_URL=provider.openai_url)
    ran = run_process("run", "--budget", "1USD", "--json", *agent("openai"), env=env)
    assert ran.status == 0, ran.err
    assert len(provider.requests) == 4


def test_a_configured_server_is_used_beside_the_limit_of_the_run(
    provider: FakeProvider, configured: cycles.EmbeddedServer
) -> None:
    provider.reply(usage=USED, times=4)
    ran = run_process("run", "--json", "--subject", "agent=bot", *upstreams(provider), *agent("openai"))
    assert ran.status == 0, ran.err
    assert configured.spent("tenant:acme/agent:bot").amount == GPT_4O * 4
    ran = run_process("run", "--budget", "0.0001USD", "--json", *upstreams(provider), *agent("openai"))
    assert ran.status == 1
    assert "the limit of this run is $0.0001" in ran.err
    assert summary(ran)["denied"] == 1


def test_a_kept_ledger_adds_up_over_runs(provider: FakeProvider) -> None:
    provider.reply(usage=USED, times=8)
    for _ in range(2):
        ran = run_process("run", "--budget", "1USD", "--keep", "job", *upstreams(provider), *agent("openai"))
        assert ran.status == 0, ran.err
    from cycles.proxy._ledger import kept_file

    with cycles.EmbeddedServer(path=kept_file("job")) as server:
        assert server.spent("tenant:run").amount == GPT_4O * 8
        second = run_process("run", "--keep", "job", *agent("environment"))
        assert second.status == 2
        assert "another run has" in second.err
    less = run_process("run", "--budget", "0.01USD", "--keep", "job", *upstreams(provider), *agent("openai"))
    assert less.status == 1
    assert "APIStatusError: Error code: 402" in less.err
    named = run_process("run", "--budget", "1USD", "--keep", "../job", *agent("environment"))
    assert named.status == 2


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["sh", "-c", "exit 7"], 7),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["sh", "-c", "kill -9 $$"], 137),
        (["/no/such/program"], 127),
        (["/"], 126),
    ],
)
def test_the_exit_status_is_that_of_the_command(command: list[str], status: int) -> None:
    ran = run_process("run", "--budget", "1USD", "--json", "--", *command)
    assert ran.status == status
    assert summary(ran)["exit"] == status


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--budget", "1USD"], "there is no command: write it after --"),
        (["--", "true"], "there is no budget: pass --budget 5USD"),
        (["--budget", "5EUR", "--", "true"], "names no unit; use USD"),
        (["--budget", "5TOKENS", "--", "true"], "is not in USD"),
        (["--budget", "1USD", "--subject", "bot", "--", "true"], "is not KEY=VALUE"),
        (["--budget", "1USD", "--upstream", "http://x", "--", "true"], "is not PROVIDER=URL"),
        (["--budget", "1USD", "--upstream", "openai=ftp://x", "--", "true"], "is no http or https address"),
        (["--budget", "1USD", "--unknown-model", "maybe", "--", "true"], "neither refuse nor allow=AMOUNT"),
        (["--budget", "1USD", "--prices", "/no/file", "--", "true"], "cannot be read"),
    ],
)
def test_wrong_usage_exits_2_before_the_command_is_started(arguments: list[str], says: str) -> None:
    ran = run_process("run", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err


def _start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cycles", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
        **options,
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize(("number", "counts"), [(signal.SIGTERM, "INT 0 TERM 1"), (signal.SIGINT, "INT 1 TERM 0")])
def test_a_signal_reaches_the_command_once(number: signal.Signals, counts: str) -> None:
    process = _start("run", "--budget", "1USD", *agent("signals"), start_new_session=True)
    assert _line(process).startswith("ready")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
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
        "run", "--budget", "1USD", "--on-denied", "stop", *upstreams(provider), "--", sys.executable, "-c", program
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
    process = _start(
        "run", "--budget", "1USD", *upstreams(provider), "--", sys.executable, "-c", program, stdin=subprocess.PIPE
    )
    assert int(_line(process)) == process.pid
    process.kill()
    process.wait(10)
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    assert _line(process).strip() == "refused"
    process.communicate(timeout=10)
    assert provider.requests == []


def test_kill_9_of_the_program_in_mid_stream_charges_what_was_made(provider: FakeProvider) -> None:
    import threading

    gate = threading.Event()
    provider.reply(usage=USED, text="one two three four five", gate=gate, gate_after=4)
    process = _start("run", "--budget", "1USD", "--json", *upstreams(provider), *agent("streaming"))
    while "two" not in _line(process):
        pass
    child = _child_of(process.pid)
    os.kill(child, signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    gate.set()
    assert process.returncode == 137
    found = json.loads(err.splitlines()[-1])
    assert (found["calls"], found["estimated"]) == (1, 1)
    assert 0 < found["spent"]["amount"] < GPT_4O


def _child_of(pid: int) -> int:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    until = time.monotonic() + 10
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


def test_warn_at_prints_one_line_when_that_much_is_used(
    provider: FakeProvider, configured: cycles.EmbeddedServer
) -> None:
    provider.reply(usage=USED, times=8)
    ran = run_process(
        "run", "--budget", "0.08USD", "--embedded", "--warn-at", "40%", *upstreams(provider), *agent("openai")
    )
    assert ran.status == 0, ran.err
    assert ran.err.count("of tenant:run is used") == 1
    assert "warning" not in ran.err
    ran = run_process("run", "--budget", "0.08USD", "--warn-at", "40%", *upstreams(provider), *agent("openai"))
    assert ran.status == 0, ran.err
    assert ran.err.count("of this run is used") == 1


def test_ask_at_needs_a_terminal(provider: FakeProvider) -> None:
    ran = run_process("run", "--budget", "1USD", "--ask-at", "90%", "--", "true")
    assert ran.status in (0, 2)  # a terminal of the developer may be there
    process = _start("run", "--budget", "1USD", "--ask-at", "90%", "--", "true", start_new_session=True)
    _, err = process.communicate(timeout=30)
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
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment())
    assert (ran.stdout, ran.stderr) == ("137\n", "")
