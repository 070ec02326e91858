"""`cycles run` inside `cycles run`, and reservations that a command makes itself on a configured server."""

from __future__ import annotations

import json
import sys

import pytest

import cycles
from cycles.testing import FakeProvider
from tests.operators.kit import processes, run_process
from tests.operators.running import GPT_4O, USED, agent, summary, upstreams

pytestmark = processes


def inner(*options: str) -> list[str]:
    """Return a command that is a run itself."""
    return ["--", sys.executable, "-m", "cycles", "run", "--json", *options]


def test_a_run_inside_a_run_is_charged_once(provider: FakeProvider) -> None:
    pytest.importorskip("openai")
    provider.reply(usage=USED, times=4)
    inside = inner("--budget", "0.5USD", *agent("openai"))
    ran = run_process("run", "--budget", "1USD", "--json", *upstreams(provider), *inside)
    assert ran.status == 0, ran.err
    of_inner, of_outer = (json.loads(line) for line in ran.err.splitlines())
    assert of_inner["spent"] == of_outer["spent"] == {"unit": "USD_MICROCENTS", "amount": GPT_4O * 4}
    assert (of_inner["calls"], of_outer["calls"], of_outer["estimated"]) == (4, 4, 0)


def test_a_run_inside_a_run_charges_a_configured_server_once(
    provider: FakeProvider, configured: cycles.EmbeddedServer
) -> None:
    pytest.importorskip("openai")
    provider.reply(usage=USED, times=4)
    ran = run_process("run", *upstreams(provider), *inner(*agent("openai")))
    assert ran.status == 0, ran.err
    assert configured.spent("tenant:acme", "USD_MICROCENTS").amount == GPT_4O * 4
    assert "charged twice" not in ran.err


def test_the_summary_of_an_inner_run_says_who_charged(provider: FakeProvider) -> None:
    inside = [argument for argument in inner(*agent("guarded")) if argument != "--json"]
    ran = run_process("run", "--budget", "1USD", "--json", *upstreams(provider), *inside)
    assert ran.status == 0, ran.err
    assert "the run around this one charged the calls" in ran.err


def test_the_budget_of_an_inner_run_is_a_second_limit(provider: FakeProvider) -> None:
    pytest.importorskip("openai")
    options = ("--budget", "0.001USD", "--warn-at", "1%", *agent("denied_openai"))
    ran = run_process("run", "--budget", "1USD", "--json", *upstreams(provider), *inner(*options))
    assert ran.out.strip() == "APIStatusError 402 run_limit"
    assert provider.requests == []
    of_inner, of_outer = (json.loads(line) for line in ran.err.splitlines())
    assert (of_inner["denied"], of_outer["calls"], of_outer["denied"]) == (1, 0, 0)


@pytest.mark.parametrize("option", ["deny", "refuse", "stop"])
def test_a_denial_of_the_outer_run_is_one_of_the_inner_run(provider: FakeProvider, option: str) -> None:
    pytest.importorskip("openai")
    inside = inner("--on-denied", option, "--budget", "1USD", *agent("denied_openai"))
    ran = run_process("run", "--budget", "0.001USD", "--json", *upstreams(provider), *inside)
    assert "APIStatusError 402 budget_exceeded".startswith(ran.out.strip()), "it may be stopped while it prints"
    of_inner, of_outer = (json.loads(line) for line in ran.err.splitlines() if line.startswith("{"))
    assert (of_inner["calls"], of_inner["denied"], of_outer["denied"]) == (0, 1, 1)
    assert provider.requests == []


def test_an_inner_run_with_its_own_ledger_is_charged_in_both(provider: FakeProvider) -> None:
    provider.reply(usage=USED)
    inside = inner("--embedded", "--budget", "0.5USD", *agent("guarded"))
    ran = run_process("run", "--budget", "1USD", "--json", *upstreams(provider), *inside)
    assert ran.status == 0, ran.err
    of_inner, of_outer = (json.loads(line) for line in ran.err.splitlines())
    assert of_inner["spent"]["amount"] == of_outer["spent"]["amount"] == GPT_4O


def test_a_warning_of_an_inner_run_is_about_its_limit(provider: FakeProvider) -> None:
    provider.reply(usage=USED)
    inside = inner("--budget", "0.005USD", "--warn-at", "50%", *agent("guarded"))
    ran = run_process("run", "--budget", "1USD", "--json", *upstreams(provider), *inside)
    assert ran.status == 0, ran.err
    assert "70% of this run is used" in ran.err


def test_reservations_of_the_command_on_a_configured_server_are_reported(
    provider: FakeProvider, configured: cycles.EmbeddedServer
) -> None:
    provider.reply(usage=USED, times=2)
    client = configured.client(tenant="acme")
    client.reserve(cycles.usd("0.01"), action=("llm.completion", "before")).acquire().release()
    ran = run_process("run", *upstreams(provider), *agent("reserving_and_calling"))
    assert ran.status == 0, ran.err
    assert "1 more reservation was made for model calls on the server" in ran.err
    assert "charged twice" in ran.err
    ran = run_process("run", *upstreams(provider), *agent("guarded"))
    assert "charged twice" not in ran.err
    assert summary(run_process("run", "--json", *upstreams(provider), *agent("reserving")))["calls"] == 0
