"""Faults: the effect of each on a client, in this process and over a socket, and on the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

import cycles
from cycles.embedded import EmbeddedServer
from cycles.embedded.faults import Faults
from tests.support.waiting import PATIENCE_S, until

EVENT = {
    "idempotency_key": "k",
    "subject": {"tenant": "acme"},
    "action": {"kind": "k", "name": "n"},
    "actual": {"unit": "TOKENS", "amount": 5},
}


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer({"tenant:acme": cycles.tokens(1000)}, clock=cycles.ManualClock()) as server:
        yield server


@pytest.fixture(params=["in process", "over a socket"])
def http(request: pytest.FixtureRequest, server: EmbeddedServer) -> Iterator[httpx.Client]:
    headers = {"X-Cycles-API-Key": server.api_key}
    if request.param == "in process":
        with httpx.Client(base_url="http://x", headers=headers, transport=server.transport()) as client:
            yield client
    else:
        with server.listen() as url, httpx.Client(base_url=url, headers=headers) as client:
            yield client


def spent(server: EmbeddedServer) -> int:
    return server.spent("tenant:acme").amount


def test_a_dropped_response_is_applied_once_and_its_retry_is_a_replay(
    server: EmbeddedServer, http: httpx.Client
) -> None:
    server.faults.drop_response("event")
    with pytest.raises(httpx.RemoteProtocolError):
        http.post("/v1/events", json=EVENT)
    assert spent(server) == 5
    assert http.post("/v1/events", json=EVENT).status_code == 201
    assert spent(server) == 5
    assert [request.status for request in server.requests] == [201, 201]


def test_a_failed_connection_never_reaches_the_ledger(server: EmbeddedServer, http: httpx.Client) -> None:
    server.faults.refuse("event", times=2)
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            http.post("/v1/events", json=EVENT)
    assert (spent(server), len(server.requests)) == (0, 0)
    assert http.post("/v1/events", json=EVENT).status_code == 201


def test_a_status_fault_replaces_the_response(server: EmbeddedServer, http: httpx.Client) -> None:
    server.faults.status("event", 503, body="<html>down</html>", headers={"Content-Type": "text/html"})
    server.faults.status("event", 429, headers={"Retry-After": "2"}, body={"error": "LIMIT_EXCEEDED"})
    server.faults.status("event", 500, reaches_ledger=True)
    first, second, third = (http.post("/v1/events", json=EVENT) for _ in range(3))
    assert (first.status_code, first.text, first.headers["Content-Type"]) == (503, "<html>down</html>", "text/html")
    assert (second.status_code, second.headers["Retry-After"]) == (429, "2")
    assert second.json() == {"error": "LIMIT_EXCEEDED"}
    assert (third.status_code, third.content, spent(server)) == (500, b"", 5)


def test_a_body_fault_replaces_the_body_after_the_operation_ran(server: EmbeddedServer, http: httpx.Client) -> None:
    server.faults.body("event", b'{"status": "APPL')
    response = http.post("/v1/events", json=EVENT)
    assert (response.status_code, response.content, spent(server)) == (201, b'{"status": "APPL', 5)


def test_a_delay_ends_at_the_clients_read_timeout(server: EmbeddedServer, http: httpx.Client) -> None:
    server.faults.delay("event", 30.0)
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/events", json=EVENT, timeout=0.05)
    until(lambda: spent(server) == 5)
    server.faults.delay("balances", 0.02)
    started = time.monotonic()
    assert http.get("/v1/balances?tenant=acme", timeout=5.0).status_code == 200
    assert time.monotonic() - started >= 0.02


def test_a_dripped_body_arrives_complete(server: EmbeddedServer, http: httpx.Client) -> None:
    server.faults.drip("list", interval=0.0)
    assert http.get("/v1/reservations").json()["reservations"] == []
    server.faults.drip("list", interval=0.002)
    started = time.monotonic()
    size = len(http.get("/v1/reservations", timeout=PATIENCE_S).content)
    assert time.monotonic() - started >= 0.002 * size > 0.1


def test_faults_hit_their_operation_in_order_and_then_stop(server: EmbeddedServer, http: httpx.Client) -> None:
    server.faults.status("event", 500, times=2)
    server.faults.status("event", 502)
    assert http.get("/v1/balances?tenant=acme").status_code == 200
    assert [http.post("/v1/events", json=EVENT).status_code for _ in range(4)] == [500, 500, 502, 201]


def test_a_fault_hits_one_request_unless_it_says_more(server: EmbeddedServer, http: httpx.Client) -> None:
    faults = server.faults
    plans: list[Callable[[], None]] = [
        lambda: faults.refuse("event"),
        lambda: faults.drop_response("event"),
        lambda: faults.delay("event", 0.0),
        lambda: faults.drip("event", interval=0.0),
        lambda: faults.status("event", 500),
        lambda: faults.body("event", {}),
    ]
    for plan in plans:
        plan()
        with contextlib.suppress(httpx.TransportError):
            http.post("/v1/events", json=EVENT)
        assert faults.waiting() == []


def test_two_requests_at_once_do_not_get_the_same_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[Callable[[], object]] = []

    class Lock:
        """A lock whose release lets another request in."""

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            if others:
                others.pop()()

    monkeypatch.setattr("cycles.embedded.faults.threading.Lock", Lock)
    faults, second = Faults(), list[object]()
    faults.refuse("reserve")
    others.append(lambda: second.append(faults.take("reserve")))
    first = faults.take("reserve")
    assert (first is None, second) == (False, [None])


def test_unlimited_faults_stop_at_clear(server: EmbeddedServer, http: httpx.Client) -> None:
    server.faults.status("event", 500, times=None)
    assert {http.post("/v1/events", json=EVENT).status_code for _ in range(3)} == {500}
    server.faults.clear()
    assert http.post("/v1/events", json=EVENT).status_code == 201


def test_a_fault_of_an_unknown_operation_is_rejected(server: EmbeddedServer) -> None:
    with pytest.raises(ValueError, match="unknown operation: 'comit'; pass one of decide, reserve"):
        server.faults.drop_response("comit")
    with pytest.raises(ValueError, match="times"):
        server.faults.drop_response("commit", times=0)


def test_an_asyncio_client_gets_the_same_faults(server: EmbeddedServer) -> None:
    async def scenario() -> None:
        headers = {"X-Cycles-API-Key": server.api_key}
        async with httpx.AsyncClient(base_url="http://x", headers=headers, transport=server.transport()) as http:
            server.faults.drop_response("event")
            with pytest.raises(httpx.RemoteProtocolError):
                await http.post("/v1/events", json=EVENT)
            server.faults.delay("event", 30.0)
            with pytest.raises(httpx.ReadTimeout):
                await http.post("/v1/events", json=EVENT, timeout=0.02)
            server.faults.drip("list", interval=0.0)
            assert (await http.get("/v1/reservations")).json()["reservations"] == []
            server.faults.delay("event", 0.001)
            assert (await http.post("/v1/events", json=EVENT)).status_code == 201

    asyncio.run(scenario())
    assert spent(server) == 5


# --- request log ----------------------------------------------------------------------------------------------------


def test_the_request_log_shows_requests_but_no_key(server: EmbeddedServer, http: httpx.Client) -> None:
    http.post("/v1/events", json=EVENT, headers={"X-Idempotency-Key": "other"})
    http.get("/v1/balances?tenant=acme")
    event, balances = server.requests
    assert (event.operation, event.method, event.target, event.status) == ("event", "POST", "/v1/events", 400)
    assert (event.json, event.idempotency_key) == (EVENT, "k")
    assert event.headers["x-idempotency-key"] == "other"
    assert (balances.target, balances.idempotency_key) == ("/v1/balances?tenant=acme", None)
    assert server.requests.of("event") == [event]
    assert server.requests[-1:] == [balances]
    assert server.api_key not in repr(server.requests)
    server.requests.clear()
    assert len(server.requests) == 0
