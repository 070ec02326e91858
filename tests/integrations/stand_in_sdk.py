"""A small SDK of OpenTelemetry for `make test`, which has the API only: what the tests read of spans and metrics."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from opentelemetry import trace

ALWAYS_OFF = "ALWAYS_OFF"
"""The sampler that records no span."""

_ids = itertools.count(1)
_log = logging.getLogger("opentelemetry.sdk.trace")


class ReadableSpan(trace.Span):
    """A span, and what was said about it."""

    def __init__(self, provider: TracerProvider, name: str, parent: Any, kind: Any, attributes: Any) -> None:
        self.name, self.parent, self.kind = name, parent, kind
        self.context = provider.context_below(parent)
        self.attributes: dict[str, Any] = dict(attributes or {})
        self.events: list[Any] = []
        self.status = trace.Status(trace.StatusCode.UNSET)
        self.start_time = time.time_ns()
        self.end_time = 0
        self._provider = provider

    def get_span_context(self) -> trace.SpanContext:
        return self.context

    def is_recording(self) -> bool:
        return not self.end_time

    def set_attribute(self, key: str, value: Any) -> None:
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        if self.is_recording():
            self.attributes |= attributes

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        if not self.is_recording():
            _log.warning("event %s of the ended span %s", name, self.name)
        else:
            self.events.append(SimpleNamespace(name=name, attributes=dict(attributes or {})))

    def update_name(self, name: str) -> None:
        self.name = name

    def set_status(self, status: Any, description: str | None = None) -> None:
        if self.is_recording():
            self.status = status

    def record_exception(self, exception: BaseException, *_: Any, **__: Any) -> None:
        self.add_event("exception", {"exception.type": type(exception).__name__})

    def end(self, end_time: int | None = None) -> None:
        assert self.is_recording(), f"{self.name} ends twice"
        self.end_time = end_time or time.time_ns()
        for processor in self._provider.processors:
            processor.on_end(self)


class SpanProcessor:
    """Is called at the start and the end of each span."""

    def on_start(self, span: Any, parent_context: Any = None) -> None: ...

    def on_end(self, span: ReadableSpan) -> None: ...


class InMemorySpanExporter:
    """Keeps the spans that have ended, in this order."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> None:
        self._spans += spans

    def get_finished_spans(self) -> tuple[ReadableSpan, ...]:
        return tuple(self._spans)

    def clear(self) -> None:
        self._spans.clear()


class SimpleSpanProcessor(SpanProcessor):
    """Exports each span when it ends."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def on_end(self, span: ReadableSpan) -> None:
        self._exporter.export([span])


class TracerProvider:
    """Makes tracers, whose spans the processors see."""

    def __init__(self, sampler: str | None = None) -> None:
        self.processors: list[SpanProcessor] = []
        self._samples = sampler != ALWAYS_OFF

    def add_span_processor(self, processor: SpanProcessor) -> None:
        self.processors.append(processor)

    def get_tracer(self, *_: Any, **__: Any) -> TracerProvider:
        return self

    def shutdown(self) -> None:
        self.processors.clear()

    def context_below(self, parent: trace.SpanContext | None) -> trace.SpanContext:
        """Return the context of a new span: in the trace of its parent, or in a new one."""
        trace_id = next(_ids) << 64 if parent is None else parent.trace_id
        state = None if parent is None else parent.trace_state
        return trace.SpanContext(trace_id, next(_ids), False, trace.TraceFlags(int(self._samples)), state)

    def start_span(self, name: str, context: Any = None, kind: Any = None, attributes: Any = None, **_: Any) -> Any:
        found = trace.get_current_span(context).get_span_context()
        parent = found if found.is_valid else None
        if not self._samples:
            return trace.NonRecordingSpan(self.context_below(parent))
        span = ReadableSpan(self, name, parent, kind or trace.SpanKind.INTERNAL, attributes)
        for processor in self.processors:
            processor.on_start(span, context)
        return span

    @contextlib.contextmanager
    def start_as_current_span(self, name: str) -> Iterator[Any]:
        with trace.use_span(self.start_span(name), end_on_exit=True) as span:
            yield span


class _Instrument:
    """One counter or histogram: values by attributes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.points: dict[tuple[tuple[str, Any], ...], list[float]] = {}

    def record(self, value: float, attributes: Mapping[str, Any] | None = None) -> None:
        self.points.setdefault(tuple(sorted((attributes or {}).items())), []).append(value)

    def add(self, value: float, attributes: Mapping[str, Any] | None = None) -> None:
        self.record(value, attributes)


class InMemoryMetricReader:
    """Returns what the instruments of its provider have counted so far."""

    provider: MeterProvider

    def get_metrics_data(self) -> Any:
        found = [SimpleNamespace(name=one.name, data=_data_of(one, counts)) for one, counts in self.provider.made]
        scopes = [SimpleNamespace(metrics=found)]
        return SimpleNamespace(resource_metrics=[SimpleNamespace(scope_metrics=scopes)])


def _data_of(instrument: _Instrument, counts: bool) -> Any:
    points = []
    for attributes, values in instrument.points.items():
        one = {"count": len(values)} if counts else {"value": sum(values)}
        points.append(SimpleNamespace(attributes=dict(attributes), **one))
    return SimpleNamespace(data_points=points)


class MeterProvider:
    """Makes one instrument of each name."""

    def __init__(self, readers: Sequence[InMemoryMetricReader]) -> None:
        self.made: list[tuple[_Instrument, bool]] = []
        for reader in readers:
            reader.provider = self

    def get_meter(self, *_: Any, **__: Any) -> MeterProvider:
        return self

    def shutdown(self) -> None:
        self.made.clear()

    def create_counter(self, name: str, unit: str = "", description: str = "", **_: Any) -> _Instrument:
        return self._make(name, counts=False)

    def create_up_down_counter(self, name: str, unit: str = "", description: str = "", **_: Any) -> _Instrument:
        return self._make(name, counts=False)

    def create_histogram(self, name: str, unit: str = "", description: str = "", **_: Any) -> _Instrument:
        return self._make(name, counts=True)

    def _make(self, name: str, *, counts: bool) -> _Instrument:
        for known, _ in self.made:
            if known.name == name:
                return known
        self.made.append((_Instrument(name), counts))
        return self.made[-1][0]
