"""What the fake provider sends for requests to each API, as text: ``python -m tests.providers.fake_shapes`` renews it.

Read the difference before you commit it: agents are tested against these bodies and events.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from cycles.testing import FakeProvider

FILE = Path(__file__).with_name("fake_shapes.txt")

MEDIA = {"tokens_input_audio": 30, "tokens_input_image": 20, "tokens_output_audio": 7, "tokens_output_image": 5}
CACHE = {"tokens_cached_input": 400, "tokens_cached_input_video": 3, "tokens_cache_write": 200}
CALLS = {"web_searches": 2, "file_searches": 1, "code_sessions": 1, "other_calls": 1, "maps_searches": 1}
SEEN = {"tokens_input": 1000, "tokens_input_tool": 8, "tokens_output": 90, "tokens_reasoning": 40}
USED = {**SEEN, **MEDIA, **CACHE, "tokens_cache_write_1h": 50, **CALLS}
FULL: dict[str, Any] = {
    "text": "Grüß Gott dort",
    "reasoning": "think it over",
    "tool_calls": [("look", {"city": "Ulm"}), ("stop", {})],
    "model": "named",
    "extra": {"service_tier": "flex"},
}
REPLIES: dict[str, dict[str, Any]] = {
    "short": {},
    "full": {**FULL, "usage": USED},
    "without usage": {**FULL, "text": "", "usage": {}},
    "truncated": {"text": "a b c", "usage": {"tokens_input": 7}, "truncated": True, "tool_calls": [("look", {})]},
    "failed": {"status": 503, "error": "busy"},
    "failed later": {"error_after": 2, "error": "busy"},
}
"""What each API responds with, by the name of a reply."""
COUNTED = {"stream_options": {"include_usage": True}}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "one two"}]}
GEMINI = {"contents": [{"parts": [{"text": "one two"}]}]}
APIS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {**CHAT, **COUNTED},
    "/v1/completions": {"model": "m", "prompt": "one two", **COUNTED},
    "/v1/responses": {"model": "m", "input": "one two", "tools": [{"type": "x"}]},
    "/v1/messages": CHAT,
    "/v1beta/models/m:generateContent": GEMINI,
    "/bedrock/model/m/converse": {"messages": [{"role": "user", "content": [{"text": "one two"}]}]},
    "/bedrock/model/anthropic.claude-m/invoke": {"messages": CHAT["messages"]},
    "/bedrock/model/meta.llama-m/invoke": {"prompt": "one two"},
    "/groq/openai/v1/chat/completions": CHAT,
    "/mistral/v1/chat/completions": CHAT,
    "/cohere/v2/chat": CHAT,
}
STREAMS = {
    "/v1beta/models/m:generateContent": "/v1beta/models/m:streamGenerateContent",
    "/bedrock/model/m/converse": "/bedrock/model/m/converse-stream",
    "/bedrock/model/anthropic.claude-m/invoke": "/bedrock/model/anthropic.claude-m/invoke-with-response-stream",
    "/bedrock/model/meta.llama-m/invoke": "/bedrock/model/meta.llama-m/invoke-with-response-stream",
}
"""Paths of streams; the other APIs read ``stream`` of the request."""
OTHERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "two choices": ("/v1/chat/completions", {**CHAT, "n": 2}, {}),
    "no model": ("/v1/chat/completions", {}, {}),
    "no model of a completion": ("/v1/completions", {"stream": True}, {}),
    "no model of a response": ("/v1/responses", {}, {}),
    "no model of a message": ("/v1/messages", {}, {}),
    "a stream without usage": ("/v1/chat/completions", {**CHAT, "stream": True}, {}),
    "in the background": ("/v1/responses", {"model": "m", "background": True}, {"polls": 1}),
    "a stream in the background": ("/v1/responses", {"model": "m", "background": True, "stream": True}, {"text": ""}),
    "compacted": ("/v1/responses/compact", {"model": "m"}, {"usage": {"tokens_input": 9, "tokens_output": 2}}),
    "embeddings": ("/v1/embeddings", {"model": "m", "input": "one two"}, {}),
    "embeddings without usage": ("/v1/embeddings", {"model": "m"}, {"usage": {}}),
    "an image": ("/v1/images/generations", {"model": "m"}, {"usage": USED}),
    "an image without usage": ("/v1/images/edits", {"model": "m"}, {"usage": {}}),
    "seconds of audio": ("/v1/audio/transcriptions", {"model": "m"}, {"usage": {"audio_ms": 1500}}),
    "tokens of audio": ("/v1/audio/translations", {"model": "m"}, {"usage": USED}),
    "audio without usage": ("/v1/audio/transcriptions", {"model": "m"}, {"usage": {}}),
    "a stream of audio": ("/v1/audio/transcriptions", {"model": "m", "stream": True}, {"usage": {"tokens_input": 3}}),
    "speech": ("/v1/audio/speech", {"model": "m", "input": "x"}, {"text": "said"}),
    "a stream of speech": ("/v1/audio/speech", {"model": "m", "stream_format": "sse"}, {"text": "said"}),
    "free": ("/v1/moderations", {"input": "x"}, {}),
    "a count of Claude's": ("/v1/messages/count_tokens", {"messages": ["one two"]}, {}),
    "an old completion of Claude's": ("/v1/complete", {"model": "m", "prompt": "x"}, {}),
    "a batch of Claude's": ("/v1/messages/batches", {}, {}),
    "a rejected message": ("/v1/messages", CHAT, {"status": 429, "error": "slow"}),
    "an overloaded message": ("/v1/messages", CHAT, {"status": 529, "error": "full"}),
    "a message of Vertex": ("/v1/projects/p/publishers/anthropic/models/claude-m:rawPredict", {}, {}),
    "a count of Gemini's": ("/v1beta/models/m:countTokens", GEMINI, {}),
    "an embedding of Gemini's": ("/v1beta/models/m:embedContent", {"content": "one"}, {}),
    "two embeddings of Gemini's": ("/v1beta/models/m:batchEmbedContents", {"requests": [1, 2]}, {"usage": {}}),
    "places of Gemini's": ("/v1beta/models/m:generateContent", GEMINI, {"usage": {"maps_searches": 2}}),
    "searches of Gemini's": ("/v1beta/models/m:generateContent", GEMINI, {"usage": {"web_searches": 1}}),
    "another operation of Gemini's": ("/v1beta/models/m:predict", {}, {}),
    "a wrong request to Gemini": ("/v1beta/models/m:generateContent", GEMINI, {"status": 400, "error": "no"}),
    "a broken Gemini": ("/v1beta/models/m:generateContent", GEMINI, {"status": 500, "error": "no"}),
    "a count of Bedrock's": ("/bedrock/model/m/count-tokens", {"input": "one two"}, {}),
    "an embedding of Bedrock's": ("/bedrock/model/amazon.titan-embed-text-v2:0/invoke", {"inputText": "x"}, {}),
    "old code of Mistral's": ("/mistral/v1/fim/completions", {"model": "m", "prompt": "x"}, {}),
    "an embedding of Mistral's": ("/mistral/v1/embeddings", {"model": "m", "input": "x"}, {}),
    "an embedding of Cohere's": ("/cohere/v2/embed", {"model": "m", "texts": ["x"]}, {}),
}


def requests() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Yield the name of a case, its path, its body and the options of its reply."""
    for path, body in APIS.items():
        for name, options in REPLIES.items():
            if name != "failed later":
                yield f"{path}, {name}", path, body, options
            if name != "failed":
                streamed = body if path in STREAMS else {**body, "stream": True}
                yield f"{path}, stream, {name}", STREAMS.get(path, path), streamed, options
    for name, (path, body, options) in OTHERS.items():
        yield name, path, body, options


def sent(path: str, body: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """Return what the fake provider sends for a request: status, type, headers of its own, and the body as text."""
    with FakeProvider() as provider, httpx.Client(trust_env=False, timeout=10) as client:
        response = client.post(provider.reply(**options).url + path, json=dict(body))
    kind = response.headers["content-type"]
    own = [f"{name}: {value}" for name, value in response.headers.items() if name.startswith("x-")]
    text = "\n".join(frames(response.content)) if kind.endswith("eventstream") else response.text.rstrip()
    return "\n".join([f"{response.status_code} {kind}", *own, *text.splitlines()])


def frames(data: bytes) -> Iterator[str]:
    """Yield the headers and payload of each frame of an AWS event stream, whose checksums must be right."""
    while data:
        length, of_headers = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
        frame, data = data[:length], data[length:]
        assert zlib.crc32(frame[:8]) == int.from_bytes(frame[8:12], "big")
        assert zlib.crc32(frame[:-4]) == int.from_bytes(frame[-4:], "big")
        payload = json.loads(frame[12 + of_headers : -4])
        if set(payload) == {"bytes"}:
            payload = {"bytes": base64.b64decode(payload["bytes"]).decode()}
        yield f"{frame[12 : 12 + of_headers]!r} {json.dumps(payload, ensure_ascii=False)}"


def stored() -> dict[str, str]:
    """Return what the file has for each case."""
    parts = FILE.read_text("utf-8").split("\n=== ")[1:]
    return {name: text.rstrip("\n") for name, _, text in (part.partition("\n") for part in parts)}


if __name__ == "__main__":
    lines = [f"\n=== {name}\n{sent(path, body, options)}\n" for name, path, body, options in requests()]
    FILE.write_text("".join(lines), "utf-8")
