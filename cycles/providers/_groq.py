"""Groq: OpenAI's wire format, with usage in a member of its own at the end of a stream. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from attrs import evolve

from cycles._core.values.usage import Usage
from cycles._usage import readers
from cycles.providers import _openai
from cycles.providers._provider import Endpoint, Hook, Mark, Reported, StreamRules, no_cost

name: Final = "groq"
clients: Final = ("groq.Groq", "groq.AsyncGroq")
hook: Final[Hook] = "stainless"
prices: Final = "groq"
price_by: Final[Literal["response"]] = "response"
is_copied: Final = False
vertex: Final[Mapping[str, str]] = {}

_PATHS: Final = (
    "/chat/completions",
    "/responses",
    "/embeddings",
    "/audio/transcriptions",
    "/audio/translations",
    "/audio/speech",
)
metered: Final[Mapping[str, Endpoint]] = {path: evolve(_openai.metered[path], tier="") for path in _PATHS}
free: Final = ("/files", "**/cancel")
_DEAREST: Final = "performance"
"""The one service tier that costs another price than the others."""

_TOOLS: Final = {
    **dict.fromkeys(("search", "web_search", "browser_search"), "web_searches"),
    **dict.fromkeys(("python", "code_interpreter"), "code_executions"),
}
"""Types of the tools that Groq runs itself, and their counts."""

path = _openai.path
reported_cost = no_cost
error = _openai.error


def read(value: Any, usage: Usage) -> None:
    """Read a response or a chunk."""
    if not isinstance(value, Mapping):
        return
    tier = value.get("service_tier")
    of_stream = value.get("x_groq")
    reported = of_stream.get("usage") if isinstance(of_stream, Mapping) else None
    seen = {**value, "service_tier": tier if tier == _DEAREST else None}
    readers.openai(seen if reported is None else {**seen, "usage": reported}, usage)
    for tool in _executed(value):
        count = _TOOLS.get(str(tool.get("type")), "other_calls")
        usage.see_response(None, {count: 1}, model=value.get("model"), part=f"tool {tool.get('index')}")


def _executed(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the tools that Groq has run; a stream repeats them."""
    for choice in value.get("choices") or ():
        part = choice.get("message") or choice.get("delta") if isinstance(choice, Mapping) else None
        tools = part.get("executed_tools") if isinstance(part, Mapping) else None
        yield from (tool for tool in tools or () if isinstance(tool, Mapping))


def _reported(value: Mapping[str, Any], finished: bool) -> Reported:
    of_stream = value.get("x_groq")
    if isinstance(of_stream, Mapping) and of_stream.get("usage"):
        return "total"
    return _openai.reported(value, finished)


_RULES: Final = _openai.rules(
    usage=_reported, counted=Mark((b'"executed_tools"',), re.compile(rb'"executed_tools"\s*:\s*\['))
)


def stream(body: Mapping[str, Any]) -> StreamRules:
    """Return the rules: the last chunk of each stream reports the usage, beside the finish reason."""
    return _RULES
