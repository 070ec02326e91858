"""The FastMCP middleware in a real server with a client in memory: sums, denials, caps, failures, claims."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

import cycles
from tests.integrations.conftest import Ledger
from tests.support.waiting import set_by

pytest.importorskip("fastmcp", reason="fastmcp is not installed: run make test-integrations")

from fastmcp import Client, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.tools import ToolResult

import cycles.integrations.fastmcp as module
from cycles.integrations.fastmcp import CyclesMiddleware

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore")]

TOKENS = cycles.tokens


def server_with(client: cycles.Cycles | None, **options: Any) -> Any:
    """Return a server with tools that the middleware guards."""
    mcp: Any = FastMCP("tools")

    @mcp.tool
    async def search(query: str) -> str:
        if query == "fail":
            raise RuntimeError("no network")
        return f"found {query}"

    @mcp.tool
    def count(text: str) -> int:
        return len(text)

    @mcp.tool
    async def pay(amount: int, fail: bool = False) -> str:
        guard = cycles.current_guard()
        assert guard is not None
        guard.spend(TOKENS(amount))
        if fail:
            raise RuntimeError("paid, then failed")
        return "paid"

    mcp.add_middleware(CyclesMiddleware(client, **options))
    return mcp


async def call(mcp: Any, tool: str = "search", **arguments: Any) -> Any:
    async with Client(mcp) as connected:
        return await connected.call_tool(tool, arguments or {"query": "x"})


async def test_each_tool_call_is_charged(client: cycles.Cycles, ledger: Ledger) -> None:
    mcp = server_with(client, tool_budget={"search": TOKENS(3), "count": TOKENS(4)})
    async with Client(mcp) as connected:
        assert (await connected.call_tool("search", {"query": "x"})).data == "found x"
        assert (await connected.call_tool("count", {"text": "four"})).data == 4
    assert ledger.spent() == 7
    assert [(row.action.kind, row.action.name) for row in ledger.rows()] == [
        ("tool.call", "search"),
        ("tool.call", "count"),
    ]
    assert ledger.metadata() == [{"actual_source": "estimate"}] * 2


async def test_a_tool_that_the_mapping_does_not_name_is_not_guarded(client: cycles.Cycles, ledger: Ledger) -> None:
    assert (await call(server_with(client, tool_budget={"count": TOKENS(4)}))).data == "found x"
    assert ledger.rows() == []


async def test_callables_get_the_context_and_the_result(client: cycles.Cycles, ledger: Ledger) -> None:
    mcp = server_with(
        client,
        tool_budget=lambda context: TOKENS(len(context.message.arguments["query"]) * 20),
        tool_actual=lambda context, result: TOKENS(len(result.content[0].text)),
        subject=lambda context: {"agent": context.message.name},
    )
    await call(mcp, query="four")
    assert ledger.spent() == len("found four")
    [row] = ledger.rows()
    assert (row.reserved, row.subject.agent) == (TOKENS(80), "search")


async def test_spend_inside_the_tool_is_committed(client: cycles.Cycles, ledger: Ledger) -> None:
    mcp = server_with(client, tool_budget=TOKENS(9))
    await call(mcp, "pay", amount=2)
    with pytest.raises(ToolError):
        await call(mcp, "pay", amount=4, fail=True)
    assert ledger.spent() == 6


@pytest.mark.parametrize("on_denied", [None, "message", lambda error, context: f"no {context.message.name}"])
async def test_a_denied_call_is_an_error_for_the_client(client: cycles.Cycles, ledger: Ledger, on_denied: Any) -> None:
    mcp = server_with(client, tool_budget={"search": TOKENS(2_000_000)}, on_denied=on_denied)
    async with Client(mcp) as connected:
        with pytest.raises(ToolError) as raised:
            await connected.call_tool("search", {"query": "x"})
        assert (await connected.call_tool("count", {"text": "abc"})).data == 3, "the connection stays open"
    text = str(raised.value)
    assert text == "no search" if callable(on_denied) else "BUDGET_EXCEEDED" in text
    assert "acme" not in text
    assert ledger.spent() == 0


async def test_a_denied_call_can_raise(client: cycles.Cycles, ledger: Ledger) -> None:
    mcp = server_with(client, tool_budget=TOKENS(2_000_000), on_denied="raise")
    with pytest.raises(cycles.BudgetExceededError):
        await mcp.call_tool("search", {"query": "x"})
    assert ledger.spent() == 0


async def test_a_budget_that_cannot_be_checked_is_an_error_without_its_cause(
    client: cycles.Cycles, server: cycles.EmbeddedServer
) -> None:
    server.faults.status("reserve", 500, times=None)
    with pytest.raises(ToolError) as raised:
        await call(server_with(client, tool_budget=TOKENS(3)))
    assert str(raised.value) == "The budget of this call cannot be checked now. Try it again later."
    assert raised.value.__cause__ is None


async def test_a_tool_that_the_caps_forbid_is_not_called(
    client: cycles.Cycles, server: cycles.EmbeddedServer, ledger: Ledger
) -> None:
    server.ledger.set_budget("tenant:acme", TOKENS(1000), caps={"tool_denylist": ["search"]})
    with pytest.raises(ToolError, match="TOOL_NOT_ALLOWED"):
        await call(server_with(client, tool_budget=TOKENS(5)))
    assert ledger.spent() == 0


async def test_a_call_that_fails_is_released(client: cycles.Cycles, ledger: Ledger) -> None:
    mcp = server_with(client, tool_budget=TOKENS(5))
    for arguments in ({"query": "fail"}, {"wrong": 1}):
        with pytest.raises(ToolError):
            await call(mcp, **arguments)
    assert ledger.spent() == 0
    assert {row.status for row in ledger.rows()} == {"RELEASED"}


@pytest.mark.parametrize("kind", ["error", "question", "task"])
async def test_a_result_that_is_no_work_is_released(client: cycles.Cycles, ledger: Ledger, kind: str) -> None:
    class Question(ToolResult):
        input_required: Any = None

    class Failed(ToolResult):
        is_error: bool = True

    results: dict[str, Any] = {
        "error": Failed(content="failed"),
        "question": Question(content="who?"),
        "task": object(),
    }

    class Message:
        name = "search"

    class Context:
        message = Message()

    async def call_next(_: Any) -> Any:
        result = results[kind]
        if kind == "error":
            result.is_error = True
        return result

    middleware = CyclesMiddleware(client, tool_budget=TOKENS(5))
    context: Any = Context()
    assert await middleware.on_call_tool(context, call_next) is results[kind]
    assert ledger.spent() == 0


async def test_claims_of_the_token_are_levels_of_the_subject(
    client: cycles.Cycles, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Token:
        claims = {"sub": "poor", "team": "a", "unused": "x"}  # noqa: RUF012

    monkeypatch.setattr(module, "get_access_token", Token)
    claims = {"sub": "agent", "team": "dimensions.team", "missing": "workspace"}
    mcp = server_with(client, tool_budget=TOKENS(3), claims=claims, subject={"dimensions": {"via": "mcp"}})
    await call(mcp)
    [row] = ledger.rows()
    assert (row.subject.agent, dict(row.subject.dimensions)) == ("poor", {"team": "a", "via": "mcp"})
    assert ledger.spent(scope="tenant:acme/agent:poor") == 3
    Token.claims = {"sub": "not a level: /"}
    with pytest.raises(ToolError, match="cannot be identified"):
        await call(mcp)
    assert len(ledger.rows()) == 1


async def test_repeated_calls_are_charged_each_time(client: cycles.Cycles, ledger: Ledger) -> None:
    mcp = server_with(client, tool_budget=TOKENS(3))
    for _ in range(2):  # each new connection begins with the same request ids
        await call(mcp)
    assert ledger.spent() == 6


async def test_a_cancelled_call_is_released(client: cycles.Cycles, ledger: Ledger) -> None:
    called = asyncio.Event()
    mcp = server_with(client, tool_budget=TOKENS(3))

    @mcp.tool
    async def wait() -> str:
        called.set()
        await asyncio.Event().wait()
        return ""

    async with Client(mcp) as connected:
        task = asyncio.create_task(connected.call_tool("wait", {}))
        await set_by(task, called)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with asyncio.timeout(60):
        while list(client.reservations(status="ACTIVE")):
            await asyncio.sleep(0)
    assert ledger.spent() == 0


async def test_thirty_calls_at_once(client: cycles.Cycles, ledger: Ledger) -> None:
    async with Client(server_with(client, tool_budget=TOKENS(3))) as connected:
        await asyncio.gather(*(connected.call_tool("search", {"query": str(n)}) for n in range(30)))
    assert ledger.spent() == 90


async def test_a_mounted_server_is_charged_by_the_middleware_around_it(client: cycles.Cycles, ledger: Ledger) -> None:
    outer: Any = FastMCP("outer")
    outer.add_middleware(CyclesMiddleware(client, tool_budget=TOKENS(3)))
    inner: Any = FastMCP("inner")

    @inner.tool
    def search(query: str) -> str:
        return f"found {query}"

    outer.mount(inner)
    assert (await call(outer)).data == "found x"
    assert ledger.spent() == 3


def test_wrong_options_are_rejected_when_the_middleware_is_made(client: cycles.Cycles) -> None:
    with pytest.raises(TypeError, match="unknown option 'ttl'"):
        CyclesMiddleware(client, tool_budget=TOKENS(1), ttl=5)  # type: ignore[call-arg]
    wrongs: list[dict[str, Any]] = [
        {"tool_budget": {"search": 5}}, {"on_denied": "ignore"}, {"ttl_ms": -1}, {"claims": {"sub": "user"}}
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(cycles.InvalidRequestError):
            CyclesMiddleware(client, **{"tool_budget": TOKENS(1), **wrong})


def test_without_the_library_the_error_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['fastmcp'] = None\n"
        "try:\n    import cycles.integrations.fastmcp\nexcept ImportError as error:\n    print(error)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "pip install 'cycles-sdk[fastmcp]'" in told
