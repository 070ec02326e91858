"""Sign evidence of decisions, as a server does that has a signing key. See `docs/evidence.md`.

The newest `MAX_ENVELOPES` envelopes are kept, in memory. A response that is replayed by its idempotency key has the
evidence of the first one.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import OrderedDict
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qs

from attrs import evolve

from cycles._errors import ConfigurationError
from cycles._evidence.canonical_json import canonical, copy_exact
from cycles._evidence.envelope import SCHEMA_VERSION, content_id, signed_bytes
from cycles._evidence.strict_json import StrictJsonError
from cycles._version import install_extra
from cycles.embedded import validation
from cycles.embedded.clock import Clock
from cycles.embedded.errors import ApiError
from cycles.embedded.http import Request, Response
from cycles.embedded.records import Body
from cycles.embedded.routes import Route, find

MAX_ENVELOPES: Final = 10_000
_SEED_BYTES: Final = 32
_ENDPOINTS: Final = {
    "decide": "POST /v1/decide",
    "reserve": "POST /v1/reservations",
    "commit": "POST /v1/reservations/{reservation_id}/commit",
    "release": "POST /v1/reservations/{reservation_id}/release",
}
# Errors that are decisions; validation and authentication failures are not attested.
_ATTESTED_CODES: Final = frozenset(
    {
        "BUDGET_EXCEEDED",
        "BUDGET_FROZEN",
        "BUDGET_CLOSED",
        "OVERDRAFT_LIMIT_EXCEEDED",
        "DEBT_OUTSTANDING",
        "UNIT_MISMATCH",
        "RESERVATION_FINALIZED",
        "RESERVATION_EXPIRED",
        "TENANT_CLOSED",
    }
)
_NEVER_ATTESTED: Final = frozenset({"cycles_evidence", "remaining_ttl_ms"})


class EvidenceSigner:
    """One signing key and the envelopes that it signed.

    Args:
        key: The Ed25519 seed: 32 bytes, or 64 hex digits.
        clock: The source of `issued_at_ms`.
        server_id: The issuer that envelopes name; by default the address of each request with ``/v1``.

    Raises:
        ConfigurationError: if the key has another form, or the extra ``evidence`` is not installed.
    """

    def __init__(self, key: bytes | str, clock: Clock, server_id: str | None = None) -> None:
        self._clock = clock
        self._private = _private_key(key)
        self._public = _public_bytes(self._private)
        self._server_id = server_id
        self._envelopes: OrderedDict[str, Body] = OrderedDict()  # by content: a replay attests nothing new
        self._by_id: dict[str, Body] = {}
        self._by_reservation: dict[str, dict[str, dict[str, str]]] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<EvidenceSigner {self._public.hex()[:16]}>"

    def key_set(self) -> Body:
        """Return the key set that verifies these envelopes."""
        key = {
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "x": base64.urlsafe_b64encode(self._public).decode().rstrip("="),
            "kid": self._public.hex()[:16],
            "cycles_nbf_ms": 0,
            "status": "active",
        }
        return {"keys": [key]}

    def references(self, reservation_id: str) -> dict[str, dict[str, str]]:
        """Return the references of a reservation, by artifact: its reserve, and its commit or release."""
        with self._lock:
            return dict(self._by_reservation.get(reservation_id, {}))

    def attested(self, request: Request, response: Response) -> Response:
        """Return the response with the references that belong into it. Signs what was not signed before."""
        route = find(request.method, request.path)
        if route.operation == "jwks":
            return _replaced(response, self.key_set())
        if route.operation == "evidence" and route.path_id in self._by_id:
            return _replaced(response, self._by_id[route.path_id])
        body = self._with_references(route, request, response)
        return response if body is None else evolve(response, body=_json(body))

    def _with_references(self, route: Route, request: Request, response: Response) -> Body | None:
        status = response.status
        if status < 400 and route.operation == "get":
            body = json.loads(response.body)
            return {**body, "evidence": self.references(body["reservation_id"])}
        if status < 400 and route.operation == "list" and "evidence" in _included(request.target):
            body = json.loads(response.body)
            rows = [{**row, "evidence": self.references(row["reservation_id"])} for row in body["reservations"]]
            return {**body, "reservations": rows}
        if route.operation not in _ENDPOINTS or "json" not in response.headers.get("Content-Type", ""):
            return None  # also a page of the web framework, which is no decision
        body = json.loads(response.body)
        if status >= 400 and body.get("error") not in _ATTESTED_CODES:
            return None
        try:
            form = validation.checked(route.operation, validation.decode(request.body))
            artifact, payload = _payload(route.operation, status, form, body, route.path_id)
            envelope = self._envelope(self._issuer(request), artifact, copy_exact(payload), response)
        except (StrictJsonError, ApiError):  # for example a number that canonical JSON cannot represent
            return None
        return {**body, "cycles_evidence": _reference(envelope)}

    def _issuer(self, request: Request) -> str:
        return self._server_id or f"http://{request.headers.get('host', 'localhost')}/v1"

    def _envelope(self, server_id: str, artifact: str, payload: Any, response: Response) -> Body:
        content = sha256(canonical([server_id, artifact, payload])).hexdigest()
        with self._lock:
            known = self._envelopes.get(content)
            if known is None:
                known = self._sealed(server_id, artifact, payload, response.headers["X-Cycles-Trace-Id"])
                self._envelopes[content] = self._by_id[known["evidence_id"]] = known
                reservation_id = _reservation_of(known)
                if reservation_id is not None and artifact != "error":
                    self._by_reservation.setdefault(reservation_id, {})[artifact] = _reference(known)
            if len(self._envelopes) > MAX_ENVELOPES:
                _, oldest = self._envelopes.popitem(last=False)
                del self._by_id[oldest["evidence_id"]]
                self._by_reservation.pop(_reservation_of(oldest) or "", None)
            return known

    def _sealed(self, server_id: str, artifact: str, payload: Any, trace_id: str) -> Body:
        envelope: Body = {
            "schema_version": SCHEMA_VERSION,
            "artifact_type": artifact,
            "server_id": server_id,
            "signer_did": self._public.hex(),
            "issued_at_ms": self._clock.now_ms(),
            "trace_id": trace_id,
            "payload": {artifact: payload},
        }
        envelope["evidence_id"] = content_id(envelope)
        envelope["signature"] = self._private.sign(signed_bytes(envelope)).hex()
        return envelope


def _payload(operation: str, status: int, form: Body, response: Body, path_id: str | None) -> tuple[str, Body]:
    """Return the kind of artifact and its payload. Nulls are not attested, at any level."""
    settled = {} if path_id is None else {"reservation_id": path_id}
    attested = {name: member for name, member in response.items() if name not in _NEVER_ATTESTED}
    payload: Body = {**settled, "request": form, "response": attested}
    if status >= 400:
        payload |= {"endpoint": _ENDPOINTS[operation], "http_status": status}
    cleaned: Body = _without_nulls(payload)
    return ("error" if status >= 400 else operation), cleaned


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(member) for name, member in value.items() if member is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _replaced(response: Response, body: Body) -> Response:
    return response if response.status == 429 else evolve(response, status=200, body=_json(body))


def _json(body: Body) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _reference(envelope: Body) -> dict[str, str]:
    evidence_id = envelope["evidence_id"]
    return {"evidence_id": evidence_id, "cycles_evidence_url": f"{envelope['server_id']}/evidence/{evidence_id}"}


def _reservation_of(envelope: Body) -> str | None:
    payload = envelope["payload"][envelope["artifact_type"]]
    found: str | None = payload.get("reservation_id") or payload["response"].get("reservation_id")
    return found


def _included(target: str) -> set[str]:
    values = parse_qs(target.partition("?")[2]).get("include", [])
    return {part.strip().lower() for value in values for part in value.split(",")}


def _private_key(key: object) -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"signing evidence needs the package cryptography: {install_extra('evidence')}"
        ) from error
    try:
        seed = bytes.fromhex(key) if isinstance(key, str) else key
    except ValueError:
        seed = None
    if not isinstance(seed, bytes) or len(seed) != _SEED_BYTES:  # the message must not show the key
        raise ConfigurationError("evidence_key must be 32 bytes or 64 hex digits: the seed of an Ed25519 key")
    return Ed25519PrivateKey.from_private_bytes(seed)


def _public_bytes(private: Any) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    found: bytes = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return found
