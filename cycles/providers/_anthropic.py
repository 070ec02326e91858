"""Anthropic: endpoints, usage, streams, errors. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from cycles._usage import readers
from cycles.providers._provider import WITH_USAGE, Endpoint, Hook, Mark, Reported, StreamRules, no_cost

name: Final = "anthropic"
clients: Final = (
    "anthropic.Anthropic",
    "anthropic.AsyncAnthropic",
    "anthropic.AnthropicVertex",
    "anthropic.AsyncAnthropicVertex",
    "anthropic.AnthropicBedrock",
    "anthropic.AsyncAnthropicBedrock",
    "anthropic.AnthropicBedrockMantle",
    "anthropic.AsyncAnthropicBedrockMantle",
)
hook: Final[Hook] = "stainless"
prices: Final = "anthropic"
price_by: Final[Literal["response"]] = "response"
is_copied: Final = True
vertex: Final = {"rawPredict": "/v1/messages", "streamRawPredict": "/v1/messages"}

_THINKING: Final = ("thinking.budget_tokens",)
metered: Final[Mapping[str, Endpoint]] = {
    "/v1/messages": Endpoint("messages", "text", "llm.completion", ("max_tokens",), _THINKING, True),
    "/v1/complete": Endpoint("completions", "text", "llm.completion", ("max_tokens_to_sample",)),
}
free: Final = (
    "/v1/messages/count_tokens",
    "**/cancel",
    "/v1/files/**",
    "/v1/skills/**",
    "/v1/organizations/**",
    "/v1/user_profiles/**",
)
_VERSION: Final = re.compile(r"^/v\d[^/]*(?=/)")
_BARE: Final = re.compile(r"^/(?:messages|complete)(?=/|$)")
"""Paths that AI SDK sends without a version if the base URL is not the default one."""
_KINDS: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
}

read = readers.anthropic
reported_cost = no_cost


def path(path: str) -> str:
    """Return a path with ``/v1``."""
    if _BARE.match(path):
        return f"/v1{path}"
    return _VERSION.sub("/v1", path)


def reported(value: Mapping[str, Any], finished: bool) -> Reported:
    """Return what an event reports: the output so far is that of the whole response, unless it is null."""
    message, usage = value.get("message"), value.get("usage")
    if not isinstance(usage, Mapping):
        return "part" if isinstance(message, Mapping) and message.get("usage") else None
    is_total = value.get("type") == "message_delta" and isinstance(usage.get("output_tokens"), int)
    return "total" if is_total else "part"


def failed(value: Mapping[str, Any]) -> bool:
    """Return whether an event reports an error."""
    return bool(value.get("error")) or value.get("type") == "error"


_RULES: Final = StreamRules(
    with_usage=WITH_USAGE,
    with_finish=Mark((b"stop_reason",), re.compile(rb'"stop_reason"\s*:\s*"')),
    with_error=Mark((b"error",), re.compile(rb'^event:\s*error|"error"\s*:\s*[{"]|"type"\s*:\s*"error"', re.MULTILINE)),
    last=Mark((b"message_stop",), re.compile(rb'"type"\s*:\s*"message_stop"')),
    usage=reported,
    failed=failed,
)


def stream(body: Mapping[str, Any]) -> StreamRules:
    """Return the rules: each stream reports its usage at its beginning and at its end."""
    return _RULES


def error(status: int, message: str) -> Mapping[str, Any]:
    """Return the body of an error response."""
    kind = _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}
