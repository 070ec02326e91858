"""What the blocks of `docs/webhooks.md` run with: a signed request, and a web server that receives."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import cycles


def signed(event_id: str = "evt_1") -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a delivery."""
    event = {
        "event_id": event_id,
        "event_type": "budget.exhausted",
        "category": "budget",
        "timestamp": "2026-04-01T12:00:00Z",
        "tenant_id": "acme",
        "source": "cycles-server",
        "data": {"scope": "tenant:acme", "unit": "TOKENS", "allocated": 10000, "spent": 10000, "remaining": 0},
    }
    body = json.dumps(event).encode()
    signature = cycles.sign_webhook(body, "whsec_current")
    return body, {"Content-Type": "application/json", "X-Cycles-Signature": signature}


class request:
    body, headers = signed()


class Hook:
    """A web server on loopback that keeps each delivery, until it is closed."""

    def __init__(self) -> None:
        received: list[tuple[bytes, dict[str, str]]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                received.append((self.rfile.read(int(self.headers["Content-Length"])), dict(self.headers)))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.received = received
        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/cycles"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
