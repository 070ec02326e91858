"""Models, a provider and a tool for the tests of the OpenAI Agents SDK; no request leaves the process."""

from __future__ import annotations

import asyncio
from typing import Any

from agents import (
    Agent,
    Model,
    ModelProvider,
    ModelResponse,
    RunConfig,
    Runner,
    Usage,
)
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFailedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

import cycles

TOKENS = cycles.tokens
FAILS = "FAILS"  # a text that ends so is streamed, and then fails


def message(text: str) -> ResponseOutputMessage:
    content = ResponseOutputText(text=text, type="output_text", annotations=[])
    return ResponseOutputMessage(id="m", content=[content], role="assistant", status="completed", type="message")


def says(text: str = "done", *calls: tuple[str, str], tokens: tuple[int, int] = (10, 5), call_id: str = "c") -> Any:
    output: list[Any] = [message(text)] if text else []
    output += [
        ResponseFunctionToolCall(name=name, arguments=args, call_id=call_id, type="function_call")
        for name, args in calls
    ]
    usage = Usage(requests=1, input_tokens=tokens[0], output_tokens=tokens[1], total_tokens=sum(tokens))
    return ModelResponse(output=output, usage=usage, response_id=None)


class Fake(Model):
    """A model that returns what it was told, or streams it word by word. It keeps what it was asked with."""

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.asked: list[dict[str, Any]] = []
        self.closed = 0

    async def get_response(
        self,
        system_instructions: Any,
        input: Any,  # noqa: A002 - named so by the SDK
        model_settings: Any,
        tools: Any,
        *_: Any,
        **more: Any,
    ) -> Any:
        self.asked.append({"settings": model_settings, "tools": [tool.name for tool in tools], **more})
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if callable(reply):
            reply = await reply()
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def stream_response(self, *args: Any, **more: Any) -> Any:
        reply = await self.get_response(*args, **more)
        text = reply.output[0].content[0].text
        for word in text.split(" "):
            if word == "BREAK":
                raise ConnectionError("the model broke off")
            if word == FAILS:
                break
            await asyncio.sleep(0)  # a model lets other tasks run
            yield ResponseTextDeltaEvent(
                content_index=0, delta=word, item_id="m", output_index=0, sequence_number=0, logprobs=[],
                type="response.output_text.delta",
            )  # fmt: skip
        used = reply.usage
        usage = ResponseUsage(
            input_tokens=used.input_tokens, output_tokens=used.output_tokens, total_tokens=used.total_tokens,
            input_tokens_details=InputTokensDetails(cached_tokens=0, cache_write_tokens=0),
            output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        )  # fmt: skip
        response = Response(
            id="r1", created_at=0, model="small-model-2026", object="response", output=reply.output,
            tool_choice="none", tools=[], parallel_tool_calls=False, usage=usage,
        )  # fmt: skip
        if text.endswith(FAILS):
            failed = response.model_copy(update={"status": "failed", "usage": usage if used.total_tokens else None})
            yield ResponseFailedEvent(response=failed, sequence_number=1, type="response.failed")
        else:
            yield ResponseCompletedEvent(response=response, sequence_number=1, type="response.completed")

    async def close(self) -> None:
        self.closed += 1


class Provider(ModelProvider):
    def __init__(self, model: Model) -> None:
        self.model = model
        self.closed = 0

    def get_model(self, model_name: str | None) -> Model:
        return self.model

    async def aclose(self) -> None:
        self.closed += 1


def search(query: str) -> str:
    """Search.

    Args:
        query: What to search.
    """
    if query == "fail":
        raise RuntimeError("no network at tenant:acme")
    return f"found {query}"


SEARCH = ("search", '{"query": "x"}')


async def run_agent(model: Model, *tools: Any, **options: Any) -> Any:
    agent = Agent(name="a", model=model, tools=list(tools), **options)
    return await Runner.run(agent, "hello", run_config=RunConfig(tracing_disabled=True))


def outputs(result: Any) -> list[str]:
    """Return what the model read as results of tools."""
    return [item.output for item in result.new_items if item.type == "tool_call_output_item"]
