"""The counts of a model's usage: their names, and what each is part of. `docs/prices.md` lists them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Final, TypedDict


class Counts(TypedDict, total=False):
    """The counts as keywords. A whole stands before its parts."""

    tokens_input: int
    tokens_cached_input: int
    tokens_cache_write: int
    tokens_cache_write_1h: int
    tokens_input_audio: int
    tokens_input_image: int
    tokens_input_video: int
    tokens_cached_input_audio: int
    tokens_cached_input_image: int
    tokens_cached_input_video: int
    tokens_input_tool: int
    tokens_output: int
    tokens_reasoning: int
    tokens_output_audio: int
    tokens_output_image: int
    tokens_output_video: int
    tokens_output_bound: int
    web_searches: int
    web_searches_preview: int
    maps_searches: int
    file_searches: int
    code_executions: int
    code_sessions: int
    other_calls: int
    guardrail_units: int
    guardrail_information_units: int
    audio_ms: int
    characters_input: int


PART_OF: Final[Mapping[str, str | None]] = {
    **dict.fromkeys(Counts.__annotations__),
    **dict.fromkeys(("tokens_cached_input", "tokens_cache_write", "tokens_input_tool"), "tokens_input"),
    **dict.fromkeys(("tokens_input_audio", "tokens_input_image", "tokens_input_video"), "tokens_input"),
    "tokens_cache_write_1h": "tokens_cache_write",
    **{f"tokens_cached_input_{kind}": "tokens_cached_input" for kind in ("audio", "image", "video")},
    "tokens_reasoning": "tokens_output",
    **{f"tokens_output_{kind}": "tokens_output" for kind in ("audio", "image", "video", "bound")},
    "web_searches_preview": "web_searches",
    "guardrail_information_units": "guardrail_units",
}
"""Every count, in the order of `Counts`, and the count that contains it. None: part of nothing."""

CALLS: Final = tuple(name for name in PART_OF if not name.startswith("tokens_"))
"""Counts that are no tokens: each has a price per unit, or that of its whole, or none."""


def clip_parts(counts: MutableMapping[str, int]) -> None:
    """Lower each part that is larger than the whole that contains it, if that whole is known."""
    for name, whole in PART_OF.items():
        if whole is not None and whole in counts and counts.get(name, 0) > counts[whole]:
            counts[name] = counts[whole]
