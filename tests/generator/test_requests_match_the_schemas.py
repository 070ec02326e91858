"""What the handwritten layer sends is valid by the published JSON Schemas, and what they allow it can read.

The library `jsonschema` checks them, not our own checkers, so the tables and the code that reads them are tested too.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

import cycles
from generator.document import operations_of, resolve
from generator.fit import READERS, misfits
from generator.samples import Samples

from .published import PUBLISHED, TABLES
from .stub import Connected, Server

REGISTRY: Registry[Any] = Registry().with_resource(
    "urn:protocol", Resource.from_contents(PUBLISHED, default_specification=DRAFT202012)
)
TOKENS = cycles.tokens(5)
ACTION = ("llm.completion", "gpt-4o")
RICH: dict[str, Any] = {"action": cycles.Action("tool.call", "search", tags=["a", "b"]), "metadata": {"run": {"id": 7}}}
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def validator(pointer: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"urn:protocol#{pointer}"}, registry=REGISTRY)


def sent_blocking(client: cycles.Cycles) -> None:
    """Every operation, with little and with everything."""
    client.decide(TOKENS, action=ACTION)
    client.decide(TOKENS, subject=cycles.Subject(agent="bot", dimensions={"run": "7"}), **RICH)
    client.preview(TOKENS, action=ACTION)
    client.preview(TOKENS, ttl_ms=1000, grace_period_ms=0, overage_policy="REJECT", **RICH)
    client.record(TOKENS, action=ACTION)
    client.record(TOKENS, overage_policy="ALLOW_WITH_OVERDRAFT", metrics=cycles.Metrics(tokens_input=1), **RICH)
    client.commit_reservation("r1", TOKENS)
    client.commit_reservation("r1", TOKENS, metrics={"latency_ms": 5, "custom": {"x": 1}}, metadata={"a": None})
    client.release_reservation("r1")
    client.release_reservation("r1", "r" * 300)
    client.extend_reservation("r1", 1)
    with client.reserve(TOKENS, action=ACTION) as guard:
        guard.extend()
        guard.commit(TOKENS)
    with client.reserve(TOKENS, ttl_ms=86_400_000, grace_period_ms=60_000, overage_policy="REJECT", **RICH) as guard:
        guard.usage.add(tokens_input=3, tokens_output=4)
        guard.spend(TOKENS)
    with pytest.raises(KeyError), client.reserve(TOKENS, action=ACTION):
        raise KeyError("x")
    list(client.balances())
    list(client.balances(subject={"agent": "bot"}, include_children=True))
    list(client.reservations())
    list(
        client.reservations(
            status="ACTIVE", created_from=WHEN, expires_to=WHEN, sort_by="reserved", sort_dir="asc", limit=200,
            include=("metadata", "evidence"), idempotency_key="k",
        )
    )  # fmt: skip
    client.reservation("r1")
    client.evidence("0" * 64)
    client.evidence_keys()


async def sent_async(client: cycles.Cycles) -> None:
    async with client.reserve(TOKENS, **RICH) as guard:
        await guard.commit(TOKENS, metrics=cycles.Metrics(model_version="m"))
    await client.aio.decide(TOKENS, action=ACTION)
    await client.aio.record(TOKENS, action=ACTION)


@pytest.fixture(scope="module")
def server() -> Server:
    server = Server(TABLES)
    with Connected(server) as connected:
        sent_blocking(connected.client)

    async def run() -> None:
        async with Connected(server) as connected:
            await sent_async(connected.client)

    asyncio.run(run())
    return server


@pytest.mark.parametrize("operation", list(operations_of(PUBLISHED)), ids=lambda operation: operation.operation_id)
def test_what_is_sent_is_valid(server: Server, operation: Any) -> None:
    sent = [request for name, request in server.requests if name == operation.operation_id]
    assert sent, "no request of this operation was made above"
    schema = TABLES.operations[operation.operation_id]["request"]
    parameters = {(one["in"], one["name"]): resolve(PUBLISHED, one["schema"]) for one in operation.parameters}
    for request in sent:
        if schema is None:
            assert request.content == b""
        else:
            validator(f"/components/schemas/{schema}").validate(json.loads(request.content))
        for name, text in request.url.params.multi_items():
            declared = parameters["query", name]
            value = text if declared["type"] in ("string", "array") else json.loads(text)
            check = {**declared, "type": "string"} if declared["type"] == "array" else declared
            Draft202012Validator(check, registry=REGISTRY).validate(value)


def test_a_public_read_carries_no_key_and_everything_else_does(server: Server) -> None:
    assert {name for name, _ in server.requests} >= {"createReservation", "getEvidence"}
    for name, request in server.requests:
        assert ("x-cycles-api-key" in request.headers) == bool(TABLES.operations[name]["security"])


def test_an_absent_member_is_not_sent_as_null(server: Server) -> None:
    bodies = [json.loads(request.content) for _, request in server.requests if request.content]
    assert [body for body in bodies if None in body.values()] == []


@pytest.mark.parametrize("full", [True, False], ids=["full", "minimal"])
@pytest.mark.parametrize("name", [name for name in TABLES.schemas if "properties" in TABLES.schemas[name]])
def test_the_sample_responses_are_valid(name: str, full: bool) -> None:
    """So that what the tests and `make generate` read is what a server may send."""
    sample = Samples(TABLES.schemas).of({"$ref": name}, full=full)
    validator(f"/components/schemas/{name}").validate(sample)


def test_every_response_that_the_schemas_allow_can_be_read() -> None:
    assert misfits(TABLES) == []
    assert set(READERS) == set(TABLES.operations)


def test_every_example_in_the_document_can_be_read() -> None:
    """There are none in `openapi.yaml`; another document may have some."""
    for name, schema in PUBLISHED["components"]["schemas"].items():
        for example in [*schema.get("examples", []), *([schema["example"]] if "example" in schema else [])]:
            validator(f"/components/schemas/{name}").validate(example)
