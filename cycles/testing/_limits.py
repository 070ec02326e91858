"""End the output of a reply at the output limit of its request, as providers do. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve

from cycles._usage.estimating import output_maximum, results_of
from cycles.testing._reply import Reply

_LIMITS: Final = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_tokens_to_sample", "max_gen_len")
_CONFIGS: Final = ("generationConfig", "generation_config", "inferenceConfig")
_INNER: Final = ("maxOutputTokens", "max_output_tokens", "maxTokens")
"""Limits of Gemini and Bedrock, inside of these members."""
_OUTPUT: Final = "tokens_output"
_PARTS: Final = ("tokens_reasoning", "tokens_output_audio", "tokens_output_image", "tokens_output_video")
"""Counts that are part of the output."""


def limit_of(model: str, request: Mapping[str, Any]) -> int:
    """Return the most tokens that a response may have: the limit of the request, or the maximum of the model."""
    configs = [request.get(name) for name in _CONFIGS]
    found = [request.get(name) for name in _LIMITS]
    found += [config.get(name) for config in configs if isinstance(config, Mapping) for name in _INNER]
    limits = [n for n in found if isinstance(n, int) and n > 0]
    return (min(limits) if limits else output_maximum(model)) * results_of(request)


def limited(reply: Reply, model: str, request: Mapping[str, Any]) -> Reply:
    """Return a reply that ends at the output limit of its request."""
    limit, counts = limit_of(model, request), reply.counts(request)
    made = counts.get(_OUTPUT, len(reply.text.split()))
    if made <= limit:
        return reply
    usage: dict[str, int] = {**counts, **({_OUTPUT: limit} if counts else {})}
    for name in _PARTS:
        if name in usage:
            usage[name] = min(usage[name], limit)
    hidden = counts.get("tokens_reasoning", 0) if reply.usage is not None else len(reply.reasoning.split())
    visible, left = max(1, made - hidden), max(0, limit - hidden)
    words = reply.text.split(" ")
    return evolve(
        reply,
        text=" ".join(words[: len(words) * left // visible]),
        reasoning=" ".join(reply.reasoning.split(" ")[:limit]),
        tool_calls=(),
        usage=usage,
        truncated=True,
    )


def billed(counts: Mapping[str, int], share: float) -> dict[str, int]:
    """Return the counts of a response of which only a share was made: the whole prompt, and that part of the output."""
    made = dict(counts)
    for name in (_OUTPUT, *_PARTS):
        if name in made:
            made[name] = min(made[name], -(-int(made[name] * share * 1_000_000) // 1_000_000))
    return made
