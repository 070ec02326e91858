"""The rules that make a document no evidence at all, and the order in which they are checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

import cycles
from cycles._evidence.payload import payload_problem
from tests.evidence.kit import DECIDE, REQUEST, key_set, reserve, sealed

ERROR = {"error": "BUDGET_EXCEEDED", "message": "m", "request_id": "r"}
AMOUNT = {"unit": "TOKENS", "amount": 1}
COMMIT = {
    "reservation_id": "r1",
    "request": {"idempotency_key": "k", "actual": AMOUNT},
    "response": {"status": "COMMITTED", "charged": AMOUNT},
}
RELEASE = {
    "reservation_id": "r1",
    "request": {"idempotency_key": "k"},
    "response": {"status": "RELEASED", "released": AMOUNT},
}
BEYOND_INT64 = 9223372036854776000  # 2**63 in its canonical form


def artifact(kind: str, content: Any) -> dict[str, Any]:
    return {"artifact_type": kind, "payload": {kind: content}}


def error(endpoint: str = "POST /v1/reservations", **members: Any) -> dict[str, Any]:
    content = {"endpoint": endpoint, "http_status": 409, "response": ERROR, **members}
    return artifact("error", {name: value for name, value in content.items() if value is not ...})


def decide(request: Any = REQUEST, **response: Any) -> dict[str, Any]:
    return artifact("decide", {"request": request, "response": {"decision": "ALLOW", **response}})


def rule_of(envelope: Any, **options: Any) -> str:
    with pytest.raises(cycles.EvidenceRejectedError) as caught:
        cycles.verify_evidence(envelope, keys=key_set(), **options)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, cycles.EvidenceError)
    assert caught.value.verdict is None
    return caught.value.rule


MEMBERS: list[tuple[str, Any]] = [
    ("schema_version", ...),
    ("schema_version", "cycles-evidence/v0.2"),
    ("schema_version", None),
    ("schema_version", ["cycles-evidence/v0.1"]),
    ("artifact_type", ...),
    ("artifact_type", "extend"),
    ("artifact_type", None),
    ("artifact_type", {}),
    ("server_id", ...),
    ("server_id", None),
    ("server_id", 5),
    ("signer_did", ...),
    ("signer_did", None),
    ("issued_at_ms", ...),
    ("issued_at_ms", None),
    ("issued_at_ms", "1"),
    ("issued_at_ms", True),
    ("issued_at_ms", -1),
    ("issued_at_ms", 1.5),
    ("issued_at_ms", BEYOND_INT64),
    ("trace_id", None),
    ("trace_id", ""),
    ("trace_id", "0AF7651916CD43DD8448EB211C80319C"),
    ("trace_id", "0af7651916cd43dd8448eb211c80319c\n"),
    ("evidence_id", ...),
    ("evidence_id", "a" * 63),
    ("evidence_id", "A" * 64),
    ("evidence_id", "a" * 64 + "\n"),
    ("signature", ...),
    ("signature", None),
    ("signature", "a" * 127),
    ("signature", "a" * 128 + "\n"),
]


@pytest.mark.parametrize(("name", "value"), MEMBERS, ids=repr)
def test_a_member_of_the_wrong_form_is_the_rule(name: str, value: Any) -> None:
    envelope = {**sealed(), name: value}
    if value is ...:
        del envelope[name]
    assert rule_of(envelope) == name


def test_other_members_and_payloads_are_rejected() -> None:
    assert rule_of(sealed(extra=1)) == "unknown_member"
    assert rule_of(sealed(extra=None)) == "unknown_member"
    payloads: list[Any] = [..., None, [], {}, {"reserve": {}}, {**DECIDE, "error": None}, {"Decide": {}}]
    for payload in payloads:
        assert rule_of(sealed(payload=payload)) == "payload", payload


FULL_SUBJECT = {**dict.fromkeys(("tenant", "workspace", "app", "workflow", "agent", "toolset"), "x"), "dimensions": {}}
FULL_CAPS = {"max_tokens": 0, "max_steps_remaining": 0, "tool_allowlist": [], "tool_denylist": ["t"], "cooldown_ms": 0}
FULL_METRICS = {"tokens_input": 0, "tokens_output": 0, "latency_ms": 0, "model_version": "m", "custom": {"a": None}}
FULL_BALANCE = {
    "scope": "s",
    "scope_path": "s",
    "remaining": {"unit": "TOKENS", "amount": -1},
    **dict.fromkeys(("reserved", "spent", "debt", "allocated", "overdraft_limit"), AMOUNT),
    "is_over_limit": True,
}
FULL_RESERVE = {
    "reason_code": "R",
    "retry_after_ms": 0,
    "reserved": AMOUNT,
    "scope_path": "s",
    "balances": [FULL_BALANCE],
}
CODES = (
    *("INVALID_REQUEST", "UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "BUDGET_FROZEN", "BUDGET_CLOSED"),
    *("RESERVATION_EXPIRED", "RESERVATION_FINALIZED", "IDEMPOTENCY_MISMATCH", "UNIT_MISMATCH"),
    *("OVERDRAFT_LIMIT_EXCEEDED", "DEBT_OUTSTANDING", "MAX_EXTENSIONS_EXCEEDED", "LIMIT_EXCEEDED", "TENANT_CLOSED"),
    "INTERNAL_ERROR",
)

VALID: list[dict[str, Any]] = [
    decide(),
    decide(decision="DENY", reason_code="BUDGET_EXCEEDED", retry_after_ms=5),
    decide(decision="ALLOW_WITH_CAPS", caps={}),
    decide({**REQUEST, "metadata": {"any": [{"thing": None}]}, "subject": {"agent": "a", "dimensions": {"x": "y"}}}),
    reserve(),
    reserve(decision="ALLOW_WITH_CAPS", caps={"max_tokens": 0}),
    reserve({"dry_run": True}, reservation_id=...),
    reserve({"dry_run": True}, reservation_id=..., decision="DENY"),
    reserve({"dry_run": False, "ttl_ms": 1000, "grace_period_ms": 0, "overage_policy": "REJECT"}, expires_at_ms=0),
    artifact("commit", COMMIT),
    artifact("release", RELEASE),
    error(),
    error(request=REQUEST),
    error(response={**ERROR, "trace_id": "0" * 32, "details": {"any": None}}),
    error("POST /v1/reservations/{reservation_id}/commit", reservation_id="r", request=COMMIT["request"]),
    error("POST /v1/reservations/{reservation_id}/release", reservation_id="r", request=RELEASE["request"]),
    decide(
        {**REQUEST, "subject": FULL_SUBJECT, "action": {"kind": "k", "name": "n", "tags": ["t"]}},
        decision="ALLOW_WITH_CAPS",
        caps=FULL_CAPS,
        reason_code="R",
        retry_after_ms=0,
        affected_scopes=["s"],
    ),
    reserve({"dry_run": True, "ttl_ms": 86_400_000, "grace_period_ms": 60_000}, reservation_id=..., **FULL_RESERVE),
    *[
        reserve({"overage_policy": policy}, expires_at_ms=0)
        for policy in ("ALLOW_IF_AVAILABLE", "ALLOW_WITH_OVERDRAFT")
    ],
    *[
        decide({**REQUEST, "estimate": {"unit": unit, "amount": 0}})
        for unit in ("USD_MICROCENTS", "CREDITS", "RISK_POINTS")
    ],
    artifact(
        "commit",
        {
            "reservation_id": "r1",
            "request": {"idempotency_key": "k", "actual": AMOUNT, "metrics": FULL_METRICS, "metadata": {"a": 1}},
            "response": {"status": "COMMITTED", "charged": AMOUNT, "released": AMOUNT, "balances": [FULL_BALANCE]},
        },
    ),
    artifact(
        "release",
        {
            "reservation_id": "r1",
            "request": {"idempotency_key": "k", "reason": "r"},
            "response": {"status": "RELEASED", "released": AMOUNT, "balances": [FULL_BALANCE]},
        },
    ),
    *[error(response={**ERROR, "error": code}) for code in CODES],
]
INVALID: list[tuple[str, dict[str, Any]]] = [
    ("caps", decide(caps={})),
    ("caps", decide(decision="ALLOW_WITH_CAPS")),
    ("decision", decide(decision="MAYBE")),
    ("cycles_evidence", decide(cycles_evidence={})),
    ("policy_keys", decide({**REQUEST, "policy_keys": {}})),
    ("estimate", decide({**REQUEST, "estimate": {"unit": "TOKENS", "amount": -1}})),
    ("estimate", decide({**REQUEST, "estimate": {"unit": "EUR", "amount": 1}})),
    ("estimate", decide({**REQUEST, "estimate": {"unit": "TOKENS", "amount": True}})),
    ("estimate", decide({**REQUEST, "estimate": {"unit": "TOKENS", "amount": BEYOND_INT64}})),
    ("idempotency_key", decide({**REQUEST, "idempotency_key": ""})),
    ("idempotency_key", decide({**REQUEST, "idempotency_key": "x" * 257})),
    ("subject", decide({**REQUEST, "subject": {}})),
    ("subject", decide({**REQUEST, "subject": {"dimensions": {"a": "b"}}})),
    ("tenant", decide({**REQUEST, "subject": {"tenant": None}})),
    ("tags", decide({**REQUEST, "action": {"kind": "k", "name": "n", "tags": ["t"] * 11}})),
    ("metadata", decide({**REQUEST, "metadata": None})),
    ("request", artifact("decide", {"request": None, "response": {"decision": "ALLOW"}})),
    ("decide", artifact("decide", None)),
    ("decide", artifact("decide", [])),
    ("reservation_id", reserve(reservation_id=...)),
    ("reservation_id", reserve({"dry_run": True})),
    ("expires_at_ms", reserve({"dry_run": True}, reservation_id=..., expires_at_ms=1)),
    ("decision", reserve(decision="DENY")),
    ("decision", reserve({"dry_run": False}, decision="DENY")),
    ("remaining_ttl_ms", reserve(remaining_ttl_ms=1)),
    ("affected_scopes", reserve(affected_scopes=...)),
    ("ttl_ms", reserve({"ttl_ms": 999})),
    ("dry_run", reserve({"dry_run": 1})),
    ("balances", reserve(balances=[{"scope": "s", "scope_path": "s"}])),
    ("reservation_id", artifact("commit", {name: COMMIT[name] for name in ("request", "response")})),
    ("status", artifact("commit", {**COMMIT, "response": {"status": "RELEASED", "charged": AMOUNT}})),
    ("reason", artifact("release", {**RELEASE, "request": {"idempotency_key": "k", "reason": "x" * 257}})),
    ("endpoint", error("POST /v1/reservations/r1/commit", reservation_id="r1")),
    ("endpoint", error("POST /v1/events")),
    ("http_status", error(http_status=399)),
    ("http_status", error(http_status=600)),
    ("error", error(response={**ERROR, "error": "ACTION_QUOTA_EXCEEDED"})),
    ("request_id", error(response={"error": "NOT_FOUND", "message": "m"})),
    ("trace_id", error(response={**ERROR, "trace_id": "0" * 32 + "\n"})),
    ("reservation_id", error(reservation_id="r")),
    ("reservation_id", error("POST /v1/reservations/{reservation_id}/commit")),
    ("request", error("POST /v1/decide", request={**REQUEST, "ttl_ms": 1000})),
    ("request", error("POST /v1/decide", request={})),
    ("request", error("POST /v1/decide", request=None)),
    ("other", error(other=1)),
]


@pytest.mark.parametrize("members", VALID, ids=lambda members: json.dumps(members["payload"])[:60])
def test_a_payload_that_matches_its_schema_is_authentic(members: dict[str, Any]) -> None:
    assert cycles.verify_evidence(sealed(**members), keys=key_set()).is_authentic


REQUIRED = [
    ("decide", DECIDE["decide"], "request response"),
    ("decide.request", DECIDE["decide"], "idempotency_key subject action estimate"),
    ("decide.response", DECIDE["decide"], "decision"),
    ("reserve.request", reserve()["payload"]["reserve"], "idempotency_key subject action estimate"),
    ("reserve.response", reserve()["payload"]["reserve"], "decision affected_scopes"),
    ("commit", COMMIT, "reservation_id request response"),
    ("commit.request", COMMIT, "idempotency_key actual"),
    ("commit.response", COMMIT, "status charged"),
    ("release", RELEASE, "reservation_id request response"),
    ("release.request", RELEASE, "idempotency_key"),
    ("release.response", RELEASE, "status released"),
    ("error", error()["payload"]["error"], "endpoint http_status response"),
    ("error.response", error()["payload"]["error"], "error message request_id"),
]


@pytest.mark.parametrize(
    ("place", "content", "names"), REQUIRED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_required_member_that_is_absent_is_named(place: str, content: Any, names: str) -> None:
    kind, _, part = place.partition(".")
    problems = []
    for name in names.split():
        document = json.loads(json.dumps(content))
        del (document[part] if part else document)[name]
        problems.append(payload_problem(kind, document))
    assert problems == [f"{place}.{name}: is required" for name in names.split()]


@pytest.mark.parametrize(("name", "members"), INVALID, ids=lambda value: value if isinstance(value, str) else "")
def test_a_payload_that_does_not_match_its_schema_names_the_member(name: str, members: dict[str, Any]) -> None:
    with pytest.raises(cycles.EvidenceRejectedError, match=rf"payload\.[\w.]*\b{name}\b") as caught:
        cycles.verify_evidence(sealed(**members), keys=key_set())
    assert caught.value.rule == "payload_schema"


LOSSY = "is another number in canonical form"
TEXTS: list[tuple[Any, str, str]] = [
    ('{"c":0,"b":1,"a":1,"a":2,"b":2}', "json", "the member 'b' occurs twice"),
    (f'{{"{"a" * 61}":1,"{"a" * 61}":1}}', "json", f"the member {'a' * 60!r} occurs twice"),
    ('{"a": NaN}', "json", "NaN is not JSON"),
    ("x", "json", "the document is not JSON: Expecting value: line 1 column 1 (char 0)"),
    (b"\xff", "json", "the document is not UTF-8"),
    (b'{"a":' * 100_000, "json", "the document is nested too deeply"),
    ("5", "json", "the document is no JSON object"),
    (5, "json", "it must be bytes, a string or a mapping, got int"),
    ({"a": b""}, "json", "a bytes is not JSON"),
    ({"a": float("nan")}, "json", "nan is not JSON"),
    ({1: 2}, "json", "the member name 1 is not a string"),
    ({"\ud800": 1}, "json", "a string has half of a surrogate pair"),
    ({"a": 2**53 + 1, "b": 2**53 + 3}, "number", f"the number 9007199254740993 {LOSSY}"),
    ('{"a": 9007199254740993, "b": 9007199254740995}', "number", f"the number 9007199254740993 {LOSSY}"),
    ({"a": [(10**400,)]}, "number", f"the number 1{'0' * 59} {LOSSY}"),
    (f'{{"a": 0.{"1" * 99}}}', "number", f"the number 0.{'1' * 58} {LOSSY}"),
    ('{"a": 1e-99999999999999999999}', "number", f"the number 1e-99999999999999999999 {LOSSY}"),
    (sealed(zz=1, extra=2), "unknown_member", "extra is no member of an envelope"),
    ({**sealed(), "x" * 61: 1}, "unknown_member", f"{'x' * 60} is no member of an envelope"),
    (sealed(payload={}), "payload", "payload must have exactly one member, named decide"),
    (
        sealed(**decide(caps={})),
        "payload_schema",
        "payload.decide.response.caps: must be present exactly when the decision is ALLOW_WITH_CAPS",
    ),
    (
        sealed(**reserve({"dry_run": True}, expires_at_ms=1)),
        "payload_schema",
        "payload.reserve.response.reservation_id: must be absent on a dry run",
    ),
    (
        sealed(**reserve({"dry_run": True}, reservation_id=..., expires_at_ms=1)),
        "payload_schema",
        "payload.reserve.response.expires_at_ms: must be absent on a dry run",
    ),
    (
        sealed(**reserve(decision="DENY")),
        "payload_schema",
        "payload.reserve.response.decision: is DENY only on a dry run",
    ),
    (
        sealed(**reserve(reservation_id=...)),
        "payload_schema",
        "payload.reserve.response.reservation_id: is required",
    ),
    (
        sealed(**error(reservation_id="r")),
        "payload_schema",
        "payload.error.reservation_id: must be absent for POST /v1/reservations",
    ),
    (
        sealed(**error("POST /v1/reservations/{reservation_id}/release")),
        "payload_schema",
        "payload.error.reservation_id: must be present for POST /v1/reservations/{reservation_id}/release",
    ),
    (
        sealed(**error(request={**REQUEST, "ttl_ms": 999})),
        "payload_schema",
        "payload.error.request.ttl_ms: must be 1000 or more, got 999",
    ),
]


@pytest.mark.parametrize(
    ("document", "rule", "detail"), TEXTS, ids=lambda value: value[:40] if isinstance(value, str) else ""
)
def test_a_rejected_document_is_named_with_its_first_fault(document: Any, rule: str, detail: str) -> None:
    with pytest.raises(cycles.EvidenceRejectedError) as caught:
        cycles.verify_evidence(document)
    assert str(caught.value) == f"the document is not an evidence envelope: {detail} (rule {rule})"


FORMS = {
    "schema_version": "must be cycles-evidence/v0.1",
    "artifact_type": "must be one of decide, reserve, commit, release, error",
    "server_id": "must be a string",
    "signer_did": "must be a string",
    "issued_at_ms": "must be an integer of at most 64 bits, 0 or more",
    "trace_id": "must be 32 lower-case hex digits, or left out",
    "evidence_id": "must be 64 lower-case hex digits",
    "signature": "must be 128 lower-case hex digits",
}


@pytest.mark.parametrize("name", FORMS)
def test_a_member_of_the_wrong_form_is_named_with_the_right_one(name: str) -> None:
    with pytest.raises(cycles.EvidenceRejectedError) as caught:
        cycles.verify_evidence({**sealed(), name: []})
    assert f": {name} {FORMS[name]} (rule {name})" in str(caught.value)


@pytest.mark.parametrize("issued_at_ms", [0, 9223372036854775000])  # the last one below 2**63 in its canonical form
def test_a_time_of_issue_has_up_to_64_bits(issued_at_ms: int) -> None:
    assert cycles.verify_evidence(sealed(issued_at_ms=issued_at_ms), keys=key_set()).is_authentic


def test_not_strict_skips_the_two_rules_of_newer_members_and_says_so() -> None:
    newer = sealed(extra=1, **decide(policy_keys={}))
    verdict = cycles.verify_evidence(newer, keys=key_set(), strict=False)
    assert verdict.is_authentic
    assert verdict.reason == (
        "signed by the key 'k1', which was valid at that time"
        "; not checked: unknown_member: extra is no member of an envelope"
        "; not checked: payload_schema: payload.decide.response.policy_keys: no such member"
    )
    assert rule_of(sealed(trace_id=None), strict=False) == "trace_id"
    assert rule_of(sealed(payload={}), strict=False) == "payload"
    assert "not checked" not in cycles.verify_evidence(sealed(), keys=key_set(), strict=False).reason


def test_a_document_with_every_fault_fails_with_the_first_rule() -> None:
    """Each fault that is repaired shows the next one, in the documented order."""
    good = sealed()
    faulty = {
        "schema_version": 1,
        "artifact_type": 1,
        "server_id": 1,
        "signer_did": 1,
        "issued_at_ms": "1",
        "trace_id": None,
        "evidence_id": 1,
        "signature": 1,
        "unknown": 1,
        "payload": {"decide": {}, "reserve": None},
    }
    text = json.dumps({**faulty, "lossy": 9007199254740993})
    assert rule_of(text + "x") == "json"
    assert rule_of(text) == "number"
    seen = []
    for name in list(faulty):
        seen.append(rule_of(faulty, evidence_id="0" * 64))
        if name == "unknown":
            del faulty[name]
        else:
            faulty[name] = {"decide": {}} if name == "payload" else good[name]
    assert seen == [*[name for name in good if name != "payload"], "unknown_member", "payload"]
    assert rule_of(faulty, evidence_id="0" * 64) == "payload_schema"
    faulty["payload"] = DECIDE
    assert rule_of(faulty, evidence_id="0" * 64) == "wrong_evidence_id"
    assert rule_of(faulty, evidence_id="") == "wrong_evidence_id"
    assert cycles.verify_evidence(faulty, keys=key_set(), evidence_id=good["evidence_id"]).is_authentic


@pytest.mark.parametrize(
    "document",
    [
        "",
        "null",
        "[]",
        "5",
        '"x"',
        "{} {}",
        "{} x",
        '{"a":1,"a":1}',
        '{"a":{"b":1,"b":1}}',
        '{"a":"\\ud800"}',
        '{"\\udfff":1}',
    ],
)
def test_a_document_that_is_no_strict_json_object_is_rejected(document: str) -> None:
    assert rule_of(document) == "json"
    assert rule_of(document.encode()) == "json"


def test_bytes_that_are_no_utf_8_and_deep_nesting_are_rejected() -> None:
    text = json.dumps(sealed())
    for document in (text.encode("utf-16"), b"\xef\xbb\xbf" + text.encode(), b'{"a": "\xff"}', b'{"a":' * 100_000):
        assert rule_of(document) == "json"
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"a": nested}
    for deep in (nested, sealed() | {"payload": nested}):
        assert rule_of(deep) == "json"
    for depth in range(100, 1100, 100):  # what the parser reads and a later step cannot
        assert rule_of('{"a":' + "[" * depth + "]" * depth + "}") in ("json", "schema_version")


def test_values_that_are_not_json_are_rejected() -> None:
    for value in (object(), b"bytes", {1: 2}, {1, 2}, "\ud800"):
        assert rule_of({**sealed(), "extra": value}) == "json"
    for document in (None, 5, ["a"], object()):
        assert rule_of(document) == "json"


def test_an_envelope_may_be_any_mapping_or_a_result_of_the_client() -> None:
    envelope = sealed()
    frozen: Mapping[str, Any] = MappingProxyType(envelope)
    built = {name: value for name, value in envelope.items() if name != "trace_id"}
    without_trace = sealed(trace_id=...)
    built = {**built, **{name: without_trace[name] for name in ("evidence_id", "signature")}}
    for document in (frozen, cycles.EvidenceEnvelope.read(envelope), cycles.EvidenceEnvelope(**built)):
        assert cycles.verify_evidence(document, keys=key_set()).is_authentic


def test_one_number_has_one_meaning_in_every_notation() -> None:
    envelope = sealed()
    text = json.dumps(envelope).replace(str(envelope["issued_at_ms"]), f"{envelope['issued_at_ms']}.0")
    assert ".0" in text
    assert cycles.verify_evidence(text, keys=key_set()).is_authentic
    text = json.dumps(envelope).replace('"amount": 10', '"amount": 1e1')
    assert "1e1" in text
    assert cycles.verify_evidence(text, keys=key_set()).is_authentic
