"""floe-guard's `reserve(estimate_call())` and `settle`, with the tokens counted as the provider does."""

from __future__ import annotations

from typing import Any

from adapters import floe_call
from floe_guard import StreamGuard


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
        number = 0
        # `guard_stream` is this class around a sync iterator.
        with StreamGuard(
            self.guard, body["model"], prompt_tokens=self.job.tokens_in, reserved=reserved,
            count_tokens=lambda text: len(text.split()),
        ) as metered:  # fmt: skip
            async for chunk in stream:
                number += 1
                if chunk.choices:
                    metered.feed_text(chunk.choices[0].delta.content or "")
                if chunk.usage is not None:
                    used = {"prompt_tokens": chunk.usage.prompt_tokens}
                    metered.finish(**used, completion_tokens=chunk.usage.completion_tokens)
                if number == events:
                    break
        await stream.close()
