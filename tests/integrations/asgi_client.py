"""Applications of FastAPI, and a client that calls them through the ASGI interface, without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from fastapi import FastAPI
from starlette.websockets import WebSocketDisconnect

import cycles
from cycles.integrations.fastapi import SubjectMiddleware, problem_details


class Response:
    """What an ASGI application sent."""

    def __init__(self, messages: list[Any]) -> None:
        start = next(message for message in messages if message["type"] == "http.response.start")
        self.status = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.body = b"".join(m.get("body", b"") for m in messages if m["type"] == "http.response.body")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def send_to(
    app: Any,
    path: str = "/",
    headers: dict[str, str] | None = None,
    *,
    method: str = "POST",
    raw: list[tuple[bytes, bytes]] | None = None,
    leave_after: int | None = None,
    spec: str = "2.4",
    state: dict[str, Any] | None = None,
) -> Response:
    """Send one request; with `leave_after` the caller leaves after that many parts of the body."""
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec},
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("test", 80),
        "client": ("test", 1),
        "headers": raw or [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "state": state or {},
    }
    sent: list[Any] = []
    left = asyncio.Event()
    requested = False

    async def receive() -> dict[str, Any]:
        nonlocal requested
        if not requested:
            requested = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if left.is_set() and spec >= "2.4":
            raise OSError("the caller left")
        sent.append(message)
        if leave_after is not None and len(sent) > leave_after:
            left.set()
            await asyncio.sleep(0)

    await app(scope, receive, send)
    return Response(sent)


async def connect(app: Any, path: str, headers: dict[str, str] | None = None) -> list[Any]:
    """Open a websocket, send one text, leave, and return what the application sent."""
    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "ws",
        "server": ("test", 80),
        "client": ("test", 1),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "subprotocols": [],
        "state": {},
    }
    incoming = [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "hello"},
        {"type": "websocket.disconnect", "code": 1000},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    with contextlib.suppress(WebSocketDisconnect):
        await app(scope, receive, send)
    return sent


def make_app(endpoint: Any, *, middleware: Any = (), handler: Any = problem_details) -> FastAPI:
    """Return an application with one endpoint at "/"; `middleware` has the options of each SubjectMiddleware."""
    app = FastAPI()
    for options in middleware:
        app.add_middleware(SubjectMiddleware, **options)
    app.add_exception_handler(cycles.CyclesError, handler)
    app.post("/")(endpoint)
    return app
