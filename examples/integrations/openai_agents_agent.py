"""An agent of the OpenAI Agents SDK under a budget: each model call and each search is reserved, charged, or denied.

The model is fake and the server is embedded, so it needs no key and no network: `python openai_agents_agent.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelProvider, ModelResponse, RunConfig, Runner, Usage, function_tool
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText

import cycles
from cycles.integrations.openai_agents import GuardedProvider, guard_tool


class FakeModel(Model):
    """Searches once, then answers."""

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **options: Any) -> ModelResponse:  # noqa: A002
        has_searched = any(item.get("type") == "function_call_output" for item in input)
        content = ResponseOutputText(text="Done.", type="output_text", annotations=[])
        output: Any = ResponseFunctionToolCall(
            name="search", arguments='{"query": "budgets"}', call_id="call-1", type="function_call"
        )
        if has_searched:
            output = ResponseOutputMessage(
                id="message-1", content=[content], role="assistant", status="completed", type="message"
            )
        usage = Usage(requests=1, input_tokens=900, output_tokens=100, total_tokens=1000)
        return ModelResponse(output=[output], usage=usage, response_id=None)

    def stream_response(self, *_: Any, **options: Any) -> AsyncIterator[Any]:
        raise NotImplementedError


class FakeProvider(ModelProvider):
    """Has one model."""

    def get_model(self, model_name: str | None) -> Model:
        return FakeModel()


async def main() -> None:
    with cycles.Cycles.embedded(budgets={"tenant:acme": cycles.tokens(5_500)}) as client:

        @function_tool
        @guard_tool(client, tool_budget=cycles.tokens(100))
        def search(query: str) -> str:
            """Search the web."""
            return f"three pages about {query}"

        provider = GuardedProvider(
            client, provider=FakeProvider(), model_budget=cycles.tokens(2_000), on_denied="message"
        )
        agent = Agent(name="Assistant", model="small-model", tools=[search])
        config = RunConfig(model_provider=provider, tracing_disabled=True)
        for number in range(1, 4):
            result = await Runner.run(agent, "What are budgets?", run_config=config)
            [balance] = client.balances()
            print(f"run {number}: {result.final_output} ({balance.spent} of {balance.allocated} spent)")


if __name__ == "__main__":
    asyncio.run(main())
