"""Clients of httpx and of httpx2 are accepted by what they can do, not by their class."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import httpx2
import pytest

import cycles
from tests.http.conftest import ACTION, ANSWERS, CREATED
from tests.support.stub import Stub, ok

LIBRARIES = pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])


def settings(url: str) -> dict[str, Any]:
    return {"base_url": url, "api_key": "cyc_live_x", "tenant": "acme", "journal": False, "flush_timeout": 0.0}


@LIBRARIES
def test_a_blocking_client_of_either_library_sends_a_guarded_call(library: Any) -> None:
    with Stub(ok(CREATED), ok(ANSWERS["commit"])) as stub, library.Client(headers={"X-Gateway": "g"}) as http_client:
        with (
            cycles.Cycles(**settings(stub.url), http_client=http_client) as client,
            client.reserve(cycles.tokens(100), action=ACTION) as guard,
        ):
            assert guard.commit(cycles.tokens(7)).status == "committed"
        assert [request.headers["x-gateway"] for request in stub.requests] == ["g", "g"]


@LIBRARIES
def test_an_async_client_of_either_library_sends_a_guarded_call(library: Any) -> None:
    async def main(url: str) -> str:
        async with library.AsyncClient() as http_client:
            client = cycles.Cycles(**settings(url), async_http_client=http_client)
            async with client, client.reserve(cycles.tokens(100), action=ACTION) as guard:
                return (await guard.commit(cycles.tokens(7))).status

    with Stub(ok(CREATED), ok(ANSWERS["commit"])) as stub:
        assert asyncio.run(main(stub.url)) == "committed"


@LIBRARIES
def test_an_error_of_either_library_is_a_transport_error_without_the_key(library: Any) -> None:
    def fail(request: Any) -> Any:
        raise library.ConnectError("connection refused", request=request)

    with (
        library.Client(transport=library.MockTransport(fail)) as http_client,
        cycles.Cycles(**settings("http://in.memory"), http_client=http_client) as client,
        pytest.raises(cycles.TransportError, match="connection refused") as raised,
    ):
        client.decide(cycles.tokens(1), action=ACTION)
    assert isinstance(raised.value.__cause__, library.ConnectError)
    assert "x-cycles-api-key" not in raised.value.__cause__.request.headers


@LIBRARIES
def test_a_heartbeat_waits_for_a_connection_no_longer_than_for_its_response(library: Any) -> None:
    waits: dict[str, dict[str, float]] = {}

    def respond(request: Any) -> Any:
        what = request.url.path.rpartition("/")[2]
        waits[what] = request.extensions["timeout"]
        return library.Response(200, json=ANSWERS.get(what, CREATED))

    with (
        library.Client(transport=library.MockTransport(respond)) as http_client,
        cycles.Cycles(**settings("http://in.memory"), timeout=7.0, http_client=http_client) as client,
    ):
        guard = client.reserve(cycles.tokens(100), action=ACTION).acquire()
        guard.extend()
        guard.commit(cycles.tokens(7))
    assert waits["extend"]["pool"] == waits["extend"]["read"] == 7.0
    assert waits["reservations"]["pool"] == waits["commit"]["pool"] == 30.0


class Own(httpx2.Client):
    """A user's subclass."""


def test_a_users_subclass_is_a_client_of_its_library() -> None:
    with (
        Stub(ok(ANSWERS["decide"])) as stub,
        Own() as http_client,
        cycles.Cycles(**settings(stub.url), http_client=http_client) as client,  # type: ignore[arg-type]
    ):
        assert client.decide(cycles.tokens(1), action=ACTION).allowed
