"""New operations in every form that OpenAPI allows: methods, parameters, bodies, responses, security."""

from __future__ import annotations

import datetime
import io
import uuid

import httpx

from . import Check, Json, Tree, mutation, reads, responding, schemas

EMPTY = {"204": {"description": "nothing"}}


def operation(operation_id: str | None = None, **members: object) -> Json:
    ids = {"operationId": operation_id} if operation_id else {}
    return {**ids, "responses": EMPTY, **members}


@mutation("surface")
def an_admin_surface_of_fifty_operations(spec: Json) -> Check:
    for number in range(10):
        path: Json = {"parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]}
        for method in ("get", "put", "post", "patch", "delete"):
            path[method] = operation(f"{method}Thing{number}", tags=["Admin"], security=[{"AdminKeyAuth": []}])
        spec["paths"][f"/v1/admin/things-{number}/{{id}}"] = path

    def check(tree: Tree) -> None:
        added = [one for one in tree.protocol.OPERATIONS.values() if one["module"].startswith("api.admin.")]
        assert len(added) == 50
        assert {tuple(one["security"]) for one in added} == {("AdminKeyAuth",)}
        request, response = tree.call("patchThing7", httpx.Response(204), id="a/b")
        assert (request.method, request.url.raw_path, response.status_code) == (
            "PATCH",
            b"/v1/admin/things-7/a%2Fb",
            204,
        )

    return check


@mutation("surface")
def an_operation_without_id_and_tag(spec: Json) -> Check:
    spec["paths"]["/v1/tenants/{tenant_id}/usage"] = {
        "get": operation(
            parameters=[{"name": "tenant_id", "in": "path", "required": True, "schema": {"type": "string"}}]
        )
    }

    def check(tree: Tree) -> None:
        entry = tree.protocol.OPERATIONS["get_v1_tenants_tenant_id_usage"]
        assert entry["module"] == "api.default.get_v1_tenants_tenant_id_usage"

    return check


@mutation("surface")
def query_parameters_of_every_form(spec: Json) -> Check:
    def query(name: str, schema: Json, **how: object) -> Json:
        return {"name": name, "in": "query", "schema": schema, **how}

    strings = {"type": "array", "items": {"type": "string"}}
    parameters = [
        query("ids", {"type": "array", "items": {"type": "integer"}}, explode=False),
        query("tags", strings),
        query("piped", strings, style="pipeDelimited", explode=False),
        query("day", {"type": "string", "format": "date"}),
        query("run", {"type": "string", "format": "uuid"}),
        query("client", {"type": "string"}),
        query("class", {"type": "string"}),
        query("kinds", {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}}),
    ]
    parameters.append(
        {"name": "filter", "in": "query", "content": {"application/json": {"schema": {"type": "object"}}}}
    )
    spec["paths"]["/v1/search"] = {"get": operation("search", parameters=parameters)}

    def check(tree: Tree) -> None:
        request, _ = tree.call(
            "search",
            httpx.Response(204),
            ids="1,2",
            tags=["x", "y"],
            piped="x|y",
            day=datetime.date(2026, 1, 2),
            run=uuid.UUID(int=1),
            client_query="me",
            class_="c",
            kinds=[tree.model("SearchKindsItem").A],
            filter_='{"a": 1}',
        )
        assert list(request.url.params.multi_items()) == [
            ("ids", "1,2"), ("tags", "x"), ("tags", "y"), ("piped", "x|y"), ("day", "2026-01-02"),
            ("run", str(uuid.UUID(int=1))), ("client", "me"), ("class", "c"), ("kinds", "a"), ("filter", '{"a": 1}'),
        ]  # fmt: skip

    return check


@mutation("surface")
def headers_and_cookies_of_every_form(spec: Json) -> Check:
    parameters = [
        {"name": "X-Scopes", "in": "header", "schema": {"type": "array", "items": {"type": "string"}}},
        {"name": "X-Since", "in": "header", "schema": {"type": "string", "format": "date-time"}},
        {"name": "X-Count", "in": "header", "schema": {"type": "integer"}},
        {"name": "session", "in": "cookie", "schema": {"type": "string"}},
    ]
    spec["paths"]["/v1/ping"] = {"head": operation("ping", parameters=parameters)}

    def check(tree: Tree) -> None:
        arguments = {"x_scopes": "a,b", "x_since": "2026-01-02T00:00:00Z", "x_count": 7}
        request, _ = tree.call("ping", httpx.Response(204), **arguments)
        sent = [request.headers[name] for name in ("X-Scopes", "X-Since", "X-Count")]
        assert (request.method, sent) == ("HEAD", ["a,b", "2026-01-02T00:00:00Z", "7"])

    return check


@mutation("surface")
def a_path_that_is_a_reference(spec: Json) -> Check:
    spec["components"]["pathItems"] = {"Health": {"get": operation("health")}}
    spec["paths"]["/v1/health"] = {"$ref": "#/components/pathItems/Health"}

    def check(tree: Tree) -> None:
        assert tree.call("health", httpx.Response(204))[0].url.path == "/v1/health"

    return check


@mutation("surface")
def responses_by_range_and_default(spec: Json) -> Check:
    error = {"description": "no", "content": {"application/problem+json": {"schema": {"$ref": ERROR}}}}
    fine = {
        "description": "yes",
        "content": {"application/vnd.cycles+json; charset=utf-8": {"schema": {"$ref": AMOUNT}}},
    }
    spec["paths"]["/v1/price"] = {"get": operation("price", responses={"2XX": fine, "4XX": error, "default": error})}

    def check(tree: Tree) -> None:
        assert tree.protocol.OPERATIONS["price"]["success"] == 200
        assert tree.protocol.OPERATIONS["price"]["response"] == "Amount"
        body = {"unit": "TOKENS", "amount": 1}
        assert tree.call("price", httpx.Response(203, json=body))[1].parsed.amount == 1
        error = {"error": "LIMIT_EXCEEDED", "message": "m", "request_id": "r"}
        for status in (418, 503, 520):
            assert tree.call("price", httpx.Response(status, json=error))[1].parsed.message == "m"

    return check


ERROR = "#/components/schemas/ErrorResponse"
AMOUNT = "#/components/schemas/Amount"


@mutation("surface")
def responses_that_are_no_objects(spec: Json) -> Check:
    amounts = {"type": "array", "items": {"$ref": AMOUNT}}
    by_scope = {"type": "object", "additionalProperties": {"$ref": AMOUNT}}
    spec["paths"]["/v1/prices"] = {"get": operation("prices", responses=responding(amounts))}
    spec["paths"]["/v1/prices-by-scope"] = {"get": operation("pricesByScope", responses=responding(by_scope))}
    text = {"200": {"description": "text", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    spec["paths"]["/v1/motd"] = {"get": operation("motd", responses=text)}

    def check(tree: Tree) -> None:
        one = {"unit": "TOKENS", "amount": 1}
        assert [price.amount for price in tree.call("prices", httpx.Response(200, json=[one]))[1].parsed] == [1]
        assert tree.call("pricesByScope", httpx.Response(200, json={"a": one}))[1].parsed["a"].amount == 1
        assert tree.call("motd", httpx.Response(200, text="hi"))[1].parsed == "hi"
        assert tree.protocol.SCHEMAS["PricesResponse200"]["type"] == "array"

    return check


@mutation("surface")
def media_types_of_every_kind(spec: Json) -> Check:
    def reply(media_type: str) -> Json:
        return {"200": {"content": {media_type: {"schema": {"type": "string"}}}}}

    for name, media_type in (("export", "application/pdf"), ("stream", "application/x-ndjson"), ("table", "text/csv")):
        spec["paths"][f"/v1/{name}"] = {"get": operation(name, responses=reply(media_type))}
    content = {"application/yaml": {"schema": {"type": "object"}}}
    spec["paths"]["/v1/import"] = {"put": operation("importAll", requestBody={"required": True, "content": content})}

    def check(tree: Tree) -> None:
        for name in ("export", "stream"):
            parsed = tree.call(name, httpx.Response(200, content=b"\x00\x01"))[1].parsed
            assert parsed.payload.read() == b"\x00\x01"
        assert tree.call("table", httpx.Response(200, text="a,b"))[1].parsed == "a,b"
        given = tree.module("types").File(payload=io.BytesIO(b"a: 1"))
        assert tree.call("importAll", httpx.Response(204), body=given)[0].read() == b"a: 1"

    return check


@mutation("surface")
def an_inline_body_and_an_inline_response(spec: Json) -> Check:
    body = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "minLength": 1}}}
    reply = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}
    content = {"application/json": {"schema": body}}
    post = operation("makeThing", requestBody={"required": True, "content": content}, responses=responding(reply))
    spec["paths"]["/v1/things"] = {"post": post}

    def check(tree: Tree) -> None:
        entry = tree.protocol.OPERATIONS["makeThing"]
        assert (entry["request"], entry["response"]) == ("MakeThingBody", "MakeThingResponse200")
        assert tree.protocol.SCHEMAS["MakeThingBody"]["properties"]["name"]["minLength"] == 1
        made = tree.model("MakeThingBody")(name="x")
        request, response = tree.call("makeThing", httpx.Response(200, json={"id": "1", "newer": 2}), body=made)
        assert request.content == b'{"name":"x"}'
        assert response.parsed.to_dict() == {"id": "1", "newer": 2}

    return check


@mutation("surface")
def a_shared_body_that_may_be_left_out(spec: Json) -> Check:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ReleaseRequest"}}}
    spec["components"]["requestBodies"] = {"Release": {"content": content}, "Alias": {"$ref": BODY}}
    spec["paths"]["/v1/release-all"] = {
        "post": operation("releaseAll", requestBody={"$ref": "#/components/requestBodies/Alias"})
    }

    def check(tree: Tree) -> None:
        assert tree.protocol.OPERATIONS["releaseAll"]["request"] == "ReleaseRequest"
        assert tree.call("releaseAll", httpx.Response(204))[0].content == b""

    return check


BODY = "#/components/requestBodies/Release"


@mutation("surface")
def webhooks_callbacks_and_extensions(spec: Json) -> Check:
    body = {"content": {"application/json": {"schema": {"type": "object"}}}}
    spec["webhooks"] = {"spent": {"post": operation("onSpent", requestBody=body)}}
    callback = {"{$request.body#/url}": {"post": operation("onDone", requestBody=body)}}
    spec["paths"]["/v1/watch"] = {"post": operation("watch", callbacks={"done": callback}), "x-owner": "platform"}
    spec["x-generated-by"] = {"tool": "x"}

    def check(tree: Tree) -> None:
        assert tree.call("watch", httpx.Response(204))[0].method == "POST"
        assert "onSpent" not in tree.protocol.OPERATIONS

    return check


@mutation("surface")
def shared_parameters_with_their_own_descriptions(spec: Json) -> Check:
    spec["components"]["parameters"]["Order"] = {
        "name": "order",
        "in": "query",
        "description": "How to order.",
        "schema": {"$ref": "#/components/schemas/SortDirection"},
    }
    spec["components"]["parameters"]["Alias"] = {"$ref": "#/components/parameters/Order"}
    spec["paths"]["/v1/ordered"] = {"get": operation("ordered", parameters=[{"$ref": "#/components/parameters/Alias"}])}
    schemas(spec)["SortDirection"].pop("description")

    def check(tree: Tree) -> None:
        direction = tree.model("SortDirection").DESC
        assert tree.call("ordered", httpx.Response(204), order=direction)[0].url.params["order"] == "desc"

    return check


@mutation("a merged document")
def extension_schemas_that_were_not_merged(spec: Json) -> Check:
    text, count = {"type": "string"}, {"type": "integer"}
    detail = {"type": "object", "properties": {"hint": text}}
    schemas(spec).update(
        DenyDetail=detail,
        ActionPolicyKeys={"type": "object", "properties": {"host": text}, "additionalProperties": False},
        ActionExtension={"type": "object", "properties": {"policy_keys": {"type": "object"}}},
        DecisionResponseExtension={
            "type": "object",
            "required": ["deny_detail"],
            "properties": {"deny_detail": {"$ref": "#/components/schemas/DenyDetail"}},
        },
        ErrorResponseExtension={"type": "object", "properties": {"details": count}},
        UnitEnumExtension={"type": "string", "enum": ["TOKENS", "GPU_SECONDS"]},
        EventTypeExtension={"type": "string", "enum": ["quota.reset"]},
        BalanceExtension={"type": "object", "required": ["by_ms"], "properties": {"by_ms": count}},
    )
    ref = {"$ref": "#/components/schemas/BalanceExtension"}
    spec["paths"]["/v1/balance-extension"] = {"get": operation("getBalanceExtension", responses=responding(ref))}

    def check(tree: Tree) -> None:
        tables = tree.protocol.SCHEMAS
        assert tables["Action"]["properties"]["policy_keys"] == {"$ref": "ActionPolicyKeys"}
        action = reads(tree, "Action", {"kind": "a", "name": "b", "policy_keys": {"host": "c"}})
        assert action.policy_keys.host == "c"
        decision = {"decision": "DENY", "affected_scopes": [], "deny_detail": {"hint": "later"}}
        assert reads(tree, "DecisionResponse", decision).deny_detail.hint == "later"
        assert "deny_detail" not in tables["DecisionResponse"]["required"]
        assert tables["ErrorResponse"]["properties"]["details"] != {"type": "integer"}
        assert tables["UnitEnum"]["enum"][-1] == "GPU_SECONDS"
        # It has required members and is referred to, so it is no extension.
        assert [name for name in tables if name.endswith("Extension")] == ["BalanceExtension"]

    return check


@mutation("a merged document")
def an_operation_that_an_extension_renamed(spec: Json) -> Check:
    text = {"type": "string"}
    required = ["tenant_id", "name"]
    tenant = {"type": "object", "required": required, "properties": {"tenant_id": text, "name": text}}
    schemas(spec)["Tenant"] = tenant
    schemas(spec)["TenantExtension"] = {"type": "object", "properties": {"observe_mode": text}}
    ref = {"$ref": "#/components/schemas/TenantExtension"}
    spec["paths"]["/v1/merged-tenant"] = {"patch": operation("updateTenantObserveMode", responses=responding(ref))}

    def check(tree: Tree) -> None:
        assert "updateTenantObserveMode" not in tree.protocol.OPERATIONS
        assert tree.protocol.OPERATIONS["updateTenant"]["response"] == "Tenant"
        read = reads(tree, "Tenant", {"tenant_id": "acme", "name": "Acme", "observe_mode": "OBSERVE"})
        assert (read.name, read.observe_mode) == ("Acme", "OBSERVE")

    return check


@mutation("a merged document")
def a_body_of_a_closed_schema_and_added_members(spec: Json) -> Check:
    text = {"type": "string"}
    base = {"type": "object", "additionalProperties": False, "required": ["name"], "properties": {"name": text}}
    schemas(spec)["ThingUpdate"] = base
    added = {"type": "object", "properties": {"observe_mode": text}}
    body = {"allOf": [{"$ref": "#/components/schemas/ThingUpdate"}, added]}
    content = {"application/json": {"schema": body}}
    patch = operation("updateThing", requestBody={"required": True, "content": content})
    spec["paths"]["/v1/merged-thing"] = {"patch": patch}

    def check(tree: Tree) -> None:
        table = tree.protocol.SCHEMAS[tree.protocol.OPERATIONS["updateThing"]["request"]]
        assert sorted(table["properties"]) == ["name", "observe_mode"]
        assert (table["required"], table["additionalProperties"]) == (["name"], False)

    return check
