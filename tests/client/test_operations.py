"""The operations beside the guard: the same on the client and on `client.aio`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

import cycles

from .conftest import ACTION, World, held, spent

pytestmark = pytest.mark.anyio

SMALL = cycles.tokens(10)


async def reserved(world: World, **options: Any) -> str:
    """The id of a live reservation without a guard here."""
    guard = await world.acquire(world.client.reserve(SMALL, action=ACTION, **options))
    guard.detach()
    return str(guard.reservation_id)


async def test_decide_holds_nothing(world: World, server: Any) -> None:
    allowed = await world.get(world.operations.decide(SMALL, action=ACTION, metadata={"why": "asking"}))
    denied = await world.get(world.operations.decide(cycles.tokens(10**9), action=ACTION))
    assert (allowed.decision, allowed.allowed) == ("ALLOW", True)
    assert (denied.decision, denied.allowed, denied.reason_code) == ("DENY", False, "BUDGET_EXCEEDED")
    assert denied.request_id
    assert len(denied.trace_id) == 32
    assert held(server) == 0


async def test_preview_returns_a_denial_as_a_value(world: World, server: Any) -> None:
    preview = await world.get(world.operations.preview(cycles.tokens(10**9), action=ACTION))
    assert (preview.decision, preview.reservation_id) == ("DENY", None)
    with pytest.raises(cycles.ForbiddenError):
        await world.get(world.operations.preview(SMALL, action=ACTION, subject={"tenant": "other"}))
    assert held(server) == 0


async def test_record_debits_without_a_reservation(world: World, server: Any) -> None:
    event = await world.get(
        world.operations.record(
            SMALL,
            action=ACTION,
            metrics=cycles.Metrics(tokens_output=10),
            metadata={"late": True},
            idempotency_key="e1",
        )
    )
    again = await world.get(
        world.operations.record(
            SMALL,
            action=ACTION,
            metrics=cycles.Metrics(tokens_output=10),
            metadata={"late": True},
            idempotency_key="e1",
        )
    )
    assert event.event_id == again.event_id
    assert spent(server) == 10


async def test_a_record_that_finds_no_server_is_kept(world: World, server: Any) -> None:
    server.faults.refuse("event", times=1)
    event = await world.get(world.operations.record(SMALL, action=ACTION))
    assert (event.status, event.event_id) == ("PENDING", "")
    assert [each.amount for each in await world.get(world.operations.pending())] == [SMALL]
    assert await world.get(world.operations.pending(True)) == []
    report = await world.get(world.operations.flush(5))
    assert (report.settled, report.pending, spent(server)) == (1, 0, 10)


async def test_balances_of_all_pages_come_lazily(world: World, server: Any) -> None:
    for n in range(3):
        server.ledger.set_budget(f"tenant:acme/agent:bot-{n}", cycles.tokens(5))
    balances = world.operations.balances(include_children=True)
    assert not server.requests.of("balances")
    scopes = [balance.scope for balance in await world.all(balances)]
    assert {"tenant:acme", "agent:bot-0", "agent:bot-1", "agent:bot-2"} <= set(scopes)


async def test_reservations_go_on_to_the_next_page_when_they_are_read(world: World, server: Any) -> None:
    ids = [await reserved(world) for _ in range(5)]
    rows = world.operations.reservations(limit=2, sort_by="created_at_ms", sort_dir="asc")
    first = await world.next(rows)
    assert len(server.requests.of("list")) == 1
    others = await world.all(rows)
    assert sorted(row.reservation_id for row in [first, *others]) == sorted(ids)
    assert len(server.requests.of("list")) == 3


def test_a_list_whose_pages_go_in_a_circle_is_an_error() -> None:
    cursors = iter(("c1", "c2", "c1", "c2"))

    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"reservations": [], "has_more": True, "next_cursor": next(cursors)})

    http = httpx.Client(transport=httpx.MockTransport(respond))
    client = cycles.Cycles(base_url="http://cycles.test", api_key="k", tenant="acme", http_client=http)
    with pytest.raises(cycles.AmbiguousResponseError, match="the list does not end"):
        list(client.reservations())
    assert next(cursors) == "c2"


async def test_each_time_is_the_filter_of_its_name(world: World, server: Any) -> None:
    names = [f"{what}_{end}" for what in ("created", "expires", "finalized") for end in ("from", "to")]
    times = {name: datetime(2026, month, 1, tzinfo=UTC) for month, name in enumerate(names, start=1)}
    assert await world.all(world.operations.reservations(**times)) == []
    (request,) = server.requests.of("list")
    sent = dict(parse_qsl(urlsplit(request.target).query))
    expected = {name.removeprefix("created_"): time for name, time in times.items()}
    assert {name: datetime.fromisoformat(sent[name]) for name in expected} == expected


async def test_filters_take_aware_datetimes_only(world: World) -> None:
    await reserved(world)
    now = datetime.now(UTC)
    recent = world.operations.reservations(
        created_from=now - timedelta(minutes=5), created_to=now + timedelta(minutes=5)
    )
    assert len(await world.all(recent)) == 1
    assert await world.all(world.operations.reservations(created_to=now - timedelta(minutes=5))) == []
    with pytest.raises(
        cycles.InvalidRequestError, match=r"created_from has no time zone: .*; write datetime\(\.\.\., tzinfo"
    ):
        world.operations.reservations(created_from=datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(cycles.InvalidRequestError, match="created_from must be an aware datetime"):
        world.operations.reservations(created_from="yesterday")


async def test_reservations_by_their_ids(world: World, server: Any) -> None:
    operations = world.operations
    first, second = await reserved(world), await reserved(world)
    detail = await world.get(operations.reservation(first))
    assert (detail.status, detail.reserved, detail.subject.tenant) == ("ACTIVE", SMALL, "acme")
    extended = await world.get(operations.extend_reservation(first, 30_000))
    assert extended.expires_at_ms == detail.expires_at_ms + 30_000
    committed = await world.get(operations.commit_reservation(first, cycles.tokens(4), metadata={"by": "hand"}))
    assert (committed.charged, committed.released) == (cycles.tokens(4), cycles.tokens(6))
    released = await world.get(operations.release_reservation(second, "not needed"))
    assert released.released == SMALL
    assert (spent(server), held(server)) == (4, 0)


async def test_committing_an_expired_reservation_by_its_id_raises_and_leaves_nothing_pending(
    world: World, server: Any, tmp_path: Path
) -> None:
    first = await reserved(world)
    server.faults.status("commit", 410, body={"error": "RESERVATION_EXPIRED", "message": "m", "request_id": "r"})
    with pytest.raises(cycles.ReservationExpiredError):
        await world.get(world.operations.commit_reservation(first, cycles.tokens(4)))
    assert await world.get(world.operations.pending()) == []
    assert list(tmp_path.rglob("v2-*.json")) == []  # else the next start would send it


@pytest.mark.parametrize("wrong", ["", ".", ".."])
async def test_ids_that_a_url_would_drop_are_rejected(world: World, server: Any, wrong: str) -> None:
    operations = world.operations
    for call in (
        operations.reservation,
        operations.release_reservation,
        lambda wrong: operations.commit_reservation(wrong, SMALL),
        lambda wrong: operations.extend_reservation(wrong, 1_000),
    ):
        with pytest.raises(cycles.InvalidRequestError, match="reservation_id"):
            await world.get(call(wrong))
    with pytest.raises(cycles.InvalidRequestError, match="kind"):
        await world.get(operations.action_kind(wrong))
    with pytest.raises(cycles.InvalidRequestError, match="evidence_id"):
        await world.get(operations.evidence(f"{wrong:0<63}G"))
    assert list(server.requests) == []


async def test_a_commit_by_an_id_that_finds_no_server_is_pending(world: World, server: Any) -> None:
    first = await reserved(world)
    server.faults.refuse("commit", times=None)
    pending = await world.get(world.operations.commit_reservation(first, cycles.tokens(4)))
    assert (pending.status, pending.charged, pending.released) == ("PENDING", cycles.tokens(0), None)
    [left] = await world.get(world.operations.pending())
    assert (left.reservation_id, left.age_ms < 86_400_000) == (first, True)  # an age, not a time since 1970
    server.faults.clear()
    assert (await world.get(world.operations.flush(5))).settled == 1
    assert (spent(server), held(server)) == (4, 0)


async def test_an_unknown_reservation_is_not_found(world: World) -> None:
    with pytest.raises(cycles.NotFoundError) as caught:
        await world.get(world.operations.reservation("no such id"))
    assert caught.value.request_id


async def test_reads_are_tried_again_within_their_deadline(world: World, server: Any) -> None:
    name = await reserved(world)
    server.faults.refuse("get")
    server.faults.status("get", 503)
    server.faults.status("get", 429, headers={"Retry-After": "0"})
    assert (await world.get(world.operations.reservation(name))).status == "ACTIVE"
    server.faults.status("get", 429, headers={"Retry-After": "3600"})
    with pytest.raises(cycles.RateLimitedError) as caught:
        await world.get(world.operations.reservation(name))
    assert caught.value.retry_after_ms == 3_600_000


async def test_a_write_whose_response_is_lost_is_retried_with_its_key(world: World, server: Any) -> None:
    name = await reserved(world)
    server.faults.drop_response("release")
    await world.get(world.operations.release_reservation(name))
    keys = [request.idempotency_key for request in server.requests.of("release")]
    assert len(keys) == 2
    assert len(set(keys)) == 1


async def test_evidence_is_read_without_a_key(world: World, server: Any) -> None:
    denied = await world.get(world.operations.decide(SMALL, action=ACTION))
    reads = [lambda: world.operations.evidence("0" * 64), world.operations.evidence_keys]
    if denied.cycles_evidence is not None:
        reads.append(lambda: world.operations.evidence(denied.cycles_evidence.evidence_id))
    for read in reads:
        try:
            await world.get(read())
        except cycles.NotFoundError:
            continue
    asked = [request for request in server.requests if request.operation in ("evidence", "jwks")]
    assert len(asked) == len(reads)
    assert not any("x-cycles-api-key" in request.headers for request in asked)


async def test_a_value_out_of_bounds_is_rejected_before_anything_is_sent(world: World, server: Any) -> None:
    wrong: list[dict[str, Any]] = [
        {"action": ("x" * 65, "name")},
        {"action": ("kind", "x" * 257)},
        {"subject": {"agent": "x" * 129}},
        {"metadata": {"at": object()}},
        {"idempotency_key": ""},
        {"idempotency_key": "x" * 257},
    ]
    for options in wrong:
        with pytest.raises(cycles.InvalidRequestError):
            await world.get(world.operations.decide(SMALL, **{"action": ACTION, **options}))
    with pytest.raises(cycles.InvalidRequestError, match="estimate"):
        await world.get(world.operations.decide(5, action=ACTION))
    assert list(server.requests) == []


@pytest.mark.parametrize(("more", "pages"), [({"has_more": False}, 1), ({"has_more": True}, 2), ({}, 2)])
def test_a_list_ends_where_the_server_says_that_nothing_follows(more: dict[str, Any], pages: int) -> None:
    """Some servers send a cursor with the last page, too."""
    asked: list[httpx.QueryParams] = []

    def respond(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params)
        is_first = len(asked) == 1
        return httpx.Response(200, json={"reservations": [], **({"next_cursor": "c1", **more} if is_first else {})})

    with (
        httpx.Client(transport=httpx.MockTransport(respond)) as http,
        cycles.Cycles(base_url="http://a", api_key="k", tenant="acme", journal=False, http_client=http) as client,
    ):
        assert list(client.reservations()) == []
    assert [params.get("cursor") for params in asked] == [None, "c1"][:pages]


@pytest.mark.parametrize(
    ("operation", "name", "options", "sent"),
    [
        ("decide", "decide", {"metadata": {}}, {"metadata": {}}),
        ("preview", "reserve", {"metadata": {}}, {"metadata": {}}),
        ("preview", "reserve", {"grace_period_ms": 0}, {"grace_period_ms": 0}),
        ("preview", "reserve", {"ttl_ms": 1000}, {"ttl_ms": 1000}),
        ("preview", "reserve", {}, {}),
        ("record", "event", {"metadata": {}}, {"metadata": {}}),
        ("record", "event", {"metrics": {"latency_ms": 0}}, {"metrics": {"latency_ms": 0}}),
        ("commit", "commit", {"metadata": {}}, {"metadata": {}}),
        ("commit", "commit", {"metrics": {"latency_ms": 0}}, {"metrics": {"latency_ms": 0}}),
        ("commit", "commit", {}, {}),
        ("release", "release", {"reason": "x"}, {"reason": "x"}),
        ("release", "release", {}, {}),
    ],
)
async def test_options_that_count_as_false_are_sent_and_absent_ones_are_not(
    world: World, server: Any, operation: str, name: str, options: dict[str, Any], sent: dict[str, Any]
) -> None:
    reservation_id = await reserved(world) if operation in ("commit", "release") else ""
    operations = world.operations
    calls: dict[str, Any] = {
        "decide": lambda: operations.decide(SMALL, action=ACTION, **options),
        "preview": lambda: operations.preview(SMALL, action=ACTION, **options),
        "record": lambda: operations.record(SMALL, action=ACTION, **options),
        "commit": lambda: operations.commit_reservation(reservation_id, cycles.tokens(0), **options),
        "release": lambda: operations.release_reservation(reservation_id, **options),
    }
    await world.get(calls[operation]())
    body = dict(server.requests.of(name)[-1].json)
    always = ("idempotency_key", "subject", "action", "estimate", "actual", "dry_run")
    assert {member: value for member, value in body.items() if member not in always} == sent
    if operation == "commit":
        assert body["actual"] == cycles.tokens(0).to_dict()
