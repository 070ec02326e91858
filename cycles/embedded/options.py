"""Options of the commands that start a server: `python -m cycles.embedded` and `cycles dev`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from cycles._core.amounts import Amount
from cycles._errors import InvalidRequestError
from cycles.embedded.server import EmbeddedServer

DEFAULT_PORT: Final = 7878


def budgets_of(arguments: Sequence[str]) -> dict[str, list[Amount]]:
    """Return the budgets that options like ``tenant:acme=10USD`` name.

    Raises:
        InvalidRequestError: if one has no amount.
    """
    budgets: dict[str, list[Amount]] = {}
    for text in arguments:
        scope, equals, amount = text.partition("=")
        if not equals:
            raise InvalidRequestError(f"--budget has no amount: {text}; write it like tenant:acme=10USD")
        budgets.setdefault(scope, []).append(Amount.parse(amount))
    return budgets


def keys_of(arguments: Sequence[str]) -> dict[str, str]:
    """Return the API keys and their tenants that options like ``KEY=TENANT`` name.

    Raises:
        InvalidRequestError: if one has no key or no tenant. It does not show the key.
    """
    keys: dict[str, str] = {}
    for text in arguments:
        key, equals, tenant = text.rpartition("=")
        if not equals or not key or not tenant:
            raise InvalidRequestError("--api-key has no key or no tenant; write it like KEY=TENANT")
        keys[key] = tenant
    return keys


def keys_by_tenant(server: EmbeddedServer, given: Mapping[str, str]) -> dict[str, str]:
    """Return a working key of each tenant: the given ones first, and one of the server for every other tenant."""
    keys = {tenant: key for key, tenant in given.items()}
    for tenant in server.tenants or [server.tenant]:
        keys.setdefault(tenant, server.api_key_for(tenant))
    return keys


def export_command(url: str, keys: Mapping[str, str]) -> str:
    """Return the command of a shell that sets the variables of a client, for the first tenant."""
    tenant, key = next(iter(keys.items()))
    return f"export CYCLES_BASE_URL={url} CYCLES_API_KEY={key} CYCLES_TENANT={tenant}"


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set. The earlier handlers are back after the block."""
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    earlier = [(number, signal.signal(number, lambda *_: stop.set())) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in earlier:
            signal.signal(number, handler)
