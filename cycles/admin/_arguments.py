"""Check the containers that callers pass: lists of strings, maps of strings, and prefixes of scopes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cycles._errors import InvalidRequestError


def string_list(name: str, values: object) -> list[Any]:
    """Return a list of strings. One string is an error: as a list it would be its characters.

    Raises:
        InvalidRequestError: naming the argument.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidRequestError(f"{name} must be a list of strings: got {values!r:.80}; put it in a list")
    return list(values)


def string_map(name: str, values: object) -> dict[str, Any] | None:
    """Return a map of strings, or None.

    Raises:
        InvalidRequestError: naming the argument.
    """
    if values is None:
        return None
    if not isinstance(values, Mapping):
        raise InvalidRequestError(f"{name} must be a mapping of strings: got a value of type {type(values).__name__}")
    return dict(values)


def lowered(name: str, text: object) -> str | None:
    """Return a string in lower case, as servers store scopes, or None.

    Raises:
        InvalidRequestError: naming the argument.
    """
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidRequestError(f"{name} must be a string such as 'tenant:acme/agent': got {text!r:.80}")
    return text.lower()


def tenant_filter(tenant: str | None) -> str | None:
    """Return the tenant of a filter, or None. An empty one is an error: a server may take it for all tenants.

    Raises:
        InvalidRequestError: it is empty.
    """
    if isinstance(tenant, str) and not tenant.strip():
        raise InvalidRequestError(f"tenant is empty: {tenant!r:.80}; pass the id of a tenant")
    return tenant
