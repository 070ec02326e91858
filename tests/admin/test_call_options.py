"""`timeout=` and `extra_headers=` of each admin operation, sync and async."""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from typing import Any

import httpx
import pytest

import cycles
from cycles.admin import Admin

from .scripted import FIVE, TENANT, Script, budget_body, funding_body, key_body, ok

HEADERS = {"X-Team": "red"}
SCOPE = "tenant:acme"
OPERATIONS: list[tuple[str, Any, dict[str, Any], Any]] = [
    ("tenant", ("acme",), {}, TENANT),
    ("create_tenant", ("acme", "Acme"), {}, TENANT),
    ("suspend_tenant", ("acme",), {}, TENANT),
    ("budget", (SCOPE,), {"unit": "TOKENS"}, budget_body()),
    ("freeze", (SCOPE,), {"unit": "TOKENS"}, budget_body()),
    ("credit", (SCOPE, FIVE), {}, funding_body()),
    ("start_period", (SCOPE, FIVE), {"period": "2026-05"}, funding_body()),
    ("create_api_key", ("acme", "prod"), {}, key_body()),
    ("budgets", (), {}, {"ledgers": [], "has_more": False}),
    ("raw", ("getTenant",), {"tenant_id": "acme"}, TENANT),
]


def called(script: Script, name: str, arguments: Any, keywords: Any, *, is_async: bool) -> None:
    """Call an operation, and read a list to its end."""
    if not is_async:
        made = getattr(script.admin, name)(*arguments, **keywords)
        if name == "budgets":
            assert list(made) == []
        return

    async def call() -> None:
        made = getattr(script.admin.aio, name)(*arguments, **keywords)
        if hasattr(made, "__anext__"):
            assert [item async for item in made] == []
        else:
            await made

    asyncio.run(call())


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("name", "arguments", "keywords", "body"), OPERATIONS, ids=[row[0] for row in OPERATIONS])
def test_every_operation_takes_headers_and_a_timeout(
    name: str, arguments: Any, keywords: Any, body: Any, is_async: bool
) -> None:
    status = 201 if name.startswith("create") else 200
    script = Script(ok(body, status), ok(body, status))
    called(script, name, arguments, {**keywords, "extra_headers": HEADERS, "timeout": 3.0}, is_async=is_async)
    called(script, name, arguments, keywords, is_async=is_async)
    assert [request.headers.get("x-team") for request in script.requests] == ["red", None]
    assert script.requests[0].extensions["timeout"]["read"] <= 3.0
    own_keys: list[Any] = [{"extra_headers": {key: "k"}} for key in ("X-Admin-API-Key", "X-Cycles-API-Key")]
    for wrong in [*own_keys[: 1 if name == "raw" else 2], {"timeout": 0}]:
        with pytest.raises(cycles.InvalidRequestError):
            called(script, name, arguments, {**keywords, **wrong}, is_async=is_async)
    with pytest.raises((TypeError, cycles.InvalidRequestError)):
        called(script, name, arguments, {**keywords, "time_out": 3.0}, is_async=is_async)
    assert len(script.requests) == 2


def test_every_operation_shows_the_two_options_in_its_signature() -> None:
    names = [name for name in vars(type(Script().admin.aio)) if not name.startswith("_")]
    assert {"onboard", "budgets", "raw"} <= set(names)
    for name in names:
        parameters = inspect.signature(getattr(Admin, name)).parameters
        assert ("request" in parameters) is not ({"timeout", "extra_headers"} <= set(parameters)), name


def test_all_requests_of_onboard_have_its_headers() -> None:
    script = Script(ok(TENANT, 201), ok(budget_body(), 201), ok(key_body(), 201))
    script.admin.onboard("acme", "Acme", budgets={SCOPE: FIVE}, key_name="prod", extra_headers=HEADERS, timeout=3.0)
    assert [request.headers.get("x-team") for request in script.requests] == ["red"] * 3


def test_a_timeout_of_one_call_ends_its_attempts() -> None:
    server = cycles.EmbeddedServer(budgets={SCOPE: FIVE}, admin_api_key="admin")
    with server, server.listen() as url, Admin(url, "admin") as admin:
        admin.tenant("acme")  # connects, which may take longer than the timeout on a busy machine
        server.faults.delay("getTenant", 60.0, times=None)
        started = time.monotonic()
        with pytest.raises(cycles.TransportError, match="timed out"):
            admin.tenant("acme", timeout=0.05)
        assert time.monotonic() - started < 30


def test_headers_of_a_call_replace_those_of_the_same_name() -> None:
    script = Script(ok(TENANT))
    script.admin.tenant("acme", extra_headers={"x-team": "blue"})
    headers: httpx.Headers = script.requests[0].headers
    assert headers["X-Team"] == "blue"


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_an_error_names_the_variables_of_the_admin_client(is_async: bool) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with Admin(url, "admin") as admin, pytest.raises(cycles.TransportError, match="CYCLES_ADMIN_BASE_URL"):
            if is_async:
                asyncio.run(admin.aio.tenant("acme", timeout=2.0))
            else:
                admin.tenant("acme", timeout=2.0)
