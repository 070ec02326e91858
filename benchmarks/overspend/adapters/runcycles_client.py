"""runcycles, another client of the protocol: `@cycles(estimate=, actual=)` and `stream_reservation`, on our server."""

from __future__ import annotations

from typing import Any

from adapters import none
from runcycles import Action, Amount, AsyncCyclesClient, CyclesConfig, Subject, Unit, cycles
from runcycles.exceptions import CyclesProtocolError

PRICES = {"gpt-4o": (250, 1_000), "gpt-4o-mini": (15, 60), "gpt-5": (125, 1_000)}
"""Microcents for a token: the program gives them by hand."""


class Adapter(none.Adapter):
    """The tokens of a prompt are counted as the provider does. A model without a price cannot be estimated."""

    message = None  # type: ignore[assignment]

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        self.client = AsyncCyclesClient(CyclesConfig(base_url=job.server, api_key="key", tenant="acme"))

        @cycles(
            estimate=self._estimate,
            actual=lambda response: self._cost(response.model, response.usage),
            action_kind="llm.completion",
            action_name=job.model,
            unit="USD_MICROCENTS",
            client=self.client,
        )
        async def guarded(body: dict[str, Any]) -> Any:
            return await self.llm.chat.completions.create(**body)

        self.guarded = guarded

    def is_denial(self, error: Exception) -> bool:
        return isinstance(error, CyclesProtocolError | KeyError)

    def _estimate(self, body: dict[str, Any]) -> int:
        read, written = PRICES[body["model"]]
        return self.job.tokens_in * read + body["max_tokens"] * written

    def _cost(self, model: str, usage: Any) -> int:
        read, written = PRICES[model]
        return usage.prompt_tokens * read + usage.completion_tokens * written

    async def call(self, body: dict[str, Any]) -> Any:
        return await self.guarded(body)

    async def stream(self, body: dict[str, Any], events: int | None) -> None:
        read, written = PRICES[body["model"]]
        options = {"stream": True, "stream_options": {"include_usage": True}}
        async with self.client.stream_reservation(
            subject=Subject(tenant="acme"),
            action=Action(kind="llm.completion", name=body["model"]),
            estimate=Amount(unit=Unit.USD_MICROCENTS, amount=self._estimate(body)),
            cost_fn=lambda used: used.tokens_input * read + used.tokens_output * written,
        ) as reservation:
            stream = await self.llm.chat.completions.create(**body, **options)
            number = 0
            async for chunk in stream:
                if chunk.usage is not None:
                    reservation.usage.tokens_input = chunk.usage.prompt_tokens
                    reservation.usage.tokens_output = chunk.usage.completion_tokens
                number += 1
                if number == events:
                    break
            await stream.close()

    async def settle(self) -> None:
        await self.client.aclose()
