"""`timeout=` and `extra_headers=` of each call, `default_headers`, `max_retries`, and views made by `with_options`."""

from __future__ import annotations

import inspect
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

import cycles
from tests.client.conftest import ACTION, World
from tests.support.inside import runtime_of, state_of

pytestmark = pytest.mark.anyio

HEADERS = {"X-Team": "red"}
OPERATIONS = [
    ("decide", (cycles.tokens(1),), {"action": ACTION}),
    ("preview", (cycles.tokens(1),), {"action": ACTION}),
    ("record", (cycles.tokens(1),), {"action": ACTION}),
    ("find", (), {"idempotency_key": "none"}),
    ("balances", (), {}),
    ("reservations", (), {}),
    ("raw", ("getBalances",), {"tenant": "acme"}),
]


async def call(world: World, name: str, arguments: Any, keywords: Any) -> None:
    made = getattr(world.operations, name)(*arguments, **keywords)
    if name in ("balances", "reservations"):
        await world.all(made)
    else:
        await world.get(made)


@pytest.mark.parametrize(("name", "arguments", "keywords"), OPERATIONS, ids=[row[0] for row in OPERATIONS])
async def test_every_operation_takes_headers_and_a_timeout(
    world: World, server: cycles.EmbeddedServer, name: str, arguments: Any, keywords: Any
) -> None:
    await call(world, name, arguments, {**keywords, "extra_headers": HEADERS, "timeout": 3.0})
    assert server.requests[-1].headers["x-team"] == "red"
    await call(world, name, arguments, keywords)
    assert "x-team" not in server.requests[-1].headers
    for wrong in ({"extra_headers": {"X-Cycles-API-Key": "k"}}, {"timeout": 0}, {"timeout": "5"}):
        with pytest.raises(cycles.InvalidRequestError):
            await call(world, name, arguments, {**keywords, **wrong})
    with pytest.raises(TypeError if name != "raw" else (TypeError, cycles.InvalidRequestError)):
        await call(world, name, arguments, {**keywords, "time_out": 3.0})


@pytest.mark.parametrize("name", ["x-team", "X-Team", "X-TEAM"])
def test_a_header_of_a_call_replaces_that_of_the_client_in_any_case(name: str) -> None:
    with cycles.EmbeddedServer(budgets={"tenant:acme": cycles.tokens(10)}) as server, server.listen() as url:
        key, own = server.api_key_for("acme"), {"x-Team": "of-client"}
        with cycles.Cycles(base_url=url, api_key=key, tenant="acme", journal=False, default_headers=own) as client:
            client.decide(cycles.tokens(1), action=ACTION, extra_headers={name: "of-call"})
        assert server.requests[-1].headers["x-team"] == "of-call"


def test_every_operation_shows_the_two_options_in_its_signature() -> None:
    client = cycles.Cycles.embedded({"tenant:a": cycles.tokens(1)}, journal=False)
    names = list(vars(type(client.aio)))
    client.close()
    operations = [name for name in names if not name.startswith("_") and name not in ("pending", "flush", "aclose")]
    assert {"decide", "balances", "commit_reservation"} <= set(operations)
    for name in operations:
        parameters = inspect.signature(getattr(cycles.Cycles, name)).parameters
        assert ("request" in parameters) is not ({"timeout", "extra_headers"} <= set(parameters)), name


async def test_all_requests_of_a_reservation_have_its_headers(world: World, server: cycles.EmbeddedServer) -> None:
    guard = await world.acquire(world.reserve(extra_headers=HEADERS))
    await world.get(guard.extend())
    await world.get(guard.commit(cycles.tokens(1)))
    released = await world.acquire(world.reserve(extra_headers=HEADERS))
    await world.get(released.release())
    assert [request.headers.get("x-team") for request in server.requests[-5:]] == ["red"] * 5


async def test_all_requests_of_a_pool_have_its_headers(world: World, server: cycles.EmbeddedServer) -> None:
    before = len(server.requests)
    options: Any = {"action": ACTION, "extra_headers": HEADERS, "timeout": 3.0}
    with world.client.pool(cycles.tokens(1_000), chunk=cycles.tokens(100), **options) as pool:
        for amount in (10, 500):  # in a chunk, and reserved directly
            await world.get((await world.acquire(pool.reserve(cycles.tokens(amount)))).commit(cycles.tokens(amount)))
    sent = [request for request in server.requests[before:] if request.method == "POST"]
    assert len(sent) == 4
    assert [request.headers.get("x-team") for request in sent] == ["red"] * 4
    for wrong in ({"extra_headers": {"X-Cycles-API-Key": "k"}}, {"timeout": 0}):
        with pytest.raises(cycles.InvalidRequestError):
            world.client.pool(cycles.tokens(1_000), **{**options, **wrong})


async def test_all_requests_of_an_attached_guard_have_its_headers(world: World, server: cycles.EmbeddedServer) -> None:
    token = (await world.acquire(world.reserve())).detach()
    for wrong in ({"extra_headers": {"X-Cycles-API-Key": "k"}}, {"timeout": 0}):
        with pytest.raises(cycles.InvalidRequestError):
            world.client.attach(token, **wrong)
    guard = await world.acquire(world.client.attach(token, extra_headers=HEADERS, timeout=3.0))
    await world.get(guard.commit(cycles.tokens(1)))
    assert [request.headers.get("x-team") for request in server.requests[-2:]] == ["red", "red"]


async def test_a_timeout_of_a_pool_ends_its_attempts(world: World, server: cycles.EmbeddedServer) -> None:
    server.faults.delay("reserve", 60.0, times=2)
    started = time.monotonic()
    pool = world.client.pool(cycles.tokens(1_000), action=ACTION, timeout=0.05)
    with pool, pytest.raises(cycles.TransportError, match="timed out"):
        await world.acquire(pool.reserve(cycles.tokens(10)))
    assert time.monotonic() - started < 30


async def test_a_timeout_of_one_reservation_ends_its_attempts(world: World, server: cycles.EmbeddedServer) -> None:
    server.faults.delay("reserve", 60.0, times=2)
    started = time.monotonic()
    with pytest.raises(cycles.TransportError, match=r"timed out .*: 0.05 s; raise timeout \(CYCLES_TIMEOUT\)"):
        await world.acquire(world.reserve(timeout=0.05))
    assert time.monotonic() - started < 30


async def test_a_lost_response_is_no_reason_to_raise_the_timeout(world: World, server: cycles.EmbeddedServer) -> None:
    server.faults.drop_response("reserve", times=None)
    with pytest.raises(cycles.TransportError) as raised:
        await world.acquire(world.reserve())
    assert "raise timeout" not in str(raised.value)
    server.faults.clear()  # else the close waits for the cleanup of what was reserved


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": -1}, "timeout"),
        ({"extra_headers": {"a b": "c"}}, "not the name of an HTTP header"),
        ({"extra_headers": {"Host": "c"}}, "the client sends Host itself"),
        ({"extra_headers": {"X": "a\nb"}}, "ASCII text without line breaks"),
        ({"extra_headers": [("X", "a")]}, "must be a mapping"),
    ],
)
async def test_wrong_options_of_a_reservation_are_rejected_before_anything_is_sent(
    world: World, server: cycles.EmbeddedServer, options: Any, message: str
) -> None:
    sent = len(server.requests)
    with pytest.raises(cycles.InvalidRequestError, match=message):
        world.reserve(**options)
    assert len(server.requests) == sent


async def test_default_headers_are_sent_with_every_request(server: cycles.EmbeddedServer, tmp_path: Path) -> None:
    with server.client(tenant="acme", journal_dir=tmp_path, default_headers=HEADERS) as client:
        client.decide(cycles.tokens(1), action=ACTION)
        assert server.requests[-1].headers["x-team"] == "red"
        client.decide(cycles.tokens(1), action=ACTION, extra_headers={"x-team": "blue"})
        assert server.requests[-1].headers["x-team"] == "blue"
        assert "red" not in repr(client.config)


@pytest.mark.parametrize("headers", [{"X-Cycles-API-Key": "k"}, {"traceparent": "x"}, {"X": 5}])
def test_a_default_header_that_cannot_be_sent_is_rejected_when_the_client_is_made(headers: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError, match="default_headers"):
        cycles.Cycles(base_url="http://localhost", api_key="k", journal=False, default_headers=headers)


@pytest.mark.parametrize("name", ["http_client", "async_http_client"])
@pytest.mark.parametrize("value", [5, "x", object()])
def test_an_http_client_that_cannot_send_is_named(name: str, value: Any) -> None:
    with pytest.raises(cycles.ConfigurationError, match=f"^{name} must be like an httpx"):
        cycles.Cycles(base_url="http://localhost", api_key="k", journal=False, **{name: value})


async def test_a_sync_and_an_async_http_client_that_are_interchanged_are_named() -> None:
    sync_client, async_client = httpx.Client(), httpx.AsyncClient()
    settings: dict[str, Any] = {"base_url": "http://localhost", "api_key": "k", "journal": False}
    with pytest.raises(cycles.ConfigurationError, match="async_http_client must be like"):
        cycles.Cycles(**settings, async_http_client=sync_client)  # type: ignore[arg-type]
    with pytest.raises(cycles.ConfigurationError, match=r"^http_client must be like"):
        cycles.Cycles(**settings, http_client=async_client)  # type: ignore[arg-type]
    sync_client.close()
    await async_client.aclose()


@pytest.mark.parametrize("is_view", [False, True])
@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2), (3, 4)])
async def test_max_retries_counts_the_repetitions_of_a_write(
    server: cycles.EmbeddedServer, tmp_path: Path, retries: int, attempts: int, is_view: bool
) -> None:
    of_client = 2 if is_view else retries
    with server.client(tenant="acme", journal_dir=tmp_path, max_retries=of_client) as client:
        client = client.with_options(max_retries=retries) if is_view else client
        server.faults.status("decide", 502, times=None)
        server.faults.status("reserve", 502, times=None)
        before = len(server.requests)
        with pytest.raises(cycles.CyclesError):
            client.decide(cycles.tokens(1), action=ACTION)
        with pytest.raises(cycles.CyclesError):
            client.reserve(cycles.tokens(1), action=ACTION, idempotency_key="own").acquire()
        bodies = [request.body for request in server.requests[before:]]
        server.faults.clear()
    assert len(bodies) == 2 * attempts
    assert len(set(map(str, bodies))) == 2


async def test_a_view_has_other_defaults_and_shares_everything_else(
    world: World, server: cycles.EmbeddedServer
) -> None:
    client = world.client
    view = client.with_options(
        timeout=3.0,
        subject={"agent": "bot"},
        overage_policy="ALLOW_WITH_OVERDRAFT",
        lease_policy="fail_on_finalize",
        max_retries=0,
        extra_headers=HEADERS,
    )
    seen = World("async" if world.is_async else "sync", view)
    async with seen.enter(seen.reserve(actual=cycles.tokens(1))) as guard:
        assert guard.subject == cycles.Subject(tenant="acme", agent="bot")
        assert state_of(guard).request.overage_policy == "ALLOW_WITH_OVERDRAFT"
        assert state_of(guard).request.lease_policy == "fail_on_finalize"
    assert server.requests[-1].headers["x-team"] == "red"
    await seen.get(seen.operations.record(cycles.tokens(1), action=ACTION))
    assert json.loads(server.requests[-1].body)["overage_policy"] == "ALLOW_WITH_OVERDRAFT"
    assert server.requests[-1].headers["x-team"] == "red"
    assert runtime_of(view) is runtime_of(client)
    async with world.enter(world.reserve(actual=cycles.tokens(1))) as plain:
        assert plain.subject == cycles.Subject(tenant="acme")
    assert "x-team" not in server.requests[-1].headers


async def test_what_a_call_gives_wins_over_its_view(world: World, server: cycles.EmbeddedServer) -> None:
    view = world.client.with_options(subject={"agent": "view"}, lease_policy="cancel", extra_headers=HEADERS)
    inner = view.with_options(subject={"workspace": "w"}, extra_headers={"X-Other": "1"})
    reservation = inner.reserve(
        cycles.tokens(1), action=ACTION, subject={"agent": "own"}, lease_policy="warn", extra_headers={"X-TEAM": "own"}
    )
    guard = await world.acquire(reservation)
    assert guard.subject == cycles.Subject(tenant="acme", workspace="w", agent="own")
    assert state_of(guard).request.lease_policy == "warn"
    assert (server.requests[-1].headers["x-team"], server.requests[-1].headers["x-other"]) == ("own", "1")
    of_view = await world.acquire(inner.reserve(cycles.tokens(1), action=ACTION))
    assert of_view.subject == cycles.Subject(tenant="acme", workspace="w", agent="view")
    await world.get(of_view.release())
    with cycles.subject(agent="block"):
        of_block = await world.acquire(inner.reserve(cycles.tokens(1), action=ACTION))
    assert of_block.subject.agent == "block"
    await world.get(of_block.release())
    await world.get(guard.release())


async def test_dimensions_are_merged_one_by_one(world: World, server: cycles.EmbeddedServer) -> None:
    view = world.client.with_options(subject={"dimensions": {"of_view": "1", "of_block": "1", "of_call": "1"}})
    with cycles.subject(dimensions={"of_block": "2", "of_call": "2"}):
        reservation = view.reserve(cycles.tokens(1), action=ACTION, subject={"dimensions": {"of_call": "3"}})
        await world.get((await world.acquire(reservation)).release())
    merged = {"of_view": "1", "of_block": "2", "of_call": "3"}
    assert json.loads(server.requests.of("reserve")[-1].body)["subject"] == {"tenant": "acme", "dimensions": merged}


def test_closing_a_view_closes_the_client(server: cycles.EmbeddedServer, tmp_path: Path) -> None:
    client = server.client(tenant="acme", journal_dir=tmp_path)
    client.with_options(timeout=1.0).close()
    with pytest.raises(cycles.CyclesError, match="closed"):
        client.decide(cycles.tokens(1), action=ACTION)


def test_events_and_pending_settlements_are_those_of_the_client(
    client: cycles.Cycles, server: cycles.EmbeddedServer
) -> None:
    seen: list[Any] = []
    view = client.with_options(extra_headers=HEADERS)
    view.on_event(seen.append)
    guard = client.reserve(cycles.tokens(1), action=ACTION).acquire()
    server.faults.status("commit", 503)
    guard.commit(cycles.tokens(1))
    assert [each.reservation_id for each in view.pending()] == [guard.reservation_id]
    assert seen


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"subject": 5},
        {"overage_policy": "NEVER"},
        {"lease_policy": "never"},
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"extra_headers": {"Host": "x"}},
    ],
)
def test_wrong_options_of_a_view_are_rejected(client: cycles.Cycles, options: Any) -> None:
    with pytest.raises(cycles.InvalidRequestError):
        client.with_options(**options)
