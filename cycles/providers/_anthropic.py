"""Anthropic: endpoints, usage, streams, errors. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from cycles._core.values.usage import Usage
from cycles._usage import readers
from cycles.providers._provider import Endpoint, Hook, StreamRules, no_cost

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
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
}

reported_cost = no_cost


def path(path: str) -> str:
    """Return a path with ``/v1``."""
    if _BARE.match(path):
        return f"/v1{path}"
    return _VERSION.sub("/v1", path, count=1)


def read(value: Any, usage: Usage) -> None:
    """Read a message or an event."""
    readers.anthropic(value, usage)


def stream(body: Mapping[str, Any]) -> StreamRules:
    """Return the rules: each stream reports its usage at its beginning and at its end."""
    return StreamRules()


def error(status: int, message: str) -> Mapping[str, Any]:
    """Return the body of an error response."""
    kind = _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}
