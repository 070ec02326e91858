"""`client.evidence_verdict` gets envelope and key set from the client's own server only, and verifies the bytes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import cycles
from cycles._client.call_options import ViewOptions
from cycles._client.evidence import evidence_verdict
from cycles._core.messages.outcome import Outcome, RejectedResponse, Success, Unreachable
from cycles._core.messages.requests import Call
from cycles._flows.io import Clock, Settings
from cycles._flows.signal import Signal
from tests.evidence.kit import SERVER, jwk, key_set, sealed

ENVELOPE = sealed()
ID: str = ENVELOPE["evidence_id"]
NOT_FOUND = {"error": "NOT_FOUND", "message": "no such evidence", "request_id": "r"}
BASE_URL = "https://cycles.example.com"


class Server:
    """Responses by path, and the requests that came."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.timeout_s = 60.0
        self.bodies: dict[str, Any] = {
            f"/v1/evidence/{ID}": ENVELOPE,
            "/v1/.well-known/cycles-jwks.json": key_set(),
        }

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        body = self.bodies.get(request.url.path)
        if isinstance(body, int):  # a status
            return httpx.Response(body, headers={"Location": "https://elsewhere.example.com/"})
        content = body if isinstance(body, bytes) else json.dumps(NOT_FOUND if body is None else body).encode()
        return httpx.Response(
            404 if body is None else 200, content=content, headers={"Content-Type": "application/json"}
        )

    def client(self, base_url: str = BASE_URL) -> cycles.Cycles:
        transport = httpx.MockTransport(self.handle)
        return cycles.Cycles(
            base_url=base_url,
            api_key="cyc_live_secret",
            journal=False,
            timeout=self.timeout_s,
            http_client=httpx.Client(transport=transport),
            async_http_client=httpx.AsyncClient(transport=transport),
        )

    @property
    def paths(self) -> list[str]:
        return [request.url.path for request in self.requests]


@pytest.fixture
def server() -> Server:
    return Server()


Verify = Callable[..., cycles.EvidenceVerdict]


@pytest.fixture(params=["sync", "async"])
def verify(request: pytest.FixtureRequest, server: Server) -> Verify:
    def call(*args: Any, base_url: str = BASE_URL, **options: Any) -> cycles.EvidenceVerdict:
        client = server.client(base_url)

        async def acall() -> cycles.EvidenceVerdict:
            async with client:
                return await client.aio.evidence_verdict(*args, **options)

        if request.param == "async":
            return asyncio.run(acall())
        with client:
            return client.evidence_verdict(*args, **options)

    return call


def test_the_envelope_and_the_keys_of_the_server_are_verified(server: Server, verify: Verify) -> None:
    assert verify(ID).is_authentic
    assert server.paths == [f"/v1/evidence/{ID}", "/v1/.well-known/cycles-jwks.json"]
    assert not [request for request in server.requests if "x-cycles-api-key" in request.headers]
    assert "cyc_live_secret" not in repr([request.headers for request in server.requests])


def test_the_options_of_the_call_are_those_of_both_requests(server: Server, verify: Verify) -> None:
    assert verify(ID, extra_headers={"X-Team": "a"}, timeout=3.0).is_authentic
    assert [request.headers["x-team"] for request in server.requests] == ["a", "a"]
    assert [request.extensions["timeout"]["read"] <= 3.0 for request in server.requests] == [True, True]


def test_every_form_of_reference_is_taken_and_its_url_is_not_followed(server: Server, verify: Verify) -> None:
    body = {"evidence_id": ID, "cycles_evidence_url": "https://elsewhere.example.com/v1/evidence/1"}
    for reference in (cycles.EvidenceRef.read(body), body, ID):
        assert verify(reference).is_authentic
    assert {request.url.host for request in server.requests} == {"cycles.example.com"}


@pytest.mark.parametrize("reference", [None, 5, {}, {"evidence_id": None}, "x", ID.upper(), "../x", ""], ids=repr)
def test_what_is_no_reference_is_an_invalid_request(server: Server, verify: Verify, reference: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError):
        verify(reference)
    assert not server.requests


def test_options_of_the_wrong_type_are_named(verify: Verify) -> None:
    for wait_ms in (-1, 0.5, True, "1"):
        with pytest.raises(cycles.InvalidRequestError, match="wait_ms"):
            verify(ID, wait_ms=wait_ms)
    with pytest.raises(cycles.InvalidRequestError, match="expected_signer"):
        verify(ID, expected_signer=5)


def test_the_server_must_be_the_one_of_the_client_or_the_one_that_is_named(server: Server, verify: Verify) -> None:
    other = sealed(server_id="https://other.example.com/v1")
    server.bodies[f"/v1/evidence/{other['evidence_id']}"] = other
    verdict = verify(other["evidence_id"])
    assert verdict.disposition == "signer_authority_failed"
    assert server.paths == [f"/v1/evidence/{other['evidence_id']}"]  # no key set is read for an untrusted server
    assert verify(other["evidence_id"], server_id="https://other.example.com/v1").is_authentic
    assert verify(ID, server_id="https://other.example.com/v1").disposition == "signer_authority_failed"
    assert verify(ID, base_url=BASE_URL + "/", server_id=SERVER).is_authentic


def test_another_envelope_than_requested_is_rejected(server: Server, verify: Verify) -> None:
    server.bodies[f"/v1/evidence/{ID}"] = sealed(issued_at_ms=5)
    with pytest.raises(cycles.EvidenceRejectedError) as caught:
        verify(ID)
    assert caught.value.rule == "wrong_evidence_id"


def test_the_received_bytes_are_verified_and_not_a_parsed_copy(server: Server, verify: Verify) -> None:
    text = json.dumps(ENVELOPE)
    server.bodies[f"/v1/evidence/{ID}"] = text.replace('"decision"', '"decision": "DENY", "decision"').encode()
    with pytest.raises(cycles.EvidenceRejectedError) as caught:
        verify(ID)
    assert caught.value.rule == "json"
    server.bodies[f"/v1/evidence/{ID}"] = text.replace('"amount": 10', '"amount": 10.0').encode()
    assert verify(ID).is_authentic


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"<html>",
        b"[]",
        {"keys": {}},
        500,
        302,
    ],
    ids=repr,
)
def test_a_key_set_that_cannot_be_read_does_not_classify_the_envelope(
    server: Server, verify: Verify, body: Any
) -> None:
    server.bodies["/v1/.well-known/cycles-jwks.json"] = body
    server.timeout_s = 0.2  # the client reads the key set again until then
    verdict = verify(ID)
    assert verdict.disposition == "signer_resolution_failed"
    assert "key set" in verdict.reason
    assert {request.url.host for request in server.requests} == {"cycles.example.com"}


def test_a_key_that_the_client_cannot_read_still_counts(server: Server, verify: Verify) -> None:
    server.bodies["/v1/.well-known/cycles-jwks.json"] = key_set(jwk(), {"kid": "k1", "kty": "new"})
    assert verify(ID).disposition == "signer_authority_failed"


@pytest.mark.parametrize("host", ["cycles.example.com", "127.example.com", "10.0.0.1", "localhost.example.com"])
def test_a_key_set_over_plain_http_from_another_machine_is_not_trusted(
    server: Server, verify: Verify, host: str
) -> None:
    verdict = verify(ID, base_url=f"http://{host}", server_id=SERVER)
    assert verdict.disposition == "signer_resolution_failed"
    assert "HTTP" in verdict.reason
    assert server.paths == [f"/v1/evidence/{ID}"]
    for local in (
        "http://localhost:7878",
        "http://127.0.0.1:1",
        "http://127.0.1.1:1",
        "http://[::1]:1",
        "http://a.invalid",
    ):
        assert verify(ID, base_url=local, server_id=SERVER).is_authentic


def test_no_envelope_is_not_found(server: Server, verify: Verify) -> None:
    with pytest.raises(cycles.NotFoundError):
        verify("0" * 64)
    assert len(server.paths) == 1  # by default nothing is waited for


def test_a_tampered_envelope_needs_no_keys(server: Server, verify: Verify) -> None:
    server.bodies[f"/v1/evidence/{ID}"] = {**ENVELOPE, "issued_at_ms": 5}
    assert verify(ID).disposition == "signature_invalid"
    assert server.paths == [f"/v1/evidence/{ID}"]


def test_a_pin_is_compared(verify: Verify) -> None:
    assert verify(ID, expected_signer=ENVELOPE["signer_did"]).signer_pin_matched is True
    assert verify(ID, expected_signer="x").disposition == "signer_authority_failed"


class VirtualIo:
    """The operations of a driver with a clock that only `wait` moves."""

    settings = Settings(BASE_URL, 1.0, 1)

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.now = 0.0
        self.pauses: list[float] = []

    def check(self, call: Call) -> None:
        assert call.operation == "getEvidence"

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now, lambda: int(self.now), lambda: self.now, lambda: 0.5)

    async def wait(self, signal: Signal, timeout_s: float | None = None) -> bool:
        assert timeout_s is not None
        self.pauses.append(timeout_s)
        self.now += timeout_s * 1000
        return False

    async def send(self, call: Call) -> Outcome:
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]


def success(body: Any) -> Success:
    return Success(body, None, None, None, 0.0, json.dumps(body).encode())


MISSING = RejectedResponse(404, "NOT_FOUND", "no such evidence")


def run(io: VirtualIo, wait_ms: int) -> cycles.EvidenceVerdict:
    here: Any = SimpleNamespace(io=io, options=ViewOptions())
    return asyncio.run(evidence_verdict(here, ID, wait_ms=wait_ms))


def test_an_envelope_that_is_signed_later_is_waited_for_with_growing_pauses() -> None:
    io = VirtualIo(*[MISSING] * 7, success(ENVELOPE), success(key_set()))
    assert run(io, 60_000).is_authentic
    assert io.pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_waiting_ends_with_wait_ms() -> None:
    for wait_ms, pauses in ((0, []), (250, [0.1, 0.15]), (5_000, [0.1, 0.2, 0.4, 0.8, 1.6, 1.9])):
        io = VirtualIo(MISSING)
        with pytest.raises(cycles.NotFoundError):
            run(io, wait_ms)
        assert io.pauses == pytest.approx(pauses)
        assert io.now == pytest.approx(wait_ms)


def test_a_retry_after_is_kept_and_no_other_error_is_waited_for() -> None:
    limited = RejectedResponse(429, "LIMIT_EXCEEDED", "slow down", retry_after_ms=3_000)
    io = VirtualIo(limited, success(ENVELOPE), success(key_set()))
    assert run(io, 10_000).is_authentic
    assert io.pauses == [3.0]
    io = VirtualIo(limited)
    with pytest.raises(cycles.RateLimitedError):
        run(io, 1_000)
    assert io.pauses == [1.0]
    invalid = VirtualIo(RejectedResponse(400, "INVALID_REQUEST", "no"))
    with pytest.raises(cycles.ProtocolError):
        run(invalid, 10_000)
    assert invalid.pauses == []
    io = VirtualIo(success(ENVELOPE), Unreachable("connection refused"))
    verdict = run(io, 0)
    assert verdict.disposition == "signer_resolution_failed"
    assert "connection refused" in verdict.reason


def test_only_keys_that_sign_evidence_are_returned(server: Server) -> None:
    keys = [
        jwk(),
        jwk(kid="of no algorithm", alg=...),
        jwk(kid="of another algorithm", alg="ES256"),
        jwk(kid="of another curve", crv="X25519"),
        jwk(kid="of another type", kty="EC"),
    ]
    server.bodies["/v1/.well-known/cycles-jwks.json"] = {"keys": keys}
    with server.client() as client:
        assert [key.kid for key in client.evidence_keys().keys] == ["k1", "of no algorithm"]
