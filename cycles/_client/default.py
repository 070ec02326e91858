"""The default client: made from the environment at first use, or set. The only state this package keeps for a process.

It serves `cycles.guarded`, for scripts that want one decorator and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Unpack

from cycles._client.client import Cycles
from cycles._client.decorator import F, guarded_by
from cycles._client.options import ActionOption, ActualOption, AmountOption, GuardedOptions
from cycles._version import public

_lock = threading.Lock()
_client: Cycles | None = None


def get_default_client() -> Cycles:
    """The client that was set, else one made from the environment now and kept.

    Raises:
        ConfigurationError: if the environment does not say enough; the message names the variable.
    """
    global _client
    with _lock:
        if _client is None:
            _client = Cycles()
        return _client


def set_default_client(client: Cycles | None) -> None:
    """Let `cycles.guarded` use this client; with None it makes one from the environment again. Nothing is closed."""
    global _client
    with _lock:
        _client = client


def guarded(
    estimate: AmountOption, *, action: ActionOption, actual: ActualOption = None, **options: Unpack[GuardedOptions]
) -> Callable[[F], F]:
    """As `Cycles.guarded`, with the default client, which is looked up at each call."""
    return guarded_by(get_default_client, estimate, action, actual, options)


public(get_default_client, guarded, set_default_client)
