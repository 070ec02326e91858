"""An agent of Microsoft Agent Framework under a budget: each model call and tool call is reserved, charged, or denied.

The model is fake and the server is embedded, so it needs no key and no network: `python agent_framework_agent.py`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from agent_framework import (
    Agent,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    Content,
    FunctionInvocationLayer,
    Message,
)

import cycles
from cycles.integrations.agent_framework import CyclesChatMiddleware, CyclesFunctionMiddleware


class FakeClient(FunctionInvocationLayer, ChatMiddlewareLayer, BaseChatClient):  # type: ignore[type-arg]
    """Searches once, then answers."""

    model = "fake-model"

    def _inner_get_response(self, *, messages: Any, stream: bool, options: Any, **more: Any) -> Any:
        return self._respond(messages)

    async def _respond(self, messages: Any) -> ChatResponse:
        content = Content.from_function_call("call-1", "search", arguments={"query": "budgets"})
        if any(part.type == "function_result" for message in messages for part in message.contents):
            content = Content.from_text("Done.")
        used: Any = {"input_token_count": 900, "output_token_count": 100}
        return ChatResponse(messages=[Message("assistant", [content])], usage_details=used)


def search(query: str) -> str:
    """Search the web."""
    return f"three pages about {query}"


async def main() -> None:
    with cycles.Cycles.embedded(budgets={"tenant:acme": cycles.tokens(5_500)}) as client:
        models = CyclesChatMiddleware(client, model_budget=cycles.tokens(2_000), on_denied="message")
        tools = CyclesFunctionMiddleware(client, tool_budget={"search": cycles.tokens(100)})
        agent: Any = Agent(client=FakeClient(), name="helper", tools=[search], middleware=[models, tools])
        for number in range(1, 4):
            answer = await agent.run("What are budgets?")
            [balance] = client.balances()
            print(f"run {number}: {answer.text} ({balance.spent} of {balance.allocated} spent)")


if __name__ == "__main__":
    asyncio.run(main())
