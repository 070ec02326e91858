"""Bodies and events in the shapes of Anthropic's APIs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cycles.testing._reply import Reply

Json = dict[str, Any]


def body(path: str, request: Mapping[str, Any], reply: Reply) -> Json:
    """Return the whole response of an endpoint."""
    if path.endswith("/count_tokens"):
        return {"input_tokens": len(str(request).split())}
    if path.endswith("/complete"):
        model = reply.model or request.get("model")
        done = {"type": "completion", "id": "compl_1", "completion": reply.text}
        done["stop_reason"] = "max_tokens" if reply.truncated else "stop_sequence"
        return {**done, "model": model}
    if path.endswith(("/messages", "Predict")):
        return message(request, reply)
    return {"id": "fake_1", "type": "fake", "data": [], "has_more": False}


def message(request: Mapping[str, Any], reply: Reply) -> Json:
    """Return a message."""
    content: list[Json] = []
    if reply.reasoning:
        content.append({"type": "thinking", "thinking": reply.reasoning, "signature": "c2ln"})
    if reply.text:
        content.append({"type": "text", "text": reply.text, "citations": None})
    for index, call in enumerate(reply.tool_calls):
        content.append({"type": "tool_use", "id": f"toolu_{index}", "name": call.name, "input": dict(call.arguments)})
    found: Json = {"id": "msg_1", "type": "message", "role": "assistant", "content": content}
    found["model"] = reply.model or request.get("model", "claude-sonnet-4-5")
    ended = "max_tokens" if reply.truncated else "tool_use" if reply.tool_calls else "end_turn"
    found |= {"stop_reason": ended, "stop_sequence": None}
    found["usage"] = usage(request, reply)
    return found


def usage(request: Mapping[str, Any], reply: Reply) -> Json:
    """Return usage; empty if none is reported."""
    counts = reply.counts(request)
    if not counts:
        return {}
    cached, written = counts.get("tokens_cached_input", 0), counts.get("tokens_cache_write", 0)
    long = counts.get("tokens_cache_write_1h", 0)
    found: Json = {
        "input_tokens": counts.get("tokens_input", 0) - cached - written,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
        "cache_creation": {"ephemeral_5m_input_tokens": written - long, "ephemeral_1h_input_tokens": long},
        "output_tokens": counts.get("tokens_output", 0),
        "service_tier": "standard",
    }
    if "tokens_reasoning" in counts:
        found["output_tokens_details"] = {"thinking_tokens": counts["tokens_reasoning"]}
    if "web_searches" in counts:
        found["server_tool_use"] = {"web_search_requests": counts["web_searches"], "web_fetch_requests": 0}
    return found


def events(path: str, request: Mapping[str, Any], reply: Reply) -> Iterator[bytes]:
    """Yield the events of a stream, each complete."""
    done = {**message(request, reply), **reply.extra}
    final = done["usage"]
    begun = {**final, "output_tokens": min(1, final.get("output_tokens", 0))} if final else {}
    start = {**done, "content": [], "stop_reason": None, "usage": begun}
    yield _event("message_start", message=start)
    for index, block in enumerate(done["content"]):
        yield _event("content_block_start", index=index, content_block=_empty(block))
        if index == 0:
            yield _event("ping")
        for delta in _deltas(block, reply):
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    delta = {"stop_reason": done["stop_reason"], "stop_sequence": None}
    counted = {name: n for name, n in final.items() if name not in ("cache_creation", "service_tier")}
    yield _event("message_delta", delta=delta, usage=counted)
    yield _event("message_stop")


def _empty(block: Json) -> Json:
    blank: dict[str, Json] = {
        "text": {"text": ""},
        "thinking": {"thinking": "", "signature": ""},
        "tool_use": {"input": {}},
    }
    return {**block, **blank[block["type"]]}


def _deltas(block: Json, reply: Reply) -> Iterator[Json]:
    if block["type"] == "text":
        for word in reply.pieces():
            yield {"type": "text_delta", "text": word}
    elif block["type"] == "thinking":
        yield {"type": "thinking_delta", "thinking": reply.reasoning}
        yield {"type": "signature_delta", "signature": "c2ln"}
    else:
        yield {"type": "input_json_delta", "partial_json": ""}
        yield {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}


def _event(kind: str, **members: Any) -> bytes:
    data = json.dumps({"type": kind, **members}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def error(reply: Reply) -> Json:
    """Return the body of an error response."""
    kind = {429: "rate_limit_error", 529: "overloaded_error"}.get(reply.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": reply.error}}


def error_event(path: str, reply: Reply) -> bytes:
    """Return the event of an error inside a stream."""
    return _event("error", error={"type": "overloaded_error", "message": reply.error})
