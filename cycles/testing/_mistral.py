"""Bodies and events in the shapes of Mistral's API: OpenAI's, with the usage of a stream in its last chunk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cycles.testing import _openai
from cycles.testing._reply import Reply

Json = dict[str, Any]
_CHAT = "/chat/completions"


def body(path: str, request: Mapping[str, Any], reply: Reply) -> Json:
    """Return the whole response of an endpoint."""
    found = _openai.body(path.replace("/fim/completions", _CHAT), request, reply)
    if path.endswith("/embeddings"):
        found = {"id": "emb_1", **found, "usage": {"completion_tokens": 0, **(found.get("usage") or {})}}
    return found


def events(path: str, request: Mapping[str, Any], reply: Reply) -> Iterator[bytes]:
    """Yield the events of a stream, each complete."""
    usage = _openai.chat_usage(request, reply)
    request = {**request, "stream_options": None}  # it has no such option
    yield from _openai.events_with_last(_CHAT, request, reply, {"usage": usage} if usage else {})


def error(reply: Reply) -> Json:
    """Return the body of an error response."""
    return {"object": "error", "message": reply.error, "type": "error", "param": None, "code": None}


def error_event(path: str, reply: Reply) -> bytes:
    """Return the event of an error inside a stream."""
    return b"data: " + json.dumps({"error": error(reply)}).encode() + b"\n\n"
