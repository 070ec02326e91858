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
        count = (lambda model, content: job.tokens_in) if job.counts else None
        if job.case == "tokens" and job.counts:
            count = {"gpt-5": 2_000, "claude-sonnet-4-5": 4_500}.get
        prices = cycles.PriceBook.genai(
            count_tokens=(lambda model, content: count(model)) if job.case == "tokens" and count else count
        )
        options = {"client": self.client, "prices": prices, **job.options}
        self.llm = cycles.providers.guard(self.llm, **options)
        self.claude = cycles.providers.guard(self.claude, **options)

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
