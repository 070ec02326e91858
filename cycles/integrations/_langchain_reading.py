"""What `cycles.integrations.langchain` reads of requests, responses and stream chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.tracers.context import register_configure_hook

import cycles
from cycles import Usage

if TYPE_CHECKING:
    from cycles import AsyncGuard, Guard
    from cycles.integrations._work import Work


class Chunks(BaseCallbackHandler):
    """Counts what a streaming model writes during one guarded call."""

    run_inline = True

    def __init__(self, work: Work, guard: Guard | AsyncGuard) -> None:
        self._work, self._guard = work, guard

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **_: Any) -> None:
        """Count the text of a chunk, and the usage that it reports."""
        message = getattr(chunk, "message", None)
        self._work.streams = True
        self._work.see(token if message is None else message, self._guard)

    def on_stream_event(self, event: Any, **_: Any) -> None:
        """Count the text of an event: `stream_events(version="v3")` reports these instead of tokens."""
        self._work.streams = True
        self._work.see(event, self._guard)


# The handler of the model call that runs in this context. LangChain adds it to the callbacks of that call.
_handler: Final[ContextVar[Chunks | None]] = ContextVar("cycles_chunks", default=None)
register_configure_hook(_handler, inheritable=True)


@contextmanager
def watched(work: Work, guard: Guard | AsyncGuard) -> Iterator[None]:
    """Count what a model call inside of the block streams."""
    token = _handler.set(Chunks(work, guard))
    try:
        yield
    finally:
        _handler.reset(token)


def read_usage(event: Any, usage: Usage) -> bool:
    """Add the usage of every message of a response, or of a chunk."""
    response = getattr(event, "model_response", event)
    messages = getattr(response, "result", [response])
    reported = [message for message in messages if isinstance(message, AIMessage) and message.usage_metadata]
    for message in reported:
        metadata = message.response_metadata
        counted: Mapping[str, Any] = message.usage_metadata or {}
        served_by = metadata.get("model_name") or metadata.get("model")
        usage.see_response(message.id, counts_of(counted), model=served_by, context=tier_of(counted))
    return bool(reported)


def read_tools(content: list[Any], metadata: Mapping[str, Any], usage: Usage) -> None:
    """Add the calls of hosted tools, such as searches: LangChain has them where their provider has them."""
    cycles.usage.openai({"output": content}, usage)
    if isinstance(metadata.get("usage"), Mapping):
        cycles.usage.anthropic({"usage": metadata["usage"]}, usage)
    if isinstance(metadata.get("grounding_metadata"), Mapping):
        candidate = {"grounding_metadata": metadata["grounding_metadata"]}
        cycles.usage.google({"candidates": [candidate], "model_version": metadata.get("model_name")}, usage)


_TIERS: Final = ("priority", "flex")


def counts_of(metadata: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of the usage of a message."""
    of_input, of_output = _details(metadata, "input"), _details(metadata, "output")
    for_1h = of_input.get("ephemeral_1h_input_tokens", 0)
    counts = {
        "tokens_input": metadata.get("input_tokens"),
        "tokens_output": metadata.get("output_tokens"),
        "tokens_cached_input": _of_all_tiers(of_input, "cache_read"),
        # ChatAnthropic reports 0 as the sum of the two if it reports them.
        "tokens_cache_write": max(
            _of_all_tiers(of_input, "cache_creation"), of_input.get("ephemeral_5m_input_tokens", 0) + for_1h
        ),
        "tokens_cache_write_1h": for_1h,
        "tokens_input_audio": of_input.get("audio"),
        "tokens_output_audio": of_output.get("audio"),
        "tokens_reasoning": _of_all_tiers(of_output, "reasoning"),
    }
    return {name: count for name, count in counts.items() if isinstance(count, int) and count > 0}


def _details(metadata: Mapping[str, Any], side: str) -> dict[str, int]:
    found = metadata.get(f"{side}_token_details") or {}
    return {name: count for name, count in found.items() if isinstance(count, int)}


def _of_all_tiers(details: Mapping[str, int], name: str) -> int:
    return sum(details.get(each, 0) for each in (name, *(f"{tier}_{name}" for tier in _TIERS)))


def tier_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the service tier; LangChain puts its name before the names of the counts."""
    names = [*_details(metadata, "input"), *_details(metadata, "output")]
    found = next((tier for tier in _TIERS if any(name.startswith(tier) for name in names)), None)
    return {} if found is None else {"service_tier": found}


def text_of(event: Any) -> Iterator[str]:
    """Yield the text of a stream chunk, arguments of tool calls included. A response yields nothing."""
    if isinstance(event, str):
        yield event
    elif isinstance(event, AIMessage):
        yield str(event.text)
        for part in getattr(event, "tool_call_chunks", ()):
            yield part.get("args") or ""
        for part in event.content if isinstance(event.content, list) else ():
            yield _delta_text(part) if isinstance(part, Mapping) and part.get("type") != "text" else ""
    elif isinstance(event, Mapping) and event.get("event") == "content-block-delta":
        yield _delta_text(event["delta"])


def _delta_text(part: Mapping[str, Any]) -> str:
    """Return what a model wrote into a part of its output: text, thoughts, or arguments of a tool call."""
    found = (part.get(name) for name in ("text", "reasoning", "thinking", "args"))
    return next((text for text in found if isinstance(text, str)), "")


def prompt_of(request: Any) -> list[str]:
    """Return the text that the model reads."""
    return [request.system_prompt or "", *(str(message.text) for message in request.messages)]


def model_name(request: Any) -> str:
    """Return the name of the model of a request."""
    return name_of(request.model)


def name_of(model: Any) -> str:
    """Return the name of a model."""
    names = (getattr(model, name, None) for name in ("model_name", "model", "model_id", "_llm_type"))
    return next((name for name in names if isinstance(name, str) and name), type(model).__name__)


def integer_setting(value: Any) -> int | None:
    """Return a setting if it is an integer, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
