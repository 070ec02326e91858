"""An interrupt at any point of an exchange costs its connection at most, never a connection slot."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Callable
from functools import partial

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


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_no_point_of_an_exchange_leaves_a_connection_of_a_closed_client_open() -> None:
    def respond(sock: socket.socket, ended: threading.Event) -> bool:
        # The stub may read the request of an interrupted client while the next client sends its own.
        for request in list(stub.requests):
            clients[int(request.target[1:])].close()
        return ok()(sock, ended)

    clients, more = list[BlockingConnections](), True
    with Stub(respond) as stub:
        while more:
            number = len(clients)
            clients.append(BlockingConnections(Endpoint(stub.url), connect_timeout_s=5, max_connections=2))
            send = partial(clients[number].send, Prepared("POST", f"/{number}", [], b"{}"), Limits(5.0, 5.0))
            more = interrupted(send, number)
            stub.wait_for(lambda stub: stub.open == 0)
    assert len(clients) > 100
