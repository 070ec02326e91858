"""The spans of `cycles.integrations.opentelemetry`: one for each guard, and one for each attempt of a request."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from contextvars import Token
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import context as contexts, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

import cycles
from cycles.integrations._levels import LEVELS
from cycles.integrations._otel_events import LiveSpans

if TYPE_CHECKING:
    from cycles import AttemptResult, TracedGuard
    from cycles.events import Event
    from cycles.integrations._otel_metrics import GuardMetrics

_SPANS: Final = {
    "createReservation": "reserve",
    "commitReservation": "commit",
    "releaseReservation": "release",
    "createEvent": "record",
    "decide": "decide",
}
_GENAI: Final = {"llm.completion": "chat", "llm.embedding": "embeddings", "tool.call": "execute_tool"}
_log: Final = logging.getLogger("cycles")


class SpanTracing:
    """The tracer of one client: `cycles.Tracing`."""

    def __init__(self, tracer: Tracer | None, metrics: GuardMetrics | None, genai: bool, attributes: Any) -> None:
        self.tracer = tracer
        self.metrics = metrics
        self.genai = genai
        self.more = attributes
        self.live = LiveSpans()

    def begin(self, request: Any) -> _GuardTrace:
        return _GuardTrace(
            self, request, self._start("cycles.guard", None, SpanKind.INTERNAL, self._attributes(request))
        )

    @contextlib.contextmanager
    def sending(self, operation: str, context: Context | None = None) -> Iterator[_Attempt]:
        name, started = _SPANS.get(operation), time.monotonic()
        about = None if name is None else (f"cycles.{name}", context, SpanKind.CLIENT, {"cycles.operation": name})
        span = None if about is None else self._start(*about)
        attempt = _Attempt(span, context)  # heartbeats and lists make no spans
        try:
            yield attempt
        except BaseException as raised:
            attempt.fail(type(raised).__name__)
            raise
        finally:
            if self.metrics is not None and name is not None:
                self.metrics.operation(name, attempt.error_type, time.monotonic() - started)
            if attempt.span is not None:
                attempt.span.end()

    def observe(self, event: Event) -> None:
        """Add the events of a guard to its span."""
        self.live.note(event)
        name = type(event).__name__
        if self.metrics is not None and name == "LeaseLost":
            self.metrics.lost()
        elif self.metrics is not None and name == "Settled" and getattr(event, "recovered", False):
            self.metrics.confirmed(event)  # type: ignore[arg-type]

    def _start(self, name: str, context: Context | None, kind: SpanKind, attributes: dict[str, Any]) -> Span | None:
        """Start a span. None without a tracer, and without an SDK: then the ambient span is sent."""
        span = None if self.tracer is None else self.tracer.start_span(name, context, kind, attributes)
        return span if span is not None and span.get_span_context().is_valid else None

    def _attributes(self, request: Any) -> dict[str, Any]:
        action, subject = request.action, request.subject
        found: dict[str, Any] = {
            "cycles.action.kind": action.kind,
            "cycles.action.name": action.name,
            "cycles.unit": str(request.estimate.unit),
            "cycles.estimate": request.estimate.amount,
        }
        found |= {f"cycles.{level}": value for level in LEVELS if (value := getattr(subject, level))}
        if self.genai and action.kind in _GENAI:
            found["gen_ai.operation.name"] = _GENAI[action.kind]
            found["gen_ai.tool.name" if action.kind == "tool.call" else "gen_ai.request.model"] = action.name
        if self.more is not None:
            try:
                found |= dict(self.more(request))
            except Exception:  # the application's own code must not cost the span
                _log.exception("attributes= of instrument() failed")
        return found


class _Attempt:
    """One attempt of a request: `cycles.SentAttempt`."""

    def __init__(self, span: Span | None, context: Context | None) -> None:
        self.span = span
        self.error_type: str | None = None
        sent = (span or trace.get_current_span(context)).get_span_context()
        self.headers: dict[str, str] = {}
        if sent.is_valid:
            self.headers["traceparent"] = f"00-{sent.trace_id:032x}-{sent.span_id:016x}-{int(sent.trace_flags):02x}"
            if state := sent.trace_state.to_header():
                self.headers["tracestate"] = state

    def received(self, result: AttemptResult) -> None:
        found = {
            "http.response.status_code": result.status,
            "cycles.request_id": result.request_id,
            "cycles.decision": result.decision,
        }
        if self.span is not None:
            self.span.set_attributes({name: value for name, value in found.items() if value is not None})
        if result.error_type is not None:
            self.fail(result.error_type)

    def fail(self, error_type: str) -> None:
        self.error_type = error_type
        _fail(self.span, error_type)


class _GuardTrace:
    """The trace of one guard: `cycles.GuardTrace`."""

    def __init__(self, tracing: SpanTracing, request: Any, span: Span | None) -> None:
        self._tracing = tracing
        self._request = request
        self._span = span
        self._started = time.monotonic()
        self._has_reserved, self._lease = False, ""  # a guard of a pool and an attached one reserve nothing
        ambient = contexts.get_current()
        self._context = ambient if span is None else trace.set_span_in_context(span, ambient)
        found = trace.get_current_span(self._context).get_span_context()
        self.trace_id = f"{found.trace_id:032x}" if found.is_valid else None

    def sending(self, operation: str) -> contextlib.AbstractContextManager[_Attempt]:
        self._has_reserved = self._has_reserved or operation == "createReservation"
        return self._tracing.sending(operation, self._context)

    def opened(self, guard: TracedGuard) -> None:
        if self._span is not None:
            _set(self._span, decision=guard.decision, reservation_id=guard.reservation_id)
            self._lease = guard.reservation_id or ""
            self._tracing.live.add(self._lease, guard, self._span)
        if self._tracing.metrics is not None:
            self._tracing.metrics.opened(guard, has_reserved=self._has_reserved)

    def refused(self, error: BaseException) -> None:
        error_type = str(getattr(error, "code", None) or type(error).__name__)
        if self._span is not None:
            if isinstance(error, cycles.ReservationDeniedError):
                _set(self._span, decision="DENY")
            _fail(self._span, error_type)
            self._span.end()
        of_chunk = isinstance(error, cycles.TransportError) or getattr(error, "request_id", None)  # counted there
        if self._tracing.metrics is not None and (self._has_reserved or not of_chunk):
            self._tracing.metrics.refused(self._request.action.kind, error, error_type)

    def ended(self, guard: TracedGuard) -> None:
        settlement = guard.settlement
        state = settlement.status if settlement is not None and guard.state != "rejected" else guard.state
        self._tracing.live.remove(self._lease, guard)
        if self._span is not None:
            actual = None if settlement is None or guard.state == "released" else settlement.actual.amount
            charged = None if settlement is None or settlement.charged is None else settlement.charged.amount
            _set(self._span, state=state, actual=actual, charged=charged)
            if guard.usage.is_filled:
                prefix = "gen_ai.usage" if self._tracing.genai else "cycles.usage"
                counts = {"input_tokens": guard.usage.tokens_input, "output_tokens": guard.usage.tokens_output}
                self._span.set_attributes({f"{prefix}.{name}": count for name, count in counts.items()})
            self._span.end()
        if self._tracing.metrics is not None:
            self._tracing.metrics.ended(guard, state, time.monotonic() - self._started)

    def entered(self) -> Token[Context] | None:
        return None if self._span is None else contexts.attach(trace.set_span_in_context(self._span))

    def left(self, token: Token[Context] | None) -> None:
        if token is not None:  # `detach` would log a traceback for a block that is left in another context
            with contextlib.suppress(ValueError):
                token.var.reset(token)


def _set(span: Span, **values: Any) -> None:
    span.set_attributes({f"cycles.{name}": value for name, value in values.items() if value is not None})


def _fail(span: Span | None, error_type: str) -> None:
    if span is not None:
        span.set_attribute("error.type", error_type)
        span.set_status(Status(StatusCode.ERROR, error_type))
