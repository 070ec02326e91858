"""Small response bodies of each provider, and a price book whose sums are easy to check."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cycles

RATES = cycles.Price(
    input="1",
    output="10",
    cached_input="0.1",
    cache_write="1.25",
    cache_write_1h="2",
    input_audio="3",
    cached_input_audio="0.3",
    input_image="4",
    cached_input_image="0.4",
    input_video="5",
    cached_input_video="0.5",
    output_audio="20",
    output_image="30",
    output_video="40",
    reasoning="11",
    per_call={
        "web_searches": "0.01",
        "file_searches": "0.0025",
        "audio_ms": "0.0000001",
        "characters_input": "0.000015",
    },
)
BOOK = cycles.PriceBook({"m": RATES, "other": cycles.Price("100", "1000"), "gemini-2.5-x": RATES, "gemini-3-x": RATES})


def as_object(value: Any) -> Any:
    if isinstance(value, dict):
        return SimpleNamespace(**{name: as_object(member) for name, member in value.items()})
    return [as_object(item) for item in value] if isinstance(value, list) else value


def chat(**usage: Any) -> dict[str, Any]:
    return {"id": "r1", "model": "m", "usage": {"prompt_tokens": 1000, "completion_tokens": 100, **usage}}


def responses(usage: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    return {"id": "r1", "model": "m", "usage": {"input_tokens": 1000, "output_tokens": 100, **(usage or {})}, **members}


def message(**usage: Any) -> dict[str, Any]:
    return {"id": "m1", "type": "message", "model": "m", "usage": {"input_tokens": 1000, "output_tokens": 100, **usage}}


def gemini(model: str = "m", candidates: Any = None, **usage: Any) -> dict[str, Any]:
    counts = {"promptTokenCount": 1000, "candidatesTokenCount": 100, **usage}
    return {"responseId": "g1", "modelVersion": model, "candidates": candidates or [], "usageMetadata": counts}
