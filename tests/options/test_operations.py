"""Each option of each operation beside the guard reaches the server, sync and async; so do those of a view."""

from __future__ import annotations

import contextlib
import inspect
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

import cycles
from tests.options.ways import Place, Sent, T, Use
from tests.support.worlds import ACTION

pytestmark = pytest.mark.anyio

TIMEOUT_S = 3.25
HEADERS = {"X-Team": "red"}
KEY = "filled in for each call"
ACTION_BODY = {"kind": ACTION[0], "name": ACTION[1]}
SUBJECT = {"tenant": "acme", "agent": "bot"}
EVIDENCE = "a" * 64
NOON = datetime(2026, 4, 9, 12, tzinfo=UTC)
TIMES = {
    name: NOON + timedelta(minutes=number)
    for number, name in enumerate(
        ("created_from", "created_to", "expires_from", "expires_to", "finalized_from", "finalized_to")
    )
}
TIMES_SENT = {
    "from": "2026-04-09T12:00:00.000Z",
    "to": "2026-04-09T12:01:00.000Z",
    "expires_from": "2026-04-09T12:02:00.000Z",
    "expires_to": "2026-04-09T12:03:00.000Z",
    "finalized_from": "2026-04-09T12:04:00.000Z",
    "finalized_to": "2026-04-09T12:05:00.000Z",
}
FILTERS = {"status": "ACTIVE", "idempotency_key": "none", "sort_by": "status", "sort_dir": "asc"}
LEASE = {"ttl_ms": 7_000, "grace_period_ms": 3_000, "overage_policy": "REJECT"}
OF_COMMIT = {"metrics": {"tokens_input": 5}, "metadata": {"run": 1}, "idempotency_key": KEY}
OF_ACTION = {"action": ACTION, "subject": {"agent": "bot"}, "metadata": {"run": 1}, "idempotency_key": KEY}
ACTION_SENT = {"action": ACTION_BODY, "subject": SUBJECT, "metadata": {"run": 1}, "idempotency_key": KEY}


class Operation(NamedTuple):
    """One operation with all of its own parameters.

    `arguments` are positional; "ID" is the id of a reservation that is active. `sent` is the body or the query.
    """

    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]
    sent: Mapping[str, Any]


OPERATIONS: dict[str, Operation] = {
    "decide": Operation((T(3),), OF_ACTION, {**ACTION_SENT, "estimate": T(3).to_dict()}),
    "preview": Operation(
        (T(3),), {**OF_ACTION, **LEASE}, {**ACTION_SENT, **LEASE, "estimate": T(3).to_dict(), "dry_run": True}
    ),
    "record": Operation(
        (T(3),),
        {**OF_ACTION, "overage_policy": "REJECT", "metrics": {"tokens_input": 5}},
        {**ACTION_SENT, "actual": T(3).to_dict(), "overage_policy": "REJECT", "metrics": {"tokens_input": 5}},
    ),
    "commit_reservation": Operation(("ID", T(3)), OF_COMMIT, {**OF_COMMIT, "actual": T(3).to_dict()}),
    "release_reservation": Operation(
        ("ID", "no longer needed"), {"idempotency_key": KEY}, {"reason": "no longer needed", "idempotency_key": KEY}
    ),
    "extend_reservation": Operation(
        ("ID", 9_000), {"idempotency_key": KEY}, {"extend_by_ms": 9_000, "idempotency_key": KEY}
    ),
    "reservation": Operation(("ID",), {}, {}),
    "find": Operation((), {"idempotency_key": KEY}, {"idempotency_key": KEY, "include": "metadata,committed_metadata"}),
    "balances": Operation(
        (), {"subject": {"agent": "bot"}, "include_children": True}, {**SUBJECT, "include_children": "true"}
    ),
    "reservations": Operation(
        (),
        {**FILTERS, **TIMES, "subject": {"agent": "bot"}, "include": ("metadata", "evidence"), "limit": 7},
        {**FILTERS, **TIMES_SENT, "agent": "bot", "include": "metadata,evidence", "limit": "7"},
    ),
    "action_kind": Operation(("message.email.send",), {}, {}),
    "action_kinds": Operation(
        (), {"risk_class": "read_only", "include_deprecated": True}, {"risk_class": "read_only", "deprecated": "true"}
    ),
    "evidence": Operation((EVIDENCE,), {}, {}),
    "evidence_keys": Operation((), {}, {}),
    "evidence_verdict": Operation((EVIDENCE,), {}, {}),
    "raw": Operation(("getBalances",), {"tenant": "acme"}, {"tenant": "acme"}),
}
LISTS = ("balances", "reservations", "action_kinds")
OF_SUBJECT = ("decide", "preview", "record", "balances")
"""Operations with the subject of the client."""
OF_POLICY = ("preview", "record")
WRITES = {
    "decide": "decide",
    "preview": "reserve",
    "release_reservation": "release",
    "extend_reservation": "extend",
}
"""Operations that are sent again after an inconclusive response, with the server's names; a settlement is pending."""


async def call(use: Use, name: str, keywords: Mapping[str, Any]) -> Sent:
    """Call an operation with its arguments and these keywords, and return its last request."""
    world, arguments = use.world, OPERATIONS[name].arguments
    needs_id = "ID" in arguments
    guard: Any = await world.acquire(world.client.reserve(T(9), action=ACTION)) if needs_id else None
    # The server signs nothing, so it has neither this evidence nor keys: the request is what counts here.
    with contextlib.suppress(cycles.NotFoundError):
        given = [guard.reservation_id if each == "ID" else each for each in arguments]
        made = getattr(world.operations, name)(*given, **keywords)
        await (world.all(made) if name in LISTS else world.get(made))
    last = use.sent[-1]
    if guard is not None:
        with contextlib.suppress(cycles.ReservationFinalizedError):  # the operation has ended it
            await world.get(guard.release())
    return last


def own(name: str, *, required_only: bool = False) -> dict[str, Any]:
    """Return the keywords of an operation, with a key that no other test has used."""
    keywords = dict(OPERATIONS[name].keywords)
    if keywords.get("idempotency_key") == KEY:
        keywords["idempotency_key"] = secrets.token_hex(8)
    parameters = inspect.signature(getattr(cycles.Cycles, name)).parameters
    optional = {
        each for each in keywords if each in parameters and parameters[each].default is not inspect.Parameter.empty
    }
    return {each: value for each, value in keywords.items() if not required_only or each not in optional}


@pytest.mark.parametrize("name", OPERATIONS)
async def test_every_parameter_of_an_operation_is_sent(place: Place, name: str) -> None:
    use, keywords = place.use(), own(name)
    sent = await call(use, name, {**keywords, "timeout": TIMEOUT_S, "extra_headers": HEADERS})
    wanted = dict(OPERATIONS[name].sent)
    if wanted.get("idempotency_key") == KEY:
        wanted["idempotency_key"] = keywords["idempotency_key"]
    assert (sent.query if sent.body is None else sent.body) == wanted
    assert sent.is_async is place.is_async
    assert 0 < sent.timeout["read"] <= TIMEOUT_S
    assert sent.headers.get("x-team") == "red"


@pytest.mark.parametrize("name", OPERATIONS)
async def test_the_options_of_a_view_are_those_of_each_of_its_operations(place: Place, name: str) -> None:
    client = place.client()
    view = client.with_options(
        timeout=TIMEOUT_S, extra_headers=HEADERS, subject={"app": "of-view"}, overage_policy="ALLOW_WITH_OVERDRAFT"
    )
    sent = await call(place.use(view), name, own(name, required_only=True))
    assert 0 < sent.timeout["read"] <= TIMEOUT_S
    assert sent.headers.get("x-team") == "red"
    content: Any = sent.query if sent.body is None else sent.body
    assert content.get("subject", content).get("app") == ("of-view" if name in OF_SUBJECT else None)
    assert content.get("overage_policy") == ("ALLOW_WITH_OVERDRAFT" if name in OF_POLICY else None)
    sent = await call(place.use(client), name, own(name, required_only=True))
    assert TIMEOUT_S < sent.timeout["read"] <= 5.0
    assert "x-team" not in sent.headers
    content = sent.query if sent.body is None else sent.body
    assert "app" not in content.get("subject", content)
    assert "overage_policy" not in content


@pytest.mark.parametrize("name", OF_POLICY)
async def test_the_overage_policy_of_a_call_wins_over_that_of_its_view(place: Place, name: str) -> None:
    view = place.client().with_options(overage_policy="ALLOW_WITH_OVERDRAFT")
    sent = await call(place.use(view), name, {**own(name, required_only=True), "overage_policy": "REJECT"})
    assert sent.body is not None
    assert sent.body["overage_policy"] == "REJECT"


@pytest.mark.parametrize("giver", ["client", "view"])
@pytest.mark.parametrize("name", WRITES)
async def test_max_retries_counts_for_each_write(place: Place, name: str, giver: str) -> None:
    client = place.client(max_retries=0) if giver == "client" else place.client().with_options(max_retries=0)
    use, operation = place.use(client), WRITES[name]
    guard = await use.world.acquire(use.world.client.reserve(T(9), action=ACTION))
    arguments = [guard.reservation_id if each == "ID" else each for each in OPERATIONS[name].arguments]
    before = len(use.of(operation))
    use.server.faults.status(operation, 502, times=2)
    with pytest.raises(cycles.ServerError):
        await use.world.get(getattr(use.world.operations, name)(*arguments, **own(name)))
    assert len(use.of(operation)) == before + 1
    use.server.faults.clear()
    await use.world.get(guard.release())


async def test_one_member_to_include_may_be_a_string(place: Place) -> None:
    use = place.use()
    await use.world.all(use.world.operations.reservations(include="metadata", limit=1, status="EXPIRED"))
    assert use.sent[-1].query["include"] == "metadata"
