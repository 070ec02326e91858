"""Bodies and events in the shapes of version 2 of Cohere's API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cycles.testing._reply import Reply

Json = dict[str, Any]


def body(path: str, request: Mapping[str, Any], reply: Reply) -> Json:
    """Return the whole response of an endpoint."""
    if path.endswith("/embed"):
        found: Json = {"id": "emb_1", "response_type": "embeddings_by_type", "embeddings": {"float": [[0.1, 0.2]]}}
        return {**found, "texts": ["hi"], "meta": _usage(request, reply, "tokens_input")}
    content: list[Json] = [{"type": "text", "text": reply.text}] if reply.text else []
    tools = [
        {"id": f"t{n}", "type": "function", "function": {"name": call.name, "arguments": json.dumps(call.arguments)}}
        for n, call in enumerate(reply.tool_calls)
    ]
    message: Json = {"role": "assistant", "content": content, **({"tool_calls": tools} if tools else {})}
    found = {"id": "c_1", "finish_reason": _finish(reply), "message": message}
    return {**found, **({"usage": used} if (used := _usage(request, reply)) else {})}


def _finish(reply: Reply) -> str:
    return "MAX_TOKENS" if reply.truncated else "TOOL_CALL" if reply.tool_calls else "COMPLETE"


def _usage(request: Mapping[str, Any], reply: Reply, *names: str) -> Json:
    counts = reply.counts(request)
    named = {"input_tokens": counts.get("tokens_input", 0), "output_tokens": counts.get("tokens_output", 0)}
    if names:
        named.pop("output_tokens")
    return {"billed_units": named, "tokens": {name: n + 60 for name, n in named.items()}} if counts else {}


def events(path: str, request: Mapping[str, Any], reply: Reply) -> Iterator[bytes]:
    """Yield the events of a stream, each complete."""
    yield _event("message-start", id="c_1", delta={"message": {"role": "assistant", "content": []}})
    yield _event("content-start", index=0, delta={"message": {"content": {"type": "text", "text": ""}}})
    for piece in reply.pieces():
        yield _event("content-delta", index=0, delta={"message": {"content": {"text": piece}}})
    yield _event("content-end", index=0)
    used = _usage(request, reply)
    yield _event("message-end", delta={"finish_reason": _finish(reply), **({"usage": used} if used else {})})
    yield b"data: [DONE]\n\n"


def _event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members}, ensure_ascii=False)}\n\n".encode()


def error(reply: Reply) -> Json:
    """Return the body of an error response."""
    return {"id": "e_1", "message": reply.error}


def error_event(path: str, reply: Reply) -> bytes:
    """Return the event of an error inside a stream."""
    return _event("message-end", delta={"finish_reason": "ERROR", "error": reply.error})
