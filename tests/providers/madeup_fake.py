"""The fake of the provider that does not exist."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cycles.testing._reply import Reply


def body(path: str, request: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
    counts = reply.counts(request)
    units = {"read": counts.get("tokens_input", 0), "written": counts.get("tokens_output", 0)}
    return {"id": "t1", "model": request.get("model"), "thought": reply.text, "units": units}


def events(path: str, request: Mapping[str, Any], reply: Reply) -> Iterator[bytes]:
    yield from ()


def error(reply: Reply) -> dict[str, Any]:
    return {"oops": reply.error}


def error_event(path: str, reply: Reply) -> bytes:
    return b""
