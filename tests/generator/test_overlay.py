"""`openapi-next.yaml`: what protocol 0.1.26 adds to a document, and only what it lacks."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from cycles_client import protocol
from generator import __main__
from generator.document import read
from generator.overlay import merged
from generator.packages import RUNTIME

from .published import PUBLISHED

assert RUNTIME.additions is not None
ADDITIONS = read(RUNTIME.additions)


def schemas(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"]
    return found


def test_the_client_has_the_additions() -> None:
    assert protocol.OPERATIONS["listActionKinds"]["security"] == []
    assert protocol.OPERATIONS["getActionKind"]["path"] == "/v1/action-kinds/{kind}"
    assert protocol.SCHEMAS["Action"]["properties"]["policy_keys"] == {"$ref": "ActionPolicyKeys"}
    modes = protocol.SCHEMAS["ReservationCreateRequest"]["properties"]["observe_mode"]
    assert modes["enum"] == ["DISABLED", "OBSERVE", "ENFORCE"]


def test_nothing_that_is_added_is_required() -> None:
    whole = merged(PUBLISHED, ADDITIONS)
    for name, schema in schemas(PUBLISHED).items():
        assert schemas(whole)[name].get("required") == schema.get("required")
    assert {name: schemas(whole)[name] for name in schemas(PUBLISHED) if name not in schemas(ADDITIONS)} == {
        name: schema for name, schema in schemas(PUBLISHED).items() if name not in schemas(ADDITIONS)
    }


def test_a_document_with_all_additions_is_read_as_it_is() -> None:
    whole = merged(PUBLISHED, ADDITIONS)
    assert merged(whole, ADDITIONS) == whole


def test_a_document_keeps_its_own_definitions() -> None:
    own = deepcopy(PUBLISHED)
    schemas(own)["Action"]["properties"]["policy_keys"] = {"type": "string"}
    schemas(own)["ReservationCreateRequestExtension"] = {"properties": {"observe_mode": {"type": "string"}}}
    schemas(own)["ActionKind"] = {"type": "object", "properties": {"name": {"type": "string"}}}
    own["paths"]["/v2/kinds"] = {"get": {"operationId": "listActionKinds", "responses": {}}}
    whole = merged(own, ADDITIONS)
    assert schemas(whole)["Action"] == schemas(own)["Action"]
    assert schemas(whole)["ReservationCreateRequest"] == schemas(own)["ReservationCreateRequest"]
    assert schemas(whole)["ActionKind"] == schemas(own)["ActionKind"]
    assert "/v1/action-kinds" not in whole["paths"]
    assert "/v1/action-kinds/{kind}" in whole["paths"]


def test_an_operation_whose_schemas_are_unknown_is_not_added() -> None:
    own: dict[str, Any] = {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": {}}
    assert merged(own, ADDITIONS)["paths"] == {}


def test_a_document_that_was_merged_by_hand_gives_the_same_client(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(merged(PUBLISHED, ADDITIONS)), encoding="utf-8")
    assert __main__.main([str(spec), "--output", str(tmp_path / "cycles_client")]) == 0
    lines = list(__main__.differences(tmp_path / "cycles_client", RUNTIME.folder))
    assert lines == ["differs: protocol.py"]  # the fingerprint of the document
