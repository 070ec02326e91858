"""What the embedded server's signer puts into each response, and which envelopes it keeps."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

import cycles
from cycles._evidence.envelope import SCHEMA_VERSION, content_id, signed_bytes
from cycles.embedded import evidence
from cycles.embedded.evidence import EvidenceSigner
from cycles.embedded.http import Request, Response

SEED, NOW, ISSUER = bytes(range(32)), 1_700_000_000_000, "https://cycles.test/v1"
TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {"X-Cycles-Trace-Id": TRACE, "Content-Type": "application/json"}
RID = "r-1"
PUBLIC = base64.urlsafe_b64decode("A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=")
DECIDE: dict[str, Any] = {
    "idempotency_key": "k", "subject": {"tenant": "acme"}, "action": {"kind": "a", "name": "b"},
    "estimate": {"unit": "TOKENS", "amount": 1},
}  # fmt: skip
FORMS = {
    "/v1/decide": DECIDE,
    "/v1/reservations": DECIDE,
    f"/v1/reservations/{RID}/commit": {"idempotency_key": "k", "actual": DECIDE["estimate"]},
    f"/v1/reservations/{RID}/release": {"idempotency_key": "k"},
}


class Signing:
    """A signer and the requests of a test."""

    def __init__(self, server_id: str | None = ISSUER) -> None:
        self.signer = EvidenceSigner(SEED, cycles.ManualClock(NOW), server_id)

    def __call__(
        self, method: str, target: str, body: Any, *, status: int = 200, form: Any = None, **headers: str
    ) -> Any:
        content = json.dumps(FORMS.get(target) if form is None else form).encode()
        request = Request(method=method, target=target, headers=headers, body=content)
        response = Response(status, HEADERS, json.dumps(body).encode())
        attested = self.signer.attested(request, response)
        assert attested.headers == response.headers
        self.status, self.is_same = attested.status, attested is response
        return json.loads(attested.body)

    def envelope(self, evidence_id: str) -> Any:
        found = self("GET", f"/v1/evidence/{evidence_id}", {"error": "NOT_FOUND"}, status=404)
        assert self.status == 200
        return found


def test_the_key_of_a_signer() -> None:
    key = {
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg",
        "kid": "03a107bff3ce10be", "cycles_nbf_ms": 0, "status": "active",
    }  # fmt: skip
    signing = Signing()
    assert signing.signer.key_set() == {"keys": [key]}
    assert signing("GET", "/v1/.well-known/cycles-jwks.json", {}, status=404) == {"keys": [key]}
    assert signing.status == 200
    assert EvidenceSigner(SEED.hex(), cycles.ManualClock()).key_set() == {"keys": [key]}
    assert repr(signing.signer) == "<EvidenceSigner 03a107bff3ce10be>"
    limited = {"error": "LIMIT_EXCEEDED"}
    assert signing("GET", "/v1/.well-known/cycles-jwks.json", limited, status=429) == limited


@pytest.mark.parametrize("target", FORMS)
@pytest.mark.parametrize(("status", "code"), [(200, None), (400, "UNIT_MISMATCH"), (409, "BUDGET_EXCEEDED")])
def test_the_envelope_of_a_decision(target: str, status: int, code: str | None) -> None:
    signing = Signing()
    body: dict[str, Any] = {"decision": "ALLOW", "remaining_ttl_ms": 5, "a": None, "b": [{"c": None, "d": 1}]}
    if code is not None:
        body["error"] = code
    found = signing("POST", target, body, status=status)
    reference = found.pop("cycles_evidence")
    assert (found, signing.status) == (body, status)
    envelope = signing.envelope(reference["evidence_id"])
    assert reference == {
        "evidence_id": envelope["evidence_id"],
        "cycles_evidence_url": f"{ISSUER}/evidence/{envelope['evidence_id']}",
    }
    operation = {"decide": "decide", "reservations": "reserve"}.get(target[4:], target.rpartition("/")[2])
    artifact = operation if code is None else "error"
    shown = {name: value for name, value in body.items() if name not in ("remaining_ttl_ms", "a")}
    payload: dict[str, Any] = {"request": dict(FORMS[target]), "response": {**shown, "b": [{"d": 1}]}}
    if operation == "reserve":
        payload["request"] |= {"grace_period_ms": 5_000, "dry_run": False}
    if RID in target:
        payload["reservation_id"] = RID
    if code is not None:
        payload |= {"http_status": status, "endpoint": f"POST {target.replace(RID, '{reservation_id}')}"}
    assert envelope == {
        "schema_version": SCHEMA_VERSION, "artifact_type": artifact, "server_id": ISSUER, "signer_did": PUBLIC.hex(),
        "issued_at_ms": NOW, "trace_id": TRACE, "payload": {artifact: payload},
        "evidence_id": content_id(envelope), "signature": envelope["signature"],
    }  # fmt: skip
    key = Ed25519PublicKey.from_public_bytes(PUBLIC)
    key.verify(bytes.fromhex(envelope["signature"]), signed_bytes(envelope))
    again = signing("POST", target, body, status=status)["cycles_evidence"]
    assert again == reference  # a replay attests nothing new
    assert signing("POST", target, {**body, "x": 1}, status=status)["cycles_evidence"] != reference
    assert set(signing.signer.references(RID)) == ({operation} if RID in target and code is None else set())


@pytest.mark.parametrize(
    ("method", "target", "status", "body", "form"),
    [
        ("POST", "/v1/decide", 400, {"error": "INVALID_REQUEST"}, None),
        ("POST", "/v1/decide", 404, {"error": "NOT_FOUND"}, None),
        ("POST", "/v1/decide", 409, {"error": "IDEMPOTENCY_MISMATCH"}, None),
        ("POST", "/v1/decide", 200, {"decision": "ALLOW", "n": 2**60}, None),
        ("POST", "/v1/decide", 200, {"decision": "ALLOW"}, {}),
        ("POST", "/v1/events", 201, {"status": "APPLIED"}, DECIDE),
        ("POST", f"/v1/reservations/{RID}/extend", 200, {}, {"idempotency_key": "k", "extend_by_ms": 1}),
        ("GET", "/v1/reservations/r-1", 404, {"error": "NOT_FOUND"}, None),
        ("GET", "/v1/reservations/r-1", 400, {"error": "INVALID_REQUEST"}, None),
        ("GET", "/v1/reservations", 200, {"reservations": [{"reservation_id": RID}]}, None),
        ("GET", "/v1/reservations?include=metadata", 200, {"reservations": [{"reservation_id": RID}]}, None),
        ("GET", "/v1/reservations?include=evidence", 400, {"error": "INVALID_REQUEST"}, None),
        ("GET", f"/v1/evidence/{'0' * 64}", 404, {"error": "NOT_FOUND"}, None),
    ],
)
def test_responses_that_are_not_attested(method: str, target: str, status: int, body: Any, form: Any) -> None:
    signing = Signing()
    assert signing(method, target, body, status=status, form=form) == body
    assert (signing.status, signing.is_same) == (status, True)


@pytest.mark.parametrize(
    ("target", "accept", "status"), [("/v1/decide", "text/html", 403), ("/v1/reservations/%00/commit", "*/*", 400)]
)
def test_a_page_of_the_web_framework_is_not_attested(target: str, accept: str, status: int) -> None:
    with cycles.EmbeddedServer({"tenant:acme": cycles.tokens(1)}, evidence_key=SEED) as server:
        headers = {"x-cycles-api-key": server.api_key, "content-type": "application/json", "accept": accept}
        body = json.dumps(DECIDE).encode()
        response, _ = server.handle(Request(method="POST", target=target, headers=headers, body=body))
    assert response is not None
    assert (response.status, b"cycles_evidence" in response.body) == (status, False)


def test_the_evidence_of_a_reservation() -> None:
    signing = Signing()
    reserved = signing("POST", "/v1/reservations", {"decision": "ALLOW", "reservation_id": RID})["cycles_evidence"]
    refused = signing("POST", f"/v1/reservations/{RID}/commit", {"error": "UNIT_MISMATCH"}, status=400)
    assert "cycles_evidence" in refused
    assert signing.signer.references(RID) == {"reserve": reserved}
    commit = signing("POST", f"/v1/reservations/{RID}/commit", {"status": "COMMITTED"})["cycles_evidence"]
    both = {"reserve": reserved, "commit": commit}
    assert signing("GET", f"/v1/reservations/{RID}", {"reservation_id": RID}) == {
        "reservation_id": RID,
        "evidence": both,
    }
    assert signing("GET", "/v1/reservations/x", {"reservation_id": "x"}) == {"reservation_id": "x", "evidence": {}}
    rows = [{"reservation_id": RID}, {"reservation_id": "x"}]
    for query in ("include=evidence", "include=metadata,%20Evidence", "include=metadata&include=evidence"):
        found = signing("GET", f"/v1/reservations?{query}", {"reservations": rows, "has_more": False})
        with_both = [{"reservation_id": RID, "evidence": both}, {"reservation_id": "x", "evidence": {}}]
        assert found == {"reservations": with_both, "has_more": False}
    signing.signer.references(RID).clear()
    assert signing.signer.references(RID) == both


def test_the_issuer_of_an_envelope() -> None:
    def issuer(server_id: str | None, **headers: Any) -> str:
        found = Signing(server_id)("POST", "/v1/decide", {"decision": "ALLOW"}, **headers)
        return str(found["cycles_evidence"]["cycles_evidence_url"].partition("/evidence/")[0])

    assert issuer("https://x/v1", host="y:1") == "https://x/v1"
    assert issuer(None, host="y:1") == "http://y:1/v1"
    assert issuer(None) == "http://localhost/v1"


def test_the_same_decision_has_an_envelope_of_each_address() -> None:
    signing, body = Signing(None), {"decision": "ALLOW"}
    first, other, again = (
        signing("POST", "/v1/decide", body, host=host)["cycles_evidence"] for host in ("x:1", "y:1", "x:1")
    )
    assert (first == again, first["evidence_id"] == other["evidence_id"]) == (True, False)
    for reference, server_id in ((first, "http://x:1/v1"), (other, "http://y:1/v1")):
        assert signing.envelope(reference["evidence_id"])["server_id"] == server_id
        assert reference["cycles_evidence_url"] == f"{server_id}/evidence/{reference['evidence_id']}"


def test_a_null_in_a_list_is_attested_and_one_of_a_member_is_not() -> None:
    signing = Signing()
    metadata = {"list": [None, 1, {"a": None, "b": [None]}], "none": None}
    found = signing("POST", "/v1/decide", {"decision": "ALLOW"}, form={**DECIDE, "metadata": metadata})
    payload = signing.envelope(found["cycles_evidence"]["evidence_id"])["payload"]["decide"]
    assert payload["request"]["metadata"] == {"list": [None, 1, {"b": [None]}]}


def test_only_the_newest_envelopes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert evidence.MAX_ENVELOPES == 10_000
    monkeypatch.setattr(evidence, "MAX_ENVELOPES", 2)
    signing = Signing()
    ids = [
        signing("POST", "/v1/reservations", {"reservation_id": rid})["cycles_evidence"]["evidence_id"] for rid in "abc"
    ]
    decided = signing("POST", "/v1/decide", {"decision": "ALLOW"})["cycles_evidence"]["evidence_id"]
    kept = [*ids[2:], decided]
    for each in (*ids, decided):
        signing("GET", f"/v1/evidence/{each}", {"error": "NOT_FOUND"}, status=404)
        assert signing.status == (200 if each in kept else 404)
    assert [bool(signing.signer.references(rid)) for rid in "abc"] == [False, False, True]


@pytest.mark.parametrize("key", ["", "zz", "11" * 31, "11" * 33, b"1" * 31, b"1" * 33, 5, None])
def test_a_wrong_seed(key: Any) -> None:
    with pytest.raises(cycles.ConfigurationError) as caught:
        EvidenceSigner(key, cycles.ManualClock())
    assert str(caught.value) == "evidence_key must be 32 bytes or 64 hex digits: the seed of an Ed25519 key"
