"""Corners that random documents found: contradictions, alternatives inside alternatives, bodies of any kind."""

from __future__ import annotations

import httpx

from . import Check, Json, Tree, mutation, reads, schemas
from .shapes import TEXT, record, ref, respond_with
from .surface import operation


@mutation("corners")
def compositions_that_contradict_each_other(spec: Json) -> Check:
    schemas(spec)["Left"] = {**record(id=TEXT, kind={"type": "string", "enum": ["a"]}), "required": ["id"]}
    schemas(spec)["Right"] = record(kind={"type": "boolean"}, size={"type": "integer"})
    respond_with(spec, Both={"allOf": [ref("Left"), ref("Right")], "required": ["size"]})

    def check(tree: Tree) -> None:
        both = reads(tree, "Both", {"id": "1", "kind": True, "size": 2})
        assert (both.id, both.kind, both.size) == ("1", True, 2)

    return check


@mutation("corners")
def alternatives_inside_alternatives(spec: Json) -> Check:
    inner = {"anyOf": [{"type": "integer"}, {**record(deep=TEXT), "required": ["deep"]}]}
    respond_with(
        spec,
        Any={"oneOf": [TEXT, inner, {"type": "null"}]},
        Holder=record(any=ref("Any"), same=ref("Any"), list={"type": "array", "items": ref("Any")}),
        Beside={**record(a=TEXT), "anyOf": [TEXT, record(b=TEXT)]},
    )

    def check(tree: Tree) -> None:
        value = {"any": {"deep": "d"}, "same": None, "list": [1, "x", {"deep": "e"}, None]}
        read = reads(tree, "Holder", value)
        assert (read.any_.deep, read.same, read.list_[2].deep) == ("d", None, "e")

    return check


@mutation("corners")
def bodies_of_any_kind(spec: Json) -> Check:
    def post(name: str, schema: Json | bool) -> None:
        content = {"application/json": {"schema": schema}}
        spec["paths"][f"/v1/bodies/{name}"] = {"post": operation(name, requestBody={"content": content})}

    post("anythingAtAll", True)
    post("oneOrMany", {"oneOf": [ref("Amount"), {"type": "array", "items": ref("Amount")}]})
    post("many", {"type": "array", "items": ref("Amount")})

    def check(tree: Tree) -> None:
        amount = {"unit": "TOKENS", "amount": 1}
        model = tree.model("Amount").from_dict(amount)
        for name, body in (("anythingAtAll", [amount]), ("oneOrMany", [amount]), ("many", [model])):
            request, _ = tree.call(name, httpx.Response(204), body=body)
            assert request.content == b'[{"unit":"TOKENS","amount":1}]'

    return check


@mutation("corners")
def objects_and_nulls_as_parameters(spec: Json) -> Check:
    parameters = [
        {"name": "spread", "in": "query", "schema": ref("Action")},
        {"name": "deep", "in": "query", "style": "deepObject", "schema": ref("Action")},
        {"name": "maybe", "in": "query", "schema": {"oneOf": [TEXT, {"type": "null"}]}},
        {"name": "any", "in": "query", "schema": True},
    ]
    spec["paths"]["/v1/parameters"] = {"get": operation("parameters", parameters=parameters)}

    def check(tree: Tree) -> None:
        action = tree.model("Action")(kind="k", name="n")
        arguments = {"spread": action, "deep": "k:n", "maybe": "m", "any_": "7"}
        request, _ = tree.call("parameters", httpx.Response(204), **arguments)
        assert dict(request.url.params) == {"kind": "k", "name": "n", "deep": "k:n", "maybe": "m", "any": "7"}

    return check
