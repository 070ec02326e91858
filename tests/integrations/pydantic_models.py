"""A fake model of Pydantic AI, and its responses."""

from __future__ import annotations

from typing import Any

import pytest

import cycles

pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed: run make test-integrations")

from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from pydantic_ai.usage import RequestUsage

TOKENS = cycles.tokens


def says(text: str = "done", *calls: tuple[str, dict[str, Any]], tokens: tuple[int, int] = (10, 5), **more: int) -> Any:
    parts: list[Any] = [TextPart(text)] if text else []
    parts += [ToolCallPart(name, args, tool_call_id="c") for name, args in calls]
    usage = RequestUsage(input_tokens=tokens[0], output_tokens=tokens[1], **more)
    return ModelResponse(parts=parts, usage=usage)


class Fake:
    """What a model returns or streams, word by word. It keeps what it was asked with."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.asked: list[Any] = []
        self.model = FunctionModel(self.reply, stream_function=self.stream, model_name="small-model")

    async def reply(self, messages: Any, info: Any) -> Any:
        self.asked.append(info)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if callable(reply):
            reply = await reply()
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def stream(self, messages: Any, info: Any) -> Any:
        reply = await self.reply(messages, info)
        for word in reply.parts[0].content.split(" "):
            if word == "BREAK":
                raise ConnectionError("the model broke off")
            yield f"{word} "
