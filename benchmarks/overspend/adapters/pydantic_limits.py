"""Pydantic AI: `UsageLimits(cost_limit=...)` and one `RunUsage` for all runs."""

from __future__ import annotations

import warnings
from decimal import Decimal
from typing import Any

from adapters import none
from pydantic_ai import Agent, RunUsage, UsageLimits
from pydantic_ai.exceptions import UsageLimitExceeded
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

warnings.simplefilter("ignore")


class Adapter(none.Adapter):
    """Each call is a run of an agent without tools."""

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        self.usage = RunUsage()
        self.limits = UsageLimits(cost_limit=Decimal(job.budget) / 10**8, request_limit=None)

    def is_denial(self, error: Exception) -> bool:
        return isinstance(error, UsageLimitExceeded)

    def _model(self, name: str) -> Any:
        return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=self.llm))

    def _run(self, body: dict[str, Any], fallback: tuple[str, str] | None = None) -> tuple[Any, dict[str, Any]]:
        settings = {"max_tokens": body["max_tokens"]} if "max_tokens" in body else {}
        model = self._model(body["model"]) if fallback is None else FallbackModel(*map(self._model, fallback))
        given = {"user_prompt": body["messages"][0]["content"], "usage": self.usage, "usage_limits": self.limits}
        return Agent(model, model_settings=settings), given

    async def call(self, body: dict[str, Any]) -> Any:
        agent, given = self._run(body)
        return await agent.run(**given)

    async def fallback(self, body: dict[str, Any], *models: str) -> Any:
        agent, given = self._run(body, models)  # type: ignore[arg-type]
        return await agent.run(**given)

    async def stream(self, body: dict[str, Any], events: int | None) -> None:
        agent, given = self._run(body)
        async with agent.run_stream(**given) as run:
            number = 0
            async for _ in run.stream_text(delta=True, debounce_by=None):
                number += 1
                if number == events:
                    break

    async def message(self, body: dict[str, Any]) -> Any:
        model = AnthropicModel(body["model"], provider=AnthropicProvider(anthropic_client=self.claude))
        agent = Agent(model, model_settings={"max_tokens": body["max_tokens"]})
        text = body["messages"][0]["content"][-1]["text"]
        return await agent.run(text, usage=self.usage, usage_limits=self.limits)

    async def counted(self) -> float:
        return float(self.usage.cost or 0) * 1e8
