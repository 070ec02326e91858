"""A receiver on loopback, and an embedded server whose clock a test moves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

import cycles

ADMIN = "admin-key"
START = 1_700_000_000_000
ACTION = ("llm.completion", "gpt-4o")


class Hook:
    """A receiver on loopback. It responds with the next status, 204 by default, and keeps what came."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.received: list[tuple[list[tuple[str, str]], bytes]] = []
        self.arrived = threading.Semaphore(0)
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.received.append((self.headers.items(), body))
                self.send_response(hook.statuses.pop(0) if hook.statuses else 204)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
                hook.arrived.release()

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/hook"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def events(self, *secrets: str) -> list[cycles.WebhookEvent]:
        receiver = cycles.WebhookReceiver(secrets)
        return [receiver.receive(body=body, headers=headers) for headers, body in self.received]

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


@pytest.fixture
def clock() -> cycles.ManualClock:
    return cycles.ManualClock(START)


@pytest.fixture
def server(clock: cycles.ManualClock) -> Iterator[cycles.EmbeddedServer]:
    budgets = {"tenant:acme": cycles.tokens(1000), "tenant:other": cycles.tokens(1000)}
    with cycles.EmbeddedServer(budgets=budgets, clock=clock, admin_api_key=ADMIN) as server:
        yield server


@pytest.fixture
def client(server: cycles.EmbeddedServer) -> Iterator[cycles.Cycles]:
    with server.client(tenant="acme") as client:
        yield client


def types(events: list[cycles.WebhookEvent]) -> list[str]:
    return [event.type for event in events]


class Api:
    """The HTTP operations, with a key."""

    def __init__(self, server: cycles.EmbeddedServer, **headers: str) -> None:
        self.http = httpx.Client(transport=server.transport(), base_url="http://x", headers=headers)

    def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        response = self.http.request(method, path, json=body) if body is not None else self.http.request(method, path)
        return response.status_code, response.json() if response.content else None
