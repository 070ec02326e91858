"""When the callable of an API key is called, and what its failure shows, sync and async, for each kind of callable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cycles
from tests.options.ways import Place, T
from tests.support.worlds import ACTION

pytestmark = pytest.mark.anyio

KINDS = ("function", "coroutine function", "function that returns an awaitable")
ERROR = {"message": "no", "request_id": "r-1"}


class Keys:
    """Returns one key after the other; an exception is raised."""

    def __init__(self, kind: str, *keys: Any) -> None:
        self.calls = 0
        self._keys: Iterator[Any] = iter(keys)
        self._kind = kind

    def of_kind(self) -> Callable[[], Any]:
        """Return the callable of this kind."""

        async def later() -> Any:
            return self.next()

        return {"function": self.next, "coroutine function": later}.get(self._kind, lambda: later())

    def next(self) -> Any:
        self.calls += 1
        key = next(self._keys)
        if isinstance(key, Exception):
            raise key
        return key


@pytest.mark.parametrize("kind", KINDS)
async def test_a_key_is_fetched_again_after_a_401(place: Place, kind: str) -> None:
    keys = Keys(kind, "old", place.server.api_key, "never")
    use = place.use(place.client(api_key=keys.of_kind()))
    for _ in range(2):
        await use.world.get(use.world.operations.decide(T(1), action=ACTION))
    good = place.server.api_key
    assert [each.headers["x-cycles-api-key"] for each in use.sent] == ["old", good, good]
    assert keys.calls == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_the_same_key_again_is_not_sent_again(place: Place, kind: str) -> None:
    keys = Keys(kind, "old", "old")
    use = place.use(place.client(api_key=keys.of_kind()))
    with pytest.raises(cycles.UnauthorizedError):
        await use.world.get(use.world.operations.decide(T(1), action=ACTION))
    assert (len(use.sent), keys.calls) == (1, 2)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "FORBIDDEN", "no"),
        (409, "BUDGET_EXCEEDED", "no"),
        (502, None, "no"),
        (401, "UNAUTHORIZED", "INTERNAL_ERROR"),  # the store of the server is down, so it cannot check keys
        (None, None, ""),
    ],
)
async def test_a_key_stays_after_every_other_failure(place: Place, status: Any, code: Any, message: str) -> None:
    keys = Keys("function", place.server.api_key)
    use = place.use(place.client(api_key=keys.of_kind(), max_retries=0))
    if status is None:
        use.server.faults.refuse("decide")
    else:
        use.server.faults.status("decide", status, body={**ERROR, "message": message, "error": code} if code else None)
    with pytest.raises(cycles.CyclesError):
        await use.world.get(use.world.operations.decide(T(1), action=ACTION))
    assert keys.calls == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_the_error_without_a_key_has_the_cause_and_the_trace(place: Place, kind: str) -> None:
    raised = KeyError("mine")
    use = place.use(place.client(api_key=Keys(kind, raised).of_kind()))
    with pytest.raises(cycles.TransportError) as caught:
        await use.world.get(use.world.operations.decide(T(1), action=ACTION))
    assert (caught.value.cause, caught.value.request_sent, use.sent) == (raised, False, [])
    assert len(caught.value.trace_id or "") == 32
