"""The same protocol, written differently: descriptions, titles, examples, versions of OpenAPI, hostile text."""

from __future__ import annotations

from typing import Any

from . import Check, Json, Tree, members, mutation, schemas

WALL = (
    "NORMATIVE: the server **MUST** evaluate this (e.g. per RFC 8785), i.e. before anything else. Then it goes on.\n\n"
    + "Further rules apply here, and they are long.\n" * 60
    + '\n| a | b |\n|---|---|\n```json\n{"a": "\\\\d+"}\n```\n'
)
HOSTILE = 'ends with a quote" and \\ a backslash """ and \\N{BULLET} %s {name} {{x}} \u2028 é — 漢字'


@mutation("writing")
def walls_of_normative_text(spec: Json) -> Check:
    def visit(node: Any, *, names: bool = False) -> None:
        if isinstance(node, dict):
            if "description" in node and not names:
                node["description"] = WALL
            for key, part in node.items():
                visit(part, names=key == "properties")
        elif isinstance(node, list):
            for part in node:
                visit(part)

    visit(spec)

    def check(tree: Tree) -> None:
        documentation = tree.model("ReservationDetail").__doc__
        assert "before anything else." in documentation
        assert "Then it goes on" not in documentation
        assert len(documentation.splitlines()) < 60
        assert "Further rules" not in tree.module("api.reservations.extend_reservation").sync.__doc__

    return check


@mutation("hostile text")
def text_that_could_break_out_of_a_docstring(spec: Json) -> Check:
    for schema in schemas(spec).values():
        schema["description"] = HOSTILE
    members(spec, "Amount")["unit"]["description"] = HOSTILE
    spec["paths"]["/v1/decide"]["post"].update(summary=HOSTILE, description=HOSTILE)
    spec["info"]["title"] = HOSTILE
    schemas(spec)["UnitEnum"]["enum"].append('say "hi" \\')

    def check(tree: Tree) -> None:
        assert "漢字" in tree.model("Amount").__doc__
        assert tree.model("UnitEnum")('say "hi" \\').is_known

    return check


@mutation("writing")
def titles_examples_and_remarks(spec: Json) -> Check:
    for name, schema in schemas(spec).items():
        schema.update(
            title=f"The {name} object", example={"any": "thing"}, examples=[{}], externalDocs={"url": "http://x"}
        )
        for member in schema.get("properties", {}).values():
            member.update(title="A Title", deprecated=True, **{"x-internal": True, "$comment": "c"})

    def check(tree: Tree) -> None:
        assert tree.model("Amount").__name__ == "Amount"
        assert tree.model("CommitResponseStatus").COMMITTED.is_known

    return check


@mutation("writing")
def a_version_without_quotes(spec: Json) -> Check:
    spec["info"]["version"] = 2.0

    def check(tree: Tree) -> None:
        assert tree.protocol.SPEC_VERSION == "2.0"

    return check


@mutation("writing")
def openapi_3_2(spec: Json) -> Check:
    spec["openapi"] = "3.2.0"

    def check(tree: Tree) -> None:
        assert len(tree.protocol.OPERATIONS) == 13

    return check


@mutation("openapi 3.0")
def openapi_3_0_idioms(spec: Json) -> Check:
    spec["openapi"] = "3.0.3"
    members(spec, "CyclesEvidenceJwk")["cycles_exp_ms"] = {"type": "integer", "format": "int64", "nullable": True}
    members(spec, "Balance")["share"] = {"type": "number", "minimum": 0, "exclusiveMinimum": True}
    members(spec, "Balance")["previous"] = {"allOf": [{"$ref": "#/components/schemas/Amount"}], "nullable": True}

    def check(tree: Tree) -> None:
        key = {"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "k", "cycles_nbf_ms": 1, "cycles_exp_ms": None}
        assert tree.model("CyclesEvidenceJwk").from_dict(key).cycles_exp_ms is None
        table = tree.protocol.SCHEMAS
        assert table["CyclesEvidenceJwk"]["properties"]["cycles_exp_ms"]["type"] == ["integer", "null"]
        assert table["Balance"]["properties"]["share"] == {"type": "number", "exclusiveMinimum": 0}
        amount = {"unit": "TOKENS", "amount": 1}
        balance = {"scope": "a", "scope_path": "a", "remaining": amount}
        assert tree.model("Balance").from_dict({**balance, "previous": None}).previous is None
        assert tree.model("Balance").from_dict({**balance, "previous": amount}).previous.amount == 1

    return check
