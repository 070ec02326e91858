"""An interrupt at any point of an exchange costs its connection at most, never a connection slot."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from cycles._core.messages.requests import Prepared
from cycles._http.blocking import BlockingConnections
from cycles._http.exchange import Endpoint, Limits
from tests.support.points import run_at
from tests.support.stub import Stub, ok


def interrupt() -> None:
    raise KeyboardInterrupt


def interrupted(call: Callable[[], object], number: int) -> bool:
    """Call with an interrupt at this point. Returns False if the call has fewer points."""
    try:
        return run_at("/cycles/_http/", number, interrupt, call)
    except KeyboardInterrupt:
        return True


@pytest.mark.parametrize("reuse", [True, False], ids=["an idle connection", "a new connection"])
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_no_point_of_an_exchange_loses_a_slot(reuse: bool) -> None:
    answer = ok() if reuse else ok(headers=[("Connection", "close")])
    with Stub(answer) as stub:
        connections = BlockingConnections(Endpoint(stub.url), connect_timeout_s=5, max_connections=2)
        pool = connections._pool

        def send() -> None:
            connections.send(Prepared("POST", "/", [], b"{}"), Limits(5.0, 5.0))

        send()
        number = 0
        while interrupted(send, number):
            gc.collect(0)
            assert len(pool._unused) + len(pool._idle) == 2, number
            assert pool.waiting == 0, number
            number += 1
        assert number > 100
        send()
        connections.close()
        gc.collect()
