"""The result classes and the schemas of the protocol agree: every member of a response is available to users."""

from __future__ import annotations

import inspect

import pytest
from attrs import NOTHING, fields_dict

from cycles._core import results
from cycles._core.values.deny_detail import DenyDetail
from cycles_client import protocol

CLASSES = {
    name: kind
    for name, kind in vars(results).items()
    if inspect.isclass(kind) and issubclass(kind, results.Result) and kind not in (results.Result, DenyDetail)
}
SCHEMA_OF = {
    "EvidenceRef": "CyclesEvidenceRef",
    "EvidenceEnvelope": "CyclesEvidenceEnvelope",
    "EvidenceKey": "CyclesEvidenceJwk",
    "EvidenceKeys": "CyclesEvidenceJwks",
}
"""Where the class has a shorter name than the schema."""

OURS = set(fields_dict(results.Result))


def schema(name: str) -> dict[str, object]:
    found: dict[str, object] = dict(protocol.SCHEMAS[SCHEMA_OF.get(name, name)])
    for part in found.get("allOf", ()):  # type: ignore[attr-defined]
        parent = schema(part["$ref"].rpartition("/")[2])
        found["properties"] = {**parent.get("properties", {}), **found.get("properties", {})}  # type: ignore[dict-item]
        found["required"] = [*parent.get("required", ()), *found.get("required", ())]  # type: ignore[misc]
    return found


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_result_has_the_members_of_its_schema(name: str) -> None:
    described = set(schema(name)["properties"])  # type: ignore[call-overload]
    # The envelope names the trace of the response that it signs; ours is of the request that read it. `raw` has both.
    assert described & OURS <= ({"trace_id"} if name == "EvidenceEnvelope" else set())
    added = {"deny_detail"}  # by protocol 0.1.26; the document of this package does not have it
    assert set(fields_dict(CLASSES[name])) - OURS - added == described - OURS - added


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_only_optional_members_of_a_response_have_a_default(name: str) -> None:
    """A required member is in every valid response; any other missing member reads as None or empty."""
    required = set(schema(name).get("required", ()))  # type: ignore[call-overload]
    must = {name for name, each in fields_dict(CLASSES[name]).items() if each.default is NOTHING}
    assert must <= required


def test_every_response_has_a_class() -> None:
    answers = {str(table["response"]) for table in protocol.OPERATIONS.values() if table["response"]}
    lists = {"BalanceResponse", "ReservationListResponse", "ActionKindRegistry"}  # read as items, page by page
    known = {"ActionKind"} | {SCHEMA_OF.get(name, name) for name in CLASSES}
    assert answers - lists <= known
