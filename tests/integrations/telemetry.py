"""OpenTelemetry in memory, and a client that it traces. Without an SDK a small one of the tests records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cycles
from tests.support.worlds import World

pytest.importorskip("opentelemetry.trace")

try:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import ReadableSpan as ReadableSpan, SpanProcessor as SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF as ALWAYS_OFF
except ImportError:
    from tests.integrations.stand_in_sdk import (
        ALWAYS_OFF as ALWAYS_OFF,
        InMemoryMetricReader,
        InMemorySpanExporter,
        MeterProvider,
        ReadableSpan as ReadableSpan,
        SimpleSpanProcessor,
        SpanProcessor as SpanProcessor,
        TracerProvider,
    )

from cycles.integrations.opentelemetry import instrument

ACTION = ("llm.completion", "small-model")


def written(context: Any) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


class Telemetry:
    """An SDK in memory."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.tracer = self.provider.get_tracer("application")

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def span(self, name: str) -> Any:
        [span] = self.spans(name)
        return span

    def metrics(self) -> dict[str, dict[tuple[Any, ...], Any]]:
        """Return the value of each metric by the values of its attributes, sorted by their names."""
        found: dict[str, dict[tuple[Any, ...], Any]] = {}
        data = self.reader.get_metrics_data()
        for one in (data.resource_metrics if data else []) or []:
            for metric in (metric for scope in one.scope_metrics for metric in scope.metrics):
                for point in metric.data.data_points:
                    key = tuple(value for _, value in sorted((point.attributes or {}).items()))
                    value = point.value if hasattr(point, "value") else point.count
                    found.setdefault(metric.name, {})[key] = value
        return found


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    telemetry = Telemetry()
    yield telemetry
    telemetry.provider.shutdown()
    telemetry.meters.shutdown()


@pytest.fixture
def started(client: cycles.Cycles, telemetry: Telemetry) -> Callable[..., Any]:
    def start(**options: Any) -> Callable[[], None]:
        return instrument(client, tracer_provider=telemetry.provider, meter_provider=telemetry.meters, **options)

    return start


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest, client: cycles.Cycles) -> World:
    return World(request.param, client)
