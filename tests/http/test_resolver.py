"""What connections know of a host: its addresses while the name service is down, and the options of their sockets."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from cycles._core.messages.requests import Prepared
from cycles._http import blocking as blocking_connections
from cycles._http.blocking import BlockingConnections
from cycles._http.exchange import Endpoint, Limits
from cycles._http.resolver import Lookup, Resolver
from tests.support.stub import Stub

FOUND: list[Any] = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))]
PATIENCE_S = 60.0


@pytest.fixture(params=["threads", "tasks"])
def addresses(request: pytest.FixtureRequest) -> Any:
    """Resolve a host as threads do, or as the tasks of an event loop do."""

    def of(resolver: Resolver) -> Any:
        if request.param == "threads":
            return resolver.addresses(PATIENCE_S)

        async def main() -> Any:
            lookup = resolver.start()
            assert isinstance(lookup, Lookup)
            loop, done = asyncio.get_running_loop(), asyncio.Event()
            lookup.when_done(lambda: loop.call_soon_threadsafe(done.set))
            async with asyncio.timeout(PATIENCE_S):
                await done.wait()
            return resolver.result(lookup)

        return asyncio.run(main())

    return of


def test_the_last_good_addresses_are_used_while_the_name_service_fails(
    addresses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: list[Any] = [FOUND, socket.gaierror(-3, "temporary failure"), socket.gaierror(-2, "unknown"), FOUND * 2]

    def respond(*_: Any, **__: Any) -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(socket, "getaddrinfo", respond)
    resolver = Resolver("server.test", 80)
    assert [addresses(resolver) for _ in range(4)] == [FOUND, FOUND, FOUND, FOUND * 2]


def test_a_name_that_was_never_found_is_an_error(addresses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(socket.gaierror, match="unknown"):
        addresses(Resolver("server.test", 80))


def test_a_request_is_not_held_back_for_the_acknowledgement_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []

    def new_socket(*given: Any) -> socket.socket:
        made.append(socket.socket(*given))
        return made[-1]

    monkeypatch.setattr(blocking_connections, "new_socket", new_socket)
    with Stub() as stub:
        connections = BlockingConnections(Endpoint(stub.url), connect_timeout_s=PATIENCE_S, max_connections=1)
        connections.send(Prepared("POST", "/v1/x", [], b"{}"), Limits(PATIENCE_S))
        assert [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in made] == [1]
        connections.close()
