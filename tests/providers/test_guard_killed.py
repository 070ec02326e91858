"""A process that is killed while calls wait and run: what waits holds nothing, what was sent is charged its bound."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import cycles
from cycles.testing import FakeProvider
from tests.support import warm
from tests.support.waiting import until

PROGRAM = """
import sys, threading
import cycles, openai
url, key, journal, provider = sys.argv[1:]
client = cycles.Cycles(base_url=url, api_key=key, tenant="acme", journal_dir=journal)
book = cycles.PriceBook({"m": cycles.Price("0", "10")})
llm = cycles.providers.guard(openai.OpenAI(api_key="k", base_url=provider, max_retries=0), client=client, prices=book)
def ask():
    llm.chat.completions.create(model="m", messages=[], max_tokens=6_000)
ask()
calls = [threading.Thread(target=ask) for _ in range(4)]
for call in calls:
    call.start()
for call in calls:
    call.join()
"""


def test_after_a_kill_only_the_call_in_flight_holds_something(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    pytest.importorskip("uvicorn")
    budget, gate = cycles.Amount("USD_MICROCENTS", 10_000_000), threading.Event()
    with FakeProvider() as provider, cycles.EmbeddedServer(budgets={"tenant:acme": budget}) as server:
        provider.reply(usage={"tokens_input": 1, "tokens_output": 100})
        provider.reply(usage={"tokens_input": 1, "tokens_output": 100}, gate=gate, times=4)
        with server.listen() as url:
            given = [url, server.api_key_for("acme"), str(tmp_path), provider.openai_url]
            with warm.start(None, *given, code=PROGRAM, modules=["openai"]) as process:
                until(lambda: provider.count("/chat/completions") == 2 and _reads(server))
                process.kill()
            gate.set()
            balance = server.ledger.balance("tenant:acme")
            assert balance.reserved == cycles.Amount("USD_MICROCENTS", 6_000_000)
            assert provider.count("/chat/completions") == 2
            settings: dict[str, Any] = {
                "base_url": url,
                "api_key": given[1],
                "tenant": "acme",
                "journal_dir": str(tmp_path),
            }
            (left,) = cycles.journal.inspect(tmp_path)
            assert (left.state, left.amount) == ("sent", cycles.usd_microcents(6_000_000))
            with cycles.Cycles(cycles.Config(**settings)) as again, pytest.raises(cycles.BudgetExceededError):
                again.reserve(cycles.usd_microcents(5_000_000), action=("test", "next")).acquire()
            assert server.spent("tenant:acme").amount == 100_000 + 6_000_000


def _reads(server: cycles.EmbeddedServer) -> bool:
    """Return whether a waiting call has read its budgets."""
    return any(request.json.get("dry_run") for request in server.requests.of("reserve"))
