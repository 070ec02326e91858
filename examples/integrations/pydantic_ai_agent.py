"""A Pydantic AI agent under a budget: each model request and each tool call is reserved, charged, or denied.

The model is fake and the server is embedded, so it needs no key and no network: `python pydantic_ai_agent.py`.
"""

from __future__ import annotations

from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.usage import RequestUsage

import cycles
from cycles.integrations.pydantic_ai import CyclesCapability


def answer(messages: list[Any], info: Any) -> ModelResponse:
    """Search once, then answer."""
    has_searched = any(isinstance(part, ToolReturnPart) for message in messages for part in message.parts)
    part: Any = TextPart("Done.") if has_searched else ToolCallPart("search", {"query": "budgets"})
    return ModelResponse(parts=[part], usage=RequestUsage(input_tokens=900, output_tokens=100))


def search(query: str) -> str:
    """Search the web."""
    return f"three pages about {query}"


def main() -> None:
    with cycles.Cycles.embedded(budgets={"tenant:acme": cycles.tokens(5_500)}) as client:
        capability = CyclesCapability(
            client,
            model_budget=cycles.tokens(2_000),
            tool_budget={"search": cycles.tokens(100)},
            on_denied="message",
        )
        agent: Any = Agent(FunctionModel(answer), tools=[search], capabilities=[capability])
        for number in range(1, 4):
            result = agent.run_sync("What are budgets?")
            [balance] = client.balances()
            print(f"run {number}: {result.output} ({balance.spent} of {balance.allocated} spent)")


if __name__ == "__main__":
    main()
