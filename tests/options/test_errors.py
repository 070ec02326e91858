"""Each member of the error of each operation, sync and async: of an error response, and without a response."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import cycles
from tests.options.ways import SPENT, Place, T, Use
from tests.support.worlds import ACTION

pytestmark = pytest.mark.anyio

TRACE = "a" * 32
BODY = {"error": "UNIT_MISMATCH", "message": "no way", "request_id": "r-9", "details": {"unit": "X"}}
HEADERS = {"X-Request-ID": "r-header", "X-Cycles-Trace-Id": TRACE, "Retry-After": "3"}
CALLS: dict[str, tuple[str, Callable[[Use, Any], Any]]] = {
    "acquire": ("reserve", lambda use, guard: use.world.acquire(use.world.reserve())),
    "commit": ("commit", lambda use, guard: guard.commit(SPENT)),
    "release": ("release", lambda use, guard: guard.release()),
    "extend": ("extend", lambda use, guard: guard.extend()),
    "decide": ("decide", lambda use, guard: use.world.operations.decide(T(1), action=ACTION)),
    "preview": ("reserve", lambda use, guard: use.world.operations.preview(T(1), action=ACTION)),
    "record": ("event", lambda use, guard: use.world.operations.record(T(1), action=ACTION)),
    "reservation": ("get", lambda use, guard: use.world.operations.reservation(guard.reservation_id)),
    "balances": ("balances", lambda use, guard: use.world.all(use.world.operations.balances())),
    "raw": ("balances", lambda use, guard: use.world.operations.raw("getBalances", tenant="acme")),
}
"""The server's name of the operation, and how it is called."""
PENDING = ("commit", "release", "record")
"""Without a response these raise nothing: the client continues."""


async def raised_by(use: Use, name: str, kind: type[BaseException]) -> Any:
    """Return the error of a call, after checking that it can be copied and pickled."""
    guard = await use.world.acquire(use.world.reserve())
    operation, call = CALLS[name]
    if kind is cycles.TransportError:
        use.server.faults.refuse(operation, times=None)
    else:
        use.server.faults.status(operation, 400, body=BODY, headers=HEADERS)
    with pytest.raises(kind) as raised:
        await use.world.get(call(use, guard))
    use.server.faults.clear()
    error: Any = raised.value
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(again), str(again), again.trace_id) == (type(error), str(error), error.trace_id)
    if guard.settlement is None and guard.state == "active":
        await use.world.get(guard.release())
    return error


@pytest.mark.parametrize("name", CALLS)
async def test_every_member_of_the_error_of_a_response(place: Place, name: str) -> None:
    use = place.use()
    error = await raised_by(use, name, cycles.UnitMismatchError)
    assert (error.status, error.code, error.reason_code) == (400, "UNIT_MISMATCH", None)
    assert (error.request_id, error.trace_id) == ("r-9", TRACE)
    assert (error.details, error.retry_after_ms, error.retryable) == ({"unit": "X"}, 3_000, False)
    assert (error.evidence, error.deny_detail) == (None, None)
    assert "no way" in error.message
    assert (error.http.status, error.http.headers["retry-after"]) == (400, "3")


@pytest.mark.parametrize("name", [name for name in CALLS if name not in PENDING])
async def test_every_member_of_the_error_without_a_response(
    place: Place, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cycles._flows.retry._FIRST_PAUSE_S", 3600.0)  # so that a read is sent once
    use = place.use(place.client(max_retries=0))
    error = await raised_by(use, name, cycles.TransportError)
    assert (error.status, error.request_id, error.request_sent, error.retryable) == (None, None, False, True)
    assert type(error.cause).__name__ == "ConnectError"
    assert error.http is None
