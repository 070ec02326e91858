"""OpenTelemetry: spans and metrics of guards, joined to the application's traces. Needs the extra ``otel``.

Only the API package is used: without an SDK everything is a no-op and guards work as before. See
`docs/integrations/opentelemetry.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import cycles
from cycles import InvalidRequestError
from cycles.integrations._shared import require

require("opentelemetry.trace", "otel")

from opentelemetry import metrics as metrics_api, trace

from cycles.integrations._otel_metrics import GuardMetrics
from cycles.integrations._otel_spans import SpanTracing

if TYPE_CHECKING:
    from cycles import Cycles

__all__ = ["instrument"]


def instrument(
    client: Cycles | None = None,
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics_api.MeterProvider | None = None,
    spans: bool = True,
    metrics: bool = True,
    genai: bool = False,
    attributes: Callable[..., Mapping[str, Any]] | None = None,
) -> Callable[[], None]:
    """Trace the guards of a client, and measure them. Returns a callable that ends this.

    Args:
        client: The client; by default the default client.
        tracer_provider: By default the application's global one, and the same for `meter_provider`.
        meter_provider: See there.
        spans: Whether to make spans. Without them requests still carry the ambient trace.
        metrics: Whether to make metrics.
        genai: Whether spans also have ``gen_ai.*`` attributes, which dashboards may count twice.
        attributes: Returns more attributes of the guard span; takes the reserve request.

    Raises:
        InvalidRequestError: A value is wrong, or the client has a tracer already.
    """
    if client is not None and not isinstance(client, cycles.Cycles):
        raise InvalidRequestError(f"client must be a cycles.Cycles or None, got {client!r:.80}")
    for name, flag in {"spans": spans, "metrics": metrics, "genai": genai}.items():
        if not isinstance(flag, bool):
            raise InvalidRequestError(f"{name} must be True or False, got {flag!r:.80}")
    if not (attributes is None or callable(attributes)):
        raise InvalidRequestError(f"attributes must be a callable of the reserve request, got {attributes!r:.80}")
    for name, provider, method in (
        ("tracer_provider", tracer_provider, "get_tracer"),
        ("meter_provider", meter_provider, "get_meter"),
    ):
        if not (provider is None or hasattr(provider, method)):
            raise InvalidRequestError(f"{name} must have the method {method}, got {provider!r:.80}")
    used = client or cycles.get_default_client()
    tracer = trace.get_tracer("cycles", cycles.__version__, tracer_provider) if spans else None
    meter = metrics_api.get_meter("cycles", cycles.__version__, meter_provider) if metrics else None
    tracing = SpanTracing(tracer, None if meter is None else GuardMetrics(meter), genai, attributes)
    removers = (used.trace_with(tracing), used.on_event(tracing.observe))

    def stop() -> None:
        for remove in removers:
            remove()

    return stop
