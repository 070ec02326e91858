"""A client against a scripted server; a test that expects a timeout shortens it. No retries in the background."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cycles
from tests.http.connections import connect as connect, kind as kind
from tests.support.inside import runtime_of, state_of
from tests.support.stub import Answer, Stub, ok

KEY = "cyc_live_0123456789abcdef"
ACTION = ("llm.completion", "small-model")
PATIENCE_S = 240.0
"""How long a healthy request may take; only a failing test waits that long."""
AMOUNT = {"unit": "TOKENS", "amount": 100}

CREATED = {
    "decision": "ALLOW",
    "reservation_id": "res-1",
    "affected_scopes": ["tenant:acme"],
    "reserved": AMOUNT,
    "expires_at_ms": 1_700_000_060_000,
    "remaining_ttl_ms": 60_000,
}
ANSWERS: dict[str, dict[str, Any]] = {
    "create": CREATED,
    "commit": {"status": "COMMITTED", "charged": {"unit": "TOKENS", "amount": 7}},
    "release": {"status": "RELEASED", "released": AMOUNT},
    "extend": {"status": "ACTIVE", "expires_at_ms": 1_700_000_120_000, "remaining_ttl_ms": 120_000},
    "decide": {"decision": "ALLOW"},
    "balances": {"balances": []},
    "event": {"status": "APPLIED", "event_id": "evt-1"},
}
"""The smallest answer of each operation that proves it."""
SETTLING = ("commit", "release", "extend")

Make = Callable[..., cycles.Cycles]


class Caller:
    """One call of an operation, sync or async, after the calls that it needs."""

    def __init__(self, kind: str, make: Make) -> None:
        self.is_async = kind == "async"
        self.timeout_s = PATIENCE_S
        """Of the operation; the calls before it have more time."""
        self._make = make
        self.guard: Any = None
        self.client: Any = None

    def __call__(self, operation: str, stub: Stub, *answers: Answer, **settings: Any) -> Any:
        """What the user of `operation` sees if the server sends these responses."""
        return asyncio.run(self._call(operation, stub, answers, settings))

    async def _call(self, operation: str, stub: Stub, answers: tuple[Answer, ...], settings: dict[str, Any]) -> Any:
        if operation not in SETTLING:
            settings = {"timeout": self.timeout_s, **settings}
        self.client = self._make(stub.url, **settings)
        if operation in SETTLING:
            stub.then(ok(CREATED))
            self.guard = await self.get(self._acquire())
            runtime_of(self.client).channel.timeout_s = self.timeout_s
        stub.then(*answers)
        try:
            return await self.get(self._start(operation))
        finally:
            if self.guard is not None and not state_of(self.guard).finalized:
                state_of(self.guard).claim("left to the test")

    def _acquire(self) -> Any:
        reservation = self.client.reserve(cycles.tokens(100), action=ACTION)
        return reservation if self.is_async else reservation.acquire()

    def _start(self, operation: str) -> Any:
        calls = self.client.aio if self.is_async else self.client
        if operation == "create":
            return self._created()
        if operation == "commit":
            return self.guard.commit(cycles.tokens(7))
        if operation in ("release", "extend"):
            return getattr(self.guard, operation)()
        if operation == "decide":
            return calls.decide(cycles.tokens(7), action=ACTION)
        if operation == "event":
            return calls.record(cycles.tokens(7), action=ACTION)
        return self._all(calls.balances())

    async def _created(self) -> Any:
        self.guard = await self.get(self._acquire())
        return self.guard

    async def _all(self, items: Any) -> list[Any]:
        return [item async for item in items] if self.is_async else list(items)

    async def get(self, value: Any) -> Any:
        return await value if inspect.isawaitable(value) else value


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Clients that do not repeat. What is still pending ends with them."""
    with contextlib.ExitStack() as stack:

        def client(url: str, **settings: Any) -> cycles.Cycles:
            base: dict[str, Any] = {
                "timeout": PATIENCE_S,
                "connect_timeout": PATIENCE_S,
                "flush_timeout": 0.0,
                "journal": False,
            }
            base |= {"base_url": url, "api_key": KEY, "tenant": "acme", "retry_initial_delay": 60.0}
            made = cycles.Cycles(**{**base, **settings})
            stack.callback(made.close)
            return made

        yield client


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, make: Make) -> Caller:
    return Caller(request.param, make)
