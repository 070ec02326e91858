"""No guard: the SDKs alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import openai

try:
    import anthropic
except ImportError:
    anthropic = None  # type: ignore[assignment]


class Adapter:
    """What a call of the program is. Other adapters replace parts of it."""

    def __init__(self, job: Any) -> None:
        self.job = job
        self.llm: Any = openai.AsyncOpenAI(base_url=f"{job.bank}/v1", api_key="k", max_retries=job.retries, timeout=280)
        if anthropic is not None:
            self.claude: Any = anthropic.AsyncAnthropic(base_url=job.bank, api_key="k", max_retries=0)

    def is_denial(self, error: Exception) -> bool:
        """Whether an exception means that the budget does not allow the call."""
        return False

    async def call(self, body: dict[str, Any]) -> Any:
        """Get a whole response."""
        return await self.llm.chat.completions.create(**body)

    async def stream(self, body: dict[str, Any], events: int | None) -> None:
        """Read a stream to its end, or leave it after so many events."""
        options = {"stream": True, "stream_options": {"include_usage": True}}
        stream = await self.llm.chat.completions.create(**body, **options)
        number = 0
        async for _ in stream:
            number += 1
            if number == events:
                break
        await (stream.close() if hasattr(stream, "close") else stream.aclose())

    @contextlib.asynccontextmanager
    async def agent(self, name: str, usd: str) -> AsyncIterator[Any]:
        """Run a sub-agent, and give it what makes a call."""
        yield self.call

    async def message(self, body: dict[str, Any]) -> Any:
        """Get a whole response of Claude."""
        return await self.claude.messages.create(**body)
