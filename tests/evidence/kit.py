"""Envelopes and key sets for tests, signed by a test key."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cycles._evidence.envelope import content_id, signed_bytes

SERVER = "https://cycles.example.com/v1"
ISSUED = 1_810_000_000_100
SEED = hashlib.sha256(b"tests/evidence").digest()
OTHER_SEED = hashlib.sha256(b"tests/evidence, another").digest()

REQUEST = {
    "idempotency_key": "k-1",
    "subject": {"tenant": "acme"},
    "action": {"kind": "llm.completion", "name": "gpt-4o"},
    "estimate": {"unit": "TOKENS", "amount": 10},
}
DECIDE = {"decide": {"request": REQUEST, "response": {"decision": "ALLOW", "affected_scopes": ["tenant:acme"]}}}


def public_key(seed: bytes = SEED) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def jwk(seed: bytes = SEED, **members: Any) -> dict[str, Any]:
    x = base64.urlsafe_b64encode(public_key(seed)).decode().rstrip("=")
    key = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x, "kid": "k1", "cycles_nbf_ms": 0}
    return {name: value for name, value in {**key, **members}.items() if value is not ...}


def key_set(*keys: dict[str, Any]) -> dict[str, Any]:
    return {"keys": list(keys or [jwk()])}


def did(kid: str = "k1", server_id: str = SERVER) -> str:
    return f"did:cycles:{hashlib.sha256(server_id.encode()).hexdigest()}#{kid}"


def sealed(seed: bytes = SEED, **members: Any) -> dict[str, Any]:
    """A signed envelope; a member given as ``...`` is left out."""
    envelope = {
        "schema_version": "cycles-evidence/v0.1",
        "artifact_type": "decide",
        "server_id": SERVER,
        "signer_did": public_key(seed).hex(),
        "issued_at_ms": ISSUED,
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "payload": DECIDE,
        **members,
    }
    envelope = {name: value for name, value in envelope.items() if value is not ...}
    envelope["evidence_id"] = content_id(envelope)
    signature = Ed25519PrivateKey.from_private_bytes(seed).sign(signed_bytes(envelope))
    return {**envelope, "signature": signature.hex()}


def reserve(request: dict[str, Any] | None = None, **response: Any) -> dict[str, Any]:
    body = {"decision": "ALLOW", "affected_scopes": ["tenant:acme"], "reservation_id": "r1", **response}
    body = {name: value for name, value in body.items() if value is not ...}
    return {
        "artifact_type": "reserve",
        "payload": {"reserve": {"request": {**REQUEST, **(request or {})}, "response": body}},
    }
