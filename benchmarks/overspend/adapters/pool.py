"""A pool of the client: estimate and price by the price book."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import openai
from adapters import none

import cycles


class Adapter(none.Adapter):
    """Each call is a guard of the pool."""

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        self.llm = self.llm.with_options(max_retries=0)
        self.client = cycles.Cycles(
            base_url=job.server, api_key="key", tenant="acme", journal_dir=f"{job.folder}/journal"
        )
        self.prices = cycles.PriceBook.genai()
        most = cycles.usd(job.budget // 100_000_000)
        self.pool = self.client.pool(limit=most, max_held=most, action=("llm.completion", job.model), **job.options)

    async def __aenter__(self) -> Any:
        await self.pool.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self.client.aclose()

    def is_denial(self, error: Exception) -> bool:
        return isinstance(error, cycles.ReservationDeniedError | cycles.UnknownModelError)

    async def call(self, body: dict[str, Any]) -> Any:
        for _ in range(self.job.retries):
            with contextlib.suppress(openai.InternalServerError, openai.APIConnectionError):
                return await self._attempt(body, super().call)
        return await self._attempt(body, super().call)

    async def message(self, body: dict[str, Any]) -> Any:
        return await self._attempt(body, super().message)

    @contextlib.asynccontextmanager
    async def agent(self, name: str, usd: str) -> AsyncIterator[Any]:
        """A sub-agent with a limit."""
        async with cycles.limit(cycles.usd(usd)):
            yield self.call

    async def _attempt(self, body: dict[str, Any], send: Any) -> Any:
        """Each attempt is a guard. Its estimate is written ahead: a killed process and a lost response cost it."""
        most = self.prices.estimate(body["model"], body, max_output_tokens=body["max_tokens"])
        async with self.pool.reserve(most) as guard:
            guard.spend(most)
            try:
                response = await send(body)
            except openai.APIStatusError:
                await guard.release("the provider returned an error")
                raise
            await guard.commit(self.prices(response))
            return response

    async def stream(self, body: dict[str, Any], events: int | None) -> None:
        most = self.prices.estimate(body["model"], body, max_output_tokens=body["max_tokens"])
        async with self.pool.reserve(most, actual=self.prices) as guard:
            options = {"stream": True, "stream_options": {"include_usage": True}}
            stream = await self.llm.chat.completions.create(**body, **options)
            made = number = 0
            async for chunk in stream:
                cycles.usage.openai(chunk, guard.usage)
                made += len(chunk.choices[0].delta.content or "") // 5 if chunk.choices else 0
                number += 1
                if number == events:
                    guard.usage.add(tokens_input=self.job.tokens_in, tokens_output=made)
                    break
            await stream.close()

    async def settle(self) -> None:
        await self.pool.__aexit__(None, None, None)
        await self.client.aio.flush(timeout=30)
