"""An agent whose guards are spans of its own trace. The model is fake and the server is embedded.

It needs no key and no network, and the package opentelemetry-sdk: `python opentelemetry_agent.py`.
"""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import cycles
from cycles.integrations.opentelemetry import instrument


def fake_model(prompt: str) -> str:
    """Answer."""
    return f"An answer to {prompt!r}"


def main() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("agent")
    with cycles.Cycles.embedded(budgets={"tenant:acme": cycles.tokens(1_000)}) as client:
        instrument(client, tracer_provider=provider, metrics=False)
        reservation = client.reserve(cycles.tokens(100), action=("llm.completion", "small-model"))
        with tracer.start_as_current_span("agent run"), reservation as guard:
            with tracer.start_as_current_span("model"):
                answer = fake_model("What are budgets?")
            guard.commit(cycles.tokens(len(answer)))
    print_tree(exporter.get_finished_spans())


def print_tree(spans: tuple[ReadableSpan, ...], parent: int | None = None, depth: int = 0) -> None:
    """Print the spans as a tree."""
    for span in sorted(spans, key=lambda each: each.start_time or 0):
        if (span.parent.span_id if span.parent else None) == parent:
            state = (span.attributes or {}).get("cycles.state", "")
            print(f"{'  ' * depth}{span.name} {state}".rstrip())
            print_tree(spans, span.context.span_id if span.context else None, depth + 1)


if __name__ == "__main__":
    main()
