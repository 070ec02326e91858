"""Calls without an SDK, for tests of what they reserve, send, read and charge: one client, and what its server got."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

import attrs

import cycles
from cycles.providers._call import Call
from cycles.providers._endpoints import find
from cycles.providers._meter import make_meter
from cycles.providers._provider import Endpoint, provider_named
from cycles.providers._pump import Pump
from cycles.providers._settle import open_call
from cycles.testing._reply import Reply
from tests.providers.conftest import BOOK
from tests.support.requests import Requests

ESTIMATED = {"actual_source": "estimate"}
MESSAGES = [{"role": "user", "content": "hi"}]
CHAT: dict[str, Any] = {"model": "m", "messages": MESSAGES, "max_tokens": 500}


@attrs.define
class Ledger(Requests):
    """One client, and what its server was sent."""

    server: cycles.EmbeddedServer
    client: cycles.Cycles

    def call(
        self, name: str = "openai", path: str = "/chat/completions", body: Any = None, *, url: str = "", **options: Any
    ) -> Call:
        """Describe a request, and estimate it."""
        content = dict(CHAT if body is None else body)
        stream = content.pop("stream", False)
        meter = make_meter(name, provider_named(name).prices, {"client": self.client, "prices": BOOK, **options})
        endpoint = find(name, "POST", path)
        assert isinstance(endpoint, Endpoint), endpoint
        call = Call(meter, endpoint, path, content, stream=stream, url=url)
        call.reserved = call.estimate()
        return call

    def sent(self, *given: Any, **options: Any) -> Call:
        """Reserve a request, and send it."""
        call = self.call(*given, **options)
        call.limits(open_call(call))
        call.attempts = 1
        return call

    @property
    def metadata(self) -> dict[str, Any]:
        """Of the only commit."""
        [(_, metadata)] = self.commits
        return metadata


def fake(name: str) -> Any:
    return importlib.import_module(f"cycles.testing._{name}")


def whole(name: str, path: str, body: Mapping[str, Any], reply: Reply) -> bytes:
    return json.dumps(fake(name).body(path, body, reply)).encode()


def streamed(name: str, path: str, body: Mapping[str, Any], reply: Reply) -> list[bytes]:
    asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
    return list(fake(name).events(path, asked, reply))


KINDS = {"bedrock": "application/vnd.amazon.eventstream"}


def pump(call: Call, events: list[bytes], *, ends: bool = True) -> Pump:
    """Read a stream, or leave it."""
    made = Pump(call, KINDS.get(call.meter.provider, "text/event-stream"))
    for event in events:
        made.take(event)
    if ends:
        made.take(None)
    return made


def chat(usage: Mapping[str, Any] | None = None, **members: Any) -> bytes:
    used = {"prompt_tokens": 1000, "completion_tokens": 100} if usage is None else usage
    return json.dumps({"id": "r", "model": "m", "usage": used, "choices": [], **members}).encode()
