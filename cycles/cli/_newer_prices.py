"""Newer prices and lists of models, for `cycles prices`: no other code downloads either."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from attrs import fields, frozen

from cycles._errors import ConfigurationError
from cycles._usage.catalogue import price_of
from cycles._usage.pricing import Price
from cycles._version import install_extra

_MAKERS: Final = ("openai", "anthropic", "google")


@frozen
class ModelList:
    """Where a provider lists its models.

    Attributes:
        keys: Variables with a key; the first that is set is used.
        base: A variable with the base URL, and the base URL by default.
        path: The path of the list.
        header: The header with the key, and what stands before the key.
        members: The member of the response with the models, and that of a model with its name.
        params: Parameters of the request.
    """

    keys: tuple[str, ...]
    base: tuple[str, str]
    path: str
    header: tuple[str, str]
    members: tuple[str, str] = ("data", "id")
    params: Mapping[str, str] = {}


LISTS: Final[Mapping[str, ModelList]] = {
    "openai": ModelList(
        ("OPENAI_API_KEY",), ("OPENAI_BASE_URL", "https://api.openai.com/v1"), "/models", ("authorization", "Bearer ")
    ),
    "anthropic": ModelList(
        ("ANTHROPIC_API_KEY",),
        ("ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
        "/v1/models",
        ("x-api-key", ""),
        params={"limit": "1000"},
    ),
    "google": ModelList(
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        ("GOOGLE_GEMINI_BASE_URL", "https://generativelanguage.googleapis.com"),
        "/v1beta/models",
        ("x-goog-api-key", ""),
        ("models", "name"),
        {"pageSize": "1000"},
    ),
}


def members_of(price: Price) -> dict[str, Any]:
    """Return the members of a price as JSON, with rates as strings."""
    found: dict[str, Any] = {}
    for each in fields(Price):
        value = getattr(price, each.name)
        if each.name in ("above", "tiers"):
            value = {str(name): members_of(inner) for name, inner in value.items()}
        elif each.name == "per_call":
            value = {name: str(float(rate)) for name, rate in value.items()}
        elif value is not None:
            value = format(value, "f")
        if value or each.name in ("input", "output"):
            found[each.name] = value
    return found


def changed_models(source: str | None) -> dict[str, Any]:
    """Return the models of OpenAI, Anthropic and Google whose price in the newest data is another one, or new.

    Raises:
        ConfigurationError: if the data cannot be downloaded or read.
    """
    try:
        from genai_prices import UpdatePrices
        from genai_prices.data_snapshot import get_snapshot
    except ImportError as error:
        raise ConfigurationError(f"the package genai-prices is missing: {install_extra('prices')}") from error
    try:
        fetched = (UpdatePrices() if source is None else UpdatePrices(url=source)).fetch()
    except Exception as error:  # of its HTTP client, and of a body that is no data
        raise ConfigurationError(f"the newest prices cannot be downloaded: {error!r:.200}") from error
    now = datetime.now(UTC)
    before = _prices(get_snapshot(), now)
    newest = {} if fetched is None else _prices(fetched, now)
    return {key[1]: members for key, members in newest.items() if members != before.get(key)}


def _prices(snapshot: Any, at: datetime) -> dict[tuple[str, str], dict[str, Any]]:
    found = {}
    for provider in snapshot.providers:
        for model in provider.models if provider.id in _MAKERS else ():
            price = price_of(model, at)
            if price is not None and not (provider.id == "google" and model.id.startswith("claude")):
                found[provider.id, model.id] = members_of(price)
    return found


def models_in(file: str) -> list[tuple[str | None, str]]:
    """Return the models of a file, one in a line.

    Raises:
        ConfigurationError: if it cannot be read.
    """
    try:
        lines = Path(file).read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"--models {file} cannot be read: {error}; pass a file with one model in a line"
        ) from error
    return [(None, line.strip()) for line in lines if line.strip() and not line.startswith("#")]


def models_of(provider: str | None) -> list[tuple[str | None, str]]:
    """Return the models that a provider lists, or that each provider lists whose key is set.

    Raises:
        ConfigurationError: if no key is set, or a list cannot be read.
    """
    names = [name for name in LISTS if provider in (None, name) and _key(LISTS[name])]
    if not names:
        variables = ", ".join(variable for name in LISTS if provider in (None, name) for variable in LISTS[name].keys)
        raise ConfigurationError(f"no key of a provider is set: set one of {variables}, or pass --models FILE")
    return [(name, model) for name in names for model in _listed(name)]


def _key(of: ModelList) -> str | None:
    return next((os.environ[name] for name in of.keys if os.environ.get(name)), None)


def _listed(name: str) -> list[str]:
    import httpx

    of = LISTS[name]
    base = (os.environ.get(of.base[0]) or of.base[1]).rstrip("/")
    headers = {of.header[0]: f"{of.header[1]}{_key(of)}", "anthropic-version": "2023-06-01"}
    try:
        response = httpx.get(base + of.path, headers=headers, params=dict(of.params), timeout=30)
        response.raise_for_status()
        rows = response.json()[of.members[0]]
        return [str(row[of.members[1]]).removeprefix("models/") for row in rows]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"the models of {name} cannot be listed at {base}: {error!r:.200}") from error
