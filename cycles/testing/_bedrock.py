"""Bodies and frames in the shapes of Amazon Bedrock's runtime."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cycles.testing import _anthropic
from cycles.testing._reply import Reply

Json = dict[str, Any]

STREAM_TYPE: Final = "application/vnd.amazon.eventstream"


def body(path: str, request: Mapping[str, Any], reply: Reply) -> Json:
    """Return the whole response of an operation."""
    if path.endswith("/count-tokens"):
        return {"inputTokens": len(str(request).split())}
    if "/invoke" in path:
        return _invoked(path, request, reply)
    content: list[Json] = []
    if reply.reasoning:
        content.append({"reasoningContent": {"reasoningText": {"text": reply.reasoning}}})
    if reply.text:
        content.append({"text": reply.text})
    for index, call in enumerate(reply.tool_calls):
        tool = {"toolUseId": f"tooluse_{index}", "name": call.name, "input": dict(call.arguments)}
        content.append({"toolUse": tool})
    found: Json = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": _stop(reply)}
    return {**found, **_metadata(request, reply)}


def headers(path: str, request: Mapping[str, Any], reply: Reply) -> dict[str, str]:
    """Return the headers of a whole response: those of InvokeModel have its counts."""
    counts = reply.counts(request)
    if not path.endswith("/invoke") or not counts:
        return {}
    sent = {"input": counts.get("tokens_input", 0), "output": counts.get("tokens_output", 0)}
    return {f"x-amzn-bedrock-{name}-token-count": str(n) for name, n in sent.items()}


def _is_claude(path: str) -> bool:
    return "anthropic." in path


def _invoked(path: str, request: Mapping[str, Any], reply: Reply) -> Json:
    if _is_claude(path):
        return _anthropic.message(request, reply)
    if "embed" in path:
        return {"embedding": [0.1, 0.2]}
    return {"generation": reply.text, "stop_reason": "length" if reply.truncated else "stop"}


def _stop(reply: Reply) -> str:
    return "max_tokens" if reply.truncated else "tool_use" if reply.tool_calls else "end_turn"


def _metadata(request: Mapping[str, Any], reply: Reply) -> Json:
    counts = reply.counts(request)
    if not counts:
        return {"metrics": {"latencyMs": 1}}
    cached, written = counts.get("tokens_cached_input", 0), counts.get("tokens_cache_write", 0)
    read, made = counts.get("tokens_input", 0), counts.get("tokens_output", 0)
    usage: Json = {"inputTokens": read - cached - written, "outputTokens": made, "totalTokens": read + made}
    usage |= {"cacheReadInputTokens": cached, "cacheWriteInputTokens": written}
    if long := counts.get("tokens_cache_write_1h", 0):
        usage["cacheDetails"] = [{"ttl": "1h", "inputTokens": long}, {"ttl": "5m", "inputTokens": written - long}]
    return {"usage": usage, "metrics": {"latencyMs": 1}}


def events(path: str, request: Mapping[str, Any], reply: Reply) -> Iterator[bytes]:
    """Yield the frames of a stream, each complete."""
    if "/invoke" in path:
        events = _of_claude(path, request, reply) if _is_claude(path) else _of_others(request, reply)
        yield from (
            frame("chunk", {"bytes": base64.b64encode(json.dumps(event).encode()).decode()}) for event in events
        )
        return
    yield frame("messageStart", {"role": "assistant"})
    for index, deltas in enumerate(_blocks(reply)):
        for delta in deltas:
            kind = "contentBlockStart" if "toolUseId" in delta.get("toolUse", {}) else "contentBlockDelta"
            member = "start" if kind == "contentBlockStart" else "delta"
            yield frame(kind, {"contentBlockIndex": index, member: delta})
        yield frame("contentBlockStop", {"contentBlockIndex": index})
    yield frame("messageStop", {"stopReason": _stop(reply)})
    yield frame("metadata", {**_metadata(request, reply), **reply.extra})


def _of_claude(path: str, request: Mapping[str, Any], reply: Reply) -> Iterator[Json]:
    for event in _anthropic.events(path, request, reply):
        yield json.loads(event.partition(b"data: ")[2])


def _of_others(request: Mapping[str, Any], reply: Reply) -> Iterator[Json]:
    yield from ({"generation": piece, "stop_reason": None} for piece in reply.pieces())
    counts = reply.counts(request)
    metrics = {"inputTokenCount": counts.get("tokens_input", 0), "outputTokenCount": counts.get("tokens_output", 0)}
    last: Json = {"generation": "", "stop_reason": "length" if reply.truncated else "stop"}
    yield {**last, **({"amazon-bedrock-invocationMetrics": metrics} if counts else {})}


def _blocks(reply: Reply) -> Iterator[list[Json]]:
    if reply.reasoning:
        yield [{"reasoningContent": {"text": reply.reasoning}}]
    if reply.text:
        yield [{"text": piece} for piece in reply.pieces()]
    for index, call in enumerate(reply.tool_calls):
        arguments = {"toolUse": {"input": json.dumps(dict(call.arguments))}}
        yield [{"toolUse": {"toolUseId": f"tooluse_{index}", "name": call.name}}, arguments]


def frame(kind: str, payload: Mapping[str, Any], message_type: str = "event") -> bytes:
    """Return a frame of an AWS event stream."""
    name = ":event-type" if message_type == "event" else ":exception-type"
    members = {name: kind, ":content-type": "application/json", ":message-type": message_type}
    headers = b"".join(map(_header, members, members.values()))
    data = json.dumps(payload, ensure_ascii=False).encode()
    prelude = (16 + len(headers) + len(data)).to_bytes(4, "big") + len(headers).to_bytes(4, "big")
    begun = prelude + zlib.crc32(prelude).to_bytes(4, "big") + headers + data
    return begun + zlib.crc32(begun).to_bytes(4, "big")


def _header(name: str, value: str) -> bytes:
    return bytes([len(name)]) + name.encode() + b"\x07" + len(value).to_bytes(2, "big") + value.encode()


def error(reply: Reply) -> Json:
    """Return the body of an error response."""
    return {"message": reply.error}


def error_event(path: str, reply: Reply) -> bytes:
    """Return the frame of an error inside a stream."""
    return frame("modelStreamErrorException", {"message": reply.error}, "exception")
