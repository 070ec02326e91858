"""A ledger that a thousand calls of a guarded client have filled: `cycles reconcile` names every difference."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

import cycles
from cycles.testing import FakeProvider
from tests.operators.admin_apis import AdminApis, Billed, Ledger, ago
from tests.operators.kit import ROOT, processes
from tests.operators.test_reconcile import Reconcile, apis as apis, ledger as ledger, reconcile as reconcile
from tests.support.waiting import until

BOOK = cycles.PriceBook({"gpt-4o": cycles.Price("2.5", "10"), "gpt-5": cycles.Price("1.25", "10")})
BATCHES = ((4, "gpt-4o"), (3, "gpt-5"), (2, "gpt-4o"), (1, "gpt-5"))
CALLS = 250
"""Calls of one batch, which is one model on one day."""
KILLED = """
import sys
import cycles, openai
url, key, base_url, model = sys.argv[1:]
book = cycles.PriceBook({model: cycles.Price("2.5", "10")})
client = cycles.Cycles(base_url=url, api_key=key, tenant="acme", journal=False)
llm = cycles.providers.guard(openai.OpenAI(api_key="k", base_url=base_url, max_retries=0), client=client, prices=book)
llm.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], max_tokens=500)
"""


class Batch:
    """The calls of one day, and how many of them the bill and the ledger tell apart."""

    def __init__(self, ledger: Ledger, provider: FakeProvider, day: date, model: str) -> None:
        import openai

        self._ledger = ledger
        self._provider = provider
        self._model = model
        self._day = day
        self._original = openai.OpenAI(api_key="k", base_url=provider.openai_url, max_retries=1, timeout=60)
        self._guarded = cycles.providers.guard(self._original, client=ledger.client, prices=BOOK)
        self.kinds: set[str] = set()
        self.failed = self.outside = 0

    def _ask(self, llm: Any, **options: Any) -> Any:
        messages = [{"role": "user", "content": "what is the price of this?"}]
        return llm.chat.completions.create(model=self._model, messages=messages, max_tokens=500, **options)

    def run(self, seed: int, *, with_all: bool) -> None:
        chosen, provider = random.Random(seed), self._provider
        for _ in range(CALLS):
            kind = chosen.random()
            usage = {"tokens_input": chosen.randrange(10, 2_000), "tokens_output": chosen.randrange(1, 400)}
            if not with_all or kind < 0.9:
                provider.reply(usage=usage, model=f"{self._model}-2026-01-01")
                self._ask(self._guarded)
            elif kind < 0.94:
                self._leave_early()
            elif kind < 0.97:
                self.kinds.add("lost")
                provider.reply(usage=usage, drop_after=0).reply(usage=usage)
                self._ask(self._guarded)
            elif kind < 0.985:
                self.kinds.add("failed")
                self.failed += 1
                provider.reply(status=400)
                with pytest.raises(Exception, match="400"):
                    self._ask(self._guarded)
            else:
                self.kinds.add("outside")
                self.outside += 1
                provider.reply(usage=usage)
                self._ask(self._original)

    def _leave_early(self) -> None:
        self.kinds.add("left")
        self._provider.reply(text="one two three four five six seven eight nine ten", gate_after=2)
        stream = self._ask(self._guarded, stream=True)
        next(iter(stream))
        stream.close()

    def kill_one(self) -> None:
        """Kill a process whose call the provider has made, and whose response it has not seen."""
        gate, before = threading.Event(), self._provider.count("/chat/completions")
        self._provider.reply(gate=gate)
        given = [self._ledger.url, self._ledger.server.api_key, self._provider.openai_url, self._model]
        with subprocess.Popen([sys.executable, "-c", KILLED, *given], cwd=ROOT) as process:
            until(lambda: self._provider.count("/chat/completions") > before)
            process.send_signal(signal.SIGKILL)
        gate.set()
        self._ledger.clock.advance(3_600_000)
        self.kinds.add("killed")

    def billed(self) -> Billed:
        """Return the line of the bill, with what the provider has made."""
        made = [request for request in self._provider.requests if request.path.endswith("/chat/completions")]
        amount = Decimal(self._provider.bill(BOOK).amount) / 100_000_000
        calls = len(made) - self.failed  # an error is not billed
        return Billed(day=self._day, model=f"{self._model}-2026-01-01", amount=f"{amount:f}", calls=calls)

    def close(self) -> None:
        self._original.close()


@pytest.fixture
def answers() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


@processes
@pytest.mark.timeout(600)
def test_a_thousand_calls_differ_for_reasons_that_are_all_named(
    reconcile: Reconcile, apis: AdminApis, ledger: Ledger, answers: FakeProvider
) -> None:
    """One batch of four has only whole responses, and is ok to the microcent."""
    pytest.importorskip("openai")
    kinds, outside = set(), []
    for number, (days, model) in enumerate(BATCHES):
        answers.clear()
        ledger.go_to(ago(days), 1)
        batch = Batch(ledger, answers, ago(days), model)
        batch.run(number, with_all=number > 0)
        if number == 2:
            batch.kill_one()
        apis.bill.append(batch.billed())
        kinds |= batch.kinds
        outside.append(batch.outside)
        batch.close()
    assert kinds == {"left", "lost", "failed", "outside", "killed"}
    ran = reconcile("--json", "--tolerance", "0%")
    rows = ran.document["rows"]
    assert [(row["day"], row["model"]) for row in rows] == [(ago(days).isoformat(), model) for days, model in BATCHES]
    named = [{cause["cause"] for cause in row["causes"]} for row in rows]
    assert (rows[0]["difference"], named[0]) == (0, set())
    assert rows[0]["ledger_calls"] == rows[0]["bill_calls"] == CALLS
    assert all("price" not in each for each in named)
    assert all({"estimate", "outside_guard"} <= each for each in named[1:])
    found = [[cause["calls"] for cause in row["causes"] if "calls" in cause] for row in rows]
    assert found == [[], *([count] for count in outside[1:])]
    assert ["expired" in each for each in named] == [False, False, True, False]
    assert ran.status == 4
    # What is on the bill only is charged then, and nothing else.
    assert reconcile("--json", "--tolerance", "0%", "--import", "--yes").document["imports"]
    for row in reconcile("--json", "--tolerance", "0%").document["rows"]:
        assert row["difference"] <= 0
