"""OpenTelemetry: one tree of spans, headers of those spans, metrics that equal the ledger, and nothing broken."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger
from tests.support.worlds import World

pytest.importorskip("opentelemetry.trace")

from opentelemetry import trace

from cycles.integrations.opentelemetry import instrument
from tests.integrations.telemetry import (
    ACTION,
    ALWAYS_OFF,
    ReadableSpan,
    SpanProcessor,
    Telemetry,
    started as started,
    telemetry as telemetry,
    world as world,
    written,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def committed(world: World, started: Any, telemetry: Telemetry) -> Any:
    """The guard of a block inside a span of the application, which makes a span itself."""
    started()
    with telemetry.tracer.start_as_current_span("application"):
        reservation = world.reserve(actual=cycles.tokens(7), subject={"agent": "bot"}, ttl_ms=60_000)
        async with world.enter(reservation) as guard:
            guard.usage.add(tokens_input=3, tokens_output=4)
            with telemetry.tracer.start_as_current_span("model"):
                pass
    return guard


async def test_all_spans_are_one_tree(committed: Any, telemetry: Telemetry) -> None:
    application, guard = telemetry.span("application"), telemetry.span("cycles.guard")
    assert guard.parent.span_id == application.context.span_id
    for name in ("cycles.reserve", "cycles.commit", "model"):
        assert telemetry.span(name).parent.span_id == guard.context.span_id
    assert len({span.context.trace_id for span in telemetry.exporter.get_finished_spans()}) == 1
    assert telemetry.span("cycles.commit").kind is trace.SpanKind.CLIENT
    assert guard.start_time <= telemetry.span("cycles.reserve").start_time
    assert guard.end_time >= telemetry.span("cycles.commit").end_time


async def test_requests_carry_the_span_that_stands_for_them(
    committed: Any, telemetry: Telemetry, server: cycles.EmbeddedServer
) -> None:
    for name, request in zip(("cycles.reserve", "cycles.commit"), server.requests[-2:], strict=True):
        context = telemetry.span(name).context
        assert request.headers["traceparent"] == written(context)
        assert "baggage" not in request.headers
    assert committed.trace_id == f"{telemetry.span('application').context.trace_id:032x}"


async def test_the_guard_span_says_what_was_reserved_and_charged(committed: Any, telemetry: Telemetry) -> None:
    attributes = dict(telemetry.span("cycles.guard").attributes)
    assert attributes == {
        "cycles.action.kind": "llm.completion",
        "cycles.action.name": "small-model",
        "cycles.unit": "TOKENS",
        "cycles.estimate": 100,
        "cycles.tenant": "acme",
        "cycles.agent": "bot",
        "cycles.decision": "ALLOW",
        "cycles.reservation_id": committed.reservation_id,
        "cycles.state": "committed",
        "cycles.actual": 7,
        "cycles.charged": 7,
        "cycles.usage.input_tokens": 3,
        "cycles.usage.output_tokens": 4,
    }
    reserve = dict(telemetry.span("cycles.reserve").attributes)
    assert reserve.pop("cycles.request_id")
    assert reserve == {"cycles.operation": "reserve", "http.response.status_code": 200, "cycles.decision": "ALLOW"}


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        (cycles.tokens(0), {"cycles.state": "committed", "cycles.actual": 0, "cycles.charged": 0}),
        (cycles.tokens(100), {"cycles.state": "committed", "cycles.actual": 100, "cycles.charged": 100}),
        (None, {"cycles.state": "released"}),
    ],
    ids=["nothing", "everything", "released"],
)
async def test_the_guard_span_says_how_the_guard_ended(
    world: World, started: Any, telemetry: Telemetry, amount: cycles.Amount | None, said: dict[str, Any]
) -> None:
    started()
    guard = await world.acquire(world.reserve())
    await world.get(guard.release() if amount is None else guard.commit(amount))
    names = ("cycles.state", "cycles.actual", "cycles.charged")
    attributes = telemetry.span("cycles.guard").attributes
    assert {name: attributes[name] for name in names if name in attributes} == said


def test_each_unit_has_one_counter_which_is_made_once(client: cycles.Cycles, telemetry: Telemetry) -> None:
    """An SDK logs a warning for a second one of the same name."""
    made: list[tuple[str, str]] = []
    make = telemetry.meters.get_meter("cycles")

    class Meter:
        def __getattr__(self, name: str) -> Any:
            return getattr(make, name)

        def create_counter(self, name: str, unit: str = "", description: str = "") -> Any:
            made.append((name, unit))
            return make.create_counter(name, unit, description)

    meters: Any = SimpleNamespace(get_meter=lambda *_, **__: Meter())
    instrument(client, tracer_provider=telemetry.provider, meter_provider=meters)
    for estimate in (cycles.tokens(5), cycles.usd(1), cycles.tokens(6), cycles.usd(2)):
        client.reserve(estimate, action=ACTION).acquire().commit(estimate)
    amounts = sorted(each for each in made if each[0].startswith(("cycles.reserved.", "cycles.charged.")))
    assert amounts == [
        ("cycles.charged.tokens", "{token}"),
        ("cycles.charged.usd_microcents", "{usd_microcent}"),
        ("cycles.reserved.tokens", "{token}"),
        ("cycles.reserved.usd_microcents", "{usd_microcent}"),
    ]


async def test_a_denial_is_an_error_of_both_spans_and_a_failing_block_of_none(
    world: World, started: Any, telemetry: Telemetry
) -> None:
    started()
    with pytest.raises(cycles.BudgetExceededError):
        await world.acquire(world.reserve(cycles.tokens(10_000_000)))
    for name in ("cycles.guard", "cycles.reserve"):
        span = telemetry.span(name)
        assert (span.status.status_code, span.attributes["error.type"]) == (
            trace.StatusCode.ERROR,
            "BUDGET_EXCEEDED",
        )
    telemetry.exporter.clear()
    with pytest.raises(ZeroDivisionError):
        async with world.enter(world.reserve()):
            raise ZeroDivisionError
    guard = telemetry.span("cycles.guard")
    assert guard.status.status_code is trace.StatusCode.UNSET
    assert guard.attributes["cycles.state"] == "released"
    assert not {"cycles.actual", "cycles.charged"} & guard.attributes.keys()
    assert telemetry.span("cycles.release").parent.span_id == guard.context.span_id


@pytest.mark.parametrize("options", [{"spans": False}, {}], ids=["spans off", "no SDK"])
async def test_without_spans_the_ambient_span_is_sent(
    world: World, telemetry: Telemetry, server: cycles.EmbeddedServer, options: Any
) -> None:
    provider = None if options else trace.NoOpTracerProvider()
    instrument(world.client, tracer_provider=provider, metrics=False, **options)
    with telemetry.tracer.start_as_current_span("application") as span:
        async with world.enter(world.reserve(actual=cycles.tokens(1))) as guard:
            assert trace.get_current_span().get_span_context() == span.get_span_context()
    context = span.get_span_context()
    sent = written(context)
    assert [request.headers["traceparent"] for request in server.requests[-2:]] == [sent, sent]
    assert guard.trace_id == f"{context.trace_id:032x}"
    assert len(telemetry.exporter.get_finished_spans()) == 1


async def test_without_an_ambient_span_and_without_an_sdk_the_client_makes_the_trace_id(
    world: World, server: cycles.EmbeddedServer
) -> None:
    instrument(world.client, tracer_provider=trace.NoOpTracerProvider(), metrics=False)
    async with world.enter(world.reserve(actual=cycles.tokens(1))) as guard:
        pass
    assert guard.trace_id.strip("0")
    assert guard.trace_id in server.requests[-1].headers["traceparent"]


async def test_what_is_not_sampled_stays_so(world: World, server: cycles.EmbeddedServer) -> None:
    off = Telemetry(sampler=ALWAYS_OFF)
    instrument(world.client, tracer_provider=off.provider, meter_provider=off.meters)
    with off.tracer.start_as_current_span("application"):
        async with world.enter(world.reserve(actual=cycles.tokens(1))):
            pass
    assert server.requests[-1].headers["traceparent"].endswith(("-00", "-02"))  # not sampled
    off.provider.shutdown()
    off.meters.shutdown()


async def test_other_operations_belong_to_the_ambient_span(
    world: World, started: Any, telemetry: Telemetry, server: cycles.EmbeddedServer
) -> None:
    started()
    with telemetry.tracer.start_as_current_span("application") as span:
        await world.get(world.operations.decide(cycles.tokens(1), action=ACTION))
        await world.get(world.operations.record(cycles.tokens(1), action=ACTION))
        await world.all(world.operations.balances())
    for name in ("cycles.decide", "cycles.record"):
        assert telemetry.span(name).parent.span_id == span.get_span_context().span_id
    assert f"{span.get_span_context().span_id:016x}" in server.requests[-1].headers["traceparent"]


async def test_metrics_equal_the_ledger(world: World, started: Any, telemetry: Telemetry, ledger: Ledger) -> None:
    started()
    for amount in (3, 4):
        async with world.enter(world.reserve(actual=cycles.tokens(amount))):
            pass
    async with world.enter(world.reserve(shadow=True, actual=cycles.tokens(1))):
        pass
    with pytest.raises(cycles.BudgetExceededError):
        await world.acquire(world.reserve(cycles.tokens(10_000_000)))
    guard = await world.acquire(world.reserve())
    await world.get(guard.release())
    open_guard = await world.acquire(world.reserve())
    found = telemetry.metrics()
    kind = "llm.completion"
    assert found["cycles.reservations"] == {(kind, "ALLOW"): 5, (kind, "DENY", "BUDGET_EXCEEDED"): 1}
    assert found["cycles.settlements"] == {(kind, "committed"): 2, (kind, "shadow"): 1, (kind, "released"): 1}
    assert found["cycles.reserved.tokens"] == {(kind,): 400}
    assert found["cycles.charged.tokens"] == {(kind,): 7}
    assert found["cycles.guards.active"] == {(kind,): 1}
    assert found["cycles.operation.duration"][("reserve",)] == 5
    assert found["cycles.operation.duration"][("reserve", "BUDGET_EXCEEDED")] == 1
    assert found["cycles.guard.duration"][(kind, "committed")] == 2
    await world.get(open_guard.release())
    assert ledger.spent() == 7


async def test_only_named_operations_are_measured(world: World, started: Any, telemetry: Telemetry) -> None:
    started()
    async with world.enter(world.reserve(actual=cycles.tokens(3))) as guard:
        await world.get(guard.extend())
    await world.all(world.operations.balances())
    counts = {("reserve",): 1, ("commit",): 1}
    assert telemetry.metrics()["cycles.operation.duration"] == counts
    assert {span.name for span in telemetry.exporter.get_finished_spans()} == {
        "cycles.guard",
        "cycles.reserve",
        "cycles.commit",
    }


async def test_an_attempt_without_a_response_is_an_error_of_its_span_and_metric(
    world: World, started: Any, telemetry: Telemetry, server: cycles.EmbeddedServer
) -> None:
    started()
    server.faults.drop_response("decide", times=None)
    with pytest.raises(cycles.TransportError):
        await world.get(world.operations.decide(cycles.tokens(1), action=ACTION))
    for span in telemetry.spans("cycles.decide"):
        assert span.status.status_code is trace.StatusCode.ERROR
    [error_type] = {span.attributes["error.type"] for span in telemetry.spans("cycles.decide") if span.attributes}
    attempts = len(telemetry.spans("cycles.decide"))
    assert telemetry.metrics()["cycles.operation.duration"] == {("decide", error_type): attempts}


async def test_an_error_is_measured_also_without_spans(world: World, started: Any, telemetry: Telemetry) -> None:
    started(spans=False)
    with pytest.raises(cycles.BudgetExceededError):
        await world.acquire(world.reserve(cycles.tokens(10_000_000)))
    assert telemetry.metrics()["cycles.operation.duration"] == {("reserve", "BUDGET_EXCEEDED"): 1}
    assert telemetry.exporter.get_finished_spans() == ()


async def test_a_request_that_is_cancelled_is_an_error_of_its_span(
    client: cycles.Cycles, started: Any, telemetry: Telemetry, server: cycles.EmbeddedServer
) -> None:
    started()
    server.faults.delay("decide", 3_600)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await client.aio.decide(cycles.tokens(1), action=ACTION)
    span = telemetry.span("cycles.decide")
    assert (span.status.status_code, span.attributes["error.type"]) == (trace.StatusCode.ERROR, "CancelledError")
    assert telemetry.metrics()["cycles.operation.duration"] == {("decide", "CancelledError"): 1}


async def test_a_rejected_commit_is_the_state_of_its_span(
    world: World, started: Any, telemetry: Telemetry, server: cycles.EmbeddedServer
) -> None:
    started()
    guard = await world.acquire(world.reserve())
    body = {"error": "INVALID_REQUEST", "message": "no", "request_id": "r1"}
    server.faults.status("commit", 400, body=body, times=None)
    with pytest.raises(cycles.CyclesError):
        await world.get(guard.commit(cycles.tokens(7)))
    server.faults.clear()
    assert telemetry.span("cycles.guard").attributes["cycles.state"] == guard.state == "rejected"
    assert telemetry.metrics()["cycles.settlements"] == {("llm.completion", "rejected"): 1}
    assert "cycles.charged.tokens" not in telemetry.metrics()


async def test_what_is_kept_of_pending_settlements_is_bounded_and_only_of_those(
    world: World,
    started: Any,
    telemetry: Telemetry,
    server: cycles.EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cycles.integrations._otel_metrics._MOST_PENDING", 1)
    started()
    released = await world.acquire(world.reserve())
    await world.get(released.release())
    server.faults.status("commit", 503, times=None)
    for amount in (3, 4):
        guard = await world.acquire(world.reserve())
        assert (await world.get(guard.commit(cycles.tokens(amount)))).status == "pending"
    server.faults.clear()
    await world.get(world.operations.flush())
    assert telemetry.metrics()["cycles.charged.tokens"] == {("llm.completion",): 3}
    server.faults.status("commit", 503, times=None)
    guard = await world.acquire(world.reserve())
    assert (await world.get(guard.commit(cycles.tokens(5)))).status == "pending"
    server.faults.clear()
    await world.get(world.operations.flush())
    assert telemetry.metrics()["cycles.charged.tokens"] == {("llm.completion",): 8}, "what is confirmed is not kept"


async def test_a_guard_that_no_server_made_is_an_error_and_no_denial(
    world: World, started: Any, telemetry: Telemetry, server: cycles.EmbeddedServer
) -> None:
    started()
    server.faults.status("reserve", 503, times=None)
    with pytest.raises(cycles.ServerError):
        await world.acquire(world.reserve(wait=0))
    attributes = telemetry.span("cycles.guard").attributes
    assert "cycles.decision" not in attributes
    server.faults.clear()
    found = telemetry.metrics()
    assert found["cycles.reservations"] == {("llm.completion", "ERROR", attributes["error.type"]): 1}
    assert "cycles.guards.active" not in found


async def test_each_unit_has_metrics_of_its_own(
    world: World, started: Any, telemetry: Telemetry, ledger: Ledger
) -> None:
    started()
    for estimate, actual in ((cycles.tokens(9), cycles.tokens(4)), (cycles.usd(1), cycles.usd("0.25"))) * 2:
        async with world.enter(world.reserve(estimate, actual=actual)):
            pass
    found, kind = telemetry.metrics(), ("llm.completion",)
    assert (found["cycles.reserved.tokens"], found["cycles.charged.tokens"]) == ({kind: 18}, {kind: 8})
    assert found["cycles.reserved.usd_microcents"] == {kind: 2 * cycles.usd(1).amount}
    assert found["cycles.charged.usd_microcents"] == {kind: ledger.spent("USD_MICROCENTS")}


async def test_a_guard_without_a_reservation_reserves_nothing_in_the_metrics(
    world: World, started: Any, telemetry: Telemetry, server: cycles.EmbeddedServer
) -> None:
    started()
    server.faults.status("reserve", 503, times=None)
    async with world.enter(world.reserve(wait=0, on_unavailable="allow", actual=cycles.tokens(1))):
        pass
    server.faults.clear()
    found = telemetry.metrics()
    assert found["cycles.reservations"] == {("llm.completion", "ERROR"): 1}
    assert "cycles.reserved.tokens" not in found
    assert found["cycles.guards.active"] == {("llm.completion",): 0}


async def test_the_guard_span_has_each_level_of_the_subject(world: World, started: Any, telemetry: Telemetry) -> None:
    started()
    levels = {"workspace": "w", "app": "p", "workflow": "f", "agent": "a", "toolset": "t"}
    async with world.enter(world.reserve(subject=levels, actual=cycles.tokens(1))):
        pass
    attributes = telemetry.span("cycles.guard").attributes
    assert {name: attributes[f"cycles.{name}"] for name in levels} == levels


async def test_the_state_of_a_remote_trace_is_sent_with_each_span(
    world: World, started: Any, server: cycles.EmbeddedServer
) -> None:
    started()
    state = trace.TraceState([("vendor", "one")])
    remote = trace.SpanContext(5, 6, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=state)
    with trace.use_span(trace.NonRecordingSpan(remote)):
        async with world.enter(world.reserve(actual=cycles.tokens(1))):
            pass
    assert [request.headers["tracestate"] for request in server.requests[-2:]] == ["vendor=one"] * 2
    assert server.requests[-1].headers["traceparent"].startswith(f"00-{5:032x}-")


async def test_a_pending_settlement_is_counted_when_it_is_confirmed(
    world: World, started: Any, telemetry: Telemetry, server: cycles.EmbeddedServer
) -> None:
    started()
    guard = await world.acquire(world.reserve())
    server.faults.status("commit", 503)
    settlement = await world.get(guard.commit(cycles.tokens(7)))
    assert settlement.status == "pending"
    assert telemetry.span("cycles.guard").attributes["cycles.state"] == "pending"
    assert "cycles.charged.tokens" not in telemetry.metrics()
    await world.get(world.operations.flush())
    assert telemetry.metrics()["cycles.charged.tokens"] == {("llm.completion",): 7}


def test_an_observed_guard_ends_its_span(telemetry: Telemetry) -> None:
    server = cycles.EmbeddedServer(budgets={"tenant:acme": cycles.tokens(5)}, protocol="0.1.26")
    with server.client(tenant="acme", journal=False) as client:
        instrument(client, tracer_provider=telemetry.provider, meter_provider=telemetry.meters)
        with client.reserve(cycles.tokens(9), action=ACTION, observe=True, actual=cycles.tokens(1)):
            pass
    assert telemetry.span("cycles.guard").attributes["cycles.state"] == "shadow"
    assert telemetry.metrics()["cycles.guards.active"] == {("llm.completion",): 0}
    server.close()


async def test_events_of_a_guard_are_events_of_its_span(world: World, started: Any, telemetry: Telemetry) -> None:
    started()
    with pytest.warns(cycles.UncommittedGuardWarning):
        async with world.enter(world.reserve()):
            pass
    async with world.enter(world.reserve(actual=lambda usage: 1 / 0)):
        pass
    names = [[event.name for event in span.events] for span in telemetry.spans("cycles.guard")]
    assert names == [["GuardNotCommitted"], ["ActualFailed"]]


async def test_genai_attributes_are_added_if_they_are_wanted(world: World, started: Any, telemetry: Telemetry) -> None:
    started(genai=True, attributes=lambda request: {"team": request.action.kind})
    async with world.enter(world.reserve(actual=cycles.tokens(7))) as guard:
        guard.usage.add(tokens_input=3, tokens_output=4)
    attributes = telemetry.span("cycles.guard").attributes
    assert attributes["gen_ai.request.model"] == "small-model"
    assert attributes["gen_ai.operation.name"] == "chat"
    assert attributes["gen_ai.usage.input_tokens"] == 3
    assert "cycles.usage.input_tokens" not in attributes
    assert attributes["team"] == "llm.completion"
    reservation = world.client.reserve(cycles.tokens(1), action=("tool.call", "search"), actual=cycles.tokens(1))
    async with world.enter(reservation):
        pass
    attributes = telemetry.spans("cycles.guard")[-1].attributes or {}
    names = {name: value for name, value in attributes.items() if name.startswith("gen_ai.")}
    assert names == {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}


async def test_a_failing_processor_or_attributes_callable_breaks_no_guard(
    world: World, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            raise ZeroDivisionError

        def on_end(self, span: ReadableSpan) -> None:
            raise ZeroDivisionError

    def failing(request: Any) -> dict[str, Any]:
        raise ZeroDivisionError

    telemetry.provider.add_span_processor(Failing())
    caplog.set_level(logging.ERROR, logger="cycles")
    instrument(world.client, tracer_provider=telemetry.provider, metrics=False, attributes=failing)
    async with world.enter(world.reserve(actual=cycles.tokens(7))) as guard:
        pass
    assert guard.state == "committed"
    assert "attributes= of instrument() failed" in caplog.text


async def test_a_block_that_is_left_in_another_context_logs_nothing(
    client: cycles.Cycles, started: Any, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    started()
    guard = client.reserve(cycles.tokens(9), action=ACTION, actual=cycles.tokens(1)).acquire()
    contextvars.copy_context().run(guard.__enter__)
    contextvars.copy_context().run(guard.end)
    assert guard.state == "committed"
    assert not caplog.records


async def test_thirty_concurrent_guards_have_a_span_each(
    client: cycles.Cycles, started: Any, telemetry: Telemetry, ledger: Ledger
) -> None:
    started()

    async def one() -> None:
        async with client.reserve(cycles.tokens(9), action=ACTION, actual=cycles.tokens(1)):
            await asyncio.sleep(0)
            with telemetry.tracer.start_as_current_span("model"):
                pass

    await asyncio.gather(*[one() for _ in range(30)])
    guards = {span.context.span_id for span in telemetry.spans("cycles.guard")}
    assert len(guards) == 30
    assert {span.parent.span_id for span in telemetry.spans("model") if span.parent} == guards
    assert ledger.spent() == 30


async def test_stopping_ends_it_and_a_second_one_is_rejected(world: World, started: Any, telemetry: Telemetry) -> None:
    stop = started()
    with pytest.raises(cycles.InvalidRequestError, match="tracer"):
        started()
    stop()
    stop()
    async with world.enter(world.reserve(actual=cycles.tokens(7))):
        pass
    assert not telemetry.exporter.get_finished_spans()
    assert not telemetry.metrics()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"spans": "yes"}, cycles.InvalidRequestError),
        ({"metrics": 1}, cycles.InvalidRequestError),
        ({"genai": None}, cycles.InvalidRequestError),
        ({"attributes": 5}, cycles.InvalidRequestError),
        ({"tracer_provider": 5}, cycles.InvalidRequestError),
        ({"meter_provider": "m"}, cycles.InvalidRequestError),
        ({"client": "c"}, cycles.InvalidRequestError),
        ({"traces": True}, TypeError),
    ],
)
def test_wrong_options_are_rejected(client: cycles.Cycles, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        instrument(**{"client": client, **options})


def test_the_default_client_is_used(client: cycles.Cycles, telemetry: Telemetry) -> None:
    cycles.set_default_client(client)
    try:
        instrument(tracer_provider=telemetry.provider, metrics=False)
    finally:
        cycles.set_default_client(None)
    client.decide(cycles.tokens(1), action=ACTION)
    assert telemetry.span("cycles.decide")


def test_without_instrument_opentelemetry_is_not_loaded() -> None:
    pytest.importorskip("opentelemetry.sdk", reason="starts a process: make test-integrations runs it")
    code = (
        "import sys, cycles; c = cycles.Cycles.embedded({'tenant:a': cycles.tokens(9)}, journal=False)\n"
        "with c.reserve(cycles.tokens(1), action=('a', 'b'), actual=cycles.tokens(1)): pass\n"
        "print(*[m for m in sys.modules if 'opentelemetry' in m])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


def test_without_the_library_the_import_says_what_to_install() -> None:
    pytest.importorskip("opentelemetry.sdk", reason="starts a process: make test-integrations runs it")
    code = "import sys; sys.modules['opentelemetry'] = None; import cycles.integrations.opentelemetry"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'cycles-sdk[otel]'" in ran.stderr
