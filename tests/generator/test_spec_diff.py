"""`make spec-diff`: what changed, whether it breaks users, and which modules it touches."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from generator.diff.__main__ import main, tables
from generator.diff.operations import changes
from generator.document import Json
from generator.packages import ROOT

from .mutations.evolving import rename_schema
from .published import PUBLISHED, TABLES as OLD


def edit(path: str, value: Any) -> Callable[[Json], None]:
    """Set a value at `a.b.c` below the component schemas, or delete it (None)."""
    *way, last = path.split(".")

    def apply(spec: Json) -> None:
        node = spec["components"]["schemas"]
        for key in way:
            node = node[key]
        if value is None:
            del node[last]
        else:
            node[last] = value

    return apply


def require(name: str, member: str) -> Callable[[Json], None]:
    return lambda spec: spec["components"]["schemas"][name].setdefault("required", []).append(member)


def make_optional(name: str, member: str) -> Callable[[Json], None]:
    return lambda spec: spec["components"]["schemas"][name]["required"].remove(member)


def operation(path: str, method: str, change: Callable[[Json], Any]) -> Callable[[Json], None]:
    return lambda spec: change(spec["paths"][path][method])


def added_operation(spec: Json) -> None:
    spec["paths"]["/v1/quotas"] = {"get": {"operationId": "listQuotas", "responses": {"204": {"description": ""}}}}


def removed_operation(spec: Json) -> None:
    del spec["paths"]["/v1/decide"]


ITEM: Json = {"type": "string"}
Expected = tuple[str, str, str, bool]

CASES: dict[str, tuple[Callable[[Json], Any], Expected]] = {
    "an operation more": (added_operation, ("operation", "added", "listQuotas", False)),
    "an operation less": (removed_operation, ("operation", "removed", "decide", True)),
    "an operation with another id": (
        operation("/v1/decide", "post", lambda op: op.update(operationId="ask")),
        ("operation", "renamed", "decide", True),
    ),
    "an operation with another tag": (
        operation("/v1/decide", "post", lambda op: op.update(tags=["Policy"])),
        ("operation", "changed", "decide", True),
    ),
    "another success": (
        operation("/v1/events", "post", lambda op: op["responses"].update({"200": op["responses"].pop("201")})),
        ("operation", "changed", "createEvent", True),
    ),
    "a public read that needs a key": (
        operation("/v1/evidence/{evidence_id}", "get", lambda op: op.update(security=[{"ApiKeyAuth": []}])),
        ("security", "added", "getEvidence", True),
    ),
    "a read that becomes public": (
        operation("/v1/balances", "get", lambda op: op.update(security=[])),
        ("security", "removed", "getBalances", True),
    ),
    "a second kind of key": (
        operation("/v1/decide", "post", lambda op: op.update(security=[{"ApiKeyAuth": []}, {"AdminKeyAuth": []}])),
        ("security", "changed", "decide", False),
    ),
    "an optional parameter more": (
        operation(
            "/v1/balances", "get", lambda op: op["parameters"].append({"name": "x", "in": "query", "schema": ITEM})
        ),
        ("parameter", "added", "getBalances, query parameter x", False),
    ),
    "a required parameter more": (
        operation(
            "/v1/balances",
            "get",
            lambda op: op["parameters"].append({"name": "x", "in": "query", "required": True, "schema": ITEM}),
        ),
        ("parameter", "added", "getBalances, query parameter x", True),
    ),
    "a parameter less": (
        operation("/v1/balances", "get", lambda op: op["parameters"].pop(0)),
        ("parameter", "removed", "getBalances, query parameter tenant", True),
    ),
    "an optional member of a response added": (
        edit("Balance.properties.tier", ITEM),
        ("member", "added", "Balance.tier", False),
    ),
    "an optional member of a response removed": (
        edit("Balance.properties.debt", None),
        ("member", "removed", "Balance.debt", False),
    ),
    "a required member of a response removed": (
        edit("ReservationExtendResponse.properties.expires_at_ms", None),
        ("member", "removed", "ReservationExtendResponse.expires_at_ms", True),
    ),
    "a required member of a response made optional": (
        make_optional("CommitResponse", "charged"),
        ("member", "changed", "CommitResponse.charged", True),
    ),
    "an optional member of a response made required": (
        require("Balance", "debt"),
        ("member", "changed", "Balance.debt", False),
    ),
    "an optional member of a request more": (
        edit("ReleaseRequest.properties.ticket", ITEM),
        ("member", "added", "ReleaseRequest.ticket", False),
    ),
    "a member of a request less": (
        edit("ReleaseRequest.properties.reason", None),
        ("member", "removed", "ReleaseRequest.reason", True),
    ),
    "a request that needs a member": (
        require("ReleaseRequest", "reason"),
        ("member", "changed", "ReleaseRequest.reason", True),
    ),
    "an enum value more": (
        edit("DecisionEnum.enum", ["ALLOW", "ALLOW_WITH_CAPS", "DENY", "DEFER"]),
        ("enum value", "added", "DecisionEnum", False),
    ),
    "a value that is only read less": (
        edit("DecisionEnum.enum", ["ALLOW", "DENY"]),
        ("enum value", "removed", "DecisionEnum", False),
    ),
    "a value that is sent less": (
        edit("CommitOveragePolicy.enum", ["REJECT", "ALLOW_IF_AVAILABLE"]),
        ("enum value", "removed", "CommitOveragePolicy", True),
    ),
    "a request allowed more": (
        edit("ReservationExtendRequest.properties.extend_by_ms.maximum", 10**9),
        ("bound", "changed", "ReservationExtendRequest.extend_by_ms", False),
    ),
    "a request allowed less": (
        edit("ReservationExtendRequest.properties.extend_by_ms.maximum", 1000),
        ("bound", "changed", "ReservationExtendRequest.extend_by_ms", True),
    ),
    "a response with wider values": (
        edit("ReservationExtendResponse.properties.remaining_ttl_ms.minimum", -1),
        ("bound", "changed", "ReservationExtendResponse.remaining_ttl_ms", True),
    ),
    "another type": (
        edit("ReservationExtendResponse.properties.expires_at_ms.type", "string"),
        ("type", "changed", "ReservationExtendResponse.expires_at_ms", True),
    ),
    "a number that may be a fraction": (
        edit("StandardMetrics.properties.latency_ms.type", "number"),
        ("type", "changed", "StandardMetrics.latency_ms", False),
    ),
    "an optional member of a response that may be null": (
        edit("DecisionResponse.properties.retry_after_ms.type", ["integer", "null"]),
        ("type", "changed", "DecisionResponse.retry_after_ms", False),
    ),
    "a required member of a response that may be null": (
        edit("ReservationExtendResponse.properties.expires_at_ms.type", ["integer", "null"]),
        ("type", "changed", "ReservationExtendResponse.expires_at_ms", True),
    ),
    "a schema with another name": (
        lambda spec: rename_schema(spec, "Caps", "SoftLimits"),
        ("schema", "renamed", "Caps", True),
    ),
    "a schema more": (edit("Quota", {"type": "object"}), ("schema", "added", "Quota", False)),
    "a list of something else": (
        edit("Action.properties.tags.items.maxLength", 32),
        ("bound", "changed", "Action.tags[]", True),
    ),
    "a subject that needs less": (edit("Subject.anyOf", None), ("alternatives", "changed", "Subject", True)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_change_is_named_and_classified(case: str) -> None:
    change, expected = CASES[case]
    spec = deepcopy(PUBLISHED)
    change(spec)
    found = [(one.subject, one.action, one.where, one.breaking) for one in changes(OLD, tables(spec))]
    assert found == [expected]


def test_a_schema_that_is_sent_for_the_first_time_counts_as_sent() -> None:
    spec = deepcopy(PUBLISHED)
    edit("ReleaseRequest.properties.seen", {"$ref": "#/components/schemas/Balance"})(spec)
    edit("Balance.properties.tier", ITEM)(spec)
    require("Balance", "tier")(spec)
    found = [(each.subject, each.action, each.where, each.breaking) for each in changes(OLD, tables(spec))]
    assert ("member", "added", "Balance.tier", True) in found


@pytest.mark.parametrize("case", CASES)
def test_a_breaking_change_has_a_reason(case: str) -> None:
    spec = deepcopy(PUBLISHED)
    CASES[case][0](spec)
    assert all(one.reason for one in changes(OLD, tables(spec)) if one.breaking)


def written(tmp_path: Path, change: Callable[[Json], Any]) -> str:
    spec = deepcopy(PUBLISHED)
    change(spec)
    (tmp_path / "new.json").write_text(json.dumps(spec), encoding="utf-8")
    return str(tmp_path / "new.json")


def test_descriptions_and_order_are_no_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def reword(spec: Json) -> None:
        spec["components"]["schemas"] = dict(reversed(spec["components"]["schemas"].items()))
        spec["components"]["schemas"]["Amount"]["description"] = "Something else."

    assert main([str(ROOT / "openapi.yaml"), written(tmp_path, reword)]) == 0
    assert "no difference" in capsys.readouterr().out


def test_the_report_starts_with_breaking_changes_and_names_modules(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(spec: Json) -> None:
        edit("Balance.properties.tier", ITEM)(spec)
        edit("Balance.properties.remaining", None)(spec)

    assert main([str(ROOT / "openapi.yaml"), written(tmp_path, change)]) == 1
    text = capsys.readouterr().out
    assert "2 changes, 1 of them breaking" in text
    assert text.index("member removed: Balance.remaining") < text.index("member added: Balance.tier")
    assert "cycles/_core/results.py" in text


def test_the_report_is_available_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ROOT / "openapi.yaml"), written(tmp_path, removed_operation), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["old"], report["breaking"]) == (PUBLISHED["info"]["version"], True)
    removed = [change for change in report["changes"] if change["subject"] == "operation"]
    assert [(change["where"], change["breaking"]) for change in removed] == [("decide", True)]
    assert "cycles/embedded/routes.py" in removed[0]["modules"]


def test_an_unreadable_document_has_its_own_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ROOT / "openapi.yaml"), str(tmp_path / "gone.yaml")]) == 2
    assert "cannot read" in capsys.readouterr().err


@pytest.mark.parametrize("first", ["ApiKeyAuth", "AdminKeyAuth"], ids="{} is declared first".format)
def test_a_document_that_has_lost_its_default_security_has_no_change(first: str) -> None:
    """As in a document that is merged from several. Six operations name no security, and need a key as before."""
    new = deepcopy(PUBLISHED)
    del new["security"]
    schemes = new["components"]["securitySchemes"]
    new["components"]["securitySchemes"] = {first: schemes[first], **schemes}
    assert changes(OLD, tables(new)) == []
