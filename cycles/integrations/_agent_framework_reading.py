"""What `cycles.integrations.agent_framework` reads of calls and responses, and makes for a denial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from agent_framework import ChatContext, ChatResponse, ChatResponseUpdate, Content, Message

from cycles import Usage
from cycles.integrations._shared import code_of

_COUNTS: Final = {
    "tokens_output": ("output_token_count",),
    "tokens_cached_input": (
        *("cache_read_input_token_count", "openai.cached_input_tokens", "anthropic.cache_read_input_tokens"),
        "prompt/cached_tokens",
    ),
    "tokens_cache_write": ("cache_creation_input_token_count", "anthropic.cache_creation_input_tokens"),
    "tokens_reasoning": (*("reasoning_output_token_count", "openai.reasoning_tokens", "completion/reasoning_tokens"),),
    "tokens_input_audio": ("prompt/audio_tokens",),
    "tokens_output_audio": ("completion/audio_tokens",),
}
"""The names that versions and clients of the framework have for each count; the first that is reported applies."""


def model_name(context: ChatContext) -> str:
    """Return the name of the model of a call."""
    options: Mapping[str, Any] = context.options or {}
    found = (options.get("model"), options.get("model_id"))
    of_client = (getattr(context.client, name, None) for name in ("model", "model_id"))
    names = (name for name in (*found, *of_client) if isinstance(name, str) and name)
    return next(names, type(context.client).__name__)


def read_usage(event: Any, usage: Usage, *, model: str) -> bool:
    """Add the usage of a response, or of an update of a stream. Returns True if it reports any."""
    reported = getattr(event, "usage_details", None)
    if reported is None:
        parts = getattr(event, "contents", None) or ()
        reported = next((part.usage_details for part in parts if part.type == "usage"), None)
    if not reported:
        return False
    served_by = getattr(event, "model", None) or getattr(event, "model_id", None) or model
    usage.see_response("response", _counts(reported), model=str(served_by)[:128])
    return True


def _counts(reported: Mapping[str, Any]) -> dict[str, int]:
    counts = {count: _first(reported, names) for count, names in _COUNTS.items()}
    given = _first(reported, ("input_token_count",))
    cached = counts["tokens_cached_input"] + counts["tokens_cache_write"]
    # Clients of Anthropic report what was cached beside the input, others as a part of it.
    total = _first(reported, ("total_token_count",))
    is_beside = cached > given or total == given + cached + counts["tokens_output"]
    counts["tokens_input"] = given + cached if is_beside else given
    return {name: n for name, n in counts.items() if n > 0}


def _first(reported: Mapping[str, Any], names: tuple[str, ...]) -> int:
    found = (reported.get(name) for name in names)
    return next((n for n in found if isinstance(n, int) and not isinstance(n, bool)), 0)


def text_of(event: Any) -> Iterator[str]:
    """Yield the text of an update, arguments of tool calls included. A response yields nothing."""
    for part in event.contents if isinstance(event, ChatResponseUpdate) else ():
        if part.type in ("text", "text_reasoning"):
            yield part.text or ""
        elif part.type == "function_call":
            yield str(part.arguments or "")


def prompt_of(context: ChatContext) -> list[str]:
    """Return the text that the model reads."""
    return [str((context.options or {}).get("instructions") or ""), *(message.text for message in context.messages)]


def limit_of(context: ChatContext) -> int | None:
    """Return the output limit of a call."""
    limit = (context.options or {}).get("max_tokens")
    return limit if isinstance(limit, int) and not isinstance(limit, bool) else None


def apply_caps(context: ChatContext, guard: Any) -> None:
    """Give the call other options, with a lower output limit and without forbidden tools."""
    if not guard.is_capped:
        return
    options = dict(context.options or {})
    most = guard.max_tokens(limit_of(context))
    if most is not None:
        options["max_tokens"] = most
    given = options.get("tools")
    tools = list(given) if isinstance(given, list | tuple) else [] if given is None else [given]
    allowed = guard.filter_tools(tools, tool_name)
    if len(allowed) < len(tools):
        options["tools"] = allowed
        options["tool_choice"] = "auto" if allowed else None
    context.options = options


def tool_name(tool: Any) -> str:
    """Return the name of a tool; one of a provider is a mapping with a type."""
    if not isinstance(tool, Mapping):
        return str(getattr(tool, "name", ""))
    return str(tool.get("name") or (tool.get("function") or {}).get("name") or tool.get("type") or "")


def denial_of(error: Exception, text: str, *, streamed: bool) -> Any:
    """Return the response with the message of a denial, or the only update of a stream."""
    contents = [Content.from_text(text)]
    properties = {"cycles_denied": code_of(error)}
    if streamed:
        return ChatResponseUpdate(role="assistant", contents=contents, additional_properties=properties)
    return ChatResponse(messages=[Message("assistant", contents)], additional_properties=properties)
