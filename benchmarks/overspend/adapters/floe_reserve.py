"""floe-guard's `reserve(estimate_call())` and `settle`, with the tokens counted as the provider does."""

from __future__ import annotations

from typing import Any

from adapters import floe_call


class Adapter(floe_call.Adapter):
    """A stream that is left is settled at what it made so far, as the program counts it."""

    message = None  # type: ignore[assignment]

    def _reserve(self, body: dict[str, Any]) -> Any:
        return self.guard.reserve(
            self.guard.estimate_call(body["model"], self.job.tokens_in, body.get("max_tokens") or 0)
        )

    def _settle(self, body: dict[str, Any], usage: Any, reserved: Any) -> None:
        cached = usage.prompt_tokens_details.cached_tokens or 0
        self.guard.settle(
            body["model"], usage.prompt_tokens - cached, usage.completion_tokens,
            reserved=reserved, cache_read_input_tokens=cached,
        )  # fmt: skip

    async def call(self, body: dict[str, Any]) -> Any:
        reserved = self._reserve(body)
        try:
            response = await self.llm.chat.completions.create(**body)
        except BaseException:
            self.guard.release(reserved)
            raise
        self._settle(body, response.usage, reserved)
        return response

    async def stream(self, body: dict[str, Any], events: int | None) -> None:
        reserved = self._reserve(body)
        options = {"stream": True, "stream_options": {"include_usage": True}}
        stream = await self.llm.chat.completions.create(**body, **options)
        made = number = 0
        async for chunk in stream:
            number += 1
            made += len(chunk.choices[0].delta.content or "") // 5 if chunk.choices else 0
            if chunk.usage is not None:
                self._settle(body, chunk.usage, reserved)
            if number == events:
                self.guard.settle(body["model"], self.job.tokens_in, made, reserved=reserved)
                break
        await stream.close()
