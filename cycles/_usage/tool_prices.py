"""Prices of hosted tools that the price data does not have, and factors of service tiers. `docs/prices.md` prints them.

A rate that a model's entry lacks is the first of: that of the same model in its maker's list (`maker`), that of the
first matching row of this table (`table`), and the highest that the count may cost (`bound`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, Final, TypeAlias

from attrs import evolve, field, fields, frozen

from cycles._core.values.counts import CALLS
from cycles._errors import InvalidRequestError
from cycles._usage.pricing import Price

Rate: TypeAlias = Decimal | Fraction

_EXACT: Final = Context(prec=80)
_OPENAI: Final = "https://platform.openai.com/docs/pricing"
_ANTHROPIC: Final = "https://docs.claude.com/en/docs/about-claude/pricing"
_GOOGLE: Final = "https://ai.google.dev/gemini-api/docs/pricing"
_AWS: Final = "https://aws.amazon.com/bedrock/pricing/"

_GEMINI_2: Final = r"gemini-(?:[12]\b|(?:flash|pro)-1|live-2|pro$)"
"""Gemini 1 and 2, also by their older names."""


def _pattern(beginning: str) -> re.Pattern[str]:
    return re.compile(beginning)


@frozen
class ToolPrice:
    """One row of the table.

    Attributes:
        maker: Whose models; ``any``: of all makers.
        count: What is priced.
        models: What the model's name begins with; the first matching row applies.
        usd: USD for one.
        page: Where the maker publishes it.
        checked: How old the rate is. `docs/prices.md` says which rows were compared with a copy of the page.
    """

    maker: str
    count: str
    models: re.Pattern[str] = field(converter=_pattern)
    usd: Decimal = field(converter=Decimal)
    page: str
    checked: str


@frozen
class Factor:
    """What a service tier or a region multiplies the price of tokens with; attributes as for `ToolPrice`."""

    maker: str
    context: str
    times: Decimal = field(converter=Decimal)
    page: str
    checked: str


TOOL_PRICES: Final = (
    ToolPrice("openai", "web_searches", r"gpt-4o(?:-mini)?-search-preview", "0.025", _OPENAI, "2026-03-12"),
    ToolPrice("openai", "web_searches", "", "0.01", _OPENAI, "2026-03-12"),
    ToolPrice("openai", "web_searches_preview", r"gpt-4o|gpt-4\.1", "0.025", _OPENAI, "2026-03-12"),
    ToolPrice("openai", "web_searches_preview", "", "0.01", _OPENAI, "2026-03-12"),
    ToolPrice("openai", "file_searches", "", "0.0025", _OPENAI, "2026-03-12"),
    ToolPrice("openai", "code_sessions", "", "0.03", _OPENAI, "2026-03-12"),
    ToolPrice("openai", "audio_ms", "", "0.0000001", _OPENAI, "2026-03-12"),
    ToolPrice("openai", "characters_input", "", "0.00003", _OPENAI, "2026-03-12"),
    ToolPrice("anthropic", "web_searches", "", "0.01", _ANTHROPIC, "2026-03-12"),
    ToolPrice("google", "web_searches", _GEMINI_2, "0.035", _GOOGLE, "2026-09-20"),
    ToolPrice("google", "web_searches", "", "0.014", _GOOGLE, "2026-09-20"),
    ToolPrice("google", "maps_searches", _GEMINI_2, "0.025", _GOOGLE, "2026-09-20"),
    ToolPrice("google", "maps_searches", "", "0.014", _GOOGLE, "2026-09-20"),
    ToolPrice("any", "guardrail_units", "", "0.00015", _AWS, "2026-11-29"),
    ToolPrice("any", "guardrail_information_units", "", "0.0001", _AWS, "2026-11-29"),
    ToolPrice("google", "tokens_input", "gemma", "0", _GOOGLE, "2026-09-20"),
    ToolPrice("google", "tokens_output", "gemma", "0", _GOOGLE, "2026-09-20"),
)
"""The rows of `tokens_` are USD per million tokens, for models without any rate."""
FACTORS: Final = (
    Factor("google", "service_tier:priority", "1.8", _GOOGLE, "2026-09-20"),
    Factor("google", "service_tier:flex", "0.5", _GOOGLE, "2026-09-20"),
    Factor("google", "processing:batch", "0.5", _GOOGLE, "2026-09-20"),
    Factor("aws", "service_tier:flex", "0.5", _AWS, "2026-11-29"),
    Factor("aws", "service_tier:priority", "1.75", _AWS, "2026-11-29"),
    Factor("anthropic", "inference_geo:us", "1.1", _ANTHROPIC, "2026-03-12"),
)
_CALL_COUNTS: Final = tuple(name for name in CALLS if not name.startswith(("audio_", "characters_", "guardrail_")))
"""Counts of calls; the others are counts of what is read."""


def checked_tools(tools: object) -> dict[str, Rate]:
    """Return prices of tools that replace the table's, as exact rates.

    Raises:
        InvalidRequestError: for an unknown count, or a rate that is no number >= 0.
    """
    if tools is None:
        return {}
    if not isinstance(tools, Mapping):
        raise InvalidRequestError(f"tools must be a mapping of counts to USD for one, got {tools!r:.80}")
    if unknown := [name for name in tools if name not in CALLS]:
        raise InvalidRequestError(f"tools has no count {unknown[0]!r:.80}: use {', '.join(CALLS)}")
    for name, usd in tools.items():
        try:
            Price(usd, 0)
        except InvalidRequestError:
            raise InvalidRequestError(f"tools: {name} must be USD for one, such as '0.01', got {usd!r:.80}") from None
    return dict(Price(0, 0, per_call=tools).per_call)


def rate_of(maker: str, count: str, model: str) -> Decimal | None:
    """Return the rate of the first matching row, or None."""
    rows = (row for row in TOOL_PRICES if row.count == count and row.models.match(model))
    return next((row.usd for row in rows if row.maker in (maker, "any")), None)


def bound_of_count(maker: str, count: str) -> Decimal:
    """Return the highest rate of a count; of a count that no row has, the highest price of a call of that maker."""
    own = [row.usd for row in TOOL_PRICES if row.count == count]
    calls = [row for row in TOOL_PRICES if row.count in _CALL_COUNTS]
    makers = [row.usd for row in calls if row.maker == maker]
    return max(own or makers or [row.usd for row in calls])


def factor_of(maker: str, context: str) -> Decimal | None:
    """Return what a part of a request's context multiplies the price of tokens with, or None."""
    return next((row.times for row in FACTORS if (row.maker, row.context) == (maker, context)), None)


_TOKEN_RATES: Final = tuple(
    each.name for each in fields(Price) if each.name not in ("input", "output", "per_call", "above", "tiers")
)


def times(price: Price, factor: Decimal) -> Price:
    """Return a price whose rates of tokens are multiplied."""
    rates = {name: getattr(price, name) for name in ("input", "output", *_TOKEN_RATES)}
    multiplied: dict[str, Any] = {
        name: _EXACT.multiply(rate, factor) for name, rate in rates.items() if rate is not None
    }
    above = {start: times(longer, factor) for start, longer in price.above.items()}
    return evolve(price, **multiplied, above=above)


def complete(
    price: Price, absent: Sequence[str], model: str, maker: str, of_maker: Price | None, tools: Mapping[str, Rate]
) -> tuple[Price, dict[str, str]]:
    """Return a price that has a rate for each count, and the rule that has supplied each rate that it lacked.

    Args:
        price: As the data has it.
        absent: Those of `tokens_input` and `tokens_output` that the data has no rate for.
        model: The name that its maker uses.
        maker: Who makes the model.
        of_maker: The price of the model in its maker's own list.
        tools: USD for one of a count, in place of the table's rows and of the data.
    """
    rules: dict[str, str] = {}
    changes: dict[str, Any] = {}
    for name in absent:
        member = name.removeprefix("tokens_")
        rule, rate = _rate_of_tokens(price, name, model, maker, of_maker)
        if rule:
            rules[name], changes[member] = rule, rate
    if of_maker is not None and (price.input, price.output) == (of_maker.input, of_maker.output):
        for name in _TOKEN_RATES:
            rate_there = getattr(of_maker, name)
            if getattr(price, name) is None and rate_there is not None:
                rules[f"tokens_{name}"], changes[name] = "maker", rate_there
    calls: dict[str, Rate] = {**price.per_call, **tools}
    for count in CALLS:
        if count in price.per_call:
            continue
        rules[count], calls[count] = _rate_of_calls(count, model, maker, of_maker, tools)
    above = {}
    for start, longer in price.above.items():
        there = None if of_maker is None else of_maker.above.get(start)
        above[start], _ = complete(
            evolve(longer, per_call=longer.per_call or price.per_call), absent, model, maker, there or of_maker, tools
        )
    return evolve(price, **changes, per_call=calls, above=above), rules


def _rate_of_tokens(price: Price, count: str, model: str, maker: str, of_maker: Price | None) -> tuple[str, Decimal]:
    """Return the rate of all input or of all output; the bound is the highest rate of the other one."""
    if of_maker is not None and (there := getattr(of_maker, count.removeprefix("tokens_"))):
        return "maker", there
    if (usd := rate_of(maker, count, model)) is not None:
        return "table", usd
    known = [rate for name in ("input", "output", *_TOKEN_RATES) if (rate := getattr(price, name))]
    return ("bound", max(known)) if known else ("", Decimal(0))


def _rate_of_calls(
    count: str, model: str, maker: str, of_maker: Price | None, tools: Mapping[str, Rate]
) -> tuple[str, Rate]:
    if count in tools:
        return "table", tools[count]
    if of_maker is not None and count in of_maker.per_call:
        return "maker", of_maker.per_call[count]
    rate = rate_of(maker, count, model)
    return ("bound", bound_of_count(maker, count)) if rate is None else ("table", rate)
