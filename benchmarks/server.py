"""The stub server of the benchmarks: it returns fixed responses immediately, and counts requests and bytes.

`python -m benchmarks.server` prints its port, and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

TTL_MS = 60_000
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nX-Request-Id: req-0123456789abcdef\r\n"
    b"X-Cycles-Trace-Id: 0123456789abcdef0123456789abcdef\r\nDate: Wed, 25 Nov 2026 01:00:00 GMT\r\n\r\n"
)


def _amount(amount: int) -> dict[str, object]:
    return {"unit": "USD_MICROCENTS", "amount": amount}


def _balance(scope: str) -> dict[str, object]:
    amounts = {"remaining": 900_000_000, "reserved": 5_000_000, "spent": 95_000_000, "allocated": 1_000_000_000}
    return {"scope": scope.split("/")[-1], "scope_path": scope} | {name: _amount(n) for name, n in amounts.items()}


_SCOPES = ["tenant:acme", "tenant:acme/agent:bot"]
_BALANCES = [_balance(scope) for scope in _SCOPES]
_CREATED = {
    "decision": "ALLOW",
    "affected_scopes": _SCOPES,
    "scope_path": _SCOPES[-1],
    "reserved": _amount(5_000_000),
    "remaining_ttl_ms": TTL_MS,
    "balances": _BALANCES,
}
_COMMITTED = {"status": "COMMITTED", "charged": _amount(3_200_000), "released": _amount(1_800_000)}
_EXTENDED = {"status": "ACTIVE", "remaining_ttl_ms": TTL_MS}
_RELEASED = {"status": "RELEASED", "released": _amount(5_000_000)}


class Counts:
    """What the server received since the last request for `/counts`."""

    def __init__(self) -> None:
        self.requests = 0
        self.bytes = 0
        self.connections = 0


class _Connection(asyncio.Protocol):
    def __init__(self, counts: Counts, delay_s: float) -> None:
        self._counts = counts
        self._delay_s = delay_s
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._counts.connections += 1

    def data_received(self, data: bytes) -> None:
        self._counts.bytes += len(data)
        self._unread += data
        while (end := self._unread.find(b"\r\n\r\n")) >= 0:
            head = self._unread[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._unread) < end + 4 + length:
                return
            target = self._unread.split(b" ", 2)[1]
            self._unread = self._unread[end + 4 + length :]
            body = self._body(target.decode())
            response = _HEAD % len(body) + body
            if self._delay_s:
                asyncio.get_running_loop().call_later(self._delay_s, self._transport.write, response)
            else:
                self._transport.write(response)

    def _body(self, target: str) -> bytes:
        counts = self._counts
        if target == "/counts":
            seen = {"requests": counts.requests, "bytes": counts.bytes, "connections": counts.connections}
            counts.requests = counts.bytes = counts.connections = 0
            return json.dumps(seen).encode()
        counts.requests += 1
        if target.endswith("/commit"):
            return json.dumps(_COMMITTED | {"balances": _BALANCES}).encode()
        expires = {"expires_at_ms": time.time_ns() // 1_000_000 + TTL_MS}
        if target.endswith("/extend"):
            return json.dumps(_EXTENDED | expires).encode()
        if target.endswith("/release"):
            return json.dumps(_RELEASED).encode()
        number = {"reservation_id": f"rsv-{time.monotonic_ns():016x}-{counts.requests:08x}"}
        return json.dumps(_CREATED | number | expires).encode()


async def _main() -> None:
    counts = Counts()
    loop = asyncio.get_running_loop()
    delay_s = float(sys.argv[1]) / 1000 if len(sys.argv) > 1 else 0.0
    server = await loop.create_server(lambda: _Connection(counts, delay_s), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_main())
