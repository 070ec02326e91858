"""Rates and exact arithmetic: what counts of usage cost, rounded up to a microcent once.

No price ships with the package. Rates come from the user or from the package `genai-prices`, which `cycles/prices.py`
loads. Sums are fractions, exact in any thread's decimal context, until `rounded_up`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, Final, TypeAlias

from attrs import field, fields, frozen

from cycles._core.amounts import Amount, usd_microcents
from cycles._core.values.counts import CALLS, PART_OF
from cycles._core.values.usage import checked_counts
from cycles._errors import InvalidRequestError
from cycles._version import public

Number: TypeAlias = str | Decimal | int | float

# One USD per million tokens is this many microcents per token.
_MICROCENTS_PER_TOKEN: Final = 100
NOTHING: Final = Fraction(0)
MICROCENTS_PER_USD: Final = 10**8
_MAX_RATE_DIGITS: Final = 30
_STANDARD_TIERS: Final = ("default", "standard", "auto")


def _rate(value: Number | None) -> Decimal | None:
    if value is None:
        return None
    try:
        rate = Decimal(float.__repr__(value)) if isinstance(value, float) else Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        raise InvalidRequestError(f"a rate must be USD per million tokens, like '2.50', got {value!r:.80}") from None
    if isinstance(value, bool) or not rate.is_finite() or rate < 0:
        raise InvalidRequestError(
            f"a rate must be a finite number of USD per million tokens, 0 or more, got {value!r:.80}"
        )
    if len(rate.as_tuple().digits) > _MAX_RATE_DIGITS or abs(rate.adjusted()) > _MAX_RATE_DIGITS:
        raise InvalidRequestError(f"a rate must have at most {_MAX_RATE_DIGITS} digits, got {value!r:.80}")
    return rate


def _required_rate(value: Number) -> Decimal:
    rate = _rate(value)
    if rate is None:
        raise InvalidRequestError("a price needs the rates of input and output: pass both, in USD per million tokens")
    return rate


def _mapping(value: Any, where: str) -> dict[Any, Any]:
    """Return a copy of a mapping; None is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"{where} must be a mapping, got {value!r:.80}")
    return dict(value)


def _per_call(value: Mapping[str, Number | Fraction] | None) -> dict[str, Decimal | Fraction]:
    rates = _mapping(value, "per_call")
    if unknown := [name for name in rates if name not in CALLS]:
        raise InvalidRequestError(f"per_call has no count {unknown[0]!r:.80}: use {', '.join(CALLS)}")
    return {name: rate if isinstance(rate, Fraction) else _required_rate(rate) for name, rate in rates.items()}


def _above(value: Mapping[int, Any] | None) -> dict[int, Price]:
    steps = _mapping(value, "above")
    for start in steps:
        if isinstance(start, bool) or not isinstance(start, int) or start < 0:
            raise InvalidRequestError(f"above must map integers of input tokens to prices, got {start!r:.80}")
    return {start: as_price(steps[start]) for start in sorted(steps)}


def _tiers(value: Mapping[str, Any] | None) -> dict[str, Price]:
    return {str(name): as_price(price) for name, price in _mapping(value, "tiers").items()}


@frozen
class Price:
    """Rates of one model, in USD per million tokens; a float is converted through its shortest repr.

    A count without a rate costs what the count costs that contains it: 1-hour cache writes cost `cache_write`, cache
    writes and cached tokens cost `input`, reasoning costs `output`.

    Attributes:
        input: Tokens that the model reads.
        output: Tokens that the model writes.
        cached_input: Tokens read from the provider's cache.
        cache_write: Tokens written to the provider's cache.
        cache_write_1h: Tokens written to the cache for one hour.
        input_audio, input_image, input_video: Input tokens of audio, of images and documents, of video.
        cached_input_audio, cached_input_image, cached_input_video: The same, read from the cache.
        output_audio, output_image, output_video: Output tokens of audio, images, video.
        reasoning: Output tokens of reasoning.
        per_call: USD for one of a count that is no token, for example ``{"web_searches": "0.01"}``.
        above: Prices of long contexts, by the number of input tokens that a request must exceed; such a price is
            for all tokens of the request.
        tiers: Prices by service tier, by ``"batch"``, or by speed, for example ``{"flex": Price(...)}``.

    Raises:
        InvalidRequestError: (a ValueError) for a rate that is no finite number >= 0.
    """

    input: Decimal = field(converter=_required_rate)
    output: Decimal = field(converter=_required_rate)
    cached_input: Decimal | None = field(default=None, converter=_rate)
    cache_write: Decimal | None = field(default=None, converter=_rate)
    cache_write_1h: Decimal | None = field(default=None, converter=_rate, kw_only=True)
    input_audio: Decimal | None = field(default=None, converter=_rate, kw_only=True)
    cached_input_audio: Decimal | None = field(default=None, converter=_rate, kw_only=True)
    output_audio: Decimal | None = field(default=None, converter=_rate, kw_only=True)
    input_image: Decimal | None = field(default=None, converter=_rate, kw_only=True)
    cached_input_image: Decimal | None = field(default=None, converter=_rate, kw_only=True)
    output_image: Decimal | None = field(default=None, converter=_rate, kw_only=True)
    input_video: Decimal | None = field(default=None, converter=_rate, kw_only=True)
    cached_input_video: Decimal | None = field(default=None, converter=_rate, kw_only=True)
    output_video: Decimal | None = field(default=None, converter=_rate, kw_only=True)
    reasoning: Decimal | None = field(default=None, converter=_rate, kw_only=True)
    per_call: Mapping[str, Decimal | Fraction] = field(default=None, converter=_per_call, kw_only=True, hash=False)
    above: Mapping[int, Price] = field(default=None, converter=_above, kw_only=True, hash=False)
    tiers: Mapping[str, Price] = field(default=None, converter=_tiers, kw_only=True, hash=False)

    def cost(
        self,
        tokens_input: int = 0,
        tokens_output: int = 0,
        tokens_cached_input: int = 0,
        tokens_cache_write: int = 0,
        *,
        context: Mapping[str, str] | None = None,
        **counts: int,
    ) -> Amount:
        """Return what these counts cost, rounded up to a microcent, once.

        Args:
            tokens_input: All tokens that were read, those of the cache included.
            tokens_output: All tokens that were written.
            tokens_cached_input: How many of `tokens_input` came from the cache.
            tokens_cache_write: How many of `tokens_input` were written to the cache.
            context: What selects one of `tiers`, for example ``{"service_tier": "flex"}``.
            counts: Any other count of the table in `docs/prices.md`.

        Raises:
            InvalidRequestError: for a negative or fractional count, or a cost above int64.
            TypeError: for a name that is no count.
        """
        given = checked_counts(
            {
                "tokens_input": tokens_input,
                "tokens_output": tokens_output,
                "tokens_cached_input": tokens_cached_input,
                "tokens_cache_write": tokens_cache_write,
                **counts,
            }
        )
        price, _ = select(self, context or {})
        return rounded_up([microcents(price, given)])


def as_price(price: Any) -> Price:
    """Return a price from a `Price`, a mapping of its members, or its rates in order.

    Raises:
        InvalidRequestError: for anything else.
    """
    if isinstance(price, Price):
        return price
    if not isinstance(price, Mapping | Sequence) or isinstance(price, str):
        raise InvalidRequestError(f"a price must be a cycles.Price, a mapping or rates in order, got {price!r:.80}")
    if isinstance(price, Mapping):
        names = tuple(each.name for each in fields(Price))
        if unknown := [name for name in price if name not in names]:
            raise InvalidRequestError(f"a price has no member {unknown[0]!r:.80}: use {', '.join(names)}")
        if absent := [name for name in ("input", "output") if name not in price]:
            raise InvalidRequestError(f"a price needs the rates of input and output: {absent[0]} is missing")
    try:
        return Price(**price) if isinstance(price, Mapping) else Price(*price)
    except TypeError as problem:
        raise InvalidRequestError(
            f"a price must be a cycles.Price, a mapping or rates in order, got {price!r:.80} ({problem!s:.80})"
        ) from None


def select(price: Price, context: Mapping[str, str]) -> tuple[Price, list[str]]:
    """Return the price for a request's context, and the parts of the context that have no price.

    Args:
        price: A price with `tiers`.
        context: For example ``{"service_tier": "flex"}``.
    """
    missing: list[str] = []
    chosen = price
    for kind, value in context.items():
        if kind in ("service_tier", "processing", "speed", "inference_geo") and value not in _STANDARD_TIERS:
            if value in price.tiers:
                chosen = price.tiers[value]
            else:
                missing.append(f"{kind}:{value}")
    return chosen, missing


def at_length(price: Price, tokens_input: int) -> Price:
    """Return the price for a request of this many input tokens."""
    for start in sorted(price.above, reverse=True):
        if tokens_input > start:
            return price.above[start]
    return price


def _or(rate: Decimal | None, other: Decimal) -> Decimal:
    """Return a rate if it is present, otherwise the other one."""
    return other if rate is None else rate


def microcents(price: Price, counts: Mapping[str, int]) -> Fraction:
    """Return what the counts of one response cost, as an exact number of microcents.

    Args:
        price: Already selected by context; long contexts are selected by `tokens_input`.
        counts: By name; counts that are absent are zero.
    """
    rates = at_length(price, counts.get("tokens_input", 0))
    cost = of_tokens((*_input_parts(rates, counts), *_output_parts(rates, counts)))
    calls = _calls(rates.per_call or price.per_call, counts)
    return cost + calls * MICROCENTS_PER_USD if calls else cost


def of_tokens(parts: Iterable[tuple[int, Decimal]]) -> Fraction:
    """Return what tokens cost, as an exact number of microcents.

    Args:
        parts: Numbers of tokens, and the USD that a million of them cost.
    """
    total, denominator = 0, 1  # integers: a sum of `Fraction` takes four times as long
    for n, rate in parts:
        if n:
            top, bottom = rate.as_integer_ratio()
            total, denominator = total * bottom + n * top * denominator, denominator * bottom
    return Fraction(total * _MICROCENTS_PER_TOKEN, denominator)


def call_rate(rates: Mapping[str, Decimal | Fraction], name: str) -> Decimal | Fraction | None:
    """Return the price of one of a count that is no token: its own, or that of the count that contains it."""
    return rates.get(name, rates.get(PART_OF[name] or name))


def _calls(rates: Mapping[str, Decimal | Fraction], counts: Mapping[str, int]) -> Fraction:
    total = NOTHING
    for name in CALLS:
        if n := counts.get(name):
            n -= sum(counts.get(part, 0) for part, whole in PART_OF.items() if whole == name)
            total += n * Fraction(call_rate(rates, name) or 0)
    return total


def _input_parts(price: Price, counts: Mapping[str, int]) -> list[tuple[int, Decimal]]:
    """Split the input into parts that do not overlap, each with its rate."""
    n = counts.get
    cached, written = n("tokens_cached_input", 0), n("tokens_cache_write", 0)
    written_1h = min(n("tokens_cache_write_1h", 0), written) if written else n("tokens_cache_write_1h", 0)
    stored = _or(price.cache_write, price.input)
    parts = [
        (max(0, written - written_1h), stored),
        (written_1h, _or(price.cache_write_1h, stored)),
    ]
    fresh = n("tokens_input", 0) - cached - max(written, written_1h)
    for kind, rate, cached_rate in (
        ("audio", price.input_audio, price.cached_input_audio),
        ("image", price.input_image, price.cached_input_image),
        ("video", price.input_video, price.cached_input_video),
    ):
        both, from_cache = n(f"tokens_input_{kind}", 0), n(f"tokens_cached_input_{kind}", 0)
        if not both and not from_cache:
            continue
        own = max(0, both - from_cache)
        parts.append((own, _or(rate, price.input)))
        parts.append((from_cache, _or(cached_rate, _or(price.cached_input, price.input))))
        fresh -= own
        cached -= from_cache
    parts.append((max(0, cached), _or(price.cached_input, price.input)))
    parts.append((max(0, fresh), price.input))
    return parts


def _output_parts(price: Price, counts: Mapping[str, int]) -> list[tuple[int, Decimal]]:
    n = counts.get
    special = [
        (n("tokens_output_audio", 0), _or(price.output_audio, price.output)),
        (n("tokens_output_image", 0), _or(price.output_image, price.output)),
        (n("tokens_output_video", 0), _or(price.output_video, price.output)),
        (n("tokens_reasoning", 0), _or(price.reasoning, price.output)),
    ]
    rest = n("tokens_output", 0) - sum(count for count, _ in special)
    return [*special, (max(0, rest), price.output)]


def unpriced(price: Price, counts: Mapping[str, int], missing: Sequence[str] = ()) -> list[str]:
    """Return the counts that have no rate and are part of nothing that has one.

    Args:
        price: Selected by context.
        counts: Of one response.
        missing: Those of `tokens_input` and `tokens_output` that the price data has no rate for.
    """
    calls = [name for name in CALLS if counts.get(name) and call_rate(price.per_call, name) is None]
    return [*(name for name in PART_OF if missing and counts.get(name) and _lacks(price, name, missing)), *calls]


def _lacks(price: Price, name: str, missing: Sequence[str]) -> bool:
    whole = PART_OF[name]
    if whole is None:
        return name in missing
    return getattr(price, name.removeprefix("tokens_"), None) is None and _lacks(price, whole, missing)


def rounded_up(parts: Iterable[Fraction]) -> Amount:
    """Return the sum of exact microcents, rounded up once.

    Raises:
        InvalidRequestError: if it is more than int64.
    """
    first, *others = parts
    return usd_microcents(math.ceil(sum(others, first)))


public(Price)
