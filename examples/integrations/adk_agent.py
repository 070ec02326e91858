"""An ADK agent under a budget: each model call and each tool call is reserved, charged, or denied.

The model is fake and the server is embedded, so it needs no key and no network: `python adk_agent.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from google.adk.agents import LlmAgent
from google.adk.apps import App
from google.adk.models import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import InMemoryRunner
from google.genai import types

import cycles
from cycles.integrations.adk import CyclesPlugin, guard


class FakeModel(BaseLlm):
    """Searches once, then answers."""

    model: str = "fake-model"

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        part = types.Part(function_call=types.FunctionCall(name="search", args={"query": "budgets"}))
        if any(each.function_response for each in llm_request.contents[-1].parts or ()):
            part = types.Part(text="Done.")
        used = types.GenerateContentResponseUsageMetadata(prompt_token_count=900, candidates_token_count=100)
        yield LlmResponse(content=types.Content(role="model", parts=[part]), usage_metadata=used)


def search(query: str) -> dict[str, str]:
    """Search the web."""
    return {"found": f"three pages about {query}"}


async def main() -> None:
    with cycles.Cycles.embedded(budgets={"tenant:acme": cycles.tokens(5_500)}) as client:
        model = guard(FakeModel(), client, model_budget=cycles.tokens(2_000), on_denied="message")
        agent = LlmAgent(name="helper", model=model, tools=[search])
        plugin = CyclesPlugin(client, tool_budget={"search": cycles.tokens(100)})
        runner = InMemoryRunner(app=App(name="app", root_agent=agent, plugins=[plugin]))
        question = types.Content(role="user", parts=[types.Part(text="What are budgets?")])
        for number in range(1, 4):
            session = await runner.session_service.create_session(app_name="app", user_id="u")
            answer = None
            async for event in runner.run_async(user_id="u", session_id=session.id, new_message=question):
                answer = event.content.parts[0].text if event.content and event.content.parts else answer
            [balance] = client.balances()
            print(f"run {number}: {answer} ({balance.spent} of {balance.allocated} spent)")


if __name__ == "__main__":
    asyncio.run(main())
