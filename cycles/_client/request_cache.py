"""Keep the requests of `reserve` that were checked: most calls of a program differ only in their amounts.

To check a request and to merge its subject costs as much as all that `reserve` does otherwise.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final, TypeAlias

from attrs import evolve

from cycles._client.context import SUBJECT
from cycles._core.amounts import Amount
from cycles._core.messages.reserve_request import Actual, ReserveRequest
from cycles._core.subjects import Subject

MOST: Final = 256  # a program has few kinds of calls; one with more checks some of them again

Key: TypeAlias = tuple[Hashable, ...]


class RequestCache:
    """The checked requests of one client or view.

    A key has all that a request depends on, except for its amounts. Values that can be changed later, or that equal a
    value which is rejected (1 for True, 60000.0 for 60000), have no key: such calls are checked each time.
    """

    def __init__(self) -> None:
        self._requests: dict[Key, ReserveRequest] = {}

    def find(self, key: Key | None, estimate: Amount, actual: Actual) -> ReserveRequest | None:
        """Return the request with this key and these amounts, or None."""
        try:
            request = self._requests.get(key) if key is not None else None
        except TypeError:  # a part of it has no hash, so it is no valid value
            return None
        if request is None or (request.actual is actual and request.estimate == estimate):
            return request
        return evolve(request, estimate=estimate, actual=actual)

    def keep(self, key: Key | None, request: ReserveRequest) -> None:
        """Keep a checked request."""
        if key is not None:
            if len(self._requests) >= MOST:
                self._requests.clear()
            self._requests[key] = request


def cache_key(
    action: Any, subject: Any, estimate: Amount, ttl_ms: Any, choices: tuple[Any, ...], others: tuple[Any, ...]
) -> Key | None:
    """Return the key of a call of `reserve`, or None.

    Args:
        action: As given by the caller, like all others; a pair of names has a key.
        subject: None and a subject without dimensions have a key.
        estimate: Its unit is part of the key.
        ttl_ms: An int has a key.
        choices: Options that are part of the key.
        others: The other options: a call that has one of them has no key.
    """
    around = SUBJECT.get()
    if (
        type(action) is not tuple
        or len(action) != 2
        or type(ttl_ms) is not int
        or others.count(None) != len(others)
        or not (subject is None or (type(subject) is Subject and not subject.dimensions))
        or not (around is None or not around.dimensions)
    ):
        return None
    return (*action, subject, around, estimate.unit, ttl_ms, *choices)
