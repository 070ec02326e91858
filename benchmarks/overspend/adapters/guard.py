"""`cycles.providers.guard` around the clients of the SDKs, on a server of `cycles dev`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from adapters import none

import cycles


class Adapter(none.Adapter):
    """The column decides the options: ``options`` of the job are those of `guard`."""

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        self.client = cycles.Cycles(
            base_url=job.server, api_key="key", tenant="acme", journal_dir=f"{job.folder}/journal"
        )
        prices = cycles.PriceBook.genai(count_tokens=self._count if job.counts else None)
        options = {"client": self.client, "prices": prices, **job.options}
        self.llm = cycles.providers.guard(self.llm, **options)
        self.claude = cycles.providers.guard(self.claude, **options)

    def _count(self, model: str, content: Any) -> int:
        """Count as the provider does: the input as planned, and a token for each word of output."""
        if isinstance(content, str):
            return len(content.split())
        planned = self.job.plan.get("tokens", {}).get(model)
        return planned["read"] if planned else self.job.tokens_in

    def is_denial(self, error: Exception) -> bool:
        return isinstance(error, cycles.ReservationDeniedError | cycles.UnknownModelError)

    @contextlib.asynccontextmanager
    async def agent(self, name: str, usd: str) -> AsyncIterator[Any]:
        """A sub-agent with a limit."""
        async with cycles.limit(cycles.usd(usd)):
            yield self.call

    async def settle(self) -> None:
        await self.client.aio.flush(timeout=30)
        await self.client.aclose()
