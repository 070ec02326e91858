"""`cycles run --fake` and `cycles proxy --fake`: programs run without a key and without a network."""

from __future__ import annotations

import json
import signal
import sys

import httpx
import pytest

import cycles
from tests.operators.conftest import Cycles
from tests.operators.kit import environment, processes, run_process
from tests.operators.running import agent, start, summary

STARTED = "cycles: --fake: a fake provider responds to all calls, and nothing is paid"
ENDED = "cycles: --fake: the fake provider made the responses, and nothing was paid"


@pytest.mark.parametrize("proxy", [{}, {"HTTP_PROXY": "http://127.0.0.1:9"}, {"ALL_PROXY": "http://127.0.0.1:9"}])
def test_an_agent_is_denied_when_its_budget_is_used_up(proxy: dict[str, str]) -> None:
    env = environment(OPENAI_BASE_URL="http://no-such-host.invalid/v1", **proxy)
    ran = run_process("run", "--fake", "--budget", "0.05USD", "--", sys.executable, "examples/agent.py", env=env)
    assert ran.status == 1
    *done, denied = ran.out.splitlines()
    assert [line.rpartition("? ")[2] for line in done] == [f"Done ({number})." for number in range(1, 5)]
    assert denied.endswith("The call failed: 402 budget_exceeded")
    lines = ran.err.splitlines()
    assert (lines[0], lines[-1]) == (STARTED, ENDED)
    assert "4 calls, $0.0401 of $0.05 spent (gpt-4o $0.0401), 1 denied" in lines[-2]


def test_the_document_says_that_the_provider_was_fake() -> None:
    ran = run_process("run", "--fake", "--budget", "1USD", "--json", "--", "true")
    assert (ran.status, summary(ran)["fake"]) == (0, True)
    ran = run_process("run", "--budget", "1USD", "--json", "--", "true")
    assert (ran.status, summary(ran)["fake"]) == (0, False)


def test_a_configured_server_decides_as_it_does_for_a_real_provider(configured: cycles.EmbeddedServer) -> None:
    ran = run_process("run", "--fake", "--json", "--", sys.executable, "examples/agent.py")
    assert ran.status == 0, ran.err
    assert configured.spent("tenant:acme", "USD_MICROCENTS").amount == summary(ran)["spent"]["amount"] > 0


@processes
@pytest.mark.parametrize("name", ["openai", "anthropic", "google"])
def test_the_real_sdks_get_responses(name: str) -> None:
    pytest.importorskip({"google": "google.genai"}.get(name, name))
    ran = run_process("run", "--fake", "--budget", "1USD", "--json", *agent(name))
    assert ran.status == 0, ran.err
    found = summary(ran)
    assert (found["calls"], found["denied"], found["estimated"]) == (4, 0, 0)


@processes
def test_every_route_of_the_proxy_leads_to_the_fake_provider() -> None:
    process = start("proxy", "--listen", "127.0.0.1:0", "--fake", "--budget", "9USD", "--json")
    assert process.stdout is not None
    urls = json.loads(process.stdout.readline())["base_urls"]
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
    models = {
        "OPENAI_BASE_URL": "gpt-4o",
        "MISTRAL_BASE_URL": "mistral-large-latest",
        "XAI_API_BASE": "grok-3",
        "DEEPSEEK_API_BASE": "deepseek-chat",
    }
    assert "OLLAMA_HOST" in urls
    for variable, model in models.items():
        response = httpx.post(f"{urls[variable]}/chat/completions", json={"model": model, **chat}, timeout=60)
        assert response.status_code == 200, (variable, response.text)
        found = response.json()
        assert found["choices"][0]["message"]["content"].startswith("Done (")
        assert found["usage"]["completion_tokens"] == 10
    streams = {"GROQ_API_BASE": "openai/gpt-oss-120b", "MISTRAL_API_BASE": "mistral-large-latest"}
    for variable, model in streams.items():  # whose last chunk reports the usage, also if no one requests it
        body = {"model": model, "stream": True, **chat}
        response = httpx.post(f"{urls[variable]}/chat/completions", json=body, timeout=60)
        assert '"completion_tokens": 10' in response.text, variable
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    document = json.loads(out.splitlines()[-1])
    assert (document["calls"], document["estimated"]) == (len(models) + len(streams), 0)
    assert (err.splitlines()[0], process.returncode) == (STARTED, 0)


def test_the_proxy_takes_no_upstream_beside_the_fake_provider(run: Cycles) -> None:
    ran = run("proxy", "--fake", "--upstream", "openai=http://x/v1", "--budget", "1USD")
    assert (ran.status, ran.out) == (2, "")
    assert "--fake and --upstream exclude each other" in ran.err
