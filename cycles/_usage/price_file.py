"""Read a file of prices: JSON or TOML with `models`, by name, and `tools`, in USD for one of a count."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from cycles._errors import ConfigurationError, InvalidRequestError
from cycles._usage.pricing import Price, as_price
from cycles._usage.tool_prices import Rate, checked_tools

_MEMBERS: Final = ("models", "tools")


@frozen
class PriceFile:
    """The prices of a file.

    Attributes:
        models: By name; the rules supply what these prices lack.
        tools: USD for one of a count.
        is_older: Whether the file has the form without `models`: its prices are complete.
    """

    models: Mapping[str, Price]
    tools: Mapping[str, Rate]
    is_older: bool = False


def parsed_prices(content: str, where: str, *, is_toml: bool, older: bool) -> PriceFile:
    """Return the prices of a file.

    Args:
        content: What the file contains.
        where: What named the file, and its path, for messages.
        is_toml: Whether it is TOML and not JSON.
        older: Whether the form without `models` is read too: prices by model.

    Raises:
        ConfigurationError: if it is no such file or a price is wrong, with its path and the model.
    """
    try:
        found = tomllib.loads(content) if is_toml else json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{where} cannot be read: {error}; pass a JSON or TOML file") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f'{where} has no models: write {{"models": {{MODEL: {{input, output, ...}}}}}}')
    is_older = older and not isinstance(found.get("models"), dict) and "tools" not in found
    if is_older:
        return PriceFile(_models(where, found), {}, is_older=True)
    if unknown := [name for name in found if name not in _MEMBERS]:
        raise ConfigurationError(f"{where} has no member {unknown[0]!r:.80}: write models and tools")
    models = found.get("models", {})
    if not isinstance(models, dict):
        raise ConfigurationError(f"{where}: models must be an object of prices by name, got {models!r:.80}")
    try:
        tools = checked_tools(found.get("tools"))
    except InvalidRequestError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    return PriceFile(_models(where, models), tools)


def _models(where: str, found: Mapping[str, Any]) -> dict[str, Price]:
    prices = {}
    for model, price in found.items():
        try:
            prices[model] = as_price(_with_numbers(price))
        except (InvalidRequestError, ValueError) as error:
            raise ConfigurationError(f"{where}: the price of {model!r:.80}: {error}") from error
    return prices


def _with_numbers(price: Any) -> Any:
    """Return a price whose context lengths are numbers: JSON and TOML have only strings as names."""
    found = dict(price) if isinstance(price, dict) else {}
    for name, key_of in (("above", _number), ("tiers", str)):
        if isinstance(inner := found.get(name), dict):
            found[name] = {key_of(key): _with_numbers(member) for key, member in inner.items()}
    return found or price


def _number(start: str) -> int | str:
    """Return a context length as a number; `Price` rejects what is none."""
    return int(start) if start.isascii() and start.isdigit() else start
