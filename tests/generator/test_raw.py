"""`client.raw`: any operation of the protocol, with this client's key, deadline and error classes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

import cycles
from cycles_client import models, protocol
from cycles_client.api.reservations import create_reservation, get_reservation
from cycles_client.types import UNSET

from .stub import Connected, Json, Server


class Installed:
    schemas = protocol.SCHEMAS
    operations = protocol.OPERATIONS


TABLES = Installed()
BODY = {
    "idempotency_key": "k",
    "subject": {"tenant": "acme"},
    "action": {"kind": "a", "name": "b"},
    "estimate": {"unit": "TOKENS", "amount": 5},
}


@pytest.fixture
def connected() -> Iterator[Connected]:
    with Connected(Server(TABLES)) as connected:
        yield connected


def test_an_operation_by_its_id_or_by_its_module_gives_the_generated_model(connected: Connected) -> None:
    raw = connected.client.raw
    for operation in ("createReservation", create_reservation):
        for body in (BODY, models.ReservationCreateRequest.from_dict(BODY)):
            response = raw(operation, body=body)
            assert isinstance(response, models.ReservationCreateResponse)
            assert connected.server.body("createReservation") == BODY
    assert connected.server.requests[-1][1].headers["x-cycles-api-key"] == "key-of-the-stub"
    assert "traceparent" in connected.server.requests[-1][1].headers


def test_raw_works_in_async_code() -> None:
    async def run() -> Any:
        async with Connected(Server(TABLES)) as connected:
            return await connected.client.aio.raw(get_reservation, reservation_id="r/1")

    assert isinstance(asyncio.run(run()), models.ReservationDetail)


def test_parameters_are_sent_in_the_place_that_the_protocol_names(connected: Connected) -> None:

    connected.client.raw("getReservation", reservation_id="a/b?c")
    assert connected.server.requests[-1][1].url.raw_path == b"/v1/reservations/a%2Fb%3Fc"
    arguments: Json = {"status": models.ReservationStatus.ACTIVE, "include": "metadata,evidence", "limit": 5}
    connected.client.raw("listReservations", **arguments, cursor=UNSET)
    assert connected.server.query("listReservations") == {
        "status": "ACTIVE",
        "include": "metadata,evidence",
        "limit": "5",
    }


def test_headers_of_an_operator_and_of_the_protocol_are_sent(connected: Connected) -> None:
    connected.client.raw(
        "releaseReservation",
        reservation_id="r1",
        body={"idempotency_key": "k"},
        x_idempotency_key="k",
        extra_headers={"X-Admin-API-Key": "root"},
    )
    headers = connected.server.requests[-1][1].headers
    assert (headers["X-Idempotency-Key"], headers["X-Admin-API-Key"]) == ("k", "root")


@pytest.mark.parametrize(
    ("operation", "arguments", "expected"),
    [
        ("getBalance", {}, "did you mean getBalances"),
        (models, {}, "the protocol has no 'cycles_client.models'"),
        ("getBalances", {"tennant": "acme"}, "unexpected keyword argument 'tennant'"),
        ("createReservation", {}, "missing 1 required keyword-only argument: 'body'"),
        ("createReservation", {"body": {"idempotency_key": "k"}}, "subject: is required"),
        ("createReservation", {"body": {**BODY, "ttl_ms": 5}}, "ttl_ms: must be 1000 or more"),
        ("createReservation", {"body": {**BODY, "nope": 5}}, "nope: no such member"),
        ("getReservation", {"reservation_id": ".."}, "is not an id"),
        ("getBalances", {"limit": 500}, "limit: must be 200 or less"),
        ("getBalances", {"extra_headers": {"X-A": "é"}}, "must be ASCII text without line breaks"),
    ],
)
def test_invalid_arguments_are_rejected_before_anything_is_sent(
    connected: Connected, operation: Any, arguments: Json, expected: str
) -> None:
    with pytest.raises(cycles.InvalidRequestError, match=expected):
        connected.client.raw(operation, **arguments)
    assert connected.server.requests == []


def test_error_responses_raise_the_same_errors_as_other_methods() -> None:
    def respond(name: str, body: Json) -> httpx.Response:
        if name == "commitReservation":
            return httpx.Response(200, text="<html>")
        return httpx.Response(409, json={"error": "BUDGET_FROZEN", "message": "m", "request_id": "r"})

    with Connected(Server(TABLES, respond)) as connected:
        with pytest.raises(cycles.BudgetFrozenError) as rejected:
            connected.client.raw("createReservation", body=BODY)
        with pytest.raises(cycles.AmbiguousResponseError):
            connected.client.raw("commitReservation", reservation_id="r1", body={"idempotency_key": "k"} | ACTUAL)
    assert (rejected.value.status, rejected.value.request_id) == (409, "r")


ACTUAL = {"actual": {"unit": "TOKENS", "amount": 1}}


def test_a_write_is_repeated_once_with_its_key() -> None:
    with Connected(Server(TABLES, lambda name, body: httpx.Response(503))) as connected:
        with pytest.raises(cycles.ServerError):
            connected.client.raw("createReservation", body=BODY)
        sent = [request.content for _, request in connected.server.requests]
    assert len(sent) == 2
    assert sent[0] == sent[1]


@pytest.mark.parametrize(("body", "attempts"), [({"reason": "done"}, 1), ({"idempotency_key": "k"}, 2)])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_write_without_a_key_is_sent_once(
    monkeypatch: pytest.MonkeyPatch, is_async: bool, body: Json, attempts: int
) -> None:
    """A regenerated protocol may have such an operation; the changed schema says that a release needs no key."""
    monkeypatch.setitem(protocol.SCHEMAS, "ReleaseRequest", {**protocol.SCHEMAS["ReleaseRequest"], "required": []})
    arguments: Json = {"reservation_id": "r1", "body": body}

    async def later(connected: Connected) -> None:
        async with connected:
            await connected.client.aio.raw("releaseReservation", **arguments)

    connected = Connected(Server(TABLES, lambda name, body: httpx.Response(503)))
    with pytest.raises(cycles.ServerError):
        if is_async:
            asyncio.run(later(connected))
        else:
            with connected:
                connected.client.raw("releaseReservation", **arguments)
    assert len(connected.server.requests) == attempts


def test_an_operation_without_a_response_body_returns_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A regenerated protocol may have such an operation; the changed tables say that a release returns 204."""
    entry = {**protocol.OPERATIONS["releaseReservation"], "success": 204, "response": None}
    monkeypatch.setitem(protocol.OPERATIONS, "releaseReservation", entry)
    with Connected(Server(TABLES)) as connected:
        assert connected.client.raw("releaseReservation", reservation_id="r1", body={"idempotency_key": "k"}) is None
