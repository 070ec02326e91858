"""`cycles run` as a process: the command's environment, charges, exit status and summary."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cycles
from cycles.testing import FakeProvider
from tests.operators.kit import ROOT, environment, processes, run_process
from tests.operators.running import GPT_4O, PACKAGES, USED, VENV, agent, read_line, start, summary, upstreams

pytestmark = processes


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
    # Two calls leave less than a call costs whose output limit is lowered as far as it may be.
    ran = run_process("run", "--budget", "0.01USD", "--json", *upstreams(provider), "--", "node", program, env=env)
    assert ran.status == 0, ran.err
    text = "four words of text"
    assert ran.out.splitlines() == [text, text, "APIError 402 budget_exceeded"]
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
    assert "1 reservation came from the command itself" in ran.err


def test_a_call_that_the_ledger_could_not_decide_has_reached_the_proxy(provider: FakeProvider) -> None:
    env = environment(CYCLES_BASE_URL="http://127.0.0.1:9", CYCLES_API_KEY="cyc_live_x", CYCLES_TENANT="acme")
    ran = run_process("run", "--budget", "1USD", *upstreams(provider), *agent("openai"), env=env)
    assert ran.status == 1
    assert "the budget server gave no decision" in ran.err
    assert "no call reached the proxy" not in ran.err
    assert provider.requests == []


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
    from cycles.proxy._kept import kept_file

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
        ([""], 127),
    ],
)
def test_the_exit_status_is_that_of_the_command(command: list[str], status: int) -> None:
    ran = run_process("run", "--budget", "1USD", "--json", "--", *command)
    assert ran.status == status
    assert summary(ran)["exit"] == status


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2>&1 | true; exit ${PIPESTATUS[0]}"])
def test_closed_streams_do_not_change_the_exit_status(closed: str) -> None:
    command = f"{sys.executable} -m cycles run --budget 1USD -- sh -c 'exit 7' {closed}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, env=environment())
    assert ran.returncode == 7
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"m": {"input": "1"}}', "output is missing"),
        ('{"m": {"input": "1", "output": "2", "colour": 3}}', "a price has no member 'colour': use input, output"),
        ('{"m": {"input": "1", "output": "2", "above": {"x": {}}}}', "above must map integers of input tokens"),
        ('{"m": 5}', "the price of 'm': a price must be"),
        ("[]", 'has no models: write {"models": {MODEL'),
        ("{", "cannot be read"),
    ],
)
def test_a_wrong_file_of_prices_says_what_is_wrong(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "prices.json"
    file.write_text(content)
    ran = run_process("run", "--budget", "1USD", "--prices", str(file), "--", "true")
    assert ran.status == 2
    assert says in ran.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--budget", "1USD"], "there is no command: write it after --"),
        (["--", "true"], "there is no budget: pass --budget 5USD"),
        (["--budget", "5EUR", "--", "true"], "names no unit; use USD"),
        (["--budget", "5CREDITS", "--", "true"], "neither in USD nor in TOKENS"),
        (["--budget", "1USD", "--subject", "bot", "--", "true"], "is not KEY=VALUE"),
        (["--budget", "1USD", "--upstream", "http://x", "--", "true"], "is not PROVIDER=URL"),
        (["--budget", "1USD", "--wait", "-1", "--", "true"], "--wait"),
        (["--budget", "1USD", "--wait", "long", "--", "true"], "--wait"),
        (["--budget", "1USD", "--min-output-tokens", "-1", "--", "true"], "--min-output-tokens"),
        (["--budget", "1USD", "--min-output-tokens", "few", "--", "true"], "--min-output-tokens"),
        (["--budget", "1USD", "--lost-attempt", "free", "--", "true"], "'free' is not one of 'bound', 'prompt'"),
        (["--budget", "1USD", "--upstream", "openai=ftp://x", "--", "true"], "is not an http or https address"),
        (["--budget", "1USD", "--upstream", "openai=https://", "--", "true"], "is not an http or https address"),
        (["--budget", "1USD", "--upstream", "openai=http://x:99999", "--", "true"], "is not an http or https address"),
        (["--budget", "1USD", "--upstream", "cohere=http://x", "--", "true"], "is not PROVIDER=URL"),
        (["--budget", "1USD", "--upstream", "openai=", "--", "true"], "is not PROVIDER=URL"),
        (
            ["--budget", "1USD", "--upstream", "openai=http://a", "--upstream", "openai=http://b", "--", "true"],
            "openai is there 2 times (http://a, http://b); pass one",
        ),
        (["--budget", "1USD", "--fake", "--upstream", "openai=http://x/v1", "--", "true"], "exclude each other"),
        (["--fake", "--", "true"], "there is no budget: pass --budget 5USD"),
        (["--budget", "1USD", "--allow-host", "https://x.com", "--", "true"], "is not a host name; write it like"),
        (["--budget", "1USD", "--allow-host", "x.com:443", "--", "true"], "is not a host name"),
        (["--budget", "1USD", "--allow-host", "x.com/a", "--", "true"], "is not a host name"),
        (["--budget", "1USD", "--allow-host", "*.x.com", "--", "true"], "is not a host name"),
        (["--budget", "1USD", "--allow-host", "", "--", "true"], "is not a host name"),
        (["--budget", "1USD", "--allow-host", "x.com", "--no-tunnel", "--", "true"], "--allow-host needs the tunnel"),
        (["--budget", "1USD", "--unknown-model", "maybe", "--", "true"], "neither deny nor allow=AMOUNT"),
        (["--budget", "1USD", "--prices", "/no/file", "--", "true"], "cannot be read"),
    ],
)
def test_wrong_usage_exits_2_before_the_command_is_started(arguments: list[str], says: str) -> None:
    ran = run_process("run", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert says in ran.err


def test_a_socks_proxy_of_the_caller_exits_2(provider: FakeProvider) -> None:
    env = environment(ALL_PROXY="socks5://127.0.0.1:1080")
    ran = run_process("run", "--budget", "1USD", *upstreams(provider), "--", "echo", "started", env=env)
    assert (ran.status, ran.out) == (2, "")
    assert "ALL_PROXY is a socks5:// proxy, which is not supported: set it to an http://" in ran.err


@pytest.mark.parametrize(
    ("variable", "value", "is_named"),
    [
        ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "http://127.0.0.1:9", True),
        ("CO_API_URL", "http://[", True),
        ("ANTHROPIC_BEDROCK_BASE_URL", "https://bedrock-runtime.us-east-1.amazonaws.com", False),  # it is rejected
    ],
)
def test_a_variable_that_leads_past_the_proxy_is_named(variable: str, value: str, is_named: bool) -> None:
    env = environment(**{variable: value})
    ran = run_process("run", "--budget", "1USD", "--", sys.executable, "-c", "", env=env)
    assert (f"cycles: {variable} is set: calls to that address do not pass the proxy" in ran.err) == is_named


def test_a_program_that_fails_before_its_first_call_is_not_told_of_base_urls() -> None:
    ran = run_process("run", "--budget", "1USD", "--", sys.executable, "-c", "raise SystemExit(7)")
    assert ran.status == 7
    assert "cycles: the command ended with status 7, and no call had reached the proxy" in ran.err
    assert "base URL" not in ran.err


def test_a_program_that_ignores_the_variables_is_rejected_and_named(provider: FakeProvider) -> None:
    code = (
        "import urllib.request\n"
        "try: urllib.request.urlopen('https://api.openai.com/v1/models')\n"
        "except OSError as error: print(error)"
    )
    ran = run_process("run", "--budget", "1USD", *upstreams(provider), "--", sys.executable, "-c", code)
    assert "403 Cycles rejected a connection to api.openai.com" in ran.out
    assert "rejected: 1 connection to api.openai.com, which would not be charged; pass --capture" in ran.err
    assert "no call reached the proxy" not in ran.err
    document = summary(run_process("run", "--budget", "1USD", "--json", "--", sys.executable, "-c", code))
    assert document["rejected_hosts"] == {"api.openai.com": 1}
    assert (document["allowed_hosts"], document["captured"], document["sealed"]) == ({}, {}, None)


def test_a_run_that_is_killed_ends_its_tunnels() -> None:
    code = (
        "import base64, os, socket, urllib.parse\n"
        "proxy = urllib.parse.urlsplit(os.environ['HTTPS_PROXY'])\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "near = socket.create_connection((proxy.hostname, proxy.port))\n"
        "pair = base64.b64encode(f'cycles:{proxy.password}'.encode()).decode()\n"
        "target = f'127.0.0.1:{listener.getsockname()[1]}'\n"
        "near.sendall(f'CONNECT {target} HTTP/1.1\\r\\nProxy-Authorization: Basic {pair}\\r\\n\\r\\n'.encode())\n"
        "far, _ = listener.accept()\n"
        "near.recv(1000)\n"
        "print('open', flush=True)\n"
        "far.recv(1) or near.recv(1) or print('ended', flush=True)"
    )
    process = start("run", "--budget", "1USD", "--", sys.executable, "-c", code)
    assert read_line(process) == "open\n"
    process.kill()
    assert read_line(process) == "ended\n"
    process.communicate(timeout=300)


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
