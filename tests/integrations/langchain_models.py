"""Fake models of LangChain, and their messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import cycles

pytest.importorskip("langchain", reason="langchain is not installed: run make test-integrations")

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

TOKENS = cycles.tokens


def usage(tokens_input: int, tokens_output: int, **details: int) -> Any:
    total = tokens_input + tokens_output
    found = {"input_tokens": tokens_input, "output_tokens": tokens_output, "total_tokens": total}
    return {**found, "input_token_details": details} if details else found


def says(
    text: str = "done", *calls: tuple[str, dict[str, Any]], tokens: Any = None, call_id: str = "call-1"
) -> AIMessage:
    tool_calls: Any = [{"name": name, "args": args, "id": call_id} for name, args in calls]
    return AIMessage(text, tool_calls=tool_calls, usage_metadata=usage(10, 5) if tokens is None else tokens)


class Model(BaseChatModel):
    """A model that returns what it was told, and streams it word by word. It keeps what it was asked with."""

    replies: list[Any]
    asked: list[dict[str, Any]] = Field(default_factory=list)
    model_name: str = "small-model"

    @property
    def _llm_type(self) -> str:
        return "fake"

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **options: Any) -> Any:
        return self.bind(tools=[getattr(each, "name", each) for each in tools], tool_choice=tool_choice, **options)

    def _next(self, options: dict[str, Any]) -> Any:
        self.asked.append(options)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **options: Any
    ) -> ChatResult:
        reply = self._next(options)
        return ChatResult(generations=[ChatGeneration(message=reply.model_copy(update={"id": None}))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: Any = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **options: Any,
    ) -> Iterator[ChatGenerationChunk]:
        reply = self._next(options)
        for word in reply.text.split(" "):
            if word == "BREAK":
                raise ConnectionError("the model broke off")
            yield ChatGenerationChunk(message=AIMessageChunk(f"{word} "))
        yield ChatGenerationChunk(message=AIMessageChunk("", usage_metadata=reply.usage_metadata))


class SlowModel(Model):
    """A model whose stream lets other tasks run between words."""

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any
    ) -> AsyncIterator[Any]:
        for chunk in self._stream(messages, **options):
            await asyncio.sleep(0)
            yield chunk
            await asyncio.sleep(0)


class StuckModel(Model):
    """A model whose stream begins with an empty chunk and never continues."""

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **options: Any
    ) -> AsyncIterator[Any]:
        yield ChatGenerationChunk(message=AIMessageChunk(""))
        await asyncio.Event().wait()
