"""Prices of models: `Price` and `PriceBook`. The package `genai-prices` is imported inside `PriceBook.genai` only."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Self, TypeAlias, Unpack, overload

from attrs import evolve, field, frozen

from cycles._core.amounts import Amount, tokens
from cycles._core.values.counts import Counts
from cycles._core.values.usage import Usage, checked_count, checked_counts
from cycles._errors import ConfigurationError, InvalidRequestError, UnknownModelError, did_you_mean
from cycles._usage.catalogue import Catalogue, Found, listed_name
from cycles._usage.estimating import Shape, highest, most_tokens, shape_of
from cycles._usage.openai_tokens import counter_for, request_tokens
from cycles._usage.price_file import PriceFile, parsed_prices
from cycles._usage.pricing import NOTHING, Number, Price, as_price, microcents, rounded_up, select, unpriced
from cycles._usage.readers import any_response
from cycles._usage.tokens import Bound, bound_of
from cycles._usage.tool_prices import checked_tools
from cycles._version import install_extra, public, readable

__all__ = ["Price", "PriceBook"]

PriceLike: TypeAlias = Price | Mapping[str, Any] | Sequence[Number]
CountTokens: TypeAlias = Callable[[str, Any], int]

_log: Final = logging.getLogger("cycles")
# "gpt-x-2024-08-06", "claude-y-20241022", "gemini-z@20250101": the date of a release, which price lists omit.
_DATED: Final = re.compile(r"(.+?)[-@](\d{4}-\d{2}-\d{2}|\d{8})")


@frozen
class Priced:
    """What a usage costs.

    Attributes:
        amount: The sum of all responses, rounded up once.
        unpriced: Counts and tiers that have no price.
        fallback: True if the book's `fallback` priced a part of it.
        rules: What has supplied each rate that the data lacked: ``"maker"``, ``"table"`` or ``"bound"``.
    """

    amount: Amount
    unpriced: tuple[str, ...] = ()
    fallback: bool = False
    rules: Mapping[str, str] = field(factory=dict)


@frozen
class Origin:
    """What a guarded client knows of a request: it selects the price.

    Attributes:
        model: The model of the request; prices a response whose own model is unknown.
        provider: The provider whose client sent it, for example ``"openai"``.
        url: The base URL of that client.
        at: The time of the request.
    """

    model: str | None = None
    provider: str | None = None
    url: str | None = None
    at: datetime | None = None


_NO_ORIGIN: Final = Origin()
_FILE: Final = "CYCLES_PRICES_FILE"
_RULES: Final = {
    "maker": "that of the model's maker is used",
    "table": "that of the table of tool prices is used",
    "bound": "the highest that it may cost is used",
}


class PriceBook:
    """Prices by model, in USD per million tokens.

    A book is an ``actual=`` itself: called with ``guard.usage``, or with a response of a model SDK, it returns what
    that cost. `estimate` makes an ``estimate=``. A dated model name (``name-2024-08-06``) finds the price of ``name``.

    >>> import cycles
    >>> prices = cycles.PriceBook({"small-model": cycles.Price(input="0.15", output="0.60")})
    >>> prices.cost("small-model", tokens_input=1200, tokens_output=800)
    <Amount $0.00066>
    """

    __slots__ = (
        "_aliases",
        "_at",
        "_catalogue",
        "_count_tokens",
        "_fallback",
        "_nears",
        "_prices",
        "_reported",
        "default_model",
    )

    def __init__(self, prices: Mapping[str, PriceLike], *, default_model: str | None = None) -> None:
        """Copy the prices.

        Args:
            prices: By model: `Price`s, mappings of a price's members (``{"input": "0.15", "output": "0.60"}``), or the
                rates in order (``("0.15", "0.60")``).
            default_model: The model to assume if a usage or a response names none.

        Raises:
            InvalidRequestError: naming the model whose price is wrong.
        """
        if not isinstance(prices, Mapping):
            raise InvalidRequestError(f"prices must be a mapping of models to prices, got {prices!r:.80}")
        self._prices = {model: _price(model, price) for model, price in prices.items()}
        self.default_model: str | None = default_model
        self._aliases: Mapping[str, str] = {}
        self._fallback: Price | str | None = None
        self._catalogue: Catalogue | None = None
        self._at: datetime | None = None
        self._count_tokens: CountTokens | None = None
        self._reported: dict[tuple[str, str], object] = {}
        self._nears: dict[str, str] = {}

    @classmethod
    def genai(
        cls,
        overrides: Mapping[str, PriceLike] | None = None,
        *,
        aliases: Mapping[str, str] | None = None,
        fallback: Price | str | None = None,
        default_model: str | None = None,
        provider: str | None = None,
        at: datetime | None = None,
        count_tokens: CountTokens | None = None,
        tools: Mapping[str, Number] | None = None,
        file: str | Path | None = None,
    ) -> Self:
        """Make a book of the prices in the package `genai-prices`; nothing is downloaded.

        Args:
            overrides: Prices that win over the package's, as `PriceBook(...)` takes them.
            aliases: Your own names of models, such as Azure deployments, and the models that they name.
            fallback: The price of unknown models, or the model whose price they have; logged once for each.
            default_model: The model to assume if a usage or a response names none.
            provider: The provider whose prices apply, for example ``"azure"``.
            at: The time whose prices apply; by default that of each request.
            count_tokens: Counts the input tokens of ``(model, content)`` for `estimate`, in place of the byte bound and
                of the extra `tokens`. The content is a string, or lists and dicts without inline media.
            file: A file of newer prices, see `docs/prices.md`; by default the one that CYCLES_PRICES_FILE names. It
                wins over the package and loses against the other arguments.
            tools: USD for one of a count, for all models, in place of the package's prices and the table of tool
                prices; for example ``{"code_sessions": "0.12"}``.

        Raises:
            ConfigurationError: if the package is not installed, or the file cannot be read.
            InvalidRequestError: for a wrong price, or a count in `tools` that is unknown.
        """
        try:
            from genai_prices.data_snapshot import get_snapshot
        except ImportError as error:
            raise ConfigurationError(
                f"the package genai-prices is missing: {install_extra('prices')}; or use cycles.PriceBook({{...}})"
            ) from error
        if aliases is not None and not isinstance(aliases, Mapping):
            raise InvalidRequestError(f"aliases must be a mapping of names to models, got {aliases!r:.80}")
        if count_tokens is not None and not callable(count_tokens):
            raise InvalidRequestError(f"count_tokens must be a callable of model and content, got {count_tokens!r:.80}")
        if at is not None and not isinstance(at, datetime):
            raise InvalidRequestError(f"at must be a datetime, got {at!r:.80}")
        book = cls(overrides or {}, default_model=default_model)
        book._aliases = dict(aliases or {})
        book._fallback = fallback if fallback is None or isinstance(fallback, str) else _price("fallback", fallback)
        named = "file" if file is not None else _FILE
        path = file if file is not None else os.environ.get(_FILE)
        newer = read_price_file(path, named) if path else PriceFile({}, {})
        given = {**newer.tools, **checked_tools(tools)}
        book._catalogue = Catalogue(get_snapshot, provider, given, newer.models)
        book._at = at
        book._count_tokens = count_tokens
        return book

    def price(self, model: str, *, context: Mapping[str, str] | None = None) -> Price:
        """Return the price of a model.

        Args:
            model: Its name, or an alias of it.
            context: What selects a variant, for example ``{"service_tier": "flex"}``.

        Raises:
            UnknownModelError: (an InvalidRequestError) if the book has none.
        """
        return self._found(model, context or {}, _NO_ORIGIN).price

    @overload
    def cost(self, model: str, *, context: Mapping[str, str] | None = None, **counts: Unpack[Counts]) -> Amount: ...
    @overload
    def cost(self, model: Any) -> Amount: ...
    def cost(self, model: Any, *, context: Mapping[str, str] | None = None, **counts: Unpack[Counts]) -> Amount:
        """Return what a usage cost, or a response, or counts of a model; rounded up to a microcent, once.

        Args:
            model: A model name; or a `Usage`, or a response of a model SDK, and then nothing else.
            context: What selects a variant, for example ``{"service_tier": "flex"}``.
            counts: Counts of `docs/prices.md`.

        Raises:
            UnknownModelError: (an InvalidRequestError) if the book has no price for a model.
            InvalidRequestError: for a wrong count; for a usage without counts, or without a model.
        """
        if not isinstance(model, str):
            if context is not None or counts:
                raise InvalidRequestError(
                    "cost() needs either a usage or response, or a model name with counts: pass one of them"
                )
            return self.priced(model).amount
        given = checked_counts(counts)
        usage = Usage()
        usage.see_response(None, given, model=model, context=context)
        return self.priced(usage).amount if given else rounded_up([self._cost_of({}, model, context or {})])

    def priced(self, spent: Any, origin: Origin = _NO_ORIGIN) -> Priced:
        """Return what a usage, or a response, cost, and what of it has no price.

        Args:
            spent: A `Usage`, or a response of a model SDK.
            origin: What is known of the request.

        Raises:
            UnknownModelError: (an InvalidRequestError) if the book has no price for a model.
            InvalidRequestError: for a usage without counts, or without a model.
        """
        usage = spent if isinstance(spent, Usage) else any_response(spent)
        responses = usage.responses()
        if not responses:
            raise InvalidRequestError(
                "the usage has no token counts to price; send the request with stream_options={'include_usage': True}"
            )
        parts, missing, fallback, rules = [], dict[str, None](), False, dict[str, str]()
        for one in responses:
            model = one.model or usage.model_version or origin.model or self.default_model
            if model is None:
                raise InvalidRequestError("the usage names no model: pass PriceBook(..., default_model=...)")
            found, name = self._settled(model, one.context, origin)
            parts.append(microcents(found.price, one.counts))
            absent = [x for x in found.missing if ":" in x]
            absent += unpriced(found.price, one.counts, [x for x in found.missing if ":" not in x])
            missing.update(dict.fromkeys(absent))
            fallback = fallback or found.fallback
            for kind in absent:
                instead = "the standard price is used" if ":" in kind else "it is not in the amount"
                self._report(name, kind, f"no price is known for it; {instead}")
            for kind, rule in found.rules.items():
                if ":" in kind or one.counts.get(kind):
                    rules[kind] = rule
                    self._report(name, kind, f"the data has no rate; {_RULES[rule]}")
            if one.counts.get("tokens_output_bound"):
                rules["tokens_output_bound"] = "bound"
                self._report(name, "tokens_output_bound", "the response reports no usage; its bound is used")
        return Priced(rounded_up(parts), tuple(missing), fallback, rules)

    def estimate(
        self,
        model: str,
        content: Any = None,
        *,
        max_output_tokens: int,
        tokens_input: int | None = None,
        context: Mapping[str, str] | None = None,
    ) -> Amount:
        """Return the highest price that a request may have; see `docs/prices.md` for the bound.

        Args:
            model: Its name, or an alias of it.
            content: The prompt, the messages, or the whole request body with its tools and settings.
            max_output_tokens: The output limit of the request.
            tokens_input: The input tokens, if you know them; otherwise they are bounded from `content`.
            context: What selects a variant, for example ``{"service_tier": "flex"}``.

        Raises:
            UnknownModelError: (an InvalidRequestError) if the book has no price for the model.
            InvalidRequestError: for a negative or fractional number of tokens.
        """
        limit = checked_count(max_output_tokens, "max_output_tokens")
        if tokens_input is not None:
            checked_count(tokens_input, "tokens_input")
        return self.worst_case(
            model, content, shape_of(content, output_tokens=limit), tokens_input=tokens_input, context=context or {}
        )

    def worst_case(
        self,
        model: str,
        content: Any,
        shape: Shape,
        *,
        tokens_input: int | None = None,
        context: Mapping[str, str] | None = None,
        origin: Origin = _NO_ORIGIN,
    ) -> Amount:
        """As `estimate`, for a request whose shape is known."""
        costs = self.bounds(model, content, shape, tokens_input=tokens_input, context=context, origin=origin)
        return costs(shape.output_tokens)

    def bounds(
        self,
        model: str,
        content: Any,
        shape: Shape,
        *,
        tokens_input: int | None = None,
        known_input: int | None = None,
        context: Mapping[str, str] | None = None,
        origin: Origin = _NO_ORIGIN,
    ) -> Callable[[int], Amount]:
        """Return the highest price of a request by its output limit.

        Args:
            model: As for `estimate`, like the next two.
            content: See there.
            shape: What else of the request decides; its own output limit is replaced.
            tokens_input: As for `estimate`.
            known_input: Another bound of the input tokens; the lower one counts, unless this book counts tokens.
            context: As for `estimate`.
            origin: What is known of the request.

        Raises:
            UnknownModelError: (an InvalidRequestError) if the book has no price for the model.
        """
        bound = bound_of(content)
        if tokens_input is None:
            tokens_input = self._input_of(model, content, bound, known_input)
        founds = [self._found(model, {}, origin), *self._latest(model, context or {}, origin)]
        if context:  # a tier may be lowered to the standard one, which may cost more
            founds.append(self._found(model, context, origin))
        writes = "claude" not in self._aliases.get(model, model).lower()
        name = self._name(model)
        images = self._hosted_images(shape, tokens_input or bound.tokens(name), origin)

        def at(output_tokens: int) -> Amount:
            limited = shape if output_tokens == shape.output_tokens else evolve(shape, output_tokens=output_tokens)
            costs = [
                highest(one, name, bound, limited, tokens_input=tokens_input, writes_cache=writes) for one in founds
            ]
            return rounded_up([max(costs) + images if images else max(costs)])

        return at

    def token_bounds(
        self, model: str, content: Any, shape: Shape, *, known_input: int | None = None
    ) -> Callable[[int], Amount]:
        """Return the most tokens of a request by its output limit; the model needs no price.

        Args:
            model: Its name, for a book that counts tokens.
            content: As for `estimate`.
            shape: As for `bounds`.
            known_input: As for `bounds`.
        """
        bound = bound_of(content)
        tokens_input = self._input_of(model, content, bound, known_input)
        name = self._name(model)
        return lambda output_tokens: tokens(
            most_tokens(bound, evolve(shape, output_tokens=output_tokens), name, tokens_input=tokens_input)
        )

    def _input_of(self, model: str, content: Any, bound: Bound, known_input: int | None) -> int | None:
        """Return the input tokens of a request, if the book counts them or a lower bound is known."""
        text, name = None if content is None else self._text_of(model, bound), self._name(model)
        if text is not None and bound.may_fill_window(name):
            text = None
        elif self._count_tokens is not None and text is not None:
            return bound.tokens(name, text)
        bounds = [n for n in (known_input, None if text is None else bound.tokens(name, text)) if n is not None]
        return min(*bounds, bound.tokens(name)) if bounds else None

    def _text_of(self, model: str, bound: Bound) -> int | None:
        """Return the tokens of a request's text, counted; None if this book does not count those of the model."""
        if self._count_tokens is not None:
            return checked_count(self._count_tokens(model, bound.content), "count_tokens")
        counter = counter_for(self._aliases.get(model, model)) if self._catalogue is not None else None
        return None if counter is None else request_tokens(counter, bound.content)

    @property
    def counts_tokens(self) -> bool:
        """Whether a function of the user counts the input tokens of requests, in place of every other bound."""
        return self._count_tokens is not None

    def check(self, model: str, origin: Origin = _NO_ORIGIN) -> None:
        """Check that the book can price a model.

        Raises:
            UnknownModelError: (an InvalidRequestError) if it cannot.
        """
        self._found(model, {}, origin)

    def count_input(self, model: str, content: Any) -> int:
        """Return the input tokens of a request whose response did not report them: counted, or a third of its bound."""
        bound = bound_of(content)
        text, rest = self._text_of(model, bound), bound.typical(self._name(model))
        if text is None:
            return max(1, -(-(bound.text_bytes + rest) // 3))
        return max(1, text + rest // 3)

    def count_output(self, model: str, text: bytes) -> int | None:
        """Return the tokens of output text if this book counts those of the model; otherwise None."""
        made = text.decode("utf-8", "replace")
        if self._count_tokens is not None:
            return checked_count(self._count_tokens(model, made), "count_tokens")
        counter = counter_for(self._aliases.get(model, model)) if self._catalogue is not None else None
        return None if counter is None else counter.text(made)

    def __call__(self, spent: Any) -> Amount:
        """Return what a `Usage`, or a response that reports its usage, cost.

        Raises:
            InvalidRequestError: if it names no model and there is no `default_model`, if the book has no price for
                it, or if it reports no token counts.
        """
        return self.priced(spent).amount

    def look_up(self, model: str, origin: Origin = _NO_ORIGIN) -> Found:
        """Return the price of a model with its provider and the rules that have supplied its rates.

        Raises:
            UnknownModelError: (an InvalidRequestError) if the book has none.
        """
        return self._found(model, {}, origin)

    def has(self, model: str, origin: Origin = _NO_ORIGIN) -> bool:
        """Return whether the book has a price for a model of this origin."""
        return self._known(model, {}, origin) is not None

    def __contains__(self, model: str) -> bool:
        return self.has(model)

    def __repr__(self) -> str:
        source = " over genai-prices" if self._catalogue is not None else ""
        return f"<PriceBook of {len(self._prices)} models{source}>"

    def _cost_of(self, counts: Mapping[str, int], model: str, context: Mapping[str, str]) -> Fraction:
        return microcents(self._found(model, context, _NO_ORIGIN).price, counts)

    def _hosted_images(self, shape: Shape, tokens: int, origin: Origin) -> Fraction:
        if not shape.images:
            return NOTHING
        image, read = Shape("image", results=shape.images), tokens * shape.images
        found = [(self._found(model, {}, origin), model) for model in shape.image_models]
        return max(highest(each, model, bound_of(None), image, tokens_input=read) for each, model in found)

    def _settled(self, model: str, context: Mapping[str, str], origin: Origin) -> tuple[Found, str]:
        """Return the price of a response's model if the book knows it, otherwise that of the request's model."""
        found = self._known(model, context, origin)
        if found is None and origin.model is not None and origin.model != model:
            return self._found(origin.model, context, origin), origin.model
        return found or self._found(model, context, origin), model

    def _found(self, model: str, context: Mapping[str, str], origin: Origin) -> Found:
        found = self._known(model, context, origin)
        if found is not None:
            return found
        if self._fallback is not None:
            self._report(model, "fallback", "no price is known for it; the fallback price is used")
            if isinstance(self._fallback, Price):
                price, missing = select(self._fallback, context)
                return Found(price, tuple(missing), fallback=True)
            other = self._known(self._fallback, context, origin)
            if other is not None:
                return Found(other.price, other.missing, other.window, other.provider, fallback=True)
            model = self._fallback
        known = ", ".join(sorted(self._prices)[:12])
        raise UnknownModelError(
            f"the price book has no model {model!r:.80}{f'; it has {known}' if known else ''}{self._near(model)}: "
            "pass its price in the book "
            "(PriceBook.genai(overrides={...}) or aliases={...}), pass fallback= a price for unknown models, "
            "or free_hosts= to guard() if its host costs nothing"
        )

    def _near(self, model: str) -> str:
        """Return "; did you mean X?" if this book has a model with a name like that; otherwise nothing."""
        if model not in self._nears:
            listed = () if self._catalogue is None else self._catalogue.names()
            if len(self._nears) >= 4_096:
                self._nears = {}
            names = {*self._prices, *self._aliases, *listed}  # with this name, if another provider has the model
            self._nears[model] = "" if model in names else did_you_mean(model, sorted(names))
        return self._nears[model]

    def _name(self, model: str) -> str:
        """Return the name of a model as price lists have it."""
        return listed_name(self._aliases.get(model, self._aliases.get(listed_name(model), model)))

    def _known(self, model: str, context: Mapping[str, str], origin: Origin) -> Found | None:
        name = self._name(model)
        own = self._prices.get(name) or self._prices.get(model)
        if own is None and (dated := _DATED.fullmatch(name)):
            own = self._prices.get(dated.group(1))
        if own is not None:
            price, missing = select(own, context)
            return Found(price, tuple(missing))
        if self._catalogue is None:
            return None
        at = self._at or origin.at or datetime.now(UTC)
        found = self._catalogue.find(name, context, at, origin.provider, origin.url)
        if found is None and (latest := self._latest(name, context, origin)):
            return max(latest, key=lambda one: one.price.input + one.price.output)
        return found

    def _latest(self, model: str, context: Mapping[str, str], origin: Origin) -> list[Found]:
        """Return the prices of the models that a name with ``-latest`` may be, as far as the data has them."""
        name = listed_name(self._aliases.get(model, model))
        if self._catalogue is None or not name.endswith("-latest") or name in self._prices:
            return []
        at = self._at or origin.at or datetime.now(UTC)
        return self._catalogue.latest(name, context, at, origin.provider, origin.url)

    def _report(self, model: str, kind: str, what: str) -> None:
        own = object()  # no lock, which a signal handler or a forked child could meet
        if self._reported.setdefault((model, kind), own) is own:
            _log.warning("price of model %s, %s: %s", model, kind, what)


def read_price_file(path: str | Path, named: str, *, older: bool = False) -> PriceFile:
    """Return the prices of a JSON file, or of a TOML file by its ending.

    Args:
        path: Where it is.
        named: What named the file, for messages.
        older: Whether the form without `models` is read too: prices by model.

    Raises:
        ConfigurationError: if the file cannot be read or a price is wrong, with its path and the model.
    """
    where = f"{named} {path}"
    try:
        content = Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{where} cannot be read: {error}; pass a JSON or TOML file") from error
    return parsed_prices(content, where, is_toml=str(path).endswith(".toml"), older=older)


def _price(model: str, price: PriceLike) -> Price:
    try:
        return as_price(price)
    except InvalidRequestError as problem:
        raise InvalidRequestError(f"the price of {model!r:.80}: {problem}") from None


public(PriceBook)
readable(Origin, Priced)
