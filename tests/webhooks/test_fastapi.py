"""The dependency for FastAPI and Starlette: events in, responses out for what is rejected."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import cycles
from cycles.integrations.fastapi import webhook_event

SECRET = "whsec_test"
EVENT = {
    "event_id": "evt_1",
    "event_type": "budget.exhausted",
    "category": "budget",
    "timestamp": "2026-04-01T12:00:00Z",
    "tenant_id": "acme",
    "source": "cycles-server",
}
BODY = json.dumps(EVENT).encode()
SIGNED = {"X-Cycles-Signature": cycles.sign_webhook(BODY, SECRET)}


def fastapi_app(receiver: cycles.WebhookReceiver) -> Any:
    app = FastAPI()
    dependency = Depends(webhook_event(receiver))

    @app.post("/hook")
    async def hook(event: cycles.WebhookEvent = dependency) -> dict[str, Any]:
        receiver.done(event)
        return {"id": event.id, "duplicate": event.is_duplicate}

    return app


def starlette_app(receiver: cycles.WebhookReceiver) -> Any:
    dependency = webhook_event(receiver)

    async def hook(request: Request) -> PlainTextResponse:
        event = await dependency(request)
        receiver.done(event)
        return PlainTextResponse(json.dumps({"id": event.id, "duplicate": event.is_duplicate}))

    return Starlette(routes=[Route("/hook", hook, methods=["POST"])])


def post(app: Any, content: Any, headers: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            return await client.post("/hook", content=content, headers=headers)

    return asyncio.run(send())


@pytest.mark.parametrize("make", [fastapi_app, starlette_app])
def test_a_verified_delivery_reaches_the_route_and_others_become_responses(make: Any) -> None:
    app = make(cycles.WebhookReceiver(SECRET, seen=cycles.SeenEvents()))
    first = post(app, BODY, SIGNED)
    assert (first.status_code, first.json()) == (200, {"id": "evt_1", "duplicate": False})
    assert post(app, BODY, SIGNED).json() == {"id": "evt_1", "duplicate": True}
    assert post(app, BODY, {}).status_code == 401
    assert post(app, BODY + b" ", SIGNED).status_code == 401
    assert post(app, BODY, [*SIGNED.items(), *SIGNED.items()]).status_code == 401
    assert post(app, BODY, {**SIGNED, "X-Cycles-Event-Id": "evt_2"}).status_code == 400
    assert SECRET not in post(app, BODY, {}).text


def test_a_replay_is_rejected_with_the_status_of_its_error() -> None:
    app = fastapi_app(cycles.WebhookReceiver(SECRET, max_age_ms=1))
    assert post(app, BODY, SIGNED).status_code == 400


def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield b"x" * 100

    app = fastapi_app(cycles.WebhookReceiver(SECRET, max_body_bytes=250))

    async def run() -> list[Any]:
        sent: list[Any] = []
        source = chunks()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": await anext(source), "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/hook",
            "headers": [],
            "query_string": b"",
            "scheme": "http",
        }
        await app(
            {**scope, "http_version": "1.1", "server": ("app", 80), "client": ("c", 1), "root_path": ""}, receive, send
        )
        return sent

    sent = asyncio.run(run())
    assert sent[0]["status"] == 400
    assert read == 3


def test_the_dependency_needs_a_receiver() -> None:
    with pytest.raises(cycles.InvalidRequestError, match="receiver"):
        webhook_event("whsec_test")  # type: ignore[arg-type]


def test_a_missing_framework_is_named_with_the_line_that_installs_it() -> None:
    program = (
        "import sys; sys.modules['starlette'] = None\n"
        "try:\n    import cycles.integrations.fastapi\n"
        "except ImportError as error:\n    print(error)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "pip install 'cycles-sdk[fastapi]'" in told


@pytest.mark.parametrize("options", [{}, {"max_body_bytes": len(BODY)}])
def test_the_endpoint_may_read_the_body_too(options: Any) -> None:
    app = FastAPI()
    dependency = Depends(webhook_event(cycles.WebhookReceiver(SECRET, **options)))

    @app.post("/hook")
    async def hook(request: Request, event: cycles.WebhookEvent = dependency) -> dict[str, Any]:
        return {"same": await request.body() == BODY, "id": (await request.json())["event_id"] == event.id}

    assert post(app, BODY, SIGNED).json() == {"same": True, "id": True}
