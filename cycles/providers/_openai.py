"""OpenAI and what has its wire format: endpoints, usage, streams, errors. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from typing import Any, Final, Literal

from cycles._usage import readers
from cycles._usage.pricing import MICROCENTS_PER_USD
from cycles.providers._provider import (
    WITH_FINISH,
    WITH_USAGE,
    Background,
    Endpoint,
    Hook,
    Mark,
    Reported,
    StreamRules,
    exact,
)

name: Final = "openai"
clients: Final = ("openai.OpenAI", "openai.AsyncOpenAI")
hook: Final[Hook] = "stainless"
prices: Final = "openai"
price_by: Final[Literal["response"]] = "response"
is_copied: Final = True
vertex: Final[Mapping[str, str]] = {}

_TEXT: Final = "llm.completion"
_BACKGROUND: Final = Background(
    "background", ("queued", "in_progress"), ("completed", "incomplete", "failed", "cancelled", "expired")
)
metered: Final[Mapping[str, Endpoint]] = {
    "/chat/completions": Endpoint("chat.completions", "text", _TEXT, ("max_completion_tokens", "max_tokens")),
    "/completions": Endpoint("completions", "text", _TEXT, ("max_tokens",)),
    "/responses": Endpoint("responses", "text", _TEXT, ("max_output_tokens",), background=_BACKGROUND),
    "/responses/compact": Endpoint("responses.compact", "text", _TEXT, ("max_output_tokens",)),
    "/embeddings": Endpoint("embeddings", "embedding", "llm.embedding"),
    "/images/generations": Endpoint("images.generate", "image", "llm.image"),
    "/images/edits": Endpoint("images.edit", "image", "llm.image"),
    "/images/variations": Endpoint("images.create_variation", "image", "llm.image"),
    "/audio/transcriptions": Endpoint("audio.transcriptions", "transcription", "llm.audio"),
    "/audio/translations": Endpoint("audio.translations", "transcription", "llm.audio"),
    "/audio/speech": Endpoint("audio.speech", "speech", "llm.audio"),
}
free: Final = (
    "/moderations",
    "/files",
    "/uploads/**",
    "/responses/input_tokens",
    "**/cancel",
    "/conversations/**",
    "/chat/completions/*",
    "/threads",
    "/threads/thread_*",
    "/threads/*/messages",
    "/threads/*/messages/*",
    "/assistants/**",
    "/skills/**",
    "/organization/**",
    "/projects/**",
    "/webhook_endpoints/**",
    "/vector_stores/*/**",
)
_BASE: Final = re.compile(r"^(?:/openai|/api)?(?:/v\d[^/]*|/beta)?(?:/deployments/[^/]+)?(?=/)")
"""What providers with OpenAI's wire format have before its paths, perhaps with a deployment of Azure."""
_ENDED: Final = ("completed", "incomplete", "done", "failed")
"""How the types of events end that report the usage of a whole response."""
_KINDS: Final = {402: "insufficient_quota"}
_NO_CREDITS: Final = 'insufficient credits, "code":402'
"""Words in a message after which aider does not send the request again (`aider/exceptions.py`)."""

read = readers.openai


def path(path: str) -> str:
    """Return a path without the version of the API and without a deployment."""
    return _BASE.sub("", path, count=1)


def reported_cost(value: Any) -> Fraction | None:
    """Return the cost that OpenRouter, Perplexity or xAI reports: in USD, or in ticks of 10^-10 USD."""
    source = value.get("response") if isinstance(value, Mapping) and "usage" not in value else value
    usage = source.get("usage") if isinstance(source, Mapping) else None
    if not isinstance(usage, Mapping):
        return None
    if (ticks := exact(usage.get("cost_in_usd_ticks"))) is not None:
        return ticks / 100
    cost = usage.get("cost")
    usd = exact(cost.get("total_cost") if isinstance(cost, Mapping) else cost)
    if usd is None:
        return None
    details = usage.get("cost_details")
    if usage.get("is_byok") is True and isinstance(details, Mapping):  # the user pays the provider with a key of theirs
        usd += exact(details.get("upstream_inference_cost")) or 0
    return usd * MICROCENTS_PER_USD


def reported(value: Mapping[str, Any], finished: bool) -> Reported:
    """Return what an event reports; some gateways report the usage so far in each chunk."""
    inner = value.get("response")
    if not value.get("usage") and not (isinstance(inner, Mapping) and inner.get("usage")):
        return None
    if value.get("choices") == []:
        return "alone"
    ended = finished if "choices" in value else str(value.get("type")).rpartition(".")[2] in _ENDED
    return "total" if ended else "part"


def failed(value: Mapping[str, Any]) -> bool:
    """Return whether an event reports an error."""
    return bool(value.get("error")) or value.get("type") in ("error", "response.failed")


rules: Final = partial(
    StreamRules,
    with_usage=WITH_USAGE,
    with_finish=WITH_FINISH,
    with_error=Mark(
        (b"error", b"response.failed"),
        re.compile(rb'^event:\s*error|"error"\s*:\s*[{"]|"type"\s*:\s*"(?:error|response\.failed)"', re.MULTILINE),
    ),
    last=Mark((b"[DONE]",), re.compile(rb"data:\s*\[DONE\]")),
    usage=reported,
    failed=failed,
)
"""The rules of OpenAI's events."""


def stream(body: Mapping[str, Any]) -> StreamRules:
    """Return the rules: streams of both completions APIs report their usage on request, in an event of its own."""
    if "messages" not in body and not isinstance(body.get("prompt"), str | list):
        return rules()
    given = body.get("stream_options")
    options = given if isinstance(given, Mapping) else {}
    if "include_usage" in options:
        return rules(is_usage_last=options["include_usage"] is True)
    return rules(requested={"stream_options": {**options, "include_usage": True}}, is_usage_last=True)


def error(status: int, message: str) -> Mapping[str, Any]:
    """Return the body of an error response."""
    if status in _KINDS:
        message = f"{message} ({_NO_CREDITS})"
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}
