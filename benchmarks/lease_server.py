"""A server with leases: an extend renews a lease to its full ttl. It counts lapsed leases, and can inject faults.

`python -m benchmarks.lease_server [FAULTS]` prints its port and serves until its standard input ends. FAULTS is the
share of extends with a fault, from 0 to 1.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

_REASONS = {200: "OK", 409: "Conflict", 410: "Gone", 429: "Too Many Requests", 503: "Service Unavailable"}
_SLOW_S = 0.4
# An attempt of a second, a margin of a second, and the response time. See docs/protocol/heartbeat.md#recovery.
_LEAST_LEAD_S = 2.1


class Leases:
    """Every lease of this server, with its state."""

    def __init__(self, faults: float) -> None:
        self.faults = faults
        self.random = random.Random(7)
        self.expires: dict[str, float] = {}
        self.extends: dict[str, int] = {}
        self.hopeless: set[str] = set()
        self.lapsed = 0
        self.created = 0

    def create(self, ttl_ms: int) -> dict[str, Any]:
        self.created += 1
        name = f"rsv-{self.created:08d}"
        self.expires[name] = time.monotonic() + ttl_ms / 1000
        self.extends[name] = 0
        created = {"decision": "ALLOW", "reservation_id": name, "affected_scopes": ["tenant:acme"]}
        return created | self._left(ttl_ms)

    def extend(self, name: str, by_ms: int) -> tuple[int, dict[str, Any]]:
        now = time.monotonic()
        if name not in self.expires:
            return 409, {"error": "RESERVATION_FINALIZED", "message": "it was released", "request_id": "r"}
        if now >= self.expires[name]:
            self.lapsed += 1
            return 410, {"error": "RESERVATION_EXPIRED", "message": "it lapsed", "request_id": "r"}
        self.expires[name] = max(self.expires[name], now + by_ms / 1000)
        self.extends[name] += 1
        return 200, {"status": "ACTIVE"} | self._left(by_ms)

    def fault(self, name: str) -> str | None:
        """Return the fault of this extend, or None."""
        wrong = self.random.random() < self.faults
        kind = self.random.choice(["503", "429", "429 too long", "hang up", "slow"]) if wrong else None
        no_safe_retry = self.expires.get(name, 0.0) - time.monotonic() < _LEAST_LEAD_S
        if kind == "429 too long" or (kind in ("503", "429", "hang up") and no_safe_retry):
            self.hopeless.add(name)
        return kind

    def stats(self) -> dict[str, Any]:
        now = time.monotonic()
        return {
            "created": self.created,
            "extends": sum(self.extends.values()),
            "fewest_extends": min((self.extends[name] for name in self.expires), default=0),
            "lapsed": self.lapsed + sum(until < now for until in self.expires.values()),
            "hopeless": sorted(self.hopeless),
        }

    def _left(self, ttl_ms: int) -> dict[str, int]:
        return {"remaining_ttl_ms": ttl_ms, "expires_at_ms": time.time_ns() // 1_000_000 + ttl_ms}


class _Connection(asyncio.Protocol):
    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (end := self._unread.find(b"\r\n\r\n")) >= 0:
            head = self._unread[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._unread) < end + 4 + length:
                return
            body = self._unread[end + 4 : end + 4 + length]
            target = self._unread.split(b" ", 2)[1].decode()
            self._unread = self._unread[end + 4 + length :]
            self._serve(target, json.loads(body) if body else {})

    def _serve(self, target: str, body: dict[str, Any]) -> None:
        leases = self._leases
        if target == "/stats":
            self._respond(200, leases.stats())
        elif target.endswith("/extend"):
            self._extend(target.split("/")[-2], body["extend_by_ms"])
        elif target.endswith("/release"):
            leases.expires.pop(target.split("/")[-2], None)
            self._respond(200, {"status": "RELEASED", "released": {"unit": "TOKENS", "amount": 1}})
        else:
            self._respond(200, leases.create(body["ttl_ms"]))

    def _extend(self, name: str, by_ms: int) -> None:
        match self._leases.fault(name):
            case None:
                self._respond(*self._leases.extend(name, by_ms))
            case "slow":
                reply = self._leases.extend(name, by_ms)
                asyncio.get_running_loop().call_later(_SLOW_S, self._respond, *reply)
            case "hang up":
                self._transport.close()
            case "503":
                self._respond(503, {"error": "INTERNAL_ERROR", "message": "a fault", "request_id": "r"})
            case throttled:
                wait = b"Retry-After: %d\r\n" % (0 if throttled == "429" else 60)
                self._respond(429, {"error": "LIMIT_EXCEEDED", "message": "a fault", "request_id": "r"}, wait)

    def _respond(self, status: int, body: dict[str, Any], header: bytes = b"") -> None:
        content = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Length: {len(content)}\r\n".encode()
        self._transport.write(head + header + b"Content-Type: application/json\r\n\r\n" + content)


async def _main(faults: float) -> None:
    leases = Leases(faults)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(leases), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_main(float(sys.argv[1]) if len(sys.argv) > 1 else 0.0))
