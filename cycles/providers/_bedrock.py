"""Amazon Bedrock, as boto3 sends to it: operations, output limits by family of models, usage, streams. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import unquote

from cycles._usage import readers
from cycles.providers import _anthropic
from cycles.providers._provider import Endpoint, Hook, Mark, Reported, StreamRules, no_cost

name: Final = "bedrock"
clients: Final = ("botocore.client.BedrockRuntime",)
hook: Final[Hook] = "botocore"
prices: Final = "aws"
price_by: Final[Literal["request"]] = "request"
is_copied: Final = False
vertex: Final[Mapping[str, str]] = {}

_TEXT: Final = "llm.completion"
_THINKING: Final = tuple(
    f"additionalModelRequestFields.{member}.budget_tokens" for member in ("thinking", "reasoning_config")
)
_TIER: Final = "serviceTier"
_CONVERSE: Final = ("inferenceConfig.maxTokens",)
_FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {
    "ai21.jamba": ("max_tokens",),
    "amazon.nova": ("inferenceConfig.maxTokens", "inferenceConfig.max_new_tokens"),
    "amazon.titan-embed-text": (),
    "amazon.titan-text": ("textGenerationConfig.maxTokenCount",),
    "anthropic.claude": ("max_tokens",),
    "cohere.command": ("max_tokens",),
    "cohere.embed": (),
    "deepseek.": ("max_tokens",),
    "meta.llama": ("max_gen_len",),
    "mistral.": ("max_tokens",),
    "openai.": ("max_completion_tokens", "max_tokens"),
    "qwen.": ("max_tokens",),
}
"""The output limits of InvokeModel, whose body is that of the model's maker, by the beginning of the model's name."""
_MEDIA: Final = re.compile(r"canvas|image|reel|sonic")
"""Parts of the names of models of these families that make no text."""


def _invoked(family: str) -> Endpoint:
    limits = _FAMILIES[family]
    if not limits:
        return Endpoint("invoke_model", "embedding", "llm.embedding")
    if family != "anthropic.claude":
        return Endpoint("invoke_model", "text", _TEXT, limits, tier=_TIER)
    return Endpoint("invoke_model", "text", _TEXT, limits, ("thinking.budget_tokens",), True, tier=_TIER)


metered: Final[Mapping[str, Endpoint]] = {
    "/model/*/converse": Endpoint("converse", "text", _TEXT, _CONVERSE, _THINKING, True, _TIER),
    "/model/*/converse-stream": Endpoint("converse_stream", "text", _TEXT, _CONVERSE, _THINKING, True, _TIER),
    **{f"/model/{family}*/invoke": _invoked(family) for family in _FAMILIES},
}
free: Final = ("/model/*/count-tokens",)
_PATH: Final = re.compile(
    r"/model/(?P<model>.+)/(?:(?P<operation>converse|converse-stream|count-tokens)|invoke(?:-with-response-stream)?)"
)

read = readers.bedrock
reported_cost = no_cost


def path(path: str) -> str:
    """Return a path without the model; that of InvokeModel has the model's family."""
    found = _PATH.fullmatch(path)
    if found is None:
        return path
    if found["operation"] is not None:
        return f"/model/*/{found['operation']}"
    family = _family(unquote(found["model"]).rpartition("/")[2])
    return path if family is None else f"/model/{family}*/invoke"


def _family(model: str) -> str | None:
    """Return how the name of a model begins, perhaps behind that of a region; None for an unknown family."""
    names = (model, model.partition(".")[2])
    return next(
        (each for each in _FAMILIES if not _MEDIA.search(model) for name in names if name.startswith(each)), None
    )


def _reported(value: Mapping[str, Any], finished: bool) -> Reported:
    """Return what an event reports: Claude as everywhere, Converse in an event of its own, other models in metrics."""
    usage = value.get("usage")
    if isinstance(usage, Mapping) and "inputTokens" in usage:
        return "total"
    if str(value.get("type")).startswith("message_"):
        return _anthropic.reported(value, finished)
    return "total" if value.get("amazon-bedrock-invocationMetrics") else None


_RULES: Final = StreamRules(
    is_usage_last=True,
    with_usage=Mark((b'"usage"', b"invocationMetrics"), re.compile(rb'"usage"\s*:\s*\{|invocationMetrics"\s*:')),
    with_finish=Mark((b"eason",), re.compile(rb'"(?:stopReason|stop_reason|finish_reason)"\s*:\s*"')),
    with_error=Mark((b"error",), re.compile(rb'"error"\s*:\s*[{"]|"type"\s*:\s*"error"')),
    last=Mark((b'"inputTokens"', b"invocationMetrics"), re.compile(rb'"(?:inputTokens|[\w-]*invocationMetrics)"')),
    counted=Mark((b"amazon-bedrock-trace",), re.compile(rb'"amazon-bedrock-trace"')),
    usage=_reported,
    failed=_anthropic.failed,
)


def stream(body: Mapping[str, Any]) -> StreamRules:
    """Return the rules: an event with the usage follows the stop reason."""
    return _RULES


def error(status: int, message: str) -> Mapping[str, Any]:
    """Return the body of an error response."""
    return {"message": message}
