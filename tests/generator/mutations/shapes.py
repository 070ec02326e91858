"""Schemas in shapes this protocol does not use today: compositions, alternatives, nulls, odd enums and odd names."""

from __future__ import annotations

from . import Check, Json, Tree, mutation, reads, responding, schemas


def respond_with(spec: Json, **added: Json) -> None:
    """Add schemas, each as the response of a separate operation, so that they are read and not only sent."""
    for name, schema in added.items():
        schemas(spec)[name] = schema
        get = {"operationId": f"read{name}", "responses": responding({"$ref": f"#/components/schemas/{name}"})}
        spec["paths"][f"/v1/shapes/{name}"] = {"get": get}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def record(**properties: Json | bool) -> Json:
    return {"type": "object", "properties": properties}


TEXT: Json = {"type": "string"}


@mutation("shapes")
def compositions(spec: Json) -> Check:
    respond_with(
        spec,
        Base={**record(id=TEXT, note=TEXT), "required": ["id"]},
        Derived={"allOf": [ref("Base"), {**record(size={"type": "integer"}), "required": ["size"]}]},
        Nested={"allOf": [{"allOf": [ref("Derived"), record(extra=TEXT)]}, {"required": ["note"]}]},
        Stricter={"allOf": [ref("Base")], "required": ["note"]},
        Beside={**ref("Base"), **record(own=TEXT)},
        Bounded=record(name={"allOf": [ref("DecisionReasonCode"), {"maxLength": 5}]}),
    )

    def check(tree: Tree) -> None:
        assert reads(tree, "Derived", {"id": "1", "size": 2, "newer": 3}).size == 2
        assert reads(tree, "Nested", {"id": "1", "size": 2, "extra": "e", "note": "n"}).extra == "e"
        assert reads(tree, "Stricter", {"id": "1", "note": "n"}).note == "n"
        assert reads(tree, "Beside", {"id": "1", "own": "o"}).own == "o"
        assert reads(tree, "Bounded", {"name": "longer than five"}).name == "longer than five"

    return check


@mutation("shapes")
def alternatives_beside_members(spec: Json) -> Check:
    respond_with(
        spec,
        Shape={
            **record(kind=TEXT),
            "oneOf": [{**record(radius={"type": "number"}), "required": ["radius"]}, record(side={"type": "integer"})],
        },
        Needs={**record(a=TEXT, b=TEXT), "anyOf": [{"required": ["a"]}, {"required": ["b"], "properties": {"b": {}}}]},
    )

    def check(tree: Tree) -> None:
        assert reads(tree, "Shape", {"kind": "circle", "radius": 1.5}).radius == 1.5
        assert reads(tree, "Shape", {"kind": "square", "side": 2}).side == 2
        assert reads(tree, "Needs", {"b": "x"}).b == "x"

    return check


@mutation("shapes")
def alternatives_of_objects(spec: Json) -> Check:
    """Required members distinguish the alternatives; without them the value is a dict."""
    schemas(spec)["Card"] = {**record(number=TEXT), "required": ["number"]}
    schemas(spec)["Bank"] = {**record(iban=TEXT), "required": ["iban"]}
    schemas(spec)["Cash"] = record(currency={"const": "EUR"})
    schemas(spec)["Coin"] = record(currency={"const": "BTC"})
    respond_with(
        spec,
        Clear=record(by={"oneOf": [ref("Card"), ref("Bank")]}),
        Unclear=record(by={"oneOf": [ref("Cash"), ref("Coin")], "discriminator": {"propertyName": "currency"}}),
        Mixed=record(by={"oneOf": [TEXT, ref("Card"), {"type": "integer"}]}),
    )

    def check(tree: Tree) -> None:
        assert reads(tree, "Clear", {"by": {"iban": "DE1"}}).by.iban == "DE1"
        assert reads(tree, "Unclear", {"by": {"currency": "BTC"}}).by == {"currency": "BTC"}
        assert reads(tree, "Mixed", {"by": {"number": "1"}}).by.number == "1"
        assert [reads(tree, "Mixed", {"by": value}).by for value in ("text", 7)] == ["text", 7]

    return check


@mutation("shapes")
def nulls_everywhere(spec: Json) -> Check:
    schemas(spec)["MaybeLimit"] = {"type": ["object", "null"], "properties": {"n": {"type": "integer"}}}
    respond_with(
        spec,
        Nullable={
            **record(
                limit=ref("MaybeLimit"),
                color={"type": ["string", "null"], "enum": ["red", None]},
                tags={"type": ["array", "null"], "items": TEXT},
                place={"type": ["object", "null"], "properties": {"x": {"type": "integer"}}},
                anything={"type": ["object", "null"]},
                old={"type": "string", "nullable": True},
            ),
            "required": ["limit", "color"],
        },
    )

    def check(tree: Tree) -> None:
        nothing = reads(tree, "Nullable", {"limit": None, "color": None, "tags": None, "place": None, "old": None})
        assert (nothing.limit, nothing.color, nothing.tags, nothing.place, nothing.old) == (None,) * 5
        full = {"limit": {"n": 1}, "color": "red", "tags": ["a"], "place": {"x": 2}, "anything": {"y": 3}}
        read = reads(tree, "Nullable", full)
        assert (read.limit.n, read.color.is_known, read.place.x) == (1, True, 2)
        assert tree.model("MaybeLimit").__name__ == "MaybeLimit"
        assert tree.model("NullablePlace").__name__ == "NullablePlace"

    return check


@mutation("shapes")
def enums_of_every_kind(spec: Json) -> Check:
    respond_with(
        spec,
        Enums=record(
            level={"type": "integer", "enum": [1, 2]},
            untyped={"enum": ["x", "y"]},
            mixed={"enum": ["x", 1]},
            ratio={"type": "number", "enum": [0.5, 1.0]},
            flag={"type": "boolean", "enum": [True]},
            case={"type": "string", "enum": ["a", "A"]},
            odd={"type": "string", "enum": ["", "a-b", "a_b", "1st", "ü"]},
            named={"type": "string", "enum": ["u", "v"], "x-enum-varnames": ["UP", "DOWN"]},
            version={"const": 3},
            single={"type": "string", "enum": ["only"], "const": "only"},
        ),
    )

    def check(tree: Tree) -> None:
        read = reads(tree, "Enums", {"level": 3, "untyped": "z", "mixed": 1, "ratio": 0.7, "flag": False, "version": 4})
        assert (read.level, read.level.is_known, read.untyped.is_known) == (3, False, False)
        assert reads(tree, "Enums", {"case": "A", "odd": "ü", "named": "u", "single": "other"}).named.is_known
        assert tree.protocol.SCHEMAS["Enums"]["properties"]["case"]["enum"] == ["a", "A"]

    return check


@mutation("shapes")
def maps_lists_and_anything(spec: Json) -> Check:
    respond_with(
        spec,
        Loose=record(
            by_scope={"type": "object", "additionalProperties": ref("Amount")},
            by_pattern={"type": "object", "patternProperties": {"^x-": TEXT}, "additionalProperties": False},
            anything=True,
            nothing_said={},
            untyped_list={"type": "array"},
            any_items={"type": "array", "items": True},
            pair={"type": "array", "prefixItems": [TEXT, {"type": "integer"}], "items": False},
            matrix={"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        ),
        Typed={**record(id=TEXT), "additionalProperties": {"type": "integer"}},
    )

    def check(tree: Tree) -> None:
        value = {
            "by_scope": {"tenant:a": {"unit": "TOKENS", "amount": 1}},
            "by_pattern": {"x-a": "1"},
            "anything": [1, None],
            "nothing_said": "x", "untyped_list": [1, "a"], "any_items": [None], "pair": ["a", 1], "matrix": [[1.5], []],
        }  # fmt: skip
        assert reads(tree, "Loose", value).by_scope["tenant:a"]["amount"] == 1
        assert reads(tree, "Typed", {"id": "1", "extra": 2}).additional_properties == {"extra": 2}

    return check


@mutation("shapes")
def schemas_that_contain_themselves(spec: Json) -> Check:
    tree_of_scopes = record(scope=TEXT, parent=ref("Scope"), children={"type": "array", "items": ref("Scope")})
    respond_with(spec, Scope=tree_of_scopes)

    def check(tree: Tree) -> None:
        value = {"scope": "a", "children": [{"scope": "b", "children": []}], "parent": {"scope": "root"}}
        assert reads(tree, "Scope", value).children[0].scope == "b"

    return check


@mutation("shapes")
def members_with_odd_names(spec: Json) -> Check:
    names = [
        "class",
        "from",
        "self",
        "import",
        "list",
        "type",
        "1st",
        "two-words",
        "fooBar",
        "foo_bar",
        "_hidden",
        "title",
    ]
    respond_with(spec, Odd=record(**dict.fromkeys(names, TEXT)))
    schemas(spec)["Odd"]["properties"]["additional_properties"] = TEXT

    def check(tree: Tree) -> None:
        value = dict.fromkeys([*names, "additional_properties"], "x")
        assert reads(tree, "Odd", value).additional_properties == "x"

    return check


@mutation("shapes")
def references_into_other_schemas(spec: Json) -> Check:
    respond_with(
        spec,
        Outer={**record(inner={"$ref": "#/components/schemas/Outer/$defs/Inner"}), "$defs": {"Inner": record(x=TEXT)}},
        Borrowed=record(unit={"$ref": "#/components/schemas/Amount/properties/unit"}),
    )
    schemas(spec)["AlsoAmount"] = ref("Amount")
    schemas(spec)["Priced"] = record(price=ref("AlsoAmount"))

    def check(tree: Tree) -> None:
        assert reads(tree, "Outer", {"inner": {"x": "1"}}).inner.x == "1"
        assert reads(tree, "Borrowed", {"unit": "TOKENS"}).unit == "TOKENS"
        assert reads(tree, "Priced", {"price": {"unit": "TOKENS", "amount": 1}}).price.amount == 1
        assert tree.protocol.SCHEMAS["Borrowed"]["properties"]["unit"] == {"$ref": "UnitEnum"}

    return check


@mutation("shapes")
def formats_and_conditions(spec: Json) -> Check:
    conditions: Json = {
        "if": {"properties": {"day": {"const": "x"}}},
        "then": {"required": ["id"]},
        "else": {},
        "not": {"required": ["z"]},
        "dependentRequired": {"day": ["id"]}, "unevaluatedProperties": False,
    }  # fmt: skip
    properties: Json = {
        "at": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "id": {"type": "string", "format": "uuid"},
        "data": {"type": "string", "format": "byte"},
        "link": {"type": "string", "format": "uri", "readOnly": True},
    }
    respond_with(spec, Formats={**record(**properties), **conditions})

    def check(tree: Tree) -> None:
        read = reads(
            tree, "Formats", {"at": "2026-01-02T03:04:05+00:00", "day": "2026-01-02", "data": "AA==", "newer": 1}
        )
        assert (read.at.hour, read.day.day, read.data) == (3, 2, "AA==")

    return check
