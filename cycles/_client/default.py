"""The default client of `cycles.guarded`: set, or created from the environment at first use.

It is the only state of this package that belongs to the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

from cycles._client.client import Cycles
from cycles._client.decorator import F, guarded_by
from cycles._client.options import ActionOption, ActualOption, AmountOption, GuardedOptions
from cycles._client.reservation import Reservation
from cycles._core.amounts import Amount
from cycles._http.first_use import first_use, loading
from cycles._version import public

_client: Cycles | None = None


def get_default_client() -> Cycles:
    """Return the client that was set. If there is none, create it from the environment and keep it.

    Raises:
        ConfigurationError: A variable is missing or wrong. The message names it.
    """
    global _client
    with first_use, loading:
        if _client is None:
            made = Cycles()
            if _client is None:  # else a signal handler has used it in the meantime
                _client = made
        return _client


def set_default_client(client: Cycles | None) -> None:
    """Set the client of `cycles.guarded`. None: create one from the environment at the next use. Closes no client."""
    global _client
    with first_use:
        _client = client


def guarded(
    estimate: AmountOption, *, action: ActionOption, actual: ActualOption = None, **options: Unpack[GuardedOptions]
) -> Callable[[F], F]:
    """As `Cycles.guarded`, with the default client, which is looked up at each call."""

    def reserve(amount: Amount, **given: Any) -> Reservation:
        return get_default_client().reserve(amount, **given)

    return guarded_by(reserve, estimate, action, actual, options)


public(get_default_client, guarded, set_default_client)
