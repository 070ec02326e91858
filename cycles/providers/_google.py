"""Gemini: endpoints, usage, streams, errors. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from cycles._usage import readers
from cycles.providers._provider import WITH_ERROR, Endpoint, Hook, Mark, Reported, StreamRules, no_cost

name: Final = "google"
clients: Final = ("google.genai.Client",)
hook: Final[Hook] = "google"
prices: Final = "google"
price_by: Final[Literal["response"]] = "response"
is_copied: Final = False
vertex: Final[Mapping[str, str]] = {}

_THINKING: Final = tuple(
    f"{outer}.{inner}.{name}"
    for outer in ("generationConfig", "generation_config")
    for inner in ("thinkingConfig", "thinking_config")
    for name in ("thinkingBudget", "thinking_budget")
)
"""Where Gemini accepts a thinking budget; its SDK sends the inner names as the program writes them."""
_SPELLINGS: Final = {
    "generation_config": "generationConfig",
    "max_output_tokens": "maxOutputTokens",
    "candidate_count": "candidateCount",
    "response_modalities": "responseModalities",
    "cached_content": "cachedContent",
    "service_tier": "serviceTier",
}
"""Gemini accepts both names; the limits that are set and priced use the second."""
_GENERATE: Final = Endpoint(
    "models.generate_content",
    "text",
    "llm.completion",
    ("generationConfig.maxOutputTokens",),
    _THINKING,
    tier="serviceTier",
    spellings=_SPELLINGS,
)
_EMBED: Final = Endpoint("models.embed_content", "embedding", "llm.embedding", tier="serviceTier", spellings=_SPELLINGS)
metered: Final[Mapping[str, Endpoint]] = {
    ":generateContent": _GENERATE,
    ":streamGenerateContent": _GENERATE,
    ":embedContent": _EMBED,
    ":batchEmbedContents": _EMBED,
}
free: Final = (
    "**:countTokens",
    "**:computeTokens",
    "**:cancel",
    "files/**",
    "files:register",
    "upload/*/files",
    "**operations/**",
    "**:fetchPredictOperation",
)
_VERSION: Final = re.compile(r"^(?:/upload)?/v\d[^/]*(?=/)")
_STATUS: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
}

read = readers.google
reported_cost = no_cost


def path(path: str) -> str:
    """Return a path without the version of the API."""
    return _VERSION.sub("", path, count=1).removeprefix("/")


def _reported(value: Mapping[str, Any], finished: bool) -> Reported:
    if not value.get("usageMetadata"):
        return None
    ended = any(isinstance(one, Mapping) and one.get("finishReason") for one in value.get("candidates") or ())
    return "total" if ended else "part"


_RULES: Final = StreamRules(
    running_totals=True,
    with_usage=Mark((b'"usageMetadata"',), re.compile(rb'"usageMetadata"\s*:\s*\{')),
    with_finish=Mark((b"finishReason",), re.compile(rb'"finishReason"\s*:\s*"')),
    with_error=WITH_ERROR,
    counted=Mark((b'"groundingMetadata"',), re.compile(rb'"groundingMetadata"')),
    usage=_reported,
    failed=lambda value: bool(value.get("error")),
)


def stream(body: Mapping[str, Any]) -> StreamRules:
    """Return the rules: each chunk reports the totals so far, and only some of them what was searched."""
    return _RULES


def error(status: int, message: str) -> Mapping[str, Any]:
    """Return the body of an error response."""
    word = _STATUS.get(status, "UNAVAILABLE" if status >= 500 else "FAILED_PRECONDITION")
    return {"error": {"code": status, "message": message, "status": word}}
