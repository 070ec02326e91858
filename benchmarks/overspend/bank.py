"""A fake provider of models that keeps the true bill, as a process: OpenAI chat and responses, Anthropic messages.

It bills by its own prices and never reads one from a tool. A whole response is billed when it is made, also if the
connection then breaks, and has at most the output limit of the request. A stream is billed by the events that were sent
until the end of its client was seen. A status of 500 costs nothing. ``POST /_plan`` sets what it does and a bill of 0,
``GET /_bill`` returns the bill. It needs the standard library only.
An error tells the client to retry after 20 ms, so that a case does not take minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

TENTHS: Final = {
    "gpt-4o": (2_500, 10_000, 1_250),
    "gpt-4o-mini": (150, 600, 75),
    "gpt-5": (1_250, 10_000, 125),
    "claude-sonnet-4-5": (3_000, 15_000, 300),
    "acme-large-v1": (2_500, 10_000, 1_250),
}
"""Tenths of a microcent for a token that is read, written, or read from the cache."""
CACHE_WRITE: Final = 3_750
CACHE_WRITE_1H: Final = 6_000
"""Tenths of a microcent for a token that Claude writes to its cache for five minutes, or for one hour."""
EVENTS: Final = 20
"""Events of a stream, all of the same size."""
TEXT: Final = " word"
"""One token of output text."""


@dataclass
class Tokens:
    """What one response uses; the input contains what was read from and written to the cache."""

    read: int = 1_000
    written: int = 5_000
    cached: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0


@dataclass
class Plan:
    """What the provider does.

    Attributes:
        tokens: What a response uses, by model; the key "" is for all others.
        sequence: Outcomes of the requests in turn, again from the start at its end: ``"ok"``, ``"500"``, or
            ``"lost"``, a response that is billed and not sent.
        failing: Models that always return 500.
        delay_s: Seconds until a whole response is made.
        gap_s: Seconds between two events of a stream.
    """

    tokens: dict[str, Tokens] = field(default_factory=lambda: {"": Tokens()})
    sequence: list[str] = field(default_factory=lambda: ["ok"])
    failing: list[str] = field(default_factory=list)
    delay_s: float = 0.3
    gap_s: float = 0.05


def plan_of(value: Mapping[str, Any]) -> Plan:
    """Return a plan from its JSON form."""
    given = {model: Tokens(**tokens) for model, tokens in value.get("tokens", {"": {}}).items()}
    return Plan(**{**value, "tokens": given})


def cost(model: str, tokens: Tokens) -> int:
    """Return what a response costs, in tenths of a microcent."""
    read, written, cached = TENTHS[model]
    fresh = tokens.read - tokens.cached - tokens.cache_write - tokens.cache_write_1h
    of_cache = tokens.cached * cached + tokens.cache_write * CACHE_WRITE + tokens.cache_write_1h * CACHE_WRITE_1H
    return fresh * read + of_cache + tokens.written * written


class Bank:
    """The plan, the bill, and one HTTP server."""

    def __init__(self) -> None:
        self.plan = Plan()
        self.bill = self.requests = self.made = self.open = 0

    def set(self, plan: Plan) -> None:
        """Begin a new case: the bill is 0."""
        self.plan = plan
        self.bill = self.requests = self.made = 0

    def charge(self, model: str, tokens: Tokens) -> None:
        """Bill one response."""
        self.bill += cost(model, tokens)
        self.made += 1

    def outcome(self, model: str) -> str:
        """Return what happens to the next request."""
        number = self.requests
        self.requests += 1
        return "500" if model in self.plan.failing else self.plan.sequence[number % len(self.plan.sequence)]

    def tokens(self, model: str, limit: int | None) -> Tokens:
        """Return what a response uses, at an output limit."""
        planned = self.plan.tokens.get(model) or self.plan.tokens[""]
        written = planned.written if limit is None else min(planned.written, limit)
        return Tokens(**{**vars(planned), "written": written, "reasoning": min(planned.reasoning, written)})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve the requests of one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path, *_ = head.decode("latin-1").split(" ", 2)
                length = next((int(v) for n, v in _headers(head) if n == "content-length"), 0)
                body = json.loads(await reader.readexactly(length)) if length else {}
                if not await self._respond(reader, writer, method, path.partition("?")[0], body):
                    break
        writer.close()

    async def _respond(self, reader: Any, writer: Any, method: str, path: str, body: Any) -> bool:
        """Respond to one request, and return whether the connection stays open."""
        if path == "/_plan":
            self.set(plan_of(body))
        if path in ("/_plan", "/_bill"):
            said = {"microcents": self.bill / 10, "requests": self.requests, "made": self.made, "open": self.open}
            return await _send(writer, 200, said)
        kind = next((k for k in ("chat/completions", "responses", "messages") if path.endswith(k)), None)
        if method != "POST" or kind is None or body.get("model") not in TENTHS:
            return await _send(writer, 404, {"error": {"message": f"the bank does not serve {method} {path}"}})
        model, outcome = body["model"], self.outcome(body["model"])
        tokens = self.tokens(model, _limit(body))
        if body.get("stream") and outcome == "ok":
            return await self._stream(reader, writer, body, tokens)
        await asyncio.sleep(self.plan.delay_s)
        if outcome == "500":
            problem = {"error": {"message": "the model is overloaded", "type": "server_error"}}
            return await _send(writer, 500, problem, "retry-after-ms: 20\r\n")
        self.charge(model, tokens)
        return outcome != "lost" and await _send(writer, 200, RESPONSES[kind](model, tokens, _limit(body)))

    async def _stream(self, reader: Any, writer: Any, body: Mapping[str, Any], tokens: Tokens) -> bool:
        """Send a stream of chat events, and bill what was sent until its client has ended."""
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        model, sent = body["model"], 0
        self.open += 1
        try:
            for number in range(EVENTS):
                if reader.at_eof() or writer.is_closing():
                    return False
                part = tokens.written * (number + 1) // EVENTS - tokens.written * number // EVENTS
                writer.write(_event(model, TEXT * part))
                await writer.drain()
                sent += part
                await asyncio.sleep(self.plan.gap_s)
            writer.write(_event(model, "", finish="stop"))
            if (body.get("stream_options") or {}).get("include_usage"):
                writer.write(_event(model, None, usage=_openai_usage(tokens)))
            writer.write(b"data: [DONE]\n\n")
            await writer.drain()
        finally:
            self.open -= 1
            self.charge(model, Tokens(**{**vars(tokens), "written": sent, "reasoning": 0}))
        return False


def _headers(head: bytes) -> list[tuple[str, str]]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = [line.partition(":") for line in lines if ":" in line]
    return [(name.strip().lower(), value.strip()) for name, _, value in pairs]


def _limit(body: Mapping[str, Any]) -> int | None:
    limits = [body.get(name) for name in ("max_tokens", "max_completion_tokens", "max_output_tokens")]
    return next((limit for limit in limits if isinstance(limit, int)), None)


def _openai_usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens.read,
        "completion_tokens": tokens.written,
        "total_tokens": tokens.read + tokens.written,
        "prompt_tokens_details": {"cached_tokens": tokens.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning, "audio_tokens": 0},
    }


def _event(model: str, text: str | None, *, finish: str | None = None, usage: Any = None) -> bytes:
    delta = {"role": "assistant", "content": text} if text else {}
    choices = [] if text is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices}
    return b"data: " + json.dumps(chunk | ({"usage": usage} if usage else {})).encode() + b"\n\n"


def _chat(model: str, tokens: Tokens, limit: int | None) -> dict[str, Any]:
    finish = "length" if limit is not None and tokens.written >= limit else "stop"
    message = {"role": "assistant", "content": "done"}
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    usage = _openai_usage(tokens)
    return {"id": "c", "object": "chat.completion", "created": 1, "model": model, "choices": choices, "usage": usage}


def _response(model: str, tokens: Tokens, limit: int | None) -> dict[str, Any]:
    part = {"type": "output_text", "text": "done", "annotations": []}
    output = [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}]
    usage = {
        "input_tokens": tokens.read,
        "output_tokens": tokens.written,
        "total_tokens": tokens.read + tokens.written,
        "input_tokens_details": {"cached_tokens": tokens.cached},
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }
    top = {"id": "r", "object": "response", "created_at": 1, "model": model, "status": "completed"}
    more = {"parallel_tool_calls": False, "tool_choice": "auto", "tools": []}
    return {**top, "output": output, "usage": usage, **more}


def _message(model: str, tokens: Tokens, limit: int | None) -> dict[str, Any]:
    usage = {
        "input_tokens": tokens.read - tokens.cached - tokens.cache_write - tokens.cache_write_1h,
        "cache_read_input_tokens": tokens.cached,
        "cache_creation_input_tokens": tokens.cache_write + tokens.cache_write_1h,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        },
        "output_tokens": tokens.written,
    }
    content = [{"type": "text", "text": "done"}]
    top = {"id": "m", "type": "message", "role": "assistant", "model": model, "content": content}
    return {**top, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}


RESPONSES: Final = {"chat/completions": _chat, "responses": _response, "messages": _message}


async def _send(writer: Any, status: int, value: Any, more: str = "") -> bool:
    data = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n{more}content-length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    await writer.drain()
    return True


async def main() -> None:
    """Serve on a free port of loopback, print it, and end with the standard input."""
    bank = Bank()
    server = await asyncio.start_server(bank.serve, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
