"""Write into the Redis of a live server what the admin API cannot set: debt, flags, caps, corrupt records.

The layout of the keys is that of the reference server 0.1.25.59. CYCLES_CONTRACT_REDIS names the Redis.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .live_budget import Wanted


class Redis:
    """The few commands of Redis that tests need, as raw RESP."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname or "", address.port or 6379), timeout=30)
        self._file = self._socket.makefile("rb")

    def call(self, *words: bytes | str) -> Any:
        """Send a command and return its reply."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        request = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self._socket.sendall(b"*%d\r\n%s" % (len(parts), request))
        return self._reply()

    def _reply(self) -> Any:
        line = self._file.readline()
        kind, rest = line[:1], line[1:].rstrip()
        if kind == b"-":
            raise AssertionError(rest.decode())
        if kind == b"$":
            return None if int(rest) < 0 else self._file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        return rest

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._socket.close()


def read_budget(redis: Redis, scope: str, unit: str) -> dict[str, str]:
    """Return the stored members of a budget, none if there is no budget."""
    found = redis.call("HGETALL", f"budget:{scope}:{unit}")
    texts = [text.decode() for text in found]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def write_budget(redis: Redis, tenant: str, scope: str, wanted: Wanted) -> None:
    """Create or replace a budget. It keeps its reserved amount."""
    unit = wanted.unit
    key = f"budget:{scope}:{unit}"
    reserved = int(read_budget(redis, scope, unit).get("reserved", "0"))
    members: dict[str, Any] = {
        "ledger_id": key,
        "tenant_id": tenant,
        "scope": scope,
        "unit": unit,
        "allocated": wanted.allocated.amount,
        "remaining": wanted.allocated.amount - wanted.spent - reserved - wanted.debt,
        "reserved": reserved,
        "spent": wanted.spent,
        "debt": wanted.debt,
        "overdraft_limit": wanted.overdraft_limit,
        "is_over_limit": "true" if wanted.is_over_limit else "false",
        "status": wanted.status,
        "created_at": "1700000000000",
    }
    if wanted.caps is not None:
        members["caps_json"] = json.dumps(wanted.caps)
    redis.call("DEL", key)
    redis.call("HSET", key, *(str(word) for member in members.items() for word in member))
    redis.call("SADD", f"budgets:{tenant}", key)


def delete_budget(redis: Redis, tenant: str, scope: str, unit: str) -> None:
    """Delete a budget."""
    key = f"budget:{scope}:{unit}"
    redis.call("DEL", key)
    redis.call("SREM", f"budgets:{tenant}", key)


def write_tenant(redis: Redis, tenant: str, members: Mapping[str, Any]) -> None:
    """Replace members of a tenant's record. A member that is None is removed, except for the status."""
    key = f"tenant:{tenant}"
    record = json.loads(redis.call("GET", key)) | members
    kept = {name: value for name, value in record.items() if value is not None or name == "status"}
    redis.call("SET", key, json.dumps(kept))
