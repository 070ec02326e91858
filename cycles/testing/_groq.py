"""Bodies and events in the shapes of Groq's API: OpenAI's, with the usage of a stream in its last chunk too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cycles.testing import _openai
from cycles.testing._reply import Reply

error = _openai.error
error_event = _openai.error_event


def body(path: str, request: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
    """Return the whole response of an endpoint. It names its service tier always."""
    return {"service_tier": "on_demand", **_openai.body(path, request, reply)}


def events(path: str, request: Mapping[str, Any], reply: Reply) -> Iterator[bytes]:
    """Yield the events of a stream, each complete."""
    usage = _openai.chat_usage(request, reply)
    yield from _openai.events_with_last(path, request, reply, {"x_groq": {"id": "req_1", "usage": usage or None}})
