"""What the next versions of the protocol are likely to bring: members, values, renames, removals."""

from __future__ import annotations

import pytest

from . import Check, Json, Tree, members, mutation, reads, schemas

AMOUNT = {"unit": "TOKENS", "amount": 1}
BALANCE = {"scope": "a", "scope_path": "a", "remaining": AMOUNT}
RESERVED = {"decision": "ALLOW", "affected_scopes": []}


@mutation("members")
def an_optional_string_with_a_default(spec: Json) -> Check:
    members(spec, "Balance")["tier"] = {"type": "string", "default": "standard"}

    def check(tree: Tree) -> None:
        assert reads(tree, "Balance", {**BALANCE, "tier": "gold"}).tier == "gold"
        assert not reads(tree, "Balance", BALANCE).tier

    return check


@mutation("members")
def an_optional_number_that_may_be_null(spec: Json) -> Check:
    members(spec, "Balance")["resets_at_ms"] = {"type": ["integer", "null"], "format": "int64"}

    def check(tree: Tree) -> None:
        assert reads(tree, "Balance", {**BALANCE, "resets_at_ms": None}).resets_at_ms is None
        assert tree.protocol.SCHEMAS["Balance"]["properties"]["resets_at_ms"]["type"] == ["integer", "null"]

    return check


@mutation("members")
def an_optional_closed_object_inside_a_response(spec: Json) -> Check:
    members(spec, "CommitResponse")["receipt"] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["id"],
        "properties": {"id": {"type": "string"}, "kind": {"type": "string", "enum": ["full", "partial"]}},
    }

    def check(tree: Tree) -> None:
        receipt = {"id": "7", "kind": "a newer kind", "newer": True}
        read = reads(tree, "CommitResponse", {"status": "COMMITTED", "charged": AMOUNT, "receipt": receipt}).receipt
        assert (read.kind, read.kind.is_known, read.additional_properties) == ("a newer kind", False, {"newer": True})

    return check


@mutation("members")
def a_required_member_of_a_response(spec: Json) -> Check:
    members(spec, "ReservationExtendResponse")["lease_epoch"] = {"type": "integer"}
    schemas(spec)["ReservationExtendResponse"]["required"].append("lease_epoch")

    def check(tree: Tree) -> None:
        assert reads(tree, "ReservationExtendResponse", {"status": "ACTIVE", "expires_at_ms": 1, "lease_epoch": 2})
        assert "lease_epoch" in tree.protocol.SCHEMAS["ReservationExtendResponse"]["required"]

    return check


@mutation("members")
def an_optional_member_of_a_request(spec: Json) -> Check:
    members(spec, "ReleaseRequest")["ticket"] = {"type": "string", "maxLength": 64}

    def check(tree: Tree) -> None:
        request = tree.model("ReleaseRequest")(idempotency_key="k")
        assert request.to_dict() == {"idempotency_key": "k"}
        request.ticket = "T-1"
        assert request.to_dict() == {"idempotency_key": "k", "ticket": "T-1"}

    return check


@mutation("members")
def a_required_member_of_a_request(spec: Json) -> Check:
    members(spec, "DecisionRequest")["purpose"] = {"type": "string"}
    schemas(spec)["DecisionRequest"]["required"].append("purpose")

    def check(tree: Tree) -> None:
        with pytest.raises(TypeError, match="purpose"):
            tree.model("DecisionRequest")(idempotency_key="k", subject=None, action=None, estimate=None)
        assert tree.protocol.SCHEMAS["DecisionRequest"]["required"][-1] == "purpose"

    return check


@mutation("members")
def new_values_of_enums(spec: Json) -> Check:
    for name, value in (("UnitEnum", "GPU_SECONDS"), ("DecisionEnum", "DEFER"), ("ErrorCode", "ACTION_KIND_DENIED")):
        schemas(spec)[name]["enum"].append(value)

    def check(tree: Tree) -> None:
        assert tree.model("UnitEnum").GPU_SECONDS.is_known
        assert tree.model("DecisionEnum").DEFER == "DEFER"
        assert tree.model("ErrorCode")("ACTION_KIND_DENIED").is_known

    return check


@mutation("members")
def a_value_of_an_enum_is_removed(spec: Json) -> Check:
    schemas(spec)["ReservationStatus"]["enum"].remove("EXPIRED")

    def check(tree: Tree) -> None:
        assert not tree.model("ReservationStatus")("EXPIRED").is_known

    return check


@mutation("members")
def an_optional_member_of_a_response_is_removed(spec: Json) -> Check:
    del members(spec, "Balance")["debt"]

    def check(tree: Tree) -> None:
        debt = {"unit": "TOKENS", "amount": 3}
        assert reads(tree, "Balance", {**BALANCE, "debt": debt}).additional_properties == {"debt": debt}

    return check


@mutation("members")
def an_object_or_null_by_anyof(spec: Json) -> Check:
    members(spec, "DecisionResponse")["caps"] = {
        "anyOf": [{"$ref": "#/components/schemas/Caps"}, {"type": "null"}],
        "default": None,
    }

    def check(tree: Tree) -> None:
        assert reads(tree, "DecisionResponse", {"decision": "DENY", "caps": None}).caps is None
        assert reads(tree, "DecisionResponse", {"decision": "ALLOW", "caps": {"max_tokens": 5}}).caps.max_tokens == 5

    return check


@mutation("members")
def a_wider_bound_and_a_pattern(spec: Json) -> Check:
    members(spec, "ReservationExtendRequest")["extend_by_ms"]["maximum"] = 172_800_000
    members(spec, "Subject")["tenant"]["pattern"] = "^[a-z]+$"

    def check(tree: Tree) -> None:
        properties = tree.protocol.SCHEMAS["ReservationExtendRequest"]["properties"]
        assert properties["extend_by_ms"]["maximum"] == 172_800_000
        assert tree.protocol.SCHEMAS["Subject"]["properties"]["tenant"]["pattern"] == "^[a-z]+$"

    return check


def rename_schema(spec: Json, old: str, new: str) -> None:
    """Rename a schema and all references to it."""
    schemas(spec)[new] = schemas(spec).pop(old)

    def visit(node: object) -> None:
        if isinstance(node, dict):
            if node.get("$ref") == f"#/components/schemas/{old}":
                node["$ref"] = f"#/components/schemas/{new}"
            node = list(node.values())
        if isinstance(node, list):
            for part in node:
                visit(part)

    visit(spec)


@mutation("renames")
def a_schema_has_another_name(spec: Json) -> Check:
    rename_schema(spec, "ReservationCreateResponse", "ReserveResult")

    def check(tree: Tree) -> None:
        assert reads(tree, "ReserveResult", RESERVED).decision == "ALLOW"
        assert tree.protocol.OPERATIONS["createReservation"]["response"] == "ReserveResult"

    return check


@mutation("renames")
def an_operation_has_another_id_and_tag(spec: Json) -> Check:
    spec["paths"]["/v1/decide"]["post"].update(operationId="askDecision", tags=["Policy Decisions"])

    def check(tree: Tree) -> None:
        assert tree.protocol.OPERATIONS["askDecision"]["module"] == "api.policy_decisions.ask_decision"
        assert "decide" not in tree.protocol.OPERATIONS

    return check


@mutation("renames")
def an_operation_is_removed(spec: Json) -> Check:
    del spec["paths"]["/v1/.well-known/cycles-jwks.json"]

    def check(tree: Tree) -> None:
        assert "getEvidenceJwks" not in tree.protocol.OPERATIONS

    return check


@mutation("renames")
def a_success_has_another_status(spec: Json) -> Check:
    responses = spec["paths"]["/v1/events"]["post"]["responses"]
    responses["202"] = responses.pop("201")

    def check(tree: Tree) -> None:
        assert tree.protocol.OPERATIONS["createEvent"]["success"] == 202

    return check


@mutation("renames")
def the_key_goes_in_another_header(spec: Json) -> Check:
    spec["components"]["securitySchemes"]["ApiKeyAuth"]["name"] = "X-Key"

    def check(tree: Tree) -> None:
        client = tree.module("client").AuthenticatedClient("http://localhost", token="t")
        assert client.get_httpx_client().headers["X-Key"] == "t"
        client.get_httpx_client().close()

    return check
