"""What a payload of evidence may contain, by kind of artifact. See `docs/evidence.md`.

The schemas are copies of those of the runtime protocol, taken for version ``cycles-evidence/v0.1``. They do not follow
`openapi.yaml`: a member that this version does not have must not be accepted under its signature. The two members of
responses that are never attested, `cycles_evidence` and `remaining_ttl_ms`, are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from cycles._core.messages.schema import Checkers
from cycles._core.subjects import LEVELS

Schema: TypeAlias = dict[str, Any]

RESERVATIONS: Final = "POST /v1/reservations"
COMMIT: Final = "POST /v1/reservations/{reservation_id}/commit"
RELEASE: Final = "POST /v1/reservations/{reservation_id}/release"
_REQUEST_OF: Final = {
    "POST /v1/decide": "DecideRequest",
    RESERVATIONS: "ReserveRequest",
    COMMIT: "CommitRequest",
    RELEASE: "ReleaseRequest",
}
_FREE: Final[Schema] = {"type": "object"}
_BOOLEAN: Final[Schema] = {"type": "boolean"}


def _closed(required: str, **members: Schema) -> Schema:
    """Return the schema of an object without other members. `required` is a list of names, separated by blanks."""
    return {"type": "object", "additionalProperties": False, "required": required.split(), "properties": members}


def _string(most: int | None = None, **more: Any) -> Schema:
    return {"type": "string", **({} if most is None else {"maxLength": most}), **more}


def _one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def _integer(low: int | None = None, high: int | None = None) -> Schema:
    bounds = {"minimum": low, "maximum": high}
    return {"type": "integer", **{word: bound for word, bound in bounds.items() if bound is not None}}


def _list(items: Schema, most: int | None = None) -> Schema:
    return {"type": "array", "items": items, **({} if most is None else {"maxItems": most})}


def _ref(name: str) -> Schema:
    return {"$ref": name}


_KEY: Final = _string(256, minLength=1)
_AMOUNT: Final = _ref("Amount")
_COUNT: Final = _integer(0)
_ACTION_MEMBERS: Final[Schema] = {
    "idempotency_key": _KEY,
    "subject": _ref("Subject"),
    "action": _ref("Action"),
    "estimate": _AMOUNT,
    "metadata": _FREE,
}
_DECISION_MEMBERS: Final[Schema] = {
    "decision": _one_of("ALLOW", "ALLOW_WITH_CAPS", "DENY"),
    "caps": _ref("Caps"),
    "reason_code": _string(128),
    "retry_after_ms": _COUNT,
    "affected_scopes": _list(_string()),
}
_BALANCES: Final = _list(_ref("Balance"))
_UNIT: Final = _one_of("USD_MICROCENTS", "TOKENS", "CREDITS", "RISK_POINTS")
_CODES: Final = _one_of(
    "INVALID_REQUEST",
    "UNAUTHORIZED",
    "FORBIDDEN",
    "NOT_FOUND",
    "BUDGET_EXCEEDED",
    "BUDGET_FROZEN",
    "BUDGET_CLOSED",
    "RESERVATION_EXPIRED",
    "RESERVATION_FINALIZED",
    "IDEMPOTENCY_MISMATCH",
    "UNIT_MISMATCH",
    "OVERDRAFT_LIMIT_EXCEEDED",
    "DEBT_OUTSTANDING",
    "MAX_EXTENSIONS_EXCEEDED",
    "LIMIT_EXCEEDED",
    "TENANT_CLOSED",
    "INTERNAL_ERROR",
)

_SCHEMAS: Final[dict[str, Schema]] = {
    "Amount": _closed("unit amount", unit=_UNIT, amount=_COUNT),
    "SignedAmount": _closed("unit amount", unit=_UNIT, amount=_integer()),
    "Subject": {
        **_closed(
            "",
            **dict.fromkeys(LEVELS, _string(128)),
            dimensions={"type": "object", "additionalProperties": _string(256), "maxProperties": 16},
        ),
        "minProperties": 1,
        "anyOf": [{"required": [level]} for level in LEVELS],
    },
    "Action": _closed("kind name", kind=_string(64), name=_string(256), tags=_list(_string(64), 10)),
    "Caps": _closed(
        "",
        max_tokens=_COUNT,
        max_steps_remaining=_COUNT,
        tool_allowlist=_list(_string(256)),
        tool_denylist=_list(_string(256)),
        cooldown_ms=_COUNT,
    ),
    "Balance": _closed(
        "scope scope_path remaining",
        scope=_string(),
        scope_path=_string(),
        remaining=_ref("SignedAmount"),
        **dict.fromkeys(("reserved", "spent", "debt", "allocated", "overdraft_limit"), _AMOUNT),
        is_over_limit=_BOOLEAN,
    ),
    "Metrics": _closed(
        "",
        tokens_input=_COUNT,
        tokens_output=_COUNT,
        latency_ms=_COUNT,
        model_version=_string(128),
        custom=_FREE,
    ),
    "DecideRequest": _closed("idempotency_key subject action estimate", **_ACTION_MEMBERS),
    "DecideResponse": _closed("decision", **_DECISION_MEMBERS),
    "ReserveRequest": _closed(
        "idempotency_key subject action estimate",
        **_ACTION_MEMBERS,
        ttl_ms=_integer(1_000, 86_400_000),
        grace_period_ms=_integer(0, 60_000),
        overage_policy=_one_of("REJECT", "ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT"),
        dry_run=_BOOLEAN,
    ),
    "ReserveResponse": _closed(
        "decision affected_scopes",
        **_DECISION_MEMBERS,
        reservation_id=_string(),
        reserved=_AMOUNT,
        expires_at_ms=_COUNT,
        scope_path=_string(),
        balances=_BALANCES,
    ),
    "CommitRequest": _closed(
        "idempotency_key actual", idempotency_key=_KEY, actual=_AMOUNT, metrics=_ref("Metrics"), metadata=_FREE
    ),
    "CommitResponse": _closed(
        "status charged", status=_one_of("COMMITTED"), charged=_AMOUNT, released=_AMOUNT, balances=_BALANCES
    ),
    "ReleaseRequest": _closed("idempotency_key", idempotency_key=_KEY, reason=_string(256)),
    "ReleaseResponse": _closed("status released", status=_one_of("RELEASED"), released=_AMOUNT, balances=_BALANCES),
    "ErrorResponse": _closed(
        "error message request_id",
        error=_CODES,
        message=_string(),
        request_id=_string(),
        trace_id=_string(pattern=r"^[0-9a-f]{32}\Z"),
        details=_FREE,
    ),
    "decide": _closed("request response", request=_ref("DecideRequest"), response=_ref("DecideResponse")),
    "reserve": _closed("request response", request=_ref("ReserveRequest"), response=_ref("ReserveResponse")),
    "commit": _closed(
        "reservation_id request response",
        reservation_id=_string(),
        request=_ref("CommitRequest"),
        response=_ref("CommitResponse"),
    ),
    "release": _closed(
        "reservation_id request response",
        reservation_id=_string(),
        request=_ref("ReleaseRequest"),
        response=_ref("ReleaseResponse"),
    ),
    "error": _closed(
        "endpoint http_status response",
        endpoint=_one_of(*_REQUEST_OF),
        http_status=_integer(400, 599),
        response=_ref("ErrorResponse"),
        reservation_id=_string(),
        request=_FREE,
    ),
}
_CHECKERS: Final = Checkers(_SCHEMAS, responses=False)

ARTIFACTS: Final = ("decide", "reserve", "commit", "release", "error")


def payload_problem(artifact: str, payload: Any) -> str | None:
    """Return what is wrong with the payload of an artifact, beginning with the member, or None."""
    problem = _CHECKERS[artifact](payload, artifact)
    if problem is not None:
        return problem
    if artifact == "error":
        return _error_problem(payload)
    if artifact in ("decide", "reserve"):
        return _decision_problem(artifact, payload["request"], payload["response"])
    return None


def _decision_problem(artifact: str, request: Mapping[str, Any], response: Mapping[str, Any]) -> str | None:
    decision, dry_run = response["decision"], request.get("dry_run", False)
    if ("caps" in response) != (decision == "ALLOW_WITH_CAPS"):
        return f"{artifact}.response.caps: must be present exactly when the decision is ALLOW_WITH_CAPS"
    if artifact == "decide":
        return None
    if dry_run:
        present = [name for name in ("reservation_id", "expires_at_ms") if name in response]
        return f"reserve.response.{present[0]}: must be absent on a dry run" if present else None
    if decision == "DENY":
        return "reserve.response.decision: is DENY only on a dry run"
    return None if "reservation_id" in response else "reserve.response.reservation_id: is required"


def _error_problem(payload: Mapping[str, Any]) -> str | None:
    endpoint = payload["endpoint"]
    if ("reservation_id" in payload) != (endpoint in (COMMIT, RELEASE)):
        return f"error.reservation_id: must be {'absent' if 'reservation_id' in payload else 'present'} for {endpoint}"
    return _CHECKERS[_REQUEST_OF[endpoint]](payload["request"], "error.request") if "request" in payload else None
