"""Prices from the data of the package `genai-prices`, read by shape: this file does not import it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from attrs import frozen

from cycles._usage.pricing import Price

_RATES: Final[Mapping[str, tuple[str, ...]]] = {
    "input": ("input_mtok", "input_text_mtok"),
    "output": ("output_mtok", "output_text_mtok"),
    "cached_input": ("cache_read_mtok", "cache_text_read_mtok"),
    "cache_write": ("cache_write_mtok", "cache_write_5m_mtok", "cache_text_write_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok", "cache_text_write_1h_mtok"),
    "input_audio": ("input_audio_mtok",),
    "input_image": ("input_image_mtok",),
    "input_video": ("input_video_mtok",),
    "cached_input_audio": ("cache_audio_read_mtok",),
    "cached_input_image": ("cache_image_read_mtok",),
    "cached_input_video": ("cache_video_read_mtok",),
    "output_audio": ("output_audio_mtok",),
    "output_image": ("output_image_mtok",),
    "output_video": ("output_video_mtok",),
    "reasoning": ("output_reasoning_mtok", "reasoning_mtok"),
}
_CALLS: Final = (
    ("web_searches", ("web_searches_kcount",), 1_000),
    ("file_searches", ("storage_searches_kcount",), 1_000),
    ("audio_ms", ("input_audio_hours", "audio_hours"), 3_600_000),
    ("characters_input", ("input_mchars",), 1_000_000),
)
"""Counts that are no tokens: the names of their rates, and how many units one rate is for."""

_PREFIX: Final = re.compile(r"^(?:projects/[^/]+/locations/[^/]+/)?(?:publishers/[^/]+/)?models/")
_LAST_PROVIDERS: Final = ("openai", "anthropic", "google")
_STANDARD: Final = ("default", "standard", "auto")


@frozen
class Found:
    """A price as it applies to one request.

    Attributes:
        price: The rates.
        missing: What has no rate: counts, and parts of the context such as ``service_tier:flex``.
        window: The model's context window in tokens, if it is known.
        provider: Whose price it is.
        fallback: True if the book's `fallback` priced an unknown model.
    """

    price: Price
    missing: tuple[str, ...] = ()
    window: int | None = None
    provider: str | None = None
    fallback: bool = False


def without_prefix(model: str) -> str:
    """Return the model's name without the path that Google's APIs put before it."""
    return _PREFIX.sub("", model)


class Catalogue:
    """Finds models in a snapshot of `genai-prices`."""

    __slots__ = ("_provider", "_snapshot")

    def __init__(self, snapshot: Any, provider: str | None) -> None:
        self._snapshot = snapshot
        self._provider = provider

    def find(
        self, model: str, context: Mapping[str, str], at: datetime, provider: str | None, url: str | None
    ) -> Found | None:
        """Return the price of a model for a request's context and time, or None if the data has no such model.

        Args:
            model: Its name.
            context: For example ``{"service_tier": "flex"}``.
            at: The time of the request.
            provider: The provider whose client sent the request.
            url: The base URL of that client; it may belong to another provider.
        """
        for hints in self._places(provider, url):
            try:
                owner, info = self._snapshot.find_provider_model(model, None, *hints)
            except LookupError:
                continue
            return _found(owner, info, context, at)
        return None

    def _places(self, provider: str | None, url: str | None) -> Iterable[tuple[str | None, str | None]]:
        if self._provider is not None:
            yield self._provider, None
        if url is not None:
            yield None, url
        if provider is not None:
            yield provider, None
        yield None, None
        for known in _LAST_PROVIDERS:
            yield known, None


def _found(owner: Any, info: Any, context: Mapping[str, str], at: datetime) -> Found | None:
    special = {kind: value for kind, value in context.items() if value not in _STANDARD}
    own = any(info is model for model in owner.models)  # variants of another provider's model do not apply
    resolved = info.get_prices(at, special or None) if own else info.get_prices(at)
    missing = [
        f"{kind}:{value}" for kind, value in special.items() if not (own and _has_variant(info, kind, special, at))
    ]
    rates = vars(resolved)
    if not any(value is not None for value in rates.values()):
        return None
    for count, names in (("tokens_input", _RATES["input"]), ("tokens_output", _RATES["output"])):
        if all(rates.get(name) is None for name in names):
            missing.append(count)
    return Found(_price(rates), tuple(missing), info.context_window, owner.id)


def _has_variant(info: Any, kind: str, context: Mapping[str, str], at: datetime) -> bool:
    return any(
        kind in variant.when
        and all(context.get(name) == value for name, value in variant.when.items())
        and (variant.constraint is None or variant.constraint.active(at))
        for variant in info.price_variants or ()
    )


def _price(rates: Mapping[str, Any]) -> Price:
    starts = sorted({tier.start for rate in rates.values() for tier in getattr(rate, "tiers", ())})
    base = _members(rates, 0)
    base["above"] = {start: Price(**_members(rates, start + 1)) for start in starts}
    return Price(**base)


def _members(rates: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    members: dict[str, Any] = {"input": 0, "output": 0}
    for name, keys in _RATES.items():
        rate = _rate(rates, keys, tokens)
        if rate is not None:
            members[name] = rate
    calls = {}
    for count, keys, units in _CALLS:
        rate = _rate(rates, keys, tokens)
        if rate is not None:
            calls[count] = Fraction(rate) / units
    members["per_call"] = calls
    return members


def _rate(rates: Mapping[str, Any], keys: Iterable[str], tokens: int) -> Decimal | None:
    """Return the first rate of these keys, at this number of input tokens."""
    for key in keys:
        rate = rates.get(key)
        if rate is None:
            continue
        if not hasattr(rate, "tiers"):
            return Decimal(rate)
        at_length = [tier.price for tier in rate.tiers if tokens > tier.start]
        return Decimal(at_length[-1] if at_length else rate.base)
    return None
