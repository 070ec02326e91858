"""LiteLLM under a budget: each request is reserved at its upper bound, charged what it cost, or denied.

The provider is fake and the server is embedded, so it needs no key and no network: `python litellm_agent.py`.
"""

from __future__ import annotations

import os

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # otherwise LiteLLM downloads a list of models

import litellm

import cycles
from cycles.integrations.litellm import install
from cycles.testing import FakeProvider


def main() -> None:
    budgets = {"tenant:acme": cycles.usd("0.0015")}
    with cycles.Cycles.embedded(budgets=budgets) as client, FakeProvider() as provider:
        guards = install(client, model_budget="book", on_denied="message")
        provider.reply(usage={"tokens_input": 200, "tokens_output": 800}, times=3)
        question = [{"role": "user", "content": "What are budgets?"}]
        for number in range(1, 4):
            response = litellm.completion(
                "openai/gpt-4o-mini", question, max_tokens=1_000, api_base=provider.openai_url, api_key="fake"
            )
            [balance] = client.balances()
            text = response.choices[0].message.content
            print(f"run {number}: {text} ({balance.spent} of {balance.allocated} spent)")
        guards.remove()


if __name__ == "__main__":
    main()
