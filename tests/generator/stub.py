"""A server for the protocol of given tables: its responses are complete, valid, and made from the schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from types import TracebackType
from typing import Any, Protocol, Self

import httpx

import cycles
from generator.samples import Samples

Json = dict[str, Any]
LEASE = {"remaining_ttl_ms": 60_000, "expires_at_ms": 1_900_000_000_000}


class Tables(Protocol):
    """The schemas and operations of a document: those of `cycles_client`, or a `generator.protocol.Tables`."""

    schemas: dict[str, Any]
    operations: dict[str, Json]


class Server:
    """Respond as `tables` say, after `change(operation_id, body)`. The requests received are in `requests`."""

    def __init__(self, tables: Tables, change: Callable[[str, Json], Any] | None = None) -> None:
        self.tables = tables
        self.samples = Samples(tables.schemas)
        self.change = change
        self.requests: list[tuple[str, httpx.Request]] = []

    def body(self, operation_id: str) -> Json:
        """Return the body of the last request of an operation."""
        request = next(request for name, request in reversed(self.requests) if name == operation_id)
        body: Json = json.loads(request.content)
        return body

    def query(self, operation_id: str) -> dict[str, str]:
        """Return the query of the last request of an operation."""
        request = next(request for name, request in reversed(self.requests) if name == operation_id)
        return dict(request.url.params)

    def respond(self, request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode().partition("?")[0]
        for name, entry in self.tables.operations.items():
            path = re.sub(r"\\{[^}]+\\}", "[^/]+", re.escape(entry["path"]))
            if entry["method"] == request.method and re.fullmatch(path, target):
                self.requests.append((name, request))
                return self._success(name, entry)
        return httpx.Response(404, json={"error": "NOT_FOUND", "message": str(request.url), "request_id": "r"})

    def _success(self, name: str, entry: Json) -> httpx.Response:
        if entry["response"] is None:
            return httpx.Response(entry["success"])
        body = self.samples.of({"$ref": entry["response"]}, full=True)
        if isinstance(body, dict):
            body.update({key: value for key, value in LEASE.items() if key in body})
            body.pop("next_cursor", None)
            if name == "createReservation":
                body["reservation_id"] = "r1"
        changed = self.change(name, body) if self.change else None
        return changed if isinstance(changed, httpx.Response) else httpx.Response(entry["success"], json=body)


class Connected:
    """A client of such a server, for sync and async code. It opens no socket and no file."""

    def __init__(self, server: Server) -> None:
        self.server = server
        transport = httpx.MockTransport(server.respond)
        self.blocking = httpx.Client(transport=transport)
        self.asynchronous = httpx.AsyncClient(transport=transport)
        self.client = cycles.Cycles(
            cycles.Config(base_url="http://cycles.test", api_key="key-of-the-stub", tenant="acme", journal=False),
            http_client=self.blocking,
            async_http_client=self.asynchronous,
        )

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._stack.enter_context(self.blocking)
        self._stack.enter_context(self.client)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    async def __aenter__(self) -> Self:
        self._async_stack = AsyncExitStack()
        await self._async_stack.enter_async_context(self.asynchronous)
        await self._async_stack.enter_async_context(self.client)
        self._async_stack.enter_context(self.blocking)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._async_stack.aclose()
