"""What models cost: rates that users supply, exact arithmetic, rounding up to a whole microcent.

No price ships with the package: prices change, and a stale one would spend somebody's money wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation
from typing import Any, Final, TypeAlias

from attrs import field, frozen

from cycles._core.amounts import Amount, usd_microcents
from cycles._core.readers import any_answer
from cycles._core.usage import Usage, checked_count
from cycles._errors import InvalidRequestError

Number: TypeAlias = str | Decimal | int | float

# One USD per million tokens is this many microcents per token.
_MICROCENTS_PER_TOKEN: Final = 100
# A rate of 30 digits times a 64-bit count has at most 49 digits, so sums of a few stay exact in this.
_EXACT: Final = Context(prec=80, rounding=ROUND_CEILING)
_MAX_RATE_DIGITS: Final = 30
# "gpt-x-2024-08-06", "claude-y-20241022", "gemini-z@20250101": the date of a release, which price lists leave out.
_DATED: Final = re.compile(r"(.+?)[-@](\d{4}-\d{2}-\d{2}|\d{8})")


def _rate(value: Number | None) -> Decimal | None:
    if value is None:
        return None
    try:
        rate = Decimal(float.__repr__(value)) if isinstance(value, float) else Decimal(value)
    except (InvalidOperation, TypeError, ValueError):
        raise InvalidRequestError(f"a rate is USD per million tokens, like '2.50', got {value!r}") from None
    if isinstance(value, bool) or not rate.is_finite() or rate < 0:
        raise InvalidRequestError(f"a rate is a finite number of USD per million tokens, >= 0, got {value!r}")
    if len(rate.as_tuple().digits) > _MAX_RATE_DIGITS or abs(rate.adjusted()) > _MAX_RATE_DIGITS:
        raise InvalidRequestError(f"a rate has at most {_MAX_RATE_DIGITS} digits, got {value!r}")
    return rate


def _required_rate(value: Number) -> Decimal:
    rate = _rate(value)
    if rate is None:
        raise InvalidRequestError("a price needs the rates of input and output, in USD per million tokens")
    return rate


@frozen
class Price:
    """Rates of one model, in USD per million tokens; a float goes through its shortest repr.

    Attributes:
        input: Tokens the model reads.
        output: Tokens the model writes.
        cached_input: Tokens read from the provider's cache; by default they cost what input costs.
        cache_write: Tokens written to the provider's cache; by default they cost what input costs.

    Raises:
        InvalidRequestError: (a ValueError) for what is no finite number >= 0.
    """

    input: Decimal = field(converter=_required_rate)
    output: Decimal = field(converter=_required_rate)
    cached_input: Decimal | None = field(default=None, converter=_rate)
    cache_write: Decimal | None = field(default=None, converter=_rate)

    def cost(
        self, tokens_input: int = 0, tokens_output: int = 0, tokens_cached_input: int = 0, tokens_cache_write: int = 0
    ) -> Amount:
        """What these counts cost, rounded up to a microcent, once.

        Args:
            tokens_input: All tokens read, those of the cache included.
            tokens_output: All tokens written.
            tokens_cached_input: How many of `tokens_input` came from the cache.
            tokens_cache_write: How many of `tokens_input` were written to the cache.

        Raises:
            InvalidRequestError: for a negative or fractional count, or a cost beyond int64.
        """
        read, written = checked_count(tokens_input, "tokens_input"), checked_count(tokens_output, "tokens_output")
        cached = checked_count(tokens_cached_input, "tokens_cached_input")
        stored = checked_count(tokens_cache_write, "tokens_cache_write")
        fresh = max(0, read - cached - stored)
        parts = (
            (fresh, self.input),
            (written, self.output),
            (cached, self.input if self.cached_input is None else self.cached_input),
            (stored, self.input if self.cache_write is None else self.cache_write),
        )
        total = Decimal(0)
        for count, rate in parts:
            total = _EXACT.add(total, _EXACT.multiply(_EXACT.multiply(Decimal(count), rate), _MICROCENTS_PER_TOKEN))
        return usd_microcents(int(total.to_integral_value(rounding=ROUND_CEILING)))


class PriceBook:
    """Prices by model, in USD per million tokens.

    A book is itself an ``actual=``: called with ``guard.usage``, or with an answer of a model SDK, it says what that
    cost. `cost` makes an ``estimate=``. A dated model name (``name-2024-08-06``) finds the price of ``name``.

    >>> import cycles
    >>> prices = cycles.PriceBook({"small-model": cycles.Price(input="0.15", output="0.60")})
    >>> prices.cost("small-model", tokens_input=1200, tokens_output=800)
    <Amount $0.00066>
    """

    __slots__ = ("_prices", "default_model")

    def __init__(
        self,
        prices: Mapping[str, Price | Mapping[str, Number] | Sequence[Number]],
        *,
        default_model: str | None = None,
    ) -> None:
        """Keep a copy of the prices.

        Args:
            prices: By model, `Price`s, mappings of a price's members (``{"input": "0.15", "output": "0.60"}``), or its
                rates in order (``("0.15", "0.60")``).
            default_model: The model assumed where an account or an answer names none.

        Raises:
            InvalidRequestError: naming the model whose price is wrong.
        """
        self._prices = {model: _price(model, price) for model, price in prices.items()}
        self.default_model = default_model

    def price(self, model: str) -> Price:
        """The price of a model.

        Raises:
            InvalidRequestError: if the book has none; the message names the models it has.
        """
        found = self._prices.get(model)
        if found is None and (dated := _DATED.fullmatch(model)):
            found = self._prices.get(dated.group(1))
        if found is None:
            known = ", ".join(sorted(self._prices)[:12]) or "none at all"
            raise InvalidRequestError(f"the price book has no model {model!r}; it has {known}")
        return found

    def cost(
        self,
        model: str,
        *,
        tokens_input: int = 0,
        tokens_output: int = 0,
        tokens_cached_input: int = 0,
        tokens_cache_write: int = 0,
    ) -> Amount:
        """What these counts cost with that model; see `Price.cost`."""
        return self.price(model).cost(tokens_input, tokens_output, tokens_cached_input, tokens_cache_write)

    def __call__(self, spent: Any) -> Amount:
        """What a `Usage`, or an answer that tells its usage, cost.

        Raises:
            InvalidRequestError: if it names no model and there is no `default_model`, if the book has no price for
                it, or if it tells no token counts.
        """
        usage = spent if isinstance(spent, Usage) else any_answer(spent)
        model = usage.model_version or self.default_model
        if model is None:
            raise InvalidRequestError("what was used names no model; give PriceBook(..., default_model=...)")
        if not usage.is_filled:
            raise InvalidRequestError("no token counts to price; were they asked for (stream_options include_usage)?")
        return self.price(model).cost(
            usage.tokens_input, usage.tokens_output, usage.tokens_cached_input, usage.tokens_cache_write
        )

    def __contains__(self, model: str) -> bool:
        return model in self._prices

    def __repr__(self) -> str:
        return f"<PriceBook of {len(self._prices)} models>"


def _price(model: str, price: Price | Mapping[str, Number] | Sequence[Number]) -> Price:
    if isinstance(price, Price):
        return price
    try:
        return Price(**price) if isinstance(price, Mapping) else Price(*price)
    except (TypeError, InvalidRequestError) as problem:
        raise InvalidRequestError(f"the price of {model!r}: {problem}") from None
