"""`cycles mcp` without the package mcp: its tools, its key for HTTP, and what is released at the end of a session."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest

import cycles
from cycles.cli._mcp_desk import Desk
from tests.operators.conftest import Cycles
from tests.support.waiting import until

ACTION = "tool.call/web_search"


class ToolError(Exception):
    """What a tool raises for the model."""


class FakeServer:
    """An MCP server of which only the tools are known."""

    def __init__(self, name: str, *, instructions: str, version: str) -> None:
        self.tools: dict[str, Callable[..., Any]] = {}

    def tool(self) -> Callable[[Any], Any]:
        def add(function: Any) -> Any:
            self.tools[function.__name__] = function
            return function

        return add


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the tools, with a fake of the package mcp."""
    modules = {name: ModuleType(name) for name in ("mcp", "mcp.server", "mcp.server.mcpserver")}
    errors: Any = ModuleType("mcp.server.mcpserver.exceptions")
    server: Any = modules["mcp.server.mcpserver"]
    server.MCPServer, errors.ToolError = FakeServer, ToolError
    monkeypatch.setattr(FakeServer, "__class_getitem__", classmethod(lambda cls, _: cls), raising=False)
    for name, each in {**modules, errors.__name__: errors}.items():
        monkeypatch.setitem(sys.modules, name, each)
    place = Path(cycles.__file__).parent / "cli" / "_mcp_server.py"
    spec = importlib.util.spec_from_file_location("cycles.cli._mcp_server", place)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def desk(server: cycles.EmbeddedServer) -> Iterator[Desk]:
    with server.client(tenant="acme", journal=False) as client:
        yield Desk(client, {"agent": "bot"}, clock=lambda: 0.0)


def reserved(server: cycles.EmbeddedServer) -> int:
    """Return what the agent holds, in microcents."""
    return getattr(server.ledger.balance("tenant:acme/agent:bot", "USD_MICROCENTS").reserved, "amount", 0)


def test_the_tools_reserve_commit_and_release(module: Any, desk: Desk, server: cycles.EmbeddedServer) -> None:
    tools = module.server_of(desk, read_only=False).tools

    async def act() -> None:
        assert (await tools["budget_check"]("0.40USD", ACTION))["allowed"]
        one, other = [(await tools["budget_reserve"]("0.40USD", ACTION, 60))["id"] for _ in range(2)]
        assert one != other
        assert reserved(server) == 80_000_000
        assert await tools["budget_commit"](one, "0.30USD") == {"committed": "0.30USD"}
        assert await tools["budget_release"](other) == {"released": True}
        assert (await tools["budget_left"]())["USD"] == "0.70USD"
        with pytest.raises(ToolError, match="there is no open reservation"):
            await tools["budget_commit"](one, "0.30USD")

    anyio.run(act)
    assert set(module.server_of(desk, read_only=True).tools) == {"budget_left", "budget_check"}


def test_a_reservation_of_a_call_that_the_host_gives_up_is_released(
    module: Any, desk: Desk, server: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve, begun, go = desk.reserve, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        begun.set()
        assert go.wait(60)
        return reserve(*arguments)

    monkeypatch.setattr(desk, "reserve", slow)
    tools = module.server_of(desk, read_only=False).tools

    async def act(estimate: str) -> None:
        begun.clear()
        go.clear()
        async with anyio.create_task_group() as host:
            host.start_soon(tools["budget_reserve"], estimate, ACTION, 60)
            await anyio.to_thread.run_sync(begun.wait, 60)
            host.cancel_scope.cancel()
            go.set()

    anyio.run(act, "0.40USD")
    assert (len(server.requests.of("reserve")), reserved(server)) == (1, 0)
    anyio.run(act, "40USD")  # it is denied: nothing is to be released
    assert [request.operation for request in server.requests] == ["reserve", "release", "reserve"]


def test_a_request_without_the_key_is_401(module: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def statuses(*given: str | None) -> list[int]:
        transport = httpx.ASGITransport(module.KeyRequired(app, "s3cret"))
        async with httpx.AsyncClient(transport=transport, base_url="http://mcp") as client:
            headers = [{} if each is None else {"Authorization": each} for each in given]
            return [(await client.post("/mcp", headers=each)).status_code for each in headers]

    found = asyncio.run(statuses("Bearer s3cret", None, "Bearer s3cre", "s3cret", "Bearer s3cret2", ""))
    assert found == [204, 401, 401, 401, 401, 401]


# --- the command


class Session:
    """The tools of one session: `run` and the HTTP server call `use` with them."""

    def __init__(self, use: Callable[[Desk], Any]) -> None:
        self.use = use
        self.seen: list[Any] = []

    def server_of(self, desk: Desk, *, read_only: bool) -> Session:
        self.seen.append(("read only", read_only))
        self.desk = desk
        return self

    def run(self, transport: str) -> None:
        self.seen.append(transport)
        self.use(self.desk)

    def streamable_http_app(self) -> str:
        return "app"


def session(monkeypatch: pytest.MonkeyPatch, use: Callable[[Desk], Any]) -> Session:
    made = Session(use)
    own = SimpleNamespace(server_of=made.server_of, KeyRequired=lambda app, key: (app, key))
    monkeypatch.setitem(sys.modules, "cycles.cli._mcp_server", own)
    return made


def test_what_is_open_at_the_end_of_a_session_is_released(
    run_here: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def use(desk: Desk) -> None:
        desk.reserve("0.40USD", ACTION, 60, "a")
        held.append(reserved(configured))
        reasons.append(desk.check("0.60USD", ACTION).get("reason"))

    reasons: list[Any] = []
    made = session(monkeypatch, use)
    ran = run_here("mcp", "--subject", "agent=bot", "--max", "0.50USD")
    assert (ran.status, ran.out, held, reserved(configured)) == (0, "", [40_000_000], 0)
    assert reasons == ["one reservation may be at most 0.50USD"]
    assert made.seen == [("read only", False), "stdio"]
    made.use = lambda desk: None
    assert run_here("mcp", "--read-only").status == 0
    assert made.seen[2:] == [("read only", True), "stdio"]


def test_over_http_each_session_has_a_key_and_what_is_left_is_released_in_time(
    run_here: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, apps, ports = [0.0], list[Any](), list[int]()

    class Server:
        def __init__(self, config: Any) -> None:
            apps.append(config.app)

        async def serve(self, sockets: Any) -> None:
            [sock] = sockets
            ports.append(sock.getsockname()[1])
            made.desk.reserve("0.40USD", ACTION, 60, "a")
            now[0] += 61.0
            await asyncio.to_thread(until, lambda: reserved(configured) == 0, 20)
            sock.close()

    monkeypatch.setattr("cycles.cli.mcp.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("cycles.cli.mcp._CHECK_S", 0.001)
    monkeypatch.setattr("uvicorn.Server", Server)
    monkeypatch.setattr("uvicorn.Config", lambda app, **_: SimpleNamespace(app=app))
    made = session(monkeypatch, lambda desk: None)
    ran = run_here("mcp", "--subject", "agent=bot", "--http", "0", "--mcp-key", "s3cret")
    assert (ran.status, apps) == (0, [("app", "s3cret")])
    assert ran.err.splitlines() == [
        f"MCP server on http://127.0.0.1:{ports[0]}/mcp",
        "requests need the header Authorization: Bearer s3cret",
    ]
    for _ in range(2):
        assert run_here("mcp", "--subject", "agent=bot", "--http", "0").status == 0
    assert len({key for _, key in apps}) == 3
    assert min(len(key) for _, key in apps[1:]) >= 32


def test_a_key_needs_http(run_here: Cycles, configured: cycles.EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    session(monkeypatch, lambda desk: None)
    ran = run_here("mcp", "--mcp-key", "k")
    assert (ran.status, "--mcp-key needs --http PORT" in ran.err) == (2, True)
