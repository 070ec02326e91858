"""`cycles mcp`: real client sessions over stdin and HTTP, hosts that disappear, and calls that are wrong.

What needs no MCP is in `tests/operators/test_mcp_desk.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import cycles

pytest.importorskip("mcp.server.mcpserver", reason="mcp 2 is not installed: run make test-integrations")

import anyio
import httpx
from mcp import Client, StdioServerParameters, stdio_client

pytestmark = pytest.mark.anyio
ACTION = "tool.call/web_search"
BUDGETS: dict[str, Any] = {"tenant:acme": cycles.usd(10), "tenant:acme/agent:bot": [cycles.usd(1), cycles.tokens(500)]}
TOOLS = {"budget_left", "budget_check", "budget_reserve", "budget_commit", "budget_release"}


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[cycles.EmbeddedServer]:
    """A server over HTTP, and the variables that point to it."""
    with cycles.EmbeddedServer(budgets=BUDGETS) as server, server.listen() as url:
        monkeypatch.setenv("CYCLES_BASE_URL", url)
        monkeypatch.setenv("CYCLES_API_KEY", server.api_key)
        monkeypatch.setenv("CYCLES_TENANT", "acme")
        monkeypatch.setenv("CYCLES_JOURNAL_DIR", str(tmp_path))
        yield server


def spent(ledger: cycles.EmbeddedServer) -> tuple[int, int]:
    """Return what the agent has spent and what is reserved, in microcents."""
    balance = ledger.ledger.balance("tenant:acme/agent:bot", "USD_MICROCENTS")
    return getattr(balance.spent, "amount", 0), getattr(balance.reserved, "amount", 0)


def command(*arguments: str) -> list[str]:
    return ["-m", "cycles", "mcp", "--subject", "agent=bot", *arguments]


@contextlib.asynccontextmanager
async def over_stdio(*arguments: str) -> AsyncIterator[Client]:
    parameters = StdioServerParameters(command=sys.executable, args=command(*arguments), env=dict(os.environ))
    async with Client(stdio_client(parameters)) as session:
        yield session


async def call(session: Client, tool: str, **arguments: Any) -> Any:
    """Call a tool; return what it returned, or the text of its error."""
    result = await session.call_tool(tool, arguments)
    text = result.content[0].text  # type: ignore[union-attr]
    return text if result.is_error else json.loads(text)


async def test_a_session_over_stdin(ledger: cycles.EmbeddedServer) -> None:
    async with over_stdio() as session:
        assert {tool.name for tool in (await session.list_tools()).tools} == TOOLS
        assert await call(session, "budget_left") == {"USD": "1.00USD", "TOKENS": "500TOKENS"}
        assert await call(session, "budget_check", estimate="0.40USD", action=ACTION) == {"allowed": True}
        assert spent(ledger) == (0, 0)
        made = await call(session, "budget_reserve", estimate="0.40USD", action=ACTION)
        assert made["allowed"] is True
        assert spent(ledger) == (0, 40_000_000)
        assert await call(session, "budget_left") == {"USD": "0.60USD", "TOKENS": "500TOKENS"}
        assert await call(session, "budget_commit", id=made["id"], actual="0.32USD") == {"committed": "0.32USD"}
        assert spent(ledger) == (32_000_000, 0)
        other = await call(session, "budget_reserve", estimate="0.40USD", action=ACTION, ttl_s=60)
        assert await call(session, "budget_release", id=other["id"]) == {"released": True}
        denied = await call(session, "budget_reserve", estimate="0.90USD", action=ACTION)
        assert denied == {"allowed": False, "reason": "BUDGET_EXCEEDED"}
        assert await call(session, "budget_check", estimate="0.90USD", action=ACTION) == denied
        assert spent(ledger) == (32_000_000, 0)


async def test_what_is_open_when_the_session_ends_is_released(ledger: cycles.EmbeddedServer) -> None:
    async with over_stdio() as session:
        for _ in range(2):
            await call(session, "budget_reserve", estimate="0.10USD", action=ACTION)
        assert spent(ledger) == (0, 20_000_000)
    assert spent(ledger) == (0, 0)


def test_a_host_that_disappears_holds_nothing(ledger: cycles.EmbeddedServer) -> None:
    """Its pipe breaks: nothing tells the server but the end of its input."""
    process = subprocess.Popen([sys.executable, *command()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    version = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    reserve = {"name": "budget_reserve", "arguments": {"estimate": "0.10USD", "action": ACTION}}
    for message in (
        {"id": 1, "method": "initialize", "params": version},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": reserve},
    ):
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        process.stdin.flush()
    while json.loads(process.stdout.readline()).get("id") != 2:
        pass
    assert spent(ledger) == (0, 10_000_000)
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()
    assert spent(ledger) == (0, 0)


async def test_30_reservations_in_parallel_never_overspend(ledger: cycles.EmbeddedServer) -> None:
    results: list[Any] = []
    async with over_stdio() as session:

        async def one() -> None:
            made = await call(session, "budget_reserve", estimate="0.05USD", action=ACTION)
            results.append(made["allowed"])
            if made["allowed"]:
                assert await call(session, "budget_commit", id=made["id"], actual="0.05USD") == {"committed": "0.05USD"}

        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(one)
    assert spent(ledger) == (5_000_000 * sum(results), 0)
    assert sum(results) == 20


async def test_read_only_has_two_tools(ledger: cycles.EmbeddedServer) -> None:
    async with over_stdio("--read-only") as session:
        assert {tool.name for tool in (await session.list_tools()).tools} == {"budget_left", "budget_check"}


async def test_max_limits_one_reservation(ledger: cycles.EmbeddedServer) -> None:
    async with over_stdio("--max", "0.20USD") as session:
        said = {"allowed": False, "reason": "one reservation may be at most 0.20USD"}
        assert await call(session, "budget_reserve", estimate="0.21USD", action=ACTION) == said
        assert await call(session, "budget_check", estimate="0.21USD", action=ACTION) == said
        unit = {"allowed": False, "reason": "a reservation must be in USD"}
        assert await call(session, "budget_reserve", estimate="5TOKENS", action=ACTION) == unit
        assert (await call(session, "budget_reserve", estimate="0.20USD", action=ACTION))["allowed"] is True


async def test_wrong_calls_are_errors_for_the_model_and_reserve_nothing(ledger: cycles.EmbeddedServer) -> None:
    async with over_stdio() as session:
        for tool, arguments, says in (
            (
                "budget_reserve",
                {"estimate": "much", "action": ACTION},
                "cannot read an amount from 'much'; write it like \"0.40USD\"",
            ),
            ("budget_reserve", {"estimate": "-1USD", "action": ACTION}, "is negative"),
            ("budget_reserve", {"estimate": "1", "action": ACTION}, "names no unit"),
            ("budget_reserve", {"estimate": "1USD", "action": "search"}, "action must be KIND/NAME"),
            ("budget_check", {"estimate": "1USD", "action": f"k/{'x' * 257}"}, "with at most 64 and 256 characters"),
            ("budget_reserve", {"estimate": "1USD", "action": ACTION, "ttl_s": 0}, "ttl_s must be an integer"),
            ("budget_check", {"estimate": "-1USD", "action": ACTION}, "is negative"),
            ("budget_commit", {"id": "nonsense", "actual": "1USD"}, "there is no open reservation 'nonsense'"),
            ("budget_release", {"id": "nonsense"}, "there is no open reservation 'nonsense'"),
        ):
            said = await call(session, tool, **arguments)
            assert isinstance(said, str), said
            assert says in said
            assert [secret for secret in ("127.0.0.1", "acme", ledger.api_key) if secret in said] == []
        assert spent(ledger) == (0, 0)
        made = await call(session, "budget_reserve", estimate="0.10USD", action=ACTION)
        assert "actual is in TOKENS" in await call(session, "budget_commit", id=made["id"], actual="5TOKENS")
        assert "is negative" in await call(session, "budget_commit", id=made["id"], actual="-1USD")
        assert await call(session, "budget_commit", id=made["id"], actual="0.10USD") == {"committed": "0.10USD"}
        assert "was committed or released" in await call(session, "budget_commit", id=made["id"], actual="0.10USD")
        assert spent(ledger) == (10_000_000, 0)


@contextlib.contextmanager
def over_http() -> Iterator[tuple[str, str]]:
    """Yield address and key of a server."""
    process = subprocess.Popen([sys.executable, *command("--http", "0")], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        url = re.search(r"http://\S+", process.stderr.readline())
        key = re.search(r"Bearer (\S+)", process.stderr.readline())
        assert url is not None
        assert key is not None
        yield url[0], key[1]
    finally:
        process.terminate()
        rest = process.communicate(timeout=300)[1]
        assert process.returncode == 0, rest


async def test_a_session_over_http_needs_the_key(ledger: cycles.EmbeddedServer) -> None:
    from mcp.client.streamable_http import streamable_http_client

    with over_http() as (url, key):
        async with httpx.AsyncClient() as plain:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": key}):
                found = await plain.post(url, json={}, headers=headers)
                assert found.status_code == 401
        keyed: Any = httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60)
        async with (
            keyed as http,
            Client(streamable_http_client(url, http_client=http)) as session,
        ):
            made = await call(session, "budget_reserve", estimate="0.40USD", action=ACTION)
            left = await call(session, "budget_reserve", estimate="0.10USD", action=ACTION)
            assert left["allowed"] is True
            assert await call(session, "budget_commit", id=made["id"], actual="0.32USD") == {"committed": "0.32USD"}
        assert spent(ledger) == (32_000_000, 10_000_000)
    assert spent(ledger) == (32_000_000, 0)


def test_wrong_usage_exits_2(ledger: cycles.EmbeddedServer) -> None:
    for arguments in (["--max", "much"], ["--http", "x"], ["--mcp-key", "k"], ["--subject", "nonsense"]):
        ran = subprocess.run([sys.executable, *command(*arguments)], capture_output=True, text=True, timeout=300)
        assert (ran.returncode, ran.stdout) == (2, "")
