"""The settings of the proxy, from its flags and from the environment. No I/O but reading a price file."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from attrs import field, frozen

from cycles._core.amounts import Amount
from cycles._errors import ConfigurationError, InvalidRequestError
from cycles.prices import PriceBook
from cycles.providers._endpoints import Provider

PROVIDERS: Final[Mapping[str, Provider]] = {"openai": "openai", "anthropic": "anthropic", "gemini": "google"}
"""First segment of a path, and flag: the provider."""
VARIABLES: Final = {
    "openai": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
    "gemini": "GOOGLE_GEMINI_BASE_URL",
}
"""The variable from which the SDKs of a provider read their base URL."""
UPSTREAMS: Final = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
}
"""Addresses of the providers themselves."""


@frozen(kw_only=True)
class ProxySettings:
    """How the proxy treats requests.

    Attributes:
        upstreams: Base URL of each provider.
        prices: The price book.
        subject: Subject fields of each reservation.
        max_output_tokens: Sent if a request sets no output limit, and the ceiling of those that do.
        unknown_model: What a request to a model without a price may cost; None rejects it.
        unmetered: Whether requests that may cost money and cannot be metered are rejected or passed.
        wait: Seconds to wait for budget that other requests may release.
        key: The first segment of each path, or the header `X-Cycles-Proxy-Key`; None: no key is needed.
    """

    upstreams: Mapping[str, str]
    prices: PriceBook
    subject: Mapping[str, str] = field(factory=dict)
    max_output_tokens: int | None = None
    unknown_model: Amount | None = None
    unmetered: Literal["refuse", "allow"] = "refuse"
    wait: float | None = None
    key: str | None = field(default=None, repr=False)


def upstreams_of(given: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the base URL of each provider: a flag, then what the SDKs' variable holds, then the provider's own.

    Raises:
        ConfigurationError: for an address that is no http or https URL.
    """
    found = {}
    for name, variable in VARIABLES.items():
        url = given.get(name) or environ.get(variable) or UPSTREAMS[name]
        if not _is_address(url):
            source = f"--upstream {name}" if given.get(name) else variable
            raise ConfigurationError(f"{source} is not an http or https address: {url!r:.120}; write https://HOST/PATH")
        found[name] = url.rstrip("/")
    return found


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError:  # a port that is no number, or too large
        return False
    is_plain = url.isprintable() and " " not in url and not parts.query and not parts.fragment
    return parts.scheme in ("http", "https") and bool(parts.hostname) and has_port and is_plain


def price_book(path: str | None) -> PriceBook:
    """Return the installed prices, overridden by those of a JSON or TOML file.

    Raises:
        ConfigurationError: if the file cannot be read, or if the package `genai-prices` is not installed.
    """
    return PriceBook.genai(overrides=None if path is None else _overrides(Path(path)))


def _overrides(path: Path) -> dict[str, Any]:
    try:
        content = path.read_text("utf-8")
        found = tomllib.loads(content) if path.suffix == ".toml" else json.loads(content)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--prices {path} cannot be read: {error}; pass a JSON or TOML file") from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"--prices {path} has no models: write {{MODEL: {{input, output, ...}}}}")
    try:
        prices = {model: _with_numbers(price) for model, price in found.items()}
        PriceBook(prices)
    except (InvalidRequestError, ValueError) as error:
        raise ConfigurationError(f"--prices {path}: {error}") from error
    return prices


def _with_numbers(price: Any) -> Any:
    """Return a price whose context lengths are numbers: JSON and TOML have only strings as names."""
    above = price.get("above") if isinstance(price, dict) else None
    if not isinstance(above, dict):
        return price
    return {**price, "above": {_number(start): longer for start, longer in above.items()}}


def _number(start: str) -> int | str:
    """Return a context length as a number; `Price` rejects what is none."""
    return int(start) if start.isascii() and start.isdigit() else start
