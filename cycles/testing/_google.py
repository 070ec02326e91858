"""Bodies and events in the shapes of the Gemini API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cycles.testing._reply import Reply

Json = dict[str, Any]


def body(path: str, request: Mapping[str, Any], reply: Reply) -> Json:
    """Return the whole response of an endpoint."""
    method = path.rpartition(":")[2]
    if method == "countTokens":
        return {"totalTokens": len(str(request).split())}
    if method in ("embedContent", "batchEmbedContents"):
        return _embedding(method, request, reply)
    if method in ("generateContent", "streamGenerateContent"):
        return _chunk(path, request, reply, _parts(reply), final=True)
    return {"name": "fake/1"}


def _embedding(method: str, request: Mapping[str, Any], reply: Reply) -> Json:
    values = {"values": [0.1, 0.2]}
    counts = reply.counts(request)
    usage = {"usageMetadata": {"promptTokenCount": counts.get("tokens_input", 0)}} if counts else {}
    if method == "embedContent":
        return {"embedding": values, **usage}
    return {"embeddings": [values for _ in request.get("requests", [0])], **usage}


def _parts(reply: Reply) -> list[Json]:
    parts: list[Json] = [{"text": reply.reasoning, "thought": True}] if reply.reasoning else []
    parts += [{"text": reply.text}] if reply.text else []
    return parts + [{"functionCall": {"name": call.name, "args": dict(call.arguments)}} for call in reply.tool_calls]


def _chunk(
    path: str, request: Mapping[str, Any], reply: Reply, parts: list[Json], *, final: bool, share: float = 1
) -> Json:
    candidate: Json = {"content": {"role": "model", "parts": parts}, "index": 0}
    if final:
        candidate["finishReason"] = "MAX_TOKENS" if reply.truncated else "STOP"
        queries = (reply.usage or {}).get("web_searches", 0)
        if queries:
            candidate["groundingMetadata"] = {"webSearchQueries": [f"query {n}" for n in range(queries)]}
        if places := (reply.usage or {}).get("maps_searches", 0):
            chunks = [{"maps": {"uri": "https://maps.google.com/?cid=1", "title": "Place"}}]
            chunks += [{"web": {"uri": "https://example.com"}}] if queries else []
            asked = queries or places
            candidate["groundingMetadata"] = {
                "webSearchQueries": [f"query {n}" for n in range(asked)],
                "groundingChunks": chunks,
            }
    found: Json = {"candidates": [candidate]}
    counts = reply.counts(request)
    if counts:
        found["usageMetadata"] = _usage(counts, share)
    model = path.rpartition("models/")[2].partition(":")[0]
    return {**found, "modelVersion": reply.model or model, "responseId": "resp-1", **reply.extra}


def _usage(counts: Mapping[str, int], share: float) -> Json:
    tool, thoughts = counts.get("tokens_input_tool", 0), counts.get("tokens_reasoning", 0)
    read, written = counts.get("tokens_input", 0), counts.get("tokens_output", 0)
    found: Json = {"promptTokenCount": read - tool, "candidatesTokenCount": int((written - thoughts) * share)}
    found["totalTokenCount"] = read + written
    for name, n in (
        ("toolUsePromptTokenCount", tool),
        ("thoughtsTokenCount", thoughts),
        ("cachedContentTokenCount", counts.get("tokens_cached_input", 0)),
    ):
        if n:
            found[name] = n
    for name, prefix in (
        ("promptTokensDetails", "tokens_input"),
        ("cacheTokensDetails", "tokens_cached_input"),
        ("candidatesTokensDetails", "tokens_output"),
    ):
        details = [
            {"modality": kind.upper(), "tokenCount": counts[f"{prefix}_{kind}"]}
            for kind in ("audio", "image", "video")
            if f"{prefix}_{kind}" in counts
        ]
        if details:
            found[name] = details
    return found


def events(path: str, request: Mapping[str, Any], reply: Reply) -> Iterator[bytes]:
    """Yield the chunks of a stream, each complete; counts are running totals."""
    pieces = reply.pieces()
    for index, piece in enumerate(pieces):
        share = (index + 1) / (len(pieces) + 1)
        yield _data(_chunk(path, request, reply, [{"text": piece}], final=False, share=share))
    rest = [part for part in _parts(reply) if "functionCall" in part]
    yield _data(_chunk(path, request, reply, rest or [{"text": ""}], final=True))


def _data(value: Json) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\r\n\r\n".encode()


def error(reply: Reply) -> Json:
    """Return the body of an error response."""
    kinds = {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
    status = kinds.get(reply.status, "INTERNAL")
    return {"error": {"code": max(reply.status, 400), "message": reply.error, "status": status}}


def error_event(path: str, reply: Reply) -> bytes:
    """Return the event of an error inside a stream."""
    return _data(error(reply))
