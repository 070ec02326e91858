"""The API key of a client whose `api_key` is a callable: called at the first request, and again after a 401."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

from cycles._config import checked_key
from cycles._core.messages.outcome import Outcome, RejectedResponse, Unreachable


class KeyUnavailableError(Exception):
    """The callable raised, or returned something that is no key. `__cause__` is what it raised."""


class KeySource:
    """The current key. Any number of threads and event loops use it.

    Args:
        function: The user's function or coroutine function. In async code a function runs in a thread; in sync code a
            coroutine function runs in the event loop of a new thread.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self._function = function
        self._key: str | None = None
        # Callers of one moment share one call. A signal handler may make a request while the function runs.
        self._lock = threading.RLock()

    async def get(self, rejected: str | None = None) -> str:
        """Return the key, after calling the function if there is none, or if it is the one that was rejected.

        It does not suspend: `aget` is for event loops.

        Raises:
            KeyUnavailableError: There is no key.
        """
        return self._get(rejected)

    def _get(self, rejected: str | None) -> str:
        with self._lock:
            if self._key is None or self._key == rejected:
                self._key = _checked(lambda: _result(self._function))
            return self._key

    async def aget(self, rejected: str | None = None) -> str:
        """As `get`, without blocking the event loop."""
        from cycles._drivers.in_thread import call_in_thread

        if self._key is not None and self._key != rejected:
            return self._key
        # It may block, for example on a secret store, so the loop must not run it.
        if not inspect.iscoroutinefunction(self._function):
            return await call_in_thread(lambda: self._get(rejected))
        try:
            found = await self._function()
        except Exception as error:  # the application's own code
            raise KeyUnavailableError(_failed(error)) from error
        self._key = _checked(lambda: found)
        return self._key


def is_rejected_key(outcome: Outcome) -> bool:
    """Return whether the server rejected the key: a 401 that does not come from a failing store."""
    return isinstance(outcome, RejectedResponse) and outcome.status == 401 and not outcome.is_store_failure


def no_key(error: KeyUnavailableError, trace_id: str | None) -> Unreachable:
    """Return the outcome of a request without a key: nothing was sent, and the server may be available."""
    return Unreachable(str(error), error.__cause__ or error, sent=False, trace_id=trace_id, queued=True)


def _checked(call: Callable[[], Any]) -> str:
    try:
        key = call()
        checked_key("api_key", key)
        if key is None:
            raise ValueError("it returned None")
    except Exception as error:  # the application's own code
        raise KeyUnavailableError(_failed(error)) from error
    return str(key)


def _failed(error: Exception) -> str:
    return f"api_key: the callable returned no key ({type(error).__name__}); nothing was sent"


def _result(function: Callable[[], Any]) -> Any:
    found = function()
    if not inspect.isawaitable(found):
        return found
    from cycles._drivers.in_thread import run_coroutine

    return run_coroutine(found)
