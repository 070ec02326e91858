"""Prices from the data of the package `genai-prices`, read by shape: this file does not import it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from attrs import evolve, field, frozen

from cycles._core.values.counts import CALLS
from cycles._usage.pricing import Price, select
from cycles._usage.tool_prices import Rate, complete, factor_of, rate_of, times

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
_ARN: Final = re.compile(r"^arn:[\w-]+:bedrock:[^/]*/")
_BEDROCK: Final = re.compile(r"(?:[\w-]+\.)?(?P<vendor>[a-z]\w*)\.(?P<name>[a-z][\w.-]*?)(?:-v\d+(?::\w+)*)?")
_VENDORS: Final = {"mistralai": "mistral", "meta-llama": "meta"}
_LAST_PROVIDERS: Final = ("openai", "anthropic", "google")
_MOST_COMPLETED: Final = 4_096
"""Completed prices that are kept: a caller of the proxy chooses the names."""
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
        rules: What has supplied each rate that the model's entry lacks: ``"maker"``, ``"table"`` or ``"bound"``.
    """

    price: Price
    missing: tuple[str, ...] = ()
    window: int | None = None
    provider: str | None = None
    fallback: bool = False
    rules: Mapping[str, str] = field(factory=dict)


def without_prefix(model: str) -> str:
    """Return the model's name without the path that Google's APIs put before it."""
    return _PREFIX.sub("", model)


@functools.lru_cache(maxsize=1_024)
def listed_name(model: str) -> str:
    """Return the model's name as price lists have it: without a path of Google, and the last part of an ARN of AWS."""
    return _ARN.sub("", without_prefix(model))


class Catalogue:
    """Finds models in the current snapshot of `genai-prices`, and completes their prices.

    Args:
        snapshot: Returns the current snapshot; it may be another one at each call.
        provider: The provider whose prices apply.
        tools: USD for one of a count, in place of the table of tool prices.
        newer: Prices by model that win over the snapshot.
    """

    __slots__ = ("_completed", "_newer", "_of", "_provider", "_snapshot", "_tools")

    def __init__(
        self,
        snapshot: Callable[[], Any],
        provider: str | None,
        tools: Mapping[str, Rate],
        newer: Mapping[str, Price] | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._provider = provider
        self._tools = tools
        self._newer = newer or {}
        self._of: Any = None  # the snapshot that `_completed` belongs to
        self._completed: dict[Any, Found | None] = {}

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
        data = self._snapshot()
        if (newer := self._newer.get(model)) is not None:
            return self._completed_newer(data, newer, model, context, at)
        for hints in self._places(provider, url):
            is_gateway = _is_openrouter(data, hints)
            if model.startswith("openrouter/auto") or (is_gateway and model == "auto"):
                return None  # it may become any model
            if is_gateway and model.endswith(":free"):
                return Found(Price(0, 0, per_call=dict.fromkeys(CALLS, 0)), provider="openrouter")
            for name in (model, model.partition(":")[0]) if is_gateway and ":" in model else (model,):
                try:
                    owner, info = data.find_provider_model(name, None, *hints)
                except LookupError:
                    continue
                if not _ignores_tag(info, name):
                    return self._complete(data, owner, info, name, context, at)
        return None

    def _completed_newer(self, data: Any, newer: Price, model: str, context: Mapping[str, str], at: datetime) -> Found:
        maker, name, listed = _maker_of(data, None, model)
        of_maker = None if listed is None else _found(None, listed, {}, at)
        chosen, missing = select(newer, context)
        found = Found(chosen, tuple(missing), None if listed is None else listed.context_window, maker)
        return self._completed_price(found, maker, None, name, maker, of_maker)

    def latest(
        self, model: str, context: Mapping[str, str], at: datetime, provider: str | None, url: str | None
    ) -> list[Found]:
        """Return the prices of all models that a name such as ``mistral-large-latest`` may be; arguments as for `find`.

        Args:
            model: Its name.
            context: See `find`, like the next three.
            at: See there.
            provider: See there.
            url: See there.
        """
        begin, ended, _ = model.rpartition("-latest")
        data = self._snapshot()
        for hints in self._places(provider, url) if ended and begin else ():
            try:
                owner = data.find_provider(model, *hints)
            except LookupError:
                continue
            found = [
                self._complete(data, owner, info, info.id, context, at)
                for info in owner.models
                if info.id.startswith(begin)
            ]
            if priced := [one for one in found if one is not None]:
                return priced
        return []

    def names(self) -> set[str]:
        """Return the names of all models of the provider, or of all providers."""
        return {
            model.id
            for owner in self._snapshot().providers
            if self._provider in (owner.id, None)
            for model in owner.models
        }

    def _complete(
        self, data: Any, owner: Any, info: Any, model: str, context: Mapping[str, str], at: datetime
    ) -> Found | None:
        """Return a completed price; from the cache as long as the same data applies at that time."""
        if self._of is not data:
            self._of, self._completed = data, {}
        key = (owner.id, info.id, model, *sorted(context.items()))
        if key in (known := self._completed):
            return known[key]
        found = _found(owner, info, context, at)
        maker, name, listed = _maker_of(data, owner, model)
        of_maker = None if listed is None or listed is info else _found(owner, listed, {}, at)
        if found is not None or rate_of(owner.id, "tokens_input", model) is not None:  # a row: it costs nothing
            found = self._completed_price(found, owner.id, info.context_window, name, maker, of_maker)
        if not _varies(info) and (listed is None or not _varies(listed)):
            if len(self._completed) >= _MOST_COMPLETED:
                self._completed = {}
            self._completed[key] = found
        return found

    def _completed_price(
        self, found: Found | None, owner: str, window: int | None, name: str, maker: str, of_maker: Found | None
    ) -> Found:
        if found is None:
            found = Found(Price(0, 0), ("tokens_input", "tokens_output"), window, owner)
        absent = [kind for kind in found.missing if ":" not in kind]
        listed = None if of_maker is None else of_maker.price
        price, rules = complete(found.price, absent, name, maker, listed, self._tools)
        missing = [kind for kind in found.missing if kind not in rules]
        for kind in [kind for kind in missing if ":" in kind]:
            if (factor := factor_of(owner, kind)) is not None:
                price = times(price, factor)
                rules[kind] = "table"
                missing.remove(kind)
        return evolve(found, price=price, missing=tuple(missing), rules=rules)

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


def _is_openrouter(data: Any, hints: tuple[str | None, str | None]) -> bool:
    try:
        return bool(data.find_provider(None, *hints).id == "openrouter")
    except LookupError:
        return False


def _ignores_tag(info: Any, model: str) -> bool:
    """Whether an entry is that of a name without its tag: ``deepseek-r1:8b`` is another model than ``deepseek-r1``."""
    name, _, tag = model.rpartition(":")
    if not name or not tag or model.startswith("ft:") or _BEDROCK.fullmatch(model):
        return False
    return bool(info.id.lower() != model.lower() and info.is_match(name))


def _maker_of(data: Any, owner: Any, model: str) -> tuple[str, str, Any]:
    """Return who makes a model, its name there, and its entry in that maker's own list, if it has one."""
    vendor, _, name = model.rpartition("/")
    if found := _BEDROCK.fullmatch(model):
        vendor, name = found["vendor"], found["name"]
    name = name.removeprefix("ft:")
    vendor = vendor.rpartition("/")[2]
    for hint in (
        (vendor,) if vendor else (None, *(() if owner is not None and owner.id in _LAST_PROVIDERS else _LAST_PROVIDERS))
    ):
        try:
            maker, info = data.find_provider_model(name, None, hint, None)
        except LookupError:
            continue
        if any(info is each for each in maker.models):
            return maker.id, name, info
    return _VENDORS.get(vendor, vendor or ("" if owner is None else owner.id)), name, None


def _varies(info: Any) -> bool:
    """Whether the price of an entry depends on the time."""
    return isinstance(info.prices, list) or any(one.constraint is not None for one in info.price_variants or ())


def _found(owner: Any, info: Any, context: Mapping[str, str], at: datetime) -> Found | None:
    special = {kind: value for kind, value in context.items() if value not in _STANDARD}
    # Variants of another provider's model do not apply.
    own = owner is not None and any(info is model for model in owner.models)
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
    return Found(_price(rates), tuple(missing), info.context_window, None if owner is None else owner.id)


def price_of(info: Any, at: datetime) -> Price | None:
    """Return the price of an entry at a time with its service tiers, without rules; None if it has no rate."""
    standard = vars(info.get_prices(at))
    if not any(value is not None for value in standard.values()):
        return None
    tiers = {}
    for variant in info.price_variants or ():
        if len(variant.when) == 1 and (variant.constraint is None or variant.constraint.active(at)):
            tiers[next(iter(variant.when.values()))] = _price(vars(info.get_prices(at, dict(variant.when))))
    return evolve(_price(standard), tiers=tiers)


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
