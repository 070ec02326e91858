"""Spans and metrics of guards that have no reservation of their own, and the events of leases."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger
from tests.support.inside import runtime_of, state_of
from tests.support.still_time import StillTime
from tests.support.waiting import event_of
from tests.support.worlds import World

pytest.importorskip("opentelemetry.trace")

from opentelemetry import trace

from cycles.integrations._otel_events import LiveSpans
from cycles.integrations.opentelemetry import instrument
from tests.integrations.telemetry import (
    ACTION,
    Telemetry,
    started as started,
    telemetry as telemetry,
    world as world,
    written,
)

pytestmark = pytest.mark.anyio

KIND = "llm.completion"
SHORT_MS = 1_000  # too short for a retry: the heartbeat gives the lease up immediately


def states(telemetry: Telemetry) -> list[Any]:
    return sorted(span.attributes["cycles.state"] for span in telemetry.spans("cycles.guard") if span.attributes)


def pool_of(client: cycles.Cycles, **options: Any) -> Any:
    return client.pool(cycles.tokens(1_000), chunk=cycles.tokens(500), action=ACTION, **options)


async def test_a_guard_of_a_pool_has_its_own_span(
    world: World, started: Any, telemetry: Telemetry, ledger: Ledger
) -> None:
    started()
    with pool_of(world.client) as pool:
        with telemetry.tracer.start_as_current_span("application") as application:
            async with world.enter(pool.reserve(cycles.tokens(10), action=("llm.completion", "other"))) as guard:
                with telemetry.tracer.start_as_current_span("model"):
                    pass
                guard.usage.add(tokens_input=3, tokens_output=4)
                await world.get(guard.commit(cycles.tokens(7)))
        assert guard.trace_id == f"{application.get_span_context().trace_id:032x}"
        span = telemetry.span("cycles.guard")
        assert span.parent.span_id == application.get_span_context().span_id
        assert telemetry.span("model").parent.span_id == span.context.span_id
        expected = {"cycles.state": "pooled", "cycles.actual": 7, "cycles.estimate": 10, "cycles.action.name": "other"}
        assert expected.items() <= span.attributes.items()
        assert span.attributes["cycles.reservation_id"] == guard.reservation_id
        assert span.attributes["cycles.usage.output_tokens"] == 4
        assert "cycles.charged" not in span.attributes
    assert states(telemetry) == ["committed", "pooled"]
    assert ledger.spent() == 7


async def test_metrics_of_a_pool_equal_the_ledger(
    world: World, started: Any, telemetry: Telemetry, ledger: Ledger
) -> None:
    started()
    with pool_of(world.client) as pool:
        for amount in (3, 4):
            async with world.enter(pool.reserve(cycles.tokens(10), actual=cycles.tokens(amount))):
                pass
        with pytest.raises(ZeroDivisionError):
            async with world.enter(pool.reserve(cycles.tokens(10))):
                raise ZeroDivisionError
        async with world.enter(pool.reserve(cycles.tokens(600))) as guard:  # larger than a chunk: reserved directly
            await world.get(guard.commit(cycles.tokens(20)))
    found = telemetry.metrics()
    assert found["cycles.reservations"] == {(KIND, "ALLOW"): 2}
    assert found["cycles.settlements"] == {(KIND, "pooled"): 2, (KIND, "released"): 1, (KIND, "committed"): 2}
    assert found["cycles.reserved.tokens"] == {(KIND,): 1_100}
    assert found["cycles.charged.tokens"] == {(KIND,): ledger.spent()}
    assert found["cycles.guards.active"] == {(KIND,): 0}
    assert ledger.spent() == 27


async def test_what_a_chunk_has_no_space_for_is_charged_once(
    world: World, started: Any, telemetry: Telemetry, ledger: Ledger
) -> None:
    started()
    with pool_of(world.client) as pool, telemetry.tracer.start_as_current_span("application") as application:
        guard = await world.acquire(pool.reserve(cycles.tokens(10)))
        await world.get(guard.commit(cycles.tokens(2_000)))
    await world.get(world.operations.flush())
    record = telemetry.span("cycles.record")
    assert record.context.trace_id == application.get_span_context().trace_id
    assert record.parent.span_id in {span.context.span_id for span in telemetry.spans("cycles.guard")}
    assert telemetry.metrics()["cycles.charged.tokens"] == {(KIND,): 2_000}
    assert ledger.spent() == 2_000


async def test_a_denied_guard_of_a_pool_is_an_error_of_its_span(
    world: World, started: Any, telemetry: Telemetry
) -> None:
    started()
    poor = {"agent": "poor"}
    with world.client.pool(cycles.tokens(100), action=ACTION, subject=poor, limit=cycles.tokens(6)) as pool:
        with pytest.raises(cycles.BudgetExceededError):
            await world.acquire(pool.reserve(cycles.tokens(7)))
        assert telemetry.span("cycles.guard").attributes["error.type"] == "POOL_LIMIT"
        assert telemetry.metrics()["cycles.reservations"] == {(KIND, "DENY", "POOL_LIMIT"): 1}
        with (
            telemetry.tracer.start_as_current_span("application") as application,
            pytest.raises(cycles.BudgetExceededError),
        ):
            await world.acquire(pool.reserve(cycles.tokens(6)))
    [span] = [span for span in telemetry.spans("cycles.guard") if span.parent is not None]
    assert span.parent.span_id == application.get_span_context().span_id
    assert span.attributes["error.type"] == "BUDGET_EXCEEDED"
    assert span.status.status_code is trace.StatusCode.ERROR
    of_chunks = len(telemetry.spans("cycles.reserve"))
    assert telemetry.metrics()["cycles.reservations"][(KIND, "DENY", "BUDGET_EXCEEDED")] == of_chunks


async def test_guards_of_a_pool_run_without_a_server(
    world: World, started: Any, telemetry: Telemetry, server: cycles.EmbeddedServer
) -> None:
    started()
    with pool_of(world.client, on_unavailable="allow") as pool:
        server.faults.status("reserve", 503, times=2)
        async with world.enter(pool.reserve(cycles.tokens(10), actual=cycles.tokens(7))) as guard:
            assert guard.state == "unreserved"
    assert states(telemetry) == ["recorded_as_event", "released"]  # the guard, and the chunk that was not opened
    assert telemetry.metrics()["cycles.guards.active"] == {(KIND,): 0}
    assert telemetry.metrics()["cycles.charged.tokens"] == {(KIND,): 7}


async def test_the_chunks_of_a_client_that_closes_end_their_spans(
    started: Any, telemetry: Telemetry, client: cycles.Cycles, server: cycles.EmbeddedServer
) -> None:
    started()
    pool = pool_of(client)
    pool.reserve(cycles.tokens(10)).acquire().commit(cycles.tokens(7))
    client.close()
    assert states(telemetry) == ["committed", "pooled"]
    assert telemetry.metrics()["cycles.charged.tokens"] == {(KIND,): 7}


async def test_an_attached_guard_has_a_span_and_is_not_reserved_again(
    world: World, started: Any, telemetry: Telemetry, server: cycles.EmbeddedServer, ledger: Ledger
) -> None:
    started()
    token = (await world.acquire(world.reserve())).detach()
    with telemetry.tracer.start_as_current_span("application") as application:
        async with world.enter(world.client.attach(token, actual=cycles.tokens(7))) as guard:
            with telemetry.tracer.start_as_current_span("model"):
                pass
    context = application.get_span_context()
    assert guard.trace_id == f"{context.trace_id:032x}"
    [span] = [each for each in telemetry.spans("cycles.guard") if each.attributes["cycles.state"] == "committed"]
    assert span.parent.span_id == context.span_id
    assert telemetry.span("model").parent.span_id == span.context.span_id
    assert telemetry.span("cycles.commit").parent.span_id == span.context.span_id
    assert server.requests[-1].headers["traceparent"] == written(telemetry.span("cycles.commit").context)
    assert f"{context.trace_id:032x}" in server.requests.of("extend")[-1].headers["traceparent"]
    found = telemetry.metrics()
    assert found["cycles.reservations"] == {(KIND, "ALLOW"): 1}
    assert found["cycles.reserved.tokens"] == {(KIND,): 100}
    assert found["cycles.settlements"] == {(KIND, "detached"): 1, (KIND, "committed"): 1}
    assert found["cycles.charged.tokens"] == {(KIND,): ledger.spent()}


async def test_a_guard_that_cannot_be_attached_is_an_error_of_its_span(
    world: World, started: Any, telemetry: Telemetry
) -> None:
    guard = await world.acquire(world.reserve())
    token = guard.detach()
    await world.get(world.operations.release_reservation(guard.reservation_id))
    started()
    with pytest.raises(cycles.ReservationFinalizedError):
        await world.acquire(world.client.attach(token))
    assert telemetry.span("cycles.guard").attributes["error.type"] == "RESERVATION_FINALIZED"
    assert "cycles.reservations" not in telemetry.metrics()


async def test_without_a_tracer_an_attached_guard_keeps_its_trace_id(world: World) -> None:
    guard = await world.acquire(world.reserve())
    attached = await world.acquire(world.client.attach(guard.detach()))
    assert attached.trace_id == guard.trace_id
    await world.get(attached.release())


async def test_a_lost_lease_is_an_event_of_the_span(world: World, started: Any, telemetry: Telemetry) -> None:
    started()
    wait = event_of(world.client, "LeaseLost")
    guard = await world.acquire(world.reserve(ttl_ms=SHORT_MS))
    await asyncio.to_thread(wait)
    await world.get(guard.commit(cycles.tokens(7)))
    assert [event.name for event in telemetry.span("cycles.guard").events] == ["LeaseLost"]
    assert telemetry.metrics()["cycles.leases.lost"] == {(): 1}


@pytest.mark.parametrize("ends", ["stopped", "without metrics"])
async def test_a_lost_lease_is_not_counted_without_metrics(
    world: World, started: Any, telemetry: Telemetry, ends: str
) -> None:
    stop = started(metrics=ends == "stopped")
    if ends == "stopped":
        stop()
    wait = event_of(world.client, "LeaseLost")
    guard = await world.acquire(world.reserve(ttl_ms=SHORT_MS))
    await asyncio.to_thread(wait)
    await world.get(guard.commit(cycles.tokens(7)))
    assert telemetry.metrics() == {}


async def test_a_lost_lease_of_a_chunk_is_an_event_of_each_of_its_guards(
    world: World,
    started: Any,
    telemetry: Telemetry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    started()
    still = StillTime(monkeypatch)
    still.drives(runtime_of(world.client).scheduler)
    wait = event_of(world.client, "LeaseLost")
    with pool_of(world.client, ttl_ms=60_000) as pool:
        guards = [await world.acquire(pool.reserve(cycles.tokens(10))) for _ in range(3)]
        await world.get(guards.pop().release())  # its span has ended: it gets no event
        client = world.operations
        await world.get(client.release_reservation(guards[0].reservation_id))
        still.beat(guards[0])  # the next extend is rejected
        await asyncio.to_thread(wait)
        for guard in guards:
            await world.get(guard.release())
    noted = [[event.name for event in span.events] for span in telemetry.spans("cycles.guard")]
    assert noted == [[], *[["LeaseLost"]] * 3]
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


async def test_a_retried_heartbeat_is_an_event_of_the_span(
    world: World, started: Any, telemetry: Telemetry, server: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    started()
    still = StillTime(monkeypatch)
    still.drives(runtime_of(world.client).scheduler)
    retrying = event_of(world.client, "LeaseRetrying")
    server.faults.status("extend", 503)
    async with world.enter(world.reserve(ttl_ms=60_000, actual=cycles.tokens(7))) as guard:
        still.beat(guard)
        await asyncio.to_thread(retrying)
    [event] = telemetry.span("cycles.guard").events
    assert event.name == "LeaseRetrying"
    assert "503" in event.attributes["cycles.detail"]


def test_a_delayed_heartbeat_is_an_event_of_the_span(client: cycles.Cycles, started: Any, telemetry: Telemetry) -> None:
    started()
    with client.reserve(cycles.tokens(9), action=ACTION, actual=cycles.tokens(1)) as guard:
        heartbeat: Any = state_of(guard).heartbeat
        client._reporter.note_heartbeat_delay(heartbeat, 0.0, 1e12, blocked_loop=True)  # as the driver does
    [event] = telemetry.span("cycles.guard").events
    assert event.name == "HeartbeatDelayed"


async def test_an_undercharged_settlement_is_an_event_of_the_span(telemetry: Telemetry) -> None:
    server = cycles.EmbeddedServer(budgets={"tenant:acme": cycles.tokens(100)})
    with server.client(tenant="acme", journal=False) as client:
        instrument(client, tracer_provider=telemetry.provider, metrics=False)
        with client.reserve(cycles.tokens(100), action=ACTION, overage_policy="ALLOW_IF_AVAILABLE") as guard:
            guard.commit(cycles.tokens(150))
    server.close()
    [event] = telemetry.span("cycles.guard").events
    assert event.name == "Undercharged"


async def test_the_events_of_a_guard_of_a_pool_are_on_its_own_span(
    world: World, started: Any, telemetry: Telemetry
) -> None:
    started()
    with pool_of(world.client) as pool:
        other = await world.acquire(pool.reserve(cycles.tokens(10)))
        with pytest.warns(cycles.UncommittedGuardWarning):
            async with world.enter(pool.reserve(cycles.tokens(10))):
                pass
        await world.get(other.commit(cycles.tokens(7)))
    noted = {span.attributes["cycles.state"]: [e.name for e in span.events] for span in telemetry.spans("cycles.guard")}
    assert noted == {"released": ["GuardNotCommitted"], "pooled": [], "committed": []}


def test_an_event_before_its_guard_is_known_is_noted_on_the_span_of_that_guard_only() -> None:
    """Guards of a pool share a reservation; each trace has its own id."""
    live = LiveSpans()
    spans: list[Any] = [SimpleNamespace(seen=[]) for _ in range(3)]
    for span in spans:
        span.add_event = lambda name, attributes, seen=span.seen: seen.append(name)
    traces = ["first" * 2, "second" * 2]
    for name, trace_id in (("LeaseLost", traces[0]), ("GuardNotCommitted", traces[1]), ("Denied", traces[0])):
        event: Any = type(name, (SimpleNamespace,), {})(reservation_id="r1", trace_id=trace_id, detail="why")
        live.note(event)
    for span, trace_id in zip(spans, [*traces, "third"], strict=True):
        guard: Any = SimpleNamespace(trace_id=trace_id)
        live.add("r1", guard, span)
    assert [span.seen for span in spans] == [["LeaseLost"], ["GuardNotCommitted"], []]
