"""The options of `cycles run` and `cycles proxy`: what each one sets in the proxy."""

from __future__ import annotations

from typing import Any

import pytest

import cycles
from cycles.cli._frame import Cli
from cycles.cli._proxying import make_run
from cycles.cli.proxy import command
from cycles.cli.run import command as run_command
from cycles.providers._hosts import FreeHost
from cycles.testing import FakeProvider
from tests.operators.conftest import Cycles
from tests.operators.kit import environment, run_process
from tests.operators.running import VARIABLES, agent


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings of each run that is made; it is not started, and its ledger is closed."""
    found: list[Any] = []

    def run(settings: Any, ledger: Any, **options: Any) -> None:
        found.append(settings)
        ledger.close()
        options["closing"].close()

    monkeypatch.setattr("cycles.proxy._run.Run", run)
    return found


def values(settings: Any, *names: str) -> list[Any]:
    return [getattr(settings, name) for name in names]


def test_the_defaults_deny_what_is_unknown_and_lower_limits(made: list[Any]) -> None:
    make_run(Cli({}), command.make_context("proxy", ["--budget", "500TOKENS"]).params)
    calls = values(made[0], "unit", "unknown_model", "unmetered", "lost_attempt", "wait", "min_output_tokens")
    assert calls == ["TOKENS", None, "refuse", "bound", 240, 1_024]
    assert values(made[0], "max_output_tokens", "tunnel", "allowed", "free_hosts", "subject") == [
        None, False, frozenset(), (), {},
    ]  # fmt: skip


def test_each_option_reaches_the_proxy(made: list[Any]) -> None:
    calls = "--unknown-model allow=0.10USD --unmetered allow --lost-attempt prompt --wait 3 --min-output-tokens 0"
    others = "--max-output-tokens 7 --tunnel --allow-host chatgpt.com --free-host localhost:11434 --subject agent=bot"
    make_run(Cli({}), command.make_context("proxy", f"--budget 5USD {calls} {others}".split()).params)
    found = values(made[0], "unit", "unknown_model", "unmetered", "lost_attempt", "wait", "min_output_tokens")
    assert found == ["USD_MICROCENTS", cycles.usd("0.10"), "allow", "prompt", 3, None]
    assert values(made[0], "max_output_tokens", "tunnel", "allowed", "free_hosts", "subject") == [
        7, True, frozenset({"chatgpt.com"}), (FreeHost("localhost", 11434),), {"agent": "bot"},
    ]  # fmt: skip


@pytest.mark.parametrize(("options", "named"), [("--keep job", True), ("--keep job --embedded", True), ("", False)])
def test_the_calls_of_a_kept_run_have_its_id(made: list[Any], options: str, named: bool) -> None:
    for _ in range(2):
        make_run(Cli({}), command.make_context("proxy", f"--budget 5USD {options}".split()).params)
    ids = {settings.run_id for settings in made}
    assert (len(ids), None in ids) == ((2, False) if named else (1, True))


def test_each_port_that_is_shared_reaches_the_run(made: list[Any]) -> None:
    ports = "--sealed --share-port 5432 --share-port 6379 --share-port 5432"
    make_run(Cli({}), run_command.make_context("run", f"--budget 5USD {ports} -- true".split()).params)
    assert values(made[0], "sealed", "shared_ports") == [True, (5432, 6379)]


@pytest.mark.parametrize("key", [(), ("--proxy-key", "")])
def test_an_address_that_others_reach_needs_a_key(run_here: Cycles, key: tuple[str, ...]) -> None:
    ran = run_here("proxy", "--listen", "203.0.113.1:0", "--budget", "1USD", *key)
    assert (ran.status, ran.out) == (2, "")
    assert "pass --proxy-key KEY, or set CYCLES_PROXY_KEY" in ran.err


@pytest.mark.parametrize(("text", "part"), [("80%", 0.8), ("0.5 %", 0.005), ("100%", 1.0)])
def test_a_percentage_is_more_than_0_and_at_most_100(text: str, part: float) -> None:
    assert command.make_context("proxy", ["--warn-at", text]).params["warn_at"] == (part,)


# --- what the command gets


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
    ran = run_process("run", "--budget", "1USD", "--no-cycles-env", "--", "sh", "-c", "env; exit 7", env=env)
    assert (ran.status, "CYCLES_" in ran.out) == (7, False)
    assert "OPENAI_BASE_URL" in ran.out


def test_the_command_gets_the_variables_of_every_route_and_of_the_tunnel(provider: FakeProvider) -> None:
    env = environment(NO_PROXY="a.example,.openai.com", AZURE_API_BASE="https://my.openai.azure.com")
    ran = run_process("run", "--budget", "1USD", *agent("environment"), env=env)
    found = dict(line.split("=", 1) for line in ran.out.splitlines())
    proxy = found["CYCLES_PROXY_URL"]
    assert {name: found[name] for name in VARIABLES} == {name: proxy + path for name, path in VARIABLES.items()}
    assert found["AZURE_API_BASE"] == f"{proxy}/azure"
    assert not {"AZURE_OPENAI_ENDPOINT", "OLLAMA_HOST", "OLLAMA_API_BASE"} & set(found)
    address, _, secret = proxy.removeprefix("http://").partition("/")
    assert found["HTTPS_PROXY"] == found["https_proxy"] == f"http://cycles:{secret}@{address}"
    assert found["NODE_USE_ENV_PROXY"] == "1"
    assert found["NO_PROXY"] == "a.example,127.0.0.1,localhost"
    ran = run_process(
        "run", "--budget", "1USD", "--no-tunnel", "--upstream", "ollama=http://o", *agent("environment"), env=env
    )
    found = dict(line.split("=", 1) for line in ran.out.splitlines())
    assert not {"HTTPS_PROXY", "https_proxy", "NODE_USE_ENV_PROXY"} & set(found)
    assert found["NO_PROXY"] == "a.example,.openai.com,127.0.0.1,localhost"
    assert found["OLLAMA_HOST"] == f"{found['CYCLES_PROXY_URL']}/ollama"
