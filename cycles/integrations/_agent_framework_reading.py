"""What `cycles.integrations.agent_framework` reads of calls and responses, and makes for a denial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from agent_framework import ChatContext, ChatResponse, ChatResponseUpdate, Content, Message

import cycles
from cycles import Usage
from cycles.integrations._shared import code_of, tool_name

_READERS: Final = {"openai": cycles.usage.openai, "anthropic": cycles.usage.anthropic, "google": cycles.usage.google}
"""What reads a response or an event of an SDK, which the framework keeps beside its own form."""
_COUNTS: Final = {
    "tokens_output": "output_token_count",
    "tokens_cached_input": "cache_read_input_token_count",
    "tokens_cache_write": "cache_creation_input_token_count",
    "tokens_reasoning": "reasoning_output_token_count",
    "tokens_input_audio": "prompt/audio_tokens",
    "tokens_output_audio": "completion/audio_tokens",
}


def model_name(context: ChatContext) -> str:
    """Return the name of the model of a call."""
    options: Mapping[str, Any] = context.options or {}
    found = (options.get("model"), options.get("model_id"))
    of_client = (getattr(context.client, name, None) for name in ("model", "model_id"))
    names = (name for name in (*found, *of_client) if isinstance(name, str) and name)
    return next(names, type(context.client).__name__)


def read_usage(event: Any, usage: Usage, *, model: str) -> bool:
    """Add the usage of a response, or of an update of a stream. Returns True if it is complete.

    The response of the SDK itself is read if the framework has kept it: its own counts have no searches, no service
    tier, and not how long a cache is kept.
    """
    raw = getattr(event, "raw_representation", None)
    reader = _READERS.get(type(raw).__module__.partition(".")[0])
    reported = getattr(event, "usage_details", None)
    parts = getattr(event, "contents", None) or ()
    if reported is None:
        reported = next((part.usage_details for part in parts if part.type == "usage"), None)
    if reader is not None:
        reader(raw, usage)
    elif reported:
        served_by = getattr(event, "model", None) or model
        usage.see_response("response", _counts(reported), model=str(served_by)[:128])
    # Claude reports its input before it writes, and Gemini counts beside each part of its text.
    return bool(reported) and getattr(raw, "type", None) != "message_start" and not any(text_of(event))


def _counts(reported: Mapping[str, Any]) -> dict[str, int]:
    counts = {count: _integer(reported.get(name)) for count, name in _COUNTS.items()}
    given = _integer(reported.get("input_token_count"))
    cached = counts["tokens_cached_input"] + counts["tokens_cache_write"]
    # Some clients, such as that of Bedrock, report what was cached beside the input, others as a part of it.
    is_beside = cached > given or reported.get("total_token_count") == given + cached + counts["tokens_output"]
    counts["tokens_input"] = given + cached if is_beside else given
    return {name: n for name, n in counts.items() if n > 0}


def _integer(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


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


def denial_of(error: Exception, text: str, *, streamed: bool) -> Any:
    """Return the response with the message of a denial, or the only update of a stream."""
    contents = [Content.from_text(text)]
    properties = {"cycles_denied": code_of(error)}
    if streamed:
        return ChatResponseUpdate(role="assistant", contents=contents, additional_properties=properties)
    return ChatResponse(messages=[Message("assistant", contents)], additional_properties=properties)
