"""What `cycles.integrations.langchain` reads of requests, responses and stream chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage
from langchain_core.tracers.context import register_configure_hook

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
        served_by = metadata.get("model_name") or metadata.get("model")
        usage.see_response(message.id, _counts(message.usage_metadata or {}), model=served_by)
    return bool(reported)


def _counts(metadata: Mapping[str, Any]) -> dict[str, int]:
    of_input = metadata.get("input_token_details") or {}
    of_output = metadata.get("output_token_details") or {}
    counts = {
        "tokens_input": metadata.get("input_tokens"),
        "tokens_output": metadata.get("output_tokens"),
        "tokens_cached_input": of_input.get("cache_read"),
        "tokens_cache_write": of_input.get("cache_creation"),
        "tokens_reasoning": of_output.get("reasoning"),
    }
    return {name: count for name, count in counts.items() if isinstance(count, int) and count > 0}


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
    model = request.model
    names = (getattr(model, name, None) for name in ("model_name", "model", "model_id", "_llm_type"))
    return next((name for name in names if isinstance(name, str) and name), type(model).__name__)


def tool_name(tool: Any) -> str:
    """Return the name of a tool; one of a provider is a mapping without a name."""
    if not isinstance(tool, Mapping):
        return str(getattr(tool, "name", ""))
    return str(tool.get("name") or (tool.get("function") or {}).get("name") or tool.get("type") or "")


def integer_setting(value: Any) -> int | None:
    """Return a setting if it is an integer, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
