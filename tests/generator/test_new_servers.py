"""The installed client with a newer server: it keeps working, and additions to responses can be read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import httpx
import pytest

import cycles
from cycles_client import protocol
from generator.diff.__main__ import tables

from .mutations import MUTATIONS
from .published import PUBLISHED, TABLES
from .stub import Connected, Json, Server

ACTION = ("llm.completion", "gpt-4o")
NEW = {"queue": {"place": 3, "of": [1, None]}, "tier": "gold", "ratio": 0.5}


# Maps: a key that a server adds to one is no new member of the protocol.
FREE = ("dimensions", "metadata", "committed_metadata", "payload", "custom")


def every_object(node: Any, add: Json) -> None:
    """Add members to every object of a response, but for free-form maps."""
    if isinstance(node, dict):
        for name, part in node.items():
            if name not in FREE:
                every_object(part, add)
        node.update(deepcopy(add))
    if isinstance(node, list):
        for part in node:
            every_object(part, add)


def lifecycle(client: cycles.Cycles) -> cycles.Settlement:
    """Reserve, extend and commit with a guard."""
    with client.reserve(cycles.tokens(5), action=ACTION) as guard:
        assert guard.state == "active"
        guard.extend()
        return guard.commit(cycles.tokens(3))


def everything_else(client: cycles.Cycles) -> list[Any]:
    """Return one response of every other operation."""
    return [
        client.decide(cycles.tokens(5), action=ACTION),
        client.preview(cycles.tokens(5), action=ACTION),
        client.record(cycles.tokens(5), action=ACTION),
        client.reservation("r1"),
        client.commit_reservation("r1", cycles.tokens(5)),
        client.release_reservation("r1"),
        client.extend_reservation("r1", 1000),
        client.evidence("0" * 64),
        client.evidence_keys(),
        next(client.balances()),
        next(client.reservations()),
    ]


def test_new_members_can_be_read_at_every_depth() -> None:
    with Connected(Server(TABLES, lambda name, body: every_object(body, NEW))) as connected:
        settlement = lifecycle(connected.client)
        assert settlement.status == "committed"
        assert settlement.balances
        for result in (settlement.response, settlement.balances[0], *everything_else(connected.client)):
            assert result.extra == NEW
            assert result.additional_properties == NEW


def test_new_members_in_async_code() -> None:
    async def run() -> Any:
        async with Connected(Server(TABLES, lambda name, body: every_object(body, NEW))) as connected:
            async with connected.client.reserve(cycles.tokens(5), action=ACTION) as guard:
                settlement = await guard.commit(cycles.tokens(3))
            return settlement.response

    assert asyncio.run(run()).extra == NEW


def set_at(operation: str, path: str, value: Any) -> Callable[[str, Json], None]:
    """Set a member of the responses of an operation; `REMOVED` deletes it."""
    *way, last = path.split(".")

    def change(name: str, body: Json) -> None:
        node: Any = body
        if name == operation:
            for key in way:
                node = node[int(key)] if key.isdigit() else node[key]
            if value is REMOVED:
                node.pop(last)
            else:
                node[last] = value

    return change


REMOVED: Any = object()
Look = Callable[[cycles.Cycles], Any]

SMALL: dict[str, tuple[Callable[[str, Json], Any], Look, Any]] = {
    "a unit": (
        set_at("getBalances", "balances.0.remaining.unit", "GPU_SECONDS"),
        lambda client: next(client.balances()).remaining.unit,
        "GPU_SECONDS",
    ),
    "a decision": (
        set_at("decide", "decision", "DEFER"),
        lambda client: client.decide(cycles.tokens(5), action=ACTION).decision,
        "DEFER",
    ),
    "a reason": (
        set_at("decide", "reason_code", "ACTION_QUOTA_EXCEEDED"),
        lambda client: client.decide(cycles.tokens(5), action=ACTION).reason_code,
        "ACTION_QUOTA_EXCEEDED",
    ),
    "a state of a reservation": (
        set_at("getReservation", "status", "PAUSED"),
        lambda client: client.reservation("r1").status,
        "PAUSED",
    ),
    "policy keys with a new member": (
        set_at("getReservation", "action.policy_keys", {"host": "api.example", "zone": "eu"}),
        lambda client: client.reservation("r1").action.policy_keys,
        cycles.PolicyKeys(host="api.example"),
    ),
    "policy keys of another form": (
        set_at("getReservation", "action.policy_keys", {"host": "https://api.example/"}),
        lambda client: client.reservation("r1").action.policy_keys,
        None,
    ),
    "a status of an event": (
        set_at("createEvent", "status", "QUEUED"),
        lambda client: client.record(cycles.tokens(5), action=ACTION).status,
        "QUEUED",
    ),
    "a kind of evidence": (
        set_at("getEvidence", "artifact_type", "extend"),
        lambda client: client.evidence("0" * 64).artifact_type,
        "extend",
    ),
    "a version of evidence": (
        set_at("getEvidence", "schema_version", "cycles-evidence/v9"),
        lambda client: client.evidence("0" * 64).schema_version,
        "cycles-evidence/v9",
    ),
    "a key of an unknown type": (
        lambda name, body: body["keys"].insert(0, {"kty": "PQ", "n": 1}) if "keys" in body else None,
        lambda client: len(client.evidence_keys().keys),
        1,
    ),
    "null for an optional object": (
        set_at("decide", "caps", None),
        lambda client: client.decide(cycles.tokens(5), action=ACTION).caps,
        None,
    ),
    "an optional member is removed": (
        set_at("getBalances", "balances.0.debt", REMOVED),
        lambda client: next(client.balances()).debt,
        None,
    ),
    "a member of an inner object": (
        set_at("decide", "caps.max_cost", 7),
        lambda client: client.decide(cycles.tokens(5), action=ACTION).caps.extra,  # type: ignore[union-attr]
        {"max_cost": 7},
    ),
}


@pytest.mark.parametrize("case", SMALL)
def test_a_new_value_is_returned_unchanged(case: str) -> None:
    change, look, expected = SMALL[case]
    with Connected(Server(TABLES, change)) as connected:
        assert look(connected.client) == expected


def test_a_new_decision_on_a_live_reserve_counts_as_a_denial() -> None:
    ran = False
    with (
        Connected(Server(TABLES, set_at("createReservation", "decision", "DEFER"))) as connected,
        pytest.raises(cycles.ReservationDeniedError, match="DEFER"),
        connected.client.reserve(cycles.tokens(5), action=ACTION),
    ):
        ran = True
    assert not ran


def test_a_new_error_code_is_on_the_error() -> None:
    def reject(name: str, body: Json) -> httpx.Response:
        error = {"error": "ACTION_KIND_DENIED", "message": "m", "request_id": "r", "details": {"kind": "x"}, "hint": 1}
        return httpx.Response(403 if name == "getReservation" else 422, json=error)

    with Connected(Server(TABLES, reject)) as connected:
        for call in (lambda: connected.client.reservation("r1"), lambda: next(connected.client.balances())):
            with pytest.raises(cycles.ProtocolError) as raised:
                call()
            assert (raised.value.code, raised.value.details) == ("ACTION_KIND_DENIED", {"kind": "x"})


ADDITIVE = [mutation for mutation in MUTATIONS if mutation.group == "members"]


@pytest.mark.parametrize("mutation", ADDITIVE, ids=lambda mutation: mutation.name)
def test_an_old_client_works_with_each_mutation_of_the_responses(mutation: Any) -> None:
    """The server uses the mutated protocol; the client was generated from today's."""
    spec = deepcopy(PUBLISHED)
    mutation.change(spec)
    with Connected(Server(tables(spec))) as connected:
        assert lifecycle(connected.client).status == "committed"
        everything_else(connected.client)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_handwritten_layer_works_on_a_regenerated_protocol(mutation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Client and server both use the mutated protocol: the handwritten layer works, or its error names the reason."""
    spec = deepcopy(PUBLISHED)
    mutation.change(spec)
    mutated = tables(spec)
    monkeypatch.setattr(protocol, "SCHEMAS", mutated.schemas)
    monkeypatch.setattr(protocol, "OPERATIONS", mutated.operations)
    with Connected(Server(mutated)) as connected:
        assert lifecycle(connected.client).status == "committed"
        assert next(connected.client.balances()).scope
        if mutation.name in NOT_FOLLOWED:
            with pytest.raises(cycles.InvalidRequestError, match=NOT_FOLLOWED[mutation.name]):
                everything_else(connected.client)
        else:
            everything_else(connected.client)


def test_a_key_set_of_another_shape_affects_no_other_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    schemas = {**protocol.SCHEMAS, "CyclesEvidenceJwks": {"allOf": [{"$ref": "CyclesEvidenceJwk"}]}}
    monkeypatch.setattr(protocol, "SCHEMAS", schemas)
    with Connected(Server(TABLES)) as connected:
        assert lifecycle(connected.client).status == "committed"


# Changes that need handwritten code: the error is raised before anything is sent.
NOT_FOLLOWED = {
    "a_required_member_of_a_request": "purpose: is required",
    "an_operation_has_another_id_and_tag": "the protocol has no 'decide'",
    "an_operation_is_removed": "the protocol has no 'getEvidenceJwks'",
}
