"""A LangChain agent under a budget: each model call and each tool call is reserved, charged, or denied.

The model is fake and the server is embedded, so it needs no key and no network: `python langchain_agent.py`.
"""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

import cycles
from cycles.integrations.langchain import CyclesMiddleware

USAGE: Any = {"input_tokens": 900, "output_tokens": 100, "total_tokens": 1000}


class FakeModel(GenericFakeChatModel):
    """Searches once, then answers."""

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        return self


@tool
def search(query: str) -> str:
    """Search the web."""
    return f"three pages about {query}"


def main() -> None:
    with cycles.Cycles.embedded(budgets={"tenant:acme": cycles.tokens(5_500)}) as client:
        middleware = CyclesMiddleware(
            client,
            model_budget=cycles.tokens(2_000),
            tool_budget={"search": cycles.tokens(100)},
            on_denied="message",
        )
        for number in range(1, 4):
            calls: Any = [{"name": "search", "args": {"query": "budgets"}, "id": f"call-{number}"}]
            replies = [AIMessage("", tool_calls=calls, usage_metadata=USAGE), AIMessage("Done.", usage_metadata=USAGE)]
            agent: Any = create_agent(FakeModel(messages=iter(replies)), [search], middleware=[middleware])
            messages = agent.invoke({"messages": [("user", "What are budgets?")]})["messages"]
            [balance] = client.balances()
            print(f"run {number}: {messages[-1].text} ({balance.spent} of {balance.allocated} spent)")


if __name__ == "__main__":
    main()
