"""A process that ends while its responses are made in the background: exit, kill -9, fork, an event loop that ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

import cycles
from cycles.testing import FakeProvider
from tests.support import warm
from tests.support.waiting import until

START = """
import asyncio, os, sys
import cycles, openai
url, key, journal, provider = sys.argv[1:]
client = cycles.Cycles(base_url=url, api_key=key, tenant="acme", journal_dir=journal)
book = cycles.PriceBook({"m": cycles.Price("0", "10")})
def guarded(kind):
    return cycles.providers.guard(kind(api_key="k", base_url=provider, max_retries=0), client=client, prices=book)
asked = {"model": "m", "input": "hi", "max_output_tokens": 6_000, "background": True}
"""
EXITS = START + "llm = guarded(openai.OpenAI)\nllm.responses.create(**asked)\n"
OFTEN = "import cycles._drivers.write_ahead\ncycles._drivers.write_ahead.INTERVAL_S = 0.0\n"  # no write is postponed
WAITS = OFTEN + EXITS + "print('ready', flush=True)\nsys.stdin.readline()\n"
FORKS = (
    EXITS
    + """
pid = os.fork()
if pid == 0:
    found = llm.responses.retrieve("resp_1")
    del llm
    client.close()
    os._exit(found.status != "completed")
assert os.waitpid(pid, 0)[1] == 0
llm.responses.retrieve("resp_1")
"""
)
TWO_LOOPS = (
    START
    + """
llm = guarded(openai.AsyncOpenAI)
begun = asyncio.run(llm.responses.create(**asked))
again = llm.with_options(http_client=openai.DefaultAsyncHttpxClient())  # connections belong to a loop
asyncio.run(again.responses.retrieve(begun.id))
"""
)
BOUND = 6_000_000
MADE = 100_000


@frozen
class Site:
    """A ledger and a provider on real sockets.

    Attributes:
        server: The ledger.
        provider: The provider.
        arguments: Those of a program.
    """

    server: cycles.EmbeddedServer
    provider: FakeProvider
    arguments: list[str]

    def run(self, program: str) -> None:
        """Run a program to its end."""
        done = warm.run(None, *self.arguments, code=program, modules=["openai"])
        assert done.returncode == 0, done.stderr

    def settle(self) -> None:
        """Start a client with the journal of the program, and settle what it has left."""
        url, key, journal, _ = self.arguments
        settings: dict[str, Any] = {"base_url": url, "api_key": key, "tenant": "acme", "journal_dir": journal}
        with cycles.Cycles(cycles.Config(**settings)) as client:
            assert client.flush(20).pending == 0

    @property
    def commits(self) -> list[tuple[int, dict[str, Any]]]:
        """Amount and metadata of each commit."""
        bodies = [request.json for request in self.server.requests.of("commit")]
        return [(body["actual"]["amount"], body.get("metadata", {})) for body in bodies]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    pytest.importorskip("openai")
    pytest.importorskip("uvicorn")
    budget = cycles.Amount("USD_MICROCENTS", 10_000_000)
    with FakeProvider() as provider, cycles.EmbeddedServer(budgets={"tenant:acme": budget}) as server:
        provider.reply(usage={"tokens_input": 1, "tokens_output": 100})
        with server.listen() as url:
            yield Site(server, provider, [url, server.api_key_for("acme"), str(tmp_path), provider.openai_url])


def test_exit_charges_the_estimate(site: Site) -> None:
    done = subprocess.run([sys.executable, "-c", EXITS, *site.arguments], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert site.commits == [(BOUND, {"actual_source": "estimate"})]
    site.settle()
    assert site.server.spent("tenant:acme").amount == BOUND


def test_a_killed_process_loses_nothing(site: Site) -> None:
    with warm.start(None, *site.arguments, code=WAITS, modules=["openai"]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert site.commits == []
    site.settle()
    assert site.commits == [(BOUND, {"actual_source": "estimate"})]
    site.settle()
    assert site.server.spent("tenant:acme").amount == BOUND


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_settles_nothing_of_its_parent(site: Site) -> None:
    site.run(FORKS)
    assert site.commits == [(MADE, {})]


def test_a_response_outlives_the_event_loop_that_began_it(site: Site) -> None:
    site.run(TWO_LOOPS)
    until(lambda: site.commits)
    assert site.commits == [(MADE, {})]
