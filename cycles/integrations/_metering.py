"""Replace the SDK clients inside a copy of a framework's model by guarded ones; the model itself is not changed."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import cycles

T = TypeVar("T")

_CLIENTS: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("langchain_openai", "BaseChatOpenAI"): ("root_client", "root_async_client", "client", "async_client"),
    ("langchain_anthropic", "ChatAnthropic"): ("_client", "_async_client"),
    ("langchain_google_genai", "ChatGoogleGenerativeAI"): ("client",),
    ("langchain_aws", "ChatBedrockConverse"): ("client",),
    ("langchain_groq", "ChatGroq"): ("client", "async_client"),
    ("pydantic_ai", "WrapperModel"): ("wrapped",),
    ("pydantic_ai", "FallbackModel"): ("models",),
    ("pydantic_ai", "Model"): ("_provider",),
    ("pydantic_ai", "Provider"): ("_client",),
    ("agents", "OpenAIResponsesWSModel"): (),  # a connection is no request, and a copy would open one more
    ("agents", "OpenAIResponsesModel"): ("_client",),
    ("agents", "OpenAIChatCompletionsModel"): ("_client",),
    ("google", "Gemini"): ("api_client",),  # of ADK
    ("google", "AnthropicLlm"): ("_anthropic_client",),
}
"""Attributes that hold a client, or what holds one, by package and class. Subclasses have those of their base."""
_log: Final = logging.getLogger("cycles")
_reported: Final[set[str]] = set()


def metered(model: T) -> T:
    """Return a copy of a model whose requests the call around them pays; the model itself if it has no known client."""
    found = with_clients(model, _metered_client)
    if found is not None:
        return found
    report_unknown(model)
    return model


def report_unknown(model: object) -> None:
    """Log once for each class that its client is unknown."""
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    if name not in _reported:
        _reported.add(name)
        _log.info("the client of model class %s is unknown: its calls are priced by what the framework reports", name)


def with_clients(model: T, guarded: Callable[[Any], Any]) -> T | None:
    """Return a copy of a model with other clients; None if it has no client that `guarded` takes.

    Args:
        model: A model, or anything else that has a row in the table.
        guarded: Returns the client that replaces a client.
    """
    names = next((_CLIENTS[key] for key in map(_key, type(model).__mro__) if key in _CLIENTS), ())
    values = {name: value for name in names if (value := _value(model, name)) is not None}
    replaced = {name: new for name, value in values.items() if (new := _replaced(value, guarded)) is not None}
    if not replaced:
        return None
    copied = copy.copy(model)
    copied.__dict__.update(replaced)
    return copied


def _key(cls: type) -> tuple[str, str]:
    return cls.__module__.partition(".")[0], cls.__name__


def _value(model: Any, name: str) -> Any:
    """Return an attribute. Making a client that a model makes when it is first used does not count as a change."""
    if isinstance(inspect.getattr_static(type(model), name, None), functools.cached_property):
        return getattr(model, name)
    return vars(model).get(name)


def _replaced(value: Any, guarded: Callable[[Any], Any]) -> Any:
    """Return what replaces a client, a resource of a client, or what holds a client; None if it is unknown."""
    if isinstance(value, list):  # of models
        found = [_replaced(each, guarded) for each in value]
        return [new or old for new, old in zip(found, value, strict=True)] if any(found) else None
    if any(_key(cls) in _CLIENTS for cls in type(value).__mro__):
        return with_clients(value, guarded)
    if is_guarded(value) or _is_known(value):
        return guarded(value)
    owner = getattr(value, "_client", None)  # of ``client.chat.completions``
    client = None if owner is None else _replaced(owner, guarded)
    return None if client is None else type(value)(client)


def is_guarded(client: Any) -> bool:
    """Return whether a client is one that `cycles.providers.guard` made."""
    return getattr(type(client), "_cycles_meter", None) is not None


def _metered_client(client: Any) -> Any:
    return client if is_guarded(client) else cycles.providers.metered(client)  # a guarded one sees that the call pays


def _is_known(value: Any) -> bool:
    try:
        cycles.providers.metered(value)
    except (cycles.InvalidRequestError, cycles.ConfigurationError):
        return False
    return True
